"""Eight CPU devices and strict types for every test of the trainer; set before JAX starts."""

import gc
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Compiling is most of these tests' time; the programs are small, and run as fast unoptimised.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
sys.path.insert(0, str(Path(__file__).parent))  # the modules beside the tests are imported by name

import jax
import numpy as np
import pytest
from buckets import Emulator, Gate, cache_folder
from google.cloud import storage
from hubs import Hub
from huggingface_hub import close_session, constants
from jax.sharding import Mesh
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import trainer.bucket
from trainer.contract.run import Sampling
from trainer.programs import cpu_instructions

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

COMPILED = cache_folder() / "compiled" / (cpu_instructions() or "unknown")
KEPT_SECONDS = 30 * 24 * 3600

ORACLES = Path(__file__).parents[1] / "data" / "oracles"
MODELS = ("qwen2-tied", "qwen2-untied", "qwen3-tied", "llama3-scaled")


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """Compiled programs are kept for the tests to come, for this process and for those that tests start.

    Compiling is most of what the small runs of tests do. JAX names a program by all that it depends on.
    """
    COMPILED.mkdir(parents=True, exist_ok=True)
    for program in COMPILED.iterdir():
        if program.stat().st_mtime < time.time() - KEPT_SECONDS:
            program.unlink(missing_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(COMPILED))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(COMPILED)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


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


@pytest.fixture(scope="session")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of `qwen2-tied` with a tokenizer that writes any text: one id per byte, and <pad>, <eos>, <bos>."""
    folder = tmp_path_factory.mktemp("byte-model")
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copyfile(ORACLES / "qwen2-tied" / name, folder / name)
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    letters = [*special.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sampling_of():
    """The contract's sampling settings with a longest completion and a temperature."""

    def build(
        longest: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
    ) -> Sampling:
        return Sampling(
            global_length=64,
            max_length_sample=longest,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            stop=(),
        )

    return build


@pytest.fixture
def compilations():
    """A list that grows by one entry for every program that XLA compiles while the test runs."""
    seen: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder, built once into GRPO_TEST_CACHE (or ~/.cache/grpo-operator)."""
    folder = cache_folder() / "smollm2-135m-instruct-0.1.2"
    if not folder.exists():
        subprocess.run([sys.executable, str(Path(__file__).with_name("smollm2.py")), str(folder)], check=True)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without repositories, which this process asks, with an empty cache."""
    served = Hub()
    own = {
        "ENDPOINT": served.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": False,
    }
    for name, value in own.items():
        monkeypatch.setattr(constants, name, value)
    yield served
    close_session()
    served.close()


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A server of buckets, with an empty one, `bucket`."""
    started = Emulator(tmp_path_factory.mktemp("buckets"), "bucket")
    yield started
    started.stop()


@pytest.fixture
def bucket(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a folder in a bucket, of this test alone; all clients here and in children find it."""
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    client = storage.Client()
    client._bucket_metadata_cache = None  # a thread beside its work, for traces; it would outlive the test
    monkeypatch.setattr(trainer.bucket, "_client", lambda: client)
    yield f"gs://bucket/{re.sub('[^a-z0-9]+', '-', request.node.name)}"
    client.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # the client leaves the connection of a refused download to be found


@pytest.fixture
def gate(emulator: Emulator, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """All requests of this process to the bucket go through it, but those for arrays."""
    gate = Gate()
    gate.behind = emulator.port
    monkeypatch.setattr(trainer.bucket._client()._connection, "API_BASE_URL", gate.url)
    yield gate
    gate.shutdown()
    gate.server_close()
