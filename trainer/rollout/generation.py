"""One pass of generation: local prompts in, local completions out, compiled programs between.

Comes in: parameters, this process's prompts as token ids. Goes out: `Completions`. Refuses to know: what is inside the
program (`trainer.rollout.program`), text, rewards.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from trainer.arrays.truncation import Truncation
from trainer.contract.run import Sampling
from trainer.mesh import rows_to_global
from trainer.model.config import ModelConfig
from trainer.model.decoder import Params
from trainer.rollout.chunks import Asked, End, complete, local_part
from trainer.rollout.layout import RowLayout, lay_out, whole_prompts
from trainer.rollout.program import Draw, Program, Work


class Completions(NamedTuple):
    """The local rows in prompt-major order, row = prompt · samples + sample.

    `tokens` int32 [row, max_length_sample], pad after the end; `lengths` int32 [row] count the stop token too;
    `finished` bool [row]: a stop token was sampled, or `end` found one, and not the length reached. `steps`: tokens
    that were computed for every row: the longest completion of all processes, and up to a chunk more where `end` ended
    it. float32 [row, max_length_sample], 0 after the end, None where the choice was greedy: `sampled_logprobs` under
    the distribution that was sampled, truncated and renormalised, and `full_logprobs` under that of the whole
    vocabulary at the same temperature; without truncation they are the same.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    finished: np.ndarray
    steps: int
    sampled_logprobs: np.ndarray | None
    full_logprobs: np.ndarray | None


class Rollout:
    """Generation on a mesh; a new program is compiled only for a new shape of work."""

    def __init__(
        self,
        config: ModelConfig,
        mesh: Mesh,
        sampling: Sampling,
        *,
        stop_ids: Sequence[int],
        pad_id: int,
        compute_dtype: Any,
        gather_weights: bool = True,
        end: End | None = None,
        asked: Asked = lambda: False,
    ) -> None:
        """Fix what all passes share.

        `gather_weights`: while generating, every data shard holds all weights in the compute dtype; without it they
        are gathered layer by layer for every token, which is slow and takes less memory. `end` ends rows that no stop
        token did. `asked` is called once a chunk, and tells whether this process wants to stop.
        """
        self._mesh = mesh
        self._shards = len(mesh.local_devices) // mesh.shape["tp"]
        self._pad_id = pad_id
        self._end, self._asked = end, asked
        self._program = Program(
            config=config,
            mesh=mesh,
            longest=sampling.max_length_sample,
            temperature=sampling.temperature,
            truncation=Truncation(sampling.top_k, sampling.top_p, sampling.min_p),
            stop_ids=tuple(stop_ids),
            pad_id=pad_id,
            compute_dtype=compute_dtype,
            gather_weights=gather_weights,
        )

    def generate(
        self,
        params: Params,
        prompts: Sequence[Sequence[int]],
        prompt_ids: Sequence[int],
        step: int,
        seed: int,
        prompt_bucket: int,
        *,
        samples: int,
        greedy: bool = False,
        prompts_per_process: int | None = None,
    ) -> Completions:
        """Complete each local prompt `samples` times.

        `prompt_ids` are the prompts' global numbers in the step: a row's samples depend on seed, step, prompt id and
        sample number only, not on mesh or process. `prompt_bucket` is the padded prompt length, the same on all
        processes, which all must call this together with equal numbers of prompts; where some have fewer (the end of
        an evaluation), `prompts_per_process` is the number that all pad to. Raises ValueError for a prompt that is
        empty or longer than the bucket, and Stopped in all processes where one was asked to stop.
        """
        count = whole_prompts(max(len(prompts), prompts_per_process or 0), samples, self._shards)
        layout = lay_out(count, samples, self._shards)
        work = self._place(layout, prompts, prompt_ids, samples, prompt_bucket)
        draw, ways = Draw(np.uint32(seed), np.uint32(step)), {"greedy": greedy, "one_to_one": layout.one_to_one}
        done = complete(self._program, params, work, draw, self._end, self._asked, **ways)
        tokens, lengths, finished, sampled, full = (
            array.reshape(-1, *array.shape[2:])[: len(prompts) * samples]
            for array in map(local_part, (done.tokens, done.lengths, done.finished, *done[-2:]))
        )
        inside = np.arange(tokens.shape[1]) < lengths[:, None]
        logprobs = [None if greedy else np.where(inside, numbers, np.float32(0.0)) for numbers in (sampled, full)]
        tokens = np.where(inside, tokens, np.int32(self._pad_id))
        return Completions(tokens, lengths, finished, int(done.steps), *logprobs)

    def _place(
        self,
        layout: RowLayout,
        prompts: Sequence[Sequence[int]],
        prompt_ids: Sequence[int],
        samples: int,
        prompt_bucket: int,
    ) -> Work:
        """Lay the local prompts out in slots and rows, and make them this process's part of the global arrays."""
        rows = np.arange(layout.rows)
        ids = np.zeros(layout.rows // samples, np.uint32)
        ids[: len(prompts)] = prompt_ids
        tokens, lengths = _pad_left(prompts, layout.rows // samples, prompt_bucket, self._pad_id)
        slots = np.array(layout.prompt_of_slot)
        local = Work(
            tokens=tokens[slots],
            lengths=lengths[slots],
            slot_of_block=np.array(layout.slot_of_block, np.int32),
            prompt_ids=ids[rows // samples].reshape(-1, layout.block),
            samples=(rows % samples).astype(np.uint32).reshape(-1, layout.block),
            wanted=(rows < len(prompts) * samples).reshape(-1, layout.block),
        )
        return Work(*(rows_to_global(self._mesh, array) for array in local))


def _pad_left(prompts: Sequence[Sequence[int]], count: int, size: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32 [count, size] and lengths int32 [count]; prompts beyond those given are one pad token long."""
    tokens, lengths = np.full((count, size), pad_id, np.int32), np.ones(count, np.int32)
    for place, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= size:
            raise ValueError(f"prompt {place} has {len(prompt)} tokens; it must have 1 to {size}, its bucket")
        tokens[place, size - len(prompt) :], lengths[place] = prompt, len(prompt)
    return tokens, lengths
