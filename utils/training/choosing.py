"""Which rows of the lists come into a training list, and why the others do not.

First in the room: rows of `lists/versions` and the classes become a `Choice`, one code a row. The
steps after it (what is on disk, subsets) only ever take rows out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import compress

from utils.errors import UserError
from utils.lists.classes import Classes
from utils.lists.versions import ID_LENGTH, Rows

TRAIN, VAL, TEST = SPLITS = ("train", "val", "test")
HOLDOUT = "holdout"  # the split of rows that --holdout names without one
NO_LABEL = -1
_IN_LIST = bytes([1]) + bytes(255)  # reasons, translated: 1 for a row that is in a list


class Reason(IntEnum):
    """Why a row is in no list; the lower-case names stand in excluded.csv."""

    IN_LIST = 0
    MISSING = 1  # not in the folder
    SHORT = 2  # below --min_seconds
    UNREADABLE = 3  # its length could not be read
    NO_FRAMES = 4  # --frames has none of it, or not all
    HELD_OUT = 5  # in train, and its video in a val or test list
    OTHER_LABEL = 6  # another row gives the clip the label that counts
    DUPLICATE = 7  # another row stands for the clip
    NO_LABEL = 8  # the format needs one
    NOT_SELECTED = 9  # by --split, --label, --per_class or --fraction

    @property
    def text(self) -> str:
        return self.name.lower()


@dataclass
class Choice:
    """What became of every wanted row; rows from `wanted` on are only held out.

    `reasons[i]` is a `Reason`, `numbers[i]` the class of row i or -1, `sizes[i]` the bytes of its
    file (of rows that are in a list). `versions`: those of the wanted rows' lists.
    `index`: clip's name -> the row that stands for it.
    """

    rows: Rows
    classes: Classes
    wanted: int
    versions: tuple[str, ...]
    splits: list[str]
    reasons: bytearray
    numbers: array[int]
    sizes: array[int]
    index: dict[str, int] = field(default_factory=dict)
    relabelled: int = 0  # clips with two labels
    without_split: int = 0  # rows that name none, taken for train
    seconds: dict[int, float] = field(default_factory=dict)  # measured, by row
    hashes: dict[int, str] = field(default_factory=dict)  # SHA-256, by row
    frames: dict[int, int] = field(default_factory=dict)  # pictures in --frames, by row

    def chosen(self, split: str | None = None) -> Iterator[int]:
        """The rows that are in a list (of `split`), in the order of the lists."""
        rows = compress(range(self.wanted), self.reasons.translate(_IN_LIST))
        if split is None:
            return rows
        splits = self.splits
        return (at for at in rows if splits[at] == split)

    def excluded(self) -> Iterator[int]:
        return (at for at, reason in enumerate(self.reasons) if reason)

    def used_splits(self) -> list[str]:
        """The splits that have a clip, in the order train, val, test."""
        found = set(compress(self.splits, self.reasons.translate(_IN_LIST)))
        return [split for split in SPLITS if split in found]

    def label(self, at: int) -> str:
        """The name of a row's class; "" if it has none."""
        number = self.numbers[at]
        return "" if number == NO_LABEL else self.classes.names[number]

    def drop(self, at: int, reason: Reason) -> None:
        self.reasons[at] = reason


def choose(rows: Rows, classes: Classes, wanted: int, versions: tuple[str, ...]) -> Choice:
    """One row a clip, none of train whose video is held out. Raises UserError for an odd split.

    Rows from `wanted` on only say which videos are held out.
    """
    splits = [split or TRAIN for split in rows.splits[:wanted]]
    known = {label: classes.number(label) for label in set(rows.labels[:wanted])}
    numbers_of = {label: NO_LABEL if n is None else n for label, n in known.items()}
    choice = Choice(
        rows,
        classes,
        wanted,
        versions,
        splits,
        bytearray(wanted),
        array("i", map(numbers_of.__getitem__, rows.labels[:wanted])),
        array("q", bytes(8 * wanted)),
        without_split=rows.splits[:wanted].count(""),
    )
    if odd := set(splits) - set(SPLITS):
        at = next(at for at, split in enumerate(splits) if split in odd)
        path = rows.lists[rows.list_at[at]].path
        raise UserError(
            f"{path}:{rows.lines[at]}: the split {splits[at]!r} is not train, val or test"
        )
    _hold_out(choice)
    _one_row_a_clip(choice)
    return choice


def _hold_out(choice: Choice) -> None:
    rows = choice.rows
    held = {
        name[:ID_LENGTH]
        for name, split in zip(rows.names, rows.splits, strict=True)
        if split and split != TRAIN
    }
    if not held:
        return
    for at, split in enumerate(choice.splits):
        if split == TRAIN and rows.names[at][:ID_LENGTH] in held:
            choice.reasons[at] = Reason.HELD_OUT


def _one_row_a_clip(choice: Choice) -> None:
    names, index = choice.rows.names, choice.index
    repeats: dict[str, list[int]] = {}
    for at in range(choice.wanted):
        first = index.setdefault(names[at], at)
        if first != at:
            repeats.setdefault(names[at], [first]).append(at)
    versions = choice.rows.versions()
    age = [versions.index(each.version) for each in choice.rows.lists]
    for name, group in repeats.items():
        index[name] = _settle(choice, group, age)


def _settle(choice: Choice, group: Sequence[int], age: Sequence[int]) -> int:
    """Of several rows of one clip the one that stays; the others get their reason.

    Held out goes before train, val before test; then the newest version, then the first row. The
    label is that of the newest version that gives one.
    """
    rows, numbers, reasons = choice.rows, choice.numbers, choice.reasons
    newest_first = sorted(group, key=lambda at: -age[rows.list_at[at]])
    label = next((numbers[at] for at in newest_first if numbers[at] != NO_LABEL), NO_LABEL)
    left = [at for at in newest_first if not reasons[at]] or newest_first
    first = (VAL, TEST, TRAIN)
    stays = min(left, key=lambda at: first.index(choice.splits[at]))
    choice.relabelled += len({numbers[at] for at in group} - {NO_LABEL}) > 1
    for at in group:
        if at != stays and not reasons[at]:
            other = numbers[at] not in (label, NO_LABEL)
            reasons[at] = Reason.OTHER_LABEL if other else Reason.DUPLICATE
    numbers[stays] = label
    return stays
