"""The demo itself, from its command to its verdict, as `make demo` runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (1, 2) if int(os.environ.get("GRPO_TEST_SCALE", "1")) > 1 else (0,)


def test_the_demo_shows_the_reward_rising(tmp_path: Path) -> None:
    """One command validates, renders and runs the job on two processes; exact match rises by 0.10 and more."""
    chosen = [word for seed in SEEDS for word in ("--seed", str(seed))]
    command = [sys.executable, "-m", "examples.demo.run", "--runs", str(tmp_path / "runs"), *chosen]

    ended = subprocess.run(
        [*command, "--png", str(tmp_path / "curve.png")],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )

    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr
    rises = [float(rise) for rise in re.findall(r"seed \d+ +│ +0\.\d+ │ +0\.\d+ │ \+(0\.\d+)", ended.stdout)]
    assert len(rises) == len(SEEDS)
    assert min(rises) >= 0.10
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
