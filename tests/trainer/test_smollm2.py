"""A real pre-trained instruct model, end to end: folder, tokenizer, chat template, weights, decoding."""

import jax.numpy as jnp
import pytest

from trainer.model.config import read_model_config
from trainer.model.source import check_tokenizer, load_tokenizer, resolve_model, stop_ids
from trainer.model.weights import load_params
from trainer.rollout import Rollout

CAPITAL = "What is the capital of France?"
SUM = "What is 12 + 7? Answer with the number only."


@pytest.fixture(scope="module")
def tokenizer(smollm2):
    return load_tokenizer(smollm2)


def answers(smollm2, tokenizer, mesh, sampling, questions):
    """Greedy completions of chat questions, as token ids without padding."""
    folder = resolve_model(str(smollm2))
    config = read_model_config(folder)
    check_tokenizer(tokenizer, config, folder)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        for question in questions
    ]
    done = Rollout(
        config,
        mesh,
        sampling,
        stop_ids=stop_ids(tokenizer, config),
        pad_id=tokenizer.pad_token_id,
        compute_dtype=jnp.float32,
    ).generate(
        load_params(folder, config, mesh, jnp.float32),
        prompts,
        range(len(prompts)),
        0,
        0,
        64,
        samples=1,
        greedy=True,
    )
    assert done.finished[0]
    return [row[:length].tolist() for row, length in zip(done.tokens, done.lengths, strict=True)]


def test_a_real_model_answers_as_its_reference_does(smollm2, tokenizer, mesh_of, sampling_of):
    """SmolLM2's greedy answers over two devices are those of an independent float32 forward pass, token by token."""
    capital, total = answers(smollm2, tokenizer, mesh_of(1, 2, 1), sampling_of(12), [CAPITAL, SUM])
    assert capital == [504, 3575, 282, 4649, 314, 7042, 30, 2]
    assert tokenizer.decode(capital) == "The capital of France is Paris.<|im_end|>"
    assert tokenizer.decode(total).startswith("12 + 7 = 9")
