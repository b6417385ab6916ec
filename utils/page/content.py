"""All that the page says, put together from what was gathered: `Content`, and its JSON.

Behind every count and look, before `render`, which lays it out and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from utils.page.counts import Count, Counts
from utils.page.distributions import Distributions
from utils.page.history import History
from utils.page.pictures import Picture
from utils.page.plots import Plot, hours_text, moment, number_text, ranked_plot, time_plot
from utils.page.splits import Leak
from utils.page.suspects import KINDS, Kind, Suspect

SHOWN_OF_A_KIND = 12


@dataclass(frozen=True)
class NextStep:
    """A command to type, and what it does."""

    command: str
    what: str


@dataclass(frozen=True)
class ShownKind:
    """A way to look wrong, how many do, and the worst of them with their pictures."""

    kind: Kind
    count: int
    shown: tuple[Suspect, ...]
    estimate: str


@dataclass(frozen=True)
class Content:
    """The page. `pictures`: clip -> picture of the sheet's size; `strips`: label -> small ones."""

    folder: str
    lists: tuple[str, ...]
    made_at: datetime
    counts: Counts
    medians: Mapping[str, float | None]
    history: History | None
    next_steps: tuple[NextStep, ...]
    leaks: tuple[Leak, ...]
    probed: int
    distributions: Distributions | None
    kinds: tuple[ShownKind, ...]
    suspects: Sequence[Suspect]
    sheet: tuple[Picture, ...]
    pictures: Mapping[str, Picture]
    strips: Mapping[str, Sequence[Picture]]
    labels: Mapping[str, str]  # of the clips that are shown
    link: str  # from the page to the clips' folder, ends with /; empty: they lie together
    seed: int
    watch: int  # seconds; 0: the page is made once
    version: str

    @property
    def total(self) -> Count:
        return self.counts.total

    @property
    def answer(self) -> str:
        """The whole page in one line."""
        total = self.total
        parts = [
            f"{total.there:,} of {total.wanted:,} clips",
            f"{number_text(round(total.missing_percent, 1))} % missing",
        ]
        if total.missing and not total.to_try:
            parts.append("nothing left to try")
        elif total.to_try and self.history and (hours := self.history.hours_left(total.to_try)):
            pace = "at this pace" if self.history.is_running else "at the pace of the last run"
            parts.append(f"{hours_text(hours)} left {pace}")
        return ", ".join(parts) if total.missing else f"All {total.wanted:,} clips are there"

    @property
    def estimate(self) -> str:
        """When all will be there, in a sentence."""
        history, to_try = self.history, self.total.to_try
        if history is None or not to_try or not (hours := history.hours_left(to_try)):
            return ""
        text = (
            f"Over the last run {number_text(history.pace)} clips an hour came or were gone,"
            f" pauses included. At that pace the {to_try:,} still to try take {hours_text(hours)}"
        )
        if not history.is_running:
            return f"{text}, once the run goes on."
        end = moment(self.made_at + timedelta(hours=hours))
        return f"{text}: until {end} UTC."

    def time_plot(self) -> Plot | None:
        return time_plot(self.history) if self.history else None

    def class_plot(self) -> Plot:
        return ranked_plot([count.missing_percent for count in self.counts.classes.values()])


def shown_kinds(suspects: Sequence[Suspect], probed: int, there: int) -> tuple[ShownKind, ...]:
    """The suspects by kind, worst kind first; `suspects` are in order."""
    kinds = []
    for kind in KINDS:
        found = [each for each in suspects if each.kind == kind.key]
        estimate = ""
        if found and kind.find is not None and probed < there:
            many = round(len(found) / probed * there)
            estimate = f"{len(found):,} of {probed:,} probed: about {many:,} of all {there:,}"
        kinds.append(ShownKind(kind, len(found), tuple(found[:SHOWN_OF_A_KIND]), estimate))
    return tuple(kinds)


def numbers(content: Content) -> dict[str, Any]:
    """What --json prints: plain values, no pictures."""
    counts, history = content.counts, content.history
    found: dict[str, Any] = {
        "made_at": f"{content.made_at:%Y-%m-%dT%H:%M:%SZ}",
        "folder": content.folder,
        "lists": list(content.lists),
        "answer": content.answer,
        **_count_numbers(counts.total),
        "failed": counts.failed,
        "bytes": counts.bytes,
        "not_listed": counts.not_listed,
        "sources": dict(counts.sources.most_common()),
        "reasons": [asdict(why) for why in counts.whys],
        "pace": None,
        "splits": [
            {"version": version, "split": split, **_count_numbers(count)}
            for (version, split), count in counts.splits.items()
        ],
        "classes": [
            {"label": label, **_count_numbers(count), "median_seconds": content.medians[label]}
            for label, count in counts.classes.items()
        ],
        "leaks": [asdict(leak) for leak in content.leaks],
        "probed": content.probed,
        "suspects": {shown.kind.key: shown.count for shown in content.kinds},
        "next": [step.command for step in content.next_steps],
    }
    if history is not None:
        found["pace"] = {
            "clips_per_hour": round(history.pace, 2),
            "hours_left": history.hours_left(counts.total.to_try),
            "first": f"{history.first:%Y-%m-%dT%H:%MZ}",
            "last": f"{history.last:%Y-%m-%dT%H:%MZ}",
            "is_running": history.is_running,
            "pauses": len(history.pauses),
        }
    return found


def _count_numbers(count: Count) -> dict[str, Any]:
    return {
        "wanted": count.wanted,
        "there": count.there,
        "missing": count.missing,
        "missing_percent": round(count.missing_percent, 2),
        "gone": count.gone,
        "to_try": count.to_try,
        "short": count.short,
    }
