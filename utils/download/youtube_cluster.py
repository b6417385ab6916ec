"""Fetch videos on the processes of a Dask cluster."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.cluster.tasks import Block, Partly
from utils.download.common import FetchOptions, Run
from utils.download.pace import Attempted, Pace
from utils.machines import own_folder
from utils.process import STOP
from utils.report import REPORT_NAME, RESULT_COLUMNS, ReportFile, Result, read_report
from utils.video.ffmpeg import find_ffmpeg

if TYPE_CHECKING:
    from utils.cluster.head import Cluster


@dataclass(frozen=True)
class There:
    """What the processes of the cluster have in common. `ffmpeg`: --ffmpeg, found by each anew."""

    options: FetchOptions
    ffmpeg: str | None
    videos_per_hour: float
    pause_seconds: float


def fetch_on_cluster(
    videos: Iterable[Any], run: Run, cluster: Cluster
) -> Generator[list[Result], None, None]:
    """The results of each video."""
    pace = run.pace
    per_hour = 3600 / pace.interval if pace.interval else 0.0
    there = There(run.options, cluster.ffmpeg, per_hour, pace.first_pause)

    def lost(task: Any, how: str) -> tuple[list[Result], bool]:
        source = run.options.source_name
        known = {result.clip: result for result in _written_down(run.options.workspace)}
        unknown = (Result.of(clip, "unknown", source, message=how) for clip in task.clips)
        return [known.get(result.clip, result) for result in unknown], False

    told: set[str] = set()
    for results, is_block in cluster.run(functools.partial(fetch_there, there), videos, lost):
        pace.blocks += is_block
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
                *(int(row[7]), float(row[8]), int(row[9]), row[10], int(row[11] or 0), row[12]),
            )


def fetch_there(there: There, task: Any) -> Partly:
    """The worker, in a process of the cluster: (results, whether it met a new block)."""
    from utils.download.youtube import attempt_video

    folder = own_folder(there.options.workspace)
    options = replace(there.options, workspace=folder, ffmpeg=find_ffmpeg(there.ffmpeg))
    pace = _of_this_process(there)
    results: list[Result] = []
    attempted, before = None, pace.blocks
    turn = pace.wait_turn()
    try:
        with ReportFile(folder / REPORT_NAME, RESULT_COLUMNS) as report:
            for made in attempt_video(task, options):
                if isinstance(made, Attempted):
                    attempted = made
                else:
                    results.append(made)
                    if made.is_on_disk:
                        report.append_result(made)
    finally:
        released, rest = pace.end(turn, attempted)
    is_block = pace.blocks > before
    block = Block(attempted.reason, pace.first_pause) if attempted and is_block else None
    return Partly(([*results, *released], is_block), rest, block)


@functools.cache
def _of_this_process(there: There) -> Pace:
    return Pace(there.videos_per_hour, there.pause_seconds)
