"""Eight CPU devices and strict types for every test of the trainer; set before JAX starts."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

ORACLES = Path(__file__).parents[1] / "data" / "oracles"
MODELS = ("qwen2-tied", "qwen2-untied", "qwen3-tied", "llama3-scaled")


@pytest.fixture(params=MODELS)
def oracle(request: pytest.FixtureRequest) -> Path:
    """A small checkpoint folder with transformers' numbers in `expected.npz`; one of four."""
    return ORACLES / request.param


@pytest.fixture(scope="session")
def oracles() -> Path:
    return ORACLES


@pytest.fixture(scope="session")
def mesh_of():
    """Mesh over the first dp·fsdp·tp devices, in process-major order."""

    def build(dp: int, fsdp: int, tp: int) -> Mesh:
        devices = np.array(jax.devices()[: dp * fsdp * tp]).reshape(dp, fsdp, tp)
        return Mesh(devices, ("dp", "fsdp", "tp"))

    return build
