"""The questions of examples/smollm2: disjoint, right, and those of the script."""

import json
import re

from examples.smollm2.questions import HELD_OUT_FILE, SHOWN, TRAIN_FILE, split_pairs, text_of


def pairs_of(text: str) -> set[tuple[int, ...]]:
    rows = [json.loads(line) for line in text.splitlines()]
    numbers = [tuple(map(int, re.findall(r"\d+", row["question"]))) for row in rows]
    assert [int(row["answer"]) for row in rows] == [a + b for a, b in numbers]
    return {tuple(sorted(pair)) for pair in numbers}


def test_no_sum_is_on_both_sides_or_shown() -> None:
    """Held-out sums are never trained on, in either order, and the example of the prompt is asked nowhere."""
    train, held_out = pairs_of(TRAIN_FILE.read_text()), pairs_of(HELD_OUT_FILE.read_text())
    assert not train & held_out
    assert SHOWN not in train | held_out
    assert len(train | held_out) == 24 * 25 // 2 - 1


def test_the_script_writes_the_committed_files() -> None:
    """`python -m examples.smollm2.questions` changes nothing."""
    assert tuple(map(text_of, split_pairs())) == (TRAIN_FILE.read_text(), HELD_OUT_FILE.read_text())
