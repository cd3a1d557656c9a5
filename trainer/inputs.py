"""Station 7, inputs: what names of the hub stand for in this run, agreed by its processes and fetched once for all.

In: names, and what an earlier attempt recorded of them. Out: folders with the files, and what to record. What process 0
fetched and another lacks lies below `inputs/` of the run folder. It refuses to know what the files hold.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from trainer import bucket, hub
from trainer.bucket import is_uri
from trainer.contract.exits import ExitCode, NotReachableError, RunError
from trainer.contract.process import ProcessConfig
from trainer.data import DataError
from trainer.distributed import agree_any, text_of_first, together, unhurried
from trainer.hub import Name, Pin
from trainer.watchdog import LOADING_SECONDS, Heartbeat

Result = TypeVar("Result")

log = logging.getLogger("trainer")

RETRY_SECONDS = 300.0
"""So long may the hub or a bucket be out of reach before a run gives up."""


class Inputs:
    """What one attempt reads of the hub. All processes call `fetch` together.

    `recorded` is what process 0 knows of an earlier attempt, by key, and `record` what this one used. `shared`: all
    processes see the run folder.
    """

    def __init__(
        self, process: ProcessConfig, recorded: Mapping[str, Mapping[str, Any]], shared: bool, heartbeat: Heartbeat
    ) -> None:
        self.record = dict(recorded)
        self._first, self._shared = process.process_index == 0, shared
        self._below, self._heartbeat = process.folder.inputs, heartbeat

    def fetch(self, name: Name, resolve: Callable[[], Pin], split: str | None = None) -> tuple[Pin, Path]:
        """What `name` stood for when the run began, else what it stands for now; and a folder with its files.

        `resolve` asks the hub, in process 0 alone. Raises RunError, in all processes alike.
        """
        pin = self._agreed(name, resolve, split)
        self.record[name.path] = pin.record | {"split": split}
        own = together(lambda: hub.cached(pin))
        if agree_any(own is None):
            before = self._heartbeat.phase
            self._heartbeat.begin(f"fetching {name.source}", extra_seconds=LOADING_SECONDS)
            own = self._brought(pin, own)
            self._heartbeat.begin(before)
        assert own is not None  # noqa: S101 - no process lacks it
        return pin, own

    def _agreed(self, name: Name, resolve: Callable[[], Pin], split: str | None) -> Pin:
        known = self.record.get(name.path, {})
        is_known = (known.get("source"), known.get("split")) == (name.source, split)

        def decide() -> Mapping[str, Any]:
            return known if is_known else patiently(resolve).record

        decided = self._unhurried(lambda: json.dumps(decide()) if self._first else "")
        return Pin.of(name, json.loads(text_of_first(decided)))

    def _brought(self, pin: Pin, own: Path | None) -> Path | None:
        """Where a process lacks files: from the run folder, if they are there, else from the hub through process 0."""
        looks = self._first and self._shared
        if not agree_any(self._unhurried(lambda: looks and _asked_of_folder(lambda: not _absent(pin, self._below)))):
            self._unhurried(lambda: self._download(pin) if self._first and own is None else None)
            own = hub.cached(pin)  # processes of one machine, which have one cache, find it there now
            if not agree_any(own is None):
                return own
            if not self._shared:
                return self._unhurried(lambda: own or self._download(pin))
            self._unhurried(lambda: self._keep(pin) if self._first else None)
        return self._unhurried(lambda: own or _asked_of_folder(lambda: _kept(pin, self._below)))

    def _download(self, pin: Pin) -> Path:
        log.info("%s: fetching %s from the hub, commit %s", pin.name.path, pin.name.source, pin.commit)
        return patiently(lambda: hub.download(pin, self._heartbeat.beat))

    def _keep(self, pin: Pin) -> None:
        """Put what is in this process's cache into the run folder, for the others."""
        folder, there = hub.cached(pin), f"{self._below}/{pin.folder}"
        assert folder is not None  # noqa: S101 - process 0 has just fetched it
        log.info("%s: putting it into %s for the other processes", pin.name.path, there)
        for file in _asked_of_folder(lambda: _absent(pin, self._below)):
            _asked_of_folder(lambda file=file: _copy(folder / file, f"{there}/{file}"))  # type: ignore[misc]
            self._heartbeat.beat()

    def _unhurried(self, action: Callable[[], Result]) -> Result:
        return unhurried(action, self._heartbeat.beat)


def find(pin: Pin, inputs: str) -> Path | None:
    """A folder with the files of `pin`, in this machine's cache or of the `inputs/` of a run folder, or None."""
    own = hub.cached(pin)
    return own if own or _absent(pin, inputs) else _kept(pin, inputs)


def _absent(pin: Pin, inputs: str) -> list[str]:
    """The files that `inputs/` lacks. Each of them appears there whole or not at all."""
    there = f"{inputs}/{pin.folder}"
    if is_uri(there):
        present = {found.uri.removeprefix(f"{there}/") for found in bucket.listing(f"{there}/")}
        return [file for file in pin.files if file not in present]
    return [file for file in pin.files if not Path(there, file).is_file()]


def _kept(pin: Pin, inputs: str) -> Path:
    there = f"{inputs}/{pin.folder}"
    if not is_uri(there):
        return Path(there)
    wanted = {f"{there}/{file}" for file in pin.files}
    return bucket.kept(there, [found for found in bucket.listing(f"{there}/") if found.uri in wanted])


def _copy(file: Path, target: str) -> None:
    if is_uri(target):
        return bucket.upload(file, target)
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.copyfile(file, partial)
    partial.replace(path)
    return None


def _asked_of_folder(action: Callable[[], Result]) -> Result:
    """As `patiently`, for what is asked of the run folder."""
    return patiently(bucket.blamed("output.uri")(action))


def patiently(
    action: Callable[[], Result],
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Result:
    """Try again for five minutes where hub or bucket did not answer; what asking again cannot change fails at once."""
    end, pause = now() + RETRY_SECONDS, 5.0
    while True:
        try:
            return action()
        except (NotReachableError, DataError) as error:
            if error.permanent or now() + pause > end:
                raise RunError(ExitCode.INPUT_NOT_REACHABLE, str(error)) from error
            log.warning("%s; it is asked again in %g s", error, pause)
        sleep(pause)
        pause = min(2 * pause, 60.0)
