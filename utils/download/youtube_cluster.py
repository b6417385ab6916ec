"""Videos on a Dask cluster: what each of its processes does, and what the head makes of it.

Between `sources/youtube` and `youtube_video`. A machine has one limiter for all of its processes;
when YouTube blocks it, its videos go back to the head and from there to other machines.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace

from utils.clip import Clip
from utils.download.common import FetchOptions, Run
from utils.download.pace import HOLD_SECONDS, MachinePace
from utils.download.youtube_sections import SectionLuck
from utils.download.youtube_video import TRIES, fetch_video
from utils.machines import own_folder
from utils.parallel import TurnEnd
from utils.process import STOP, Stopped
from utils.report import Result


@dataclass(frozen=True)
class VideoTask:
    """The clips of one video. `number` says which of the proxies takes the first try.

    blocks: how many blocks it has met. Where it may be the video's own data that is refused, it is
    not sent on for ever: after some it waits where it is, and is written off as on one machine.
    """

    number: int
    clips: tuple[Clip, ...]
    blocks: int = 0


@dataclass(frozen=True)
class Blocked:
    """A block that a machine has met."""


@dataclass(frozen=True)
class There:
    """What the processes of the cluster have in common."""

    options: FetchOptions
    videos_per_hour: float
    pause_seconds: float


def fetch_on_cluster(
    videos: Iterable[tuple[int, tuple[Clip, ...]]], run: Run
) -> Generator[Result, None, None]:
    """The results of each video, as `fetch_video` gives them."""
    pace = run.pace
    per_hour = 3600 / pace.interval if pace.interval else 0.0
    there = There(run.options, per_hour, pace.first_pause)

    source = run.options.source_name

    def lost(task: VideoTask, how: str) -> Generator[Result, None, None]:
        for clip in task.clips:
            is_there = (run.options.out / f"{clip.name}.mp4").exists()
            yield Result.of(clip, "" if is_there else "unknown", source, message=how)

    tasks = (VideoTask(number, clips) for number, clips in videos)
    for result in run.workers.run(functools.partial(fetch_there, there), tasks, lost):
        if isinstance(result, Blocked):
            pace.count_block()
        else:
            yield result


def fetch_there(there: There, task: VideoTask) -> Generator[Result | TurnEnd | Blocked, None, None]:
    """The worker, in a process of the cluster."""
    options = replace(there.options, workspace=own_folder(there.options.workspace))
    pace, luck = _of_this_process(there)
    pace.hold_seconds = HOLD_SECONDS if task.blocks <= TRIES else float("inf")
    results: list[Result] = []
    before = pace.blocks
    try:
        results = fetch_video(task.clips, options, pace, luck, task.number)
    except Stopped:
        if STOP.is_set():
            raise
    yield from results
    is_block = pace.blocks > before
    if is_block:
        yield Blocked()
    finished = {result.clip for result in results}
    end = TurnEnd()
    if rest := tuple(clip for clip in task.clips if clip.name not in finished):
        end.rest = VideoTask(task.number, rest, task.blocks + is_block)
    yield end


@functools.cache
def _of_this_process(there: There) -> tuple[MachinePace, SectionLuck]:
    pace = MachinePace(there.options.workspace, there.videos_per_hour, there.pause_seconds)
    return pace, SectionLuck()
