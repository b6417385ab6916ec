"""Write the report page as HTML (`templates/page.html`), JSON and tables.

Every text is escaped by jinja2, because labels are a stranger's. The page has a policy of its own
(Content-Security-Policy): no network requests, and no script but page.js.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from utils.cli import VERSION
from utils.files import check_ours, publish, run_folder, telling, write_whole
from utils.page.dataset import Count, Counts, Dataset, find_leaks, why_missing
from utils.page.looks import SHEET, STRIP, ClipLook
from utils.page.plots import (
    HEIGHT,
    WIDTH,
    History,
    Plot,
    histogram,
    hours_text,
    moment,
    number_text,
    ranked_plot,
    time_plot,
)
from utils.page.suspects import KINDS, Suspect
from utils.report import format_time
from utils.text import csv_text, printable, without_formula

TEMPLATES = Path(__file__).parent / "templates"
# The first line of a page: by it, a page of ours is known.
FIRST_LINE = "<!doctype html><!-- made by make_report.py -->"
MISSING = (
    *("label", "youtube_id", "time_start", "time_end", "split"),
    *("status", "reason", "source", "clip"),
)
SUSPECTS = ("kind", "clip", "youtube_id", "label", "detail", "rule")
NUMBERS = ("wanted", "there", "missing", "missing_percent", "gone", "to_try", "short")
CLASSES = ("label", *NUMBERS, "median_seconds")
TABLES = {"missing.csv": MISSING, "suspects.csv": SUSPECTS, "classes.csv": CLASSES}
SHOWN_OF_A_KIND = 12
GROUP_ROWS = 6
SLOW_FROM = 60  # frames between key frames


@dataclass
class Content:
    """The content of the page. looks: of the probed clips; pictures: (clip, form) -> its picture.

    next_steps: (command, what it does). sheet, strips: clips, and of each label, to be shown.
    """

    data: Dataset
    args: argparse.Namespace
    page: Path
    made_at: datetime
    counts: Counts
    history: History | None
    next_steps: Sequence[tuple[str, str]]
    looks: Sequence[ClipLook]
    suspects: Sequence[Suspect]
    sheet: Sequence[str]
    strips: Mapping[str, Sequence[str]]
    pictures: Mapping[tuple[str, str], ClipLook]

    @property
    def total(self) -> Count:
        return self.counts.total

    @property
    def readable(self) -> list[ClipLook]:
        return [look for look in self.looks if not look.problem]

    @property
    def leaks(self) -> list[tuple[str, str, int]]:
        return find_leaks(self.data.lists)

    @property
    def answer(self) -> str:
        """The whole page in one line."""
        total, history = self.total, self.history
        if total.missing:
            share = number_text(round(total.missing_percent, 1))
            parts = [f"{total.there:,} of {total.wanted:,} clips", f"{share}% missing"]
        else:
            parts = [f"All {total.wanted:,} clips are on disk"]
        if broken := len(self.looks) - len(self.readable):
            parts.append(f"{broken:,} of {len(self.looks):,} probed cannot be read")
        if total.missing and not total.to_try:
            parts.append("nothing left to try")
        elif history and total.to_try and (hours := history.hours_left(total.to_try)):
            pace = "at this pace" if history.is_running else "at the pace of the last run"
            parts.append(f"{hours_text(hours)} left {pace}")
        return ", ".join(parts)

    @property
    def estimate(self) -> str:
        """When all will be there, in a sentence."""
        history, to_try = self.history, self.total.to_try
        if history is None or not to_try or not (hours := history.hours_left(to_try)):
            return ""
        text = (
            f"Over the last run {number_text(history.pace)} clips per hour were downloaded or"
            f" found unavailable, including pauses. At that pace the other {to_try:,} take"
            f" {hours_text(hours)}"
        )
        if not history.is_running:
            return f"{text} once the run continues."
        return f"{text}: until {moment(self.made_at + timedelta(hours=hours))} UTC."

    def kinds(self) -> list[dict[str, Any]]:
        """The ways to look wrong, each with how many do, the worst of them, and an estimate."""
        probed, there, kinds = len(self.looks), self.total.there, []
        for kind in KINDS:
            found = [each for each in self.suspects if each.kind == kind.key]
            estimate = ""
            if found and kind.find is not None and probed < there:
                many = round(len(found) / probed * there)
                estimate = f"{len(found):,} of {probed:,} probed: about {many:,} of all {there:,}"
            shown = found[:SHOWN_OF_A_KIND]
            kinds.append({"kind": kind, "count": len(found), "shown": shown, "estimate": estimate})
        return kinds

    def plots(self) -> list[Plot]:
        good = self.readable
        return [
            histogram("Length", "seconds", [look.seconds for look in good], 0.5),
            histogram("Bitrate", "kbit per second", [look.kbits for look in good], 10),
            histogram("File size", "MB", [look.bytes / 1e6 for look in good], 0.05),
            histogram("Key frame interval", "frames", [look.key_frames for look in good], 1),
        ]

    def groups(self) -> list[tuple[str, list[tuple[str, float]]]]:
        """(what, (value, percent of the readable clips)) of what has few values."""
        good = self.readable
        values = {
            "Size": [f"{look.width}x{look.height}" for look in good],
            "Frames per second": [number_text(round(look.fps, 2)) for look in good],
            "Video": [look.codec for look in good],
            "Audio": [look.audio_codec or "none" for look in good],
        }
        groups = []
        for title, texts in values.items():
            shown = Counter(texts).most_common()
            if len(shown) > GROUP_ROWS:
                rest = shown[GROUP_ROWS - 1 :]
                others = (f"{len(rest):,} others", sum(number for _, number in rest))
                shown = [*shown[: GROUP_ROWS - 1], others]
            groups.append((title, [(text, 100 * n / len(good)) for text, n in shown]))
        return groups

    def key_frames(self) -> tuple[str, bool]:
        """Return a sentence on keyframes and loading, and whether loading is slow."""
        apart = statistics.median(look.key_frames for look in self.readable)
        seconds = statistics.median(look.key_seconds for look in self.readable)
        text = (
            "A chunk is decoded from the keyframe before it, so their interval decides how fast"
            f" chunks load: here {apart:,.0f} frames, {number_text(seconds)} s, in the median."
            " With one every 250 frames a chunk of 32 was measured to take 60 ms of CPU, every 30"
            " frames 28 ms, and 21 ms in files made for loading (256 lines)."
        )
        return text, apart > SLOW_FROM


def json_numbers(content: Content) -> dict[str, Any]:
    """Return the numbers that --json prints."""
    counts, history = content.counts, content.history
    found: dict[str, Any] = {
        "made_at": f"{content.made_at:%Y-%m-%dT%H:%M:%SZ}",
        "folder": printable(str(content.data.folder), 4096),
        "lists": [printable(str(path), 4096) for path in content.args.lists],
        "answer": content.answer,
        **_count_numbers(counts.total),
        "failed": counts.failed,
        "bytes": counts.bytes,
        "not_listed": counts.not_listed,
        "sources": dict(counts.sources.most_common()),
        "licences": dict(counts.licences.most_common()),
        "heights": dict(counts.heights.most_common()),
        "reasons": [
            {"status": status, "reason": reason, "todo": todo, "clips": clips}
            for (status, reason, todo), clips in counts.whys.most_common()
        ],
        "pace": None,
        "splits": [
            {"version": version, "split": split, **_count_numbers(count)}
            for (version, split), count in counts.splits.items()
        ],
        "classes": [
            {"label": label, **_count_numbers(count), "median_seconds": count.median_seconds}
            for label, count in counts.classes.items()
        ],
        "leaks": [{"one": a, "other": b, "videos": n} for a, b, n in content.leaks],
        "probed": len(content.looks),
        "suspects": {each["kind"].key: each["count"] for each in content.kinds()},
        "next": [command for command, _ in content.next_steps],
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
    return {name: round(getattr(count, name), 2) for name in NUMBERS}


def render(content: Content) -> str:
    """The whole page, one file."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "thousands": lambda number: f"{number:,}",
        "percent": lambda number: f"{number:.1f}",
        "short_number": number_text,
        "moment": moment,
        "tied": lambda text: re.sub(r"(?<=\d) (?=h\b|min\b|days\b)", "\N{NO-BREAK SPACE}", text),
        "address": lambda text: quote(os.fsencode(text)),
        "shown": lambda text: printable(str(text), 4096),
        "size": lambda size: f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB",
    }
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    way = os.path.relpath(content.data.folder, content.page.parent)
    strips = {
        label: [
            [name, p.src, p.width, p.height]
            for name in names
            if (p := content.pictures[name, STRIP]).src
        ]
        for label, names in content.strips.items()
    }
    return environment.get_template("page.html").render(
        page=content,
        probed=len(content.looks),
        readable=len(content.readable),
        kinds=content.kinds(),
        class_plot=ranked_plot(
            [count.missing_percent for count in content.counts.classes.values()]
        ),
        time_plot=time_plot,
        sheet=SHEET,
        strips=strips,
        link="./" if way == "." else f"{quote(os.fsencode(way))}/",
        first_line=FIRST_LINE,
        version=VERSION,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        box=f"0 0 {WIDTH} {HEIGHT}",
    )


def check_outputs(page: Path) -> None:
    """Raises UserError where the page or its tables would replace a file that is not ours."""
    how = "move it, or use another --out"
    check_ours(page, FIRST_LINE, how)
    for name, columns in TABLES.items():
        check_ours(page.parent / name, ",".join(columns[:5]), how)  # older ones have fewer


def write_page(content: Content) -> None:
    """Write the page, and beside it its tables. Raises UserError, DiskFull.

    All are written first and then get their names, the page last: what was there stays until then.
    """
    page, data, counts = content.page, content.data, content.counts
    classes = sorted(counts.classes.items(), key=lambda item: (-item[1].missing_percent, item[0]))
    rows = [_class_row(label, count) for label, count in classes]
    suspects = []
    for each in content.suspects:
        about = map(without_formula, (data.label(each.clip), each.detail))
        suspects.append((each.kind, each.clip, each.youtube_id, *about, RULES[each.kind]))
    texts = {
        "missing.csv": csv_text([MISSING, *_missing_rows(data)]),  # a list for download.py
        "suspects.csv": csv_text([SUSPECTS, *suspects]),
        "classes.csv": csv_text([CLASSES, *rows]),
        page.name: render(content),
    }
    with run_folder(page.parent) as workspace:
        for name, text in texts.items():
            write_whole(workspace / name, workspace, text)
        for name in texts:
            with telling(page.parent / name, "write"):
                publish(workspace / name, page.parent / name)


RULES = {kind.key: kind.rule for kind in KINDS}


def _class_row(label: str, count: Count) -> Sequence[object]:
    median = count.median_seconds
    values = {name: getattr(count, name) for name in NUMBERS}
    values["missing_percent"] = f"{count.missing_percent:.1f}"
    return without_formula(label), *values.values(), "" if median is None else f"{median:.2f}"


def _missing_rows(data: Dataset) -> Iterator[Sequence[str]]:
    for name, clip in data.clips.items():
        if name not in data.sizes:
            line = data.reported.get(name)
            status, reason, _ = why_missing(line)
            times = format_time(clip.time_start), format_time(clip.time_end)
            source = line.source if line else ""
            yield clip.label, clip.youtube_id, *times, clip.split, status, reason, source, name
