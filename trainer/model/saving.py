"""Parameters back into a Hugging Face folder: the exact inverse of loading, one tensor at a time.

Comes in: sharded `Params`, and the folder whose config and tokenizer they belong to. Goes out: safetensors, with an
index where one file would be too large; config, generation config, tokenizer. Refuses to know: runs.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from trainer.model.checkpoint import INDEX, LAYERS, SINGLE, TABLES, layer_tensor
from trainer.model.config import ModelConfig, read_json
from trainer.model.decoder import Params
from trainer.model.lora import peft_name
from trainer.model.source import load_tokenizer, stop_ids

LARGEST_FILE = 5_000_000_000
"""Bytes of tensors in one file, as the hub's own tools cut: https://huggingface.co/docs/huggingface_hub/package_reference/serialization"""
_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_COPIED = ("tokenizer*", "vocab.*", "merges.txt", "added_tokens.json", "special_tokens_map.json", "*.jinja", "LICENSE*")


class Stored(NamedTuple):
    """One tensor of a checkpoint. `gather` gives it whole, as numpy; all processes of its mesh call it together."""

    name: str
    shape: tuple[int, ...]
    gather: Callable[[], np.ndarray]


def save_params(params: Params, config: ModelConfig, folder: Path | str, dtype: Any = None) -> None:
    """Write the weights of one process under Hugging Face's names; a tied head is not written. `dtype` None: theirs."""
    dtype = params["embed"].dtype if dtype is None else dtype
    write_tensors(stored_tensors(params, config, dtype), dtype, Path(folder))


def stored_tensors(params: Params, config: ModelConfig, dtype: Any) -> list[Stored]:
    """Every tensor of the checkpoint in `dtype`, in the order of the network; layers are cut out of their stacks."""
    cut, whole = _Gather(jnp.dtype(dtype), stacked=True), _Gather(jnp.dtype(dtype), stacked=False)
    found = {
        name: Stored(TABLES[name], params[name].shape, partial(whole, params[name]))
        for name in TABLES
        if name in params
    }
    layers = [
        Stored(layer_tensor(name, layer), leaf.shape[1:], partial(cut, leaf, layer))
        for layer in range(config.layers)
        for name in LAYERS
        if (leaf := params["layers"].get(name)) is not None
    ]
    first = found.pop("embed")
    return [first, *layers, *found.values()]


def adapter_tensors(adapters: Params) -> list[Stored]:
    """Every tensor of an adapter, in float32, under PEFT's names."""
    cut = _Gather(jnp.dtype(jnp.float32), stacked=True)
    return [
        Stored(peft_name(name, layer), leaf.shape[1:], partial(cut, leaf, layer))
        for name, leaf in adapters["layers"].items()
        for layer in range(leaf.shape[0])
    ]


def write_tensors(
    tensors: Sequence[Stored],
    dtype: Any,
    folder: Path,
    *,
    writes: bool = True,
    largest_file: int = LARGEST_FILE,
    name: str = SINGLE,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Gather the tensors one after the other and write them, with an index where they fill more than one file.

    All processes call it together; only the one that `writes` keeps what was gathered. No more than one tensor is whole
    at a time. Raises OSError, after the last gather: the others wait for each of them.
    """
    stream = _stream(tensors, beat)
    try:
        if writes:
            _write_files(tensors, np.dtype(dtype), folder, stream, largest_file, name)
    finally:
        for _ in stream:
            pass


def write_configuration(source: Path, folder: Path, dtype: Any, config: ModelConfig) -> None:
    """Config, generation config, tokenizer and chat template of `source`; what changes is the dtype alone.

    Where `source` has no generation config, one is made that stops where training did.
    """
    raw = read_json(source / "config.json")
    key = "dtype" if "dtype" in raw else "torch_dtype"
    _write_json(folder / "config.json", raw | {key: jnp.dtype(dtype).name})
    generation = folder / "generation_config.json"
    if (source / generation.name).exists():
        shutil.copyfile(source / generation.name, generation)
    else:
        _write_json(generation, {"eos_token_id": list(stop_ids(load_tokenizer(source), config))})
    for path in sorted({path for pattern in _COPIED for path in source.glob(pattern) if path.is_file()}):
        shutil.copyfile(path, folder / path.name)


class _Gather:
    """A whole tensor on the host, cast before it travels between devices; compiled once for each layout."""

    def __init__(self, dtype: Any, *, stacked: bool) -> None:
        self._dtype = dtype
        self._stacked = stacked
        self._programs: dict[Any, Callable[..., jax.Array]] = {}

    def __call__(self, leaf: jax.Array, layer: int = 0) -> np.ndarray:
        key = (leaf.shape, leaf.sharding)
        if key not in self._programs:
            # Alone, a process finds every part on its own devices, and none needs a copy of the others' parts.
            whole = None if leaf.is_fully_addressable else _replicated(leaf)
            self._programs[key] = jax.jit(self._take, out_shardings=whole)
        return np.asarray(self._programs[key](leaf, np.int32(layer)))

    def _take(self, leaf: jax.Array, layer: jax.Array) -> jax.Array:
        one = jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False) if self._stacked else leaf
        return one.astype(self._dtype)


def _replicated(leaf: jax.Array) -> NamedSharding:
    mesh: jax.sharding.Mesh = leaf.sharding.mesh  # type: ignore[attr-defined]
    return NamedSharding(mesh, PartitionSpec())


def _stream(tensors: Sequence[Stored], beat: Callable[[], None]) -> Iterator[np.ndarray]:
    for tensor in tensors:
        yield tensor.gather()
        beat()


def _write_files(
    tensors: Sequence[Stored], dtype: np.dtype[Any], folder: Path, stream: Iterator[np.ndarray], largest: int, name: str
) -> None:
    groups = _cut(tensors, dtype.itemsize, largest)
    stem = Path(name).stem
    names = [f"{stem}-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1)]
    names = [name] if len(groups) == 1 else names
    for file, group in zip(names, groups, strict=True):
        _write_file(folder / file, group, dtype, stream)
    if len(groups) > 1:
        file_of = {tensor.name: file for file, group in zip(names, groups, strict=True) for tensor in group}
        total = sum(_bytes_of(tensor, dtype.itemsize) for tensor in tensors)
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": file_of})


def _write_file(path: Path, tensors: Sequence[Stored], dtype: np.dtype[Any], stream: Iterator[np.ndarray]) -> None:
    """The safetensors format, https://github.com/huggingface/safetensors#format, without a file's tensors in memory.

    The library's own `save_file` wants all of them at once.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for tensor in tensors:
        end = place + _bytes_of(tensor, dtype.itemsize)
        header[tensor.name] = {"dtype": _CODES[dtype.name], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in tensors:
            file.write(np.ascontiguousarray(next(stream)).reshape(-1).view(np.uint8).data)


def _cut(tensors: Sequence[Stored], width: int, largest: int) -> list[list[Stored]]:
    """Neighbours together, as many as fit into a file; a tensor larger than a file has one of its own."""
    groups: list[list[Stored]] = [[]]
    room = largest
    for tensor in tensors:
        size = _bytes_of(tensor, width)
        if size > room and groups[-1]:
            groups.append([])
            room = largest
        groups[-1].append(tensor)
        room -= size
    return groups


def _bytes_of(tensor: Stored, width: int) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64)) * width


def _write_json(path: Path, body: dict[str, Any]) -> None:
    path.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
