"""Station 7, the processes: JAX is started as the plan says, and what one process finds, all of them learn.

In: a ProcessConfig. Out: a run whose processes see each other, and a few words by which they agree. It refuses to know
what is agreed upon: models, data and rewards are other modules'.
"""

import errno
import os
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src.distributed import global_state
from jax.experimental import multihost_utils
from numpy.typing import NDArray

from trainer.bucket import BucketError
from trainer.contract.batch import BatchPlan
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.contract.run import Machine

Result = TypeVar("Result")
Scalar = TypeVar("Scalar", bound=np.generic)

HEARTBEAT_SECONDS = 60
"""A process that the coordinator has not heard for so long is lost. Its heartbeat is a thread outside of Python."""
CONNECT_SECONDS = 600
"""Pods of a large slice start minutes apart: image pulls, and DNS names that appear late."""
_MEETING_SECONDS = 5.0
_MESSAGE_BYTES = 2000


class Stopped(Exception):  # noqa: N818 - no error: what all processes agreed to
    """All processes leave what they were doing, at the same point: one of them was asked to stop."""


def start(process: ProcessConfig) -> None:
    """Bring JAX up with the plan's devices and processes. Raises RunError: PLAN_DIFFERS or FAILED."""
    plan = process.run.batch
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_num_cpu_devices", plan.devices_per_process)
    # JAX's own preemption service would take SIGTERM away from the trainer, which stops at a point of its own.
    jax.config.update("jax_enable_preemption_service", False)
    if process.coordinator is not None:
        _connect(process, process.coordinator)
    try:
        found = Counter(device.process_index for device in jax.devices())
    except RuntimeError as error:
        raise RunError(ExitCode.PLAN_DIFFERS, f"JAX found no devices: {error}") from error
    check_machine(plan, found, process.process_index if plan.processes > 1 else 0)


def _connect(process: ProcessConfig, coordinator: str) -> None:
    """One that waits in vain for the others is aborted by JAX: the supervisor tells it.

    All is said here. JAX would look around for more: in a pod without a token of the API server it fails on that.
    """
    if process.process_index == 0:
        _check_port(coordinator)
    try:
        jax.distributed.initialize(
            coordinator,
            process.run.batch.processes,
            process.process_index,
            cluster_detection_method="deactivate",
            initialization_timeout=CONNECT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except RuntimeError as error:
        reason = f"process {process.process_index} cannot meet the others at {coordinator}: {error}"
        raise RunError(ExitCode.FAILED, reason) from error


def _check_port(coordinator: str) -> None:
    """Process 0 listens for the others; JAX 0.10.2 may crash where it cannot, before it says why."""
    try:
        socket.create_server(("", int(coordinator.rpartition(":")[2]))).close()
    except OSError as error:
        reason = f"process 0 cannot listen at {coordinator} ({os.strerror(error.errno or 0)})"
        raise RunError(ExitCode.FAILED, f"{reason}; end what holds the port, or wait until it is free") from error


def check_machine(plan: BatchPlan, devices_of: Counter[int], process_index: int) -> None:
    """Compare the devices of every process with the plan: all processes see the same counts, and so agree.

    Raises RunError PLAN_DIFFERS.
    """
    planned = f"the plan has {plan.processes} process(es) with {plan.devices_per_process} device(s) each"
    faults = []
    if jax.process_index() != process_index:
        faults.append(f"JAX calls process {process_index} number {jax.process_index()}")
    if len(devices_of) != plan.processes:
        faults.append(f"{planned}, and JAX found {len(devices_of)} process(es)")
    for index, count in sorted(devices_of.items()):
        if count != plan.devices_per_process:
            faults.append(f"{planned}, and JAX found {count} device(s) on process {index}")
    if faults:
        raise RunError(ExitCode.PLAN_DIFFERS, "; ".join(faults), agreed=True)


def when_compiling(tell: Callable[[], None]) -> None:
    """Call `tell` whenever a program is about to be compiled, or looked for in the cache."""

    def on_event(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":  # lowered: the compiler is next
            tell()

    jax.monitoring.register_event_duration_secs_listener(on_event)


def device_kind() -> str:
    """What the devices of this process are, in JAX's words: `cpu`, `TPU v6 lite`."""
    return str(jax.local_devices()[0].device_kind)


def find_machine() -> Machine:
    """The TPU VM, or the slice of TPU VMs, that this process finds itself on; `start` must not connect it again."""
    with suppress(ValueError, RuntimeError):  # a single machine, which has no one to connect to
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    slices = len({getattr(device, "slice_index", 0) for device in jax.devices()})
    hosts = jax.process_count() // slices
    return Machine(jax.process_count(), jax.local_device_count(), hosts, slices, "tpu")


def stop() -> None:
    """Leave the run together with all other processes; without it, the last ones would see the first ones die."""
    jax.distributed.shutdown()


class Notes:
    """Notes that processes leave for one another beside the collectives, in JAX's coordination service.

    Its client has no public name; Orbax, which JAX's own documentation recommends, takes it from the same place.
    """

    _FOLDER = "grpo"

    def post(self, name: str, text: str) -> None:
        _client().key_value_set(f"{self._FOLDER}/{name}", text, allow_overwrite=True)

    def posted(self) -> dict[str, str]:
        notes = _client().key_value_dir_get(f"{self._FOLDER}/")
        return {name.removeprefix(f"{self._FOLDER}/"): text for name, text in notes}


def _client() -> Any:
    client = global_state.client
    if client is None:
        raise RuntimeError("the processes are parting")
    return client


def gather(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """The same-shaped array of every process, stacked at a new first axis `process`, bit for bit."""
    if jax.process_count() == 1:
        return values[None]
    # As bytes, because JAX would round float64 and int64 to 32 bits on their way.
    raw = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(raw))
    return np.frombuffer(rows.tobytes(), values.dtype).reshape(len(rows), *values.shape)


def agree_max(value: int) -> int:
    return int(np.max(gather(np.array(value, np.int64))))


def agree_any(flag: bool) -> bool:
    return bool(gather(np.array(flag)).any())


def agree_to_stop(asked: bool) -> None:
    """A safe point: raises Stopped in all processes where one was asked to stop."""
    if agree_any(asked):
        raise Stopped


def text_of_first(text: str) -> str:
    """Process 0's text, on every process."""
    raw = text.encode() if jax.process_index() == 0 else b""
    size = agree_max(len(raw))
    return _unpacked(gather(np.frombuffer(raw.ljust(size + 1, b"\0"), np.uint8))[0])


def together(action: Callable[[], Result]) -> Result:
    """Run `action` in every process; where it failed in any, all raise the RunError of the lowest of these.

    The error of another process is told with its number, so that every log holds the cause.
    """
    result, error = None, None
    try:
        result = action()
    except Exception as raised:
        error = explain(raised)
        error.__cause__ = raised if raised is not error else None
    codes = gather(np.array(int(error.code) if error else 0, np.int64))
    if not codes.any():
        return result  # type: ignore[return-value]
    messages = gather(_packed(error.message if error else ""))
    first = int(np.flatnonzero(codes)[0])
    told = _unpacked(messages[first]) if error is None else error.message
    text = f"process {first}: {told}" if error is None else told
    raise RunError(ExitCode(int(codes[first])), text, agreed=True) from error


def unhurried(action: Callable[[], Result], beat: Callable[[], None] = lambda: None) -> Result:
    """As `together`, for an action that may take long in one process, and no time in others.

    A collective is waited for so long only as its time-out allows, so that meanwhile all meet every few seconds; `beat`
    is called at each meeting of a process that waits for others.
    """
    pool = ThreadPoolExecutor(1)
    try:
        working = pool.submit(action)
        while agree_any(not wait([working], _MEETING_SECONDS).done):
            if working.done():
                beat()
    finally:
        pool.shutdown(wait=False)
    return together(working.result)


def explain(error: Exception) -> RunError:
    """The ending that an exception stands for, told by what JAX writes into its errors."""
    if isinstance(error, RunError):
        return error
    text = str(error)
    if isinstance(error, BucketError):
        return RunError(ExitCode.FAILED, text)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"output.uri: the run folder cannot be written any more ({text})"
        return RunError(ExitCode.FAILED, f"{what}; free some space: a restart goes on from the newest checkpoint")
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return RunError(ExitCode.OUT_OF_MEMORY, text)
    lost = ("Gloo", "coordination service", "Connection closed by peer", "Connection reset by peer", "heartbeat")
    told = isinstance(error, jax.errors.JaxRuntimeError) and any(sign in text for sign in lost)
    # JAX raises some errors of its runtime as a ValueError, with the name of their status.
    if told or (isinstance(error, ValueError) and text.startswith("UNKNOWN: Gloo")):
        reason = text.splitlines()[0]
        return RunError(ExitCode.PEER_LOST, f"another process was lost, and its log holds the cause ({reason})")
    return RunError(ExitCode.FAILED, f"{type(error).__name__}: {text}")


def _packed(message: str) -> NDArray[np.uint8]:
    raw = message.encode()[:_MESSAGE_BYTES]
    return np.frombuffer(raw.ljust(_MESSAGE_BYTES, b"\0"), np.uint8)


def _unpacked(raw: NDArray[np.generic]) -> str:
    return raw.tobytes().rstrip(b"\0").decode(errors="ignore")
