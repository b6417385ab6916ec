"""What a clip's packets, and where they look odd its pictures and its sound, tell.

A worker of the page, in processes of its own, for a decoder can crash. The packets of a file take
1 to 4 ms, its first frame 2 more. Only a clip whose packets are small, or whose first frame is
plain, is decoded further: a black or a frozen clip is one of these. The same goes for sound.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipreader.media import open_media, ratio
from utils.packages import describe

if TYPE_CHECKING:
    import av
    import numpy as np

    from clipreader.pixels import Array

EDGE_BYTES = 1 << 16  # of each end of a file: what is the same there is compared whole
FRAMES_LOOKED_AT = 9
# Bits a pixel of the picture in the middle, by size, that is no key frame: 0.001 to 0.023 in frozen
# clips, 0.05 to 0.5 in others; clips with less that do move cost one more frame or two.
ODD_BITS = 0.05
ODD_BYTES = 100  # of such a picture: the heads of a small one alone take 40
ODD_SPREAD = 10.0  # levels, of the first frame
ODD_SOUND = 4000.0  # bytes of sound a second; silence takes 300 of AAC
BLOCK = 8  # pixels of a picture whose short side is 96
FROZEN_BELOW = 4.0  # levels by which a block's mean ever changes; noise alone makes 1


@dataclass(frozen=True)
class ProbeTask:
    """A clip to look at, and how long its list says that it is, in seconds."""

    name: str
    path: Path
    listed_seconds: float


@dataclass(frozen=True)
class Look:
    """What was seen of a clip. Levels are 0 to 255; None: nothing called for a look.

    pixel_bits: of video, a pixel and frame; key_seconds, key_frames: the longest stretch from a key
    frame to the next, or to the end; brightest: the mean of the brightest frame looked at; spread:
    the largest standard deviation within one; motion: the most by which a part of the picture
    differs from the first; peak: of the sound, 1 being full scale; edges: a hash of both ends.
    """

    name: str
    listed_seconds: float
    bytes: int = 0
    problem: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    kbits: float = 0.0  # a second, of the whole file
    pixel_bits: float = 0.0
    codec: str = ""
    audio_codec: str = ""
    key_seconds: float = 0.0
    key_frames: int = 0
    brightest: float | None = None
    spread: float | None = None
    motion: float | None = None
    peak: float | None = None
    edges: str = ""

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)


def probe_clip(task: ProbeTask) -> Look:
    """The worker: never raises."""
    import av

    look = Look(task.name, task.listed_seconds)
    try:
        look = replace(look, bytes=os.path.getsize(task.path), edges=hash_edges(task.path))
        with open_media(task.path) as container:
            look, odd, odd_sound = _read_packets(container, look)
        if odd:
            look = _look_closer(task.path, look, odd == "plain")
        if odd_sound:
            look = replace(look, peak=_sound_peak(task.path))
    except (av.FFmpegError, OSError, ValueError) as error:
        return replace(look, problem=str(getattr(error, "strerror", None) or error))
    except Exception as error:  # PyAV and our call do not fit: it stands with the clip
        return replace(look, problem=describe(error))
    return look


def hash_edges(path: Path) -> str:
    """A hash of the first and the last 64 KB: two clips that differ, differ there."""
    with path.open("rb") as file:
        digest = hashlib.blake2b(file.read(EDGE_BYTES), digest_size=16)
        file.seek(max(0, file.seek(0, os.SEEK_END) - EDGE_BYTES))
        digest.update(file.read())
    return digest.hexdigest()


def _read_packets(container: av.container.InputContainer, look: Look) -> tuple[Look, str, bool]:
    """The look of the packets; how pictures are odd (`plain`, `still`), and whether sound is."""
    if not container.streams.video:
        raise ValueError("no video stream")
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    base, rate = ratio(stream.time_base) or 1, ratio(stream.average_rate) or 0
    audio = container.streams.audio[0] if container.streams.audio else None
    pictures: list[tuple[int, int, bool]] = []  # (pts, bytes, is a key frame)
    end = sound = 0
    for packet in container.demux([s for s in (stream, audio) if s is not None]):
        if packet.stream is audio:
            sound += packet.size
        elif packet.pts is not None and not packet.is_discard:
            pictures.append((packet.pts, packet.size, packet.is_keyframe))
            end = max(end, packet.pts + (packet.duration or 0))
    if not pictures:
        raise ValueError("a video stream without frames")
    container.seek(0)
    first = next(container.decode(stream))
    pictures.sort()
    seconds = float(end * base)
    pixels = first.width * first.height
    gap, frames = _key_distance(pictures, end)
    look = replace(
        look,
        width=first.width,
        height=first.height,
        fps=float(rate),
        seconds=seconds,
        kbits=look.bytes * 8 / 1000 / seconds if seconds > 0 else 0.0,
        pixel_bits=sum(size for _, size, _ in pictures) * 8 / pixels / len(pictures),
        codec=stream.codec_context.name,
        audio_codec=audio.codec_context.name if audio is not None else "",
        key_seconds=float(gap * base),
        key_frames=frames,
    )
    is_plain = float(_luma(first).std()) < ODD_SPREAD
    odd = "plain" if is_plain else "still" if _is_still(pictures, pixels) else ""
    return look, odd, audio is not None and sound < ODD_SOUND * seconds


def _is_still(pictures: Sequence[tuple[int, int, bool]], pixels: int) -> bool:
    """Whether half of the pictures between key frames hold next to nothing."""
    between = sorted(size for _, size, is_key in pictures if not is_key)
    return not between or between[len(between) // 2] < max(ODD_BYTES, ODD_BITS * pixels / 8)


def _key_distance(pictures: Sequence[tuple[int, int, bool]], end: int) -> tuple[int, int]:
    """The longest stretch from one key frame to before the next: in ticks, and in frames."""
    keys = [place for place, (_, _, is_key) in enumerate(pictures) if is_key] or [0]
    ends = [*keys[1:], len(pictures)]
    times = [*(pts for pts, _, _ in pictures), end]
    gaps = zip(keys, ends, strict=True)
    return max((times[after] - times[key], after - key) for key, after in gaps)


def _luma(frame: av.VideoFrame) -> np.ndarray[Any, Any]:
    """(H, W) uint8: the frame in gray."""
    return frame.to_ndarray(format="gray")


def _look_closer(path: Path, look: Look, is_plain: bool) -> Look:
    """Decode some frames, spread over the clip, and compare them; two are enough if it moves."""
    import numpy as np

    from clipreader.clip_reader import ClipReader

    with ClipReader(path, short_side=96) as reader:
        last = len(reader) - 1
        near = [0, min(last, 30)]
        if not is_plain and last and _motion(reader.read(indices=near)) > FROZEN_BELOW:
            return look
        steps = FRAMES_LOOKED_AT - 1
        frames = reader.read(indices=sorted({round(n * last / steps) for n in range(steps + 1)}))
    return replace(
        look,
        brightest=float(frames.mean(axis=(1, 2, 3)).max()),
        spread=float(frames.reshape(len(frames), -1, 3).std(axis=1, dtype=np.float32).max()),
        motion=_motion(frames) if last else None,
    )


def _motion(frames: Array) -> float:
    """The largest difference, in levels, of a block's mean from that in the first of `frames`.

    By blocks, for an encoder goes on refining a still picture: single pixels at its edges were seen
    to change by 15 levels within a second, and no block by more than 1.
    """
    import numpy as np

    count, height, width, _ = frames.shape
    rows, columns = height // BLOCK, width // BLOCK
    whole = frames[:, : rows * BLOCK, : columns * BLOCK]
    blocks = whole.reshape(count, rows, BLOCK, columns, BLOCK, 3).mean(axis=(2, 4))
    return float(np.abs(blocks[1:] - blocks[:1]).max(initial=0))


def _sound_peak(path: Path) -> float:
    """The loudest sample, as a part of full scale."""
    import numpy as np

    peak = 0.0
    with open_media(path) as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray()
            loudest = float(np.abs(samples.astype(np.float64)).max(initial=0))
            if samples.dtype.kind == "i":
                loudest /= 2.0 ** (8 * samples.dtype.itemsize - 1)
            peak = max(peak, loudest)
    return peak
