#!/usr/bin/env python3
"""Extract the frames of clips as JPEGs: exact frames, complete clips.

examples:
  python frame_extract.py clips frames
  python frame_extract.py clips frames_12fps --fps 12.5 --short_side 256
  python frame_extract.py clips frames_tar --archive
  python frame_extract.py clips key_frames --key_frames ava_kinetics_csv/kinetics_val_v1.0.csv

Writes frames/<clip>/000001.jpg and on. Image n at --fps f is the frame displayed at (n-1)/f
seconds, as in ffmpeg's fps filter. A clip's folder appears only when it is complete.
"""

from __future__ import annotations

from utils.errors import UserError, check_packages  # isort: skip

import argparse
import functools
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from utils.batch import (
    ClipFile,
    add_batch_options,
    check_folders,
    finish,
    limits_of,
    plan_batch,
    run_batch,
    say_batch,
)
from utils.cli import EXIT_OK, make_parser, plural, run_script
from utils.cluster import check_dask
from utils.files import names_in
from utils.frames import (
    SETTINGS_NAME,
    Extractor,
    FramesResult,
    Settings,
    add_frame_options,
    clips_at_work,
    frame_folders,
    read_key_times,
    settings_lines,
)
from utils.process import stop_on_signals
from utils.run import has_settings, open_run, write_settings

REPORT_NAME = "frames_report.csv"
COLUMNS = tuple(each.name for each in fields(FramesResult))
PACKAGES = ("av", "numpy", "simplejpeg", "joblib")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument("videos_dir", type=Path, help="folder of videos, flat or nested")
    parser.add_argument("output_dir", type=Path, help="folder for the frames")
    add_frame_options(parser)
    add_batch_options(parser)
    args = parser.parse_args(argv)
    if args.upscale and args.short_side is None:
        parser.error("--upscale needs --short_side N")
    if args.window is not None and not args.key_frames:
        parser.error("--window needs --key_frames FILE")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages(*PACKAGES)
    check_dask(args)
    check_folders(args)
    settings = Settings.of(args)
    key_times = read_key_times(args)
    only = None if key_times is None else frozenset(key_times)
    made_in = (lambda folder: names_in(folder, ".tar")) if args.archive else frame_folders
    out: Path = args.output_dir
    with stop_on_signals():
        batch = plan_batch(args, made_in, only, makes_folders=not args.archive)
        kept = out / SETTINGS_NAME
        if not has_settings(kept, asdict(settings), "frames") and batch.done:
            raise UserError(
                f"{out} has frames of {plural(batch.done, 'clip')}, but no {SETTINGS_NAME}: their"
                " settings are unknown; use another output folder"
            )
        if not args.quiet:
            say_batch(batch, args, settings_lines(settings))
        if args.dry_run:
            return EXIT_OK
        with open_run(args, out / REPORT_NAME, COLUMNS, PACKAGES, [args.videos_dir]) as run:
            write_settings(kept, run.workspace, asdict(settings))
            worker = Extractor(settings, limits_of(args), out, run.workspace, args.overwrite)
            times = key_times or {}
            tasks = (ClipFile(t.clip, t.path, times.get(t.path.stem)) for t in batch.tasks())
            outcomes = run.workers.run(worker, tasks, FramesResult.lost)
            note = functools.partial(clips_at_work, run.workspace)
            tally = run_batch(batch, outcomes, run, args, note)
    return finish(batch, tally, args, run.report.path, f"frames: {tally.totals['frames']:,}")


if __name__ == "__main__":
    run_script(main)
