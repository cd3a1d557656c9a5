"""A replica for tests: `python -m tests.controlplane.elector KUBECONFIG NAMESPACE IDENTITY`, with short terms.

It says `stands SECONDS` at its start, `leads SECONDS` once it leads and `ended SECONDS` on SIGTERM, in seconds of this
machine's monotonic clock.
"""

import signal
import sys
import threading
import time

from controller.runtime.client import Api
from controller.runtime.election import LeaseElection, Terms

TERMS = Terms(lease=10.0, renew_deadline=7.0, retry=0.4)


def say(word: str) -> None:
    print(word, time.monotonic(), flush=True)


def main(kubeconfig: str, namespace: str, identity: str) -> None:
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    api = Api.connect(kubeconfig, "elector")
    election = LeaseElection(api, namespace, "test", identity, on_started=lambda: say("leads"), terms=TERMS)
    say("stands")
    election.start()
    asked.wait()
    election.stop()
    say("ended")


if __name__ == "__main__":
    main(*sys.argv[1:])
