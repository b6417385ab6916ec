"""One split of the AVA-Kinetics annotations: its download list, and its rows per clip.

For make_ava_kin_download_csv.py, after `lists/ava`, which reads and checks the annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from utils.cli import existing_folder, plural, say
from utils.clip import AVA_TIME_END, Refused
from utils.errors import DiskFull, UserError, is_disk_full
from utils.files import names_in, publish
from utils.lists import ava
from utils.parallel import run_parallel
from utils.process import sleep
from utils.run import Progress

if TYPE_CHECKING:
    import pandas as pd


LIST_COLUMNS = ("youtube_id", "time_start", "time_end", "split")
CLIP_COLUMNS = ("clip", "youtube_id", "timestamp", "clip_time", "frame", *ava.COLUMNS[2:], "action")
REFUSED_SHOWN = 10

Tell = Callable[[str], None]  # says a line, unless --quiet


@dataclass(frozen=True)
class Split:
    """The annotations of one split that are used; `rows` as `lists.ava.Annotations` has them."""

    name: str
    rows: pd.DataFrame
    refused: tuple[Refused, ...]


@dataclass(frozen=True)
class Clips:
    """The clips in the folder of --clips: their names, and the windows of the partial ones."""

    folder: Path
    names: set[str]
    windows: dict[str, ava.Window]


def read_split(folder: Path, name: str, include_unlabelled: bool, tell: Tell) -> Split:
    """Read one split and tell what it holds. Raises UserError."""
    read = ava.read_annotations(ava.annotations_path(folder, name))
    rows = read.rows
    key_frames = rows.drop_duplicates(["youtube_id", "nanoseconds"])
    unlabelled = int((key_frames["action_id"] == "").sum())
    left_out = name == "train" and not include_unlabelled
    tell(
        f"{name}: {plural(len(rows), 'row')}, {plural(len(key_frames), 'key frame')};"
        f" {unlabelled:,} of them without boxes{', left out' if left_out else ''}"
    )
    if read.refused:
        say(f"{name}: {plural(len(read.refused), 'row')} refused")
        for refused in read.refused[:REFUSED_SHOWN]:
            say(f"  {refused}")
        if len(read.refused) > REFUSED_SHOWN:
            say(f"  and {len(read.refused) - REFUSED_SHOWN:,} more")
    if left_out:
        rows = rows[rows["action_id"] != ""].reset_index(drop=True)
    return Split(name, rows, read.refused)


def download_list(splits: Iterable[Split]) -> list[str]:
    """The lines of the list: every (id, whole second) once, sorted. The first split keeps it."""
    clips: dict[tuple[str, int], str] = {}
    for split in splits:
        pairs = split.rows[["youtube_id", "second"]].drop_duplicates()
        for pair in zip(pairs["youtube_id"].tolist(), pairs["second"].tolist(), strict=True):
            clips.setdefault(pair, split.name)
    end = f"{AVA_TIME_END:.0f}"
    return [
        ",".join(LIST_COLUMNS),
        *(f"{youtube_id},{second},{end},{clips[youtube_id, second]}"
          for youtube_id, second in sorted(clips)),
    ]  # fmt: skip


def annotation_lines(placed: pd.DataFrame, actions: dict[str, str]) -> list[str]:
    """The lines of annotations_{split}.csv, in the order of the annotations."""
    # The names of actions hold commas: "talk to (e.g., self, a person, a group)".
    quoted = {number: '"' + name.replace('"', '""') + '"' for number, name in actions.items()}
    # tolist(): a pandas column of strings is 20 times slower to walk along.
    columns = [
        placed["clip"].tolist(),
        placed["youtube_id"].tolist(),
        placed["timestamp"].tolist(),
        ava.by_value(placed["clip_time"], object, ava.seconds_text).tolist(),
        ava.by_value(placed["frame"], object, str).tolist(),
        *(placed[name].tolist() for name in ava.COLUMNS[2:]),
        ava.by_value(placed["action_id"], object, lambda number: quoted.get(number, "")).tolist(),
    ]
    return [",".join(CLIP_COLUMNS), *map(",".join, zip(*columns, strict=True))]


def place(split: Split, fps: Fraction, clips: Clips | None, tell: Tell) -> pd.DataFrame:
    """A split's rows in terms of its clips; with `clips`, of those that are on disk."""
    if clips is None:
        return ava.place_in_clips(split.rows, fps)
    placed = ava.place_in_clips(split.rows, fps, clips.windows)
    outside = len(split.rows) - len(placed)
    on_disk = placed["clip"].isin(clips.names)
    wanted = len(split.rows[["youtube_id", "second"]].drop_duplicates())
    found = placed["clip"][on_disk].nunique()
    tell(
        f"{split.name}: {found:,} of {plural(wanted, 'clip')} on disk;"
        f" {plural(int((~on_disk).sum()), 'row')} of clips that are not, left out"
    )
    if outside:
        tell(f"{split.name}: {plural(outside, 'row')} outside of partial clips, left out")
    return placed[on_disk].reset_index(drop=True)


def probe_frames(
    table: pd.DataFrame, clips: Path, fps: Fraction, num_jobs: int, quiet: bool
) -> pd.DataFrame:
    """The table with `frame` looked up in each clip. A clip that cannot be read keeps its numbers.

    Raises Stopped.
    """
    from clipreader.media import ClipError

    times: dict[str, list[int]] = {}
    pairs = table[["clip", "clip_time"]].drop_duplicates()
    for clip, time in pairs.itertuples(index=False, name=None):
        times.setdefault(clip, []).append(time)

    def look_up(task: tuple[str, list[int]]) -> dict[tuple[str, int], int] | ClipError:
        clip, key_times = task
        try:
            numbers = ava.find_pictures(clips / f"{clip}.mp4", key_times, fps)
        except ClipError as error:
            return error
        return {(clip, time): n for time, n in zip(key_times, numbers, strict=True)}

    found: dict[tuple[str, int], int] = {}
    with Progress(len(times), "clip", quiet=quiet) as progress:
        for answer in run_parallel(look_up, times.items(), num_jobs):
            progress.add("unreadable" if isinstance(answer, ClipError) else "probed")
            if isinstance(answer, ClipError):
                progress.failure("not probed", str(answer.path.name), answer.problem)
            else:
                found |= answer
    sleep(0)
    keys = zip(table["clip"], table["clip_time"], table["frame"], strict=True)
    return table.assign(frame=[found.get((clip, time), frame) for clip, time, frame in keys])


def find_clips(folder: Path) -> Clips:
    """What lies in the folder of --clips. Raises UserError."""
    existing_folder(folder, "--clips")
    return Clips(folder, names_in(folder, ".mp4"), ava.read_windows(folder))


def tell_unnamed(tables: Iterable[pd.DataFrame], actions: dict[str, str], tell: Tell) -> None:
    """Tell which action_ids the label map does not name."""
    used = {number for table in tables for number in table["action_id"].unique()} - {""}
    if unnamed := sorted(used - actions.keys(), key=int) if actions else []:
        tell(f"not in the label map, and without a name: action_id {', '.join(unnamed)}")


def read_actions(folder: Path, tell: Tell) -> dict[str, str]:
    """The names of the actions by action_id; {} where there is no label map."""
    path = ava.find_label_map(folder)
    if path is None:
        tell(f"no label map ({ava.LABEL_MAPS}) in {folder}: the column action stays empty")
        return {}
    return ava.read_label_map(path)


def write_file(write: Callable[[Path], object], target: Path, folder: Path) -> None:
    """`write` a file so that the whole of it appears at once. Raises DiskFull, UserError, Stopped.

    folder: a temporary one on the same file system.
    """
    sleep(0)
    temporary = folder / target.name
    try:
        write(temporary)
        publish(temporary, target)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(target.parent) from error
        raise UserError(f"cannot write {target}: {error.strerror}") from error


def check_targets(targets: Sequence[tuple[Path, Sequence[str]]]) -> None:
    """Raises UserError when a file is there that this script would not have written."""
    if len({path.absolute() for path, _ in targets}) < len(targets):
        raise UserError(f"--output {targets[0][0]} is the name of another output: give another")
    for path, columns in targets:
        if path.is_dir():
            raise UserError(f"{path} is a folder: name a file with --output")
        try:
            with path.open("rb") as file:
                header = file.readline(200).decode("ascii", errors="replace").strip()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        if header != ",".join(columns):
            raise UserError(f"{path} is not a file of this script: move it, or give --output")
