"""Source `clips:DIR`: take clips that are on disk, or inside longer clips on disk.

The versions of Kinetics repeat each other, and the Kinetics-700 clip of a video contains nearly
every annotated frame of AVA-Kinetics. A clip that was made elsewhere is checked, linked or
re-encoded, and renamed.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from utils import files, report
from utils.clip import Clip, Result, clip_window, format_time, parse_clip_name, reason_of
from utils.download.sources import FetchOptions, SourceContext
from utils.errors import UNEXPECTED, UserError, is_disk_full
from utils.parallel import run_parallel
from utils.process import run_child
from utils.video import whole
from utils.video.cut import cut_sound, cut_video
from utils.video.ffmpeg import SOUNDS, CutTask, Input, file_url
from utils.video.whole import TOLERANCE, BadClip

NAME = "clips"  # in the report


class Held(NamedTuple):
    """A clip on disk, by its name. `end` is None for that of an AVA-Kinetics clip."""

    path: Path
    start: float
    end: float | None


class Part(NamedTuple):
    """The part of a file on disk that becomes a clip.

    start: in the file. file_end: where its video ends, if that was measured. must_fill: shorter
    audio is an error. window: the times of a clip that is not all of the requested one.
    """

    path: Path
    start: float
    duration: float
    file_end: float | None = None
    must_fill: bool = False
    window: tuple[float, float] | None = None


def from_disk(
    clips: Sequence[Clip], context: SourceContext, folders: tuple[Path, ...], allow_partial: bool
) -> Generator[Result, None, None]:
    """Yield the results of the source `clips:DIR[:DIR...]`."""
    ids = {clip.youtube_id for clip in clips}
    videos = find_files(folders, ids, context.options.encode.sources)
    shorts: set[str] = set()  # clips that are short because their videos end
    for folder in folders:
        try:
            shorts |= report.read_shorts(folder / report.REPORT_NAME)
        except UserError as error:
            context.tell(f"note: {error}: short clips of {folder} are not used")

    def get(clip: Clip) -> Result:
        names = videos.get(clip.youtube_id, [])
        parsed = ((path, parse_clip_name(Path(path).stem)) for path in names)
        held = [Held(Path(path), *found[1:]) for path, found in parsed if found]
        result = get_clip(clip, held, clip.name in shorts, context.options, allow_partial)
        # Record it at once: the main thread is slower than links, and a kill would lose lines.
        if result.is_on_disk:
            context.record(result)
        return result

    yield from run_parallel(get, clips, context.workers.num_jobs)


def find_files(
    folders: Iterable[Path], ids: set[str], suffixes: tuple[str, ...]
) -> dict[str, list[str]]:
    """Find the files of these videos in folders of any depth, by their names alone.

    One walk and no stat: 650,000 files take a few seconds.
    """
    videos: dict[str, list[str]] = {}
    for top in folders:
        for folder, inner, names in os.walk(top):
            inner[:] = [name for name in inner if not name.startswith(".")]
            for name in names:
                if name[:11] in ids and name.endswith(suffixes):
                    videos.setdefault(name[:11], []).append(os.path.join(folder, name))
    return videos


def get_clip(
    clip: Clip, held: Sequence[Held], is_short: bool, options: FetchOptions, allow_partial: bool
) -> Result:
    """Take or cut one clip from the clips of its video; `unavailable` if none contains it.

    is_short: a report marks it as short. If its own file is damaged, and no longer clip contains
    it, the result has the damage. Raises only Stopped.
    """
    same = [
        each
        for each in held
        if each[1:] == (clip.time_start, clip.time_end)
        or (each.end is None and each.path.stem == clip.name)
    ]
    same.sort(key=lambda each: each.path.suffix != options.encode.suffix)
    reason, problems = "unavailable", list[str]()
    for each in same:
        may_be_short = is_short and not clip.is_ava
        take = partial(take_copy, clip, each.path, options, may_be_short)
        result = result_of(clip, NAME, take, options)
        if result.is_on_disk or result.reason == "disk_full":
            return result
        reason = result.reason
        problems.append(f"{each.path}: {result.message}")
    others = [each for each in held if each not in same]
    for part in find_parts(clip, others, allow_partial, problems):
        result = result_of(clip, NAME, partial(cut_part, clip, part, options), options)
        if result.is_on_disk and part.window:
            begin, end = map(format_time, part.window)  # to find annotated frames in the clip
            of = f"{part.duration:.2f} of {clip_window(clip)[1]:.0f} s, from {part.path.name}"
            return replace(result, reason="short", time_start=begin, time_end=end, message=of)
        if result.is_on_disk or result.reason == "disk_full":
            return result
        problems.append(f"{part.path}: {result.message}")
    message = "; ".join(problems) or "not in any clip on disk"
    return Result.of(clip, reason, NAME, attempts=1, message=message)


def find_parts(
    clip: Clip, held: Sequence[Held], allow_partial: bool, problems: list[str]
) -> Iterator[Part]:
    """Find the clip inside longer ones; then, if allowed, parts of it, longest first.

    Files are measured, because one may be shorter than its name says. The problems of unusable
    files are added to `problems`.
    """
    start, duration = clip_window(clip)
    end, is_partial = start + duration, allow_partial and clip.is_ava
    parts = []
    for each in held:
        is_inside = each.end is not None and each.start <= start and end <= each.end
        if each.end is None or not (is_inside or is_partial):
            continue
        if each.path.suffix in SOUNDS:
            if is_inside:
                yield Part(each.path, start - each.start, duration, must_fill=True)
            continue
        try:
            video = whole.read_apart(each.path)
            whole.check_length(video, each.end - each.start)
        except (BadClip, OSError) as error:
            problems.append(f"{each.path}: {error}")
            continue
        if is_inside and video.covers(end - each.start):
            yield Part(each.path, start - each.start, duration, video.end)
            continue
        problems.append(f"{each.path}: {video.end:.2f} s long")
        begin, stop = max(start, each.start), min(end, each.end, each.start + video.end)
        # The annotated frame must be in it, and a few frames after that.
        if is_partial and begin <= clip.time_start <= stop - TOLERANCE:
            has, window = stop - begin, (begin, stop)
            parts.append(Part(each.path, begin - each.start, has, video.end, window=window))
    yield from sorted(parts, key=lambda part: -part.duration)


# --- making a clip --------------------------------------------------------------------------------


def result_of(clip: Clip, source: str, take: Callable[[], str], options: FetchOptions) -> Result:
    """Call `take`, which makes the clip and returns its reason; return its line of the report.

    Raises only Stopped.
    """
    started = time.monotonic()
    message, size = "", 0
    try:
        reason = take()
        size = (options.out / f"{clip.name}{options.encode.suffix}").stat().st_size
    except BadClip as error:
        reason = "disk_full" if files.disk_is_full(options.out) else error.reason
        message = error.message
    except (OSError, *UNEXPECTED) as error:
        reason, message = reason_of(error, options.out)
    more = {"attempts": 1, "seconds": round(time.monotonic() - started, 2), "bytes": size}
    return Result.of(clip, reason, source, message=message, **more)


def take_copy(
    clip: Clip, path: Path, options: FetchOptions, may_be_short: bool, is_ours: bool = False
) -> str:
    """Make the clip from a file with the same times; return its reason, empty or `short`.

    is_ours: the file may be moved; otherwise it is linked. Raises BadClip, OSError, Stopped.
    """
    wanted, final = clip_window(clip)[1], options.out / f"{clip.name}.mp4"
    if path.suffix in SOUNDS:
        return cut_part(clip, Part(path, 0.0, wanted, must_fill=not may_be_short), options)
    video = whole.check_clip(path, wanted)
    reason = "" if video.covers(wanted) else "short"
    if reason and not may_be_short:
        raise BadClip("truncated", f"{video.end:.2f} s long")
    if options.encode.sound:
        return cut_part(clip, Part(path, 0.0, wanted), options)
    if options.encode.changes_clips:
        cut_part(clip, Part(path, 0.0, video.end, video.end), options)
    elif is_ours:
        files.publish(path, final)
    else:
        link_file(path, final, options.workspace)
    return reason


def cut_part(clip: Clip, part: Part, options: FetchOptions) -> str:
    """Cut a part of a file, encode it and publish it; return `short` if its audio is, or "".

    An audio file that is all of the clip already is linked. Raises BadClip, OSError, Stopped.
    """
    path, wanted, encode = part.path, part.duration, options.encode
    target = options.workspace / f"{clip.name}.cut{encode.suffix}"
    final = options.out / f"{clip.name}{encode.suffix}"
    run, inputs = partial(run_child, timeout=options.timeout), [Input(file_url(path))]
    ffmpeg, start, file_end = options.ffmpeg, part.start, part.file_end
    task = CutTask(run, ffmpeg, inputs, start, wanted, encode, target, file_end)
    try:
        has = cut_sound(task) if encode.sound else cut_video(task)
        reason = "short" if encode.sound and has < wanted - TOLERANCE else ""
        if reason and part.must_fill:
            raise BadClip("truncated", f"{has:.2f} s of {wanted:.2f} s received")
        # The decoder cannot crash this process: ffmpeg has just decoded the same file.
        if path.suffix == encode.sound and not start and not reason:
            with suppress(BadClip):
                if encode.sample_rate in (None, whole.check_sound(path, wanted).rate):
                    link_file(path, final, options.workspace)
                    return reason
        files.publish(target, final)
        return reason
    finally:
        target.unlink(missing_ok=True)


def link_file(source: Path, final: Path, workspace: Path) -> None:
    """Hard-link a file of somebody else, or copy it from another file system. Raises OSError."""
    temporary = workspace / f"{final.stem}.link{final.suffix}"
    try:
        os.link(source.resolve(), temporary)
    except OSError as error:
        if is_disk_full(error):
            raise
        # Another file system, one without links, or a file of another user's.
        shutil.copyfile(source, temporary)
    files.publish(temporary, final)
