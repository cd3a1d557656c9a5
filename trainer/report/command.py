"""`python -m trainer report RUN [RUN2] [-o FILE]`: a command line comes in, the path of a written page goes out.

It loads no JAX.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trainer.contract.exits import ExitCode, RunError
from trainer.report.page import page
from trainer.report.record import Record, read_record

_DESCRIPTION = "Write one HTML page about a run: curves, times, completions, configuration. Two runs are laid over."


def main(argv: Sequence[str]) -> int:
    """Exit code 0, or 2 with one line on stderr where a folder is no run's or the page cannot be written."""
    parser = argparse.ArgumentParser("python -m trainer report", allow_abbrev=False, description=_DESCRIPTION)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as runs/NAME-RUNID")
    parser.add_argument("other", type=Path, nargs="?", metavar="RUN2", help="another, to compare")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page; by default RUN/report.html")
    given = parser.parse_args(argv)
    try:
        records = [read_record(folder) for folder in (given.run, given.other) if folder is not None]
        path = given.output or _beside(records)
        _write(path, page(records))
    except RunError as error:
        print(error.message, file=sys.stderr)
        return int(error.code)
    print(f"written: {path}")
    return int(ExitCode.DONE)


def _beside(records: Sequence[Record]) -> Path:
    first, *others = records
    return first.folder / ("-with-".join(["report", *(other.label for other in others)]) + ".html")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(ExitCode.INVALID_CONFIG, f"{path}: cannot be written ({reason}); give a file with -o") from None
