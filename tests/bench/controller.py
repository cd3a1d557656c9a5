"""How fast the operator makes JobSets of jobs, what it asks of the API server for one, and what it costs to run.

Each scenario has a fresh control plane (`tests/controlplane`): plain creates of the same JobSets without an operator,
jobs at full blast, jobs at a pace, and many changes followed by a minute of rest. `--jobs` and `--changes` make it
shorter.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.controller_load import ROOT
from tests.controlplane.world import World

PACES = (None, 10.0, 20.0, 50.0)


def measure(scenario: dict[str, Any], *, alone: bool = False) -> dict[str, Any]:
    """In a world of its own, on its network; `alone`: no JobSet controller shares the API server with the operator."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        world = World(Path(folder))
        try:
            world.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
            world.kubectl("wait", "--for=condition=Established", "crd/grpojobs.grpo.dev", "--timeout=30s")
            if alone:
                world.remove("jobset")
            script = [sys.executable, "-m", "tests.bench.controller_load", folder, json.dumps(scenario)]
            ended = subprocess.run(world.inside(*script), capture_output=True, text=True, cwd=ROOT, check=False)
            if ended.returncode:
                logs = "".join(path.read_text()[-2000:] for path in Path(folder).glob("operator*.log"))
                sys.exit(f"{scenario}: {ended.stderr}\n{logs}")
            found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
            return found
        finally:
            world.end()


def show(name: str, found: dict[str, Any]) -> None:
    print(f"\n{name}")
    for what, value in found.items():
        print(f"  {what:28} {value}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=10_000)
    parser.add_argument("--only", choices=["plain", "load", "steady"], default=None)
    asked = parser.parse_args()
    if asked.only in (None, "plain"):
        plain = {"run": "plain", "jobs": asked.jobs}
        show(f"{asked.jobs} plain JobSets, no operator", measure(plain))
        show(f"{asked.jobs} plain JobSets, no JobSet controller either", measure(plain, alone=True))
    for pace in PACES if asked.only in (None, "load") else ():
        name = "at full blast" if pace is None else f"at {pace:.0f} a second"
        show(f"{asked.jobs} jobs {name}", measure({"run": "load", "jobs": asked.jobs, "rate": pace}))
    if asked.only in (None, "load"):
        full_blast = {"run": "load", "jobs": asked.jobs, "rate": None}
        show(f"{asked.jobs} jobs at full blast, no JobSet controller", measure(full_blast, alone=True))
    if asked.only in (None, "steady"):
        steady = {"run": "steady", "jobs": min(asked.jobs, 200), "changes": asked.changes}
        show(f"{asked.changes} changes, then a minute of rest", measure(steady))


if __name__ == "__main__":
    main()
