"""Station 8, the loop: questions → completions → rewards → advantages → update → metrics, step after step.

In: a built run and the place where it stands. Out: an exit code; on the way metrics, completions, evaluations and
checkpoints in the run folder. It refuses to know how a model computes, and what a reward looks at.
"""

import json
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from trainer import progress
from trainer.asking import Asker, Call, prompt_bucket
from trainer.cadence import Cadence
from trainer.checkpoint import Checkpoints, Place, fingerprint
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.process import ProcessConfig
from trainer.data import QuestionSet, draw, epoch_of
from trainer.distributed import Stopped, agree_any, agree_to_stop, gather
from trainer.evaluate import Evaluation, answer_record
from trainer.experience import Experience, Round, collect, table_row
from trainer.learning import Learner
from trainer.lookout import Lookout
from trainer.metricnames import LOSS_NEAR_ZERO
from trainer.metrics import MetricsFile, Row, batch_row
from trainer.model.decoder import Params
from trainer.programs import CompileClock
from trainer.rewards.answers import TAGS
from trainer.selection import Choice, choice_row, choose, deal, everything
from trainer.showing import completions_table, shown_as
from trainer.spoiled import SpoiledSteps
from trainer.tracking import Tracking
from trainer.update import TrainState
from trainer.usage import Sizes, Usage
from trainer.watchdog import LOADING_SECONDS, Heartbeat

log = logging.getLogger("trainer")

SHOW_COMPLETIONS_EVERY = 10
"""Steps between two tables of completions; the first and the last step have one too."""
_GROUPS_SHOWN = 2
_LOSS_EXPLAINED_BELOW = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """What station 7 built. `checkpoints` is None where the processes share no folder to write one.

    `on_step` is told each completed step by its row; `publish` brings a run folder in a bucket up to date; `export` is
    given the parameters after the last step.
    """

    process: ProcessConfig
    mesh: Mesh
    asker: Asker
    questions: QuestionSet
    evaluation: Evaluation | None
    learner: Learner
    usage: Usage
    tracking: Tracking
    checkpoints: Checkpoints | None
    heartbeat: Heartbeat
    lookout: Lookout
    on_step: Callable[[Row], None]
    publish: Callable[[], None]
    export: Callable[[Params], None] | None


class Loop:
    """One attempt of a run, from the place where it stands to its last step or to a safe point at which it stops."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._config = run.process.run
        self._plan = run.process.run.batch
        self._index = run.process.process_index
        self._metrics = MetricsFile(Path(run.process.folder.metrics))
        self._pace, self._compiling = progress.Pace(), CompileClock()
        self._spoiled = SpoiledSteps(run.process)
        self._cadence = Cadence(run.process.run.checkpoint)
        self._reached = 0

    def nothing_to_lose(self) -> bool:
        """Whether the last completed step is committed, or never can be. Asked from another thread."""
        checkpoints = self._run.checkpoints
        return checkpoints is None or self._reached == (checkpoints.newest or 0)

    def committed(self) -> int | None:
        """The step of the newest checkpoint. Asked from another thread."""
        return None if self._run.checkpoints is None else self._run.checkpoints.newest

    def train(self, state: TrainState, place: Place) -> ExitCode:
        """Train to the last step: DONE, or PREEMPTED where all processes agreed to stop at a safe point before it."""
        self._reached = place.step
        try:
            self._catch_up(state, place)
            while place.step < self._config.steps:
                self._pause()
                state, place, row = self._step(state, place)
                self._conclude(state, place, row)
            return self._finished(state, place)
        except Stopped:
            return self._stopped(state, place)
        finally:
            self._run.tracking.close()

    def _pause(self) -> None:
        """A safe point; raises Stopped where the state as it was at the last step's end is to be kept."""
        if self._run.checkpoints is not None and self._run.checkpoints.writing:
            self._run.heartbeat.extend(LOADING_SECONDS)
            self._run.checkpoints.poll()
        agree_to_stop(self._run.lookout.asked)
        self._run.heartbeat.beat()  # and not before: the others may still be at what took this process no time

    # --- one step

    def _step(self, state: TrainState, place: Place) -> tuple[TrainState, Place, Row]:
        """Train one step. Until its update begins, Stopped leaves it undone, with `state` as it was."""
        step, compiling = place.step + 1, self._compiling.seconds
        watch = progress.Stopwatch(entered=lambda phase: self._run.heartbeat.begin(phase, step))
        found = collect(
            self._run.asker,
            self._run.learner.policy(state),
            partial(self._round, place),
            self._plan,
            self._index,
            watch,
            self._pause,
            most_rounds=self._config.algorithm.dynamic_sampling,
        )
        self._check_scorable(step, found)
        choice, batch = self._chosen(step, found)
        with watch.phase("update"):
            state, measured = self._run.learner.learn(state, batch, self._run.heartbeat.beat)
        self._spoiled.check(step, measured, batch, self._run.learner.rows)
        if not measured["update/completion_tokens"] and not self._index:
            log.warning("step %d: no completion was left to learn from; the weights stay as they are", step)
        self._reached = step
        place = replace(place, step=step, cursor=place.cursor + choice.walked)
        row = measured | self._usage(found, batch, watch) | self._row(place, found, choice, watch)
        row["time/compile_s"] = self._compiling.seconds - compiling
        self._tell(row, found)
        return state, place, row

    def _round(self, place: Place, number: int) -> Round:
        config, count = self._config, self._plan.prompts_per_step
        rows = draw(config.seed, len(self._run.questions), place.cursor + number * count, count)
        questions = [self._run.questions.questions[row] for row in rows]
        size = prompt_bucket(questions, config.sampling.global_length, self._run.learner.usual_prompt)
        return Round(questions, Call(place.step + 1, config.seed, size, samples=self._plan.group_size))

    def _chosen(self, step: int, found: Experience) -> tuple[Choice, Experience]:
        if self._config.algorithm.dynamic_sampling == 1:
            return everything(self._plan), found
        choice = choose(found.table, self._plan)
        if choice.trained < len(choice.groups) and not self._index:
            text = "step %d: only %d of %d groups have different rewards after %d prompts, the most that a step may ask"
            log.warning(text, step, choice.trained, len(choice.groups), choice.walked)
        return choice, deal(found, choice, self._plan, self._index, self._run.asker)

    def _check_scorable(self, step: int, found: Experience) -> None:
        """Faults of rewards are told; one that fails on every row of the first step will not do better later."""
        for name in self._run.asker.reward_names:
            errors = [scores.errors[name] for scores in found.scores if name in scores.errors]
            number = self._run.asker.reward_names.index(name)
            count = int(found.table.failed[number].sum())
            if errors:
                log.warning("step %d: reward %s failed: %s (%d rows over all processes)", step, name, errors[0], count)
            if step == 1 and found.table.failed[number].all():
                reason = errors[0] if errors else "see the logs of the other processes"
                text = f"rewards[{number}]: {name} failed on all {count} completions of the first step: {reason}"
                raise RunError(ExitCode.FAILED, f"{text}; try it with --rewards-try", agreed=True)

    def _usage(self, found: Experience, batch: Experience, watch: progress.Stopwatch) -> Row:
        sampled, trained = (Sizes(one.table.prompt_tokens, one.table.completion_tokens) for one in (found, batch))
        computed = self._run.learner.sizes(batch.table).computed(self._plan)
        return self._run.usage.row(sampled, trained, computed, watch.seconds)

    def _row(self, place: Place, found: Experience, choice: Choice, watch: progress.Stopwatch) -> Row:
        seconds, tokens = watch.total, float(found.table.completion_tokens.sum())
        devices = self._plan.processes * self._plan.devices_per_process
        row: Row = {"step": place.step, "epoch": epoch_of(len(self._run.questions), place.cursor)}
        row |= {"data/dropped": self._run.questions.dropped, "data/truncated": self._run.questions.truncated}
        asked = found.table.take(np.arange(choice.walked * self._plan.group_size))
        row |= table_row(asked, self._run.asker.reward_names, self._plan.group_size)
        if self._config.algorithm.dynamic_sampling > 1:
            row |= choice_row(choice, len(found.answers))
        row |= {f"time/{name}_s": spent for name, spent in watch.seconds.items()} | {"time/step_s": seconds}
        row["throughput/completion_tokens_per_s"] = tokens / seconds
        row["throughput/completion_tokens_per_s_per_device"] = tokens / seconds / devices
        return row | batch_row(self._plan)

    def _tell(self, row: Row, found: Experience) -> None:
        """The line of the step, and now and then a few completions: process 0 speaks for all."""
        step, steps = int(row["step"]), self._config.steps
        self._pace.add(row["time/step_s"])
        if self._index:
            return
        left = self._pace.remaining_seconds(steps - step)
        told = progress.StepShown(row, steps, self._run.asker.reward_names, left)
        log.info("%s", told.line(), extra=shown_as(told))
        if step == 1:
            self._tell_beginning(row)
        if step not in (1, steps) and step % SHOW_COMPLETIONS_EVERY:
            return
        answers, scores = found.answers[0], found.scores[0]
        shown = min(_GROUPS_SHOWN * self._plan.group_size, len(answers.texts))
        records = [answer_record(answers, scores, number) for number in range(shown)]
        folder = Path(self._run.process.folder.completions)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"step": step} | record) + "\n" for record in records]
        (folder / f"step-{step:08d}.jsonl").write_text("".join(lines))
        table = completions_table(records, step)
        log.info("%s", progress.completions_lines(records, step), extra=shown_as(table))

    def _tell_beginning(self, row: Row) -> None:
        """What people ask after the first step, and a form that is rewarded and that nobody told the model of."""
        if abs(row["update/loss"]) < _LOSS_EXPLAINED_BELOW:
            log.info("%s", LOSS_NEAR_ZERO)
        data, rewards = self._config.data, self._config.rewards
        forms = [reward.name for reward in rewards if reward.python is None and reward.name != "correct"]
        unseen = [name for name in forms if row[f"reward/{name}/mean"] == 0]
        if unseen and data.system_prompt is None and data.prompt_template is None:
            text = "step 1: no completion earned anything from %s; ask for %s…%s %s…%s in data.system_prompt"
            log.warning(text, " and ".join(unseen), *TAGS)

    # --- what is due between steps

    def _conclude(self, state: TrainState, place: Place, row: Row) -> None:
        """A checkpoint and the row of metrics, and then the evaluation, which may take long and is easily repeated.

        Where the evaluation's score decides what is kept, the checkpoint waits for it.
        """
        examined = self._evaluates(place.step)
        scored = examined and self._config.checkpoint.best is not None
        if not scored:
            row |= self._save_if_due(state, place, None)
        if not self._index:
            self._metrics.write(row)
        self._run.on_step(row)
        if examined:
            row |= self._evaluated(state, place)
            if scored:
                row |= self._save_if_due(state, place, self._cadence.score_of(row))
            if not self._index:
                self._metrics.replace(row)
        self._run.tracking.write(row)  # when it is whole: after Stopped the next attempt tells it

    def _catch_up(self, state: TrainState, place: Place) -> None:
        """Forget metrics of steps to be made again; evaluate where that was not done yet, before the first step too."""
        row: Row = {"step": place.step}
        if not self._index:
            self._metrics.keep_up_to(place.step)
            row = next((kept for kept in self._metrics.read() if kept["step"] == place.step), row)
        if self._evaluates(place.step) and bool(gather(np.array("eval/questions" not in row))[0]):
            row |= self._evaluated(state, place)
            if not self._index:
                self._metrics.replace(row)
        if not self._index:
            self._run.tracking.begin(self._metrics.read())

    def _evaluates(self, step: int) -> bool:
        every = self._config.eval_every_steps
        return every > 0 and (step % every == 0 or step == self._config.steps)

    def _evaluated(self, state: TrainState, place: Place) -> Row:
        if self._run.evaluation is None:
            return {}
        watch, config = progress.Stopwatch(), self._config
        self._run.heartbeat.begin("evaluation", place.step)
        row = self._run.evaluation.run(
            self._run.learner.policy(state), place.step, config.sampling.global_length, config.eval_batches, self._pause
        )
        with suppress(OSError):  # answers lie there before a row says so; a silent bucket is asked again later
            self._run.publish()
        if not self._index:
            log.info("%s", progress.evaluation_line(row, place.step, self._run.asker.reward_names, watch.total))
        return row | {"time/evaluation_s": watch.total}

    def _save_if_due(self, state: TrainState, place: Place, score: float | None) -> Row:
        checkpoints = self._run.checkpoints
        if checkpoints is None or not self._cadence.is_due(place.step, score, checkpoints.best):
            return {}
        return self._save(state, place, score)

    def _save(self, state: TrainState, place: Place, score: float | None = None) -> Row:
        """Begin to save; the time that it took from training, and how many saves have failed."""
        if self._run.checkpoints is None:
            return {}
        self._run.heartbeat.begin("checkpoint", place.step, LOADING_SECONDS)
        watch = progress.Stopwatch()
        self._run.checkpoints.save(state, place, score)
        self._cadence.saved()
        self._run.heartbeat.beat()
        return {"time/checkpoint_s": watch.total, "checkpoint/failed": self._run.checkpoints.failed}

    def _stopped(self, state: TrainState, place: Place) -> ExitCode:
        """Keep what was trained. Where no process had anything to lose, the lookouts have ended them, or will."""
        if not agree_any(not self._run.lookout.seal()):
            threading.Event().wait()
        if place.step:
            self._save(state, place)
        log.info("stopped after step %d of %d%s", place.step, self._config.steps, self._kept(state, place))
        return ExitCode.PREEMPTED

    def _kept(self, state: TrainState, place: Place) -> str:
        """What the next attempt will find, once everything is written."""
        checkpoints = self._close()
        if not place.step:
            return ""
        if checkpoints is None:
            return f", nothing saved: the processes share no folder; {_told(state)}"
        if checkpoints.newest != place.step:
            return f", and not saved: the newest checkpoint is that of step {checkpoints.newest or 0}"
        return f" and saved; {_told(state)}"

    def _finished(self, state: TrainState, place: Place) -> ExitCode:
        if self._config.checkpoint.saves:
            self._save(state, place)
        if self._run.export is not None:
            self._run.heartbeat.begin("export")
            self._run.export(state.params)
        self._run.lookout.seal()
        agree_to_stop(self._run.lookout.asked)
        checkpoints = self._close()
        if self._config.checkpoint.saves and checkpoints is not None and checkpoints.newest != place.step:
            text = f"the last step, {place.step}, could not be saved, as told above; a restart makes it again"
            raise RunError(ExitCode.FAILED, text, agreed=True)
        log.info("done: %d steps; %s", place.step, _told(state))
        return ExitCode.DONE

    def _close(self) -> Checkpoints | None:
        if self._run.checkpoints is not None:
            self._run.heartbeat.begin("checkpoint", extra_seconds=LOADING_SECONDS)
            self._run.checkpoints.close()
        return self._run.checkpoints


def _told(state: TrainState) -> str:
    return f"fingerprint of the parameters {fingerprint(state.params)}"
