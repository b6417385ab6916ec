"""The run in time: clips an hour, pauses, the pace, and when all will be there.

Made from the minutes in which lines came into the report (`outcomes`); pure arithmetic.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

RUN_ENDS_AFTER = timedelta(hours=2)  # without a line; YouTube's longest pause is an hour
PAUSE_FROM = timedelta(minutes=10)  # YouTube's first pause is 15 minutes
PACE_FROM = timedelta(hours=1)  # the pace is that of the last run; if it is shorter, of more runs
PACE_TO = timedelta(hours=24)
STILL_RUNNING = timedelta(minutes=90)  # the last line is younger: the run goes on, or is paused
MOST_BINS = 96
WIDTHS = tuple(
    timedelta(minutes=minutes)
    for minutes in (1, 5, 15, 60, 180, 360, 720, 1440, 2 * 1440, 7 * 1440, 28 * 1440)
)


@dataclass(frozen=True)
class Bin:
    """A stretch of time: clips that came, are gone for good, failed."""

    start: datetime
    came: int
    gone: int
    failed: int


@dataclass(frozen=True)
class Pause:
    """A time in a run in which nothing came: as a rule a block of YouTube's."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class History:
    """The run in time. `pace`: clips that came to an end, an hour; 0 if that cannot be told."""

    width: timedelta
    bins: tuple[Bin, ...]
    pauses: tuple[Pause, ...]
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
    return History(
        width=width,
        bins=_bins(counts, width),
        pauses=_pauses(times),
        first=first,
        last=last,
        pace=_pace(counts),
        is_running=timedelta(0) <= now - last < STILL_RUNNING,
    )


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:  # a line of the report that was edited by hand
        return None


_Counts = Sequence[tuple[datetime, tuple[int, ...]]]


def _bins(counts: _Counts, width: timedelta) -> tuple[Bin, ...]:
    day = counts[0][0].replace(hour=0, minute=0)
    start = day + (counts[0][0] - day) // width * width
    sums = [[0, 0, 0] for _ in range((counts[-1][0] - start) // width + 1)]
    for time, numbers in counts:
        into = sums[(time - start) // width]
        for place, number in enumerate(numbers):
            into[place] += number
    return tuple(Bin(start + width * place, *three) for place, three in enumerate(sums))


def _pauses(times: Sequence[datetime]) -> tuple[Pause, ...]:
    pairs = list(itertools.pairwise(times))
    gaps = [(after - before).total_seconds() for before, after in pairs]
    if not gaps:
        return ()
    # A run of few clips an hour has long gaps and no pause.
    least = max(PAUSE_FROM, timedelta(seconds=10 * statistics.median(gaps)))
    return tuple(
        Pause(before, after) for before, after in pairs if least <= after - before < RUN_ENDS_AFTER
    )


def _pace(counts: _Counts) -> float:
    """Clips that came or are gone for good, an hour, over the last run, pauses included."""
    ended, lasted = 0, timedelta(0)
    after: datetime | None = None
    for time, (came, gone, _failed) in reversed(counts):
        gap = timedelta(minutes=1) if after is None else after - time
        if gap >= RUN_ENDS_AFTER:
            if lasted >= PACE_FROM:
                break
            gap = timedelta(minutes=1)
        lasted += gap
        ended += came + gone
        after = time
        if lasted >= PACE_TO:
            break
    return ended / (lasted / timedelta(hours=1))
