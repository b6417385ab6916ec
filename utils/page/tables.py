"""The files that the page and its tables are written to, whole or not at all.

missing.csv is a list that download.py takes; suspects.csv and classes.csv are the page's tables.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from utils.clip import Clip
from utils.errors import DiskFull, UserError, is_disk_full
from utils.files import publish
from utils.machines import run_folder
from utils.page.counts import Counts, median_length, why_missing
from utils.page.outcomes import Outcome
from utils.page.suspects import BY_KEY, Suspect
from utils.report import format_time

GENERATOR = '<meta name="generator" content="make_report.py'
MISSING = (
    "label",
    "youtube_id",
    "time_start",
    "time_end",
    "split",
    "status",
    "reason",
    "source",
    "clip",
)
SUSPECTS = ("kind", "clip", "youtube_id", "label", "detail", "rule")
_NUMBERS = ("wanted", "there", "missing", "missing_percent", "gone", "to_try", "short")
CLASSES = ("label", *_NUMBERS, "median_seconds")
TABLES = {"missing.csv": MISSING, "suspects.csv": SUSPECTS, "classes.csv": CLASSES}


def check_ours(page: Path) -> None:
    """Whether what is to be written replaces nothing but our own. Raises UserError."""
    starts = {page: GENERATOR}
    starts |= {page.parent / name: ",".join(columns) for name, columns in TABLES.items()}
    for path, start in starts.items():
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                head = file.read(1000)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        first = head.partition("\n")[0] or "?"  # of an older one, that lacks the last column
        if (start not in head) if path == page else not start.startswith(first):
            raise UserError(
                f"{path} is not a file of make_report.py: move it away, or give another --out"
            )


def missing_rows(
    clips: Mapping[str, Clip], sizes: Mapping[str, int], outcomes: Mapping[str, Outcome]
) -> Iterable[Sequence[str]]:
    """Rows of missing.csv."""
    for name, clip in clips.items():
        if name in sizes:
            continue
        outcome = outcomes.get(name)
        status, reason, _ = why_missing(outcome)
        times = format_time(clip.time_start), format_time(clip.time_end)
        source = outcome.source if outcome else ""
        yield clip.label, clip.youtube_id, *times, clip.split, status, reason, source, name


def suspect_rows(suspects: Iterable[Suspect], clips: Mapping[str, Clip]) -> Iterable[Sequence[str]]:
    """Rows of suspects.csv."""
    for each in suspects:
        label = clips[each.clip].label if each.clip in clips else ""
        rule = BY_KEY[each.kind].rule
        yield each.kind, each.clip, each.youtube_id, label, each.detail, rule


def class_rows(counts: Counts, medians: Mapping[str, float | None]) -> Iterable[Sequence[object]]:
    """Rows of classes.csv, the class that lost most first."""
    ranked = sorted(counts.classes.items(), key=lambda item: (-item[1].missing_percent, item[0]))
    for label, count in ranked:
        median = medians.get(label)
        numbers = count.wanted, count.there, count.missing, f"{count.missing_percent:.1f}"
        length = "" if median is None else f"{median:.2f}"
        yield label, *numbers, count.gone, count.to_try, count.short, length


def median_lengths(counts: Counts) -> dict[str, float | None]:
    """label -> seconds by the list, of the clips that are there."""
    return {label: median_length(count.lengths) for label, count in counts.classes.items()}


def write_all(page: Path, html: str, rows: Mapping[str, Iterable[Sequence[object]]]) -> None:
    """The page, and for each of TABLES its rows, beside it. Raises UserError, DiskFull.

    All are written first and then get their names, the page last: what was there stays until then.
    """
    folder = page.parent
    try:
        with run_folder(folder) as workspace:
            for name, columns in TABLES.items():
                with (workspace / name).open("w", encoding="utf-8", newline="") as file:
                    writer = csv.writer(file, lineterminator="\n")
                    writer.writerow(columns)
                    writer.writerows(rows[name])
            (workspace / "page").write_text(html, encoding="utf-8")
            for name in TABLES:
                publish(workspace / name, folder / name)
            publish(workspace / "page", page)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(folder) from error
        where = error.filename or page
        raise UserError(f"cannot write {where}: {error.strerror}") from error
