"""What several samples a question tell: which passed and what each answered comes in, pass@k and maj@k go out.

Pure numbers. It refuses to know rewards, texts, and how the samples were spread over processes.
"""

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

NO_VOTE = -1
"""The vote of a sample that answers nothing."""


def counts_of(samples: int) -> list[int]:
    """The k for which pass@k and maj@k are told: powers of two below the number of samples, and that number."""
    return [2**power for power in range(samples.bit_length()) if 2**power < samples] + [samples]


def pass_at(k: int, samples: int, passed: int) -> float:
    """The chance that k of the samples, drawn without replacement, hold one that passed.

    1 - C(n - c, k) / C(n, k), unbiased: https://arxiv.org/abs/2107.03374, equation 1. In whole numbers, so that it is
    exact where the paper's product of floats is not.
    """
    return 1 - comb(samples - passed, k) / comb(samples, k)


def majority_at(k: int, votes: Sequence[int], passed: Sequence[bool]) -> float:
    """How often the answer given most often among k samples passes, over the blocks of k that the samples make.

    Answers that tie share the vote, so that no order of samples is favoured; a block without any answer fails.
    """
    blocks = [range(start, start + k) for start in range(0, len(votes) - k + 1, k)]
    return float(np.mean([_elected([votes[i] for i in block], [passed[i] for i in block]) for block in blocks]))


def _elected(votes: list[int], passed: list[bool]) -> float:
    standing = [vote for vote in dict.fromkeys(votes) if vote != NO_VOTE]
    if not standing:
        return 0.0
    most = max(votes.count(vote) for vote in standing)
    elected = [vote for vote in standing if votes.count(vote) == most]
    return float(np.mean([passed[votes.index(vote)] for vote in elected]))


def solved_row(values: NDArray[np.float64], votes: NDArray[np.int64]) -> dict[str, float]:
    """`pass@k` and `maj@k` over questions; values[question, sample] of the reward that judges, passed with 1 or more.

    A sample without a value (NaN) is left out, and a question with fewer than k values is left out of that k: nothing
    is known of it, and nothing is guessed.
    """
    row: dict[str, float] = {}
    for k in counts_of(values.shape[1]):
        passes, majorities = [], []
        for value, vote in zip(values, votes, strict=True):
            scored = np.isfinite(value)
            if scored.sum() < k:
                continue
            passed = value[scored] >= 1
            passes.append(pass_at(k, len(passed), int(passed.sum())))
            majorities.append(majority_at(k, vote[scored].tolist(), passed.tolist()))
        row[f"pass@{k}"] = float(np.mean(passes)) if passes else np.nan
        row[f"maj@{k}"] = float(np.mean(majorities)) if majorities else np.nan
    return row
