#!/usr/bin/env python3
r"""Import old Kinetics folders: clips in label folders move into one flat folder.

examples:
  python reorg_kinetics_videos.py old_kinetics clips --dry_run
  python reorg_kinetics_videos.py old_kinetics clips --duplicates \
      old_duplicates
  python reorg_kinetics_videos.py /mnt/k400 clips --copy
  python reorg_kinetics_videos.py old_kinetics clips --link --no_check

The second command prints a plan, moves the clips, and ends with a summary:

  finished in 0:00:02: 4 of 4 files processed: 2 moved, 1 left, 1 set aside
  on disk: 2 of 3 clips
  left: 1 file, see `reason` in clips/reorg_report.csv

Clips are .mp4, .mkv, .webm and .avi files named <id>_<start>_<end> or, for
AVA-Kinetics, <id>_<ts>, with any padding. They become
<id>_<start:06d>_<end:06d>.mp4, which download.py recognises as done. Nothing
is overwritten. Only files that were moved are removed from the source.
"""

from __future__ import annotations

from utils.errors import DiskFull, UserError, check_packages  # isort: skip

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from utils import reorg
from utils.cli import (
    EXIT_INCOMPLETE,
    EXIT_OK,
    add_shared,
    existing_folder,
    make_parser,
    plural,
    run_script,
    say,
)
from utils.cluster import add_cluster_options, check_dask
from utils.files import make_folder, sync_folder
from utils.process import STOP, received_signal, stop_on_signals
from utils.reorg import LEFT, REPORT_COLUMNS, REPORT_NAME, ClipFiles, HowToBring, Tree, file_name
from utils.report import report_paths
from utils.run import Opened, open_run, say_end, say_next, say_statement, show_progress
from utils.video.ffmpeg import find_ffmpeg

PACKAGES = ("av", "ffmpeg-python", "joblib")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument("src", type=Path, help="folder with the clips, at any depth")
    parser.add_argument("dst", type=Path, help="flat folder for the clips")
    group = parser.add_argument_group("what to do with the files")
    how = group.add_mutually_exclusive_group()
    how.add_argument("--copy", action="store_true", help="copy, and keep the source as it is")
    how.add_argument("--link", action="store_true", help="make hard links, and keep the source")
    group.add_argument(
        "--duplicates",
        type=Path,
        metavar="DIR",
        help="move the worse file of a duplicate clip here (default: keep it in place)",
    )
    group.add_argument(
        "--no_check",
        action="store_true",
        help="do not decode the files: 100,000 files in 5 s, but broken clips count as done",
    )
    group.add_argument(
        "--remove_empty",
        action="store_true",
        help="remove folders that are empty after their clips were moved",
    )
    group = parser.group("how to run")
    add_shared(group, "--num_jobs", "--dry_run")
    add_cluster_options(group)
    add_shared(parser.group("rarely needed"), "--ffmpeg")
    args = parser.parse_args(argv)
    args.mode = reorg.COPY if args.copy else reorg.LINK if args.link else reorg.MOVE
    if args.remove_empty and args.mode != reorg.MOVE:
        parser.error("--remove_empty cannot be combined with --copy or --link")
    if args.dask and args.no_check:
        parser.error("--dask cannot be combined with --no_check: the workers only check files")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages(*PACKAGES)
    check_dask(args)
    src, dst = existing_folder(args.src, "src").resolve(), args.dst.resolve()
    duplicates = args.duplicates.resolve() if args.duplicates else None
    if duplicates in (src, dst):
        raise UserError(f"--duplicates {args.duplicates} is src or dst: use another folder")
    how = HowToBring(dst, args.mode, not args.no_check, duplicates, find_ffmpeg(args.ffmpeg))
    with stop_on_signals():
        tree = reorg.scan(src, [folder for folder in (dst, duplicates) if folder and folder != src])
        if not tree.clips and not tree.unreadable and not report_paths(dst / REPORT_NAME):
            raise UserError(f"{args.src} contains no clips{in_brackets(tree.others)}")
        to_bring = reorg.files_to_bring(tree, dst)
        if not args.quiet:
            say_reorg_plan(tree, to_bring, how, args)
        if args.dry_run:
            return EXIT_OK
        if duplicates:
            make_folder(duplicates)
        unfinished = reorg.read_unfinished(dst / REPORT_NAME)
        with open_run(args, dst / REPORT_NAME, REPORT_COLUMNS, PACKAGES, [src, dst]) as run:
            how = replace(how, unfinished=unfinished, workspace=run.workspace)
            counts = bring_all(to_bring, how, run, args)
            removed = reorg.remove_empty_folders(src, dst / REPORT_NAME) if args.remove_empty else 0
    return end_reorg(tree, to_bring, counts, removed, args, run.report.path)


def say_reorg_plan(
    tree: Tree, to_bring: Sequence[ClipFiles], how: HowToBring, args: argparse.Namespace
) -> None:
    """Print the plan."""
    files = [found for each in tree.clips.values() for found in each]
    kinds = Counter(os.path.splitext(found.path)[1].lower() for found in files)
    others = sum(tree.others.values())
    several = sum(len(clip.files) > 1 for clip in to_bring)
    there = sum(clip.there is not None for clip in to_bring)
    worse = f"move to {args.duplicates}" if args.duplicates else "are kept"
    done = {reorg.MOVE: "move", reorg.COPY: "copy", reorg.LINK: "hard-link"}[how.mode]
    done = f"decode each file, then {done} it" if how.check else f"{done} files, decode none"
    clips = f"{plural(len(tree.clips), 'clip')} in {plural(len(files), 'file')}"
    ignored = f"{plural(others, 'file')} that are not clips{in_brackets(tree.others)}"
    say_statement(
        [
            ("source", f"{args.src}: {clips}{in_brackets(kinds)}"),
            ("ignored", ignored.replace("1 file that are", "1 file that is") * bool(others)),
            *(("unreadable", problem) for problem in tree.unreadable),
            ("duplicates", f"{plural(several, 'clip')} with several files; worse files {worse}"
             * bool(several)),
            ("to bring in", f"{plural(len(to_bring), 'clip')} into {args.dst}"),
            ("", f"{plural(there, 'clip')} with a file in place" * bool(there)),
            ("how", done),
            ("jobs", f"{args.num_jobs:,}"),
            ("report", str(args.dst / REPORT_NAME)),
        ]
    )  # fmt: skip


def in_brackets(counts: Counter[str]) -> str:
    text = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
    return f" ({text})" if text else ""


def bring_all(
    to_bring: Sequence[ClipFiles], how: HowToBring, run: Opened, args: argparse.Namespace
) -> Counter[str]:
    """Bring in every clip, in parallel; returns the counts of actions. Raises DiskFull."""
    counts: Counter[str] = Counter()
    is_full = False
    num_files = sum(len(clip.files) for clip in to_bring)
    with show_progress(num_files, "file", args.quiet, run.workers) as progress:
        chunks = reorg.announced(to_bring, how, run.report)
        for filed in reorg.bring_in(chunks, how, run.workers):
            reorg.write_down(filed, run.report)
            for each in filed:
                counts[each.action] += 1
                progress.add(each.action)
                if each.action == LEFT:
                    progress.failure(LEFT, each.source, each.reason)
                elif args.verbose:
                    progress.say(f"{each.action}: {each.source}: {each.clip}")
                if each.disk_full:
                    is_full = True
                    STOP.set()
    sync_folder(how.dst)  # all renames at once
    if is_full:
        raise DiskFull(how.dst)
    return counts


def end_reorg(
    tree: Tree,
    to_bring: Sequence[ClipFiles],
    counts: Counter[str],
    removed: int,
    args: argparse.Namespace,
    report: Path,
) -> int:
    """Print the summary; return the exit code."""
    done, is_stopped = sum(counts.values()), STOP.is_set()
    num_files = sum(len(clip.files) for clip in to_bring)
    if not args.quiet:
        there = set(os.listdir(args.dst))
        actions = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        text = ", ".join(f"{count:,} {action}" for action, count in actions)
        say_end(min(done, num_files), num_files, "file", text.replace("_", " "))
        if removed:
            say(f"removed: {plural(removed, 'empty folder')}")
        here = sum(file_name(name) in there for name in tree.clips)
        say(f"on disk: {here:,} of {plural(len(tree.clips), 'clip')}")
        if counts[LEFT]:
            say(f"left: {plural(counts[LEFT], 'file')}, see `reason` in {report}")
            say("      download.py can download the missing clips into the same folder")
        if is_stopped:
            say_next(f"processes {plural(max(0, num_files - done), 'remaining file')}")
    if signal := received_signal():
        return 128 + signal
    # Stopped without a signal: a cluster that was lost.
    return EXIT_INCOMPLETE if counts[LEFT] or tree.unreadable or is_stopped else EXIT_OK


if __name__ == "__main__":
    run_script(main)
