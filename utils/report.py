"""Read and write reports: one line per processed clip, with its status and reason.

Holds the only table of statuses and reasons. One run writes a file: a run that finds it taken
writes another file beside it, and readers read them all.
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from utils.cli import csv_text, escaped_row, hide_secrets, printable
from utils.clip import Clip, Refused
from utils.errors import DiskFull, UserError, describe, is_disk_full
from utils.files import (
    bounded_lines,
    disk_is_full,
    machine_name,
    open_regular,
    open_text,
    parse_json,
    telling,
)

REPORT_NAME = "download_report.csv"

DOWNLOADED, UNAVAILABLE, FAILED, INVALID = "downloaded", "unavailable", "failed", "invalid"

# reason -> (status, what it means and what to do). docs/statuses.md shows this table, which a test
# compares.
REASONS: dict[str, tuple[str, str]] = {
    "": (DOWNLOADED, "on disk, complete and checked"),
    "short": (
        DOWNLOADED,
        "kept, but shorter than requested: the video, or the clip it was cut from, ends first",
    ),
    "removed": (UNAVAILABLE, "removed by the uploader or by YouTube"),
    "private": (
        UNAVAILABLE,
        "only accounts it is shared with have access: use --cookies and --retry unavailable",
    ),
    "account_terminated": (UNAVAILABLE, "the uploader's account was closed"),
    "copyright": (UNAVAILABLE, "blocked by a copyright claim"),
    "members_only": (
        UNAVAILABLE,
        "paying members only: use --cookies of a member and --retry unavailable",
    ),
    "age_restricted": (
        UNAVAILABLE,
        "needs an account of legal age: use --cookies and --retry unavailable",
    ),
    "geo_blocked": (
        UNAVAILABLE,
        "not available in your country: use --proxy and --retry unavailable",
    ),
    "live": (UNAVAILABLE, "a live stream, or a premiere that has not started"),
    "drm": (UNAVAILABLE, "protected by DRM"),
    "bad_id": (UNAVAILABLE, "the ID does not identify a video"),
    "past_end": (UNAVAILABLE, "the clip starts after the end of the video"),
    "unavailable": (UNAVAILABLE, "YouTube gives no reason, or no source has the clip"),
    "rate_limited": (FAILED, "too many requests: run again in an hour, or use --cookies"),
    "bot_check": (FAILED, "YouTube suspects a bot: lower --videos_per_hour and use --cookies"),
    "forbidden": (FAILED, "the server refused the video data (403): update yt-dlp and run again"),
    "cookies": (FAILED, "the cookies are no longer valid: export them again"),
    "js_runtime": (FAILED, "no JavaScript runtime: pip install -U -r requirements.txt"),
    "no_format": (FAILED, "no downloadable format was offered: update yt-dlp and run again"),
    "network": (FAILED, "the connection failed: run again"),
    "timeout": (FAILED, "took longer than --timeout: run again, or raise --timeout"),
    "truncated": (FAILED, "received less than the full video: run again"),
    "undecodable": (FAILED, "the received data cannot be decoded: run again"),
    "disk_full": (FAILED, "the disk is full: free some space and run again"),
    "unknown": (FAILED, "unrecognised error: see the message and run again"),
}

# The same for what frame_extract.py and downscale_videos.py make of a clip that is on disk.
WRITTEN = "written"
MADE_REASONS: dict[str, tuple[str, str]] = {
    "": (WRITTEN, "written, complete and checked"),
    "truncated": (FAILED, "the video ends earlier than its header says: download it again"),
    "undecodable": (FAILED, "the video is damaged: download it again"),
    "past_end": (FAILED, "the annotated frame is after the end of the clip"),
    "disk_full": (FAILED, "the disk is full: free some space and run again"),
    "timeout": (FAILED, "took longer than --timeout: run again, or raise --timeout"),
    "unknown": (FAILED, "unrecognised error: see the message and run again"),
}


@dataclass(frozen=True)
class Result:
    """The result of one clip: a line of the report, in the order of its columns."""

    clip: str
    youtube_id: str
    time_start: str
    time_end: str
    status: str
    reason: str = ""
    source: str = ""
    attempts: int = 0
    seconds: float = 0.0
    bytes: int = 0
    message: str = ""
    height: int = 0  # lines of the video that it was cut from, its shorter side; 0: unknown
    finished_at: str = ""

    @classmethod
    def of(cls, clip: Clip, reason: str, source: str, **more: Any) -> Result:
        """The result of `clip` with `reason` (empty: all is well), finished now."""
        if "message" in more:
            more["message"] = printable(hide_secrets(more["message"]), 500)
        if "seconds" in more:
            more["seconds"] = round(more["seconds"], 2)
        return cls(
            clip.name,
            clip.youtube_id,
            format_time(clip.time_start),
            format_time(clip.time_end),
            REASONS[reason][0],
            reason,
            source,
            finished_at=now(),
            **more,
        )

    @classmethod
    def of_refused(cls, refused: Refused) -> Result:
        message = printable(str(refused), 500)
        return cls("", "", "", "", INVALID, "", message=message, finished_at=now())

    @property
    def is_on_disk(self) -> bool:
        return self.status == DOWNLOADED


LONGEST_LINE = 8192  # bytes; more than any line of a report
RESULT_COLUMNS = tuple(column.name for column in fields(Result))
LATER_COLUMNS = ("height",)  # which reports of older versions lack


def now() -> str:
    """The time in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_time(seconds: float) -> str:
    """A time as a list writes it: 417.0 -> `417`, 12.5 -> `12.5`."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".")


def reason_of(error: BaseException, out: Path | None = None) -> tuple[str, str]:
    """The reason and the message for a clip that an exception prevented; `out`: the clip's folder.

    On a full disk other errors than its own have that reason, too.
    """
    if not isinstance(error, OSError):
        return "unknown", describe(error)
    is_full = is_disk_full(error) or (out is not None and disk_is_full(out))
    place = error.filename or out
    message = str(error.strerror or error) + (f": {place}" if place else "")
    return "disk_full" if is_full else "unknown", message


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
    own = machine_name()
    if shard[1] > 1:
        part = f"shard-{shard[0]}-of-{shard[1]}"
        yield f"{path.stem}.{part}{path.suffix}"
        own = f"{part}-{own}"
    else:
        yield path.name
    yield f"{path.stem}.{own}{path.suffix}"
    for number in itertools.count(2):
        yield f"{path.stem}.{own}-{number}{path.suffix}"


def report_paths(path: Path) -> list[Path]:
    """The existing reports: `path` and those that other machines and shards wrote beside it.

    One look at the folder: 0.34 s if it holds 650,000 clips.
    """
    start, end = f"{path.stem}.", path.suffix
    try:
        names = os.listdir(path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"cannot read the folder {path.parent}: {error.strerror}") from error
    found = [name for name in names if name.startswith(start) and name.endswith(end)]
    return [path.with_name(name) for name in sorted(found, key=lambda n: (n != path.name, n))]


def report_line(path: Path, main: Path) -> str:
    """The summary's line: the report's path, and the number of others beside it."""
    others = len([each for each in report_paths(main) if each != path])
    more = f", and {others:,} of other machines or runs in the same folder" if others else ""
    return f"report: {path}{more}"


def _torn_end(path: Path) -> str:
    """The text after the last line end: empty, unless a run was killed while it wrote."""
    with open_regular(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LONGEST_LINE))
        return file.read().rpartition(b"\n")[2].decode(errors="replace")


def _is_older(path: Path, columns: Sequence[str]) -> bool:
    """Whether a report lacks LATER_COLUMNS. Raises UserError when the file is another one."""
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
            if '"' in line:
                try:
                    row = next(csv.reader([line], strict=True))
                except (csv.Error, StopIteration):
                    continue
            else:
                row = line.rstrip("\r\n").split(",")
            if len(row) == len(older) < width:
                row = [row.pop(0) if name in older else "" for name in columns]
            if len(row) != width or row == list(columns):
                continue
            if columns[-1] == "finished_at" and not row[-1].endswith("Z"):
                continue  # torn in its last column, and closed since
            yield row


def read_reports(path: Path, columns: Sequence[str], status: str = "") -> Iterator[list[str]]:
    """`read_report` of `path` and of the reports beside it: the last line for a clip counts.

    status: only lines with this status. From one file all such rows, oldest first. From several
    only the latest of each clip, by `finished_at`, the last column. They are read twice: 650,000
    lines in 2.4 s instead of 1.0, with 130 MB more. Raises UserError.
    """
    at = columns.index("status")
    paths = report_paths(path)

    def rows() -> Iterator[list[str]]:
        for each in paths:
            for row in read_report(each, columns):
                if not status or row[at] == status:
                    yield row

    if len(paths) < 2:
        yield from rows()
        return
    latest: dict[str, str] = {}
    for row in rows():
        if row[-1] > latest.get(row[0], ""):
            latest[row[0]] = row[-1]
    for row in rows():
        # Invalid rows name no clip. A clip that was first reported since the first pass is skipped.
        if not row[0] or row[-1] == latest.get(row[0]):
            yield row


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
            if clip in reasons:
                del reasons[clip]
        elif status == INVALID:
            refused.add(row[10])
        elif status in (UNAVAILABLE, FAILED):
            why = (status, row[5], row[6])
            reasons[clip] = kept.setdefault(why, why)
    return Known(reasons, frozenset(refused), frozenset(unreported))


def read_shorts(path: Path) -> frozenset[str]:
    """The clips that the report marks as `short`: their videos end before they do."""
    shorts: set[str] = set()
    for row in read_reports(path, RESULT_COLUMNS, DOWNLOADED):
        (shorts.add if row[5] == "short" else shorts.discard)(row[0])
    return frozenset(shorts)


VIDEOS_NAME = "videos.jsonl"  # beside the report: what YouTube said of each video (--metadata)


def read_licences(path: Path) -> dict[str, str]:
    """YouTube id -> licence, `youtube` for a video without one of its own; torn lines are skipped.

    Raises UserError.
    """
    videos = (video for each in report_paths(path) or [path] for video in _videos(each))
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
