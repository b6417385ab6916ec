#!/usr/bin/env python3
r"""Extract the frames of clips as JPEGs: exact frames, complete clips.

examples:
  python frame_extract.py clips frames
  python frame_extract.py clips frames_12fps --fps 12.5 --short_side 256
  python frame_extract.py clips frames_tar --archive
  python frame_extract.py clips key_frames --key_frames \
      ava_kinetics_csv/kinetics_val_v1.0.csv

Writes frames/<clip>/000001.jpg and so on. Image n at --fps f is the frame
displayed at (n-1)/f seconds, as in ffmpeg's fps filter. The folder of a clip
appears only when it is complete.
"""

from __future__ import annotations

from utils.errors import UserError, check_packages  # isort: skip

import argparse
import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipreader.media import ratio
from utils import batch, cli, run
from utils.batch import ClipFile, Made
from utils.cluster import check_dask
from utils.files import names_in, publish
from utils.video.whole import BadClip, Limits, bad_clips, missing_part, pictures_of

if TYPE_CHECKING:
    from clipreader.frame_source import FrameSource
    from utils.video.jpeg import JpegEncoder

REPORT_NAME = "frames_report.csv"
SETTINGS_NAME = ".frames_settings.json"
COLUMNS = [name for name in batch.COLUMNS if name not in ("action", "bytes", "source_bytes")]
PACKAGES = ("av", "numpy", "simplejpeg", "joblib")
WINDOW = 2  # frames on either side of an annotated frame


# --- one clip, in a worker process ---------------------------------------------------------------


@dataclass(frozen=True)
class Extractor:
    """The worker: writes the frames of one clip after another."""

    args: argparse.Namespace
    limits: Limits
    out: Path
    workspace: Path

    def __call__(self, task: ClipFile) -> Made:
        return batch.make_one(task, self.workspace, self._extract)

    def _extract(self, task: ClipFile, folder: Path) -> Made:
        """Decode, write and publish one clip; `folder` is temporary. Raises BadClip, OSError."""
        from clipreader.frame_source import FrameSource
        from utils.video.jpeg import JpegEncoder

        args, limits = self.args, self.limits
        with bad_clips(limits), closing(FrameSource(task.path, **limits.of_source)) as source:
            table, stream = source.table, source.stream
            count = len(table.pts)
            if missing := missing_part(stream.container, task.path, count, table.promised):
                raise BadClip("truncated", missing)
            images = self._images(source, task)
            encoder = JpegEncoder(source.picture_of, args.quality, args.short_side, args.upscale)
            jpegs = encode_all(source, encoder, images)
            temporary, final = folder / "frames", self.out / task.clip
            final.parent.mkdir(parents=True, exist_ok=True)
            if args.archive:
                write_tar(temporary, jpegs)
                publish(temporary, self.out / f"{task.clip}.tar")
            else:
                write_folder(temporary, jpegs)
                publish_folder(temporary, final, args.overwrite)
            number = sum(map(len, images.values()))
            rate = round(float(args.fps or ratio(stream.average_rate) or 0), 5)
            width, height = encoder.shown_size
            return Made(task.clip, frames=number, fps=rate, width=width, height=height)

    def _images(self, source: FrameSource, task: ClipFile) -> dict[int, list[int]]:
        """Return the frames to decode, and the numbers, from 1, of the images that show each.

        Raises BadClip (past_end).
        """
        from utils.lists.ava import key_picture

        shown = pictures_of(source, self.args.fps)
        last = len(shown)
        numbers = set() if task.key_times else set(range(1, last + 1))
        for key_time in task.key_times or ():
            number = key_picture(source.table, shown, key_time)
            if number > last:
                raise BadClip("past_end", f"annotated frame {number}, but the clip has {last}")
            window = self.args.window
            numbers |= set(range(max(1, number - window), min(last, number + window) + 1))
        images: dict[int, list[int]] = {}
        for number in sorted(numbers):
            images.setdefault(shown[number - 1], []).append(number)
        return images


def encode_all(
    source: FrameSource, encoder: JpegEncoder, images: Mapping[int, Sequence[int]]
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the JPEG of every image."""
    for index, frame in source.decode(list(images)):
        jpeg = encoder.encode(frame)
        for number in images[index]:
            yield f"{number:06d}.jpg", jpeg


def write_folder(folder: Path, jpegs: Iterable[tuple[str, bytes]]) -> None:
    """Write `<folder>/000001.jpg` and on."""
    folder.mkdir()
    for name, jpeg in jpegs:
        with open(f"{folder}/{name}", "wb") as file:
            file.write(jpeg)


def write_tar(path: Path, jpegs: Iterable[tuple[str, bytes]]) -> None:
    """Write a tar, uncompressed, because JPEGs do not compress and readers can seek."""
    with tarfile.TarFile(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, jpeg in jpegs:
            # No times and owners: the same clip gives the same bytes.
            member = tarfile.TarInfo(name)
            member.size = len(jpeg)
            tar.addfile(member, io.BytesIO(jpeg))


def publish_folder(temporary: Path, final: Path, overwrite: bool) -> None:
    """Rename a folder of frames into place. Raises OSError.

    overwrite: first move the old one beside `temporary`. Nothing but frames is replaced.
    """
    if overwrite and has_images(final):
        os.rename(final, temporary.with_name("old"))
    try:
        os.rename(temporary, final)
    except OSError:
        if not has_images(final):  # of another run, which has extracted the clip meanwhile
            raise


# --- the folder of clips -------------------------------------------------------------------------


def read_key_times(args: argparse.Namespace) -> dict[str, tuple[int, ...]] | None:
    """Read the times of the annotated frames of each clip from --key_frames; None without it."""
    if not args.key_frames:
        return None
    from utils.lists import ava

    found: dict[str, tuple[int, ...]] = {}
    for path in args.key_frames:
        for clip, times in ava.annotated_times(path, args.videos_dir).items():
            found[clip] = (*found.get(clip, ()), *times)
    return found


def frame_folders(folder: Path) -> set[str]:
    """Return the names of the folders in `folder` that contain images: clips that are done."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {each.name for each in entries if each.is_dir() and has_images(each.path)}


def has_images(folder: str | Path) -> bool:
    """Return whether a folder contains images of this script."""
    with suppress(OSError), os.scandir(folder) as entries:
        return any(re.fullmatch(r"\d{6,}\.jpg", entry.name) for entry in entries)
    return False


def frame_lines(args: argparse.Namespace) -> run.Lines:
    """Return the script's own line of the plan: `30 per second, JPEG quality 90, ...`."""
    rate = f"{args.fps} per second" if args.fps else "every frame"
    size = "original size"
    if args.short_side:
        how = "scaled up or down" if args.upscale else "scaled down"
        size = f"shorter side {how} to {args.short_side}"
    parts = [rate, f"JPEG quality {args.quality}", size]
    if args.key_frames:
        parts.append(f"annotated frames and {args.window} on either side")
    if args.archive:
        parts.append("in tars")
    return [("frames", ", ".join(parts))]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.make_parser(__doc__ or "")
    parser.add_argument("videos_dir", type=Path, help="folder of videos, flat or nested")
    parser.add_argument("output_dir", type=Path, help="folder for the frames")
    group = parser.group("frames")
    batch.add_size_options(group, fps=30, short_side=None)
    add = group.add_argument
    quality = cli.must("be between 1 and 100", lambda quality: quality <= 100, cli.positive_int)
    add("--quality", type=quality, default=90, metavar="Q", help="JPEG quality, 1 to 100")
    add("--archive", action="store_true", help="write one <clip>.tar instead of a folder of files")
    annotated = (
        "extract only the annotated frames of AVA-Kinetics and their neighbours. FILE: the raw"
        " annotations, or annotations_<split>.csv"
    )
    add("--key_frames", nargs="+", type=Path, metavar="FILE", help=annotated)
    neighbours = f"with --key_frames: number of neighbours on either side (default: {WINDOW})"
    add("--window", type=cli.non_negative_int, metavar="N", help=neighbours)
    batch.add_batch_options(parser)
    args = parser.parse_args(argv)
    if args.upscale and args.short_side is None:
        parser.error("--upscale needs --short_side N")
    if args.window is not None and not args.key_frames:
        parser.error("--window needs --key_frames FILE")
    if args.key_frames and args.window is None:
        args.window = WINDOW
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages(*PACKAGES)
    check_dask(args)
    settings = batch.settings_of(args, "quality", "archive", "window")
    made_in = (lambda folder: names_in(folder, ".tar")) if args.archive else frame_folders
    plan = batch.plan_batch(args, made_in, read_key_times(args), not args.archive)
    kept = plan.out / SETTINGS_NAME
    if not run.has_settings(kept, settings, "frames") and plan.done:
        raise UserError(
            f"{plan.out} has frames of {cli.plural(plan.done, 'clip')}, but no {SETTINGS_NAME}:"
            " their settings are unknown; use another output folder"
        )
    batch.say_batch(plan, args, frame_lines(args))
    if args.dry_run:
        return cli.EXIT_OK
    report = plan.out / REPORT_NAME
    with run.open_run(args, report, COLUMNS, PACKAGES, [plan.videos]) as opened:
        run.write_settings(kept, opened.workspace, settings, "frames")
        limits = Limits(args.max_frames, args.max_pixels, args.timeout)
        worker = Extractor(args, limits, plan.out, opened.workspace)
        tally = batch.run_batch(plan, worker, COLUMNS, opened, args)
    frames = f"frames: {tally.totals['frames']:,}"
    return batch.end_batch(plan, tally, args, opened.report.path, frames)


if __name__ == "__main__":
    import frame_extract  # by its name, because worker processes cannot import `__main__`

    cli.run_script(frame_extract.main)
