"""What the lists alone tell: one name a class, parts (version, split), videos in two splits.

`lists/reading` reads the rows and `lists/versions` joins the names.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from utils.clip import Clip
from utils.lists.reading import ClipLists
from utils.lists.versions import Part, join_classes, parts_of_videos, shared_videos
from utils.page.suspects import Suspect

TRAIN = "train"


@dataclass(frozen=True)
class Leak:
    """How many videos two parts of different splits share."""

    one: str
    other: str
    videos: int

    @property
    def sentence(self) -> str:
        noun = "1 video" if self.videos == 1 else f"{self.videos:,} videos"
        return f"{noun} of {self.one} in {self.other} too."


def part_name(part: Part) -> str:
    """`400 val`; a version alone where no split is known."""
    return " ".join(filter(None, part))


def name_classes(lists: ClipLists) -> None:
    """Give every clip the name of its class: the newest version's label, in its spelling."""
    versions = lists.versions()
    classes = join_classes(lists.labels_of_versions())
    spelled = {label: _spelled(classes.number(label), classes.names, label) for label in
               {clip.label for clip in lists.every}}  # fmt: skip
    newest: dict[str, str] = {}
    if len(versions) > 1:
        age = [versions.index(each.version) for each in lists.files]
        ages: dict[str, int] = {}
        for clip, at in zip(lists.every, lists.file_at, strict=True):
            if clip.label and age[at] >= ages.get(clip.name, 0):
                ages[clip.name], newest[clip.name] = age[at], clip.label
    for name, clip in lists.clips.items():
        label = spelled.get(newest.get(name, clip.label), clip.label)
        if label != clip.label:
            lists.clips[name] = clip._replace(label=label)


def _spelled(number: int | None, names: tuple[str, ...], label: str) -> str:
    return label if number is None or not label else names[number]


def wanted_rows(lists: ClipLists, splits: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    """(clip, version, split), each once; of chosen splits only, if any were chosen."""
    seen: dict[Part, set[str]] = {}
    for clip, part in zip(lists.every, lists.parts(), strict=True):
        if splits and part[1] not in splits:
            continue
        names = seen.setdefault(part, set())
        if clip.name not in names:
            names.add(clip.name)
            yield clip.name, *part


def find_leaks(lists: ClipLists) -> tuple[Leak, ...]:
    """Which parts share videos across splits, those with train first, then the most videos."""
    pairs = [
        (one, other, videos)
        for (one, other), videos in shared_videos(lists).items()
        if one[1] and other[1] and one[1] != other[1]
    ]
    pairs.sort(key=lambda pair: (TRAIN not in (pair[0][1], pair[1][1]), -pair[2]))
    return tuple(Leak(part_name(one), part_name(other), n) for one, other, n in pairs)


def leaking_videos(
    lists: ClipLists, clips: Mapping[str, Clip], there: Container[str]
) -> list[Suspect]:
    """The videos that stand under two splits, those in train first; each with a clip to look at."""
    videos, parts = parts_of_videos(lists)
    bad: dict[int, tuple[str, float]] = {}
    for bits in set(videos.values()):
        inside = [part for number, part in enumerate(parts) if bits >> number & 1]
        splits = {split for _, split in inside if split}
        if len(splits) > 1:
            bad[bits] = ", ".join(map(part_name, inside)), float(TRAIN in splits)
    if not bad:
        return []
    shown = {clip.youtube_id: name for name, clip in clips.items() if name in there}
    return [
        Suspect("two_splits", shown.get(video, ""), video, *bad[bits])
        for video, bits in videos.items()
        if bits in bad
    ]
