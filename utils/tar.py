"""Read tar archives as streams, gzipped or not; resume after the last complete member.

Python's tarfile reads it. This module adds what tarfile lacks:

- tarfile takes a header that is damaged or cut off in the middle of an archive for the end.
- If a file ends inside a member, it skips for as long as the member claims to be.
- Of a gzip file with several members, `r|gz` reads only the first. gzip.GzipFile reads all, but a
  fetch then takes a third more CPU.
- It reads extended headers of any size into memory.
"""

from __future__ import annotations

import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from utils.process import sleep
from utils.web import TRIES, Web, WebError, waits

PIECE = 2**16  # bytes that are read at once; larger ones cost a page fault every 4096 bytes
GZIP = b"\x1f\x8b"
LONGEST_NAME = 2**16  # bytes; an extended header that is longer is no name
EXTENDED = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)


class BadTar(Exception):
    """The archive is damaged, or breaks off (`ends_early`)."""

    def __init__(self, message: str, ends_early: bool = False) -> None:
        super().__init__(message)
        self.ends_early = ends_early


@dataclass(frozen=True)
class Member:
    """One entry of an archive. `name` is as the archive has it, and not to be trusted."""

    name: str
    size: int
    is_file: bool  # a regular one
    is_folder: bool


class TarStream:
    """The members of a tar that `read(size)` gives the bytes of, from byte `start` on.

    `whole` counts the bytes up to the end of the last member that was read to its end: a plain tar
    can be taken up again from there.
    """

    def __init__(self, read: Callable[[int], bytes], start: int = 0) -> None:
        self.whole = self.start = self._end = start
        self.is_gzip = False
        self._failure: Exception | None = None  # of a `copy`
        self._source = _Source(read)
        self._content: BinaryIO | None = None  # of the member at hand

    def members(self) -> Iterator[Member]:
        """One after another; what `copy` has not read of a member is passed over.

        Ends at the end mark. Raises BadTar.
        """
        with self._told():
            tar = self._open()
        while info := self._next(tar):
            yield Member(info.name, info.size, info.isreg(), info.isdir())
            if self._failure is not None:
                raise self._failure

    def _open(self) -> tarfile.TarFile:
        if not self.start and self._source.begins_with(GZIP):  # whatever the archive is called
            self.is_gzip = True
            self._source = _Source(_inflated(self._source.read))
        given = cast(BinaryIO, self._source)
        return tarfile.open(fileobj=given, mode="r|", bufsize=PIECE, tarinfo=_Header)

    def _next(self, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        with self._told():
            while self._content and self._content.read(PIECE):  # tarfile's skip minds no end
                pass
            info = tar.next()
            self.whole, self._end = self._end, self.start + tar.offset
            tar.members.clear()  # type: ignore[attr-defined]  # or all headers would be kept
            self._content = None
            if info and info.issparse():
                raise BadTar("a sparse member")
            # Links and devices have no data, whatever size they claim.
            if info and (info.isreg() or info.type not in tarfile.SUPPORTED_TYPES):
                self._content = cast(BinaryIO, tar.extractfile(info))
            return info

    def copy(self, file: BinaryIO) -> None:
        """Write the member at hand into `file`. Raises BadTar, OSError, what `read` raises.

        If it raises anything but OSError, the next member is the same exception.
        """
        try:
            with self._told():
                if self._content:
                    shutil.copyfileobj(self._content, file, PIECE)
        except (BadTar, WebError) as error:
            self._failure = error
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What is raised below, as BadTar that says where."""
        try:
            yield
        except (tarfile.ReadError, EOFError, IndexError) as error:
            # Of a header's damage _Header tells. IndexError: cut within an extended sparse header.
            place = self.start + self._source.given
            raise BadTar(f"breaks off after {place:,} bytes", ends_early=True) from error
        except (BadTar, tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            # RecursionError: a chain of headers that extend each other.
            raise BadTar(f"damaged after {self.whole:,} bytes ({error})") from error


def read_archive(web: Web, url: str, tries: int = TRIES) -> Iterator[tuple[Member, TarStream]]:
    """The members of an archive at `url`, over as many connections as it takes.

    tries: in a row, without progress between them. A plain tar is taken up again where it broke
    off, a gzipped one begins again. Raises BadTar where it is damaged, WebError, Stopped.
    """
    start, furthest, etag, pauses = 0, 0, "", waits(tries)
    while True:
        before, came_whole = furthest, False
        try:
            with web.open(url, start, etag) as download:
                etag, came_whole = download.etag, download.length is not None
                tar = TarStream(download.read, download.start)
                try:
                    for member in tar.members():
                        yield member, tar
                    return
                finally:
                    start = 0 if tar.is_gzip else tar.whole
                    furthest = max(furthest, tar.whole)
        except BadTar as error:
            if not error.ends_early:
                raise
            failure = WebError(str(error), for_good=came_whole)
        except WebError as error:
            failure = error
        if furthest > before:
            pauses = waits(tries)
        pause = next(pauses)
        if failure.for_good or pause is None:
            raise failure
        sleep(pause)


class _Source:
    """Bytes as they come, as a file that tarfile can read."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self._head = read, b""
        self.given = 0

    def begins_with(self, mark: bytes) -> bool:
        while len(self._head) < len(mark) and (more := self._read(PIECE)):
            self._head += more
        return self._head.startswith(mark)

    def read(self, size: int) -> bytes:
        piece, self._head = self._head[:size] or self._read(size), self._head[size:]
        self.given += len(piece)
        return piece


def _inflated(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """`read` of what a gzip file holds, which may be of several members. It raises BadTar."""
    inflate = zlib.decompressobj(wbits=31)

    def read_plain(size: int) -> bytes:
        nonlocal inflate
        while True:
            data = inflate.unconsumed_tail or inflate.unused_data or read(PIECE)
            if not data:
                return b""
            if inflate.eof:
                inflate = zlib.decompressobj(wbits=31)
            try:
                plain = inflate.decompress(data, size)
            except zlib.error as error:  # tarfile would make an early end of it
                raise BadTar(str(error)) from error
            if plain:
                return plain

    return read_plain


class _Header(tarfile.TarInfo):
    """A member's header, of which tarfile is told at once that it is no good."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if 0 < len(buf) < tarfile.BLOCKSIZE:
            raise EOFError
        if not any(buf):  # the end, with its mark or without
            return super().frombuf(buf, encoding, errors)
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise BadTar(f"a damaged header ({error})") from error
        if header.size < 0 or (header.type in EXTENDED and header.size > LONGEST_NAME):
            raise BadTar(f"a header of {header.size:,} bytes")
        return header
