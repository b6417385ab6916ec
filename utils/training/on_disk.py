"""Measure the clips: lengths from a file's index, hashes from its bytes; no frame is decoded.

Both are remembered by size and time, so that a rerun reads new files only.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from utils.parallel import Crashed, Failed, WorkerPool, run_parallel
from utils.process import sleep
from utils.report import ReportFile, read_report
from utils.training.choosing import AUDIO, Candidate, Choice, Reason

MEMORY_NAME = ".measured.csv"
MEMORY_COLUMNS = ("clip", "bytes", "mtime_ns", "seconds", "sha256")
CHUNK = 64  # clips a task
SHORTER_BY = 0.5  # seconds by which a sound file may be shorter than its header says


def measure(choice: Choice, clips: Path, memory: Path, args: argparse.Namespace) -> None:
    """Fill in the lengths, and the hashes with --hash; drop clips below --min_seconds.

    A file that is gone meanwhile is missing, and one without a length unreadable. Raises Stopped;
    what was measured until then is remembered in `memory`.
    """
    from utils.run import Progress  # it knows of clusters: not for every run

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
            report.append(*lines)
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
    from utils.video.whole import BadClip, read_apart

    def length() -> float:
        return _sound_pool()(path) if row.suffix in AUDIO else read_apart(path).end

    try:
        status = path.stat()
        stamp = [str(status.st_size), str(status.st_mtime_ns)]
        seconds, sha256 = known[2:] if known is not None and list(known[:2]) == stamp else ("", "")
        if not seconds or seconds == "-1":  # it may have been the disk that was slow
            try:
                seconds = f"{length():.3f}"
            except (BadClip, Crashed, Failed):
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


@functools.cache
def _sound_pool() -> WorkerPool[Path, float]:
    pool = WorkerPool(sound_seconds)
    atexit.register(pool.__exit__)
    return pool


def sound_seconds(path: Path) -> float:
    """Return the length of a sound file, by its packets. Raises ClipError, ValueError."""
    from clipreader.media import open_clip, ratio
    from clipreader.packets import whole_packets
    from utils.video.whole import promised_size

    with open_clip(path) as container:
        (stream,) = container.streams.audio[:1]
        base, start, end = ratio(stream.time_base), 0, 0
        for number, packet in enumerate(whole_packets(container, stream)):
            if packet.pts is not None and not packet.is_discard:
                start = packet.pts if not number else start
                end = max(end, packet.pts + (packet.duration or 0))
        seconds = float((end - start) * (base or 0))
        if stream.duration and base:  # what the header says; an edit list ends inside a packet
            seconds = min(seconds, float(stream.duration * base))
        promised = (container.duration or 0) / 1e6 - SHORTER_BY
        if not 0 < seconds >= promised or path.stat().st_size < promised_size(path):
            raise ValueError("cut off")
        return seconds
