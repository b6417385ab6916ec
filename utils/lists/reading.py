"""Read lists into checked clips, each once or every row, and select the requested ones.

Everything that a list says is text from a stranger: it is checked here once, whole, and nothing
after this module sees an unchecked id or time.
"""

from __future__ import annotations

import gc
import hashlib
import math
import os
import time
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path

from utils.clip import (
    AVA_TIME_END,
    FINE_FORMAT,
    ID_PATTERN,
    MAX_TIME,
    TRIM_FORMAT,
    Clip,
    Extra,
    Refused,
    clip_name,
    clip_window,
    parse_clip_name,
)
from utils.errors import UserError
from utils.lists.forms import ROLES, OpenList, Row, find_id, open_list, read_time, wrong_id
from utils.lists.versions import BY_NAME, ListFile, age_of, list_file, same_split
from utils.text import printable

# What bounds the memory that a list can take, whatever is given as one.
MAX_CLIPS = 5_000_000  # 340 bytes each; all of Kinetics has 650,000
MAX_REFUSED = 100_000
NO_CLIP_IN = 1000  # rows: so many without a clip, and the file is no list
TELL_AFTER, TELL_EVERY = 2.0, 10.0  # seconds of silence while lists are read
LIST_SUFFIXES = (".csv", ".csv.gz")
REPORTS = ("download_report.", "reorg_report.", "frames_report.", "downscale_report.")
# Milliseconds are told by the first rows: clips of so many seconds each, past the first hour.
FIRST_ROWS, TOO_LONG, AN_HOUR = 50, 1000.0, 3600.0


@dataclass(frozen=True)
class Selection:
    """Which rows of the lists are requested; the default is all of them.

    `labels` are case-folded, because versions differ in case; `splits` went through `same_split`.
    `per_class` and then `sample` draw clips at random, by `seed` alone.
    """

    labels: frozenset[str] = frozenset()
    splits: frozenset[str] = frozenset()
    shard: tuple[int, int] = (1, 1)
    limit: int | None = None
    sample: int | None = None
    per_class: int | None = None
    seed: int = 0

    @property
    def narrows(self) -> bool:
        return bool(self.labels or self.splits or self.shard[1] > 1)

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
        """The clips drawn, in the order of the lists. Whoever draws from a list draws the same."""

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

    `clips`: every requested clip once, by name, in the order of the lists. `every`: each row that
    is a clip, repeats too, if asked for; row i is line `lines[i]` of `files[file_at[i]]`.
    """

    files: list[ListFile] = field(default_factory=list)
    clips: dict[str, Clip] = field(default_factory=dict)
    every: list[Clip] = field(default_factory=list)
    file_at: array[int] = field(default_factory=lambda: array("H"))
    lines: array[int] = field(default_factory=lambda: array("I"))
    refused: list[Refused] = field(default_factory=list)
    rows: int = 0
    not_wanted: int = 0
    relabelled: int = 0  # clips that a later row names under another label
    labels_seen: set[str] = field(default_factory=set)  # these two where a selection narrows
    splits_seen: set[str] = field(default_factory=set)
    is_cut_short: bool = False  # --limit was reached, and nothing behind it was read
    trim_format: str = TRIM_FORMAT

    def refuse(self, refused: Refused) -> None:
        """One more row is no clip. Raises UserError where they are too many for a list."""
        self.refused.append(refused)
        if len(self.refused) > MAX_REFUSED:
            raise UserError(
                f"more than {MAX_REFUSED:,} invalid rows, the first is {self.refused[0]}:"
                " is this a list?"
            )

    def forms(self) -> list[str]:
        """The forms in which the lists were read, each once, and how their clips are named."""
        forms = list(dict.fromkeys(each.form for each in self.files))
        if self.trim_format == FINE_FORMAT:
            forms.append(f"names with fractions of a second ({FINE_FORMAT})")
        return forms

    def extend(self, other: ClipLists) -> None:
        """Take the files and rows of other lists, too."""
        self.file_at.extend(at + len(self.files) for at in other.file_at)
        self.files += other.files
        self.every += other.every
        self.lines += other.lines
        self.refused += other.refused

    def versions(self) -> list[str]:
        """The versions of the lists, oldest first: a list of none counts as newer, as named."""
        named = list(dict.fromkeys(each.version for each in self.files))
        return sorted(named, key=lambda version: age_of(version, named))

    def parts(self) -> Iterator[tuple[str, str]]:
        """(version, split) of every row."""
        versions = [each.version for each in self.files]
        for at, clip in zip(self.file_at, self.every, strict=True):
            yield versions[at], clip.split

    def labels_of_versions(self) -> dict[str, set[str]]:
        """Version, oldest first -> the labels of its rows."""
        found: dict[str, set[str]] = {version: set() for version in self.versions()}
        labels = (clip.label for clip in self.every)
        for at, label in set(zip(self.file_at, labels, strict=True)):
            found[self.files[at].version].update(self.files[at].labels_in(label))
        return found


def shard_of(youtube_id: str, shards: int) -> int:
    """The shard, from 1 to `shards`, of a video: CRC-32 of its id, the same on every machine."""
    return zlib.crc32(youtube_id.encode()) % shards + 1


def find_lists(paths: Sequence[Path]) -> list[Path]:
    """The list files that `paths` name: files as they are, folders by their *.csv, sorted.

    Raises UserError for a path that is not there and for a folder without lists.
    """
    found: list[Path] = []
    for path in paths:
        if os.path.isdir(path):
            inside = lists_in(path)
            if not inside:
                raise UserError(
                    f"no list (*.csv) in the folder {path}: put the lists there,"
                    " or name one with --input_csv"
                )
            found += inside
        elif os.path.exists(path):
            found.append(path)
        else:
            near = get_close_matches(path.name.removesuffix(".csv"), BY_NAME, n=3)
            official = f"; official lists with similar names: {', '.join(near)}" if near else ""
            raise UserError(
                f"list {path} does not exist: name a .csv file or a folder of them{official}"
            )
    return list(dict.fromkeys(found))


def lists_in(folder: Path) -> list[Path]:
    """The lists in a folder, sorted; one that is there packed and unpacked counts once.

    Reports of the suite's own scripts are not lists, though they name clips.
    """
    try:
        names = {
            name
            for name in os.listdir(folder)
            if name.endswith(LIST_SUFFIXES) and not name.startswith(REPORTS)
        }
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read: {error.strerror}") from error
    return [
        folder / name
        for name in sorted(names)
        if not (name.endswith(".gz") and name.removesuffix(".gz") in names)
    ]


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
    """Every requested clip of the lists, once. Raises UserError for a file that is no list.

    trim_format: how names write times; None: as `%06d`, but `%010.3f` where two clips of the lists
    would have one name. tell: is given a line when it takes longer than people wait in silence.
    columns, clip_seconds: see `open_list`. every_row: keep each row in `every`, too; else reading
    ends where the limit is reached.
    """

    def opened(path: Path) -> OpenList:
        return open_list(path, columns, clip_seconds)

    with without_garbage_collection():
        reader = _Reader(selection, trim_format, tell, every_row)
        try:
            reader.read(paths, opened)
        except _Fractions:
            fine = _names_collide(paths, opened)
            reader = _Reader(selection, FINE_FORMAT if fine else TRIM_FORMAT, tell, every_row)
            reader.read(paths, opened)
        lists = reader.lists
        if selection.draws:
            drawn = selection.draw(lists.clips)
            lists.not_wanted += len(lists.clips) - len(drawn)
            lists.clips = drawn
    return lists


class _Fractions(Exception):
    """A time is no whole second: names of whole seconds may not do."""


def _names_collide(paths: Sequence[Path], opened: Callable[[Path], OpenList]) -> bool:
    """Whether two clips of the lists would have one name of whole seconds.

    Of all rows and not of the selected ones, or two shards of a list would name clips differently.
    A list that gives the names of its clips, such as missing.csv, says so itself.
    """
    names, windows = set[int](), set[int]()  # hashes: 1.5 million rows are 200 MB so
    for path in paths:
        listed = opened(path)
        for _, _, clip in clips_in(path, listed):
            if isinstance(clip, Refused) or clip.is_ava:
                continue
            if "clip" in listed.columns and "." in (given := dict(clip.extra)["clip"]):
                return parse_clip_name(given) is not None
            name, window = hash(clip.name), hash((clip.name, clip.time_start, clip.time_end))
            if window not in windows and name in names:
                return True
            names.add(name)
            windows.add(window)
    return False


class _Reader:
    """Reads one list after the other into `lists`."""

    def __init__(
        self,
        selection: Selection,
        trim_format: str | None,
        tell: Callable[[str], None] | None,
        every_row: bool,
    ) -> None:
        self.lists = ClipLists(trim_format=trim_format or TRIM_FORMAT)
        self._selection, self._tell, self._every_row = selection, tell, every_row
        self._may_be_fine = trim_format is None
        self._due = time.monotonic() + TELL_AFTER

    def read(self, paths: Sequence[Path], opened: Callable[[Path], OpenList]) -> None:
        for path in paths:
            self._add_rows(path, opened(path))
            if self.lists.is_cut_short:
                break

    def _look_up(self) -> None:
        """Look at the clock, and at what must stay within bounds. Raises UserError."""
        lists = self.lists
        if self._tell is not None and time.monotonic() > self._due:
            self._due = time.monotonic() + TELL_EVERY
            self._tell(f"reading the lists: {lists.rows:,} rows, {len(lists.clips):,} clips so far")
        if len(lists.clips) > MAX_CLIPS:
            raise UserError(
                f"the lists hold more than {MAX_CLIPS:,} clips, and all of Kinetics has 650,000:"
                " narrow them with --limit, --shard, --split or --label"
            )

    def _add_rows(self, path: Path, opened: OpenList) -> None:
        lists, selection, every_row = self.lists, self._selection, self._every_row
        clips, narrows = lists.clips, selection.narrows
        limit = None if selection.draws else selection.limit
        lists.files.append(listed := list_file(path, opened.form, opened.several_labels))
        number, refused, rows = len(lists.files) - 1, len(lists.refused), lists.rows
        found = clips_in(path, opened, lists.trim_format, listed.split, self._may_be_fine)
        for line, row, clip in found:
            if not lists.rows & 0xFFFF:
                self._look_up()
            if len(clips) == limit and not every_row:
                lists.is_cut_short = True
                break
            lists.rows += 1
            if isinstance(clip, Refused):
                lists.refuse(clip)
                if len(lists.refused) - refused == lists.rows - rows == NO_CLIP_IN:
                    break
                continue
            if every_row:
                lists.every.append(clip)
                lists.file_at.append(number)
                lists.lines.append(line)
            if narrows:
                labels = listed.labels_in(clip.label)
                lists.labels_seen.update(labels)
                lists.splits_seen.add(clip.split)
                if not selection.wants(clip, labels):
                    lists.not_wanted += 1
                    continue
            if len(clips) == limit and clip.name not in clips:
                lists.not_wanted += 1
                continue
            known = clips.setdefault(clip.name, clip)
            if known is not clip and (problem := self._compare(known, clip)):
                lists.refuse(_refused(path, line, row, problem))
        lists.splits_seen.discard("")
        if 1 < len(lists.refused) - refused == lists.rows - rows:
            first = lists.refused[refused]
            raise UserError(f"no row of {path} is a clip, is this a list? {opened.form}; {first}")

    def _compare(self, known: Clip, clip: Clip) -> str:
        """A second row for a name: why it is refused, or nothing where it is the same clip."""
        if (known.time_start, known.time_end) != (clip.time_start, clip.time_end) and (
            clip_window(known) != clip_window(clip)
        ):
            return (
                f"its file name {clip.name} is also that of another clip: use a finer --trim_format"
            )
        if clip.label and known.label and clip.label != known.label:
            self.lists.relabelled += 1
        return ""


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Pause Python's cycle collector while millions of small objects are made.

    It looks at all of them again and again and finds nothing: a fifth of the time of a big list.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def clips_in(
    path: Path,
    opened: OpenList,
    trim_format: str = TRIM_FORMAT,
    split: str = "",
    may_be_fine: bool = False,
) -> Iterator[tuple[int, list[str], Clip | Refused]]:
    """(line, fields, clip) of every row, also repeats; `Refused` where it is none.

    Each of the times, labels and splits, which repeat, is checked and kept once. split: that of
    rows which name none. Raises UserError; `_Fractions` at the first fraction if `may_be_fine`.
    """
    columns, width = opened.columns, len(opened.columns)
    at = {name: i for i, name in enumerate(columns)}
    id_at, start_at, end_at = at["youtube_id"], at["time_start"], at.get("time_end", -1)
    label_at, split_at, extra_at = at.get("label", -1), at.get("split", -1), at.get("*", -1)
    other = [(i, name) for name, i in at.items() if name and name not in (*ROLES, "*")]
    times = _Times(trim_format, opened.per_second, may_be_fine)
    texts, splits, extras = {"": ""}, {"": split}, dict[Extra, Extra]()
    make = tuple.__new__
    for line, row, problem in _with_sane_times(path, opened, times):
        if len(row) != width and not problem:
            problem = _pad(row, columns)
        if not problem:
            youtube_id = row[id_at]
            if ID_PATTERN.fullmatch(youtube_id) is None:
                youtube_id = find_id(youtube_id)
            start, start_name = times[row[start_at]]
            if end_at >= 0:
                end, end_name = times[row[end_at]]
            else:
                end, end_name = times.later(start, opened.seconds or 0)
            problem = _why_no_clip(row[id_at], youtube_id, start, end)
        if problem:
            yield line, row, _refused(path, line, row, problem)
            continue
        label = texts.setdefault(row[label_at], row[label_at]) if label_at >= 0 else ""
        if (text := row[split_at] if split_at >= 0 else "") not in splits:
            splits[text] = same_split(text)
        extra: Extra = row[extra_at] if extra_at >= 0 else ()
        if other:
            extra = tuple([(name, row[i]) for i, name in other])
            extra = extras.setdefault(extra, extra)
        if end == AVA_TIME_END:
            name = clip_name(youtube_id, start, end, trim_format)
        else:
            name = f"{youtube_id}_{start_name}_{end_name}"
        yield line, row, make(Clip, (name, youtube_id, start, end, label, splits[text], extra))


def _pad(row: list[str], columns: Sequence[str]) -> str:
    """Give a row its width, because spreadsheets leave empty fields out or add some.

    Returns what is wrong with it where that does not do.
    """
    width = len(columns)
    if any(row[width:]) or len(row) < width and any(columns[len(row) :]):
        return f"{len(row)} columns, but the header has {width}"
    row[width:] = []
    row += [""] * (width - len(row))
    return ""


def _with_sane_times(path: Path, opened: OpenList, times: _Times) -> Iterator[Row]:
    """The rows, if the first of them can be seconds. Raises UserError for milliseconds."""
    first = list(islice(opened.rows, FIRST_ROWS))
    if not opened.stated and "time_end" in opened.columns:
        at = [opened.columns.index(name) for name in ("time_start", "time_end")]
        rows = [row for _, row, problem in first if not problem and len(row) > max(at)]
        is_whole = all(row[i].isdecimal() for row in rows for i in at)
        spans = [[times[row[i]][0] for i in at] for row in rows] if is_whole else []
        lengths = [end - start for start, end in spans if end > start]
        if lengths and min(lengths) >= TOO_LONG and max(max(spans)) > AN_HOUR:
            raise UserError(
                f"{path}: its clips last {min(lengths):,.0f} s and more: are its times"
                " milliseconds? Name such columns start_ms and end_ms, or give --columns"
                " time_start=NAME,time_end=NAME if they are seconds"
            )
    return chain(first, opened.rows)


def _refused(path: Path, line: int, row: Sequence[object], problem: str) -> Refused:
    text = ",".join(field for field in row if isinstance(field, str))
    return Refused(path, line, printable(text), problem)


class _Times(dict[str, tuple[float, str]]):
    """text of a time -> (seconds, its part of a file's name); (nan, "") for what is no time."""

    def __init__(self, trim_format: str, per_second: float, may_be_fine: bool) -> None:
        super().__init__()
        self._trim_format, self._per_second = trim_format, per_second
        self._may_be_fine = may_be_fine

    def __missing__(self, text: str) -> tuple[float, str]:
        seconds = read_time(text)
        self[text] = (math.nan, "") if seconds is None else self._named(seconds / self._per_second)
        return self[text]

    def _named(self, seconds: float) -> tuple[float, str]:
        if self._may_be_fine and not seconds.is_integer():
            raise _Fractions
        return seconds, self._trim_format % seconds

    def later(self, start: float, seconds: float) -> tuple[float, str]:
        """The end of a clip that has a start only."""
        return (start, "") if math.isnan(start) else self._named(start + seconds)


def _why_no_clip(text: str, youtube_id: str, start: float, end: float) -> str:
    """Why a row is no clip; empty if it is one."""
    if not youtube_id:
        return wrong_id(text)
    if 0 <= start <= MAX_TIME and (start < end <= MAX_TIME or end == AVA_TIME_END):
        return ""
    if math.isnan(start) or math.isnan(end):
        return "time_start or time_end is not a number"
    if start < 0 or start > MAX_TIME or end > MAX_TIME:
        return f"a time is not within 0 and {MAX_TIME:.0f} seconds"
    return "time_end is not after time_start"
