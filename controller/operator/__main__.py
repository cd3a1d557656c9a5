"""`python -m controller.operator`: reads its options, starts the operator, and stops it on SIGTERM."""

import signal
import sys
import threading

from controller.operator.options import Options, command
from controller.operator.parts import Operator
from controller.runtime import logs
from controller.runtime.transport import NoClusterError


def main() -> None:
    """The console script `grpo-operator`."""
    command(run)()


def run(options: Options) -> None:
    """Until a signal asks for the end, or a part that cannot be restarted has died."""
    logs.configure(options.log_format, options.log_level)
    ended = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: ended.set())
    try:
        operator = Operator(options)
    except NoClusterError as error:
        sys.exit(f"grpo-operator: {error}")
    operator.start()
    ended.wait()
    operator.stop()


if __name__ == "__main__":
    main()
