"""A reward function in a process of its own: keyword arguments go in, numbers or the reason for none come out.

User code may hang, crash or print what it likes; the trainer waits no longer than the deadline, kills what overruns,
and starts afresh with the next call. The process sees no accelerator.
"""

import asyncio
import inspect
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trainer.rewards.loading import LoadError, load_function

STARTUP_SECONDS = 300.0
"""Imports of user code may load libraries and word lists; what takes longer is taken for hung."""


class CallFailedError(Exception):
    """One call gave no numbers: the function raised, ran out of time, answered wrongly or its process died."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to call: `path` is the field to blame (`rewards[1].python`), `function` is `module:name`."""

    path: str
    function: str
    arguments: dict[str, Any]
    timeout_seconds: float


class IsolatedFunction:
    """One process that imports the function once and answers calls one at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._child: _Child | None = None
        self._abandoned = threading.Event()

    def start(self) -> None:
        """Import the function, once. Raises LoadError with *path: value, rule, fix* where that cannot be done."""
        self._running()

    def call(self, keywords: dict[str, Any], rows: int, seconds: float | None = None) -> list[float | None]:
        """`rows` numbers, None where the function gave none. Raises CallFailedError with the reason.

        `seconds` is this call's deadline, the target's where it is None.
        """
        try:
            child = self._running()
        except LoadError as error:
            raise CallFailedError(str(error)) from error
        with suppress(OSError):  # what cannot be sent is not answered, and that tells why
            child.connection.send((keywords, rows))
        verdict, result = self._answer_of(child, self._target.timeout_seconds if seconds is None else seconds)
        if verdict != "scored":
            raise CallFailedError(result)
        return result  # type: ignore[no-any-return]

    def longest_seconds(self) -> float:
        """So long the next call may take: its deadline, after imports where the process has to be started again."""
        running = self._child is not None and self._child.process.is_alive()
        return self._target.timeout_seconds + (0.0 if running else STARTUP_SECONDS)

    def abandon(self) -> None:
        """Let the call that another thread waits for fail now, and every later one: their answers are not needed."""
        self._abandoned.set()
        if self._child is not None:
            self._child.kill()

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.process.join()
            self._child.connection.close()
        self._child = None

    def _running(self) -> "_Child":
        return self._child if self._child and self._child.process.is_alive() else self._started()

    def _started(self) -> "_Child":
        target = self._target
        if self._abandoned.is_set():
            raise LoadError(f"{target.path}: the run is stopping")
        self._child = child = _Child.of(target)
        if self._abandoned.is_set():  # meanwhile, when this process could not be seen yet
            child.kill()
        try:
            verdict, reason = self._answer_of(child, STARTUP_SECONDS)
        except CallFailedError as failure:
            raise LoadError(f"{target.path}: {target.function!r} could not be imported: {failure}") from failure
        if verdict != "ready":
            self.stop()
            raise LoadError(f"{target.path}: {reason}")
        return child

    def _answer_of(self, child: "_Child", seconds: float) -> tuple[str, Any]:
        try:
            if child.connection.poll(seconds):
                return child.connection.recv()  # type: ignore[no-any-return]
            reason = f"no answer within {seconds:.3g} s"
        except (EOFError, OSError):
            child.process.join(timeout=5)
            reason = f"its process ended with exit code {child.process.exitcode}"
        self.stop()
        raise CallFailedError(reason)


@dataclass(frozen=True, slots=True)
class _Child:
    process: multiprocessing.process.BaseProcess
    connection: "Connection[Any, Any]"

    @classmethod
    def of(cls, target: Target) -> "_Child":
        """Spawned and not forked: a fork of a process with JAX's threads may hang."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, target.function, target.arguments), daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours)

    def kill(self) -> None:
        """The process, and on Linux what it started: a program under test that hangs would go on for the whole run."""
        started = list(_descendants(self.process.pid))
        self.process.kill()
        for pid in started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _descendants(pid: int | None) -> Iterator[int]:
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in listed.read_text().split():
                yield from _descendants(int(child))
                yield int(child)


def _serve(connection: "Connection[Any, Any]", function: str, arguments: dict[str, Any]) -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"  # the trainer holds the TPU; a reward that imports JAX must not wait for it
    multiprocessing.current_process().daemon = False  # a daemon may start no process, and rewards that run code do
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        target = load_function(function)
    except LoadError as error:
        connection.send(("refused", str(error)))
        return
    connection.send(("ready", ""))
    with asyncio.Runner() as runner, suppress(EOFError):
        while True:
            keywords, rows = connection.recv()
            connection.send(_answer(target, {**keywords, **arguments}, rows, runner))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer(
    function: Callable[..., Any], keywords: dict[str, Any], rows: int, runner: asyncio.Runner
) -> tuple[str, Any]:
    """All calls are awaited in one loop, as in TRL: what a function keeps open between calls belongs to its loop."""
    try:
        result = function(**_accepted(function, keywords))
        if inspect.isawaitable(result):
            result = runner.run(_awaited(result))
        return "scored", _numbers(result, rows)
    except (Exception, SystemExit) as error:
        return "raised", f"{type(error).__name__}: {error}"


async def _awaited(result: Any) -> Any:
    return await result


def _accepted(function: Callable[..., Any], keywords: dict[str, Any]) -> dict[str, Any]:
    """All keywords where the function takes any, as TRL passes them; else those that it names.

    TRL passes two callables for its own tables, and its documentation writes `completions_ids` where its code passes
    `completion_ids`: a function that names them so is given them.
    """
    parameters = inspect.signature(function).parameters
    given = {**keywords, "log_extra": _unused, "log_metric": _unused}
    named = {**given, "completions_ids": keywords.get("completion_ids")}
    wanted = {name: value for name, value in named.items() if name in parameters}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return given | wanted
    return wanted


def _unused(*_: Any) -> None:
    """The completions of the run folder hold the data's columns and all rewards already."""


def _numbers(result: Any, rows: int) -> list[float | None]:
    if isinstance(result, Mapping | str) or not isinstance(result, Iterable):
        raise TypeError(f"a {type(result).__name__} came back; return a list with one number or None per completion")
    values = [None if value is None else float(value) for value in result]
    if len(values) != rows:
        raise ValueError(f"{len(values)} rewards for {rows} completions")
    return values
