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
from dataclasses import dataclass, field
from enum import StrEnum, auto
from fractions import Fraction
from pathlib import Path

from utils.cli import Tell, plural
from utils.clip import Clip, Refused
from utils.errors import UserError
from utils.files import bounded_lines, open_text, sizes_in, telling
from utils.lists import reading, versions
from utils.lists.official import ListServers, lists_at_hand
from utils.parallel import Crashed, Failed, run_apart, run_parallel
from utils.process import sleep
from utils.report import ReportFile, read_licences, read_report, report_paths
from utils.web import Web

TRAIN, VAL, TEST = SPLITS = ("train", "val", "test")
HOLDOUT = "holdout"  # the split of rows that --holdout names without one
VIDEO, AUDIO = (".mp4",), (".m4a", ".wav", ".flac")  # as download.py writes them
Rows = Iterable[tuple[Clip, versions.ListFile, int]]  # with the line
MANIFEST_VERSION = "manifest"  # of the rows that --only_manifest gives
MEMORY_NAME = ".measured.csv"
MEMORY_COLUMNS = ("clip", "bytes", "mtime_ns", "seconds", "sha256")
CHUNK = 64  # clips a task, because handing one over takes longer than measuring it
UNREAD = "-1"  # as version 1.5.0 stored it for a file without a length
SHORTER_BY = 0.5  # seconds by which an audio file may be shorter than its header says
SHOWN = 10  # lines of a kind


class Reason(StrEnum):
    """The reason for excluding a row, as in excluded.csv; in the order of the summary."""

    LISTED = ""
    MISSING = auto()  # not in the folder
    SHORT = auto()  # below --min_seconds
    UNREADABLE = auto()  # its length could not be read
    NO_FRAMES = auto()  # --frames lacks some or all of its frames
    HELD_OUT = auto()  # in train, but its video is in a val or test list
    OTHER_LABEL = auto()  # another row gives the clip the label that counts
    DUPLICATE = auto()  # another row is used for the clip
    NO_LABEL = auto()  # the format needs a label
    SEVERAL_LABELS = auto()  # the format allows one label
    NOT_SELECTED = auto()  # by --split, --label, --per_class or --fraction
    EXCLUDED = auto()  # by --exclude
    LICENSE = auto()  # by --license


@dataclass(slots=True)
class Candidate:
    """A row of a list that may go into a training list.

    label: the name of its class; if it has several labels, the text in the list. numbers: the class
    indices of its labels. seconds, sha256, frames: if measured.
    """

    clip: Clip
    listed: versions.ListFile
    line: int
    split: str
    label: str = ""
    numbers: tuple[int, ...] = ()
    reason: Reason = Reason.LISTED
    suffix: str = ".mp4"
    bytes: int = 0
    seconds: float | None = None
    sha256: str = ""
    frames: int = 0

    @property
    def number(self) -> int | None:
        """Its class index; None if it has no label or several."""
        return self.numbers[0] if len(self.numbers) == 1 else None


@dataclass
class Choice:
    """All rows of the lists, and which of them are chosen. by_name: the row used for each clip."""

    rows: list[Candidate]
    classes: versions.Classes
    version_names: list[str]  # oldest first
    lists: list[versions.ListFile]
    refused: list[Refused]
    by_name: dict[str, Candidate] = field(default_factory=dict)

    def chosen(self, split: str = "") -> Iterator[Candidate]:
        """Return the rows that are in a list (of `split`), in the order of the lists."""
        return (row for row in self.rows if not row.reason and (not split or row.split == split))

    def used_splits(self) -> list[str]:
        """Return the splits that have a clip, in the order train, val, test."""
        return [split for split in SPLITS if any(self.chosen(split))]

    def reasons(self) -> Counter[Reason]:
        """Count the rows by reason."""
        return Counter(row.reason for row in self.rows)

    def by_class(self) -> Counter[tuple[str, int | None]]:
        """Count the chosen clips by split and class index."""
        return Counter((row.split, row.number) for row in self.chosen())


def read_choice(
    args: argparse.Namespace, only: Mapping[str, Candidate] | None, tell: Tell
) -> Choice | None:
    """Choose one row per clip of the lists, or of `only`, without held-out videos.

    Returns None if --dry_run would have to fetch lists. Raises UserError, Stopped.
    """
    servers = ListServers(Web(()), args.lists_base)
    paths = lists_at_hand(args.input_csv, servers, args.dry_run, tell)
    holdout = lists_at_hand(args.holdout, servers, args.dry_run, tell)
    if paths is None or holdout is None:
        return None
    lists = reading.read_lists(paths, every_row=True, **reading.form_of(args))
    if not lists.every:
        raise UserError(f"no clip in {', '.join(map(str, paths))}: nothing to list")
    args.trim_format = lists.trim_format  # all further lists name their clips alike
    labels = lists.labels_of_versions()
    if only is not None:
        labels[MANIFEST_VERSION] = {row.clip.label for row in only.values() if row.clip.label}
    classes = versions.join_classes(labels)
    if args.classes:
        classes = versions.ordered_classes(args.classes, classes)
    _say_lists(lists, classes, labels, tell)
    held = [*holdout, *_beside(lists, holdout, tell)]
    choice = Choice([], classes, lists.versions(), [*lists.files], [*lists.refused])
    with reading.without_garbage_collection():
        rows: Rows = zip(lists.every, lists.listed, lists.lines, strict=True)
        if only is not None:  # the lists give the classes and what is held out
            rows = [(row.clip, row.listed, row.line) for row in only.values()]
            choice.lists = [rows[0][1]]
            held += [each.path for each in lists.files if each.split in (VAL, TEST)]
            lists = reading.ClipLists()
        choice.rows = _candidates(rows, classes)
        more = reading.read_lists(held, every_row=True, **reading.form_of(args))
        more.every = [clip if clip.split else clip._replace(split=HOLDOUT) for clip in more.every]
        lists.extend(more)
        _say_shared(lists, tell)
        if without := sum(not row.clip.split for row in choice.rows):
            tell(f"split        {plural(without, 'row')} without a split: train")
        held_out = {clip.youtube_id for clip in more.every if clip.split != TRAIN}
        _one_row_a_clip(choice, held_out)
    return choice


def _candidates(rows: Rows, classes: versions.Classes) -> list[Candidate]:
    """Return a candidate for each (clip, list, line). Raises UserError for an unknown split."""
    known: dict[tuple[str, bool], tuple[str, tuple[int, ...]]] = {}
    candidates = []
    for clip, listed, line in rows:
        split = clip.split or TRAIN
        if split not in SPLITS:
            where = f"{listed.path}:{line}"
            raise UserError(f"{where}: the split {split!r} is not train, val or test")
        key = clip.label, listed.several_labels
        if key not in known:
            found = map(classes.number, listed.labels_in(clip.label))
            numbers = tuple(number for number in found if number is not None)
            label = clip.label if numbers else ""
            if len(numbers) == 1:
                label = classes.names[numbers[0]]
            known[key] = label, numbers
        candidates.append(Candidate(clip, listed, line, split, *known[key]))
    return candidates


def _say_lists(
    rows: reading.ClipLists, found: versions.Classes, labels: Mapping[str, set[str]], tell: Tell
) -> None:
    tell(f"lists        {plural(len(rows.files), 'file')}, {plural(len(rows.every), 'row')}")
    tell(f"classes      {len(found.names):,}, in {', '.join(map(_printed, rows.versions()))}")
    for version, names in labels.items():
        if 0 < (named := len(names)) < (classes := versions.CLASSES.get(version, 0)):
            tell(f"note         Kinetics-{version}: {named} of {classes} classes, see --classes")
    for old, new in found.joined:
        tell(f"joined       {old!r} is {new!r}")
    for each in found.renamed:
        tell(f"renamed      {each.old!r} is {each.new!r} now (all {each.videos} videos of both)")
    if rows.refused:
        tell(f"invalid      {plural(len(rows.refused), 'row')}")
        for refused in rows.refused[:SHOWN]:
            tell(f"             {refused}")


def _printed(version: str) -> str:
    return f"Kinetics-{version}" if version in versions.CLASSES else f"list {version}"


def _beside(rows: reading.ClipLists, holdout: Sequence[Path], tell: Tell) -> list[Path]:
    """Return the official val and test lists in the lists' folders that are not named."""
    named = {(each.version, each.split) for each in rows.files} | set(rows.parts())
    held_out = {versions.official_list(path.name) for path in holdout}
    found: list[Path] = []
    for official in versions.ROWS:
        folders = {each.path.parent for each in rows.files if each.version == official.dataset}
        if not folders or official in named or official.split == TRAIN:
            continue
        paths = [official.path(folder) for folder in folders]
        found += (existing := [path for path in paths if path.exists()])
        if not existing and official not in held_out:
            tell(f"note         videos of {official.name} may be in train: name it with --holdout")
    return found


def _say_shared(rows: reading.ClipLists, tell: Tell) -> None:
    """Print how many videos of train are held out, and how many val and test lists share."""
    for pair, count in versions.shared_videos(rows).items():
        of_train = [split in (TRAIN, "") for _, split in pair]
        if not all(of_train):
            what = "held out" if any(of_train) else "shared"
            names = [f"{_printed(version)} {split}".strip() for version, split in pair]
            one, other = names[::-1] if of_train[1] else names
            tell(f"{what:13}{plural(count, 'video')} of {one} in {other}")


def _one_row_a_clip(choice: Choice, held_out: set[str]) -> None:
    """Keep one row per clip, and none of train whose video is held out; the others get a reason.

    Held out are the videos of val and test, too, which are added to `held_out`. Val goes before
    test, and test before train; then the newest version, then the first row. The label is that of
    the newest version that has one.
    """
    held_out.update(row.clip.youtube_id for row in choice.rows if row.split != TRAIN)
    groups: dict[str, list[Candidate]] = {}
    for row in choice.rows:
        if row.split == TRAIN and row.clip.youtube_id in held_out:
            row.reason = Reason.HELD_OUT
        first = choice.by_name.setdefault(row.clip.name, row)
        if first is not row:
            groups.setdefault(row.clip.name, [first]).append(row)
    for name, group in groups.items():
        group.sort(key=lambda row: -choice.version_names.index(row.listed.version))
        newest = next((row for row in group if row.numbers), group[0])
        left = [row for row in group if not row.reason] or group
        stays = min(left, key=lambda row: (VAL, TEST, TRAIN).index(row.split))
        for row in group:
            if row is not stays and not row.reason:
                is_other = row.numbers not in (newest.numbers, ())
                row.reason = Reason.OTHER_LABEL if is_other else Reason.DUPLICATE
        stays.label, stays.numbers = newest.label, newest.numbers
        choice.by_name[name] = stays


def exclude(choice: Choice, paths: Sequence[Path], args: argparse.Namespace, tell: Tell) -> None:
    """Exclude the clips that a list, suspects.csv or excluded.csv names. Raises UserError."""
    for path in paths:
        with telling(path), open_text(path) as file:
            rows = csv.reader(bounded_lines(file))
            header = next(rows, [])
            if "clip" in header:
                at = header.index("clip")
                names = {row[at].lstrip("'") for row in rows if len(row) > at} - {""}
        if "clip" not in header:
            names = set(reading.read_lists([path], **reading.form_of(args)).clips)
        taken = [row for row in choice.chosen() if row.clip.name in names]
        for row in taken:
            row.reason = Reason.EXCLUDED
        tell(f"excluded     {plural(len(taken), 'clip')} of the {len(names):,} in {path}")


def keep_licence(choice: Choice, wanted: str, videos: Path, tell: Tell) -> None:
    """Keep the clips whose video has this licence, as written by `download.py --metadata`.

    A video without a licence of its own is under YouTube's: `youtube`. Raises UserError.
    """
    if not report_paths(videos):
        raise UserError(f"--license needs {videos} of download.py --metadata; see --report")
    licences = read_licences(videos)
    unknown = 0
    for row in choice.chosen():
        if _letters(wanted) not in _letters(licences.get(row.clip.youtube_id, "")):
            row.reason = Reason.LICENSE
            unknown += row.clip.youtube_id not in licences
    without = plural(choice.reasons()[Reason.LICENSE], "clip")
    tell(f"licence      {without} without {wanted!r} ({unknown:,} of them not in {videos.name})")


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def select(choice: Choice, splits: Sequence[str], labels: Sequence[str]) -> None:
    """Keep only these splits and labels. Raises UserError for one that is in no list."""
    wanted = {versions.same_split(split) for split in splits}
    if unknown := wanted - {row.split for row in choice.rows}:
        raise UserError(f"--split {sorted(unknown)[0]} is not in any list")
    names, numbers = choice.classes.names, set()
    for label in labels:
        number = choice.classes.number(label)
        if number is None:
            near = difflib.get_close_matches(label, names, n=3) or names[:3]
            raise UserError(f"--label {label!r} is not in any list; available: {', '.join(near)}")
        numbers.add(number)
    for row in choice.chosen():
        if (splits and row.split not in wanted) or (labels and numbers.isdisjoint(row.numbers)):
            row.reason = Reason.NOT_SELECTED


def draw(choice: Choice, per_class: int | None, fraction: float | None, seed: int) -> None:
    """Keep at most `per_class` clips of each class in each split, or a fraction of them.

    A fraction is rounded, to at least one clip.
    """
    if per_class is None and fraction is None:
        return
    sizes, taken = choice.by_class(), Counter[tuple[str, int | None]]()
    for row in shuffled(choice.chosen(), seed):
        group = row.split, row.number
        taken[group] += 1
        part = max(1, round((fraction or 1) * sizes[group]))
        if taken[group] > min(per_class or part, part):
            row.reason = Reason.NOT_SELECTED


def shuffled(rows: Iterable[Candidate], seed: int) -> list[Candidate]:
    """Return the rows in an order that depends on the seed and the names of the clips.

    They are sorted by a hash of both, so that one clip more or less moves no other.
    """

    def rank(row: Candidate) -> bytes:
        return hashlib.blake2b(f"{seed}:{row.clip.name}".encode(), digest_size=8).digest()

    return sorted(rows, key=rank)


def look(choice: Choice, clips: Path, suffixes: Sequence[str]) -> None:
    """Set size and suffix of every clip in the folder; the others are missing. Raises UserError.

    If a clip has several files, the first of `suffixes` counts.
    """
    for name, suffix, size in sizes_in(clips, suffixes, choice.by_name):
        row = choice.by_name[name]
        if not size:
            continue
        if not row.bytes or suffixes.index(suffix) < suffixes.index(row.suffix):
            row.bytes, row.suffix = size, suffix
    for row in choice.chosen():
        if not row.bytes:
            row.reason = Reason.MISSING


def look_at_frames(choice: Choice, frames: Path) -> None:
    """Count the frames of every chosen clip; a clip that lacks some is `no_frames`.

    Raises UserError for frames in tars, which no reader of these lists can open.
    """
    for row in choice.chosen():
        numbers = []
        with suppress(OSError), os.scandir(frames / row.clip.name) as found:
            numbers = [entry.name[:-4] for entry in found if entry.name.endswith(".jpg")]
        # Readers count from 1 to the number of frames: none may lack (--key_frames leaves gaps).
        if numbers and max(map(len, numbers)) == 6 and max(numbers) == f"{len(numbers):06d}":
            row.frames = len(numbers)
        elif not numbers and (frames / f"{row.clip.name}.tar").is_file():
            raise UserError(f"--frames {frames} has tars: use frame_extract.py without --archive")
        else:
            row.reason = Reason.NO_FRAMES


# --- lengths and hashes, stored with size and time: a rerun reads new files only -----------------


def measure(choice: Choice, clips: Path, memory: Path, args: argparse.Namespace) -> None:
    """Set the lengths, and the hashes with --hash; exclude clips below --min_seconds.

    A file that was removed since is missing, and one without a length unreadable. Raises Stopped;
    what was measured until then stays in `memory`.
    """
    from utils.run import Progress  # imports the cluster module, which few runs need

    lines = read_report(memory, MEMORY_COLUMNS)
    known = {line[0]: line[1:] for line in lines if line[3] != UNREAD}
    rows = list(choice.chosen())
    chunks = (rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK))

    def work(chunk: Sequence[Candidate]) -> tuple[Sequence[Candidate], list[list[str]]]:
        return chunk, [_measure(row, clips, known.get(row.clip.name, []), args) for row in chunk]

    with (
        ReportFile(memory, MEMORY_COLUMNS) as report,
        Progress(len(rows), "clip", quiet=args.quiet) as progress,
    ):
        for chunk, new_lines in run_parallel(work, chunks, args.num_jobs):
            report.append(*filter(None, new_lines))
            for row in chunk:
                progress.add(row.reason or "read")
    sleep(0)


def _measure(
    row: Candidate, clips: Path, known: Sequence[str], args: argparse.Namespace
) -> list[str]:
    """Measure one clip; return its line of the memory, or nothing if there is no new one."""
    path = clips / f"{row.clip.name}{row.suffix}"
    try:
        status = path.stat()
        stamp = [str(status.st_size), str(status.st_mtime_ns)]
        seconds, sha256 = known[2:] if known[:2] == stamp else ("", "")
        seconds = seconds or f"{run_apart(length_of, path):.3f}"
        if args.hash and not sha256:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        row.reason = Reason.MISSING
        return []
    except (Crashed, Failed):  # measured again by the next run: a slow disk may be the reason
        row.reason = Reason.UNREADABLE
        return []
    row.bytes, row.seconds, row.sha256 = status.st_size, float(seconds), sha256
    if row.seconds < args.min_seconds:
        row.reason = Reason.SHORT
    line = [*stamp, seconds, sha256]
    return [row.clip.name, *line] if line != known else []


def length_of(path: Path) -> float:
    """Return the length of a clip by its packets. Raises BadClip, ClipError, ValueError."""
    from clipreader.media import open_clip, ratio
    from clipreader.packets import whole_packets
    from utils.video.whole import missing_part, read_video

    if path.suffix not in AUDIO:
        return read_video(path).end
    with open_clip(path) as container:
        (stream,) = container.streams.audio[:1]
        base = ratio(stream.time_base) or Fraction(0)
        packets = (each for each in whole_packets(container, stream) if not each.is_discard)
        times = [(each.pts, each.duration or 0) for each in packets if each.pts is not None]
        ticks = max(start + length for start, length in times) - times[0][0]
        # The header's length may be shorter, because an edit list cuts packets.
        seconds = float(min(ticks, stream.duration or ticks) * base)
        promised = (container.duration or 0) / 1e6 - SHORTER_BY
        if not 0 < seconds >= promised or missing_part(container, path, 0, None):
            raise ValueError("incomplete")
        return seconds
