"""A runner YAML with `--set` laid over it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.contract.run import Machine, resolve_run
from trainer.contract.runner import RunnerConfig, dump_yaml, merge
from trainer.contract.violations import Spelling


def lines(text: str | None, *sets: str) -> list[str]:
    return [str(violation) for violation in merge(text, sets, "run.yaml").violations]


def test_without_a_file_the_tree_is_the_defaults() -> None:
    """No file and no assignment give every default, with no model."""
    parsed = merge(None, [])
    assert (parsed.config, parsed.violations) == (RunnerConfig(), ())
    assert parsed.config.model_path is None


def test_assignments_lie_over_the_file_and_later_ones_over_earlier() -> None:
    """--set wins over the file, the last one over the others, and sections that are absent are made."""
    text = "steps: 5\nrollout: {batch_size: 8}\n"
    parsed = merge(text, ["steps=6", "steps=7", "train.beta=0", "rollout.num_pre_q=4", "optimizer.learning_rate=1e-6"])
    assert parsed.violations == ()
    config = parsed.config
    assert (config.steps, config.rollout.batch_size, config.rollout.num_pre_q) == (7, 8, 4)
    assert config.optimizer.learning_rate == 1e-6


@pytest.mark.parametrize(
    ("written", "mesh"), [("1,-1,4", "1,-1,4"), ("'auto'", "auto"), ("dp:1,fsdp:-1,tp:1", "dp:1,fsdp:-1,tp:1")]
)
def test_an_assigned_value_is_read_as_yaml(written: str, mesh: str) -> None:
    """A value is what it would be in the file; what stands behind the first = belongs to it."""
    assert merge(None, [f"mesh_shape={written}"]).config.mesh_shape == mesh
    assert merge(None, ["data.prompt_template={{ question }} = ?"]).config.data.prompt_template is None
    assert (
        merge(None, ["data.prompt_template='{{ question }} = ?'"]).config.data.prompt_template == "{{ question }} = ?"
    )
    assert merge(None, ["rewards=[{name: tags}]"]).config.rewards[0].name == "tags"
    assert merge("steps: 5", ["steps="]).config.steps == 100


def test_an_error_of_an_assigned_value_says_where_it_came_from() -> None:
    """A refused value, an unknown key and a broken batch rule name --set where the value was set there."""
    assert lines("steps: 5", "steps=x") == [
        'steps: "x" must be a whole number, not text; use a whole number (the value came from --set)'
    ]
    assert lines(None, "a.b=1") == [
        'a: "a" is not a key of the configuration; correct or remove it (the value came from --set)'
    ]
    parsed = merge("model_path: a/b\ntrain: {micro_batch_size: 12}", ["rollout.batch_size=100"])
    found = resolve_run(parsed, Machine(1, 8, 1, 1, "cpu"), "x", Spelling.RUNNER).violations
    assert [str(violation) for violation in found] == [
        "rollout.batch_size: 100 must be a multiple of num_pre_q = 8 (each prompt has 8 completions); use 96 or 120 "
        "(the value came from --set)",
        "train.micro_batch_size: 12 must be a multiple of the 8 devices of a process; use 8 or 16",
    ]


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("steps", '--set: "steps" must be path=value; write --set a.b=c'),
        ("=5", '--set: "=5" must be path=value; write --set a.b=c'),
        ("a..b=5", '--set: "a..b=5" must be path=value; write --set a.b=c'),
        ("steps.x=1", '--set: "steps.x=1" goes below steps, which is no mapping; set steps as a whole'),
        ("a=[", "--set a:2:1: not YAML: did not find expected node content; correct the file at this place"),
    ],
)
def test_an_assignment_that_cannot_be_laid_is_refused(assignment: str, line: str) -> None:
    """An assignment without path or value, or below a scalar, is one violation that repeats it."""
    assert lines("steps: 5", assignment) == [line]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- 1\n", "run.yaml holds [1], and a configuration is a mapping; write `key: value` lines"),
        ("steps: 1\n---\nsteps: 2\n", "run.yaml holds 2 documents; keep one"),
        ("steps: 1\nsteps: 2\n", 'steps: run.yaml:2:1: "steps" stands on line 1 already; keep one of them'),
        ("a: [\n", "run.yaml:2:1: not YAML: did not find expected node content; correct the file at this place"),
    ],
)
def test_a_file_that_cannot_be_read_asks_nothing_else(text: str, line: str) -> None:
    """After a fault of the file as a whole no rule speaks of values that may stand in it."""
    parsed = merge(text, [], "run.yaml")
    found = resolve_run(parsed, Machine(1, 8, 1, 1, "cpu"), "x", Spelling.RUNNER).violations
    assert [str(violation) for violation in found] == [line]


@given(
    prompt=st.none() | st.text(),
    rate=st.floats(min_value=1e-300, max_value=10.0),
    batch=st.none() | st.integers(1, 2**20),
    mesh=st.sampled_from(["auto", "1,-1,1", "yes", "8", "dp:1,fsdp:-1,tp:1"]),
    fields=st.text("yn~0123456789.e:-", min_size=1, max_size=6),
)
def test_the_printed_tree_reads_back_as_itself(
    prompt: str | None, rate: float, batch: int | None, mesh: str, fields: str
) -> None:
    """The YAML of a tree, in ASCII, gives the same tree, also for words that YAML would take for something else."""
    config = RunnerConfig.model_validate(
        {
            "mesh_shape": mesh,
            "data": {"system_prompt": prompt, "prompt_field": fields},
            "optimizer": {"learning_rate": rate},
            "rollout": {"batch_size": batch},
        }
    )
    text = dump_yaml(config)
    assert text.isascii()
    assert merge(text, []).config == config


def test_a_tree_with_reward_weights_can_be_printed_and_read_again() -> None:
    """The shorthand for weights is written into the rewards too, so that both agree when read again."""
    config = merge("reward_weights: [3, 2, 1]", []).config
    parsed = merge("model_path: a/b\nrollout: {batch_size: 8}\n", [f"reward_weights={[3, 2, 1]}"])
    again = merge(dump_yaml(config), ["model_path=a/b", "rollout.batch_size=8"])
    machine = Machine(1, 1, 1, 1, "cpu")
    run = resolve_run(parsed, machine, "x", Spelling.RUNNER).run
    assert run is not None
    assert resolve_run(again, machine, "x", Spelling.RUNNER).run == run
