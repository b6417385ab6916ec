"""The source `youtube`: clips from YouTube, or from a server of whole videos, video by video.

Between the chain and `youtube_video`, which fetches one. One yt-dlp extraction serves all clips of
a video; ffmpeg then reads only the section of each clip and encodes it once. Where sections fail,
yt-dlp fetches the whole video and the clips are cut from the file.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from utils.clip import Clip, by_video
from utils.cluster import Cluster
from utils.download.common import NOT_ASKED, Run, is_gone
from utils.download.youtube_cluster import fetch_on_cluster
from utils.download.youtube_sections import SectionLuck
from utils.download.youtube_video import fetch_video
from utils.download.ytdlp import end_ytdlp
from utils.parallel import run_parallel
from utils.report import Result

__all__ = ["SectionLuck", "from_youtube"]


def from_youtube(
    clips: Sequence[Clip], run: Run, luck: SectionLuck
) -> Generator[Result, None, None]:
    """The source `youtube`: one task a video, on threads, for the work is in child processes."""

    def fetch(task: tuple[int, tuple[Clip, ...]]) -> list[Result]:
        number, group = task
        return fetch_video(group, run.options, run.pace, luck, number, run.record)

    asked = []
    for clip in clips:
        if run.ask_again or not is_gone(clip, run.known, run.options.source_name):
            asked.append(clip)
        else:
            reason = run.known.reasons[clip.name][1]
            yield Result.of(clip, reason, run.options.source_name, message=NOT_ASKED)
    videos = enumerate(by_video(asked))
    if isinstance(run.workers, Cluster):
        yield from fetch_on_cluster(videos, run)
        return
    try:
        for results in run_parallel(fetch, videos, run.workers.num_jobs):
            yield from results
    finally:
        end_ytdlp()
