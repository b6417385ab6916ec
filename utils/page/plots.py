"""Compute the pace and pauses of a run, and the numbers of plots: bars, ticks, a sentence.

`templates/plots.html` draws them as inline SVG, and the numbers at the axes as text of the page:
readable at every width, in light and dark, and a tenth of the size of matplotlib's SVG.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from utils.cli import plural

if TYPE_CHECKING:
    import pandas as pd

HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)
RUN_ENDS_AFTER = 2 * HOUR  # without a line; YouTube's longest pause is an hour
PAUSE_FROM = 10 * MINUTE  # YouTube's first pause is 15 minutes
PACE_FROM, PACE_TO = HOUR, DAY  # of the last run; if it is shorter, earlier runs count, too
STILL_RUNNING = 90 * MINUTE  # a run whose last line is younger goes on, or is paused
MOST_BINS = 96
WIDTHS = [m * MINUTE for m in (1, 5, 15, 60, 180, 360, 720, 1440, 2880, 10080, 40320)]
BARS, FEW_BARS = 24, 7  # about the largest and the smallest number of bars of a histogram


@dataclass(frozen=True)
class History:
    """The downloads over time.

    bins: clips that came, are gone or failed, by the start of a stretch of `width`. pauses: (start,
    end) of times without a line, usually blocks by YouTube. pace: clips per hour that were
    downloaded or found unavailable.
    """

    width: timedelta
    bins: pd.DataFrame
    pauses: list[tuple[datetime, datetime]]
    first: datetime
    last: datetime
    pace: float
    is_running: bool

    def hours_left(self, clips: int) -> float | None:
        """Return the hours that this many clips take at this pace, or None without a pace."""
        return clips / self.pace if self.pace else None


def make_history(minutes: dict[str, list[int]], now: datetime) -> History | None:
    """Return the history of `2026-11-22T17:37` -> (came, gone, failed), or None if there is none.

    A minute that somebody edited into another form is ignored.
    """
    import pandas as pd  # half a second, and 60 MB

    counts = pd.DataFrame.from_dict(minutes, orient="index", columns=["came", "gone", "failed"])
    counts.index = pd.to_datetime(counts.index, format="%Y-%m-%dT%H:%M", errors="coerce", utc=True)
    counts = counts[counts.index.notna()].sort_index()
    if counts.empty:
        return None
    gaps = counts.index.to_series().diff()
    first, last = counts.index[0], counts.index[-1]
    width = next((w for w in WIDTHS if (last - first) / w < MOST_BINS), WIDTHS[-1])
    sums = counts.resample(width, origin="start_day").sum()
    # A run of few clips per hour has long gaps without a pause.
    least = max(PAUSE_FROM, 10 * gaps.median()) if len(gaps) > 1 else HOUR
    long = gaps[(gaps >= least) & (gaps < RUN_ENDS_AFTER)]
    pauses = list(zip(long.index - long, long.index, strict=True))
    is_running = timedelta(0) <= now - last < STILL_RUNNING
    return History(width, sums, pauses, first, last, _pace(counts), is_running)


def _pace(counts: pd.DataFrame) -> float:
    """Return the clips per hour that came or are gone, over the last run including its pauses."""
    after = counts.index.to_series().diff().shift(-1).fillna(MINUTE)
    ends_run = after >= RUN_ENDS_AFTER
    lasts = after.mask(ends_run, MINUTE)
    until_end = lasts[::-1].cumsum()[::-1] - lasts
    too_old = (until_end >= PACE_TO) | (ends_run & (until_end >= PACE_FROM))
    counted = ~too_old[::-1].cummax()[::-1]
    ended = counts.loc[counted, ["came", "gone"]].to_numpy().sum()
    return float(ended / (lasts[counted].dt.total_seconds().sum() / 3600))


# --- plots ----------------------------------------------------------------------------------------

Ticks = list[tuple[float, str]]  # numbers at an axis, in percent from the left or from below


@dataclass(frozen=True)
class Plot:
    """A plot, with a sentence for those who cannot see it.

    series: (colour's name in page.css, name, its bars), a bar being (top from above, height).
    marks: hatched stretches, (left, width). All are in percent of the box.
    """

    title: str
    unit: str
    says: str
    series: list[tuple[str, str, list[tuple[float, float]]]]
    x_ticks: Ticks
    y_ticks: Ticks
    x_name: str = ""
    marks: Sequence[tuple[float, float]] = ()


def stacked(names: Mapping[str, str], values: Any, steps: int = 4) -> tuple[Any, Ticks]:
    """Return the series, each with a row of `values` on top of the one before, and the y ticks.

    names: colour -> name of a series.
    """
    import numpy as np

    tops = np.cumsum(values, axis=0)
    most = max(tops.max(), 1.0)
    step = nice_step(most, steps)
    count = math.ceil(most / step - 1e-9)
    end, ticks = count * step, ticks_at(count, 1, lambda n: number_text(n * step))
    series = [
        (key, name, list(zip(100 - 100 * top / end, 100 * high / end, strict=True)))
        for (key, name), top, high in zip(names.items(), tops, np.asarray(values), strict=True)
    ]
    return series, ticks


def ticks_at(count: int, step: int, text: Callable[[int], str]) -> Ticks:
    """Return the ticks of an axis with `count` places, one at every `step`."""
    return [(100 * n / count, text(n)) for n in range(0, count + 1, step)]


def nice_step(most: float, steps: int = 4) -> float:
    """Return 1, 2 or 5 times a power of ten, with which at most `steps` steps reach `most`."""
    rough = most / steps
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))


def number_text(value: float) -> str:
    """Return 1,234 or 12.5 or 0.004: three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def hours_text(hours: float) -> str:
    """Return `25 min`, `31 h` or `6.5 days`."""
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    return f"{round(hours):,} h" if hours < 96 else f"{number_text(round(hours / 24, 1))} days"


def moment(time: datetime) -> str:
    """Return `22 Nov 17:37`."""
    return f"{time.day} {time:%b %H:%M}"


def time_plot(history: History) -> Plot:
    """Plot clips per hour over time: downloaded, unavailable and failed; pauses are hatched."""
    bins, hours = history.bins, history.width / HOUR
    names = {"there": "downloaded", "gone": "unavailable", "try": "failed"}
    series, y_ticks = stacked(names, bins.to_numpy().T / hours)
    came = bins["came"]
    best = bins.index[int(came.argmax())]
    says = (
        f"From {moment(history.first)} to {moment(history.last)} UTC"
        f" {came.sum():,} clips were downloaded; the most at {moment(best)},"
        f" {number_text(came.max() / hours)} per hour."
    )
    if history.pauses:
        lasted = sum((after - before for before, after in history.pauses), timedelta())
        says += (
            f" {plural(len(history.pauses), 'pause')} (hatched), {hours_text(lasted / HOUR)} in"
            " all, without downloads, usually YouTube blocks."
        )
    start, span = bins.index[0], history.width * len(bins)
    marks = [(100 * ((a - start) / span), 100 * ((b - a) / span)) for a, b in history.pauses]
    return Plot(
        "Clips per hour",
        f"clips per hour, in steps of {hours_text(hours)}; time in UTC",
        says,
        series,
        _time_ticks(history),
        y_ticks,
        marks=marks,
    )


def _time_ticks(history: History) -> Ticks:
    """Return up to four ticks at starts of bins; the date only where it changes."""
    count, ticks, day = len(history.bins), [], None
    for at in range(0, count, math.ceil(count / 4)):
        time = history.bins.index[at]
        text = f"{time:%H:%M}" if time.date() == day else moment(time)
        day = time.date()
        ticks.append((100 * at / count, text if history.width < DAY else f"{time.day} {time:%b}"))
    return ticks


def ranked_plot(shares: Sequence[float]) -> Plot:
    """Plot the percentage of missing clips in every class, the worst at the left."""
    ranked = sorted(shares, reverse=True)
    count = len(ranked)
    series, y_ticks = stacked({"gone": "missing"}, [ranked])
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
        series,
        ticks_at(count, step, "{:,}".format),
        y_ticks,
        "classes, starting with the one that misses the most",
    )


def histogram(title: str, unit: str, values: Sequence[float], least_step: float) -> Plot:
    """Plot the share of clips by value.

    The outermost percent at each end goes into the outermost bars if it lies far out; otherwise
    all other clips would share one bar.
    """
    import numpy as np

    low, middle, high = np.percentile(values, (1, 50, 99))
    far = max(2 * (high - low), 0.3 * high)
    shown = np.clip(values, low - far, high + far)
    step = max(least_step, nice_step(max(least_step, np.ptp(shown)), BARS))
    places = np.floor(shown / step + 1e-9).astype(int)
    first, number = places.min(), places.max() - places.min() + 1
    if number < FEW_BARS:  # clips that are all alike: one thin bar, with space around it
        first -= min(first, (FEW_BARS - number) // 2)
        number = FEW_BARS
    shares = 100 * np.bincount(places - first, minlength=number) / len(places)
    series, y_ticks = stacked({"there": title}, [shares], 2)
    inner = " to ".join(number_text(value) for value in np.percentile(values, (5, 95)))
    return Plot(
        title,
        "% of clips",
        f"Half have {number_text(middle)} or less; nine in ten from {inner}, all from"
        f" {number_text(min(values))} to {number_text(max(values))}.",
        series,
        ticks_at(number, math.ceil(number / 4), lambda n: number_text((first + n) * step)),
        y_ticks,
        unit,
    )
