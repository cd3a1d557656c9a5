"""`python -m trainer --print-config` and `--print-plan`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from trainer.contract.runner import RunnerConfig
from trainer.printing import answer

POSIX_ONLY = ("fcntl", "grp", "pwd", "pty", "resource", "spwd", "syslog", "termios", "tty")

AS_ON_WINDOWS = f"""
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in {POSIX_ONLY!r}:
            raise ModuleNotFoundError(name)
for name in {POSIX_ONLY!r}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocked())
sys.argv[0] = "trainer"
try:
    runpy.run_module("trainer", run_name="__main__", alter_sys=True)
finally:
    assert "jax" not in sys.modules
"""


def as_on_windows(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m trainer` with POSIX-only modules blocked and both streams in cp1252."""
    environ = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", AS_ON_WINDOWS, *arguments]
    return subprocess.run(command, capture_output=True, encoding="cp1252", env=environ, check=False)


def test_the_merged_configuration_is_printed_on_windows_too(tmp_path: Path) -> None:
    """File and assignments are merged and printed as YAML, without JAX, whatever letters the values have."""
    file = tmp_path / "run.yaml"
    file.write_text("model_path: /modèles/模型\nrollout: {batch_size: 128}\n", encoding="utf-8")
    result = as_on_windows("--print-config", "--config", str(file), "--set", "steps=7")
    assert (result.returncode, result.stderr) == (0, "")
    printed = yaml.safe_load(result.stdout)
    assert (printed["model_path"], printed["steps"], printed["rollout"]["batch_size"]) == ("/modèles/模型", 7, 128)
    assert list(printed) == list(RunnerConfig.model_fields)


def test_errors_are_printed_on_windows_too(tmp_path: Path) -> None:
    """A refused key that the terminal cannot show is escaped, and the exit code says invalid configuration."""
    file = tmp_path / "run.yaml"
    file.write_text("模型: 1\n", encoding="utf-8")
    result = as_on_windows("--print-config", "--config", str(file))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        r'\u6a21\u578b: "\u6a21\u578b" is not a key of the configuration; correct or remove it'
    ]


def test_without_a_file_the_defaults_are_printed() -> None:
    """--print-config alone prints every default, with model_path null."""
    printed = answer(["--print-config"])
    assert (printed.code, printed.err) == (0, "")
    assert yaml.safe_load(printed.out)["model_path"] is None
    assert printed.out.startswith("model_path: null\nsteps: 100\nseed: 0\nprecision:\n  params: float32\n")


def test_the_plan_is_printed_as_a_table() -> None:
    """--print-plan shows each count with what it counts, and one sentence; it needs no model."""
    sets = ["--set", "rollout.batch_size=128", "--set", "train.micro_batch_size=16"]
    printed = answer(["--print-plan", "--processes", "4", "--devices-per-process", "4", *sets])
    assert printed.code == 0
    assert printed.out == (
        "processes                      4  1 slice x 4 hosts\n"
        "devices per process            4\n"
        "mesh                      1,16,1  dp,fsdp,tp\n"
        "group size                     8  completions per prompt\n"
        "sequences per step           128  over all processes\n"
        "prompts per step              16  over all processes\n"
        "prompts per pass               4  per process\n"
        "passes                         1  per step\n"
        "sequences per process         32  per step\n"
        "sequences per micro-step      16  per process\n"
        "micro-steps                    2  per step\n"
        "\n"
        "16 prompts x 8 completions = 128 sequences per step; each of 4 processes samples 32 in 1 pass of 4 prompts "
        "and updates in 2 micro-steps of 16\n"
    )


def test_the_plan_is_printed_as_json_with_rounding_told() -> None:
    """-o json prints the keys of a job's plan; a rounded number is a warning on the other stream."""
    sets = ["--set", "rollout.batch_size=128", "--set", "rollout.padding=RoundUp"]
    printed = answer(["--print-plan", "--processes", "3", "--devices-per-process", "4", "-o", "json", *sets])
    plan = json.loads(printed.out)
    assert " ".join(plan) == (
        "processes devicesPerProcess hosts slices mesh groupSize sequencesPerStep promptsPerStep "
        "promptsPerPassPerProcess passes sequencesPerProcess sequencesPerMicroStep microSteps summary"
    )
    assert (plan["sequencesPerStep"], plan["mesh"]) == (144, {"dp": 1, "fsdp": 12, "tp": 1})
    assert printed.err == (
        "warning: rollout.batch_size: 128 was rounded up to 144: 1 pass of 6 prompts x 3 processes x num_pre_q 8 "
        "(the value came from --set)\n"
    )


def test_a_refused_plan_tells_every_violation() -> None:
    """A broken rule is told in text on stderr, in JSON on stdout, with the exit code of an invalid configuration."""
    command = ["--print-plan", "--processes", "1", "--devices-per-process", "8", "--set", "rollout.batch_size=100"]
    line = (
        "rollout.batch_size: 100 must be a multiple of num_pre_q = 8 (each prompt has 8 completions); use 96 or 104 "
        "(the value came from --set)"
    )
    text, data = answer(command), answer([*command, "-o", "json"])
    assert (text.out, text.err, text.code) == ("", line + "\n", 2)
    (violation,) = json.loads(data.out)["violations"]
    assert (violation["rule"], violation["value"]) == ("batch-of-groups", 100)
    assert f"{violation['path']}: {violation['message']}" == line


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is no text each give one line."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name, reason in (("none", "No such file or directory"), ("bytes", "it is not UTF-8 text")):
        path = tmp_path / name
        printed = answer(["--print-config", "--config", str(path)])
        assert (printed.out, printed.code) == ("", 2)
        assert printed.err == f"{path}: cannot be read: {reason}; name a runner YAML\n"


@pytest.mark.parametrize("arguments", [["--print-plan"], ["--print-plan", "--processes", "0"], ["--print-conf"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A plan without a machine, a count of nothing and an abbreviated option are wrong usage."""
    with pytest.raises(SystemExit) as caught:
        answer(arguments)
    assert caught.value.code == 2
    assert "usage: python -m trainer" in capsys.readouterr().err


def test_the_contract_version_is_printed() -> None:
    """--contract-version prints the versions of run.json that are read, one a line."""
    assert answer(["--contract-version"]).out == "1\n"
