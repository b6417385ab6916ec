"""Plots as plain geometry: bars, ticks and a sentence that says the same. No HTML, no colours.

`templates/plots.html` draws them as inline SVG: marks in a box that stretches, and the numbers at
its axes as text of the page, which stays readable at every width and follows light and dark. By
hand, for matplotlib's SVG takes 13 to 26 KB for 24 bars and 146 KB for 700, where this takes 2 and
15; its colours are fixed, and its letters shrink on a phone. Vega-Lite and plotly bring 0.8 to
4.6 MB.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from utils.cli import plural
from utils.page.history import Bin, History, Pause

HOUR = timedelta(hours=1)
WIDTH, HEIGHT = 1000, 100  # of the box that marks are drawn in
BARS, FEW_BARS = 24, 7  # of a histogram, at the most and at the least, about


@dataclass(frozen=True)
class Tick:
    """A number at an axis, at so many percent of it, from the left or from below."""

    at: float
    text: str


@dataclass(frozen=True)
class Series:
    """Marks of one colour, as the path of an SVG in a box of WIDTH x HEIGHT."""

    key: str  # the colour's name in page.css
    name: str
    path: str


@dataclass(frozen=True)
class Plot:
    """A plot with all that is said of it. `marks`: hatched stretches, in percent from the left."""

    title: str
    unit: str
    says: str
    series: tuple[Series, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[tuple[float, float], ...] = ()
    x_name: str = ""


def bar_path(bars: Sequence[tuple[float, float, float, float]]) -> str:
    """Bars (left, width, bottom, top), each a part of the box, as one path."""
    parts = []
    for left, width, bottom, top in bars:
        if top > bottom:
            x, y = _short(left * WIDTH), _short((1 - top) * HEIGHT)
            across, down = _short(width * WIDTH), _short((top - bottom) * HEIGHT)
            parts.append(f"M{x} {y}h{across}v{down}h-{across}z")
    return "".join(parts)


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def nice_step(most: float, steps: int = 4) -> float:
    """1, 2 or 5 times a power of ten: so that at most so many steps reach `most`."""
    if most <= 0:
        return 1.0
    rough = most / steps
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))


def axis(most: float, steps: int = 4) -> tuple[float, tuple[Tick, ...]]:
    """Where an axis from 0 ends, and its ticks."""
    step = nice_step(most, steps)
    end = step * max(1, math.ceil(most / step - 1e-9))
    count = round(end / step)
    return end, tuple(Tick(100 * n / count, number_text(n * step)) for n in range(count + 1))


def number_text(value: float) -> str:
    """1,234; 12.5; 0.004: as few digits as say it."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}".rstrip("0").rstrip(".")


def time_plot(history: History) -> Plot:
    """Clips an hour over the run: what came, is gone for good, failed; pauses marked."""
    hours = history.width / HOUR
    start, span = history.bins[0].start, history.width * len(history.bins)
    end, y_ticks = axis(max((b.came + b.gone + b.failed) / hours for b in history.bins))
    rows: dict[str, list[tuple[float, float, float, float]]] = {"there": [], "gone": [], "try": []}
    for place, each in enumerate(history.bins):
        bottom = 0.0
        for key, number in zip(rows, (each.came, each.gone, each.failed), strict=True):
            top = bottom + number / hours / end
            rows[key].append(
                ((place + 0.06) / len(history.bins), 0.88 / len(history.bins), bottom, top)
            )
            bottom = top
    names = ("came", "gone for good", "failed")
    return Plot(
        title="Clips an hour",
        unit=f"clips an hour, by {width_text(history.width)}; time in UTC",
        says=_say_history(history, hours),
        series=tuple(
            Series(key, name, bar_path(rows[key])) for key, name in zip(rows, names, strict=True)
        ),
        x_ticks=time_ticks(start, span),
        y_ticks=y_ticks,
        marks=tuple(_mark(pause, start, span) for pause in history.pauses),
    )


def _mark(pause: Pause, start: datetime, span: timedelta) -> tuple[float, float]:
    left = max(0.0, (pause.start - start) / span)
    return 100 * left, 100 * (min(1.0, (pause.end - start) / span) - left)


def _say_history(history: History, hours: float) -> str:
    def rate(each: Bin) -> float:
        return each.came / hours

    best = max(history.bins, key=rate)
    came = sum(each.came for each in history.bins)
    text = (
        f"From {moment(history.first)} to {moment(history.last)} UTC {came:,} clips came;"
        f" the most at {moment(best.start)}, {number_text(rate(best))} an hour."
    )
    if history.pauses:
        lasted = sum((pause.end - pause.start for pause in history.pauses), timedelta())
        text += (
            f" {plural(len(history.pauses), 'pause')} (hatched), {hours_text(lasted / HOUR)} in"
            " all, in which nothing came: as a rule YouTube blocked."
        )
    return text


def hours_text(hours: float) -> str:
    """`25 min`, `31 h`, `6.5 days`."""
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    return f"{round(hours):,} h" if hours < 96 else f"{number_text(round(hours / 24, 1))} days"


def moment(time: datetime) -> str:
    """`22 Nov 17:37`."""
    return f"{time.day} {time:%b %H:%M}"


def width_text(width: timedelta) -> str:
    minutes = round(width / timedelta(minutes=1))
    if minutes < 60:
        return "minute" if minutes == 1 else f"{minutes} minutes"
    if minutes < 1440:
        return "hour" if minutes == 60 else f"{minutes // 60} hours"
    return "day" if minutes == 1440 else f"{minutes // 1440} days"


def time_ticks(start: datetime, span: timedelta, most: int = 5) -> tuple[Tick, ...]:
    """Ticks at round times."""
    steps = [timedelta(minutes=m) for m in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)]
    steps += [timedelta(days=d) for d in (1, 2, 7, 14, 28, 56, 182, 364)]
    step = next((s for s in steps if span / s <= most), steps[-1])
    day = start.replace(hour=0, minute=0)
    time = day + -((day - start) // step) * step
    ticks: list[Tick] = []
    while time <= start + span:
        text = f"{time:%H:%M}" if step < timedelta(days=1) else f"{time.day} {time:%b}"
        if step < timedelta(days=1) and (not ticks or f"{time:%H:%M}" == "00:00"):
            text = f"{time.day} {time:%b} {time:%H:%M}"
        ticks.append(Tick(100 * ((time - start) / span), text))
        time += step
    return tuple(ticks)


def ranked_plot(shares: Sequence[float]) -> Plot:
    """The missing share of every class, in percent, the worst at the left."""
    ranked = sorted(shares, reverse=True)
    count = len(ranked)
    end, y_ticks = axis(max([*ranked, 1.0]))
    gap = 0.1 if count <= 60 else 0.0
    bars = [
        ((place + gap) / count, (1 - 2 * gap) / count, 0.0, share / end)
        for place, share in enumerate(ranked)
    ]
    half = sum(1 for share in ranked if share >= 50)
    whole = sum(1 for share in ranked if share == 0)
    middle = ranked[count // 2]
    says = (
        f"The class in the middle lacks {number_text(middle)} % of its clips, the worst"
        f" {number_text(ranked[0])} %, the best {number_text(ranked[-1])} %;"
        f" {half:,} of {count:,} lack half or more, {whole:,} lack none."
    )
    step = max(1, round(nice_step(count, 5)))
    x_ticks = [Tick(100 * n / count, f"{n:,}") for n in range(0, count + 1, step)]
    return Plot(
        title="Missing by class",
        unit="percent of the class's clips that are not there",
        says=says,
        series=(Series("gone", "missing", bar_path(bars)),),
        x_ticks=tuple(x_ticks),
        y_ticks=y_ticks,
        x_name="classes, from the one that lost most",
    )


def histogram(title: str, unit: str, values: Sequence[float], least_step: float) -> Plot:
    """How many of the clips have which value, from the lowest to the highest.

    Where the outermost percent lies far out, it goes into the outermost bars, or the rest would be
    one bar.
    """
    values = sorted(values)
    count = len(values)
    low, high = _shown_range(values)
    step = max(least_step, nice_step(high - low, BARS))
    first = math.floor(low / step + 1e-9)
    number = math.floor(high / step + 1e-9) - first + 1
    if number < FEW_BARS:  # clips that are all alike: one thin bar, with room around it
        first -= min(first, (FEW_BARS - number) // 2)
        number = FEW_BARS
    into: Counter[int] = Counter()
    for value in values:
        into[min(number - 1, max(0, math.floor(value / step + 1e-9) - first))] += 1
    end, y_ticks = axis(100 * max(into.values()) / count, 2)
    bars = [
        ((place + 0.05) / number, 0.9 / number, 0.0, 100 * into[place] / count / end)
        for place in range(number)
    ]
    every = math.ceil(number / 4)
    x_ticks = tuple(
        Tick(100 * place / number, number_text((first + place) * step))
        for place in range(0, number + 1, every)
    )
    return Plot(
        title=title,
        unit="% of clips",
        says=f"Half have {number_text(values[count // 2])} or less; {_range_of(values)}.",
        series=(Series("there", title, bar_path(bars)),),
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        x_name=unit,
    )


def _shown_range(values: Sequence[float]) -> tuple[float, float]:
    """From where to where the sorted values are drawn."""
    low, high = values[len(values) // 100], values[-1 - len(values) // 100]
    near = max(2 * (high - low), 0.6 * high)
    return (
        values[0] if high - values[0] <= near else low,
        values[-1] if values[-1] - low <= near else high,
    )


def _range_of(values: Sequence[float]) -> str:
    count = len(values)
    if count < 40:
        return f"from {number_text(values[0])} to {number_text(values[-1])}"
    low, high = values[count // 20], values[-1 - count // 20]
    return (
        f"nine in ten from {number_text(low)} to {number_text(high)},"
        f" all from {number_text(values[0])} to {number_text(values[-1])}"
    )
