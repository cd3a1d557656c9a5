"""`kubectl grpo` without a cluster: how it says that there is none, what it packs, compares and counts."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from controller.cli import ALL, IN_A_CLUSTER, main
from controller.commands.screen import screen_of
from controller.plugin import code
from controller.plugin.differing import differences
from controller.plugin.trouble import Trouble
from controller.plugin.usage import usage_of
from controller.plugin.whole import Whole

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = {"name": "far", "context": {"cluster": "far", "user": "me", "namespace": "team-a"}}


def kubeconfig(path: Path, server: str = "https://127.0.0.1:1") -> Path:
    """One whose server listens to nobody."""
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "far", "cluster": {"server": server}}],
                "users": [{"name": "me", "user": {"token": "t"}}],
                "contexts": [CONTEXT],
                "current-context": "far",
            }
        )
    )
    return path


def refused(*words: str, code: int = 3) -> str:
    """The one sentence on the error stream."""
    ended = CliRunner().invoke(main, words, prog_name="kubectl grpo")
    assert (ended.exit_code, ended.stdout) == (code, "")
    assert re.fullmatch(r"error: [^\n]+\n", ended.stderr), ended.stderr
    return ended.stderr


def test_a_cluster_that_does_not_answer_is_one_sentence(tmp_path: Path) -> None:
    """It names address, reason and context."""
    told = refused("list", "--kubeconfig", str(kubeconfig(tmp_path / "k")))
    assert "the cluster at https://127.0.0.1:1 cannot be reached (" in told
    assert "; is far the right context?" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "Invalid kube-config file. No configuration found."),
        ("a: [", "while parsing a flow node"),
        ("hello", "the kubeconfig is YAML, but no kubeconfig"),
        ("[]", "the kubeconfig"),
        ("apiVersion: v1\nkind: Config\n", "Invalid kube-config file."),
    ],
    ids=["missing", "no YAML", "a word", "a list", "empty"],
)
def test_a_kubeconfig_that_leads_nowhere_is_one_sentence(text: str | None, told: str, tmp_path: Path) -> None:
    """Whatever is wrong with it, the fix is told."""
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    said = refused("list", "--kubeconfig", str(path))
    assert told in said
    assert said.endswith(
        "set KUBECONFIG, or give --kubeconfig and --context; `kubectl config get-contexts` lists them\n"
    )


def test_a_context_that_does_not_exist_is_told_with_those_that_do(tmp_path: Path) -> None:
    """The wrong word, and the right ones."""
    told = refused("status", "a", "--kubeconfig", str(kubeconfig(tmp_path / "k")), "--context", "near")
    assert "the kubeconfig has no context near; it has far" in told


def test_the_kubeconfig_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files in KUBECONFIG count as one, as for kubectl."""
    script = "from controller.runtime.transport import context_of; print(*context_of(None, None))"
    empty = tmp_path / "empty"
    empty.write_text("apiVersion: v1\nkind: Config\n")
    monkeypatch.setenv("KUBECONFIG", f"{kubeconfig(tmp_path / 'k')}{os.pathsep}{empty}")
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout == "far team-a\n"


@pytest.mark.parametrize("command", [name for name in IN_A_CLUSTER if name not in ("list", "top", "submit", "diff")])
def test_what_is_missing_is_told_where_the_extra_is_not_installed(command: str) -> None:
    """Without the Kubernetes client a command says in one line how to install it; the offline ones go on."""
    program = (
        "import sys; sys.modules['kubernetes'] = sys.modules['urllib3'] = None\n"
        f"sys.argv = ['grpoctl', {command!r}, 'demo']\n"
        "from controller.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"Error: {command} talks to a cluster, and urllib3 is not installed; pip install 'grpo-operator[controller]'\n"
    )


@pytest.mark.parametrize("command", ALL)
def test_every_command_has_help(command: str) -> None:
    """It says what the command does; those of a cluster tell their exit codes and take kubectl's options."""
    ended = CliRunner().invoke(main, [command, "--help"], prog_name="grpoctl")
    assert ended.exit_code == 0
    if command in IN_A_CLUSTER:
        assert "Exit codes:" in ended.stdout
        assert {"--kubeconfig", "--context", "--namespace"} <= set(re.findall(r"--[a-z]+", ended.stdout))


@pytest.mark.parametrize("words", [("report", "a-job"), ("validate", "FILE", "--server")])
def test_an_offline_command_that_is_sent_to_a_cluster_says_that_there_is_none(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """`report` of a word that is no folder, and `validate --server`."""
    job = str(Path(__file__).parent / "accepted" / "round-up.yaml")
    given = [job if word == "FILE" else word for word in words]
    assert "cannot be reached" in refused(*given, "--kubeconfig", str(kubeconfig(tmp_path / "k")))


def test_a_folder_is_packed_file_by_file(tmp_path: Path) -> None:
    """Texts by their names; hidden files and what Python compiled are left out."""
    (tmp_path / "rewards.py").write_text("x = 1\n")
    (tmp_path / "words.txt").write_text("ä\n", encoding="utf-8")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "__pycache__").mkdir()
    assert code.packed(tmp_path) == {"rewards.py": "x = 1\n", "words.txt": "ä\n"}


def _large(folder: Path) -> None:
    (folder / "large.py").write_text("#" * 1_000_000)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "package").mkdir(), "a ConfigMap holds no folders"),
        (lambda folder: (folder / "my rewards.py").write_text(""), "rename it"),
        (lambda folder: (folder / "weights.bin").write_bytes(b"\xff\xfe"), "is no UTF-8 text"),
        (_large, "a ConfigMap holds 1,000,000"),
        (lambda folder: (folder / "rewards.py").unlink(), "holds no Python file"),
    ],
    ids=["a folder", "a name", "bytes", "too large", "nothing"],
)
def test_what_a_config_map_cannot_hold_is_refused(spoil: Callable[[Path], Any], told: str, tmp_path: Path) -> None:
    """Before anything is made, with the path and what to do."""
    (tmp_path / "rewards.py").write_text("x = 1\n")
    spoil(tmp_path)
    with pytest.raises(Trouble, match=told):
        code.packed(tmp_path)


def test_jobs_differ_in_what_they_come_to(resolve_job: Callable[..., Any]) -> None:
    """A default that is written differs from nothing; lists are values as a whole."""
    plain = resolve_job({"steps": 100}).job
    assert differences(plain, resolve_job().job) == []
    other = resolve_job({"steps": 7, "nodeSelector": {"a": "b"}, "rewards": [{"name": "correct", "weight": 1.0}]}).job
    found = {one.path: (one.first, one.second) for one in differences(plain, other)}
    assert list(found) == ["spec.nodeSelector.a", "spec.rewards", "spec.steps"]
    assert (found["spec.nodeSelector.a"], found["spec.steps"]) == ((None, "b"), (100, 7))


def test_devices_are_counted_over_all_processes() -> None:
    """Tokens per second are those of a chip times the chips; who rests holds none."""
    running = {
        "metadata": {"name": "a", "namespace": "n"},
        "status": {
            "phase": "Running",
            "plan": {"processes": 4, "devicesPerProcess": 4},
            "progress": {"tokensPerSecondPerChip": 100.0, "step": 3, "totalSteps": 9},
        },
    }
    resting = {**running, "status": {**running["status"], "phase": "Suspended"}}
    (row,) = usage_of([running, resting])
    assert (row["devices"], row["tokensPerSecond"], row["step"]) == (16, 1600.0, 3)


def drawn(job: dict[str, Any]) -> str:
    """The screen of a job without pods and events, as a program reads it."""
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(screen_of(Whole(job, (), (), ())))
    return captured.get()


def test_a_job_that_nobody_has_looked_at_has_a_screen() -> None:
    """No operator has written a status yet: it is pending, and nothing is known."""
    metadata = {"name": "new", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}
    told = drawn({"metadata": metadata, "spec": {"modelPath": "m"}})
    assert re.match(r"new  Pending  namespace n, age \d+d\n  model +m +\n", told)
    assert "condition" not in told


def test_what_a_pod_said_cannot_move_the_cursor() -> None:
    """Control characters and rich's markup are shown as they are written, not obeyed."""
    failed = {
        "type": "Failed",
        "status": "True",
        "reason": "InvalidConfig",
        "message": "[red]x\x1b[2J\ry",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {"phase": "Failed", "conditions": [failed]}
    told = drawn({"metadata": {"name": "bad", "namespace": "n"}, "spec": {}, "status": status})
    assert r"[red]x\x1b[2J\ry" in told
    assert "\x1b" not in told
