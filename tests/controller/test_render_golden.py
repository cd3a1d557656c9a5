"""Golden manifests: `rendered/CASE/job.yaml` rendered is `rendered/CASE/manifests.yaml`, as `grpoctl render` prints it.

A change of the templates is reviewed by its effect: REGENERATE=1 pytest tests/controller/test_render_golden.py
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.render import Manifests, to_yaml

RENDERED = Path(__file__).parent / "rendered"
CASES = sorted(folder.name for folder in RENDERED.iterdir())


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str, render_file: Callable[..., Manifests]) -> None:
    """A job renders to the very text that was reviewed."""
    text = to_yaml(render_file(RENDERED / case / "job.yaml"))
    golden = RENDERED / case / "manifests.yaml"
    if os.environ.get("REGENERATE"):
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text
