"""The one arrow between the halves, and what a light command may load."""

import json
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("jax", "jaxlib", "flax", "optax", "numpy", "transformers", "kubernetes", "orbax")
JOB = "configs/jobs/qwen2.5-0.5b-gsm8k-v5e-2x2.yaml"


def test_the_controller_knows_of_the_trainer_its_contract_alone() -> None:
    """Every import from controller to trainer goes to trainer.contract; the bare package is named to start it."""
    graph = grimp.build_graph("controller", "trainer")

    arrows = {
        (importer, imported)
        for importer in graph.modules
        if importer.split(".")[0] == "controller"
        for imported in graph.find_modules_directly_imported_by(importer)
        if imported.startswith("trainer.") and not imported.startswith("trainer.contract")
    }

    assert arrows == set()


@pytest.mark.parametrize(
    "program",
    [
        "import controller.cli",
        f"import sys; sys.argv = ['grpoctl', 'validate', '{JOB}']; from controller.cli import main; main()",
        "import runpy, sys; sys.argv = ['trainer', '--print-config']; runpy.run_module('trainer', run_name='__main__')",
    ],
    ids=["import controller.cli", "grpoctl validate", "python -m trainer --print-config"],
)
def test_a_light_command_loads_no_heavy_package(program: str) -> None:
    """Judging a job loads neither JAX nor the Kubernetes client nor transformers."""
    script = f"""
import atexit, json, sys
def tell():
    print("\\n" + json.dumps(sorted({{name.split(".")[0] for name in sys.modules}} & set({HEAVY!r}))))
atexit.register(tell)
{program}
"""

    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert json.loads(ended.stdout.splitlines()[-1]) == []
