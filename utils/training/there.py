"""What is in the folder of clips: one look at names and sizes; lengths and hashes only if asked.

After `choosing`, before `subsets`. Lengths come from a file's index and hashes from its bytes; both
are remembered by size and time, so that a rerun reads what is new. No picture is decoded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.parallel import run_parallel
from utils.process import sleep
from utils.report import ReportFile, read_report
from utils.run import Progress
from utils.training.choosing import Choice, Reason
from utils.video.whole import BadClip, read_apart

SUFFIX = ".mp4"
MEMORY_NAME = ".measured.csv"
MEMORY_COLUMNS = ("clip", "bytes", "mtime_ns", "seconds", "sha256")
CHUNK = 64  # clips a task


def look(choice: Choice, clips: Path) -> None:
    """Note the size of every clip that is there; the others are `missing`. Raises UserError."""
    length, index, sizes = len(SUFFIX), choice.index, choice.sizes
    there = bytearray(choice.wanted)
    try:
        with os.scandir(clips) as entries:
            for entry in entries:
                name = entry.name
                if not name.endswith(SUFFIX) or (at := index.get(name[:-length])) is None:
                    continue
                try:
                    if entry.is_file():
                        sizes[at] = entry.stat().st_size
                        there[at] = sizes[at] > 0
                except FileNotFoundError:
                    pass  # gone since: another process is at work
    except OSError as error:
        raise UserError(f"cannot read the folder {clips}: {error.strerror}") from error
    for at in choice.chosen():
        if not there[at]:
            choice.drop(at, Reason.MISSING)


def look_at_frames(choice: Choice, frames: Path) -> None:
    """Count the pictures of every chosen clip; a folder that lacks some is `no_frames`."""
    names = choice.rows.names
    for at in list(choice.chosen()):
        numbers = []
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(frames / names[at]) as found,
        ):
            numbers = [e.name[:-4] for e in found if e.name.endswith(".jpg")]
        # Readers count from 1 to the number of pictures: none may lack (--key_frames leaves gaps).
        if numbers and max(map(len, numbers)) == 6 and max(numbers) == f"{len(numbers):06d}":
            choice.frames[at] = len(numbers)
        else:
            choice.drop(at, Reason.NO_FRAMES)


@dataclass(frozen=True)
class Measured:
    """What a file's bytes say; `seconds` is -1 where its length cannot be read."""

    at: int
    size: int
    mtime_ns: int
    seconds: str
    sha256: str


def measure(
    choice: Choice, clips: Path, memory: Path, hashed: bool, jobs: int, quiet: bool
) -> None:
    """Fill `choice.seconds`, and `choice.hashes` if asked; 0.2 ms a clip for its length.

    A file that is gone meanwhile is `missing`, one that cannot be read `unreadable`.
    Raises Stopped; what was measured is remembered in `memory`.
    """
    known = {row[0]: row[1:] for row in read_report(memory, MEMORY_COLUMNS)}
    names, rows = choice.rows.names, list(choice.chosen())

    def work(chunk: Sequence[int]) -> list[Measured | int]:
        return [_measure(at, clips / (names[at] + SUFFIX), known.get(names[at]), hashed)
                for at in chunk]  # fmt: skip

    with (
        ReportFile(memory, MEMORY_COLUMNS) as report,
        Progress(len(rows), "clip", quiet=quiet) as progress,
    ):
        for done in run_parallel(work, _chunks(rows), jobs):
            new = []
            for each in done:
                progress.add("read" if isinstance(each, Measured) else "gone")
                if isinstance(each, int):
                    choice.drop(each, Reason.MISSING)
                    continue
                _note(choice, each)
                line = [names[each.at], str(each.size), str(each.mtime_ns)]
                line += [each.seconds, each.sha256]
                if known.get(line[0]) != line[1:]:
                    new.append(line)
            report.append_all(new)
    sleep(0)


def _chunks(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    return (rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK))


def _note(choice: Choice, measured: Measured) -> None:
    if measured.seconds == "-1":
        choice.drop(measured.at, Reason.UNREADABLE)
        return
    choice.sizes[measured.at] = measured.size
    choice.seconds[measured.at] = float(measured.seconds)
    if measured.sha256:
        choice.hashes[measured.at] = measured.sha256


def _measure(at: int, path: Path, known: Sequence[str] | None, hashed: bool) -> Measured | int:
    """The row itself where its file is gone."""
    try:
        status = path.stat()
        stamp = [str(status.st_size), str(status.st_mtime_ns)]
        seconds = sha256 = ""
        if known is not None and list(known[:2]) == stamp:
            seconds, sha256 = known[2:]
        if not seconds or seconds == "-1":  # it may have been the disk that was slow
            try:
                seconds = f"{read_apart(path).end:.3f}"
            except BadClip:
                seconds = "-1"
        if hashed and not sha256 and seconds != "-1":
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Measured(at, status.st_size, status.st_mtime_ns, seconds, sha256)
    except OSError:
        return at


def drop_short(choice: Choice, min_seconds: float) -> None:
    """Take out clips whose measured length is below `min_seconds`."""
    for at in list(choice.chosen()):
        if choice.seconds[at] < min_seconds:
            choice.drop(at, Reason.SHORT)
