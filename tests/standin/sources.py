"""Source videos whose content is known, and readers that find it again in whatever was cut of them.

Every frame carries its number as 16 black and white blocks, and the sound beeps on every whole
second, so that a test (or the demo) can tell from a decoded clip which frames it holds and whether
picture and sound still belong together. `server` puts these videos behind a YouTube look-alike.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import struct
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np

# The blocks: two rows of eight over the full width, at the top of the picture. At a short side of
# 64 a block still has 8x7 pixels, of which only the middle is read.
COLUMNS, ROWS = 8, 2
BLOCK_HEIGHT = 0.12  # of the picture's height, each row
BITS = COLUMNS * ROWS - 1  # the last block is odd parity: black, white and noise read as None
MAX_FRAMES = 1 << BITS

BLACK, WHITE = 16, 235
RED_YUV = (81, 90, 240)  # (255, 0, 0) in BT.601, limited range
SAMPLE_RATE = 44100
BEEP_SECONDS, BEEP_HZ = 0.05, 1000
GRAIN_TILES = 8

Box = tuple[int, int, float, float, float, float]


@dataclass(frozen=True)
class Picture:
    """What a frame looks like, before any frame number is known."""

    width: int  # as stored
    height: int
    planar444: bool  # odd sizes cannot be 4:2:0
    complexity: float
    rotation: int  # counter-clockwise degrees that a player turns the picture by
    box: Box | None

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as a player shows them."""
        turned = self.rotation % 180 == 90
        return (self.height, self.width) if turned else (self.width, self.height)


def make_source(
    path: str | os.PathLike[str],
    *,
    seconds: float = 20.0,
    fps: Fraction | float | str = 25,
    size: tuple[int, int] = (640, 360),
    gop: int = 50,
    audio: bool = True,
    crf: int = 26,
    complexity: float = 1.0,
    bframes: int = 2,
    open_gop: bool = False,
    rotation: int = 0,
    sar: Fraction | str | None = None,
    pts: Sequence[float] | None = None,
    start: float = 0.0,
    video_seconds: float | None = None,
    box: Box | None = None,
    preset: str = "superfast",
) -> Path:
    """An H.264 (and AAC) mp4 with a known content.

    `size` is the stored size; with `rotation` (90, 180, 270: what a player turns it by, counter-
    clockwise) the picture is stored turned, so that it shows upright. `pts` gives the frames' times
    in seconds for a variable frame rate, `start` moves both streams off 0, `video_seconds` ends the
    picture before the sound. `box` is (first frame, frame after the last, x1, y1, x2, y2), the
    corners as parts of the shown picture: filled red, under the number blocks.
    """
    path = Path(path)
    rate = _fraction(fps)
    odd = bool(size[0] % 2 or size[1] % 2)
    picture = Picture(size[0], size[1], odd, complexity, rotation % 360, box)
    times = _frame_times(seconds if video_seconds is None else video_seconds, rate, pts, start)
    if len(times[1]) > MAX_FRAMES:
        raise ValueError(f"{len(times[1])} frames: the blocks can count to {MAX_FRAMES}")
    # A name of its own, so that two processes making the same source cannot meet.
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.mp4")
    part.parent.mkdir(parents=True, exist_ok=True)
    x264 = {"preset": preset, "crf": str(crf), "bf": str(bframes), "g": str(gop)}
    x264["x264-params"] = f"open-gop={int(open_gop)}:scenecut=0:keyint={gop}:min-keyint={gop}"
    try:
        with av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as out:
            video = _video_stream(out, rate, picture, times[0], x264, sar)
            sound = _audio_stream(out) if audio else None
            _encode(out, video, sound, picture, times, seconds, start)
        if picture.rotation:
            _set_rotation(part, picture.rotation)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def cached_source(folder: str | os.PathLike[str], **options: Any) -> Path:
    """`make_source` with these options, made once per folder (also by several processes)."""
    from filelock import FileLock  # a development requirement: the demo does without

    key = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:16]
    path = Path(folder) / f"source_{key}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        return path if path.exists() else make_source(path, **options)


def _fraction(value: Fraction | float | str) -> Fraction:
    return Fraction(value).limit_denominator(100_000)


def _frame_times(
    seconds: float, rate: Fraction, pts: Sequence[float] | None, start: float
) -> tuple[Fraction, list[int]]:
    """The time base, and each frame's timestamp in it."""
    if pts is not None:
        return Fraction(1, 90_000), [round((t + start) * 90_000) for t in pts]
    # Off 0, the base is finer than the frame rate needs, so that any start is hit to the ms.
    fine = 1000 if start else 1
    step = rate.denominator * fine
    first = round(start * rate.numerator * fine)
    count = round(seconds * rate)
    return Fraction(1, rate.numerator * fine), [first + n * step for n in range(count)]


def _video_stream(
    out: Any,
    rate: Fraction,
    picture: Picture,
    time_base: Fraction,
    options: dict[str, str],
    sar: Fraction | str | None,
) -> Any:
    stream = out.add_stream("libx264", rate=rate, options=options)
    stream.width, stream.height = picture.width, picture.height
    stream.pix_fmt = "yuv444p" if picture.planar444 else "yuv420p"
    stream.codec_context.time_base = time_base
    if sar is not None:
        stream.codec_context.sample_aspect_ratio = Fraction(sar)
    return stream


def _audio_stream(out: Any) -> Any:
    stream = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
    stream.codec_context.bit_rate = 96_000
    return stream


def _encode(
    out: Any,
    video: Any,
    sound: Any,
    picture: Picture,
    times: tuple[Fraction, list[int]],
    seconds: float,
    start: float,
) -> None:
    """Sound runs along with the picture, a second at a time, so that the file is interleaved."""
    time_base, stamps = times
    blocks = _sound_blocks(seconds, round(start * SAMPLE_RATE)) if sound else iter(())
    heard = start
    for number, stamp in enumerate(stamps):
        frame = _video_frame(picture, number)
        frame.pts, frame.time_base = stamp, time_base
        out.mux(video.encode(frame))
        while sound and heard <= stamp * time_base:
            block = next(blocks, None)
            if block is None:
                break
            out.mux(sound.encode(block))
            heard += 1.0
    for block in blocks:
        out.mux(sound.encode(block))
    out.mux(video.encode(None))
    if sound:
        out.mux(sound.encode(None))


def _set_rotation(path: Path, degrees: int) -> None:
    """Writes the display matrix, which PyAV's muxer cannot, by a stream copy."""
    turned = path.with_name(f"{path.stem}.turned.mp4")
    turn = ["-display_rotation:v:0", str(degrees), "-i", str(path), "-map", "0", "-c", "copy"]
    _ffmpeg([*turn, "-movflags", "+faststart", str(turned)])
    os.replace(turned, path)


def ffmpeg_path() -> str:
    """The wheel's ffmpeg, or else the one on PATH."""
    try:
        import imageio_ffmpeg
    except ImportError:
        return shutil.which("ffmpeg") or "ffmpeg"
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _ffmpeg(arguments: Sequence[str]) -> None:
    command = [ffmpeg_path(), "-nostdin", "-v", "error", "-y", *arguments]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)


# --- the picture -------------------------------------------------------------------------------


def _video_frame(picture: Picture, number: int) -> av.VideoFrame:
    planes = _planes(picture, number)
    if picture.rotation:
        # Stored turned the other way (clockwise), so that the player's turn puts it upright.
        planes = [np.rot90(plane, -picture.rotation // 90) for plane in planes]
    if picture.planar444:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuv444p")
    # PyAV wants 4:2:0 as one array: luma on top, both chroma planes folded in below.
    flat = np.concatenate([np.ascontiguousarray(plane).reshape(-1) for plane in planes])
    return av.VideoFrame.from_ndarray(flat.reshape(-1, picture.width), format="yuv420p")


def _planes(picture: Picture, number: int) -> list[np.ndarray]:
    """Y, U and V of one frame, upright: a drifting texture with grain, the box, the blocks."""
    width, height = picture.shown
    sub = 1 if picture.planar444 else 2
    texture, colour, grain = _material(width, height, picture.complexity)
    angle = number / 40
    x = int(width / 4 * (1 + math.sin(angle)))
    y = int(height / 4 * (1 + math.cos(angle * 0.7)))
    luma = texture[y : y + height, x : x + width] + grain[number % GRAIN_TILES]
    cw, ch = width // sub, height // sub
    chroma = [plane[y // 4 : y // 4 + ch, x // 4 : x // 4 + cw].copy() for plane in colour]
    planes = [luma, *chroma]
    if picture.box is not None and picture.box[0] <= number < picture.box[1]:
        _draw_box(planes, picture.box)
    _draw_number(luma, number)
    return planes


@lru_cache(maxsize=4)
def _material(
    width: int, height: int, complexity: float
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Texture larger than the picture to drift over, the same for colour, and tiles of grain."""
    noise = np.random.default_rng(20)
    shape = (height * 3 // 2 + 2, width * 3 // 2 + 2)
    texture = sum(_soft_noise(noise, shape, cell) * part for cell, part in ((48, 90), (10, 50)))
    colour = [(_soft_noise(noise, shape, 40) * 90 + 83).astype(np.uint8) for _ in range(2)]
    grain = noise.normal(0, 2.6 * complexity, (GRAIN_TILES, height, width)).round()
    # 50 to 190, so that the grain can be added to bytes and never wraps around.
    base = (np.asarray(texture) + 50).astype(np.uint8)
    return base, colour, grain.clip(-30, 30).astype(np.int8).view(np.uint8)


def _soft_noise(noise: np.random.Generator, shape: tuple[int, int], cell: int) -> np.ndarray:
    """Noise from 0 to 1 with features about `cell` pixels wide: a coarse grid, interpolated."""
    rows, columns = shape[0] // cell + 2, shape[1] // cell + 2
    coarse = noise.random((rows, columns))
    x = np.arange(shape[1]) / cell
    y = np.arange(shape[0]) / cell
    wide = np.stack([np.interp(x, np.arange(columns), row) for row in coarse])
    tall = y.astype(int)
    part = (y - tall)[:, None]
    return wide[tall] * (1 - part) + wide[tall + 1] * part


def _draw_box(planes: list[np.ndarray], box: Box) -> None:
    for plane, value in zip(planes, RED_YUV, strict=True):
        height, width = plane.shape
        x1, x2 = round(box[2] * width), round(box[4] * width)
        y1, y2 = round(box[3] * height), round(box[5] * height)
        plane[y1:y2, x1:x2] = value


def _draw_number(luma: np.ndarray, number: int) -> None:
    bits = [number >> place & 1 for place in range(BITS)]
    bits.append(1 - sum(bits) % 2)
    for (y1, y2, x1, x2), bit in zip(_block_edges(*luma.shape), bits, strict=True):
        luma[y1:y2, x1:x2] = WHITE if bit else BLACK


def _block_edges(height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    ys = [round(row * BLOCK_HEIGHT * height) for row in range(ROWS + 1)]
    xs = [round(column * width / COLUMNS) for column in range(COLUMNS + 1)]
    for row in range(ROWS):
        for column in range(COLUMNS):
            yield ys[row], ys[row + 1], xs[column], xs[column + 1]


# --- the sound ---------------------------------------------------------------------------------


def _sound_blocks(seconds: float, first: int) -> Iterator[av.AudioFrame]:
    """One frame per second of sound: a beep at its beginning, then next to nothing."""
    noise = np.random.default_rng(7)
    ramp = np.arange(round(BEEP_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    beep = 0.5 * np.sin(2 * np.pi * BEEP_HZ * ramp)
    total = round(seconds * SAMPLE_RATE)
    for begin in range(0, total, SAMPLE_RATE):
        block = noise.normal(0, 0.0005, SAMPLE_RATE).astype(np.float32)
        block[: len(beep)] += beep.astype(np.float32)
        samples = np.ascontiguousarray(block[None, : min(SAMPLE_RATE, total - begin)])
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts, frame.time_base = first + begin, Fraction(1, SAMPLE_RATE)
        yield frame


# --- reading back ------------------------------------------------------------------------------


def read_frame_number(image: np.ndarray) -> int | None:
    """The number in a picture (H x W x 3 RGB, or H x W gray), or None when it carries none."""
    gray = np.asarray(image, dtype=np.float32)
    if gray.ndim == 3:
        gray = gray[..., :3] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    bits = []
    for y1, y2, x1, x2 in _block_edges(*gray.shape):
        # The middle of the block only: scaling and the encoder blur its edges.
        dy, dx = max(1, (y2 - y1) // 4), max(1, (x2 - x1) // 4)
        level = float(gray[y1 + dy : max(y2 - dy, y1 + dy + 1), x1 + dx : x2 - dx].mean())
        if 90 < level < 165 or math.isnan(level):
            return None
        bits.append(int(level > 128))
    if sum(bits) % 2 == 0:
        return None
    return sum(bit << place for place, bit in enumerate(bits[:BITS]))


def frame_numbers(path: str | os.PathLike[str]) -> list[int]:
    """The numbers of all frames of a clip in the order shown; -1 for a frame without one."""
    return [number for _time, number in frame_times(path)]


def frame_times(path: str | os.PathLike[str]) -> list[tuple[float, int]]:
    """(time on the clip's timeline, number) of all frames, turned upright as a player does."""
    found: list[tuple[float, int]] = []
    with av.open(str(path)) as clip:
        if not clip.streams.video:
            return []
        for frame in clip.decode(video=0):
            image = frame.to_ndarray(format="gray")
            if frame.rotation:
                image = np.rot90(image, round(frame.rotation / 90))
            number = read_frame_number(image)
            found.append((float(frame.time or 0.0), -1 if number is None else number))
    return found


def beep_times(path: str | os.PathLike[str]) -> list[float]:
    """When the beeps begin, in seconds on the clip's timeline, to within a few milliseconds."""
    with av.open(str(path)) as clip:
        if not clip.streams.audio:
            return []
        pieces = [(frame.time, frame.rate, frame.to_ndarray()) for frame in clip.decode(audio=0)]
    stamps: list[np.ndarray] = []
    levels: list[np.ndarray] = []
    for begin, rate, samples in pieces:
        # AAC decodes to planes of floats; one channel is enough.
        levels.append(np.abs(samples[0].astype(np.float64)))
        stamps.append((begin or 0.0) + np.arange(samples.shape[1]) / rate)
    if not levels:
        return []
    level = np.concatenate(levels)
    peak = float(level.max())
    if peak < 0.05:  # of full scale: nothing but noise
        return []
    loud = np.concatenate(stamps)[level > 0.4 * peak]
    # A gap of 0.2 s between loud samples separates two beeps.
    return [float(t) for t in loud[np.concatenate([[True], np.diff(loud) > 0.2])]]


# --- the way YouTube stores it -----------------------------------------------------------------


def make_dash(path: str | os.PathLike[str]) -> tuple[Path, Path | None]:
    """The video-only and audio-only fragmented files (YouTube's 134 and 140), beside the source.

    Stream-copied, with one global `sidx` before the fragments. Made once; no audio gives None.
    """
    path = Path(path)
    with av.open(str(path)) as source:
        sound = bool(source.streams.audio)
    video = _dash_part(path, "video", "0:v:0")
    return video, _dash_part(path, "audio", "0:a:0") if sound else None


def _dash_part(path: Path, kind: str, stream: str) -> Path:
    part = path.with_name(f"{path.stem}.dash_{kind}.mp4")
    if part.exists() and part.stat().st_mtime_ns >= path.stat().st_mtime_ns:
        return part
    # Made under a private name and renamed: a half-written file is never served.
    fresh = part.with_name(f".{part.stem}.{uuid.uuid4().hex[:8]}.mp4")
    flags = "+dash+delay_moov+default_base_moof+global_sidx"
    cut = ["-frag_duration", "5000000"] if kind == "audio" else []
    flags += "" if cut else "+frag_keyframe"
    arguments = ["-i", str(path), "-map", stream, "-c", "copy", *cut, "-movflags", flags]
    try:
        _ffmpeg([*arguments, "-f", "mp4", str(fresh)])
        os.replace(fresh, part)
    finally:
        fresh.unlink(missing_ok=True)
    return part


def top_boxes(path: str | os.PathLike[str]) -> list[tuple[str, int, int]]:
    """(type, offset, size) of an mp4's outermost boxes: where the `moov` and the `sidx` are."""
    boxes = []
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        offset = 0
        while offset + 8 <= end:
            file.seek(offset)
            size, kind = struct.unpack(">I4s", file.read(8))
            if size == 1:
                size = struct.unpack(">Q", file.read(8))[0]
            size = size or end - offset
            boxes.append((kind.decode("latin-1"), offset, size))
            offset += size
    return boxes
