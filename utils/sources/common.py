"""What all sources share: what a worker has to know of a fetch. Knows no source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from utils.video.ffmpeg import (
    Encode,
    Ffmpeg,
)

YOUTUBE = "https://www.youtube.com/watch?v="
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

    @property
    def source_name(self) -> str:
        return YOUTUBE_NAMES[not is_youtube(self.url_base)]


def is_youtube(url_base: str) -> bool:
    """Whether an address is YouTube's, however it is spelled: there its pace and blocks hold."""
    host = urlsplit(url_base).hostname or ""
    return host == "youtu.be" or f".{host}".endswith((".youtube.com", ".youtube-nocookie.com"))
