"""Which cluster and which namespace: a user's kubeconfig, context and namespace, as kubectl takes them.

In: what was given on the command line. Out: a `Session`. It asks the cluster nothing.
"""

from dataclasses import dataclass

from controller import __version__
from controller.plugin.trouble import Exit, Trouble
from controller.runtime.client import Api
from controller.runtime.transport import NoClusterError, context_of

MANAGER = "grpoctl"


@dataclass(frozen=True, slots=True)
class Session:
    """One cluster. `namespace` is where jobs are looked for, None for all; `given`: it was named with the command."""

    api: Api
    context: str
    namespace: str | None
    given: bool = False

    @property
    def own_namespace(self) -> str:
        """Where one job is looked for or made."""
        return self.namespace or "default"

    @property
    def place(self) -> str:
        return "any namespace" if self.namespace is None else f"namespace {self.namespace}"


def connect(kubeconfig: str | None, context: str | None, namespace: str | None, everywhere: bool = False) -> Session:
    """Raises `Trouble` where no kubeconfig leads anywhere."""
    try:
        name, own = context_of(kubeconfig, context)
        api = Api.connect(kubeconfig, f"{MANAGER}/{__version__}", context=context)
    except NoClusterError as error:
        told = str(error).removesuffix("; give a kubeconfig, or run in a pod")
        fix = "set KUBECONFIG, or give --kubeconfig and --context; `kubectl config get-contexts` lists them"
        raise Trouble(f"{told}; {fix}", Exit.REFUSED) from error
    return Session(api, name, None if everywhere else namespace or own, given=namespace is not None)
