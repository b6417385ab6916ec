"""Define the sources of --source: their names, the settings they share, the order of requests.

A new source is a module with a generator of type `Source`, and a line in `download.make_source`.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from utils.clip import UNAVAILABLE, Clip, Result
from utils.download.pace import Pace
from utils.parallel import Workers
from utils.process import STOP
from utils.report import VideosFile
from utils.video.ffmpeg import Encode, Ffmpeg, find_ffmpeg

NAMES = ("youtube", "cvdf")
CLIPS, TAR = "clips:", "tar:"  # followed by a place
YOUTUBE = "https://www.youtube.com/watch?v="
CHECK_ID = "jNQXAC9IVRw"  # Me at the zoo: YouTube's first video, online since 2005
NOT_ASKED = "known from an earlier run"


@dataclass(frozen=True)
class FetchOptions:
    """The settings of a worker: plain data that can be sent to another process."""

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
        """The name of YouTube in the report."""
        return youtube_name(self.url_base)


# Options that are fields of FetchOptions, and those that are fields of Encode.
FETCHING = ("cookies_from_browser", "ytdlp_args", "url_base", "timeout", "check_id", "metadata")
ENCODING = ("crf", "keyint", "short_side", "sample_rate")


def fetch_options(args: argparse.Namespace, out: Path, workspace: Path) -> FetchOptions:
    """Return the settings that all sources share."""
    encode = Encode(
        max_height=args.max_height or None,
        audio=not args.no_audio,
        sound=clip_suffix(args) if args.audio_only else "",
        **{name: getattr(args, name) for name in ENCODING},
    )
    return FetchOptions(
        out,
        workspace,
        find_ffmpeg(args.ffmpeg),
        encode,
        cookies=args.cookies.absolute() if args.cookies else None,
        proxies=tuple(args.proxy),
        **{name: getattr(args, name) for name in FETCHING},
    )


def clip_suffix(args: argparse.Namespace) -> str:
    """Return the suffix of the clips' files."""
    return f".{args.audio_format}" if args.audio_only else ".mp4"


def is_youtube(url_base: str) -> bool:
    """Return whether an address is YouTube's, where the rate limit and the blocks apply."""
    host = urlsplit(url_base).hostname or ""
    return host == "youtu.be" or f".{host}".endswith((".youtube.com", ".youtube-nocookie.com"))


def youtube_name(url_base: str) -> str:
    """Return the name in the report for YouTube, or for another --url_base."""
    return "youtube" if is_youtube(url_base) else "url_base"


@dataclass
class SourceContext:
    """Options and resources that the sources share during a run."""

    options: FetchOptions
    workers: Workers
    pace: Pace
    record: Callable[[Result], None]  # report a clip on disk at once
    tell: Callable[[str], None] = lambda text: None  # print a line, from the main thread
    videos: VideosFile | None = None  # --metadata


# A source takes the clips that are still missing, and yields a result for each.
Source = Callable[[Sequence[Clip], SourceContext], Generator[Result, None, None]]


def ask_sources(
    clips: Sequence[Clip], context: SourceContext, sources: Sequence[Source]
) -> Generator[Result, None, None]:
    """Request every clip from one source after another; yield the most useful result for each."""
    answers: dict[str, Result] = {}
    for number, source in enumerate(sources, 1):
        left = [clip for clip in clips if number == 1 or clip.name in answers]
        if not left or STOP.is_set():
            return
        with closing(source(left, context)) as results:
            for result in results:
                before = answers.pop(result.clip, result)
                if not result.is_on_disk and _rank(before) > _rank(result):
                    result = before
                if result.is_on_disk or number == len(sources) or result.reason == "disk_full":
                    yield result
                else:
                    answers[result.clip] = result


def _rank(result: Result) -> int:
    """Rank the results of a missing clip: the source with the highest one goes into the report.

    A retry may help; YouTube's reason; a damaged copy; a source that does not have the clip.
    """
    if result.reason in ("truncated", "undecodable"):
        return 1
    if result.status != UNAVAILABLE:
        return 3
    return 2 if result.source in ("youtube", "url_base") else 0


def parse_sources(text: str) -> list[str]:
    """Split `clips:/a:/b,cvdf,youtube` into names of sources, as an argparse type."""
    # Only a comma before another source separates, because a folder's name may contain one.
    names = re.split(rf",(?={CLIPS}|{TAR}|(?:{'|'.join(NAMES)})(?:,|$))", text)
    for name in names:
        place = name.removeprefix(TAR)
        if name.startswith(CLIPS):
            for folder in folders_of(name):
                if not folder.is_dir():
                    raise argparse.ArgumentTypeError(f"{name}: {folder} is not a folder")
        elif name.startswith(TAR):
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
    """Return the folders of `clips:DIR[:DIR...]`."""
    return tuple(Path(folder) for folder in name.removeprefix(CLIPS).split(":"))
