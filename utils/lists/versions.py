"""Define the Kinetics versions and their lists, and join classes of several versions by name."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.files import read_text

if TYPE_CHECKING:
    from utils.lists.reading import ClipLists

# The rows of each list: val and test as counted, train as the papers and mirrors give it.
ROWS = {
    ("400", "train"): 246_534,
    ("400", "val"): 19_906,
    ("400", "test"): 38_685,
    ("600", "train"): 392_622,
    ("600", "val"): 30_000,
    ("600", "test"): 72_924,
    ("700", "train"): 545_317,
    ("700", "val"): 35_000,
    ("700", "test"): 70_000,
    ("700_2020", "train"): 545_793,
    ("700_2020", "val"): 34_198,
    ("700_2020", "test"): 67_767,
}


@dataclass(frozen=True)
class OfficialList:
    """One of the twelve lists. `split` is train, val or test."""

    dataset: str  # 400, 600, 700 or 700_2020
    split: str

    @property
    def name(self) -> str:
        return f"kinetics-{self.dataset}_{self.split}"

    @property
    def archive(self) -> str:
        """DeepMind's archive that holds it."""
        return f"kinetics{self.dataset}.tar.gz"

    @property
    def file(self) -> str | None:
        """CVDF's file of it; there is none of Kinetics-700."""
        # K600's train.csv and val.csv there are incomplete.
        suffix = "txt" if self.dataset == "600" and self.split != "test" else "csv"
        return (
            None if self.dataset == "700" else f"{self.dataset}/annotations/{self.split}.{suffix}"
        )

    def path(self, folder: Path) -> Path:
        """Its file in a folder: packed, if it lies there so, as those that come with the suite."""
        packed = folder / f"{self.name}.csv.gz"
        plain = folder / f"{self.name}.csv"
        return packed if packed.exists() and not plain.exists() else plain


ALL_LISTS = tuple(OfficialList(dataset, split) for dataset, split in ROWS)
BY_NAME = {each.name: each for each in ALL_LISTS}
OFFICIAL = tuple(dict.fromkeys(version for version, _ in ROWS))  # oldest first
_NAMED = re.compile(r"(?:kinetics|k)[-_ ]?(400|600|700(?:[-_]2020)?)(?![0-9])", re.IGNORECASE)
_SPLIT = re.compile(r"(?:(.*?)[-_. ])?(train|val|validate|validation|test)", re.IGNORECASE)

Part = tuple[str, str]  # (version, split)


@dataclass(frozen=True)
class ListFile:
    """A list: the version it is of, the split that its name tells, and the form it was read in."""

    path: Path
    version: str
    split: str
    form: str = ""
    several_labels: bool = False  # a label is several, with commas between

    def labels_in(self, label: str) -> list[str]:
        """The labels in a field of the list: none, one, or several."""
        parts = label.split(",") if self.several_labels else [label]
        return [part for each in parts if (part := each.strip())]


def same_split(split: str) -> str:
    """`val`, `validate` and `validation` are one split, as are `train` and `training`."""
    split = split.strip().lower()
    if split in ("valid", "validate", "validation"):
        return "val"
    return split.removesuffix("ing") if split in ("training", "testing") else split


def age_of(version: str, named: Sequence[str]) -> int:
    """A number that rises from older versions to newer ones, and then as they are named."""
    if version in OFFICIAL:
        return OFFICIAL.index(version)
    return len(OFFICIAL) + named.index(version)


def list_file(path: Path, form: str = "", several_labels: bool = False) -> ListFile:
    """What a list's name tells: `kinetics-700_2020_val.csv` is the split val of 700_2020.

    Any name with `kinetics-400`, `k400` and the like is of that version; of another file the
    version is its name without the split, and of a bare `train.csv` its folder's name.
    """
    stem = re.sub(r"(\.(csv|tsv|txt|json|jsonl))?(\.gz)?$", "", path.name)
    if (official := BY_NAME.get(stem)) is not None:
        return ListFile(path, official.dataset, official.split, form, several_labels)
    found = _SPLIT.fullmatch(stem)
    rest, split = (found[1] or "", same_split(found[2])) if found else (stem, "")
    rest = rest or path.absolute().parent.name
    named = _NAMED.search(rest)
    version = named[1].replace("-", "_") if named else rest
    return ListFile(path, version, split, form, several_labels)


def parts_of_videos(lists: ClipLists) -> tuple[dict[str, int], list[Part]]:
    """YouTube id -> the set of parts that name it, as bits; bit n stands for the nth part.

    Bits, for a set an id would take 200 bytes, and there are half a million.
    """
    numbers: dict[Part, int] = {}
    videos: dict[str, int] = {}
    for clip, part in zip(lists.every, lists.parts(), strict=True):
        if part not in numbers:
            numbers[part] = len(numbers)
        video = clip.youtube_id
        videos[video] = videos.get(video, 0) | 1 << numbers[part]
    return videos, list(numbers)


def shared_videos(lists: ClipLists) -> dict[tuple[Part, Part], int]:
    """How many videos each two parts share, for those that share any.

    The parts of a pair in the order of their first rows. Parts of one split of two versions are
    pairs too: the val lists of 400 and 600 share 13,569 videos (and 13,566 clips).
    """
    videos, parts = parts_of_videos(lists)
    shared: Counter[tuple[Part, Part]] = Counter()
    for bits, count in Counter(videos.values()).items():
        inside = [part for number, part in enumerate(parts) if bits >> number & 1]
        for pair in combinations(inside, 2):
            shared[pair] += count
    return dict(shared)


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


def ordered_classes(path: Path, classes: Classes) -> Classes:
    """`classes` in the order of a file of one name a line. Raises UserError where one lacks.

    A line `12 abseiling` or `abseiling,12` is read, too, if its numbers rise from 0.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"--classes {path} cannot be read: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if names and all(_numbered(name, n) for n, name in enumerate(names)):
        names = [_numbered(name, n) for n, name in enumerate(names)]
    numbers: dict[str, int] = {}
    for line, name in enumerate(names):
        if numbers.setdefault(_key(name, classes.unclear), line) != line:
            raise UserError(f"--classes {path}: {name!r} appears twice")
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
