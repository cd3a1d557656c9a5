"""Export: a trained model as a folder that transformers and vLLM load; by hand, and at the end of a run.

In: a run, one of its checkpoints or a model; or, at the end of a run, its parameters. Out: a Hugging Face folder, whole
or not at all. It refuses to know how the parameters came about.
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainer.contract.exits import ExitCode, RunError
from trainer.distributed import together
from trainer.model.config import ModelConfig
from trainer.model.decoder import Params
from trainer.model.saving import LARGEST_FILE, stored_tensors, write_configuration, write_tensors
from trainer.trained import Trained, choose_platform, find


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

    def write(self, params: Params, target: Path) -> None:
        """Write the folder `target`, in one move at the end. Raises RunError FAILED, in all processes alike."""
        together(lambda: self._write(params, target))

    def _write(self, params: Params, target: Path) -> None:
        partial = target.with_name(f".{target.name}.partial")
        tensors = stored_tensors(params, self.config, self.dtype)
        try:
            fault = self._begin(partial)
            write_tensors(
                tensors,
                self.dtype,
                partial,
                writes=self.writes and fault is None,
                largest_file=self.largest_file,
                beat=self.beat,
            )
            if fault is not None:
                raise fault
            if self.writes:
                write_configuration(self.source, partial, self.dtype, self.config)
                _move(partial, target)
        except OSError as error:
            with suppress(OSError):
                shutil.rmtree(partial)
            raise RunError(ExitCode.FAILED, _unwritable(target, error)) from error

    def _begin(self, partial: Path) -> OSError | None:
        """An empty folder to write into; a fault is kept, for the others wait for this process to gather with them."""
        try:
            if self.writes:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
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
    Exporter(found.folder, found.config, dtype).write(found.params(), out)
    after = "" if found.step is None else f" after step {found.step}"
    files = len(list(out.glob("*.safetensors")))
    told = f"{found.config.parameters:,} parameters in {dtype}, {files} file{'s' if files > 1 else ''} of weights"
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
