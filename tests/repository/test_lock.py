"""The lock: complete, hashed, without addresses, without torch where users are."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LOCKS = {
    "base": [],
    "controller": ["controller"],
    "trainer": ["trainer", "tracking"],
    "tpu": ["trainer", "tpu", "tracking"],
    "cuda": ["trainer", "cuda", "tracking"],
    "images": None,
    "dev": ["controller", "trainer", "dev"],
    "parity": ["trainer"],
    "tunix": None,
}
"""The extras that are locked with the project; None: something else that it is compared with, without it."""
GROUPS = PYPROJECT["dependency-groups"]
"""What the lock of the same name holds beside that, and no user installs."""


def pins(lock: str) -> dict[str, list[str]]:
    """Locked versions by name; a universal lock may hold one version per Python."""
    found: dict[str, list[str]] = {}
    text = (ROOT / f".ci/requirements/{lock}.txt").read_text()
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.M):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


def requirements(extras: list[str] | None) -> list[Requirement]:
    if extras is None:
        return []
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(("lock", "extras"), LOCKS.items())
def test_every_requirement_is_locked_within_its_bounds(lock: str, extras: list[str] | None) -> None:
    """Each requirement of pyproject.toml stands in the lock of its place with a version inside its bounds."""
    locked = pins(lock)
    wanted = requirements(extras) + [Requirement(line) for line in GROUPS.get(lock, [])]

    outside = [
        f"{requirement}: {locked.get(canonicalize_name(requirement.name))}"
        for requirement in wanted
        if not any(v in requirement.specifier for v in locked.get(canonicalize_name(requirement.name), []))
    ]

    assert outside == []


@pytest.mark.parametrize("lock", LOCKS)
def test_each_pin_has_a_hash(lock: str) -> None:
    """No package of a lock may be installed without its hash."""
    text = (ROOT / f".ci/requirements/{lock}.txt").read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", text)

    unhashed = [block.splitlines()[0] for block in blocks if "==" in block and "--hash=sha256:" not in block]

    assert unhashed == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address_and_no_torch(lock: str) -> None:
    """A lock serves behind any mirror, and nothing but `make parity` installs torch."""
    text = (ROOT / f".ci/requirements/{lock}.txt").read_text()

    assert re.findall(r"https?://|--index-url|--find-links|file:", text) == []
    assert "tensorflow" not in pins(lock)
    assert ("torch" in pins(lock)) is (lock == "parity")


def test_every_bound_has_an_upper_end() -> None:
    """A new major version of a dependency is taken by a decision, not by a fresh install."""
    extras = PROJECT["optional-dependencies"]
    lines = PROJECT["dependencies"] + [line for extra in [*extras.values(), *GROUPS.values()] for line in extra]

    unbounded = [line for line in lines if "<" not in line and "==" not in line]

    assert unbounded == []
