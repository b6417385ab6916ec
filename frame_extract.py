#!/usr/bin/env python3
"""Extract the frames of clips as JPEGs: each picture the frame it should be, each clip whole.

examples:
  python frame_extract.py clips frames
  python frame_extract.py clips frames_12fps --fps 12.5 --short_side 256
  python frame_extract.py clips frames_tar --archive
  python frame_extract.py clips key_frames --key_frames ava_kinetics_csv/kinetics_val_v1.0.csv

Writes frames/<clip>/000001.jpg and on. Picture n at --fps f is the frame shown at (n-1)/f
seconds, as ffmpeg's fps filter gives it. A clip's folder appears whole or not at all.
"""

from __future__ import annotations

import utils.early  # noqa: F401 (first: Ctrl-C while the rest is imported)

import argparse
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path

from clipreader.media import ratio
from utils.cli import EXIT_OK, make_parser, run_script
from utils.cluster import check_dask
from utils.files import folders_in, names_in
from utils.machines import own_folder
from utils.packages import check_packages
from utils.process import stop_on_signals
from utils.report import WRITTEN, now
from utils.run import open_run
from utils.runs.batch import (
    add_batch_options,
    check_folders,
    finish,
    plan_batch,
    run_batch,
    say_batch,
)
from utils.runs.frame_store import (
    FolderStore,
    Settings,
    Store,
    TarStore,
    add_frame_options,
    check_settings,
    settings_lines,
    write_settings,
)
from utils.runs.key_frames import read_all_key_times, wanted_numbers
from utils.runs.made import Made, Task, settle
from utils.video.whole import check_complete, pictures_of

REPORT_NAME = "frames_report.csv"
PACKAGES = ("av", "numpy", "simplejpeg", "joblib")


@dataclass(frozen=True)
class Job:
    """What the workers share. `key_times`: clip's name -> its key frames, in ns of the clip."""

    settings: Settings
    out: Path
    workspace: Path
    overwrite: bool


@dataclass(frozen=True)
class ClipTask(Task):
    """A clip, and the key frames wanted of it in nanoseconds (None: every picture)."""

    key_times: tuple[int, ...] | None = None


@dataclass(frozen=True)
class FramesResult(Made):
    """A line of frames_report.csv. `seconds` is the time it took; sizes are those of the JPEGs."""

    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    message: str = ""
    finished_at: str = field(default_factory=now)


COLUMNS = tuple(each.name for each in fields(FramesResult))


def extract(job: Job, task: ClipTask) -> FramesResult:
    """The worker: one clip's pictures, whole and in place, or the reason why not."""
    return settle(FramesResult, task.clip, lambda: extract_clip(job, task))


def extract_clip(job: Job, task: ClipTask) -> FramesResult:
    """Decode, write and publish one clip. Raises BadClip, ClipError, OSError."""
    from clipreader.frame_source import FrameSource
    from utils.video.jpeg import Look, PictureMaker

    settings = job.settings
    look = Look(settings.quality, settings.short_side, settings.upscale)
    source = FrameSource(task.path, probe=False)
    try:
        check_complete(source)
        fps = Fraction(settings.fps)
        shown = pictures_of(source, fps)
        numbers = wanted_numbers(source, shown, task.key_times, settings.window)
        of_frame: dict[int, list[int]] = {}
        for number in numbers:
            of_frame.setdefault(shown[number - 1], []).append(number)
        maker = PictureMaker(look, source.picture_of)
        store = open_store(job)
        for index, frame in source.decode(list(of_frame)):
            jpeg = maker.jpeg(frame)
            for number in of_frame[index]:
                store.add(number, jpeg)
        store.publish(target_path(job.out, task.clip, settings.archive), job.overwrite)
        rate = float(fps or ratio(source.stream.average_rate) or 0)
        width, height = maker.shown_size
        return FramesResult(task.clip, WRITTEN, "", len(numbers), round(rate, 5), width, height)
    finally:
        source.close()


def open_store(job: Job) -> Store:
    """A store of this process's own: a worker has one clip in hand."""
    temporary = own_folder(job.workspace) / "pictures"
    return TarStore(temporary) if job.settings.archive else FolderStore(temporary)


def target_path(out: Path, clip: str, archive: bool) -> Path:
    return out / f"{clip}.tar" if archive else out / clip


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument("videos_dir", type=Path, help="the folder of videos, flat or nested")
    parser.add_argument("output_dir", type=Path, help="the folder that the frames go to")
    add_frame_options(parser)
    add_batch_options(parser)
    args = parser.parse_args(argv)
    if args.upscale and args.short_side is None:
        parser.error("--upscale needs --short_side N")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages(*PACKAGES)
    check_dask(args)
    check_folders(args)
    settings = Settings.of(args)
    key_times = read_all_key_times(args)
    only = None if key_times is None else frozenset(key_times)
    made_in = (lambda folder: names_in(folder, ".tar")) if args.archive else folders_in
    out: Path = args.output_dir
    with stop_on_signals():
        batch = plan_batch(args, made_in, only)
        check_settings(out, settings, batch.there)
        if not args.quiet:
            say_batch(batch, args, settings_lines(settings))
        if args.dry_run:
            return EXIT_OK
        with open_run(args, out / REPORT_NAME, COLUMNS, PACKAGES, [args.videos_dir]) as run:
            write_settings(out, run.workspace, settings)
            job = Job(settings, out, run.workspace, args.overwrite)
            times = key_times or {}
            tasks = (ClipTask(t.clip, t.path, times.get(t.path.stem)) for t in batch.tasks())
            worker = functools.partial(extract, job)
            outcomes = run.workers.run(worker, tasks, FramesResult.lost)
            tally = run_batch(batch, outcomes, run, args)
    return finish(batch, tally, args, run.report.path, f"pictures: {tally.totals['frames']:,}")


if __name__ == "__main__":
    run_script(main)
