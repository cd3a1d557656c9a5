"""Two processes of four devices take the steps that one process of eight takes.

Run as a script, with the coordinator's address and a process index, this file is one of the two.
"""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_step
from small_step import GRPO, model_of

from trainer.contract.batch import BatchPlan
from trainer.contract.runner import OptimizerConfig
from trainer.mesh import build_mesh, replicated
from trainer.model.weights import random_params
from trainer.policy import make_scorer
from trainer.trainbatch import BatchSizes, TrainRow, build_train_batch
from trainer.update import init_state, make_optimizer, make_update

MODEL = model_of(hidden=16, intermediate=32, heads=2, kv_heads=2, vocab=32)


def plan_of(processes: int) -> BatchPlan:
    return small_step.plan_of(2, 2, 2, micro_steps=2, processes=processes)


def rows() -> list[TrainRow]:
    """The first half of the rows has 1 to 2 completion tokens, the second 5 to 6: no two processes have the same."""
    draw = np.random.default_rng(4)
    prompts = draw.integers(1, MODEL.vocab, (2, 3)).tolist()
    return [
        TrainRow(
            prompts[place // 4],
            draw.integers(1, MODEL.vocab, 1 + place % 2 + 4 * (place // 4)).tolist(),
            float(draw.normal()),
        )
        for place in range(8)
    ]


def train(plan: BatchPlan, process: int) -> dict[str, Any]:
    """Metrics of two updates, and the sum and the sum of squares of each parameter after them."""
    mesh, optimizer = build_mesh(plan), make_optimizer(OptimizerConfig(learning_rate=1e-2), updates=2)
    state = init_state(random_params(MODEL, 1, mesh, jnp.float32), optimizer, mesh)
    score = make_scorer(MODEL, mesh, temperature=1.0, compute_dtype=jnp.float32, remat="none")
    update = make_update(score, mesh, optimizer, state, algorithm=GRPO, longest=6)
    share = plan.sequences_per_process
    mine = rows()[process * share : (process + 1) * share]
    result: dict[str, Any] = {"metrics": []}
    for _ in range(2):
        batch = build_train_batch(mine, plan, mesh, pad_id=0, sizes=BatchSizes(prompt=4, completion=6, places=6))
        state, metrics = update(state, batch)
        result["metrics"].append({name: float(value) for name, value in metrics.items()})
    measure = jax.jit(
        lambda params: jax.tree.map(lambda leaf: jnp.stack([leaf.sum(), (leaf**2).sum()]), params),
        out_shardings=replicated(mesh),
    )
    measured = jax.tree_util.tree_leaves_with_path(measure(state.params))
    return result | {"params": {jax.tree_util.keystr(path): np.asarray(leaf).tolist() for path, leaf in measured}}


def test_two_processes_are_one() -> None:
    """The loss is normalised by the tokens of both processes: metrics and parameters of two updates are the same."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    children = [
        subprocess.Popen([sys.executable, __file__, address, str(index)], stdout=subprocess.PIPE, cwd=Path.cwd())
        for index in range(2)
    ]
    try:
        results = [json.loads(child.communicate(timeout=240)[0].splitlines()[-1]) for child in children]
    finally:
        for child in children:
            child.kill()
    alone = train(plan_of(1), 0)
    assert results[0] == results[1]
    for ours, theirs in zip(results[0]["metrics"], alone["metrics"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-7)
    for name, sums in alone["params"].items():
        assert results[0]["params"][name] == pytest.approx(sums, rel=1e-4, abs=1e-4), name


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 4)
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
    print(json.dumps(train(plan_of(2), int(sys.argv[2]))))
