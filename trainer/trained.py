"""What was trained, found again: a run folder, one of its checkpoints, or any model comes in; parameters go out.

For the commands that look at a run from outside. It refuses to know what is done with the parameters, and how a run
goes on.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from trainer.committed import MARKER, DamagedError, committed_steps, read_whole
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.run import RunConfig
from trainer.contract.runfolder import RunFolder
from trainer.mesh import local_mesh
from trainer.model.checkpoint import Checkpoint
from trainer.model.config import ModelConfig, UnsupportedModelError, read_model_config
from trainer.model.decoder import Params
from trainer.model.sharding import param_shapes, param_shardings
from trainer.model.source import ModelNotReachableError, resolve_model
from trainer.model.weights import load_params
from trainer.starting import has_tpu

log = logging.getLogger("trainer")


@dataclass(frozen=True, slots=True)
class Trained:
    """A model that can be read. `run` and `step` are None where it is not a checkpoint of a run.

    `folder` is a Hugging Face folder: it holds the weights where there is no step, else what they were before training.
    `dtype` is that of the stored weights.
    """

    name: str
    folder: Path
    config: ModelConfig
    dtype: str
    run: RunConfig | None
    checkpoint: Path | None

    @property
    def step(self) -> int | None:
        return None if self.checkpoint is None else int(self.checkpoint.name)

    def params(self, dtype: str | None = None) -> Params:
        """The weights over the devices of this machine, in `dtype` (None: as they are stored)."""
        mesh, wanted = local_mesh(), jnp.dtype(dtype or self.dtype)
        if self.checkpoint is None:
            return load_params(self.folder, self.config, mesh, wanted)
        return _restore(self.checkpoint, param_shapes(self.config), param_shardings(self.config, mesh), wanted)


def choose_platform(environ: Mapping[str, str] = os.environ) -> None:
    """Before JAX starts: its CPU where the machine has no accelerator, so that it looks for none."""
    if not environ.get("JAX_PLATFORMS") and not has_tpu() and not Path("/dev/nvidia0").exists():
        jax.config.update("jax_platforms", "cpu")


def find(what: str) -> Trained:
    """A run folder, a folder RUN/checkpoints/STEP, a Hugging Face folder or a hub id.

    Of a run, the newest committed checkpoint; where it has none, its export. Raises RunError: INPUT_NOT_REACHABLE.
    """
    path = Path(what).expanduser()
    try:
        if (path / "run.json").exists():
            return _of_run(what, path, None)
        if path.parent.name == "checkpoints" and (path.parents[1] / "run.json").exists():
            return _of_run(what, path.parents[1], path)
        return _of_model(what, _model_folder(what))
    except UnsupportedModelError as error:
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, str(error)) from error


def _model_folder(model_path: str) -> Path:
    try:
        folder = resolve_model(model_path)
    except ModelNotReachableError as error:
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, str(error).removeprefix("model_path: ")) from error
    if not (folder / "config.json").exists():
        raise RunError(
            ExitCode.INPUT_NOT_REACHABLE,
            f"{model_path}: has neither run.json nor config.json; give a run folder, one of its checkpoints, or a "
            "Hugging Face folder",
        )
    return folder


def _of_model(what: str, folder: Path) -> Trained:
    return Trained(what, folder, read_model_config(folder), Checkpoint(folder).dtype, None, None)


def _of_run(what: str, root: Path, checkpoint: Path | None) -> Trained:
    run, revision = _read_run(root / "run.json")
    folders = RunFolder(str(root))
    found = newest_checkpoint(Path(folders.checkpoints)) if checkpoint is None else checkpoint
    if found is None and (Path(folders.export) / "config.json").exists():
        folder = Path(folders.export)
        return Trained(what, folder, read_model_config(folder), Checkpoint(folder).dtype, run, None)
    if found is None:
        fix = "set checkpoint.every_steps, or let it get further"
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, f"{what}: the run has no committed checkpoint; {fix}")
    if checkpoint is not None and (fault := _check_checkpoint(checkpoint)):
        newest = newest_checkpoint(Path(folders.checkpoints))
        fix = "the run has no other" if newest is None else f"the newest is {newest}"
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, f"{what}: {fault}; {fix}")
    base = _model_folder(run.model_path if revision is None else f"{run.model_path.partition('@')[0]}@{revision}")
    return Trained(what, base, read_model_config(base), run.precision.params, run, found)


def newest_checkpoint(folder: Path) -> Path | None:
    """The last step below `folder` whose checkpoint was committed and is whole."""
    for step in reversed(committed_steps(epath.Path(folder))):
        try:
            read_whole(epath.Path(folder) / str(step))
            return folder / str(step)
        except DamagedError as error:
            log.warning("%s is damaged (%s): the one before it is used", folder / str(step), error)
    return None


def _check_checkpoint(checkpoint: Path) -> str | None:
    """What is wrong with it; None where it was committed and is whole."""
    if not (checkpoint / MARKER).exists():
        return "is no committed checkpoint"
    try:
        read_whole(epath.Path(checkpoint))
    except DamagedError as error:
        return f"is damaged: {error}"
    return None


def _read_run(path: Path) -> tuple[RunConfig, str | None]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return RunConfig.from_json(json.dumps(body["config"])), body["model_revision"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, f"{path}: cannot be read as a run ({error}); repair it") from None


def _restore(checkpoint: Path, shapes: Any, shardings: Any, dtype: Any) -> Params:
    """The parameters of a checkpoint without the optimizer beside them."""
    like = jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding),
        shapes,
        shardings,
        is_leaf=lambda node: isinstance(node, tuple),
    )
    wanted = {"params": like}
    arguments = ocp.args.PyTreeRestore(
        item=wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted), partial_restore=True
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        params: Params = checkpointer.restore((checkpoint / "state").absolute(), args=arguments)["params"]
    return params
