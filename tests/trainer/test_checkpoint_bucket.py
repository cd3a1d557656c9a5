"""Checkpoints in a bucket: one that does not answer, or is closed, is never taken for damage or for an empty folder."""

import logging
from threading import Timer

import numpy as np
import pytest
from buckets import Emulator, Gate
from test_checkpoint import state_of

from trainer import bucket as objects
from trainer import checkpoint, committed
from trainer.checkpoint import Checkpoints, Place
from trainer.contract.exits import ExitCode, RunError


@pytest.fixture
def checkpoints(bucket: str, mesh_of, monkeypatch: pytest.MonkeyPatch) -> Checkpoints:
    """Those of a run that is started again: of its steps 1 and 2, the first with the better score."""
    earlier = Checkpoints(bucket, keep=1)
    for step, score in ((1, 0.5), (2, 0.25)):
        earlier.save(state_of(mesh_of(1, 8, 1), step), Place(step, step, ""), score)
    earlier.close()
    monkeypatch.setattr(objects, "TRY_SECONDS", 0.5)
    return Checkpoints(bucket, keep=1)


def names(emulator: Emulator, bucket: str) -> list[str]:
    return [name for name in emulator.names("bucket") if name.startswith(bucket.removeprefix("gs://bucket/"))]


def test_a_checkpoint_that_is_not_given_at_first_is_asked_for_again(
    checkpoints: Checkpoints, gate: Gate, mesh_of, caplog: pytest.LogCaptureFixture
) -> None:
    """503 for longer than one request is tried: the newest is restored all the same, and the best score is known."""
    gate.refusal, gate.refused = 503, "committed.json"
    Timer(1.5, lambda: setattr(gate, "refusal", 0)).start()
    with caplog.at_level(logging.WARNING, "trainer"):
        restored, place = checkpoints.restore_newest(state_of(mesh_of(1, 8, 1), 0))
    assert place.step == 2
    assert np.array_equal(restored.params["w"], state_of(mesh_of(1, 8, 1), 2).params["w"])
    assert checkpoints.best == 0.5
    assert "/2 could not be read, and is asked for again: gs://" in caplog.text


def test_a_bucket_that_stays_silent_damages_nothing(
    checkpoints: Checkpoints, gate: Gate, emulator: Emulator, bucket: str, mesh_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with the reason, and every object is still there for the next attempt."""
    monkeypatch.setattr(checkpoint, "_SILENT_SECONDS", 1.0)
    before = names(emulator, bucket)
    gate.refusal, gate.refused = 503, "committed.json"
    with pytest.raises(RunError, match=r"^output.uri: gs://.*/2/committed.json did not answer \(HTTP") as ended:
        checkpoints.restore_newest(state_of(mesh_of(1, 8, 1), 0))
    assert ended.value.code is ExitCode.INPUT_NOT_REACHABLE
    assert names(emulator, bucket) == before


def test_a_folder_that_may_not_be_listed_is_not_empty(checkpoints: Checkpoints, gate: Gate, bucket: str) -> None:
    """A run does not begin anew because its service account may not see its checkpoints."""
    folder = objects.path(bucket)
    assert committed.committed_steps(folder) == [1, 2]
    gate.refusal, gate.refused = 403, "/o?"
    with pytest.raises(objects.BucketError, match="is closed to this process"):
        committed.committed_steps(folder)
