"""The programs of a step, compiled by the TPU compiler itself for a slice that nobody here has."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from small_step import GRPO, model_of, plan_of

from trainer.arrays.truncation import Truncation
from trainer.contract.runner import OptimizerConfig
from trainer.mesh import build_mesh, rows_to_global
from trainer.model.weights import random_params
from trainer.policy import make_scorer
from trainer.rollout.program import Draw, Program, Work, advance, begin
from trainer.trainbatch import BatchSizes, TrainRow, build_train_batch
from trainer.update import init_state, make_optimizer, make_update

MODEL = model_of(
    layers=2, hidden=256, intermediate=512, heads=4, kv_heads=2, head_dim=64, vocab=1024, max_positions=512
)
PLAN = plan_of(1, 2, 2, micro_steps=2, rows=16, group_size=4)
PROMPT, NEW = 128, 128
MOVED = r" (all-to-all|collective-permute)(?:-start)?\("


@pytest.fixture(scope="module")
def slice_mesh() -> Mesh:
    """Four chips of a v5e, of which the compiler knows all but that they are not there."""
    from jax.experimental import topologies

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("TPU_SKIP_MDS_QUERY", "1"), ("TPU_WORKER_HOSTNAMES", "localhost")):
            patch.setenv(name, value)
        patch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        return build_mesh(PLAN, topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices)


@pytest.fixture(scope="module")
def cpu_mesh() -> Mesh:
    return build_mesh(PLAN, jax.devices()[: PLAN.devices_per_process])


def described(tree: Any, mesh: Mesh) -> Any:
    """What lies on a mesh of CPU devices as it would lie on `mesh`."""

    def leaf(array: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=NamedSharding(mesh, array.sharding.spec))

    return jax.tree.map(leaf, tree)


def test_the_update_compiles_and_moves_no_rows(cpu_mesh: Mesh, slice_mesh: Mesh) -> None:
    """In bfloat16 on fsdp 2, tp 2: weights are gathered and gradients summed, and no micro-step deals rows anew."""
    optimizer = make_optimizer(OptimizerConfig(), updates=2)
    state = init_state(random_params(MODEL, 0, cpu_mesh, jnp.float32), optimizer, cpu_mesh)
    rows = [TrainRow([1 + row // 4] * 9, [7] * (5 + row), 0.5, rollout_logprobs=np.zeros(5 + row)) for row in range(16)]
    batch = build_train_batch(rows, PLAN, cpu_mesh, pad_id=0, sizes=BatchSizes(PROMPT, 32, 96))
    state, batch = described((state, batch), slice_mesh)
    score = make_scorer(MODEL, slice_mesh, temperature=1.0, compute_dtype=jnp.bfloat16, remat="layer")
    update = make_update(score, slice_mesh, optimizer, state, algorithm=GRPO, longest=NEW)
    with jax.numpy_dtype_promotion("standard"):  # jax.nn.dot_product_attention promotes by itself
        program = update.lower(state, batch).compile()
    assert "all-gather" in program.as_text()
    assert re.findall(MOVED, program.as_text()) == []


def test_the_rollout_compiles(cpu_mesh: Mesh, slice_mesh: Mesh) -> None:
    """Reading prompts and decoding, with a truncated sampler over a vocabulary that is split."""
    blocks, rows = 4, 4
    work = Work(
        tokens=np.ones((blocks, PROMPT), np.int32),
        lengths=np.full(blocks, 9, np.int32),
        slot_of_block=np.zeros(blocks, np.int32),
        prompt_ids=np.zeros((blocks, rows), np.uint32),
        samples=np.zeros((blocks, rows), np.uint32),
        wanted=np.ones((blocks, rows), bool),
    )
    work = jax.tree.map(lambda array: rows_to_global(cpu_mesh, array), work)
    params, draw = random_params(MODEL, 0, cpu_mesh, jnp.float32), Draw(np.uint32(0), np.uint32(0))

    def program_on(mesh: Mesh) -> Program:
        truncation = Truncation(top_k=20, top_p=0.9, min_p=0.1)
        return Program(MODEL, mesh, NEW, 1.0, truncation, (3, 4), 0, jnp.bfloat16, gather_weights=True)

    begun = begin(program_on(cpu_mesh), params, work, draw, False, True)
    asked = rows_to_global(cpu_mesh, np.zeros(2, bool))
    params, work, (read, state), asked = described((params, work, begun, asked), slice_mesh)
    begin.lower(program_on(slice_mesh), params, work, draw, False, True).compile()
    loop = advance.lower(program_on(slice_mesh), read, work, state, draw, np.int32(32), asked, False).compile()
    assert re.findall(MOVED, loop.as_text()) == []
