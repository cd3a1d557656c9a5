"""The workflows of CI and of a release: read by actionlint, and what they name is there."""

import re
import subprocess
from pathlib import Path

from tests.controlplane.binaries import program

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"


def test_actionlint_finds_nothing_wrong() -> None:
    """Keys, expressions, inputs of known actions and references between jobs are right."""
    command = [str(program("actionlint")), "-no-color", *map(str, WORKFLOWS.glob("*.yml"))]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


def test_actionlint_would_find_what_is_wrong(tmp_path: Path) -> None:
    """A job that waits for one that is not there is told."""
    broken = tmp_path / "broken.yml"
    broken.write_text((WORKFLOWS / "release.yml").read_text().replace("needs: [images, version]", "needs: [image]"))
    told = subprocess.run([str(program("actionlint")), str(broken)], capture_output=True, text=True, check=False)
    assert '"image"' in told.stdout


def test_the_release_builds_from_the_base_of_the_dockerfiles() -> None:
    """What a release pins by digest is what a build by hand takes by its tag, and what CI tests."""
    (base,) = re.findall(r"^  BASE: (\S+)$", (WORKFLOWS / "release.yml").read_text(), re.M)
    assert f'GRPO_TEST_BASE: "{base}"' in (WORKFLOWS / "ci.yml").read_text()
    for half in ("controller", "trainer"):
        assert f"ARG BASE={base}\n" in (ROOT / half / "Dockerfile").read_text()
