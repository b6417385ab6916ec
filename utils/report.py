"""Read and write reports: one line per processed clip, with its status and reason.

One run writes a file: a run that finds it taken writes another file beside it, and readers read
them all.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from utils.cli import csv_text, escaped_row
from utils.clip import DOWNLOADED, FAILED, INVALID, UNAVAILABLE, Clip, Result
from utils.errors import DiskFull, UserError
from utils.files import bounded_lines, machine_name, open_regular, open_text, parse_json, telling

REPORT_NAME = "download_report.csv"

LONGEST_LINE = 8192  # bytes; more than any line of a report
RESULT_COLUMNS = tuple(column.name for column in fields(Result))
LATER_COLUMNS = ("height",)  # which reports of older versions lack


class LineFile:
    """A file to which whole lines are appended, each with one write.

    It survives a kill at any byte: a torn last line is closed when the file is opened again, so
    that a reader can skip it. One run at a time writes it.
    """

    def __init__(self, path: Path, header: str = "") -> None:
        """Raises UserError, DiskFull."""
        self.path = path
        self._writing = threading.Lock()  # threads of one run write, and NFS does not append
        if path.is_symlink():
            raise UserError(f"{path} is a link, and is not written through one: remove it")
        with telling(path, "write"):
            torn = _torn_end(path) if path.exists() else ""
            if torn and header.startswith(torn):
                path.unlink()  # killed while it wrote its first line
                torn = ""
            # O_NONBLOCK: a FIFO that takes the file's place is refused, and not waited for.
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
            self._file = os.open(path, flags, 0o666)
            if torn:
                # A quote left open would swallow the rest for every other reader of CSV.
                self.write('"\n' if header and torn.count('"') % 2 else "\n")
            elif header and os.fstat(self._file).st_size == 0:
                self.write(header)

    def write(self, lines: str) -> None:
        """Append whole lines. Raises UserError, DiskFull."""
        data = lines.encode()
        if not self.path.exists():
            # An unmounted disk, a folder that was removed: every further clip would fail, too.
            raise UserError(
                f"{self.path} is no longer there (is the disk still mounted?): bring its folder"
                " back, then run the same command again"
            )
        with telling(self.path, "write"), self._writing:
            written = os.write(self._file, data)
        if written != len(data):
            raise DiskFull(self.path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)


class ReportFile(LineFile):
    """A CSV file of results. Each run has one of its own (`own_names`)."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Raises UserError, also when the file has other columns, and DiskFull."""
        if _is_older(path, columns):
            _add_columns(path, columns)
        super().__init__(path, csv_text([columns]))

    def append(self, *rows: Iterable[object]) -> None:
        """Append rows with one write."""
        self.write(csv_text(map(escaped_row, rows)))

    def append_result(self, result: Any) -> None:
        """Append a dataclass whose fields are the columns."""
        self.append(astuple(result))


def own_names(path: Path, shard: tuple[int, int] = (1, 1)) -> Iterator[str]:
    """Yield the names of the reports that a run writes: the first that no other run writes.

    They are that of `path`, or that of a file beside it. Part 2 of 4 writes
    `download_report.shard-2-of-4.csv`; a run that finds its file taken, by this machine or another,
    `download_report.<machine>.csv`.
    """
    name, hyphen = path.stem, "."
    if shard[1] > 1:
        name, hyphen = f"{name}.shard-{shard[0]}-of-{shard[1]}", "-"
    yield f"{name}{path.suffix}"
    name += hyphen + machine_name()
    yield f"{name}{path.suffix}"
    for number in itertools.count(2):
        yield f"{name}-{number}{path.suffix}"


def report_paths(path: Path) -> list[Path]:
    """Return the existing reports: `path`, and those of other machines and shards beside it."""
    with telling(path.parent):
        # 0.34 s if it holds 650,000 clips.
        names = os.listdir(path.parent) if path.parent.is_dir() else []
    start, end = f"{path.stem}.", path.suffix
    found = [name for name in names if name.startswith(start) and name.endswith(end)]
    return [path.with_name(name) for name in sorted(found, key=lambda n: (n != path.name, n))]


def report_line(path: Path, main: Path) -> str:
    """Return the summary's line: the report's path, and the number of others beside it."""
    others = len([each for each in report_paths(main) if each != path])
    more = f", and {others:,} of other machines or runs in the same folder" if others else ""
    return f"report: {path}{more}"


def _torn_end(path: Path) -> str:
    """Return the text after the last line end: empty, unless a run was killed while it wrote."""
    with open_regular(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LONGEST_LINE))
        return file.read().rpartition(b"\n")[2].decode(errors="replace")


def _is_older(path: Path, columns: Sequence[str]) -> bool:
    """Return whether a report lacks LATER_COLUMNS. Raises UserError if it is no such report."""
    header = csv_text([columns])
    older = csv_text([[name for name in columns if name not in LATER_COLUMNS]])
    with telling(path, "read the report"):
        try:
            with open_text(path, "replace") as file:
                first = file.readline(len(header) + 1).replace("\r\n", "\n")
        except FileNotFoundError:
            return False
    if not header.startswith(first) and first != older:
        raise UserError(f"{path} is not a report written by this script: move or rename it")
    return first == older != header


def _add_columns(path: Path, columns: Sequence[str]) -> None:
    """Rewrite a report of an older version with LATER_COLUMNS."""
    part = path.with_name(f"{path.name}.part")
    with telling(path, "write the report"):
        part.unlink(missing_ok=True)  # of a run that was killed; or a link, which is not followed
        with part.open("x", encoding="utf-8", newline="") as file:
            file.write(csv_text([columns, *read_report(path, columns)]))
        os.replace(part, path)


def read_report(path: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """Read the whole rows of a report, oldest first; skip torn and foreign lines.

    Raises UserError when the file has other columns.
    """
    _is_older(path, columns)
    if not path.exists():
        return
    width, older = len(columns), [name for name in columns if name not in LATER_COLUMNS]
    with telling(path), open_text(path, "replace") as file:
        for line in bounded_lines(file):
            if not line.endswith("\n"):
                continue
            row: list[str] = []
            if '"' not in line:
                row = line.rstrip("\r\n").split(",")  # as csv reads it, in a third of the time
            else:  # line by line: an open quote of a torn line would swallow the next ones
                with suppress(csv.Error):
                    row = next(csv.reader([line], strict=True))
            if len(row) == len(older) < width:
                row = [row.pop(0) if name in older else "" for name in columns]
            if len(row) != width or row == list(columns):
                continue
            if columns[-1] == "finished_at" and not row[-1].endswith("Z"):
                continue  # torn in its last column, and closed since
            yield row


def read_every(
    path: Path, columns: Sequence[str], status: str = ""
) -> Iterator[tuple[list[str], bool]]:
    """Yield each row of `path` and of the reports beside it, and whether it counts so far.

    The last row of a clip counts; of several files that is the latest by `finished_at`, which need
    not be read last. status: only rows with this status. Raises UserError.
    """
    at, paths = columns.index("status"), report_paths(path)
    latest: dict[str, str] = {}
    for each in paths:
        for row in read_report(each, columns):
            if status and row[at] != status:
                continue
            counts = True
            if len(paths) > 1 and row[0]:  # an invalid row names no clip
                counts = row[-1] >= latest.get(row[0], "")
                if counts:
                    latest[row[0]] = row[-1]
            yield row, counts


def read_reports(path: Path, columns: Sequence[str], status: str = "") -> Iterator[list[str]]:
    """Yield the rows of `read_every` that count: the last one of a clip is what became of it."""
    return (row for row, counts in read_every(path, columns, status) if counts)


@dataclass(frozen=True)
class Known:
    """The report's lines for clips that are not on disk, and for invalid rows."""

    # clip: (status, reason, source that said so)
    reasons: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    unreported: frozenset[str] = frozenset()  # clips on disk whose line a kill has cost

    def status(self, clip: Clip) -> str:
        """`unavailable` or `failed`; empty for a clip that the report does not know."""
        return self.reasons[clip.name][0] if clip.name in self.reasons else ""


def read_known(path: Path, on_disk: Iterable[str] = ()) -> Known:
    """Read the download report, of all machines: the last line for a clip counts.

    on_disk: clips to compare with the report (`Known.unreported`).
    """
    unreported = set(on_disk)
    reasons: dict[str, tuple[str, str, str]] = {}
    refused: set[str] = set()
    kept: dict[tuple[str, str, str], tuple[str, str, str]] = {}
    for row in read_reports(path, RESULT_COLUMNS):
        clip, status = row[0], row[4]
        if status == DOWNLOADED:
            unreported.discard(clip)
            reasons.pop(clip, None)
        elif status == INVALID:
            refused.add(row[10])
        elif status in (UNAVAILABLE, FAILED):
            why = (status, row[5], row[6])
            reasons[clip] = kept.setdefault(why, why)
    return Known(reasons, frozenset(refused), frozenset(unreported))


def read_shorts(path: Path) -> frozenset[str]:
    """Return the clips that the report marks as `short`."""
    shorts: set[str] = set()
    for row in read_reports(path, RESULT_COLUMNS, DOWNLOADED):
        (shorts.add if row[5] == "short" else shorts.discard)(row[0])
    return frozenset(shorts)


VIDEOS_NAME = "videos.jsonl"  # beside the report: what YouTube said of each video (--metadata)


def read_licences(path: Path) -> dict[str, str]:
    """YouTube id -> licence, `youtube` for a video without one of its own; torn lines are skipped.

    Empty if no run wrote such a file. Raises UserError.
    """
    videos = (video for each in report_paths(path) for video in _videos(each))
    return {
        str(video.get("youtube_id")): str(video.get("licence") or "youtube") for video in videos
    }


def _videos(path: Path) -> Iterator[dict[str, Any]]:
    with telling(path), open_text(path, "replace") as file:
        for line in bounded_lines(file):
            with suppress(ValueError):
                yield parse_json(line)


class VideosFile(LineFile):
    """`videos.jsonl`, to which a line is appended for each video that YouTube described, once.

    Each run has one of its own, as it has a report: `videos.<machine>.jsonl` beside
    `download_report.<machine>.csv`.
    """

    def __init__(self, report: Path) -> None:
        """`report`: the run's own. Raises UserError, DiskFull."""
        main = report.with_name(VIDEOS_NAME)
        part = report.name.removeprefix(Path(REPORT_NAME).stem).removesuffix(".csv")
        self._known = {
            str(video.get("youtube_id")) for path in report_paths(main) for video in _videos(path)
        }
        super().__init__(main.with_name(f"{main.stem}{part}{main.suffix}"))

    def add(self, video: Mapping[str, Any]) -> None:
        """Append a video that is not there yet. Raises DiskFull, UserError."""
        if video["youtube_id"] not in self._known:
            self._known.add(video["youtube_id"])
            self.write(json.dumps(video, ensure_ascii=True) + "\n")
