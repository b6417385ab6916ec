"""Find suspicious clips: one table of measures and thresholds, `KINDS`."""

from __future__ import annotations

import filecmp
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from utils.clip import MAX_TIME
from utils.page.dataset import Dataset, leaking_videos
from utils.page.looks import FROZEN_BELOW, ClipLook, hash_edges
from utils.process import STOP, Stopped


@dataclass(frozen=True)
class Suspect:
    """One clip, or one video, that looks wrong. `detail` says what was measured."""

    kind: str
    clip: str  # empty: it is about the video
    youtube_id: str
    detail: str
    badness: float = 0.0  # within its kind, the worst has the largest


@dataclass(frozen=True)
class Kind:
    """A kind of suspicious clip. `rule` holds its threshold, as it is shown.

    find: gives (detail, badness), or None; None itself for kinds that one look cannot tell.
    """

    key: str
    title: str
    rule: str
    todo: str
    find: Callable[[ClipLook], tuple[str, float] | None] | None = None


BLACK_MEAN, BLACK_SPREAD = 12.0, 8.0  # levels of 255
PLAIN_SPREAD = 4.0
SILENT_PEAK = 0.001  # of full scale: -60 dB
SILENT_UNLESS = 0.5  # the part of clips with sound from which on silence is odd
SHORTER_BY = 0.5  # seconds
LOW_BITS = 0.008  # bits a pixel and frame


def _broken(look: ClipLook) -> tuple[str, float] | None:
    return (look.problem, 0.0) if look.problem else None


def _black(look: ClipLook) -> tuple[str, float] | None:
    if look.brightest is None or look.spread is None:
        return None
    if look.brightest >= BLACK_MEAN or look.spread >= BLACK_SPREAD:
        return None
    return f"its brightest frame has a mean level of {look.brightest:.1f}", -look.brightest


def _one_colour(look: ClipLook) -> tuple[str, float] | None:
    if look.spread is None or look.spread >= PLAIN_SPREAD or _black(look):
        return None
    return f"its levels differ by {look.spread:.1f} within a frame", -look.spread


def _frozen(look: ClipLook) -> tuple[str, float] | None:
    if look.motion is None or look.motion >= FROZEN_BELOW or _black(look) or _one_colour(look):
        return None
    return f"no part of it ever changes by more than {look.motion:.1f} levels", -look.motion


def _silent(look: ClipLook) -> tuple[str, float] | None:
    if look.problem:
        return None
    if not look.audio_codec:
        return "no sound track", 1.0
    if look.peak is None or look.peak >= SILENT_PEAK:
        return None
    level = f"{20 * math.log10(look.peak):.0f} dB" if look.peak > 0 else "nothing at all"
    return f"the loudest it gets is {level}", 2.0


def _short(look: ClipLook) -> tuple[str, float] | None:
    lacks = look.listed_seconds - look.seconds
    if look.problem or lacks <= max(SHORTER_BY, 1.5 / look.fps if look.fps else 0.0):
        return None
    return f"{look.seconds:.2f} s, but the list says {look.listed_seconds:g}", lacks


def _low(look: ClipLook) -> tuple[str, float] | None:
    if (
        look.problem
        or look.pixel_bits >= LOW_BITS
        or _black(look)
        or _one_colour(look)
        or _frozen(look)
    ):
        return None
    size = f"{look.width}x{look.height} at {look.fps:g} a second"
    return f"{look.kbits:,.0f} kbit/s for {size}: {look.pixel_bits:.4f} bits a pixel", (
        -look.pixel_bits
    )


VERIFY = "download.py --verify moves it aside, and a rerun fetches it again"
KINDS = (
    Kind("broken", "Cannot be read", "the file cannot be opened, or has no video", VERIFY, _broken),
    Kind(
        "black",
        "Black",
        f"no frame brighter than {BLACK_MEAN:g} of 255 on the average",
        "Look at it: if the video is black, leave it out of training",
        _black,
    ),
    Kind(
        "one_colour",
        "One colour",
        f"levels within a frame differ by less than {PLAIN_SPREAD:g} of 255",
        "Look at it: if the video is so, leave it out of training",
        _one_colour,
    ),
    Kind(
        "frozen",
        "Frozen",
        f"no part of the frame ever changes by {FROZEN_BELOW:g} of 255",
        "A still image with sound shows no action: exclude it from training",
        _frozen,
    ),
    Kind(
        "two_splits",
        "A video under two splits",
        "a video that the lists name under more than one of train, val and test",
        "make_training_lists.py keeps the videos of val and test out of train",
    ),
    Kind(
        "doubled",
        "Same bytes under two names",
        "two files of the folder, byte for byte",
        "One of them does not match its name: download both again",
    ),
    Kind(
        "silent",
        "Silent",
        f"no sound track, or none louder than {20 * math.log10(SILENT_PEAK):.0f} dB, where"
        f" {SILENT_UNLESS:.0%} of the clips or more have sound",
        "This matters if you train on audio",
        _silent,
    ),
    Kind(
        "short",
        "Shorter than its times",
        f"more than {SHORTER_BY:g} s shorter than the list says",
        "Download it again, unless it was kept as short because its video ends there",
        _short,
    ),
    Kind(
        "low_bitrate",
        "Very low bitrate for its size",
        f"less than {LOW_BITS:g} bits a pixel and frame",
        "Look at it: it may show little but compression blocks",
        _low,
    ),
)


def find_suspects(data: Dataset, looks: Sequence[ClipLook]) -> list[Suspect]:
    """All that looks wrong: worst first, by kind, then by how bad, then by name. Raises Stopped."""
    found = [*_by_look(data, looks), *_doubled(data, looks)]
    found += [
        Suspect("two_splits", clip, video, parts, badness)
        for clip, video, parts, badness in leaking_videos(data)
    ]
    place = {kind.key: number for number, kind in enumerate(KINDS)}
    return sorted(found, key=lambda s: (place[s.kind], -s.badness, s.clip, s.youtube_id))


def _by_look(data: Dataset, looks: Sequence[ClipLook]) -> Iterator[Suspect]:
    """What single looks tell."""
    heard = sum(1 for look in looks if not look.problem and not _silent(look))
    readable = sum(1 for look in looks if not look.problem)
    for kind in KINDS:
        if kind.find is None or (kind.key == "silent" and heard < SILENT_UNLESS * readable):
            continue
        for look in looks:
            if (seen := kind.find(look)) is None:
                continue
            detail, badness = seen
            line = data.reported.get(look.name)
            if kind.key == "short" and line is not None and line.reason == "short":
                # download.py kept it knowingly: after the others.
                detail, badness = (
                    f"{detail}; kept as short: its video ends there",
                    badness - MAX_TIME,
                )
            yield Suspect(kind.key, look.name, data.youtube_id(look.name), detail, badness)


def _doubled(data: Dataset, looks: Sequence[ClipLook]) -> Iterator[Suspect]:
    """Files that are the same byte for byte: probed clips, and all files of their sizes."""
    edges = {look.name: look.edges for look in looks if look.edges}
    sizes = {data.sizes[name] for name in edges}
    for name, size in data.sizes.items() if sizes else ():
        if size in sizes and name not in edges:
            try:
                edges[name] = hash_edges(data.path(name))
            except OSError:
                continue  # gone by now
        if STOP.is_set():
            raise Stopped
    alike: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name, digest in edges.items():
        alike[data.sizes[name], digest].append(name)
    for names in alike.values():
        first, *others = sorted(names)
        same = [name for name in others if _same_bytes(data, first, name)]
        for name in [first, *same] if same else []:
            other = first if name != first else same[0]
            detail = f"the same file as {data.path(other).name}"
            yield Suspect("doubled", name, data.youtube_id(name), detail)


def _same_bytes(data: Dataset, name: str, other: str) -> bool:
    """Whether two files hold the same; False for one that is gone."""
    try:
        return filecmp.cmp(data.path(name), data.path(other), shallow=False)
    except OSError:
        return False
