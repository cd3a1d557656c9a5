"""Makes the demo's checkpoint: a small Qwen2 decoder, trained from scratch on the workings of a careless pupil.

    python -m examples.demo.pretrain [--folder examples/demo/checkpoint]

In: the pre-training sums of `sums`. Out: a Hugging Face folder (weights in bfloat16, tokenizer, chat template) and
`made.json`, which records how it was made and what it can do. Knows no rewards and no reinforcement learning.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh
from transformers import PreTrainedTokenizerFast

from examples.demo import sums
from examples.demo.tokenizer import VOCABULARY, save_tokenizer, train_tokenizer
from trainer.arrays.logprobs import token_logprobs
from trainer.model.config import ModelConfig, read_model_config, write_model_config
from trainer.model.decoder import Params, causal_attention, head, hidden_states
from trainer.model.saving import save_params
from trainer.model.weights import load_params, random_params

CHECKPOINT = sums.HERE / "checkpoint"
PROMPT_TOKENS = 24
COMPLETION_TOKENS = 32
ROW_TOKENS = PROMPT_TOKENS + COMPLETION_TOKENS

SEED = 7
STEPS = 1000
BATCH = 128
LEARNING_RATE = 2e-3
WARMUP = 50

Rows = dict[str, np.ndarray]


def demo_model(eos_id: int) -> ModelConfig:
    """A third of a million weights: fluent in the task, and quick on two cores."""
    return ModelConfig(
        model_type="qwen2",
        layers=3,
        hidden=96,
        intermediate=256,
        heads=4,
        kv_heads=2,
        head_dim=24,
        vocab=VOCABULARY,
        max_positions=128,
        rope_theta=10000.0,
        rms_eps=1e-6,
        tied=True,
        qkv_bias=True,
        qk_norm=False,
        eos_ids=(eos_id,),
    )


def one_device_mesh() -> Mesh:
    return Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("dp", "fsdp", "tp"), axis_types=(AxisType.Auto,) * 3)


def tokenizer_texts(examples: list[tuple[str, str]]) -> list[str]:
    return [f"user\n{question}\nassistant\n{working}" for question, working in examples]


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """The question as the chat template puts it, up to where the assistant speaks."""
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids


def encode(tokenizer: PreTrainedTokenizerFast, examples: list[tuple[str, str]]) -> Rows:
    """`tokens`, `valid` and `completion` (the tokens whose loss counts), each [row, token], padded on the right."""
    shape = (len(examples), ROW_TOKENS)
    rows = {
        "tokens": np.full(shape, tokenizer.pad_token_id, np.int32),
        "valid": np.zeros(shape, bool),
        "completion": np.zeros(shape, bool),
    }
    for row, (question, working) in enumerate(examples):
        prompt = prompt_ids(tokenizer, question)
        ids = prompt + tokenizer(working)["input_ids"] + [tokenizer.eos_token_id]
        rows["tokens"][row, : len(ids)] = ids
        rows["valid"][row, : len(ids)] = True
        rows["completion"][row, len(prompt) : len(ids)] = True
    return rows


def completion_loss(params: Params, config: ModelConfig, rows: dict[str, jax.Array]) -> jax.Array:
    """Mean negative log-likelihood of the completions' tokens, in nats."""
    tokens = rows["tokens"]
    hidden = _hidden(params, config, tokens[:, :-1], rows["valid"][:, :-1])
    logprobs, _ = token_logprobs(hidden, head(params), tokens[:, 1:], temperature=1.0, chunk=ROW_TOKENS)
    counts = rows["completion"][:, 1:]
    return -jnp.where(counts, logprobs, 0.0).sum() / counts.sum()


def _hidden(params: Params, config: ModelConfig, tokens: jax.Array, valid: jax.Array) -> jax.Array:
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape)
    attend = causal_attention(valid)
    return hidden_states(params, config, tokens, positions, attend, mesh=None, compute_dtype=jnp.float32)


def pretrain(config: ModelConfig, rows: Rows) -> tuple[Params, float]:
    """Parameters after STEPS updates, and the mean loss of the last hundred."""
    params = random_params(config, SEED, one_device_mesh(), jnp.float32)
    schedule = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, WARMUP, STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01))

    @jax.jit
    def update(params: Params, state: Any, batch: dict[str, jax.Array]) -> tuple[Params, Any, jax.Array]:
        loss, gradient = jax.value_and_grad(completion_loss)(params, config, batch)
        change, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, change), state, loss

    state, rng, losses = optimizer.init(params), np.random.default_rng(SEED), []
    for step in range(1, STEPS + 1):
        chosen = rng.choice(len(rows["tokens"]), BATCH, replace=False)
        params, state, loss = update(params, state, {name: array[chosen] for name, array in rows.items()})
        losses.append(float(loss))
        if step % 100 == 0:
            click.echo(f"step {step}/{STEPS}  loss {np.mean(losses[-100:]):.4f}")
    return params, float(np.mean(losses[-100:]))


@partial(jax.jit, static_argnames="config")
def _greedy_tokens(params: Params, config: ModelConfig, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """Fill [row, token] after its prompts, the whole row forward for each token: slow, plain, and no cache to doubt."""
    rows, places = jnp.arange(tokens.shape[0]), jnp.arange(ROW_TOKENS)[None]

    def append(step: jax.Array, tokens: jax.Array) -> jax.Array:
        ends = lengths + step
        hidden = _hidden(params, config, tokens, places < ends[:, None])
        logits = hidden[rows, ends - 1] @ head(params).T
        return tokens.at[rows, ends].set(jnp.argmax(logits, axis=-1).astype(jnp.int32))

    filled: jax.Array = jax.lax.fori_loop(0, COMPLETION_TOKENS, append, tokens)
    return filled


def greedy_texts(
    params: Params, config: ModelConfig, tokenizer: PreTrainedTokenizerFast, questions: list[str]
) -> list[str]:
    """The greedy completion of each question, up to its end token."""
    prompts = [prompt_ids(tokenizer, question) for question in questions]
    tokens = np.full((len(prompts), ROW_TOKENS), tokenizer.pad_token_id, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    filled = np.asarray(_greedy_tokens(params, config, tokens, np.array([len(prompt) for prompt in prompts])))
    texts = []
    for row, prompt in zip(filled, prompts, strict=True):
        completion = row[len(prompt) : len(prompt) + COMPLETION_TOKENS].tolist()
        ended = completion.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in completion else COMPLETION_TOKENS
        texts.append(tokenizer.decode(completion[:ended]))
    return texts


def greedy_exact_match(folder: Path) -> float:
    """The share of the held-out questions whose greedy completion ends in exactly `<answer>ANSWER</answer>`."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    config = read_model_config(folder)
    params = load_params(folder, config, one_device_mesh(), jnp.float32)
    rows = [json.loads(line) for line in sums.HELD_OUT_FILE.read_text(encoding="utf-8").splitlines()]
    texts = greedy_texts(params, config, tokenizer, [row["question"] for row in rows])
    return float(
        np.mean([text.endswith(f"<answer>{row['answer']}</answer>") for text, row in zip(texts, rows, strict=True)])
    )


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=CHECKPOINT, show_default=True)
def main(folder: Path) -> None:
    """Make the demo's checkpoint anew."""
    _, _, tasks = sums.split_sums()
    examples = list(sums.careless_examples(tasks, SEED))
    tokenizer = train_tokenizer(tokenizer_texts(examples))
    config = demo_model(tokenizer.eos_token_id)
    params, loss = pretrain(config, encode(tokenizer, examples))
    save_tokenizer(tokenizer, folder)
    write_model_config(config, folder, pad_id=tokenizer.pad_token_id)
    save_params(jax.tree.map(lambda weight: weight.astype(jnp.bfloat16), params), config, folder)
    made = {
        "script": "python -m examples.demo.pretrain",
        "seed": SEED,
        "steps": STEPS,
        "examples": len(examples),
        "loss": round(loss, 4),
        "held_out_greedy_exact_match": greedy_exact_match(folder),
        "jax": jax.__version__,
    }
    (folder / "made.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
