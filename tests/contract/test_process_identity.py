"""Who a process is: run.json and the environment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.contract.exits import ExitCode
from trainer.contract.identity import identity
from trainer.contract.process import BadEnvironmentError, ProcessConfig
from trainer.contract.run import Machine, RunConfig, resolve_run
from trainer.contract.runner import parse_runner
from trainer.contract.violations import Spelling


def run(hosts: int, slices: int) -> RunConfig:
    data = {"model_path": "a/b", "rollout": {"per_device_batch_size": 1}}
    machine = Machine(hosts * slices, 4, hosts, slices, "tpu")
    resolved = resolve_run(parse_runner(data, Spelling.RUNNER), machine, "job", Spelling.RUNNER).run
    assert resolved is not None
    return resolved


POD = {
    "GRPO_RUN_ID": "0123abcd-0000",
    "GRPO_SLICE_INDEX": "1",
    "GRPO_HOST_INDEX": "2",
    "GRPO_COORDINATOR_ADDRESS": "job-slice-0-0.job:8482",
    "GRPO_ATTEMPT": "5",
}


def test_the_process_index_counts_hosts_slice_by_slice() -> None:
    """Process index = slice index x hosts per slice + host index."""
    process = ProcessConfig.from_environment(run(hosts=4, slices=2), POD)
    assert (process.process_index, process.slice_index, process.host_index) == (6, 1, 2)
    assert (process.attempt, process.coordinator) == (5, "job-slice-0-0.job:8482")
    assert process.folder.root == "runs/job-0123abcd"


def test_attempts_of_earlier_job_sets_come_first() -> None:
    """A JobSet that is made again counts from 0: with the number before it no attempt is taken for the first."""
    pod = POD | {"GRPO_ATTEMPT": "0", "GRPO_ATTEMPTS_BEFORE": "3"}
    assert ProcessConfig.from_environment(run(hosts=4, slices=2), pod).attempt == 3


def test_a_run_of_one_process_needs_no_variable() -> None:
    """Without an environment a single process is process 0 of attempt 0, named by the identity of its configuration."""
    config = run(hosts=1, slices=1)
    process = ProcessConfig.from_environment(config, {})
    assert (process.process_index, process.coordinator, process.attempt) == (0, None, 0)
    assert process.run_id == identity(config)[:8]
    assert process.folder.root == f"runs/job-{identity(config)[:8]}"


@given(st.integers(1, 5), st.integers(1, 3), st.data())
def test_the_environment_gives_the_process_back(hosts: int, slices: int, data: st.DataObject) -> None:
    """What a process writes for its environment is read as the same process."""
    config = run(hosts, slices)
    many = hosts * slices > 1
    process = ProcessConfig(
        run=config,
        run_id=data.draw(st.from_regex(r"[0-9a-f]{8}", fullmatch=True)),
        process_index=data.draw(st.integers(0, hosts * slices - 1)),
        coordinator="127.0.0.1:9000" if many else None,
        attempt=data.draw(st.integers(0, 1000)),
    )
    assert ProcessConfig.from_environment(config, process.to_environment()) == process


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"GRPO_HOST_INDEX": ""}, "GRPO_HOST_INDEX: is missing, and a run of several processes needs it"),
        ({"GRPO_HOST_INDEX": "4"}, 'GRPO_HOST_INDEX: "4" must be a whole number from 0 to 3'),
        ({"GRPO_SLICE_INDEX": "-1"}, 'GRPO_SLICE_INDEX: "-1" must be a whole number from 0 to 1'),
        ({"GRPO_SLICE_INDEX": "one"}, 'GRPO_SLICE_INDEX: "one" must be a whole number from 0 to 1'),
        ({"GRPO_ATTEMPT": "1.5"}, 'GRPO_ATTEMPT: "1.5" must be a whole number'),
        ({"GRPO_COORDINATOR_ADDRESS": ""}, "GRPO_COORDINATOR_ADDRESS: is missing, and a run of several processes"),
        ({"GRPO_COORDINATOR_ADDRESS": "host"}, 'GRPO_COORDINATOR_ADDRESS: "host" must be host:port'),
        ({"GRPO_COORDINATOR_ADDRESS": "host:0"}, 'GRPO_COORDINATOR_ADDRESS: "host:0" must be host:port'),
    ],
)
def test_a_bad_environment_names_the_variable(changes: dict[str, str], message: str) -> None:
    """A missing or wrong variable ends the process as an invalid configuration, and says which one and who sets it."""
    with pytest.raises(BadEnvironmentError) as caught:
        ProcessConfig.from_environment(run(hosts=4, slices=2), POD | changes)
    assert caught.value.code is ExitCode.INVALID_CONFIG
    assert caught.value.message.startswith(message)
    assert caught.value.message.endswith("; the JobSet and `grpoctl run` set it, so start the process by one of them")
