"""Objects of a bucket: written, read and listed; and what is told where they cannot be."""

from pathlib import Path
from threading import Timer

import pytest
from buckets import CUT, Gate

from trainer import bucket as objects


def test_an_object_is_read_as_it_was_written(bucket: str, tmp_path: Path) -> None:
    """Bytes and files come back bit for bit; what is written again is another generation; what is not there is None."""
    content, copy = bytes(range(256)) * 5000, tmp_path / "a" / "copy"
    (tmp_path / "file").write_bytes(content)
    objects.upload(tmp_path / "file", f"{bucket}/a")
    objects.write(f"{bucket}/b", b"b")
    before = objects.listing(bucket)
    objects.write(f"{bucket}/b", b"bb")
    objects.download(f"{bucket}/a", copy)

    assert copy.read_bytes() == content
    assert objects.read(f"{bucket}/b") == b"bb"
    assert [(found.uri, found.size) for found in before] == [(f"{bucket}/a", 1_280_000), (f"{bucket}/b", 1)]
    assert before[1].generation != objects.listing(bucket)[1].generation
    objects.delete(f"{bucket}/b")
    objects.delete(f"{bucket}/b")
    assert objects.read(f"{bucket}/b") is None
    assert list(tmp_path.glob("**/.*")) == []


def test_a_bucket_that_is_not_there_is_told_at_once(bucket: str) -> None:
    """Value, rule, fix; and that asking again will not help."""
    with pytest.raises(
        objects.BucketError, match=r"^gs://nowhere/x names no bucket that exists; create gs://now"
    ) as at:
        objects.write("gs://nowhere/x", b"")
    assert at.value.permanent


def test_a_closed_bucket_is_told_with_the_rights_that_it_takes(bucket: str, gate: Gate) -> None:
    """403 is not tried again."""
    gate.refusal = 403
    with pytest.raises(objects.BucketError, match=r"is closed to this process \(403\); give its service account") as at:
        objects.listing(bucket)
    assert at.value.permanent
    assert len([path for path in gate.seen if "/b/bucket/o?" in path]) == 1


@pytest.mark.parametrize("refusal", [503, CUT])
def test_a_busy_bucket_is_asked_again(bucket: str, gate: Gate, refusal: int) -> None:
    """503 or cut connections for a while delay a write, and lose nothing."""
    gate.refusal = refusal
    Timer(2.0, lambda: setattr(gate, "refusal", 0)).start()
    objects.write(f"{bucket}/a", b"late")
    assert objects.read(f"{bucket}/a") == b"late"
    assert len(gate.seen) > 2


def test_a_silent_bucket_is_told_within_a_bounded_time(
    bucket: str, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    """The last answer is told, and that asking later may help."""
    monkeypatch.setattr(objects, "TRY_SECONDS", 1.0)
    gate.refusal = 503
    with pytest.raises(objects.BucketError, match=r"/a did not answer \(HTTP status 503\); check the network") as at:
        objects.read(f"{bucket}/a")
    assert not at.value.permanent
