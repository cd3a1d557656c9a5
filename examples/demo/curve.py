"""Draws the demo's curve, in the terminal and as a PNG. In: curves as lists of numbers. Knows no run folder."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import plotext

BLUE, ORANGE = "#1f6feb", "#d2691e"


@dataclass(frozen=True, slots=True)
class Curve:
    """One run: the mean reward of each training step, and greedy exact match at some steps (0 = before training)."""

    label: str
    steps: tuple[int, ...]
    rewards: tuple[float, ...]
    eval_steps: tuple[int, ...]
    exact_match: tuple[float, ...]
    questions: int

    @property
    def before(self) -> float:
        return self.exact_match[0]

    @property
    def after(self) -> float:
        return self.exact_match[-1]

    @property
    def rise(self) -> float:
        return self.after - self.before


def terminal_curve(curve: Curve, width: int, colourless: bool) -> str:
    """A plot of at most 100 columns and 20 lines; `colourless` leaves the colour codes out."""
    figure = plotext.figure
    figure.clear.all()
    figure.plot_size(min(width, 100), 20)
    figure.theme("simple")
    # Two markers, so that the lines differ in a terminal without colour too.
    for steps, values, symbol, colour in (
        (curve.steps, curve.rewards, "braille", "blue"),
        (curve.eval_steps, curve.exact_match, "hd", "orange"),
    ):
        figure.draw(figure.signal(steps, values, marker=plotext.marker(symbol, colour)).lines())
    figure.ruler("x").ticks(list(curve.eval_steps))
    figure.ruler("y").ticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]).lim(0, 1.02)
    figure.label("training step    ▄▄ greedy exact match, held out    ⠒⠒ mean reward, sampled", "x")
    text: str = figure.build().string(colorless=colourless)
    return text


def save_png(curves: list[Curve], target: Path) -> None:
    """One panel: each run's reward faint, its exact match on the held-out questions strong."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120)
    for index, curve in enumerate(curves):
        first = index == 0
        axes.plot(curve.steps, curve.rewards, color=BLUE, alpha=0.5, label="mean reward, sampled" if first else None)
        axes.plot(
            curve.eval_steps,
            curve.exact_match,
            color=ORANGE,
            marker="o",
            linewidth=2,
            label="greedy exact match, held out" if first else None,
        )
    axes.set(xlabel="training step", title="GRPO on sums: two processes, one GRPOJob", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target)
    pyplot.close(figure)
