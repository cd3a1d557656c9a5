"""The questions of this example: sums of two numbers below 25, cut into a training and a held-out part.

python -m examples.smollm2.questions        # writes data/train.jsonl and data/held_out.jsonl
"""

import json
import random
from itertools import combinations_with_replacement
from pathlib import Path

HERE = Path(__file__).parent
TRAIN_FILE = HERE / "data" / "train.jsonl"
HELD_OUT_FILE = HERE / "data" / "held_out.jsonl"

LARGEST = 24
HELD_OUT_PAIRS = 70
SHOWN = (9, 15)
"""The worked example of the job's prompt template: asked nowhere."""


def split_pairs(seed: int = 0) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(training, held out): both orders of a pair are on the same side, so no held-out sum was ever trained on."""
    pairs = [pair for pair in combinations_with_replacement(range(1, LARGEST + 1), 2) if pair != SHOWN]
    rng = random.Random(seed)
    rng.shuffle(pairs)
    return _in_both_orders(pairs[HELD_OUT_PAIRS:], rng), _in_both_orders(pairs[:HELD_OUT_PAIRS], rng)


def _in_both_orders(pairs: list[tuple[int, int]], rng: random.Random) -> list[tuple[int, int]]:
    ordered = sorted({order for a, b in pairs for order in ((a, b), (b, a))})
    rng.shuffle(ordered)
    return ordered


def text_of(pairs: list[tuple[int, int]]) -> str:
    """One JSON object a line, `question` and `answer`, as the trainer reads them."""
    return "".join(json.dumps({"question": f"What is {a} + {b}?", "answer": str(a + b)}) + "\n" for a, b in pairs)


if __name__ == "__main__":
    train, held_out = split_pairs()
    TRAIN_FILE.write_text(text_of(train), encoding="utf-8")
    HELD_OUT_FILE.write_text(text_of(held_out), encoding="utf-8")
