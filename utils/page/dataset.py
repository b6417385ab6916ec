"""Read the lists, the folder and its reports, and count the clips by class, split and reason.

650,000 clips are read and counted in a few seconds; nothing here opens a clip.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from utils.cli import plural, say
from utils.clip import Clip, clip_window
from utils.download.plan import read_wanted
from utils.download.sources import NOT_ASKED as NOBODY_ASKED
from utils.errors import UserError
from utils.lists.official import needed_lists
from utils.lists.reading import ClipLists, without_garbage_collection
from utils.lists.versions import Part, join_classes, parts_of_videos, same_split, shared_videos
from utils.report import (
    DOWNLOADED,
    FAILED,
    REASONS,
    REPORT_NAME,
    RESULT_COLUMNS,
    UNAVAILABLE,
    VIDEOS_NAME,
    read_licences,
    read_report,
    report_paths,
)
from utils.video.ffmpeg import SOUNDS

NO_LABEL = "(no label in the lists)"
NOT_IN_REPORT = "not in the report"
NOT_ASKED = ("", "not requested", "not requested yet: run the command above")
VANISHED = (
    "",
    "vanished",
    "downloaded earlier, but no longer in the folder: it is downloaded again",
)
TRAIN = "train"
MINUTE = len("2026-11-22T17:37")  # of the report's finished_at
_PLACE = {DOWNLOADED: 0, UNAVAILABLE: 1, FAILED: 2}


class LastLine(NamedTuple):
    """A clip's newest line of the report."""

    status: str
    reason: str
    source: str
    height: str = ""  # of the video that it was cut from


@dataclass
class Dataset:
    """The clips of lists, folder and report.

    sizes: clip -> bytes of every file in the folder. sounds: the suffixes of those that are sound
    files (--audio_only), which are counted and not looked at. minutes: minute (UTC) -> clips that
    came, are gone, failed in it.
    """

    folder: Path
    lists: ClipLists
    sizes: dict[str, int] = field(default_factory=dict)
    sounds: dict[str, str] = field(default_factory=dict)
    reported: dict[str, LastLine] = field(default_factory=dict)
    minutes: dict[str, list[int]] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)  # of videos

    @property
    def clips(self) -> dict[str, Clip]:
        """The requested clips by name."""
        return self.lists.clips

    def path(self, name: str) -> Path:
        return self.folder / f"{name}{self.sounds.get(name, '.mp4')}"

    def youtube_id(self, name: str) -> str:
        """The video of a clip; empty for a file of no list."""
        return self.clips[name].youtube_id if name in self.clips else ""

    def label(self, name: str) -> str:
        return self.clips[name].label or NO_LABEL if name in self.clips else ""


def read_dataset(folder: Path, args: argparse.Namespace) -> Dataset:
    """Read the lists; `look_again` reads the folder. Raises UserError."""
    paths, missing = needed_lists(args.input_csv)
    if missing:
        official, where = missing[0]
        raise UserError(
            f"the list {official.name} is not in {where}: download.py fetches it; name the lists of"
            " your clips with --input_csv"
        )
    lists = read_wanted(paths, args, every_row=True)
    if not lists.clips:
        raise UserError("no clip is left to report on: see --shard, --label, --split")
    name_classes(lists)
    if not args.quiet:
        say(f"lists        {plural(len(args.lists), 'file')}, {plural(lists.rows, 'row')}")
        if lists.refused:
            say(f"invalid      {plural(len(lists.refused), 'row')}: {lists.refused[0]}")
    return Dataset(folder, lists)


def look_again(data: Dataset, quiet: bool) -> None:
    """One look at the folder, one at the reports. Raises UserError."""
    with without_garbage_collection():
        _look_at_folder(data)
        if not quiet:
            say(f"folder       {plural(len(data.sizes), 'clip')}")
        lines = _read_reports(data)
        if not quiet:
            say(f"report       {plural(lines, 'line')}")
        videos = data.folder / VIDEOS_NAME
        data.licences = read_licences(videos) if videos.exists() else {}


def _look_at_folder(data: Dataset) -> None:
    """Names and sizes of every .mp4, in lists or not, and of requested sound files.

    One scandir, one stat a file.
    """
    data.sizes, data.sounds = {}, {}
    sounds: dict[str, tuple[str, int]] = {}
    try:
        with os.scandir(data.folder) as entries:
            for entry in entries:
                name, suffix = os.path.splitext(entry.name)
                if suffix == ".mp4" or (suffix in SOUNDS and name in data.clips):
                    try:
                        if entry.is_file():
                            # The string of the list, and no second one: 50 MB for 650,000 clips.
                            known = data.clips.get(name)
                            key, size = known.name if known else name, entry.stat().st_size
                            if suffix == ".mp4":
                                data.sizes[key] = size
                            else:
                                sounds[key] = suffix, size
                    except OSError:
                        continue  # gone by now, or a link in a circle
    except OSError as error:
        raise UserError(f"cannot read the folder {data.folder}: {error.strerror}") from error
    for name, (suffix, size) in sounds.items():
        if name not in data.sizes:
            data.sizes[name], data.sounds[name] = size, suffix


def _read_reports(data: Dataset) -> int:
    """Read the reports of all machines; how many lines. 650,000 take 2 s. Raises UserError."""
    data.reported, data.minutes, lines = {}, {}, 0
    paths = report_paths(data.folder / REPORT_NAME)
    kept: dict[LastLine, LastLine] = {}  # the same few, 650,000 times
    latest: dict[str, str] = {}
    for path in paths:
        for row in read_report(path, RESULT_COLUMNS):
            lines += 1
            name, status, finished_at = row[0], row[4], row[-1]
            if status not in _PLACE:
                continue
            if row[10] != NOBODY_ASKED:  # else it is no sign of the pace
                minute = data.minutes.setdefault(finished_at[:MINUTE], [0, 0, 0])
                minute[_PLACE[status]] += 1
            clip = data.clips.get(name)
            if clip is None:
                continue  # of another list: it tells the pace only
            if len(paths) > 1:  # of one file the last line counts, of several the latest
                if finished_at < latest.get(name, ""):
                    continue
                latest[clip.name] = finished_at
            line = LastLine(status, row[5], row[6], row[11])
            data.reported[clip.name] = kept.setdefault(line, line)
    return lines


def name_classes(lists: ClipLists) -> None:
    """Give every clip the name of its class: the newest version's label, in its spelling."""
    versions = lists.versions()
    classes = join_classes(lists.labels_of_versions())
    spelled = {}
    for label in {clip.label for clip in lists.every}:
        number = classes.number(label) if label else None
        spelled[label] = label if number is None else classes.names[number]
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


@dataclass
class Count:
    """Clips of one class, of one split, or all. `lengths`: seconds by the list -> clips there."""

    wanted: int = 0
    there: int = 0
    gone: int = 0
    short: int = 0
    lengths: Counter[float] = field(default_factory=Counter)

    @property
    def missing(self) -> int:
        return self.wanted - self.there

    @property
    def to_try(self) -> int:
        return self.missing - self.gone

    @property
    def missing_percent(self) -> float:
        return 100 * self.missing / self.wanted if self.wanted else 0.0

    @property
    def median_seconds(self) -> float | None:
        """By the list, of the clips that are there."""
        left = sum(self.lengths.values()) / 2
        for value in sorted(self.lengths):
            left -= self.lengths[value]
            if left <= 0:
                return value
        return None

    def add(self, clips: int, is_there: bool, line: LastLine | None, seconds: float) -> None:
        """Count so many more wanted clips, of which the same is known."""
        self.wanted += clips
        if is_there:
            self.there += clips
            self.short += clips * (line is not None and line.reason == "short")
            self.lengths[seconds] += clips
        elif line is not None and line.status == UNAVAILABLE:
            self.gone += clips


@dataclass
class Counts:
    """All the numbers that lists, folder and report give.

    whys: (status, reason, what to do) -> clips that are missing for it.
    """

    total: Count = field(default_factory=Count)
    classes: dict[str, Count] = field(default_factory=dict)
    splits: dict[Part, Count] = field(default_factory=dict)  # (version, split)
    sources: Counter[str] = field(default_factory=Counter)  # of clips that are there
    licences: Counter[str] = field(default_factory=Counter)  # of clips that are there
    heights: Counter[str] = field(default_factory=Counter)  # of clips that are there, if known
    whys: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    failed: int = 0
    bytes: int = 0
    not_listed: int = 0  # files of no list


def count_all(data: Dataset, splits: Sequence[str]) -> Counts:
    """Count the clips, and of chosen splits, if any, the rows of the lists by version and split."""
    counts, sizes, reported = Counts(), data.sizes, data.reported
    # Clips of which the same is known are counted first: a tenth of the steps at full size.
    alike = Counter(
        (clip.label, name in sizes, reported.get(name), round(clip_window(clip)[1], 2))
        for name, clip in data.clips.items()
    )
    for (label, is_there, line, seconds), number in alike.items():
        for count in (counts.total, counts.classes.setdefault(label or NO_LABEL, Count())):
            count.add(number, is_there, line, seconds)
        if is_there:
            came = line is not None and line.status == DOWNLOADED
            counts.sources[line.source if came and line else NOT_IN_REPORT] += number
            if came and line and line.height not in ("", "0"):
                counts.heights[f"{line.height} lines"] += number
        else:
            why = why_missing(line)
            counts.whys[why] += number
            counts.failed += number * (why[0] not in ("", UNAVAILABLE))
    same = Counter(
        (part, name in sizes, reported.get(name))
        for name, part in _rows_once(data, frozenset(map(same_split, splits)))
    )
    for (part, is_there, line), number in same.items():
        counts.splits.setdefault(part, Count()).add(number, is_there, line, 0.0)
    there = [name for name in sizes if name in data.clips]
    if data.licences:
        licences = data.licences
        ids = (data.clips[name].youtube_id for name in there)
        counts.licences.update(licences.get(youtube_id, "not known") for youtube_id in ids)
    counts.bytes = sum(sizes[name] for name in there)
    counts.not_listed = len(sizes) - len(there)
    return counts


def _rows_once(data: Dataset, splits: frozenset[str]) -> Iterator[tuple[str, Part]]:
    """(clip, (version, split)) of the wanted clips, each once; of these splits, if any."""
    seen: dict[Part, set[str]] = {}
    for clip, part in zip(data.lists.every, data.lists.parts(), strict=True):
        if (not splits or part[1] in splits) and clip.name in data.clips:
            names = seen.setdefault(part, set())
            if clip.name not in names:
                names.add(clip.name)
                yield clip.name, part


def why_missing(line: LastLine | None) -> tuple[str, str, str]:
    """(status, reason, what to do) of a clip that is not there."""
    if line is None:
        return NOT_ASKED
    if line.status == DOWNLOADED:
        return VANISHED
    todo = REASONS[line.reason][1] if line.reason in REASONS else "see its line"
    return line.status, line.reason, todo


def part_name(part: Part) -> str:
    """`400 val`; a version alone where no split is known."""
    return " ".join(filter(None, part))


def find_leaks(lists: ClipLists) -> list[tuple[str, str, int]]:
    """(one, other, videos in both) of parts of other splits; those with train, then the most."""
    pairs = [
        (one, other, videos)
        for (one, other), videos in shared_videos(lists).items()
        if one[1] and other[1] and one[1] != other[1]
    ]
    pairs.sort(key=lambda pair: (TRAIN not in (pair[0][1], pair[1][1]), -pair[2]))
    return [(part_name(one), part_name(other), n) for one, other, n in pairs]


def leaking_videos(data: Dataset) -> Iterator[tuple[str, str, str, float]]:
    """(clip that is there or "", video, its parts, 1 if in train) of videos under two splits."""
    videos, parts = parts_of_videos(data.lists)
    bad: dict[int, tuple[str, float]] = {}
    for bits in set(videos.values()):
        inside = [part for number, part in enumerate(parts) if bits >> number & 1]
        splits = {split for _, split in inside if split}
        if len(splits) > 1:
            bad[bits] = ", ".join(map(part_name, inside)), float(TRAIN in splits)
    if bad:
        shown = {c.youtube_id: name for name, c in data.clips.items() if name in data.sizes}
        for video, bits in videos.items():
            if bits in bad:
                yield shown.get(video, ""), video, *bad[bits]
