"""Station 6, enter: a command line comes in, the identity of one process goes out, before anything heavy is loaded.

A pod is given a resolved run.json and its place by environment; on one machine a runner YAML is resolved here.
"""

import argparse
import logging
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.contract.exits import ExitCode, RunError
from trainer.contract.identity import identity
from trainer.contract.process import ENV_RUN_ID, ProcessConfig
from trainer.contract.run import InvalidRunConfigError, Machine, RunConfig, UnreadableVersionError, resolve_run
from trainer.contract.runfolder import RUN_ID_LENGTH
from trainer.contract.runner import merge
from trainer.contract.violations import Spelling

log = logging.getLogger("trainer")

_DESCRIPTION = (
    "Train one run. Questions that need no JAX are answered by --print-config, --print-plan and --contract-version; "
    "--rewards-try scores sample rows without a model."
)
_ACCELERATORS = ("accel[0-9]*", "vfio/[0-9]*")
"""Device files of TPU chips: https://docs.cloud.google.com/tpu/docs/troubleshooting/trouble-tf"""


@dataclass(frozen=True, slots=True)
class Start:
    """A parsed command line. Exactly one of `run_config` and `config` is given."""

    run_config: Path | None
    config: Path | None
    sets: tuple[str, ...]
    devices: int | None
    new_run: bool

    @classmethod
    def of(cls, argv: Sequence[str]) -> "Start":
        """Raises SystemExit 2 with the usage on stderr, as argparse does."""
        parser = argparse.ArgumentParser("python -m trainer", allow_abbrev=False, description=_DESCRIPTION)
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--run-config", type=Path, metavar="FILE", help="a resolved run.json, as a pod gets it")
        source.add_argument("--config", type=Path, metavar="FILE", help="a runner YAML, to train on this machine")
        parser.add_argument(
            "--set", action="append", default=[], metavar="PATH=VALUE", help="lay a value over the file"
        )
        parser.add_argument("--devices-per-process", type=int, metavar="L", help="CPU devices, where there is no TPU")
        parser.add_argument("--new-run", action="store_true", help="begin a new run folder")
        given = parser.parse_args(argv)
        if given.run_config and (given.set or given.devices_per_process or given.new_run):
            parser.error("--set, --devices-per-process and --new-run need --config: a run.json is resolved already")
        return cls(given.run_config, given.config, tuple(given.set), given.devices_per_process, given.new_run)


def process_of(start: Start, environ: Mapping[str, str]) -> ProcessConfig:
    """Who this process is. Raises RunError INVALID_CONFIG or CONTRACT_VERSION, which all processes read alike."""
    if start.run_config is not None:
        return ProcessConfig.from_environment(read_run(start.run_config), environ)
    run = _resolve(start)
    run_id = secrets.token_hex(RUN_ID_LENGTH // 2) if start.new_run else environ.get(ENV_RUN_ID) or identity(run)
    return ProcessConfig(run, run_id[:RUN_ID_LENGTH], _index_found(run), coordinator=None, attempt=0)


def read_run(path: Path) -> RunConfig:
    """Read run.json. Raises RunError INVALID_CONFIG or CONTRACT_VERSION."""
    try:
        return RunConfig.from_json(path.read_text(encoding="utf-8"))
    except UnreadableVersionError as error:
        raise RunError(ExitCode.CONTRACT_VERSION, str(error)) from None
    except InvalidRunConfigError as error:
        raise RunError(ExitCode.INVALID_CONFIG, str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(ExitCode.INVALID_CONFIG, f"{path}: cannot be read ({_reason(error)}); name a run.json") from None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"


def _resolve(start: Start) -> RunConfig:
    path = start.config
    assert path is not None  # noqa: S101 - argparse requires one of the two
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        text = f"{path}: cannot be read ({_reason(error)}); name a runner YAML"
        raise RunError(ExitCode.INVALID_CONFIG, text) from None
    name = re.sub("[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "run"
    resolution = resolve_run(merge(text, start.sets, str(path)), _machine(start), name, Spelling.RUNNER)
    for warning in resolution.warnings:
        log.warning("warning: %s", warning)
    if resolution.run is None:
        raise RunError(ExitCode.INVALID_CONFIG, "\n".join(map(str, resolution.violations)))
    return resolution.run


def _machine(start: Start) -> Machine:
    """The TPU of this machine, or CPU devices where it has none."""
    if os.environ.get("JAX_PLATFORMS", "") != "cpu" and has_tpu():
        from trainer.distributed import find_machine

        return find_machine()
    os.environ["JAX_PLATFORMS"] = "cpu"
    return Machine(1, start.devices or 1, hosts=1, slices=1, kind="cpu")


def has_tpu() -> bool:
    """Whether this machine has TPU chips, asked without JAX."""
    return any(True for pattern in _ACCELERATORS for _ in Path("/dev").glob(pattern))


def _index_found(run: RunConfig) -> int:
    if run.batch.processes == 1:
        return 0
    import jax

    return jax.process_index()
