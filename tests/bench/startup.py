"""How long `grpoctl validate` takes beside the floor of what it imports: `python -c 'import pydantic, yaml'`.

Prints the ratio of medians, run by run in turn, so that a drift of the machine's speed
meets both, and the spread of each.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNS = 15
FLOOR = [sys.executable, "-c", "import pydantic, yaml"]
JOB = ROOT / "configs/jobs/qwen2.5-0.5b-gsm8k-v5e-2x2.yaml"
VALIDATE = [sys.executable, "-m", "controller", "validate", str(JOB)]


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - start


def main() -> None:
    for command in (FLOOR, VALIDATE):
        seconds(command)
    pairs = [(seconds(FLOOR), seconds(VALIDATE)) for _ in range(RUNS)]
    for name, column in (("import pydantic, yaml", 0), ("grpoctl validate", 1)):
        times = sorted(pair[column] for pair in pairs)
        print(f"{name:24} median {statistics.median(times):.3f} s  (min {times[0]:.3f}, max {times[-1]:.3f}, n={RUNS})")
    ratios = sorted(validate / floor for floor, validate in pairs)
    spread = f"min {ratios[0]:.2f}, max {ratios[-1]:.2f}; goal: at most 3"
    print(f"{'ratio':24} median {statistics.median(ratios):.2f}     ({spread})")


if __name__ == "__main__":
    main()
