"""Where the pictures of a clip go, and the settings that all pictures of a folder share.

For frame_extract.py: a folder or a tar a clip, whole or not there.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import shutil
import tarfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from utils.cli import frame_rate, non_negative_int, positive_int
from utils.errors import UserError
from utils.files import publish
from utils.run import Lines

O_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write CR LF
SETTINGS_NAME = ".frames_settings.json"


@dataclass(frozen=True)
class Settings:
    """What makes two dumps of a clip different; kept in the output as `.frames_settings.json`.

    fps: as an exact fraction in text, "0" for the clip's own. window: pictures on either side of a
    key frame; None for all pictures of a clip.
    """

    fps: str = "30"
    short_side: int | None = None
    upscale: bool = False
    quality: int = 90
    archive: bool = False
    window: int | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Settings:
        window = args.window if args.key_frames else None
        fps, side = str(args.fps), args.short_side
        return cls(fps, side, args.upscale, args.quality, args.archive, window)


class Store(Protocol):
    """Where the pictures of a clip gather before they get their name."""

    def add(self, number: int, jpeg: bytes) -> None: ...
    def publish(self, final: Path, overwrite: bool) -> None: ...


class FolderStore:
    """`<clip>/000001.jpg` and on."""

    def __init__(self, temporary: Path) -> None:
        self._folder = temporary
        shutil.rmtree(temporary, ignore_errors=True)
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


def settings_lines(settings: Settings) -> Lines:
    """`pictures     30 a second, JPEG quality 90, size as it is`"""
    rates = "every frame" if settings.fps == "0" else f"{settings.fps} a second"
    size = "size as it is"
    if settings.short_side:
        way = "scaled up or down" if settings.upscale else "scaled down"
        size = f"shorter side {way} to {settings.short_side}"
    parts = [rates, f"JPEG quality {settings.quality}", size]
    if settings.window is not None:
        parts.append(f"key frames and {settings.window} on either side")
    if settings.archive:
        parts.append("in tars")
    return [("pictures", ", ".join(parts))]


def check_settings(out: Path, settings: Settings, there: int) -> None:
    """Raises UserError when the output holds frames of other settings: they are never mixed."""
    path = out / SETTINGS_NAME
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if there:
            raise UserError(
                f"{out} holds {there:,} of these clips, with settings that nobody knows"
                f" ({SETTINGS_NAME} is missing): name another folder for the output"
            ) from None
        return
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): name another folder for the output"
        ) from None
    wanted = asdict(settings)
    if before != wanted:
        known = before if isinstance(before, dict) else {}
        other = ", ".join(f"{n} {known.get(n)}" for n in wanted if known.get(n) != wanted[n])
        raise UserError(
            f"{out} holds frames made with {other}, and frames are not mixed: give the same"
            " options, or name another folder for the output"
        )


def write_settings(out: Path, workspace: Path, settings: Settings) -> None:
    """Before the first frame, so that no frame is ever there without them."""
    text = json.dumps(asdict(settings), indent=1) + "\n"
    with suppress(OSError, UnicodeDecodeError):
        if (out / SETTINGS_NAME).read_text(encoding="utf-8") == text:
            return  # a run that finds all done changes nothing
    temporary = workspace / SETTINGS_NAME
    temporary.write_text(text, encoding="utf-8")
    publish(temporary, out / SETTINGS_NAME)


def add_frame_options(parser: argparse.ArgumentParser) -> None:
    """Which pictures, and how they are kept."""
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--fps",
        type=frame_rate,
        default=Fraction(30),
        metavar="F",
        help="pictures a second: 30, 12.5, 30000/1001; 0 gives every frame of the video",
    )
    group.add_argument(
        "--short_side", type=positive_int, metavar="N", help="scale the shorter side down to N"
    )
    group.add_argument("--upscale", action="store_true", help="with --short_side, also scale up")
    group.add_argument(
        "--quality", type=quality, default=Settings.quality, metavar="Q", help="of the JPEGs, 1-100"
    )
    group.add_argument(
        "--archive", action="store_true", help="write one <clip>.tar instead of a folder of files"
    )
    group.add_argument(
        "--key_frames",
        nargs="+",
        type=Path,
        metavar="ANNOTATIONS",
        help="only the pictures about the key frames of these AVA-Kinetics annotations: the raw"
        " files, or annotations_<split>.csv",
    )
    group.add_argument(
        "--window",
        type=non_negative_int,
        default=2,
        metavar="W",
        help="with --key_frames, this many pictures on either side",
    )


def quality(text: str) -> int:
    """An argparse type: JPEG's quality."""
    if (value := positive_int(text)) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a quality from 1 to 100")
    return value
