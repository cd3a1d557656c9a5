"""The command line, `grpoctl`: the road of one job, with an exit after each station.

It names the commands and loads the one that is asked for: `grpoctl validate` pays for nothing that it does not use.
"""

import gc
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import click

from controller import __version__

COMMANDS = {
    "validate": "check jobs against every rule, offline",
    "plan": "show what a job resolves to: hosts, devices, batch arithmetic",
    "render": "print the ConfigMap and JobSet of a job",
    "run": "run a job's pods as processes of this machine",
    "report": "write one HTML page about a run, or about two",
    "init": "write a commented job to start from",
    "explain": "say what a rule asks for, and why",
    "rewards": "try a job's rewards without a model",
    "completion": "print the completion script of a shell",
}
IN_A_CLUSTER = {
    "submit": "make the jobs of a file, with their code",
    "clone": "make a job once more, changed",
    "diff": "show in what two jobs differ",
    "list": "list jobs",
    "status": "show how a job stands, on one screen",
    "logs": "print what a process of a job says",
    "fetch": "copy what a run left in its folder",
    "wait": "wait until jobs have ended; exit as they did",
    "watch": "follow a job, or all",
    "top": "show who uses the chips",
    "suspend": "take the machines from jobs, which keep their checkpoints",
    "resume": "let suspended jobs go on",
    "cancel": "delete jobs; their run folders stay",
}
ALL = COMMANDS | IN_A_CLUSTER
FUNCTIONS = {"list": "list_jobs"}
"""Of the commands whose word is Python's own."""
EXTRA = {"kubernetes", "urllib3"}


def _load(module: str) -> ModuleType:
    """Import a command's module without what a short-lived program does not need; that is a fifth of its time.

    The collector need not walk what lives as long as the program, neither while it is loaded nor at exit. Plugins of
    someone's environment take no part in judging a job, so pydantic need not search for them.
    """
    if module in sys.modules:
        return sys.modules[module]
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()
    try:
        return import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def _no_such_command(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, ALL, n=1)
    return f"no such command: {name}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(ALL)}")


class _Commands(click.Group):
    """Loads `controller.commands.NAME` when NAME is called; help is made from the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(ALL)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ALL:
            if ctx.resilient_parsing:  # a shell asks for completions of a line that is still wrong
                return None
            ctx.fail(_no_such_command(cmd_name))
        module = _load(f"controller.commands.{cmd_name}")
        command: click.Command = getattr(module, FUNCTIONS.get(cmd_name, cmd_name))
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] not in EXTRA:
                raise
            words = f"{' '.join(sys.argv[1:2])} talks to a cluster, and {missing.name} is not installed"
            raise click.ClickException(f"{words}; pip install 'grpo-operator[controller]'") from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in (("Commands", COMMANDS), ("In a cluster", IN_A_CLUSTER)):
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))


HELP = """GRPO training on Google TPUs from one GRPOJob file.

A job is checked, shown, rendered or run from the same file:

\b
  grpoctl init job.yaml
  grpoctl validate job.yaml
  grpoctl plan job.yaml
  grpoctl render job.yaml | kubectl apply -f -

What talks to a cluster takes kubectl's options, and is there as `kubectl grpo` too.

Exit codes: 0 done, 1 the job is invalid or has failed, 2 wrong usage.
"""


@click.command(
    cls=_Commands,
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True},
)
@click.version_option(__version__, "-V", "--version", prog_name="grpoctl", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """The group; its help is above, because click marks paragraphs with a backspace character."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def kubectl() -> None:
    """The same commands as a plugin of kubectl, which finds the program by its name."""
    main(prog_name="kubectl grpo")
