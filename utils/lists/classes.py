"""The classes of one or several versions, joined by name, and the table of renames.

After `versions`. One class has one name here, whatever case, blanks and punctuation a list wrote.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

CLASSES = {"400": 400, "600": 600, "700": 700, "700_2020": 700}  # how many each version has


@dataclass(frozen=True)
class Rename:
    """A class that a newer version has under another name."""

    old: str
    new: str
    videos: int  # that the val lists of both versions have: all of them moved so


# Held against the val lists of 400, 600 and 700_2020: a class stands here when every video of it
# that the newer val list holds too has this one label there, and no second class took a part.
# Not joined: `hugging`, now `hugging (not baby)` and `hugging baby`; `opening bottle`, now the one
# `(not wine)` and `opening wine bottle`; `picking fruit`, now `picking apples` and `blueberries`.
# `baby waking up` is `waking up` in 600, and both are in 700; `digging` went and came back.
RENAMES = (
    Rename("balloon blowing", "inflating balloons", 33),
    Rename("changing wheel", "changing wheel (not on bike)", 25),
    Rename("cooking sausages", "cooking sausages (not on barbeque)", 30),
    Rename("dying hair", "dyeing hair", 30),
    Rename("garbage collecting", "person collecting garbage", 27),
    Rename("making bed", "making the bed", 22),
    Rename("throwing ball", "throwing ball (not baseball or American football)", 43),
    Rename("tying tie", "tying necktie", 20),
)


@dataclass(frozen=True)
class Classes:
    """All classes of the versions named. `names` are in the order of their numbers, from 0.

    `joined`: names of older versions that are spelled otherwise; `renamed`: the renames used.
    """

    names: tuple[str, ...]
    numbers: Mapping[str, int]  # `same_name` of a label -> its number
    joined: tuple[tuple[str, str], ...] = ()
    renamed: tuple[Rename, ...] = ()
    unclear: frozenset[str] = frozenset()  # `same_name` of classes that differ in punctuation alone

    def number(self, label: str) -> int | None:
        """The number of a label, however a list spells it; None for one that is no class."""
        return self.numbers.get(_key(label, self.unclear))


def same_name(label: str) -> str:
    """What is left of a label without case, blanks and punctuation: equal for one class."""
    kept = (c for c in label.casefold() if c.isalnum() or unicodedata.category(c)[0] == "M")
    return "".join(kept) or label


def _folded(label: str) -> str:
    return " ".join(label.casefold().split())


def _key(label: str, unclear: Container[str]) -> str:
    """`same_name`, but where one version has two classes of that (`c` and `c#`)."""
    key = same_name(label)
    return _folded(label) if key in unclear else key


def join_classes(labels: Mapping[str, Iterable[str]]) -> Classes:
    """The classes of versions, oldest first, numbered by sorted name. The newest spelling counts.

    labels: version -> the labels of all its rows, also of those that are not there.
    """
    unclear = frozenset(
        key
        for names in labels.values()
        for key, count in Counter(map(same_name, {*map(_folded, names)})).items()
        if count > 1
    )
    spelled: dict[str, str] = {}
    joined: dict[str, str] = {}
    for names in labels.values():
        for name in sorted(names):
            key = _key(name, unclear)
            before = spelled.get(key, name)
            if before != name:
                joined[before] = name
            spelled[key] = name
    renamed = [
        each
        for each in RENAMES
        if len(labels) > 1 and same_name(each.old) in spelled and same_name(each.new) in spelled
    ]
    goes_to = {same_name(each.old): same_name(each.new) for each in renamed}
    names = sorted(name for key, name in spelled.items() if key not in goes_to)
    numbers = {_key(name, unclear): number for number, name in enumerate(names)}
    numbers |= {old: numbers[new] for old, new in goes_to.items()}
    return Classes(tuple(names), numbers, tuple(joined.items()), tuple(renamed), unclear)


def read_classes(path: Path, classes: Classes) -> Classes:
    """`classes` in the order of a file of one name a line. Raises UserError where one lacks.

    A line `12 abseiling` or `abseiling,12` is read, too, if its numbers rise from 0.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--classes {path} cannot be read: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if names and all(_numbered(name, n) for n, name in enumerate(names)):
        names = [_numbered(name, n) for n, name in enumerate(names)]
    numbers: dict[str, int] = {}
    for line, name in enumerate(names):
        if numbers.setdefault(_key(name, classes.unclear), line) != line:
            raise UserError(f"--classes {path}: {name!r} stands there twice")
    for each in classes.renamed:
        if same_name(each.old) in numbers:
            raise UserError(f"--classes {path} has {each.old!r}, which is {each.new!r} now")
        numbers.setdefault(same_name(each.old), numbers.get(same_name(each.new), -1))
    missing = [name for name in classes.names if _key(name, classes.unclear) not in numbers]
    if missing:
        raise UserError(
            f"--classes {path} lacks {missing[0]!r}"
            + (f" and {len(missing) - 1} more classes of the lists" if missing[1:] else "")
        )
    return Classes(tuple(names), numbers, classes.joined, classes.renamed, classes.unclear)


def _numbered(line: str, number: int) -> str:
    """The name on a line that also carries its number; "" if it does not."""
    if line.endswith(f",{number}"):
        return line.rpartition(",")[0].strip().strip('"')
    first, _, rest = line.partition(" ")
    return rest.strip() if first == str(number) else ""
