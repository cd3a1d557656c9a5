"""A rendered JobSet as the pods its controllers would make: who they are, and what their environment says."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.local.pods import LocalError, Pod, environment_of, expand, field, on_loopback, pods_of

RENDERED = Path(__file__).parent / "rendered"


def _job_set(case: str) -> Any:
    return list(yaml.safe_load_all((RENDERED / case / "manifests.yaml").read_text(encoding="utf-8")))[1]


def _with_env(pod: Pod, *env: dict[str, Any], env_from: tuple[dict[str, Any], ...] = ()) -> Pod:
    container = {"env": list(env), "envFrom": list(env_from)}
    return Pod(
        pod.index,
        pod.job_index,
        pod.completion_index,
        pod.host_name,
        pod.namespace,
        pod.labels,
        pod.annotations,
        {"containers": [container]},
    )


@pytest.fixture
def pod() -> Pod:
    return pods_of(_job_set("two-slices-spot"), attempt=3)[5]


def test_pods_are_counted_slice_by_slice() -> None:
    """Process index = slice index x hosts + host index; pod names are those of JobSet's DNS."""
    pods = pods_of(_job_set("two-slices-spot"), attempt=0)
    assert [(pod.index, pod.job_index, pod.completion_index) for pod in pods] == [
        (0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 1, 0), (5, 1, 1), (6, 1, 2), (7, 1, 3),
    ]  # fmt: skip
    assert pods[5].host_name == "two-slices-slice-1-1"


def test_identity_comes_by_downward_api(pod: Pod) -> None:
    """Slice, host and attempt stand in the environment as JobSet's and Job's labels and annotations give them."""
    environment = environment_of(pod, {}, {})
    assert environment["GRPO_SLICE_INDEX"] == "1"
    assert environment["GRPO_HOST_INDEX"] == "1"
    assert environment["GRPO_ATTEMPT"] == "3"
    assert environment["MEGASCALE_SLICE_ID"] == "1"
    assert environment["MEGASCALE_NUM_SLICES"] == "2"
    assert environment["JOB_COMPLETION_INDEX"] == "1"


def test_labels_are_those_of_jobset(pod: Pod) -> None:
    """The labels that a user's fieldRef may name have the values JobSet v0.12 gives them."""
    assert field(pod, "metadata.labels['jobset.sigs.k8s.io/replicatedjob-replicas']") == "2"
    assert field(pod, "metadata.labels['jobset.sigs.k8s.io/job-global-index']") == "1"
    assert field(pod, "metadata.annotations['jobset.sigs.k8s.io/jobset-name']") == "two-slices"
    coordinator = field(pod, "metadata.labels['jobset.sigs.k8s.io/coordinator']")
    assert environment_of(pod, {}, {})["GRPO_COORDINATOR_ADDRESS"] == f"{coordinator}:8482"
    assert field(pod, "metadata.labels['missing']") == ""
    assert field(pod, "metadata.name") == "two-slices-slice-1-1"


def test_a_field_of_a_cluster_only_is_refused(pod: Pod) -> None:
    """What a machine cannot know is said, not made up."""
    with pytest.raises(LocalError, match=r"the field metadata\.uid is known in a cluster only"):
        field(pod, "metadata.uid")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A and ${A}", "$A and ${A}"),
        ("$(A", "$(A"),
        ("100$$", "100$"),
    ],
)
def test_references_expand_as_in_kubernetes(text: str, expanded: str) -> None:
    """A known name gives its value, an unknown one stays, and a doubled dollar is one."""
    assert expand(text, {"A": "1"}) == expanded


def test_a_value_refers_to_earlier_ones_only(pod: Pod) -> None:
    """Kubernetes expands in order: a later variable is not known yet."""
    env = [{"name": "X", "value": "$(Y)"}, {"name": "Y", "value": "y"}, {"name": "Z", "value": "$(Y)"}]
    environment = environment_of(_with_env(pod, *env), {}, {})
    assert (environment["X"], environment["Z"]) == ("$(Y)", "y")


def test_references_to_objects_of_the_file(pod: Pod) -> None:
    """Keys of ConfigMaps and Secrets come from the file's other documents, whole objects with their prefix."""
    objects = {("Secret", "hf"): {"token": b"t"}, ("ConfigMap", "all"): {"A": b"1", "B": b"2"}}
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}
    pod = _with_env(pod, token, env_from=({"prefix": "P_", "configMapRef": {"name": "all"}},))
    environment = environment_of(pod, objects, {"HF_TOKEN": "from the shell"})
    assert (environment["HF_TOKEN"], environment["P_A"], environment["P_B"]) == ("t", "1", "2")


def test_a_secret_may_come_from_the_shell(pod: Pod) -> None:
    """A Secret lives in the cluster: locally the variable of that name stands for it, and an optional one may lack."""
    reference = {"name": "hf-secret", "key": "hf_api_token"}
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}}
    assert environment_of(_with_env(pod, token), {}, {"HF_TOKEN": "mine"})["HF_TOKEN"] == "mine"
    with pytest.raises(LocalError) as refused:
        environment_of(_with_env(pod, token), {}, {})
    assert str(refused.value) == (
        "spec.env: HF_TOKEN comes from key hf_api_token of Secret hf-secret, which is not at hand; "
        "set HF_TOKEN in your shell"
    )
    optional = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference | {"optional": True}}}
    assert "HF_TOKEN" not in environment_of(_with_env(pod, optional), {}, {})


def test_dns_names_become_loopback() -> None:
    """A pod's name and port become this machine's loopback and the free port that stands for it; nothing else does."""
    subdomain = _job_set("two-slices-spot")["spec"]["network"]["subdomain"]
    name = f"two-slices-slice-0-0.{subdomain}"
    ports = {8482: 41234}
    assert on_loopback(f"{name}:8482", subdomain, ports) == "127.0.0.1:41234"
    assert on_loopback(f"{name}:80,{name}", subdomain, ports) == "127.0.0.1:80,127.0.0.1"
    assert on_loopback(f"http://{name}/x", subdomain, ports) == "http://127.0.0.1/x"
    for text in ("example.com:8482", f"{subdomain}:8482", f"{name}a:8482"):
        assert on_loopback(text, subdomain, ports) == text
