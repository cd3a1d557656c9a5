"""Write a headless Chromium as a folder, for tests of pages: on any x86-64 Linux, whether it has a browser or not.

It is the one of the npm package @sparticuz/chromium (MIT; Chromium itself is BSD), with the few libraries that it needs
beside the C library, compressed by brotli, which npm's own Node.js undoes.

    python tests/trainer/chromium.py FOLDER        # 220 MB, some ten seconds
"""

import argparse
import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@sparticuz/chromium@153.0.0"
INTEGRITY = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
"""SHA-512 of the package's archive, as npm's registry states it."""
UNPACK = 'process.stdin.pipe(require("zlib").createBrotliDecompress()).pipe(process.stdout)'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        browser = Path(scratch) / "browser"
        browser.mkdir()
        with tarfile.open(download(Path(scratch))) as package:
            package.extractall(scratch, filter="data")
        packed = Path(scratch) / "package" / "bin"
        unpack(packed / "chromium.br", browser / "chromium")
        (browser / "chromium").chmod(0o755)
        for name in ("al2023.tar", "swiftshader.tar"):  # lib/, and what draws without a graphics card
            unpack(packed / f"{name}.br", Path(scratch) / name)
            with tarfile.open(Path(scratch) / name) as libraries:
                libraries.extractall(browser, filter="data")
        # A folder appears whole or not at all, also where two runs build it at once.
        if not folder.exists():
            shutil.move(browser, folder)


def download(scratch: Path) -> Path:
    """The package's archive, which must be the one that was seen when this was written."""
    npm = ["npm", "pack", "--silent", "--pack-destination", str(scratch), PACKAGE]
    subprocess.run(npm, check=True, stdout=subprocess.DEVNULL)
    archive = next(scratch.glob("*.tgz"))
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != INTEGRITY:
        raise SystemExit(f"{PACKAGE}: its archive has the SHA-512 {found}, not {INTEGRITY}")
    return archive


def unpack(packed: Path, to: Path) -> None:
    with packed.open("rb") as source, to.open("wb") as target:
        subprocess.run(["node", "-e", UNPACK], stdin=source, stdout=target, check=True)


if __name__ == "__main__":
    main()
