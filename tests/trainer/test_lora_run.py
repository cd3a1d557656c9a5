"""A run that trains adapters, from its first step to the folders that others load."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from launching import Launched, resolved, sums
from safetensors.numpy import load_file, save_file

from trainer.contract.exits import ExitCode, RunError
from trainer.export import main as export
from trainer.generate import main as generate
from trainer.trained import find

LORA = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "o_proj", "down_proj"]}


@pytest.fixture(scope="module")
def model(byte_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, which a test may change."""
    return Path(shutil.copytree(byte_model, tmp_path_factory.mktemp("base") / "model"))


def launched(model: Path, folder: Path) -> Launched:
    run = resolved(
        model,
        sums(folder / "sums.jsonl"),
        folder / "out",
        2,
        2,
        mesh_shape="1,2,2",
        lora=LORA,
        checkpoint={"every_steps": 1, "keep": 3},
        export={"when": "OnSuccess", "dtype": "float32"},
        train={"beta": 0.1},
        eval_every_steps=2,
        steps=2,
    )
    return Launched(run, folder)


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """A finished run of two processes over fsdp and tp that trained adapters, evaluated and exported."""
    run = launched(model, tmp_path_factory.mktemp("adapted"))
    run.ended = run.finish()
    return run


def test_a_run_trains_adapters_alone(trained: Launched, model: Path) -> None:
    """The export is the base plus the PEFT adapter beside it; other weights are the base's, bit for bit."""
    folder = trained.folder / "export"
    base, whole = load_file(model / "model.safetensors"), load_file(folder / "model.safetensors")
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8)
    assert (config["task_type"], config["base_model_name_or_path"]) == ("CAUSAL_LM", str(model))
    assert whole.keys() == base.keys()
    changed = {name for name in base if not np.array_equal(base[name], whole[name])}
    named = {name.split(".lora_")[0].removeprefix("base_model.model.") + ".weight" for name in adapter}
    assert changed == named == {n for n in base if any(f"{t}.weight" in n for t in config["target_modules"])}
    for name in changed:
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        change = adapter[f"{stem}.lora_B.weight"] @ adapter[f"{stem}.lora_A.weight"]
        np.testing.assert_allclose(whole[name], base[name] + 2.0 * change, rtol=1e-5, atol=1e-7)


def test_its_metrics_are_those_of_the_joined_policy(trained: Launched) -> None:
    """The rollout had the adapters: update and rollout agree at every step, and the KL to the base grows from 0."""
    first, second = trained.metrics[-2:]
    assert all(row["update/mismatch_largest"] < 1e-3 for row in (first, second))
    assert first["update/kl_reference"] == pytest.approx(0.0, abs=1e-9)
    assert second["update/kl_reference"] > 1e-9
    told = trained.ended[0].out
    assert "lora: " in told
    assert "parameters of rank 4 beside q_proj, o_proj, down_proj" in told


def test_a_checkpoint_holds_the_adapters_and_exports_the_same(trained: Launched, tmp_path: Path, capsys) -> None:
    """Parameters and optimizer of the checkpoint are those of the adapters; the command exports what the run did."""
    metadata = (trained.folder / "checkpoints" / "2" / "state" / "_METADATA").read_text()
    assert "q_lora_a" in metadata
    assert "embed" not in metadata
    assert "gate" not in metadata
    assert export([str(trained.folder), str(tmp_path / "out")]) == 0
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        ours, theirs = load_file(trained.folder / "export" / name), load_file(tmp_path / "out" / name)
        assert ours.keys() == theirs.keys()
        assert all(np.allclose(ours[key], theirs[key], rtol=1e-6, atol=1e-8) for key in ours)
    capsys.readouterr()
    answers = []
    for source in (trained.folder, tmp_path / "out"):
        assert generate([str(source), "--prompt", "3 + 9 =", "--greedy", "--max-tokens", "8"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]


@pytest.mark.long
def test_adapters_go_on_beside_the_weights_they_were_trained_beside(trained: Launched, model: Path) -> None:
    """From step 1 the run ends at the same bits; with a base that changed meanwhile it is refused, and so is export."""
    shutil.rmtree(trained.folder / "checkpoints" / "2")
    unfinished = trained.folder / "run.json"
    unfinished.write_text(json.dumps(json.loads(unfinished.read_text()) | {"finished": False}))
    weights = model / "model.safetensors"
    kept, tensors = weights.read_bytes(), load_file(weights)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * np.float32(1.5)
    save_file(tensors, weights, metadata={"format": "pt"})
    ended = launched(model, trained.folder.parents[1]).wait()
    assert [one.code for one in ended] == [ExitCode.FAILED] * 2
    assert f"model_path: {model} is not what it was at step 1" in ended[0].cause.message
    with pytest.raises(RunError, match="is not what it was when the adapters were trained"):
        find(str(trained.folder)).params()
    weights.write_bytes(kept)
    again = launched(model, trained.folder.parents[1])
    assert again.finish()[0].fingerprint == trained.ended[0].fingerprint
