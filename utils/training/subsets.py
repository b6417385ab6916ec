"""Smaller sets: by split, by label, so many a class, a part of all; the same for the same seed.

After `there`: only clips that are on disk are drawn, so that one that is gone is replaced.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
from collections.abc import Iterable, Sequence

from utils.errors import UserError
from utils.lists.classes import Classes
from utils.lists.reading import same_split
from utils.training.choosing import SPLITS, Choice, Reason


def select(choice: Choice, splits: Sequence[str], labels: Sequence[str]) -> None:
    """Keep only these splits and labels. Raises UserError for one that there is not."""
    wanted = {same_split(split) for split in splits}
    if unknown := wanted - set(choice.splits):
        raise UserError(f"--split {sorted(unknown)[0]} is in no list")
    numbers = {_number(choice.classes, label) for label in labels}
    for at in list(choice.chosen()):
        other_split = wanted and choice.splits[at] not in wanted
        if other_split or (numbers and choice.numbers[at] not in numbers):
            choice.drop(at, Reason.NOT_SELECTED)


def _number(classes: Classes, label: str) -> int:
    number = classes.number(label)
    if number is None:
        near = difflib.get_close_matches(label, classes.names, n=3) or classes.names[:3]
        raise UserError(f"--label {label!r} is in no list; there are {', '.join(near)}")
    return number


def draw(choice: Choice, per_class: int | None, fraction: float | None, seed: int) -> None:
    """Keep of each split at most `per_class` clips of a class, or a part of each class.

    Clips are ranked by a hash of seed and name: a clip more or less changes no other's place.
    A fraction is rounded, to at least one clip a class.
    """
    if per_class is None and fraction is None:
        return
    for split in SPLITS:
        by_class: dict[int, list[int]] = {}
        for at in choice.chosen(split):
            by_class.setdefault(choice.numbers[at], []).append(at)
        for group in by_class.values():
            keep = per_class if per_class is not None else len(group)
            if fraction is not None:
                keep = min(keep, max(1, round(fraction * len(group))))
            for at in shuffled(choice, group, seed)[keep:]:
                choice.drop(at, Reason.NOT_SELECTED)


def shuffled(choice: Choice, rows: Iterable[int], seed: int) -> list[int]:
    """The rows in an order that hangs on the seed and on their clips' names alone."""
    names = choice.rows.names

    def rank(at: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{names[at]}".encode(), digest_size=8).digest()

    return sorted(rows, key=rank)


def fraction(text: str) -> float:
    """An argparse type: a part, above 0 and up to 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a part above 0 and up to 1, such as 0.1")
    return value
