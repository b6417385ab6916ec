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
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from utils.cli import EXIT_OK, make_parser, run_script
from utils.clip import printable
from utils.decode.errors import ClipError, CorruptClip
from utils.files import folders_in, is_disk_full, make_folder, names_in, run_folder
from utils.machines import own_folder
from utils.packages import check_packages, describe
from utils.parallel import run_in_processes
from utils.process import stop_on_signals
from utils.pyav import ratio
from utils.report import MADE_REASONS, now, own_report
from utils.runs.batch import (
    Task,
    add_batch_options,
    check_folders,
    finish,
    plan_batch,
    run_batch,
    say_batch,
)
from utils.runs.cluster import check_dask, open_cluster
from utils.video.inspect import check_whole, pictures_of
from utils.video.probe import BadClip

if TYPE_CHECKING:
    pass
from utils.runs.frame_store import (
    FolderStore,
    Settings,
    Store,
    TarStore,
    add_frame_options,
    check_settings,
    settings_line,
    write_settings,
)
from utils.runs.key_frames import read_all_key_times, wanted_numbers

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
class FramesResult:
    """A line of frames_report.csv. `seconds` is the time it took; sizes are those of the JPEGs."""

    clip: str
    status: str
    reason: str = ""
    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    message: str = ""
    finished_at: str = field(default_factory=now)

    @classmethod
    def failed(cls, clip: str, reason: str, message: str) -> FramesResult:
        status = MADE_REASONS[reason][0]
        return cls(clip, status, reason, message=printable(message, 500))


def extract(job: Job, task: ClipTask) -> FramesResult:
    """The worker: one clip's pictures, whole and in place, or the reason why not."""
    started = time.monotonic()
    try:
        result = extract_clip(job, task)
    except BadClip as error:
        result = FramesResult.failed(task.clip, error.reason, error.message)
    except ClipError as error:
        result = FramesResult.failed(task.clip, "undecodable", in_words(error))
    except OSError as error:
        reason = "disk_full" if is_disk_full(error) else "unknown"
        result = FramesResult.failed(task.clip, reason, str(error))
    except Exception as error:  # a decoder meets every kind of nonsense: one clip, not the run
        result = FramesResult.failed(task.clip, "unknown", describe(error))
    return replace(result, seconds=round(time.monotonic() - started, 2))


def extract_clip(job: Job, task: ClipTask) -> FramesResult:
    """Decode, write and publish one clip. Raises BadClip, ClipError, OSError."""
    from utils.decode.frame_source import FrameSource
    from utils.decode.jpeg import Look, PictureMaker

    settings = job.settings
    look = Look(settings.quality, settings.short_side, settings.upscale)
    source = FrameSource(task.path, probe=False)
    try:
        check_whole(source)
        fps = Fraction(settings.fps)
        shown = pictures_of(source, fps)
        numbers = wanted_numbers(source, fps, len(shown), task.key_times, settings.window)
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
        made = MADE_REASONS[""][0]
        return FramesResult(task.clip, made, "", len(numbers), round(rate, 5), width, height)
    finally:
        source.close()


def in_words(error: ClipError) -> str:
    """Without the path, which the report has."""
    if isinstance(error, CorruptClip):
        return f"at frame {error.frame}: {error.problem}"
    return error.problem


def open_store(job: Job) -> Store:
    """A store of this process's own: a worker has one clip in hand."""
    temporary = own_folder(job.workspace) / "pictures"
    return TarStore(temporary) if job.settings.archive else FolderStore(temporary)


def target_path(out: Path, clip: str, archive: bool) -> Path:
    return out / f"{clip}.tar" if archive else out / clip


def crashed(task: ClipTask, how: str) -> FramesResult:
    return FramesResult.failed(task.clip, "undecodable", f"the decoder crashed: {how}")


def lost(task: ClipTask, how: str) -> FramesResult:
    """Of a task that has cost three processes of a cluster, or workers."""
    return FramesResult.failed(task.clip, "undecodable" if "process" in how else "unknown", how)


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
    settings = Settings(
        str(args.fps),
        args.short_side,
        args.upscale,
        args.quality,
        args.archive,
        args.window if args.key_frames else None,
    )
    key_times = read_all_key_times(args)
    only = None if key_times is None else frozenset(key_times)
    made_in = (lambda folder: names_in(folder, ".tar")) if args.archive else folders_in
    out: Path = args.output_dir
    with stop_on_signals():
        batch = plan_batch(args, made_in, only)
        check_settings(out, settings, batch.there)
        if not args.quiet:
            say_batch(batch, args, settings_line(settings))
        if args.dry_run:
            return EXIT_OK
        make_folder(out)
        with (
            run_folder(out) as workspace,
            own_report(out / REPORT_NAME, COLUMNS, workspace) as report,
            open_cluster(args, workspace, PACKAGES, [args.videos_dir]) as cluster,
        ):
            write_settings(out, workspace, settings)
            job = Job(settings, out, workspace, args.overwrite)
            times = key_times or {}
            tasks = (ClipTask(t.clip, t.path, times.get(t.path.stem)) for t in batch.tasks())
            worker = functools.partial(extract, job)
            if cluster:
                outcomes = cluster.run(worker, tasks, lost)
            else:
                outcomes = run_in_processes(worker, tasks, args.num_jobs, crashed)
            tally = run_batch(batch, outcomes, report, args, cluster)
    pictures = tally.totals["frames"]
    return finish(batch, tally, args, report.path, [f"pictures: {pictures:,}"])


COLUMNS = tuple(each.name for each in fields(FramesResult))


if __name__ == "__main__":
    run_script(main)
