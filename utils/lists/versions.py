"""Define the Kinetics versions and their lists, and join classes of several versions by name."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from utils.errors import ROOT, UserError
from utils.files import read_text, telling

if TYPE_CHECKING:
    from utils.lists.reading import ClipLists

LISTS_FOLDER = Path("kinetics_csv")  # in the current folder; some lists come with the suite
CLASSES = {"400": 400, "600": 600, "700": 700, "700_2020": 700}  # of each version, oldest first
_NAMED = re.compile(r"(?:kinetics|k)[-_ ]?(400|600|700(?:[-_]2020)?)(?![0-9])", re.IGNORECASE)
_SPLIT = re.compile(r"(?:(.*?)[-_. ])?(train|val|validate|validation|test)", re.IGNORECASE)

Part = tuple[str, str]  # (version, split)


class OfficialList(NamedTuple):
    """One of the twelve official lists. `split` is train, val or test."""

    dataset: str  # 400, 600, 700 or 700_2020
    split: str

    @property
    def name(self) -> str:
        return f"kinetics-{self.dataset}_{self.split}"

    def path(self, folder: Path) -> Path:
        """Return the list's file in a folder, or where it should be.

        It may be packed. What LISTS_FOLDER lacks is looked for next to the scripts, too.
        """
        plain = folder / f"{self.name}.csv"
        packed = folder / f"{self.name}.csv.gz"
        paths = [plain, packed, *([ROOT / packed] if folder == LISTS_FOLDER else [])]
        return next((path for path in paths if path.exists()), plain)


# The rows of each list: val and test as counted, train as the papers and mirrors give it.
ROWS = {
    OfficialList("400", "train"): 246_534,
    OfficialList("400", "val"): 19_906,
    OfficialList("400", "test"): 38_685,
    OfficialList("600", "train"): 392_622,
    OfficialList("600", "val"): 30_000,
    OfficialList("600", "test"): 72_924,
    OfficialList("700", "train"): 545_317,
    OfficialList("700", "val"): 35_000,
    OfficialList("700", "test"): 70_000,
    OfficialList("700_2020", "train"): 545_793,
    OfficialList("700_2020", "val"): 34_198,
    OfficialList("700_2020", "test"): 67_767,
}


def official_list(name: str) -> OfficialList | None:
    """Return the official list of a name, or of a file's name; None if there is none."""
    name = name.removesuffix(".gz").removesuffix(".csv")
    return next((each for each in ROWS if each.name == name), None)


@dataclass(frozen=True, eq=False)  # rows refer to it: compared and hashed by identity
class ListFile:
    """A list: its version, the split in its name, and the form it was read in."""

    path: Path
    version: str
    split: str
    form: str = ""
    several_labels: bool = False  # a row may have several, with commas between

    def labels_in(self, label: str) -> list[str]:
        """Return the labels in a field of the list: none, one, or several."""
        parts = label.split(",") if self.several_labels else [label]
        return [part for each in parts if (part := each.strip())]


def same_split(split: str) -> str:
    """Return one name for a split: `val` also for `validate`, `train` also for `training`."""
    split = split.strip().lower()
    if split in ("valid", "validate", "validation"):
        return "val"
    return split.removesuffix("ing") if split in ("training", "testing") else split


def list_file(path: Path, form: str = "", several_labels: bool = False) -> ListFile:
    """Return what a list's name says: `kinetics-700_2020_val.csv` is the split val of 700_2020.

    Any name with `kinetics-400`, `k400` and the like is of that version. The version of another
    list is its name without the split, and that of a bare `train.csv` the name of its folder.
    """
    stem = re.sub(r"(\.(csv|tsv|txt|json|jsonl))?(\.gz)?$", "", path.name)
    found = _SPLIT.fullmatch(stem)
    rest, split = (found[1] or "", same_split(found[2])) if found else (stem, "")
    rest = rest or path.absolute().parent.name
    named = _NAMED.search(rest)
    version = named[1].replace("-", "_") if named else rest
    return ListFile(path, version, split, form, several_labels)


def parts_of_videos(lists: ClipLists) -> dict[str, tuple[Part, ...]]:
    """Return YouTube id -> the parts that name it, in the order of the parts' first rows."""
    order: dict[Part, int] = {}
    videos: dict[str, tuple[Part, ...]] = {}

    @cache  # a set for each of half a million videos would take 200 bytes
    def with_part(parts: tuple[Part, ...], part: Part) -> tuple[Part, ...]:
        return tuple(sorted({*parts, part}, key=order.__getitem__))

    for clip, part in zip(lists.every, lists.parts(), strict=True):
        order.setdefault(part, len(order))
        videos[clip.youtube_id] = with_part(videos.get(clip.youtube_id, ()), part)
    return videos


def shared_videos(lists: ClipLists) -> dict[tuple[Part, Part], int]:
    """Return the number of videos that each two parts share, for those that share any.

    Parts of one split of two versions are pairs, too: the val lists of 400 and 600 share 13,569
    videos (and 13,566 clips).
    """
    shared: Counter[tuple[Part, Part]] = Counter()
    for parts, count in Counter(parts_of_videos(lists).values()).items():
        for pair in combinations(parts, 2):
            shared[pair] += count
    return dict(shared)


@dataclass(frozen=True)
class Rename:
    """A class that a newer version has under another name."""

    old: str
    new: str
    videos: int  # in the val lists of both versions: all of them have the new label in the newer


# Compared in the val lists of 400, 600 and 700_2020: a class is here if every video of it that the
# newer val list has, too, has this one label there, and no second class took some of them.
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

    `joined`: the other spellings of older versions; `renamed`: the renames used.
    """

    names: tuple[str, ...]
    numbers: Mapping[str, int]  # `same_name` of a label -> its number
    joined: tuple[tuple[str, str], ...] = ()
    renamed: tuple[Rename, ...] = ()
    unclear: frozenset[str] = frozenset()  # `same_name` of classes that differ in punctuation alone

    def number(self, label: str) -> int | None:
        """Return the number of a label, however a list spells it; None if it is not a class."""
        return self.numbers.get(_key(label, self.unclear))


def same_name(label: str) -> str:
    """Return a label without case, blanks and punctuation: equal for one class."""
    kept = (c for c in label.casefold() if c.isalnum() or unicodedata.category(c)[0] == "M")
    return "".join(kept) or label


def _folded(label: str) -> str:
    return " ".join(label.casefold().split())


def _key(label: str, unclear: Container[str]) -> str:
    """Return `same_name`, or more of the label if a version has two such (`c` and `c#`)."""
    key = same_name(label)
    return _folded(label) if key in unclear else key


def join_classes(labels: Mapping[str, Iterable[str]]) -> Classes:
    """Return the classes of versions, numbered by sorted name, in the newest spelling.

    labels: version, oldest first -> the labels of all its rows, also of clips that are not on disk.
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
    """Return `classes` in the order of a file with one name per line.

    Lines may be `12 abseiling` or `abseiling,12`, with numbers from 0. Raises UserError if a class
    is missing.
    """
    with telling(path):
        names = [name for line in read_text(path).splitlines() if (name := line.strip())]
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
        many = f"{len(missing)} of {len(classes.names)} classes of the lists"
        raise UserError(f"--classes {path} lacks {missing[0]!r} ({many})")
    return Classes(tuple(names), numbers, classes.joined, classes.renamed, classes.unclear)


def _numbered(line: str, number: int) -> str:
    """Return the name on a line that also has its number; "" if it does not."""
    if line.endswith(f",{number}"):
        return line.rpartition(",")[0].strip().strip('"')
    first, _, rest = line.partition(" ")
    return rest.strip() if first == str(number) else ""
