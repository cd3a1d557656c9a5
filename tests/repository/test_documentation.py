"""What the documentation shows is what happens: every console block of README and docs/ is run, its output compared."""

import fnmatch
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.documented import PAGES, ROOT

MAKE_TARGETS = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M))


@dataclass(frozen=True)
class Example:
    page: Path
    command: str
    output: str

    def __str__(self) -> str:
        return f"{self.page.name}: {self.command.splitlines()[0][:60]}"


def examples() -> Iterator[Example]:
    """A block ```console holds commands behind `$ `, continued behind `> `, each followed by what it prints."""
    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, *rest = part.splitlines()
                while rest and rest[0].startswith("> "):
                    command += "\n" + rest.pop(0)[2:]
                yield Example(page, command, "\n".join(rest).strip())


EXAMPLES = [example for example in examples() if not example.command.startswith("make ")]
MADE = [example for example in examples() if example.command.startswith("make ")]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_a_command_prints_what_the_page_says(example: Example, tmp_path: Path) -> None:
    """A documented command ends with exactly the documented output; a line of `...` stands for any lines."""
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "120",
        "TMPDIR": str(tmp_path),
    }

    ended = subprocess.run(
        ["bash", "-c", example.command], cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=300
    )

    pattern = re.sub(r"^\.\.\.$", "*", glob_literal(example.output), flags=re.M)
    assert fnmatch.fnmatchcase((ended.stdout + ended.stderr).strip(), pattern), ended.stdout + ended.stderr


def glob_literal(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def test_the_two_commands_of_the_readme_are_make_targets() -> None:
    """README leads with `make demo` and `make test`, and every make command it shows exists."""
    shown = {example.command.split()[1] for example in MADE if example.page.name == "README.md"}

    assert {"demo", "test"} <= shown <= MAKE_TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_somewhere(page: Path) -> None:
    """A relative link or picture of a page points at a file that the repository holds."""
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))

    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]

    assert missing == []


def test_the_annotated_tree_names_what_exists() -> None:
    """Each path of the README's annotated tree is in the repository."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"```text\n(controller/.*?)```", readme, re.S)
    assert tree, "the README has no annotated tree"
    folders: list[str] = []
    missing = []
    for line in tree[1].splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        folders[len(indent) // 2 :] = [name]
        path = ROOT / "".join(folders)
        if not path.exists():
            missing.append(str(path.relative_to(ROOT)))

    assert missing == []


def test_nothing_committed_refers_outside_the_repository() -> None:
    """No tracked file points at the shared folder beside a checkout, or at a path of the machine it was written on."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    marks = (b"../sha" + b"red", b"/wo" + b"rk/", b"/ro" + b"ot/")

    found = [
        name.decode()
        for name in tracked
        if name and (ROOT / name.decode()).is_file() and any(m in (ROOT / name.decode()).read_bytes() for m in marks)
    ]

    assert found == []
