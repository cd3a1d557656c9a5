"""What is read from config.json, and what is refused."""

import json

import pytest

from trainer.model.config import Llama3Rope, UnsupportedModelError, read_model_config

SMALL = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}


def read(folder, config, generation=None):
    (folder / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return read_model_config(folder)


def test_rope_is_read_in_the_older_and_the_newer_spelling(tmp_path):
    """`rope_theta` with `rope_scaling`, and transformers 5's `rope_parameters`, say the same."""
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    older = read(tmp_path, SMALL | {"rope_theta": 500000.0, "rope_scaling": scaling})
    newer = read(tmp_path, SMALL | {"rope_parameters": scaling | {"rope_theta": 500000.0}})
    assert older == newer
    assert (older.rope_theta, older.rope_scaling) == (500000.0, Llama3Rope(8.0, 1.0, 4.0, 64))


def test_a_config_without_rope_has_the_architecture_default(tmp_path):
    """Where nothing is said of rotary positions, the base is 10000 without scaling."""
    config = read(tmp_path, SMALL)
    assert (config.rope_theta, config.rope_scaling) == (10000.0, None)


def test_all_stop_ids_are_read(tmp_path):
    """generation_config.json's list of end ids wins over config.json's single one."""
    assert read(tmp_path, SMALL | {"eos_token_id": 5}).eos_ids == (5,)
    assert read(tmp_path, SMALL | {"eos_token_id": 5}, {"eos_token_id": [7, 5]}).eos_ids == (7, 5)
    assert read(tmp_path, SMALL | {"eos_token_id": 5}, {"pad_token_id": 0}).eos_ids == (5,)


def test_defaults_of_each_architecture(tmp_path):
    """Qwen2 has biases on q, k, v; Qwen3 has norms on q, k and heads of 128; Llama has neither."""
    qwen2, qwen3 = read(tmp_path, SMALL | {"model_type": "qwen2"}), read(tmp_path, SMALL | {"model_type": "qwen3"})
    llama = read(tmp_path, SMALL)
    assert (qwen2.qkv_bias, qwen2.qk_norm, qwen2.head_dim) == (True, False, 16)
    assert (qwen3.qkv_bias, qwen3.qk_norm, qwen3.head_dim) == (False, True, 128)
    assert (llama.qkv_bias, llama.qk_norm, llama.head_dim) == (False, False, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "gemma3"},
            "model_type 'gemma3' is not supported; use a qwen2 .*, qwen3 .* and llama checkpoint",
        ),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported; use a checkpoint with 'silu'"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"mlp_bias": True}, "mlp_bias True is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window True is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config .* is not supported"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_type 'yarn' is not supported"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5 is not supported"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 must be a multiple of num_key_value_heads 3"),
    ],
)
def test_what_would_be_computed_differently_is_refused(tmp_path, change, message):
    """A setting under which transformers computes something else is refused with path, value and what works."""
    with pytest.raises(UnsupportedModelError, match=rf"config\.json: {message}"):
        read(tmp_path, SMALL | change)


def test_a_missing_key_is_named(tmp_path):
    """A config.json without a needed number is refused with the key's name."""
    with pytest.raises(UnsupportedModelError, match="num_hidden_layers is missing"):
        read(tmp_path, {key: value for key, value in SMALL.items() if key != "num_hidden_layers"})


def test_broken_json_is_named(tmp_path):
    """A config.json that is not JSON, or not an object, is refused with its path."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UnsupportedModelError, match=r"config\.json: is not JSON"):
        read_model_config(tmp_path)
    with pytest.raises(UnsupportedModelError, match="must hold one JSON object"):
        read(tmp_path, [])
