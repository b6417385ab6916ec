"""Compute the pace and pauses of a run, and the geometry of plots: bars, ticks, a sentence.

`templates/plots.html` draws them as inline SVG: marks in a box that stretches, and the numbers at
its axes as text of the page, which stays readable at every width and follows light and dark. By
hand, because matplotlib's SVG takes 13 to 26 KB for 24 bars and 146 KB for 700, where this takes 2
and 15; its colours are fixed, and its letters shrink on a phone.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from utils.cli import plural

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
RUN_ENDS_AFTER = 2 * HOUR  # without a line; YouTube's longest pause is an hour
PAUSE_FROM = 10 * MINUTE  # YouTube's first pause is 15 minutes
PACE_FROM, PACE_TO = HOUR, 24 * HOUR  # of the last run; if it is shorter, of the runs before, too
STILL_RUNNING = 90 * MINUTE  # the last line is younger: the run goes on, or is paused
MOST_BINS = 96
WIDTHS = [m * MINUTE for m in (1, 5, 15, 60, 180, 360, 720, 1440, 2880, 10080, 40320)]
STEPS = [m * MINUTE for m in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)]
STEPS += [timedelta(days=d) for d in (1, 2, 7, 14, 28, 56, 182, 364)]
WIDTH, HEIGHT = 1000, 100  # of the box that marks are drawn in
BARS, FEW_BARS = 24, 7  # of a histogram, at the most and at the least, about


class Bin(NamedTuple):
    """A stretch of time: clips that came, are gone for good, failed."""

    start: datetime
    came: int
    gone: int
    failed: int


@dataclass(frozen=True)
class History:
    """The run in time.

    pauses: (start, end) of times without a line, as a rule blocks of YouTube's. pace: clips that
    came to an end per hour; 0 if that cannot be told.
    """

    width: timedelta
    bins: list[Bin]
    pauses: list[tuple[datetime, datetime]]
    first: datetime
    last: datetime
    pace: float
    is_running: bool

    def hours_left(self, clips: int) -> float | None:
        """Hours until so many more clips have come to an end, at this pace."""
        return clips / self.pace if self.pace else None


def make_history(minutes: Mapping[str, Sequence[int]], now: datetime) -> History | None:
    """`minutes`: `2026-11-22T17:37` -> (came, gone, failed). None without a line of the report."""
    counts = sorted((time, tuple(n)) for text, n in minutes.items() if (time := _time(text)))
    if not counts:
        return None
    times = [time for time, _ in counts]
    first, last = times[0], times[-1]
    width = next((w for w in WIDTHS if (last - first) / w < MOST_BINS), WIDTHS[-1])
    day = first.replace(hour=0, minute=0)
    start = day + (first - day) // width * width
    sums = [[0, 0, 0] for _ in range((last - start) // width + 1)]
    for time, numbers in counts:
        for place, number in enumerate(numbers):
            sums[(time - start) // width][place] += number
    bins = [Bin(start + at * width, *three) for at, three in enumerate(sums)]
    pairs = list(itertools.pairwise(times))
    # A run of few clips per hour has long gaps and no pause.
    usual = statistics.median((b - a).total_seconds() for a, b in pairs) if pairs else 0.0
    least = max(PAUSE_FROM, timedelta(seconds=10 * usual))
    pauses = [pair for pair in pairs if least <= pair[1] - pair[0] < RUN_ENDS_AFTER]
    is_running = timedelta(0) <= now - last < STILL_RUNNING
    return History(width, bins, pauses, first, last, _pace(counts), is_running)


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:  # a line of the report that was edited by hand
        return None


def _pace(counts: Sequence[tuple[datetime, tuple[int, ...]]]) -> float:
    """Clips that came or are gone for good per hour, over the last run, pauses included."""
    ended, lasted = 0, timedelta(0)
    after: datetime | None = None
    for time, (came, gone, _failed) in reversed(counts):
        gap = MINUTE if after is None else after - time
        if gap >= RUN_ENDS_AFTER:
            if lasted >= PACE_FROM:
                break
            gap = MINUTE
        lasted += gap
        ended += came + gone
        after = time
        if lasted >= PACE_TO:
            break
    return ended / (lasted / HOUR)


# --- plots ----------------------------------------------------------------------------------------

Bar = tuple[float, float, float, float]  # left, width, bottom, top, each a part of the box
Ticks = list[tuple[float, str]]  # numbers at an axis, in percent from the left or from below


@dataclass(frozen=True)
class Plot:
    """A plot with all that is said of it.

    series: (colour's name in page.css, name, path of an SVG). marks: hatched stretches, (left,
    width) in percent.
    """

    title: str
    unit: str
    says: str
    series: list[tuple[str, str, str]]
    x_ticks: Ticks
    y_ticks: Ticks
    x_name: str = ""
    marks: Sequence[tuple[float, float]] = ()


def _path(bars: Sequence[Bar]) -> str:
    """Bars as one path."""
    parts = []
    for left, width, bottom, top in bars:
        if top > bottom:
            numbers = left * WIDTH, (1 - top) * HEIGHT, width * WIDTH, (top - bottom) * HEIGHT
            x, y, across, down = (f"{number:.1f}".removesuffix(".0") for number in numbers)
            parts.append(f"M{x} {y}h{across}v{down}h-{across}z")
    return "".join(parts)


def nice_step(most: float, steps: int = 4) -> float:
    """1, 2 or 5 times a power of ten: so that at most so many steps reach `most`."""
    if most <= 0:
        return 1.0
    rough = most / steps
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))


def axis(most: float, steps: int = 4) -> tuple[float, Ticks]:
    """Where an axis from 0 ends, and its ticks."""
    step = nice_step(most, steps)
    count = max(1, math.ceil(most / step - 1e-9))
    return step * count, [(100 * n / count, number_text(n * step)) for n in range(count + 1)]


def number_text(value: float) -> str:
    """1,234; 12.5; 0.004: as few digits as say it."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}".rstrip("0").rstrip(".")


def hours_text(hours: float) -> str:
    """`25 min`, `31 h`, `6.5 days`."""
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    return f"{round(hours):,} h" if hours < 96 else f"{number_text(round(hours / 24, 1))} days"


def moment(time: datetime) -> str:
    """`22 Nov 17:37`."""
    return f"{time.day} {time:%b %H:%M}"


def time_plot(history: History) -> Plot:
    """Clips per hour over the run: what came, is gone for good, failed; pauses marked."""
    bins, hours = history.bins, history.width / HOUR
    start, span = bins[0].start, history.width * len(bins)
    end, y_ticks = axis(max((b.came + b.gone + b.failed) / hours for b in bins))
    names = {"there": "came", "gone": "unavailable", "try": "failed"}
    rows: dict[str, list[Bar]] = {key: [] for key in names}
    for place, each in enumerate(bins):
        bottom = 0.0
        for bars, number in zip(rows.values(), each[1:], strict=True):
            top = bottom + number / hours / end
            bars.append(((place + 0.06) / len(bins), 0.88 / len(bins), bottom, top))
            bottom = top
    best = max(bins, key=lambda each: each.came)
    says = (
        f"From {moment(history.first)} to {moment(history.last)} UTC"
        f" {sum(each.came for each in bins):,} clips were downloaded; the most at"
        f" {moment(best.start)}, {number_text(best.came / hours)} per hour."
    )
    if history.pauses:
        lasted = sum((after - before for before, after in history.pauses), timedelta())
        says += (
            f" {plural(len(history.pauses), 'pause')} (hatched), {hours_text(lasted / HOUR)} in"
            " all, without downloads, usually YouTube blocks."
        )
    edges = [[min(1.0, max(0.0, (t - start) / span)) for t in pause] for pause in history.pauses]
    minutes = round(history.width / MINUTE)
    number, unit = next(
        (minutes // size, name)
        for size, name in ((1440, "day"), (60, "hour"), (1, "minute"))
        if minutes >= size
    )
    return Plot(
        "Clips per hour",
        f"clips per hour, by {unit if number == 1 else plural(number, unit)}; time in UTC",
        says,
        [(key, name, _path(rows[key])) for key, name in names.items()],
        _time_ticks(start, span),
        y_ticks,
        marks=[(100 * left, 100 * (right - left)) for left, right in edges],
    )


def _time_ticks(start: datetime, span: timedelta, most: int = 5) -> Ticks:
    """Ticks at round times."""
    step = next((s for s in STEPS if span / s <= most), STEPS[-1])
    day = start.replace(hour=0, minute=0)
    time = day + -((day - start) // step) * step
    ticks: Ticks = []
    while time <= start + span:
        text = f"{time:%H:%M}" if step < timedelta(days=1) else f"{time.day} {time:%b}"
        if step < timedelta(days=1) and (not ticks or text == "00:00"):
            text = moment(time)
        ticks.append((100 * ((time - start) / span), text))
        time += step
    return ticks


def ranked_plot(shares: Sequence[float]) -> Plot:
    """The missing share of every class, in percent, the worst at the left."""
    ranked = sorted(shares, reverse=True)
    count = len(ranked)
    end, y_ticks = axis(max([*ranked, 1.0]))
    gap = 0.1 if count <= 60 else 0.0
    bars = [((n + gap) / count, (1 - 2 * gap) / count, 0.0, s / end) for n, s in enumerate(ranked)]
    says = (
        f"The class in the middle lacks {number_text(ranked[count // 2])}% of its clips, the worst"
        f" {number_text(ranked[0])}%, the best {number_text(ranked[-1])}%;"
        f" {sum(share >= 50 for share in ranked):,} of {count:,} lack half or more,"
        f" {ranked.count(0):,} lack none."
    )
    step = max(1, round(nice_step(count, 5)))
    return Plot(
        "Missing by class",
        "percentage of missing clips in the class",
        says,
        [("gone", "missing", _path(bars))],
        [(100 * n / count, f"{n:,}") for n in range(0, count + 1, step)],
        y_ticks,
        "classes, from the one that lost most",
    )


def histogram(title: str, unit: str, values: Sequence[float], least_step: float) -> Plot:
    """How many of the clips have which value, from the lowest to the highest.

    Where the outermost percent lies far out, it goes into the outermost bars, or the rest would be
    one bar.
    """
    values = sorted(values)
    count = len(values)
    low, high = values[count // 100], values[-1 - count // 100]
    near = max(2 * (high - low), 0.6 * high)
    low, high = (
        values[0] if high - values[0] <= near else low,
        values[-1] if values[-1] - low <= near else high,
    )
    step = max(least_step, nice_step(high - low, BARS))
    first = math.floor(low / step + 1e-9)
    number = math.floor(high / step + 1e-9) - first + 1
    if number < FEW_BARS:  # clips that are all alike: one thin bar, with room around it
        first -= min(first, (FEW_BARS - number) // 2)
        number = FEW_BARS
    into = Counter(min(number - 1, max(0, math.floor(v / step + 1e-9) - first)) for v in values)
    end, y_ticks = axis(100 * max(into.values()) / count, 2)
    bars = [
        ((place + 0.05) / number, 0.9 / number, 0.0, 100 * into[place] / count / end)
        for place in range(number)
    ]
    spread = f"from {number_text(values[0])} to {number_text(values[-1])}"
    if count >= 40:
        inner = values[count // 20], values[-1 - count // 20]
        spread = f"nine in ten from {' to '.join(map(number_text, inner))}, all {spread}"
    return Plot(
        title,
        "% of clips",
        f"Half have {number_text(values[count // 2])} or less; {spread}.",
        [("there", title, _path(bars))],
        [
            (100 * place / number, number_text((first + place) * step))
            for place in range(0, number + 1, math.ceil(number / 4))
        ],
        y_ticks,
        unit,
    )
