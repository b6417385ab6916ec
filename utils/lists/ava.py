"""Read the AVA-Kinetics annotations, and express them in times and frames of the clips.

Times are whole nanoseconds, read from the text, because 7.4 - 4 in floats is more than 3.4, and one
frame's difference is a wrong label.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import cache, partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils import files
from utils.cli import Tell, plural, printable, say
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
from utils.parallel import run_parallel
from utils.process import sleep
from utils.report import REPORT_NAME, RESULT_COLUMNS, read_reports
from utils.run import Progress

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from clipreader.packets import FrameTable

SPLITS = ("train", "val", "test")
ARCHIVE = "https://storage.googleapis.com/deepmind-media/Datasets/ava_kinetics_v1_0.tar.gz"
BOX = ("x1", "y1", "x2", "y2")
COLUMNS = ("youtube_id", "timestamp", *BOX, "action_id")  # of the files, which have no header
LIST_COLUMNS = ("youtube_id", "time_start", "time_end", "split")
CLIP_COLUMNS = ("clip", *COLUMNS[:2], "clip_time", "frame", *COLUMNS[2:], "action")
LABEL_MAPS = "ava_action_list_v2.2*.pbtxt"
LABEL_MAP_LIMIT = 2**20  # bytes; the real one has 6,000
REFUSED_SHOWN = 10

Windows = Mapping[str, tuple[int, int]]  # partial clip -> the part of its video in it, nanoseconds

SECOND = 10**9  # nanoseconds
NEVER = 10**18
# Timestamps are rounded to milliseconds: 7.433 is frame 13 of that second at 30 fps, whose time is
# 7.43333. Half a millisecond of grace keeps it from counting as the frame before.
GRACE = SECOND // 2000
MARGIN = 0.1  # of the frame, by which a corner may be outside of it

PREVIEW_NAME = "annotations_preview.png"
PREVIEW_MOST = 400  # annotated frames; viewers do not open the image of more
TILE = (384, 288)  # pixels; a frame is shrunk or enlarged until it fits
CAPTION_HEIGHT = 16
COLOURS = ("#ffd400", "#00c8ff", "#7dff5a", "#ff7ad9", "#ff9a3c", "#b49cff")


def annotations_path(folder: Path, split: str) -> Path:
    """Return the path of a split's annotations in the folder of the unpacked archive."""
    return folder / f"kinetics_{split}_v1.0.csv"


# --- times and frames ----------------------------------------------------------------------------


def nanoseconds(text: str) -> int:
    """Return a time as a list writes it (`7.4`, `0902`), exactly. `text` matches TIME_PATTERN."""
    return int(round(Decimal(text), 9) * SECOND)


def seconds_text(ns: int) -> str:
    """Return `3.4` for 3400000000, and `3.0` for 3000000000."""
    whole, part = divmod(ns, SECOND)
    return f"{whole}.{f'{part:09d}'.rstrip('0') or '0'}"


def clip_start(second: int) -> int:
    """Return where the clip of an annotated frame starts, in nanoseconds.

    second: that of the annotated frame, rounded down.
    """
    return max(second - AVA_LEAD, 0) * SECOND


def picture_number(clip_time: int, fps: Fraction) -> int:
    """Return the number, from 1, of the frame that is displayed at `clip_time` (nanoseconds).

    This is for a clip whose own frame rate is `fps`; `key_picture` is exact at every rate.
    """
    return (clip_time + GRACE) * fps.numerator // (fps.denominator * SECOND) + 1


def key_picture(table: FrameTable, shown: Sequence[int], key_time: int) -> int:
    """Return the number, from 1, of the first image that shows the clip's frame at `key_time`.

    shown: for each image that frame_extract.py writes, its frame in `table`. A frame that the
    resampling drops is shown by the image before. A number past the last image means that the clip
    has ended by then. key_time: nanoseconds.
    """
    tick = Fraction(key_time + GRACE, SECOND) / table.time_base + table.origin
    if tick >= table.end:
        return len(shown) + 1
    frame = max(0, bisect_right(table.pts, tick) - 1)
    at_or_before = shown[max(0, bisect_right(shown, frame) - 1)]
    return bisect_left(shown, at_or_before) + 1


# --- the annotations -----------------------------------------------------------------------------


def _is_timestamp(text: str) -> bool:
    is_time = TIME_PATTERN.fullmatch(text) is not None and not text.startswith("-")
    return is_time and float(text) <= MAX_TIME


def _is_corner(text: str) -> bool:
    found = re.fullmatch(r"-?(\d{1,9}(\.\d{0,30})?|\.\d{1,30})([eE][-+]?\d{1,2})?", text, re.ASCII)
    return text == "" or (found is not None and -MARGIN <= float(text) <= 1 + MARGIN)


_ROW = re.compile(
    rf"({ID_PATTERN.pattern}),([^,]+)"
    r"(?:,([^,]+),([^,]+),([^,]+),([^,]+),([1-9][0-9]{0,3})|,,,,,)?"
)


def read_annotations(path: Path) -> tuple[pd.DataFrame, list[Refused]]:
    """Read the rows `id,timestamp[,x1,y1,x2,y2,action_id]`, and the invalid ones.

    The table has the COLUMNS as texts ("" if there is no box), and `nanoseconds`. Raises UserError
    if there is no such file, or no row is an annotation.
    """
    import pandas as pd

    good: list[str] = []
    refused: list[Refused] = []
    is_time, is_corner = cache(_is_timestamp), cache(_is_corner)  # most texts occur many times
    problem = f"is not {','.join(COLUMNS[:2])}[,{','.join(COLUMNS[2:])}]"
    if not path.exists():
        raise UserError(f"{path} does not exist: unpack it from {ARCHIVE}")
    with files.telling(path), files.open_text(path, errors="replace") as file:
        for number, line in enumerate(files.bounded_lines(file), 1):
            found = _ROW.fullmatch(line.rstrip("\r\n"))
            fields = found.groups("") if found else ()
            if fields and is_time(fields[1]) and all(map(is_corner, fields[2:6])):
                good.append(line.rstrip("\r\n"))
            elif not line.isspace():
                refused.append(Refused(path, number, printable(line.rstrip("\r\n")), problem))
    if not good:
        first = f": {refused[0]}" if refused else ""
        raise UserError(f"{path} contains no annotations{first}")
    text = io.BytesIO("\n".join(good).encode())
    how: dict[str, Any] = {"dtype": object, "keep_default_na": False, "low_memory": False}
    table = pd.read_csv(text, names=list(COLUMNS), **how)  # keeps each text once
    table["nanoseconds"] = table["timestamp"].map(cache(nanoseconds))
    return table, refused


def read_split(
    folder: Path, name: str, include_unlabelled: bool, tell: Tell
) -> tuple[pd.DataFrame, list[Refused]]:
    """Read one split, as `read_annotations`, and report its numbers. Raises UserError."""
    rows, refused = read_annotations(annotations_path(folder, name))
    frames = rows.drop_duplicates(["youtube_id", "nanoseconds"])
    text = f"{name}: {plural(len(rows), 'row')}, {plural(len(frames), 'annotated frame')}"
    excluded = name == "train" and not include_unlabelled
    if unlabelled := int((frames["action_id"] == "").sum()):
        text += f", {unlabelled:,} without boxes{' (excluded)' if excluded else ''}"
    tell(text)
    if refused:
        say(f"{name}: {plural(len(refused), 'invalid row')}")
        for each in refused[:REFUSED_SHOWN]:
            say(f"  {each}")
    return rows[rows["action_id"] != ""] if excluded else rows, refused


def place_in_clips(rows: pd.DataFrame, windows: Windows) -> pd.DataFrame:
    """Return the rows that are in their clips, with `clip` and `clip_time` (nanoseconds).

    windows: partial clips; an annotated frame outside its clip's window is left out.
    """
    import numpy as np

    times = rows["nanoseconds"].to_numpy()
    seconds = (times // SECOND).tolist()
    pairs = zip(rows["youtube_id"], seconds, strict=True)
    clips = [clip_name(*pair, AVA_TIME_END) for pair in pairs]
    whole = ((clip_start(second), NEVER) for second in seconds)
    parts = [windows.get(*each) for each in zip(clips, whole, strict=True)]
    starts, ends = np.array(parts, dtype=np.int64).reshape(-1, 2).T
    placed = rows.assign(clip=clips, clip_time=times - starts)
    return placed[(starts <= times) & (times < ends)]


def read_windows(clips: Path) -> dict[str, tuple[int, int]]:
    """Read the windows of a folder's partial clips from its report; {} if it has none.

    download.py --allow_partial writes the window that it really cut into `time_start,time_end`.
    For a whole AVA-Kinetics clip these are the row's own, and `time_end` is -1. The last line with
    `downloaded` counts, because the file of that run is the one on disk.
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
    """Return clip -> the times of its annotated frames in the clip, in nanoseconds, rising.

    path: an annotation file without a header, or the `annotations_<split>.csv` that
    make_ava_kin_download_csv.py writes. clips: their folder, whose report has the partial clips.
    Raises UserError for another file.
    """
    import pandas as pd

    with files.telling(path), files.open_text(path, errors="replace") as file:
        if "clip" in file.readline(1000).rstrip("\r\n").split(","):
            file.seek(0)
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
            if "clip_time" not in table or not table["clip_time"].map(_is_timestamp).all():
                raise UserError(f"{path}: its column clip_time does not hold times in seconds")
            table["clip_time"] = table["clip_time"].map(nanoseconds)
        else:
            table = place_in_clips(read_annotations(path)[0], read_windows(clips))
    return {name: tuple(sorted(times)) for name, times in _times_of_clips(table).items()}


def _times_of_clips(table: pd.DataFrame) -> dict[str, set[int]]:
    times: dict[str, set[int]] = {}
    for clip, time in zip(table["clip"], table["clip_time"], strict=True):
        times.setdefault(clip, set()).add(time)
    return times


# --- the label map -------------------------------------------------------------------------------


_LABEL = re.compile(r'\{(?:[^{}"]|"(?:[^"\\\n]|\\.)*")*\}')
_NAME = re.compile(r'\bname:\s{0,9}"((?:[^"\\\n]|\\.){0,300})"')
_NUMBER = re.compile(r"\b(?:label_)?id:\s{0,9}(\d{1,9})\b")


def read_actions(folder: Path, tell: Tell) -> dict[str, str]:
    """Read the names of the actions by action_id; {} if the folder has no label map."""
    # Of two official ones, that of 80 actions comes first, before that of 60.
    path = min(folder.glob(LABEL_MAPS), default=None)
    if path is None:
        tell(f"no label map ({LABEL_MAPS}) in {folder}: the column `action` is empty")
        return {}
    return read_label_map(path)


def read_label_map(path: Path) -> dict[str, str]:
    """Read action_id -> name from protobuf's text form (`name: "..." label_id: 1`).

    Raises UserError if the file cannot be read or has no label.
    """
    with files.telling(path):
        text = files.read_text(path, LABEL_MAP_LIMIT)
    names: dict[str, str] = {}
    for label in _LABEL.findall(text):
        name = _NAME.search(label)
        number = _NUMBER.search(_NAME.sub("", label))
        if name and number:
            names[str(int(number[1]))] = re.sub(r"\\(.)", r"\1", name[1])
    if not names:
        raise UserError(f"label map {path} contains no label (name: ... label_id: ...)")
    return names


# --- what the script writes ----------------------------------------------------------------------


def download_list(splits: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of the list: every (id, whole second) once, sorted, with its first split."""
    import pandas as pd

    parts = [
        rows.assign(time_start=rows["nanoseconds"] // SECOND, time_end=-1, split=name)
        for name, rows in splits.items()
    ]
    keys = ["youtube_id", "time_start"]
    return pd.concat(parts)[list(LIST_COLUMNS)].drop_duplicates(keys).sort_values(keys)


def place(
    name: str,
    rows: pd.DataFrame,
    fps: Fraction,
    windows: Windows,
    on_disk: set[str] | None,
    tell: Tell,
) -> pd.DataFrame:
    """Return a split's rows in terms of its clips, with `frame`; with `on_disk`, of those clips."""
    placed = place_in_clips(rows, windows)
    placed["frame"] = placed["clip_time"].map(cache(partial(picture_number, fps=fps)))
    if on_disk is None:
        return placed
    found = placed[placed["clip"].isin(on_disk)]
    wanted = len(set(zip(rows["youtube_id"], rows["nanoseconds"] // SECOND, strict=True)))
    text = f"{name}: {found['clip'].nunique():,} of {plural(wanted, 'clip')} on disk"
    if missing := len(placed) - len(found):
        text += f"; {plural(missing, 'row')} of missing clips excluded"
    if outside := len(rows) - len(placed):
        text += f"; {plural(outside, 'row')} outside partial clips excluded"
    tell(text)
    return found


def probe_frames(
    placed: pd.DataFrame, clips: Path, fps: Fraction, num_jobs: int, quiet: bool
) -> pd.DataFrame:
    """Return the rows with `frame` from the frame times of each clip.

    The rows of a clip that cannot be read keep their numbers. Raises Stopped.
    """
    from clipreader.frame_source import FrameSource
    from clipreader.media import ClipError
    from utils.video.whole import pictures_of

    times = _times_of_clips(placed)

    def look_up(clip: str) -> dict[tuple[str, int], int] | ClipError:
        try:
            source = FrameSource(clips / f"{clip}.mp4")
            source.close()
            shown = pictures_of(source, fps)
        except ClipError as error:
            return error
        return {(clip, time): key_picture(source.table, shown, time) for time in times[clip]}

    found: dict[tuple[str, int], int] = {}
    with Progress(len(times), "clip", quiet=quiet) as progress:
        for answer in run_parallel(look_up, times, num_jobs):
            progress.add("unreadable" if isinstance(answer, ClipError) else "probed")
            if isinstance(answer, ClipError):
                progress.failure("not probed", str(answer.path.name), answer.problem)
            else:
                found |= answer
    sleep(0)
    keys = zip(placed["clip"], placed["clip_time"], placed["frame"], strict=True)
    return placed.assign(frame=[found.get((clip, time), frame) for clip, time, frame in keys])


def annotation_lines(placed: pd.DataFrame, actions: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of annotations_{split}.csv, in the order of the annotations."""
    # The names of actions hold commas: "talk to (e.g., self, a person, a group)".
    quoted = {number: '"' + name.replace('"', '""') + '"' for number, name in actions.items()}
    texts = placed.assign(
        clip_time=placed["clip_time"].map(cache(seconds_text)),
        frame=placed["frame"].map(str),
        action=[quoted.get(number, "") for number in placed["action_id"]],
    )
    yield ",".join(CLIP_COLUMNS) + "\n"
    for row in zip(*(texts[name] for name in CLIP_COLUMNS), strict=True):
        yield ",".join(row) + "\n"


def tell_unnamed(tables: Iterable[pd.DataFrame], actions: Mapping[str, str], tell: Tell) -> None:
    """Report the action_ids that the label map does not name."""
    used = set[str]().union(*(table["action_id"].unique() for table in tables)) - {""}
    if unnamed := sorted(used - actions.keys(), key=int) if actions else []:
        tell(f"without a name in the label map: action_id {', '.join(unnamed)}")


def draw_preview(
    tables: Iterable[pd.DataFrame],
    actions: Mapping[str, str],
    clips: Path,
    fps: Fraction,
    number: int,
    target: Path,
    workspace: Path,
) -> tuple[int, int]:
    """Draw `number` annotated frames, spread evenly, with their boxes and actions on one sheet.

    Returns how many are on it, and how many should be. Without any, no file is written.
    """
    import numpy as np
    import pandas as pd

    from clipreader.media import ClipError
    from clipreader.transforms import save_sheet

    rows = pd.concat([table[table["action_id"] != ""] for table in tables])
    rows["action"] = [actions.get(each, f"action {each}") for each in rows["action_id"]]
    frames = rows.groupby(["clip", "clip_time", "frame"])
    keys = rows[["clip", "clip_time", "frame"]].drop_duplicates()
    chosen = np.linspace(0, len(keys) - 1, min(number, PREVIEW_MOST, len(keys))).round().astype(int)
    tiles: dict[str, Image.Image] = {}
    for clip, time, frame in keys.iloc[chosen].itertuples(index=False):
        sleep(0)
        annotations = frames.get_group((clip, time, frame))
        try:
            tile = _draw_frame(clips / f"{clip}.mp4", frame, fps, annotations)
            tiles[f"{clip}   {seconds_text(time)} s   {frame:06d}.jpg"] = tile
        except ClipError as error:
            say(f"no preview of an annotated frame: {error}")
    if tiles:
        with files.telling(target, "write"):
            pixels = np.stack([np.asarray(tile) for tile in tiles.values()])
            save_sheet(workspace / target.name, pixels, [*tiles])
            files.publish(workspace / target.name, target)
    return len(tiles), len(chosen)


def _draw_frame(path: Path, number: int, fps: Fraction, annotations: pd.DataFrame) -> Image.Image:
    """Return the frame that frame_extract.py writes, fitted into a tile, with its boxes.

    Raises ClipError if the clip cannot be read so far, or has fewer frames.
    """
    from PIL import Image, ImageDraw, ImageOps

    from clipreader.clip_reader import ClipReader

    with ClipReader(path) as clip:
        frame = clip.read(indices=[number - 1], fps=fps)[0]
    picture = ImageOps.contain(Image.fromarray(frame), TILE)
    width, height = picture.size
    draw = ImageDraw.Draw(picture)
    boxes: Any = annotations.groupby(list(BOX), sort=False)["action"]
    for colour, (corners, actions) in zip(cycle(COLOURS), boxes, strict=False):
        x1, y1, x2, y2 = map(float, corners)
        left, right = sorted((round(x1 * (width - 1)), round(x2 * (width - 1))))
        top, bottom = sorted((round(y1 * (height - 1)), round(y2 * (height - 1))))
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        text = "\n".join(actions)
        *_, wide, high = draw.textbbox((0, 0), text)
        at = max(2, min(left + 4, width - wide - 2)), max(2, min(top + 2, height - high - 2))
        draw.text(at, text, "white", stroke_width=2, stroke_fill="black")
    return ImageOps.pad(picture, (TILE[0], TILE[1] + CAPTION_HEIGHT), centering=(0.5, 1))
