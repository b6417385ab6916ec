"""Videos on a Dask cluster: what each of its processes does, and what the head makes of it.

Between `sources/youtube` and `youtube_video`. A machine has one limiter for all of its processes;
when YouTube blocks it, its videos go back to the head and from there to other machines.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from utils.clip import Clip
from utils.cluster.tasks import Block, Partly
from utils.download.common import FetchOptions, Run
from utils.download.pace import HOLD_SECONDS, MachinePace
from utils.download.youtube_sections import SectionLuck
from utils.download.youtube_video import TRIES, fetch_video
from utils.machines import own_folder
from utils.process import STOP, Stopped
from utils.report import REPORT_NAME, RESULT_COLUMNS, ReportFile, Result, read_report
from utils.video.ffmpeg import find_ffmpeg

if TYPE_CHECKING:
    from utils.cluster.head import Cluster


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
class There:
    """What the processes of the cluster have in common. `ffmpeg`: --ffmpeg, found by each anew."""

    options: FetchOptions
    ffmpeg: str | None
    videos_per_hour: float
    pause_seconds: float


def fetch_on_cluster(
    videos: Iterable[tuple[int, tuple[Clip, ...]]], run: Run, cluster: Cluster
) -> Generator[list[Result], None, None]:
    """The results of each video, as `fetch_video` gives them."""
    pace = run.pace
    per_hour = 3600 / pace.interval if pace.interval else 0.0
    there = There(run.options, cluster.ffmpeg, per_hour, pace.first_pause)

    def lost(task: VideoTask, how: str) -> tuple[list[Result], bool]:
        source = run.options.source_name
        there = {result.clip: result for result in _written_down(run.options.workspace)}
        unknown = (Result.of(clip, "unknown", source, message=how) for clip in task.clips)
        return [there.get(result.clip, result) for result in unknown], False

    tasks = (VideoTask(number, clips) for number, clips in videos)
    told: set[str] = set()
    for results, is_block in cluster.run(functools.partial(fetch_there, there), tasks, lost):
        if is_block:
            pace.count_block()
        told.update(result.clip for result in results)
        yield results
    if STOP.is_set():
        yield [each for each in _written_down(run.options.workspace) if each.clip not in told]


def _written_down(workspace: Path) -> Iterator[Result]:
    """The clips that the workers put in place, also those whose answer never came."""
    for path in workspace.glob(f"*/{REPORT_NAME}"):
        for row in read_report(path, RESULT_COLUMNS):
            yield Result(
                *(row[0], row[1], row[2], row[3], row[4], row[5], row[6]),
                *(int(row[7]), float(row[8]), int(row[9])),
                *(row[10], row[11]),
            )


def fetch_there(there: There, task: VideoTask) -> Partly:
    """The worker, in a process of the cluster: (results, whether it met a new block)."""
    folder = own_folder(there.options.workspace)
    options = replace(there.options, workspace=folder, ffmpeg=find_ffmpeg(there.ffmpeg))
    pace, luck = _of_this_process(there)
    pace.hold_seconds = HOLD_SECONDS if task.blocks <= TRIES else float("inf")
    results: list[Result] = []
    before = pace.blocks
    try:
        with ReportFile(folder / REPORT_NAME, RESULT_COLUMNS) as report:
            record = report.append_result
            results = fetch_video(task.clips, options, pace, luck, task.number, record)
    except Stopped:
        if STOP.is_set():
            raise
    is_block = pace.blocks > before
    finished = {result.clip for result in results}
    rest = tuple(clip for clip in task.clips if clip.name not in finished)
    block = pace.pause_left()
    return Partly(
        (results, is_block),
        VideoTask(task.number, rest, task.blocks + is_block) if rest else None,
        Block(*block) if block else None,
    )


@functools.cache
def _of_this_process(there: There) -> tuple[MachinePace, SectionLuck]:
    pace = MachinePace(there.options.workspace, there.videos_per_hour, there.pause_seconds)
    return pace, SectionLuck()
