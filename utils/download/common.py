"""What all sources share: the options of a fetch, the run, the interface of a source, its answers.

Under every source and above `video`; knows no source.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from utils.clip import Clip
from utils.download.pace import Pace
from utils.parallel import Workers
from utils.report import UNAVAILABLE, Known, Result, VideosFile
from utils.video.ffmpeg import Encode, Ffmpeg

YOUTUBE = "https://www.youtube.com/watch?v="
CHECK_ID = "jNQXAC9IVRw"  # Me at the zoo: YouTube's first video, there since 2005
YOUTUBE_NAMES = ("youtube", "url_base")  # in the report: YouTube itself, and another --url_base


@dataclass(frozen=True)
class FetchOptions:
    """All that a worker has to know; plain data, so that it can go to another process."""

    out: Path
    workspace: Path  # this run's temporary folder, on the same disk as `out`
    ffmpeg: Ffmpeg
    encode: Encode = Encode()
    cookies: Path | None = None
    cookies_from_browser: str | None = None
    proxies: tuple[str, ...] = ()
    ytdlp_args: tuple[str, ...] = ()
    url_base: str = YOUTUBE
    timeout: float = 600.0
    check_id: str = CHECK_ID
    metadata: bool = False

    @property
    def source_name(self) -> str:
        return YOUTUBE_NAMES[not is_youtube(self.url_base)]


def is_youtube(url_base: str) -> bool:
    """Whether an address is YouTube's, however it is spelled: there its pace and blocks hold."""
    host = urlsplit(url_base).hostname or ""
    return host == "youtu.be" or f".{host}".endswith((".youtube.com", ".youtube-nocookie.com"))


NOT_ASKED = "known from an earlier run"


@dataclass
class Run:
    """What the sources share while a run lasts."""

    options: FetchOptions
    workers: Workers
    pace: Pace
    known: Known  # what the report says of clips that are not on disk
    ask_again: bool = False  # --retry
    tell: Callable[[str], None] = lambda text: None  # a line for the user, from the main thread
    record: Callable[[Result], None] | None = None  # a clip that is on disk, at once
    videos: VideosFile | None = None  # --metadata


# A source takes the clips that are still wanted, and yields a result for each, as they come.
Source = Callable[[Sequence[Clip], Run], Generator[Result, None, None]]


def more_telling(earlier: Result, later: Result) -> Result:
    """Which of two sources' answers for a clip that neither gave goes into the report.

    First what another try may mend, then YouTube's own reason, then a copy that is damaged, and
    only then that a source does not hold the clip.
    """

    def weight(result: Result) -> int:
        if result.reason in ("truncated", "undecodable"):
            return 1
        if result.status == UNAVAILABLE:
            return 2 if result.source in YOUTUBE_NAMES else 0
        return 3

    return earlier if weight(earlier) > weight(later) else later


def is_gone(clip: Clip, known: Known, source: str) -> bool:
    """Whether `source` once said that it will never have the clip."""
    return known.status(clip) == UNAVAILABLE and known.reasons[clip.name][2] == source
