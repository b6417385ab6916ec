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

from utils.lists.versions import ID_LENGTH
from utils.report import format_time
from utils.training.choosing import Choice
from utils.training.job import Job, write_lines

COLUMNS = ("path", "clip", "youtube_id", "time_start", "time_end", "split", "label", "number")
MORE_COLUMNS = ("version", "bytes", "seconds", "sha256")
ALL_COLUMNS = COLUMNS + MORE_COLUMNS
ROWS_AT_ONCE = 1024


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


Value = str | int | float | None


def values_of(choice: Choice, at: int, path: str) -> list[Value]:
    """What is known of a clip, in the order of COLUMNS and MORE_COLUMNS; None where nothing is."""
    rows, number = choice.rows, choice.numbers[at]
    name = rows.names[at]
    return [
        path,
        name,
        name[:ID_LENGTH],
        rows.starts[at],
        rows.ends[at],
        choice.splits[at],
        None if number < 0 else choice.classes.names[number],
        None if number < 0 else number,
        rows.lists[rows.list_at[at]].version,
        choice.sizes[at],
        choice.seconds.get(at),
        choice.hashes.get(at),
    ]


def known_of(choice: Choice, at: int, path: str) -> dict[str, Value]:
    """The same by name, with the further columns of its list."""
    known = dict(zip(ALL_COLUMNS, values_of(choice, at, path), strict=True))
    more = choice.rows.extras[at]
    return known | {column: value for column, value in more if column not in known}


def csv_with_header(job: Job) -> list[Path]:
    """`{split}.csv` with a header, and the further columns of the lists."""
    return [write_lines(job, f"{s}.csv", _csv(job, s)) for s in job.choice.used_splits()]


def _csv(job: Job, split: str) -> Iterator[str]:
    choice, extras = job.choice, job.choice.rows.extras
    more = sorted({name for extra in set(extras[: choice.wanted]) for name, _ in extra})
    more = [name for name in more if name not in ALL_COLUMNS]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*ALL_COLUMNS, *more])
    times = _Times()
    for number, at in enumerate(choice.chosen(split), 1):
        values = values_of(choice, at, job.path(at))
        values[3:5] = times[choice.rows.starts[at]], times[choice.rows.ends[at]]
        if more:
            known = dict(extras[at])
            values += [known.get(name, "") for name in more]
        writer.writerow(values)
        if number % ROWS_AT_ONCE == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


class _Times(dict[float, str]):
    """Seconds -> as a list writes them; the same few thousand times repeat."""

    def __missing__(self, seconds: float) -> str:
        self[seconds] = text = format_time(seconds)
        return text


def json_lists(job: Job) -> list[Path]:
    """`{split}.json`: an array of objects, one a line."""
    return [write_lines(job, f"{s}.json", _json(job, s)) for s in job.choice.used_splits()]


def _json(job: Job, split: str) -> Iterator[str]:
    encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps makes one each time
    between = "[\n"
    for at in job.choice.chosen(split):
        known = known_of(job.choice, at, job.path(at))
        yield between + encode(known)
        between = ",\n"
    yield "\n]\n"
