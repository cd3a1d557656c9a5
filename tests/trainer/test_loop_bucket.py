"""A run whose folder lies in a bucket: killed, resumed with an empty disk, looked at from outside; and faults."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from buckets import CUT, Emulator, Gate
from hubs import Hub
from launching import Launched, resolved, sums

from trainer import bucket as objects

TREE = {"steps": 4, "eval_every_steps": 2, "checkpoint": {"every_steps": 1}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sums(tmp_path_factory.mktemp("data") / "sums.jsonl")


def kill_at(launched: Launched, line: str) -> None:
    """SIGKILL to all processes and their children once process 0 has said `line`."""
    assert launched.processes[0].stdout is not None
    assert any(told.startswith(line) for told in launched.processes[0].stdout)
    for process in launched.processes:
        process.kill()
    launched.wait()


def impatient(folder: Path) -> dict[str, str]:
    """The environment of processes that ask a silent bucket for two seconds, where others do for twenty."""
    (folder / "sitecustomize.py").write_text("import trainer.bucket\ntrainer.bucket.TRY_SECONDS = 2.0\n")
    return {"PYTHONPATH": os.pathsep.join(map(str, (folder, Path(__file__).parent, Path(__file__).parents[2])))}


def rows_in(folder: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (objects.read(f"{folder}/metrics.jsonl") or b"").splitlines()]


def disk(folder: Path, **environ: str) -> dict[str, str]:
    """The environment of processes with empty disks, each with its own cache of the hub."""
    folder.mkdir()
    return {"TMPDIR": str(folder), "HF_HOME": f"{folder}/home-$GRPO_HOST_INDEX", **environ}


def served(hub: Hub, model: Path, data: Path, tmp_path: Path) -> dict[str, str]:
    """The commits of a model and of a data set whose two splits have the same rows, in a file each."""
    (tmp_path / "test.jsonl").write_text(data.read_text() + "\n")
    rows = hub.push("datasets", "own/sums", {"test.jsonl": tmp_path / "test.jsonl", "train.jsonl": data})
    weights = hub.push("models", "own/model", {path.name: path for path in model.iterdir()})
    return {"model_path": weights, "data.train": rows, "data.eval": rows}


def test_a_run_in_a_bucket_is_resumed_with_an_empty_disk(
    bucket: str, emulator: Emulator, hub: Hub, byte_model: Path, data: Path, tmp_path: Path
) -> None:
    """Two processes are killed after their third step; others, with empty disks, end with every bit of a whole run.

    Each step has one row, completions and evaluations lie in the bucket once, and only what was committed counted. The
    first ones fetched model and data from a hub, each file once; the others need no hub, and it is not asked.
    """
    commits = served(hub, byte_model, data, tmp_path)
    run = resolved(Path("own/model"), Path("own/sums"), bucket, 2, 2, **TREE)
    online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    kill_at(Launched(run, tmp_path / "a", **disk(tmp_path / "first", **online)), "step 3/4")
    wanted = [f"datasets/own/sums {commits['data.train']} {split}.jsonl" for split in ("test", "train")]
    wanted += sorted(f"models/own/model {commits['model_path']} {path.name}" for path in byte_model.iterdir())
    assert hub.fetched == wanted
    assert {line for line in hub.asked if "own/model" not in line and "own/sums" not in line} == set()
    hub.push("models", "own/model", {})
    hub.asked.clear()
    ended = Launched(run, tmp_path / "a", attempt=1, **disk(tmp_path / "second", HF_ENDPOINT=hub.url)).finish()
    whole = Launched(resolved(byte_model, data, tmp_path / "out", 2, 2, **TREE), tmp_path / "b")
    reference = whole.finish()

    folder = f"{bucket}/tiny-0123abcd"
    assert "resuming after step" in ended[0].out
    assert ended[0].fingerprint == reference[0].fingerprint
    kept = [name for name in whole.metrics[3] if not name.startswith(("time/", "throughput/", "checkpoint/"))]
    same = [[{name: row.get(name) for name in kept} for row in rows] for rows in (rows_in(folder), whole.metrics)]
    assert same[0] == same[1]
    names = [name.partition("tiny-0123abcd/")[2] for name in emulator.names("bucket") if folder[12:] in name]
    files = {str(path.relative_to(whole.folder)) for path in whole.folder.rglob("*") if path.is_file()}
    logs = {f"logs/attempt-1/process-{index}.log" for index in (0, 1)}
    assert {name for name in files if not name.startswith(("checkpoints", "logs", "tensorboard"))} | logs <= set(names)
    recorded = json.loads(objects.read(f"{folder}/run.json") or b"")
    assert recorded["finished"] is True
    assert {key: one["commit"] for key, one in recorded["inputs"].items()} == commits
    assert recorded["model_revision"] == commits["model_path"]
    assert list((tmp_path / "second").glob("grpo-spool-*")) == []
    _look_from_outside(folder, tmp_path, disk(tmp_path / "third", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1"))
    assert hub.asked == []


def _look_from_outside(folder: str, tmp_path: Path, environ: dict[str, str]) -> None:
    """Report, generate and export take the address as they take a folder."""

    def trainer(*arguments: str) -> str:
        command = [sys.executable, "-m", "trainer", *arguments]
        own = {**os.environ, **environ}
        ended = subprocess.run(command, env=own, capture_output=True, text=True, timeout=600, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    assert trainer("report", folder) == f"written: {folder}/report.html\n"
    assert b"tiny-0123abcd" in (objects.read(f"{folder}/report.html") or b"")
    told = trainer("generate", folder, "--prompt", "1 + 1 =", "--greedy", "--max-tokens", "4", "-o", "json")
    assert json.loads(told)["tokens"] <= 4
    out = tmp_path / "exported"
    assert f"{folder}/checkpoints/3 after step 3" in trainer("export", f"{folder}/checkpoints/3", str(out))
    assert (out / "model.safetensors").exists()


def test_a_bucket_that_cannot_be_reached_ends_a_run_at_once(
    bucket: str, emulator: Emulator, byte_model: Path, data: Path, tmp_path: Path
) -> None:
    """Exit code 5 with key, address and fix, before any weight is read: one that is missing, one that is closed."""
    gate = Gate()
    gate.behind, gate.refusal = emulator.port, 403
    closed = {"STORAGE_EMULATOR_HOST": gate.url, "TENSORSTORE_GCS_HTTP_URL": gate.url}
    missing = Launched(resolved(byte_model, data, "gs://nowhere/runs", 1, 1), tmp_path / "a").wait()[0]
    refused = Launched(resolved(byte_model, data, bucket, 1, 1), tmp_path / "b", **closed).wait()[0]
    gate.shutdown()
    gate.server_close()
    assert (missing.code, refused.code) == (5, 5)
    assert "output.uri: gs://nowhere/runs/tiny-0123abcd/.probe-of-process-0 names no bucket that exists" in missing.err
    assert "is closed to this process (403); give its service account roles/storage.objectUser and " in refused.err
    assert "Traceback" not in missing.err + refused.err


@pytest.mark.long
def test_a_slow_and_failing_bucket_stops_no_step(
    bucket: str, emulator: Emulator, byte_model: Path, data: Path, tmp_path: Path
) -> None:
    """503, then cut connections, during two steps cost their checkpoint, told and counted; it ends well, and the
    bucket holds all of it.
    """
    gate = Gate()
    gate.behind, gate.delay = emulator.port, 0.1
    through = {"STORAGE_EMULATOR_HOST": gate.url, "TENSORSTORE_GCS_HTTP_URL": gate.url} | impatient(tmp_path)
    run = resolved(byte_model, data, bucket, 1, 2, steps=4, checkpoint={"every_steps": 1})
    launched = Launched(run, tmp_path / "a", **through)
    for line in launched.processes[0].stdout or ():
        if line.startswith("step 1/4"):
            gate.refusal = 503
        if line.startswith("step 2/4"):
            gate.refusal = CUT
        if line.startswith("step 3/4"):
            break
    gate.refusal = 0
    ended = launched.finish()[0]
    gate.shutdown()
    gate.server_close()
    log = (objects.read(f"{bucket}/tiny-0123abcd/logs/attempt-0/process-0.log") or b"").decode()
    assert "could not be written to gs://" in log
    assert [row["step"] for row in rows_in(f"{bucket}/tiny-0123abcd")] == [1, 2, 3, 4]
    assert rows_in(f"{bucket}/tiny-0123abcd")[-1]["checkpoint/failed"] >= 1
    assert objects.read(f"{bucket}/tiny-0123abcd/checkpoints/4/committed.json") is not None
    assert ended.fingerprint


@pytest.mark.long
def test_a_bucket_that_vanishes_ends_a_run_that_goes_on_when_it_is_back(
    byte_model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with 1 and the reason, within a bounded time; the next attempt finds what was committed."""
    emulator = Emulator(tmp_path / "buckets", "bucket")
    run = resolved(byte_model, data, "gs://bucket/runs", 1, 2, steps=4, checkpoint={"every_steps": 1})
    own = emulator.environment | impatient(tmp_path)
    launched = Launched(run, tmp_path / "a", **own)
    for line in launched.processes[0].stdout or ():
        if line.startswith("step 3/4"):
            emulator.stop()
            break
    ended = launched.wait()[0]
    assert ended.code == 1
    assert "the last step, 4, could not be saved, as told above; a restart makes it" in ended.err
    emulator.start()
    second = Launched(run, tmp_path / "a", attempt=1, **own).finish()[0]
    emulator.stop()
    assert re.search(r"resuming after step [123], 4 steps", second.out)
