"""Settings of the operator: flags before the environment, the environment before the file; `--help` shows them all."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from controller import __version__
from controller.operator.options import Options, command

FLAGS = (
    *("config", "kubeconfig", "namespace", "own-namespace", "image", "workers", "resync-minutes", "lease", "identity"),
    *("leader-election / --no-leader-election", "metrics", "webhook", "webhook-service", "webhook-configuration"),
    *("certificates", "progress", "progress-service", "progress-url", "pod-address", "log-format", "log-level"),
    *("stop-seconds", "version"),
)


def invoke(*arguments: str, **environ: str) -> tuple[Result, list[Options]]:
    found: list[Options] = []
    return CliRunner().invoke(command(found.append), arguments, env=environ), found


def options(*arguments: str, **environ: str) -> Options:
    result, found = invoke(*arguments, **environ)
    assert result.exit_code == 0, result.output
    return found[0]


def test_flags_come_before_variables_and_variables_before_the_file(tmp_path: Path) -> None:
    """Each place adds what the ones before it leave open."""
    file = tmp_path / "operator.yaml"
    file.write_text("workers: 1\nimage: of-the-file\nlease: of-the-file\nnamespace: [a, b]\nleader-election: false\n")
    variables = {"GRPO_OPERATOR_WORKERS": "2", "GRPO_OPERATOR_IMAGE": "of-the-environment"}
    found = options("--config", str(file), "--workers", "3", **variables)
    assert (found.workers, found.image, found.lease) == (3, "of-the-environment", "of-the-file")
    assert (found.namespaces, found.leader_election, found.log_format) == (("a", "b"), False, "json")


def test_places_are_addresses_or_none() -> None:
    """A port alone is on every address; what nobody needs is not served."""
    found = options("--metrics", "none", "--webhook", "127.0.0.1:1", "--progress", "[::1]:2")
    assert (found.metrics, found.webhook, found.progress) == (None, ("127.0.0.1", 1), ("::1", 2))
    assert options().metrics == ("0.0.0.0", 8080)  # noqa: S104 - what is asserted


def test_help_shows_every_flag() -> None:
    """With what it is by default."""
    result, _ = invoke("--help")
    assert result.exit_code == 0
    assert [flag for flag in FLAGS if f"--{flag}" not in result.output] == []
    assert "[default: 4;" in result.output
    assert invoke("--version")[0].output.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "content", "words"),
    [
        (("--workers", "0"), "", "0 is not in the range 1<=x<=64"),
        (("--metrics", "here"), "", "'here' must be HOST:PORT, :PORT or none"),
        (("--log-level", "loud"), "", "'loud' is not one of"),
        (("--config", "FILE"), "worker: 2", "worker is no flag; --help lists them"),
        (("--config", "FILE"), "- a list", "must be a mapping of flags to values"),
        (("--config", "FILE"), "a: [", "while parsing"),
        (("--config", "/no/such/file"), "", "No such file"),
    ],
)
def test_a_wrong_setting_is_refused_in_words(
    tmp_path: Path, arguments: tuple[str, ...], content: str, words: str
) -> None:
    """Nothing starts; the sentence names the flag, the file or the key."""
    (tmp_path / "operator.yaml").write_text(content)
    given = [str(tmp_path / "operator.yaml") if word == "FILE" else word for word in arguments]
    result, found = invoke(*given)
    assert (result.exit_code, found) == (2, [])
    assert words in result.output
