"""A trained run against transformers, PEFT and PyTorch themselves: logits and greedy answers of what was exported.

`make parity` runs it in an environment of its own, for PyTorch is no part of the product. Each small model is written
by transformers, trained by the trainer, exported, and read by transformers again; SmolLM2 is a real one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from trainer.data.rows import Row
from trainer.export import export
from trainer.generate import generate
from trainer.model.decoder import causal_attention, head, hidden_states
from trainer.trained import Trained, find

ROOT = Path(__file__).resolve().parents[2]
CLOSE = 1e-4
"""Largest difference of a logit, relative to the largest logit of its row: float32 sums in two orders."""
NEW_TOKENS = 24
QUESTIONS = ["3 + 4 =", "What is 12 + 30?", "A farmer has 18 cows and sells 5 of them. How many are left?"]
SIZES = {
    "vocab_size": 288,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS: dict[str, Callable[[bool], PretrainedConfig]] = {
    "qwen2": lambda tied: Qwen2Config(**SIZES, tie_word_embeddings=tied),
    "qwen3": lambda tied: Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=tied),
    "llama3": lambda tied: LlamaConfig(**SIZES, rope_parameters=SCALED, tie_word_embeddings=tied),
}


@pytest.fixture(scope="module", params=[(family, tied) for family in CONFIGS for tied in (True, False)], ids=str)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: a random model that transformers wrote, after three steps of training."""
    family, tied = request.param
    folder = tmp_path_factory.mktemp(f"{family}-{'tied' if tied else 'untied'}", numbered=False)
    return train(folder, written_by_transformers(folder / "model", CONFIGS[family](tied)), learning_rate=1e-3)


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 that stayed as it is, with adapters of all seven modules, trained for three steps."""
    folder = tmp_path_factory.mktemp("qwen3-lora", numbered=False)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = written_by_transformers(folder / "model", CONFIGS["qwen3"](True))
    return train(folder, model, learning_rate=1e-2, lora={"rank": 4, "alpha": 8, "target_modules": modules})


@pytest.fixture(scope="module")
def smollm2_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct after one step."""
    folder = tmp_path_factory.mktemp("smollm2", numbered=False)
    cache = Path(os.environ.get("GRPO_TEST_CACHE") or Path.home() / ".cache" / "grpo-operator")
    model = cache / "smollm2-135m-instruct-0.1.2"
    if not model.exists():
        subprocess.run([sys.executable, str(ROOT / "tests" / "trainer" / "smollm2.py"), str(model)], check=True)
    return train(folder, model, learning_rate=1e-5, steps=1)


def written_by_transformers(folder: Path, config: PretrainedConfig) -> Path:
    """A random model and its tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """It writes any text: one id per byte, and <pad>, <eos>, <bos>."""
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    letters = [*special.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def train(folder: Path, model: Path, learning_rate: float, steps: int = 3, **extra: Any) -> Path:
    """Train on this machine as a user does; the reward asks for digits, which any model sometimes writes."""
    rows = [{"question": question, "answer": "7"} for question in QUESTIONS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "digits.py").write_text(
        "def digits(completions, **_):\n    return [sum(map(str.isdigit, c)) for c in completions]\n"
    )
    tree = {
        "model_path": str(model),
        "steps": steps,
        "data": {"train": str(folder / "rows.jsonl"), "eval": str(folder / "rows.jsonl")},
        "rollout": {"batch_size": 8, "num_pre_q": 4, "global_length": 96, "max_length_sample": 16},
        "optimizer": {"learning_rate": learning_rate},
        "rewards": [{"python": "digits:digits"}],
        "checkpoint": {"every_steps": steps},
        "output": {"uri": str(folder / "runs")},
        **extra,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "trainer", "--config", str(folder / "run.yaml"), "--devices-per-process", "1"]
    path = os.pathsep.join([str(ROOT), str(folder)])
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return next((folder / "runs").iterdir())


def our_logits(found: Trained, ids: np.ndarray) -> np.ndarray:
    """[token, vocab] of one prompt, in float32 from the weights as they are stored."""
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), found.params())
    tokens = jnp.asarray(ids, jnp.int32)[None]
    places, attend = jnp.arange(len(ids), dtype=jnp.int32)[None], causal_attention(jnp.ones((1, len(ids)), bool))
    hidden = hidden_states(params, found.config, tokens, places, attend, mesh=None, compute_dtype=jnp.float32)
    return np.asarray(hidden[0] @ head(params).T)


def loaded(folder: Path | str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def compared(ours: Trained, theirs: PreTrainedModel | PeftModel, folder: Path) -> float:
    """The largest relative difference of logits; greedy answers must be the same. The tokenizer is that of `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = list(generate(ours, [Row("", {"question": q}) for q in QUESTIONS], NEW_TOKENS, greedy=True, seed=0))
    differences = []
    for question, answer in zip(QUESTIONS, answers, strict=True):
        ids = prompt_ids(tokenizer, question)
        with torch.no_grad():
            want = theirs(torch.tensor([ids])).logits[0].numpy()
        difference = np.abs(our_logits(ours, np.array(ids)) - want)
        differences.append(float((difference / np.abs(want).max(-1, keepdims=True)).max()))
        assert greedy_answer(theirs, tokenizer, ids) == (answer.completion, answer.tokens)
    return max(differences)


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    if tokenizer.chat_template is None:
        return list(tokenizer(question)["input_ids"])
    turn = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def greedy_answer(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerFast, ids: list[int]
) -> tuple[str, int]:
    """What transformers' own generation gives, with its number of tokens."""
    made = model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids)),
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
    )
    new = made[0, len(ids) :].tolist()
    return tokenizer.decode(new, skip_special_tokens=True), len(new)


def weights_moved(run_folder: Path) -> bool:
    """Whether training changed what was loaded: an export of the initial model would agree too."""
    found = find(str(run_folder))
    before = find(str(found.folder)).params("float32")
    return not np.array_equal(np.asarray(before["embed"]), np.asarray(found.params("float32")["embed"]))


def check(run_folder: Path, dtype: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Export and compare: in float32 with the checkpoint itself, in bfloat16 with what was exported."""
    found = find(str(run_folder))
    export(found, out, dtype)
    difference = compared(found if dtype == "float32" else find(str(out)), loaded(out), out)
    with capsys.disabled():
        print(f"\n{run_folder.parents[1].name:14} {dtype:9} logits differ by {difference:.1e}, same greedy answers")
    assert weights_moved(run_folder)
    assert difference < CLOSE


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_reads_an_export_as_the_trainer_does(
    run: Path, dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logits of every place within 1e-4 of the largest, and the same greedy answers token for token."""
    check(run, dtype, tmp_path / "out", capsys)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_reads_a_real_model_as_the_trainer_does(
    smollm2_run: Path, dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SmolLM2-135M-Instruct with its chat template, trained and exported."""
    check(smollm2_run, dtype, tmp_path / "out", capsys)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT 0.21 asks for it
def test_peft_reads_an_adapter_as_the_trainer_does(
    lora_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base with the adapter, the same merged by PEFT, and the merged export give the trainer's logits."""
    found, out = find(str(lora_run)), tmp_path / "out"
    export(found, out, "float32")
    adapted = PeftModel.from_pretrained(loaded(found.base), out / "adapter").eval()
    differences = [compared(found, adapted, out), compared(found, adapted.merge_and_unload(), out)]
    differences.append(compared(found, loaded(out), out))
    initial = compared(find(found.base), loaded(found.base), out)
    with capsys.disabled():
        told = ", ".join(f"{difference:.1e}" for difference in differences)
        print(f"\nqwen3-lora     adapter, merged by PEFT, merged export: logits differ by {told}, same greedy answers")
    assert max(*differences, initial) < CLOSE
    ids = np.arange(3, 40)
    assert np.abs(our_logits(found, ids) - our_logits(find(found.base), ids)).max() > 1e-2, "nothing was trained"
