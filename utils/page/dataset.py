"""Read the lists, the folder and its reports, and count the clips by class, split and reason.

No clip is opened: 650,000 are read and counted in a few seconds.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from utils import report
from utils.cli import Tell, plural, teller
from utils.clip import DOWNLOADED, FAILED, REASONS, UNAVAILABLE, Clip, clip_window
from utils.download.plan import read_wanted
from utils.download.sources import NOT_ASKED as NOBODY_ASKED
from utils.errors import UserError
from utils.files import sizes_in
from utils.lists.reading import ClipLists, find_lists, without_garbage_collection
from utils.lists.versions import Part, join_classes, parts_of_videos, same_split
from utils.video.ffmpeg import SOUNDS

NO_LABEL = "(no label in the lists)"
NOT_IN_REPORT = "not in the report"
NOT_ASKED = ("", "not requested", "not requested yet: run the command above")
VANISHED = ("", "vanished", "no longer in the folder: the command above downloads it again")
TRAIN = "train"
MINUTE = len("2026-11-22T17:37")  # of the report's finished_at
_PLACE = {DOWNLOADED: 0, UNAVAILABLE: 1, FAILED: 2}


class LastLine(NamedTuple):
    """The newest line of a clip in the report."""

    status: str
    reason: str
    source: str
    height: str = ""  # of the video that it was cut from


@dataclass
class Dataset:
    """The clips of lists, folder and report.

    leaks: videos that the lists have under two splits -> where. sizes: clip -> bytes of its file
    in the folder. sounds: the suffixes of audio files (--audio_only), which are counted but not
    probed. minutes: minute (UTC) -> clips downloaded, unavailable and failed in it.
    """

    folder: Path
    lists: ClipLists
    leaks: dict[str, tuple[Part, ...]]
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
        """Return the video of a clip, or "" for a file that is not in the lists."""
        return self.clips[name].youtube_id if name in self.clips else ""

    def label(self, name: str) -> str:
        return self.clips[name].label or NO_LABEL if name in self.clips else ""

    def count_leaks(self) -> list[tuple[str, str, int]]:
        """Return (one, other, videos in both) of different splits: those with train first."""
        pairs: Counter[tuple[Part, Part]] = Counter()
        for parts in self.leaks.values():
            named = [part for part in parts if part[1]]
            pairs.update((a, b) for a, b in combinations(named, 2) if a[1] != b[1])
        found = [(one, other, n) for (one, other), n in pairs.items()]
        found.sort(key=lambda each: (TRAIN not in (each[0][1], each[1][1]), -each[2]))
        return [(part_name(one), part_name(other), n) for one, other, n in found]


def read_dataset(folder: Path, args: argparse.Namespace) -> Dataset:
    """Read the lists. `look_again` reads the folder. Raises UserError."""
    paths, missing = find_lists(args.input_csv)
    if missing:
        official, where = missing[0]
        raise UserError(
            f"the list {official.name} is not in {where}: download it with download.py, or name the"
            " lists of your clips with --input_csv"
        )
    lists = read_wanted(paths, args, every_row=True)
    if not lists.clips:
        raise UserError("no clip is left to report on: change --shard, --label or --split")
    name_classes(lists)
    lists.lines.clear()  # 25 MB that nothing here reads
    tell = teller(args.quiet)
    tell(f"lists        {plural(len(args.lists), 'file')}, {plural(lists.rows, 'row')}")
    if lists.refused:
        tell(f"invalid      {plural(len(lists.refused), 'row')}: {lists.refused[0]}")
    leaks = {
        video: parts
        for video, parts in parts_of_videos(lists).items()
        if len({split for _, split in parts if split}) > 1
    }
    return Dataset(folder, lists, leaks)


def look_again(data: Dataset, tell: Tell) -> None:
    """Read the folder and the reports. Raises UserError."""
    with without_garbage_collection():
        _look_at_folder(data)
        tell(f"folder       {plural(len(data.sizes), 'clip')}")
        tell(f"report       {plural(_read_reports(data), 'line')}")
        data.licences = report.read_licences(data.folder / report.VIDEOS_NAME)


def _look_at_folder(data: Dataset) -> None:
    """Note the size of every .mp4, in lists or not, and of requested audio files."""
    data.sizes, data.sounds = {}, {}
    for name, suffix, size in sizes_in(data.folder, (".mp4", *SOUNDS)):
        clip, is_sound = data.clips.get(name), suffix != ".mp4"
        if is_sound and (clip is None or name in data.sizes):
            continue
        name = clip.name if clip else name  # the string of the list, which saves 50 MB
        data.sizes[name] = size
        data.sounds.pop(name, None)
        if is_sound:
            data.sounds[name] = suffix


def _read_reports(data: Dataset) -> int:
    """Read the reports of all machines and return the number of lines. Raises UserError."""
    data.reported, data.minutes, lines = {}, {}, 0
    kept: dict[LastLine, LastLine] = {}  # one object for equal lines: there are 650,000
    rows = report.read_every(data.folder / report.REPORT_NAME, report.RESULT_COLUMNS)
    for row, counts in rows:
        lines += 1
        name, status, finished_at = row[0], row[4], row[-1]
        if status not in _PLACE:
            continue
        if row[10] != NOBODY_ASKED:  # no request was made, so it says nothing of the pace
            minute = data.minutes.setdefault(finished_at[:MINUTE], [0, 0, 0])
            minute[_PLACE[status]] += 1
        clip = data.clips.get(name)
        if clip is None or not counts:  # those of another list count for the pace only
            continue
        line = LastLine(status, row[5], row[6], row[11])
        data.reported[clip.name] = kept.setdefault(line, line)
    return lines


def name_classes(lists: ClipLists) -> None:
    """Give every clip the label that the newest version has for it, in the newest spelling."""
    classes, versions = join_classes(lists.labels_of_versions()), lists.versions()

    @cache
    def spelled(label: str) -> str:
        number = classes.number(label)
        return label if number is None else classes.names[number]

    newest: dict[str, str] = {}
    if len(versions) > 1:
        rows = zip(lists.every, lists.parts(), strict=True)
        for clip, _ in sorted(rows, key=lambda row: versions.index(row[1][0])):
            if clip.label:
                newest[clip.name] = clip.label
    for name, clip in lists.clips.items():
        label = spelled(newest.get(name, clip.label))
        if label != clip.label:
            lists.clips[name] = clip._replace(label=label)


@dataclass
class Count:
    """Clips of one class, of one split, or all. `lengths`: listed seconds -> clips on disk."""

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
        """Return the median length of the clips on disk, by the list."""
        return statistics.median_low(self.lengths.elements()) if self.lengths else None

    def add(self, clips: int, is_there: bool, line: LastLine | None) -> None:
        """Count more requested clips of which the same is known."""
        self.wanted += clips
        if is_there:
            self.there += clips
            self.short += clips * (line is not None and line.reason == "short")
        elif line is not None and line.status == UNAVAILABLE:
            self.gone += clips


@dataclass
class Counts:
    """The numbers that lists, folder and report give.

    sources, licences, heights: of the clips on disk. whys: (status, reason, what to do) -> missing
    clips.
    """

    total: Count = field(default_factory=Count)
    classes: dict[str, Count] = field(default_factory=dict)
    splits: dict[Part, Count] = field(default_factory=dict)  # (version, split)
    sources: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    heights: Counter[str] = field(default_factory=Counter)  # where the report has them
    whys: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    failed: int = 0
    bytes: int = 0
    not_listed: int = 0  # .mp4 files that are not in the lists


def count_all(data: Dataset, splits: Sequence[str]) -> Counts:
    """Count the clips, and by version and split the rows of the lists (of `splits`, if given)."""
    counts, sizes, reported = Counts(), data.sizes, data.reported
    # Clips of which the same is known are counted together, in a tenth of the steps.
    alike = Counter(
        (clip.label or NO_LABEL, name in sizes, reported.get(name), round(clip_window(clip)[1], 2))
        for name, clip in data.clips.items()
    )
    for (label, is_there, line, seconds), clips in alike.items():
        of_class = counts.classes.setdefault(label, Count())
        counts.total.add(clips, is_there, line)
        of_class.add(clips, is_there, line)
        if not is_there:
            counts.whys[why_missing(line)] += clips
            continue
        of_class.lengths[seconds] += clips
        if line is None or line.status != DOWNLOADED:
            counts.sources[NOT_IN_REPORT] += clips
            continue
        counts.sources[line.source] += clips
        if line.height not in ("", "0"):
            counts.heights[f"{line.height} lines"] += clips
    chosen = set(map(same_split, splits))
    names_of: dict[Part, set[str]] = {}
    for clip, part in zip(data.lists.every, data.lists.parts(), strict=True):
        if clip.name in data.clips and (not chosen or part[1] in chosen):
            names_of.setdefault(part, set()).add(clip.name)
    for part, names in names_of.items():
        counts.splits[part] = Count()
        same = Counter((name in sizes, reported.get(name)) for name in names)
        for (is_there, line), clips in same.items():
            counts.splits[part].add(clips, is_there, line)
    there = [name for name in sizes if name in data.clips]
    if data.licences:
        ids = (data.clips[name].youtube_id for name in there)
        counts.licences.update(data.licences.get(youtube_id, "not known") for youtube_id in ids)
    counts.failed = sum(n for why, n in counts.whys.items() if why[0] not in ("", UNAVAILABLE))
    counts.bytes = sum(sizes[name] for name in there)
    counts.not_listed = len(sizes) - len(there)
    return counts


def why_missing(line: LastLine | None) -> tuple[str, str, str]:
    """Return (status, reason, what to do) of a clip that is not on disk."""
    if line is None:
        return NOT_ASKED
    if line.status == DOWNLOADED:
        return VANISHED
    todo = REASONS[line.reason][1] if line.reason in REASONS else "see its line in the report"
    return line.status, line.reason, todo


def part_name(part: Part) -> str:
    """Return `400 val`, or the version alone if the split is not known."""
    return " ".join(filter(None, part))
