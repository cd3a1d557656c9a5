"""The demo's verdict: it fails where the rise is missing, and reads what a run really wrote."""

import io

import pytest
from rich.console import Console

from examples.demo.curve import Curve, terminal_curve
from examples.demo.run import report
from examples.demo.verdict import complaints


def curve(exact_match, eval_steps=(0, 20, 40), questions=256):
    return Curve(
        label="seed 0",
        steps=tuple(range(1, 41)),
        rewards=(0.5,) * 40,
        eval_steps=eval_steps,
        exact_match=exact_match,
        questions=questions,
    )


def test_a_rise_of_a_tenth_is_enough():
    """0.25 to 0.40 keeps the promise."""
    assert complaints(curve((0.25, 0.30, 0.40)), steps=40) == []


def test_a_smaller_rise_is_told_with_both_numbers():
    """A rise of 0.05 fails in one line with before, after and what was promised, whatever happened in between."""
    assert complaints(curve((0.25, 0.90, 0.30)), steps=40) == [
        "seed 0: greedy exact match went from 0.250 to 0.300, a rise of 0.050; at least 0.10 was promised"
    ]


def test_a_fall_is_no_rise():
    """A run that unlearns fails."""
    assert len(complaints(curve((0.5, 0.4, 0.1)), steps=40)) == 1


def test_too_few_questions_do_not_count():
    """Fewer than 200 held-out questions fail, however great the rise."""
    assert complaints(curve((0.2, 0.5, 0.9), questions=199), steps=40) == [
        "seed 0: evaluated on 199 held-out questions; it takes 200"
    ]


@pytest.mark.parametrize("eval_steps", [(5, 20, 40), (0, 20, 35), ()])
def test_the_first_and_the_last_step_must_be_evaluated(eval_steps):
    """Without a number before training, or one after the last step, there is nothing to compare."""
    measured = (0.2, 0.5, 0.9)[: len(eval_steps)]
    assert complaints(curve(measured, eval_steps), steps=40) == [
        f"seed 0: evaluated at steps {list(eval_steps)}, both 0 and 40 are needed"
    ]


def test_the_curve_in_the_terminal_goes_up_where_the_numbers_do():
    """Without colour the plot is plain text, with the exact match low on the left and high on the right."""
    lines = terminal_curve(curve((0.1, 0.5, 1.0)), width=80, colourless=True).splitlines()
    plotted = [line for line in lines if any(block in line for block in "▀▄▘▝▖▗▞▚▌▐█▛▜▙▟")]
    assert "\x1b" not in "".join(lines)
    assert plotted[0].rstrip("│ ")[-1] in "▀▄▘▝▖▗▞▚▌▐█▛▜▙▟"
    assert len(plotted[0].rstrip("│ ")) > 70
    assert len(plotted[-2].rstrip("│ ")) < 20


@pytest.mark.parametrize(("after", "code"), [(0.9, 0), (0.3, 1)])
def test_the_demo_exits_with_1_where_the_rise_is_missing(after, code, tmp_path):
    """The last report shows before and after, leaves a picture, and its exit code is the verdict."""
    console = Console(file=io.StringIO(), width=100)
    curves = [curve((0.25, 0.5, 0.8)), curve((0.25, 0.5, after))]
    assert report(console, curves, 40, tmp_path / "curve.png") == code
    shown = console.file.getvalue()
    assert "0.250" in shown
    assert f"{after:.3f}" in shown
    assert ("was promised" in shown) is (code == 1)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
