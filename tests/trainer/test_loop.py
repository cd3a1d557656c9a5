"""The loop, as processes of a pod: the same run on any number of processes, and a resumed run equal to a whole one."""

import json
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from launching import Launched, free_port, resolved, sums
from tracked import samples, shown
from wandb_server import serving

from trainer.contract.identity import identity
from trainer.contract.run import RunConfig
from trainer.metricnames import METRICS, metric_of

TWICE = {"ppo_epochs": 2, "beta": 0.05}
"""Updates from the second on, and the divergence from the first model, depend on more of a run's state."""
EXACT = ("step", "epoch", "reward/total/mean", "reward/total/std", "length/completion/mean", "length/truncated")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums(tmp_path_factory.mktemp("data") / "sums.jsonl")


@pytest.fixture(scope="module")
def one_process(byte_model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """A finished run of one process with eight devices, evaluated before, in the middle and at the end."""
    folder = tmp_path_factory.mktemp("one")
    run = resolved(
        byte_model, data, folder / "out", 1, 8, eval_every_steps=2, checkpoint={"every_steps": 2}, train=TWICE
    )
    launched = Launched(run, folder)
    launched.ended = launched.finish()
    return launched


def test_two_processes_train_what_one_does(one_process: Launched, byte_model: Path, data: Path, tmp_path: Path) -> None:
    """Two processes of four devices sample the same tokens; loss, gradient and parameters are the same to rounding."""
    run = resolved(
        byte_model, data, tmp_path / "out", 2, 4, eval_every_steps=2, checkpoint={"every_steps": 3}, train=TWICE
    )
    two = Launched(run, tmp_path)
    first, second = two.finish()
    assert first.fingerprint == second.fingerprint
    for ours, theirs in zip(two.metrics, one_process.metrics, strict=True):
        assert {name: ours[name] for name in EXACT if name in ours} == {
            name: theirs[name] for name in EXACT if name in theirs
        }
        for name in {"update/loss", "update/grad_norm", "update/entropy"} & ours.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6)
        evaluated = {name for name in ours if name.startswith("eval/")}
        assert {name: ours[name] for name in evaluated} == {name: theirs[name] for name in evaluated}


def test_passes_micro_steps_and_mesh_change_nothing(
    one_process: Launched, byte_model: Path, data: Path, tmp_path: Path
) -> None:
    """Two passes and four micro-steps on a 2,2,2 mesh give the samples of one pass, and its update to rounding."""
    run = resolved(
        byte_model,
        data,
        tmp_path / "out",
        1,
        8,
        "rollout.prompt_batch_size=4",
        mesh_shape="2,2,2",
        train={"grad_accum_steps": 4} | TWICE,
        eval_every_steps=3,
        eval_batches=1,
    )
    assert (run.batch.passes, run.batch.micro_steps) == (2, 4)
    cut = Launched(run, tmp_path)
    cut.finish()
    for ours, theirs in zip(cut.metrics[1:], one_process.metrics[1:], strict=True):
        assert {name: ours[name] for name in EXACT} == {name: theirs[name] for name in EXACT}
        for name in ("update/loss", "update/grad_norm", "update/entropy"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6)
    assert [row.get("eval/questions") for row in cut.metrics] == [16, None, None, 16]


def test_a_process_without_a_question_waits_for_the_others(byte_model: Path, tmp_path: Path) -> None:
    """Where the split is shorter than a batch, a process may have no question, and the means are of those asked.

    Of completions of one token, all cut off, nothing is learned, and the weights stay; process 0 tells that, and that
    nobody asked for the tags that are rewarded.
    """
    data = sums(tmp_path / "few.jsonl", 10)
    settings = {
        "steps": 1,
        "eval_every_steps": 1,
        "rewards": [{"name": "correct"}, {"python": "reward_samples:letters"}, {"name": "tags"}],
        "algorithm": {"mask_truncated": True},
    }
    run = resolved(byte_model, data, tmp_path / "out", 2, 1, "rollout.max_length_sample=1", **settings)
    launched = Launched(run, tmp_path)
    first, second = launched.finish()
    before, after = launched.metrics
    assert (before["eval/questions"], after["eval/questions"]) == (10, 10)
    assert (after["update/completion_tokens"], after["length/truncated"]) == (0, 1)
    assert "step 1: no completion was left to learn from; the weights stay as they are" in first.out
    assert "earned anything from tags; ask for <think>…</think> <answer>…</answer> in data.system_prompt" in first.out
    assert "step 1: no completion" not in second.out


def test_a_run_leaves_metrics_completions_and_answers(one_process: Launched) -> None:
    """One row a step with the effective batch and the phases, a sample of completions, every question answered once."""
    rows = one_process.metrics
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert [("eval/questions" in row) for row in rows] == [True, False, True, True]
    assert rows[0]["eval/questions"] == 24
    assert rows[1]["batch/sequences_per_step"] == 32
    assert {"time/rollout_s", "time/rewards_s", "time/update_s", "time/step_s"} <= rows[1].keys()
    folder = one_process.folder
    answered = [json.loads(line) for line in (folder / "eval/step-00000002/process-0.jsonl").read_text().splitlines()]
    assert [answer["question"] for answer in answered] == list(range(24))
    shown = (folder / "completions/step-00000001.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in shown] == [1] * 8
    assert json.loads((folder / "run.json").read_text())["finished"] is True


def test_every_metric_is_in_the_table(one_process: Launched) -> None:
    """A run writes no metric that the table lacks, and each that the table promises to every such row."""
    for row in one_process.metrics:
        assert [name for name in row if metric_of(name) is None] == []
    trained, evaluated = one_process.metrics[1], one_process.metrics[0]
    promised = [metric for metric in METRICS if metric.when in ("", "every row")]
    assert [metric.name for metric in promised if not any(map(metric.fits, trained))] == []
    promised = [metric for metric in METRICS if metric.when == "steps that were evaluated"]
    assert [metric.name for metric in promised if not any(map(metric.fits, evaluated))] == []


def test_the_log_says_who_where_and_how_far(one_process: Launched) -> None:
    """The process introduces itself with its prompts and the effective batch; each step is one line, and that a loss
    near 0 is no fault is told once, with the first.
    """
    out = one_process.ended[0].out
    assert "process 0 (of 1): 8 x cpu, mesh dp 1, fsdp 8, tp 1; prompts 1 to 8 of the 8 in each step\n" in out
    assert one_process.run.batch.summary in out
    assert "step 2/3 | reward" in out
    assert out.index("step 1/3 |") < out.index("A loss near 0 is no fault.") < out.index("step 2/3 |")
    assert out.count("A loss near 0 is no fault.") == 1
    assert "completions of step 1, best to worst of 8:" in out
    assert (one_process.folder / "logs/attempt-0/process-0.log").read_text().count("step 3/3 | reward") == 1


def test_a_finished_run_is_refused_but_not_by_a_restart(one_process: Launched, tmp_path: Path) -> None:
    """The same file again is refused with the way to start afresh; a restarted pod finds nothing left to do."""
    again = Launched(one_process.run, tmp_path).wait()[0]
    assert again.code == 2
    assert again.cause is not None
    assert again.cause.message == (
        f"output.uri: {one_process.folder} holds this run, finished after 3 steps; use --new-run to start afresh, "
        "or more steps to go further"
    )
    assert Launched(one_process.run, tmp_path, attempt=1).wait()[0].code == 0


def test_a_folder_of_another_run_is_refused(one_process: Launched, tmp_path: Path) -> None:
    """The message names the run that holds the folder and the run that wanted it."""
    other = Launched(one_process.run, tmp_path, run_id="0123abcd-another").wait()[0]
    assert other.code == 2
    assert "holds run 0123abcd, and this is run 0123abcd-another" in other.err


def test_a_stopped_and_resumed_run_equals_a_whole_one(
    one_process: Launched, byte_model: Path, data: Path, tmp_path: Path
) -> None:
    """SIGTERM ends with a checkpoint and exit code 10; the second attempt ends with every bit of the whole run.

    TensorBoard and Weights & Biases show the two attempts as one run, each step once; Prometheus scrapes it meanwhile.
    """
    tree = {"eval_every_steps": 2, "checkpoint": {"every_steps": 2}, "wandb_project": "sums", "train": TWICE}
    run = resolved(byte_model, data, tmp_path / "out", 1, 8, **tree)
    with serving() as (server, environ):
        second = _stopped_and_resumed(run, tmp_path, environ, one_process.ended[0].fingerprint)
    kept = [name for name in one_process.metrics[3] if not name.startswith(("time/", "throughput/"))]
    for ours, theirs in zip(second.metrics, one_process.metrics, strict=True):
        assert {name: ours.get(name) for name in kept} == {name: theirs.get(name) for name in kept}
    for metric in ("reward/total/mean", "eval/reward/total/mean"):
        told = [(row["step"], row[metric]) for row in second.metrics if metric in row]
        assert server.history(second.run_id, metric) == told
        assert shown(second.folder / "tensorboard", metric) == [(step, pytest.approx(value)) for step, value in told]


def _stopped_and_resumed(run: RunConfig, tmp_path: Path, environ: dict[str, str], fingerprint: str) -> Launched:
    """The second attempt of a run that was asked to stop during its first steps."""
    first = Launched(run, tmp_path, SECONDS_PER_REWARD="1", **environ)
    assert first.processes[0].stdout is not None
    for line in first.processes[0].stdout:
        if line.startswith("step 1/3"):
            first.processes[0].send_signal(signal.SIGTERM)
            break
    stopped = first.wait()[0]
    assert (stopped.code, stopped.cause.name) == (10, "Preempted")
    assert stopped.cause.step in (1, 2)  # the open step may be finished first
    port = free_port()
    second = Launched(run, tmp_path, attempt=1, **environ, TRAINER_METRICS_PORT=str(port))
    scraped = []
    while second.processes[0].poll() is None:
        with suppress(OSError):
            scraped.append(samples(port))
        time.sleep(0.1)
    resumed = second.finish()[0]
    assert max(found.get(("grpo_step",), 0) for found in scraped) >= stopped.cause.step
    assert ("grpo_reward_mean", "letters") in scraped[-1]
    assert f"resuming after step {stopped.cause.step}, 3 steps" in resumed.out
    assert resumed.fingerprint == fingerprint
    return second


@pytest.mark.long
def test_a_run_goes_further_on_another_machine(
    one_process: Launched, byte_model: Path, data: Path, tmp_path: Path
) -> None:
    """Two steps of two processes, a third of one on another mesh: the samples and the losses of a whole run."""
    output, settings = tmp_path / "out", {"eval_every_steps": 2, "train": TWICE}
    begun = resolved(byte_model, data, output, 2, 2, "steps=2", checkpoint={"every_steps": 2}, **settings)
    first = Launched(begun, tmp_path, run_id=identity(begun))
    first.finish()
    machine = {"mesh_shape": "1,2,2", "checkpoint": {"every_steps": 1, "keep": 1}}
    further = resolved(byte_model, data, output, 1, 4, **machine, **settings)
    assert identity(further) == identity(begun)
    second = Launched(further, tmp_path, run_id=identity(further))
    assert "resuming after step 2, 3 steps" in second.finish()[0].out
    for ours, theirs in zip(second.metrics, one_process.metrics, strict=True):
        assert {name: ours.get(name) for name in EXACT} == {name: theirs.get(name) for name in EXACT}
        for name in {"update/loss", "update/grad_norm", "update/entropy", "update/kl_reference"} & ours.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name
    (change,) = json.loads((second.folder / "run.json").read_text())["changes"]
    assert change["after_step"] == 2
    assert change["changed"]["steps"] == [2, 3]
    assert change["changed"]["batch.mesh.tp"] == [1, 2]
    assert sorted(path.name for path in (second.folder / "checkpoints").iterdir()) == ["3"]


def test_a_fork_begins_with_the_weights_of_its_parent(
    one_process: Launched, byte_model: Path, data: Path, tmp_path: Path
) -> None:
    """Before its first step a fork answers as its parent did after the step that it begins from; it names that one."""
    origin = {"uri": str(one_process.folder), "step": 2}
    settings = {"eval_every_steps": 1, "checkpoint": {"init_from": origin, "every_steps": 1}, "train": TWICE}
    run = resolved(byte_model, data, tmp_path / "out", 1, 8, "steps=1", **settings)
    forked = Launched(run, tmp_path, run_id=identity(run))
    out = forked.finish()[0].out
    checkpoint = f"{one_process.folder}/checkpoints/2"
    assert f"starting from {checkpoint}, 1 steps" in out
    before, parents = forked.metrics[0], one_process.metrics[2]
    answered = [name for name in before if name.startswith("eval/")]
    assert {name: before[name] for name in answered} == {name: parents[name] for name in answered}
    recorded = json.loads((forked.folder / "run.json").read_text())["parent"]
    assert recorded == {"uri": checkpoint, "run_id": one_process.run_id, "step": 2, "restore": "Weights"}
