"""The run folder, on a disk or in a bucket: may this run write here, what has it done already, and who sees it.

In: a ProcessConfig. Out: a `Standing`. It refuses to know what is trained.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer import bucket
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.identity import Difference, differences
from trainer.contract.process import ProcessConfig
from trainer.contract.run import RunConfig
from trainer.contract.runfolder import LAYOUT_VERSION
from trainer.metrics import MetricsFile

_PROBE = ".probe-of-process-{}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a folder's run.json says of the run in it; a new folder says nothing.

    `model_revision`: the hub commit it began with. `inputs`: by key, what names of the hub stood for. `config`: what it
    was last started with, as plain data. `changes`: what was changed since it began, one entry an attempt.
    """

    finished: bool = False
    model_revision: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[Mapping[str, Any], ...] = ()
    parent: Mapping[str, Any] | None = None
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def differences(self, run: RunConfig) -> tuple[Difference, ...]:
        return differences(self.config, run)

    def is_done(self, run: RunConfig) -> bool:
        """Whether the run in the folder reached its last step, and is not to go further now."""
        return self.finished and run.steps <= self.config.get("steps", 0)


def read_standing(process: ProcessConfig) -> Standing:
    """What the folder's run.json says. Raises RunError INVALID_CONFIG where the folder is another run's."""
    path = Path(process.folder.run_json)
    try:
        body = json.loads(path.read_text())
        standing = Standing(
            finished=body["finished"],
            model_revision=body["model_revision"],
            config=dict(body["config"]),
            changes=tuple(body.get("changes", ())),
            parent=body.get("parent"),
            inputs=dict(body.get("inputs", {})),
        )
        run_id = body["run_id"]
    except (FileNotFoundError, NotADirectoryError):
        return Standing()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            ExitCode.INPUT_NOT_REACHABLE, f"output.uri: {path} cannot be read ({error}); repair it"
        ) from None
    if run_id != process.run_id:
        raise RunError(
            ExitCode.INVALID_CONFIG,
            f"output.uri: {process.folder.root} holds run {run_id}, and this is run {process.run_id}; "
            "use another output.uri or name, or checkpoint.init_from to begin with that run's weights",
        )
    return standing


def refuse_done(process: ProcessConfig, standing: Standing) -> None:
    """A finished run is not trained again; raises RunError INVALID_CONFIG with the way to start afresh."""
    if standing.is_done(process.run):
        raise RunError(
            ExitCode.INVALID_CONFIG,
            f"output.uri: {process.folder.root} holds this run, finished after {standing.config['steps']} steps; "
            "use --new-run to start afresh, or more steps to go further",
        )


def refuse_changed(process: ProcessConfig, standing: Standing) -> None:
    """What a run was begun with stays, where it matters. Raises RunError INVALID_CONFIG with every difference."""
    refused = [str(one) for one in standing.differences(process.run) if one.matters]
    if refused and not process.starts_over:
        raise RunError(
            ExitCode.INVALID_CONFIG,
            f"output.uri: {process.folder.root} holds this run, begun with another configuration:\n"
            + "".join(f"  {line}\n" for line in refused)
            + "take this back, or use --new-run to start afresh, or checkpoint.init_from to begin with its weights",
        )
    reached = completed_steps(process)
    if process.run.steps < reached and not process.starts_over:
        text = f"steps: {process.run.steps} must be at least {reached}, which this run has reached; use {reached}"
        raise RunError(ExitCode.INVALID_CONFIG, f"{text} or more, or --new-run to start afresh")


def make_writable(process: ProcessConfig) -> None:
    """Create the folder and leave this process's probe in it. Raises RunError INPUT_NOT_REACHABLE."""
    probe = _probe(process, process.process_index)
    try:
        if process.spool is None:
            Path(probe).parent.mkdir(parents=True, exist_ok=True)
            Path(probe).write_text(process.run_id)
        else:
            bucket.write(probe, process.run_id.encode())
    except bucket.BucketError as error:
        raise RunError(ExitCode.INPUT_NOT_REACHABLE, f"output.uri: {error}") from error
    except OSError as error:
        raise RunError(
            ExitCode.INPUT_NOT_REACHABLE,
            f"output.uri: {process.run.output_uri} cannot be written ({error.strerror}: {error.filename}); "
            "give a folder that this process may write to",
        ) from None


def sees_probe_of(process: ProcessConfig, other: int) -> bool:
    """Whether what process `other` wrote can be seen here: whether the folder is shared."""
    probe = _probe(process, other)
    return Path(probe).exists() if process.spool is None else bucket.read(probe) is not None


def remove_probe(process: ProcessConfig) -> None:
    probe = _probe(process, process.process_index)
    if process.spool is None:
        Path(probe).unlink(missing_ok=True)
    else:
        bucket.delete(probe)


def _probe(process: ProcessConfig, index: int) -> str:
    return f"{process.folder.root}/{_PROBE.format(index)}"


def write_run_json(process: ProcessConfig, standing: Standing) -> None:
    """Whose folder this is and how it stands, with the whole RunConfig; replaced in one move. Process 0 writes it."""
    if process.process_index:
        return
    body: dict[str, Any] = {
        "layout_version": LAYOUT_VERSION,
        "run_id": process.run_id,
        "finished": standing.finished,
        "model_revision": standing.model_revision,
        "config": json.loads(process.run.to_json()),
        "changes": standing.changes,
        "parent": standing.parent,
        "inputs": standing.inputs,
    }
    path = Path(process.folder.run_json)
    replacement = path.with_name(path.name + ".new")
    replacement.write_text(json.dumps(body, indent=2) + "\n")
    replacement.replace(path)


def begun(
    process: ProcessConfig,
    found: Standing,
    model_revision: str | None,
    inputs: Mapping[str, Mapping[str, Any]],
    parent: Mapping[str, Any] | None = None,
) -> Standing:
    """How a folder stands when an attempt begins in it: what it changes of the run is added to the earlier changes."""
    changed = {one.path: [one.old, one.new] for one in found.differences(process.run)}
    entry = {"attempt": process.attempt, "after_step": completed_steps(process), "changed": changed}
    earlier = () if process.starts_over else found.changes
    changes = (*earlier, entry) if changed and not process.starts_over else earlier
    return Standing(model_revision=model_revision, changes=changes, parent=parent or found.parent, inputs=inputs)


def completed_steps(process: ProcessConfig) -> int:
    """The last step in the folder's metrics, 0 where there is none."""
    try:
        rows = MetricsFile(Path(process.folder.metrics)).read()
    except OSError:
        return 0
    return int(rows[-1]["step"]) if rows else 0
