"""From a step's experience to its updates: advantages, rows, old and reference log-probabilities, epochs.

In: the state and an `Experience`. Out: the next state and the step's metrics; all processes call it together. It
refuses to know how a reward came about, and what is done about an update that was not finite.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from trainer.asking import Answers
from trainer.contract.run import Algorithm, RunConfig
from trainer.experience import Experience, Table
from trainer.grpo.advantages import batch_advantages, group_advantages
from trainer.grpo.shaping import overlong_penalty
from trainer.metrics import Row
from trainer.model.decoder import Params
from trainer.model.lora import Frozen
from trainer.rollout import bucket
from trainer.trainbatch import BatchSizes, TrainBatch, TrainRow, build_train_batch, sizes_of
from trainer.update import Logprobs, TrainState, Update

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Learner:
    """The compiled programs of an update with what they need of a run.

    `usual_prompt` tokens are what prompts are padded to at least: a step of shorter ones compiles nothing.
    `reference` holds the weights that the KL term stays near, split like the policy's; None without one. `frozen` is
    the model where adapters are trained.
    """

    run: RunConfig
    process_index: int
    mesh: Mesh
    pad_id: int
    update: Update
    logprobs: Logprobs
    usual_prompt: int
    reference: Params | None
    frozen: Frozen | None = None

    def policy(self, state: TrainState) -> Params:
        """The model that samples and is trained: the weights of the state, or adapters beside a frozen model."""
        return state.params if self.frozen is None else self.frozen.joined(state.params)

    def learn(self, state: TrainState, found: Experience, beat: Callable[[], None]) -> tuple[TrainState, Row]:
        """All updates on one batch of completions; metrics are means over them. `beat` is told each.

        It ends at the first update that is not finite, which was not applied: the next would be the same.
        """
        batch, shaping = self._compared(state, self._batch(found)), self._shaping(found)
        beat()
        rows: list[Row] = []
        for _ in range(self.run.algorithm.ppo_epochs):
            state, metrics = self.update(state, batch)
            rows.append({f"update/{name}": float(np.asarray(value)) for name, value in metrics.items()})
            beat()
            if not rows[-1]["update/finite"]:
                return state, rows[-1] | shaping
        return state, {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} | shaping

    def _shaping(self, found: Experience) -> Row:
        buffer, longest = self.run.algorithm.overlong_buffer, self.run.sampling.max_length_sample
        penalty = overlong_penalty(found.table.completion_tokens, longest, buffer)
        return {"reward/overlong_penalty": float(penalty.mean())} if buffer else {}

    def rows(self, found: Experience) -> list[TrainRow]:
        """The local rows with their advantages. An unscorable row teaches nothing: its tokens are left out.

        With dynamic sampling, so are those of a group without variance, which only fills the batch up.
        """
        plan, algorithm = self.run.batch, self.run.algorithm
        table, longest = found.table, self.run.sampling.max_length_sample
        everywhere = step_advantages(table.totals, table.completion_tokens, plan.group_size, longest, algorithm)
        advantages = self._local(everywhere)
        trained = np.isfinite(found.totals)
        if algorithm.dynamic_sampling > 1:
            trained &= self._local(np.repeat(table.differing(plan.group_size), plan.group_size))
        if algorithm.mask_truncated:
            trained &= np.concatenate([answers.finished for answers in found.answers])
        asked = [
            (q, ids) for answers in found.answers for q, ids in zip(answers.questions, answers.token_ids, strict=True)
        ]
        sampled = [said for answers in found.answers for said in _logprobs(answers)]
        rows = zip(asked, advantages, trained, sampled, strict=True)
        return [TrainRow(question.token_ids, ids, float(a), bool(t), said) for (question, ids), a, t, said in rows]

    def _local(self, rows: NDArray[Scalar]) -> NDArray[Scalar]:
        """Of numbers in the step's order [row] those of this process, which has a part of each pass."""
        plan = self.run.batch
        return rows.reshape(plan.passes, plan.processes, -1)[:, self.process_index].ravel()

    def sizes(self, table: Table) -> BatchSizes:
        """The static shape of a batch of these rows, the same on every process."""
        sampling, lengths = self.run.sampling, table.completion_tokens.astype(np.int64)
        prompt_bucket = bucket(max(self.usual_prompt, int(np.max(table.prompt_tokens))), sampling.global_length)
        return sizes_of(lengths, self.run.batch, prompt_bucket=prompt_bucket, limit=sampling.max_length_sample)

    def _batch(self, found: Experience) -> TrainBatch:
        sizes = self.sizes(found.table)
        return build_train_batch(self.rows(found), self.run.batch, self.mesh, pad_id=self.pad_id, sizes=sizes)

    def _compared(self, state: TrainState, batch: TrainBatch) -> TrainBatch:
        """The batch with what its log-probabilities are compared to, both before any update.

        A single update needs no old ones: it begins at the old policy, where the ratio is 1.
        """
        if self.run.algorithm.ppo_epochs > 1:
            batch = batch._replace(old_logprobs=self.logprobs(self.policy(state), batch))
        if self.reference is not None:
            batch = batch._replace(reference_logprobs=self.logprobs(self.reference, batch))
        return batch


def _logprobs(answers: Answers) -> Sequence[NDArray[np.float32] | None]:
    return [None] * len(answers.texts) if answers.logprobs is None else answers.logprobs


def step_advantages(
    totals: NDArray[np.float64], lengths: NDArray[np.float64], group_size: int, longest: int, algorithm: Algorithm
) -> NDArray[np.float32]:
    """Advantages [row] of all rows of the step, group by group, from their `totals` [row], NaN where unscorable.

    `lengths` [row] are those of the completions in tokens, `longest` is the longest one allowed.
    """
    shaped = totals + overlong_penalty(lengths, longest, algorithm.overlong_buffer)
    rewards = shaped.reshape(-1, group_size)
    scored = np.isfinite(rewards)
    if algorithm.advantage == "reinforce++":
        return batch_advantages(rewards, scored).ravel()
    ddof = 1 if algorithm.deviation == "sample" else 0
    return group_advantages(rewards, scored, estimator=algorithm.advantage, ddof=ddof).ravel()
