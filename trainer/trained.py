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
from etils import epath

from trainer import bucket
from trainer.checkpoint import fingerprint, restore_part
from trainer.committed import MARKER, DamagedError, committed_steps, read_marker, read_whole
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.run import RunConfig
from trainer.contract.runfolder import RunFolder
from trainer.hub import Pin
from trainer.inputs import find as find_input
from trainer.mesh import local_mesh
from trainer.model.checkpoint import Checkpoint
from trainer.model.config import ModelConfig, UnsupportedModelError, read_model_config
from trainer.model.decoder import Params
from trainer.model.lora import Frozen, Lora, adapter_shapes, adapter_shardings
from trainer.model.sharding import param_shapes, param_shardings
from trainer.model.source import ModelNotReachableError, at_revision, name_of, resolve_model
from trainer.model.weights import load_params
from trainer.starting import has_tpu

log = logging.getLogger("trainer")


@dataclass(frozen=True, slots=True)
class Trained:
    """A model that can be read. `run` and `step` are None where it is not a checkpoint of a run.

    `folder` is a Hugging Face folder: it holds the weights where there is no step, else what they were before training.
    `dtype` is that of the stored weights, `revision` the hub's commit of the model that a run began with.
    """

    name: str
    folder: Path
    config: ModelConfig
    dtype: str
    run: RunConfig | None
    checkpoint: epath.Path | None
    revision: str | None = None

    @property
    def base(self) -> str:
        """The hub id or folder of the model that the run began with, or of this one."""
        return self.name if self.run is None else base_of(self.run, self.revision)

    @property
    def step(self) -> int | None:
        return None if self.checkpoint is None else int(self.checkpoint.name)

    def params(self, dtype: str | None = None) -> Params:
        """The weights over the devices of this machine, in `dtype` (None: as they are stored), adapters beside them."""
        mesh, wanted = local_mesh(), jnp.dtype(dtype or self.dtype)
        if self.checkpoint is None:
            return load_params(self.folder, self.config, mesh, wanted)
        adapted = self.adapted()
        if adapted is None:
            return _restore(self.checkpoint, param_shapes(self.config), param_shardings(self.config, mesh), wanted)
        frozen, adapters = adapted
        whole: Params = jax.tree.map(lambda leaf: leaf.astype(wanted), frozen.joined(adapters))
        return whole

    def adapted(self) -> tuple[Frozen, Params] | None:
        """The frozen model and the adapters of a checkpoint of a run that trained some; None where it trained none."""
        lora = None if self.run is None else lora_of(self.run)
        if self.checkpoint is None or lora is None:
            return None
        mesh = local_mesh()
        frozen = Frozen(load_params(self.folder, self.config, mesh, jnp.dtype(self.dtype)), lora)
        if fingerprint(frozen.params) != read_marker(self.checkpoint).base:
            raise RunError(
                ExitCode.INPUT_NOT_REACHABLE,
                f"{self.name}: {self.folder} is not what it was when the adapters were trained; bring it back",
            )
        shardings = adapter_shardings(self.config, lora, mesh)
        return frozen, _restore(self.checkpoint, adapter_shapes(self.config, lora), shardings, jnp.float32)


def choose_platform(environ: Mapping[str, str] = os.environ) -> None:
    """Before JAX starts: its CPU where the machine has no accelerator, so that it looks for none."""
    if not environ.get("JAX_PLATFORMS") and not has_tpu() and not Path("/dev/nvidia0").exists():
        jax.config.update("jax_platforms", "cpu")


def lora_of(run: RunConfig) -> Lora | None:
    """The adapters that a run trains; None where it trains the weights themselves."""
    return None if run.lora is None else Lora(run.lora.rank, run.lora.alpha, run.lora.target_modules)


def base_of(run: RunConfig, revision: str | None) -> str:
    """The hub id, without its revision, or the folder of the model that a run began with."""
    return run.model_path if revision is None else run.model_path.partition("@")[0]


def find(what: str) -> Trained:
    """A run folder, a folder RUN/checkpoints/STEP, a Hugging Face folder or a hub id.

    Of a run, the newest committed checkpoint; where it has none, its export. Raises RunError: INPUT_NOT_REACHABLE.
    """
    try:
        return look_up(what)
    except bucket.BucketError as error:
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, str(error)) from error


def look_up(what: str) -> Trained:
    """As `find`, for who may ask a bucket again: raises BucketError where one does not answer."""
    path = bucket.path(what)
    try:
        if _exists(path / "run.json"):
            return _of_run(what, path, None)
        if path.parent.name == "checkpoints" and _exists(path.parent.parent / "run.json"):
            return _of_run(what, path.parent.parent, path)
        return _of_model(what, _model_folder(what))
    except UnsupportedModelError as error:
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, str(error)) from error


def _exists(path: epath.Path) -> bool:
    """Asked of a bucket so that it tells what is wrong, where it is not just absent."""
    return bucket.read(str(path)) is not None if bucket.is_uri(str(path)) else path.exists()


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


def _of_run(what: str, root: epath.Path, checkpoint: epath.Path | None) -> Trained:
    run, revision, model = _read_run(root / "run.json")
    folders = RunFolder(str(root))
    found = newest_checkpoint(epath.Path(folders.checkpoints)) if checkpoint is None else checkpoint
    if found is None and _exists(epath.Path(folders.export) / "config.json"):
        folder = _model_folder(folders.export)
        return Trained(what, folder, read_model_config(folder), Checkpoint(folder).dtype, run, None)
    if found is None:
        fix = "set checkpoint.every_steps, or let it get further"
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, f"{what}: the run has no committed checkpoint; {fix}")
    if checkpoint is not None and (fault := _check_checkpoint(checkpoint)):
        newest = newest_checkpoint(epath.Path(folders.checkpoints))
        fix = "the run has no other" if newest is None else f"the newest is {newest}"
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, f"{what}: {fault}; {fix}")
    pinned = None if model is None else find_input(Pin.of(name_of(run.model_path), model), folders.inputs)
    base = pinned or _model_folder(at_revision(run.model_path, revision))
    return Trained(what, base, read_model_config(base), run.precision.params, run, found, revision)


def newest_checkpoint(folder: epath.Path) -> epath.Path | None:
    """The last step below `folder` whose checkpoint was committed and is whole."""
    for step in reversed(committed_steps(folder)):
        try:
            read_whole(folder / str(step))
            return folder / str(step)
        except DamagedError as error:
            log.warning("%s is damaged (%s): the one before it is used", folder / str(step), error)
    return None


def _check_checkpoint(checkpoint: epath.Path) -> str | None:
    """What is wrong with it; None where it was committed and is whole."""
    if not (checkpoint / MARKER).exists():
        return "is no committed checkpoint"
    try:
        read_whole(checkpoint)
    except DamagedError as error:
        return f"is damaged: {error}"
    return None


def _read_run(path: epath.Path) -> tuple[RunConfig, str | None, Mapping[str, Any] | None]:
    """The run, and of its model the revision and what was recorded of the hub's."""
    try:
        body = json.loads(path.read_text())
        run = RunConfig.from_json(json.dumps(body["config"]))
        return run, body["model_revision"], body.get("inputs", {}).get("model_path")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, f"{path}: cannot be read as a run ({error}); repair it") from None


def _restore(checkpoint: epath.Path, shapes: Any, shardings: Any, dtype: Any) -> Params:
    """The parameters of a checkpoint without the optimizer beside them."""
    like = jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding),
        shapes,
        shardings,
        is_leaf=lambda node: isinstance(node, tuple),
    )
    params: Params = restore_part(checkpoint, {"params": like})["params"]
    return params
