"""One training step of workload W, by phase, beside the floor that this machine's own matrix product sets.

W: a random Qwen2 (hidden 256, 4 layers, 4 heads over 2 KV heads of 64, MLP 1024, vocabulary 4096, tied, float32); 8
questions of 64 to 128 tokens, 8 samples each, 128 new tokens without early stop, temperature 1, one epoch,
micro-batch 16, beta 0, AdamW; on one device. The floor counts products alone, every prompt and completion once, and
nothing for memory's sake again; the rate is that of a square float32 product, taken beside every step, so that both
meet the same noise.
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from tests.trainer.small_step import GRPO, model_of, plan_of
from trainer.contract.run import Sampling
from trainer.contract.runner import OptimizerConfig
from trainer.grpo.advantages import group_advantages
from trainer.mesh import build_mesh
from trainer.model.weights import random_params
from trainer.policy import make_scorer
from trainer.rollout import Completions, Rollout
from trainer.trainbatch import TrainRow, build_train_batch, sizes_of
from trainer.update import TrainState, init_state, make_optimizer, make_update

WARM_UP, STEPS = 2, 10
QUESTIONS, SAMPLES, NEW, LONGEST_PROMPT, MICRO_BATCH = 8, 8, 128, 128, 16
SQUARE = 1024
MODEL = model_of(
    layers=4, hidden=256, intermediate=1024, heads=4, kv_heads=2, head_dim=64, vocab=4096, max_positions=512
)
PLAN = plan_of(rows=QUESTIONS * SAMPLES, group_size=SAMPLES, micro_steps=QUESTIONS * SAMPLES // MICRO_BATCH)
SAMPLING = Sampling(
    global_length=LONGEST_PROMPT, max_length_sample=NEW, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, stop=()
)


def questions(step: int) -> list[list[int]]:
    """Other prompts of other lengths for every step."""
    draw = np.random.default_rng(step)
    return [draw.integers(0, MODEL.vocab, draw.integers(64, LONGEST_PROMPT + 1)).tolist() for _ in range(QUESTIONS)]


def rows_of(prompts: list[list[int]], done: Completions) -> list[TrainRow]:
    """Rewards of a kind that differs within a group: the share of even tokens."""
    rewards = (done.tokens % 2 == 0).mean(axis=1).reshape(QUESTIONS, SAMPLES).astype(np.float64)
    advantages = group_advantages(rewards, np.isfinite(rewards), estimator="grpo").ravel()
    pairs = zip(done.tokens.tolist(), advantages.tolist(), strict=True)
    return [TrainRow(prompts[row // SAMPLES], tokens, advantage) for row, (tokens, advantage) in enumerate(pairs)]


def products(prompts: list[list[int]]) -> float:
    """Floating-point operations of one step: weights, then attention, whose pairs of tokens cost two products each."""
    layer = 2 * MODEL.hidden * MODEL.head_dim * (MODEL.heads + MODEL.kv_heads) + 3 * MODEL.hidden * MODEL.intermediate
    body, head = 2.0 * MODEL.layers * layer, 2.0 * MODEL.hidden * MODEL.vocab
    pair = 4.0 * MODEL.layers * MODEL.heads * MODEL.head_dim

    def triangle(tokens: int) -> float:
        return pair * tokens * (tokens + 1) / 2

    total = 0.0
    for size in map(len, prompts):
        new = (body + head) * NEW + triangle(size + NEW) - triangle(size)
        once = body * size + triangle(size) + SAMPLES * new  # a prompt is read once for all of its samples
        total += once + 3 * once  # the rollout, then forward and twice as much backward
    return total


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(act())
    return time.perf_counter() - start


def matmul_rate(product: Callable[[jax.Array], jax.Array], square: jax.Array) -> float:
    """Operations a second, the best of five."""
    return 2.0 * SQUARE**3 / min(seconds(lambda: product(square)) for _ in range(5))


class Steps:
    """The step as the loop makes it, with its phases timed apart."""

    def __init__(self) -> None:
        mesh = build_mesh(PLAN, jax.devices()[:1])
        optimizer = make_optimizer(OptimizerConfig(), updates=WARM_UP + STEPS)
        self.mesh = mesh
        self.rollout = Rollout(MODEL, mesh, SAMPLING, stop_ids=(), pad_id=0, compute_dtype=jnp.float32)
        self.state: TrainState = init_state(random_params(MODEL, 0, mesh, jnp.float32), optimizer, mesh)
        score = make_scorer(MODEL, mesh, temperature=SAMPLING.temperature, compute_dtype=jnp.float32, remat="layer")
        self.update = make_update(score, mesh, optimizer, self.state, algorithm=GRPO, longest=NEW)

    def run(self, step: int) -> dict[str, float]:
        """Seconds of each phase."""
        prompts, marks = questions(step), [time.perf_counter()]
        done = self.rollout.generate(
            self.state.params, prompts, range(QUESTIONS), step, 0, LONGEST_PROMPT, samples=SAMPLES
        )
        marks.append(time.perf_counter())
        rows = rows_of(prompts, done)
        sizes = sizes_of(done.lengths.astype(np.int64), PLAN, prompt_bucket=LONGEST_PROMPT, limit=NEW)
        batch = build_train_batch(rows, PLAN, self.mesh, pad_id=0, sizes=sizes)
        marks.append(time.perf_counter())
        self.state, metrics = self.update(self.state, batch)
        jax.block_until_ready((self.state, metrics))
        marks.append(time.perf_counter())
        spent = dict(zip(("rollout", "batch", "update"), np.diff(marks).tolist(), strict=True))
        return spent | {"step": marks[-1] - marks[0]}


def told(name: str, values: list[float], unit: str) -> None:
    spread = f"min {min(values):.3f}, max {max(values):.3f}, n={len(values)}"
    print(f"{name:24} median {statistics.median(values):.3f} {unit}  ({spread})")


def main() -> None:
    steps, product = Steps(), jax.jit(lambda square: square @ square)
    square = jnp.ones((SQUARE, SQUARE), jnp.float32)
    measured, floors = [], []
    for step in range(WARM_UP + STEPS):
        rate, spent = matmul_rate(product, square), steps.run(step)
        if step >= WARM_UP:
            measured.append(spent | {"rate": rate})
            floors.append(products(questions(step)) / rate)
    for name in ("rollout", "batch", "update", "step"):
        told(name, [row[name] for row in measured], "s")
    told("generated tokens", [QUESTIONS * SAMPLES * NEW / row["rollout"] for row in measured], "1/s of rollout")
    told("matrix product", [row["rate"] / 1e9 for row in measured], "GFLOP/s")
    told("floor", floors, "s")
    told("step over floor", [row["step"] / floor for row, floor in zip(measured, floors, strict=True)], "times")


if __name__ == "__main__":
    main()
