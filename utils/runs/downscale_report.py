"""What downscale_videos.py writes down of a clip: a line of downscale_report.csv."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from utils.clip import printable
from utils.report import MADE_REASONS, now
from utils.runs.batch import Task

REPORT_NAME = "downscale_report.csv"


@dataclass(frozen=True)
class DownscaleResult:
    """A line of downscale_report.csv. `seconds` is the time it took; sizes are the output's."""

    clip: str
    status: str
    reason: str = ""
    action: str = ""  # encoded, rewrapped
    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    bytes: int = 0
    source_bytes: int = 0
    message: str = ""
    finished_at: str = field(default_factory=now)

    @classmethod
    def failed(cls, clip: str, reason: str, message: str) -> DownscaleResult:
        return cls(clip, MADE_REASONS[reason][0], reason, message=printable(message, 500))


COLUMNS = tuple(each.name for each in fields(DownscaleResult))


def lost(task: Task, how: str) -> DownscaleResult:
    """Of a task that has cost three processes of a cluster, or workers."""
    return DownscaleResult.failed(task.clip, "undecodable" if "process" in how else "unknown", how)
