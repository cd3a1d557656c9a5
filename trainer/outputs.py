"""The run folder on a disk: may this run write here, what has it done already, and who sees it.

In: a ProcessConfig. Out: a `Standing`. It refuses to know what is trained.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.contract.exits import ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.contract.runfolder import LAYOUT_VERSION
from trainer.metrics import MetricsFile

_PROBE = ".probe-of-process-{}"


@dataclass(frozen=True, slots=True)
class Standing:
    """`finished`: the run in this folder reached its last step. `model_revision`: the hub commit it began with."""

    finished: bool
    model_revision: str | None


def read_standing(process: ProcessConfig) -> Standing:
    """What the folder's run.json says. Raises RunError INVALID_CONFIG where the folder is another run's."""
    path = Path(process.folder.run_json)
    try:
        body = json.loads(path.read_text())
        run_id, standing = body["run_id"], Standing(body["finished"], body["model_revision"])
    except (FileNotFoundError, NotADirectoryError):
        return Standing(finished=False, model_revision=None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            ExitCode.INPUT_NOT_REACHABLE, f"output.uri: {path} cannot be read ({error}); repair it"
        ) from None
    if run_id != process.run_id:
        raise RunError(
            ExitCode.INVALID_CONFIG,
            f"output.uri: {process.folder.root} holds run {run_id}, and this is run {process.run_id}; "
            "use another output.uri or name",
        )
    return standing


def refuse_finished(process: ProcessConfig, standing: Standing) -> None:
    """A finished run is not trained again; raises RunError INVALID_CONFIG with the way to start afresh."""
    if standing.finished:
        raise RunError(
            ExitCode.INVALID_CONFIG,
            f"output.uri: {process.folder.root} holds this run, finished after {process.run.steps} steps; "
            "use --new-run to start afresh",
        )


def make_writable(process: ProcessConfig) -> None:
    """Create the folder and leave this process's probe in it. Raises RunError INPUT_NOT_REACHABLE."""
    root = Path(process.folder.root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / _PROBE.format(process.process_index)).write_text(process.run_id)
    except OSError as error:
        raise RunError(
            ExitCode.INPUT_NOT_REACHABLE,
            f"output.uri: {process.run.output_uri} cannot be written ({error.strerror}: {error.filename}); "
            "give a folder that this process may write to",
        ) from None


def sees_probe_of(process: ProcessConfig, other: int) -> bool:
    """Whether what process `other` wrote can be seen here: whether the folder is shared."""
    return (Path(process.folder.root) / _PROBE.format(other)).exists()


def remove_probe(process: ProcessConfig) -> None:
    (Path(process.folder.root) / _PROBE.format(process.process_index)).unlink(missing_ok=True)


def write_run_json(process: ProcessConfig, *, model_revision: str | None, finished: bool) -> None:
    """Whose folder this is, with the whole RunConfig; replaced in one move. Process 0 writes it."""
    if process.process_index:
        return
    body: dict[str, Any] = {
        "layout_version": LAYOUT_VERSION,
        "run_id": process.run_id,
        "finished": finished,
        "model_revision": model_revision,
        "config": json.loads(process.run.to_json()),
    }
    path = Path(process.folder.run_json)
    replacement = path.with_name(path.name + ".new")
    replacement.write_text(json.dumps(body, indent=2) + "\n")
    replacement.replace(path)


def completed_steps(process: ProcessConfig) -> int:
    """The last step in the folder's metrics, 0 where there is none."""
    try:
        rows = MetricsFile(Path(process.folder.metrics)).read()
    except OSError:
        return 0
    return int(rows[-1]["step"]) if rows else 0
