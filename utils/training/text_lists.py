"""Lists that are lines of text: `path label` in its dialects, and csv and json with everything.

Each form is what the code that reads it does (docs/training.md names it): those that split at white
space have no quoting.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from utils.report import format_time
from utils.training.choosing import Choice
from utils.training.job import Job, write_lines

COLUMNS = ("path", "clip", "youtube_id", "time_start", "time_end", "split", "label", "number")
MORE_COLUMNS = ("version", "bytes", "seconds", "sha256")


def path_label(job: Job) -> list[Path]:
    """`{split}.csv`: `path label`, no header; for pretraining `path 0 -1`."""
    written = []
    for split in job.choice.used_splits():
        written.append(write_lines(job, f"{split}.csv", _path_label(job, split)))
    return written


def _path_label(job: Job, split: str) -> Iterator[str]:
    before, names, numbers = job.before, job.choice.rows.names, job.choice.numbers
    for at in job.choice.chosen(split):
        label = "0 -1" if job.pretrain else numbers[at]
        yield f"{before}{names[at]}.mp4 {label}\n"


def mmaction2(job: Job) -> list[Path]:
    """`<name>_{split}_list_videos.txt`, or `_list_rawframes.txt`: `folder total_frames label`."""
    kind = "videos" if job.frames is None else "rawframes"
    written = []
    for split in job.choice.used_splits():
        lines = _path_label(job, split) if job.frames is None else _frame_folders(job, split)
        written.append(write_lines(job, f"{job.name}_{split}_list_{kind}.txt", lines))
    return written


def _frame_folders(job: Job, split: str) -> Iterator[str]:
    before, choice = job.before_frames(), job.choice
    for at in choice.chosen(split):
        yield f"{before}{choice.rows.names[at]} {choice.frames[at]} {choice.numbers[at]}\n"


def known_of(choice: Choice, at: int, path: str) -> dict[str, str | int | float | None]:
    """Everything that is known of a clip; a number or hash that is not is None."""
    rows = choice.rows
    name, number = rows.names[at], choice.numbers[at]
    return {
        "path": path,
        "clip": name,
        "youtube_id": name[:11],
        "time_start": rows.starts[at],
        "time_end": rows.ends[at],
        "split": choice.splits[at],
        "label": choice.label(at) or None,
        "number": None if number < 0 else number,
        "version": rows.lists[rows.list_at[at]].version,
        "bytes": choice.sizes[at],
        "seconds": choice.seconds.get(at),
        "sha256": choice.hashes.get(at),
        **{column: value for column, value in rows.extras[at] if column not in COLUMNS},
    }


def csv_with_header(job: Job) -> list[Path]:
    """`{split}.csv` with a header, and the further columns of the lists."""
    return [write_lines(job, f"{s}.csv", _csv(job, s)) for s in job.choice.used_splits()]


def _csv(job: Job, split: str) -> Iterator[str]:
    choice = job.choice
    extras = {extra for extra in set(choice.rows.extras[: choice.wanted]) if extra}
    columns = dict.fromkeys((*COLUMNS, *MORE_COLUMNS))
    columns |= dict.fromkeys(sorted({name for extra in extras for name, _ in extra}))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    for at in choice.chosen(split):
        known = known_of(choice, at, job.path(at))
        times = {key: format_time(float(known[key] or 0)) for key in ("time_start", "time_end")}
        writer.writerow(known | times)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def json_lists(job: Job) -> list[Path]:
    """`{split}.json`: an array of objects, one a line."""
    return [write_lines(job, f"{s}.json", _json(job, s)) for s in job.choice.used_splits()]


def _json(job: Job, split: str) -> Iterator[str]:
    between = "[\n"
    for at in job.choice.chosen(split):
        known = known_of(job.choice, at, job.path(at))
        yield between + json.dumps(known, ensure_ascii=False)
        between = ",\n"
    yield "\n]\n"
