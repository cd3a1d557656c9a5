"""`python -m controller` is `grpoctl`."""

from controller.cli import main

if __name__ == "__main__":
    main(prog_name="grpoctl")
