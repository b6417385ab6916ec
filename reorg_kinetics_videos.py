"""Bring old Kinetics folders home: clips in label folders move into one flat folder, by one name.

examples:
  python reorg_kinetics_videos.py old_kinetics clips --dry_run
  python reorg_kinetics_videos.py old_kinetics clips --duplicates old_duplicates --remove_empty
  python reorg_kinetics_videos.py /mnt/k400 clips --copy
  python reorg_kinetics_videos.py old_kinetics clips --link --no_check

The second one says first what it will do, then does it:

  source       old_kinetics: 5 clips in 6 files (.mp4 5, .mkv 1)
  others       2 files that are no clips: left (symlink 1, .txt 1)
  twice        1 clip with more than one file; the lesser go to old_duplicates
  to bring in  5 clips, to clips; for 0 of them a file is there already
  how          each file is decoded whole, then moved; 2 jobs
  report       clips/reorg_report.csv
  stop         Ctrl-C; the same command goes on from there
  left: /data/old_kinetics/jogging/d0_jogging-_000005_000015.mp4: the file is empty
  done after 0:00:01: 3 moved, 1 set aside, 1 left, 1 rewrapped
  removed: 2 empty folders
  on disk now: 4 of 5 clips

Clips are .mp4, .mkv, .webm and .avi files named <id>_<start>_<end> or, of AVA-Kinetics, <id>_<ts>,
with any padding. They become <id>_<start:06d>_<end:06d>.mp4, which download.py sees as done.
Nothing is written over, and no file is deleted but the one that has moved.
"""

from __future__ import annotations

import utils.early  # noqa: F401 (first: Ctrl-C while the rest is imported)

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from utils.cli import EXIT_OK, add_num_jobs, existing_folder, make_parser, run_script
from utils.cluster import add_cluster_options, check_dask
from utils.errors import DiskFull, UserError
from utils.files import make_folder, sync_folder
from utils.packages import check_packages
from utils.process import stop_on_signals, stop_run
from utils.reorg.bring import (
    announced,
    finish,
    read_unfinished,
    remove_empty_folders,
    settle_all,
    write_down,
)
from utils.reorg.gather import (
    COPY,
    LEFT,
    LINK,
    MOVE,
    REPORT_COLUMNS,
    REPORT_NAME,
    Group,
    Job,
    make_groups,
    say_plan,
    scan,
)
from utils.run import Opened, open_run, watch
from utils.video.ffmpeg import find_ffmpeg

PACKAGES = ("av", "ffmpeg-python", "joblib")
CHUNK = 200  # clips a task where nothing is decoded: a task costs 66 us, a rename 20


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument("src", type=Path, help="the folder with the clips, at any depth")
    parser.add_argument("dst", type=Path, help="the flat folder that they go to")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--copy", action="store_true", help="copy, and leave the source as it is")
    how.add_argument("--link", action="store_true", help="make hard links, and leave the source")
    parser.add_argument(
        "--duplicates",
        type=Path,
        metavar="DIR",
        help="where the lesser of two files for one clip goes; without it, it stays where it is",
    )
    parser.add_argument(
        "--no_check",
        action="store_true",
        help="do not decode the files: much faster, and a broken clip counts as done",
    )
    parser.add_argument(
        "--remove_empty",
        action="store_true",
        help="remove the folders that are empty once their clips have moved",
    )
    parser.add_argument(
        "--ffmpeg", metavar="PATH", help="the ffmpeg to use (default: that of imageio-ffmpeg)"
    )
    parser.add_argument("--dry_run", action="store_true", help="say what would be done, and end")
    add_num_jobs(parser)
    add_cluster_options(parser)
    args = parser.parse_args(argv)
    args.mode = COPY if args.copy else LINK if args.link else MOVE
    if args.remove_empty and args.mode != MOVE:
        parser.error("--remove_empty goes with moving; --copy and --link leave the source as it is")
    if args.dask and args.no_check:
        parser.error("--dask is for the check: leave --no_check out")
    return args


def bring_all(
    groups: Sequence[Group], job: Job, run: Opened, args: argparse.Namespace
) -> Counter[str]:
    """Settle every clip, in parallel; returns the counts of actions. Raises DiskFull at the end."""
    size = 1 if job.check else CHUNK
    counts: Counter[str] = Counter()
    is_full = False
    num_files = sum(len(group.files) for group in groups)
    with watch(num_files, "file", args.quiet, run.workers) as progress:
        chunks = (groups[at : at + size] for at in range(0, len(groups), size))
        to_do = announced(chunks, job, run.report)
        for outcomes in settle_all(to_do, job, run.workers):
            write_down(outcomes, run.report)
            for outcome in outcomes:
                counts[outcome.action] += 1
                progress.add(outcome.action)
                if outcome.action == LEFT:
                    progress.failure(LEFT, outcome.source, outcome.reason)
                elif args.verbose:
                    progress.say(f"{outcome.action}: {outcome.source}: {outcome.clip}")
                if outcome.disk_full:
                    is_full = True
                    stop_run()
    sync_folder(job.dst)  # the renames of all, at once
    if is_full:
        raise DiskFull(job.dst)
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages(*PACKAGES)
    check_dask(args)
    src, dst = existing_folder(args.src, "src").resolve(), args.dst.resolve()
    duplicates = args.duplicates.resolve() if args.duplicates else None
    if duplicates in (src, dst):
        raise UserError(f"--duplicates {args.duplicates} is src or dst itself: give another folder")
    job = Job(dst, args.mode, not args.no_check, duplicates, find_ffmpeg(args.ffmpeg))
    with stop_on_signals():
        tree = scan(src, [folder for folder in (dst, duplicates) if folder and folder != src])
        groups = make_groups(tree, dst)
        if not args.quiet:
            say_plan(tree, groups, job, args)
        if args.dry_run:
            return EXIT_OK
        if duplicates:
            make_folder(duplicates)
        unfinished = read_unfinished(dst / REPORT_NAME)
        with open_run(args, dst / REPORT_NAME, REPORT_COLUMNS, PACKAGES, [src, dst]) as run:
            job = replace(job, unfinished=unfinished, workspace=run.workspace)
            counts = bring_all(groups, job, run, args)
            removed = remove_empty_folders(src, dst / REPORT_NAME) if args.remove_empty else 0
    return finish(tree, counts, removed, args, run.report.path)


if __name__ == "__main__":
    run_script(main)
