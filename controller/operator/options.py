"""What an installation sets: flags, `GRPO_OPERATOR_…` variables and a YAML file, in that order of precedence.

In: a command line. Out: `Options`. All of it is in `--help`.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import click
import yaml

from controller import __version__
from controller.settings import TRAINER_IMAGE

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Options:
    """One field a flag; a place that is None is not served."""

    kubeconfig: str | None
    namespaces: tuple[str, ...]
    own_namespace: str
    image: str
    workers: int
    resync_minutes: float
    leader_election: bool
    lease: str
    identity: str
    metrics: Place | None
    webhook: Place | None
    webhook_service: str
    webhook_configuration: str | None
    certificates: str
    progress: Place | None
    progress_service: str
    progress_url: str | None
    pod_address: str | None
    log_format: Literal["json", "text"]
    log_level: str
    stop_seconds: float


class PlaceType(click.ParamType[Any]):
    """`HOST:PORT`, `:PORT` for every address, `none` for nowhere."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place | None:
        if isinstance(value, tuple) or value is None or value == "none":
            return None if value == "none" else value
        host, colon, port = str(value).rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            self.fail(f"{value!r} must be HOST:PORT, :PORT or none", param, ctx)
        return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - pods are reached on every address


def _read_file(context: click.Context, parameter: click.Parameter, path: str | None) -> None:
    """Keys are the flags' long names; what the file sets, flags and variables override."""
    if path is None:
        return
    try:
        given = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise click.BadParameter(f"{path}: {error}") from error
    if not isinstance(given, dict):
        raise click.BadParameter(f"{path} must be a mapping of flags to values")
    known = {option.name for option in context.command.params}
    given = {str(key).replace("-", "_"): value for key, value in given.items()}
    if unknown := sorted(given.keys() - known):
        raise click.BadParameter(f"{path}: {unknown[0].replace('_', '-')} is no flag; --help lists them")
    context.default_map = given


def _own_namespace() -> str:
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.is_file() else "default"


def _identity() -> str:
    return f"{socket.gethostname()}_{uuid4().hex[:8]}"


_FLAGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--kubeconfig", {"help": "By default $KUBECONFIG, the pod's service account, ~/.kube/config."}),
    (
        "--namespace",
        {
            "multiple": True,
            "help": "Look after the jobs of this namespace; may be given again.  [default: all namespaces]",
        },
    ),
    ("--own-namespace", {"default": _own_namespace, "help": "Where lease and certificate are kept."}),
    ("--image", {"default": TRAINER_IMAGE, "help": "Trainer image of jobs that name none."}),
    ("--workers", {"default": 4, "type": click.IntRange(1, 64), "help": "Jobs looked at at once."}),
    ("--resync-minutes", {"default": 60.0, "type": click.FloatRange(0.01), "help": "Every job is looked at so often."}),
    ("--leader-election/--no-leader-election", {"default": True, "help": "Of several replicas one reconciles."}),
    ("--lease", {"default": "grpo-operator", "help": "Name of the Lease."}),
    ("--identity", {"default": _identity, "help": "This replica's name in the Lease."}),
    ("--metrics", {"default": ":8080", "type": PlaceType(), "help": "/metrics, /healthz and /readyz, plain HTTP."}),
    ("--webhook", {"default": ":9443", "type": PlaceType(), "help": "Admission webhook, HTTPS."}),
    ("--webhook-service", {"default": "grpo-operator", "help": "The Service by which the API server reaches it."}),
    ("--webhook-configuration", {"help": "ValidatingWebhookConfiguration that is told whom to trust."}),
    (
        "--certificates",
        {
            "default": "secret:grpo-operator-tls",
            "help": "secret:NAME, made and renewed by the operator; or a folder with tls.crt, tls.key and ca.crt.",
        },
    ),
    ("--progress", {"default": ":9444", "type": PlaceType(), "help": "Endpoint for the trainers' reports, HTTPS."}),
    (
        "--progress-service",
        {"default": "grpo-operator-progress", "help": "The Service by which pods reach the leader's."},
    ),
    ("--progress-url", {"help": "Where pods report to, where it is not that Service."}),
    ("--pod-address", {"envvar": "POD_IP", "help": "Address of this replica, which that Service leads to."}),
    ("--log-format", {"default": "json", "type": click.Choice(["json", "text"])}),
    ("--log-level", {"default": "info", "type": click.Choice(["debug", "info", "warning", "error"])}),
    (
        "--stop-seconds",
        {"default": 10.0, "type": click.FloatRange(0), "help": "Passes under way may end, after a SIGTERM."},
    ),
)


def command(run: Callable[[Options], None]) -> click.Command:
    """`grpo-operator`, which calls `run` with its options."""

    def call(**given: Any) -> None:
        run(Options(namespaces=given.pop("namespace"), **given))

    made = click.Command(
        "grpo-operator",
        callback=call,
        help=f"The operator of GRPOJobs, version {__version__}.\n\n"
        "Each flag may be given as GRPO_OPERATOR_<FLAG> in the environment, or in a YAML file by its long name.",
        context_settings={"auto_envvar_prefix": "GRPO_OPERATOR", "max_content_width": 110},
    )
    file: dict[str, Any] = {"is_eager": True, "expose_value": False, "callback": _read_file, "metavar": "FILE"}
    options = [click.Option(["--config"], help="YAML with flags.", **file)]
    options += [click.Option([flag], show_default=True, show_envvar=False, **given) for flag, given in _FLAGS]
    made.params += [
        *options,
        click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_tell),
    ]
    return made


def _tell(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(__version__)
        context.exit()
