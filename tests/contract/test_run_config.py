"""The resolved run: what it holds, and its JSON there and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trainer.contract.exits import ExitCode
from trainer.contract.run import InvalidRunConfigError, Machine, RunConfig, UnreadableVersionError, resolve_run
from trainer.contract.runner import parse_runner
from trainer.contract.violations import Spelling


def resolved(kind: Any = "tpu", **data: Any) -> RunConfig:
    parsed = parse_runner({"model_path": "a/b", "rollout": {"batch_size": 128}} | data, Spelling.RUNNER)
    run = resolve_run(parsed, Machine(4, 4, 4, 1, kind), "job", Spelling.RUNNER).run
    assert run is not None
    return run


def test_nothing_is_left_to_decide() -> None:
    """Defaults, preset and machine are resolved: precision by device, the preset's numbers, weights, the output."""
    run = resolved(reward_weights=[1, 2, 3], algorithm={"epsilon_high": 0.3})
    assert run.schema_version == 1
    assert (run.precision.params, run.precision.compute, run.precision.remat) == ("float32", "bfloat16", "layer")
    assert resolved("cpu").precision.compute == "float32"
    assert resolved("cpu", precision={"compute": "bfloat16"}).precision.compute == "bfloat16"
    algorithm = run.algorithm
    assert (algorithm.advantage, algorithm.aggregation, algorithm.beta) == ("grpo", "token-mean", 0.0)
    assert (algorithm.epsilon_low, algorithm.epsilon_high) == (0.2, 0.3)
    assert [(reward.name, reward.weight) for reward in run.rewards] == [("correct", 1), ("format", 2), ("tags", 3)]
    assert (run.output_uri, resolved(output={"uri": "/data"}).output_uri) == ("runs", "/data")
    assert (run.batch.sequences_per_step, run.batch.prompts_per_pass_per_process) == (128, 4)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    args=st.dictionaries(st.text(max_size=8), JSON, max_size=3),
    rate=st.floats(min_value=1e-300, max_value=10.0),
    weight=st.floats(allow_nan=False, allow_infinity=False),
    prompt=st.none() | st.text(),
    seed=st.integers(0, 2**32 - 1),
    rounds=st.booleans(),
)
def test_json_there_and_back_is_the_identity(
    args: dict[str, Any], rate: float, weight: float, prompt: str | None, seed: int, rounds: bool
) -> None:
    """A RunConfig read from its own JSON is equal to it, and writes the same bytes."""
    run = resolved(
        seed=seed,
        optimizer={"learning_rate": rate, "clip_norm": 0.0},
        data={"system_prompt": prompt},
        rewards=[{"python": "a.b:c", "args": args, "weight": weight}],
        rollout={"batch_size": 120 if rounds else 128, "padding": "RoundUp"},
    )
    again = RunConfig.from_json(run.to_json())
    assert again == run
    assert again.to_json() == run.to_json()


def test_a_run_config_cannot_be_changed() -> None:
    """Every part of a RunConfig is frozen."""
    run = resolved()
    with pytest.raises(ValidationError):
        run.steps = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        run.batch.mesh.tp = 2  # type: ignore[misc]


def edited(**changes: Any) -> str:
    """run.json with values put at dotted paths; `...` removes a key."""
    data = json.loads(resolved().to_json())
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = data
        for parent in parents:
            section = section[parent]
        if value is ...:
            del section[last]
        else:
            section[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "colour: is not a known key; remove it"),
        ({"batch__colour": 1}, "batch.colour: is not a known key; remove it"),
        ({"data__promptField": "q"}, "data.promptField: is not a known key; remove it"),
        ({"steps": "5"}, 'steps: "5" must be a whole number, not text; write it without quotes'),
        ({"steps": 5.5}, "steps: 5.5 must be a whole number; leave the fraction out"),
        ({"model_path": ...}, "model_path: is required; give a value"),
        ({"schema_version": ...}, "schema_version: is required; give a value"),
        ({"schema_version": "1"}, 'schema_version: "1" must be one of 1; did you mean 1?'),
    ],
)
def test_a_run_json_that_is_not_as_written_is_refused(changes: dict[str, Any], message: str) -> None:
    """Unknown, missing and mistyped fields of run.json end the process as an invalid configuration, told by path."""
    with pytest.raises(InvalidRunConfigError) as caught:
        RunConfig.from_json(edited(**changes))
    assert caught.value.code is ExitCode.INVALID_CONFIG
    assert caught.value.message == message


def test_a_plan_that_contradicts_itself_is_refused() -> None:
    """A batch edited by hand does not pass: the plan carries its own proof."""
    for changes in ({"batch__passes": 2}, {"batch__micro_steps": 3}, {"batch__mesh": {"dp": 2, "fsdp": 16, "tp": 1}}):
        with pytest.raises(InvalidRunConfigError, match="numbers of the batch plan contradict each other"):
            RunConfig.from_json(edited(**changes))


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_contract_version_is_an_error_of_its_own(version: int) -> None:
    """A run.json of a version that is not read ends with the exit code for it, whatever else it holds."""
    with pytest.raises(UnreadableVersionError) as caught:
        RunConfig.from_json(edited(schema_version=version, colour=1))
    assert caught.value.code is ExitCode.CONTRACT_VERSION
    assert caught.value.message == (
        f"schema_version: {version} must be one that this trainer reads, which is 1; "
        "use the trainer image of the version that rendered the job"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", "[" * 100_000])
def test_text_that_is_no_run_json_is_refused(text: str) -> None:
    """Whatever the file holds, it is an invalid configuration and no traceback."""
    with pytest.raises(InvalidRunConfigError):
        RunConfig.from_json(text)
