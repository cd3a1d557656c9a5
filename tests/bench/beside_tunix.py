"""Workload W here and in Tunix, a step of each in turn, so that both meet the same noise.

`beside_tunix.py PYTHON`: the interpreter of an environment that has google-tunix (`make bench-tunix` makes one).
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from tests.bench.step import STEPS, WARM_UP, Steps, questions, told

WORKER = Path(__file__).with_name("tunix_worker.py")


class Worker:
    """Tunix in a process of its own, which waits while it is not asked."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen([python, WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, step: int) -> float:
        """Seconds of one step on the same prompts."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(questions(step)), file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(python: str) -> None:
    ours, worker = Steps(), Worker(python)
    pairs = [(ours.run(step)["step"], worker.run(step)) for step in range(WARM_UP + STEPS)][WARM_UP:]
    worker.end()
    told("step here", [here for here, _ in pairs], "s")
    told("step in Tunix", [there for _, there in pairs], "s")
    ratios = [there / here for here, there in pairs]
    told("Tunix over here", ratios, "times")
    print(f"Tunix needs {statistics.median(ratios):.1f} times as long as this trainer")


if __name__ == "__main__":
    main(sys.argv[1])
