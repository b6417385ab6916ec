"""Process every video in a folder: find the remaining ones, run the work, report each result.

frame_extract.py and downscale_videos.py define the work for one video.
"""

from __future__ import annotations

import argparse
import posixpath
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from utils import cli, run
from utils.cli import printable
from utils.clip import FAILED, MADE_REASONS, WRITTEN, now, reason_of
from utils.cluster import add_cluster_options
from utils.errors import UserError
from utils.files import find_videos
from utils.lists.reading import find_lists, form_of, read_lists
from utils.parallel import has_died
from utils.process import Stopped
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
    """The result of one video: a line of either report. Rate, size and bytes are the output's."""

    clip: str
    status: str = WRITTEN
    reason: str = ""
    action: str = ""  # encoded, rewrapped
    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    seconds: float = 0.0  # processing time
    bytes: int = 0
    source_bytes: int = 0
    message: str = ""
    finished_at: str = field(default_factory=now)

    @property
    def is_on_disk(self) -> bool:
        return self.status == WRITTEN


COLUMNS = tuple(each.name for each in fields(Made))


def failure(clip: str, reason: str, message: str) -> Made:
    """Return the result of a clip that could not be made."""
    return Made(clip, FAILED, reason, message=printable(message, 500))


def lost_clip(task: ClipFile, how: str) -> Made:
    """Return the result of a task that killed its worker process twice, or raised in it."""
    if has_died(how):
        return failure(task.clip, "undecodable", f"the decoder crashed: {how}")
    return failure(task.clip, "unknown", how)


def make_one(task: ClipFile, workspace: Path, make: Callable[[ClipFile, Path], Made]) -> Made:
    """Return the result of `make`, or the reason for its failure; with the time it took.

    make: is given a temporary folder of its own. Raises Stopped, and UserError for a problem that
    every clip has.
    """
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(dir=workspace, ignore_cleanup_errors=True) as folder:
            made = make(task, Path(folder))
    except (Stopped, UserError):
        raise
    except BadClip as error:
        made = failure(task.clip, error.reason, error.message)
    except Exception as error:  # damaged files raise errors of any kind, and cost one clip only
        made = failure(task.clip, *reason_of(error))
    return replace(made, seconds=round(time.monotonic() - started, 2))


# --- options -------------------------------------------------------------------------------------


def add_size_options(group: argparse._ActionsContainer, fps: int, short_side: int | None) -> None:
    """Add the options for rate and size, with the defaults of the script."""
    add = group.add_argument
    rates = "frames per second: 30, 12.5, 30000/1001; 0 keeps every frame"
    add("--fps", type=cli.frame_rate, default=Fraction(fps), metavar="F", help=rates)
    side = "scale the shorter side down to N pixels"
    add("--short_side", type=cli.positive_int, default=short_side, metavar="N", help=side)
    add("--upscale", action="store_true", help="also scale smaller videos up to --short_side")


def settings_of(args: argparse.Namespace, *names: str) -> dict[str, object]:
    """Return the options that all clips of an output folder share. names: the script's own."""
    shared = ("short_side", "upscale", *names)
    return {"fps": str(args.fps), **{name: getattr(args, name) for name in shared}}


def add_batch_options(parser: cli.Parser) -> None:
    """Add the other options that both scripts share."""
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
    cli.add_shared(group, "--columns", "--clip_seconds", "--trim_format")
    redo = "redo existing outputs, replacing each when the new one is complete"
    group.add_argument("--overwrite", action="store_true", help=redo)
    group = parser.group("how to run")
    cli.add_shared(group, "--num_jobs", "--dry_run")
    add_cluster_options(group)
    add = parser.group("rarely needed").add_argument
    seconds: dict[str, Any] = {"type": cli.non_negative_float, "metavar": "SECONDS"}
    timeout = "time limit per clip; 0 means no limit"
    add("--timeout", **seconds, default=Limits.timeout, help=timeout)
    count: dict[str, Any] = {"type": cli.positive_int, "metavar": "N"}
    frames = "reject clips with more than N frames"
    pixels = "reject clips with frames of more than N pixels"
    add("--max_frames", **count, default=Limits.max_frames, help=frames)
    add("--max_pixels", **count, default=Limits.max_pixels, help=pixels)


# --- the folder ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """The videos to process, and the counts of the others."""

    videos: Path
    out: Path
    requested: int
    done: int
    to_do: dict[str, str]  # clip -> file, below `videos`
    refused: list[str]  # files that are not processed, with the reason
    without_video: int  # clips of --only that have no video
    key_times: Mapping[str, tuple[int, ...]] | None

    def tasks(self) -> Iterator[ClipFile]:
        """Yield the videos to process."""
        for clip, file in self.to_do.items():
            times = self.key_times[posixpath.basename(clip)] if self.key_times else None
            yield ClipFile(clip, self.videos / file, times)


def plan_batch(
    args: argparse.Namespace,
    made_in: Callable[[Path], set[str]],
    key_times: Mapping[str, tuple[int, ...]] | None = None,
    makes_folders: bool = False,
) -> Batch:
    """Read both folders and return the remaining videos. Raises UserError.

    made_in: returns the clips that one folder of the output contains. key_times: only these clips,
    by name. makes_folders: the output of x.mp4 is a folder x, which must not be a folder of other
    clips. Folders are listed, because asking for single files takes minutes for 650,000 clips.
    """
    videos = cli.existing_folder(args.videos_dir, "the folder of videos")
    out: Path = args.output_dir.absolute()
    if out.exists() and out.samefile(videos):
        raise UserError(f"{out} is the folder of the videos: use another folder for the output")
    clips, twice = find_videos(videos, out)
    if not clips:
        raise UserError(f"{videos} contains no videos")
    wanted = [] if key_times is None else [key_times.keys()]
    without_video = 0
    if args.only:
        listed = read_lists(find_lists(args.only)[0], **form_of(args)).clips.keys()
        without_video = len(listed - {posixpath.basename(clip) for clip in clips})
        wanted.append(listed)
    for names in wanted:
        clips = {clip: file for clip, file in clips.items() if posixpath.basename(clip) in names}
        twice = [file for file in twice if Path(file).stem in names]
    refused = [f"{file}: another file has the same name with another suffix" for file in twice]
    folders = {posixpath.dirname(clip) for clip in clips}
    if makes_folders:
        above = {str(each) for folder in folders for each in (Path(folder), *Path(folder).parents)}
        for clip in sorted(above & clips.keys()):
            file = clips.pop(clip)
            refused.append(f"{file}: {clip}/ is the folder of other clips; rename one of them")
    done: set[str] = set()
    for folder in folders:
        done |= {posixpath.join(folder, name) for name in made_in(out / folder)}
    done &= clips.keys()
    skipped = set() if args.overwrite else done
    to_do = {clip: file for clip, file in clips.items() if clip not in skipped}
    return Batch(videos, out, len(clips), len(done), to_do, refused, without_video, key_times)


def say_batch(batch: Batch, args: argparse.Namespace, what: run.Lines) -> None:
    """Print the plan; `what` is the script's own lines."""
    if args.quiet:
        return
    if not batch.to_do and not batch.without_video and not batch.refused:
        cli.say(f"done         all {cli.plural(batch.requested, 'clip')}, in {batch.out}")
        return
    redone = ", to be redone" if args.overwrite else ""
    to_do = cli.plural(len(batch.to_do), "clip")
    without = f"{cli.plural(batch.without_video, 'clip')} of the list not among them"
    run.say_statement(
        [
            ("clips", f"{batch.requested:,} in {batch.videos}"),
            ("", without if batch.without_video else ""),
            *(("refused", text) for text in batch.refused[:10]),
            ("done", f"{batch.done:,} in {batch.out}{redone}" if batch.done else ""),
            ("to do", f"{to_do}, {cli.plural(args.num_jobs, 'job')}"),
            *what,
        ]
    )


def run_batch(
    batch: Batch,
    worker: Callable[[ClipFile], Made],
    columns: Sequence[str],
    opened: run.Opened,
    args: argparse.Namespace,
) -> run.Tally:
    """Run `worker` on every video to process, and report each result. columns: of the report."""
    tally = run.Tally()
    with (
        run.Progress(len(batch.to_do), "clip", args.quiet, opened.workers) as progress,
        closing(opened.workers.run(worker, batch.tasks(), lost_clip)) as results,
    ):
        for made in results:
            tally.add(made)
            progress.add(made.status)
            opened.report.append([getattr(made, name) for name in columns])
            if not made.is_on_disk:
                progress.failure(made.reason, made.clip, made.message)
            elif args.verbose:
                size = f"{cli.plural(made.frames, 'frame')} of {made.width}x{made.height}"
                progress.say(f"{made.status}: {made.clip}: {size} in {made.seconds:.2f} s")
    return tally


def end_batch(
    batch: Batch, tally: run.Tally, args: argparse.Namespace, report: Path, size: str
) -> int:
    """Print the summary and the next command; return the exit code. Raises DiskFull, UserError.

    size: the line about all outputs.
    """
    written, failed = tally.statuses[WRITTEN], tally.statuses[FAILED]
    left = len(batch.to_do) - written
    missing = left + len(batch.refused) + batch.without_video
    if missing or (batch.to_do and not args.quiet):
        counts = f"{written:,} written" + (f", {failed:,} failed" if failed else "")
        run.say_end(written + failed, len(batch.to_do), "clip", counts)
        for line in tally.reason_lines(MADE_REASONS, FAILED):
            cli.say(line)
        cli.say(size)
        cli.say(f"report: {report}")
        if left:
            run.say_next(f"processes the {cli.plural(left, 'remaining clip')}")
    return run.exit_code(tally, batch.out, not missing)
