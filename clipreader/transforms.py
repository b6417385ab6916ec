"""Transforms for `ClipDataset(transform=...)` that need no torch: (T, H, W, 3) arrays in and out.

Each is called with the array and a numpy generator, which ClipDataset seeds by (seed, epoch, clip):
what is random is the same in every run, and for every number of worker processes. `Compose` calls
one after the other. All of a chunk's frames are cropped and flipped alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from av import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from clipreader.pixels import Array

Rng = np.random.Generator


class Compose:
    """The transforms of a list, one after the other."""

    def __init__(self, *steps: Callable[[Any, Rng], Any]) -> None:
        self.steps = steps

    def __call__(self, frames: Array, rng: Rng) -> Any:
        for step in self.steps:
            frames = step(frames, rng)
        return frames


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the picture, scaled to `size` x `size`, as torchvision chooses it.

    scale: of the picture's area; ratio: of the part's width to its height
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
            w, h = (
                min(width, round(height * self.ratio[1])),
                min(height, round(width / self.ratio[0])),
            )
            top, left = (height - h) // 2, (width - w) // 2
        return resize(frames[:, top : top + h, left : left + w], self.size, self.size)


@dataclass(frozen=True)
class CentreCrop:
    """The middle `size` x `size` pixels; a picture that is too small is scaled up first."""

    size: int

    def __call__(self, frames: Array, rng: Rng | None = None) -> Array:
        height, width = frames.shape[1:3]
        if (short := min(height, width)) < self.size:
            scale = self.size / short
            frames = resize(
                frames, max(self.size, round(height * scale)), max(self.size, round(width * scale))
            )
            height, width = frames.shape[1:3]
        top, left = (height - self.size) // 2, (width - self.size) // 2
        return frames[:, top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class Flip:
    """Left and right exchanged, with this probability."""

    probability: float = 0.5

    def __call__(self, frames: Array, rng: Rng) -> Array:
        return frames[:, :, ::-1] if rng.random() < self.probability else frames


@dataclass(frozen=True)
class Normalise:
    """float32, (x / 255 - mean) / std by channel, in the layout that the model takes."""

    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    layout: Literal["THWC", "TCHW", "CTHW"] = "CTHW"

    def __call__(self, frames: Array, rng: Rng | None = None) -> np.ndarray[Any, Any]:
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        values = frames.astype(np.float32) * (1 / (255 * std)) - mean / std
        order = {"THWC": (0, 1, 2, 3), "TCHW": (0, 3, 1, 2), "CTHW": (3, 0, 1, 2)}[self.layout]
        return np.ascontiguousarray(values.transpose(order))


def resize(frames: Array, height: int, width: int) -> Array:
    """(T, height, width, 3): scaled by ffmpeg's bicubic filter, as `short_side` does."""
    if frames.shape[1:3] == (height, width):
        return frames
    scaler = VideoReformatter()
    made = np.empty((len(frames), height, width, 3), np.uint8)
    for frame, into in zip(frames, made, strict=True):
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        scaled = scaler.reformat(
            picture, width, height, interpolation=Interpolation.BICUBIC, threads=1
        )
        into[...] = scaled.to_ndarray()
    return made
