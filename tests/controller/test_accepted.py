"""Golden acceptances: what `grpoctl validate` says of `accepted/*.yaml` and of the ready jobs, warnings included.

A change of wording is reviewed by its effect: REGENERATE=1 pytest tests/controller/test_accepted.py
"""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli import main
from controller.commands.documents import judge_files

ROOT = Path(__file__).resolve().parents[2]
ACCEPTED = Path(__file__).parent / "accepted"
CASES = sorted(path.stem for path in ACCEPTED.glob("*.yaml"))
READY_JOBS = sorted((ROOT / "configs" / "jobs").glob("*.yaml"))


@pytest.mark.parametrize("case", CASES)
def test_an_accepted_job_is_told_word_for_word(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A valid job is told its machine, its step and what it may lose, in the reviewed words."""
    monkeypatch.chdir(ACCEPTED)
    result = CliRunner().invoke(main, ["validate", f"{case}.yaml"])
    golden = ACCEPTED / f"{case}.txt"
    if os.environ.get("REGENERATE"):
        golden.write_text(result.output, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == result.output
    assert result.exit_code == 0


@pytest.mark.parametrize("path", READY_JOBS, ids=lambda path: path.stem)
def test_a_ready_job_is_valid_and_says_what_it_needs(path: Path) -> None:
    """Each job of configs/jobs is accepted, names the nodes it needs, and says why it fits into memory."""
    (document,) = judge_files([str(path)], ())
    assert [str(violation) for violation in document.violations] == []
    comment = path.read_text(encoding="utf-8").partition("apiVersion")[0]
    assert "# Needs: " in comment
    assert "# Memory: " in comment


@pytest.mark.parametrize("path", [*READY_JOBS, ROOT / "controller/data/job.yaml"], ids=lambda path: path.stem)
def test_a_ready_job_tells_the_model_what_its_rewards_look_for(path: Path) -> None:
    """Where tags are rewarded the system prompt names them: a form that nobody asked for is never sampled."""
    (document,) = judge_files([str(path)], ())
    assert document.resolved is not None
    run = document.resolved.run
    rewarded = {reward.name for reward in run.rewards} & {"format", "tags"}
    assert rewarded
    assert all(tag in (run.data.system_prompt or "") for tag in ("<think>", "</think>", "<answer>", "</answer>"))


@pytest.mark.parametrize("path", READY_JOBS, ids=lambda path: path.stem)
def test_a_ready_job_on_chips_leaves_room_for_activations(path: Path) -> None:
    """Weights, gradients and AdamW's moments in float32, sharded as the mesh says, take at most half of a chip."""
    from controller.tpu import TpuSlice, memory_per_device
    from trainer.contract.models import known_shape

    (document,) = judge_files([str(path)], ())
    assert document.resolved is not None
    resolved = document.resolved
    shape = known_shape(resolved.run.model_path)
    assert shape is not None
    if not isinstance(resolved.devices, TpuSlice):
        return
    layer = shape.hidden * (
        2 * shape.heads * shape.head_dim + 2 * shape.kv_heads * shape.head_dim + 3 * shape.intermediate
    )
    parameters = shape.layers * layer + 2 * shape.vocab * shape.hidden
    mesh = resolved.run.batch.mesh
    state = 16 * parameters / (mesh.fsdp * mesh.tp)
    available = memory_per_device(resolved.devices)
    assert available is not None
    assert state <= available / 2


def test_the_ready_jobs_reach_from_the_smallest_slice_to_two_slices() -> None:
    """Among them are v5e 2x2, two slices of v6e 4x4 and CPU hosts, and Qwen2.5, Qwen3 and Llama."""
    machines, models = set(), set()
    for path in READY_JOBS:
        (document,) = judge_files([str(path)], ())
        assert document.resolved is not None
        devices = document.resolved.devices
        machines.add(
            (getattr(devices, "generation", "cpu"), getattr(devices, "topology", ""), document.resolved.slices)
        )
        models.add(document.resolved.run.model_path)
    assert {("v5e", "2x2", 1), ("v6e", "4x4", 2), ("cpu", "", 1)} <= machines
    assert {f"Qwen/Qwen2.5-{size}-Instruct" for size in ("0.5B", "1.5B", "3B", "7B")} <= models
    assert any(model.startswith("Qwen/Qwen3-") for model in models)
    assert any(model.startswith("meta-llama/") for model in models)
