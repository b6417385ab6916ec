"""Find suspicious clips by measures and thresholds, and files that are the same under two names."""

from __future__ import annotations

import filecmp
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from utils.clip import MAX_TIME
from utils.page.dataset import TRAIN, Dataset, part_name
from utils.page.looks import FROZEN_BELOW, ClipLook
from utils.process import STOP, Stopped


@dataclass(frozen=True)
class Suspect:
    """A clip or a video that looks wrong, and the measurement that shows it."""

    kind: str
    clip: str  # empty if the video is meant
    youtube_id: str
    detail: str
    badness: float = 0.0  # within its kind, the worst has the largest


class Kind(NamedTuple):
    """A kind of suspicious clip. `rule` shows its threshold."""

    key: str
    title: str
    rule: str
    todo: str
    is_sampled: bool = True  # False if it is looked for among all clips, not the probed ones alone


BLACK_MEAN, BLACK_SPREAD = 12.0, 8.0  # levels of 255
PLAIN_SPREAD = 4.0
SILENT_PEAK = 0.001  # of full scale: -60 dB
SILENT_UNLESS = 0.5  # silence is odd if at least this part of the clips has audio
SHORTER_BY = 0.5  # seconds
LOW_BITS = 0.008  # bits per pixel and frame

KINDS = (
    Kind(
        "broken",
        "Cannot be read",
        "the file cannot be opened, or has no video",
        "download.py --verify moves it aside, and a rerun downloads it again",
    ),
    Kind(
        "black",
        "Black",
        f"no frame has a mean brightness above {BLACK_MEAN:g} of 255",
        "Look at it: if the video is black, exclude it from training",
    ),
    Kind(
        "one_colour",
        "One colour",
        f"levels within a frame differ by less than {PLAIN_SPREAD:g} of 255",
        "Look at it: if the video has one colour, exclude it from training",
    ),
    Kind(
        "frozen",
        "Frozen",
        f"no part of the frame ever changes by {FROZEN_BELOW:g} of 255",
        "A still image with audio shows no action: exclude it from training",
    ),
    Kind(
        "two_splits",
        "A video under two splits",
        "the lists have the video in more than one of train, val and test",
        "make_training_lists.py keeps the videos of val and test out of train",
        is_sampled=False,
    ),
    Kind(
        "doubled",
        "Same bytes under two names",
        "two files of the folder, byte for byte",
        "One of them does not match its name: download both again",
        is_sampled=False,
    ),
    Kind(
        "silent",
        "Silent",
        f"no audio, or none louder than {20 * math.log10(SILENT_PEAK):.0f} dB, if at least"
        f" {SILENT_UNLESS:.0%} of the clips have audio",
        "This matters if you train on audio",
    ),
    Kind(
        "short",
        "Shorter than its times",
        f"more than {SHORTER_BY:g} s shorter than in the list",
        "Download it again, unless it was kept as short because its video ends there",
    ),
    Kind(
        "low_bitrate",
        "Very low bitrate for its size",
        f"less than {LOW_BITS:g} bits per pixel and frame",
        "Look at it: it may show little but compression blocks",
    ),
)


def find_suspects(data: Dataset, looks: Sequence[ClipLook]) -> dict[Kind, list[Suspect]]:
    """Return the suspects of each kind, the worst first, then by name. Raises Stopped."""
    found = [*_probed_suspects(data, looks), *_doubled(data, looks), *_leaking(data)]
    found.sort(key=lambda s: (-s.badness, s.clip, s.youtube_id))
    return {kind: [each for each in found if each.kind == kind.key] for kind in KINDS}


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


def _probed_suspects(data: Dataset, looks: Sequence[ClipLook]) -> Iterator[Suspect]:
    """Yield what the measurements of single clips show."""
    faults = [(look, *fault) for look in looks for fault in find_faults(look)]
    readable = sum(not look.problem for look in looks)
    silent = sum(kind == "silent" for _, kind, _, _ in faults)
    for look, kind, detail, badness in faults:
        if kind == "silent" and readable - silent < SILENT_UNLESS * readable:
            continue
        line = data.reported.get(look.name)
        if kind == "short" and line is not None and line.reason == "short":
            detail += "; kept as short because its video ends there"
            badness -= MAX_TIME  # after those that nobody knows of
        yield Suspect(kind, look.name, data.youtube_id(look.name), detail, badness)


def find_faults(look: ClipLook) -> Iterator[tuple[str, str, float]]:
    """Yield (kind, measurement, badness) of a probed clip: at most one kind about its frames."""
    if look.problem:
        yield "broken", look.problem, 0.0
        return
    spread = math.inf if look.spread is None else look.spread
    brightest = math.inf if look.brightest is None else look.brightest
    if brightest < BLACK_MEAN and spread < BLACK_SPREAD:
        yield "black", f"its brightest frame has a mean level of {brightest:.1f}", -brightest
    elif spread < PLAIN_SPREAD:
        yield "one_colour", f"levels differ by {spread:.1f} within a frame", -spread
    elif look.motion is not None and look.motion < FROZEN_BELOW:
        detail = f"no part of it ever changes by more than {look.motion:.1f} levels"
        yield "frozen", detail, -look.motion
    elif look.pixel_bits < LOW_BITS:
        size = f"{look.width}x{look.height} at {look.fps:g} fps"
        detail = f"{look.kbits:,.0f} kbit/s for {size}: {look.pixel_bits:.4f} bits per pixel"
        yield "low_bitrate", detail, -look.pixel_bits
    if not look.audio_codec:
        yield "silent", "no audio stream", 1.0
    elif look.peak is not None and look.peak < SILENT_PEAK:
        level = f"{20 * math.log10(look.peak):.0f} dB" if look.peak > 0 else "digital silence"
        yield "silent", f"the loudest sample is {level}", 2.0
    lacks = look.listed_seconds - look.seconds
    if lacks > max(SHORTER_BY, 1.5 / look.fps if look.fps else 0.0):
        yield "short", f"{look.seconds:.2f} s, but the list says {look.listed_seconds:g}", lacks


def _doubled(data: Dataset, looks: Sequence[ClipLook]) -> Iterator[Suspect]:
    """Yield probed clips whose bytes another file of the folder has too, and these files."""
    same_size: dict[int, list[str]]
    same_size = {data.sizes[look.name]: [] for look in looks if not look.problem}
    for name, size in data.sizes.items():
        if size in same_size:
            same_size[size].append(name)
    for names in same_size.values():
        groups: dict[str, list[str]] = defaultdict(list)  # by the first file that has these bytes
        for name in sorted(names) if len(names) > 1 else ():
            if STOP.is_set():
                raise Stopped
            first = next((other for other in groups if _same_bytes(data, other, name)), name)
            groups[first].append(name)
        for group in groups.values():
            for name in group if len(group) > 1 else ():
                other = next(other for other in group if other != name)
                detail = f"the same file as {data.path(other).name}"
                yield Suspect("doubled", name, data.youtube_id(name), detail)


def _same_bytes(data: Dataset, name: str, other: str) -> bool:
    """Compare two files; one that is gone equals none."""
    try:
        return filecmp.cmp(data.path(name), data.path(other), shallow=False)
    except OSError:
        return False
