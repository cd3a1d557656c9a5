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

from trainer.contract.batch import BatchPlan, Mesh
from trainer.contract.run import Algorithm
from trainer.contract.runner import OptimizerConfig
from trainer.mesh import build_mesh, replicated
from trainer.model.config import ModelConfig
from trainer.model.weights import random_params
from trainer.update import TrainRow, build_train_batch, init_state, make_optimizer, make_update

MODEL = ModelConfig(
    model_type="qwen2",
    layers=2,
    hidden=16,
    intermediate=32,
    heads=2,
    kv_heads=2,
    head_dim=8,
    vocab=32,
    max_positions=64,
    rope_theta=10000.0,
    rms_eps=1e-6,
    tied=True,
    qkv_bias=True,
    qk_norm=False,
)
GRPO = Algorithm(
    advantage="grpo",
    deviation="population",
    loss="clip",
    ratio="token",
    epsilon_low=0.2,
    epsilon_high=0.2,
    dual_clip=None,
    aggregation="token-mean",
    ppo_epochs=1,
    beta=0.0,
    kl="k3",
    mask_truncated=False,
    on_non_finite="Fail",
)


def plan_of(processes: int) -> BatchPlan:
    return BatchPlan(
        processes=processes,
        devices_per_process=8 // processes,
        hosts=processes,
        slices=1,
        mesh=Mesh(dp=2, fsdp=2, tp=2),
        group_size=4,
        sequences_per_step=8,
        prompts_per_step=2,
        prompts_per_pass_per_process=2 // processes,
        passes=1,
        sequences_per_process=8 // processes,
        sequences_per_micro_step=4 // processes,
        micro_steps=2,
    )


def rows() -> list[TrainRow]:
    """The first half of the rows has 1 to 2 completion tokens, the second 5 to 6: no two processes have the same."""
    draw = np.random.default_rng(4)
    return [
        TrainRow(
            draw.integers(1, MODEL.vocab, 3).tolist(),
            draw.integers(1, MODEL.vocab, 1 + place % 2 + 4 * (place // 4)).tolist(),
            float(draw.normal()),
        )
        for place in range(8)
    ]


def train(plan: BatchPlan, process: int) -> dict[str, Any]:
    """Metrics of two updates, and the sum and the sum of squares of each parameter after them."""
    mesh, optimizer = build_mesh(plan), make_optimizer(OptimizerConfig(learning_rate=1e-2), updates=2)
    state = init_state(random_params(MODEL, 1, mesh, jnp.float32), optimizer, mesh)
    settings = {"temperature": 1.0, "longest": 6, "compute_dtype": jnp.float32, "remat": "none"}
    update = make_update(MODEL, mesh, optimizer, state, algorithm=GRPO, **settings)
    share = plan.sequences_per_process
    mine = rows()[process * share : (process + 1) * share]
    result: dict[str, Any] = {"metrics": []}
    for _ in range(2):
        batch = build_train_batch(mine, plan, mesh, pad_id=0, prompt_bucket=4, completion_bucket=6)
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
