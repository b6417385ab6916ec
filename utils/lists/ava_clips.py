"""Convert the AVA-Kinetics annotations to times in clips, for make_ava_kin_download_csv.py.

The download list, the rows of each split with their frame, and the preview of annotated frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from utils.cli import Tell, existing_folder, plural, say
from utils.clip import AVA_TIME_END, Refused
from utils.files import names_in, publish, telling
from utils.lists import ava
from utils.parallel import run_parallel
from utils.process import sleep
from utils.run import Progress

if TYPE_CHECKING:
    from PIL import Image

LIST_COLUMNS = ("youtube_id", "time_start", "time_end", "split")
CLIP_COLUMNS = ("clip", "youtube_id", "timestamp", "clip_time", "frame", *ava.COLUMNS[2:], "action")
REFUSED_SHOWN = 10
PREVIEW_NAME = "annotations_preview.png"
PREVIEW_MOST = 400  # annotated frames; more make a picture that no viewer opens
TILE = (384, 288)  # pixels; a frame is shrunk or enlarged until it fits
CAPTION_HEIGHT = 16
TEXT_SIZE = 12
INK = "#101010"
COLOURS = ("#ffd400", "#00c8ff", "#7dff5a", "#ff7ad9", "#ff9a3c", "#b49cff")


@dataclass(frozen=True)
class AnnotatedSplit:
    """The annotations of one split that are used, and the rows that are none."""

    name: str
    rows: list[ava.Annotation]
    refused: list[Refused]


@dataclass(frozen=True)
class Clips:
    """The clips in the folder of --clips: their names, and the windows of the partial ones."""

    folder: Path
    names: set[str]
    windows: ava.Windows


class Placed(NamedTuple):
    """A row in its clip: the time there in nanoseconds, and the number of the frame's picture."""

    clip: str
    clip_time: int
    frame: int
    row: ava.Annotation


def read_split(folder: Path, name: str, include_unlabelled: bool, tell: Tell) -> AnnotatedSplit:
    """Read one split and tell what it holds. Raises UserError."""
    rows, refused = ava.read_annotations(ava.annotations_path(folder, name))
    frames = {(row.youtube_id, row.nanoseconds): row.action_id for row in reversed(rows)}
    unlabelled = sum(not action for action in frames.values())
    excluded = name == "train" and not include_unlabelled
    tell(
        f"{name}: {plural(len(rows), 'row')}, {plural(len(frames), 'annotated frame')},"
        f" {unlabelled:,} without boxes{' (excluded)' if excluded else ''}"
    )
    if refused:
        say(f"{name}: {plural(len(refused), 'invalid row')}")
        for each in refused[:REFUSED_SHOWN]:
            say(f"  {each}")
        if len(refused) > REFUSED_SHOWN:
            say(f"  and {len(refused) - REFUSED_SHOWN:,} more")
    if excluded:
        rows = [row for row in rows if row.action_id]
    return AnnotatedSplit(name, rows, refused)


def download_list(splits: Iterable[AnnotatedSplit]) -> list[str]:
    """The lines of the list: every (id, whole second) once, sorted. The first split keeps it."""
    clips: dict[tuple[str, int], str] = {}
    for split in splits:
        for row in split.rows:
            clips.setdefault((row.youtube_id, row.second), split.name)
    end = f"{AVA_TIME_END:.0f}"
    lines = [f"{key[0]},{key[1]},{end},{name}\n" for key, name in sorted(clips.items())]
    return [",".join(LIST_COLUMNS) + "\n", *lines]


def annotation_lines(placed: Iterable[Placed], actions: Mapping[str, str]) -> Iterator[str]:
    """The lines of annotations_{split}.csv, in the order of the annotations."""
    # The names of actions hold commas: "talk to (e.g., self, a person, a group)".
    quoted = {number: '"' + name.replace('"', '""') + '"' for number, name in actions.items()}
    texts: dict[int, str] = {}
    yield ",".join(CLIP_COLUMNS) + "\n"
    for clip, time, frame, row in placed:
        text = texts.get(time) or texts.setdefault(time, ava.seconds_text(time))
        rest = ",".join((*row.box, row.action_id, quoted.get(row.action_id, "")))
        yield f"{clip},{row.youtube_id},{row.timestamp},{text},{frame},{rest}\n"


def clips_of(folder: Path) -> Clips:
    """What lies in the folder of --clips. Raises UserError."""
    existing_folder(folder, "--clips")
    return Clips(folder, names_in(folder, ".mp4"), ava.read_windows(folder))


def place(split: AnnotatedSplit, fps: Fraction, clips: Clips | None, tell: Tell) -> list[Placed]:
    """A split's rows in terms of its clips; with `clips`, of those that are on disk."""
    number: dict[int, int] = {}
    placed = []
    for clip, time, row in ava.place_in_clips(split.rows, clips.windows if clips else None):
        if time not in number:
            number[time] = ava.picture_number(time, fps)
        placed.append(Placed(clip, time, number[time], row))
    if clips is None:
        return placed
    there = [each for each in placed if each.clip in clips.names]
    wanted = len({(row.youtube_id, row.second) for row in split.rows})
    tell(
        f"{split.name}: {len({each.clip for each in there}):,} of {plural(wanted, 'clip')} on disk;"
        f" {plural(len(placed) - len(there), 'row')} of missing clips excluded"
    )
    if outside := len(split.rows) - len(placed):
        tell(f"{split.name}: {plural(outside, 'row')} outside partial clips excluded")
    return there


def probe_frames(
    placed: Sequence[Placed], clips: Path, fps: Fraction, num_jobs: int, quiet: bool
) -> list[Placed]:
    """The rows with `frame` looked up in each clip. A clip that cannot be read keeps its numbers.

    Raises Stopped.
    """
    from clipreader.media import ClipError

    times: dict[str, dict[int, None]] = {}
    for each in placed:
        times.setdefault(each.clip, {})[each.clip_time] = None

    def look_up(task: tuple[str, dict[int, None]]) -> dict[tuple[str, int], int] | ClipError:
        clip, key_times = task
        try:
            numbers = ava.find_pictures(clips / f"{clip}.mp4", key_times, fps)
        except ClipError as error:
            return error
        return {(clip, time): number for time, number in zip(key_times, numbers, strict=True)}

    found: dict[tuple[str, int], int] = {}
    with Progress(len(times), "clip", quiet=quiet) as progress:
        for answer in run_parallel(look_up, times.items(), num_jobs):
            progress.add("unreadable" if isinstance(answer, ClipError) else "probed")
            if isinstance(answer, ClipError):
                progress.failure("not probed", str(answer.path.name), answer.problem)
            else:
                found |= answer
    sleep(0)
    return [each._replace(frame=found.get(each[:2], each.frame)) for each in placed]


def read_actions(folder: Path, tell: Tell) -> dict[str, str]:
    """The names of the actions by action_id; {} where there is no label map."""
    path = ava.find_label_map(folder)
    if path is None:
        tell(f"no label map ({ava.LABEL_MAPS}) in {folder}: the column `action` is empty")
        return {}
    return ava.read_label_map(path)


def tell_unnamed(tables: Iterable[Iterable[Placed]], actions: dict[str, str], tell: Tell) -> None:
    """Tell which action_ids the label map does not name."""
    used = {each.row.action_id for table in tables for each in table} - {""}
    if unnamed := sorted(used - actions.keys(), key=int) if actions else []:
        tell(f"without a name in the label map: action_id {', '.join(unnamed)}")


# --- the preview ---------------------------------------------------------------------------------


def draw_preview(
    placed: Iterable[Placed],
    actions: Mapping[str, str],
    clips: Path,
    fps: Fraction,
    number: int,
    target: Path,
    workspace: Path,
) -> tuple[int, int]:
    """Draw `number` annotated frames, spread evenly, with their boxes and actions as a sheet.

    Returns how many are on it, and how many were to be; without one, no file is written.
    """
    import numpy as np

    from clipreader.media import ClipError
    from clipreader.transforms import save_sheet

    frames: dict[tuple[str, int, int], dict[tuple[str, ...], list[str]]] = {}
    for each in placed:
        if action := each.row.action_id:
            boxes = frames.setdefault(each[:3], {})
            boxes.setdefault(each.row.box, []).append(actions.get(action, f"action {action}"))
    keys = list(frames)
    wanted = min(number, len(keys))
    step = (len(keys) - 1) / (wanted - 1) if wanted > 1 else 0
    tiles: dict[str, Image.Image] = {}
    for clip, time, frame in (keys[round(at * step)] for at in range(wanted)):
        sleep(0)
        try:
            tile = _draw_frame(clips / f"{clip}.mp4", frame, fps, frames[clip, time, frame])
            tiles[f"{clip}   {ava.seconds_text(time)} s   {frame:06d}.jpg"] = tile
        except ClipError as error:
            say(f"no preview of an annotated frame: {error}")
    if tiles:
        with telling(target, "write"):
            save_sheet(
                workspace / target.name,
                np.stack([np.asarray(tile) for tile in tiles.values()]),
                [*tiles],
            )
            publish(workspace / target.name, target)
    return len(tiles), wanted


def _draw_frame(
    path: Path, number: int, fps: Fraction, boxes: Mapping[tuple[str, ...], Sequence[str]]
) -> Image.Image:
    """The very picture that frame_extract.py writes, fitted into a tile, with its boxes.

    Raises ClipError if the clip cannot be read so far, or has fewer pictures.
    """
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    from clipreader.clip_reader import ClipReader

    with ClipReader(path) as clip:
        frame = clip.read(indices=[number - 1], fps=fps)[0]
    picture = ImageOps.contain(Image.fromarray(frame), TILE)
    width, height = picture.size
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(TEXT_SIZE)
    for colour, (corners, names) in zip(cycle(COLOURS), boxes.items(), strict=False):
        x1, y1, x2, y2 = map(float, corners)
        left, right = sorted((round(x1 * (width - 1)), round(x2 * (width - 1))))
        top, bottom = sorted((round(y1 * (height - 1)), round(y2 * (height - 1))))
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        # The names, on a ground of that colour, moved so that it stays in the picture.
        text = "\n".join(names)
        *_, wide, high = draw.multiline_textbbox((0, 0), text, font=font)
        x = max(0, min(left + 2, width - round(wide) - 4))
        y = max(0, min(top + 2, height - round(high) - 4))
        draw.rectangle((x, y, x + wide + 4, y + high + 3), fill=colour)
        draw.multiline_text((x + 2, y), text, fill=INK, font=font)
    tile = Image.new("RGB", (TILE[0], TILE[1] + CAPTION_HEIGHT))
    tile.paste(picture, ((TILE[0] - width) // 2, CAPTION_HEIGHT))
    return tile
