#!/usr/bin/env python3
"""Scale clips down to a short side of 256: same names, same times, checked before they count.

examples:
  python downscale_videos.py clips clips_256
  python downscale_videos.py clips clips_256 --for_loading
  python downscale_videos.py clips clips_30fps --short_side 320 --fps 30 --no_audio

Writes clips_256/<clip>.mp4: H.264, yuv420p, faststart. A clip that is small already is taken as it
is, in a fresh mp4. A file that is in its place is whole: it was checked against its source.
"""

from __future__ import annotations

import utils.early  # noqa: F401 (first: Ctrl-C while the rest is imported)

import argparse
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path

from utils.cli import EXIT_OK, make_parser, run_script
from utils.cluster import check_dask
from utils.files import disk_is_full, names_in, publish
from utils.machines import own_folder
from utils.packages import check_packages
from utils.process import run_child, stop_on_signals
from utils.report import now
from utils.run import open_run
from utils.runs.batch import (
    add_batch_options,
    check_folders,
    finish,
    plan_batch,
    run_batch,
    say_batch,
)
from utils.runs.encode_options import (
    COPIED_AUDIO,
    add_encode_options,
    choose_encode,
    encode_lines,
    is_small,
    small_size,
    wants_encoding,
)
from utils.runs.made import Made, Task, settle
from utils.video.ffmpeg import (
    Encode,
    Ffmpeg,
    downscale_command,
    find_ffmpeg,
    last_line,
    require_encoder,
    rewrap_command,
)
from utils.video.whole import BadClip, Video, read_apart

REPORT_NAME = "downscale_report.csv"
TIME_TOLERANCE = 0.005  # seconds by which a frame may be shown at another time
PACKAGES = ("av", "numpy", "ffmpeg-python", "joblib")


@dataclass(frozen=True)
class Job:
    """What the workers share. `as_it_is`: a small video is only re-wrapped."""

    tool: Ffmpeg
    encode: Encode
    fps: Fraction
    as_it_is: bool
    out: Path
    workspace: Path


@dataclass(frozen=True)
class DownscaleResult(Made):
    """A line of downscale_report.csv. `seconds` is the time it took; sizes are the output's."""

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


COLUMNS = tuple(each.name for each in fields(DownscaleResult))


def downscale(job: Job, task: Task) -> DownscaleResult:
    """The worker: one clip scaled, checked and in its place, or the reason why not."""
    result = settle(DownscaleResult, task.clip, lambda: downscale_clip(job, task))
    if result.reason in ("truncated", "undecodable") and disk_is_full(job.out):
        return replace(result, reason="disk_full")
    return result


def downscale_clip(job: Job, task: Task) -> DownscaleResult:
    """Scale, check and publish one clip. Raises BadClip, OSError, Stopped."""
    source = read_apart(task.path, "ends", job.fps)
    temporary = own_folder(job.workspace) / f"{task.clip.replace('/', '%')}.mp4"
    final = job.out / f"{task.clip}.mp4"
    try:
        action, made = make(job, task.path, source, temporary)
        size = temporary.stat().st_size
        final.parent.mkdir(parents=True, exist_ok=True)
        publish(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    return DownscaleResult(
        clip=task.clip,
        action=action,
        frames=made.frames,
        fps=round(float(made.rate), 5),
        width=made.width,
        height=made.height,
        bytes=size,
        source_bytes=task.path.stat().st_size,
    )


def make(job: Job, path: Path, source: Video, target: Path) -> tuple[str, Video]:
    """Write `target`; (`rewrapped` or `encoded`, what came out). Raises BadClip."""
    copy_audio = source.audio_codec in COPIED_AUDIO
    if job.as_it_is and is_small(source, job.encode):
        audio = job.encode.audio
        command = rewrap_command(job.tool, path, target, audio=audio, copy_audio=copy_audio)
        try:
            return "rewrapped", run_and_check(job, command, source, source.frames, target)
        except BadClip:
            pass  # an edit list that a copy does not keep, or the like: encoding does
    command = downscale_command(
        job.tool,
        path,
        small_size(source.width, source.height, job.encode),
        job.encode,
        target,
        fps=job.fps,
        time_base=source.time_base,
        copy_audio=copy_audio,
    )
    return "encoded", run_and_check(job, command, source, source.resampled, target)


def run_and_check(
    job: Job, command: Sequence[str], source: Video, frames: int, target: Path
) -> Video:
    """Run ffmpeg, then compare what it wrote with the source. Raises BadClip."""
    done = run_child(command)
    if done.returncode != 0:
        raise BadClip("undecodable", last_line(done))
    made = read_apart(target, "ends")
    # ffmpeg's fps filter may give one picture more or less at the very end.
    if abs(made.frames - frames) > (1 if job.fps else 0):
        raise BadClip("truncated", f"{made.frames} frames written where there are {frames}")
    if not job.fps and differs(source, made):
        raise BadClip("truncated", "the frames written are not shown at the times of the source")
    if job.encode.audio and source.audio_codec and not made.audio_codec:
        raise BadClip("truncated", "the sound is missing")
    return made


def differs(source: Video, made: Video) -> bool:
    """Whether a frame is shown at another time than in the source."""
    pairs = zip(source.times, made.times, strict=True)
    off = max(abs(a * source.time_base - b * made.time_base) for a, b in pairs)
    return off > max(TIME_TOLERANCE, source.gap / 2)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "videos_dir", metavar="input_dir", type=Path, help="the folder of videos, flat or nested"
    )
    parser.add_argument("output_dir", type=Path, help="the folder that the small ones go to")
    add_encode_options(parser)
    add_batch_options(parser)
    parser.add_argument("--ffmpeg", metavar="PATH", help="ffmpeg to use (default: the wheel's)")
    args = parser.parse_args(argv)
    if args.crf is not None and args.crf > 51:
        parser.error("--crf is within 0 and 51")
    if args.short_side < 16:
        parser.error("--short_side is 16 or more")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages(*PACKAGES)
    check_dask(args)
    check_folders(args)
    encode, as_it_is = choose_encode(args), not wants_encoding(args)
    tool = find_ffmpeg(args.ffmpeg)
    out: Path = args.output_dir
    with stop_on_signals():
        batch = plan_batch(args, lambda folder: names_in(folder, ".mp4"))
        if not args.quiet:
            say_batch(batch, args, encode_lines(encode, args.fps, as_it_is))
        if args.dry_run:
            return EXIT_OK
        if batch.to_do:
            require_encoder(tool, encode.codec)
        with open_run(args, out / REPORT_NAME, COLUMNS, PACKAGES, [args.videos_dir]) as run:
            job = Job(tool, encode, args.fps, as_it_is, out, run.workspace)
            worker = functools.partial(downscale, job)
            outcomes = run.workers.run(worker, batch.tasks(), DownscaleResult.lost)
            tally = run_batch(batch, outcomes, run, args)
    written = f"size: {tally.totals['bytes'] / 1e6:,.1f} MB written"
    return finish(batch, tally, args, run.report.path, written)


if __name__ == "__main__":
    run_script(main)
