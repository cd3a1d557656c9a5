"""The batch rules against an oracle that finds plans and healing values by search."""

import re

import pytest
from batch_asks import asks, fitting, missing
from batch_oracle import FIELDS, Ask, Verdict, heals, judge, nearest, placed
from hypothesis import assume, given

from trainer.contract.batch import BatchOutcome, resolve_batch
from trainer.contract.judgement import BatchRequest
from trainer.contract.violations import Spelling, Violation

LIMIT = 400
"""How far the oracle looks for a healing value."""

USE = re.compile(r"; use (\d+)(?: or (\d+))?$")


def resolve(ask: Ask) -> BatchOutcome:
    request = BatchRequest(
        processes=ask.P,
        devices_per_process=ask.L,
        hosts=ask.P // ask.slices,
        slices=ask.slices,
        mesh_shape="auto" if ask.sizes is None else ",".join(map(str, ask.sizes)),
        batch_size=ask.B,
        prompt_batch_size=ask.Q,
        per_device_batch_size=ask.D,
        num_pre_q=ask.K,
        padding="RoundUp" if ask.rounds else "Reject",
        micro_batch_size=ask.M,
        per_device_micro_batch_size=ask.m,
        grad_accum_steps=ask.A,
    )
    return resolve_batch(request, Spelling.RUNNER)


def suggested(violation: Violation) -> tuple[int, ...]:
    match = USE.search(violation.message)
    return tuple(int(text) for text in match.groups() if text) if match else ()


def numbers(verdict: Verdict, ask: Ask) -> dict[str, object]:
    assert verdict.local is not None
    assert verdict.Q is not None
    assert verdict.passes is not None
    return {
        "mesh": dict(zip(("dp", "fsdp", "tp"), placed(ask) or (), strict=True)),
        "group_size": ask.K,
        "sequences_per_step": verdict.local * ask.P,
        "prompts_per_step": verdict.Q * verdict.passes * ask.P,
        "prompts_per_pass_per_process": verdict.Q,
        "passes": verdict.passes,
        "sequences_per_process": verdict.local,
        "sequences_per_micro_step": verdict.M,
        "micro_steps": verdict.steps,
    }


@given(asks())
def test_a_request_breaks_exactly_the_rules_that_the_oracle_finds_broken(ask: Ask) -> None:
    """A refused request really breaks each rule that is named, none is left out, and each is named once."""
    outcome = resolve(ask)
    assert sorted(violation.rule for violation in outcome.violations) == sorted(judge(ask).broken)


@given(fitting(rounds=False))
def test_an_accepted_plan_satisfies_every_equation(ask: Ask) -> None:
    """An accepted plan has the requested batch, and whole groups, passes, rows and micro-steps."""
    plan = resolve(ask).plan
    assert plan is not None
    dp, fsdp, tp = plan.mesh.dp, plan.mesh.fsdp, plan.mesh.tp
    shards = ask.L // tp
    assert dp * fsdp * tp == ask.P * ask.L
    assert ask.B in (None, plan.sequences_per_step)
    assert plan.sequences_per_step == plan.prompts_per_step * ask.K == plan.sequences_per_process * ask.P
    assert plan.prompts_per_step == plan.passes * plan.prompts_per_pass_per_process * ask.P
    assert plan.prompts_per_pass_per_process * ask.K % shards == 0
    assert plan.sequences_per_process == plan.micro_steps * plan.sequences_per_micro_step
    assert plan.sequences_per_micro_step % shards == 0
    assert ask.A in (None, plan.micro_steps)


@given(missing(rounds=True))
def test_rounding_finds_the_smallest_plan(ask: Ask) -> None:
    """RoundUp yields the plan that trying all of them, smallest first, finds first: rows, then passes."""
    verdict, plan = judge(ask), resolve(ask).plan
    assume(not verdict.broken)
    assert plan is not None
    assert plan.model_dump(include=set(numbers(verdict, ask))) == numbers(verdict, ask)


@given(fitting(rounds=False))
def test_exact_requests_have_the_plan_of_the_oracle(ask: Ask) -> None:
    """Reject yields the one plan that the request describes, without a warning."""
    verdict, outcome = judge(ask), resolve(ask)
    assert outcome.plan is not None
    assert outcome.plan.model_dump(include=set(numbers(verdict, ask))) == numbers(verdict, ask)
    assert outcome.warnings == ()


@given(missing(rounds=True))
def test_every_rounded_number_has_a_warning_with_both_numbers(ask: Ask) -> None:
    """A number of the user that is not the effective one has a warning that names both, and no other number has."""
    outcome = resolve(ask)
    assume(outcome.plan is not None)
    assert outcome.plan is not None
    plan = outcome.plan
    effective = {
        "rollout.batch_size": (ask.B, plan.sequences_per_step),
        "rollout.prompt_batch_size": (ask.Q, plan.prompts_per_pass_per_process),
    }
    expected = {path: pair for path, pair in effective.items() if pair[0] is not None and pair[0] != pair[1]}
    assert {warning.path for warning in outcome.warnings} == set(expected)
    for warning in outcome.warnings:
        asked, rounded = expected[warning.path]
        assert warning.message.startswith(f"{asked} was rounded up to {rounded}")
        assert warning.value == asked


@given(asks())
def test_suggestions_are_the_nearest_healing_values(ask: Ask) -> None:
    """Where a value of the blamed field heals the rule and all that rest on it, the nearest on each side is named."""
    for violation in resolve(ask).violations:
        letter = FIELDS.get(violation.path)
        if letter is None or violation.rule in ("some-size", "one-prompt-size", "one-micro-size"):
            assert suggested(violation) == ()
            continue
        values = suggested(violation)
        below, above = nearest(ask, violation.rule, letter, LIMIT)
        if below is None and above is None:
            continue
        seen = max(LIMIT, getattr(ask, letter))
        assert tuple(value for value in values if value <= seen) == tuple(v for v in (below, above) if v is not None)
        assert all(heals(ask, violation.rule, letter, value) for value in values)


@given(missing())
def test_the_suggestion_for_the_only_violation_is_accepted(ask: Ask) -> None:
    """Where one rule alone is broken, each value that its fix names makes a valid job."""
    violations = resolve(ask).violations
    assume(len(violations) == 1)
    for value in suggested(violations[0]):
        healed = resolve(ask.having(FIELDS[violations[0].path], value))
        assert healed.violations == ()
        assert healed.plan is not None


@given(asks().filter(lambda ask: len(judge(ask).broken) > 1))
def test_a_rule_that_some_value_heals_has_a_suggestion(ask: Ask) -> None:
    """Beside other faults, a value that heals the named rule alone is suggested where none heals its consequences."""
    for violation in resolve(ask).violations:
        letter = FIELDS.get(violation.path)
        if letter is None or violation.rule in ("some-size", "one-prompt-size", "one-micro-size"):
            continue
        verdicts = (judge(ask.having(letter, value)) for value in range(1, 41))
        if any(violation.rule in verdict.ran - verdict.broken for verdict in verdicts):
            assert suggested(violation)


@pytest.mark.parametrize("rounds", [False, True])
def test_a_size_far_above_is_judged_in_no_time(rounds: bool) -> None:
    """The largest sizes get a verdict and suggestions as well: nothing is searched number by number."""
    ask = Ask(P=7, L=4, B=2**20 - 1, K=1021, M=4, A=999, rounds=rounds)
    violations = resolve(ask).violations
    assert [violation.rule for violation in violations] == ["batch-of-groups"]
