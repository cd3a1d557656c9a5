"""A second run that is interrupted: full counts take long, and so another process of pytest may take half of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from test_interruptions import SEED, Interruptions, interrupt_again_and_again


@pytest.mark.long
def test_another_run_is_interrupted_at_other_moments(
    byte_model: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The same with other random numbers."""
    interrupt_again_and_again(Interruptions(byte_model, tmp_path, SEED + 1), record_property)
