"""The size of files and functions: what one can read without scrolling."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILE = 400
LONGEST_FUNCTION = 40
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "core", "manager", "misc"}


def python_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listing.splitlines()]


def test_no_file_is_longer_than_the_house_allows() -> None:
    """A Python file ends within 400 lines."""
    long = [
        f"{path}: {lines}" for path in python_files() if (lines := len(path.read_text().splitlines())) > LONGEST_FILE
    ]

    assert long == []


@pytest.mark.parametrize("half", ["controller", "trainer", "examples", "docs", "tests"])
def test_no_function_is_longer_than_the_house_allows(half: str) -> None:
    """A function ends within 40 lines, docstring and signature included."""
    long = []
    for path in python_files():
        if path.relative_to(ROOT).parts[0] != half:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")

    assert long == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    """A module is named for a thing or a station, never `utils`."""
    assert [path for path in python_files() if path.stem in FORBIDDEN_NAMES] == []


def test_every_module_says_what_it_is() -> None:
    """Each module opens with a docstring: what comes in, what goes out, what it refuses to know."""
    silent = [path for path in python_files() if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]

    assert [path for path in silent if path.read_text().strip()] == []


def test_every_test_states_a_behaviour() -> None:
    """Each test has a docstring: one sentence of the specification."""
    silent = []
    for path in python_files():
        if path.name.startswith("test_"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node):
                    silent.append(f"{path.relative_to(ROOT)}: {node.name}")

    assert silent == []
