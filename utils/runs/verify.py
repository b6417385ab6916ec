"""download.py --verify: decodes the wanted clips on disk whole, and moves bad ones aside."""

from __future__ import annotations

import argparse
from pathlib import Path

from utils.cli import say
from utils.clip import Clip, clip_window
from utils.errors import UserError
from utils.files import names_in, set_aside
from utils.lists.reading import ClipLists
from utils.parallel import run_parallel
from utils.progress import Progress, plural
from utils.report import REPORT_NAME, read_shorts
from utils.video.checks import check_complete, check_length, decode_whole
from utils.video.ffmpeg import find_ffmpeg
from utils.video.probe import BadClip, probe

BAD_FOLDER = ".bad"


def verify(lists: ClipLists, out: Path, args: argparse.Namespace) -> None:
    """Decode the wanted clips on disk whole; move the bad ones aside (--dry_run: only say so)."""
    tool = find_ffmpeg(args.ffmpeg)
    there = names_in(out, ".mp4")
    clips = [clip for name, clip in lists.clips.items() if name in there]
    shorts = read_shorts(out / REPORT_NAME)

    def check(clip: Clip) -> tuple[Clip, BadClip | None]:
        path = out / f"{clip.name}.mp4"
        try:
            decode_whole(tool, path, args.timeout)
            check_complete(path)
            if clip.name not in shorts:
                check_length(probe(path), clip_window(clip)[1])
        except BadClip as error:
            return clip, error
        return clip, None

    with Progress(len(clips), "clip", quiet=args.quiet) as progress:
        for clip, error in run_parallel(check, clips, args.num_jobs):
            progress.add("bad" if error else "good")
            if error is None:
                continue
            place = "would be moved aside"
            if not args.dry_run:
                place = move_bad(out / f"{clip.name}.mp4", out / BAD_FOLDER)
            progress.say(f"{error.reason}: {clip.name}: {error.message}; {place}")
    if not args.quiet:
        done, bad = sum(progress.counts.values()), progress.counts["bad"]
        say(f"verified     {done:,} of {plural(len(clips), 'clip')}, {bad:,} bad")


def move_bad(path: Path, folder: Path) -> str:
    """Move a bad clip aside; what was done. Raises UserError."""
    try:
        return f"moved to {set_aside(path, folder)}"
    except FileNotFoundError:
        return "gone already"  # another run, or the user, was quicker
    except OSError as error:
        raise UserError(f"cannot move {path} to {folder}: {error.strerror}") from error
