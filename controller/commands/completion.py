"""`grpoctl completion SHELL`: click's own completion script."""

import click
from click.shell_completion import get_completion_class

HELP = """Print the completion script of SHELL.

\b
  bash:  eval "$(grpoctl completion bash)"
  zsh:   eval "$(grpoctl completion zsh)"
  fish:  grpoctl completion fish | source
"""


@click.command(help=HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """The script of one of the shells that click knows."""
    complete = get_completion_class(shell)
    assert complete is not None  # noqa: S101 - click knows the three shells of the choice
    click.echo(complete(ctx.find_root().command, {}, "grpoctl", "_GRPOCTL_COMPLETE").source())
