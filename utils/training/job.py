"""What every format gets to write its files with, and how a file is written whole.

Between the choice of clips and the formats, which all take a `Job` and return what they wrote.
"""

from __future__ import annotations

import os
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from utils.errors import DiskFull, UserError, is_disk_full
from utils.files import make_folder, publish
from utils.process import STOP, Stopped, sleep
from utils.training.choosing import Choice
from utils.training.there import SUFFIX

EVERY = 65536  # lines between two looks at whether the run is stopped


@dataclass(frozen=True)
class Job:
    """The clips that were chosen, where they are, and how they are to be named in the lists."""

    choice: Choice
    clips: Path  # absolute; --link_dir where that is given
    out: Path
    workspace: Path
    tell: Callable[[str], None]
    prefix: Path | None = None  # the folder that paths are relative to; None: they are absolute
    name: str = "kinetics"
    seed: int = 0
    shard_size: int = 10**9
    num_jobs: int = 1
    quiet: bool = False
    pretrain: bool = False
    frames: Path | None = None
    annotations: tuple[Path, ...] = ()
    gone: list[str] = field(default_factory=list)  # clips that went away while they were read

    @cached_property
    def before(self) -> str:
        """What stands before `<clip>.mp4` in a list: empty, or ends with a slash."""
        return path_before(self.clips, self.prefix)

    def before_frames(self) -> str:
        assert self.frames is not None
        return path_before(self.frames, self.prefix)

    def path(self, at: int) -> str:
        """The path of a clip as lists have it."""
        return self.before + self.choice.rows.names[at] + SUFFIX


def path_before(folder: Path, prefix: Path | None) -> str:
    if prefix is None:
        return f"{folder.as_posix().rstrip('/')}/"
    below = os.path.relpath(folder, prefix).replace(os.sep, "/")
    if below.startswith(".."):
        raise UserError(
            f"{folder} is not below --path_prefix {prefix}: give a folder above it, or --absolute"
        )
    return "" if below == "." else f"{below}/"


def check_paths(before: str) -> None:
    """Raises UserError for a path that a reader would split at its white space, or unquote."""
    if set(before) & set(string.whitespace + '"'):
        raise UserError(
            f"the paths in the lists would hold white space or quotes ({before}...), where this"
            " format's reader splits them: give --link_dir DIR (links to the clips in a folder"
            " without), or a --path_prefix below it"
        )


def write_lines(job: Job, target: str, lines: Iterable[str]) -> Path:
    """Write a text file below `job.out`, whole or not. Raises DiskFull, UserError, Stopped."""
    final, temporary = job.out / target, job.workspace / target.replace("/", "-")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            for number, line in enumerate(lines):
                if number % EVERY == 0 and STOP.is_set():
                    raise Stopped
                file.write(line)
        sleep(0)
        make_folder(final.parent)
        publish(temporary, final)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(job.out) from error
        raise UserError(f"cannot write {final}: {error.strerror}") from error
    return final
