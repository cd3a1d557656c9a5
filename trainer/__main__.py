"""Station 6, enter: `python -m trainer`. Commands and questions end here; all else is a run to supervise."""

import sys
from importlib import import_module

from trainer.printing import ANSWERS, answer

COMMANDS = ("export", "fetch", "generate", "report")
"""Modules of the trainer with a `main(argv) -> int` of their own, loaded when they are asked for."""


def main(argv: list[str]) -> int:
    """The exit code of the command line `argv`, without the program's name."""
    if argv[:1] and argv[0] in COMMANDS:
        return int(import_module(f"trainer.{argv[0]}").main(argv[1:]))
    if "--rewards-try" in argv:
        from trainer.tryout import main as try_rewards

        return try_rewards(argv)
    if set(argv).isdisjoint(ANSWERS):
        from trainer.supervisor import main as supervise

        return supervise(argv)
    printed = answer(argv)
    sys.stderr.write(printed.err)
    sys.stdout.write(printed.out)
    return int(printed.code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
