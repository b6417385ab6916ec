"""Lists become clips: reading and checking rows, names of files, windows in time.

First in the flow of data. Everything that a list says is text from a stranger: it is checked here
once, whole, and nothing after this module sees an unchecked id or time.
"""

from __future__ import annotations

import csv
import gc
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from utils.clip import (
    AVA_TIME_END,
    ID_PATTERN,
    MAX_TIME,
    TIME_PATTERN,
    Clip,
    Extra,
    Refused,
    clip_name,
    clip_window,
)
from utils.errors import UserError
from utils.text import printable

# Both spellings found in the published lists, and the columns that they name.
COLUMNS = {
    "youtube_id": "youtube_id",
    "video-id": "youtube_id",
    "time_start": "time_start",
    "start-time": "time_start",
    "time_end": "time_end",
    "end-time": "time_end",
    "label": "label",
    "label-name": "label",
    "split": "split",
}
REQUIRED = ("youtube_id", "time_start", "time_end")
Values = tuple[str, str, float, float, str, str, Extra]  # of a Clip, in its order

# What bounds the memory that a list can take, whatever is given as one.
MAX_CLIPS = 5_000_000  # 340 bytes each; all of Kinetics has 650,000
MAX_REFUSED = 100_000
MAX_LINE = 1 << 20  # characters
TELL_AFTER, TELL_EVERY = 2.0, 10.0  # seconds of silence while lists are read


@dataclass(frozen=True)
class Selection:
    """Which rows of the lists are wanted; the default is all of them.

    `labels` are case-folded, for versions differ in case; `splits` went through `same_split`.
    """

    labels: frozenset[str] = frozenset()
    splits: frozenset[str] = frozenset()
    shard: tuple[int, int] = (1, 1)
    limit: int | None = None

    @property
    def narrows(self) -> bool:
        return bool(self.labels or self.splits or self.shard[1] > 1)

    def wants(self, clip: Clip) -> bool:
        if self.labels and clip.label.casefold() not in self.labels:
            return False
        if self.splits and same_split(clip.split) not in self.splits:
            return False
        return self.shard[1] == 1 or shard_of(clip.youtube_id, self.shard[1]) == self.shard[0]


@dataclass
class ClipLists:
    """What the lists hold: every wanted clip once, in the order of the lists."""

    clips: dict[str, Clip] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    rows: int = 0
    not_wanted: int = 0
    relabelled: int = 0  # clips that a later row names under another label
    labels_seen: set[str] = field(default_factory=set)  # these two where a selection narrows
    splits_seen: set[str] = field(default_factory=set)
    is_cut_short: bool = False  # --limit was reached, and nothing behind it was read

    def refuse(self, refused: Refused) -> None:
        """One more row is no clip. Raises UserError where they are too many for a list."""
        self.refused.append(refused)
        if len(self.refused) > MAX_REFUSED:
            raise UserError(
                f"more than {MAX_REFUSED:,} rows are no clips, the first is {self.refused[0]}:"
                " is this a list?"
            )


def same_split(split: str) -> str:
    """`val`, `validate` and `validation` are one split."""
    split = split.strip().lower()
    return "val" if split in ("validate", "validation") else split


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
            try:
                inside = sorted(path / e.name for e in os.scandir(path) if e.name.endswith(".csv"))
            except OSError as error:
                raise UserError(f"the folder {path} cannot be read: {error.strerror}") from error
            if not inside:
                raise UserError(
                    f"no list (*.csv) in the folder {path}: put the lists there,"
                    " or name one with --input_csv"
                )
            found += inside
        elif os.path.exists(path):
            found.append(path)
        else:
            raise UserError(f"list {path} does not exist: name a .csv file or a folder of them")
    return list(dict.fromkeys(found))


def read_lists(
    paths: Sequence[Path],
    selection: Selection = Selection(),
    trim_format: str = "%06d",
    tell: Callable[[str], None] | None = None,
) -> ClipLists:
    """Every wanted clip of the lists, once. Raises UserError for a file that is no list.

    `tell` is given a line when it takes longer than people wait in silence. Reading ends where the
    limit is reached.
    """
    lists, telling = ClipLists(), _Telling(tell)
    with without_garbage_collection():
        for path in paths:
            _add_rows(lists, path, selection, trim_format, telling)
            if lists.is_cut_short:
                break
    return lists


class _Telling:
    """Says how far the reading has come: after two seconds, and then now and again."""

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        self._tell = tell
        self._due = time.monotonic() + TELL_AFTER

    def tick(self, lists: ClipLists) -> None:
        """Look at the clock, and at what must stay within bounds. Raises UserError."""
        if self._tell is not None and time.monotonic() > self._due:
            self._due = time.monotonic() + TELL_EVERY
            self._tell(f"reading the lists: {lists.rows:,} rows, {len(lists.clips):,} clips so far")
        if len(lists.clips) > MAX_CLIPS:
            raise UserError(
                f"the lists hold more than {MAX_CLIPS:,} clips, and all of Kinetics has 650,000:"
                " narrow them with --limit, --shard, --split or --label"
            )


def _add_rows(
    lists: ClipLists, path: Path, selection: Selection, trim_format: str, telling: _Telling
) -> None:
    clips, narrows, limit = lists.clips, selection.narrows, selection.limit
    for line, row, values in every_row(path, trim_format):
        if not lists.rows & 0xFFFF:
            telling.tick(lists)
        if len(clips) == limit:
            lists.is_cut_short = True
            break
        lists.rows += 1
        if isinstance(values, Refused):
            lists.refuse(values)
            continue
        clip = Clip._make(values)
        if narrows:
            lists.labels_seen.add(clip.label)
            lists.splits_seen.add(clip.split)
            if not selection.wants(clip):
                lists.not_wanted += 1
                continue
        known = clips.setdefault(clip.name, clip)
        if known is not clip and (problem := _compare(lists, known, clip)):
            lists.refuse(_refused(path, line, row, problem))
    lists.labels_seen.discard("")
    lists.splits_seen.discard("")


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


def _compare(lists: ClipLists, known: Clip, clip: Clip) -> str:
    """A second row for a name: why it is refused, or nothing where it is the same clip."""
    if (known.time_start, known.time_end) != (clip.time_start, clip.time_end) and (
        clip_window(known) != clip_window(clip)
    ):
        return f"its file name {clip.name} is that of another window: give a finer --trim_format"
    if clip.label and known.label and clip.label != known.label:
        lists.relabelled += 1
    return ""


def list_rows(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """(youtube_id, time_start, time_end, label) of every row, as text and unchecked.

    Raises UserError for a file that is no list.
    """
    rows = _fields(path)
    columns = _read_header(path, *next(rows, (1, [], "")))
    places = [columns.index(name) for name in REQUIRED]
    label_at = columns.index("label") if "label" in columns else -1
    for _, row, problem in rows:
        if not problem and len(row) == len(columns):
            youtube_id, start, end = (row[at] for at in places)
            yield youtube_id, start, end, row[label_at] if label_at >= 0 else ""


def every_row(
    path: Path, trim_format: str = "%06d"
) -> Iterator[tuple[int, list[str], Values | Refused]]:
    """(line, fields, values of the clip) of every row, also repeats; `Refused` where it is none.

    Each of the times, labels and splits, which repeat, is checked and kept once; and no `Clip` is
    made, for not everybody needs one. Raises UserError for a file that is no list.
    """
    rows = _fields(path)
    columns = _read_header(path, *next(rows, (1, [], "")))
    width, at = len(columns), {name: i for i, name in enumerate(columns)}
    id_at, start_at, end_at = (at[name] for name in REQUIRED)
    label_at, split_at = at.get("label", -1), at.get("split", -1)
    other = [(i, name) for name, i in at.items() if name not in COLUMNS.values()]
    times, texts = _Times(trim_format), {"": ""}
    extras: dict[Extra, Extra] = {(): ()}
    for line, row, problem in rows:
        if not problem and len(row) != width:
            problem = f"{len(row)} columns where the header has {width}"
        if not problem:
            youtube_id = row[id_at]
            start, start_name = times[row[start_at]]
            end, end_name = times[row[end_at]]
            problem = _problem(youtube_id, start, end)
        if problem:
            yield line, row, _refused(path, line, row, problem)
            continue
        label = texts.setdefault(row[label_at], row[label_at]) if label_at >= 0 else ""
        split = texts.setdefault(row[split_at], row[split_at]) if split_at >= 0 else ""
        extra: Extra = tuple([(name, row[i]) for i, name in other]) if other else ()
        if end == AVA_TIME_END:
            name = clip_name(youtube_id, start, end, trim_format)
        else:
            name = f"{youtube_id}_{start_name}_{end_name}"
        extra = extras.setdefault(extra, extra)
        yield line, row, (name, youtube_id, start, end, label, split, extra)


def _refused(path: Path, line: int, row: Sequence[str], problem: str) -> Refused:
    return Refused(path, line, printable(",".join(row)), problem)


class _Times(dict[str, tuple[float, str]]):
    """text of a time -> (seconds, its part of a file's name); (nan, "") for what is no time."""

    def __init__(self, trim_format: str) -> None:
        super().__init__()
        self.trim_format = trim_format

    def __missing__(self, text: str) -> tuple[float, str]:
        # Exponents, `nan` and `inf` are no times: the pattern has none of them.
        if TIME_PATTERN.fullmatch(text):
            self[text] = (float(text), self.trim_format % float(text))
        else:
            self[text] = (math.nan, "")
        return self[text]


def _fields(path: Path) -> Iterator[tuple[int, list[str], str]]:
    """(line number, fields, problem) of every line that is not blank.

    Line by line, and not with one csv.reader over the file: a single stray quote would swallow
    every row up to the next one, and the line numbers with them. No list has a field of two lines.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, raw in enumerate(iter(partial(file.readline, MAX_LINE), ""), 1):
                if len(raw) == MAX_LINE:
                    raise UserError(f"{path}:{number}: a line without end: this is not a list")
                text = raw.rstrip("\r\n")
                if not text or text.isspace():
                    continue
                row, problem = [text], ""
                if '"' in text:
                    try:
                        row = next(csv.reader([text], strict=True))
                    except csv.Error as error:
                        problem = f"not a CSV row ({error})"
                else:
                    row = text.split(",")
                # Labels hold spaces; only space beside a comma or at an end is no part of a field.
                if ", " in text or " ," in text or "\t" in text or text != text.strip():
                    row = [part.strip() for part in row]
                yield number, row, problem
    except UnicodeDecodeError as error:
        raise UserError(f"list {path} is not UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"list {path} cannot be read: {error.strerror}") from error


def _read_header(path: Path, line: int, header: list[str], problem: str) -> list[str]:
    columns = [COLUMNS.get(name.lower(), name.lower()) for name in header]
    missing = [name for name in REQUIRED if name not in columns]
    if not header or problem:
        raise UserError(f"list {path} is {problem or 'empty'}: it needs a header line and rows")
    if missing and looks_like_annotations(header):
        raise UserError(
            f"{path}:{line}: this is an AVA-Kinetics annotation file, not a list: make the list"
            " from it with make_ava_kin_download_csv.py, and give that one"
        )
    if missing:
        raise UserError(
            f"{path}:{line}: the header has no {', '.join(missing)}: it reads"
            f" {printable(','.join(header))}; needed are youtube_id,time_start,time_end"
        )
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise UserError(f"{path}:{line}: the header names {twice[0]} twice")
    return columns


def looks_like_annotations(row: Sequence[str]) -> bool:
    """Whether a first line is data of the AVA-Kinetics annotations: `id,timestamp[,...]`."""
    return (
        len(row) in (2, 7)
        and ID_PATTERN.fullmatch(row[0]) is not None
        and TIME_PATTERN.fullmatch(row[1]) is not None
    )


def _problem(youtube_id: str, start: float, end: float) -> str:
    """Why a row is no clip; empty if it is one."""
    if ID_PATTERN.fullmatch(youtube_id) is None:
        return "youtube_id is not 11 of A-Z a-z 0-9 _ -"
    if 0 <= start <= MAX_TIME and (start < end <= MAX_TIME or end == AVA_TIME_END):
        return ""
    if math.isnan(start) or math.isnan(end):
        return "time_start or time_end is not a number"
    if start < 0 or start > MAX_TIME or end > MAX_TIME:
        return f"a time is not within 0 and {MAX_TIME:.0f} seconds"
    return "time_end is not after time_start"
