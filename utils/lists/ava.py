"""Read the AVA-Kinetics annotations, and find annotated frames in their clips.

Times are whole nanoseconds, read from the text: 7.4 - 4 in floats is more than 3.4, and one frame's
difference is a wrong label.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from utils.cli import printable
from utils.clip import (
    AVA_LEAD,
    AVA_TIME_END,
    DOWNLOADED,
    ID_PATTERN,
    MAX_TIME,
    TIME_PATTERN,
    Refused,
    clip_name,
    parse_clip_name,
)
from utils.errors import UserError
from utils.files import bounded_lines, open_text, read_text, telling
from utils.report import REPORT_NAME, RESULT_COLUMNS, read_reports

if TYPE_CHECKING:
    from clipreader.packets import FrameTable

SPLITS = ("train", "val", "test")
ARCHIVE = "https://storage.googleapis.com/deepmind-media/Datasets/ava_kinetics_v1_0.tar.gz"
BOX = ("x1", "y1", "x2", "y2")
COLUMNS = ("youtube_id", "timestamp", *BOX, "action_id")  # of the files: no header
NO_BOX = ("",) * 5  # and no action
LABEL_MAPS = "ava_action_list_v2.2*.pbtxt"
LABEL_MAP_LIMIT = 2**20  # bytes; the real one has 6,000

SECOND = 10**9  # nanoseconds
# Timestamps are rounded to milliseconds: 7.433 is frame 13 of that second at 30 fps, whose time is
# 7.43333. Half a millisecond of grace keeps it from counting as the frame before.
GRACE = SECOND // 2000
MARGIN = 0.1  # of the frame, by which a corner may lie outside of it

Windows = Mapping[str, tuple[int, int]]  # partial clip -> the part of its video in it, nanoseconds


class Annotation(NamedTuple):
    """A row: a person's box and action in an annotated frame. Both are "" where there is no box."""

    youtube_id: str
    timestamp: str
    nanoseconds: int
    box: tuple[str, ...]  # x1, y1, x2, y2, as parts of the frame
    action_id: str

    @property
    def second(self) -> int:
        return self.nanoseconds // SECOND


def annotations_path(folder: Path, split: str) -> Path:
    """Where a split's annotations lie in the folder of the unpacked archive."""
    return folder / f"kinetics_{split}_v1.0.csv"


def clip_start(second: int) -> int:
    """Where the clip of an annotated frame begins, in nanoseconds. second: floor(timestamp)."""
    return max(second - AVA_LEAD, 0) * SECOND


def picture_number(clip_time: int, fps: Fraction) -> int:
    """The number, from 1, of the picture that is on the screen at `clip_time` (nanoseconds).

    For a clip whose own rate is `fps`; `key_picture` is exact at every rate.
    """
    return (clip_time + GRACE) * fps.numerator // (fps.denominator * SECOND) + 1


def key_picture(table: FrameTable, shown: Sequence[int], key_time: int) -> int:
    """The number, from 1, of the first picture that shows the clip's frame at `key_time`.

    shown: for each picture, its frame in `table`, as frame_extract.py writes them. A frame that
    the resampling drops is shown by the picture before. A number past the last picture: the clip
    has ended by then. key_time: nanoseconds.
    """
    tick = Fraction(key_time + GRACE, SECOND) / table.time_base + table.origin
    if tick >= table.end:
        return len(shown) + 1
    frame = max(0, bisect_right(table.pts, tick) - 1)
    at_or_before = shown[max(0, bisect_right(shown, frame) - 1)]
    return bisect_left(shown, at_or_before) + 1


def find_pictures(path: Path, key_times: Iterable[int], fps: Fraction) -> list[int]:
    """`key_picture` for each time of a clip at `fps`. Raises ClipError."""
    from clipreader.frame_source import FrameSource
    from utils.video.whole import pictures_of

    source = FrameSource(path)
    source.close()
    shown = pictures_of(source, fps)
    return [key_picture(source.table, shown, time) for time in key_times]


def nanoseconds(text: str) -> int:
    """A time as a list writes it (`7.4`, `0902`), exactly. `text` matches TIME_PATTERN."""
    return round(Fraction(text if text[-1] != "." else text[:-1]) * SECOND)


def seconds_text(ns: int) -> str:
    """3400000000 -> `3.4`, 3000000000 -> `3.0`."""
    whole, part = divmod(ns, SECOND)
    return f"{whole}.{f'{part:09d}'.rstrip('0') or '0'}"


class _Checked(dict[str, bool]):
    """Whether a field is what its column needs; most texts occur many times."""

    def __init__(self, check: Callable[[str], bool]) -> None:
        super().__init__()
        self._check = check

    def __missing__(self, text: str) -> bool:
        self[text] = found = self._check(text)
        return found


def _is_timestamp(text: str) -> bool:
    is_time = TIME_PATTERN.fullmatch(text) is not None and not text.startswith("-")
    return is_time and float(text) <= MAX_TIME


def _is_corner(text: str) -> bool:
    found = re.fullmatch(r"-?(\d{1,9}(\.\d{0,30})?|\.\d{1,30})([eE][-+]?\d{1,2})?", text, re.ASCII)
    return found is not None and -MARGIN <= float(text) <= 1 + MARGIN


def _is_action(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d{0,3}", text, re.ASCII) is not None


_CHECKS: tuple[tuple[Callable[[str], bool], str], ...] = (
    (
        lambda text: ID_PATTERN.fullmatch(text) is not None,
        "must be 11 characters from A-Z a-z 0-9 _ -",
    ),
    (_is_timestamp, f"is not a number of seconds within 0 and {MAX_TIME:.0f}"),
    *(((_is_corner, "is not a part of the frame, from 0 to 1"),) * 4),
    (_is_action, "is not a whole number above 0"),
)


def read_annotations(path: Path) -> tuple[list[Annotation], list[Refused]]:
    """Read the rows `id,timestamp[,x1,y1,x2,y2,action_id]`, and those that are none.

    Raises UserError if there is no such file, or not one row is an annotation.
    """
    rows: list[Annotation] = []
    refused: list[Refused] = []
    is_id, is_time, is_corner, *_, is_action = (_Checked(check) for check, _ in _CHECKS)
    texts: dict[str, str] = {}  # ids, actions, times and boxes repeat: each is kept once
    times: dict[str, int] = {}
    boxes: dict[tuple[str, ...], tuple[str, ...]] = {}
    if not path.exists():
        raise UserError(f"{path} does not exist: unpack it from {ARCHIVE}")
    with telling(path), open_text(path, errors="replace") as file:
        for number, line in enumerate(bounded_lines(file), 1):
            youtube_id, _, rest = line.rstrip("\r\n").partition(",")
            timestamp, *more = rest.split(",")
            *box, action = more or NO_BOX
            is_good = is_id[youtube_id] and is_time[timestamp]
            if len(box) != len(BOX) or any(more) and not is_action[action]:
                is_good = False
            elif action:
                x1, y1, x2, y2 = box
                is_good &= is_corner[x1] and is_corner[y1] and is_corner[x2] and is_corner[y2]
            if not is_good:
                if line.strip():
                    fields = [youtube_id, timestamp, *more]
                    text = printable(line.rstrip("\r\n"))
                    refused.append(Refused(path, number, text, _why_odd_line(fields)))
                continue
            if timestamp not in times:
                times[timestamp] = nanoseconds(timestamp)
            corners = tuple(box)
            rows.append(
                Annotation(
                    texts.setdefault(youtube_id, youtube_id),
                    timestamp,
                    times[timestamp],
                    boxes.setdefault(corners, corners),
                    texts.setdefault(action, action),
                )
            )
    if not rows:
        what = f"id,timestamp[,{','.join(COLUMNS[2:])}]"
        first = f"; {refused[0]}" if refused else ""
        raise UserError(f"{path} contains no annotations ({what}){first}")
    return rows, refused


def _why_odd_line(fields: Sequence[str]) -> str:
    """Why a line is no annotation."""
    if len(fields) not in (2, len(COLUMNS)):
        return f"{len(fields)} columns, not 2 or {len(COLUMNS)}"
    for name, field, (check, needed) in zip(COLUMNS, fields, _CHECKS, strict=False):
        if not check(field):
            return f"{name} {needed}"
    return "no annotation"


def place_in_clips(
    rows: Iterable[Annotation], windows: Windows | None = None
) -> Iterator[tuple[str, int, Annotation]]:
    """(clip's name, time in it in nanoseconds, row) of each row that is in its clip.

    windows: clips that are partial; an annotated frame outside of its clip's window is left out.
    """
    names: dict[tuple[str, int], str] = {}
    for row in rows:
        key = row.youtube_id, row.second
        clip = names.get(key) or names.setdefault(key, clip_name(*key, AVA_TIME_END))
        start = clip_start(row.second)
        if windows and clip in windows:
            start, end = windows[clip]
            if not start <= row.nanoseconds < end:
                continue
        yield clip, row.nanoseconds - start, row


def read_windows(clips: Path) -> dict[str, tuple[int, int]]:
    """The partial clips of a folder, from its download report; {} if it has none.

    download.py --allow_partial writes the window that it really cut into `time_start,time_end`;
    for a whole AVA-Kinetics clip these are the row's own, and `time_end` is -1. The last line that
    says `downloaded` counts, because the file of that run is the one on disk.
    """
    windows: dict[str, tuple[int, int]] = {}
    rows = read_reports(clips / REPORT_NAME, RESULT_COLUMNS, DOWNLOADED)
    for clip, _, start, end, *_ in rows:
        windows.pop(clip, None)
        name = parse_clip_name(clip)
        if name and name[2] is None and _is_timestamp(start) and _is_timestamp(end):
            windows[clip] = nanoseconds(start), nanoseconds(end)
    return windows


def annotated_times(path: Path, clips: Path) -> dict[str, tuple[int, ...]]:
    """Clip's name -> the times of its annotated frames in the clip, in nanoseconds, rising.

    path: a raw annotation file (no header), or the `annotations_<split>.csv` that
    make_ava_kin_download_csv.py writes. clips: their folder, whose report tells of partial clips.
    Raises UserError for a file that is neither.
    """
    import pandas as pd

    found: dict[str, set[int]] = {}
    with telling(path), open_text(path, errors="replace") as file:
        header = file.readline(1000).rstrip("\r\n").split(",")
        if "clip" in header:
            table = pd.read_csv(file, header=None, names=header, dtype=str, keep_default_na=False)
            if "clip_time" not in table or not table["clip_time"].map(_is_timestamp).all():
                raise UserError(f"{path}: its column clip_time is not one of times in seconds")
            for clip, text in table[["clip", "clip_time"]].itertuples(index=False):
                found.setdefault(clip, set()).add(nanoseconds(text))
            return {name: tuple(sorted(times)) for name, times in found.items()}
    for clip, time, _ in place_in_clips(read_annotations(path)[0], read_windows(clips)):
        found.setdefault(clip, set()).add(time)
    return {name: tuple(sorted(times)) for name, times in found.items()}


def find_label_map(folder: Path) -> Path | None:
    """The label map beside the annotations: the one of 80 actions before that of 60."""
    return next(iter(sorted(folder.glob(LABEL_MAPS))), None)


_LABEL_MAP = re.compile(
    r'[{}]|\bname:\s{0,9}"((?:[^"\\\n]|\\.){0,300})"|\b(?:label_)?id:\s{0,9}(\d{1,9})\b'
)


def read_label_map(path: Path) -> dict[str, str]:
    """action_id -> name, from a label map in protobuf's text form (`name: "..." label_id: 1`).

    Raises UserError if the file cannot be read or holds no label.
    """
    with telling(path):
        text = read_text(path, LABEL_MAP_LIMIT)
    names: dict[str, str] = {}
    name = number = None
    for found in _LABEL_MAP.finditer(text):
        if found[0] in "{}":
            if name is not None and number is not None:
                names[str(int(number))] = re.sub(r"\\(.)", r"\1", name)
            name = number = None
        else:
            name, number = found[1] or name, found[2] or number
    if not names:
        raise UserError(f"label map {path} contains no label (name: ... label_id: ...)")
    return names
