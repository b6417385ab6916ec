"""What is made of a clip that is on disk, written or not: frame_extract.py, downscale_videos.py.

The scripts' workers end here, whatever happens to them; `batch` counts what they return.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from clipreader.media import ClipError, CorruptClip
from utils.errors import UserError
from utils.files import is_disk_full
from utils.packages import describe
from utils.process import Stopped
from utils.report import MADE_REASONS, WRITTEN
from utils.text import printable
from utils.video.whole import BadClip


@dataclass(frozen=True)
class Task:
    """One video to work on. `clip` is its path below the folder of videos, without the suffix."""

    clip: str
    path: Path


@dataclass(frozen=True)
class Made:
    """How a line of either report begins; the scripts add columns, `seconds` and `message` too."""

    clip: str
    status: str = WRITTEN
    reason: str = ""

    @classmethod
    def failed(cls, clip: str, reason: str, message: str) -> Self:
        more: dict[str, Any] = {"message": printable(message, 500)}
        return cls(clip, MADE_REASONS[reason][0], reason, **more)

    @classmethod
    def lost(cls, task: Task, how: str) -> Self:
        """The result of a clip that killed its process again and again, or lost its workers."""
        if "process" in how:
            return cls.failed(task.clip, "undecodable", f"the decoder crashed: {how}")
        return cls.failed(task.clip, "unknown", how)

    @property
    def is_on_disk(self) -> bool:
        return self.status == WRITTEN

    def in_words(self) -> str:
        """`clip: status written, frames 250, ...`"""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        clip = values.pop("clip")
        values.pop("finished_at", None)
        return f"{clip}: " + ", ".join(f"{name} {value}" for name, value in values.items() if value)


AnyMade = TypeVar("AnyMade", bound=Made)


def settle(kind: type[AnyMade], clip: str, make: Callable[[], AnyMade]) -> AnyMade:
    """What `make` gives, or the reason why it gave nothing, and the seconds it took.

    Raises Stopped, and UserError for what every clip would meet.
    """
    started = time.monotonic()
    try:
        result = make()
    except (Stopped, UserError):
        raise
    except BadClip as error:
        result = kind.failed(clip, error.reason, error.message)
    except ClipError as error:
        where = f"at frame {error.frame}: " if isinstance(error, CorruptClip) else ""
        result = kind.failed(clip, "undecodable", where + error.problem)
    except OSError as error:
        result = kind.failed(clip, "disk_full" if is_disk_full(error) else "unknown", str(error))
    except Exception as error:  # a decoder meets every kind of nonsense: one clip, not the run
        result = kind.failed(clip, "unknown", describe(error))
    seconds: dict[str, Any] = {"seconds": round(time.monotonic() - started, 2)}
    return replace(result, **seconds)
