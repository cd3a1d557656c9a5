"""Evaluation with several samples a question, as processes of a pod."""

import json
from pathlib import Path

import pytest
from launching import Launched, resolved, sums

from trainer.contract.run import RunConfig
from trainer.solving import pass_at


def run_of(model: Path, data: Path, out: Path, processes: int, devices: int, mesh: str) -> RunConfig:
    return resolved(
        model,
        data,
        out,
        processes,
        devices,
        "data.overlong=drop",
        steps=1,
        mesh_shape=mesh,
        seed=3,
        rewards=[{"python": "reward_samples:short"}, {"name": "tags"}],
        eval_every_steps=1,
        eval={"samples": 6, "temperature": 0.7},
        optimizer={"learning_rate": 1e-30},
    )


@pytest.fixture(scope="module")
def alone(byte_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("alone")
    launched = Launched(run_of(byte_model, questions(folder), folder / "out", 1, 8, "2,2,2"), folder)
    launched.ended = launched.finish()
    return launched


def questions(folder: Path) -> Path:
    """Eleven sums, and one question that is longer than the prompt bucket."""
    path = sums(folder / "d.jsonl", 11)
    path.write_text(path.read_text() + json.dumps({"question": "1 + " * 20, "answer": "?"}) + "\n")
    return path


def answers(folder: Path, step: int) -> list[dict]:
    files = sorted((folder / f"eval/step-{step:08d}").glob("process-*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return sorted(rows, key=lambda row: (row["question"], row["sample"]))


def test_each_question_has_its_samples_once(alone: Launched) -> None:
    """Eleven questions with six samples each: every pair once, the samples of a question not all alike."""
    rows = answers(alone.folder, 0)
    assert [(row["question"], row["sample"]) for row in rows] == [(q, s) for q in range(11) for s in range(6)]
    assert len({row["completion"] for row in rows[:6]}) > 1


def test_every_evaluation_draws_the_same(alone: Launched) -> None:
    """Two evaluations of a model that did not change are equal: they differ by what was learned alone."""
    assert answers(alone.folder, 1) == answers(alone.folder, 0)


def test_results_are_the_numbers_of_the_answers(alone: Launched) -> None:
    """`results.json` says how was asked, and its pass@k, lengths and finish reasons are those of the rows beside it."""
    rows, results = answers(alone.folder, 0), json.loads((alone.folder / "eval/step-00000000/results.json").read_text())
    assert (results["step"], results["samples"], results["temperature"], results["seed"]) == (0, 6, 0.7, 3)
    metrics = results["metrics"]
    passed = [sum(row["rewards"]["short"] >= 1 for row in rows[start : start + 6]) for start in range(0, 66, 6)]
    assert 0 < sum(passed) < 66
    for k in (1, 2, 4, 6):
        assert metrics[f"eval/pass@{k}"] == pytest.approx(sum(pass_at(k, 6, count) for count in passed) / 11)
    assert metrics["eval/finish/stop"] == pytest.approx(sum(row["finished"] for row in rows) / 66)
    assert metrics["eval/finish/stop"] + metrics["eval/finish/length"] == pytest.approx(1)
    assert metrics["eval/length/completion/mean"] == pytest.approx(sum(row["tokens"] for row in rows) / 66)
    assert (metrics["eval/questions"], metrics["eval/samples"]) == (11, 6)
    assert (metrics["eval/dropped"], metrics["eval/truncated"]) == (1, 0)
    assert {name: alone.metrics[0][name] for name in metrics} == metrics
    assert ", pass@1 " in alone.ended[0].out


def test_mesh_and_processes_do_not_change_an_evaluation(alone: Launched, byte_model: Path, tmp_path: Path) -> None:
    """The same seed on two processes of two devices gives the same answers and numbers as on a 2,2,2 mesh."""
    two = Launched(run_of(byte_model, questions(tmp_path), tmp_path / "out", 2, 2, "1,4,1"), tmp_path)
    two.finish()
    assert answers(two.folder, 0) == answers(alone.folder, 0)
    ours, theirs = two.metrics[0], alone.metrics[0]
    names = {name for name in theirs if name.startswith("eval/")}
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}
