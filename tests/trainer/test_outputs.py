"""The run folder: whose it is, whether its run may go on as it is asked to, and what is written of that."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from launching import resolved
from recorded import recorded

from trainer import outputs
from trainer.contract.exits import ExitCode, RunError
from trainer.contract.process import ProcessConfig


def process_of(output: Path, *sets: str, attempt: int = 0) -> ProcessConfig:
    return ProcessConfig(
        resolved(Path("a/model"), Path("sums.jsonl"), output, 1, 2, *sets), "0123abcd", 0, None, attempt
    )


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The parent of a run folder with two completed steps of three."""
    recorded(tmp_path, "0123abcd", [{"step": 1}, {"step": 2}], {})
    return tmp_path


def refusal(process: ProcessConfig) -> str:
    with pytest.raises(RunError) as refused:
        outputs.refuse_changed(process, outputs.read_standing(process))
    assert refused.value.code is ExitCode.INVALID_CONFIG
    return refused.value.message


def test_another_configuration_is_refused_with_every_difference(output: Path) -> None:
    """The message names each path with both values, and the three ways on."""
    assert refusal(process_of(output, "seed=1", "optimizer.learning_rate=0.5", "checkpoint.keep=3")) == (
        f"output.uri: {output}/tiny-0123abcd holds this run, begun with another configuration:\n"
        "  seed: 0 -> 1\n"
        "  optimizer.learning_rate: 0.001 -> 0.5\n"
        "take this back, or use --new-run to start afresh, or checkpoint.init_from to begin with its weights"
    )


def test_fewer_steps_than_were_made_are_refused(output: Path) -> None:
    """A run does not go back; it may end where it is."""
    assert refusal(process_of(output, "steps=1")) == (
        "steps: 1 must be at least 2, which this run has reached; use 2 or more, or --new-run to start afresh"
    )
    outputs.refuse_changed(process_of(output, "steps=2"), outputs.read_standing(process_of(output)))


def test_what_is_free_is_accepted_and_recorded(output: Path) -> None:
    """Each attempt that changes something adds an entry: after which step, and both values."""
    for steps, keep in ((9, 2), (9, 2), (9, 5)):
        process = process_of(output, f"steps={steps}", f"checkpoint.keep={keep}")
        found = outputs.read_standing(process)
        outputs.refuse_changed(process, found)
        outputs.write_run_json(process, outputs.begun(process, found, "0123abc", {}))
    assert json.loads(Path(process.folder.run_json).read_text())["changes"] == [
        {"attempt": 0, "after_step": 2, "changed": {"steps": [3, 9]}},
        {"attempt": 0, "after_step": 2, "changed": {"checkpoint.keep": [2, 5]}},
    ]


def test_a_new_folder_holds_nothing_to_compare(tmp_path: Path) -> None:
    """A run that begins has no earlier configuration: nothing is refused, nothing recorded as changed."""
    process = process_of(tmp_path)
    outputs.refuse_changed(process, outputs.read_standing(process))
    assert outputs.begun(process, outputs.read_standing(process), None, {}) == outputs.Standing()


def test_a_run_that_starts_over_may_be_another(output: Path) -> None:
    """`checkpoint.resume: Never` forgets what the folder holds, once: a restart goes on from there."""
    process = process_of(output, "seed=1", "steps=1", "checkpoint.resume=Never")
    outputs.refuse_changed(process, outputs.read_standing(process))
    assert "seed: 0 -> 1" in refusal(replace(process, attempt=1))


def test_a_finished_run_is_done_until_it_is_to_go_further(output: Path) -> None:
    """Finished after three steps it is refused with three or fewer, and goes on with more."""
    process = process_of(output)
    outputs.write_run_json(process, replace(outputs.read_standing(process), finished=True))
    standing = outputs.read_standing(process)
    with pytest.raises(RunError, match="finished after 3 steps; use --new-run to start afresh, or more steps to go"):
        outputs.refuse_done(process, standing)
    outputs.refuse_done(process_of(output, "steps=4"), standing)
