"""What trackers left behind: TensorBoard's events as it draws them, what `wandb` kept, a scrape."""

import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from tensorboardX.proto.event_pb2 import Event

from trainer.contract.process import ProcessConfig
from trainer.tracking import Row
from trainer.tracking.weightsandbiases import WeightsAndBiases


def events(folder: Path) -> list[Event]:
    """All events, file by file; a record is its length, a check of it, the bytes, a check of them."""
    found = []
    for path in sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        raw = path.read_bytes()
        while raw:
            (length,) = struct.unpack("<Q", raw[:8])
            found.append(Event.FromString(raw[12 : 12 + length]))
            raw = raw[16 + length :]
    return found


def shown(folder: Path, metric: str) -> list[tuple[int, float]]:
    """The points that TensorBoard draws of a metric: a START mark voids those of its step and of later ones."""
    points: list[tuple[int, float]] = []
    for event in events(folder):
        if event.session_log.status:
            points = [point for point in points if point[0] < event.step]
        points += [(event.step, value.simple_value) for value in event.summary.value if value.tag == metric]
    return points


def samples(port: int) -> dict[tuple[str, ...], float]:
    """What Prometheus gets from a process that listens, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples
        }


def sync(folder: Path) -> None:
    """What a user types to send what was kept on disk."""
    command = [sys.executable, "-m", "wandb", "sync", *map(str, sorted(folder.glob("wandb/offline-run-*")))]
    # Its own log goes into the working directory.
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def tell_until_killed(process: ProcessConfig, rows: Sequence[Row]) -> None:
    """An attempt of its own that tells rows and is killed, with all that it has started."""
    child = multiprocessing.get_context("spawn").Process(target=_tell, args=(process, rows))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def _tell(process: ProcessConfig, rows: Sequence[Row]) -> None:
    tracker = WeightsAndBiases(process)
    tracker.begin([])
    for row in rows:
        tracker.write(row)
    os.kill(os.getpid(), signal.SIGKILL)
