"""Two processes generate what one does."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from stop_letters import LONGEST, STOPS

from trainer.model.config import read_model_config
from trainer.model.weights import load_params
from trainer.rollout import Rollout

SCRIPT = Path(__file__).with_name("rollout_process.py")
PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3], [11], [3, 14, 15, 92, 65], [35, 89, 79, 32], [38, 46]]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def two(oracles, tmp_path_factory):
    """What each of two processes of four devices returned for its half of the prompts, mesh 2, 2, 2."""
    folder, port = tmp_path_factory.mktemp("processes"), free_port()
    (folder / "prompts.json").write_text(json.dumps([PROMPTS[:3], PROMPTS[3:]]))
    files = [folder / f"{index}.npz" for index in range(2)]
    arguments = [str(port), str(oracles / "qwen2-tied"), str(folder / "prompts.json")]
    started = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(index), *arguments, str(file)])
        for index, file in enumerate(files)
    ]
    try:
        assert [process.wait(timeout=600) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    return [dict(np.load(file)) for file in files]


@pytest.fixture(scope="module")
def one(oracles, mesh_of, sampling_of):
    """The same by one process on one device: a rollout and its weights."""
    folder, mesh = oracles / "qwen2-tied", mesh_of(1, 1, 1)
    config = read_model_config(folder)
    rollout = Rollout(config, mesh, sampling_of(16, 2.0), stop_ids=(1, 2, 70), pad_id=0, compute_dtype=jnp.float32)
    return rollout, load_params(folder, config, mesh, jnp.float32)


def test_two_processes_sample_what_one_does(two, one):
    """Each process gets the rows of its own prompts, as one process on one device draws them; shards cut groups."""
    rollout, params = one
    want = rollout.generate(params, PROMPTS, range(6), 2, 11, 8, samples=4)
    for name in ("tokens", "lengths", "finished"):
        np.testing.assert_array_equal(np.concatenate([part[name] for part in two]), getattr(want, name))
    assert [int(part["steps"]) for part in two] == [want.steps] * 2


def test_a_process_reads_only_what_its_devices_hold(two, one):
    """With every weight over the eight devices of both, each process reads half of the matrices, and all norms."""
    # A layer's weights are stacked: its norms and biases have two axes here, and one in the file.
    stacked = list(one[1]["layers"].values())
    vectors = one[1]["final_norm"].size + sum(leaf.size for leaf in stacked if leaf.ndim == 2)
    matrices = one[1]["embed"].size + sum(leaf.size for leaf in stacked if leaf.ndim == 3)
    for part in two:
        assert (int(part["vectors_read"]), int(part["matrices_read"])) == (vectors, matrices // 2)


def test_stop_strings_end_rows_of_any_process(two, one, oracles, mesh_of, sampling_of):
    """Each process looks at its own rows, and all go on until no row of any is left: the ends are those of one."""
    config, mesh, sampling = read_model_config(oracles / "qwen2-tied"), mesh_of(1, 1, 1), sampling_of(LONGEST, 2.0)
    rollout = Rollout(config, mesh, sampling, stop_ids=(), pad_id=0, compute_dtype=jnp.float32, end=STOPS.end)
    want = rollout.generate(one[1], PROMPTS, range(6), 2, 11, 8, samples=4)
    for name in ("tokens", "lengths", "finished"):
        np.testing.assert_array_equal(np.concatenate([part[f"stopped_{name}"] for part in two]), getattr(want, name))
    assert [int(part["stopped_steps"]) for part in two] == [want.steps] * 2
    assert 0 < want.finished.sum() < len(want.finished)
    assert want.lengths[want.finished].max() > 33  # some end after the first look


def test_processes_may_have_unequal_numbers_of_prompts(two, one):
    """Three questions here and two there, padded to three each, give five greedy answers."""
    rollout, params = one
    want = rollout.generate(params, PROMPTS[:5], range(5), 0, 0, 8, samples=1, greedy=True)
    assert [len(part["greedy"]) for part in two] == [3, 2]
    np.testing.assert_array_equal(np.concatenate([part["greedy"] for part in two]), want.tokens)
