"""`grpoctl validate`: every rule, offline."""

from collections.abc import Sequence

import click

from controller.commands.documents import files_argument, judge_files, set_option
from controller.commands.findings import echo_json, echo_text, exit_code, output_option
from controller.grpojob import Override

HELP = """Check every GRPOJob of FILE... against every rule, offline; `-` reads standard input.

All violations of a job are told at once, each with the value, the rule and the nearest way out.

\b
Exit codes: 0 all are valid, 1 some are not, 2 wrong usage.
With -o json: a list with one object for each document, in order (document counts from 0):
  {file, document, name, valid, violations: [{rule, path, value, message}], warnings: [...], plan}
"""


@click.command(help=HELP)
@files_argument
@set_option
@output_option
@click.pass_context
def validate(ctx: click.Context, files: Sequence[str], overrides: Sequence[Override], output: str) -> None:
    """Resolve each job, and throw the result away."""
    documents = judge_files(files, overrides)
    (echo_json if output == "json" else echo_text)(documents)
    ctx.exit(exit_code(documents))
