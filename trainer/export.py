"""Export: a trained model as a folder that transformers and vLLM load; by hand, and at the end of a run.

In: a run, one of its checkpoints or a model; or, at the end of a run, its parameters. Out: a Hugging Face folder, whole
or not at all. It refuses to know how the parameters came about.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainer.contract.exits import ExitCode, RunError
from trainer.distributed import together
from trainer.model.checkpoint import SINGLE
from trainer.model.config import ModelConfig
from trainer.model.decoder import Params
from trainer.model.lora import PEFT_WEIGHTS, Lora, write_peft_config
from trainer.model.saving import (
    LARGEST_FILE,
    Stored,
    adapter_tensors,
    stored_tensors,
    write_configuration,
    write_tensors,
)
from trainer.trained import Trained, choose_platform, find

ADAPTER = "adapter"
"""The folder of the adapter inside an export."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What was trained beside a frozen model, and that model's hub id, with its commit, or its folder."""

    params: Params
    lora: Lora
    base: str
    revision: str | None


@dataclass(frozen=True, slots=True)
class Exporter:
    """What an export needs beside the parameters. `source` is the folder that the model came from.

    `writes`: this process writes; of several, one does, and all gather. `beat` is called for every tensor.
    """

    source: Path
    config: ModelConfig
    dtype: str
    writes: bool = True
    beat: Callable[[], None] = lambda: None
    largest_file: int = LARGEST_FILE

    def write(self, params: Params, target: Path, adapter: Adapter | None = None) -> None:
        """Write the folder `target`, in one move at the end. Raises RunError FAILED, in all processes alike.

        An `adapter`, which is merged into `params`, stands beside them in `adapter/` for PEFT, in its own dtype.
        """
        together(lambda: self._write(params, target, adapter))

    def _write(self, params: Params, target: Path, adapter: Adapter | None) -> None:
        partial = target.with_name(f".{target.name}.partial")
        try:
            fault = self._begin(partial, partial / ADAPTER if adapter else partial)
            fault = self._gather(stored_tensors(params, self.config, self.dtype), self.dtype, partial / SINGLE, fault)
            if adapter is not None:
                tensors = adapter_tensors(adapter.params)
                fault = self._gather(tensors, "float32", partial / ADAPTER / PEFT_WEIGHTS, fault)
            if fault is not None:
                raise fault
            if self.writes:
                if adapter is not None:
                    write_peft_config(partial / ADAPTER, adapter.lora, adapter.base, adapter.revision)
                write_configuration(self.source, partial, self.dtype, self.config)
                _move(partial, target)
        except OSError as error:
            with suppress(OSError):
                shutil.rmtree(partial)
            raise RunError(ExitCode.FAILED, _unwritable(target, error)) from error

    def _gather(self, tensors: Sequence[Stored], dtype: str, path: Path, fault: OSError | None) -> OSError | None:
        """Take part in every gather, whatever happened here before; the first fault is kept."""
        writes = self.writes and fault is None
        try:
            write_tensors(
                tensors,
                dtype,
                path.parent,
                writes=writes,
                largest_file=self.largest_file,
                name=path.name,
                beat=self.beat,
            )
        except OSError as error:
            return error
        return fault

    def _begin(self, partial: Path, folder: Path) -> OSError | None:
        """Empty folders to write into; a fault is kept, for the others wait for this process to gather with them."""
        try:
            if self.writes:
                shutil.rmtree(partial, ignore_errors=True)
                folder.mkdir(parents=True)
        except OSError as error:
            return error
        return None


def main(argv: list[str]) -> int:
    """The exit code of `python -m trainer export …`."""
    parser = argparse.ArgumentParser(
        "python -m trainer export", description="Write a trained model as a folder that transformers and vLLM load."
    )
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT", help="a run folder, RUN/checkpoints/STEP, or a model")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write, which must not exist")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: that of the stored weights")
    given = parser.parse_args(argv)
    try:
        _refuse_target(given.out)
        choose_platform()
        found = find(given.source)
        print(export(found, given.out, given.dtype or found.dtype))
    except RunError as error:
        print(error.message, file=sys.stderr)
        return int(error.code)
    return int(ExitCode.DONE)


def export(found: Trained, out: Path, dtype: str) -> str:
    """Write what was found to `out`, and tell so in one line."""
    exporter, adapted = Exporter(found.folder, found.config, dtype), found.adapted()
    if adapted is None:
        exporter.write(found.params(), out)
    else:
        frozen, adapters = adapted
        exporter.write(frozen.merged(adapters), out, Adapter(adapters, frozen.lora, found.base, found.revision))
    after = "" if found.step is None else f" after step {found.step}"
    files = len(list(out.glob("*.safetensors")))
    told = f"{found.config.parameters:,} parameters in {dtype}, {files} file{'s' if files > 1 else ''} of weights"
    if adapted is not None:
        told += f", with the adapter merged, which {out / ADAPTER} holds for PEFT"
    return f"{out}: {found.name}{after}, {told}"


def _refuse_target(out: Path) -> None:
    """Before anything is read: a folder that exists may be someone's, and one that cannot be made wastes the wait."""
    if out.exists() or out.is_symlink():
        raise RunError(ExitCode.INVALID_CONFIG, f"{out}: exists already; name a folder that does not, or remove it")
    try:
        out.mkdir(parents=True)
        out.rmdir()
    except OSError as error:
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, _unwritable(out, error)) from None


def _unwritable(out: Path, error: OSError) -> str:
    return (
        f"{out}: cannot be written ({error.strerror or error}); name a folder on a disk with room, which you may write"
    )


def _move(partial: Path, target: Path) -> None:
    """An earlier attempt of the same run may have come to its end too, and been lost before it could say so."""
    if target.exists():
        shutil.rmtree(target)
    partial.replace(target)
