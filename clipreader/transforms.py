"""Make RGB arrays of decoded frames, and transform them for training.

Frames come out upright, with square pixels, scaled, as in a player. Colours follow the matrix and
range that a frame is tagged with; untagged ones are BT.601, limited range, as in ffmpeg.

The transforms are for `ClipDataset(transform=...)` and need no torch. Each is called with a
(T, H, W, 3) array and a NumPy generator, which ClipDataset seeds by (seed, epoch, clip), so random
choices are the same in every run, for any number of worker processes. All frames of a chunk are
cropped and flipped alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from clipreader.media import display_matrix

Array: TypeAlias = NDArray[np.uint8]
Rng: TypeAlias = np.random.Generator

# ffmpeg's scaler notes the rounding of a size as an aspect: 640x360 scaled to 454x256 has
# 2048:2043. Real oblong pixels are 16:15 and more; scaling away the rounding would cost time.
_ROUNDING = Fraction(1, 50)
_DAMAGE = Fraction(20)  # more than any camera or disc has (4:1); a frame would take gigabytes

_GAP = 2  # pixels between the frames of a sheet
_WIDEST = 1920  # pixels; frames shrink until the sheet is no wider


@dataclass(frozen=True)
class Orientation:
    """How a player turns a stored frame: first transposed, then mirrored."""

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
        return cls(True, c < 0, b < 0) if abs(b) > abs(a) else cls(False, a < 0, d < 0)

    def turn(self, pixels: Array) -> Array:
        """Return a view of `pixels`, of shape (H, W) or (H, W, C), the right way up."""
        pixels = pixels.swapaxes(0, 1) if self.transposed else pixels
        pixels = pixels[:, ::-1] if self.mirrored_x else pixels
        return pixels[::-1] if self.mirrored_y else pixels


def shown_size(
    width: int, height: int, aspect: Fraction | None, short_side: int | None = None
) -> tuple[int, int]:
    """Return (width, height) of stored pixels made square, the shorter side being `short_side`.

    aspect: the sample aspect ratio; None or 0 if unknown. The side that is too short for it grows,
    so that no pixel is lost. The longer side follows `short_side` to the nearest whole number.
    Rotation is not applied here.
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
    """Paints frames into rows of an array, all in the size of the clip's first frame.

    Holds the scaler's tables, so each clip has its own, used by one thread at a time.
    """

    def __init__(self, width: int, height: int, orientation: Orientation) -> None:
        """width, height: the size before the turn."""
        self.width, self.height, self.orientation = width, height, orientation
        turned = (width, height) if orientation.transposed else (height, width)
        self.shape = (*turned, 3)  # of a painted frame
        self._scaler = VideoReformatter()
        self._converter = VideoReformatter()

    def paint(self, frame: VideoFrame, into: Array) -> None:
        """Write `frame` into `into`, an array of shape (H, W, 3), uint8."""
        if (frame.width, frame.height) != (self.width, self.height):
            # swscale's step from YUV to RGB is fast if it does not scale at the same time: two
            # steps take a fifth of the time of one, at a mean difference below one level.
            frame = _scale(self._scaler, frame, self.width, self.height)
        # threads=1: the default starts a thread per core for every clip.
        rgb = self._converter.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        pixels = rows[: self.height, : self.width * 3].reshape(self.height, self.width, 3)
        into[...] = self.orientation.turn(pixels)


def _scale(scaler: VideoReformatter, frame: VideoFrame, width: int, height: int) -> VideoFrame:
    return scaler.reformat(frame, width, height, interpolation=Interpolation.BICUBIC, threads=1)


def resize(frames: Array, height: int, width: int) -> Array:
    """Return (T, height, width, 3): scaled by ffmpeg's bicubic filter, as `short_side` does."""
    if frames.shape[1:3] == (height, width):
        return frames
    scaler, scaled = VideoReformatter(), np.empty((len(frames), height, width, 3), np.uint8)
    for frame, into in zip(frames, scaled, strict=True):
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        into[...] = _scale(scaler, picture, width, height).to_ndarray()
    return scaled


def save_sheet(path: Path, frames: Array, captions: Sequence[str]) -> None:
    """Write `frames`, (T, H, W, 3) uint8, as a grid about as wide as a screen; format by suffix.

    Raises ValueError for no frames or an unknown suffix, OSError if it cannot be written.
    """
    from PIL import Image, ImageDraw  # the loader does not require it

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


# --- transforms ---


class Compose:
    """Apply the transforms of a list, one after the other."""

    def __init__(self, *steps: Callable[[Any, Rng], Any]) -> None:
        self.steps = steps

    def __call__(self, frames: Array, rng: Rng) -> Any:
        for step in self.steps:
            frames = step(frames, rng)
        return frames


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crop a random part, as torchvision chooses it, and scale it to `size` x `size`.

    scale: of the frame's area; ratio: of the part's width to its height
    """

    size: int
    scale: tuple[float, float] = (0.25, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, frames: Array, rng: Rng) -> Array:
        height, width = frames.shape[1:3]
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                break
        else:
            w = min(width, round(height * self.ratio[1]))
            h = min(height, round(width / self.ratio[0]))
            top, left = (height - h) // 2, (width - w) // 2
        return resize(frames[:, top : top + h, left : left + w], self.size, self.size)


@dataclass(frozen=True)
class CentreCrop:
    """Crop the middle `size` x `size` pixels; a frame that is too small is scaled up first."""

    size: int

    def __call__(self, frames: Array, rng: Rng | None = None) -> Array:
        scale = max(1.0, self.size / min(frames.shape[1:3]))
        height, width = (max(self.size, round(side * scale)) for side in frames.shape[1:3])
        top, left = (height - self.size) // 2, (width - self.size) // 2
        frames = resize(frames, height, width)
        return frames[:, top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class Flip:
    """Exchange left and right, with this probability."""

    probability: float = 0.5

    def __call__(self, frames: Array, rng: Rng) -> Array:
        return frames[:, :, ::-1] if rng.random() < self.probability else frames


@dataclass(frozen=True)
class Normalise:
    """Return float32, (x / 255 - mean) / std by channel, in the layout that the model takes."""

    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    layout: Literal["THWC", "TCHW", "CTHW"] = "CTHW"

    def __call__(self, frames: Array, rng: Rng | None = None) -> NDArray[np.float32]:
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        values = frames.astype(np.float32) * (1 / (255 * std)) - mean / std
        order = {"THWC": (0, 1, 2, 3), "TCHW": (0, 3, 1, 2), "CTHW": (3, 0, 1, 2)}[self.layout]
        return np.ascontiguousarray(values.transpose(order))
