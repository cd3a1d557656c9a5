"""A Hugging Face folder's safetensors as named tensors of which slices can be read, and the names of our weights there.

Comes in: a folder, sharded or not. Goes out: numpy slices. Refuses to know: devices, and which dtype is wanted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from trainer.model.config import UnsupportedModelError, read_json

TABLES = {"embed": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "head": "lm_head.weight"}
LAYERS = {
    "attention_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "o": "self_attn.o_proj.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
FLOATS = ("F32", "F16", "BF16")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def layer_tensor(name: str, layer: int) -> str:
    return f"model.layers.{layer}.{LAYERS[name]}"


class Checkpoint:
    """The tensors of one folder, opened but not read."""

    def __init__(self, folder: Path | str) -> None:
        """Raise UnsupportedModelError where there are no safetensors, or the index names a file that is missing."""
        self._folder = Path(folder)
        self._file_of = _locate(self._folder)
        self._open: dict[str, Any] = {}

    @property
    def dtype(self) -> str:
        """The dtype of all tensors, or float32 where they differ, which holds every value exactly."""
        found = {self._slice(tensor).get_dtype() for tensor in self._file_of}
        names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
        return names.get(found.pop(), "float32") if len(found) == 1 else "float32"

    def check(self, tensor: str, shape: tuple[int, ...]) -> None:
        """Raise UnsupportedModelError unless the tensor is there, has this shape, and holds 16 or 32 bit floats."""
        found = self._slice(tensor)
        if tuple(found.get_shape()) != shape:
            raise UnsupportedModelError(
                f"{self._folder}: {tensor} has shape {tuple(found.get_shape())}, but config.json makes it {shape}; "
                "weights and config.json must be of one model"
            )
        if found.get_dtype() not in FLOATS:
            raise UnsupportedModelError(
                f"{self._folder}: {tensor} is {found.get_dtype()}; use a checkpoint in float32, bfloat16 or float16"
            )

    def read(self, tensor: str, index: tuple[slice, ...]) -> np.ndarray:
        """One slice in its stored dtype; only its bytes are read."""
        values: np.ndarray = self._slice(tensor)[index]
        return values

    def _slice(self, tensor: str) -> Any:
        if tensor not in self._file_of:
            raise UnsupportedModelError(
                f"{self._folder}: {tensor} is missing; config.json promises it, so the checkpoint is incomplete"
            )
        path = self._file_of[tensor]
        if path not in self._open:
            self._open[path] = _open(self._folder / path)
        return self._open[path].get_slice(tensor)


def _locate(folder: Path) -> Mapping[str, str]:
    """Which file holds each tensor."""
    if (folder / INDEX).exists():
        file_of: dict[str, str] = read_json(folder / INDEX)["weight_map"]
        if missing := sorted(name for name in set(file_of.values()) if not (folder / name).exists()):
            raise UnsupportedModelError(f"{folder}: {missing[0]} is missing, but {INDEX} names it; download it again")
        return file_of
    if not (folder / SINGLE).exists():
        raise UnsupportedModelError(
            f"{folder}: has neither {SINGLE} nor {INDEX}; save the checkpoint as safetensors (save_pretrained does)"
        )
    return dict.fromkeys(_open(folder / SINGLE).keys(), SINGLE)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UnsupportedModelError(f"{path}: cannot be read as safetensors ({error}); download it again") from None
