"""Create folders of links to the clips: --link_dir, or trees for torchvision and datasets.

No byte is copied: a hard link, or a symbolic one where the disk has none. Links of an earlier run
that no longer belong are removed, and nothing else ever is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from utils.cli import printable
from utils.errors import UserError
from utils.files import make_folder, open_text
from utils.process import sleep
from utils.training.choosing import NO_LABEL, SPLITS
from utils.training.outputs import ListSet, csv_lines

LEFT_OUT = str.maketrans({" ": "_", "/": "_", "\0": "_", "'": None, "(": None, ")": None})
LONGEST = 255  # bytes of a file's name
METADATA, METADATA_COLUMNS = "metadata.csv", ("file_name", "label", "number", "clip", "youtube_id")


def class_folder(label: str) -> str:
    """A class's folder, named as torchvision.datasets.Kinetics names it; "_" for an odd one.

    A name too long for a folder is cut, and ends in a digest of the whole.
    """
    folder = label.translate(LEFT_OUT)
    if len(folder.encode(errors="surrogateescape")) > LONGEST:
        digest = hashlib.blake2b(folder.encode(errors="surrogateescape"), digest_size=4).hexdigest()
        folder = f"{folder.encode()[:200].decode(errors='ignore')}_{digest}"
    return folder if folder.strip(".") else "_"


def class_folders(names: Sequence[str]) -> list[str]:
    """The folders of all classes, by index. Raises UserError where two would share one."""
    seen: dict[str, str] = {}
    for name in names:
        folder = class_folder(name)
        if seen.setdefault(folder, name) != name:
            raise UserError(f"the classes {seen[folder]!r} and {name!r} would share {folder}/")
    return list(seen)


def torchvision(files: ListSet) -> list[Path]:
    """`<split>/<class>/<clip>.mp4`. torchvision numbers the folders that it finds, sorted."""
    names = files.choice.classes.names
    folders = class_folders(names)
    for name, folder in zip(names, folders, strict=True):
        if len(name.encode(errors="surrogateescape")) > LONGEST:
            files.tell(f"note         the folder of {printable(name)} is cut to {folder}/")
    trees = {
        split: {
            f"{folders[row.number]}/{row.name}.mp4": row.name for row in files.choice.chosen(split)
        }
        for split in files.choice.used_splits()
    }
    made = _make_trees(files, trees)
    for path in made:
        found = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
        if found != folders[: len(found)]:
            files.tell(
                f"note         torchvision numbers the {len(found):,} class folders of"
                f" {path.name}/ by their names: its numbers are not those of classes.txt"
            )
    return made


def huggingface(files: ListSet) -> list[Path]:
    """`<split>/<clip>.mp4` and `<split>/metadata.csv`.

    Without folders of classes: `datasets` takes a folder such as training_dog/ for a split.
    """
    splits = files.choice.used_splits()
    trees = {s: {f"{row.name}.mp4": row.name for row in files.choice.chosen(s)} for s in splits}
    _make_trees(files, trees)
    return [files.write(f"{s}/{METADATA}", csv_lines(_metadata(files, s))) for s in splits]


def _metadata(files: ListSet, split: str) -> Iterator[Sequence[object]]:
    yield METADATA_COLUMNS
    gone = set(files.gone)
    for row in files.choice.chosen(split):
        if row.name not in gone:
            number = ",".join(map(str, row.several or [n for n in (row.number,) if n != NO_LABEL]))
            yield f"{row.name}.mp4", files.choice.label(row), number, row.name, row.youtube_id


def _make_trees(files: ListSet, trees: Mapping[str, Mapping[str, str]]) -> list[Path]:
    """Make `<out>/<split>` hold these links and no other of ours; `trees`: path -> clip.

    Raises UserError, Stopped.
    """
    for split in SPLITS:
        base, tree = files.out / split, trees.get(split, {})
        _drop_metadata(base / METADATA)
        _drop_stale(files, base, tree)
        for below in {name.rpartition("/")[0] for name in tree}:
            make_folder(base / below)
        link_all(files, base, tree)
    return [files.out / split for split in trees]


def link_all(files: ListSet, folder: Path, tree: Mapping[str, str]) -> None:
    """Links in a folder; `tree`: path there -> clip. One that is gone is added to `files.gone`."""
    clips = Path(files.args.clips).absolute()
    for number, (name, clip) in enumerate(tree.items()):
        if number % 1024 == 0:
            sleep(0)
        try:
            _make_link(clips / f"{clip}.mp4", folder / name)
        except FileNotFoundError:
            files.gone.append(clip)


def _make_link(source: Path, target: Path) -> None:
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
        raise UserError(f"{target} exists and is not {source}: move it") from None
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one without hard links
        os.stat(source)
    try:
        os.symlink(source, target)
    except OSError as error:
        raise UserError(f"cannot make the link {target}: {error.strerror}") from error


def _drop_metadata(path: Path) -> None:
    """Remove what an earlier run said of links that are removed now; no other file."""
    with suppress(OSError):
        with open_text(path, "replace") as file:
            is_ours = file.readline(100) == ",".join(METADATA_COLUMNS) + "\n"
        if is_ours:
            path.unlink()


def _drop_stale(files: ListSet, base: Path, tree: Mapping[str, str]) -> None:
    """Remove links to our clips that do not belong; a clip's last name is never removed."""
    clips = Path(files.args.clips).absolute()
    kept = 0
    for folder, _, names in os.walk(base):
        if os.path.samefile(folder, clips):
            continue  # the clips themselves
        below = os.path.relpath(folder, base).replace(os.sep, "/")
        for name in names:
            if not name.endswith(".mp4") or (name if below == "." else f"{below}/{name}") in tree:
                continue
            if _is_link_to(os.path.join(folder, name), clips / name):
                os.unlink(os.path.join(folder, name))
            else:
                kept += 1
        if folder != str(base):
            with suppress(OSError):
                os.rmdir(folder)  # refuses one that is not empty
    if kept:
        files.tell(f"note         {kept:,} files in {base} are not links to your clips: kept")


def _is_link_to(path: str, clip: Path) -> bool:
    """Whether a file is another name of a clip, or a symbolic link to it, gone or not."""
    try:
        if os.path.islink(path) and os.readlink(path) == str(clip):
            return True
        return os.path.samefile(path, clip)
    except OSError:
        return False
