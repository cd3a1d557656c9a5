"""Weights on the mesh from birth, and their way back to Hugging Face's names."""

import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from trainer.model.checkpoint import Checkpoint
from trainer.model.config import UnsupportedModelError, read_model_config, write_model_config
from trainer.model.decoder import head
from trainer.model.saving import save_params
from trainer.model.weights import load_params, random_params


def tensors_of(folder):
    return {name: array for file in sorted(folder.glob("*.safetensors")) for name, array in load_file(file).items()}


def copy_of(folder, target):
    shutil.copytree(folder, target)
    return target


def test_saving_what_was_loaded_gives_the_same_tensors(oracle, mesh_of, tmp_path):
    """Loaded on a mesh and saved again, every tensor keeps name, dtype and every bit; a tied head is not added."""
    config = read_model_config(oracle)
    save_params(load_params(oracle, config, mesh_of(2, 2, 2), jnp.float32), config, tmp_path)
    before, after = tensors_of(oracle), tensors_of(tmp_path)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_checkpoints_are_read_exactly(oracles, mesh_of, tmp_path, stored):
    """A checkpoint in float16 or bfloat16 becomes float32 weights of exactly its values."""
    folder = copy_of(oracles / "qwen2-tied", tmp_path / "model")
    halves = {name: array.astype(stored) for name, array in tensors_of(folder).items()}
    save_file(halves, folder / "model.safetensors")
    params = load_params(folder, read_model_config(folder), mesh_of(1, 2, 2), jnp.float32)
    want = halves["model.layers.1.mlp.up_proj.weight"].astype(np.float32)
    assert params["layers"]["up"].dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(params["layers"]["up"][1]), want)


def test_a_tied_head_is_the_embedding_itself(oracles, mesh_of):
    """A tied model has one table, an untied one two; both are what the logits are made with."""
    mesh = mesh_of(1, 1, 1)
    tied = load_params(oracles / "qwen2-tied", read_model_config(oracles / "qwen2-tied"), mesh, jnp.float32)
    untied = load_params(oracles / "qwen2-untied", read_model_config(oracles / "qwen2-untied"), mesh, jnp.float32)
    assert head(tied) is tied["embed"]
    np.testing.assert_array_equal(np.asarray(head(untied)), tensors_of(oracles / "qwen2-untied")["lm_head.weight"])


def test_a_device_holds_only_its_part(oracles, mesh_of):
    """On fsdp 2 and tp 2 a device holds a quarter of every matrix, heads and vocabulary split by tp."""
    folder = oracles / "qwen2-untied"
    params = load_params(folder, read_model_config(folder), mesh_of(2, 2, 2), jnp.float32)
    whole = np.asarray(params["layers"]["q"])
    shard = params["layers"]["q"].addressable_shards[3]  # dp 0, fsdp 1, tp 1
    np.testing.assert_array_equal(np.asarray(shard.data), whole[:, 32:, 32:])
    for matrix in (params["embed"], params["head"], *(params["layers"][name] for name in ("k", "o", "up", "down"))):
        assert matrix.addressable_shards[0].data.size * 4 == matrix.size


def test_nothing_larger_than_a_shard_is_read(oracles, mesh_of, monkeypatch):
    """Over eight devices each slice of a matrix is an eighth of it, read once; only norms are read whole."""
    folder = oracles / "qwen2-untied"
    config, read, sizes = read_model_config(folder), Checkpoint.read, []

    def recorded(self, tensor, index):
        found = read(self, tensor, index)
        sizes.append((found.size, self._slice(tensor).get_shape()))
        return found

    monkeypatch.setattr(Checkpoint, "read", recorded)
    load_params(folder, config, mesh_of(1, 8, 1), jnp.float32)
    assert all(size == np.prod(shape) // (8 if len(shape) == 2 else 1) for size, shape in sizes)
    assert sum(size for size, _ in sizes) == config.parameters


def test_a_dimension_that_does_not_divide_stays_whole(oracles, mesh_of):
    """On an axis that does not divide a dimension, that dimension is replicated and the values are the same."""
    folder = oracles / "qwen2-tied"  # hidden 64, which 3 does not divide
    params = load_params(folder, read_model_config(folder), mesh_of(1, 3, 2), jnp.float32)
    assert params["embed"].addressable_shards[0].data.shape == (256, 64)
    np.testing.assert_array_equal(np.asarray(params["embed"]), tensors_of(folder)["model.embed_tokens.weight"])


def test_random_weights_do_not_depend_on_the_mesh(oracles, mesh_of):
    """The same seed gives the same weights on every mesh, and another seed others."""
    config = read_model_config(oracles / "qwen3-tied")
    one = random_params(config, 3, mesh_of(1, 1, 1), jnp.float32)
    many = random_params(config, 3, mesh_of(2, 2, 2), jnp.float32)
    other = random_params(config, 4, mesh_of(1, 1, 1), jnp.float32)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, many)
    assert not np.array_equal(np.asarray(one["embed"]), np.asarray(other["embed"]))
    assert sum(leaf.size for leaf in jax.tree.leaves(one)) == config.parameters


def test_a_written_checkpoint_is_read_back_whole(oracle, mesh_of, tmp_path):
    """write_model_config and save_params make a folder from which the same config and weights are read."""
    config = read_model_config(oracle)
    params = random_params(config, 0, mesh_of(1, 1, 1), jnp.bfloat16)
    write_model_config(config, tmp_path, pad_id=0)
    save_params(params, config, tmp_path)
    assert read_model_config(tmp_path) == config
    again = load_params(tmp_path, config, mesh_of(1, 2, 1), jnp.bfloat16)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), params, again)


def test_a_missing_tensor_is_named(oracles, mesh_of, tmp_path):
    """A checkpoint without one of its tensors is refused with the tensor's name."""
    folder = copy_of(oracles / "qwen2-tied", tmp_path / "model")
    kept = {name: array for name, array in tensors_of(folder).items() if name != "model.layers.2.mlp.up_proj.weight"}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"model\.layers\.2\.mlp\.up_proj\.weight is missing"):
        load_params(folder, read_model_config(folder), mesh_of(1, 1, 1), jnp.float32)


def test_a_wrong_shape_is_told_with_both_shapes(oracles, mesh_of, tmp_path):
    """Weights of another size than config.json says are refused with both sizes, before anything is loaded."""
    folder = copy_of(oracles / "qwen2-tied", tmp_path / "model")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"vocab_size": 600}))
    with pytest.raises(
        UnsupportedModelError, match=r"embed_tokens.* \(512, 64\), but config.json makes it \(600, 64\)"
    ):
        load_params(folder, read_model_config(folder), mesh_of(1, 1, 1), jnp.float32)


def test_quantised_weights_are_refused(oracles, mesh_of, tmp_path):
    """Integer tensors are refused with their type and the types that work."""
    folder = copy_of(oracles / "qwen2-tied", tmp_path / "model")
    whole = {name: array.astype(np.int8) for name, array in tensors_of(folder).items()}
    save_file(whole, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="is I8; use a checkpoint in float32, bfloat16 or float16"):
        load_params(folder, read_model_config(folder), mesh_of(1, 1, 1), jnp.float32)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model-00002-of-00005.safetensors", None, "00002.* is missing, but model.safetensors.index.json names it"),
        ("model-00002-of-00005.safetensors", b"\x10", "00002.* cannot be read as safetensors"),
        ("model.safetensors.index.json", None, "has neither model.safetensors nor model.safetensors.index.json"),
        ("model.safetensors.index.json", b"{", "index.json: is not JSON"),
    ],
)
def test_an_incomplete_download_is_named(oracles, mesh_of, tmp_path, name, content, message):
    """A missing or broken file of a sharded checkpoint is refused with its name."""
    folder = copy_of(oracles / "qwen2-untied", tmp_path / "model")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=message):
        load_params(folder, read_model_config(folder), mesh_of(1, 1, 1), jnp.float32)
