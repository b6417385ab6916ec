"""Probe clips in worker processes, draw thumbnails, and find suspicious clips.

Only a clip with small packets or a plain first frame is decoded further: black and frozen clips are
among these. Its audio is decoded if its packets are nearly empty.
"""

from __future__ import annotations

import argparse
import base64
import filecmp
import heapq
import io
import math
import statistics
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from utils.clip import MAX_TIME, clip_window
from utils.errors import Streak
from utils.page.dataset import TRAIN, Dataset, part_name
from utils.parallel import has_died, run_in_processes
from utils.process import sleep
from utils.run import Progress
from utils.video.whole import missing_part

if TYPE_CHECKING:
    from clipreader.transforms import Array

STEPS = 8  # from the first frame to the last: nine are compared
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

    Levels are 0 to 255, and infinite if not measured, as is peak.

    src: the thumbnail as a data: URL. pixel_bits: of video, per pixel and frame; key_frames: the
    largest number from a keyframe to the next, or to the end; brightest: the mean of the brightest
    decoded frame; spread: the largest standard deviation within one; motion: the largest difference
    of a block from the first frame; peak: of the audio, 1 being full scale.
    """

    name: str
    bytes: int = 0
    short_side: int = PROBE
    problem: str = ""
    src: str = ""
    width: int = 0
    height: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    kbits: float = 0.0  # per second, of the whole file
    pixel_bits: float = 0.0
    codec: str = ""
    audio_codec: str = ""
    key_frames: int = 0
    brightest: float = math.inf
    spread: float = math.inf
    motion: float = math.inf
    peak: float = math.inf


Looks = dict[tuple[str, int], ClipLook]  # by clip and short side


def look_at_clips(
    data: Dataset, wanted: Iterable[tuple[str, int]], looks: Looks, args: argparse.Namespace
) -> None:
    """Add each wanted (clip, short side) to `looks`, which keeps those of unchanged files.

    Raises Stopped, UserError.
    """
    tasks = []
    for name, short_side in dict.fromkeys(wanted):
        before, size = looks.get((name, short_side)), data.sizes[name]
        if before is None or before.bytes != size:
            tasks.append(ClipLook(name, size, short_side))
    if tasks:
        unit = "clip" if tasks[0].short_side == PROBE else "thumbnail"
        streak, worker = Streak(), partial(look_at_clip, data.folder)
        with (
            Progress(len(tasks), unit, quiet=args.quiet) as progress,
            closing(run_in_processes(worker, tasks, args.num_jobs, _lost_look)) as seen,
        ):
            for look in seen:
                progress.add("unreadable" if look.problem else "seen")
                streak.add(not look.problem, look.problem)
                if streak.is_hopeless:  # a package lacks what we call: the clips are not at fault
                    raise streak.problem()
                looks[look.name, look.short_side] = look
        sleep(0)


def _lost_look(task: ClipLook, how: str) -> ClipLook:
    """Return the look of a task that killed its worker process twice, or raised in it."""
    return replace(task, problem=f"the decoder crashed: {how}" if has_died(how) else how)


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
    most = max(pictures, STRIP_LONGEST)
    best = {label: draw_sample(names, most, seed) for label, names in classes.items()}
    turns = [(at, rank(seed, name)) for names in best.values() for at, name in enumerate(names)]
    sheet = [name for _, (_, name) in heapq.nsmallest(pictures, turns)]
    long = max(1, min(STRIP_LONGEST, STRIP_CLIPS // max(1, len(classes))))
    return sheet, {label: names[:long] for label, names in best.items()}


# --- in a worker process --------------------------------------------------------------------------


def look_at_clip(folder: Path, task: ClipLook) -> ClipLook:
    """Probe a clip, or make its thumbnail; raises nothing that a file can cause."""
    import av

    from clipreader.media import ClipError

    path = folder / f"{task.name}.mp4"
    try:
        return _probe(path, task) if task.short_side == PROBE else _thumbnail(path, task)
    except ClipError as error:
        return replace(task, problem=error.problem)
    except (av.FFmpegError, OSError, ValueError) as error:
        return replace(task, problem=str(getattr(error, "strerror", None) or error))


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
        first = next(container.decode(stream), None)
        if first is None:
            raise ValueError("none of its frames can be decoded")
        is_plain = float(first.to_ndarray(format="gray").std()) < ODD_SPREAD
        rate = media.ratio(stream.average_rate) or media.ratio(stream.guessed_rate) or 0
        audio_codec = media.codec_name(audio_streams[0]) if audio_streams else ""
    frames, pixels = [video[at] for _, at in shown_packets(video)], width * height
    keys = [number for number, frame in enumerate(frames) if frame.is_key] or [0]
    look = replace(
        look,
        width=width,
        height=height,
        fps=float(rate),
        seconds=seconds,
        kbits=look.bytes * 8 / 1000 / seconds if seconds > 0 else 0.0,
        pixel_bits=sum(frame.size for frame in frames) * 8 / pixels / len(frames),
        codec=stream.codec_context.name,
        audio_codec=audio_codec,
        key_frames=max(after - key for key, after in pairwise([*keys, len(frames)])),
    )
    between = [frame.size for frame in frames if not frame.is_key]
    if is_plain or statistics.median(between or [0]) < max(ODD_BYTES, ODD_BITS * pixels / 8):
        look = _look_closer(path, look, is_plain)
    if audio_codec and sum(mark.size for mark in audio or ()) < ODD_SOUND * seconds:
        look = replace(look, peak=_sound_peak(path))
    return look


def _look_closer(path: Path, look: ClipLook, is_plain: bool) -> ClipLook:
    """Decode frames spread over the clip and compare them; two are enough if they differ."""
    from clipreader.clip_reader import ClipReader

    with ClipReader(path, short_side=96) as reader:
        last = len(reader) - 1
        near = [0, min(last, 30)]
        if not is_plain and last and _motion(reader.read(indices=near)) > FROZEN_BELOW:
            return look
        frames = reader.read(indices=sorted({round(n * last / STEPS) for n in range(STEPS + 1)}))
    return replace(
        look,
        brightest=float(frames.mean(axis=(1, 2, 3)).max()),
        spread=float(frames.reshape(len(frames), -1, 3).std(axis=1, dtype="float32").max()),
        motion=_motion(frames) if last else math.inf,
    )


def _motion(frames: Array) -> float:
    """Return the largest change, in levels, of a block's mean since the first of `frames`.

    Blocks, because an encoder goes on refining a still image: single pixels change by up to 15
    levels, blocks by 1.
    """
    count, height, width, _ = frames.shape
    rows, columns = height // BLOCK, width // BLOCK
    whole = frames[:, : rows * BLOCK, : columns * BLOCK]
    blocks = whole.reshape(count, rows, BLOCK, columns, BLOCK, 3).mean(axis=(2, 4))
    return float(abs(blocks[1:] - blocks[:1]).max(initial=0))


def _sound_peak(path: Path) -> float:
    """Return the loudest sample, 1 being full scale; by frames, because an hour takes 1.4 GB."""
    from clipreader.media import open_clip

    peak = 0.0
    with open_clip(path) as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray()
            full = 2.0 ** (8 * samples.dtype.itemsize - 1) if samples.dtype.kind == "i" else 1.0
            peak = max(peak, float(abs(samples.astype("float64")).max(initial=0)) / full)
    return peak


# --- what looks wrong -----------------------------------------------------------------------------


class Kind(NamedTuple):
    """A kind of suspicious clip. `rule` shows its threshold."""

    title: str
    rule: str
    todo: str
    is_sampled: bool = True  # False if it is looked for among all clips, not the probed ones alone


class Suspect(NamedTuple):
    """A clip or a video that looks wrong, and the measurement that shows it."""

    kind: str
    clip: str  # empty if no clip of the video is on disk
    youtube_id: str
    detail: str
    badness: float = 0.0  # within its kind, the worst has the largest


BLACK_MEAN, BLACK_SPREAD = 12.0, 8.0  # levels of 255
PLAIN_SPREAD = 4.0
SILENT_PEAK = 0.001  # of full scale: -60 dB
SILENT_UNLESS = 0.5  # silence is odd if at least this part of the clips has audio
SHORTER_BY = 0.5  # seconds
LOW_BITS = 0.008  # bits per pixel and frame

KINDS = {
    "broken": Kind(
        "Cannot be read",
        "the file cannot be opened, or has no video",
        "download.py --verify moves it aside, and a rerun downloads it again",
    ),
    "black": Kind(
        "Black",
        f"no frame has a mean brightness above {BLACK_MEAN:g} of 255",
        "Look at it: if the video is black, exclude it from training",
    ),
    "one_colour": Kind(
        "One colour",
        f"levels within a frame differ by less than {PLAIN_SPREAD:g} of 255",
        "Look at it: if the video has one colour, exclude it from training",
    ),
    "frozen": Kind(
        "Frozen",
        f"no part of the frame ever changes by {FROZEN_BELOW:g} of 255",
        "A still image with audio shows no action: exclude it from training",
    ),
    "two_splits": Kind(
        "A video under two splits",
        "the lists have the video in more than one of train, val and test",
        "make_training_lists.py keeps the videos of val and test out of train",
        is_sampled=False,
    ),
    "doubled": Kind(
        "Same bytes under two names",
        "two files of the folder, byte for byte",
        "One of them does not match its name: download both again",
        is_sampled=False,
    ),
    "silent": Kind(
        "Silent",
        f"no audio, or none louder than {20 * math.log10(SILENT_PEAK):.0f} dB, if at least"
        f" {SILENT_UNLESS:.0%} of the clips have audio",
        "This matters if you train on audio",
    ),
    "short": Kind(
        "Shorter than its times",
        f"more than {SHORTER_BY:g} s shorter than in the list",
        "Download it again, unless it was kept as short because its video ends there",
    ),
    "low_bitrate": Kind(
        "Very low bitrate for its size",
        f"less than {LOW_BITS:g} bits per pixel and frame",
        "Look at it: it may show little but compression blocks",
    ),
}


def find_suspects(data: Dataset, looks: Sequence[ClipLook]) -> dict[str, list[Suspect]]:
    """Return the suspects of each kind, the worst first, then by name. Raises Stopped."""
    found = [suspect for look in looks for suspect in find_faults(data, look)]
    readable = sum(not look.problem for look in looks)
    silent = sum(each.kind == "silent" for each in found)
    if readable - silent < SILENT_UNLESS * readable:
        found = [each for each in found if each.kind != "silent"]
    found += [*_doubled(data, looks), *_leaking(data)]
    found.sort(key=lambda each: (-each.badness, each.clip, each.youtube_id))
    return {kind: [each for each in found if each.kind == kind] for kind in KINDS}


def find_faults(data: Dataset, look: ClipLook) -> Iterator[Suspect]:
    """Yield what the measurements of a clip show: at most one kind about its frames."""

    def fault(kind: str, detail: str, badness: float = 0.0) -> Suspect:
        return Suspect(kind, look.name, data.youtube_id(look.name), detail, badness)

    if look.problem:
        yield fault("broken", look.problem)
        return
    if look.brightest < BLACK_MEAN and look.spread < BLACK_SPREAD:
        detail = f"its brightest frame has a mean level of {look.brightest:.1f}"
        yield fault("black", detail, -look.brightest)
    elif look.spread < PLAIN_SPREAD:
        yield fault(
            "one_colour", f"levels differ by {look.spread:.1f} within a frame", -look.spread
        )
    elif look.motion < FROZEN_BELOW:
        detail = f"no part of it ever changes by more than {look.motion:.1f} levels"
        yield fault("frozen", detail, -look.motion)
    elif look.pixel_bits < LOW_BITS:
        size = f"{look.width}x{look.height} at {look.fps:g} fps"
        detail = f"{look.kbits:,.0f} kbit/s for {size}: {look.pixel_bits:.4f} bits per pixel"
        yield fault("low_bitrate", detail, -look.pixel_bits)
    if not look.audio_codec:
        yield fault("silent", "no audio stream", 1.0)
    elif look.peak < SILENT_PEAK:
        level = f"{20 * math.log10(look.peak):.0f} dB" if look.peak > 0 else "digital silence"
        yield fault("silent", f"the loudest sample is {level}", 2.0)
    listed = clip_window(data.clips[look.name])[1] if look.name in data.clips else 0.0
    lacks = listed - look.seconds
    if lacks > max(SHORTER_BY, 1.5 / look.fps if look.fps else 0.0):
        detail = f"{look.seconds:.2f} s, but the list says {listed:g}"
        line = data.reported.get(look.name)
        if line is not None and line.reason == "short":
            detail += "; kept as short because its video ends there"
            lacks -= MAX_TIME  # after those that nobody knows of
        yield fault("short", detail, lacks)


def _doubled(data: Dataset, looks: Sequence[ClipLook]) -> Iterator[Suspect]:
    """Yield probed clips whose bytes another file of the folder has too, and these files."""
    same_size: dict[int, list[str]] = {look.bytes: [] for look in looks if not look.problem}
    for name, size in data.sizes.items():
        if size in same_size:
            same_size[size].append(name)
    for names in same_size.values():
        names.sort()
        for name in names:
            sleep(0)
            others = (other for other in names if other != name)
            if twin := next((other for other in others if _same_bytes(data, name, other)), ""):
                detail = f"the same file as {data.path(twin).name}"
                yield Suspect("doubled", name, data.youtube_id(name), detail)


def _same_bytes(data: Dataset, name: str, other: str) -> bool:
    """Compare two files; one that is gone equals none."""
    try:
        return filecmp.cmp(data.path(name), data.path(other), shallow=False)
    except OSError:
        return False


def _leaking(data: Dataset) -> Iterator[Suspect]:
    """Yield the videos under two splits, each with one of its clips on disk, if there is one."""
    shown = {
        clip.youtube_id: name
        for name, clip in data.clips.items()
        if clip.youtube_id in data.leaks and name in data.sizes
    }
    for video, parts in data.leaks.items():
        is_trained_on = any(split == TRAIN for _, split in parts)
        detail = ", ".join(map(part_name, parts))
        yield Suspect("two_splits", shown.get(video, ""), video, detail, float(is_trained_on))
