"""Source `youtube`: clips from YouTube, or from another server of videos (`--url_base`).

An attempt for a video is one extraction (`youtube_extract`) for all of its clips, which
`youtube_sections` cuts. `pace` decides when an attempt may begin, and receives its outcome.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import uniform
from typing import Any

from utils.clip import Clip, Result, by_video, reason_of
from utils.download import youtube_extract
from utils.download.pace import Attempted
from utils.download.sources import NOT_ASKED, FetchOptions, SourceContext, is_youtube
from utils.download.youtube_sections import Cut, cut_clips
from utils.download.youtube_texts import BLOCKS, FetchError
from utils.errors import UNEXPECTED, UNEXPECTED_MESSAGE
from utils.parallel import pause
from utils.process import STOP

TRIES = 3  # attempts for one video in one run, without those that met a block of the site
HOPELESS = ("timeout", "cookies", "js_runtime", "disk_full", *BLOCKS)  # no second attempt


@dataclass(frozen=True)
class VideoTask:
    """The missing clips of one video, and the cost of earlier attempts.

    limit: seconds that all attempts may take. number: chooses the proxy of the first attempt.
    attempts: without those that met a block at the extraction. seconds: spent, without waits.
    """

    youtube_id: str
    clips: tuple[Clip, ...]
    limit: float
    number: int = 0
    attempts: int = 0
    seconds: float = 0.0
    wait: float = 0.0  # seconds before this attempt


def from_youtube(
    clips: Sequence[Clip], context: SourceContext, gone: Mapping[str, str]
) -> Generator[Result, None, None]:
    """Yield the results of the source `youtube`. Threads suffice, because they run programs.

    gone: clips that are not asked for, and the reasons.
    """
    options = context.options
    asked = [clip for clip in clips if clip.name not in gone]
    for clip in clips:
        if clip.name in gone:
            yield Result.of(clip, gone[clip.name], options.source_name, message=NOT_ASKED)
    tasks = (
        VideoTask(group[0].youtube_id, tuple(group), options.timeout * len(group), number)
        for number, group in enumerate(by_video(asked))
    )
    worker, given_up = partial(attempt_video, options=options), partial(lost, options)
    try:
        for made in context.workers.run(worker, tasks, given_up, turns=context.pace):
            if isinstance(made, Result):
                yield made
            elif context.videos is not None:
                context.videos.add(made)
        if not STOP.is_set():
            yield from context.pace.last()
    finally:
        youtube_extract.end_ytdlp()


def lost(options: FetchOptions, task: VideoTask, how: str) -> Iterator[Result]:
    """Yield the results of a video whose worker was lost."""
    for clip in task.clips:
        is_there = (options.out / f"{clip.name}{options.encode.suffix}").exists()
        yield Result.of(clip, "" if is_there else "unknown", options.source_name, message=how)


def attempt_video(
    task: VideoTask | None, options: FetchOptions
) -> Generator[Result | dict[str, Any] | Attempted, None, None]:
    """Make one attempt: yield the final results, and at last the outcome for `pace`.

    With --metadata, also yield the video's line of videos.jsonl. None is the task of the check
    video, which has no clips. Raises Stopped.
    """
    if task is None:
        task = VideoTask(options.check_id, (), options.timeout)
    proxies, begun, waited = options.proxies, time.monotonic(), 0.0
    proxy = proxies[(task.number + task.attempts) % len(proxies)] if proxies else None
    info: dict[str, Any] = {}
    on_disk: set[str] = set()
    errors: dict[str, FetchError] = {}

    def spent() -> float:
        return task.seconds + time.monotonic() - begun - waited

    def result(clip: Clip, reason: str, message: str = "", size: int = 0) -> Result:
        more = {"attempts": task.attempts + 1, "seconds": round(spent(), 2), "bytes": size}
        more["height"] = youtube_extract.height_of(info) if size else 0
        return Result.of(clip, reason, options.source_name, message=message, **more)

    try:
        parent = options.workspace
        with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
            deadline = begun + task.limit - task.seconds
            attempt = youtube_extract.Attempt(options, Path(folder), proxy, deadline)
            info = youtube_extract.ask_ytdlp(attempt, task.youtube_id)
            if task.clips:
                if options.metadata:
                    yield youtube_extract.metadata_of(task.youtube_id, info)
                waited = youtube_extract.seconds_until_available(info)
                pause(waited)
                attempt.deadline += waited
            for clip, made in cut_clips(attempt, task.clips, info):
                if isinstance(made, Cut):
                    on_disk.add(clip.name)
                    yield result(clip, "short" if made.is_short else "", size=made.bytes)
                else:
                    errors[clip.name] = made
    except (FetchError, OSError, *UNEXPECTED) as error:
        if not isinstance(error, FetchError):
            error = FetchError(*reason_of(error, options.out))
        missing = [clip.name for clip in task.clips if clip.name not in on_disk] or [""]
        errors = dict.fromkeys(missing, error) | errors
    left = tuple(clip for clip in task.clips if clip.name in errors)
    rest = replace(task, clips=left, seconds=spent(), wait=0.0)
    yield from conclude(task, rest, errors, result, options, is_shown=bool(info))


def conclude(
    task: VideoTask,
    rest: VideoTask,
    errors: dict[str, FetchError],
    result: Callable[[Clip, str, str], Result],
    options: FetchOptions,
    is_shown: bool,
) -> Iterator[Result | Attempted]:
    """Yield the results of clips that get no other attempt, and at last the outcome."""
    block = next((error for error in errors.values() if error.reason in BLOCKS), None)
    first = block or next(iter(errors.values()), FetchError("", ""))
    say = partial(Attempted, reason=first.reason, message=first.message, is_shown=is_shown)
    if block and (block.at_extraction or task.attempts < TRIES):
        # A block of the site is waited for without limit. A block on the data of one video is not,
        # because this video would hold up all others for ever.
        attempts = task.attempts if block.at_extraction else task.attempts + 1
        yield say("blocked", rest=replace(rest, attempts=attempts))
        return
    failures = {
        clip: result(clip, errors[clip.name].reason, errors[clip.name].message)
        for clip in rest.clips
    }
    if first.at_extraction and first.is_final:
        yield say("gone", results=tuple(failures.values()))
        return
    again = tuple(clip for clip in rest.clips if is_worth_a_try(errors[clip.name], task))
    yield from (failure for clip, failure in failures.items() if clip not in again)
    came = len(rest.clips) < len(task.clips) or any(each.is_final for each in errors.values())
    # The wait doubles with each attempt, and differs between videos.
    wait = min(2.0 ** (task.attempts + 1), max(0.0, rest.limit - rest.seconds))
    rest = replace(rest, clips=again, attempts=task.attempts + 1, wait=wait * uniform(0.5, 1))
    is_own = not is_youtube(options.url_base) and "HTTP Error 4" in first.message
    yield say(
        "passed" if came or not errors else "unclear",
        results=tuple(failures[clip] for clip in again),
        rest=rest if again else None,
        may_be_everybodys=not is_own,
        youtube_id=task.youtube_id,
    )


def is_worth_a_try(error: FetchError, task: VideoTask) -> bool:
    """Return whether another attempt in this run may succeed after this error."""
    if error.is_final or error.reason in HOPELESS or UNEXPECTED_MESSAGE.match(error.message):
        return False
    return task.attempts + 1 < TRIES
