"""A trainer that does as it is told; it is mounted into pods as `trainer.py`, and knows the contract by heart only.

PLAN is JSON: for each attempt, for each host, words: `wait:SECONDS`, `say:LINES` (so many, one each 20 ms), `deaf`
(SIGTERM is not heard), then an exit code, `kill` (as if by the kernel), or until it is asked to stop, and then ends
with 10: `run` (without a word), `beat` (it reports, and its heartbeat advances), `still` (and it does not).
"""

import itertools
import json
import os
import signal
import ssl
import sys
import time
import urllib.request
from pathlib import Path

NAMES = (
    *("Done", "Failed", "InvalidConfig", "ContractVersion", "PlanDiffers", "InputNotReachable", "OutOfMemory"),
    *("NonFinite", "Stalled", "PeerLost", "Preempted"),
)


def leave(code: int) -> None:
    if 0 < code <= 10:
        cause = {"class": NAMES[code], "code": code, "process": host, "step": attempt, "exception": None}
        told = json.dumps(cause | {"message": f"host {host} ends attempt {attempt} with {code}"})
        Path(os.environ["GRPO_TERMINATION_LOG"]).write_text(told)
    os._exit(code)


def report(heartbeat: int) -> None:
    folder = Path(os.environ["GRPO_PROGRESS_FOLDER"])
    told = json.dumps({"attempt": attempt, "heartbeat": heartbeat, "step": 1, "total_steps": 2}).encode()
    headers = {"Authorization": f"Bearer {(folder / 'token').read_text()}"}
    trusted = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    try:
        request = urllib.request.Request(os.environ["GRPO_PROGRESS_URL"], told, headers)
        urllib.request.urlopen(request, timeout=2, context=trusted).close()
    except OSError as error:
        print(error, flush=True)


attempt = int(os.environ["GRPO_ATTEMPT"]) + int(os.environ.get("GRPO_ATTEMPTS_BEFORE", "0"))
host = int(os.environ["GRPO_HOST_INDEX"])
plan = json.loads(os.environ["PLAN"])
words = plan[attempt][host].split() if attempt < len(plan) else ["0"]
json.loads(Path(sys.argv[2]).read_text())
signal.signal(signal.SIGTERM, lambda *_: leave(10))
for word in words:
    if word.startswith("wait:"):
        time.sleep(float(word.removeprefix("wait:")))
    elif word.startswith("say:"):
        for number in range(int(word.removeprefix("say:"))):
            print(f"attempt {attempt} host {host} line {number}", flush=True)
            time.sleep(0.02)
    elif word == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif word == "kill":
        os._exit(137)  # what a container runtime tells of a process that the kernel killed
    elif word == "run":
        while True:
            time.sleep(1)
    elif word in ("beat", "still"):
        for beat in itertools.count():
            report(beat if word == "beat" else 1)
            time.sleep(2)
    else:
        leave(int(word))
