"""The chart's rights are what the operator needs: all of them, and no more.

Every right is taken away in turn, and each time something does not come about, and the log says which right is missing.
Of a watch the refusal is all that is asked for: what it would tell, the list after the refusal tells too, only later.
With GRPO_TEST_SCALE=1 a tenth of them is tried.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.controlplane.admission import install_crd
from tests.controlplane.rights import Rights, Verb, manifests, verbs
from tests.controlplane.world import World

SCALE = int(os.environ.get("GRPO_TEST_SCALE") or 1)
EVERY = 1 if SCALE > 1 else 10
AT_ONCE = 4


def test_the_rights_are_enough_and_all_are_needed(kueue: World, record_property: Callable[[str, object], None]) -> None:
    """With all of them every step comes about and nothing is refused; without one, a step fails and it is named."""
    install_crd(kueue)
    every = verbs(manifests("a", "b"))
    assert len(every) == len(set(every)) > 30
    tried = [None, *every[::EVERY]]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = list(pool.map(lambda at: fault(kueue, tried[at], at), range(len(tried))))
    assert [one for one in wrong if one] == []
    record_property("rights taken away", len(tried) - 1)


def fault(world: World, dropped: Verb | None, number: int) -> str | None:
    """What is wrong: with all rights, a step that failed or a refusal; without one, that nobody misses it."""
    rights = Rights(world, f"rights-{number}", dropped)
    try:
        failed = rights.first_failure()
        log = rights.log.read_text()
        if dropped is None:
            return None if failed is None and "Forbidden" not in log else f"{failed} failed: {log[-3000:]}"
        if (failed or dropped[2] == "watch") and rights.names(dropped):
            return None
        return f"{dropped}: {failed or 'nothing'} failed, and it is told: {rights.names(dropped)}; {log[-1000:]}"
    finally:
        rights.end()
