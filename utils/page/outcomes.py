"""What the download report tells the page: the last word on every clip, and when lines came.

First in the flow of the page, beside the look at the folder. The report is read once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from utils.clip import Clip
from utils.download.common import NOT_ASKED
from utils.report import (
    DOWNLOADED,
    FAILED,
    INVALID,
    REPORT_NAME,
    RESULT_COLUMNS,
    UNAVAILABLE,
    read_report,
    report_paths,
)

MINUTE = len("2026-11-22T17:37")  # of the report's finished_at


class Outcome(NamedTuple):
    """What the report says last of a clip."""

    status: str
    reason: str
    source: str


@dataclass
class Outcomes:
    """The report, read. `minutes`: minute (UTC) -> clips that came, are gone, failed in it."""

    of: dict[str, Outcome] = field(default_factory=dict)
    minutes: dict[str, list[int]] = field(default_factory=dict)
    lines: int = 0


_PLACE = {DOWNLOADED: 0, UNAVAILABLE: 1, FAILED: 2}


def read_outcomes(folder: Path, clips: Mapping[str, Clip]) -> Outcomes:
    """Read the reports of all machines in `folder`; lines on clips of other lists tell only times.

    Raises UserError for a file that is no report. 650,000 lines take 2 s.
    """
    found = Outcomes()
    paths = report_paths(folder / REPORT_NAME)
    kept: dict[Outcome, Outcome] = {}  # the same few, 650,000 times
    latest: dict[str, str] = {}
    for path in paths:
        for row in read_report(path, RESULT_COLUMNS):
            found.lines += 1
            name, status, finished_at = row[0], row[4], row[-1]
            if status not in _PLACE or status == INVALID:
                continue
            if row[10] != NOT_ASKED:  # nobody was asked: no sign of the pace
                minute = found.minutes.get(finished_at[:MINUTE])
                if minute is None:
                    minute = found.minutes[finished_at[:MINUTE]] = [0, 0, 0]
                minute[_PLACE[status]] += 1
            clip = clips.get(name)
            if clip is None:
                continue
            if len(paths) > 1:  # of one file the last line counts, of several the latest
                if finished_at < latest.get(name, ""):
                    continue
                latest[clip.name] = finished_at
            outcome = Outcome(status, row[5], row[6])
            found.of[clip.name] = kept.setdefault(outcome, outcome)
    return found
