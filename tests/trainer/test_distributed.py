"""Processes that agree: what one finds, all learn, bit for bit; a machine that is not the planned one is refused."""

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import pytest
from launching import free_port

from trainer.contract.batch import BatchPlan, Mesh
from trainer.contract.exits import ExitCode, RunError
from trainer.distributed import check_machine, explain, gather, together, unhurried

PLAN = BatchPlan(
    processes=2,
    devices_per_process=4,
    hosts=2,
    slices=1,
    mesh=Mesh(dp=1, fsdp=8, tp=1),
    group_size=4,
    sequences_per_step=32,
    prompts_per_step=8,
    prompts_per_pass_per_process=4,
    passes=1,
    sequences_per_process=16,
    sequences_per_micro_step=16,
    micro_steps=1,
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What two processes printed."""
    command = [sys.executable, str(Path(__file__).with_name("agreeing.py"))]
    rest, environ = (
        [str(free_port()), str(tmp_path_factory.mktemp("run"))],
        {**os.environ, "JAX_COMPILATION_CACHE_DIR": ""},
    )
    started = [
        subprocess.Popen([*command, str(index), *rest], stdout=subprocess.PIPE, text=True, env=environ)
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def test_values_cross_bit_for_bit(told: list[dict]) -> None:
    """64-bit numbers arrive whole, although JAX computes with 32, and all processes hold the same."""
    assert told[0]["gather"] == [[1 / 3, 1e300], [1 / 3 + 1, 1e300]]
    assert told[0]["max"] == 2**40 + 1
    assert told[0]["any"] == [True, False]
    assert told[0]["first"] == "process 0"
    for word in ("gather", "max", "any", "first"):
        assert told[0][word] == told[1][word]


def test_a_failure_of_one_process_is_raised_by_all(told: list[dict]) -> None:
    """The process that failed tells its own error, the other one that error with the number of the process."""
    assert [one["fine"] for one in told] == [["returned", "fine"]] * 2
    assert told[1]["one"] == [5, "data.train: no such file", True]
    assert told[0]["one"] == [5, "process 1: data.train: no such file", True]
    assert [one["both"] for one in told] == [[1, "ZeroDivisionError: both", True]] * 2


def test_what_takes_long_is_waited_for_by_meeting(told: list[dict]) -> None:
    """Each process gets its own result; the one that waits beats at every meeting, and the one at work does not."""
    assert [one["unhurried"] for one in told] == [[0, False], [1, True]]
    assert unhurried(lambda: 3) == 3


def test_a_program_that_one_process_kept_is_found_by_all(told: list[dict]) -> None:
    """What the first compiled and wrote, the other reads, and computes the same with it."""
    assert [one["found"] for one in told] == [[0, 14.0], [1, 14.0]]


def test_a_single_process_agrees_with_itself() -> None:
    """Without other processes the words mean the same."""
    assert together(lambda: 3) == 3
    assert gather(jax.numpy.arange(3).__array__()).tolist() == [[0, 1, 2]]
    with pytest.raises(RunError) as failed:
        together(lambda: 1 / 0)
    assert (failed.value.code, failed.value.message) == (ExitCode.FAILED, "ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({0: 4}, "the plan has 2 process(es) with 4 device(s) each, and JAX found 1 process(es)"),
        ({0: 4, 1: 8}, "the plan has 2 process(es) with 4 device(s) each, and JAX found 8 device(s) on process 1"),
    ],
)
def test_another_machine_than_the_planned_one_is_refused(found: dict[int, int], message: str) -> None:
    """Too few processes, or a process with other devices, end with exit code 4 before anything is built."""
    with pytest.raises(RunError) as refused:
        check_machine(PLAN, Counter(found), 0)
    assert (refused.value.code, refused.value.message) == (ExitCode.PLAN_DIFFERS, message)
    check_machine(PLAN, Counter({0: 4, 1: 4}), 0)


def test_a_full_disk_is_told_with_the_way_on() -> None:
    """Metrics, completions or answers that do not fit end the run; what to do stands in the message."""
    found = explain(OSError(errno.ENOSPC, "No space left on device", "/runs/a/metrics.jsonl"))
    assert (found.code, found.message) == (
        ExitCode.FAILED,
        "output.uri: the run folder cannot be written any more ([Errno 28] No space left on device: "
        "'/runs/a/metrics.jsonl'); free some space: a restart goes on from the newest checkpoint",
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), ExitCode.OUT_OF_MEMORY),
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed: Connection closed by peer"), ExitCode.PEER_LOST),
        (ValueError("UNKNOWN: Gloo AllGather failed: Read error: Connection reset by peer"), ExitCode.PEER_LOST),
        (jax.errors.JaxRuntimeError("INTERNAL: something else"), ExitCode.FAILED),
        (ValueError("heartbeat"), ExitCode.FAILED),
        (RunError(ExitCode.NON_FINITE, "NaN"), ExitCode.NON_FINITE),
    ],
)
def test_exceptions_have_a_class(error: Exception, code: ExitCode) -> None:
    """Memory, a lost peer and the trainer's own endings are told apart; all else is a failure."""
    assert explain(error).code is code
