"""Curves elsewhere: what TensorBoard and Weights & Biases hold after a restart, and a run that nobody answers."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import wandb
from launching import resolved
from tracked import shown, sync, tell_until_killed
from wandb_server import Server, serving

from trainer.contract.exits import RunError
from trainer.contract.process import ProcessConfig
from trainer.tracking import Row, Tracker, Tracking, check_installed
from trainer.tracking.tensorboard import TensorBoard
from trainer.tracking.weightsandbiases import WeightsAndBiases

RUN_ID = "0123abcd"


def process(tmp_path: Path, *sets: str, index: int = 0) -> ProcessConfig:
    run = resolved(Path("m"), Path("d"), tmp_path, 2, 1, *sets)
    mine = ProcessConfig(run, RUN_ID, index, None, 0)
    Path(mine.folder.root).mkdir(parents=True, exist_ok=True)
    return mine


def rows(*losses: float, after: int = 0) -> list[Row]:
    """Rows of the steps after `after`, each with its loss."""
    return [{"step": step, "update/loss": loss} for step, loss in enumerate(losses, after + 1)]


def attempt(tracker: Tracker, stand: Sequence[Row], new: Sequence[Row]) -> None:
    """It begins with the rows that stand, tells new ones and ends."""
    tracker.begin(stand)
    for row in new:
        tracker.write(row)
    tracker.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that the environment names, with a key for it."""
    with serving() as (keeper, environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        wandb.teardown()  # it keeps the environment of its first run
        yield keeper
        wandb.teardown()


def test_tensorboard_shows_a_replayed_step_once(tmp_path: Path) -> None:
    """A second attempt voids the events of the steps it makes again, and tells the last that stands anew."""
    attempt(TensorBoard(tmp_path), [], rows(0.5, 1.0, 1.5))
    attempt(TensorBoard(tmp_path), [{"step": 1}, {"step": 2, "update/loss": 2.0}], rows(7.0, after=2))
    assert shown(tmp_path, "update/loss") == [(1, 0.5), (2, 2.0), (3, 7.0)]


def test_weights_and_biases_continues_the_run(tmp_path: Path, server: Server) -> None:
    """A restart is the same run there, by its id; a step made again stands as it was told first."""
    mine = process(tmp_path, "wandb_project=sums", "wandb_name=first try")
    attempt(WeightsAndBiases(mine), [], rows(0.5, 1.0, 1.5))
    attempt(WeightsAndBiases(mine), rows(0.5, 1.0), rows(7.0, 2.0, after=2))
    assert server.names == {RUN_ID: ("sums", "first try")}
    assert server.history(RUN_ID, "update/loss") == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]


def test_a_run_that_is_kept_offline_is_whole(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill loses what `wandb` has in memory: the next attempt writes all rows that stand, for `wandb sync`."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    mine = process(tmp_path, "wandb_project=sums")
    tell_until_killed(mine, rows(0.5, 1.0, 1.5))
    attempt(WeightsAndBiases(mine), rows(0.5, 1.0), rows(7.0, after=2))
    monkeypatch.delenv("WANDB_MODE")
    sync(Path(mine.folder.root))
    assert server.history(RUN_ID, "update/loss") == [(1, 0.5), (2, 1.0), (3, 7.0)]


def test_a_run_goes_on_where_nobody_answers(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of the run is kept on disk, the log says so once, and `wandb sync` sends what the server lacks."""
    mine = process(tmp_path, "wandb_project=sums")
    attempt(WeightsAndBiases(mine), [], rows(0.5, 1.0, 1.5))
    with monkeypatch.context() as nobody:
        nobody.setattr("trainer.tracking.weightsandbiases.REACHED_WITHIN_SECONDS", 2.0)
        nobody.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        wandb.teardown()
        attempt(WeightsAndBiases(mine), rows(0.5, 1.0), rows(7.0, 2.0, after=2))
        wandb.teardown()
    assert caplog.text.count("for `wandb sync`") == 1
    sync(Path(mine.folder.root))
    assert server.history(RUN_ID, "update/loss") == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]


def test_a_tracker_that_fails_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """It is told once; the others still hear every row, without numbers that are not finite."""

    class Broken:
        def begin(self, rows: Sequence[Row]) -> None:
            """Nothing is wrong yet."""

        def write(self, row: Row) -> None:
            raise OSError("the disk is full")

        def close(self) -> None:
            raise AssertionError("it is gone")

    class Heard(list[Row]):
        def begin(self, rows: Sequence[Row]) -> None:
            self.extend(rows)

        def write(self, row: Row) -> None:
            self.append(row)

        def close(self) -> None:
            self.append({})

    heard = Heard()
    tracking = Tracking({"A": Broken(), "B": heard})
    tracking.begin([{"step": 0, "x": None}])  # type: ignore[dict-item]  # as metrics.jsonl holds a NaN
    for step in (1, 2):
        tracking.write({"step": step, "x": float("inf")})
    tracking.close()
    assert heard == [{"step": 0}, {"step": 1}, {"step": 2}, {}]
    assert caplog.text.count("A: the disk is full; the run goes on without it") == 1


def test_one_process_speaks_for_all(tmp_path: Path) -> None:
    """A process that is not the first opens nothing."""
    mine = process(tmp_path, "wandb_project=sums", index=1)
    tracking = Tracking.of(mine)
    tracking.begin([])
    tracking.write({"step": 1})
    assert list(Path(mine.folder.root).iterdir()) == []


def test_a_missing_package_is_told_before_weights_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for Weights & Biases without its package learns what to install; who does not, needs none."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    check_installed(process(tmp_path))
    with pytest.raises(RunError, match=r"wandb_project: .* install grpo-operator\[tracking\]"):
        check_installed(process(tmp_path, "wandb_project=sums"))
