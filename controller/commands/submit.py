"""`grpoctl submit`: a file becomes jobs of a cluster, with its code."""

from collections.abc import Sequence
from pathlib import Path

import click

from controller.commands.clusterside import ClusterCommand, cluster_options, output_option
from controller.commands.documents import file_argument, judge_files
from controller.commands.making import (
    code_override,
    make,
    making_options,
    refuse_invalid,
    suffixed,
)
from controller.grpojob import Override
from controller.plugin import code as packing
from controller.plugin.connecting import Session

HELP = """Make the GRPOJobs of FILE in the cluster. They are judged here, then by the cluster; all are made, or none.

\b
  kubectl grpo submit job.yaml --code rewards/ --set optimizer.learningRate=2.0e-6 --name-suffix lr2

ConfigMaps of the same file are applied; objects of other kinds are refused.
With -o json or yaml: the job as the cluster holds it, a List of several.
"""


@click.command(cls=ClusterCommand, help=HELP)
@file_argument
@making_options
@cluster_options()
@output_option
@click.pass_context
def submit(
    ctx: click.Context,
    session: Session,
    file: str,
    overrides: Sequence[Override],
    code: Path | None,
    name_suffix: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """The ConfigMap of the code is named after what is in it, so that jobs with the same code share one."""
    files = packing.packed(code) if code else None
    given = [*overrides, code_override(files)] if files else overrides
    documents = judge_files([file], given)
    if name_suffix is not None and all(document.valid for document in documents):
        documents = [suffixed(document, name_suffix) for document in documents]
    refuse_invalid(ctx, documents)
    make(session, documents, files, dry_run=dry_run, output=output)
