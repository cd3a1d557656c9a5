"""The demo: one GRPOJob validated, rendered, run on two local processes, and judged by what it learnt.

    make demo            or            python -m examples.demo.run [--seed N]...

It does nothing that a user could not: it calls `grpoctl`, and reads the run folder. Exits 1 where the promised rise is
missing, and with grpoctl's code where a command fails.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from examples.demo.curve import Curve, save_png, terminal_curve
from examples.demo.results import read_curve
from examples.demo.sums import HERE
from examples.demo.verdict import complaints

ROOT = HERE.parents[1]
JOB = "examples/demo/job.yaml"
RUNS = ROOT / "runs"
PICTURE = RUNS / "demo.png"


@click.command()
@click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True, help="Repeatable.")
@click.option("--runs", type=click.Path(path_type=Path), default=RUNS, help="Where the run folders go.")
@click.option("--png", type=click.Path(path_type=Path), default=PICTURE, help="Where the picture of the curve goes.")
def main(seeds: tuple[int, ...], runs: Path, png: Path) -> None:
    """Train a small model with GRPO and watch its greedy exact match rise."""
    started, console = time.monotonic(), Console()
    job = yaml.safe_load((ROOT / JOB).read_text(encoding="utf-8"))
    curves = [train(console, seed, runs) for seed in seeds]
    code = report(console, curves, job["spec"]["steps"], png)
    console.print(f"{time.monotonic() - started:.0f} s in all", highlight=False)
    sys.exit(code)


def report(console: Console, curves: list[Curve], steps: int, png: Path) -> int:
    """Curves, picture and numbers, then the exit code: 1 where a run does not show the promised rise."""
    save_png(curves, png)
    for curve in curves:
        console.rule(curve.label)
        plain = not console.is_terminal or console.no_color
        console.file.write(terminal_curve(curve, console.width, colourless=plain) + "\n")
    console.print(
        f"\nGreedy exact match on {curves[0].questions} questions that no training has seen:", highlight=False
    )
    console.print(results_table(curves))
    console.print(f"picture: {png}", highlight=False, soft_wrap=True)
    faults = [fault for curve in curves for fault in complaints(curve, steps)]
    for fault in faults:
        console.print(fault, style="red", highlight=False, soft_wrap=True)
    return 1 if faults else 0


def train(console: Console, seed: int, runs: Path) -> Curve:
    """The road of one job: validated, rendered, run; and what its run folder says."""
    chosen = ["--set", f"seed={seed}", *([] if runs == RUNS else ["--set", f"output.uri={runs}"])]
    grpoctl(console, "validate", JOB, *chosen)
    show_job_set(console, chosen)
    before = set(run_folders(runs))
    grpoctl(console, "run", JOB, *chosen, "--new-run")
    (folder,) = set(run_folders(runs)) - before
    return read_curve(folder, f"seed {seed}")


def grpoctl(console: Console, *words: str) -> None:
    """Run one command of the product as a user would, its output straight to the terminal."""
    console.print(f"\n[bold]$ grpoctl {' '.join(words)}", highlight=False)
    # Ctrl-C reaches grpoctl too, which stops its processes and then ends with a code of its own.
    usual = signal.signal(signal.SIGINT, lambda *_: None)
    ended = subprocess.run([sys.executable, "-m", "controller", *words], cwd=ROOT, check=False)
    signal.signal(signal.SIGINT, usual)
    if ended.returncode != 0:
        sys.exit(ended.returncode)


def show_job_set(console: Console, chosen: list[str]) -> None:
    """The part of the rendered JobSet that `grpoctl run` turns into processes."""
    command = ["render", JOB, *chosen]
    console.print(f"\n[bold]$ grpoctl {' '.join(command)}[/]     [dim](excerpt of the JobSet)", highlight=False)
    rendered = subprocess.run(
        [sys.executable, "-m", "controller", *command, "-o", "json"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    job_set = next(item for item in json.loads(rendered.stdout)["items"] if item["kind"] == "JobSet")
    text = yaml.safe_dump(excerpt(job_set), sort_keys=False)
    console.print(Syntax(text, "yaml", background_color="default", word_wrap=True))


def excerpt(job_set: dict[str, Any]) -> dict[str, Any]:
    """Names, counts and the container's command and environment; the rest is for clusters."""
    (replicated,) = job_set["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    shown = {key: container[key] for key in ("name", "image", "command", "args", "env")}
    return {
        "kind": job_set["kind"],
        "metadata": {"name": job_set["metadata"]["name"]},
        "spec": {
            "replicatedJobs": [
                {
                    "name": replicated["name"],
                    "replicas": replicated["replicas"],
                    "parallelism": job["parallelism"],
                    "completions": job["completions"],
                    "containers": [shown],
                }
            ]
        },
    }


def run_folders(runs: Path) -> list[Path]:
    return list(runs.glob("demo-sums-*")) if runs.exists() else []


def results_table(curves: list[Curve]) -> Table:
    table = Table()
    for column in ("run", "before", "after", "rise"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for curve in curves:
        table.add_row(curve.label, f"{curve.before:.3f}", f"{curve.after:.3f}", f"{curve.rise:+.3f}")
    return table


if __name__ == "__main__":
    main()
