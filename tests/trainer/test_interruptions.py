"""SIGTERM and SIGKILL at random moments of a run of two processes: nothing hangs, breaks or changes."""

import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from interrupting import PHASES, Watched, newest, phase_of, send, until
from launching import Launched, resolved, sums

from trainer.contract.exits import ExitCode
from trainer.progress import Entry

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at the processes of a run through /proc")

OF_EACH_SIGNAL = min(25, int(os.environ.get("GRPO_TEST_SCALE") or 1))
IN_EACH_PHASE = OF_EACH_SIGNAL // 5
SEED = int(os.environ.get("GRPO_TEST_SEED") or random.SystemRandom().randrange(10**6))
EVERY = 2
DELAYS = (0.0, 0.02, 0.3)
"""Seconds, one of which is the longest time from a phase's begin to the signal: some phases are short."""
MEASURED = ("time/", "throughput/", "memory/")


class Interruptions:
    """One run, interrupted again and again; `told` counts (signal, phase)."""

    def __init__(self, byte_model: Path, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        # Their own, because a process that is killed may leave half a program.
        self.programs = shutil.copytree(os.environ["JAX_COMPILATION_CACHE_DIR"], folder / "compiled")
        self.run = resolved(
            byte_model,
            sums(folder / "sums.jsonl"),
            folder / "out",
            2,
            1,
            steps=4 * OF_EACH_SIGNAL + 4,
            rollout={"batch_size": 16, "num_pre_q": 4, "global_length": 32, "max_length_sample": 48},
            eval_every_steps=EVERY,
            eval_batches=1,
            checkpoint={"every_steps": EVERY, "keep": 2},
        )
        self.attempts = 0
        self.told: Counter[tuple[str, str]] = Counter()
        self.ending: list[tuple[Launched, signal.Signals, set[int]]] = []

    def start(self) -> Launched:
        self.attempts += 1
        scratch = self.folder / f"attempt-{self.attempts}"
        return Launched(
            self.run,
            scratch,
            attempt=self.attempts - 1,
            SECONDS_PER_REWARD="0.2",
            JAX_COMPILATION_CACHE_DIR=str(self.programs),
        )

    def interrupt(self, signum: signal.Signals, phase: str) -> None:
        """One attempt with one signal; it is over when both workers are."""
        launched = self.start()
        before = newest(launched)
        watched = [Watched(process.pid) for process in launched.processes]
        victim = self.random.choice(watched)
        step = before + self.random.randint(1, EVERY)
        until(lambda: self._reached(victim, launched, step, phase), f"{phase} of step {step} or later")
        time.sleep(self.random.uniform(0, self.random.choice(DELAYS)))
        seen = phase_of(victim.entry, launched.folder)
        done = [process.entry.step or before for process in watched]
        struck = self._strike(signum, watched, victim)
        until(lambda: all(process.ended for process in watched), f"the end after {signum.name} in {seen}")
        self._judge(signum, launched, before, max(done))
        self.told[signum.name, seen] += 1
        print(f"{signum.name} to {sorted(struck)} in {seen}: {before} → {newest(launched)}", flush=True)
        # A supervisor that lost a peer tells it ten seconds later; the next attempt need not wait for that.
        self.ending.append((launched, signum, struck))
        for process in watched:
            process.close()

    def _reached(self, victim: Watched, launched: Launched, step: int, phase: str) -> bool:
        assert not victim.ended, [one.out + one.err for one in launched.wait()]
        entry = victim.entry
        return step_of(entry) >= step and phase_of(entry, launched.folder) == phase

    def _strike(self, signum: signal.Signals, watched: list[Watched], victim: Watched) -> set[int]:
        """To one process or, one after the other, to both; SIGKILL to the worker, or to the supervisor of a pod."""
        both = self.random.random() < 0.3
        pod = signum is signal.SIGTERM or self.random.random() < 0.3
        struck = sorted(watched, key=lambda one: one is not victim) if both else [victim]
        for process in struck:
            send(process.supervisor if pod else process.worker, signum)
            time.sleep(self.random.uniform(0, 0.2))
        return {watched.index(process) for process in struck}

    def _judge(self, signum: signal.Signals, launched: Launched, before: int, done: int) -> None:
        """The folder is whole; SIGTERM lost no step that was `done`, SIGKILL no more than since the last save.

        A step that was open when SIGTERM came may be done by one process while the other leaves; it is lost then.
        """
        lines = (launched.folder / "metrics.jsonl").read_text().splitlines()
        rows = [int(json.loads(line)["step"]) for line in lines]
        assert rows == list(range(rows[-1] + 1))
        assert json.loads((launched.folder / "run.json").read_text())["finished"] is False
        kept = newest(launched)
        assert before <= kept <= rows[-1]
        assert rows[-1] - kept <= EVERY + 1
        if signum is signal.SIGTERM:
            assert done <= kept
            assert rows[-1] - kept <= 1

    def settle(self) -> None:
        """Every process of every attempt ended with the right exit code."""
        for launched, signum, struck in self.ending:
            for index, ended in enumerate(launched.wait()):
                assert ended.code in expected_codes(signum, index in struck, len(struck)), ended
                # A supervisor may have told that its peer was lost, and then be killed itself.
                assert ended.cause is None or ended.cause.code == ended.code or ended.code == -signal.SIGKILL

    def missing(self, signum: signal.Signals) -> str | None:
        """The phase in which this signal is to come next; None where it came often enough."""
        count = {phase: self.told[signum.name, phase] for phase in PHASES}
        rarest = min(PHASES, key=lambda phase: (count[phase], self.random.random()))
        done = sum(self.told[signum.name, phase] for phase in (*PHASES, "between")) >= OF_EACH_SIGNAL
        return None if done and count[rarest] >= IN_EACH_PHASE else rarest


def test_a_run_that_is_interrupted_again_and_again_ends_as_if_it_never_was(
    byte_model: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """After every signal the right codes and a whole folder; in the end every number of an undisturbed run."""
    interrupt_again_and_again(Interruptions(byte_model, tmp_path, SEED), record_property)


def interrupt_again_and_again(interrupted: Interruptions, record_property: Callable[[str, object], None]) -> None:
    record_property("seed", SEED)
    for signum in (signal.SIGTERM, signal.SIGKILL):
        while (phase := interrupted.missing(signum)) is not None:
            interrupted.interrupt(signum, phase)
    for (name, phase), count in sorted(interrupted.told.items()):
        record_property(f"{name} in {phase}", count)
    interrupted.settle()
    last = interrupted.start()
    elsewhere = {"output_uri": str(interrupted.folder / "whole")}
    whole = Launched(interrupted.run.model_copy(update=elsewhere), interrupted.folder / "undisturbed")
    assert {one.fingerprint for one in last.finish()} == {one.fingerprint for one in whole.finish()}
    assert [numbers(row) for row in last.metrics] == [numbers(row) for row in whole.metrics]


def expected_codes(signum: signal.Signals, struck: bool, victims: int) -> tuple[int, ...]:
    """A worker that is killed has failed, a killed supervisor says nothing; of two, one may see the other die."""
    if signum is signal.SIGTERM:
        return (ExitCode.PREEMPTED,)
    killed = (ExitCode.FAILED, -signal.SIGKILL)
    return (ExitCode.PEER_LOST,) if not struck else killed if victims == 1 else (*killed, ExitCode.PEER_LOST)


def step_of(entry: Entry) -> int:
    """The step that a process is at, -1 where it does not say: `rollout of step 7`."""
    number = re.search(r"step (\d+)$", entry.doing)
    return int(number[1]) if number else -1


def numbers(row: dict[str, float]) -> dict[str, float]:
    """What depends on the run alone, and not on the machine's mood."""
    return {name: value for name, value in row.items() if not name.startswith(MEASURED)}
