"""Write a headless Chromium as a folder, for tests of pages: on any x86-64 Linux, whether it has a browser or not.

It is the one of the npm package @sparticuz/chromium (MIT; Chromium itself is BSD), with the few libraries that it needs
beside the C library, compressed by brotli, which npm's own Node.js undoes.

    python tests/trainer/chromium.py FOLDER        # 220 MB, some ten seconds
"""

import base64
import hashlib
import subprocess
import tarfile
from pathlib import Path

from building_once import build_folder

PACKAGE = "@sparticuz/chromium@153.0.0"
INTEGRITY = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
"""SHA-512 of the package's archive, as npm's registry states it."""
UNPACK = 'process.stdin.pipe(require("zlib").createBrotliDecompress()).pipe(process.stdout)'


def build(scratch: Path) -> Path:
    browser = scratch / "browser"
    browser.mkdir()
    with tarfile.open(download(scratch)) as package:
        package.extractall(scratch, filter="data")
    packed = scratch / "package" / "bin"
    unpack(packed / "chromium.br", browser / "chromium")
    (browser / "chromium").chmod(0o755)
    for name in ("al2023.tar", "swiftshader.tar"):  # lib/, and what draws without a graphics card
        unpack(packed / f"{name}.br", scratch / name)
        with tarfile.open(scratch / name) as libraries:
            libraries.extractall(browser, filter="data")
    return browser


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
    build_folder(__doc__, build)
