"""Station 6, enter: `python -m trainer`. Questions are answered without JAX; everything else is a run to supervise."""

import sys

from trainer.printing import ANSWERS, answer


def main(argv: list[str]) -> int:
    """The exit code of the command line `argv`, without the program's name."""
    if argv[:1] == ["report"]:
        from trainer.report import main as report

        return report(argv[1:])
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
