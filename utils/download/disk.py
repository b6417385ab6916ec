"""Source `clips:DIR`: take clips that are on disk, or inside longer clips on disk.

The versions of Kinetics repeat each other, and the Kinetics-700 clip of a video holds nearly every
annotated frame of AVA-Kinetics. A clip that was made elsewhere is checked
(`check_copy`), kept as it is or re-encoded, and renamed.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from utils.clip import Clip, Result, clip_window, format_time, parse_clip_name, reason_of
from utils.download.sources import FetchOptions, SourceContext
from utils.errors import UNEXPECTED, UserError, is_disk_full
from utils.files import disk_is_full, publish
from utils.parallel import run_parallel
from utils.process import run_child
from utils.report import REPORT_NAME, read_shorts
from utils.video.cut import cut_sound, cut_video
from utils.video.ffmpeg import SOUNDS, Input, file_url
from utils.video.whole import (
    TOLERANCE,
    BadClip,
    check_clip,
    check_length,
    check_sound,
    read_apart,
)

NAME = "clips"  # in the report


@dataclass(frozen=True, slots=True)
class DiskClip:
    """A clip on disk, by its name. `end` is None for that of an AVA-Kinetics key frame."""

    folder: str
    file: str
    start: float
    end: float | None

    @property
    def path(self) -> Path:
        return Path(self.folder, self.file)


@dataclass(frozen=True)
class DiskIndex:
    """The clips on disk, by video, and those of them that are short because their videos end."""

    videos: dict[str, list[tuple[str, str]]]  # (folder, file)
    shorts: frozenset[str]

    def clips_of(self, youtube_id: str) -> list[DiskClip]:
        """The clips of a video. Names are read here, for most are never looked at."""
        clips = []
        for folder, file in self.videos.get(youtube_id, []):
            if found := parse_clip_name(os.path.splitext(file)[0]):
                clips.append(DiskClip(folder, file, *found[1:]))
        return clips


@dataclass(frozen=True)
class Part:
    """Where a clip lies in one on disk: `start` in that, in seconds, as `held_end`, its end."""

    held: DiskClip
    start: float
    duration: float
    held_end: float
    is_whole: bool


def index_clips(
    folders: Iterable[Path],
    wanted_ids: frozenset[str],
    suffixes: tuple[str, ...],
    tell: Callable[[str], None],
) -> DiskIndex:
    """The clips of wanted videos in `folders` and the folders in them, by their names alone.

    One walk and no stat: 650,000 files take a few seconds.
    """
    videos: dict[str, list[tuple[str, str]]] = {}
    shorts: set[str] = set()
    for top in folders:
        for folder, inner, files in os.walk(top):
            inner[:] = [name for name in inner if not name.startswith(".")]
            for file in files:
                if file[:11] in wanted_ids and file.endswith(suffixes):
                    videos.setdefault(file[:11], []).append((folder, file))
        try:
            shorts |= read_shorts(Path(top) / REPORT_NAME)
        except UserError as error:
            tell(f"note: {error}: the clips of {top} that it calls short are not taken")
    return DiskIndex(videos, frozenset(shorts))


def from_disk(
    clips: Sequence[Clip], context: SourceContext, folders: tuple[Path, ...], allow_partial: bool
) -> Generator[Result, None, None]:
    """The source `clips:DIR[:DIR...]`."""
    ids = frozenset(clip.youtube_id for clip in clips)
    index = index_clips(folders, ids, context.options.encode.sources, context.tell)

    def get(clip: Clip) -> Result:
        result = get_clip(clip, index, context.options, NAME, allow_partial)
        # At once: links are faster than the main thread takes results, and a kill would cost lines.
        if result.is_on_disk and context.record is not None:
            context.record(result)
        return result

    yield from run_parallel(get, clips, context.workers.num_jobs)


def get_clip(
    clip: Clip, index: DiskIndex, options: FetchOptions, source: str, allow_partial: bool
) -> Result:
    """Take or cut one clip from what is on disk; `unavailable` if nothing holds it.

    If its own file is damaged, and no longer clip holds it, the result says how it is damaged.
    Raises Stopped, and nothing else. The result of a partial AVA-Kinetics clip gives the window
    that it really has.
    """
    held = index.clips_of(clip.youtube_id)
    problems: list[str] = []
    reason = "unavailable"
    for same in sorted(
        (each for each in held if _is_same(each, clip)),
        key=lambda each: each.path.suffix != options.encode.suffix,
    ):
        result = result_of(clip, source, partial(_take, clip, same, index, options), options)
        if result.is_on_disk or result.reason == "disk_full":
            return result
        reason = result.reason
        problems.append(f"{same.path}: {result.message}")
    others = [each for each in held if not _is_same(each, clip)]
    for part in find_parts(clip, others, options, allow_partial, problems):
        result = result_of(clip, source, partial(_cut, clip, part, options), options)
        if result.is_on_disk or result.reason == "disk_full":
            return _with_window(result, clip, part)
        problems.append(f"{part.held.path}: {result.message}")
    message = "; ".join(problems) or "not in any clip on disk"
    return Result.of(clip, reason, source, attempts=1, message=message)


def _is_same(held: DiskClip, clip: Clip) -> bool:
    if held.end is None:
        return held.path.stem == clip.name
    return held.start == clip.time_start and held.end == clip.time_end


def _take(clip: Clip, same: DiskClip, index: DiskIndex, options: FetchOptions) -> Taken:
    """Take a clip of the same id and times. Raises BadClip where it is shorter than its name says.

    Except where the folder's own report says why: then it is all that there ever was.
    """
    if same.path.suffix in SOUNDS:
        is_whole = clip.name not in index.shorts
        return take_sound(clip, same.path, 0.0, clip_window(clip)[1], options, is_whole)
    taken = check_copy(clip, same.path, options)
    if taken.reason and (clip.is_ava or clip.name not in index.shorts):
        raise BadClip("truncated", f"{taken.seconds:.2f} s long")
    return take_linked(clip, same.path, taken, options)


def find_parts(
    clip: Clip,
    held: Sequence[DiskClip],
    options: FetchOptions,
    allow_partial: bool,
    problems: list[str],
) -> list[Part]:
    """Where the clip lies inside others: wholly, or else, if allowed, in part, longest first.

    By the clips' real lengths: a file may be shorter than its name says. `problems` takes what is
    wrong with those that will not do.
    """
    start, duration = clip_window(clip)
    end = start + duration
    whole, partly = [], []
    for each in held:
        if each.end is None:
            continue
        by_name = each.start <= start and end <= each.end
        if not by_name and not (allow_partial and clip.is_ava):
            continue
        if each.path.suffix in SOUNDS:
            if by_name:
                whole.append(Part(each, start - each.start, duration, each.end, True))
            continue
        try:
            video = read_apart(each.path)
            check_length(video, each.end - each.start)
        except (BadClip, OSError) as error:
            problems.append(f"{each.path}: {error}")
            continue
        if by_name and video.covers(end - each.start):
            whole.append(Part(each, start - each.start, duration, video.end, True))
            continue
        problems.append(f"{each.path}: {video.end:.2f} s long")
        begin, stop = max(start, each.start), min(end, each.end, each.start + video.end)
        # The key frame itself has to be in it, with some frames' time to spare.
        if allow_partial and clip.is_ava and begin <= clip.time_start <= stop - TOLERANCE:
            partly.append(Part(each, begin - each.start, stop - begin, video.end, False))
    return whole or sorted(partly, key=lambda part: -part.duration)


def _cut(clip: Clip, part: Part, options: FetchOptions) -> Taken:
    held = part.held.path
    if options.encode.sound:
        is_whole = part.is_whole and held.suffix in SOUNDS
        return take_sound(clip, held, part.start, part.duration, options, is_whole)
    size = cut_from(clip, held, part.start, part.duration, part.held_end, options)
    return Taken("" if part.is_whole else "short", size)


def _with_window(result: Result, clip: Clip, part: Part) -> Result:
    """A partial clip's line gives its real window, so that key frames can be found in it."""
    if part.is_whole or not result.is_on_disk:
        return result
    begin = part.held.start + part.start
    return replace(
        result,
        time_start=format_time(begin),
        time_end=format_time(begin + part.duration),
        message=f"{part.duration:.2f} of {clip_window(clip)[1]:.0f} s, from {part.held.file}",
    )


# --- taking a given clip --------------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """A good clip: `reason` is empty or `short`; size in bytes; its length, where it is known."""

    reason: str
    size: int
    seconds: float = 0.0


def check_copy(clip: Clip, path: Path, options: FetchOptions) -> Taken:
    """Check that the file `path` can be the clip as it is. Raises BadClip."""
    wanted = clip_window(clip)[1]
    video = check_clip(path, wanted)
    reason = "" if video.covers(wanted) else "short"
    return Taken(reason, path.stat().st_size, video.end)


def take_linked(clip: Clip, path: Path, taken: Taken, options: FetchOptions) -> Taken:
    """Make the clip from `path`, which stays: a hard link, a copy across file systems, or a
    re-encoded file if the encoding options ask for one. Raises BadClip, OSError.
    """
    if options.encode.sound:
        return take_sound(clip, path, 0.0, clip_window(clip)[1], options)
    if options.encode.changes_clips:
        return reencode(clip, path, taken, options)
    link_file(path, options.out / f"{clip.name}.mp4", options.workspace)
    return taken


def take_sound(
    clip: Clip,
    path: Path,
    start: float,
    wanted: float,
    options: FetchOptions,
    is_whole: bool = False,
) -> Taken:
    """Take a sound file as it is if it is as asked for, else cut `wanted` seconds of it at `start`.

    is_whole: whether all of that must be there. Raises BadClip, OSError, Stopped.
    """
    encode = options.encode
    run = partial(run_child, timeout=options.timeout)
    target = options.workspace / f"{clip.name}.cut{encode.suffix}"
    try:
        has = cut_sound(run, options.ffmpeg, Input(file_url(path)), start, wanted, encode, target)
        reason = "" if has >= wanted - TOLERANCE else "short"
        if reason and is_whole:
            raise BadClip("truncated", f"{has:.2f} s of {wanted:.2f} s received")
        # What ffmpeg has just decoded, no decoder crashes over.
        if path.suffix == encode.suffix and not start and not reason:
            with suppress(BadClip):
                if encode.sample_rate in (None, check_sound(path, wanted).rate):
                    link_file(path, options.out / f"{clip.name}{encode.suffix}", options.workspace)
                    return Taken("", path.stat().st_size, has)
        size = target.stat().st_size
        publish(target, options.out / f"{clip.name}{encode.suffix}")
        return Taken(reason, size, has)
    finally:
        target.unlink(missing_ok=True)


def reencode(clip: Clip, path: Path, taken: Taken, options: FetchOptions) -> Taken:
    """Re-encode `path` into the clip as --short_side, --keyint and --no_audio want it.

    Raises BadClip, OSError, Stopped.
    """
    return replace(taken, size=cut_from(clip, path, 0.0, taken.seconds, taken.seconds, options))


def link_file(source: Path, final: Path, workspace: Path) -> None:
    temporary = workspace / f"{final.stem}.link{final.suffix}"
    try:
        os.link(source.resolve(), temporary)
    except OSError as error:
        if is_disk_full(error):
            raise
        # Another file system, one without links, or a file of another user's.
        shutil.copyfile(source, temporary)
    publish(temporary, final)


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
            partial(run_child, timeout=options.timeout),
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
    """Call `take` and return its outcome as a line of the report. Raises only Stopped."""
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
