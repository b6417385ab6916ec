"""Define a clip (its ID, its times, its file name, the window that is cut) and its result.

Holds the only table of statuses and reasons.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from utils.cli import hide_secrets, printable
from utils.errors import describe, is_disk_full
from utils.files import disk_is_full

ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{11}")
TIME_PATTERN = re.compile(r"-?([0-9]{1,9}(\.[0-9]{0,30})?|\.[0-9]{1,30})")
_NAME_TIME = r"_0*(\d{1,9}(?:\.\d{1,9})?)"
NAME_PATTERN = re.compile(rf"({ID_PATTERN.pattern}){_NAME_TIME}(?:{_NAME_TIME})?", re.ASCII)
# How names write times, and how where two clips of the lists would have one name so.
TRIM_FORMAT, FINE_FORMAT = "%06d", "%010.3f"
MAX_TIME = 999_999.0  # seconds; the six digits of a name. The longest video there is has 43,200
AVA_TIME_END = -1.0  # marks a row of an AVA-Kinetics list
AVA_LEAD = 3  # seconds of an AVA-Kinetics clip before its key frame's whole second
AVA_DURATION = 6.0


# A list's further columns, (name, value) each.
Extra = tuple[tuple[str, str], ...]


class Clip(NamedTuple):
    """One clip of a list. `time_end` is -1 for an AVA-Kinetics key frame at `time_start`.

    `name` is the file's name without `.mp4`; `extra` holds the list's other columns. A NamedTuple,
    because 650,000 of them are made in a third of the time that frozen dataclasses take.
    """

    name: str
    youtube_id: str
    time_start: float
    time_end: float
    label: str = ""
    split: str = ""
    extra: Extra = ()

    @property
    def is_ava(self) -> bool:
        return self.time_end == AVA_TIME_END


@dataclass(frozen=True, slots=True)
class Refused:
    """An invalid row: its file, line (0: none), text and problem."""

    path: Path
    line: int
    text: str
    problem: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{where}: {self.problem}: {self.text}"


def clip_name(
    youtube_id: str, time_start: float, time_end: float, trim_format: str = TRIM_FORMAT
) -> str:
    """Return the name of a clip's file, without its suffix.

    `<id>_<start>_<end>`, or `<id>_<floor(ts)>` for an AVA-Kinetics row (`time_end` -1).
    """
    if time_end == AVA_TIME_END:
        return f"{youtube_id}_{trim_format % math.floor(time_start)}"
    return f"{youtube_id}_{trim_format % time_start}_{trim_format % time_end}"


def clip_window(clip: Clip) -> tuple[float, float]:
    """Return (start, duration) of a clip in its video, in seconds."""
    if clip.is_ava:
        return float(max(0, math.floor(clip.time_start) - AVA_LEAD)), AVA_DURATION
    return clip.time_start, clip.time_end - clip.time_start


def parse_clip_name(name: str) -> tuple[str, float, float | None] | None:
    """Return (id, start, end) of `<id>_<start>_<end>`, or (id, ts, None) of `<id>_<ts>`, or None.

    Times have any padding, because older tools wrote other ones, and may have decimals.
    """
    found = NAME_PATTERN.fullmatch(name)
    if found is None:
        return None
    youtube_id, start, end = found.groups()
    return youtube_id, float(start), None if end is None else float(end)


def by_video(clips: Iterable[Clip]) -> list[tuple[Clip, ...]]:
    """Return the clips, grouped by video, in the order in which the videos first occur."""
    videos: dict[str, list[Clip]] = {}
    for clip in clips:
        videos.setdefault(clip.youtube_id, []).append(clip)
    return [tuple(group) for group in videos.values()]


# --- what becomes of a clip ----------------------------------------------------------------------

DOWNLOADED, UNAVAILABLE, FAILED, INVALID = "downloaded", "unavailable", "failed", "invalid"

# reason -> (status, what it means and what to do). docs/statuses.md shows this table, which a test
# compares.
REASONS: dict[str, tuple[str, str]] = {
    "": (DOWNLOADED, "on disk, complete and checked"),
    "short": (DOWNLOADED, "kept, but shorter than requested because its source ends first"),
    "removed": (UNAVAILABLE, "removed by the uploader or by YouTube"),
    "private": (UNAVAILABLE, "only for some accounts: use --cookies and --retry unavailable"),
    "account_terminated": (UNAVAILABLE, "the uploader's account was closed"),
    "copyright": (UNAVAILABLE, "blocked by a copyright claim"),
    "members_only": (UNAVAILABLE, "only for members: use --cookies and --retry unavailable"),
    "age_restricted": (UNAVAILABLE, "only for adults: use --cookies and --retry unavailable"),
    "geo_blocked": (UNAVAILABLE, "not in your country: use --proxy and --retry unavailable"),
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
    **{reason: REASONS[reason] for reason in ("disk_full", "timeout", "unknown")},
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
    def of(cls, clip: Clip, reason: str, source: str, message: str = "", **more: Any) -> Result:
        """Return the result of `clip` with `reason` (empty: all is well), finished now."""
        return cls(
            clip.name,
            clip.youtube_id,
            format_time(clip.time_start),
            format_time(clip.time_end),
            REASONS[reason][0],
            reason,
            source,
            message=printable(hide_secrets(message), 500),
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


def now() -> str:
    """Return the time in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_time(seconds: float) -> str:
    """Return a time as a list writes it: `417` for 417.0, `12.5` for 12.5."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".")


def reason_of(error: BaseException, out: Path | None = None) -> tuple[str, str]:
    """Return the reason and the message for a clip that an exception prevented.

    out: the clip's folder. On a full disk other errors than its own have that reason, too.
    """
    if not isinstance(error, OSError):
        return "unknown", describe(error)
    is_full = is_disk_full(error) or (out is not None and disk_is_full(out))
    place = error.filename or out
    message = str(error.strerror or error) + (f": {place}" if place else "")
    return "disk_full" if is_full else "unknown", message
