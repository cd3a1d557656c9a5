"""Export: what goes out is what came in or was trained, in a folder that other tools read."""

import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from launching import Launched, resolved, sums
from safetensors.numpy import load_file
from transformers import AutoConfig

from trainer.contract.exits import ExitCode, RunError
from trainer.export import Exporter, export, main
from trainer.generate import main as generate
from trainer.model.config import read_model_config
from trainer.model.source import load_tokenizer
from trainer.model.weights import load_params
from trainer.trained import find, newest_checkpoint


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    return {name: array for file in sorted(folder.glob("*.safetensors")) for name, array in load_file(file).items()}


def same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bool:
    """Names, dtypes and every bit."""
    pairs = [(ours[name], theirs[name]) for name in ours if name in theirs]
    return ours.keys() == theirs.keys() and all(
        one.dtype == other.dtype and one.tobytes() == other.tobytes() for one, other in pairs
    )


@pytest.fixture(scope="module")
def trained(byte_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """A finished run of two processes on a 1,2,2 mesh, with a checkpoint at each step and an export."""
    folder = tmp_path_factory.mktemp("trained")
    data = sums(folder / "sums.jsonl")
    export_section = {"when": "OnSuccess", "dtype": "float32"}
    options = {"mesh_shape": "1,2,2", "checkpoint": {"every_steps": 1}, "export": export_section, "steps": 2}
    launched = Launched(resolved(byte_model, data, folder / "out", 2, 2, **options), folder)
    launched.ended = launched.finish()
    return launched


def test_what_was_imported_is_exported_bit_for_bit(oracle: Path, tmp_path: Path) -> None:
    """Read over eight devices and exported, every tensor keeps name, dtype and bits; config and tokenizer stay."""
    told = export(find(str(oracle)), tmp_path / "out", "float32")
    assert same(tensors_of(tmp_path / "out"), tensors_of(oracle))
    assert "parameters in float32, 1 file of weights" in told
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (oracle, tmp_path / "out"))
    assert after == before
    for kept in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert not (oracle / kept).exists() or (tmp_path / "out" / kept).read_bytes() == (oracle / kept).read_bytes()


def test_many_files_have_an_index(oracles: Path, mesh_of, tmp_path: Path) -> None:
    """Above a size the weights are cut into files at tensors, and the index names each tensor's file and all bytes."""
    folder = oracles / "qwen2-untied"
    config = read_model_config(folder)
    exporter = Exporter(folder, config, "float32", largest_file=150_000)
    exporter.write(load_params(folder, config, mesh_of(2, 2, 2), jnp.float32), tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == files
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert index["metadata"]["total_size"] == 4 * config.parameters
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / "out" / file)
    assert same(tensors_of(tmp_path / "out"), tensors_of(folder))
    again = load_params(tmp_path / "out", read_model_config(tmp_path / "out"), mesh_of(1, 1, 1), jnp.float32)
    assert np.array_equal(again["head"], tensors_of(folder)["lm_head.weight"])


def test_another_dtype_is_rounded_once_and_told_to_readers(oracles: Path, tmp_path: Path) -> None:
    """In bfloat16 each weight is the nearest, and transformers reads that dtype from the config."""
    folder = oracles / "llama3-scaled"
    export(find(str(folder)), tmp_path / "out", "bfloat16")
    rounded = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors_of(folder).items()}
    assert same(tensors_of(tmp_path / "out"), rounded)
    assert str(AutoConfig.from_pretrained(tmp_path / "out").dtype).endswith("bfloat16")
    assert read_model_config(tmp_path / "out") == read_model_config(folder)


def test_a_run_exports_at_its_end_what_its_last_checkpoint_holds(
    trained: Launched, byte_model: Path, tmp_path: Path
) -> None:
    """Two processes leave in export/ what the command writes from the newest checkpoint: trained weights."""
    assert main([str(trained.folder), str(tmp_path / "out")]) == 0
    ours = tensors_of(trained.folder / "export")
    assert same(ours, tensors_of(tmp_path / "out"))
    assert not same(ours, tensors_of(byte_model))
    assert f"exported to {trained.folder}/export in float32" in trained.ended[0].out
    tokenizer = load_tokenizer(trained.folder / "export")
    assert tokenizer("1 + 1 =")["input_ids"] == load_tokenizer(byte_model)("1 + 1 =")["input_ids"]


def test_an_earlier_checkpoint_may_be_named(trained: Launched, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """RUN/checkpoints/STEP is that step's weights; one that was never committed is refused with the newest."""
    first = trained.folder / "checkpoints" / "1"
    assert main([str(first), str(tmp_path / "one")]) == 0
    assert "after step 1" in capsys.readouterr().out
    assert not same(tensors_of(tmp_path / "one"), tensors_of(trained.folder / "export"))
    assert main([str(first.with_name("7")), str(tmp_path / "seven")]) == 5
    assert capsys.readouterr().err == (
        f"{first.with_name('7')}: is no committed checkpoint; the newest is {first.with_name('2')}\n"
    )


def test_what_cannot_be_exported_is_told(trained: Launched, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A run without a checkpoint, a folder that is no model, and a target that exists or cannot be made: one line."""
    run = tmp_path / "run"
    (run / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    (run / "run.json").write_bytes((trained.folder / "run.json").read_bytes())
    assert newest_checkpoint(run / "checkpoints") is None
    for source, out, code, message in (
        (run, "a", 5, "the run has no committed checkpoint; set checkpoint.every_steps"),
        (tmp_path, "a", 5, "has neither run.json nor config.json; give a run folder"),
        ("/no/run", "a", 5, "/no/run is not a folder on this machine"),
        (run, "run", 2, "exists already; name a folder that does not, or remove it"),
        (run, "run/run.json/out", 5, "cannot be written (Not a directory)"),
    ):
        assert main([str(source), str(tmp_path / out)]) == code
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_full_disk_leaves_nothing_and_no_one_waiting(oracles: Path, mesh_of, tmp_path: Path, monkeypatch) -> None:
    """Where writing fails, every tensor is still gathered, the error is one line, and no half folder is left."""
    folder, gathered = oracles / "qwen2-tied", []
    config = read_model_config(folder)
    params = load_params(folder, config, mesh_of(1, 1, 1), jnp.float32)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.model.saving._write_file", full)
    exporter = Exporter(folder, config, "float32", beat=lambda: gathered.append(1))
    with pytest.raises(RunError, match=r"out: cannot be written \(No space left on device\)") as caught:
        exporter.write(params, tmp_path / "out")
    assert caught.value.code is ExitCode.FAILED
    assert len(gathered) == len(tensors_of(folder))
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_is_the_trainers(oracles: Path, tmp_path: Path) -> None:
    """`python -m trainer export` writes the folder and says so in one line."""
    command = [sys.executable, "-m", "trainer", "export", str(oracles / "qwen3-tied"), str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith(f"{tmp_path}/out: {oracles}/qwen3-tied, ")
    assert same(tensors_of(tmp_path / "out"), tensors_of(oracles / "qwen3-tied"))


def test_a_run_answers_as_its_export_does(trained: Launched, capsys: pytest.CaptureFixture) -> None:
    """`generate` of a run folder reads its newest checkpoint: it gives the completion of the exported model."""
    asked = ["--prompt", "5 + 25 =", "--greedy", "--max-tokens", "8", "-o", "json"]
    assert generate([str(trained.folder), *asked]) == 0
    of_run = capsys.readouterr().out
    assert generate([str(trained.folder / "export"), *asked]) == 0
    assert json.loads(of_run) == json.loads(capsys.readouterr().out)
