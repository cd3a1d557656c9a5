"""One of two processes that generate together; started by test_rollout_processes.py.

    python rollout_process.py INDEX PORT MODEL_FOLDER PROMPTS.json OUT.npz

PROMPTS.json holds the prompts of both processes: a list for each.
"""

import json
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from stop_letters import LONGEST, STOPS

from trainer.contract.run import Sampling
from trainer.model.checkpoint import Checkpoint
from trainer.model.config import read_model_config
from trainer.model.weights import load_params
from trainer.rollout import Rollout

SAMPLING = Sampling(global_length=16, max_length_sample=16, temperature=2.0, top_k=0, top_p=1.0, min_p=0.0, stop=())


def main(index: int, port: str, folder: str, prompts: list[list[list[int]]], out: str) -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("dp", "fsdp", "tp"))
    config = read_model_config(folder)
    params = load_params(folder, config, mesh, jnp.float32)
    rollout = Rollout(config, mesh, SAMPLING, stop_ids=(1, 2, 70), pad_id=0, compute_dtype=jnp.float32)
    first = sum(len(part) for part in prompts[:index])
    mine = prompts[index]
    ids = range(first, first + len(mine))
    sampled = rollout.generate(params, mine, ids, 2, 11, 8, samples=4)
    # The last process has one question fewer, as at the end of an evaluation.
    fewer = mine[: len(mine) - index]
    greedy = rollout.generate(params, fewer, ids[: len(fewer)], 0, 0, 8, samples=1, greedy=True, prompts_per_process=3)
    longer = SAMPLING.model_copy(update={"max_length_sample": LONGEST})
    stopping = Rollout(config, mesh, longer, stop_ids=(), pad_id=0, compute_dtype=jnp.float32, end=STOPS.end)
    stopped = stopping.generate(params, mine, ids, 2, 11, 8, samples=4)
    ended = {f"stopped_{name}": value for name, value in stopped._asdict().items()}
    np.savez(out, **sampled._asdict(), greedy=greedy.tokens, **ended, **read_over_all_devices(folder))


def read_over_all_devices(folder: str) -> dict[str, int]:
    """How many numbers of vectors and of matrices this process reads where all devices of both split each weight."""
    config, read, counted = read_model_config(folder), Checkpoint.read, {"vectors_read": 0, "matrices_read": 0}

    def counting(self: Checkpoint, tensor: str, index: tuple[slice, ...]) -> np.ndarray:
        found = read(self, tensor, index)
        counted["vectors_read" if found.ndim == 1 else "matrices_read"] += found.size
        return found

    Checkpoint.read = counting
    load_params(folder, config, Mesh(np.array(jax.devices()).reshape(1, 8, 1), ("dp", "fsdp", "tp")), jnp.float32)
    return counted


if __name__ == "__main__":
    index, port, folder, prompts, out = sys.argv[1:]
    main(int(index), port, folder, json.loads(Path(prompts).read_text()), out)
