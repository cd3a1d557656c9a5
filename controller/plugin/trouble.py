"""What goes wrong between a user and a cluster, as one sentence with its fix, and the exit code that says so.

In: what the API server answered. Out: `Trouble`. It asks nobody.
"""

import re
from enum import IntEnum

from controller import names
from controller.crd import PLURAL
from controller.runtime.answers import ApiError

INSTALL = "install the operator's chart, or `kubectl apply --server-side -f crds/grpojobs.yaml`"


class Exit(IntEnum):
    """Exit codes of the commands that talk to a cluster."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    ABSENT = 4
    LATE = 124


EXITS = """Exit codes:
  0 done                          3 no cluster, or it refuses
  1 a job has failed, is invalid  4 no such job
  2 wrong usage"""


class Trouble(Exception):  # noqa: N818 - a sentence for people, not a fault of the program
    """`message` is one sentence: what is wrong and what to do."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.message, self.code = message, code


def trouble_of(error: ApiError, server: str, context: str) -> Trouble:
    """Why the cluster at `server`, found by `context`, did not do what it was asked."""
    told = " ".join(error.message.split()).rstrip(".")
    if error.status == 0:
        late = "did not answer in time" if error.reason == "Timeout" else "cannot be reached"
        why = _innermost(told)
        fix = f"is {context} the right context? is the cluster up, and the network there?"
        return Trouble(f"the cluster at {server} {late} ({why}); {fix}", Exit.REFUSED)
    if error.status == 401:
        fix = "log in again, or choose another with --context"
        return Trouble(f"the cluster does not know who you are (context {context}); {fix}", Exit.REFUSED)
    if error.status == 403 and "exceeded quota" not in told:
        what = re.sub(r" in API group \"[^\"]*\"", "", re.sub(r"^.*? is forbidden: ", "", told))
        return Trouble(f"not allowed: {what}; ask for a role that may (`kubectl auth can-i --list`)", Exit.REFUSED)
    if error.lacks_kind:
        lacking = f"the cluster of context {context} knows no {names.KIND} ({PLURAL}.{names.API_GROUP})"
        return Trouble(f"{lacking}; {INSTALL}, or choose another with --context", Exit.REFUSED)
    if error.status == 404 and error.details.get("kind") == "namespaces":
        name = error.details["name"]
        return Trouble(f"there is no namespace {name}; `kubectl create namespace {name}`, or give -n", Exit.REFUSED)
    if error.is_transient:
        return Trouble(f"the cluster could not do it now ({error.status}: {told}); try again", Exit.REFUSED)
    return Trouble(f"the cluster refuses: {told}", Exit.FAILED if error.is_invalid else Exit.REFUSED)


def _innermost(told: str) -> str:
    """Of what the network library says, the last reason: `Connection refused`."""
    found = re.findall(r"(?:\[Errno -?\d+\]|\[SSL[^\]]*\]) ?([^'\")]+)", told)
    return found[-1].partition(" (_ssl.c")[0].strip() if found else told.rpartition(": ")[2]
