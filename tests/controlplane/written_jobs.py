"""Jobs as users might write them: valid ones, each rule broken, several broken, and wild ones.

The numbers of the batch are those of tests/contract; the rest is a job with every key, in which values are replaced.
"""

import copy
import sys
from pathlib import Path
from typing import Any

import hypothesis
import yaml
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "contract"))  # `--import-mode=importlib` puts no test folder on the path

from batch_asks import asks, fitting  # noqa: E402 - see above
from batch_oracle import Ask  # noqa: E402

Job = dict[str, Any]

WHOLE: Job = yaml.safe_load((TESTS / "controller/accepted/every-cluster-key.yaml").read_text(encoding="utf-8"))
SPOILS: tuple[tuple[str, Any], ...] = (
    ("lifecycle", {"startupDeadlineSeconds": 20, "activeDeadlineSeconds": 10}),
    ("env", [{"name": "JAX_PLATFORMS", "value": "cpu"}]),
    ("env", [{"name": "HF_TOKEN", "value": "hf_abcdefghijkl"}, {"name": "A"}, {"name": "A", "valueFrom": {}}]),
    ("volumes", [{"name": "a"}, {"name": "scratch", "emptyDir": {}, "nfs": {"server": "s", "path": "/p"}}]),
    ("volumeMounts", [{"name": "zz", "mountPath": "/tmp"}]),
    ("envFrom", [{"prefix": "A_"}]),
    ("checkpoint", {"everySteps": 5}),
    ("rewardWeights", [1.0]),
    ("rewards", [{"weight": 2.0}, {"name": "tags", "python": "a.b:c"}]),
    ("algorithm", {"preset": "rloo", "advantage": "grpo"}),
    ("resources", {"limits": {"google.com/tpu": "4"}}),
    ("podLabels", {"jobset.sigs.k8s.io/x": "y", "_": "z"}),
    ("securityContext", {"profile": "Root", "runAsUser": 5}),
    ("code", {"configMap": "a", "sha256": "0" * 64}),
    ("code", {"uri": "gs://a/b"}),
    ("modelPath", None),
    ("modelPath", "Qwen/Qwen2.5-0.5B-Instruct"),
    ("tpu", {"accelerator": "tpu-v6e-slice", "topology": "3x3"}),
    ("tpu", {"accelerator": "tpu-v6e-slice", "topology": "2x4", "slices": 2}),
    ("cpu", None),
    ("steps", 0),
    ("steps", 8.5),
    ("steps", "8"),
    ("steps", True),
    ("step", 8),
    ("queue", {"localQueue": "team-a"}),
    ("exportt", {"when": "Never"}),
    ("output", {"uri": None}),
    ("meshShape", "1,2"),
    ("seed", -1),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(
        ["", "a", "8", "gs://a/b", "/x", "Never", "None", "A_b", "x" * 1100, "tpu-v5-lite-podslice", "2x4"]
    ),
    st.text(max_size=8),
    st.lists(st.one_of(st.none(), st.integers(0, 9), st.text(max_size=4)), max_size=3),
    st.dictionaries(
        st.sampled_from(["name", "value", "a", "a/b", "A B"]), st.none() | st.integers() | st.text(), max_size=3
    ),
)


def _number(draw: st.DrawFn, value: int | None) -> Any:
    """As the batch asks for it; a whole number may be written 8.0."""
    return value if value is None or draw(st.integers(0, 9)) else float(value)


@st.composite
def of_batch(draw: st.DrawFn, strategy: st.SearchStrategy[Ask]) -> Job:
    """A job on CPU hosts with the numbers of an `Ask`; what is not given is left out, or null."""
    ask = draw(strategy)
    rollout = {"batchSize": ask.B, "numPreQ": ask.K, "promptBatchSize": ask.Q, "perDeviceBatchSize": ask.D}
    train = {"microBatchSize": ask.M, "perDeviceMicroBatchSize": ask.m, "gradAccumSteps": ask.A}
    spec: Job = {"modelPath": "/models/m", "cpu": {"hosts": ask.P, "devicesPerHost": ask.L}}
    for section, fields in (("rollout", rollout), ("train", train)):
        spec[section] = {
            key: _number(draw, value) for key, value in fields.items() if value is not None or draw(st.booleans())
        }
    if ask.rounds:
        spec["rollout"]["padding"] = "RoundUp"
    if ask.sizes is not None:
        spec["meshShape"] = ",".join(map(str, ask.sizes))
    return {"apiVersion": "grpo.dev/v1alpha1", "kind": "GRPOJob", "metadata": {"name": "job"}, "spec": spec}


@st.composite
def spoilt(draw: st.DrawFn) -> Job:
    """A job of the batch with one to four keys that break rules of their own."""
    job = draw(of_batch(asks()))
    for key, value in draw(st.lists(st.sampled_from(SPOILS), min_size=1, max_size=4)):
        job["spec"][key] = copy.deepcopy(value)
    return job


@st.composite
def replaced(draw: st.DrawFn) -> Job:
    """The job with every key, one to three of its values replaced by anything."""
    job = copy.deepcopy(WHOLE)
    for _ in range(draw(st.integers(1, 3))):
        below: Any = job["spec"]
        while True:
            keys = sorted(below) if isinstance(below, dict) else range(len(below))
            key = draw(st.sampled_from(list(keys)))
            if not isinstance(below[key], dict | list) or not below[key] or not draw(st.integers(0, 4)):
                break
            below = below[key]
        below[key] = draw(VALUES)
    return job


def any_job() -> st.SearchStrategy[Job]:
    return st.one_of(of_batch(fitting()), of_batch(asks()), spoilt(), spoilt(), replaced(), replaced())


def written(count: int) -> list[Job]:
    """The same jobs for the same count, each with a name of its own."""
    found: list[Job] = []

    @hypothesis.seed(20260101)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(any_job())
    def collect(job: Job) -> None:
        found.append(job)

    collect()
    for number, job in enumerate(found):
        job["metadata"] = {**job["metadata"], "name": f"written-{number}"}
    return found
