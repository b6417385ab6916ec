"""Define a clip: its ID, its times, its file name, and the window that is cut."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
    for 650,000 of them are made in a third of the time that frozen dataclasses take.
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
    """The name of a clip's file, without its suffix.

    `<id>_<start>_<end>`, or `<id>_<floor(ts)>` for an AVA-Kinetics row (`time_end` -1).
    """
    if time_end == AVA_TIME_END:
        return f"{youtube_id}_{trim_format % math.floor(time_start)}"
    return f"{youtube_id}_{trim_format % time_start}_{trim_format % time_end}"


def clip_window(clip: Clip) -> tuple[float, float]:
    """(start, duration) of a clip in its video, in seconds."""
    if clip.is_ava:
        return float(max(0, math.floor(clip.time_start) - AVA_LEAD)), AVA_DURATION
    return clip.time_start, clip.time_end - clip.time_start


def parse_clip_name(name: str) -> tuple[str, float, float | None] | None:
    """(id, start, end) of `<id>_<start>_<end>`, or (id, ts, None) of `<id>_<ts>`; None if neither.

    Times have any padding, because older tools wrote other ones, and may have decimals.
    """
    found = NAME_PATTERN.fullmatch(name)
    if found is None:
        return None
    youtube_id, start, end = found.groups()
    return youtube_id, float(start), None if end is None else float(end)


def by_video(clips: Iterable[Clip]) -> list[tuple[Clip, ...]]:
    """The clips, grouped by video, in the order in which the videos first occur."""
    videos: dict[str, list[Clip]] = {}
    for clip in clips:
        videos.setdefault(clip.youtube_id, []).append(clip)
    return [tuple(group) for group in videos.values()]
