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
import shutil
import tarfile
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from clipreader.media import ratio
from utils import batch, cli, run
from utils.batch import ClipFile, Made
from utils.cluster import check_dask
from utils.files import names_in, own_folder, publish
from utils.video.whole import BadClip, Limits, bad_clips, missing_part, pictures_of

if TYPE_CHECKING:
    from clipreader.frame_source import FrameSource

REPORT_NAME = "frames_report.csv"
SETTINGS_NAME = ".frames_settings.json"
COLUMNS = [name for name in batch.COLUMNS if name not in ("action", "bytes", "source_bytes")]
PACKAGES = ("av", "numpy", "simplejpeg", "joblib")
WINDOW = 2  # frames on either side of an annotated frame


@dataclass(frozen=True)
class Settings:
    """The options that all clips of an output folder share.

    fps: an exact fraction as text, "0" for the clip's own rate. window: the number of frames on
    either side of an annotated frame; None for all frames of a clip.
    """

    fps: str = "30"
    short_side: int | None = None
    upscale: bool = False
    quality: int = 90
    archive: bool = False
    window: int | None = None


# --- one clip, in a worker process ---------------------------------------------------------------


@dataclass(frozen=True)
class Extractor:
    """The worker: writes the frames of one clip after another."""

    settings: Settings
    limits: Limits
    out: Path
    workspace: Path
    overwrite: bool

    def __call__(self, task: ClipFile) -> Made:
        return batch.make_one(task.clip, lambda: self._extract(task))

    def _extract(self, task: ClipFile) -> Made:
        """Decode, write and publish one clip. Raises BadClip, OSError."""
        from clipreader.frame_source import FrameSource
        from utils.video.jpeg import JpegEncoder

        settings, limits = self.settings, self.limits
        with bad_clips(limits), closing(FrameSource(task.path, **limits.of_source)) as source:
            table, stream = source.table, source.stream
            count = len(table.pts)
            if missing := missing_part(stream.container, task.path, count, table.promised):
                raise BadClip("truncated", missing)
            fps = Fraction(settings.fps)
            shown = pictures_of(source, fps)
            numbers = self._numbers(source, shown, task)
            of_frame: dict[int, list[int]] = {}
            for number in numbers:
                of_frame.setdefault(shown[number - 1], []).append(number)
            shape = settings.quality, settings.short_side, settings.upscale
            encoder = JpegEncoder(source.picture_of, *shape)
            temporary = own_folder(self.workspace) / "frames"
            store = TarStore(temporary) if settings.archive else FolderStore(temporary)
            written = 0
            for index, frame in source.decode(list(of_frame)):
                jpeg = encoder.encode(frame)
                for number in of_frame[index]:
                    store.add(f"{number:06d}.jpg", jpeg)
                    written += 1
            if written != len(numbers):
                raise BadClip("undecodable", f"decoded {written} of {len(numbers)} frames")
            final = self.out / (f"{task.clip}.tar" if settings.archive else task.clip)
            final.parent.mkdir(parents=True, exist_ok=True)
            store.publish(final, self.overwrite)
            rate = round(float(fps or ratio(stream.average_rate) or 0), 5)
            width, height = encoder.shown_size
            return Made(task.clip, frames=written, fps=rate, width=width, height=height)

    def _numbers(self, source: FrameSource, shown: Sequence[int], task: ClipFile) -> list[int]:
        """Return the numbers, from 1, of the images to write. Raises BadClip (past_end)."""
        from utils.lists.ava import key_picture

        window, last = self.settings.window, len(shown)
        if task.key_times is None or window is None:
            return list(range(1, last + 1))
        numbers: set[int] = set()
        for key_time in task.key_times:
            number = key_picture(source.table, shown, key_time)
            if number > last:
                raise BadClip("past_end", f"annotated frame {number}, but the clip has {last}")
            numbers |= set(range(max(1, number - window), min(last, number + window) + 1))
        return sorted(numbers)


class FolderStore:
    """Write `<clip>/000001.jpg` and on."""

    def __init__(self, temporary: Path) -> None:
        self._folder = temporary
        shutil.rmtree(temporary, ignore_errors=True)  # of a clip that failed
        temporary.mkdir()

    def add(self, name: str, jpeg: bytes) -> None:
        with open(f"{self._folder}/{name}", "wb") as file:
            file.write(jpeg)

    def publish(self, final: Path, overwrite: bool) -> None:
        """Rename the folder into place; first move the old one away, if it is to be replaced."""
        old = self._folder.with_name("old")
        shutil.rmtree(old, ignore_errors=True)
        if overwrite and final.exists():
            os.rename(final, old)
        os.rename(self._folder, final)
        shutil.rmtree(old, ignore_errors=True)


class TarStore:
    """Write `<clip>.tar`, uncompressed, because JPEGs do not compress and readers can seek."""

    def __init__(self, temporary: Path) -> None:
        self._path = temporary
        temporary.unlink(missing_ok=True)  # of a clip that failed
        self._tar = tarfile.TarFile(temporary, "w", format=tarfile.USTAR_FORMAT)

    def add(self, name: str, jpeg: bytes) -> None:
        # No times and owners: the same clip gives the same bytes.
        member = tarfile.TarInfo(name)
        member.size = len(jpeg)
        self._tar.addfile(member, io.BytesIO(jpeg))

    def publish(self, final: Path, overwrite: bool) -> None:
        self._tar.close()
        publish(self._path, final)


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
        return {each.name for each in entries if each.is_dir() and _has_images(each.path)}


def _has_images(folder: str) -> bool:
    with suppress(OSError), os.scandir(folder) as entries:
        return any(re.fullmatch(r"\d{6,}\.jpg", entry.name) for entry in entries)
    return False


def settings_lines(settings: Settings) -> run.Lines:
    """Return the script's own line of the plan: `30 per second, JPEG quality 90, ...`."""
    rate = "every frame" if settings.fps == "0" else f"{settings.fps} per second"
    size = "original size"
    if settings.short_side:
        how = "scaled up or down" if settings.upscale else "scaled down"
        size = f"shorter side {how} to {settings.short_side}"
    parts = [rate, f"JPEG quality {settings.quality}", size]
    if settings.window is not None:
        parts.append(f"annotated frames and {settings.window} on either side")
    if settings.archive:
        parts.append("in tars")
    return [("frames", ", ".join(parts))]


def quality(text: str) -> int:
    """An argparse type: the quality of JPEGs."""
    if (value := cli.positive_int(text)) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a quality from 1 to 100")
    return value


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.make_parser(__doc__ or "")
    parser.add_argument("videos_dir", type=Path, help="folder of videos, flat or nested")
    parser.add_argument("output_dir", type=Path, help="folder for the frames")
    group = parser.group("frames")
    batch.add_size_options(group, fps=30, short_side=None)
    add = group.add_argument
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
    fps, side = str(args.fps), args.short_side
    settings = Settings(fps, side, args.upscale, args.quality, args.archive, args.window)
    made_in = (lambda folder: names_in(folder, ".tar")) if args.archive else frame_folders
    plan = batch.plan_batch(args, made_in, read_key_times(args), not args.archive)
    kept = plan.out / SETTINGS_NAME
    if not run.has_settings(kept, asdict(settings), "frames") and plan.done:
        raise UserError(
            f"{plan.out} has frames of {cli.plural(plan.done, 'clip')}, but no {SETTINGS_NAME}:"
            " their settings are unknown; use another output folder"
        )
    batch.say_batch(plan, args, settings_lines(settings))
    if args.dry_run:
        return cli.EXIT_OK
    report = plan.out / REPORT_NAME
    with run.open_run(args, report, COLUMNS, PACKAGES, [plan.videos]) as opened:
        run.write_settings(kept, opened.workspace, asdict(settings))
        limits = Limits(args.max_frames, args.max_pixels, args.timeout)
        worker = Extractor(settings, limits, plan.out, opened.workspace, args.overwrite)
        tally = batch.run_batch(plan, worker, COLUMNS, opened, args)
    frames = f"frames: {tally.totals['frames']:,}"
    return batch.end_batch(plan, tally, args, opened.report.path, frames)


if __name__ == "__main__":
    import frame_extract  # by its name, because worker processes cannot import `__main__`

    cli.run_script(frame_extract.main)
