"""The worked examples of the batch rules, number by number and word by word."""

from typing import Any

import pytest

from trainer.contract.batch import BatchOutcome, resolve_batch
from trainer.contract.judgement import BatchRequest, judge
from trainer.contract.violations import Spelling


def request(processes: int, devices: int, **fields: Any) -> BatchRequest:
    slices = fields.pop("slices", 1)
    machine = {"processes": processes, "devices_per_process": devices, "hosts": processes // slices, "slices": slices}
    return BatchRequest(**machine, **fields)


def resolve(processes: int, devices: int, **fields: Any) -> BatchOutcome:
    return resolve_batch(request(processes, devices, **fields), Spelling.GRPOJOB)


B128 = {"batch_size": 128, "num_pre_q": 8}


@pytest.mark.parametrize(
    ("processes", "devices", "fields", "expected"),
    [
        (1, 8, B128 | {"micro_batch_size": 16}, (128, 16, 1, 128, 16, 8)),
        (4, 4, B128 | {"micro_batch_size": 16}, (128, 4, 1, 32, 16, 2)),
        (8, 4, B128 | {"per_device_micro_batch_size": 4}, (128, 2, 1, 16, 16, 1)),
        (
            8,
            4,
            {"batch_size": 256, "per_device_batch_size": 1, "per_device_micro_batch_size": 2, "slices": 2},
            (256, 4, 1, 32, 8, 4),
        ),
        (2, 4, {"num_pre_q": 4, "per_device_batch_size": 2}, (64, 8, 1, 32, 32, 1)),
        (1, 8, {"batch_size": 256, "prompt_batch_size": 8, "micro_batch_size": 64}, (256, 8, 4, 256, 64, 4)),
        (4, 4, B128 | {"mesh_shape": "1,-1,4", "per_device_micro_batch_size": 1}, (128, 4, 1, 32, 4, 8)),
    ],
)
def test_worked_examples_that_fit(
    processes: int, devices: int, fields: dict[str, Any], expected: tuple[int, ...]
) -> None:
    """Each accepted row of the table yields B, Q, passes, local, micro size and micro-steps as written there."""
    outcome = resolve(processes, devices, **fields)
    plan = outcome.plan
    assert plan is not None
    assert (
        plan.sequences_per_step,
        plan.prompts_per_pass_per_process,
        plan.passes,
        plan.sequences_per_process,
        plan.sequences_per_micro_step,
        plan.micro_steps,
    ) == expected
    assert outcome.violations == outcome.warnings == ()


@pytest.mark.parametrize(
    ("processes", "devices", "fields", "lines"),
    [
        (
            16,
            4,
            B128 | {"micro_batch_size": 16},
            ["spec.train.microBatchSize: 16 must divide the 8 sequences of a process (1 prompt x numPreQ 8); use 8"],
        ),
        (
            1,
            8,
            B128 | {"prompt_batch_size": 6},
            [
                "spec.rollout.promptBatchSize: 6 must make whole passes of the 16 prompts of a step (batchSize 128 / "
                "numPreQ 8), which 6 does not divide; use 4 or 8"
            ],
        ),
        (
            1,
            8,
            {"batch_size": 100},
            [
                "spec.rollout.batchSize: 100 must be a multiple of numPreQ = 8 (each prompt has 8 completions); "
                "use 96 or 104"
            ],
        ),
        (
            3,
            4,
            B128,
            [
                "spec.rollout.batchSize: 128 must give every process as many prompts: 128 / numPreQ 8 = 16 prompts "
                "over 3 processes; use 120 or 144"
            ],
        ),
        (
            1,
            8,
            {"batch_size": 24, "num_pre_q": 3, "prompt_batch_size": 4},
            [
                "spec.rollout.promptBatchSize: 4 must fill every device alike: 4 prompts x numPreQ 3 = 12 rows over "
                "8 devices; use 8"
            ],
        ),
        (
            1,
            8,
            {"batch_size": 136, "micro_batch_size": 128},
            [
                "spec.train.microBatchSize: 128 must divide the 136 sequences of a process (17 prompts x numPreQ 8); "
                "use 8 or 136"
            ],
        ),
        (
            1,
            8,
            B128 | {"micro_batch_size": 12},
            [
                "spec.train.microBatchSize: 12 must divide the 128 sequences of a process (16 prompts x numPreQ 8); "
                "use 8 or 16",
                "spec.train.microBatchSize: 12 must be a multiple of the 8 devices of a process; use 8 or 16",
            ],
        ),
        (
            1,
            8,
            {"batch_size": 128, "num_pre_q": 1},
            [
                "spec.rollout.numPreQ: 1 leaves nothing to compare: an advantage is a completion against the others "
                "of its prompt, so at least 2; use 2"
            ],
        ),
        (
            1,
            8,
            {},
            [
                "spec.rollout.batchSize: null leaves the size of a step open, and no prompts per pass are given "
                "either; give batchSize or promptBatchSize"
            ],
        ),
    ],
)
def test_worked_examples_that_are_refused(
    processes: int, devices: int, fields: dict[str, Any], lines: list[str]
) -> None:
    """Each refused row of the table says value, rule with its arithmetic, and the values written there."""
    outcome = resolve(processes, devices, **fields)
    assert [str(violation) for violation in outcome.violations] == lines
    assert outcome.plan is None


@pytest.mark.parametrize(
    ("processes", "devices", "fields", "expected", "warnings"),
    [
        (
            1,
            8,
            B128 | {"prompt_batch_size": 6},
            (144, 6, 3),
            ["spec.rollout.batchSize: 128 was rounded up to 144: 3 passes of 6 prompts x 1 process x numPreQ 8"],
        ),
        (
            3,
            4,
            B128,
            (144, 6, 1),
            ["spec.rollout.batchSize: 128 was rounded up to 144: 1 pass of 6 prompts x 3 processes x numPreQ 8"],
        ),
        (
            1,
            8,
            {"batch_size": 24, "num_pre_q": 3, "prompt_batch_size": 4},
            (24, 8, 1),
            ["spec.rollout.promptBatchSize: 4 was rounded up to 8, so that its rows fill 8 devices alike"],
        ),
        (
            1,
            8,
            {"batch_size": 136, "micro_batch_size": 128},
            (256, 32, 1),
            ["spec.rollout.batchSize: 136 was rounded up to 256: 1 pass of 32 prompts x 1 process x numPreQ 8"],
        ),
    ],
)
def test_worked_examples_that_are_rounded(
    processes: int, devices: int, fields: dict[str, Any], expected: tuple[int, ...], warnings: list[str]
) -> None:
    """With RoundUp the refused rows yield the effective numbers written there, and a warning names each change."""
    outcome = resolve(processes, devices, padding="RoundUp", **fields)
    plan = outcome.plan
    assert plan is not None
    assert (plan.sequences_per_step, plan.prompts_per_pass_per_process, plan.passes) == expected
    assert [str(warning) for warning in outcome.warnings] == warnings


@pytest.mark.parametrize(
    ("processes", "devices", "fields", "known"),
    [
        (16, 4, B128 | {"micro_batch_size": 16}, (1, 8)),
        (1, 8, B128 | {"prompt_batch_size": 6}, (6, None)),
        (1, 8, {"batch_size": 100}, (None, None)),
        (3, 4, B128, (None, None)),
        (1, 8, {"batch_size": 136, "micro_batch_size": 128}, (17, 136)),
        (1, 8, B128 | {"micro_batch_size": 12}, (16, 128)),
    ],
)
def test_a_broken_rule_leaves_only_its_own_result_unknown(
    processes: int, devices: int, fields: dict[str, Any], known: tuple[int | None, int | None]
) -> None:
    """What a refused row still knows of Q and of the sequences of a process is what the table shows."""
    found = judge(request(processes, devices, **fields))
    assert (found.prompts, found.local) == known


def test_all_independent_faults_are_told_at_once() -> None:
    """A job that breaks a rule of the mesh, of the batch and of both double sizes hears of all four."""
    outcome = resolve(
        2,
        4,
        batch_size=100,
        prompt_batch_size=4,
        per_device_batch_size=1,
        micro_batch_size=4,
        per_device_micro_batch_size=1,
        mesh_shape="3,1,1",
    )
    rules = [violation.rule for violation in outcome.violations]
    assert rules == ["batch-of-groups", "one-prompt-size", "one-micro-size", "mesh"]


def test_a_derived_number_blames_the_field_that_it_came_from() -> None:
    """Rows that do not fill the devices blame batch_size where the prompts per pass were derived from it."""
    outcome = resolve(1, 8, batch_size=12, num_pre_q=3)
    assert [str(violation) for violation in outcome.violations] == [
        "spec.rollout.batchSize: 12 must fill every device of a process alike: 4 prompts x numPreQ 3 = 12 rows over "
        "8 devices; use 24"
    ]


def test_a_micro_batch_per_device_is_blamed_by_its_own_name() -> None:
    """A per-device size is suggested per device, with the devices in the arithmetic."""
    outcome = resolve(1, 8, batch_size=128, per_device_micro_batch_size=3)
    assert [str(violation) for violation in outcome.violations] == [
        "spec.train.perDeviceMicroBatchSize: 3 x 8 devices = 24 must divide the 128 sequences of a process "
        "(16 prompts x numPreQ 8); use 2 or 4"
    ]


def test_accumulation_beside_a_micro_size_has_one_right_value() -> None:
    """grad_accum_steps that contradicts batch and micro size is told the number that it must be."""
    outcome = resolve(1, 8, batch_size=128, micro_batch_size=16, grad_accum_steps=3)
    assert [str(violation) for violation in outcome.violations] == [
        "spec.train.gradAccumSteps: 3 must be 8: the 128 sequences of a process (16 prompts x numPreQ 8) / "
        "microBatchSize 16; use 8"
    ]


def test_accumulation_alone_divides_the_batch_into_parts_that_fill_the_devices() -> None:
    """grad_accum_steps without a micro size must leave every part whole on every device."""
    outcome = resolve(1, 8, batch_size=48, num_pre_q=8, grad_accum_steps=4)
    assert [str(violation) for violation in outcome.violations] == [
        "spec.train.gradAccumSteps: 4 must divide the 48 sequences of a process (6 prompts x numPreQ 8) into parts "
        "that fill 8 devices alike; use 3 or 6"
    ]


def test_what_no_number_heals_gets_a_fixed_sentence() -> None:
    """Where no value of the blamed field is legal, the fix says what else to change."""
    outcome = resolve(3, 4, batch_size=128, prompt_batch_size=4)
    assert [str(violation) for violation in outcome.violations] == [
        "spec.rollout.promptBatchSize: 4 must make whole passes of the 16 prompts of a step (batchSize 128 / numPreQ "
        "8), which 4 x 3 processes = 12 does not divide; no number of prompts fits: choose a batchSize that is a "
        "multiple of numPreQ x processes"
    ]


@pytest.mark.parametrize(
    ("shape", "slices", "line"),
    [
        ("2,3,1", 1, '"2,3,1" covers 6 devices, and dp x fsdp x tp must be the 8 devices (2 processes x 4)'),
        ("-1,-1,1", 1, '"-1,-1,1" must have three numbers of at least 1, of which at most one may be -1'),
        ("1,0,1", 1, '"1,0,1" must have three numbers of at least 1, of which at most one may be -1'),
        ("1,1,8", 1, '"1,1,8" has tp = 8, which must divide the 4 devices of a process'),
        ("3,-1,1", 1, '"3,-1,1" leaves no whole number for -1: 3 does not divide the 8 devices (2 processes x 4)'),
        ("dp:2,fsdp:4", 1, '"dp:2,fsdp:4" must be auto, or three whole numbers for dp, fsdp and tp'),
        ("1,-1,1", 2, '"1,-1,1" has dp = 1, which must be a multiple of the 2 slices: fsdp and tp stay inside a slice'),
    ],
)
def test_meshes_that_are_refused(shape: str, slices: int, line: str) -> None:
    """A mesh that does not cover the devices, or crosses processes or slices, is refused with its arithmetic."""
    outcome = resolve(2, 4, batch_size=128, mesh_shape=shape, slices=slices)
    messages = [violation.message.partition("; ")[0] for violation in outcome.violations]
    assert messages == [line]


@pytest.mark.parametrize(
    ("shape", "slices", "sizes"),
    [
        ("auto", 1, (1, 8, 1)),
        ("auto", 2, (2, 4, 1)),
        ("2,-1,1", 1, (2, 4, 1)),
        (" 1 , -1 , 4 ", 1, (1, 2, 4)),
        ("dp:2,fsdp:-1,tp:2", 1, (2, 2, 2)),
        ("tp:2,dp:-1,fsdp:1", 1, (4, 1, 2)),
    ],
)
def test_meshes_that_fit(shape: str, slices: int, sizes: tuple[int, int, int]) -> None:
    """The word auto is dp over slices and fsdp over the rest; -1 takes what is left; axes may be named in any order."""
    plan = resolve(2, 4, batch_size=128, mesh_shape=shape, slices=slices).plan
    assert plan is not None
    assert (plan.mesh.dp, plan.mesh.fsdp, plan.mesh.tp) == sizes
