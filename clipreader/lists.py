"""Read the clips, labels and splits of a list, for `dataset.ClipDataset`.

Download lists (CSV or TSV with a header, Kinetics' JSON; .gz of both), and what
`make_training_lists.py` writes: `csv`, `json`, `slowfast`, `videomae`, `jepa`, `mmaction2`, and
`manifest.csv`. Folders of clips, too.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")
SPLITS = ("train", "val", "test", "validate", "validation")
NO_LABEL = -1

Classes: TypeAlias = str | os.PathLike[str] | Sequence[str] | Mapping[str, int]

# What the columns are called in the lists that there are; `_` stands for a blank and `-`, too.
_COLUMNS = {
    "youtube_id": ("youtube_id", "video_id", "ytid", "id"),
    "start": ("time_start", "start_time", "start"),
    "end": ("time_end", "end_time", "end"),
    "label": ("label", "label_name", "class"),
    "split": ("split", "subset"),
    "clip": ("clip",),
    "path": ("path",),
    "number": ("number",),
}


@dataclass(frozen=True, slots=True)
class Listed:
    """A clip of a list. `files`: where it may be, the likeliest first; `label`: the class's name or
    its index, None where the list says neither."""

    files: tuple[str, ...]
    label: str | int | None
    split: str = ""


def read_list(path: Path) -> list[Listed]:
    """The clips of a list, each once. Raises OSError, and ValueError with the line that is wrong.

    Files are names without a folder, except those of lists that have paths.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read().decode("utf-8-sig", "surrogateescape")
        clips = dict.fromkeys(_clips_of(text))
    except (ValueError, csv.Error, EOFError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path}: JSON, and not a list of clips in a known form") from None
    return list(clips)


def _clips_of(text: str) -> Iterator[Listed]:
    first = text.lstrip()[:1]
    if first in ("[", "{"):
        yield from map(_from_row, _json_rows(json.loads(text)))
        return
    lines = text.splitlines()
    head = next((at for at, line in enumerate(lines) if line and not line.startswith("#")), 0)
    header = lines[head] if lines else ""
    delimiter = max("\t,;", key=header.count)
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    known = {column for column in map(_column, names) if column}
    if not known & {"youtube_id", "clip", "path"}:
        yield from _path_label(lines)
        return
    body = io.StringIO("\n".join(lines[head + 1 :]))
    for number, values in enumerate(csv.reader(body, delimiter=delimiter), head + 2):
        if values:
            try:
                yield _from_row(dict(zip(names, values, strict=False)))
            except (ValueError, OverflowError) as error:
                raise ValueError(f"line {number}: {error}") from None


def _path_label(lines: Sequence[str]) -> Iterator[Listed]:
    """`path label`, as SlowFast, VideoMAE, V-JEPA and MMAction2 read it."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            path, _, label = line.strip().rpartition(" ")
            if not path or not label.lstrip("-").isdigit():
                raise ValueError(f"line {number}: neither a header nor `path label`: {line[:60]!r}")
            if path.endswith(" 0") and label == "-1":  # for pretraining: `path 0 -1`
                path = path[:-2]
            yield Listed((path,), int(label) if int(label) >= 0 else None)


def _json_rows(data: Any) -> Iterator[dict[str, Any]]:
    """The rows of a JSON array of objects, or of Kinetics' `{id: {annotations, subset}}`."""
    if isinstance(data, list):
        yield from data
        return
    for youtube_id, entry in data.items():
        annotations = entry["annotations"]
        start, end = annotations["segment"]
        split = entry.get("subset", "")
        label = annotations.get("label", "")
        yield {"id": youtube_id, "start": start, "end": end, "label": label, "split": split}


def _column(name: str) -> str:
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    return next((column for column, names in _COLUMNS.items() if plain in names), "")


def _from_row(row: Mapping[str, Any]) -> Listed:
    values = {column: value for name, value in row.items() if (column := _column(name))}
    label = str(values.get("label") or "") or None
    number = values.get("number")
    return Listed(
        _files_of(values),
        int(number) if number not in (None, "") else label,
        str(values.get("split") or ""),
    )


def _files_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    if values.get("path"):
        return (str(values["path"]),)
    if values.get("clip"):
        return (f"{values['clip']}.mp4",)
    if not values.get("youtube_id"):
        raise ValueError("no youtube_id")
    youtube_id, start = str(values["youtube_id"]), float(values.get("start") or 0)
    end = float(values.get("end") or -1)
    if end == -1:  # a key frame of AVA-Kinetics
        return (f"{youtube_id}_{math.floor(start):06d}.mp4",)
    # The second is how two clips within a second are told apart.
    return (
        f"{youtube_id}_{int(start):06d}_{int(end):06d}.mp4",
        f"{youtube_id}_{start:010.3f}_{end:010.3f}.mp4",
    )


def read_folder(folder: Path) -> list[Listed]:
    """The clips in a folder and its sub-folders, labelled by these; nothing of hidden ones."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        label = None if Path(where) == folder else os.path.basename(where)
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                found.append(Listed((os.path.join(where, name),), label))
    return found


def read_classes(classes: Classes) -> list[str]:
    """The names of the classes by their indices: a list, `classes.txt`, or `classes.json`."""
    if isinstance(classes, (str, os.PathLike)):
        text = Path(classes).read_text(encoding="utf-8-sig", errors="surrogateescape")
        is_json = os.fspath(classes).endswith(".json")
        try:
            classes = json.loads(text) if is_json else [line for line in text.splitlines() if line]
        except ValueError as error:
            raise ValueError(f"{classes}: {error}") from None
    if isinstance(classes, Mapping):
        names = sorted(classes, key=classes.__getitem__)
        if [classes[name] for name in names] != list(range(len(names))):
            raise ValueError("the indices of the classes are not 0, 1, 2 and on")
        return names
    if len(set(classes)) != len(classes):
        raise ValueError("two classes have one name")
    return list(classes)
