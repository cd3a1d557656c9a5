"""Stations 6 and 7, one process's life: who it is, whether it may start, what it builds, and how it ended.

In: a command line and the environment of a pod. Out: an exit code, and its cause in the supervisor's ledger.
Importing this module loads no JAX: the processes of user rewards import it again when they start.
"""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from trainer.contract.exits import Cause, ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.progress import Ledger
from trainer.showing import Display, display
from trainer.starting import Start, process_of
from trainer.watchdog import Heartbeat, Watchdog, write_stacks

log = logging.getLogger("trainer")


def main(argv: list[str]) -> int:
    """Live the whole life. The supervisor starts it with the arguments that it was given itself."""
    heartbeat = Heartbeat()
    shown = display(heartbeat)
    logging.basicConfig(handlers=[shown.handler], format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    worker = Worker(Ledger.from_environment(os.environ), heartbeat, shown)
    signal.signal(signal.SIGTERM, worker.on_signal)
    start = Start.of(argv)
    shown.start()
    try:
        code = worker.live(start, os.environ)
    except Exception as error:
        worker.fail(error)
    shown.stop()
    return int(code)


class Worker:
    """What the signals, the watchdog and the last report need to see of a life."""

    def __init__(self, ledger: Ledger, heartbeat: Heartbeat, shown: Display) -> None:
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._shown = shown
        self._asked_to_stop = False
        self._process: ProcessConfig | None = None

    def on_signal(self, _signum: int, _frame: object) -> None:
        """A request to stop; the loop looks at it at its next safe point."""
        self._asked_to_stop = True

    def live(self, start: Start, environ: Mapping[str, str]) -> ExitCode:
        self._process = process = process_of(start, environ)
        processes = process.run.batch.processes
        self._ledger.write(replace(self._ledger.entry, process=process.process_index, processes=processes))
        heartbeat = self._heartbeat
        watchdog = Watchdog(heartbeat, process.run.progress_deadline_seconds, self._on_stall)
        watchdog.start()
        code = self._train(process, heartbeat, watchdog)
        watchdog.stop()
        if code is not ExitCode.DONE:
            self._note(code, None, "asked to stop; a later attempt goes on from here")
        return code

    def _train(self, process: ProcessConfig, heartbeat: Heartbeat, watchdog: Watchdog) -> ExitCode:
        from trainer import distributed, outputs, preflight
        from trainer.building import build

        distributed.start(process)
        if process.coordinator is None and process.run.batch.processes > 1:
            process = replace(process, run_id=distributed.text_of_first(process.run_id))
        if preflight.already_done(process):
            log.info("%s holds this run, and it is finished", process.folder.root)
            return ExitCode.DONE
        for line in preflight.introduce(process, distributed.device_kind()):
            log.info("%s", line)
        ready = preflight.check(process)
        _log_into_folder(process)
        outputs.write_run_json(process, ready.standing)

        def on_step(step: int) -> None:
            watchdog.running()
            self._ledger.write(replace(self._ledger.entry, step=step))

        loop, state, place = build(process, ready, heartbeat, lambda: self._asked_to_stop, on_step)
        code = loop.train(state, place)
        if code is ExitCode.DONE:
            outputs.write_run_json(process, replace(ready.standing, finished=True))
        ready.rewards.stop()
        distributed.stop()
        return code

    def fail(self, error: Exception) -> NoReturn:
        """Tell how it ended, and leave at once: at exit JAX would wait for processes that are gone or wait for us."""
        self._shown.stop()
        ending = error if isinstance(error, RunError) else _explained(error)
        if ending.code is not ExitCode.PEER_LOST and not isinstance(error, RunError):
            traceback.print_exception(error)
        code = self._code_of(ending)
        cause = ending.__cause__
        self._note(code, type(cause or error).__name__, ending.message)
        if ending.agreed:
            from trainer import distributed

            with suppress(RuntimeError):
                distributed.stop()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code))

    def _code_of(self, ending: RunError) -> ExitCode:
        """What worked once may work again: after a completed step, 4 and 5 are failures that a restart may heal."""
        if ending.code not in (ExitCode.PLAN_DIFFERS, ExitCode.INPUT_NOT_REACHABLE) or self._process is None:
            return ending.code
        from trainer.outputs import completed_steps

        return ExitCode.FAILED if completed_steps(self._process) else ending.code

    def _on_stall(self, message: str) -> None:
        self._shown.stop()
        if self._process is not None:
            write_stacks(Path(self._process.folder.stacks) / f"process-{self._process.process_index}.txt")
        self._note(ExitCode.STALLED, None, message)
        os._exit(int(ExitCode.STALLED))

    def _note(self, code: ExitCode, exception: str | None, message: str) -> None:
        entry = self._ledger.entry
        self._ledger.write(replace(entry, cause=Cause(code, entry.process, entry.step, exception, message)))


def _explained(error: Exception) -> RunError:
    from trainer.distributed import explain

    return explain(error)


def _log_into_folder(process: ProcessConfig) -> None:
    path = Path(process.folder.log(process.attempt, process.process_index))
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
