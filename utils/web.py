"""Send HTTP requests: resumable streams, sizes, small texts, parts of a file.

requests sends the requests, and each of its errors becomes a WebError. No client (requests, httpx)
resumes within a file that may have changed without storing it first, in a process that a stop must
end at once.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from utils.files import TEXT_LIMIT
from utils.process import STOP, Stopped, sleep

Answer = TypeVar("Answer")

TRIES = 6  # in a row, without a byte of progress between them
LIST_TRIES = 3
TIMEOUTS = (20.0, 30.0)  # seconds to connect, and between two bytes
TEXT_SECONDS = 600.0  # for a text; a server may send a byte now and then for ever


class WebError(Exception):
    """An address did not give what it should. `for_good`: asking again will not help."""

    def __init__(self, message: str, for_good: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.for_good = for_good


@dataclass
class Download:
    """An answer that is being read. `start`: the position of its first byte in the file."""

    response: Any  # None if no byte is left
    start: int
    length: int | None  # bytes still to come; None if the server does not say
    etag: str

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end. Raises WebError where it breaks off."""
        import urllib3

        if self.response is None:
            return b""
        try:
            # read1: `read` holds back what has come until it is `size`, and a clip with it.
            # Not decoded: some servers call a .tar.gz a gzipped answer.
            data: bytes = self.response.raw.read1(size, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise WebError(f"the connection was lost ({type(error).__name__})") from error
        return data

    def all(self, limit: int) -> bytes:
        """What is left, if it is no more than `limit` bytes. Raises WebError."""
        data = bytearray()
        while piece := self.read(2**16):
            data += piece
            if len(data) > limit:
                raise WebError(f"is larger than {limit:,} bytes", for_good=True)
        return bytes(data)


@dataclass(frozen=True)
class Web:
    """Requests through the given proxies, which take turns.

    `session`: one of requests, whose connections, headers and authorities are used.
    """

    proxies: tuple[str, ...] = ()
    session: Any = None
    _turns: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

    @contextmanager
    def open(self, url: str, start: int = 0, etag: str = "") -> Iterator[Download]:
        """The bytes of `url` from `start` on, or, where the server cannot, from 0.

        With `etag`, from 0 as well where the file is no longer the one that had it. Raises
        WebError. Where `start` is the file's end, the answer is empty.
        """
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if etag and not etag.startswith("W/"):
                headers["If-Range"] = etag
        response = self._ask("GET", quoted(url), headers, stream=True)
        try:
            if response.status_code == 416 and start:
                yield Download(None, start, 0, etag)
                return
            check_status(response)
            begin = start if response.status_code == 206 else 0
            told = response.headers.get("Content-Range", f"bytes {start}-")
            if begin and not told.startswith(f"bytes {start}-"):
                raise WebError(f"requested byte {start:,} got {told!r}")
            length = response.headers.get("Content-Length", "")
            given = int(length) if length.isdigit() else None
            yield Download(response, begin, given, response.headers.get("ETag", ""))
        finally:
            response.close()

    def part(self, url: str, first: int, end: int, deadline: float) -> bytes:
        """The bytes of a file from `first` to before `end`, fewer where the file ends before.

        `url`: as it was signed, no part of it quoted anew. `deadline`: by `time.monotonic()`.
        Raises WebError, Stopped.
        """
        return stoppable(lambda: self._part(url, first, end, deadline), deadline)

    def _part(self, url: str, first: int, end: int, deadline: float) -> bytes:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={first}-{end - 1}"}
        with self._ask("GET", url, headers, stream=True) as response:
            check_status(response)
            told = response.headers.get("Content-Range", "")
            if response.status_code != 206 or not told.startswith(f"bytes {first}-"):
                raise WebError(f"requested byte {first:,} got {told!r}", for_good=True)
            data, download = bytearray(), Download(response, first, None, "")
            while len(data) < end - first and (piece := download.read(end - first - len(data))):
                if STOP.is_set() or time.monotonic() > deadline:
                    raise WebError("took too long")
                data += piece
            return bytes(data)

    def size(self, url: str) -> int | None:
        """The size of a file by HEAD; None if the server does not say. Raises WebError, Stopped."""
        return stoppable(lambda: self._size(url))

    def _size(self, url: str) -> int | None:
        headers = {"Accept-Encoding": "identity"}
        response = self._ask("HEAD", quoted(url), headers, allow_redirects=True)
        with response:
            check_status(response)
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdigit() else None

    def text(self, url: str, limit: int = TEXT_LIMIT) -> str:
        """A text file of at most `limit` bytes, with tries. Raises WebError, Stopped."""
        deadline = time.monotonic() + TEXT_SECONDS
        return stoppable(lambda: self._text(url, limit), deadline)

    def _text(self, url: str, limit: int) -> str:
        for pause in waits(LIST_TRIES):
            try:
                with self.open(url) as download:
                    return download.all(limit).decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise WebError("is not UTF-8 text", for_good=True) from error
            except WebError as error:
                if error.for_good or pause is None:
                    raise
            sleep(pause)
        raise AssertionError("waits() ends with None")

    def _ask(self, method: str, url: str, headers: dict[str, str], **more: Any) -> Any:
        import requests

        proxies = None
        if self.proxies:
            proxy = self.proxies[next(self._turns) % len(self.proxies)]
            proxies = {"http": proxy, "https": proxy}
        try:
            asking = self.session or requests
            return asking.request(
                method,
                url,
                headers=headers,
                timeout=TIMEOUTS,
                proxies=proxies,
                hooks={"response": _drop_redirects_body},
                **more,
            )
        except (requests.exceptions.RequestException, ValueError) as error:
            # A ValueError: of urllib3, for one, that a host's name is too long.
            bad = isinstance(error, ValueError) or "SOCKS" in str(error)
            raise WebError(_cause(error), for_good=bad) from error


def _drop_redirects_body(response: Any, **_: Any) -> None:
    """Close an answer that points elsewhere: requests would read its body, which may not end."""
    if response.is_redirect:
        response.raw.close()


def stoppable(work: Callable[[], Answer], deadline: float = math.inf) -> Answer:
    """Return `work()`, run in a thread that is left behind at a stop of the run or the deadline.

    A silent server would block the run for half a minute. `deadline`: by `time.monotonic()`. Raises
    Stopped, WebError.
    """
    outcome: Future[Answer] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not wait([outcome], timeout=0.1).done:
        if STOP.is_set():
            raise Stopped
        if time.monotonic() > deadline:
            raise WebError("took too long")
    return outcome.result()


def check_status(response: Any) -> None:
    """Raises WebError for an answer that is an error."""
    code = response.status_code
    if code not in (200, 206):
        passing = code in (408, 425, 429) or code >= 500
        raise WebError(f"HTTP {code} {response.reason}", for_good=not passing)


def waits(tries: int = TRIES) -> Iterator[float | None]:
    """The seconds to wait after each try, growing and never the same; None after the last."""
    for number in range(tries - 1):
        yield 2.0**number * random.uniform(0.4, 0.8)
    yield None


def quoted(url: str) -> str:
    """An address with its path quoted: class names hold spaces and parentheses."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=quote(unquote(parts.path))))


def _cause(error: BaseException) -> str:
    """The innermost reason of a requests error, in a few words."""
    text = str(error)
    for words in ("Connection refused", "timed out", "Name or service not known", "SOCKS"):
        if words in text:
            return words if words != "SOCKS" else "SOCKS proxies need: pip install pysocks"
    return f"{type(error).__name__}: {text}"[:200]
