"""A run that begins from another one's checkpoint: what it takes over, and what cannot be taken."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from buckets import Gate
from launching import resolved

from trainer import bucket as objects
from trainer.checkpoint import Checkpoints, Place
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.contract.run import RunConfig
from trainer.contract.runner import InitFromConfig
from trainer.mesh import build_mesh
from trainer.model.config import read_model_config
from trainer.model.weights import load_params
from trainer.outputs import Standing, write_run_json
from trainer.parent import find_parent, fork, record_of
from trainer.update import TrainState, init_state, make_optimizer


def begun(model: Path, run: RunConfig) -> TrainState:
    mesh = build_mesh(run.batch, jax.devices()[:2])
    params = load_params(model, read_model_config(model), mesh, jnp.dtype(run.precision.params))
    return init_state(params, make_optimizer(run.optimizer, run.steps), mesh)


def run_of(model: Path, output: Path, *sets: str, **tree: Any) -> RunConfig:
    return resolved(model, Path("sums.jsonl"), output, 1, 2, *sets, **tree)


@pytest.fixture(scope="module")
def grown(byte_model: Path) -> TrainState:
    """What training left: other weights, moments, and counts."""
    state = begun(byte_model, run_of(byte_model, Path("out")))
    return jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype) * 3, state)


@pytest.fixture(scope="module")
def folder(byte_model: Path, grown: TrainState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the checkpoints of two steps."""
    process = ProcessConfig(run_of(byte_model, tmp_path_factory.mktemp("out")), "0123abcd", 0, None, 0)
    checkpoints = Checkpoints(process.folder.checkpoints, keep=2)
    write_run_json(process, Standing())
    checkpoints.save(jax.tree.map(jnp.zeros_like, grown), Place(1, 8, "data"))
    checkpoints.save(grown, Place(2, 16, "data"))
    checkpoints.close()
    return Path(process.folder.root)


def parent_of(run: RunConfig, model: Path):
    wanted = run.checkpoint.init_from
    assert wanted is not None
    return find_parent(wanted, run, read_model_config(model)), wanted


def fork_of(byte_model: Path, folder: Path, restore: str, **optimizer: Any) -> tuple[TrainState, TrainState]:
    """The state of a run by itself, and as a fork."""
    origin = {"init_from": {"uri": str(folder), "restore": restore}}
    run = run_of(byte_model, Path("out"), checkpoint=origin, optimizer={"learning_rate": 1e-3} | optimizer)
    alone = begun(byte_model, run)
    return alone, fork(parent_of(run, byte_model)[0], alone, InitFromConfig(**origin["init_from"]))


def test_weights_are_taken_over_and_the_optimizer_begins(byte_model: Path, folder: Path, grown: TrainState) -> None:
    """By default a fork has the parent's weights, laid out as its own, with another optimizer's fresh state."""
    alone, forked = fork_of(byte_model, folder, "Weights", name="lion")
    for ours, theirs, before in zip(*map(jax.tree.leaves, (forked.params, grown.params, alone.params)), strict=True):
        assert np.array_equal(ours, theirs)
        assert ours.sharding == before.sharding
    assert forked.opt_state is alone.opt_state
    assert int(forked.step) == 0


def test_moments_are_taken_over_when_asked_for(byte_model: Path, folder: Path, grown: TrainState) -> None:
    """With All the moments and their count go on; the learning rate and the count of updates begin anew."""
    _, forked = fork_of(byte_model, folder, "All", schedule="cosine", weight_decay=0.1)
    adam, schedule = forked.opt_state[1][0], forked.opt_state[1][-1]
    for ours, theirs in zip(*map(jax.tree.leaves, (adam, grown.opt_state[1][0])), strict=True):
        assert np.array_equal(ours, theirs)
    assert int(adam.count) == 3
    assert (int(schedule.count), int(forked.step)) == (0, 0)


def test_a_step_may_be_named_and_is_recorded(byte_model: Path, folder: Path) -> None:
    """The newest checkpoint, one of its steps, or a checkpoint's folder; run.json says which."""
    for uri, step, named in ((folder, None, 2), (folder, 1, 1), (folder / "checkpoints" / "1", None, 1)):
        run = run_of(byte_model, Path("out"), checkpoint={"init_from": {"uri": str(uri), "step": step}})
        assert record_of(*parent_of(run, byte_model)) == {
            "uri": str(folder / "checkpoints" / str(named)),
            "run_id": "0123abcd",
            "step": named,
            "restore": "Weights",
        }


def test_a_parent_may_lie_in_a_bucket(
    byte_model: Path, folder: Path, grown: TrainState, bucket: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its newest checkpoint is found there, recorded and read; one that does not answer may be asked again."""
    for file in folder.rglob("*"):
        if file.is_file():
            objects.upload(file, f"{bucket}/first/{file.relative_to(folder)}")
    run = run_of(byte_model, Path("out"), checkpoint={"init_from": {"uri": f"{bucket}/first"}})
    parent, wanted = parent_of(run, byte_model)
    assert record_of(parent, wanted)["uri"] == f"{bucket}/first/checkpoints/2"
    forked = fork(parent, begun(byte_model, run), wanted)
    for ours, theirs in zip(*map(jax.tree.leaves, (forked.params, grown.params)), strict=True):
        assert np.array_equal(ours, theirs)
    monkeypatch.setattr(objects, "TRY_SECONDS", 0.5)
    gate.refusal = 503
    with pytest.raises(objects.BucketError, match=r"^checkpoint.init_from.uri: gs://.* did not answer") as silent:
        find_parent(wanted, run, read_model_config(byte_model))
    assert not silent.value.permanent


def test_what_cannot_be_a_parent_is_refused(byte_model: Path, oracles: Path, folder: Path) -> None:
    """A step that was not saved, a model, other weights, another optimizer's moments: each with the way out."""
    cases = (
        (byte_model, {"uri": str(folder), "step": 7}, 5, f"/7: is no committed checkpoint; the newest is {folder}/"),
        (byte_model, {"uri": "/no/run"}, 5, "checkpoint.init_from: /no/run is not a folder on this machine"),
        (byte_model, {"uri": str(byte_model)}, 5, "holds no checkpoint of a run; give a run folder or RUN/checkpoints"),
        (oracles / "qwen2-untied", {"uri": str(folder)}, 2, "has other weights; use that model_path"),
    )
    for model, wanted, code, words in cases:
        run = run_of(model, Path("out"), checkpoint={"init_from": wanted})
        with pytest.raises(RunError) as refused:
            parent_of(run, model)
        assert refused.value.code is ExitCode(code)
        assert words in refused.value.message
    with pytest.raises(RunError) as refused:
        fork_of(byte_model, folder, "All", name="lion")
    assert refused.value.message == (
        "checkpoint.init_from.restore: All needs the parent's optimizer, adamw, and optimizer.name is lion; "
        "use adamw, or Weights"
    )
