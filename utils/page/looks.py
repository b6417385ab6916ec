"""Probe clips in worker processes: packets, levels and audio; draw thumbnails.

In processes, because a decoder can crash. The packets of a file take 1 to 4 ms, its first frame 2
more. Only a clip whose packets are small, or whose first frame is plain, is decoded further: black
and frozen clips are among these. The same goes for sound.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import heapq
import io
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.clip import clip_window
from utils.packages import Streak, describe
from utils.page.dataset import Dataset
from utils.parallel import run_in_processes
from utils.process import STOP, Stopped
from utils.run import Progress
from utils.video.whole import missing_part

if TYPE_CHECKING:
    from clipreader.pixels import Array

EDGE_BYTES = 1 << 16  # of each end of a file: what is the same there is compared whole
FRAMES_LOOKED_AT = 9
# Bits per pixel of the median frame that is no key frame: 0.001 to 0.023 in frozen clips, 0.05 to
# 0.5 in others; clips with less that do move cost one more frame or two.
ODD_BITS = 0.05
ODD_BYTES = 100  # of such a frame: the heads of a small one alone take 40
ODD_SPREAD = 10.0  # levels, of the first frame
ODD_SOUND = 4000.0  # bytes of sound per second; silence takes 300 of AAC
BLOCK = 8  # pixels of a frame whose short side is 96
FROZEN_BELOW = 4.0  # levels by which a block's mean ever changes; noise alone makes 1
WIDEST = 3  # times its height: a panorama is cut
STRIP_CLIPS, STRIP_LONGEST = 1_400, 8  # pictures of all strips, and of one: 0.9 KB each


class PictureForm(NamedTuple):
    """How a picture is written. `short_side` in pixels."""

    short_side: int
    format: str
    options: dict[str, Any]


# Measured on bikes.mp4 and bigbuckbunny.mp4: 3.9 to 4.1 KB, and 0.85 to 0.95 KB. As a JPEG the
# small one takes 1.6 KB, and strips would be half as long.
SHEET, STRIP = "sheet", "strip"
FORMS = {
    SHEET: PictureForm(96, "JPEG", {"quality": 70, "optimize": True}),
    STRIP: PictureForm(54, "WEBP", {"quality": 45, "method": 6}),
}


class LookTask(NamedTuple):
    """A clip to probe, whose list says how many seconds it has; or to make a picture of."""

    name: str
    path: Path
    listed_seconds: float
    form: str = ""  # of the picture; empty: probe it


@dataclass(frozen=True)
class ClipLook:
    """Measurements of a clip. Levels are 0 to 255; None: nothing called for a look.

    src: its picture, as a data: address. pixel_bits: of video, per pixel and frame; key_seconds,
    key_frames: the longest stretch from a key frame to the next, or to the end; brightest: the mean
    of the brightest frame looked at; spread: the largest standard deviation within one; motion: the
    most by which a part of the picture differs from the first; peak: of the sound, 1 being full
    scale; edges: a hash of both ends.
    """

    name: str
    listed_seconds: float = 0.0
    form: str = ""
    problem: str = ""
    src: str = ""
    width: int = 0
    height: int = 0
    bytes: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    kbits: float = 0.0  # per second, of the whole file
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


Looks = dict[tuple[str, int, str], ClipLook]  # by clip, bytes of its file, and form of the picture


def look_at_clips(
    data: Dataset, wanted: Iterable[tuple[str, str]], memory: Looks, args: argparse.Namespace
) -> dict[tuple[str, str], ClipLook]:
    """A look at each (clip, form). Clips that `memory` holds unchanged are not looked at again.

    Raises Stopped, UserError.
    """
    wanted = list(dict.fromkeys(wanted))
    keys = {(name, form): (name, data.sizes[name], form) for name, form in wanted}
    tasks = []
    for (name, form), key in keys.items():
        if key not in memory:
            seconds = clip_window(data.clips[name])[1] if name in data.clips else 0.0
            tasks.append(LookTask(name, data.path(name), seconds, form))
    if tasks:
        unit = "picture" if tasks[0].form else "clip"
        with (
            Progress(len(tasks), unit, quiet=args.quiet) as progress,
            closing(run_in_processes(look_at_clip, tasks, args.num_jobs, _look_crashed)) as seen,
        ):
            streak = Streak()
            for look in seen:
                progress.add("unreadable" if look.problem else "seen")
                streak.add(not look.problem, look.problem)
                if streak.is_hopeless:  # a package that lacks what we call, no fault of the clips
                    raise streak.problem()
                memory[look.name, data.sizes[look.name], look.form] = look
        if STOP.is_set():
            raise Stopped
    return {each: memory[key] for each, key in keys.items()}


def _look_crashed(task: LookTask, how: str) -> ClipLook:
    problem = f"the decoder crashed: {how}"
    return ClipLook(task.name, task.listed_seconds, task.form, problem=problem)


# --- which clips ----------------------------------------------------------------------------------
# Each clip has a rank that its name and the seed give, and the lowest are drawn. So a folder that
# grows changes a few of them, and a page that is renewed during a download looks at few clips.


def rank(seed: int, name: str) -> tuple[int, str]:
    return zlib.crc32(f"{seed}:{name}".encode(errors="surrogateescape")), name


def draw_sample(names: Iterable[str], most: int | None, seed: int) -> list[str]:
    """At most so many clips, of all alike; None: all of them."""
    if most is None:
        return sorted(names)
    return heapq.nsmallest(most, names, key=lambda name: rank(seed, name))


def draw_pictures(
    labels: Iterable[tuple[str, str]], pictures: int, seed: int
) -> tuple[list[str], dict[str, list[str]]]:
    """The contact sheet, one clip of every class in turn, and a strip of clips for every class.

    labels: (clip, label) of the clips that are there.
    """
    classes: dict[str, list[str]] = defaultdict(list)
    for name, label in labels if pictures else ():
        classes[label].append(name)
    long = max(1, min(STRIP_LONGEST, STRIP_CLIPS // max(1, len(classes))))
    deep = max(long, -(-pictures // max(1, len(classes))))
    best = {label: draw_sample(names, deep, seed) for label, names in classes.items()}
    turns = [(at, rank(seed, name)) for names in best.values() for at, name in enumerate(names)]
    sheet = [name for _, (_, name) in sorted(turns)[:pictures]]
    return sheet, {label: names[:long] for label, names in best.items()}


# --- in a worker process --------------------------------------------------------------------------


def look_at_clip(task: LookTask) -> ClipLook:
    """Probe a clip, or make its picture; never raises."""
    import av

    from clipreader.media import ClipError

    look = ClipLook(task.name, task.listed_seconds, task.form)
    try:
        return _picture(task, look) if task.form else _probe(task, look)
    except ClipError as error:
        problem = error.problem
    except (av.FFmpegError, OSError, ValueError) as error:
        problem = str(getattr(error, "strerror", None) or error)
    except Exception as error:  # PyAV and our call do not fit: it stands with the clip
        problem = describe(error)
    return replace(look, problem=problem, edges="")


def _picture(task: LookTask, look: ClipLook) -> ClipLook:
    """The frame in the middle, as `load_frames` gives it; of a very wide or tall one the middle."""
    import numpy as np
    from PIL import Image

    from clipreader.clip_reader import ClipReader

    form = FORMS[task.form]
    with ClipReader(task.path, short_side=form.short_side) as reader:
        frame = reader[len(reader) // 2]
    height, width = frame.shape[:2]
    most = WIDEST * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    frame = np.ascontiguousarray(frame[top : top + most, left : left + most])
    file = io.BytesIO()
    Image.fromarray(frame).save(file, form.format, **form.options)
    text = base64.b64encode(file.getvalue()).decode()
    src = f"data:image/{form.format.lower()};base64,{text}"
    return replace(look, src=src, width=frame.shape[1], height=frame.shape[0])


def _probe(task: LookTask, look: ClipLook) -> ClipLook:
    """What the packets tell, and the frames and the sound where these look odd."""
    from clipreader.media import open_clip, picture_stream
    from clipreader.packets import packets_of, shown_packets

    look = replace(look, bytes=os.path.getsize(task.path), edges=hash_edges(task.path))
    with open_clip(task.path) as container:
        found = packets_of(container)
        if missing := missing_part(container, task.path, len(found.video), found.listed):
            raise ValueError(missing)
        container.seek(0)
        stream = picture_stream(container)
        stream.thread_type = "NONE"
        first = next(container.decode(stream))
        is_plain = float(first.to_ndarray(format="gray").std()) < ODD_SPREAD
    base, pixels = found.time_base, found.width * found.height
    # (pts, bytes, is a key frame)
    marks = [(pts, found.video[at]) for pts, at in shown_packets(found.video)]
    frames = [(pts, mark.size, mark.is_key) for pts, mark in marks]
    seconds = float(found.end)
    # The longest stretch from one key frame to before the next: in seconds, and in frames.
    keys = [place for place, (_, _, is_key) in enumerate(frames) if is_key] or [0]
    times = [*(float(pts * base - found.zero) for pts, _, _ in frames), seconds]
    stretches = zip(keys, [*keys[1:], len(frames)], strict=True)
    apart, count = max((times[after] - times[key], after - key) for key, after in stretches)
    look = replace(
        look,
        width=found.width,
        height=found.height,
        fps=float(found.rate),
        seconds=seconds,
        kbits=look.bytes * 8 / 1000 / seconds if seconds > 0 else 0.0,
        pixel_bits=sum(size for _, size, _ in frames) * 8 / pixels / len(frames),
        codec=found.codec,
        audio_codec=found.audio_codec,
        key_seconds=apart,
        key_frames=count,
    )
    between = sorted(size for _, size, is_key in frames if not is_key)
    least = max(ODD_BYTES, ODD_BITS * pixels / 8)
    if is_plain or not between or between[len(between) // 2] < least:
        look = _look_closer(task.path, look, is_plain)
    audio = found.audio
    is_quiet = audio is not None and sum(mark.size for mark in audio) < ODD_SOUND * seconds
    return replace(look, peak=_sound_peak(task.path)) if is_quiet else look


def hash_edges(path: Path) -> str:
    """A hash of the first and the last 64 KB: two clips that differ, differ there."""
    with path.open("rb") as file:
        digest = hashlib.blake2b(file.read(EDGE_BYTES), digest_size=16)
        file.seek(max(0, file.seek(0, os.SEEK_END) - EDGE_BYTES))
        digest.update(file.read())
    return digest.hexdigest()


def _look_closer(path: Path, look: ClipLook, is_plain: bool) -> ClipLook:
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

    By blocks, because an encoder goes on refining a still picture: single pixels at its edges were
    seen to change by 15 levels within a second, and no block by more than 1.
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

    from clipreader.media import open_clip

    peak = 0.0
    with open_clip(path) as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray()
            loudest = float(np.abs(samples.astype(np.float64)).max(initial=0))
            if samples.dtype.kind == "i":
                loudest /= 2.0 ** (8 * samples.dtype.itemsize - 1)
            peak = max(peak, loudest)
    return peak
