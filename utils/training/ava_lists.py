"""AVA-Kinetics: the annotations of each clip in the forms of MMAction2 and of SlowFast.

The clips come from the AVA-Kinetics list, the rows from annotations_{split}.csv, both of
make_ava_kin_download_csv.py. What the readers make of a row decides its form:

MMAction2 (AVAKineticsDataset) takes the last two parts of a folder's name for the seconds in which
the clip begins and ends, so the folders of frames get links of such names (`rawframes/`).
SlowFast (ava_helper) knows the seconds 902 to 1798 of a video whose frames begin at second 900, at
30 frames per second: an annotated frame at 3 s of its clip is second 903. Annotated frames in the
first two seconds of a clip cannot be given to it.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from utils.cli import plural
from utils.clip import AVA_DURATION, AVA_LEAD, parse_clip_name
from utils.errors import UserError
from utils.files import bounded_lines, make_folder, open_text, telling
from utils.training.outputs import ListSet

NEEDED = ("clip", "timestamp", "x1", "y1", "x2", "y2", "action_id")
FRAME_LIST_HEADER = "original_vido_id video_id frame_id path labels\n"  # sic: so they spell it
SLOWFAST_START, SLOWFAST_FIRST = 900, 902


class AvaBox(NamedTuple):
    """One annotation: its clip, the whole second of its video, corners (0..1), action."""

    clip: str
    second: int
    corners: str  # x1,y1,x2,y2 with three decimals
    action: str


def ava(files: ListSet) -> list[Path]:
    """Write each split's annotations, and with --frames the lists and links of frames."""
    boxes: list[AvaBox] = []
    for path in files.args.annotations:
        with telling(path), open_text(path) as file:
            boxes += _read_boxes(path, csv.reader(bounded_lines(file)))
    written = []
    for split in files.choice.used_splits():
        clips = {row.name for row in files.choice.chosen(split)}
        of_split = [box for box in boxes if box.clip in clips]
        if not of_split:
            files.tell(f"note         no annotation of --annotations is of a clip of {split}")
            continue
        written.append(files.write(f"mmaction2_{split}.csv", map(_mmaction2, of_split)))
        fitting = [box for box in of_split if _slowfast_second(box) >= SLOWFAST_FIRST]
        written.append(files.write(f"slowfast_{split}.csv", map(_slowfast, fitting)))
        if lost := len(of_split) - len(fitting):
            files.tell(
                f"note         {plural(lost, 'annotation')} of {split} in the first two seconds of"
                " a clip: SlowFast cannot have them, and slowfast_*.csv is without"
            )
        if files.args.frames:
            written.append(files.write(f"frame_lists/{split}.csv", _frame_list(files, split)))
    if files.args.frames:
        _link_frames(files)
    else:
        files.tell("note         without --frames: no frame lists for SlowFast, no rawframes/")
    return written


def _read_boxes(path: Path, rows: Iterator[list[str]]) -> Iterator[AvaBox]:
    header = next(rows, [])
    if missing := [name for name in NEEDED if name not in header]:
        raise UserError(
            f"{path}:1: the header has no {', '.join(missing)}: use annotations_{{split}}.csv of"
            " make_ava_kin_download_csv.py"
        )
    clip, time, x1, y1, x2, y2, action = (header.index(name) for name in NEEDED)
    for line, row in enumerate(rows, 2):
        try:
            if not row[action]:
                continue  # a key frame without boxes
            corners = ",".join(f"{float(row[at]):.3f}" for at in (x1, y1, x2, y2))
            yield AvaBox(row[clip], int(float(row[time])), corners, str(int(row[action])))
        except (IndexError, ValueError, OverflowError):
            raise UserError(f"{path}:{line}: no annotation of a clip") from None


def _clip_seconds(second: int) -> tuple[int, int]:
    """(start, end) in its video, in seconds, of the clip about an annotated frame."""
    start = max(0, second - AVA_LEAD)
    return start, start + int(AVA_DURATION)


def _slowfast_second(box: AvaBox) -> int:
    return SLOWFAST_START + box.second - _clip_seconds(box.second)[0]


def _mmaction2_folder(clip: str) -> str:
    """`<id>_<start:06d>_<end:06d>` of `<id>_<ts:06d>`."""
    parsed = parse_clip_name(clip)
    if parsed is None or parsed[2] is not None:
        raise UserError(
            f"{clip} is not an AVA-Kinetics clip: use the AVA-Kinetics list as --input_csv"
        )
    start, end = _clip_seconds(int(parsed[1]))
    return f"{parsed[0]}_{start:06d}_{end:06d}"


def _mmaction2(box: AvaBox) -> str:
    return f"{_mmaction2_folder(box.clip)},{box.second},{box.corners},{box.action},-1\n"


def _slowfast(box: AvaBox) -> str:
    # The eighth field is a score where these boxes stand for a detector's.
    return f"{box.clip},{_slowfast_second(box):04d},{box.corners},{box.action},1.0\n"


def _frame_list(files: ListSet, split: str) -> Iterator[str]:
    yield FRAME_LIST_HEADER
    before = files.before()
    for number, row in enumerate(files.choice.chosen(split)):
        for frame in range(1, row.frames + 1):
            yield f'{row.name} {number} {frame - 1} {before}{row.name}/{frame:06d}.jpg ""\n'


def _link_frames(files: ListSet) -> None:
    folder = make_folder(files.out / "rawframes")
    frames = Path(files.args.frames).absolute()
    wanted = {_mmaction2_folder(row.name): str(frames / row.name) for row in files.choice.chosen()}
    for entry in os.scandir(folder):
        if entry.is_symlink() and wanted.get(entry.name) != os.readlink(entry.path):
            os.unlink(entry.path)
    for name, target in wanted.items():
        try:
            os.symlink(target, folder / name, target_is_directory=True)
        except FileExistsError:
            if not os.path.islink(folder / name):
                raise UserError(f"{folder / name} exists and is not a link: move it") from None
        except OSError as error:
            raise UserError(f"cannot make the link {folder / name}: {error.strerror}") from error
