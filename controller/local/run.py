"""`grpoctl run`: a resolved job in, its processes started, streamed, stopped and judged, the job's exit code out.

It renders what the cluster would get and changes only what a machine without a cluster cannot give: DNS names, mounts,
TPUs. What it changes it says in a line.
"""

import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import trainer
from controller import podspec
from controller.local.attempt import Events, Launch, Signalled, count_processes, run_attempt
from controller.local.pods import LocalError, Objects, Pod, environment_of, expand, on_loopback, pods_of
from controller.local.sandbox import Mounts, mount_volumes, objects_of, shared_folders
from controller.local.verdict import Ending, Verdict, explain, has_cause, judge
from controller.render import Manifests, render
from controller.resolve import Resolved
from controller.settings import Settings
from trainer.contract import process
from trainer.contract.runfolder import RUN_ID_LENGTH

CLUSTER_VARIABLES = ("GRPO_", "JAX_", "TPU_", "MEGASCALE_", "LIBTPU_", "XLA_", "JOB_COMPLETION_INDEX")
"""What a user's shell must not hand on: the pod's environment says these, or nothing does."""

OWN_VARIABLES = ("HF_HOME", "HOME", "TMPDIR")
"""Where a pod has only its volumes a machine has folders of its own, its cache of models above all."""

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
COLOURS = (36, 33, 32, 35, 34, 31)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a local run takes from where it runs: the user's shell, folder and terminal, and this Python."""

    environ: Mapping[str, str]
    working_folder: Path
    out: TextIO
    notes: TextIO
    colour: bool
    python: str = sys.executable

    @classmethod
    def here(cls, colour: bool) -> "Machine":
        return cls(dict(os.environ), Path.cwd(), sys.stdout, sys.stderr, colour)


def run_job(
    resolved: Resolved,
    *,
    machine: Machine,
    documents: Iterable[Mapping[str, Any]] = (),
    code: Path | None = None,
    new_run: bool = False,
    restarts: int = 0,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> int:
    """Runs the job's pods here to the end and returns the exit code; raises LocalError before anything is started.

    `documents` are the other objects of the job's file (ConfigMaps, Secrets); `code` is a folder that stands for
    `spec.code`. The same job resumes its run folder, with `new_run` it gets a new one. `restarts` is how often a failed
    attempt is followed by another: a JobSet would do so by itself.
    """
    if os.name != "posix":
        raise LocalError("grpoctl run needs Linux or macOS; on Windows use the Windows Subsystem for Linux")
    if code is not None and resolved.job.spec.code is None:
        raise LocalError("--code: the job has no spec.code, so no process would find it; add code: {configMap: NAME}")
    run_id = secrets.token_hex(RUN_ID_LENGTH // 2) if new_run else None
    manifests = render(resolved, run_id=run_id, settings=settings)
    return run_manifests(manifests, machine=machine, documents=documents, code=code, restarts=restarts)


def run_manifests(
    manifests: Manifests,
    *,
    machine: Machine,
    documents: Iterable[Mapping[str, Any]] = (),
    code: Path | None = None,
    restarts: int = 0,
) -> int:
    """As `run_job`, for what is already rendered."""
    objects = objects_of((*documents, manifests.config_map))
    note = _noter(machine)
    events: Events = Events()
    with tempfile.TemporaryDirectory(prefix="grpoctl-run-") as folder, _signals_as_events(events):
        for attempt in range(restarts + 1):
            launches, grace_seconds = _prepare(manifests, attempt, machine, objects, Path(folder), code)
            if attempt == 0:
                _introduce(manifests, machine, note)
            endings, interrupted = run_attempt(
                launches, events, _printer(machine, launches, events), note, grace_seconds
            )
            verdict = judge(endings, interrupted)
            _report(verdict, endings, note)
            if interrupted is not None or not verdict.may_heal or attempt == restarts:
                break
            note(f"restart {attempt + 1} of {restarts}")
    return verdict.code


def _prepare(
    manifests: Manifests, attempt: int, machine: Machine, objects: Objects, folder: Path, code: Path | None
) -> tuple[list[Launch], float]:
    pods = pods_of(manifests.job_set, attempt)
    ports = {process.COORDINATOR_PORT: _free_port()}
    subdomain = manifests.job_set["spec"]["network"]["subdomain"]

    def here(text: str) -> str:
        return on_loopback(text, subdomain, ports)

    launches = []
    for pod in pods:
        sandbox = folder / f"attempt-{attempt}" / pod.host_name
        sandbox.mkdir(parents=True)
        mounts = mount_volumes(pod, objects, sandbox, machine.working_folder, code)
        launches.append(_launch(pod, mounts, here, machine, objects, sandbox, several=pods[-1].job_index > 0))
    return launches, pods[0].spec["terminationGracePeriodSeconds"]


def _launch(
    pod: Pod,
    mounts: Mounts,
    here: Callable[[str], str],
    machine: Machine,
    objects: Objects,
    sandbox: Path,
    several: bool,
) -> Launch:
    given = environment_of(pod, objects, machine.environ)
    termination_log = sandbox / "termination-log"
    pods_own = {name: mounts.local(here(value)) for name, value in given.items()}
    words = [*pod.container["command"], *pod.container.get("args", [])]
    command = [mounts.local(here(expand(word, given))) for word in words]
    if command[0] == "python":
        command[0] = machine.python
    return Launch(
        index=pod.index,
        place=f"process {pod.index}" + (f" (slice {pod.job_index}, host {pod.completion_index})" if several else ""),
        command=command,
        environment=_environment(machine.environ, pods_own, termination_log),
        working_folder=Path(mounts.local(pod.container["workingDir"])),
        sandbox=sandbox,
        termination_log=termination_log,
    )


def _environment(shell: Mapping[str, str], pods_own: Mapping[str, str], termination_log: Path) -> dict[str, str]:
    """The user's shell without what only a cluster may say, then the pod's own, then what only this machine knows."""
    inherited = {name: value for name, value in shell.items() if not name.startswith(CLUSTER_VARIABLES)}
    kept = {
        name: value
        for name, value in pods_own.items()
        if name not in OWN_VARIABLES or value not in (podspec.MODEL_CACHE, podspec.SCRATCH)
    }
    paths = [pods_own.get("PYTHONPATH", ""), shell.get("PYTHONPATH", ""), _checkout()]
    return {
        **inherited,
        **kept,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONSAFEPATH": "1",  # never a trainer.py of the working folder: the pod's is empty
        process.ENV_TERMINATION_LOG: str(termination_log),
    }


def _checkout() -> str:
    """The folder of this trainer where it is a checkout. Site-packages are found anyway, and must not come first."""
    folder = Path(trainer.__path__[0]).parent
    return "" if folder.name in ("site-packages", "dist-packages") else str(folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def _signals_as_events(events: Events) -> Iterator[None]:
    """Signals to this process become events for the watch; SimpleQueue.put may be called from a handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in SIGNALS]
    before = [signal.signal(number, lambda signum, _: events.put(Signalled(signum))) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _introduce(manifests: Manifests, machine: Machine, note: Callable[[str], None]) -> None:
    pods = pods_of(manifests.job_set, attempt=0)
    values = {variable["name"]: variable.get("value") for variable in pods[0].container["env"]}
    name = manifests.job_set["metadata"]["name"]
    note(f"{name}, run {values[process.ENV_RUN_ID]}: {count_processes(len(pods))} on this machine")
    if "tpu" in (values["JAX_PLATFORMS"] or ""):
        note("the job asks for TPUs; here its processes use JAX's CPU devices, as many as a host's TPU has")
    for volume, folder in shared_folders(pods[0], machine.working_folder).items():
        note(f"volume {volume} is the folder {folder} here")


def _report(verdict: Verdict, endings: Sequence[Ending], note: Callable[[str], None]) -> None:
    if verdict.cause is None:
        return note("done" if verdict.code == 0 else f"stopped, exit code {verdict.code}")
    cause = verdict.cause
    if verdict.stopped:
        return note(f"stopped, exit code {verdict.code}; {cause.place}: {explain(cause)}")
    note(f"failed with exit code {verdict.code}; first cause: {cause.place}: {explain(cause)}")
    if cause.message and not has_cause(cause):
        note("\n    ".join(["its last lines:", *cause.message.splitlines()]))
    for ending in endings:
        told = explain(ending) == explain(cause)  # fatal causes are agreed: each process ends with the same words
        if ending is not cause and ending.failed and not ending.asked and not told:
            note(f"then {ending.place}: {explain(ending)}")
    return None


def _noter(machine: Machine) -> Callable[[str], None]:
    bold, plain = ("\033[1m", "\033[0m") if machine.colour else ("", "")

    def note(text: str) -> None:
        print(f"{bold}grpoctl run: {text}{plain}", file=machine.notes, flush=True)

    return note


def _printer(machine: Machine, launches: Sequence[Launch], events: Events) -> Callable[[int, str], None]:
    lock, width = threading.Lock(), len(str(len(launches) - 1))
    encoding = getattr(machine.out, "encoding", None) or "utf-8"

    def show(index: int, line: str) -> None:
        prefix = f"{index:>{width}} | "
        if machine.colour:
            prefix = f"\033[{COLOURS[index % len(COLOURS)]}m{prefix}\033[0m"
        text = f"{prefix}{line}".encode(encoding, "replace").decode(encoding)  # a model may sample any character
        with lock:
            try:
                print(text, file=machine.out, flush=True)
            except BrokenPipeError:  # its reader is gone, as in `grpoctl run job.yaml | head`
                os.dup2(os.open(os.devnull, os.O_WRONLY), machine.out.fileno())
                events.put(Signalled(signal.SIGPIPE))

    return show
