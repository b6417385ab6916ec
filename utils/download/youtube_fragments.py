"""The fragments of a video that a clip lies in, fetched into local files for ffmpeg to cut.

A part of `youtube_sections`: of each stream its index, in one small request for all clips, then
its fragments, in one request a clip. ffmpeg, given the address, reads the beginning and the end of
the file and ahead of what it needs: half as many bytes again, in three times the requests.
Whatever does not go as it should is left to ffmpeg, which repairs connections and tells reasons.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.clip import Clip, clip_window
from utils.download.youtube_attempt import Attempt
from utils.video.ffmpeg import Input, file_url
from utils.video.fragments import FragmentIndex, index_end, read_index
from utils.web import Web, WebError

if TYPE_CHECKING:
    import requests

INDEX_BYTES = 4096  # a file's head, and its index of up to 20 minutes or so
LARGEST_INDEX = 2**20
INDEX_SECONDS = 20.0
REQUEST_BYTES = 8 * 2**20  # over 10 MiB YouTube slows down
# Fragments keep the video's times: without the second ffmpeg would count from the first one's.
FRAGMENT_OPTIONS = {"seek_timestamp": "1"}


@dataclass(frozen=True)
class Stream:
    """Picture or sound of a video: where it is, how it is asked for, where its fragments lie."""

    url: str
    web: Web
    index: FragmentIndex


@dataclass(frozen=True)
class Window:
    """The local files that hold a clip; `end`: where the video's picture ends, by its index."""

    inputs: tuple[Input, ...]
    end: float


@contextmanager
def open_streams(attempt: Attempt, inputs: Sequence[Input], limit: float) -> Iterator[list[Stream]]:
    """The streams that `inputs` lead to; none where one is no fragmented mp4, or was not had."""
    deadline = time.monotonic() + min(limit, INDEX_SECONDS)
    with ExitStack() as stack:
        streams = []
        with suppress(WebError):
            streams = [_open_stream(attempt, each, deadline, stack) for each in inputs]
        yield streams


def _open_stream(attempt: Attempt, source: Input, deadline: float, stack: ExitStack) -> Stream:
    """Raises WebError, Stopped."""
    if not source.is_fragmented or source.options.get("tls_verify") == "0":
        raise WebError("nothing for this way", for_good=True)
    web = Web((attempt.proxy,) if attempt.proxy else (), stack.enter_context(_session(source)))
    data = web.part(source.url, 0, INDEX_BYTES, deadline)
    end = index_end(data) or 0
    if len(data) < end <= LARGEST_INDEX:
        data += web.part(source.url, len(data), end, deadline)
    index = read_index(data)
    if index is None:
        raise WebError("no fragmented mp4", for_good=True)
    return Stream(source.url, web, index)


def _session(source: Input) -> requests.Session:
    """Connections that are kept, and the headers and authorities that ffmpeg would be given."""
    import requests

    session = requests.Session()
    for line in source.options.get("headers", "").splitlines():
        name, _, value = line.partition(": ")
        session.headers[name] = value
    session.verify = source.options.get("ca_file", True)
    return session


def fetch_window(
    attempt: Attempt, streams: Sequence[Stream], clip: Clip, deadline: float
) -> Window | None:
    """What holds a clip; None where there are no `streams`, or it did not come.

    `deadline`: by `time.monotonic()`. Raises OSError (also of a full disk), Stopped.
    """
    start, seconds = clip_window(clip)
    found = [stream.index.window(start, start + seconds) for stream in streams]
    windows = [each for each in found if each is not None]
    if not streams or len(windows) < len(streams):
        return None
    inputs = []
    for number, (stream, window) in enumerate(zip(streams, windows, strict=True)):
        path = attempt.folder / f"fragments{number}.mp4"
        try:
            _write_fragments(stream, window, path, deadline)
        except WebError:
            return None
        inputs.append(Input(file_url(path), FRAGMENT_OPTIONS))
    return Window(tuple(inputs), streams[0].index.end)


def _write_fragments(stream: Stream, window: tuple[int, int], path: Path, deadline: float) -> None:
    """The head of a stream and the bytes `window` of it, as a file. Raises WebError, OSError."""
    first, end = window
    with path.open("wb") as file:
        file.write(stream.index.head)
        while first < end:
            piece = stream.web.part(stream.url, first, min(end, first + REQUEST_BYTES), deadline)
            if not piece:
                raise WebError("ends before its last fragment", for_good=True)
            file.write(piece)
            first += len(piece)
