"""download.py --verify: decodes the wanted clips on disk whole, and moves bad ones aside."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from utils.cli import say
from utils.clip import Clip, clip_window
from utils.errors import UserError
from utils.files import names_in, run_folder, set_aside
from utils.lists.reading import ClipLists
from utils.parallel import run_in_processes
from utils.progress import Progress, plural
from utils.report import REPORT_NAME, read_shorts
from utils.runs.cluster import open_cluster
from utils.video.checks import check_complete, check_length, decode_whole
from utils.video.probe import BadClip

BAD_FOLDER = ".bad"
PACKAGES = ("av", "ffmpeg-python", "joblib")


@dataclass(frozen=True)
class ClipToCheck:
    """A clip on disk; `is_short`: its video ends before it does, as the report knows."""

    clip: Clip
    is_short: bool


@dataclass(frozen=True)
class Checked:
    """What came of it: why it is bad, or why nobody knows; neither for a good one."""

    clip: Clip
    bad: BadClip | None = None
    unknown: str = ""


def check(out: Path, timeout: float, task: ClipToCheck) -> Checked:
    """The worker, in a process of its own: decode one clip whole, and measure it."""
    path = out / f"{task.clip.name}.mp4"
    try:
        found = decode_whole(path, timeout)
        check_complete(found)
        if not task.is_short:
            check_length(found, clip_window(task.clip)[1])
    except BadClip as error:
        return Checked(task.clip, error)
    return Checked(task.clip)


def verify(lists: ClipLists, out: Path, args: argparse.Namespace) -> None:
    """Decode the wanted clips on disk whole; move the bad ones aside (--dry_run: only say so)."""
    there = names_in(out, ".mp4")
    clips = [clip for name, clip in lists.clips.items() if name in there]
    shorts = read_shorts(out / REPORT_NAME)
    tasks = (ClipToCheck(clip, clip.name in shorts) for clip in clips)
    with ExitStack() as stack:
        cluster = None
        if args.dask and clips:
            workspace = stack.enter_context(run_folder(out))
            cluster = stack.enter_context(open_cluster(args, workspace, PACKAGES))
        note = cluster.note if cluster else str
        progress = stack.enter_context(Progress(len(clips), "clip", quiet=args.quiet, note=note))
        worker = functools.partial(check, out, args.timeout)
        if cluster:
            cluster.members.tell = progress.say
            checked = cluster.run(worker, tasks, lost)
        else:
            checked = run_in_processes(worker, tasks, args.num_jobs, lost)
        write_down(checked, progress, out, args.dry_run)
    if not args.quiet:
        done, bad = sum(progress.counts.values()), progress.counts["bad"]
        unknown = progress.counts["unknown"]
        more = f", {unknown:,} that could not be checked" if unknown else ""
        say(f"verified     {done:,} of {plural(len(clips), 'clip')}, {bad:,} bad{more}")


def lost(task: ClipToCheck, how: str) -> Checked:
    """Of a clip that has cost three processes of a cluster, or workers."""
    if "process" in how:
        return Checked(task.clip, BadClip("undecodable", f"the decoder crashed: {how}"))
    return Checked(task.clip, unknown=how)


def write_down(
    checked: Generator[Checked, None, None], progress: Progress, out: Path, dry_run: bool
) -> None:
    """Say what is bad, and move it aside."""
    for each in checked:
        name = each.clip.name
        if each.unknown:
            progress.add("unknown")
            progress.say(f"not checked: {name}: {each.unknown}; it stays")
            continue
        progress.add("bad" if each.bad else "good")
        if each.bad is None:
            continue
        place = "would be moved aside"
        if not dry_run:
            place = move_bad(out / f"{name}.mp4", out / BAD_FOLDER)
        progress.say(f"{each.bad.reason}: {name}: {each.bad.message}; {place}")


def move_bad(path: Path, folder: Path) -> str:
    """Move a bad clip aside; what was done. Raises UserError."""
    try:
        return f"moved to {set_aside(path, folder)}"
    except FileNotFoundError:
        return "gone already"  # another run, or the user, was quicker
    except OSError as error:
        raise UserError(f"cannot move {path} to {folder}: {error.strerror}") from error
