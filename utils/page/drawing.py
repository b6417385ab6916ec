"""Which clips are probed, and which are shown: drawn by a seed, the same ones every time.

Each clip has a rank that its name and the seed give, and the lowest are drawn. So a folder that
grows changes a few of them, and a page that is renewed while a download runs looks at little anew.
"""

from __future__ import annotations

import heapq
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from utils.clip import Clip
from utils.page.counts import NO_LABEL

STRIP_BYTES = 1_700_000  # of the page, for the strips of all classes
STRIP_PICTURE = 1_200  # bytes in the page of one of their pictures, as measured
STRIP_LONGEST = 8


@dataclass(frozen=True)
class Drawn:
    """Clips by name. `strips`: label -> its clips."""

    sheet: tuple[str, ...]
    strips: Mapping[str, tuple[str, ...]]


def rank(seed: int, name: str) -> int:
    return zlib.crc32(f"{seed}:{name}".encode())


def draw_sample(names: Iterable[str], most: int | None, seed: int) -> list[str]:
    """At most so many clips, of all alike; None: all of them."""
    if most is None:
        return sorted(names)
    return heapq.nsmallest(most, names, key=lambda name: (rank(seed, name), name))


def draw_pictures(
    clips: Mapping[str, Clip], there: Iterable[str], pictures: int, seed: int
) -> Drawn:
    """The contact sheet, one clip of every class in turn, and strips as long as the page holds."""
    if not pictures:
        return Drawn((), {})
    classes: dict[str, list[str]] = defaultdict(list)
    for name in there:
        classes[clips[name].label or NO_LABEL].append(name)
    if not classes:
        return Drawn((), {})
    long = max(1, min(STRIP_LONGEST, STRIP_BYTES // STRIP_PICTURE // len(classes)))
    deep = max(long, -(-pictures // len(classes)))
    strips: dict[str, tuple[str, ...]] = {}
    turns: list[tuple[int, int, str]] = []
    for label, names in classes.items():
        best = heapq.nsmallest(deep, names, key=lambda name: (rank(seed, name), name))
        strips[label] = tuple(best[:long])
        turns += [(turn, rank(seed, name), name) for turn, name in enumerate(best)]
    turns.sort()
    return Drawn(tuple(name for _, _, name in turns[:pictures]), strips)
