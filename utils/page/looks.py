"""Probe clips in worker processes, because a decoder can crash, and draw thumbnails.

Only a clip with small packets or a plain first frame is decoded further: black and frozen clips are
among these. Its audio is decoded if its packets are nearly empty.
"""

from __future__ import annotations

import argparse
import base64
import heapq
import io
import os
import statistics
import zlib
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from utils.clip import clip_window
from utils.errors import Streak, describe
from utils.page.dataset import Dataset
from utils.parallel import run_in_processes
from utils.process import STOP, Stopped
from utils.run import Progress
from utils.video.whole import missing_part

if TYPE_CHECKING:
    from clipreader.transforms import Array

FRAMES_LOOKED_AT = 9
# Bits per pixel of the median frame that is not a keyframe: 0.001 to 0.023 in frozen clips, 0.05 to
# 0.5 in others; clips with less that do move cost one or two more frames.
ODD_BITS = 0.05
ODD_BYTES = 100  # of such a frame: the headers of a small one alone take 40
ODD_SPREAD = 10.0  # levels, of the first frame
ODD_SOUND = 4000.0  # bytes of audio per second; silence takes 300 in AAC
BLOCK = 8  # pixels of a frame whose short side is 96
FROZEN_BELOW = 4.0  # levels by which the mean of a block changes; noise alone makes 1
STRIP_CLIPS, STRIP_LONGEST = 1_400, 8  # thumbnails in all strips, and in one: 0.9 KB each
SHEET, STRIP = 96, 54  # short side of the thumbnails, in pixels
PROBE = 0  # in place of a short side


@dataclass(frozen=True)
class ClipLook:
    """Measurements of a clip, or its thumbnail with this short side: empty before it is looked at.

    Levels are 0 to 255, and None if not measured.

    src: the thumbnail as a data: URL. pixel_bits: of video, per pixel and frame; key_frames: the
    largest number from a keyframe to the next, or to the end; brightest: the mean of the brightest
    decoded frame; spread: the largest standard deviation within one; motion: the largest difference
    of a block from the first frame; peak: of the audio, 1 being full scale.
    """

    name: str
    listed_seconds: float = 0.0
    short_side: int = PROBE
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
    key_frames: int = 0
    brightest: float | None = None
    spread: float | None = None
    motion: float | None = None
    peak: float | None = None


Looks = dict[tuple[str, int, int], ClipLook]  # by clip, bytes of its file, and short side


def look_at_clips(
    data: Dataset, wanted: Iterable[tuple[str, int]], memory: Looks, args: argparse.Namespace
) -> dict[tuple[str, int], ClipLook]:
    """Return a look at each (clip, short side); `memory` keeps those of unchanged files.

    Raises Stopped, UserError.
    """
    keys = {each: (each[0], data.sizes[each[0]], each[1]) for each in wanted}
    tasks = []
    for (name, short_side), key in keys.items():
        if key not in memory:
            seconds = clip_window(data.clips[name])[1] if name in data.clips else 0.0
            tasks.append(ClipLook(name, seconds, short_side))
    if tasks:
        unit = "clip" if tasks[0].short_side == PROBE else "thumbnail"
        streak, worker = Streak(), partial(look_at_clip, data.folder)
        with (
            Progress(len(tasks), unit, quiet=args.quiet) as progress,
            closing(run_in_processes(worker, tasks, args.num_jobs, _look_crashed)) as seen,
        ):
            for look in seen:
                progress.add("unreadable" if look.problem else "seen")
                streak.add(not look.problem, look.problem)
                if streak.is_hopeless:  # a package lacks what we call: the clips are not at fault
                    raise streak.problem()
                memory[look.name, data.sizes[look.name], look.short_side] = look
        if STOP.is_set():
            raise Stopped
    return {each: memory[key] for each, key in keys.items()}


def _look_crashed(task: ClipLook, how: str) -> ClipLook:
    return replace(task, problem=f"the decoder crashed: {how}")


# --- which clips ----------------------------------------------------------------------------------
# Name and seed give each clip a rank, and the lowest are drawn: while a folder grows, most of the
# drawn clips stay the same, so a page that is rebuilt during a download probes few clips.


def rank(seed: int, name: str) -> tuple[int, str]:
    return zlib.crc32(f"{seed}:{name}".encode(errors="surrogateescape")), name


def draw_sample(names: Iterable[str], most: int | None, seed: int) -> list[str]:
    """Return at most `most` clips, drawn at random; None for all of them."""
    if most is None:
        return sorted(names)
    return heapq.nsmallest(most, names, key=lambda name: rank(seed, name))


def draw_pictures(
    labels: Iterable[tuple[str, str]], pictures: int, seed: int
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the clips of the contact sheet, class by class in turn, and a strip for every class.

    labels: (clip, label) of the clips on disk.
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


def look_at_clip(folder: Path, task: ClipLook) -> ClipLook:
    """Probe a clip, or make its thumbnail; never raises."""
    import av

    from clipreader.media import ClipError

    path = folder / f"{task.name}.mp4"
    try:
        return _probe(path, task) if task.short_side == PROBE else _thumbnail(path, task)
    except ClipError as error:
        problem = error.problem
    except (av.FFmpegError, OSError, ValueError) as error:
        problem = str(getattr(error, "strerror", None) or error)
    except Exception as error:  # as when PyAV has another interface: reported with the clip
        problem = describe(error)
    return replace(task, problem=problem)


def _thumbnail(path: Path, look: ClipLook) -> ClipLook:
    """Draw the frame in the middle, as `load_frames` gives it."""
    from PIL import Image

    from clipreader.clip_reader import ClipReader

    with ClipReader(path, short_side=look.short_side) as reader:
        frame = reader[len(reader) // 2]
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "WEBP", quality=45, method=6)
    src = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return replace(look, src=src, width=frame.shape[1], height=frame.shape[0])


def _probe(path: Path, look: ClipLook) -> ClipLook:
    """Measure a clip by its packets and first frame, and decode more if these look odd."""
    from clipreader import media
    from clipreader.packets import end_of_video, packets_of, shown_packets

    with media.open_clip(path) as container:
        stream, audio_streams = media.picture_stream(container), container.streams.audio[:1]
        width, height = stream.codec_context.width, stream.codec_context.height
        video, audio = packets_of(container)
        listed = len(stream.index_entries) if media.is_mp4(container) else None
        if missing := missing_part(container, path, len(video), listed):
            raise ValueError(missing)
        seconds = end_of_video(container, video)
        container.seek(0)
        stream.thread_type = "NONE"
        first = next(container.decode(stream))
        is_plain = float(first.to_ndarray(format="gray").std()) < ODD_SPREAD
        rate = media.ratio(stream.average_rate) or media.ratio(stream.guessed_rate) or 0
        audio_codec = media.codec_name(audio_streams[0]) if audio_streams else ""
    frames, pixels = [video[at] for _, at in shown_packets(video)], width * height
    keys = [number for number, frame in enumerate(frames) if frame.is_key] or [0]
    file_bytes = os.path.getsize(path)
    look = replace(
        look,
        width=width,
        height=height,
        bytes=file_bytes,
        fps=float(rate),
        seconds=seconds,
        kbits=file_bytes * 8 / 1000 / seconds if seconds > 0 else 0.0,
        pixel_bits=sum(frame.size for frame in frames) * 8 / pixels / len(frames),
        codec=stream.codec_context.name,
        audio_codec=audio_codec,
        key_frames=max(after - key for key, after in pairwise([*keys, len(frames)])),
    )
    between = [frame.size for frame in frames if not frame.is_key]
    if is_plain or statistics.median(between or [0]) < max(ODD_BYTES, ODD_BITS * pixels / 8):
        look = _look_closer(path, look, is_plain)
    if audio is not None and sum(mark.size for mark in audio) < ODD_SOUND * seconds:
        look = replace(look, peak=_sound_peak(path))
    return look


def _look_closer(path: Path, look: ClipLook, is_plain: bool) -> ClipLook:
    """Decode frames spread over the clip and compare them; two are enough if they differ."""
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
    """Return the largest change, in levels, of a block's mean since the first of `frames`.

    Blocks, because an encoder goes on refining a still image: single pixels change by up to 15
    levels, blocks by 1.
    """
    import numpy as np

    count, height, width, _ = frames.shape
    rows, columns = height // BLOCK, width // BLOCK
    whole = frames[:, : rows * BLOCK, : columns * BLOCK]
    blocks = whole.reshape(count, rows, BLOCK, columns, BLOCK, 3).mean(axis=(2, 4))
    return float(np.abs(blocks[1:] - blocks[:1]).max(initial=0))


def _sound_peak(path: Path) -> float:
    """Return the loudest sample, as a part of full scale."""
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
