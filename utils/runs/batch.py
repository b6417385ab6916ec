"""A folder of videos in, a folder of what is made of them out: frame_extract, downscale_videos.

After `clips`, `files` and `jobs`, before the scripts: which videos there are, which are done, the
loop that reports each, the summary. What is made of one video is the script's own business.
"""

from __future__ import annotations

import argparse
import posixpath
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.cli import EXIT_INCOMPLETE, EXIT_OK, add_num_jobs, existing_folder, say
from utils.clip import trim_format
from utils.decode.times import parse_fps
from utils.errors import UserError
from utils.files import DiskFull, find_videos
from utils.lists.reading import find_lists, read_lists
from utils.packages import Streak
from utils.process import STOP, received_signal, stop_run
from utils.progress import Progress, clock, plural
from utils.report import FAILED, MADE_REASONS, WRITTEN, ReportFile
from utils.runs.cluster import add_cluster_options

if TYPE_CHECKING:
    from utils.cluster.head import Cluster


@dataclass(frozen=True)
class Task:
    """One video to work on. `clip` is its path below the folder of videos, without the suffix."""

    clip: str
    path: Path


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


@dataclass
class Tally:
    """What came of the batch so far, for the summary and the exit code."""

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)  # frames and bytes of what was written
    streak: Streak = field(default_factory=Streak)
    started: float = field(default_factory=time.monotonic)


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
    group.add_argument(
        "--trim_format",
        type=trim_format,
        default="%06d",
        help="how the clips of --only write times in their names (default: %%06d)",
    )
    group.add_argument(
        "--overwrite", action="store_true", help="make anew what is there; each replaced when done"
    )
    group.add_argument("--dry_run", action="store_true", help="say what would be done, and end")
    add_num_jobs(group)
    add_cluster_options(group)


def frame_rate(text: str) -> Fraction:
    """An argparse type: `30`, `12.5`, `30000/1001`, or 0."""
    try:
        return parse_fps(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
    without = 0
    if args.only:
        names = frozenset(read_lists(find_lists(args.only), trim_format=args.trim_format).clips)
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


def say_batch(batch: Batch, args: argparse.Namespace, what: str) -> None:
    """The statement before any work; `what` is the script's own line."""
    again = ", made anew" if args.overwrite and batch.there else ""
    if not batch.to_do and not batch.without_video and not batch.twice:
        say(f"there        all {plural(batch.wanted, 'clip')}, in {args.output_dir}")
        return
    say(f"clips        {batch.wanted:,} in {args.videos_dir}")
    if batch.without_video:
        say(f"             {plural(batch.without_video, 'clip')} of the list not among them")
    for file in batch.twice[:10]:
        say(f"             {file} is passed over: another file has its clip's name")
    say(f"there        {batch.there:,} in {args.output_dir}{again}")
    say(f"to do        {len(batch.to_do):,}, {plural(args.num_jobs, 'job')}")
    say(what)
    say("stop         Ctrl-C; the same command goes on from there")


def run_batch(
    batch: Batch,
    outcomes: Generator[Any, None, None],
    report: ReportFile,
    args: argparse.Namespace,
    cluster: Cluster | None,
) -> Tally:
    """Write down what becomes of each clip, as it comes. A full disk stops the run."""
    tally = Tally()
    note = cluster.note if cluster else str
    with (
        Progress(len(batch.to_do), "clip", quiet=args.quiet, note=note) as progress,
        closing(outcomes),
    ):
        if cluster:
            cluster.members.tell = progress.say
        for outcome in outcomes:
            tally.statuses[outcome.status] += 1
            tally.reasons[outcome.reason] += 1
            for name in ("frames", "bytes"):
                tally.totals[name] += getattr(outcome, name, 0)
            progress.add(outcome.status)
            tally.streak.add(outcome.status == WRITTEN, outcome.message)
            if outcome.reason == "disk_full" or tally.streak.is_hopeless:
                stop_run()
            report.append_result(outcome)
            if outcome.status == FAILED:
                progress.failure(outcome.reason, outcome.clip, outcome.message)
            elif args.verbose:
                progress.say(_in_words(outcome))
    return tally


def _in_words(outcome: Any) -> str:
    values = {each.name: getattr(outcome, each.name) for each in fields(outcome)}
    clip = values.pop("clip")
    values.pop("finished_at", None)
    return f"{clip}: " + ", ".join(f"{name} {value}" for name, value in values.items() if value)


def finish(
    batch: Batch, tally: Tally, args: argparse.Namespace, report: Path, more: list[str]
) -> int:
    """The summary, what to type next, and the exit code. Raises DiskFull."""
    written, failed = tally.statuses[WRITTEN], tally.statuses[FAILED]
    open_still = len(batch.to_do) - written
    missing = open_still + len(batch.twice) + batch.without_video
    if missing or (batch.to_do and not args.quiet):
        word = "stopped" if STOP.is_set() else "done"
        elapsed = clock(time.monotonic() - tally.started)
        say(f"{word} after {elapsed}: {written:,} written, {failed:,} failed")
        for reason, count in tally.reasons.most_common():
            if reason:
                say(f"  {reason:12} {count:,}  {MADE_REASONS[reason][1]}")
        for line in more:
            say(line)
        say(f"report: {report}")
        if open_still:
            say(f"next: {shlex.join(['python', *sys.argv])}")
            say(f"      takes the {open_still:,} that are still open")
    if signal := received_signal():
        return 128 + signal
    if tally.reasons["disk_full"]:
        raise DiskFull(args.output_dir)
    if tally.streak.is_hopeless:
        raise tally.streak.problem()
    return EXIT_INCOMPLETE if missing else EXIT_OK
