"""Read lists into checked clips, each once or every row, and select the requested ones.

The text of a list is not trusted. It is checked here, so that no other module sees an unchecked id
or time.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from utils.cli import printable
from utils.clip import (
    AVA_TIME_END,
    FINE_FORMAT,
    MAX_TIME,
    TRIM_FORMAT,
    Clip,
    Extra,
    Refused,
    clip_name,
    clip_window,
    parse_clip_name,
)
from utils.errors import ROOT, UserError
from utils.files import telling
from utils.lists import versions
from utils.lists.forms import OpenList, find_id, open_list, read_time
from utils.process import sleep

# Limits of the memory that a list can take.
MAX_CLIPS = 5_000_000  # 340 bytes each; all of Kinetics has 650,000
MAX_REFUSED = 100_000
NO_CLIP_IN = 1000  # a file whose first rows, as many as this, are all invalid is not a list
CHECK_EVERY, TELL_EVERY = 50_000, 500_000  # rows
BAD_TIMES = f"its times must be numbers from 0 to {MAX_TIME:.0f}, with the end after the start"
LIST_SUFFIXES = (".csv", ".csv.gz")
REPORTS = ("download_report.", "reorg_report.", "frames_report.", "downscale_report.")


@dataclass(frozen=True)
class Selection:
    """The rows of the lists that are requested; the default is all of them.

    `labels` are case-folded, because versions differ in case, and `splits` are those of
    `same_split`. `per_class` and then `sample` draw clips at random, by `seed` alone.
    """

    labels: frozenset[str] = frozenset()
    splits: frozenset[str] = frozenset()
    shard: tuple[int, int] = (1, 1)
    limit: int | None = None
    sample: int | None = None
    per_class: int | None = None
    seed: int = 0

    @property
    def draws(self) -> bool:
        return self.sample is not None or self.per_class is not None

    def wants(self, clip: Clip, labels: Sequence[str] = ()) -> bool:
        if self.labels and self.labels.isdisjoint(map(str.casefold, labels)):
            return False
        if self.splits and clip.split not in self.splits:
            return False
        return self.draws or self.in_shard(clip)

    def in_shard(self, clip: Clip) -> bool:
        return self.shard[1] == 1 or shard_of(clip.youtube_id, self.shard[1]) == self.shard[0]

    def draw(self, clips: Mapping[str, Clip]) -> dict[str, Clip]:
        """Return the clips drawn, in the order of the lists; the same on every machine."""

        def rank(clip: Clip) -> bytes:
            text = f"{self.seed} {clip.youtube_id} {clip.time_start:.3f} {clip.time_end:.3f}"
            return hashlib.blake2b(text.encode(), digest_size=8).digest()

        of_class, drawn = dict[str, int](), set[str]()
        for clip in sorted(clips.values(), key=rank):
            of_class[clip.label] = of_class.get(clip.label, 0) + 1
            if self.per_class is None or of_class[clip.label] <= self.per_class:
                drawn.add(clip.name)
            if len(drawn) == self.sample:
                break
        mine = (clip for name, clip in clips.items() if name in drawn and self.in_shard(clip))
        return {clip.name: clip for clip in islice(mine, self.limit)}


@dataclass
class ClipLists:
    """The clips of the lists, and the invalid rows.

    `clips`: every requested clip once, by name, in the order of the lists. `every`: each valid row,
    also duplicates, if the caller needs them; row i is line `lines[i]` of the file `listed[i]`.
    """

    files: list[versions.ListFile] = field(default_factory=list)
    clips: dict[str, Clip] = field(default_factory=dict)
    every: list[Clip] = field(default_factory=list)
    listed: list[versions.ListFile] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    rows: int = 0
    not_wanted: int = 0
    relabelled: int = 0  # clips to which a later row gives another label
    labels_seen: set[str] = field(default_factory=set)  # these two only if a selection narrows
    splits_seen: set[str] = field(default_factory=set)
    is_cut_short: bool = False  # reading ended at --limit
    trim_format: str = TRIM_FORMAT

    def check_size(self, tell: Callable[[str], None] | None) -> None:
        """Report how far the reading is. Raises UserError if the lists are too large, Stopped."""
        sleep(0)
        if self.rows % TELL_EVERY == 0 and tell:
            tell(f"reading the lists: {self.rows:,} rows, {len(self.clips):,} clips so far")
        if len(self.clips) > MAX_CLIPS or len(self.refused) > MAX_REFUSED:
            raise UserError(
                f"the lists hold more than {MAX_CLIPS:,} clips or {MAX_REFUSED:,} invalid rows (all"
                " of Kinetics has 650,000 clips): use --limit, --shard, --split or --label"
            )

    def forms(self) -> list[str]:
        """Return the forms in which the lists were read, and how their clips are named."""
        forms = list(dict.fromkeys(each.form for each in self.files))
        if self.trim_format == FINE_FORMAT:
            forms.append(f"names with fractions of a second ({FINE_FORMAT})")
        return forms

    def extend(self, other: ClipLists) -> None:
        """Add the files and rows of other lists."""
        self.files += other.files
        self.every += other.every
        self.listed += other.listed
        self.lines += other.lines
        self.refused += other.refused

    def versions(self) -> list[str]:
        """Return the versions of the lists, oldest first; lists of none come last, as named."""
        named = list(dict.fromkeys(each.version for each in self.files))
        return sorted(named, key=[*versions.CLASSES, *named].index)

    def parts(self) -> Iterator[tuple[str, str]]:
        """Yield (version, split) of every row."""
        for listed, clip in zip(self.listed, self.every, strict=True):
            yield listed.version, clip.split

    def labels_of_versions(self) -> dict[str, set[str]]:
        """Return version, oldest first -> the labels of its rows."""
        found: dict[str, set[str]] = {version: set() for version in self.versions()}
        labels = (clip.label for clip in self.every)
        for listed, label in set(zip(self.listed, labels, strict=True)):
            found[listed.version].update(listed.labels_in(label))
        return found


def form_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `read_lists` that options set."""
    return {name: getattr(args, name) for name in ("trim_format", "columns", "clip_seconds")}


def form_words(args: argparse.Namespace) -> list[str]:
    """Return the words of a command line that reads the same lists."""
    lists = ["--input_csv", *map(str, args.input_csv)] if args.input_csv else []
    columns = ",".join(f"{role}={name}" for role, name in (args.columns or {}).items())
    given = {"columns": columns, "clip_seconds": args.clip_seconds, "trim_format": args.trim_format}
    form = [word for name, value in given.items() if value for word in (f"--{name}", f"{value}")]
    return lists + form


def shard_of(youtube_id: str, shards: int) -> int:
    """Return the shard of a video, from 1: CRC-32 of its id, the same on every machine."""
    return zlib.crc32(youtube_id.encode()) % shards + 1


def find_lists(
    given: Sequence[Path] | None,
) -> tuple[list[Path], list[tuple[versions.OfficialList, Path]]]:
    """Return the list files that are named, and the missing official ones with their folders.

    given: files, folders, and names of official lists, with or without folder and .csv; None: all
    twelve. A missing list is among the files, with the path that it should have. Raises UserError
    for another path that does not exist, and for a folder without lists.
    """
    found: list[Path] = []
    missing: dict[tuple[versions.OfficialList, Path], None] = {}
    names = [each.name for each in versions.ROWS]
    for path in [versions.LISTS_FOLDER / name for name in names] if given is None else given:
        if path == versions.LISTS_FOLDER and not path.exists():
            path = ROOT / path
        if os.path.isdir(path):
            if not (inside := lists_in(path)):
                raise UserError(f"no list (*.csv) in the folder {path}: use --input_csv LIST")
            found += inside
        elif os.path.exists(path):
            found.append(path)
        elif official := versions.official_list(path.name):
            folder = versions.LISTS_FOLDER if path.parent == Path(".") else path.parent
            found.append(official.path(folder))
            if not found[-1].exists():
                missing[official, folder] = None
        else:
            near = get_close_matches(path.name.removesuffix(".csv"), names)
            similar = f"; similar official lists: {', '.join(near)}" if near else ""
            raise UserError(f"list {path} does not exist{similar}")
    return list(dict.fromkeys(found)), list(missing)


def lists_in(folder: Path) -> list[Path]:
    """Return the lists in a folder, sorted; one that is packed and unpacked counts once.

    Reports of the suite's own scripts are not lists, although they name clips.
    """
    with telling(folder):
        names = set(os.listdir(folder))
    lists = [name for name in sorted(names) if name.endswith(LIST_SUFFIXES)]
    packed = {f"{name}.gz" for name in lists}
    return [folder / name for name in lists if name not in packed and not name.startswith(REPORTS)]


def read_lists(
    paths: Sequence[Path],
    selection: Selection = Selection(),
    trim_format: str | None = None,
    tell: Callable[[str], None] | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    clip_seconds: float | None = None,
    every_row: bool = False,
) -> ClipLists:
    """Read every requested clip of the lists, once. Raises UserError for a file that is not a list.

    trim_format: how names write times; None: as `%06d`, but as `%010.3f` if two clips of the lists
    would have the same name. tell: is called with a line now and then. columns, clip_seconds: see
    `open_list`. every_row: also keep each row in `every`; otherwise reading ends at the limit.
    """

    def read_all(trim_format: str | None) -> ClipLists:
        lists = ClipLists(trim_format=trim_format or TRIM_FORMAT)
        for path in paths:
            opened = open_list(path, columns, clip_seconds)
            _add_rows(lists, path, opened, trim_format, selection, every_row, tell)
            if lists.is_cut_short:
                break
        return lists

    with without_garbage_collection():
        try:
            lists = read_all(trim_format)
        except _Fractions:
            opened = ((path, open_list(path, columns, clip_seconds)) for path in paths)
            lists = read_all(FINE_FORMAT if _names_collide(opened) else TRIM_FORMAT)
        if selection.draws:
            drawn = selection.draw(lists.clips)
            lists.not_wanted += len(lists.clips) - len(drawn)
            lists.clips = drawn
    return lists


class _Fractions(Exception):
    """A time is not a whole second: names of whole seconds may be too coarse."""


def _names_collide(lists: Iterable[tuple[Path, OpenList]]) -> bool:
    """Return whether two clips would have the same name of whole seconds.

    Compares all rows and not the selected ones, because otherwise two shards of a list would name
    clips differently. A list that gives the names of its clips, such as missing.csv, decides it.
    """
    windows: dict[int, int] = {}  # hashes, because texts would take more memory
    for path, opened in lists:
        for _, _, clip in clips_in(path, opened):
            if isinstance(clip, Refused) or clip.is_ava:
                continue
            if "." in (given := dict(clip.extra).get("clip", "")):
                return parse_clip_name(given) is not None
            window = hash((clip.time_start, clip.time_end))
            if windows.setdefault(hash(clip.name), window) != window:
                return True
    return False


def _add_rows(
    lists: ClipLists,
    path: Path,
    opened: OpenList,
    trim_format: str | None,
    selection: Selection,
    every_row: bool,
    tell: Callable[[str], None] | None,
) -> None:
    """Add the rows of one list. Raises UserError if none is a clip, or there are too many."""
    clips = lists.clips
    narrows = bool(selection.labels or selection.splits or selection.shard[1] > 1)
    limit = None if selection.draws else selection.limit
    lists.files.append(listed := versions.list_file(path, opened.form, opened.several_labels))
    rows, refused, has_clip = lists.rows, len(lists.refused), False
    for line, text, clip in clips_in(path, opened, trim_format, listed.split):
        if len(clips) == limit and not every_row:
            lists.is_cut_short = True
            break
        lists.rows += 1
        if lists.rows % CHECK_EVERY == 0:
            lists.check_size(tell)
        if isinstance(clip, Refused):
            lists.refused.append(clip)
            if not has_clip and lists.rows - rows == NO_CLIP_IN:
                break
            continue
        has_clip = True
        if every_row:
            lists.every.append(clip)
            lists.listed.append(listed)
            lists.lines.append(line)
        if narrows:
            labels = listed.labels_in(clip.label)
            lists.labels_seen.update(labels)
            lists.splits_seen.update([clip.split] if clip.split else [])
            if not selection.wants(clip, labels):
                lists.not_wanted += 1
                continue
        if len(clips) == limit and clip.name not in clips:
            lists.not_wanted += 1
            continue
        known = clips.setdefault(clip.name, clip)
        if known is not clip and clip_window(known) != clip_window(clip):
            problem = f"its file name {clip.name} is also that of another clip: use a finer"
            problem += " --trim_format"
            lists.refused.append(Refused(path, line, printable(text), problem))
        elif clip.label and known.label and clip.label != known.label:
            lists.relabelled += 1
    if lists.rows > rows and not has_clip:
        first = lists.refused[refused]
        raise UserError(f"no row of {path} is a clip, is this a list? {opened.form}; {first}")


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Pause Python's cycle collector while millions of small objects are made.

    It looks at all of them repeatedly and finds nothing, in a fifth of the time of a big list.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def clips_in(
    path: Path, opened: OpenList, trim_format: str | None = TRIM_FORMAT, split: str = ""
) -> Iterator[tuple[int, str, Clip | Refused]]:
    """Yield (line, text, clip) of every row, also of duplicates; `Refused` if it is invalid.

    trim_format: None: TRIM_FORMAT, but raises `_Fractions` at the first fraction of a second.
    split: that of rows without one. Raises UserError.
    """

    @lru_cache(1 << 16)
    def window_of(start_text: str, end_text: str) -> tuple[float, float, str]:
        """Return the start and the end of a clip, and their part of its name; "" if it is none."""
        start, end = (
            math.nan if seconds is None else seconds / opened.per_second
            for seconds in map(read_time, (start_text, end_text))
        )
        if opened.clip_seconds is not None and not end_text.strip():
            end = round(start + opened.clip_seconds, 9)
        if not (0 <= start < end <= MAX_TIME or (0 <= start <= MAX_TIME and end == AVA_TIME_END)):
            return start, end, ""
        if trim_format is None and not (start.is_integer() and end.is_integer()):
            raise _Fractions
        return start, end, clip_name("", start, end, trim_format or TRIM_FORMAT)

    new, labels, splits = tuple.__new__, dict[str, str](), dict[str, str]()
    extras: dict[Extra, Extra] = {}
    for line, text, cells, extra, problem in opened.rows:
        if not problem:
            id_text, start_text, end_text, label, part = cells
            youtube_id = find_id(id_text)
            start, end, times = window_of(start_text, end_text)
            if not youtube_id:
                problem = "youtube_id must be 11 characters from A-Z a-z 0-9 _ -"
            elif not times:
                problem = BAD_TIMES
        if problem:
            yield line, text, Refused(path, line, printable(text.expandtabs(1)), problem)
            continue
        if label not in labels:  # each text is kept once
            labels[label] = label.strip()
        if part not in splits:
            splits[part] = versions.same_split(part) or split
        if extra:
            extra = extras.setdefault(extra, extra)
        # Clip(...) takes twice as long.
        clip = (youtube_id + times, youtube_id, start, end, labels[label], splits[part], extra)
        yield line, text, new(Clip, clip)
