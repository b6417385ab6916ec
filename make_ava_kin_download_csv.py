#!/usr/bin/env python3
r"""Convert AVA-Kinetics annotations to a download list and to annotations per clip.

examples:
  python make_ava_kin_download_csv.py
  python make_ava_kin_download_csv.py --annotations ava_kinetics_v1_0 --split \
      val test
  python make_ava_kin_download_csv.py --clips clips --fps 30 --preview 12

Reads kinetics_{train,val,test}_v1.0.csv and prints for the first command:

  train: 1,008,456 rows, 142,000 annotated frames, 14,311 without boxes
      (excluded)
  val: 94,139 rows, 31,272 annotated frames, 3,137 without boxes
  test: 64,304 rows, 64,304 annotated frames, 64,304 without boxes
  wrote ava_kinetics_csv/videos_to_download.csv: 223,265 clips
  wrote ava_kinetics_csv/annotations_train.csv: 994,145 rows
  wrote ava_kinetics_csv/annotations_val.csv: 94,139 rows
  wrote ava_kinetics_csv/annotations_test.csv: 64,304 rows
  next: python download.py ava_clips --input_csv
      ava_kinetics_csv/videos_to_download.csv

The columns of the list are youtube_id,time_start,time_end,split. time_start is
the whole second of the annotated frame, and time_end is -1. download.py makes
<id>_<ts>.mp4 of it: 6 s that start 3 s before that second. The columns of the
annotations are clip,youtube_id,timestamp,clip_time,frame,x1,y1,x2,y2,action_id,
action. clip_time is in seconds from the start of the clip. frame is the number
of the image that frame_extract.py writes at the same --fps: 91 is 000091.jpg.
"""

from __future__ import annotations

from utils.errors import UserError, check_packages  # isort: skip

import argparse
import shlex
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils import cli, files
from utils.lists import ava
from utils.lists.official import ensure_ava_annotations, missing_annotations
from utils.lists.reading import without_garbage_collection
from utils.process import sleep

if TYPE_CHECKING:
    import pandas as pd

Output = tuple[Path, str | Iterable[str], str]  # file, its text, how many of what
DEFAULT_FOLDER = Path("ava_kinetics_csv")
DEFAULT_OUTPUT = DEFAULT_FOLDER / "videos_to_download.csv"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.make_parser(__doc__ or "")
    add = parser.add_argument
    flag: dict[str, Any] = {"action": "store_true"}
    folder: dict[str, Any] = {"type": Path, "metavar": "DIR"}
    needed = "folder of kinetics_{train,val,test}_v1.0.csv and of the label map"
    needed += "; missing files are downloaded"
    add("--annotations", default=DEFAULT_FOLDER, **folder, help=needed)
    cli.add_shared(parser, "--lists_base")
    output = "list for download.py; annotations_{split}.csv are written to the same folder"
    add("--output", type=Path, default=DEFAULT_OUTPUT, metavar="FILE", help=output)
    splits: dict[str, Any] = {"nargs": "+", "choices": ava.SPLITS, "default": ava.SPLITS}
    kept = "keep only these splits (default: train val test)"
    add("--split", "--splits", dest="splits", metavar="SPLIT", **splits, help=kept)
    unlabelled = "also keep annotated frames of train without boxes, which have no label"
    add("--include_unlabelled", **flag, help=unlabelled)
    fps = "the --fps that you use with frame_extract.py; the column `frame` depends on it"
    add("--fps", type=cli.frame_rate, default=Fraction(30), help=fps)
    clips = "keep only the rows of annotations_{split}.csv whose clip is in this folder"
    clips += "; partial clips are read from its download_report.csv"
    add("--clips", **folder, help=clips)
    probe = "with --clips: read the frame times of each clip, so that `frame` is exact at every"
    probe += " frame rate; takes 5 to 10 ms per clip"
    add("--probe", **flag, help=probe)
    preview = f"with --clips: draw N annotated frames (at most {ava.PREVIEW_MOST}) with boxes and"
    preview += f" actions to {ava.PREVIEW_NAME}, in the folder of the list"
    add("--preview", type=cli.positive_int, metavar="N", help=preview)
    cli.add_shared(parser.group("how to run"), "--num_jobs", "--dry_run")
    args = parser.parse_args(argv)
    for option in ("probe", "preview"):
        if getattr(args, option) and not args.clips:
            parser.error(f"--{option} reads the clips: add --clips DIR")
    if not 0 < args.fps <= 1000:  # at 0 the numbers would depend on each clip's own rate
        parser.error(f"--fps {args.fps} is not a rate above 0 and up to 1000")
    return args


def run(args: argparse.Namespace, tell: cli.Tell) -> int:
    """Read everything, then write it, and return the exit code. Raises UserError, Stopped."""
    # Only the default folder is made, because another name may be a typing error.
    may_fetch = args.annotations.is_dir() or args.annotations == DEFAULT_FOLDER
    if may_fetch and missing_annotations(args.annotations):
        if args.dry_run:
            tell(f"would download the AVA-Kinetics annotations to {args.annotations}")
            return cli.EXIT_OK
        ensure_ava_annotations(args.annotations, args.lists_base, tell)
    for option in ("annotations", "clips"):
        if folder := getattr(args, option):
            cli.existing_folder(folder, f"--{option}")
    targets = {
        name: args.output.parent / f"annotations_{name}.csv"
        for name in ava.SPLITS
        if name in args.splits
    }
    if args.output in targets.values():
        raise UserError(
            f"--output {args.output} is the name of another output file: choose another name"
        )
    for path in (args.output, *targets.values()):
        columns = ava.LIST_COLUMNS if path == args.output else ava.CLIP_COLUMNS
        files.check_ours(path, ",".join(columns) + "\n", "move it, or choose another --output")

    actions = ava.read_actions(args.annotations, tell)
    windows = ava.read_windows(args.clips) if args.clips else {}
    on_disk = files.names_in(args.clips, ".mp4") if args.clips else None
    splits, tables, is_complete = {}, {}, True
    for name in targets:
        sleep(0)
        rows, refused = ava.read_split(args.annotations, name, args.include_unlabelled, tell)
        is_complete &= not refused
        table = ava.place(name, rows, args.fps, windows, on_disk, tell)
        if args.probe and not args.dry_run:
            table = ava.probe_frames(table, args.clips, args.fps, args.num_jobs, args.quiet)
        splits[name], tables[name] = rows, table
    ava.tell_unnamed(tables.values(), actions, tell)
    clips = ava.download_list(splits)
    outputs: list[Output] = [
        (args.output, clips.to_csv(index=False), cli.plural(len(clips), "clip"))
    ]
    for name, table in tables.items():
        text = ava.annotation_lines(table, actions)
        outputs.append((targets[name], text, cli.plural(len(table), "row")))
    if args.dry_run:
        for path, _, count in outputs:
            tell(f"would write {path}: {count}")
    else:
        is_complete &= write_all(outputs, tables.values(), actions, args, tell)
    return cli.EXIT_OK if is_complete else cli.EXIT_INCOMPLETE


def write_all(
    outputs: Sequence[Output],
    tables: Iterable[pd.DataFrame],
    actions: Mapping[str, str],
    args: argparse.Namespace,
    tell: cli.Tell,
) -> bool:
    """Write the files and the preview, and return whether that has all of its frames."""
    is_complete, folder = True, files.make_folder(args.output.parent)
    with files.run_folder(folder) as workspace:
        for path, text, count in outputs:
            files.write_whole(path, workspace, text)
            tell(f"wrote {path}: {count}")
        if args.preview:
            target = folder / ava.PREVIEW_NAME
            drawn, wanted = ava.draw_preview(
                tables, actions, args.clips, args.fps, args.preview, target, workspace
            )
            is_complete = drawn == wanted
            if drawn:
                tell(f"drew {cli.plural(drawn, 'annotated frame')}: {target}")
    output = shlex.quote(str(args.output))
    command = f"download.py ava_clips --input_csv {output}"
    if args.clips:
        command = f"frame_extract.py {shlex.quote(str(args.clips))} ava_frames --fps {args.fps}"
    tell(f"next: python {command}")
    return is_complete


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages("requests", "urllib3", "pandas", *(["av", "pillow"] if args.clips else []))
    with without_garbage_collection():
        return run(args, cli.teller(args.quiet))


if __name__ == "__main__":
    cli.run_script(main)
