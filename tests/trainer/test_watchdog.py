"""The watchdog: silence is a stall, and what is known to take long is not."""

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from launching import resolved

from trainer.asking import Answers
from trainer.checkpoint import Place
from trainer.contract.process import ProcessConfig
from trainer.contract.run import RunConfig
from trainer.data import Question, QuestionSet
from trainer.distributed import when_compiling
from trainer.evaluate import Evaluation, Exam
from trainer.lookout import Lookout
from trainer.loop import Loop, Run
from trainer.progress import Ledger
from trainer.rewards import Scores
from trainer.showing import display
from trainer.watchdog import LOADING_SECONDS, Heartbeat, Watchdog
from trainer.worker import Worker


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


def watched(clock: Clock, deadline: float) -> tuple[Heartbeat, Watchdog]:
    heartbeat = Heartbeat(now=clock)
    return heartbeat, Watchdog(heartbeat, deadline, on_stall=lambda message: None)


def test_a_silent_heartbeat_is_a_stall() -> None:
    """Loading has a deadline of its own; once running, the configured one counts from the last beat."""
    heartbeat, watchdog = watched(clock := Clock(), 5.0)
    clock.time = LOADING_SECONDS - 1
    assert watchdog.stalled() is None
    watchdog.running()
    assert watchdog.stalled() == "loading: no progress for 3599 s (progress_deadline_seconds is 5)"
    heartbeat.begin("update", 2)
    clock.time += 5.0
    assert watchdog.stalled() is None
    clock.time += 1.0
    assert watchdog.stalled() == "update of step 2: no progress for 6 s (progress_deadline_seconds is 5)"
    heartbeat.beat()
    assert watchdog.stalled() is None


def test_what_may_take_long_has_time_of_its_own_until_the_next_beat() -> None:
    """The longest extension counts on top of the deadline, and none outlasts the work that it was for."""
    heartbeat, watchdog = watched(clock := Clock(), 5.0)
    watchdog.running()
    heartbeat.begin("checkpoint", extra_seconds=10.0)
    heartbeat.extend(60.0)
    heartbeat.extend(20.0)
    clock.time = 65.0
    assert watchdog.stalled() is None
    clock.time = 66.0
    assert watchdog.stalled() == "checkpoint: no progress for 6 s (progress_deadline_seconds is 5)"
    heartbeat.beat()
    clock.time += 6.0
    assert watchdog.stalled() is not None


def loop_of(run: RunConfig, heartbeat: Heartbeat, **parts: object) -> Loop:
    """A loop with these parts alone."""
    missing = dict.fromkeys(field.name for field in fields(Run))
    own = {"process": ProcessConfig(run, "0123abcd", 0, None, 0), "heartbeat": heartbeat, "publish": lambda: None}
    return Loop(Run(**missing | own | {"lookout": Lookout(lambda *_: None)} | parts))


def test_a_checkpoint_on_its_way_to_a_slow_bucket_is_no_stall(tmp_path: Path) -> None:
    """Beginning one, committing it between two passes, and waiting for the last one may take an hour each."""
    heartbeat, watchdog = watched(clock := Clock(), 5.0)
    watchdog.running()
    looks = []

    def slow(*_: object) -> None:
        clock.time += LOADING_SECONDS
        looks.append(watchdog.stalled())

    checkpoints = SimpleNamespace(writing=True, failed=0, newest=2, poll=slow, save=slow, close=slow)
    loop = loop_of(resolved(tmp_path, tmp_path, tmp_path, 1, 1), heartbeat, checkpoints=checkpoints)
    for wait in (loop._pause, lambda: loop._save(None, Place(2, 0, "")), loop._close):
        heartbeat.begin("rollout", 3)
        wait()
    assert looks == [None] * 3
    heartbeat.beat()
    clock.time += 6.0
    assert watchdog.stalled() is not None


def test_a_whole_evaluation_is_no_stall(tmp_path: Path) -> None:
    """Three batches that take almost the deadline each: every one of them is progress, and so is the last."""
    heartbeat, watchdog = watched(clock := Clock(), 5.0)
    watchdog.running()
    looks = []

    class Slow:
        reward_names = ("x",)

        def generate(self, params: object, asked: list[Question], *_: object) -> Answers:
            clock.time += 4.0
            looks.append(watchdog.stalled())
            return Answers(asked, [[5]] * len(asked), ["!"] * len(asked), np.ones(len(asked), bool))

        def score(self, answers: Answers, step: int) -> Scores:
            numbers = np.zeros(len(answers.texts))
            return Scores(("x",), numbers[None], numbers[None] > 0, numbers, {})

    run = resolved(tmp_path, tmp_path, tmp_path, 1, 1)
    asked = QuestionSet("sums", (Question("?", (5,), {}),) * 70, 0, 0)
    exam = Exam(asked, run.eval, 0, run.batch, 0, tmp_path)
    learner = SimpleNamespace(policy=lambda _: None)
    loop = loop_of(run, heartbeat, asker=Slow(), evaluation=Evaluation(Slow(), exam), learner=learner)
    loop._evaluated(None, Place(2, 0, ""))
    assert looks == [None] * 3
    clock.time += 6.0
    assert watchdog.stalled() is not None


def test_copying_to_a_slow_bucket_is_no_stall() -> None:
    """While a run folder is copied its bucket may take longer than the deadline of progress."""
    heartbeat, watchdog = watched(clock := Clock(), 5.0)
    watchdog.running()
    looks = []

    class Slow:
        def push(self) -> None:
            clock.time += LOADING_SECONDS
            looks.append(watchdog.stalled())

    worker = Worker(Ledger(None), heartbeat, display(heartbeat))
    worker._spool = Slow()
    heartbeat.begin("evaluation", 2)
    worker._publish()
    assert looks == [None]
    clock.time += 6.0
    assert watchdog.stalled() is not None


def test_a_long_compilation_is_no_stall() -> None:
    """The time that a compiler needs is granted before it begins, however long it then takes."""
    heartbeat, watchdog = watched(clock := Clock(), 5.0)
    watchdog.running()
    when_compiling(lambda: heartbeat.extend(LOADING_SECONDS))
    looks = []

    def while_it_compiles(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            clock.time += 1000.0
            looks.append(watchdog.stalled())

    jax.monitoring.register_event_duration_secs_listener(while_it_compiles)
    jax.jit(lambda x: x * 3 + 1)(jnp.arange(7.0)).block_until_ready()
    jax.monitoring.unregister_event_duration_listener(while_it_compiles)
    assert looks[0] is None
    heartbeat.beat()
    clock.time += 6.0
    assert watchdog.stalled() is not None
