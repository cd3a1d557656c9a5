"""Truncation by sorting, in NumPy, as transformers' warpers do it one after the other: the reference."""

import numpy as np


def kept_by_sorting(logits: np.ndarray, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """Bool [vocab] for one row of logits without equals."""
    order = np.argsort(-logits)
    chances = np.exp(logits[order] - logits.max())
    if top_k:
        chances = chances[:top_k]
    if top_p < 1:
        shares = np.cumsum(chances) / chances.sum()
        chances = chances[: np.searchsorted(shares, top_p) + 1]
    mask = np.zeros(logits.shape, bool)
    mask[order[: len(chances)]] = chances >= min_p * chances[0]
    return mask


def truncated_softmax(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """Probabilities [vocab] of what is drawn."""
    tempered = logits.astype(np.float64) / temperature
    chances = np.exp(tempered - tempered.max()) * kept_by_sorting(tempered, top_k, top_p, min_p)
    return chances / chances.sum()
