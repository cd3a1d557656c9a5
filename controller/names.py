"""Names that more than one module of the controller must spell alike.

In: a job's name. Out: the names of what is made from it. It knows nothing of a job's content.
"""

import hashlib
import re

API_GROUP = "grpo.dev"
API_VERSION = f"{API_GROUP}/v1alpha1"
KIND = "GRPOJob"

REPLICATED_JOB = "slice"
CONTAINER = "trainer"

RUN_CONFIG_FOLDER = "/etc/grpo"
RUN_CONFIG_KEY = "run.json"
CODE_FOLDER = "/etc/grpo-code"
"""Beside the other, not in it: a container runtime cannot make a mount point inside a read-only ConfigMap mount."""
WORKING_FOLDER = "/workspace"
PROGRESS_FOLDER = "/etc/grpo-progress"
"""The token for the operator's endpoint, and whom to trust there."""
AUTHORITY_CONFIG_MAP = "grpo-operator-ca"
"""In each namespace with jobs: whose signature the operator's certificate has. It changes while pods run."""

LABEL_JOB = f"{API_GROUP}/job"
LABEL_RUN_ID = f"{API_GROUP}/run-id"

MAX_LABEL = 63
"""Longest DNS label and label value (https://kubernetes.io/docs/concepts/overview/working-with-objects/names/)."""

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
SUBDOMAIN_LENGTH = len("g-") + 8
POD_SUFFIX_LENGTH = len("-abcde")


def subdomain(name: str) -> str:
    """The headless Service of one job: short, so that the coordinator's label fits; hashed, so that none share it.

    JobSet looks the Service up by name only, without an owner check: two JobSets of one subdomain share one selector.
    A JobSet's name is unique in its namespace, so the name alone tells jobs apart, and every door renders the same.
    """
    return "g-" + hashlib.sha256(name.encode()).hexdigest()[: SUBDOMAIN_LENGTH - 2]


def longest_name(slices: int, hosts: int) -> int:
    """Characters a job's name may have: its longest pod name and its coordinator label must stay valid labels.

    Pod `<name>-slice-<slice>-<host>-abcde`; label `<name>-slice-0-0.<subdomain>`. JobSet's webhook refuses longer ones
    (https://github.com/kubernetes-sigs/jobset, pkg/webhooks/jobset_webhook.go).
    """
    pod = len(f"-{REPLICATED_JOB}-{slices - 1}-{hosts - 1}") + POD_SUFFIX_LENGTH
    coordinator = len(f"-{REPLICATED_JOB}-0-0.") + SUBDOMAIN_LENGTH
    return MAX_LABEL - max(pod, coordinator)
