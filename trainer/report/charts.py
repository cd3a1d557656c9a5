"""Curves as geometry: series of numbers come in, paths and ticks of an SVG go out. It refuses to know HTML and runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

WIDTH, HEIGHT = 360.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 24.0
"""Margins of the plot, in the units of the SVG's view box."""
SMOOTHED_FROM = 40
"""Points from which on a curve is drawn faintly behind its moving mean."""

MOST_POINTS = 1000
"""Points that a curve is drawn with: a plot is some four hundred pixels wide."""

PEAK = 3.0
"""Medians above which a peak is cut."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis, in view-box units, with its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Curve:
    """`d` is the path of the points; `smooth` that of their moving mean, empty where there are few; `last` as told.

    `end` is where the curve ends, so that a single point is seen too.
    """

    run: int
    d: str
    smooth: str
    end: tuple[float, float]
    last: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The curves of one metric, one a run that has it. `peak` is the highest value where the plot ends below it."""

    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    steps: tuple[float, float]
    peak: str


def chart_of(series: Sequence[tuple[int, Points]], *, cuts_peaks: bool = False) -> Chart | None:
    """Lay (run, points) out in one plot; None where there is no point. Points are (step, finite value).

    `cuts_peaks`: the plot ends at `PEAK` medians, so that one step that compiled does not flatten all others.
    """
    drawn = [(run, points) for run, points in series if points]
    if not drawn:
        return None
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    highest = PEAK * median(ys) if cuts_peaks and median(ys) > 0 else math.inf
    peak = number(max(ys)) if max(ys) > highest else ""
    ys = [min(y, highest) for y in ys]
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1.0)
    y_ticks = ticks(min(ys), max(ys), 4)
    low, high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def at(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        return round(right, 1), round(HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    curves = []
    for run, points in drawn:
        smooth = moving_mean(points) if len(points) >= SMOOTHED_FROM else []
        path, mean = ([at(x, min(y, highest)) for x, y in thinned(some)] for some in (points, smooth))
        curves.append(Curve(run, _path(path), _path(mean), path[-1], number(points[-1][1])))
    steps = [x for x in ticks(x_low, x_high, 5) if x_low <= x <= x_high and math.isclose(x, round(x), abs_tol=1e-6)]
    across = tuple(Tick(at(x, low)[0], number(x)) for x in steps)
    up = tuple(Tick(at(x_low, y)[1], number(y)) for y in y_ticks)
    return Chart(tuple(curves), across, up, (x_low, x_high), peak)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in places) if places else ""


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from at most `low` to at least `high`."""
    if high - low < 1e-12 * max(1.0, abs(low)):
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def moving_mean(points: Points) -> list[tuple[float, float]]:
    """The mean of each point and those around it, a fifteenth of the curve; at the ends of those there are."""
    half = max(1, len(points) // 30)
    sums = [0.0, *accumulate(y for _, y in points)]
    means = []
    for place, (x, _) in enumerate(points):
        first, last = max(0, place - half), min(len(points), place + half + 1)
        means.append((x, (sums[last] - sums[first]) / (last - first)))
    return means


def thinned(points: Points) -> Points:
    """At most about `MOST_POINTS`: of each stretch the lowest and the highest, so that no peak is lost."""
    size = math.ceil(2 * len(points) / MOST_POINTS)
    if size < 3:
        return points
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        stretch = sorted(points[start : start + size], key=lambda point: point[1])
        kept += sorted({stretch[0], stretch[-1]})
    return kept


def number(value: float) -> str:
    """A number as people write it, in at most four significant digits: `12,345`, `0.0123`, `1.23e-06`."""
    if value == 0 or abs(value) < 1e-15:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.3g}"
