"""Clips that somebody else cut: checked, kept as they are or encoded anew, and given their name.

Between the sources `disk_clips` and `mirror` and the output folder. `mp4` measures the files.
"""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from utils.clip import Clip, clip_window
from utils.download.common import FetchOptions
from utils.errors import is_disk_full
from utils.files import disk_is_full, publish, replace_file, sync_folder
from utils.packages import UNEXPECTED
from utils.process import run_child
from utils.report import Result, reason_of
from utils.video.cut import cut_video
from utils.video.ffmpeg import Input, file_url
from utils.video.whole import BadClip, check_clip


@dataclass(frozen=True)
class Taken:
    """A good clip: `reason` is empty or `short`; size in bytes; its length, where it is known."""

    reason: str
    size: int
    seconds: float = 0.0


def examine(clip: Clip, path: Path, options: FetchOptions) -> Taken:
    """Whether the file `path` can be the clip as it is; raises BadClip if not."""
    wanted = clip_window(clip)[1]
    video = check_clip(path, wanted)
    reason = "" if video.covers(wanted) else "short"
    return Taken(reason, path.stat().st_size, video.end)


def take_linked(clip: Clip, path: Path, taken: Taken, options: FetchOptions) -> Taken:
    """Make the clip of `path`, which stays: a hard link, or a copy across file systems.

    Or anew, where the encoding options ask for that. Raises BadClip, OSError.
    """
    if options.encode.changes_clips:
        return encode_anew(clip, path, taken, options)
    _link(path, options.out / f"{clip.name}.mp4", options.workspace)
    return taken


def encode_anew(clip: Clip, path: Path, taken: Taken, options: FetchOptions) -> Taken:
    """Make the clip of `path` as --short_side, --keyint and --no_audio want it.

    Raises BadClip, OSError, Stopped.
    """
    return replace(taken, size=cut_from(clip, path, 0.0, taken.seconds, taken.seconds, options))


def _link(source: Path, final: Path, workspace: Path) -> None:
    temporary = workspace / f"{final.stem}.link.mp4"
    try:
        os.link(source.resolve(), temporary)
    except OSError as error:
        if is_disk_full(error):
            raise
        # Another file system, one without links, or a file of another user's.
        shutil.copyfile(source, temporary)
        publish(temporary, final)
        return
    # Not `publish`: it opens the file for writing, and the file is not ours.
    replace_file(temporary, final)
    sync_folder(final.parent)


def cut_from(
    clip: Clip,
    source: Path,
    start: float,
    duration: float,
    source_end: float,
    options: FetchOptions,
) -> int:
    """Cut the clip from a file on disk, at `start` for `duration` seconds; its size in bytes.

    Raises BadClip, OSError, Stopped.
    """
    target = options.workspace / f"{clip.name}.cut.mp4"
    try:
        cut_video(
            functools.partial(run_child, timeout=options.timeout),
            options.ffmpeg,
            [Input(file_url(source))],
            start,
            duration,
            options.encode,
            target,
            known_end=source_end,
        )
        size = target.stat().st_size
        publish(target, options.out / f"{clip.name}.mp4")
        return size
    finally:
        target.unlink(missing_ok=True)


def result_of(clip: Clip, source: str, take: Callable[[], Taken], options: FetchOptions) -> Result:
    """What `take` makes of the clip, as a line of the report. Raises Stopped, and nothing else."""
    started = time.monotonic()
    reason, message, size = "", "", 0
    try:
        taken = take()
        reason, size = taken.reason, taken.size
    except BadClip as error:
        reason, message = error.reason, error.message
        if disk_is_full(options.out):
            reason = "disk_full"
    except (OSError, *UNEXPECTED) as error:
        reason, message = reason_of(error, options.out)
    seconds = time.monotonic() - started
    more = {"attempts": 1, "seconds": seconds, "bytes": size, "message": message}
    return Result.of(clip, reason, source, **more)
