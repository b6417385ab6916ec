"""Process every video in a folder: find the remaining ones, run the work, report each result.

For frame_extract.py and downscale_videos.py, which define the work for one video.
"""

from __future__ import annotations

import argparse
import posixpath
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from utils.cli import (
    Parser,
    add_shared,
    existing_folder,
    non_negative_float,
    plural,
    positive_int,
    say,
)
from utils.cluster import add_cluster_options
from utils.errors import UserError
from utils.files import find_videos
from utils.lists.official import add_form_options, add_trim_format, form_of
from utils.lists.reading import find_lists, read_lists
from utils.process import Stopped
from utils.report import FAILED, MADE_REASONS, WRITTEN, reason_of
from utils.run import (
    Lines,
    Opened,
    Tally,
    exit_code,
    say_end,
    say_next,
    say_statement,
    show_progress,
)
from utils.text import printable
from utils.video.whole import BadClip, Limits


@dataclass(frozen=True)
class ClipFile:
    """A video to work on. `clip` is its path below the folder of videos, without the suffix.

    key_times: of its annotated frames, in nanoseconds; None: every frame is wanted.
    """

    clip: str
    path: Path
    key_times: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Made:
    """How a line of either report begins; the scripts add columns, `seconds` and `message` too."""

    clip: str
    status: str = WRITTEN
    reason: str = ""

    @classmethod
    def failed(cls, clip: str, reason: str, message: str) -> Self:
        more: dict[str, Any] = {"message": printable(message, 500)}
        return cls(clip, MADE_REASONS[reason][0], reason, **more)

    @classmethod
    def lost(cls, task: ClipFile, how: str) -> Self:
        """Of a task that ends its worker process again and again, or raises in it."""
        if "process" in how:
            return cls.failed(task.clip, "undecodable", f"the decoder crashed: {how}")
        return cls.failed(task.clip, "unknown", how)

    @property
    def is_on_disk(self) -> bool:
        return self.status == WRITTEN

    def in_words(self) -> str:
        """`clip: status written, frames 250, ...`"""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        clip = values.pop("clip")
        values.pop("finished_at", None)
        return f"{clip}: " + ", ".join(f"{name} {value}" for name, value in values.items() if value)


AnyMade = TypeVar("AnyMade", bound=Made)


def make_one(kind: type[AnyMade], clip: str, make: Callable[[], AnyMade]) -> AnyMade:
    """Return the result of `make`, or the reason for its failure; with the time it took.

    Raises Stopped, and UserError for what every clip would meet.
    """
    started = time.monotonic()
    try:
        result = make()
    except (Stopped, UserError):
        raise
    except BadClip as error:
        result = kind.failed(clip, error.reason, error.message)
    except Exception as error:  # a decoder meets every kind of nonsense: one clip, not the run
        result = kind.failed(clip, *reason_of(error))
    seconds: dict[str, Any] = {"seconds": round(time.monotonic() - started, 2)}
    return replace(result, **seconds)


# --- the folder ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """The videos to process, and those that are done or refused."""

    videos: Path
    requested: int
    done: int
    to_do: dict[str, str]  # clip -> file, below `videos`
    refused: list[str]  # files that are not worked on, and why
    without_video: int  # clips of --only that have none

    def tasks(self) -> Iterator[ClipFile]:
        return (ClipFile(clip, self.videos / file) for clip, file in self.to_do.items())


def add_batch_options(parser: Parser) -> None:
    """Add the options that both scripts share."""
    group = parser.group("which clips")
    group.add_argument(
        "--input_csv",
        "--only",
        dest="only",
        nargs="+",
        type=Path,
        default=[],
        metavar="LIST",
        help="keep only the clips of these lists or folders of lists (default: all)",
    )
    add_form_options(group)
    add_trim_format(group)
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="redo existing outputs, replacing each when the new one is complete",
    )
    group = parser.group("how to run")
    add_shared(group, "--num_jobs", "--dry_run")
    add_cluster_options(group)
    add = parser.group("rarely needed").add_argument
    add(
        "--timeout",
        type=non_negative_float,
        default=Limits.timeout,
        metavar="SECONDS",
        help="time limit per clip; 0 means no limit",
    )
    count: dict[str, Any] = {"type": positive_int, "metavar": "N"}
    add(
        "--max_frames",
        **count,
        default=Limits.max_frames,
        help="reject clips with more than N frames",
    )
    add(
        "--max_pixels",
        **count,
        default=Limits.max_pixels,
        help="reject clips with more than N pixels per frame",
    )


def limits_of(args: argparse.Namespace) -> Limits:
    """The limits that the options set."""
    return Limits(args.max_frames, args.max_pixels, args.timeout)


def check_folders(args: argparse.Namespace) -> None:
    """Make both folders absolute. Raises UserError when there are no videos, or both are one."""
    args.videos_dir = existing_folder(args.videos_dir, "the folder of videos")
    args.output_dir = args.output_dir.absolute()
    if args.output_dir.exists() and args.output_dir.samefile(args.videos_dir):
        raise UserError(
            f"{args.output_dir} is the folder of the videos: use another folder for the output"
        )


def plan_batch(
    args: argparse.Namespace,
    made_in: Callable[[Path], set[str]],
    only: frozenset[str] | None = None,
    makes_folders: bool = False,
) -> Batch:
    """Read both folders and return the remaining videos.

    made_in: names the clips that one folder of the output holds. only: names of clips, besides
    those of --only. makes_folders: what is made of x.mp4 is a folder x, which must not be that of
    other clips. Folders are listed, and no single file is asked for: at 650,000 clips this takes
    seconds.
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
    refused = [f"{file}: another file has the same name with another suffix" for file in twice]
    folders = {clip.rpartition("/")[0] for clip in clips}
    if makes_folders:
        above = {str(each) for folder in folders for each in (Path(folder), *Path(folder).parents)}
        for clip in sorted(above & clips.keys()):
            file = clips.pop(clip)
            refused.append(f"{file}: {clip}/ is the folder of other clips; rename one of them")
    done: set[str] = set()
    for folder in folders:
        made = made_in(args.output_dir / folder)
        done |= {f"{folder}/{name}" for name in made} if folder else made
    done &= clips.keys()
    to_do = clips
    if done and not args.overwrite:
        to_do = {clip: file for clip, file in clips.items() if clip not in done}
    return Batch(args.videos_dir, len(clips), len(done), to_do, refused, without)


def say_batch(batch: Batch, args: argparse.Namespace, what: Lines) -> None:
    """Print the plan; `what` is the script's own lines."""
    again = ", to be redone" if args.overwrite and batch.done else ""
    if not batch.to_do and not batch.without_video and not batch.refused:
        say(f"done         all {plural(batch.requested, 'clip')}, in {args.output_dir}")
        return
    without = f"{plural(batch.without_video, 'clip')} of the list not among them"
    say_statement(
        [
            ("clips", f"{batch.requested:,} in {args.videos_dir}"),
            ("", without if batch.without_video else ""),
            *(("refused", text) for text in batch.refused[:10]),
            ("done", f"{batch.done:,} in {args.output_dir}{again}" if batch.done else ""),
            ("to do", f"{len(batch.to_do):,}, {plural(args.num_jobs, 'job')}"),
            *what,
        ]
    )


def run_batch(
    batch: Batch,
    outcomes: Generator[Any, None, None],
    run: Opened,
    args: argparse.Namespace,
    note: Callable[[], str] = str,
) -> Tally:
    """Report the result of each clip. note: a text for the progress line."""
    tally = Tally()
    with (
        show_progress(len(batch.to_do), "clip", args.quiet, run.workers, note) as progress,
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
    """Print the summary and what to type next; the exit code. Raises DiskFull, UserError."""
    written, failed = tally.statuses[WRITTEN], tally.statuses[FAILED]
    left = len(batch.to_do) - written
    missing = left + len(batch.refused) + batch.without_video
    if missing or (batch.to_do and not args.quiet):
        counts = f"{written:,} written, {failed:,} failed"
        say_end(written + failed, len(batch.to_do), "clip", counts)
        for line in tally.reason_lines(MADE_REASONS, FAILED):
            say(line)
        say(more)
        say(f"report: {report}")
        if left:
            say_next(f"processes the {plural(left, 'remaining clip')}")
    return exit_code(tally, args.output_dir, not missing)
