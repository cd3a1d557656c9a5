"""`python -m trainer fetch`: what a run left is copied, listed or printed, from a disk or a bucket."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer import bucket as objects
from trainer import fetch

FILES = {
    "run.json": "{}",
    "metrics.jsonl": '{"step": 1}\n',
    "completions/step-1.jsonl": "{}\n",
    "logs/attempt-9/process-0.log": "ninth\n",
    "logs/attempt-10/process-0.log": "one\ntwo\nthree\n",
    "logs/attempt-10/process-1.log": "other\n",
    "checkpoints/2/weights": "w" * 10,
    "inputs/model/config.json": "{}",
    "compile-cache/cpu/program": "p",
}
LARGE = {"checkpoints/2/weights", "inputs/model/config.json", "compile-cache/cpu/program"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder on a disk."""
    folder = tmp_path / "runs" / "demo-01234567"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def below(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_run_is_copied_without_what_is_large(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what is new is copied a second time; `--all` takes checkpoints, inputs and programs too."""
    here = tmp_path / "here"
    assert fetch.main([str(run), str(here)]) == 0
    assert set(below(here)) == FILES.keys() - LARGE
    assert (here / "metrics.jsonl").read_text() == FILES["metrics.jsonl"]
    with (run / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 2}\n')
    capsys.readouterr()
    assert fetch.main([str(run), str(here), "--all"]) == 0
    assert set(below(here)) == FILES.keys()
    assert capsys.readouterr().out == f"{here}: 9 files, 68 bytes; 4 of them new\n"


def test_patterns_choose_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder's name means all that is below it; large ones are there when they are named."""
    assert fetch.main([str(run), str(tmp_path / "a"), "--only", "checkpoints", "--only", "*.jsonl"]) == 0
    assert set(below(tmp_path / "a")) == {"checkpoints/2/weights", "metrics.jsonl", "completions/step-1.jsonl"}
    capsys.readouterr()
    assert fetch.main([str(run), "--list", "--output", "json", "--only", "logs/attempt-9/*"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"path": "logs/attempt-9/process-0.log", "bytes": 6}]


@pytest.mark.parametrize(
    ("pattern", "flags", "printed"),
    [
        ("logs/attempt-*/process-0.log", [], "one\ntwo\nthree\n"),
        ("logs/attempt-*/process-0.log", ["--tail", "2"], "two\nthree\n"),
        ("logs/attempt-*/process-0.log", ["--tail", "0"], ""),
        ("logs/attempt-9/process-0.log", [], "ninth\n"),
    ],
)
def test_a_log_is_printed(run: Path, pattern: str, flags: list[str], printed: str) -> None:
    """Of several, that of the latest attempt: 10 comes after 9."""
    command = [sys.executable, "-m", "trainer", "fetch", str(run), "--print", pattern, *flags]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert ended.stdout == printed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["RUN/none", "OUT"], "no run folder, it has no run.json"),
        (["RUN", "OUT", "--only", "nothing*"], "holds nothing that matches nothing*"),
        (["RUN", "--print", "logs/attempt-3/*"], "holds no logs/attempt-3/*"),
        (["RUN"], "FOLDER: is required"),
        (["RUN", "RUN/run.json"], "Not a directory"),
    ],
)
def test_what_is_not_there_is_one_line(
    run: Path, tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what to do."""
    given = [word.replace("RUN", str(run)).replace("OUT", str(tmp_path / "out")) for word in words]
    assert fetch.main(given) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_a_bucket_is_a_run_folder_too(
    bucket: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same files by the same words; a folder that is not there is one line."""
    for name in FILES:
        objects.upload(run / name, f"{bucket}/{name}")
    here = tmp_path / "here"
    assert fetch.main([bucket, str(here)]) == 0
    assert set(below(here)) == FILES.keys() - LARGE
    assert (here / "logs/attempt-10/process-0.log").read_text() == "one\ntwo\nthree\n"
    assert fetch.main([f"{bucket}/none", str(here)]) == 2
    assert "no run folder, it has no run.json" in capsys.readouterr().err


def test_an_object_with_a_name_that_climbs_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bucket lets an object be called `../x`, the emulator does not: nothing is written outside of the folder."""
    names = ("run.json", "../outside")
    monkeypatch.setattr(objects, "listing", lambda uri: [objects.Found(f"{uri}{name}", 2, 1) for name in names])
    monkeypatch.setattr(objects, "download", lambda uri, file: file.write_text("{}"))
    assert fetch.main(["gs://bucket/run", str(tmp_path / "here")]) == 2
    assert "../outside: would lie outside of" in capsys.readouterr().err
    assert not (tmp_path / "outside").exists()
