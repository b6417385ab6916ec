"""Every row of the lists, repeats too, with the version of Kinetics that its list is of.

After `reading`, whose `read_lists` keeps each clip once. For what compares versions and splits:
training lists and the report page ask here which videos lie in several of them.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from utils.clip import Extra, Refused
from utils.lists.official import BY_NAME, ROWS
from utils.lists.reading import every_row, same_split, without_garbage_collection

OFFICIAL = tuple(dict.fromkeys(version for version, _ in ROWS))  # oldest first
_NAMED = re.compile(r"(?:kinetics|k)[-_ ]?(400|600|700(?:[-_]2020)?)(?![0-9])", re.IGNORECASE)
_SPLIT = re.compile(r"(?:(.*?)[-_. ])?(train|val|validate|validation|test)", re.IGNORECASE)
ID_LENGTH = 11

Part = tuple[str, str]  # (version, split)


@dataclass(frozen=True)
class ListFile:
    """A list: the version it is of, and the split that its name tells, if it does."""

    path: Path
    version: str
    split: str


@dataclass
class Rows:
    """The rows of lists, column by column, in the order of the lists; 130 bytes a row.

    `lists[list_at[i]]` is the file of row i, and `lines[i]` its line there. `splits` went through
    `same_split`; where a row gives none it is that of the file's name, else "". `labels` are as
    written, "" where the list has none. Times in seconds.
    """

    lists: list[ListFile] = field(default_factory=list)
    list_at: array[int] = field(default_factory=lambda: array("H"))
    lines: array[int] = field(default_factory=lambda: array("I"))
    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    starts: array[float] = field(default_factory=lambda: array("d"))
    ends: array[float] = field(default_factory=lambda: array("d"))
    extras: list[Extra] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def versions(self) -> list[str]:
        """The versions of the lists, oldest first: a list of none counts as newer, as named."""
        named = list(dict.fromkeys(each.version for each in self.lists))
        return sorted(named, key=lambda version: _age(version, named))

    def parts(self) -> Iterator[Part]:
        """(version, split) of every row."""
        versions = [each.version for each in self.lists]
        return zip((versions[at] for at in self.list_at), self.splits, strict=True)

    def labels_of_versions(self) -> dict[str, set[str]]:
        """Version, oldest first -> the labels of its rows."""
        found: dict[str, set[str]] = {version: set() for version in self.versions()}
        pairs = set(zip(self.list_at, self.labels, strict=True))
        for at, label in pairs:
            if label:
                found[self.lists[at].version].add(label)
        return found


def _age(version: str, named: Sequence[str]) -> int:
    if version in OFFICIAL:
        return OFFICIAL.index(version)
    return len(OFFICIAL) + named.index(version)


def list_file(path: Path) -> ListFile:
    """What a list's name tells: `kinetics-700_2020_val.csv` is the split val of 700_2020.

    Any name with `kinetics-400`, `k400` and the like is of that version; of another file the
    version is its name without the split, and of a bare `train.csv` its folder's name.
    """
    stem = path.name.removesuffix(".csv")
    if (official := BY_NAME.get(stem)) is not None:
        return ListFile(path, official.dataset, official.split)
    found = _SPLIT.fullmatch(stem)
    rest, split = (found[1] or "", same_split(found[2])) if found else (stem, "")
    rest = rest or path.absolute().parent.name
    named = _NAMED.search(rest)
    return ListFile(path, named[1].replace("-", "_") if named else rest, split)


def read_rows(paths: Iterable[Path], trim_format: str = "%06d", rows: Rows | None = None) -> Rows:
    """Every row of the lists, added to `rows` if given. Raises UserError for what is no list."""
    rows, paths = Rows() if rows is None else rows, list(paths)
    several = len(paths) > 1
    known: dict[str, str] = {}  # the same splits and names repeat: each is kept once
    with without_garbage_collection():
        for number, path in enumerate(paths, len(rows.lists)):
            rows.lists.append(listed := list_file(path))
            splits = {"": listed.split}
            for line, _, values in every_row(path, trim_format):
                if isinstance(values, Refused):
                    rows.refused.append(values)
                    continue
                name, _, start, end, label, split, extra = values
                if split not in splits:
                    splits[split] = known.setdefault(same_split(split), same_split(split))
                rows.list_at.append(number)
                rows.lines.append(line)
                rows.names.append(known.setdefault(name, name) if several else name)
                rows.labels.append(label)
                rows.splits.append(splits[split])
                rows.starts.append(start)
                rows.ends.append(end)
                rows.extras.append(extra)
    return rows


def parts_of_videos(rows: Rows) -> tuple[dict[str, int], list[Part]]:
    """YouTube id -> the set of parts that name it, as bits; bit n stands for the nth part.

    Bits, for a set an id would take 200 bytes, and there are half a million.
    """
    numbers: dict[Part, int] = {}
    videos: dict[str, int] = {}
    for name, part in zip(rows.names, rows.parts(), strict=True):
        if part not in numbers:
            numbers[part] = len(numbers)
        video = name[:ID_LENGTH]
        videos[video] = videos.get(video, 0) | 1 << numbers[part]
    return videos, list(numbers)


def shared_videos(rows: Rows) -> dict[tuple[Part, Part], int]:
    """How many videos each two parts share, for those that share any.

    The parts of a pair in the order of their first rows. Parts of one split of two versions are
    pairs too: the val lists of 400 and 600 share 13,569 videos (and 13,566 clips).
    """
    videos, parts = parts_of_videos(rows)
    shared: Counter[tuple[Part, Part]] = Counter()
    for bits, count in Counter(videos.values()).items():
        inside = [part for number, part in enumerate(parts) if bits >> number & 1]
        for pair in combinations(inside, 2):
            shared[pair] += count
    return dict(shared)
