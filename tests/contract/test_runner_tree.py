"""Reading the runner's tree in both spellings: types, ranges, unknown keys, and what a refused key leaves unknown."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.contract.run import Machine, resolve_run
from trainer.contract.runner import RunnerConfig, parse_runner
from trainer.contract.violations import Spelling

MACHINE = Machine(1, 8, 1, 1, "tpu")
VALID = {"model_path": "org/model", "rollout": {"batch_size": 128}}


def lines(data: Any, spelling: Spelling = Spelling.RUNNER) -> list[str]:
    return [
        str(violation) for violation in resolve_run(parse_runner(data, spelling), MACHINE, "x", spelling).violations
    ]


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"rollout": {"batch_size": "128"}}, 'rollout.batch_size: "128" must be a whole number, not text; write it '),
        (
            {"rollout": {"num_pre_q": True}},
            "rollout.num_pre_q: true must be a whole number, not a boolean; use a whole ",
        ),
        ({"rollout": {"temperature": "hot"}}, 'rollout.temperature: "hot" must be a number, not text; use a number'),
        ({"rollout": {"temperature": True}}, "rollout.temperature: true must be a number, not a boolean; use a number"),
        ({"rollout": 5}, "rollout: 5 must be a mapping, not a number; use a mapping"),
        ({"model_path": 5}, "model_path: 5 must be text, not a number; put it in quotes"),
        ({"mesh_shape": [1, -1, 1]}, "mesh_shape: [1, -1, 1] must be text, not a list; use text"),
        ({"rollout": {"padding": 1}}, "rollout.padding: 1 must be one of Reject, RoundUp; use one of these words"),
        ({"rewards": "correct"}, 'rewards: "correct" must be a list, not text; use a list'),
        ({"steps": 2.5}, "steps: 2.5 must be a whole number; leave the fraction out"),
    ],
)
def test_values_of_the_wrong_type_are_refused(section: dict[str, Any], line: str) -> None:
    """Strings and booleans are never numbers, and each error says what the value is and what it must be."""
    (told,) = [told for told in lines(VALID | section) if "must be" in told]
    assert told.startswith(line)


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"rollout": {"num_pre_q": 2000}}, "rollout.num_pre_q: 2000 must be at most 1024; use 1024"),
        ({"steps": 0}, "steps: 0 must be at least 1; use 1"),
        ({"seed": -1}, "seed: -1 must be at least 0; use 0"),
        ({"seed": 2**32}, "seed: 4294967296 must be at most 4294967295; use 4294967295"),
        ({"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate: 0 must be above 0; use a number above 0"),
        (
            {"rollout": {"padding": "roundup"}},
            'rollout.padding: "roundup" must be one of Reject, RoundUp; did you mean ',
        ),
        ({"rewards": []}, "rewards: [] must have at least 1 entry; add one, or leave the key out"),
        ({"model_path": ""}, 'model_path: "" must not be empty; write some text, or leave the key out'),
        (
            {"optimizer": {"weight_decay": float("inf")}},
            "optimizer.weight_decay: Infinity must be finite; use a number",
        ),
        ({"rewards": [{"name": "length"}]}, 'rewards[0].name: "length" must be one of correct, format, tags; use one '),
        ({"rewards": [{"python": "a.b"}]}, 'rewards[0].python: "a.b" must be package.module:function; write it so'),
    ],
)
def test_values_out_of_range_are_refused(section: dict[str, Any], line: str) -> None:
    """A number out of bounds is told the bound, a word that is none of the choices the nearest choice."""
    (told,) = [told for told in lines(VALID | section) if not told.startswith("rollout.batch_size")]
    assert told.startswith(line)


def test_a_batch_number_out_of_range_is_told_a_value_that_every_rule_accepts() -> None:
    """The fix of a range error in the batch is not the bound, but the nearest number that makes a valid job."""
    assert lines({"model_path": "a/b", "rollout": {"batch_size": 0}}) == [
        "rollout.batch_size: 0 must be at least 1; use 8"
    ]
    assert lines({"model_path": "a/b", "rollout": {"batch_size": 100.5}}) == [
        "rollout.batch_size: 100.5 must be a whole number; use 96 or 104"
    ]
    assert lines(VALID | {"train": {"micro_batch_size": 10**9}}) == [
        "train.micro_batch_size: 1000000000 must be at most 1048576; use 128"
    ]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            {"rollout": {"batchsize": 8}},
            'rollout.batchsize: "batchsize" is not a key of rollout; did you mean batch_size?',
        ),
        (
            {"rollout": {"batchSize": 8}},
            'rollout.batchSize: "batchSize" is not a key of rollout; did you mean batch_size?',
        ),
        ({"beta": 0.1}, 'beta: "beta" is not a key of the configuration; did you mean train.beta?'),
        ({"zzz": 1}, 'zzz: "zzz" is not a key of the configuration; correct or remove it'),
        ({"output": {"zzz": 1}}, 'output.zzz: "zzz" is not a key of output; the keys here are uri'),
        (
            {"train": {"max_length_total": 1024}},
            "train.max_length_total: did nothing in the original runner: prompts are bounded by rollout.global_length "
            "and completions by rollout.max_length_sample; remove it",
        ),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest_known_key(data: dict[str, Any], line: str) -> None:
    """A typo, the other spelling, a key of another section and a dead key of the original runner each get their fix."""
    assert line in lines(data)


def test_a_grpojob_speaks_camel_case_only() -> None:
    """In a GRPOJob's spec the same tree is camelCase, in keys and in every message."""
    spec = {"modelPath": "a/b", "rollout": {"batchSize": 100}}
    assert lines(spec, Spelling.GRPOJOB) == [
        "spec.rollout.batchSize: 100 must be a multiple of numPreQ = 8 (each prompt has 8 completions); use 96 or 104"
    ]
    assert lines(spec | {"mesh_shape": "auto"}, Spelling.GRPOJOB)[1] == (
        'spec.mesh_shape: "mesh_shape" is not a key of spec; did you mean meshShape?'
    )


def test_whole_floats_are_whole_numbers_and_lists_are_tuples() -> None:
    """The API server stores 8 as 8.0, and YAML has lists: both are taken as meant."""
    parsed = parse_runner({"rollout": {"batch_size": 64.0}, "rewards": [{"name": "correct"}]}, Spelling.RUNNER)
    assert parsed.violations == ()
    assert parsed.config.rollout.batch_size == 64
    assert type(parsed.config.rollout.batch_size) is int
    assert [reward.name for reward in parsed.config.rewards] == ["correct"]


def test_null_is_the_same_as_absent() -> None:
    """A null leaves the default, at every level of the tree, also where the default is not null."""
    data = {"steps": None, "rollout": {"num_pre_q": None, "batch_size": None}, "train": None, "rewards": None}
    assert parse_runner(data, Spelling.RUNNER).config == RunnerConfig()
    assert parse_runner(None, Spelling.RUNNER).config == RunnerConfig()


def test_a_refused_key_is_not_known_to_later_rules() -> None:
    """No rule draws conclusions from a value that was refused, and those that do not need it still run."""
    data = {"model_path": "a/b", "rollout": {"batch_size": "x", "num_pre_q": 1}, "mesh_shape": "3,1,1"}
    parsed = parse_runner(data, Spelling.RUNNER)
    assert parsed.unknown == {"rollout.batch_size"}
    found = resolve_run(parsed, MACHINE, "x", Spelling.RUNNER).violations
    assert [violation.rule for violation in found] == ["type", "group", "mesh"]


def test_a_refused_section_is_not_known_as_a_whole() -> None:
    """Where a section is no mapping, nothing in it is known, and no rule asks for what it might have held."""
    parsed = parse_runner({"model_path": "a/b", "rollout": [1]}, Spelling.RUNNER)
    assert not parsed.knows("rollout.batch_size")
    assert [found.rule for found in resolve_run(parsed, MACHINE, "x", Spelling.RUNNER).violations] == ["type"]


@pytest.mark.parametrize("data", [5, "text", [1], True])
def test_a_tree_that_is_no_mapping_is_one_violation(data: Any) -> None:
    """A document that is a list or a scalar is told so, and nothing else is asked of it."""
    found = resolve_run(parse_runner(data, Spelling.RUNNER), MACHINE, "x", Spelling.RUNNER).violations
    assert [violation.rule for violation in found] == ["type"]


def test_violations_follow_the_schema_and_unknown_keys_end_their_section() -> None:
    """The order is that of the schema: sections in turn, then the unknown keys of a section by name."""
    data = {
        "zz": 1,
        "train": {"b": 1, "a": 1, "micro_batch_size": "x"},
        "rollout": {"num_pre_q": "x", "batch_size": "x"},
        "steps": 0,
    }
    assert [line.partition(":")[0] for line in lines(data)] == [
        "model_path",
        "steps",
        "rollout.batch_size",
        "rollout.num_pre_q",
        "train.micro_batch_size",
        "train.a",
        "train.b",
        "zz",
    ]


def _shuffled(data: Any, order: random.Random) -> Any:
    if not isinstance(data, dict):
        return data
    keys = list(data)
    order.shuffle(keys)
    return {key: _shuffled(data[key], order) for key in keys}


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 300), st.floats(0, 20), st.text(max_size=4), st.just([1]))


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    """Trees with some keys known and some not, and values of every kind."""
    rollout = ["batch_size", "prompt_batch_size", "per_device_batch_size", "num_pre_q", "padding", "stop", "typo"]
    train = ["micro_batch_size", "grad_accum_steps", "beta", "max_length_total"]
    tops = ["model_path", "steps", "mesh_shape", "lora", "reward_weights", "nonsense"]
    tree: dict[str, Any] = draw(st.dictionaries(st.sampled_from(tops), VALUES, max_size=4))
    numbers = st.one_of(st.integers(1, 64).map(lambda n: n * 4), VALUES)
    tree["rollout"] = draw(st.one_of(st.dictionaries(st.sampled_from(rollout), numbers, max_size=5), VALUES))
    tree["train"] = draw(st.dictionaries(st.sampled_from(train), numbers, max_size=3))
    return tree


@given(trees(), st.integers())
def test_the_verdict_does_not_depend_on_the_order_of_keys(tree: dict[str, Any], seed: int) -> None:
    """Whatever a tree holds, reading raises nothing, and shuffled keys give the same answer in the same order."""
    first = resolve_run(parse_runner(tree, Spelling.RUNNER), MACHINE, "x", Spelling.RUNNER)
    again = parse_runner(_shuffled(tree, random.Random(seed)), Spelling.RUNNER)
    assert resolve_run(again, MACHINE, "x", Spelling.RUNNER) == first
    assert (first.run is None) == bool(first.violations)
