"""Write the report page as HTML (`templates/page.html`), JSON and tables.

jinja2 escapes every text, because labels may come from a stranger. The page's own
Content-Security-Policy allows no network requests, and no script but page.js.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from utils.cli import VERSION, csv_text, plural, printable, size_text, without_formula
from utils.clip import format_time
from utils.download.archives import MIRROR
from utils.files import check_ours, run_folder, write_whole
from utils.lists.official import LIST_COLUMNS
from utils.lists.reading import form_words
from utils.page import plots
from utils.page.dataset import Count, Counts, Dataset, why_missing
from utils.page.looks import KINDS, SHEET, STRIP, ClipLook, Suspect

TEMPLATES = Path(__file__).parent / "templates"
# The first line marks a page of ours, which may be replaced.
FIRST_LINE = "<!doctype html><!-- made by make_report.py -->"
MISSING = (*LIST_COLUMNS, "status", "reason", "source", "clip")
SUSPECTS = ("kind", "clip", "youtube_id", "label", "detail", "rule")
NUMBERS = ("wanted", "there", "missing", "missing_percent", "gone", "to_try", "short")
CLASSES = ("label", *NUMBERS, "median_seconds")
TABLES = {"missing.csv": MISSING, "suspects.csv": SUSPECTS, "classes.csv": CLASSES}
SHOWN_OF_A_KIND = 12
GROUP_ROWS = 6


@dataclass
class Content:
    """The content of the page.

    looks: the probed clips. sheet: clips of the contact sheet; strips: label -> clips. pictures:
    (clip, short side) -> its thumbnail.
    """

    data: Dataset
    args: argparse.Namespace
    page: Path
    made_at: datetime
    counts: Counts
    history: plots.History | None
    looks: Sequence[ClipLook]
    suspects: Mapping[str, Sequence[Suspect]]
    sheet: Sequence[str]
    strips: Mapping[str, Sequence[str]]
    pictures: Mapping[tuple[str, int], ClipLook]

    @property
    def readable(self) -> list[ClipLook]:
        return [look for look in self.looks if not look.problem]

    @property
    def hours_left(self) -> float | None:
        return self.history.hours_left(self.counts.total.to_try) if self.history else None

    @property
    def answer(self) -> str:
        """Sum up the page in one line."""
        total, history = self.counts.total, self.history
        if total.missing:
            share = plots.number_text(round(total.missing_percent, 1))
            parts = [f"{total.there:,} of {total.wanted:,} clips", f"{share}% missing"]
        else:
            parts = [f"All {total.wanted:,} clips are on disk"]
        if broken := len(self.looks) - len(self.readable):
            parts.append(f"{broken:,} of {len(self.looks):,} probed cannot be read")
        if total.missing and not total.to_try:
            parts.append("nothing left to try")
        elif history and (hours := self.hours_left):
            pace = "at this pace" if history.is_running else "at the pace of the last run"
            parts.append(f"{plots.hours_text(hours)} left {pace}")
        return ", ".join(parts)

    @property
    def findings(self) -> str:
        """Sum up the suspicious clips."""
        counts = {KINDS[kind].title: len(found) for kind, found in self.suspects.items() if found}
        texts = [f"{count:,} {title.lower()}" for title, count in counts.items()]
        return f"suspicious: {', '.join(texts)}" if texts else "nothing suspicious"

    def next_steps(self) -> Iterator[tuple[str, str]]:
        """Yield the next commands, each with what it does."""
        total, args = self.counts.total, self.args

        def command(*words: object) -> str:
            return shlex.join(["python", *map(str, words)])

        if total.to_try:
            words = [*form_words(args)]
            if self.data.sounds:
                suffix = next(iter(self.data.sounds.values()))
                words += ["--audio_only", "--audio_format", suffix[1:]]
            for option in ("label", "split"):
                words += [f"--{option}", *getattr(args, option)] if getattr(args, option) else []
            if args.shard[1] > 1:
                words += ["--shard", f"{args.shard[0]}/{args.shard[1]}"]
            missing = plural(total.to_try, "missing clip")
            what = f"downloads the {missing} that may still be available"
            yield command("download.py", args.folder, *words), what
        if total.gone and MIRROR not in self.counts.sources:
            words = ["--source", MIRROR, "--input_csv", str(self.page.parent / "missing.csv")]
            gone = plural(total.gone, "clip")
            what = f"searches the mirror's archives for the {gone} unavailable on YouTube"
            yield command("download.py", args.folder, *words), what
        if total.there and not total.to_try:
            words = ["lists", "--format", "slowfast", *form_words(args)]
            what = "writes training lists of the clips on disk"
            yield command("make_training_lists.py", args.folder, *words), what

    @property
    def ends_at(self) -> datetime:
        """Return when the download will end at its pace, which must be known."""
        return self.made_at + timedelta(hours=self.hours_left or 0)

    def histograms(self) -> list[plots.Plot]:
        good = self.readable
        return [
            plots.histogram("Length", "seconds", [look.seconds for look in good], 0.5),
            plots.histogram("Bitrate", "kbit per second", [look.kbits for look in good], 10),
            plots.histogram("File size", "MB", [look.bytes / 1e6 for look in good], 0.05),
            plots.histogram("Key frame interval", "frames", [look.key_frames for look in good], 1),
        ]

    def groups(self) -> list[tuple[str, list[tuple[str, float]]]]:
        """Return (title, (value, percent of the readable clips)) of what has few values."""
        good = self.readable
        values = {
            "Size": Counter(f"{look.width}x{look.height}" for look in good),
            "Frames per second": Counter(plots.number_text(round(look.fps, 2)) for look in good),
            "Video": Counter(look.codec for look in good),
            "Audio": Counter(look.audio_codec or "none" for look in good),
        }
        groups = []
        for title, counted in values.items():
            shown = counted.most_common(GROUP_ROWS)
            if len(counted) > GROUP_ROWS:  # the last row is for at least two others
                rest = len(good) - sum(n for _, n in shown[:-1])
                shown[-1] = f"{len(counted) - GROUP_ROWS + 1:,} others", rest
            groups.append((title, [(text, 100 * n / len(good)) for text, n in shown]))
        return groups

    def key_frames(self) -> float:
        """Return the median of the intervals between keyframes."""
        return statistics.median(look.key_frames for look in self.readable)


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
        "leaks": [{"one": a, "other": b, "videos": n} for a, b, n in content.data.count_leaks()],
        "probed": len(content.looks),
        "suspects": {kind: len(found) for kind, found in content.suspects.items()},
        "next": [command for command, _ in content.next_steps()],
    }
    if history is not None:
        found["pace"] = {
            "clips_per_hour": round(history.pace, 2),
            "hours_left": content.hours_left,
            "first": f"{history.first:%Y-%m-%dT%H:%MZ}",
            "last": f"{history.last:%Y-%m-%dT%H:%MZ}",
            "is_running": history.is_running,
            "pauses": len(history.pauses),
        }
    return found


def _count_numbers(count: Count) -> dict[str, Any]:
    return {name: round(getattr(count, name), 2) for name in NUMBERS}


def render(content: Content) -> str:
    """Return the whole page as one HTML file."""
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
        "short_number": plots.number_text,
        "moment": plots.moment,
        "hours": plots.hours_text,
        "tied": lambda text: re.sub(r"(?<=\d) (?=h\b|min\b|days\b)", "\N{NO-BREAK SPACE}", text),
        "address": lambda text: quote(os.fsencode(text)),
        "shown": lambda text: printable(str(text), 4096),
        "size": size_text,
    }
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    strips: dict[str, list[tuple[str, str, int, int]]] = {}
    for label, names in content.strips.items():
        looks = [content.pictures[name, STRIP] for name in names]
        strips[label] = [
            (each.name, each.src, each.width, each.height) for each in looks if each.src
        ]
    shares = [count.missing_percent for count in content.counts.classes.values()]
    folder = os.path.relpath(content.data.folder, content.page.parent)
    return environment.get_template("page.html").render(
        page=content,
        total=content.counts.total,
        kinds=KINDS,
        most_shown=SHOWN_OF_A_KIND,
        class_plot=plots.ranked_plot(shares),
        time_plot=plots.time_plot,
        sheet=SHEET,
        strips=strips,
        link=f"{quote(os.fsencode(folder))}/",
        first_line=FIRST_LINE,
        version=VERSION,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )


def check_outputs(page: Path) -> None:
    """Raise UserError if the page or its tables would replace a file of somebody else."""
    how = "move it, or use another --out"
    check_ours(page, FIRST_LINE, how)
    for name, columns in TABLES.items():
        check_ours(page.parent / name, ",".join(columns[:5]), how)  # older ones have fewer


def write_page(content: Content) -> None:
    """Write the tables and, last, the page, each whole or not. Raises UserError, DiskFull."""
    page, data = content.page, content.data
    texts = {
        "missing.csv": csv_text([MISSING, *_missing_rows(data)]),  # a list for download.py
        "suspects.csv": csv_text([SUSPECTS, *_suspect_rows(content)]),
        "classes.csv": csv_text([CLASSES, *_class_rows(content.counts)]),
        page.name: render(content),
    }
    with run_folder(page.parent) as workspace:
        for name, text in texts.items():
            write_whole(page.parent / name, workspace, text)


def _suspect_rows(content: Content) -> Iterator[Sequence[object]]:
    for kind, found in content.suspects.items():
        for each in found:
            about = map(without_formula, (content.data.label(each.clip), each.detail))
            yield kind, each.clip, each.youtube_id, *about, KINDS[kind].rule


def _class_rows(counts: Counts) -> Iterator[Sequence[object]]:
    worst_first = sorted(
        counts.classes.items(), key=lambda each: (-each[1].missing_percent, each[0])
    )
    for label, count in worst_first:
        values = {name: getattr(count, name) for name in NUMBERS}
        values["missing_percent"] = f"{count.missing_percent:.1f}"
        median = "" if count.median_seconds is None else f"{count.median_seconds:.2f}"
        yield without_formula(label), *values.values(), median


def _missing_rows(data: Dataset) -> Iterator[Sequence[str]]:
    for name, clip in data.clips.items():
        if name not in data.sizes:
            line = data.reported.get(name)
            status, reason, _ = why_missing(line)
            times = format_time(clip.time_start), format_time(clip.time_end)
            source = line.source if line else ""
            yield clip.label, clip.youtube_id, *times, clip.split, status, reason, source, name
