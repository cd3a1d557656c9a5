"""What the Dockerfiles promise, as far as it can be read off them. Whether it is true of an image: tests/images."""

import re
from pathlib import Path

import pytest

from controller import __version__
from controller.podspec import RESTRICTED_USER
from trainer.contract.run import READABLE_VERSIONS

ROOT = Path(__file__).resolve().parents[2]
HALVES = ("controller", "trainer")


def stages(half: str) -> dict[str, str]:
    """The instructions of each stage, by its name."""
    text = (ROOT / half / "Dockerfile").read_text()
    parts = re.split(r"^FROM (?:\S+) AS (\S+)\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("half", HALVES)
def test_an_image_is_of_this_version(half: str) -> None:
    """A build that is told no version takes the one of the code."""
    assert f"ARG VERSION={__version__}\n" in stages(half)[half]


def test_the_trainers_label_is_what_its_code_reads() -> None:
    """The contract's versions stand on the image, where they are read without starting it."""
    (label,) = re.findall(r'dev\.grpo\.contract-versions="([^"]*)"', stages("trainer")["trainer"])
    assert label.split(",") == [str(version) for version in READABLE_VERSIONS]


@pytest.mark.parametrize("half", HALVES)
def test_every_package_comes_from_a_lock_with_hashes(half: str) -> None:
    """Nothing is installed by name, or into the image that runs: it takes two folders, as the pods' own user."""
    built = stages(half)
    installs = re.findall(r"pip [^&]*?install (.*?)(?= &&|\n[A-Z#]|\n\n)", built["packages"] + "\n\n", re.S)
    assert len(installs) == 2
    assert all("--require-hashes" in one and "--only-binary :all:" in one for one in installs)
    assert "RUN " not in built[half]
    assert f"USER {RESTRICTED_USER}:{RESTRICTED_USER}\n" in built[half]


def test_a_build_sees_what_it_copies_and_nothing_else() -> None:
    """`.dockerignore` leaves out all that no Dockerfile names, and lets in all that one does."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = set()
    for half in HALVES:
        for words in re.findall(r"^COPY (?!--from)(.*)$", (ROOT / half / "Dockerfile").read_text(), re.M):
            copied |= {re.sub(r"^(\.ci/requirements)/.*", r"\1", word) for word in words.split()[:-1]}
    assert "*" in lines
    assert copied == allowed
    assert all((ROOT / path).exists() for path in allowed)
