"""Stations 6 and 7, one process's life: who it is, whether it may start, what it builds, and how it ended.

In: a command line and the environment of a pod. Out: an exit code, and its cause in the supervisor's ledger.
Importing this module loads no JAX: the processes of user rewards import it again when they start.
"""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from trainer.bucket import BucketError, is_uri
from trainer.contract.exits import Cause, ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.lookout import Lookout
from trainer.progress import Ledger
from trainer.reporting import Reporter
from trainer.showing import Display, display
from trainer.spool import Spool
from trainer.starting import Start, process_of
from trainer.watchdog import LOADING_SECONDS, Heartbeat, Watchdog, write_stacks

log = logging.getLogger("trainer")

_LAST_WORD_SECONDS = 5.0
"""So long does an ending process try to copy its last lines to a bucket."""


def main(argv: list[str]) -> int:
    """Live the whole life. The supervisor starts it with the arguments that it was given itself."""
    heartbeat = Heartbeat()
    shown = display(heartbeat)
    logging.basicConfig(handlers=[shown.handler], format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    logging.raiseExceptions = False  # a log file on a full disk would else print a traceback for every line
    worker = Worker(Ledger.from_environment(os.environ), heartbeat, shown)
    worker.lookout.listen()
    start = Start.of(argv)
    shown.start()
    try:
        code = worker.live(start, os.environ)
    except Exception as error:
        worker.fail(error)
    shown.stop()
    return int(code)


class Worker:
    """What the lookout, the watchdog and the last report need to see of a life. Whoever ends it first has the word."""

    def __init__(self, ledger: Ledger, heartbeat: Heartbeat, shown: Display) -> None:
        self.lookout = Lookout(self.end)
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._shown = shown
        self._process: ProcessConfig | None = None
        self._ending = threading.Lock()
        self._part: Callable[[], None] = lambda: None
        self._spool: Spool | None = None

    def live(self, start: Start, environ: Mapping[str, str]) -> ExitCode:
        self._process = process = process_of(start, environ)
        processes = process.run.batch.processes
        self._ledger.write(replace(self._ledger.entry, process=process.process_index, processes=processes))
        heartbeat = self._heartbeat
        heartbeat.tell = self._tell_doing
        watchdog = Watchdog(heartbeat, process.run.progress_deadline_seconds, self._stall)
        watchdog.start()
        reporter = Reporter.of(process, environ, heartbeat, lambda: watchdog.patience_seconds)
        reporter.start()
        code = self._train(process, heartbeat, watchdog, reporter)
        watchdog.stop()
        reporter.close()
        self._begin_to_end()
        if code is not ExitCode.DONE:
            self._note(code, None, "asked to stop; a later attempt goes on from here")
        return code

    def _train(self, process: ProcessConfig, heartbeat: Heartbeat, watchdog: Watchdog, reporter: Reporter) -> ExitCode:
        from trainer import distributed, inputs, outputs, preflight
        from trainer.building import build

        self._part = distributed.stop
        if process.coordinator is not None:
            heartbeat.begin(f"meeting {process.run.batch.processes - 1} others at {process.coordinator}")
        distributed.start(process)
        distributed.when_compiling(lambda: heartbeat.extend(LOADING_SECONDS))
        heartbeat.begin("looking at model, data, rewards and output")
        if process.run.batch.processes > 1:
            self.lookout.join(distributed.Notes(), process.process_index, process.run.batch.processes)
        if process.coordinator is None and process.run.batch.processes > 1:
            process = replace(process, run_id=distributed.text_of_first(process.run_id))
        self._process = process = self._spooled(process)
        if preflight.already_done(process):
            log.info("%s holds this run, and it is finished", process.folder.root)
            self._close_spool()
            return ExitCode.DONE
        log.info("%s", "\n".join(preflight.introduce(process, distributed.device_kind())))
        ready = preflight.check(process, heartbeat)
        _log_into_folder(process)
        outputs.write_run_json(process, ready.standing)

        on_step = partial(self._step_done, watchdog, reporter)
        loop, state, place = build(process, ready, heartbeat, self.lookout, on_step, self._publish)
        self.lookout.guard(loop.nothing_to_lose, ready.rewards.abandon)
        reporter.begin(place.step, loop.committed)
        code = loop.train(state, place)
        if code is ExitCode.DONE:
            outputs.write_run_json(process, replace(ready.standing, finished=True))
        ready.rewards.stop()
        distributed.unhurried(lambda: inputs.patiently(self._publish))
        self._close_spool()
        self.lookout.part()
        self._part()
        return code

    def _step_done(self, watchdog: Watchdog, reporter: Reporter, row: Mapping[str, float]) -> None:
        watchdog.running()
        self._ledger.write(replace(self._ledger.entry, step=int(row["step"])))
        reporter.tell(row)

    def _spooled(self, process: ProcessConfig) -> ProcessConfig:
        """Where the run folder lies in a bucket: with a folder here to write in, and in it what was there before."""
        if not is_uri(process.run.output_uri):
            return process
        from trainer import distributed, inputs

        self._spool = spool = Spool(process.folder.root)
        distributed.unhurried(lambda: inputs.patiently(spool.pull))
        spool.start()
        return replace(process, spool=str(spool.here))

    def _publish(self) -> None:
        if self._spool is not None:
            self._heartbeat.extend(LOADING_SECONDS)
            self._spool.push()

    def _close_spool(self) -> None:
        """What was written last, such as why it ended, is copied if the bucket answers."""
        if self._spool is not None:
            with suppress(BucketError, OSError):
                self._spool.push(_LAST_WORD_SECONDS)
            self._spool.close()

    def fail(self, error: Exception) -> NoReturn:
        """Tell how it ended, and leave at once."""
        self._fall_silent()
        ending = _explained(error, self._process)
        if ending.code is not ExitCode.PEER_LOST and not isinstance(error, RunError):
            traceback.print_exception(error)
        code = self._code_of(ending)
        cause = ending.__cause__
        self._begin_to_end()
        self._note(code, type(cause or error).__name__, ending.message)
        log.error("%s", ending.message)
        if ending.agreed:
            with suppress(RuntimeError):
                self._part()
        elif code is not ExitCode.PEER_LOST:
            self.lookout.warn(code, ending.message)
        self._close_spool()
        _leave(code)

    def end(self, code: ExitCode, message: str) -> NoReturn:
        """End this process from a thread beside the main one, whatever that is doing."""
        self._begin_to_end()
        if code is ExitCode.STALLED:
            self._write_stacks()
        self._finish(code, message, self.lookout.follow)

    def _finish(self, code: ExitCode, message: str, take_leave: Callable[[], None]) -> NoReturn:
        self._fall_silent()
        self._note(code, None, message)
        log.info("%s", message)
        if code is ExitCode.PREEMPTED and self.lookout.joined:
            with suppress(RuntimeError):
                self._part()
        else:
            take_leave()
        self._close_spool()
        _leave(code)

    def _fall_silent(self) -> None:
        """From now on log for the run folder alone: how it ended is told by the supervisor, and once is enough."""
        self._shown.stop()
        logging.getLogger().addHandler(logging.NullHandler())  # without any handler Python would print it after all
        logging.getLogger().removeHandler(self._shown.handler)

    def _begin_to_end(self) -> None:
        """Returns in the thread that comes first; another waits for the end."""
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()

    def _code_of(self, ending: RunError) -> ExitCode:
        """What worked once may work again: after a completed step, 4 and 5 are failures that a restart may heal."""
        if ending.code not in (ExitCode.PLAN_DIFFERS, ExitCode.INPUT_NOT_REACHABLE) or self._process is None:
            return ending.code
        from trainer.outputs import completed_steps

        unknown = self._spool is not None and not self._spool.pulled and self._process.attempt > 0
        return ExitCode.FAILED if unknown or completed_steps(self._process) else ending.code

    def _stall(self, message: str) -> NoReturn:
        """The others write their stacks too, if they can, before anybody ends: JAX would abort who is left."""
        self._begin_to_end()
        self._write_stacks()
        self._finish(ExitCode.STALLED, message, lambda: self.lookout.warn(ExitCode.STALLED, message))

    def _write_stacks(self) -> None:
        if self._process is not None:
            write_stacks(Path(self._process.folder.stacks) / f"process-{self._process.process_index}.txt")

    def _tell_doing(self, doing: str) -> None:
        self._ledger.write(replace(self._ledger.entry, doing=doing))

    def _note(self, code: ExitCode, exception: str | None, message: str) -> None:
        entry = self._ledger.entry
        self._ledger.write(replace(entry, cause=Cause(code, entry.process, entry.step, exception, message)))


def _leave(code: ExitCode) -> NoReturn:
    """At once: at exit JAX would wait for processes that are gone or wait for us."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code))


def _explained(error: Exception, process: ProcessConfig | None) -> RunError:
    from trainer.distributed import explain

    if process is not None and isinstance(error, OSError) and str(error.filename).startswith(process.folder.here):
        reason = f"output.uri: {error.filename} cannot be written ({error.strerror})"
        return RunError(ExitCode.FAILED, f"{reason}; mend it, and the next attempt goes on from the last checkpoint")
    return explain(error)


def _log_into_folder(process: ProcessConfig) -> None:
    path = Path(process.folder.log(process.attempt, process.process_index))
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
