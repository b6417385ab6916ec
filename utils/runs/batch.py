"""A folder of videos in, a folder of what is made of them out: frame_extract, downscale_videos.

After `clips`, `files` and `jobs`, before the scripts: which videos there are, which are done, the
loop that reports each, the summary. What is made of one video is the script's own business.
"""

from __future__ import annotations

import argparse
import posixpath
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.cli import add_num_jobs, existing_folder, plural, say
from utils.cluster import add_cluster_options
from utils.errors import UserError
from utils.files import find_videos
from utils.lists.official import add_form_options, add_trim_format, form_of
from utils.lists.reading import find_lists, read_lists
from utils.report import FAILED, MADE_REASONS, WRITTEN
from utils.run import Lines, Opened, Tally, exit_code, say_end, say_next, say_statement, watch
from utils.runs.made import Task


@dataclass(frozen=True)
class Batch:
    """What there is to do, decided before anything is done."""

    videos: Path
    wanted: int
    there: int
    to_do: dict[str, str]  # clip -> file, below `videos`
    twice: list[str]  # files whose clip is another file's
    without_video: int  # clips of --only that have none

    def tasks(self) -> Iterator[Task]:
        return (Task(clip, self.videos / file) for clip, file in self.to_do.items())


def add_batch_options(parser: argparse.ArgumentParser) -> None:
    """The options that do not depend on what is made of a video."""
    group = parser.add_argument_group("which clips, and how to go about it")
    group.add_argument(
        "--only",
        nargs="+",
        type=Path,
        default=[],
        metavar="LIST",
        help="only the clips of these lists (.csv files, or folders of them)",
    )
    add_form_options(group)
    add_trim_format(group)
    group.add_argument(
        "--overwrite", action="store_true", help="make anew what is there; each replaced when done"
    )
    group.add_argument("--dry_run", action="store_true", help="say what would be done, and end")
    add_num_jobs(group)
    add_cluster_options(group)


def check_folders(args: argparse.Namespace) -> None:
    """Make both folders absolute. Raises UserError when there are no videos, or both are one."""
    args.videos_dir = existing_folder(args.videos_dir, "the folder of videos")
    args.output_dir = args.output_dir.absolute()
    if args.output_dir.exists() and args.output_dir.samefile(args.videos_dir):
        raise UserError(f"{args.output_dir} holds the videos: name another folder for the output")


def plan_batch(
    args: argparse.Namespace,
    made_in: Callable[[Path], set[str]],
    only: frozenset[str] | None = None,
) -> Batch:
    """Look at both folders. `made_in` names the clips that one folder of the output holds.

    `only`: names of clips, besides those of --only. At 650,000 clips this takes seconds, for it
    lists folders and asks for no single file.
    """
    clips, twice = find_videos(args.videos_dir, args.output_dir)
    if not clips:
        raise UserError(f"{args.videos_dir} contains no videos")
    without = 0
    if args.only:
        names = frozenset(read_lists(find_lists(args.only), **form_of(args)).clips)
        without = len(names - {posixpath.basename(clip) for clip in clips})
        only = names if only is None else names & only
    if only is not None:
        clips = {clip: file for clip, file in clips.items() if posixpath.basename(clip) in only}
        twice = [file for file in twice if Path(file).stem in only]
    there: set[str] = set()
    for folder in {clip.rpartition("/")[0] for clip in clips}:
        made = made_in(args.output_dir / folder)
        there |= {f"{folder}/{name}" for name in made} if folder else made
    there &= clips.keys()
    to_do = clips
    if there and not args.overwrite:
        to_do = {clip: file for clip, file in clips.items() if clip not in there}
    return Batch(args.videos_dir, len(clips), len(there), to_do, twice, without)


def say_batch(batch: Batch, args: argparse.Namespace, what: Lines) -> None:
    """The statement before any work; `what` is the script's own lines."""
    again = ", made anew" if args.overwrite and batch.there else ""
    if not batch.to_do and not batch.without_video and not batch.twice:
        say(f"there        all {plural(batch.wanted, 'clip')}, in {args.output_dir}")
        return
    without = f"{plural(batch.without_video, 'clip')} of the list not among them"
    twice = [f"{file} is passed over: another file has its clip's name" for file in batch.twice]
    say_statement(
        [
            ("clips", f"{batch.wanted:,} in {args.videos_dir}"),
            ("", without if batch.without_video else ""),
            *(("", text) for text in twice[:10]),
            ("there", f"{batch.there:,} in {args.output_dir}{again}"),
            ("to do", f"{len(batch.to_do):,}, {plural(args.num_jobs, 'job')}"),
            *what,
        ]
    )


def run_batch(
    batch: Batch, outcomes: Generator[Any, None, None], run: Opened, args: argparse.Namespace
) -> Tally:
    """Write down what becomes of each clip, as it comes."""
    tally = Tally()
    with (
        watch(len(batch.to_do), "clip", args.quiet, run.workers) as progress,
        closing(outcomes),
    ):
        for outcome in outcomes:
            tally.add(outcome)
            progress.add(outcome.status)
            run.report.append_result(outcome)
            if not outcome.is_on_disk:
                progress.failure(outcome.reason, outcome.clip, outcome.message)
            elif args.verbose:
                progress.say(outcome.in_words())
    return tally


def finish(batch: Batch, tally: Tally, args: argparse.Namespace, report: Path, more: str) -> int:
    """The summary, what to type next, and the exit code. Raises DiskFull, UserError."""
    written, failed = tally.statuses[WRITTEN], tally.statuses[FAILED]
    open_still = len(batch.to_do) - written
    missing = open_still + len(batch.twice) + batch.without_video
    if missing or (batch.to_do and not args.quiet):
        done = written + failed
        say_end(done, len(batch.to_do), "clip", f"{written:,} written, {failed:,} failed")
        for line in tally.reason_lines(MADE_REASONS, FAILED):
            say(line)
        say(more)
        say(f"report: {report}")
        if open_still:
            say_next(f"processes the {plural(open_still, 'remaining clip')}")
    return exit_code(tally, args.output_dir, not missing)
