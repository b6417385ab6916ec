#!/usr/bin/env python3
r"""Import old Kinetics folders: move clips from label folders to one flat folder.

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

from utils.errors import UserError, check_packages  # isort: skip

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from utils import cli, reorg, run
from utils.cli import plural
from utils.cluster import add_cluster_options, check_dask
from utils.files import make_folder, sync_folder
from utils.process import STOP
from utils.reorg import ClipFiles, HowToBring, Tree
from utils.report import report_paths
from utils.video.ffmpeg import find_ffmpeg

PACKAGES = ("av", "ffmpeg-python", "joblib")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.make_parser(__doc__ or "")
    parser.add_argument("src", type=Path, help="folder with the clips, at any depth")
    parser.add_argument("dst", type=Path, help="flat folder for the clips")
    group = parser.add_argument_group("what to do with the files")
    how = group.add_mutually_exclusive_group()
    how.add_argument("--copy", action="store_true", help="copy the files instead of moving them")
    how.add_argument("--link", action="store_true", help="create hard links instead of moving")
    add = group.add_argument
    worse = "if a clip has several files, move the worse ones here (default: keep them in place)"
    add("--duplicates", type=Path, metavar="DIR", help=worse)
    unchecked = "do not decode the files (5 s for 100,000); broken clips then count as done"
    add("--no_check", action="store_true", help=unchecked)
    empty = "remove folders that are empty after their clips were moved"
    add("--remove_empty", action="store_true", help=empty)
    group = parser.group("how to run")
    cli.add_shared(group, "--num_jobs", "--dry_run")
    add_cluster_options(group)
    cli.add_shared(parser.group("rarely needed"), "--ffmpeg")
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
    src, dst = cli.existing_folder(args.src, "src").resolve(), args.dst.resolve()
    duplicates = args.duplicates.resolve() if args.duplicates else None
    if duplicates in (src, dst):
        raise UserError(f"--duplicates {args.duplicates} is src or dst: use another folder")
    tool, report = find_ffmpeg(args.ffmpeg), dst / reorg.REPORT_NAME
    tree = reorg.scan(src, [folder for folder in (dst, duplicates) if folder and folder != src])
    if not tree.clips and not tree.unreadable and not report_paths(report):
        raise UserError(f"{args.src} contains no clips{in_brackets(tree.others)}")
    to_bring = reorg.files_to_bring(tree, dst)
    num_files = sum(len(clip.files) for clip in to_bring)
    if not args.quiet:
        say_reorg_plan(tree, to_bring, args)
    if args.dry_run:
        return cli.EXIT_OK
    if duplicates:
        make_folder(duplicates)
    unfinished = reorg.read_unfinished(report)
    with run.open_run(args, report, reorg.REPORT_COLUMNS, PACKAGES, [src, dst]) as opened:
        check = not args.no_check
        how = HowToBring(dst, args.mode, check, duplicates, tool, unfinished, opened)
        tally = bring_all(to_bring, num_files, how, args)
        removed = reorg.remove_empty_folders(src, report) if args.remove_empty else 0
    if not args.quiet:
        say_reorg_end(tree, num_files, tally.statuses, removed, dst, opened.report.path)
    # Stopped without a signal: the cluster was lost.
    is_all = not (tally.statuses[reorg.LEFT] or tree.unreadable or STOP.is_set())
    return run.exit_code(tally, dst, is_all)


def say_reorg_plan(tree: Tree, to_bring: Sequence[ClipFiles], args: argparse.Namespace) -> None:
    """Print the plan."""
    found = [each for several in tree.clips.values() for each in several]
    kinds = Counter(each.suffix for each in found)
    clips = f"{plural(len(tree.clips), 'clip')} in {plural(len(found), 'file')}"
    others = plural(sum(tree.others.values()), "other file") + in_brackets(tree.others)
    several = sum(len(clip.files) > 1 for clip in to_bring)
    worse = f"move to {args.duplicates}" if args.duplicates else "are kept"
    duplicates = f"{plural(several, 'clip')} with several files; worse files {worse}"
    there = sum(clip.there is not None for clip in to_bring)
    decoded = "without decoding them" if args.no_check else "after decoding them"
    run.say_statement(
        [
            ("source", f"{args.src}: {clips}{in_brackets(kinds)}"),
            ("ignored", others if tree.others else ""),
            *(("unreadable", problem) for problem in tree.unreadable),
            ("duplicates", duplicates if several else ""),
            ("to import", f"{plural(len(to_bring), 'clip')} into {args.dst}"),
            ("", f"{plural(there, 'clip')} with a file in place" if there else ""),
            ("how", f"{args.mode} files {decoded}"),
            ("jobs", f"{args.num_jobs:,}"),
            ("report", str(args.dst / reorg.REPORT_NAME)),
        ]
    )


def in_brackets(counts: Counter[str]) -> str:
    """Return counts as a text: ` (.mp4 4, .csv 1)`, or "" without any."""
    text = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
    return f" ({text})" if text else ""


def bring_all(
    to_bring: Sequence[ClipFiles], num_files: int, how: HowToBring, args: argparse.Namespace
) -> run.Tally:
    """Bring in every clip, in parallel; return the counts of actions, as statuses."""
    tally = run.Tally()
    with run.Progress(num_files, "file", args.quiet, how.opened.workers) as progress:
        for filed in reorg.bring_in(to_bring, how):
            reorg.write_down(filed, how.opened.report)
            for each in filed:
                tally.statuses[each.action] += 1
                progress.add(each.action)
                if each.action == reorg.LEFT:
                    progress.failure(each.action, each.source, each.reason)
                elif args.verbose:
                    progress.say(f"{each.action}: {each.source}: {each.clip}")
                if each.disk_full:
                    tally.disk_full = True
                    STOP.set()
    sync_folder(how.dst)  # all renames at once
    return tally


def say_reorg_end(
    tree: Tree, num_files: int, counts: Counter[str], removed: int, dst: Path, report: Path
) -> None:
    """Print the summary."""
    done, left = min(sum(counts.values()), num_files), counts[reorg.LEFT]
    actions = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    text = ", ".join(f"{count:,} {action}" for action, count in actions)
    run.say_end(done, num_files, "file", text.replace("_", " "))
    if removed:
        cli.say(f"removed: {plural(removed, 'empty folder')}")
    on_disk = len(tree.clips.keys() & set(os.listdir(dst)))
    cli.say(f"on disk: {on_disk:,} of {plural(len(tree.clips), 'clip')}")
    if left:
        cli.say(f"left: {plural(left, 'file')}, see `reason` in {report}")
        cli.say("      download.py can download the missing clips into the same folder")
    if STOP.is_set():
        run.say_next(f"processes {plural(num_files - done, 'remaining file')}")


if __name__ == "__main__":
    cli.run_script(main)
