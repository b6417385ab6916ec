"""Convert a decoded frame to an RGB array: upright, square pixels, scaled, as in a player.

Colours follow the matrix and the range that the frame is tagged with; untagged ones are BT.601,
limited range, as ffmpeg has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from clipreader.media import display_matrix

Array = NDArray[np.uint8]

# ffmpeg's scaler notes the rounding of a size as an aspect: 640x360 made 454x256 has 2048:2043.
# Real oblong pixels are 16:15 and more; those of rounding would cost a scaling of every frame.
_ROUNDING = Fraction(1, 50)
# Beyond what any camera or disc has (4:1), where a picture would take gigabytes.
_DAMAGE = Fraction(20)


_GAP = 2  # pixels between the frames of a sheet
_WIDEST = 1920  # pixels; frames shrink until the sheet is no wider


@dataclass(frozen=True)
class Orientation:
    """How a player turns a stored picture: first transposed, then mirrored."""

    transposed: bool = False
    mirrored_x: bool = False
    mirrored_y: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Orientation:
        """Read a frame's display matrix (ISO/IEC 14496-12, 6.2.2), for right angles and mirrors."""
        matrix = display_matrix(frame)
        if matrix is None:
            return cls()
        a, b, _, c, d = matrix[:5]
        if abs(b) > abs(a):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    def turn(self, pixels: Array) -> Array:
        """A view of `pixels`, of shape (H, W) or (H, W, C), the right way up."""
        pixels = pixels.swapaxes(0, 1) if self.transposed else pixels
        pixels = pixels[:, ::-1] if self.mirrored_x else pixels
        return pixels[::-1] if self.mirrored_y else pixels


def shown_size(
    width: int, height: int, aspect: Fraction | None, short_side: int | None = None
) -> tuple[int, int]:
    """(width, height) of stored pixels made square, the shorter side then being `short_side`.

    aspect: the sample aspect ratio; None or 0 where it is not known. The side that is too short for
    it grows, so that no pixel is lost. The longer side follows `short_side` to the nearest whole
    number. Rotation is not applied here.
    """
    exact_width, exact_height = Fraction(width), Fraction(height)
    if aspect and 1 + _ROUNDING < aspect < _DAMAGE:
        exact_width *= aspect
    elif aspect and 1 / _DAMAGE < aspect < 1 - _ROUNDING:
        exact_height /= aspect
    if short_side is not None:
        scale = short_side / min(exact_width, exact_height)
        exact_width, exact_height = exact_width * scale, exact_height * scale
    return max(1, round(exact_width)), max(1, round(exact_height))


class Painter:
    """Paints frames into rows of an array, all in the size that the clip's first frame has.

    Holds the scaler's tables: one Painter a clip, used by one thread at a time.
    """

    def __init__(self, width: int, height: int, orientation: Orientation) -> None:
        """width, height: the size before the turn."""
        self.width = width
        self.height = height
        self.orientation = orientation
        self._scaler = VideoReformatter()
        self._converter = VideoReformatter()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of a painted frame."""
        if self.orientation.transposed:
            return self.width, self.height, 3
        return self.height, self.width, 3

    def paint(self, frame: VideoFrame, into: Array) -> None:
        """Write `frame` into `into`, an array of shape (H, W, 3), uint8."""
        if (frame.width, frame.height) != (self.width, self.height):
            # swscale's step from YUV to RGB is fast if it does not scale at the same time: two
            # steps take a fifth of the time of one, at a mean difference below one level.
            frame = self._scaler.reformat(
                frame, self.width, self.height, interpolation=Interpolation.BICUBIC, threads=1
            )
        # threads=1: the default starts a thread a core for every clip.
        rgb = self._converter.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        pixels = rows[: self.height, : self.width * 3].reshape(self.height, self.width, 3)
        into[...] = self.orientation.turn(pixels)


def save_sheet(path: Path, frames: Array, captions: Sequence[str]) -> None:
    """Write `frames`, (T, H, W, 3) uint8, as a grid about as wide as a screen; format by suffix.

    Raises ValueError for no frames or an unknown suffix, OSError where it cannot be written.
    """
    from PIL import Image, ImageDraw  # no need of the loader's

    if not len(frames):
        raise ValueError("no frames to draw")
    height, width = frames.shape[1:3]
    columns = math.ceil(math.sqrt(len(frames) * 1.2 * height / width))
    columns = min(len(frames), max(1, columns))
    scale = min(1.0, _WIDEST / columns / width)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    rows = math.ceil(len(frames) / columns)
    sheet = Image.new("RGB", (columns * (size[0] + _GAP) - _GAP, rows * (size[1] + _GAP) - _GAP))
    for number, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        picture = Image.fromarray(np.ascontiguousarray(frame)).resize(size)
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, 0, *(side + 3 for side in draw.textbbox((0, 0), caption)[2:])), "black")
        draw.text((2, 1), caption, "white")
        row, column = divmod(number, columns)
        sheet.paste(picture, (column * (size[0] + _GAP), row * (size[1] + _GAP)))
    sheet.save(path)
