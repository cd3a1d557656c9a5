"""A script that builds a folder for the test cache: the folder appears whole or not at all."""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def build_folder(description: str | None, build: Callable[[Path], Path]) -> None:
    """Move what `build` made in a scratch folder to the one that the command line names; two runs may race."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        built = build(Path(scratch))
        if not folder.exists():
            shutil.move(built, folder)
