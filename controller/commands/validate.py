"""`grpoctl validate`: every rule, offline, and with `--server` what the cluster says too."""

from collections.abc import Sequence

import click

from controller.commands.documents import files_argument, judge_files, set_option
from controller.commands.findings import echo_json, echo_text, exit_code, output_option
from controller.grpojob import Override

HELP = """Check every GRPOJob of FILE... against every rule, offline; `-` reads standard input.

All violations of a job are told at once, each with the value, the rule and the nearest way out.

With --server the cluster judges too, and stores nothing: its definition, its webhook and policies, and whether a job
that is there already may be changed so.

\b
Exit codes: 0 all are valid, 1 some are not, 2 wrong usage, 3 (with --server) no cluster, or it refuses.
With -o json: a list with one object for each document, in order (document counts from 0):
  {file, document, name, valid, violations: [{rule, path, value, message}], warnings: [...], plan}
"""


@click.command(help=HELP)
@files_argument
@set_option
@output_option
@click.option("--server", is_flag=True, help="Ask the cluster too (a server dry run).")
@click.option("--kubeconfig", type=click.Path(dir_okay=False), help="With --server: as kubectl's.")
@click.option("--context", help="With --server: a context of the kubeconfig.")
@click.option("-n", "--namespace", help="With --server: the namespace of jobs that name none.")
@click.pass_context
def validate(
    ctx: click.Context,
    /,
    files: Sequence[str],
    overrides: Sequence[Override],
    output: str,
    server: bool,
    **where: str | None,
) -> None:
    """Resolve each job, and throw the result away."""
    documents = judge_files(files, overrides)
    if server:
        from controller.commands.dryrun import judged_by_server

        documents = judged_by_server(ctx, documents, **where)
    elif any(where.values()):
        raise click.UsageError("--kubeconfig, --context and --namespace belong to --server")
    (echo_json if output == "json" else echo_text)(documents)
    ctx.exit(exit_code(documents))
