"""The official lists: which there are, under which names, and which of them are wanted.

Before `lists/fetching`, which gets those that are not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEEPMIND = "https://storage.googleapis.com/deepmind-media/Datasets/"
CVDF = "https://s3.amazonaws.com/kinetics/"
LISTS_FOLDER = Path("kinetics_csv")
AVA_ARCHIVE = "ava_kinetics_v1_0.tar.gz"
UNFINISHED = ".unfinished"

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
# A part of the known rows by which a list may differ: mirrors leave out what is gone. The known
# train lists differ between servers by a tenth.
MAY_DIFFER = {"train": 0.25, "val": 0.1, "test": 0.1}


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
        return folder / f"{self.name}.csv"


ALL_LISTS = tuple(OfficialList(dataset, split) for dataset, split in ROWS)
BY_NAME = {each.name: each for each in ALL_LISTS}


@dataclass(frozen=True)
class Needed:
    """What --input_csv asks for: the paths to read, and the lists to fetch first."""

    paths: tuple[Path, ...]
    missing: tuple[tuple[OfficialList, Path], ...]  # with the folder that each goes to
    whole: tuple[Path, ...]  # folders that get all lists


def needed_lists(given: Sequence[Path]) -> Needed:
    """Which lists have to be fetched before `given` can be read.

    A name of an official list, with or without folder and .csv, stands for that list; an empty
    kinetics_csv/ for all of them.
    """
    paths: list[Path] = []
    missing: list[tuple[OfficialList, Path]] = []
    whole: list[Path] = []
    for path in given:
        if path.name == LISTS_FOLDER.name and (path.is_dir() or not path.exists()):
            if (path / UNFINISHED).exists() or not any(path.glob("*.csv")):
                missing += [(each, path) for each in ALL_LISTS if not each.path(path).exists()]
                whole.append(path)
            paths.append(path)
            continue
        wanted = BY_NAME.get(path.name.removesuffix(".csv"))
        if wanted is None or path.exists():
            paths.append(path)
            continue
        folder = LISTS_FOLDER if path.parent == Path(".") else path.parent
        paths.append(wanted.path(folder))
        if not wanted.path(folder).exists():
            missing.append((wanted, folder))
    return Needed(tuple(paths), tuple(dict.fromkeys(missing)), tuple(whole))
