"""Choose the rows of a training list and measure their clips; excluded rows get a `Reason`.

A video of a val or test list is never in train, a clip is listed once, and the class indices are
those of all classes that the lists name.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from utils.cli import Tell, plural
from utils.clip import Extra, Refused
from utils.errors import UserError
from utils.files import bounded_lines, open_text, telling
from utils.lists.official import ListServers, form_of, lists_at_hand
from utils.lists.reading import ClipLists, find_lists, read_lists, without_garbage_collection
from utils.lists.versions import (
    BY_NAME,
    OFFICIAL,
    Classes,
    ListFile,
    Part,
    join_classes,
    ordered_classes,
    same_split,
    shared_videos,
)
from utils.parallel import Crashed, Failed, run_apart, run_parallel
from utils.process import sleep
from utils.report import ReportFile, read_licences, read_report, report_paths
from utils.web import Web

TRAIN, VAL, TEST = SPLITS = ("train", "val", "test")
HOLDOUT = "holdout"  # the split of rows that --holdout names without one
NO_LABEL = -1
VIDEO, AUDIO = (".mp4",), (".m4a", ".wav", ".flac")  # as download.py writes them
MANIFEST_VERSION = "manifest"  # of the rows that --only_manifest gives
MEMORY_NAME = ".measured.csv"
MEMORY_COLUMNS = ("clip", "bytes", "mtime_ns", "seconds", "sha256")
CHUNK = 64  # clips a task
SHORTER_BY = 0.5  # seconds by which a sound file may be shorter than its header says


class Reason(IntEnum):
    """The reason for excluding a row; excluded.csv has the lower-case names."""

    IN_LIST = 0
    MISSING = 1  # not in the folder
    SHORT = 2  # below --min_seconds
    UNREADABLE = 3  # its length could not be read
    NO_FRAMES = 4  # --frames has none of it, or not all
    HELD_OUT = 5  # in train, and its video in a val or test list
    OTHER_LABEL = 6  # another row gives the clip the label that counts
    DUPLICATE = 7  # another row stands for the clip
    NO_LABEL = 8  # the format needs one
    SEVERAL_LABELS = 12  # the format knows one
    NOT_SELECTED = 9  # by --split, --label, --per_class or --fraction
    EXCLUDED = 10  # by --exclude
    LICENSE = 11  # not of --license

    @property
    def text(self) -> str:
        return self.name.lower()


LACKING = (Reason.MISSING, Reason.UNREADABLE, Reason.NO_FRAMES)


@dataclass(slots=True)
class Candidate:
    """A row of a list that may go into a training list.

    label: as the list writes it; number: its class index, or that of a list's several labels in
    `several`, and then none in `number`. sha256, seconds, frames: if measured.
    """

    name: str
    listed: ListFile
    line: int
    start: float
    end: float
    label: str
    split: str
    extra: Extra = ()
    number: int = NO_LABEL
    several: tuple[int, ...] = ()
    reason: Reason = Reason.IN_LIST
    suffix: str = ".mp4"
    bytes: int = 0
    seconds: float | None = None
    sha256: str = ""
    frames: int = 0

    @property
    def youtube_id(self) -> str:
        return self.name[:11]


@dataclass
class Choice:
    """All rows of the lists, and which of them are chosen.

    by_name: clip -> the row that stands for it. shared: pairs of (version, split), held-out lists
    among them -> the videos that both name.
    """

    rows: list[Candidate]
    classes: Classes
    versions: tuple[str, ...]
    lists: list[ListFile]
    refused: list[Refused] = field(default_factory=list)
    shared: Mapping[tuple[Part, Part], int] = field(default_factory=dict)
    by_name: dict[str, Candidate] = field(default_factory=dict)
    read: int = 0  # rows of the lists
    form: Mapping[str, Any] = field(default_factory=dict)  # how lists are read, and clips named
    labels: Mapping[str, int] = field(default_factory=dict)  # version -> labels of its rows
    relabelled: int = 0  # clips with two labels
    without_split: int = 0  # rows that name none, taken for train

    def chosen(self, split: str | None = None) -> Iterator[Candidate]:
        """The rows that are in a list (of `split`), in the order of the lists."""
        return (row for row in self.rows if not row.reason and split in (None, row.split))

    def used_splits(self) -> list[str]:
        """The splits that have a clip, in the order train, val, test."""
        return [split for split in SPLITS if any(self.chosen(split))]

    def label(self, row: Candidate) -> str:
        """The name of a row's class, or all of several as the list has them; "" if it has none."""
        if row.several:
            return row.label
        return "" if row.number == NO_LABEL else self.classes.names[row.number]

    def count(self, reason: Reason) -> int:
        return sum(row.reason == reason for row in self.rows)

    def by_class(self) -> Counter[tuple[str, int]]:
        """The clips that are chosen, by split and class index."""
        return Counter((row.split, row.number) for row in self.chosen())


def read_choice(
    args: argparse.Namespace, only: Mapping[str, Candidate] | None, tell: Tell
) -> Choice | None:
    """One row a clip of the lists, or of `only`, without held-out videos.

    None where --dry_run would have to fetch lists. Raises UserError, Stopped.
    """
    servers = ListServers(Web(()), args.lists_base)
    paths = lists_at_hand(args.input_csv, servers, args.dry_run, tell)
    holdout = lists_at_hand(args.holdout, servers, args.dry_run, tell)
    if paths is None or holdout is None:
        return None
    rows = read_lists(find_lists(paths), every_row=True, **form_of(args))
    if not rows.every:
        raise UserError(f"no clip in {', '.join(map(str, paths))}: nothing to list")
    labels: dict[str, set[str]] = rows.labels_of_versions()
    if only is not None:
        labels[MANIFEST_VERSION] = {row.label for row in only.values() if row.label}
    classes = join_classes(labels)
    if args.classes:
        classes = ordered_classes(args.classes, classes)
    held = find_lists(holdout)
    held += _beside(rows, held, tell)
    with without_garbage_collection():
        every = zip(rows.every, rows.file_at, rows.lines, strict=True)
        candidates = [Candidate(row[0], rows.files[at], line, *row[2:]) for row, at, line in every]
        choice = Choice(candidates, classes, tuple(rows.versions()), [*rows.files])
        choice.refused, choice.read = [*rows.refused], len(rows.every)
        choice.form = form_of(args) | {"trim_format": rows.trim_format}
        choice.labels = {version: len(names) for version, names in labels.items()}
        if only is not None:  # the lists give the classes and what is held out
            choice.rows = [replace(row, bytes=0, sha256="") for row in only.values()]
            choice.lists = [choice.rows[0].listed]
            held += [each.path for each in rows.files if each.split in (VAL, TEST)]
            rows = ClipLists()
        more = read_lists(held, every_row=True, **form_of(args))
        more.every = [clip if clip.split else clip._replace(split=HOLDOUT) for clip in more.every]
        rows.extend(more)
        choice.shared = shared_videos(rows)
        held_out = {clip.youtube_id for clip in rows.every if clip.split not in ("", TRAIN)}
        _number_and_split(choice)
        held_out |= {row.youtube_id for row in choice.rows if row.split != TRAIN}
        for row in choice.rows:
            if row.split == TRAIN and row.youtube_id in held_out:
                row.reason = Reason.HELD_OUT
        _one_row_a_clip(choice)
    return choice


def _beside(rows: ClipLists, holdout: Sequence[Path], tell: Tell) -> list[Path]:
    """The val and test lists of the versions named that lie beside the lists, and are not named."""
    named = {(each.version, each.split) for each in rows.files} | set(rows.parts())
    known = {os.path.abspath(path) for path in holdout}
    found = []
    for version in rows.versions():
        folders = {each.path.parent for each in rows.files if each.version == version}
        for split in (VAL, TEST) if version in OFFICIAL else ():
            name = f"kinetics-{version}_{split}"
            if (version, split) in named or name not in BY_NAME:
                continue
            paths = [path for folder in folders if (path := BY_NAME[name].path(folder)).exists()]
            if not paths and all(Path(each).stem != name for each in known):
                tell(f"note         {name} is not in the lists' folder: its videos may be in train;"
                     f" --holdout {name} downloads it")  # fmt: skip
            found += [path for path in paths if os.path.abspath(path) not in known]
    return found


def _number_and_split(choice: Choice) -> None:
    """Give each row its class index and its split. Raises UserError for an odd split."""
    numbers: dict[tuple[str, bool], tuple[int, ...]] = {}
    for row in choice.rows:
        key = row.label, row.listed.several_labels
        if key not in numbers:
            found = map(choice.classes.number, row.listed.labels_in(row.label))
            numbers[key] = tuple(number for number in found if number is not None)
        if len(numbers[key]) > 1:
            row.several = numbers[key]
        elif numbers[key]:
            (row.number,) = numbers[key]
        if not row.split:
            row.split = TRAIN
            choice.without_split += 1
        elif row.split not in SPLITS:
            raise UserError(
                f"{row.listed.path}:{row.line}: the split {row.split!r} is not train, val or test"
            )


def _one_row_a_clip(choice: Choice) -> None:
    """Of several rows of a clip keep one; the others get their reason.

    Held out goes before train, val before test; then the newest version, then the first row. The
    label is that of the newest version that gives one.
    """
    groups: dict[str, list[Candidate]] = {}
    for row in choice.rows:
        first = choice.by_name.setdefault(row.name, row)
        if first is not row:
            groups.setdefault(row.name, [first]).append(row)
    for name, group in groups.items():
        group.sort(key=lambda row: -choice.versions.index(row.listed.version))
        none: tuple[int, tuple[int, ...]] = (NO_LABEL, ())
        labels = [each for row in group if (each := (row.number, row.several)) != none] or [none]
        choice.relabelled += len(set(labels)) > 1
        left = [row for row in group if not row.reason] or group
        stays = min(left, key=lambda row: (VAL, TEST, TRAIN).index(row.split))
        for row in group:
            if row is not stays and not row.reason:
                is_other = (row.number, row.several) not in (labels[0], none)
                row.reason = Reason.OTHER_LABEL if is_other else Reason.DUPLICATE
        stays.number, stays.several = labels[0]
        choice.by_name[name] = stays


def exclude(choice: Choice, paths: Sequence[Path], tell: Tell) -> None:
    """Take out the clips that a list, suspects.csv or excluded.csv names. Raises UserError."""
    for path in paths:
        names = _excluded_names(path, choice.form)
        taken = [row for row in choice.chosen() if row.name in names]
        for row in taken:
            row.reason = Reason.EXCLUDED
        tell(f"excluded     {plural(len(taken), 'clip')} of the {len(names):,} in {path}")


def _excluded_names(path: Path, form: Mapping[str, Any]) -> set[str]:
    with telling(path), open_text(path) as file:
        rows = csv.reader(bounded_lines(file))
        header = next(rows, [])
        if "clip" in header:
            at = header.index("clip")
            return {row[at].lstrip("'") for row in rows if len(row) > at} - {""}
    return set(read_lists([path], **form).clips)


def keep_licence(choice: Choice, wanted: str, videos: Path, tell: Tell) -> None:
    """Keep the clips whose video has this licence, by what `download.py --metadata` wrote.

    A video without a licence of its own is under YouTube's: `youtube`. Raises UserError.
    """
    if not report_paths(videos):
        raise UserError(
            f"--license needs {videos}: run download.py --metadata, or name its folder with"
            " --report"
        )
    licences = read_licences(videos)
    unknown = 0
    for row in choice.chosen():
        if _letters(wanted) not in _letters(licences.get(row.youtube_id, "")):
            row.reason = Reason.LICENSE
            unknown += row.youtube_id not in licences
    tell(
        f"licence      {plural(choice.count(Reason.LICENSE), 'clip')} without {wanted!r}"
        f" ({unknown:,} of them not in {videos.name})"
    )


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def select(choice: Choice, splits: Sequence[str], labels: Sequence[str]) -> None:
    """Keep only these splits and labels. Raises UserError for one that there is not."""
    wanted = {same_split(split) for split in splits}
    if unknown := wanted - {row.split for row in choice.rows}:
        raise UserError(f"--split {sorted(unknown)[0]} is in no list")
    names = choice.classes.names
    numbers = set()
    for label in labels:
        number = choice.classes.number(label)
        if number is None:
            near = difflib.get_close_matches(label, names, n=3) or names[:3]
            raise UserError(f"--label {label!r} is not in any list; available: {', '.join(near)}")
        numbers.add(number)
    for row in choice.chosen():
        if (wanted and row.split not in wanted) or (
            numbers and numbers.isdisjoint((row.number, *row.several))
        ):
            row.reason = Reason.NOT_SELECTED


def draw(choice: Choice, per_class: int | None, fraction: float | None, seed: int) -> None:
    """Keep of each split at most `per_class` clips of a class, or a part of each class.

    A fraction is rounded, to at least one clip a class.
    """
    if per_class is None and fraction is None:
        return
    groups: dict[tuple[str, int], list[Candidate]] = {}
    for row in choice.chosen():
        groups.setdefault((row.split, row.number), []).append(row)
    for group in groups.values():
        keep = len(group) if per_class is None else per_class
        if fraction is not None:
            keep = min(keep, max(1, round(fraction * len(group))))
        for row in shuffled(group, seed)[keep:]:
            row.reason = Reason.NOT_SELECTED


def shuffled(rows: Iterable[Candidate], seed: int) -> list[Candidate]:
    """The rows in an order that the seed and the clips' names give.

    By a hash of both: a clip more or less changes no other's place.
    """

    def rank(row: Candidate) -> bytes:
        return hashlib.blake2b(f"{seed}:{row.name}".encode(), digest_size=8).digest()

    return sorted(rows, key=rank)


def look(choice: Choice, clips: Path, suffixes: Sequence[str]) -> None:
    """Note size and suffix of every clip that is there; the others are missing. Raises UserError.

    Of several files of a clip the suffix that stands first counts.
    """
    by_name, rank = choice.by_name, {suffix: at for at, suffix in enumerate(suffixes)}
    try:
        with os.scandir(clips) as entries:
            for entry in entries:
                name, suffix = os.path.splitext(entry.name)
                if suffix not in rank or (row := by_name.get(name)) is None:
                    continue
                if row.bytes and rank[row.suffix] < rank[suffix]:
                    continue
                with suppress(OSError):  # gone by now, or a link in a circle
                    if entry.is_file() and (size := entry.stat().st_size):
                        row.bytes, row.suffix = size, suffix
    except OSError as error:
        raise UserError(f"cannot read the folder {clips}: {error.strerror}") from error
    for row in choice.chosen():
        if not row.bytes:
            row.reason = Reason.MISSING


def look_at_frames(choice: Choice, frames: Path) -> None:
    """Count the frames of every chosen clip; a folder that lacks some is `no_frames`.

    Raises UserError for frames in tars, which no reader of these lists can open.
    """
    for row in choice.chosen():
        numbers = []
        folder = frames / row.name
        try:
            with os.scandir(folder) as found:
                numbers = [e.name[:-4] for e in found if e.name.endswith(".jpg")]
        except OSError:
            if folder.with_name(f"{row.name}.tar").is_file():
                raise UserError(
                    f"--frames {frames} contains tars, which MMAction2 and SlowFast cannot read:"
                    " run frame_extract.py without --archive into another folder"
                ) from None
        # Readers count from 1 to the number of frames: none may lack (--key_frames leaves gaps).
        if numbers and max(map(len, numbers)) == 6 and max(numbers) == f"{len(numbers):06d}":
            row.frames = len(numbers)
        else:
            row.reason = Reason.NO_FRAMES


# --- lengths and hashes, remembered by size and time: a rerun reads new files only ---------------


def measure(choice: Choice, clips: Path, memory: Path, args: argparse.Namespace) -> None:
    """Fill in the lengths, and the hashes with --hash; drop clips below --min_seconds.

    A file that is gone meanwhile is missing, and one without a length unreadable. Raises Stopped;
    what was measured until then is remembered in `memory`.
    """
    from utils.run import Progress  # it knows of clusters: not for every run

    known = {row[0]: row[1:] for row in read_report(memory, MEMORY_COLUMNS)}
    rows = list(choice.chosen())
    chunks = (rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK))

    def work(chunk: Sequence[Candidate]) -> tuple[Sequence[Candidate], list[list[str]]]:
        """The chunk, and the lines that the memory does not have."""
        lines = [
            _measure(row, clips / (row.name + row.suffix), known.get(row.name), args)
            for row in chunk
        ]
        return chunk, [line for line in lines if line and line[1:] != known.get(line[0])]

    with (
        ReportFile(memory, MEMORY_COLUMNS) as report,
        Progress(len(rows), "clip", quiet=args.quiet) as progress,
    ):
        for chunk, lines in run_parallel(work, chunks, args.num_jobs):
            report.append(*lines)
            for row in chunk:
                progress.add(row.reason.text if row.reason else "read")
    sleep(0)


def _measure(
    row: Candidate, path: Path, known: Sequence[str] | None, args: argparse.Namespace
) -> list[str]:
    """Measure one clip; its line of the memory, or nothing where its file is gone."""
    from utils.video.whole import BadClip, read_apart

    def length() -> float:
        return run_apart(sound_seconds, path) if row.suffix in AUDIO else read_apart(path).end

    try:
        status = path.stat()
        stamp = [str(status.st_size), str(status.st_mtime_ns)]
        seconds, sha256 = known[2:] if known is not None and list(known[:2]) == stamp else ("", "")
        if not seconds or seconds == "-1":  # it may have been the disk that was slow
            try:
                seconds = f"{length():.3f}"
            except (BadClip, Crashed, Failed):
                seconds = "-1"
        if args.hash and not sha256 and seconds != "-1":
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        row.reason = Reason.MISSING
        return []
    if seconds == "-1":
        row.reason = Reason.UNREADABLE
    else:
        row.bytes, row.seconds, row.sha256 = status.st_size, float(seconds), sha256
        if row.seconds < args.min_seconds:
            row.reason = Reason.SHORT
    return [row.name, *stamp, seconds, sha256]


def sound_seconds(path: Path) -> float:
    """Return the length of a sound file, by its packets. Raises ClipError, ValueError."""
    from clipreader.media import open_clip, ratio
    from clipreader.packets import whole_packets
    from utils.video.whole import missing_part

    with open_clip(path) as container:
        (stream,) = container.streams.audio[:1]
        base, start, end = ratio(stream.time_base), 0, 0
        for number, packet in enumerate(whole_packets(container, stream)):
            if packet.pts is not None and not packet.is_discard:
                start = packet.pts if not number else start
                end = max(end, packet.pts + (packet.duration or 0))
        seconds = float((end - start) * (base or 0))
        if stream.duration and base:  # what the header says; an edit list ends inside a packet
            seconds = min(seconds, float(stream.duration * base))
        promised = (container.duration or 0) / 1e6 - SHORTER_BY
        if not 0 < seconds >= promised or missing_part(container, path, 0, None):
            raise ValueError("cut off")
        return seconds
