"""Look for the clips in their folder: names and sizes; lengths, hashes and frames only if asked.

Lengths come from a file's index and hashes from its bytes. Both are remembered by size and time, so
that a rerun reads new files only. No frame is decoded.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from utils.errors import UserError
from utils.parallel import run_parallel
from utils.process import sleep
from utils.report import ReportFile, read_report
from utils.run import Progress
from utils.training.choosing import Candidate, Choice, Reason
from utils.video.whole import BadClip, read_apart

VIDEO, AUDIO = (".mp4",), (".m4a", ".wav", ".flac")  # as download.py writes them
MEMORY_NAME = ".measured.csv"
MEMORY_COLUMNS = ("clip", "bytes", "mtime_ns", "seconds", "sha256")
CHUNK = 64  # clips a task


def look(choice: Choice, clips: Path, suffixes: Sequence[str]) -> None:
    """Note size and suffix of every clip that is there; the others are missing. Raises UserError.

    Of several files of a clip the suffix that stands first counts.
    """
    by_name, rank = choice.by_name, {suffix: at for at, suffix in enumerate(suffixes)}
    try:
        with os.scandir(clips) as entries:
            for entry in entries:
                name, suffix = os.path.splitext(entry.name)
                if suffix not in rank or (row := by_name.get(name)) is None:
                    continue
                if row.bytes and rank[row.suffix] < rank[suffix]:
                    continue
                with suppress(OSError):  # gone by now, or a link in a circle
                    if entry.is_file() and (size := entry.stat().st_size):
                        row.bytes, row.suffix = size, suffix
    except OSError as error:
        raise UserError(f"cannot read the folder {clips}: {error.strerror}") from error
    for row in choice.chosen():
        if not row.bytes:
            row.reason = Reason.MISSING


def look_at_frames(choice: Choice, frames: Path) -> None:
    """Count the frames of every chosen clip; a folder that lacks some is `no_frames`.

    Raises UserError for frames in tars, which no reader of these lists can open.
    """
    for row in choice.chosen():
        numbers = []
        folder = frames / row.name
        try:
            with os.scandir(folder) as found:
                numbers = [e.name[:-4] for e in found if e.name.endswith(".jpg")]
        except OSError:
            if folder.with_name(f"{row.name}.tar").is_file():
                raise UserError(
                    f"--frames {frames} holds tars, which MMAction2 and SlowFast cannot read: run"
                    " frame_extract.py without --archive into another folder"
                ) from None
        # Readers count from 1 to the number of frames: none may lack (--key_frames leaves gaps).
        if numbers and max(map(len, numbers)) == 6 and max(numbers) == f"{len(numbers):06d}":
            row.frames = len(numbers)
        else:
            row.reason = Reason.NO_FRAMES


def measure(choice: Choice, clips: Path, memory: Path, args: argparse.Namespace) -> None:
    """Fill in the lengths, and the hashes with --hash; drop clips below --min_seconds.

    A file that is gone meanwhile is missing, and one without a length unreadable. Raises Stopped;
    what was measured until then is remembered in `memory`.
    """
    known = {row[0]: row[1:] for row in read_report(memory, MEMORY_COLUMNS)}
    rows = list(choice.chosen())

    def work(chunk: Sequence[Candidate]) -> list[list[str]]:
        """Lines that the memory does not have."""
        done = []
        for row in chunk:
            line = _measure(row, clips / (row.name + row.suffix), known.get(row.name), args)
            if line and line[1:] != known.get(row.name):
                done.append(line)
        return done

    with (
        ReportFile(memory, MEMORY_COLUMNS) as report,
        Progress(len(rows), "clip", quiet=args.quiet) as progress,
    ):
        for chunk, lines in run_parallel(
            lambda chunk: (chunk, work(chunk)), _chunks(rows), args.num_jobs
        ):
            report.append_all(lines)
            for row in chunk:
                progress.add(row.reason.text if row.reason else "read")
    sleep(0)


def _chunks(rows: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    following = iter(rows)
    while chunk := list(islice(following, CHUNK)):
        yield chunk


def _measure(
    row: Candidate, path: Path, known: Sequence[str] | None, args: argparse.Namespace
) -> list[str]:
    """Measure one clip; its line of the memory, or nothing where its file is gone."""
    try:
        status = path.stat()
        stamp = [str(status.st_size), str(status.st_mtime_ns)]
        seconds, sha256 = known[2:] if known is not None and list(known[:2]) == stamp else ("", "")
        if not seconds or seconds == "-1":  # it may have been the disk that was slow
            try:
                seconds = f"{read_apart(path).end:.3f}"
            except BadClip:
                seconds = "-1"
        if args.hash and not sha256 and seconds != "-1":
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        row.reason = Reason.MISSING
        return []
    if seconds == "-1":
        row.reason = Reason.UNREADABLE
    else:
        row.bytes, row.seconds, row.sha256 = status.st_size, float(seconds), sha256
        if row.seconds < args.min_seconds:
            row.reason = Reason.SHORT
    return [row.name, *stamp, seconds, sha256]
