#!/usr/bin/env python3
r"""AVA-Kinetics annotations become a download list, and annotations in terms of
the clips.

examples:
  python make_ava_kin_download_csv.py
  python make_ava_kin_download_csv.py --annotations ava_kinetics_v1_0 --split \
      val test
  python make_ava_kin_download_csv.py --clips clips --fps 30 --preview 12

Reads kinetics_{train,val,test}_v1.0.csv and prints, for the first command:

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

The list: youtube_id,time_start,time_end,split, with time_start the annotated
frame's whole second and time_end -1. download.py makes <id>_<ts>.mp4 of it, 6
s from 3 s before that second. The annotations:
clip,youtube_id,timestamp,clip_time,frame,x1,y1,x2,y2,action_id,action, with
clip_time in seconds from the clip's start, and frame the image that
frame_extract.py writes at the same --fps: 91 is 000091.jpg.
"""

from __future__ import annotations

from utils.errors import UserError, check_packages  # isort: skip

import argparse
import shlex
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

from utils.cli import (
    EXIT_INCOMPLETE,
    EXIT_OK,
    Tell,
    add_shared,
    existing_folder,
    frame_rate,
    make_parser,
    plural,
    positive_int,
    run_script,
    teller,
)
from utils.files import check_ours, make_folder, run_folder, write_whole
from utils.lists import ava
from utils.lists.ava_clips import (
    CLIP_COLUMNS,
    LIST_COLUMNS,
    PREVIEW_MOST,
    PREVIEW_NAME,
    Clips,
    Placed,
    annotation_lines,
    clips_of,
    download_list,
    draw_preview,
    place,
    probe_frames,
    read_actions,
    read_split,
    tell_unnamed,
)
from utils.lists.official import ensure_ava_annotations, missing_annotations
from utils.lists.reading import without_garbage_collection
from utils.process import sleep, stop_on_signals

DEFAULT_FOLDER = Path("ava_kinetics_csv")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--annotations",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="folder of kinetics_{train,val,test}_v1.0.csv and of the label map; missing files are"
        " downloaded",
    )
    parser.add_argument(
        "--lists_base",
        metavar="URL",
        help="server of the annotations (default: DeepMind's, then CVDF's)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("ava_kinetics_csv/videos_to_download.csv"),
        metavar="FILE",
        help="list for download.py; annotations_{split}.csv are written to the same folder",
    )
    parser.add_argument(
        "--split",
        "--splits",
        dest="splits",
        nargs="+",
        choices=ava.SPLITS,
        default=ava.SPLITS,
        metavar="SPLIT",
        help="keep only these splits (default: train val test)",
    )
    parser.add_argument(
        "--include_unlabelled",
        action="store_true",
        help="also keep annotated frames of train that have no boxes, and so no label",
    )
    parser.add_argument(
        "--fps",
        type=frame_rate,
        default=Fraction(30),
        help="the --fps that you use with frame_extract.py; the column `frame` depends on it",
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
        help="with --clips: read the frame times of each clip, so that `frame` is exact at every"
        " frame rate; takes 5 to 10 ms per clip",
    )
    parser.add_argument(
        "--preview",
        type=positive_int,
        metavar="N",
        help=f"with --clips: draw N annotated frames with boxes and actions to {PREVIEW_NAME},"
        " in the folder of the list",
    )
    add_shared(parser.group("how to run"), "--num_jobs", "--dry_run")
    args = parser.parse_args(argv)
    for option in ("probe", "preview"):
        if getattr(args, option) and not args.clips:
            parser.error(f"--{option} reads the clips: add --clips DIR")
    if not 0 < args.fps <= 1000:  # at 0 the numbers would depend on each clip's own rate
        parser.error(f"--fps {args.fps} is not a rate above 0 and up to 1000")
    if args.preview and args.preview > PREVIEW_MOST:
        parser.error(
            f"--preview {args.preview}: at most {PREVIEW_MOST} frames fit on a contact sheet"
        )
    return args


def run(args: argparse.Namespace, tell: Tell) -> int:
    """Read all, then write all; the exit code. Raises UserError, Stopped."""
    # Not into a folder that is not there, but for the default: its name may be a slip.
    may_fetch = args.annotations.is_dir() or args.annotations == DEFAULT_FOLDER
    if may_fetch and missing_annotations(args.annotations):
        if args.dry_run:
            tell(f"would download the AVA-Kinetics annotations to {args.annotations}")
            return EXIT_OK
        ensure_ava_annotations(args.annotations, args.lists_base, tell)
    annotations = existing_folder(args.annotations, "--annotations")
    names = [name for name in ava.SPLITS if name in args.splits]
    targets = [args.output.parent / f"annotations_{name}.csv" for name in names]
    if args.output in targets:
        raise UserError(
            f"--output {args.output} is the name of another output file: choose another name"
        )
    for path in (args.output, *targets):
        columns = LIST_COLUMNS if path == args.output else CLIP_COLUMNS
        check_ours(path, ",".join(columns) + "\n", "move it, or choose another --output")
    clips = clips_of(args.clips) if args.clips else None
    actions = read_actions(annotations, tell)

    splits, tables = [], []
    for name in names:
        sleep(0)
        splits.append(read_split(args.annotations, name, args.include_unlabelled, tell))
        tables.append(place(splits[-1], args.fps, clips, tell))
        if clips and args.probe and not args.dry_run:
            tables[-1] = probe_frames(tables[-1], clips.folder, args.fps, args.num_jobs, args.quiet)
    tell_unnamed(tables, actions, tell)
    listed = download_list(splits)
    code = EXIT_INCOMPLETE if any(split.refused for split in splits) else EXIT_OK
    if args.dry_run:
        tell(f"would write {args.output}: {plural(len(listed) - 1, 'clip')}")
        for path, table in zip(targets, tables, strict=True):
            tell(f"would write {path}: {plural(len(table), 'row')}")
        return code
    drawn_all = write_all(
        listed, dict(zip(targets, tables, strict=True)), actions, clips, args, tell
    )
    if clips:
        folder = shlex.quote(str(args.clips))
        tell(f"next: python frame_extract.py {folder} ava_frames --fps {args.fps}")
    else:
        tell(f"next: python download.py ava_clips --input_csv {shlex.quote(str(args.output))}")
    return code if drawn_all else EXIT_INCOMPLETE


def write_all(
    listed: Sequence[str],
    tables: Mapping[Path, Sequence[Placed]],
    actions: Mapping[str, str],
    clips: Clips | None,
    args: argparse.Namespace,
    tell: Tell,
) -> bool:
    """Write each file whole, and the preview; whether every frame of that could be drawn."""
    beside = make_folder(args.output.parent)
    with run_folder(beside) as folder:
        write_whole(args.output, folder, listed)
        tell(f"wrote {args.output}: {plural(len(listed) - 1, 'clip')}")
        for path, table in tables.items():
            write_whole(path, folder, annotation_lines(table, actions))
            tell(f"wrote {path}: {plural(len(table), 'row')}")
        if not (clips and args.preview):
            return True
        placed = chain.from_iterable(tables.values())
        target = beside / PREVIEW_NAME
        drawn, wanted = draw_preview(
            placed, actions, clips.folder, args.fps, args.preview, target, folder
        )
        tell(f"drew {plural(drawn, 'annotated frame')}: {args.output.parent / PREVIEW_NAME}")
        return drawn == wanted


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages("requests", "urllib3", *(["numpy", "av", "pillow"] if args.clips else []))
    with stop_on_signals(), without_garbage_collection():
        return run(args, teller(args.quiet))


if __name__ == "__main__":
    run_script(main)
