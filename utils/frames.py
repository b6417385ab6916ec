"""Write the frames of a clip as JPEGs into a folder or a tar, whole or not at all.

For frame_extract.py: its options, the settings that all frames of an output share, and its worker.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import shutil
import tarfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from clipreader.media import ratio
from utils.batch import ClipFile, Made, make_one
from utils.cli import frame_rate, non_negative_int, positive_int
from utils.files import publish
from utils.machines import own_folder
from utils.report import WRITTEN, now
from utils.run import Lines
from utils.video.whole import (
    BadClip,
    Limits,
    bad_clips,
    missing_part,
    pictures_of,
)

if TYPE_CHECKING:
    from clipreader.frame_source import FrameSource

O_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write CR LF
SETTINGS_NAME = ".frames_settings.json"
PICTURE_NAME = re.compile(r"\d{6,}\.jpg")
PROGRESS_NAME = "progress"
WINDOW = 2  # pictures on either side of an annotated frame
TOLD_AFTER = 10.0  # seconds after which a clip tells how far it is


@dataclass(frozen=True)
class Settings:
    """What makes two outputs for a clip different; kept there as `.frames_settings.json`.

    fps: as an exact fraction in text, "0" for the clip's own. window: pictures on either side of an
    annotated frame; None for all pictures of a clip.
    """

    fps: str = "30"
    short_side: int | None = None
    upscale: bool = False
    quality: int = 90
    archive: bool = False
    window: int | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Settings:
        near = WINDOW if args.window is None else args.window
        window = near if args.key_frames else None
        fps, side = str(args.fps), args.short_side
        return cls(fps, side, args.upscale, args.quality, args.archive, window)


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


@dataclass(frozen=True)
class Extractor:
    """The worker: writes the frames of one clip after another."""

    settings: Settings
    limits: Limits
    out: Path
    workspace: Path
    overwrite: bool

    def __call__(self, task: ClipFile) -> FramesResult:
        return make_one(FramesResult, task.clip, lambda: self._extract(task))

    def _extract(self, task: ClipFile) -> FramesResult:
        """Decode, write and publish one clip. Raises BadClip, OSError."""
        from clipreader.frame_source import FrameSource
        from utils.video.jpeg import JpegEncoder

        settings, limits = self.settings, self.limits
        with (
            bad_clips(limits),
            closing(FrameSource(task.path, probe=False, **limits.of_source)) as source,
        ):
            table, container = source.table, source.stream.container
            if missing := missing_part(container, task.path, len(table.pts), table.promised):
                raise BadClip("truncated", missing)
            fps = Fraction(settings.fps)
            shown = pictures_of(source, fps, limits.max_frames)
            numbers = self._numbers(source, shown, task)
            of_frame: dict[int, list[int]] = {}
            for number in numbers:
                of_frame.setdefault(shown[number - 1], []).append(number)
            shape = settings.quality, settings.short_side, settings.upscale
            encoder = JpegEncoder(source.picture_of, *shape)
            folder = own_folder(self.workspace)
            pictures = folder / "pictures"
            store = TarStore(pictures) if settings.archive else FolderStore(pictures)
            progress = _Progress(folder / PROGRESS_NAME, task.clip, len(numbers))
            for index, frame in source.decode(list(of_frame)):
                jpeg = encoder.encode(frame)
                for number in of_frame[index]:
                    store.add(number, jpeg)
                    progress.add()
            progress.end()
            if progress.done != len(numbers):
                raise BadClip("undecodable", f"decoded {progress.done} of {len(numbers)} frames")
            final = self.out / (f"{task.clip}.tar" if settings.archive else task.clip)
            store.publish(final, self.overwrite)
            rate = float(fps or ratio(source.stream.average_rate) or 0)
            size = encoder.shown_size
            return FramesResult(task.clip, WRITTEN, "", len(numbers), round(rate, 5), *size)

    def _numbers(self, source: FrameSource, shown: Sequence[int], task: ClipFile) -> list[int]:
        """The numbers, from 1, of the pictures to write. Raises BadClip (past_end)."""
        from utils.lists.ava import key_picture

        window = self.settings.window
        if task.key_times is None or window is None:
            return list(range(1, len(shown) + 1))
        numbers: set[int] = set()
        for key_time in task.key_times:
            number = key_picture(source.table, shown, key_time)
            if number > len(shown):
                raise BadClip(
                    "past_end", f"annotated frame {number}, but the clip has {len(shown)}"
                )
            numbers |= set(range(max(1, number - window), min(len(shown), number + window) + 1))
        return sorted(numbers)


class _Progress:
    """Record the progress of a long clip in a file, for `clips_at_work`."""

    def __init__(self, path: Path, clip: str, total: int) -> None:
        self._path, self._clip, self._total = path, clip, total
        self.done = 0
        self._told = time.monotonic() + TOLD_AFTER
        path.unlink(missing_ok=True)

    def add(self) -> None:
        self.done += 1
        if time.monotonic() > self._told:
            self._told = time.monotonic() + 1
            text = f"{self._clip}: {self.done:,} of {self._total:,} frames"
            self._path.write_text(text, encoding="utf-8", errors="surrogateescape")

    def end(self) -> None:
        self._path.unlink(missing_ok=True)


def clips_at_work(workspace: Path) -> str:
    """How far the clips are that take long: `x: 1,234 of 21,766 frames`."""
    texts = []
    for path in sorted(workspace.glob(f"*/{PROGRESS_NAME}")):
        with suppress(OSError):
            texts.append(path.read_text(encoding="utf-8", errors="surrogateescape"))
    return "; ".join(filter(None, texts))


def read_key_times(args: argparse.Namespace) -> dict[str, tuple[int, ...]] | None:
    """Clip's name -> times of its annotated frames, from all of --key_frames; None without it."""
    if not args.key_frames:
        return None
    from utils.lists import ava

    found: dict[str, tuple[int, ...]] = {}
    for path in args.key_frames:
        for clip, times in ava.annotated_times(path, args.videos_dir).items():
            found[clip] = (*found.get(clip, ()), *times)
    return found


# --- where pictures go ---------------------------------------------------------------------------


class FolderStore:
    """`<clip>/000001.jpg` and on."""

    def __init__(self, temporary: Path) -> None:
        self._folder = temporary
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
        temporary.mkdir()

    def add(self, number: int, jpeg: bytes) -> None:
        # By the system's own calls: Python's open makes six of these three, for every picture.
        path = f"{self._folder}/{number:06d}.jpg"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | O_BINARY, 0o666)
        try:
            if os.write(file, jpeg) != len(jpeg):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)

    def publish(self, final: Path, overwrite: bool) -> None:
        """One rename. What is there is moved away first, for a rename replaces no folder."""
        final.parent.mkdir(parents=True, exist_ok=True)
        old = self._folder.with_name(f"{self._folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if overwrite and final.exists():
            os.rename(final, old)
        os.rename(self._folder, final)
        shutil.rmtree(old, ignore_errors=True)


class TarStore:
    """`<clip>.tar`, uncompressed: JPEGs do not compress, and a reader can seek to any member."""

    def __init__(self, temporary: Path) -> None:
        self._path = temporary
        temporary.unlink(missing_ok=True)
        self._tar = tarfile.TarFile(temporary, "w", format=tarfile.USTAR_FORMAT)

    def add(self, number: int, jpeg: bytes) -> None:
        # No times and owners: the same clip gives the same bytes.
        member = tarfile.TarInfo(f"{number:06d}.jpg")
        member.size = len(jpeg)
        self._tar.addfile(member, io.BytesIO(jpeg))

    def publish(self, final: Path, overwrite: bool) -> None:
        self._tar.close()
        final.parent.mkdir(parents=True, exist_ok=True)
        publish(self._path, final)


def frame_folders(folder: Path) -> set[str]:
    """The names of the folders in `folder` that hold pictures: the clips that are done."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {each.name for each in entries if each.is_dir() and _holds_pictures(each.path)}


def _holds_pictures(folder: str) -> bool:
    with suppress(OSError), os.scandir(folder) as entries:
        return any(PICTURE_NAME.fullmatch(entry.name) for entry in entries)
    return False


# --- settings and options ------------------------------------------------------------------------


def settings_lines(settings: Settings) -> Lines:
    """`frames       30 per second, JPEG quality 90, original size`"""
    rates = "every frame" if settings.fps == "0" else f"{settings.fps} per second"
    size = "original size"
    if settings.short_side:
        way = "scaled up or down" if settings.upscale else "scaled down"
        size = f"shorter side {way} to {settings.short_side}"
    parts = [rates, f"JPEG quality {settings.quality}", size]
    if settings.window is not None:
        parts.append(f"annotated frames and {settings.window} on either side")
    if settings.archive:
        parts.append("in tars")
    return [("frames", ", ".join(parts))]


def add_frame_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for frames."""
    group = parser.add_argument_group("frames")
    group.add_argument(
        "--fps",
        type=frame_rate,
        default=Fraction(30),
        metavar="F",
        help="frames per second: 30, 12.5, 30000/1001; 0 writes every frame of the video",
    )
    group.add_argument(
        "--short_side",
        type=positive_int,
        metavar="N",
        help="scale the shorter side down to N pixels",
    )
    group.add_argument("--upscale", action="store_true", help="with --short_side: also scale up")
    group.add_argument(
        "--quality",
        type=quality,
        default=Settings.quality,
        metavar="Q",
        help="JPEG quality, 1 to 100",
    )
    group.add_argument(
        "--archive", action="store_true", help="write one <clip>.tar instead of a folder of files"
    )
    group.add_argument(
        "--key_frames",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="extract only the annotated frames of AVA-Kinetics and their neighbours. FILE: the raw"
        " annotations, or annotations_<split>.csv",
    )
    group.add_argument(
        "--window",
        type=non_negative_int,
        metavar="W",
        help=f"with --key_frames: number of neighbours on either side (default: {WINDOW})",
    )


def quality(text: str) -> int:
    """An argparse type: JPEG's quality."""
    if (value := positive_int(text)) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a quality from 1 to 100")
    return value
