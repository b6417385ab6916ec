"""What can go wrong on the way to a video, on demand, and the log of what was asked for.

A `Knob` says which requests it meets and what it does to them; `server` looks the knobs up for
every request. Both classes here are plain data.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

BIG = 10 << 20  # YouTube throttles requests for more than this, and yt-dlp asks in such pieces


@dataclass(frozen=True)
class Request:
    """One request, as the log shows it. `bytes_sent` counts the body only."""

    time: float  # time.monotonic() at its beginning
    server: str  # "https" (the player API) or "http" (media, watch pages, files)
    method: str
    path: str  # with the query
    youtube_id: str  # of a plain file: its path
    target: str  # "player", "media", "watch", "file" or "other"
    itag: int | None
    range: str  # the Range header, or ""
    user_agent: str
    client: str  # "ffmpeg" or "native": yt-dlp gives its ffmpeg the same User-Agent as itself
    status: int = 0  # 0 while the answer has not begun
    bytes_sent: int = 0
    finished: bool = False

    @property
    def open_ended(self) -> bool:
        """True when it asks for everything up to the end: no Range, or `bytes=N-`."""
        return not self.range or self.range.endswith("-")

    @property
    def span(self) -> int | None:
        """How many bytes a bounded Range asks for."""
        first, dash, last = self.range.removeprefix("bytes=").partition("-")
        if not (dash and first.isdigit() and last.isdigit()):
            return None
        return int(last) - int(first) + 1


@dataclass(frozen=True)
class Knob:
    """Which requests it meets (all of the upper half must fit), and what it does (lower half)."""

    youtube_id: str | None = None  # None: every video
    target: str | None = "media"  # None: every target
    times: int | None = None  # how many requests it meets before it is used up; None: no limit
    only: str | None = None  # "open_ended", "bounded", "big" (open-ended or over 10 MiB)
    client: str | None = None  # "ffmpeg" or "native"
    user_agent: str | None = None  # a part of the User-Agent
    itag: int | None = None

    cut_after: int | None = None  # close the connection after so many bytes of the body
    stall_after: int | None = None  # say nothing more, until the client leaves or the server stops
    throttle: float | None = None  # bytes per second
    status: int | None = None  # answer with this error
    no_range: bool = False  # the whole file with 200, whatever was asked for
    no_length: bool = False  # no Content-Length: the end of the connection is the end of the file
    html: bool = False  # a web page with 200 where a video should be
    truncate: int | None = None  # the first so many bytes, as if they were the whole file
    longer: int | None = None  # so many bytes more than Content-Length says
    endless: bool = False  # after the last byte more and more of them, until the client leaves
    gzip: bool = False  # Content-Encoding: gzip, asked for or not
    body: bytes | None = None  # this with 200, in place of all else
    redirect: str | None = None  # 302 to this address; "loop": to itself; `endless`: its body, too
    retry_after: int | None = None  # the header, with `status`
    reset: bool = False  # no answer: the connection is reset

    def __post_init__(self) -> None:
        if self.only not in (None, "open_ended", "bounded", "big"):
            raise ValueError(f"no such kind of request: only={self.only!r}")
        if self.target not in (None, "player", "media", "watch", "file"):
            raise ValueError(f"no such target: {self.target!r}")

    def meets(self, request: Request) -> bool:
        return (
            self.youtube_id in (None, request.youtube_id)
            and self.target in (None, request.target)
            and self.client in (None, request.client)
            and self.itag in (None, request.itag)
            and (self.user_agent is None or self.user_agent in request.user_agent)
            and self._fits(request)
        )

    def _fits(self, request: Request) -> bool:
        if self.only == "open_ended":
            return request.open_ended
        if self.only == "bounded":
            return not request.open_ended
        if self.only == "big":
            return request.open_ended or (request.span or 0) > BIG
        return True


EFFECTS = tuple(
    field.name for field in fields(Knob)[[f.name for f in fields(Knob)].index("cut_after") :]
)


def combined(knobs: list[Knob]) -> Knob:
    """All effects of these knobs in one; of two that set the same thing, the later one counts."""
    effects = {}
    for knob in knobs:
        for name in EFFECTS:
            value = getattr(knob, name)
            if value is not None and value is not False:
                effects[name] = value
    return Knob(**effects)
