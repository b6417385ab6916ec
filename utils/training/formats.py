"""The formats of training lists: lists of lines here, and the table of all formats at the end.

Each form is what the code that reads it does (docs/training.md names it). Lists that readers split
at white space have no quoting.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.lists.versions import OFFICIAL
from utils.report import format_time
from utils.training.ava_lists import ava
from utils.training.choosing import NO_LABEL, Candidate, Choice
from utils.training.on_disk import AUDIO, VIDEO
from utils.training.outputs import ListSet, csv_lines, is_utf8
from utils.training.shards import webdataset
from utils.training.trees import huggingface, torchvision

COLUMNS = ("path", "clip", "youtube_id", "time_start", "time_end", "split", "label", "number")
MORE_COLUMNS = ("version", "bytes", "seconds", "sha256")


def path_label(files: ListSet) -> list[Path]:
    """`{split}.csv`: `path label`, no header; for pretraining `path 0 -1`."""
    return [
        files.write(f"{split}.csv", _path_label(files, split))
        for split in files.choice.used_splits()
    ]


def _path_label(files: ListSet, split: str) -> Iterator[str]:
    before, pretrain = files.before(), files.args.pretrain
    for row in files.choice.chosen(split):
        yield f"{before}{row.name}.mp4 {'0 -1' if pretrain else row.number}\n"


def mmaction2(files: ListSet) -> list[Path]:
    """`<name>_{split}_list_videos.txt`, or `_list_rawframes.txt`: `folder total_frames label`."""
    name, frames = mmaction2_name(files), files.args.frames
    kind, lines = ("rawframes", _frame_folders) if frames else ("videos", _path_label)
    return [
        files.write(f"{name}_{split}_list_{kind}.txt", lines(files, split))
        for split in files.choice.used_splits()
    ]


def _frame_folders(files: ListSet, split: str) -> Iterator[str]:
    before = files.before()
    for row in files.choice.chosen(split):
        yield f"{before}{row.name} {row.frames} {row.number}\n"


def mmaction2_name(files: ListSet) -> str:
    """How mmaction2's lists begin: `kinetics400`, or the name of a list of none of the versions."""
    versions = files.choice.versions
    name = "_".join(versions)
    if set(versions) <= set(OFFICIAL):
        name = f"kinetics{name}"
    return files.args.name or "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def known_of(choice: Choice, row: Candidate, path: str) -> dict[str, Any]:
    """What is known of a clip, with the further columns of its list; None where nothing is.

    Of several labels, `label` is as the list has it, and `number` a list.
    """
    number: int | list[int] | None = [*row.several] or row.number
    if number == NO_LABEL:
        number = None
    known: dict[str, Any] = {
        "path": path,
        "clip": row.name,
        "youtube_id": row.youtube_id,
        "time_start": row.start,
        "time_end": row.end,
        "split": row.split,
        "label": choice.label(row) or None,
        "number": number,
        "version": row.listed.version,
        "bytes": row.bytes,
        "seconds": row.seconds,
        "sha256": row.sha256 or None,
    }
    for column, value in row.extra:
        known.setdefault(column, value)
    return known


def csv_with_header(files: ListSet) -> list[Path]:
    """`{split}.csv` with a header, and the further columns of the lists."""
    return [files.write(f"{s}.csv", csv_lines(_csv(files, s))) for s in files.choice.used_splits()]


def _csv(files: ListSet, split: str) -> Iterator[list[object]]:
    choice, before = files.choice, files.before()
    columns = [*COLUMNS, *MORE_COLUMNS]
    kinds = {tuple(name for name, _ in row.extra) for row in choice.rows}
    columns += sorted({name for kind in kinds for name in kind} - set(columns))
    yield [*columns]
    for row in choice.chosen(split):
        known = known_of(choice, row, f"{before}{row.name}{row.suffix}")
        known["time_start"], known["time_end"] = format_time(row.start), format_time(row.end)
        if row.several:
            known["number"] = ",".join(map(str, row.several))
        yield [known.get(name) for name in columns]


def json_lists(files: ListSet) -> list[Path]:
    """`{split}.json`: an array of objects, one a line."""
    return [files.write(f"{s}.json", _json(files, s)) for s in files.choice.used_splits()]


def _json(files: ListSet, split: str) -> Iterator[str]:
    before = files.before()
    # JSON is UTF-8; a path of other bytes is escaped, and Python reads it back as it was.
    encode = json.JSONEncoder(ensure_ascii=not is_utf8(before)).encode
    between = "[\n"
    for row in files.choice.chosen(split):
        path = f"{before}{row.name}{row.suffix}"
        yield between + encode(known_of(files.choice, row, path))
        between = ",\n"
    yield "\n]\n"


@dataclass(frozen=True)
class Format:
    """How a framework's files are written.

    start: the first command of training; with `hint` what to set in a config of the user's own. Its
    {words} are `say_written`'s, quoted for a shell; {code} is `code`, with the words as they are.
    splits_at_blanks: its reader splits at white space. has_paths: it lists paths; absolute: these
    are so by themselves. suffixes: of the files that it can hold.
    """

    write: Callable[[ListSet], list[Path]]
    start: str = ""
    code: str = ""
    hint: str = ""
    splits_at_blanks: bool = False
    needs_label: bool = True
    one_label: bool = True
    has_paths: bool = True
    absolute: bool = False
    suffixes: tuple[str, ...] = VIDEO


_SLOWFAST = (
    "python tools/run_net.py --cfg configs/Kinetics/SLOWFAST_8x8_R50.yaml"
    " DATA.PATH_TO_DATA_DIR {out} DATA.PATH_PREFIX {prefix} MODEL.NUM_CLASSES {classes}"
)
_MMACTION2 = (
    "train_dataloader.dataset.ann_file={out}/{name}_{split}_list_{kind}.txt"
    " train_dataloader.dataset.data_prefix.{key}={prefix} model.cls_head.num_classes={classes}"
)
_VIDEOMAE = (
    "python run_class_finetuning.py --data_set Kinetics-400 --data_path {out}"
    " --nb_classes {classes}"
)
_AVA = (
    "python tools/run_net.py --cfg configs/AVA/SLOWFAST_32x2_R50_SHORT.yaml"
    " AVA.FRAME_LIST_DIR {out}/frame_lists AVA.FRAME_DIR {prefix} AVA.ANNOTATION_DIR {out}"
)
_CODE = "python -c {code}"
_TORCHVISION = (
    "from torchvision.datasets import Kinetics;"
    " Kinetics({out!r}, frames_per_clip=16, split={split!r})"
)
_HUGGINGFACE = "from datasets import load_dataset; load_dataset('videofolder', data_dir={out!r})"
_WEBDATASET = (
    "import webdataset; webdataset.WebDataset({out!r} +"
    " '/{split}-{{000000..{last:06d}}}.tar', shardshuffle=100)"
)

FORMATS: dict[str, Format] = {
    "slowfast": Format(path_label, _SLOWFAST, splits_at_blanks=True),
    "mmaction2": Format(
        mmaction2,
        _MMACTION2,
        hint="in a config of MMAction2, or after --cfg-options:",
        splits_at_blanks=True,
    ),
    "videomae": Format(path_label, _VIDEOMAE, splits_at_blanks=True, absolute=True),
    "jepa": Format(
        path_label,
        "data: datasets: [{out}/{split}.csv]",
        hint="in a config of V-JEPA:",
        splits_at_blanks=True,
        absolute=True,
    ),
    "torchvision": Format(torchvision, _CODE, _TORCHVISION, has_paths=False),
    "huggingface": Format(
        huggingface, _CODE, _HUGGINGFACE, needs_label=False, one_label=False, has_paths=False
    ),
    "webdataset": Format(
        webdataset,
        _CODE,
        _WEBDATASET,
        needs_label=False,
        one_label=False,
        has_paths=False,
        suffixes=VIDEO + AUDIO,
    ),
    "ava": Format(ava, _AVA, splits_at_blanks=True, needs_label=False),
    "csv": Format(csv_with_header, needs_label=False, one_label=False, suffixes=VIDEO + AUDIO),
    "json": Format(json_lists, needs_label=False, one_label=False, suffixes=VIDEO + AUDIO),
}
