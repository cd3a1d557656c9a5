"""Workload W (see `step.py`) in Tunix, which has an environment of its own: a line comes in, a training step goes out.

Standard input is a pipe: each line holds the prompts of one step as JSON, lists of token ids; an empty one ends.
Standard output: the seconds of that step. Tunix is asked as its own examples do, with its defaults where W is silent:
https://github.com/google/tunix/blob/main/examples/grpo_gemma.ipynb.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import optax
from flax import nnx
from tunix.models.qwen2.model import ModelConfig, Qwen2
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

SAMPLES, NEW, LONGEST_PROMPT, MICRO_BATCH, QUESTIONS, VOCABULARY = 8, 128, 128, 16, 8, 4096
NEVER = VOCABULARY + 1
"""A stop id that no sample has, so that nothing stops early."""


class Numbers:
    """A tokenizer whose text is the token ids themselves."""

    def encode(self, text: str, **_: Any) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        return 0

    def eos_id(self) -> int:
        return NEVER

    def pad_id(self) -> int:
        return 0


def even(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """A reward that differs within a group: the share of even tokens."""
    return [sum(int(word) % 2 == 0 for word in text.split()) / NEW for text in completions]


def learner(mesh: jax.sharding.Mesh) -> GRPOLearner:
    shape = ModelConfig(
        num_layers=4,
        vocab_size=VOCABULARY,
        embed_dim=256,
        hidden_dim=1024,
        num_heads=4,
        head_dim=64,
        num_kv_heads=2,
        rope_theta=1_000_000,
        norm_eps=1e-6,
        use_tied_embedding=True,
    )
    training = RLTrainingConfig(
        actor_optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-6)),
        max_steps=10**6,
        eval_every_n_steps=10**6,
        mini_batch_size=QUESTIONS,
        train_micro_batch_size=MICRO_BATCH // SAMPLES,
        rollout_micro_batch_size=QUESTIONS,
        compute_logps_micro_batch_size=QUESTIONS,
    )
    rollout = RolloutConfig(
        max_tokens_to_generate=NEW,
        temperature=1.0,
        max_prompt_length=LONGEST_PROMPT,
        kv_cache_size=LONGEST_PROMPT + NEW,
        eos_tokens=[NEVER],
    )
    cluster = RLCluster(
        actor=Qwen2(shape, rngs=nnx.Rngs(0)),
        tokenizer=Numbers(),
        cluster_config=ClusterConfig(
            role_to_mesh=dict.fromkeys((Role.ACTOR, Role.REFERENCE, Role.ROLLOUT), mesh),
            training_config=training,
            rollout_config=rollout,
        ),
    )
    return GRPOLearner(cluster, GRPOConfig(num_generations=SAMPLES, beta=0.0), reward_fns=even)


def steps(trainer: GRPOLearner, answers: Any) -> Iterator[dict[str, list[str]]]:
    """A step's prompts when they are asked for; the time is told when the next step's are."""
    start = None
    while True:
        jax.block_until_ready(nnx.state(trainer.rl_cluster.actor_trainer.model))
        if start is not None:
            print(time.perf_counter() - start, file=answers, flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            return
        start = time.perf_counter()
        yield {"prompts": [" ".join(map(str, prompt)) for prompt in json.loads(line)]}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with mesh:
        trainer = learner(mesh)
        trainer.train(steps(trainer, answers))


if __name__ == "__main__":
    main()
