"""Dynamic sampling: which groups are chosen, by hand; the same run on other passes and processes, stopped or not."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import Launched, resolved, sums

from trainer.asking import Answers, Asker
from trainer.contract.run import RunConfig
from trainer.data import Question
from trainer.experience import Experience, Table
from trainer.learning import Learner
from trainer.rewards import RewardSet
from trainer.rollout import StopStrings
from trainer.selection import choose, deal

ROLLOUT = {"batch_size": 4, "num_pre_q": 2, "prompt_batch_size": 1, "global_length": 32, "max_length_sample": 16}


def run_of(folder: Path, **tree: Any) -> RunConfig:
    """Two prompts a step, two completions each, in passes of one prompt."""
    return resolved(Path("m"), Path("d"), folder, 1, 1, rollout=ROLLOUT, **tree)


def table_of(*groups: list[float]) -> Table:
    """Row number n has n + 1 tokens."""
    totals = np.array(groups, np.float64).ravel()
    lengths = np.arange(1.0, 1 + len(totals))
    return Table(np.ones_like(lengths), lengths, lengths > 2, totals, totals[None], np.zeros((1, len(totals)), bool))


@pytest.mark.parametrize(
    ("groups", "chosen", "trained", "walked"),
    [
        ([[0, 1], [1, 0]], [0, 1], 2, 2),
        ([[0, 0], [1, 0], [1, 1], [2, 0], [0, 1]], [1, 3], 2, 4),
        ([[0, 0], [1, 1], [2, 1], [3, np.nan]], [2, 0], 1, 4),
        ([[0, 0], [1, 1], [2, 2], [3, 3]], [0, 1], 0, 4),
    ],
)
def test_the_first_groups_that_differ_are_chosen(
    groups: list[list[float]], chosen: list[int], trained: int, walked: int, tmp_path: Path
) -> None:
    """Two are wanted. What was sampled after the last one needed is not used; what is missing, an equal one fills up.

    A group with one reward that could be scored has no variance.
    """
    found = choose(table_of(*groups), run_of(tmp_path).batch)
    assert (found.groups.tolist(), found.trained, found.walked) == (chosen, trained, walked)


def test_a_chosen_group_keeps_what_belongs_to_it(tmp_path: Path) -> None:
    """Question, tokens, log-probabilities, end and reward of a row move together; one that only fills up is masked."""
    run = run_of(tmp_path, algorithm={"preset": "dr_grpo", "dynamic_sampling": 2})
    questions = [Question(f"question {number}", (7,), {}) for number in range(4)]
    table = table_of([5, 5], [6, 6], [7, 9], [8, 8])
    rows = [[10 * row + place for place in range(row + 1)] for row in range(8)]
    answers = [
        Answers(
            [questions[n]] * 2,
            rows[2 * n : 2 * n + 2],
            ["", ""],
            np.ones(2, bool),
            [np.float32(ids) / 3 for ids in rows[2 * n : 2 * n + 2]],
        )
        for n in range(4)
    ]
    asker = Asker(None, StopStrings((), lambda ids: f"text of {ids[0]}"), RewardSet(run.rewards, "answer", 1))
    choice = choose(table, run.batch)
    batch = deal(Experience(answers, [], table, questions), choice, run.batch, 0, asker)
    assert [question.text for question in batch.questions] == ["question 2", "question 0"]
    assert [[q.text for q in answers.questions] for answers in batch.answers] == [
        ["question 2"] * 2,
        ["question 0"] * 2,
    ]
    assert [answers.token_ids for answers in batch.answers] == [rows[4:6], rows[0:2]]
    assert [answers.texts for answers in batch.answers] == [["text of 40", "text of 50"], ["text of 0", "text of 10"]]
    assert [answers.finished.tolist() for answers in batch.answers] == [[True, True], [False, False]]
    assert batch.totals.tolist() == [7, 9, 5, 5]
    learned = Learner(run, 0, None, 0, None, None, 0, None).rows(batch)
    assert [(row.advantage, row.trained) for row in learned] == [(-1, True), (1, True), (0, False), (0, False)]
    assert learned[1].rollout_logprobs.tolist() == (np.float32(rows[5]) / 3).tolist()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums(tmp_path_factory.mktemp("data") / "sums.jsonl")


@pytest.fixture(scope="module")
def whole(byte_model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """A finished run of one process: four prompts a step in one pass, half of the data without variance."""
    return launched_of(
        byte_model, data, tmp_path_factory.mktemp("whole"), 1, 4, checkpoint={"every_steps": 1, "keep": 3}
    )


def launched_of(model: Path, data: Path, folder: Path, processes: int, each: int, **tree: Any) -> Launched:
    run = resolved(
        model,
        data,
        folder / "out",
        processes,
        1,
        algorithm={"preset": "dapo", "dynamic_sampling": 2, "mask_truncated": False},
        rewards=[{"python": "reward_samples:letters_of_odd"}],
        rollout={**ROLLOUT, "batch_size": 16, "num_pre_q": 4, "prompt_batch_size": each},
        **tree,
    )
    launched = Launched(run, folder)
    launched.ended = launched.finish()
    return launched


def test_groups_without_variance_are_replaced(whole: Launched) -> None:
    """A step goes on to further prompts until four groups differ or eight prompts were asked; both are seen here."""
    rows = whole.metrics
    found = [
        {name: row[f"dynamic_sampling/{name}"] for name in ("passes", "prompts", "dropped", "trained")} for row in rows
    ]
    assert {row["trained"] == 4 for row in found} == {True, False}
    for row, one in zip(rows, found, strict=True):
        assert one["dropped"] == one["prompts"] - one["trained"]
        assert row["reward/equal_groups"] == pytest.approx(one["dropped"] / one["prompts"])
        assert one["passes"] == 2
        assert one["prompts"] <= 8 if one["trained"] == 4 else one["prompts"] == 8
    assert np.diff([0, *(row["epoch"] * 24 for row in rows)]) == pytest.approx([one["prompts"] for one in found])
    short = next(step for step, one in enumerate(found, 1) if one["trained"] < 4)
    warning = f"step {short}: only {found[short - 1]['trained']:.0f} of 4 groups have different rewards after 8 prompts"
    assert warning in whole.ended[0].out + whole.ended[0].err


def test_a_resumed_run_asks_what_the_whole_one_asks(
    whole: Launched, byte_model: Path, data: Path, tmp_path: Path
) -> None:
    """From the checkpoint of step 1 it ends with every bit of the run that was not stopped."""
    shutil.copytree(whole.folder, tmp_path / whole.folder.name)
    folder = tmp_path / whole.folder.name
    for step in (2, 3):
        shutil.rmtree(folder / f"checkpoints/{step}")
    body = json.loads((folder / "run.json").read_text())
    run = whole.run.model_copy(update={"output_uri": str(tmp_path)})
    (folder / "run.json").write_text(json.dumps(body | {"finished": False, "config": json.loads(run.to_json())}))
    resumed = Launched(run, tmp_path / "scratch", attempt=1)
    ended = resumed.finish()[0]
    assert "resuming after step 1" in ended.out
    assert ended.fingerprint == whole.ended[0].fingerprint
    for ours, theirs in zip(resumed.metrics, whole.metrics, strict=True):
        same = [name for name in theirs if name.startswith(("dynamic", "reward", "update", "epoch"))]
        assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}


@pytest.mark.long
def test_two_processes_in_smaller_passes_choose_the_same(
    whole: Launched, byte_model: Path, data: Path, tmp_path: Path
) -> None:
    """Two processes that ask one prompt a pass train on the same groups, and ask no prompt more than they need."""
    two = launched_of(byte_model, data, tmp_path, 2, 1)
    assert two.ended[0].fingerprint == two.ended[1].fingerprint
    for ours, theirs in zip(two.metrics, whole.metrics, strict=True):
        for name in ("prompts", "dropped", "trained"):
            assert ours[f"dynamic_sampling/{name}"] == theirs[f"dynamic_sampling/{name}"]
        assert ours["dynamic_sampling/passes"] == -(-ours["dynamic_sampling/prompts"] // 2)
        for name in ("reward/total/mean", "epoch", "length/completion/mean", "update/completion_tokens"):
            assert ours[name] == theirs[name]
        for name in ("update/loss", "update/grad_norm", "update/entropy", "update/mismatch_k3"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6)
