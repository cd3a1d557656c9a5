"""Images, built from the Dockerfiles without a daemon: by buildah as root, over a base that is made here.

In: the name of a half, `controller` or `trainer`, and build arguments. Out: an image in a store of the test cache, so
that what has not changed is not built again. GRPO_TEST_BASE names a base image to fetch instead of making one.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.golang import cache_folder

ROOT = Path(__file__).resolve().parents[2]
NAMED_BASE = os.environ.get("GRPO_TEST_BASE")
NEEDED = ("buildah", "runc") if NAMED_BASE else ("buildah", "debootstrap", "runc")
LOCAL_BASE = "localhost/grpo-base:bookworm"
PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
PIP_SETTINGS = Path("/etc/pip.conf")
SLOWEST_BUILD = 1200.0

Tell = Callable[[str], None]


class Store:
    """Where images lie. What buildah says goes to `log`, and its end into what a failure tells."""

    def __init__(self, folder: Path) -> None:
        assert os.geteuid() == 0, "images are built as root: run these tests with sudo, or leave them to CI"
        missing = [name for name in NEEDED if shutil.which(name) is None]
        assert not missing, (
            f"images are built with buildah on Debian or Ubuntu, and {missing[0]} is not on the PATH: "
            f"apt-get install --no-install-recommends {' '.join(NEEDED)}"
        )
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "buildah.log"
        self._built: set[str] = set()

    def call(self, *arguments: str) -> str:
        """What a command of buildah prints."""
        places = ("--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"))
        with self._log.open("a") as log:
            done = subprocess.run(
                ["buildah", *places, *arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                check=False,
                timeout=SLOWEST_BUILD,
            )
        assert done.returncode == 0, f"buildah {arguments[0]}: {done.stdout[-1500:]}\n{self._log.read_text()[-1500:]}"
        return done.stdout.strip()

    def has(self, image: str) -> bool:
        return bool(self.call("images", "--quiet", "--filter", f"reference={image}"))

    def base(self, tell: Tell) -> str:
        """The image that both Dockerfiles start from; Debian's own Python where no other is named."""
        if NAMED_BASE:
            return NAMED_BASE
        if not self.has(LOCAL_BASE):
            tell("making a base image with debootstrap (once) ...")
            files = self.folder / "bookworm"
            shutil.rmtree(files, ignore_errors=True)
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(files)]
            with self._log.open("a") as log:
                subprocess.run(command, stdout=log, stderr=log, check=True, timeout=SLOWEST_BUILD)
            container = self.call("from", "scratch")
            self.call("add", "--quiet", container, str(files), "/")
            self.call("commit", "--quiet", "--rm", container, LOCAL_BASE)
            shutil.rmtree(files)
        return LOCAL_BASE

    def build(self, half: str, tell: Tell, target: str = "", **arguments: str) -> str:
        """The image of a half, or of another stage of its Dockerfile; once in this store's life."""
        image = f"localhost/grpo-{target or half}-{arguments.get('VARIANT', half)}:test"
        if image in self._built:
            return image
        given = {"BASE": self.base(tell)} | arguments
        start = time.monotonic()
        tell(f"building {image} ...")
        self.call(
            "build",
            "--isolation=chroot",
            "--layers",
            f"--file={half}/Dockerfile",
            f"--target={target or half}",
            f"--tag={image}",
            *(f"--build-arg={name}={value}" for name, value in given.items()),
            *_pip_settings(),
            ".",
        )
        tell(f"built in {time.monotonic() - start:.0f} s")
        self._built.add(image)
        return image

    def configuration(self, image: str) -> dict[str, Any]:
        """What the image says of itself: `User`, `Entrypoint`, `Labels`, …"""
        found: dict[str, Any] = json.loads(self.call("inspect", "--type=image", image))["OCIv1"]["config"]
        return found

    def size(self, image: str) -> int:
        """Bytes of the image's files."""
        with self.files(image) as root:
            listing = subprocess.run(["du", "-sxb", str(root)], capture_output=True, text=True, check=True)
        return int(listing.stdout.split()[0])

    @contextmanager
    def files(self, image: str) -> Iterator[Path]:
        """The image's root file system, as a folder."""
        container = self.call("from", image)
        try:
            yield Path(self.call("mount", container))
        finally:
            self.call("rm", container)


def store() -> Store:
    return Store(cache_folder() / "images")


def _pip_settings() -> list[str]:
    """The way to a package index that this machine has, where it is one of its own: the Dockerfiles know none."""
    if not PIP_SETTINGS.exists():
        return []
    words = (line.partition("=")[2].strip() for line in PIP_SETTINGS.read_text().splitlines())
    bundles = [word for word in words if word.startswith("/") and Path(word).is_file()]
    return [f"--volume={path}:{path}:ro" for path in (str(PIP_SETTINGS), *bundles)]
