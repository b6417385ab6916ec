"""The source `clips:DIR`: clips that lie on the disk already, or inside longer ones that do.

Between the lists and the disk, with no network. The versions of Kinetics repeat each other, and
nearly every key frame of AVA-Kinetics lies in its video's Kinetics-700 clip.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from utils.clip import Clip, clip_window, parse_clip_name
from utils.download.common import FetchOptions, Run
from utils.download.taking import Taken, cut_from, examine, result_of, take_linked
from utils.errors import UserError
from utils.parallel import run_parallel
from utils.report import REPORT_NAME, Result, format_time, read_shorts
from utils.video.whole import TOLERANCE, BadClip, check_length, read_apart

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
            if found := parse_clip_name(file.removesuffix(".mp4")):
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
    folders: Iterable[Path], wanted_ids: frozenset[str], tell: Callable[[str], None]
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
                if file[:11] in wanted_ids and file.endswith(".mp4"):
                    videos.setdefault(file[:11], []).append((folder, file))
        try:
            shorts |= read_shorts(Path(top) / REPORT_NAME)
        except UserError as error:
            tell(f"note: {error}: the clips of {top} that it calls short are not taken")
    return DiskIndex(videos, frozenset(shorts))


def from_disk(
    clips: Sequence[Clip], run: Run, folders: tuple[Path, ...], allow_partial: bool
) -> Generator[Result, None, None]:
    """The source `clips:DIR[:DIR...]`."""
    index = index_clips(folders, frozenset(clip.youtube_id for clip in clips), run.tell)

    def get(clip: Clip) -> Result:
        result = get_clip(clip, index, run.options, NAME, allow_partial)
        # At once: links are faster than the main thread takes results, and a kill would cost lines.
        if result.is_on_disk and run.record is not None:
            run.record(result)
        return result

    yield from run_parallel(get, clips, run.workers.num_jobs)


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
    for same in (each for each in held if _is_same(each, clip)):
        result = result_of(clip, source, partial(_link, clip, same, index, options), options)
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
    message = "; ".join(problems) or "no clip on disk holds it"
    return Result.of(clip, reason, source, attempts=1, message=message)


def _is_same(held: DiskClip, clip: Clip) -> bool:
    if held.end is None:
        return held.file == f"{clip.name}.mp4"
    return held.start == clip.time_start and held.end == clip.time_end


def _link(clip: Clip, same: DiskClip, index: DiskIndex, options: FetchOptions) -> Taken:
    """Take a clip of the same id and times. Raises BadClip where it is shorter than its name says.

    Except where the folder's own report says why: then it is all that there ever was.
    """
    taken = examine(clip, same.path, options)
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
