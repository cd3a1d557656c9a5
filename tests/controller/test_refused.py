"""Golden refusals: every message of `refused/RULE[-variant].yaml`, word for word, in the `.txt` beside it.

A change of wording is reviewed by its effect: REGENERATE=1 pytest tests/controller/test_refused.py
"""

import os
from pathlib import Path

import pytest

from controller.commands.documents import judge_files
from trainer.contract.rules import RULES

REFUSED = Path(__file__).parent / "refused"
CASES = sorted(path.stem for path in REFUSED.glob("*.yaml"))


def rule_of(case: str) -> str:
    """The rule that a case is named after: the longest that begins its name."""
    return max((rule for rule in RULES if f"{case}-".startswith(f"{rule}-")), key=len, default="")


@pytest.mark.parametrize("case", CASES)
def test_a_refused_job_is_told_why_word_for_word(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each refused job breaks the rule that it is named after, and is told all its violations in the reviewed words."""
    monkeypatch.chdir(REFUSED)
    violations = [violation for document in judge_files([f"{case}.yaml"], ()) for violation in document.violations]
    text = "".join(f"{violation} [{violation.rule}]\n" for violation in violations)
    golden = REFUSED / f"{case}.txt"
    if os.environ.get("REGENERATE"):
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text
    assert rule_of(case) in {violation.rule for violation in violations}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_refused_job(rule: str) -> None:
    """A rule without an example of what it refuses is a rule that nobody has seen work."""
    assert rule in CASES


def test_refused_texts_belong_to_refused_jobs() -> None:
    """No text is left behind by a case that is gone."""
    assert sorted(path.stem for path in REFUSED.glob("*.txt")) == CASES
