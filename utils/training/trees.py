"""Folders of links to the clips: one flat one (--link_dir), or split/class/clip for torchvision.

No byte is copied: a hard link, or a symbolic one where the disk has none. Links of an earlier run
that no longer belong are removed, and nothing else ever is.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from utils.errors import UserError
from utils.files import make_folder
from utils.lists.classes import Classes
from utils.process import sleep
from utils.training.choosing import SPLITS
from utils.training.job import Job, write_lines
from utils.training.there import SUFFIX

LEFT_OUT = str.maketrans({" ": "_", "'": None, "(": None, ")": None})
METADATA = ("file_name", "label", "number", "clip", "youtube_id")


def class_folder(label: str) -> str:
    """A class's folder, named as torchvision.datasets.Kinetics names it; "_" for an odd one."""
    folder = label.translate(LEFT_OUT).replace("/", "_").replace("\0", "_")
    return folder if folder.strip(".") else "_"


def class_folders(classes: Classes) -> list[str]:
    """The folders of all classes, by number. Raises UserError where two would share one."""
    folders = [class_folder(name) for name in classes.names]
    seen: dict[str, str] = {}
    for name, folder in zip(classes.names, folders, strict=True):
        if seen.setdefault(folder, name) != name:
            raise UserError(f"the classes {seen[folder]!r} and {name!r} would share {folder}/")
    return folders


def torchvision(job: Job) -> list[Path]:
    """`<split>/<class>/<clip>.mp4`. torchvision numbers the folders that it finds, sorted."""
    folders = class_folders(job.choice.classes)
    written = []
    for split in job.choice.used_splits():
        make_tree(job, split, _tree(job, split, folders))
        written.append(job.out / split)
        found = {folders[job.choice.numbers[at]] for at in job.choice.chosen(split)}
        if sorted(found) != folders:
            job.tell(
                f"note         torchvision numbers the {len(found):,} class folders of {split}/ by"
                " their names: its numbers are not those of classes.txt"
            )
    drop_other_splits(job)
    return written


def huggingface(job: Job) -> list[Path]:
    """The same tree, with `<split>/metadata.csv`; clips without a label stand beside it."""
    folders = class_folders(job.choice.classes)
    written = []
    for split in job.choice.used_splits():
        tree = _tree(job, split, folders)
        make_tree(job, split, tree)
        lines = _metadata(job, [name for name in tree if tree[name] not in job.gone])
        written.append(write_lines(job, f"{split}/metadata.csv", lines))
    drop_other_splits(job)
    return written


def _tree(job: Job, split: str, folders: list[str]) -> dict[str, str]:
    """Where each link goes, below the split's folder -> the clip."""
    choice, names = job.choice, job.choice.rows.names
    tree = {}
    for at in choice.chosen(split):
        number = choice.numbers[at]
        folder = f"{folders[number]}/" if number >= 0 else ""
        tree[f"{folder}{names[at]}{SUFFIX}"] = names[at]
    return tree


def _metadata(job: Job, files: Iterable[str]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(METADATA)
    choice = job.choice
    for file_name in files:
        name = file_name.rpartition("/")[2].removesuffix(SUFFIX)
        at = choice.index[name]
        number = choice.numbers[at]
        writer.writerow(
            [file_name, choice.label(at), "" if number < 0 else number, name, name[:11]]
        )
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def make_tree(job: Job, folder: str, tree: Mapping[str, str]) -> None:
    """Make `<out>/<folder>` hold these links and no other of ours. Raises UserError, Stopped.

    A clip that is gone by now is added to `job.gone`.
    """
    base = job.out / folder
    _drop_stale(job, base, tree)  # and folders that are empty then
    for below in sorted({name.rpartition("/")[0] for name in tree}):
        make_folder(base / below)
    for number, (name, clip) in enumerate(tree.items()):
        if number % 1024 == 0:
            sleep(0)
        try:
            link(job.clips / (clip + SUFFIX), base / name)
        except FileNotFoundError:
            job.gone.append(clip)


def link_all(names: Iterable[str], clips: Path, folder: Path, gone: list[str]) -> None:
    """Links to these clips in one flat folder. None is removed: other lists may name them."""
    for number, name in enumerate(names):
        if number % 1024 == 0:
            sleep(0)
        try:
            link(clips / (name + SUFFIX), folder / (name + SUFFIX))
        except FileNotFoundError:
            gone.append(name)


def drop_other_splits(job: Job) -> None:
    """Remove our links from the folders of splits that have no clip any more."""
    for split in set(SPLITS) - set(job.choice.used_splits()):
        if (job.out / split).is_dir():
            _drop_metadata(job.out / split / "metadata.csv")
            _drop_stale(job, job.out / split, {})


def _drop_metadata(path: Path) -> None:
    """Remove what an earlier run said of links that are removed now; no other file."""
    with suppress(OSError):
        with path.open(encoding="utf-8") as file:
            is_ours = file.readline() == ",".join(METADATA) + "\n"
        if is_ours:
            path.unlink()


def link(source: Path, target: Path) -> None:
    """A hard link to a file, or a symbolic one; what is there and is the same file stays.

    Raises FileNotFoundError where `source` is gone, UserError where another file is in the way.
    """
    if os.path.islink(source):
        source = Path(os.path.realpath(source))
    try:
        os.link(source, target)
        return
    except FileExistsError:
        if os.path.samefile(source, target):
            return
        raise UserError(f"{target} is there and is not {source}: move it away") from None
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one without hard links
        os.stat(source)
    try:
        os.symlink(source, target)
    except OSError as error:
        raise UserError(f"cannot make the link {target}: {error.strerror}") from error


def _drop_stale(job: Job, base: Path, tree: Mapping[str, str]) -> None:
    """Remove links to our clips that do not belong; a clip's last name is never removed."""
    kept = 0
    for folder, _, files in os.walk(base):
        if os.path.samefile(folder, job.clips):
            continue  # the clips themselves
        below = os.path.relpath(folder, base).replace(os.sep, "/")
        for file in files:
            name = file if below == "." else f"{below}/{file}"
            if not file.endswith(SUFFIX) or name in tree:
                continue
            path = os.path.join(folder, file)
            if _is_link_to(path, job.clips / file):
                os.unlink(path)
            else:
                kept += 1
        if folder != str(base):
            with suppress(OSError):
                os.rmdir(folder)  # refuses one that is not empty
    if kept:
        job.tell(f"note         {kept:,} files in {base} are no links to a clip of yours: left")


def _is_link_to(path: str, clip: Path) -> bool:
    """Whether a file is another name of a clip, or a symbolic link to it, gone or not."""
    try:
        if os.path.islink(path) and os.readlink(path) == str(clip):
            return True
        return os.path.samefile(path, clip)
    except OSError:
        return False
