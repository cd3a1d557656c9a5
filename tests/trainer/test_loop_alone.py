"""Training on one machine from a runner YAML, with no Kubernetes and nothing rendered."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from launching import BASE, sums


def trainer(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    environ |= {"PYTHONPATH": str(Path(__file__).parent), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "trainer", *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def folder(byte_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a runner YAML whose data lies beside it."""
    folder = tmp_path_factory.mktemp("alone")
    sums(folder / "sums.jsonl")
    data = {"train": "sums.jsonl", "eval": "sums.jsonl"}
    (folder / "My run.yaml").write_text(yaml.safe_dump({**BASE, "model_path": str(byte_model), "data": data}))
    return folder


def test_one_machine_trains_a_runner_yaml(folder: Path) -> None:
    """It ends with 0 and a run folder of its own; again it is refused, and --new-run begins another."""
    command = ("--config", "My run.yaml", "--set", "steps=1", "--devices-per-process", "2")
    first = trainer(folder, *command)
    assert first.returncode == 0, first.stderr
    assert "process 0 (of 1): 2 x cpu" in first.stdout
    (run,) = (folder / "runs").iterdir()
    assert re.fullmatch("my-run-[0-9a-f]{8}", run.name)
    again = trainer(folder, *command)
    assert again.returncode == 2
    assert again.stderr == (
        f"trainer: InvalidConfig, exit code 2: output.uri: runs/{run.name} holds this run, finished after 1 steps; "
        "use --new-run to start afresh, or more steps to go further\n"
    )
    assert trainer(folder, *command, "--new-run").returncode == 0
    assert len(list((folder / "runs").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--config", "My run.yaml", "--set", "rollout.batch_size=30"),
            "trainer: InvalidConfig, exit code 2: rollout.batch_size: 30 must be a multiple of num_pre_q = 4 "
            "(each prompt has 4 completions); use 28 or 32 (the value came from --set)",
        ),
        (
            ("--config", "none.yaml"),
            "trainer: InvalidConfig, exit code 2: none.yaml: cannot be read (No such file or directory); "
            "name a runner YAML",
        ),
        (("--run-config", "run.json", "--new-run"), "python -m trainer: error: --set, --devices-per-process and"),
        ((), "python -m trainer: error: one of the arguments --run-config --config is required"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(folder: Path, arguments: tuple[str, ...], line: str) -> None:
    """A configuration that breaks a rule, a missing file and wrong usage end with 2, before JAX is loaded."""
    ended = trainer(folder, *arguments)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(line)
