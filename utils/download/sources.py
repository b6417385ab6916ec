"""Define the sources of --source, and request each clip from one after another.

A new source is a module with a generator of type `Source`, and a line in `make_source`.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from utils.clip import UNAVAILABLE, Clip, Result
from utils.download.pace import Pace
from utils.parallel import Workers
from utils.process import STOP
from utils.report import Known, VideosFile
from utils.video.ffmpeg import Encode, Ffmpeg

if TYPE_CHECKING:
    from utils.download.archives import MirrorOptions

NAMES = ("youtube", "cvdf")
CLIPS, TAR = "clips:", "tar:"  # and a place: sources that are made anew for each
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
class SourceContext:
    """Options and resources that the sources share during a run."""

    options: FetchOptions
    workers: Workers
    pace: Pace
    known: Known  # what the report says of clips that are not on disk
    ask_again: bool = False  # --retry
    tell: Callable[[str], None] = lambda text: None  # a line for the user, from the main thread
    record: Callable[[Result], None] | None = None  # a clip that is on disk, at once
    videos: VideosFile | None = None  # --metadata


# A source takes the clips that are still wanted, and yields a result for each, as they come.
Source = Callable[[Sequence[Clip], SourceContext], Generator[Result, None, None]]


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


def ask_sources(
    clips: Sequence[Clip], context: SourceContext, sources: Sequence[Source]
) -> Generator[Result, None, None]:
    """Every clip from the first source that has it; one result for each, the most telling one."""
    answers: dict[str, Result] = {}
    for number, source in enumerate(sources, 1):
        left = [c for c in clips if number == 1 or c.name in answers]
        if not left or STOP.is_set():
            return
        with closing(source(left, context)) as results:
            for result in results:
                before = answers.pop(result.clip, None)
                if before is not None and not result.is_on_disk:
                    result = more_telling(before, result)
                if result.is_on_disk or number == len(sources) or result.reason == "disk_full":
                    yield result
                else:
                    answers[result.clip] = result


def parse_sources(text: str) -> list[str]:
    """An argparse type: `clips:/a:/b,cvdf,youtube` as names of sources, in that order."""
    # Only a comma before another source separates: a folder's name may hold one.
    names = re.split(rf",(?={CLIPS}|{TAR}|(?:{'|'.join(NAMES)})(?:,|$))", text)
    for name in names:
        if name.startswith(CLIPS):
            for folder in folders_of(name):
                if not folder.is_dir():
                    raise argparse.ArgumentTypeError(f"{name}: {folder} is not a folder")
        elif name.startswith(TAR):
            place = name.removeprefix(TAR)
            is_there = os.path.isfile(place) or os.path.isdir(place)
            if urlsplit(place).scheme not in ("http", "https") and not is_there:
                raise argparse.ArgumentTypeError(f"{name}: there is no file or folder {place}")
        elif name not in NAMES:
            known = ", ".join([*NAMES, "clips:DIR", "tar:FILE_OR_FOLDER_OR_URL"])
            raise argparse.ArgumentTypeError(f"{name!r} is not a source; choose from {known}")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} names a source twice")
    return names


def folders_of(name: str) -> tuple[Path, ...]:
    """The folders of `clips:DIR[:DIR...]`."""
    return tuple(Path(folder) for folder in name.removeprefix(CLIPS).split(":"))


def make_source(name: str, mirror: MirrorOptions, allow_partial: bool) -> Source:
    """The source of that name; each is imported only if it is requested."""
    if name.startswith(CLIPS):
        from utils.download.disk import from_disk

        return partial(from_disk, folders=folders_of(name), allow_partial=allow_partial)
    if name.startswith(TAR):
        from utils.download.archives import from_tars

        return partial(from_tars, place=name.removeprefix(TAR))
    if name == "cvdf":
        from utils.download.archives import from_mirror

        return partial(from_mirror, mirror=mirror)
    from utils.download.youtube import from_youtube

    return from_youtube
