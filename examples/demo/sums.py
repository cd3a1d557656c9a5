"""The demo's task: sums and differences worked place by place, and a pupil who works them carelessly.

In: seeds. Out: three disjoint sets of questions (pre-training, training, held out), right and careless workings.
Knows no model, no tokenizer and no JAX: the questions can be checked, and made again, by anyone with Python.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TRAIN_FILE = HERE / "data" / "train.jsonl"
HELD_OUT_FILE = HERE / "data" / "held_out.jsonl"

SPLIT_SEED = 20
HELD_OUT_QUESTIONS = 256
TRAIN_QUESTIONS = 2048
PRETRAIN_QUESTIONS = 30_000

ANSWERS_BELOW = 1000
"""So every right working fits into 32 tokens, the trainer's smallest bucket: one size of batch, one program."""

FORGETS_CARRY = 0.6
FORGETS_TAGS = 0.15

PHRASINGS = {
    "+": ("What is {a} + {b}?", "Add {b} to {a}.", "{a} + {b} = ?"),
    "-": ("What is {a} - {b}?", "Take {b} from {a}.", "{a} - {b} = ?"),
}


@dataclass(frozen=True, slots=True, order=True)
class Sum:
    """`a + b` or `a - b` with a >= b, so that no sum is there twice in two orders and no answer is negative."""

    operation: str
    a: int
    b: int

    @property
    def answer(self) -> int:
        return self.a + self.b if self.operation == "+" else self.a - self.b


def draw_sum(rng: random.Random) -> Sum:
    """One sum of two numbers with two or three digits each, and an answer with at most three."""
    while True:
        numbers = [rng.randrange(10, 100) if rng.random() < 0.3 else rng.randrange(100, 1000) for _ in range(2)]
        drawn = Sum(rng.choice("+-"), max(numbers), min(numbers))
        if drawn.answer < ANSWERS_BELOW:
            return drawn


def split_sums(seed: int = SPLIT_SEED) -> tuple[list[Sum], list[Sum], list[Sum]]:
    """Distinct sums cut into (held out, training, pre-training): no sum is in two of them, whatever its phrasing."""
    rng = random.Random(seed)
    distinct: dict[Sum, None] = {}
    while len(distinct) < HELD_OUT_QUESTIONS + TRAIN_QUESTIONS + PRETRAIN_QUESTIONS:
        distinct[draw_sum(rng)] = None
    sums = list(distinct)
    trained_from = HELD_OUT_QUESTIONS + TRAIN_QUESTIONS
    return sums[:HELD_OUT_QUESTIONS], sums[HELD_OUT_QUESTIONS:trained_from], sums[trained_from:]


def phrase(task: Sum, rng: random.Random) -> str:
    return rng.choice(PHRASINGS[task.operation]).format(a=task.a, b=task.b)


def work(task: Sum, rng: random.Random, forgets_carry: float = 0.0, forgets_tags: float = 0.0) -> str:
    """The working and the answer, from the ones upwards: `<think>7+5=12,4+8+1=13</think><answer>132</answer>`.

    Each carry (or borrow) is forgotten with one chance, the answer's tags with the other; with neither it is right.
    """
    steps, digits, carry = [], [], 0
    for place in range(len(str(task.a))):
        step, digit, carry = _work_place(task, place, carry)
        steps.append(step)
        digits.append(digit)
        if carry and rng.random() < forgets_carry:
            carry = 0
    if task.operation == "+":
        digits.append(carry)
    answer = sum(digit * 10**place for place, digit in enumerate(digits))
    tagged = str(answer) if rng.random() < forgets_tags else f"<answer>{answer}</answer>"
    return f"<think>{','.join(steps)}</think>{tagged}"


def _work_place(task: Sum, place: int, carry: int) -> tuple[str, int, int]:
    """One place of the working: its text, the digit that it leaves, and the carry that follows from it."""
    top, bottom = (number // 10**place % 10 for number in (task.a, task.b))
    carried = f"{task.operation}1" if carry else ""
    if task.operation == "+":
        total = top + bottom + carry
        return f"{top}+{bottom}{carried}={total}", total % 10, total // 10
    borrow = int(top < bottom + carry)
    left = top + 10 * borrow - bottom - carry
    return f"{top + 10 * borrow}-{bottom}{carried}={left}", left, borrow


def careless_examples(tasks: list[Sum], seed: int) -> Iterator[tuple[str, str]]:
    """(question, careless working) of each sum: what the demo's checkpoint is pre-trained on."""
    rng = random.Random(seed)
    for task in tasks:
        yield phrase(task, rng), work(task, rng, FORGETS_CARRY, FORGETS_TAGS)


def write_questions(path: Path, tasks: list[Sum], seed: int) -> None:
    """One JSON object a line, `question` and `answer`, as the trainer reads them."""
    rng = random.Random(seed)
    path.parent.mkdir(exist_ok=True)
    rows = [{"question": phrase(task, rng), "answer": str(task.answer)} for task in tasks]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    held_out, train, _ = split_sums()
    write_questions(HELD_OUT_FILE, held_out, SPLIT_SEED)
    write_questions(TRAIN_FILE, train, SPLIT_SEED + 1)
