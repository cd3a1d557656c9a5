"""The demo's questions: disjoint, reproducible, and worked rightly where the pupil is not careless."""

import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.demo import sums
from examples.demo.sums import Sum

HELD_OUT, TRAIN, PRETRAIN = sums.split_sums()

NUMBERS = st.integers(10, 999)
SUMS = st.builds(lambda operation, a, b: Sum(operation, max(a, b), min(a, b)), st.sampled_from("+-"), NUMBERS, NUMBERS)


def read_sum(question: str) -> Sum:
    """The sum that a question asks for, whatever its words: read from the text alone."""
    a, b = sorted(map(int, re.findall(r"\d+", question)), reverse=True)
    return Sum("-" if "-" in question or "Take" in question else "+", a, b)


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_held_out_questions_are_in_neither_training_nor_pre_training():
    """No held-out sum is among the training or the pre-training sums, in any phrasing or order of its numbers."""
    held_out = {read_sum(row["question"]) for row in rows_of(sums.HELD_OUT_FILE)}
    train = {read_sum(row["question"]) for row in rows_of(sums.TRAIN_FILE)}
    pretrain = {read_sum(question) for question, _ in sums.careless_examples(PRETRAIN, seed=7)}
    assert len(held_out) == sums.HELD_OUT_QUESTIONS >= 200
    assert len(train) == sums.TRAIN_QUESTIONS
    assert len(pretrain) == sums.PRETRAIN_QUESTIONS
    assert not held_out & train
    assert not held_out & pretrain
    assert not train & pretrain


@pytest.mark.parametrize(("path", "tasks"), [(sums.HELD_OUT_FILE, HELD_OUT), (sums.TRAIN_FILE, TRAIN)])
def test_committed_questions_are_those_of_the_script(path, tasks):
    """The committed files hold the sums that the script draws, each with its right answer."""
    rows = rows_of(path)
    assert [read_sum(row["question"]) for row in rows] == tasks
    for row in rows:
        a, b = sorted(map(int, re.findall(r"\d+", row["question"])), reverse=True)
        subtracts = "-" in row["question"] or "Take" in row["question"]
        assert row["answer"] == str(a - b if subtracts else a + b)


def test_writing_the_questions_again_gives_the_committed_bytes(tmp_path):
    """`python -m examples.demo.sums` changes nothing."""
    sums.write_questions(tmp_path / "held_out.jsonl", HELD_OUT, sums.SPLIT_SEED)
    assert (tmp_path / "held_out.jsonl").read_bytes() == sums.HELD_OUT_FILE.read_bytes()


@given(SUMS)
def test_careful_working_ends_in_the_right_answer(task):
    """A pupil who forgets nothing gets every sum right, and each step of the working is true."""
    working = sums.work(task, random.Random(0))
    assert working.endswith(f"</think><answer>{task.answer}</answer>")
    steps = re.fullmatch(r"<think>(.*)</think>.*", working)
    for step in steps[1].split(","):
        left, right = step.split("=")
        assert eval(left) == int(right)  # noqa: S307 - digits, + and - only


@given(SUMS)
def test_a_sum_without_a_carry_is_right_however_careless_the_pupil(task):
    """Only carries are forgotten: where the careful working has none, the careless one is the same."""
    careful = sums.work(task, random.Random(0))
    careless = sums.work(task, random.Random(0), forgets_carry=1.0)
    steps_with_a_carry = re.findall(r"\d+[+-]\d+[+-]1=", careful)
    grows = len(str(task.answer)) > len(str(task.a))
    assert (careless == careful) is (not steps_with_a_carry and not grows)


@pytest.mark.parametrize(
    ("task", "careful", "careless"),
    [
        (
            Sum("+", 464, 416),
            "<think>4+6=10,6+1+1=8,4+4=8</think><answer>880</answer>",
            "<think>4+6=10,6+1=7,4+4=8</think><answer>870</answer>",
        ),
        (
            Sum("+", 680, 602),
            "<think>0+2=2,8+0=8,6+6=12</think><answer>1282</answer>",
            "<think>0+2=2,8+0=8,6+6=12</think><answer>282</answer>",
        ),
        (
            Sum("-", 941, 62),
            "<think>11-2=9,14-6-1=7,9-0-1=8</think><answer>879</answer>",
            "<think>11-2=9,14-6=8,9-0=9</think><answer>989</answer>",
        ),
    ],
)
def test_workings_by_hand(task, careful, careless):
    """Three sums worked by hand, with every carry kept and with every carry forgotten."""
    assert sums.work(task, random.Random(0)) == careful
    assert sums.work(task, random.Random(0), forgets_carry=1.0) == careless
