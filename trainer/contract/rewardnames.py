"""How a reward is named: the built-in ones, and the form of a user's own. Knows no configuration and no function."""

import re

BUILT_IN_REWARDS = ("correct", "format", "tags")
PYTHON_REWARD = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def reward_name(name: str | None, python: str | None) -> str:
    """The label of a reward in metrics: its name, or that of its function."""
    return name or (python or "").rpartition(":")[2]
