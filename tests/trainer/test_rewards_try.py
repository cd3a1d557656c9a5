"""Rewards tried without a model."""

import json
from pathlib import Path

import pytest
from launching import resolved, sums

from trainer.contract.exits import RunError
from trainer.tryout import main, try_rewards


@pytest.fixture(autouse=True)
def samples_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def run_of(tmp_path: Path, *rewards: dict[str, object]):
    data = sums(tmp_path / "sums.jsonl")
    return resolved(Path("/no/model"), data, tmp_path / "out", 1, 1, rewards=list(rewards))


def test_right_wrong_and_empty_completions_are_scored(tmp_path: Path) -> None:
    """Each row is scored for the gold answer, another number and an empty text; flat and failing rewards are named."""
    run = run_of(tmp_path, {"name": "correct"}, {"name": "format", "weight": 0.5}, {"python": "reward_samples:raises"})
    lines = try_rewards(run, 2).splitlines()
    assert lines == [
        'row 1: 0 + 0 = → "0"',
        'row 2: 1 + 1 = → "2"',
        "",
        "row  completion  correct  format  raises  total",
        "  1       right        1       1       –      –",
        "  1       wrong        0       1       –      –",
        "  1       empty        0       0       –      –",
        "  2       right        1       1       –      –",
        "  2       wrong        0       1       –      –",
        "  2       empty        0       0       –      –",
        "",
        "weights: correct 1, format 0.5, raises 1",
        "raises failed: KeyError: 'solution'",
    ]


def test_a_reward_that_tells_nothing_apart_is_named(tmp_path: Path) -> None:
    """A reward that gives the right and the wrong answer the same score is pointed at, for a person to judge."""
    run = run_of(tmp_path, {"name": "correct"}, {"python": "reward_samples:platform"})
    assert try_rewards(run, 1).splitlines()[-1] == "platform gave every completion the same"


def test_what_cannot_be_had_ends_with_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing data and rewards that cannot be imported are told as the trainer tells them."""
    run = run_of(tmp_path, {"python": "reward_samples:brevty"})
    (tmp_path / "run.json").write_text(run.to_json())
    assert main(["--rewards-try", str(tmp_path / "run.json")]) == 5
    assert "rewards[0].python: 'reward_samples:brevty'" in capsys.readouterr().err
    gone = json.loads(run.to_json())
    gone["data"]["train"] = "/no/such.jsonl"
    with pytest.raises(RunError, match=r"data.train: /no/such.jsonl cannot be read"):
        try_rewards(type(run).from_json(json.dumps(gone)), 1)
