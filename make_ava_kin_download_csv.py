"""AVA-Kinetics annotations become a download list, and annotations in terms of the clips.

examples:
  python make_ava_kin_download_csv.py
  python make_ava_kin_download_csv.py --annotations ava_kinetics_v1_0 --splits val test
  python make_ava_kin_download_csv.py --clips clips --fps 30 --preview 12

Reads kinetics_{train,val,test}_v1.0.csv and prints, for the first one:

  train: 1,008,456 rows, 142,000 key frames; 14,311 of them without boxes, left out
  val: 94,139 rows, 31,272 key frames; 3,137 of them without boxes
  test: 64,304 rows, 64,304 key frames; 64,304 of them without boxes
  wrote ava_kinetics_csv/videos_to_download.csv: 223,265 clips
  wrote ava_kinetics_csv/annotations_train.csv: 994,145 rows
  wrote ava_kinetics_csv/annotations_val.csv: 94,139 rows
  wrote ava_kinetics_csv/annotations_test.csv: 64,304 rows
  next: python download.py OUT --input_csv ava_kinetics_csv/videos_to_download.csv

The list: youtube_id,time_start,time_end,split, with time_start the key frame's whole second and
time_end -1. download.py makes <id>_<ts>.mp4 of it, 6 s from 3 s before that second. The
annotations: clip,youtube_id,timestamp,clip_time,frame,x1,y1,x2,y2,action_id,action, with clip_time
in seconds from the clip's start, and frame the picture that frame_extract.py writes at the same
--fps: 91 is 000091.jpg.
"""

from __future__ import annotations

import utils.early  # noqa: F401 (first: Ctrl-C while the rest is imported)

import argparse
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.cli import (
    EXIT_INCOMPLETE,
    EXIT_OK,
    UserError,
    add_num_jobs,
    existing_folder,
    make_parser,
    positive_int,
    run_script,
    say,
)
from utils.clip import AVA_TIME_END, Refused
from utils.decode.times import parse_fps
from utils.files import DiskFull, is_disk_full, make_folder, names_in, publish, run_folder
from utils.lists import ava
from utils.lists.fetching import ensure_ava_annotations, missing_annotations
from utils.packages import check_packages
from utils.parallel import run_parallel
from utils.process import Stopped, received_signal, sleep, stop_on_signals
from utils.progress import Progress, plural

if TYPE_CHECKING:
    import pandas as pd

    from utils.decode.annotated import KeyFrame

DEFAULT_FOLDER = Path("ava_kinetics_csv")
LIST_COLUMNS = ("youtube_id", "time_start", "time_end", "split")
CLIP_COLUMNS = ("clip", "youtube_id", "timestamp", "clip_time", "frame", *ava.COLUMNS[2:], "action")
PREVIEW_NAME = "annotations_preview.png"
PREVIEW_MOST = 400  # key frames; more make a picture that no viewer opens
REFUSED_SHOWN = 10

Tell = Callable[[str], None]  # says a line, unless --quiet


@dataclass(frozen=True)
class Split:
    """The annotations of one split that are used; `rows` as `utils.lists.ava.Annotations` has them."""

    name: str
    rows: pd.DataFrame
    refused: tuple[Refused, ...]


@dataclass(frozen=True)
class Clips:
    """The clips in the folder of --clips: their names, and the windows of the partial ones."""

    folder: Path
    names: set[str]
    windows: dict[str, ava.Window]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--annotations",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="the folder of kinetics_{train,val,test}_v1.0.csv and of the label map, which are"
        " fetched if it has none",
    )
    parser.add_argument(
        "--lists_base",
        metavar="URL",
        help="a server of the annotations (default: DeepMind's, then CVDF's)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("ava_kinetics_csv/videos_to_download.csv"),
        metavar="FILE",
        help="the download list; annotations_{split}.csv go beside it",
    )
    parser.add_argument(
        "--splits", nargs="+", choices=ava.SPLITS, default=ava.SPLITS, help="the splits to read"
    )
    parser.add_argument(
        "--include_unlabelled",
        action="store_true",
        help="take the key frames of train without boxes, too; they carry no label",
    )
    parser.add_argument(
        "--fps",
        type=_rate,
        default=Fraction(30),
        help="the --fps of frame_extract.py, which the numbers in the column frame are for",
    )
    parser.add_argument(
        "--clips",
        type=Path,
        metavar="DIR",
        help="keep only the rows of annotations_{split}.csv whose clip is in this folder; partial"
        " clips are read from its download_report.csv",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="with --clips: look up each key frame among its clip's own frames, so that the column"
        " frame is exact where the clip's rate is not --fps, too; takes 5 to 10 ms a clip",
    )
    parser.add_argument(
        "--preview",
        type=positive_int,
        metavar="N",
        help=f"with --clips: draw {PREVIEW_NAME} beside the list, N key frames with their boxes"
        " and action names",
    )
    parser.add_argument("--dry_run", action="store_true", help="read and count, and write nothing")
    add_num_jobs(parser)
    args = parser.parse_args(argv)
    for option in ("probe", "preview"):
        if getattr(args, option) and not args.clips:
            parser.error(f"--{option} looks into the clips: give --clips DIR, too")
    if args.preview and args.preview > PREVIEW_MOST:
        parser.error(f"--preview {args.preview}: at most {PREVIEW_MOST} fit on a picture")
    return args


def _rate(text: str) -> Fraction:
    try:
        fps = parse_fps(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not 0 < fps <= 1000:
        # At --fps 0 the numbers would depend on each clip's own rate.
        raise argparse.ArgumentTypeError(f"{text} is not a rate above 0 and up to 1000")
    return fps


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
        for pair in pairs.itertuples(index=False, name=None):
            clips.setdefault(pair, split.name)
    end = f"{AVA_TIME_END:.0f}"
    return [
        ",".join(LIST_COLUMNS),
        *(f"{youtube_id},{second},{end},{clips[youtube_id, second]}"
          for youtube_id, second in sorted(clips)),
    ]  # fmt: skip


def annotation_lines(placed: pd.DataFrame, actions: dict[str, str]) -> list[str]:
    """The lines of annotations_{split}.csv, in the order of the annotations."""
    times, at = np.unique(placed["clip_time"].to_numpy(), return_inverse=True)
    texts = np.array([ava.seconds_text(int(time)) for time in times], object)
    # The names of actions hold commas: "talk to (e.g., self, a person, a group)".
    quoted = {number: '"' + name.replace('"', '""') + '"' for number, name in actions.items()}
    # tolist(): a pandas column of strings is 20 times slower to walk along.
    columns = [
        placed["clip"].tolist(),
        placed["youtube_id"].tolist(),
        placed["timestamp"].tolist(),
        texts[at].tolist(),
        map(str, placed["frame"].tolist()),
        *(placed[name].tolist() for name in ava.COLUMNS[2:]),
        [quoted.get(number, "") for number in placed["action_id"].tolist()],
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
    from utils.decode.errors import ClipError

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


def preview_frames(
    tables: Iterable[pd.DataFrame], actions: dict[str, str], clips: Path, fps: Fraction, number: int
) -> list[KeyFrame]:
    """`number` key frames that have boxes, spread evenly over the tables; fewer if there are."""
    import pandas as pd

    from utils.decode.annotated import Box, KeyFrame

    rows = pd.concat([table[table["action_id"] != ""] for table in tables], ignore_index=True)
    keys = rows[["clip", "clip_time"]].drop_duplicates()
    places = np.linspace(0, len(keys) - 1, min(number, len(keys))).round().astype(int)
    chosen = []
    for clip, time in keys.iloc[places].itertuples(index=False, name=None):
        here = rows[(rows["clip"] == clip) & (rows["clip_time"] == time)]
        frame = int(here["frame"].iloc[0])
        boxes: dict[tuple[str, ...], list[str]] = {}
        for *corners, action in here[list(ava.COLUMNS[2:])].itertuples(index=False, name=None):
            boxes.setdefault(tuple(corners), []).append(actions.get(action, f"action {action}"))
        chosen.append(
            KeyFrame(
                path=clips / f"{clip}.mp4",
                caption=f"{clip}   {ava.seconds_text(time)} s   {frame:06d}.jpg",
                number=frame,
                fps=fps,
                boxes=tuple(
                    Box(tuple(map(float, corners)), tuple(names))
                    for corners, names in boxes.items()
                ),
            )
        )
    return chosen


def write_preview(key_frames: Sequence[KeyFrame], target: Path, folder: Path) -> int:
    """Draw the contact sheet; how many key frames are on it. Without one, no file is written."""
    from utils.decode.annotated import draw_key_frame, save_key_frames
    from utils.decode.errors import ClipError

    drawn = []
    for each in key_frames:
        sleep(0)
        try:
            drawn.append((each, draw_key_frame(each)))
        except ClipError as error:
            say(f"no preview of this key frame: {error}")
    if drawn:
        write_file(partial(save_key_frames, drawn=drawn), target, folder)
    return len(drawn)


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


def run(args: argparse.Namespace, tell: Tell) -> int:
    """Read all, then write all; the exit code. Raises UserError, Stopped."""
    # Not into a folder that is not there, but for the default: its name may be a slip.
    may_fetch = args.annotations.is_dir() or args.annotations == DEFAULT_FOLDER
    if may_fetch and missing_annotations(args.annotations):
        if args.dry_run:
            tell(f"would fetch the AVA-Kinetics annotations into {args.annotations}")
            return EXIT_OK
        ensure_ava_annotations(args.annotations, args.lists_base, tell)
    annotations = existing_folder(args.annotations, "--annotations")
    names = [name for name in ava.SPLITS if name in args.splits]
    targets = [args.output.parent / f"annotations_{name}.csv" for name in names]
    check_targets([(args.output, LIST_COLUMNS), *((path, CLIP_COLUMNS) for path in targets)])
    clips = find_clips(args.clips) if args.clips else None
    actions = read_actions(annotations, tell)

    splits, tables = [], []
    for name in names:
        sleep(0)
        splits.append(read_split(args.annotations, name, args.include_unlabelled, tell))
        tables.append(place(splits[-1], args.fps, clips, tell))
        if clips and args.probe and not args.dry_run:
            tables[-1] = probe_frames(tables[-1], clips.folder, args.fps, args.num_jobs, args.quiet)
    tell_unnamed(tables, actions, tell)
    files = [(args.output, download_list(splits), "clip")]
    for path, table in zip(targets, tables, strict=True):
        files.append((path, annotation_lines(table, actions), "row"))

    code = EXIT_INCOMPLETE if any(split.refused for split in splits) else EXIT_OK
    if args.dry_run:
        for path, lines, unit in files:
            tell(f"would write {path}: {plural(len(lines) - 1, unit)}")
        return code
    beside = make_folder(args.output.parent)
    with run_folder(beside) as folder:
        for path, lines, unit in files:
            data = ("\n".join(lines) + "\n").encode()
            write_file(partial(Path.write_bytes, data=data), path, folder)
            tell(f"wrote {path}: {plural(len(lines) - 1, unit)}")
        if clips and args.preview:
            wanted = preview_frames(tables, actions, clips.folder, args.fps, args.preview)
            drawn = write_preview(wanted, beside / PREVIEW_NAME, folder)
            tell(f"drew {plural(drawn, 'key frame')}: {args.output.parent / PREVIEW_NAME}")
            code = code if drawn == len(wanted) else EXIT_INCOMPLETE
    if clips:
        tell(
            f"next: python frame_extract.py {shlex.quote(str(args.clips))} FRAMES --fps {args.fps}"
        )
    else:
        tell(f"next: python download.py OUT --input_csv {shlex.quote(str(args.output))}")
    return code


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages("numpy", "pandas", "requests", "urllib3")
    with stop_on_signals():
        try:
            return run(args, (lambda _: None) if args.quiet else say)
        except Stopped:
            return 128 + received_signal()


if __name__ == "__main__":
    run_script(main)
