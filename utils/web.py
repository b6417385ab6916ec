"""Send HTTP requests (resumable streams, sizes, texts, parts of a file), and read tar archives.

requests sends the requests, and each of its errors becomes a WebError. No client (requests, httpx)
resumes within a file that may have changed without storing it first, in a process that a stop must
end at once.

Python's tarfile reads the archives, gzipped or not. This module adds what tarfile lacks:

- After a lost connection it resumes at the last complete member.
- tarfile takes a header that is damaged or cut off in the middle of an archive for the end.
- If a file ends inside a member, tarfile skips for as long as the member claims to be.
- Of a gzip file with several members, tarfile's `r|gz` reads only the first.
- tarfile reads extended headers of any size into memory.
"""

from __future__ import annotations

import itertools
import math
import random
import shutil
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from utils.files import TEXT_LIMIT
from utils.process import STOP, Stopped, sleep

Answer = TypeVar("Answer")

TRIES = 6  # in a row, without a byte of progress between them
LIST_TRIES = 3
TIMEOUTS = (20.0, 30.0)  # seconds to connect, and between two bytes
TEXT_SECONDS = 600.0  # for a text; a server may send a byte now and then for ever
PIECE = 2**16  # bytes that are read at once; larger ones cost a page fault every 4096 bytes
GZIP = b"\x1f\x8b"
LONGEST_NAME = 2**16  # bytes of an extended header; a longer one is not a name
EXTENDED = b"LKxgX"  # the types of those; links and others may claim any size


class WebError(Exception):
    """An address did not give what it should. `for_good`: asking again will not help."""

    def __init__(self, message: str, for_good: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.for_good = for_good


class BadTar(WebError):
    """An archive is damaged (`for_good`), or breaks off."""


@dataclass
class Download:
    """An answer that is being read. `start`: the position of its first byte in the file."""

    response: Any  # None if no byte is left
    start: int
    length: int | None  # bytes still to come; None if the server does not say
    etag: str

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end. Raises WebError if it breaks off."""
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
        """Open the bytes of `url` from `start` on, or, if the server cannot, from 0.

        With `etag`, also from 0 if the file is no longer the one that had it. If `start` is the
        file's end, the answer is empty. Raises WebError.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and etag and not etag.startswith("W/"):
            headers["If-Range"] = etag
        with self._ask("GET", quoted(url), headers, stream=True) as response:
            if response.status_code == 416 and start:
                yield Download(None, start, 0, etag)
                return
            check_status(response)
            if response.status_code == 206 and start:
                _check_range(response, start, for_good=False)
            else:
                start = 0
            yield Download(response, start, _length(response), response.headers.get("ETag", ""))

    def part(self, url: str, first: int, end: int, deadline: float) -> bytes:
        """Return the bytes of a file from `first` to before `end`, fewer if the file ends before.

        `url`: as it was signed, with no part of it quoted again. `deadline`: by `time.monotonic()`.
        Raises WebError, Stopped.
        """

        def read() -> bytes:
            headers = {"Range": f"bytes={first}-{end - 1}"}
            with self._ask("GET", url, headers, stream=True) as response:
                check_status(response)
                _check_range(response, first)
                download = Download(response, first, None, "")
                return _read_all(download, end - first, deadline)

        return stoppable(read, deadline)

    def size(self, url: str) -> int | None:
        """Return the size of a file by HEAD, or None if the server does not say.

        Raises WebError, Stopped.
        """

        def ask() -> int | None:
            with self._ask("HEAD", quoted(url), {}, allow_redirects=True) as response:
                check_status(response)
                return _length(response)

        return stoppable(ask)

    def text(self, url: str, limit: int = TEXT_LIMIT) -> str:
        """Return a text file of at most `limit` bytes, with tries. Raises WebError, Stopped."""
        deadline = time.monotonic() + TEXT_SECONDS

        def read() -> str:
            pauses = _waits(LIST_TRIES)
            while True:
                try:
                    with self.open(url) as download:
                        data = _read_all(download, limit + 1, deadline)
                    if len(data) > limit:
                        raise WebError(f"is larger than {limit:,} bytes", for_good=True)
                    return data.decode("utf-8-sig")
                except UnicodeDecodeError as error:
                    raise WebError("is not UTF-8 text", for_good=True) from error
                except WebError as error:
                    _wait_to_retry(error, pauses)

        return stoppable(read, deadline)

    def _ask(self, method: str, url: str, headers: dict[str, str], **more: Any) -> Any:
        import requests

        proxies = None
        if self.proxies:
            proxy = self.proxies[next(self._turns) % len(self.proxies)]
            proxies = {"http": proxy, "https": proxy}
        try:
            return (self.session or requests).request(
                method,
                url,
                headers={"Accept-Encoding": "identity"} | headers,
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
    """Raise WebError for an answer that is an error."""
    code = response.status_code
    if code not in (200, 206):
        passing = code in (408, 425, 429) or code >= 500
        raise WebError(f"HTTP {code} {response.reason}", for_good=not passing)


def _check_range(response: Any, first: int, for_good: bool = True) -> None:
    """Raise WebError for an answer that does not begin at byte `first`."""
    told = response.headers.get("Content-Range", "")
    if response.status_code != 206 or not told.startswith(f"bytes {first}-"):
        raise WebError(f"requested byte {first:,} got {told!r}", for_good)


def _length(response: Any) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _read_all(download: Download, most: int, deadline: float) -> bytes:
    """Return what is left, but at most `most` bytes. Raises WebError."""
    data = bytearray()
    while len(data) < most and (piece := download.read(min(PIECE, most - len(data)))):
        if STOP.is_set() or time.monotonic() > deadline:
            raise WebError("took too long")
        data += piece
    return bytes(data)


def _waits(tries: int) -> Iterator[float]:
    """Yield the seconds to wait between tries, growing and never the same."""
    for number in range(tries - 1):
        yield 2.0**number * random.uniform(0.4, 0.8)


def _wait_to_retry(error: WebError, pauses: Iterator[float]) -> None:
    """Wait before the next try. Raises the error of the last one if there is no other; Stopped."""
    pause = next(pauses, None)
    if error.for_good or pause is None:
        raise error
    sleep(pause)


def quoted(url: str) -> str:
    """Quote the path of an address, because class names hold spaces and parentheses."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=quote(unquote(parts.path))))


def _cause(error: BaseException) -> str:
    """Return the innermost reason of a requests error in a few words."""
    text = str(error)
    for words in ("Connection refused", "timed out", "Name or service not known", "SOCKS"):
        if words in text:
            return words if words != "SOCKS" else "SOCKS proxies need: pip install pysocks"
    return f"{type(error).__name__}: {text}"[:200]


# --- tar archives --------------------------------------------------------------------------------


class TarStream:
    """The members of a tar that `read(size)` gives the bytes of, from byte `start` on.

    `whole` counts the bytes up to the end of the last member that was read to its end: a plain tar
    can be resumed there.
    """

    def __init__(self, read: Callable[[int], bytes], start: int = 0) -> None:
        self.whole = self.start = self._end = start
        self.is_gzip = False
        self._failure: WebError | None = None  # of a `copy`
        self._read = read
        self._content: IO[bytes] | None = None  # of the current member

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Yield the members; skips what `copy` has not read. Raises WebError.

        Their names are as the archive has them, and not to be trusted.
        """
        with self._bad_tar():
            source: Any = _Source(self._read)
            if not self.start and source.begins_with(GZIP):  # whatever the archive is called
                self.is_gzip = True
                source = _Source(_inflated(source.read))
            with tarfile.open(fileobj=source, mode="r|", bufsize=PIECE, tarinfo=_Header) as tar:
                while member := self._next(tar):
                    yield member
                    if self._failure is not None:
                        raise self._failure

    def _next(self, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        while self._content and self._content.read(PIECE):  # tarfile's skip minds no end
            pass
        member = tar.next()
        self.whole, self._end = self._end, self.start + tar.offset
        tar.members.clear()  # type: ignore[attr-defined]  # or all headers would be kept
        self._content = None
        if member and member.issparse():
            raise ValueError("a sparse member")
        # Links and devices have no data, whatever size they claim.
        if member and (member.isreg() or member.type not in tarfile.SUPPORTED_TYPES):
            self._content = tar.extractfile(member)
        return member

    def copy(self, file: IO[bytes]) -> None:
        """Write the current member into `file`. Raises OSError, WebError.

        After a WebError `members` raises the same.
        """
        try:
            with self._bad_tar():
                if self._content:
                    shutil.copyfileobj(self._content, file, PIECE)
        except WebError as error:
            self._failure = error
            raise

    @contextmanager
    def _bad_tar(self) -> Iterator[None]:
        """Turn errors of tarfile and gzip into BadTar."""
        try:
            yield
        except (tarfile.ReadError, EOFError, IndexError) as error:
            # _Header reports damaged headers. IndexError: cut within an extended sparse header.
            raise BadTar(f"breaks off; whole up to byte {self.whole:,}") from error
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            # RecursionError: a chain of headers that extend each other.
            message = f"is damaged ({error}); whole up to byte {self.whole:,}"
            raise BadTar(message, for_good=True) from error


class _Source:
    """A file for tarfile, made of bytes as they come."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self._head = read, b""

    def begins_with(self, mark: bytes) -> bool:
        while len(self._head) < len(mark) and (more := self._read(PIECE)):
            self._head += more
        return self._head.startswith(mark)

    def read(self, size: int) -> bytes:
        piece, self._head = self._head[:size] or self._read(size), self._head[size:]
        return piece


def _inflated(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Return a `read` of what a gzip file of one or several members holds.

    Not gzip.GzipFile, because it reads zeros after the end for as long as a server sends them.
    """
    inflate = zlib.decompressobj(wbits=31)

    def read_plain(size: int) -> bytes:
        nonlocal inflate
        plain = b""
        while not plain and (data := inflate.unconsumed_tail or inflate.unused_data or read(PIECE)):
            if inflate.eof:
                inflate = zlib.decompressobj(wbits=31)
            try:
                plain = inflate.decompress(data, size)
            except zlib.error as error:  # which tarfile would report as an early end
                raise ValueError(str(error)) from error
        return plain

    return read_plain


class _Header(tarfile.TarInfo):
    """A member's header that raises an error if it is damaged."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if 0 < len(buf) < tarfile.BLOCKSIZE:
            raise EOFError
        if not any(buf):  # the end, with its mark or without
            return super().frombuf(buf, encoding, errors)
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise ValueError(f"a damaged header: {error}") from error
        if header.size < 0 or (header.type in EXTENDED and header.size > LONGEST_NAME):
            raise ValueError(f"a header of {header.size:,} bytes")
        return header


def read_archive(
    web: Web, url: str, tries: int = TRIES
) -> Iterator[tuple[tarfile.TarInfo, TarStream]]:
    """Yield the members of an archive at `url`, over as many connections as it takes.

    tries: in a row, without progress between them. A plain tar is resumed where it broke off, a
    gzipped one begins again. Raises WebError, Stopped.
    """
    start, furthest, etag, pauses = 0, 0, "", _waits(tries)
    while True:
        before, has_length = furthest, False
        try:
            with web.open(url, start, etag) as download:
                etag, has_length = download.etag, download.length is not None
                tar = TarStream(download.read, download.start)
                try:
                    for member in tar.members():
                        yield member, tar
                    return
                finally:
                    start = 0 if tar.is_gzip else tar.whole
                    furthest = max(furthest, tar.whole)
        except WebError as error:
            if isinstance(error, BadTar) and has_length:
                error.for_good = True  # all that the server has was read
            if furthest > before:
                pauses = _waits(tries)
            _wait_to_retry(error, pauses)
