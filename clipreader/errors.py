"""What can be wrong with a clip that is to be loaded: one hierarchy of errors that name the file.

Below `decode/frame_source` and `decode/clip_reader`, which raise them. Each carries plain
values only, so that it comes whole out of a DataLoader's worker process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class ClipError(Exception):
    """A clip that cannot be loaded as asked. `path` is the file."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class ClipNotFound(ClipError, FileNotFoundError):
    """There is no such file."""

    def __init__(self, path: Path, problem: str = "no such file") -> None:
        super().__init__(path, problem)


class NoVideo(ClipError):
    """The file is there and holds no pictures: sound only, a cover image, or something else."""


class FrameIndexError(ClipError, IndexError):
    """A frame was asked for that the clip does not have. `frames` is how many it has."""

    def __init__(self, path: Path, index: int, frames: int) -> None:
        super().__init__(path, f"frame {index} asked for, and there are {frames}")
        self.index = index
        self.frames = frames

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.index, self.frames)


class CorruptClip(ClipError):
    """The clip is damaged from frame `frame` on.

    `frames` holds those asked for that come before it, in the order asked, as an array of shape
    (T, H, W, 3), uint8; None if there are none.
    """

    def __init__(self, path: Path, frame: int, problem: str, frames: Any = None) -> None:
        super().__init__(path, problem)
        self.frame = frame
        self.frames = frames

    def __str__(self) -> str:
        return f"{self.path}: corrupt at frame {self.frame}: {self.problem}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.frame, self.problem, self.frames)
