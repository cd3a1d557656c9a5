"""`python -m trainer report RUN [RUN2] [-o FILE]`: a command line comes in, the path of a written page goes out.

It loads no JAX.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trainer import bucket
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.runfolder import RunFolder
from trainer.report.page import page
from trainer.report.record import Record, read_record

_DESCRIPTION = "Write one HTML page about a run: curves, times, completions, configuration. Two runs are laid over."


def main(argv: Sequence[str]) -> int:
    """Exit code 0, or 2 with one line on stderr where a folder is no run's or the page cannot be written."""
    parser = argparse.ArgumentParser("python -m trainer report", allow_abbrev=False, description=_DESCRIPTION)
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/NAME-RUNID; gs:// too")
    parser.add_argument("other", nargs="?", metavar="RUN2", help="another, to compare")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page; by default RUN/report.html")
    given = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="grpo-report-") as scratch:
            print(f"written: {_report([run for run in (given.run, given.other) if run], given.output, Path(scratch))}")
    except RunError as error:
        print(error.message, file=sys.stderr)
        return int(error.code)
    except bucket.BucketError as error:
        print(error, file=sys.stderr)
        return int(ExitCode.INVALID_CONFIG)
    return int(ExitCode.DONE)


def _report(runs: Sequence[str], output: Path | None, scratch: Path) -> str:
    """Where the page was written: by default beside the first run, in its bucket too."""
    records = [read_record(_here(run, scratch / str(place))) for place, run in enumerate(runs)]
    path = output or _beside(records)
    _write(path, page(records))
    if output is not None or not bucket.is_uri(runs[0]):
        return str(path)
    uri = f"{runs[0].rstrip('/')}/{path.name}"
    bucket.upload(path, uri)
    return uri


def _here(run: str, scratch: Path) -> Path:
    """The folder of a run on this machine: of one in a bucket, a copy of what a page shows."""
    if not bucket.is_uri(run):
        return Path(run)
    names = RunFolder("")
    shown = (names.run_json, names.metrics, f"{names.completions}/", f"{names.evaluations}/")
    uri = run.rstrip("/")
    found = [one for one in bucket.listing(f"{uri}/") if one.uri.removeprefix(uri).startswith(shown)]
    if f"{uri}{names.run_json}" not in [one.uri for one in found]:
        raise RunError(ExitCode.INVALID_CONFIG, f"{run}: no run folder, it has no run.json; name one of a bucket")
    bucket.fetch(uri, found, scratch)
    return scratch


def _beside(records: Sequence[Record]) -> Path:
    first, *others = records
    return first.folder / ("-with-".join(["report", *(other.label for other in others)]) + ".html")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(ExitCode.INVALID_CONFIG, f"{path}: cannot be written ({reason}); give a file with -o") from None
