"""Reading and resolving: all faults at once, in one order, and nothing that raises."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controller import names, podrules, podspec
from controller.grpojob import ClusterSpec, GRPOJob, read_job, read_jobs
from controller.resolve import resolve
from controller.tpu import CpuHosts, TpuSlice
from trainer.contract.reading import known_keys
from trainer.contract.runner import RunnerConfig
from trainer.contract.violations import Spelling

MANY = Path(__file__).parent / "refused" / "unknown-key-many-at-once.yaml"
JOB: dict[str, Any] = {
    "apiVersion": names.API_VERSION,
    "kind": names.KIND,
    "metadata": {"name": "job"},
    "spec": {
        "modelPath": "Qwen/Qwen2.5-0.5B-Instruct",
        "rollout": {"batchSize": 128},
        "tpu": {"accelerator": "tpu-v6e-slice", "topology": "4x4"},
    },
}


def job_of(**spec: Any) -> GRPOJob:
    return read_job({**JOB, "spec": {**JOB["spec"], **spec}})


def rules_of(job: GRPOJob) -> list[str]:
    return [violation.rule for violation in resolve(job).violations]


def test_a_resolved_job_carries_its_machine() -> None:
    """Processes are hosts x slices, devices those of the machine type, and the RunConfig has the job's name."""
    resolved = resolve(job_of(tpu={"accelerator": "tpu-v6e-slice", "topology": "4x4", "slices": 2})).resolved
    assert resolved is not None
    assert isinstance(resolved.devices, TpuSlice)
    assert (resolved.slices, resolved.devices.hosts, resolved.devices.chips_per_host) == (2, 4, 4)
    batch = resolved.run.batch
    assert (batch.processes, batch.devices_per_process, batch.hosts, batch.slices) == (8, 4, 4, 2)
    assert (resolved.run.name, resolved.run.precision.compute) == ("job", "bfloat16")


def test_cpu_hosts_compute_in_float32() -> None:
    """Without a TPU a process holds the devices that the job says, and computes in float32 unless told otherwise."""
    resolved = resolve(job_of(tpu=None, cpu={"hosts": 2, "devicesPerHost": 4})).resolved
    assert resolved is not None
    assert isinstance(resolved.devices, CpuHosts)
    assert (resolved.run.batch.processes, resolved.run.batch.devices_per_process) == (2, 4)
    assert resolved.run.precision.compute == "float32"


def test_tpu7x_chips_are_two_devices_each() -> None:
    """A chip with two cores without megacore is two JAX devices: a host of four chips holds eight."""
    resolved = resolve(job_of(tpu={"accelerator": "tpu7x", "topology": "2x2x1"})).resolved
    assert resolved is not None
    assert resolved.run.batch.devices_per_process == 8


@given(st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_keys_does_not_change_the_verdict(random: Any) -> None:
    """Violations come in the order of the schema, whatever the order in which the user wrote."""

    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}

    data = yaml.safe_load(MANY.read_text(encoding="utf-8"))
    assert resolve(read_job(shuffled(data))).violations == resolve(read_job(data)).violations


def test_what_depends_on_an_unknown_machine_is_left_unsaid() -> None:
    """With an ambiguous slice the rules that need processes wait, and those that do not are told at once."""
    ambiguous = {"accelerator": "tpu-v6e-slice", "topology": "2x4"}
    job = job_of(tpu=ambiguous, rollout={"batchSize": 100}, train={"microBatchSize": 7}, meshShape="3,3,3")
    assert rules_of(job) == ["batch-of-groups", "tpu-shape"]


@pytest.mark.parametrize("field", ["accelerator", "topology"])
def test_a_missing_part_of_the_slice_does_not_hide_other_faults(field: str) -> None:
    """A required field that is missing is told beside the faults of its section."""
    tpu = {"accelerator": "tpu-v6e-slice", "topology": "4x4", "capacity": {"type": "Reservation"}}
    del tpu[field]
    assert rules_of(job_of(tpu=tpu)) == ["required", "capacity-fields"]


@pytest.mark.parametrize(
    ("length", "slices", "valid"), [(42, 1, True), (43, 1, False), (42, 2, True)], ids=["longest", "too-long", "slices"]
)
def test_a_name_leaves_room_for_the_coordinator_label(length: int, slices: int, valid: bool) -> None:
    """`<name>-slice-0-0.<service>` is a label value of at most 63 characters, so a name has at most 42."""
    data = copy.deepcopy(JOB)
    data["metadata"]["name"] = "n" * length
    data["spec"]["tpu"]["slices"] = slices
    data["spec"]["rollout"]["batchSize"] = 256
    assert (rules_of(read_job(data)) == []) is valid
    label = f"{'n' * length}-slice-0-0.{names.subdomain('n' * length)}"
    assert (len(label) <= 63) is valid


@pytest.mark.parametrize(("capacity", "queue"), [({"type": "Spot"}, None), ({}, {"localQueue": "a"})])
def test_what_may_be_stopped_without_checkpoints_is_warned_of(
    capacity: dict[str, str], queue: dict[str, str] | None
) -> None:
    """Spot capacity or a queue without a checkpoint cadence is a warning that names the cadence."""
    tpu = {"accelerator": "tpu-v6e-slice", "topology": "4x4", "capacity": capacity}
    warned = [warning.path for warning in resolve(job_of(tpu=tpu, queue=queue)).warnings]
    assert warned == ["spec.checkpoint.everySteps", "spec.output.uri"]


def test_on_one_machine_all_processes_share_the_disk() -> None:
    """`grpoctl run` needs no shared volume: the same job that a cluster refuses is accepted there."""
    job = job_of(checkpoint={"everySteps": 10}, output={"uri": "/tmp/runs"})
    assert rules_of(job) == ["shared-output"]
    assert resolve(job, one_machine=True).violations == ()


@pytest.mark.parametrize(
    ("volume", "mount", "accepted"),
    [
        ({"persistentVolumeClaim": {"claimName": "c"}}, {"mountPath": "/runs"}, True),
        ({"nfs": {"server": "s", "path": "/p"}}, {"mountPath": "/runs/"}, True),
        ({"csi": {"driver": "gcsfuse.csi.storage.gke.io"}}, {"mountPath": "/runs"}, True),
        ({"persistentVolumeClaim": {"claimName": "c"}}, {"mountPath": "/run"}, False),
        ({"persistentVolumeClaim": {"claimName": "c", "readOnly": True}}, {"mountPath": "/runs"}, False),
        ({"persistentVolumeClaim": {"claimName": "c"}}, {"mountPath": "/runs", "readOnly": True}, False),
        ({"emptyDir": {}}, {"mountPath": "/runs"}, False),
    ],
)
def test_checkpoints_of_several_hosts_lie_on_a_shared_volume(
    volume: dict[str, Any], mount: dict[str, Any], accepted: bool
) -> None:
    """A claim, NFS or a CSI volume that is mounted at or above output.uri, and writable, is shared; nothing else is."""
    job = job_of(
        checkpoint={"everySteps": 10},
        output={"uri": "/runs/a"},
        volumes=[{"name": "v", **volume}],
        volumeMounts=[{"name": "v", **mount}],
    )
    assert (rules_of(job) == []) is accepted


def test_a_relative_output_lies_in_the_working_folder() -> None:
    """`runs` is /workspace/runs in a pod: a volume mounted there holds it."""
    job = job_of(
        checkpoint={"everySteps": 10},
        output={"uri": "runs"},
        volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
        volumeMounts=[{"name": "v", "mountPath": "/workspace/runs"}],
    )
    assert rules_of(job) == []


def test_a_secret_is_not_repeated() -> None:
    """The refusal of a secret in plain text does not carry the secret into logs."""
    job = job_of(env=[{"name": "HF_TOKEN", "value": "hf_abcdefghijklmnop"}])
    (violation,) = resolve(job).violations
    assert violation.rule == "secret-by-reference"
    assert "hf_abc" not in str(violation.as_dict())


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "KEYBOARD", "XLA_FLAGS", "LIBTPU_INIT_ARGS"])
def test_ordinary_variables_are_no_secrets_and_not_reserved(name: str) -> None:
    """Names that only look a little like a secret's or like ours are let through."""
    assert rules_of(job_of(env=[{"name": name, "value": "yes"}])) == []


def test_what_is_reserved_is_what_the_renderer_sets() -> None:
    """The renderer's own volumes, folders, selectors and labels are those that a job may not set."""
    given = {podspec.RUN_CONFIG_VOLUME, podspec.CODE_VOLUME, podspec.PROGRESS_VOLUME}
    assert given | set(podspec.WRITABLE_FOLDERS) == podrules.VOLUME_NAMES
    assert {names.PROGRESS_FOLDER, *podspec.WRITABLE_FOLDERS.values()} == podrules.MOUNT_PATHS
    selectors = (podspec.ACCELERATOR, podspec.TOPOLOGY, podspec.SPOT, podspec.FLEX_START, podspec.QUEUED)
    for selector in (*selectors, *podspec.RESERVATION_PARTS.values()):
        assert selector.startswith(podrules.SELECTOR_PREFIXES)
    resolved = resolve(job_of()).resolved
    assert resolved is not None
    for label in podspec.own_labels(resolved.job, "0" * 8):
        assert label.startswith(podrules.LABEL_PREFIXES)


def test_no_key_stands_in_both_halves_of_spec() -> None:
    """The runner's tree and the cluster's part share no key."""
    assert not known_keys(RunnerConfig, Spelling.GRPOJOB).keys() & known_keys(ClusterSpec, Spelling.GRPOJOB).keys()


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["4x4", "Spot"])
)
keys = st.text(max_size=6) | st.sampled_from(
    [
        *JOB,
        *JOB["spec"],
        "name",
        "env",
        "volumes",
        "cpu",
        "capacity",
        "accelerator",
        "topology",
        "slices",
        "value",
        "labels",
    ]
)
trees = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(keys, below, max_size=4), max_leaves=24
)


@given(
    st.fixed_dictionaries({"kind": st.just(names.KIND)}, optional={"metadata": trees, "spec": trees, "status": trees})
)
@settings(max_examples=150, deadline=None)
def test_nothing_that_yaml_can_hold_raises(data: dict[str, Any]) -> None:
    """Any tree of values is judged without an exception, and told what is wrong with it."""
    outcome = resolve(read_job(data))
    assert outcome.violations
    assert all(violation.message for violation in outcome.violations)


@given(st.text(max_size=80))
@settings(max_examples=150, deadline=None)
def test_no_text_raises(text: str) -> None:
    """Any text is read as documents; none of these is a job."""
    assert all(document.job is None or resolve(document.job).violations for document in read_jobs(text, "fuzz"))


WHOLE = yaml.safe_load((Path(__file__).parent / "accepted" / "every-cluster-key.yaml").read_text(encoding="utf-8"))


@given(st.randoms(use_true_random=False), trees)
@settings(max_examples=150, deadline=None)
def test_a_job_with_one_value_replaced_is_judged(random: Any, value: Any) -> None:
    """Whatever stands in place of one value of a valid job, the job is judged, and no fault is told twice."""
    data = copy.deepcopy(WHOLE)
    below = data
    while True:
        key = random.choice(list(below) if isinstance(below, dict) else range(len(below)))
        if not isinstance(below[key], dict | list) or not below[key] or random.random() < 0.2:
            break
        below = below[key]
    below[key] = value
    violations = [str(violation) for violation in resolve(read_job(data)).violations]
    assert len(violations) == len(set(violations))
