"""What the commands that talk to a cluster share: kubectl's options, how trouble is told, and what is printed.

In: a command line. Out: a `Session` for the command, one sentence and an exit code for whoever typed it.
"""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from rich.console import Console, RenderableType

from controller.plugin.connecting import Session, connect
from controller.plugin.trouble import EXITS, Exit, Trouble, trouble_of
from controller.runtime.client import ApiError
from controller.runtime.transport import NoClusterError
from trainer.contract.documents import dump_document

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
SESSION = "grpoctl.session"
ENDLESS = 10_000
"""Columns where nobody sits at a terminal: a line is never cut."""


class ClusterCommand(click.Command):
    """Tells what a cluster does not do in one sentence. Its help ends with the exit codes."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.help = f"{(self.help or '').rstrip()}\n\n\b\n{EXITS}\n"

    def invoke(self, ctx: click.Context) -> Any:
        with telling(ctx):
            return super().invoke(ctx)


@contextmanager
def telling(ctx: click.Context) -> Iterator[None]:
    """What goes wrong ends the command with a sentence and an exit code."""
    try:
        yield
    except Trouble as trouble:
        fail(ctx, trouble)
    except NoClusterError as error:
        fail(ctx, Trouble(str(error), Exit.REFUSED))
    except ApiError as error:
        session: Session = ctx.meta[SESSION]
        fail(ctx, trouble_of(error, session.api.server, session.context))
    except KeyboardInterrupt:
        ctx.exit(128 + 2)


def connected(
    ctx: click.Context, kubeconfig: str | None, context: str | None, namespace: str | None, everywhere: bool = False
) -> Session:
    """A session that ends with the command."""
    session = connect(kubeconfig, context, namespace, everywhere)
    ctx.meta[SESSION] = session
    ctx.call_on_close(session.api.close)
    return session


def fail(ctx: click.Context, trouble: Trouble) -> NoReturn:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {trouble.message}", err=True)
    ctx.exit(trouble.code)


def cluster_options(*, everywhere: bool = False) -> Decorator:
    """The `--kubeconfig`, `--context`, `-n` of kubectl, and `-A` where a command lists; it gets `session`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_session(*args: Any, **named: Any) -> Any:
            kubeconfig, context, namespace = (named.pop(key) for key in ("kubeconfig", "context", "namespace"))
            ctx, everywhere = click.get_current_context(), named.pop("everywhere", False)
            session = connected(ctx, kubeconfig, context, namespace, everywhere)
            return function(*args, session=session, **named)

        options = [
            click.option("--kubeconfig", type=click.Path(dir_okay=False), help="As kubectl's.  [default: $KUBECONFIG]"),
            click.option("--context", help="A context of the kubeconfig.  [default: its current one]"),
            click.option("-n", "--namespace", help="Where the job is.  [default: the context's]"),
        ]
        if everywhere:
            options.append(click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all of them."))
        for option in reversed(options):
            with_session = option(with_session)
        return with_session

    return decorate


def jobs_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Which jobs: `names`, `selector`, `take_all`."""
    for option in (
        click.option("--all", "take_all", is_flag=True, help="All jobs of the namespace."),
        click.option("-l", "--selector", help="The jobs with these labels, such as team=a."),
        click.argument("names", nargs=-1, metavar="[JOB]..."),
    ):
        function = option(function)
    return function


run_folder_option = click.option(
    "--output-uri", metavar="URI", help="Where the job's spec.output.uri is, seen from this machine."
)
output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "yaml"]),
    default="text",
    help="For people, or for programs.",
)


def show(what: RenderableType) -> None:
    """As wide as the terminal; elsewhere as wide as it needs, without colour, and nothing behind a line's end."""
    if sys.stdout.isatty():
        console().print(what)
        return
    wide = Console(width=ENDLESS, color_system=None, highlight=False, legacy_windows=False)
    with wide.capture() as captured:
        wide.print(what)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def console() -> Console:
    colour = click.get_current_context().color is not False
    return Console(highlight=False, color_system="auto" if colour else None)


def show_data(what: Any, output: str) -> None:
    """`output` is json or yaml."""
    text = json.dumps(what, indent=2) + "\n" if output == "json" else dump_document(what)
    click.echo(text, nl=False)


def as_list(items: Sequence[Any]) -> dict[str, Any]:
    """Objects as `kubectl get -o json` lists them."""
    return {"apiVersion": "v1", "kind": "List", "items": [bare(item) for item in items]}


def bare(body: dict[str, Any]) -> dict[str, Any]:
    """An object without what only the API server reads."""
    return body | {"metadata": {key: value for key, value in body["metadata"].items() if key != "managedFields"}}
