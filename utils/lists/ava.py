"""AVA-Kinetics: its annotations, and where a key frame stands in its clip.

Between the annotation files and the scripts that need them: make_ava_kin_download_csv.py makes the
download list and the annotations per clip from here, frame_extract.py --key_frames the numbers of
the pictures. Times are whole nanoseconds, read from the text: 7.4 - 4 in floats is more than 3.4,
and one frame's difference is a wrong label.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.clip import (
    AVA_LEAD,
    AVA_TIME_END,
    ID_PATTERN,
    MAX_TIME,
    TIME_PATTERN,
    Refused,
    clip_name,
    parse_clip_name,
)
from utils.errors import UserError
from utils.report import DOWNLOADED, REPORT_NAME, RESULT_COLUMNS, read_reports
from utils.text import printable

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "val", "test")
ARCHIVE = "https://storage.googleapis.com/deepmind-media/Datasets/ava_kinetics_v1_0.tar.gz"
COLUMNS = (
    "youtube_id",
    "timestamp",
    "x1",
    "y1",
    "x2",
    "y2",
    "action_id",
)  # of the files: no header
BOX = COLUMNS[2:6]
FORM = "id,timestamp[,x1,y1,x2,y2,action_id]"
LABEL_MAPS = "ava_action_list_v2.2*.pbtxt"

SECOND = 10**9  # nanoseconds
# Timestamps are rounded to milliseconds: 7.433 is frame 13 of that second at 30 fps, whose time is
# 7.43333. Half a millisecond of grace keeps it from counting as the frame before.
GRACE = SECOND // 2000
MARGIN = 0.1  # of the picture, by which a corner may lie outside of it


@dataclass(frozen=True)
class Annotations:
    """One annotation file.

    `rows` has the columns of the file as text, in categories (the box and action_id are "" where
    there is none), and, as int64, `line` (from 1), `nanoseconds` (the timestamp) and `second` (its
    floor, in seconds). `refused` are the rows that are none.
    """

    path: Path
    rows: pd.DataFrame
    refused: tuple[Refused, ...]


@dataclass(frozen=True)
class Window:
    """The part of its video that a partial clip really holds, in nanoseconds."""

    start: int
    end: int


def annotations_path(folder: Path, split: str) -> Path:
    """Where a split's annotations lie in the folder of the unpacked archive."""
    return folder / f"kinetics_{split}_v1.0.csv"


def clip_start(second: Any) -> Any:
    """Where the clip of a key frame begins: DESIGN.md's rule, for a number or an int64 array.

    second: floor(timestamp), in seconds. Returns nanoseconds.
    """
    return np.maximum(second - AVA_LEAD, 0) * SECOND


def picture_number(clip_time: Any, fps: Fraction) -> Any:
    """The number, from 1, of the picture at `fps` that is on the screen at `clip_time`.

    clip_time: nanoseconds, a number or an int64 array. Picture n at `fps` is the frame shown at
    (n-1)/fps (clipreader/times.py), so the one on the screen at t is floor(t*fps) + 1, and 3.0 s
    at 30 fps is 000091.jpg. At the clip's own rate that is the key frame itself; at another rate
    ffmpeg's `fps` filter may show one of its two neighbours there, never one further off;
    `find_pictures` is exact there, too.
    """
    ticks = clip_time + GRACE
    if isinstance(ticks, np.ndarray) and ticks.size and ticks.max() > 2**62 // fps.numerator:
        ticks = ticks.astype(object)  # Python's integers do not overflow
    return ticks * fps.numerator // (fps.denominator * SECOND) + 1


def find_pictures(path: Path, clip_times: Sequence[int], fps: Fraction) -> list[int]:
    """For each time, the number of the first picture at `fps` that shows the clip's frame there.

    Looked up among the frames of the clip itself, so exact at every rate: a key frame at 3.75 s of
    a clip of 24 fps is its frame 90, which picture 114 shows at 30 fps, and not picture 113. Where
    the resampling drops that frame, the one before it. clip_times: nanoseconds. Raises ClipError.
    """
    from clipreader.clip_reader import ClipReader

    with ClipReader(path) as clip:
        seconds = [(time + GRACE) / SECOND for time in clip_times]
        frames = clip.frame_numbers(indices=seconds, unit="s")
        shown = clip.frame_numbers(fps=fps)
    at_or_before = [shown[max(0, bisect_right(shown, frame) - 1)] for frame in frames]
    return [bisect_left(shown, frame) + 1 for frame in at_or_before]


def nanoseconds(text: str) -> int:
    """A time as a list writes it (`7.4`, `0902`), exactly. `text` matches clips.TIME_PATTERN."""
    whole, _, part = text.partition(".")
    return int(whole or 0) * SECOND + int(part[:9].ljust(9, "0"))


def seconds_text(ns: int) -> str:
    """3400000000 -> `3.4`, 3000000000 -> `3.0`."""
    return f"{ns // SECOND}.{ns % SECOND:09d}".rstrip("0").ljust(len(str(ns // SECOND)) + 2, "0")


def read_annotations(path: Path) -> Annotations:
    """Read `id,timestamp[,x1,y1,x2,y2,action_id]` rows; no header. A million rows take 2 s.

    Every row is in `rows` or in `refused`. Raises UserError when there is no such file, and when
    not one row is an annotation.
    """
    import pandas as pd

    data = _read(path)
    plain, numbers = _plain_lines(data)
    if not len(numbers):
        raise UserError(f"{path} holds no annotations ({FORM})")
    table = pd.read_csv(
        io.BytesIO(plain),
        header=None,
        names=list(COLUMNS),
        dtype=object,  # or the id 00000000012 becomes 12, and 123456e7890 infinity
        keep_default_na=False,
        na_filter=False,
        quoting=3,
    )
    for name in COLUMNS:
        table[name] = _in_categories(table[name])
    good = _good_rows(table)
    table.insert(0, "line", numbers)
    rows = table[good].reset_index(drop=True)
    refused = _refused(path, data, rows["line"].to_numpy())
    if rows.empty:
        raise UserError(f"{path} holds no annotations ({FORM}); {refused[0]}")
    rows["nanoseconds"] = by_value(rows["timestamp"], np.int64, nanoseconds)
    rows["second"] = rows["nanoseconds"] // SECOND
    return Annotations(path, rows, refused)


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: unpack it from {ARCHIVE}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    return data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")


def _plain_lines(data: bytes) -> tuple[bytes, np.ndarray]:
    """The lines with 2 or 7 fields of plain ASCII, and their numbers from 1.

    Counted before pandas sees them: it shifts or drops the columns of longer rows without a word,
    and a quote swallows every row up to the next one.
    """
    if not data.endswith(b"\n"):
        data += b"\n"
    values = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(values == ord("\n"))
    commas_in = np.diff(np.searchsorted(np.flatnonzero(values == ord(",")), ends), prepend=0)
    plain = (values > ord(" ")) & (values < 127) & (values != ord('"')) | (values == ord("\n"))
    good = (commas_in == 1) | (commas_in == len(COLUMNS) - 1)
    good[np.searchsorted(ends, np.flatnonzero(~plain))] = False
    numbers = np.flatnonzero(good) + 1
    if len(numbers) < len(ends):
        lines = data.split(b"\n")
        data = b"".join(lines[number - 1] + b"\n" for number in numbers)
    return data, numbers


def _good_rows(table: pd.DataFrame) -> np.ndarray:
    """Which rows are annotations, as a bool array. The same rule as `_problem`, by column."""
    good = np.ones(len(table), bool)
    empty = table["action_id"] == ""
    for name in COLUMNS:
        is_empty = table[name] == ""
        good &= by_value(table[name], bool, _CHECKS[name]) | (
            is_empty & empty if name in COLUMNS[2:] else False
        )
        if name in BOX:
            good &= is_empty == empty
    return good


def _in_categories(column: pd.Series) -> pd.Categorical:
    """A column of text with each text once, for most occur many times: two thirds of the time."""
    import pandas as pd

    codes, values = pd.factorize(column)
    return pd.Categorical.from_codes(codes, categories=values, validate=False)


def by_value(column: pd.Series, kind: type, function: Callable[[Any], Any]) -> np.ndarray:
    """`function` of every value of a column, called once for each that differs, as an array."""
    import pandas as pd

    codes, values = pd.factorize(column)
    return np.array([function(value) for value in values.tolist()], kind)[codes]


def _refused(path: Path, data: bytes, good: np.ndarray) -> tuple[Refused, ...]:
    if data.endswith(b"\n") and len(good) == data.count(b"\n"):
        return ()
    lines = data.split(b"\n")
    is_bad = np.ones(len(lines) + 1, bool)
    is_bad[0] = is_bad[good] = False
    refused = []
    for number in np.flatnonzero(is_bad):
        text = lines[number - 1].decode("utf-8", errors="replace")
        if text.strip():
            refused.append(Refused(path, int(number), printable(text), _problem(text)))
    return tuple(refused)


def _problem(text: str) -> str:
    """Why a line is no annotation."""
    fields = text.split(",")
    if len(fields) not in (2, len(COLUMNS)):
        return f"{len(fields)} columns, not 2 or {len(COLUMNS)}"
    for name, value in zip(COLUMNS, fields, strict=False):
        if not _CHECKS[name](value):
            return f"{name} {_NEEDED[name]}"
    return "not plain text"


def _is_id(text: str) -> bool:
    return ID_PATTERN.fullmatch(text) is not None


def _is_timestamp(text: str) -> bool:
    is_time = TIME_PATTERN.fullmatch(text) is not None and not text.startswith("-")
    return is_time and float(text) <= MAX_TIME


def _is_corner(text: str) -> bool:
    found = re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,2})?", text, re.ASCII)
    return found is not None and -MARGIN <= float(text) <= 1 + MARGIN


def _is_action(text: str) -> bool:
    return re.fullmatch(r"[1-9]\d{0,3}", text, re.ASCII) is not None


_CHECKS: dict[str, Callable[[str], bool]] = {
    "youtube_id": _is_id,
    "timestamp": _is_timestamp,
    **dict.fromkeys(BOX, _is_corner),
    "action_id": _is_action,
}
_NEEDED = {
    "youtube_id": "is not 11 of A-Z a-z 0-9 _ -",
    "timestamp": f"is not a number of seconds within 0 and {MAX_TIME:.0f}",
    **dict.fromkeys(BOX, "is not a part of the picture, from 0 to 1"),
    "action_id": "is not a whole number from 1 on",
}


def place_in_clips(
    rows: pd.DataFrame, fps: Fraction, windows: Mapping[str, Window] | None = None
) -> pd.DataFrame:
    """`rows` of `Annotations` with, in front, `clip` (its name), `clip_time` (int64 ns), `frame`.

    frame: the picture's number from 1 at `fps`. windows: clips that are partial, by name
    (`read_windows`); a key frame outside of its clip's window is left out.
    """
    import pandas as pd

    # One whole number for each (id, second): a MultiIndex of both takes five times as long.
    ids, youtube_ids = pd.factorize(rows["youtube_id"])
    width = int(MAX_TIME) + 1
    codes, keys = pd.factorize(ids * width + rows["second"].to_numpy())
    names = [
        clip_name(youtube_id, second, AVA_TIME_END)
        for youtube_id, second in zip(youtube_ids[keys // width], keys % width, strict=True)
    ]
    starts = clip_start(keys % width)
    ends = np.full(len(names), np.iinfo(np.int64).max)
    if windows:
        for at, name in enumerate(names):
            if (window := windows.get(name)) is not None:
                starts[at], ends[at] = window.start, window.end
    times = rows["nanoseconds"].to_numpy()
    inside = (starts[codes] <= times) & (times < ends[codes])
    placed = rows.copy(deep=False)
    placed.insert(0, "clip", np.array(names, object)[codes])
    placed.insert(1, "clip_time", times - starts[codes])
    placed.insert(2, "frame", picture_number(placed["clip_time"].to_numpy(), fps))
    return placed[inside].reset_index(drop=True)


def read_windows(clips: Path) -> dict[str, Window]:
    """The partial clips of a folder, by name, from its download report; {} when it has none.

    download.py --allow_partial writes the window that it really cut into `time_start,time_end`;
    for a whole AVA-Kinetics clip these are the row's own, and `time_end` is -1. The last line that
    says `downloaded` counts, for the file of that run is the one on disk.
    """
    windows: dict[str, Window] = {}
    rows = read_reports(clips / REPORT_NAME, RESULT_COLUMNS, DOWNLOADED)
    for clip, _, start, end, *_ in rows:
        windows.pop(clip, None)
        name = parse_clip_name(clip)
        if (
            name is None
            or name[2] is not None
            or not _is_timestamp(start)
            or not _is_timestamp(end)
        ):
            continue
        windows[clip] = Window(nanoseconds(start), nanoseconds(end))
    return windows


def read_key_times(path: Path, clips: Path) -> dict[str, tuple[int, ...]]:
    """Clip's name -> the times of its key frames in the clip, in nanoseconds, rising.

    path: a raw annotation file (no header), or the `annotations_<split>.csv` that
    make_ava_kin_download_csv.py writes. clips: their folder, whose report tells of partial clips.
    Raises UserError for a file that is neither.
    """
    import pandas as pd

    data = _read(path)
    header = data[: data.find(b"\n")].decode("utf-8", errors="replace").split(",")
    if "clip" not in header:
        annotations = read_annotations(path)
        placed = place_in_clips(annotations.rows, Fraction(1), read_windows(clips))
        names, times = placed["clip"], placed["clip_time"].to_numpy()
    elif "clip_time" not in header:
        raise UserError(f"{path}:1: the header has no clip_time: it is no annotation file")
    else:
        table = pd.read_csv(
            io.BytesIO(data), dtype=object, keep_default_na=False, usecols=["clip", "clip_time"]
        )
        names, table["clip_time"] = table["clip"], _in_categories(table["clip_time"])
        bad = ~by_value(table["clip_time"], bool, _is_timestamp)
        if bad.any():
            line = int(bad.argmax()) + 2
            raise UserError(f"{path}:{line}: clip_time is not a time in seconds")
        times = by_value(table["clip_time"], np.int64, nanoseconds)
    found: dict[str, set[int]] = {}
    for name, time in zip(names, times.tolist(), strict=True):
        found.setdefault(name, set()).add(time)
    return {name: tuple(sorted(each)) for name, each in found.items()}


def find_label_map(folder: Path) -> Path | None:
    """The label map beside the annotations: the one of 80 actions before that of 60."""
    return next(iter(sorted(folder.glob(LABEL_MAPS))), None)


def read_label_map(path: Path) -> dict[str, str]:
    """action_id -> name, from a label map in protobuf's text form (`name: "..." label_id: 1`).

    Raises UserError when the file cannot be read or holds no label.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"label map {path} cannot be read: {error}") from error
    names: dict[str, str] = {}
    for block in re.findall(r"\{(.*?)\}", text, re.DOTALL):
        name = re.search(r'\bname:\s*"((?:[^"\\]|\\.)*)"', block)
        number = re.search(r"\b(?:label_)?id:\s*(\d+)", block)
        if name and number:
            names[str(int(number[1]))] = re.sub(r"\\(.)", r"\1", name[1])
    if not names:
        raise UserError(f"label map {path} holds no label (name: ... label_id: ...)")
    return names
