"""What becomes of a file that reorg_kinetics_videos.py meets: the words of its report, and the job.

Under `runs/bring`, which settles the files, and `runs/reorg_report`, which writes them down.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from utils.runs.gather import Found
from utils.text import printable
from utils.video.ffmpeg import Ffmpeg

REPORT_COLUMNS = ("source", "clip", "action", "reason")
MOVE, COPY, LINK = "move", "copy", "link"

# What becomes of a file, as the report's `action` says it.
MOVED, COPIED, LINKED = "moved", "copied", "linked"
REWRAPPED = "rewrapped"  # brought in from another container; the source is gone when moving
PRESENT = "present"  # its clip is in its place with the same bytes; the source stays
DUPLICATE = "duplicate"  # another file is the clip; this one stays where it was
SET_ASIDE = "set_aside"  # the same, and it went to --duplicates
LEFT = "left"  # not brought in, for the reason given; it stays where it was
MOVING = "moving"  # between two file systems, before: a rerun may remove the source, if it is here
BROUGHT = (MOVED, COPIED, LINKED, REWRAPPED)


@dataclass(frozen=True)
class Group:
    """All files for one clip; `there` is the one in its place already."""

    name: str
    files: tuple[Found, ...]
    there: Found | None


@dataclass(frozen=True)
class Job:
    """How the files are brought in: the same for all of them."""

    dst: Path
    mode: str
    check: bool
    duplicates: Path | None
    tool: Ffmpeg
    unfinished: frozenset[str] = frozenset()  # sources whose last line in the report is `moving`
    workspace: Path = Path()


@dataclass(frozen=True)
class Outcome:
    """What became of one file: a line of the report. `remove`: the source, once that is written."""

    source: str
    clip: str
    action: str
    reason: str = ""
    remove: bool = False
    disk_full: bool = False


REPORT_NAME = "reorg_report.csv"


def report_path(path: str) -> str:
    """A path as the report has it: one line, whatever bytes it is made of."""
    return printable(os.fsencode(path).decode("utf-8", errors="backslashreplace"), 4096)
