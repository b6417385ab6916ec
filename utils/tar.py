"""A tar archive as a stream, member by member, gzipped or not.

Under `official` and `mirror`. Python's own tarfile reads streams too, but cannot say how many bytes
were whole when a connection is lost, and so cannot go on from there.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
PIECE = 2**16  # bytes that are read at once; larger ones cost a page fault every 4096 bytes
GZIP = b"\x1f\x8b"
LONGEST_NAME = 2**16  # bytes; an extended header that is longer is no name
FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
NAME_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
PAX_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


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
    """The members of a tar that `read(size)` gives the bytes of.

    `whole` counts the bytes up to the end of the last member that was read to its end: a plain tar
    can be taken up again from there.
    """

    def __init__(self, read: Callable[[int], bytes], start: int = 0) -> None:
        self._read = read
        self._inflate: zlib._Decompress | None = None
        self._damage = ""
        self._rest = b""  # read, and not yet used
        self._began = start > 0  # in the middle of a plain tar
        self.whole = self._place = start
        self._left = 0  # of the member at hand, with its padding
        self._size = 0  # of the member at hand, without

    @property
    def is_gzip(self) -> bool:
        return self._inflate is not None

    def members(self) -> Iterator[Member]:
        """One after another; what `copy` has not read of a member is passed over.

        Ends at the end mark. Raises BadTar.
        """
        long_name, pax = "", {}
        while True:
            header = self._exactly(BLOCK, at_member=True)
            if header is None or not any(header):
                return
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise BadTar(f"damaged at byte {self._place:,} ({error})") from error
            if info.size < 0:
                raise BadTar(f"damaged at byte {self._place:,}: a negative size")
            if info.type in (*NAME_TYPES, *PAX_TYPES):
                extended = self._extended(info.size)
                if info.type == tarfile.GNUTYPE_LONGNAME:
                    long_name = extended.split(b"\0")[0].decode("utf-8", "surrogateescape")
                elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                    pax = read_pax(extended)
                continue
            if info.type == tarfile.GNUTYPE_SPARSE or "GNU.sparse.major" in pax:
                raise BadTar(f"a sparse member at byte {self._place:,}")
            size = int(pax["size"]) if re.fullmatch(r"\d{1,18}", pax.get("size", "")) else info.size
            # Links and devices have no data, whatever size they claim.
            is_file = info.type in FILE_TYPES
            has_data = is_file or info.type not in tarfile.SUPPORTED_TYPES
            self._size = size if has_data else 0
            self._left = -(-self._size // BLOCK) * BLOCK
            name = pax.get("path") or long_name or info.name
            long_name, pax = "", {}
            yield Member(name, size, is_file, info.type == tarfile.DIRTYPE)
            self._skip()
            self.whole = self._place

    def copy(self, file: BinaryIO) -> None:
        """Write the member at hand into `file`. Raises BadTar, OSError."""
        padding = self._left - self._size
        while self._left > padding:
            piece = self._some(self._left - padding)
            self._left -= len(piece)
            file.write(piece)

    def _skip(self) -> None:
        while self._left:
            self._left -= len(self._some(self._left))

    def _extended(self, size: int) -> bytes:
        if size > LONGEST_NAME:
            raise BadTar(f"an extended header of {size:,} bytes at byte {self._place:,}")
        data = self._exactly(-(-size // BLOCK) * BLOCK)
        assert data is not None
        return data[:size]

    def _exactly(self, size: int, at_member: bool = False) -> bytes | None:
        """`size` bytes; None at the end of the file, if that is `at_member`. Raises BadTar."""
        pieces, missing = [], size
        while missing:
            try:
                piece = self._some(missing)
            except BadTar as error:
                if error.ends_early and at_member and missing == size and self._place:
                    return None
                raise
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _some(self, most: int) -> bytes:
        """At least one byte and no more than `most`. Raises BadTar (ends_early) at the end."""
        if not self._rest:
            self._rest = self._next()
        if not self._rest:
            raise BadTar(f"breaks off after {self._place:,} bytes", ends_early=True)
        piece, self._rest = self._rest[:most], self._rest[most:]
        self._place += len(piece)
        return piece

    def _next(self) -> bytes:
        """More bytes of the tar; none at the end."""
        if not self._began:
            self._began = True
            head = self._read(PIECE)
            while len(head) < len(GZIP) and (more := self._read(PIECE)):
                head += more
            if not head.startswith(GZIP):  # whatever the archive is called
                return head
            self._inflate = zlib.decompressobj(wbits=31)
            return self._inflated(head)
        return self._read(PIECE) if self._inflate is None else self._inflated(b"")

    def _inflated(self, data: bytes) -> bytes:
        """The next bytes of a gzipped tar, which may be of several gzip members."""
        assert self._inflate is not None
        while True:
            if self._damage:
                raise BadTar(self._damage)
            # No more than a piece at a time: a few bytes may inflate to gigabytes.
            data = self._inflate.unconsumed_tail + data
            if self._inflate.eof:
                data = self._inflate.unused_data
                while len(data) < len(GZIP) and (more := self._read(PIECE)):
                    data += more
                if not data.startswith(GZIP):
                    return b""  # the end, or the padding of a tape
                self._inflate = zlib.decompressobj(wbits=31)
            elif not data and not (data := self._read(PIECE)):
                raise BadTar(f"breaks off after {self._place:,} bytes", ends_early=True)
            before = self._inflate.copy()
            try:
                plain = self._inflate.decompress(data, 4 * PIECE)
            except zlib.error as error:
                self._damage = f"damaged after {self._place:,} bytes ({error})"
                plain = inflate_to_damage(before, data)
            if plain:
                return plain
            data = b""


def inflate_to_damage(inflate: zlib._Decompress, data: bytes) -> bytes:
    """What `data` inflates to before it is damaged: zlib itself drops all of a piece that is."""
    plain = b""
    with suppress(zlib.error):
        for at in range(0, len(data), 64):
            plain += inflate.decompress(data[at : at + 64])
    return plain


def read_pax(data: bytes) -> dict[str, str]:
    """The records of a pax header: `<length> <key>=<value>\\n`, as POSIX.1-2001 has them."""
    records: dict[str, str] = {}
    while data:
        digits, _, _ = data.partition(b" ")
        if not re.fullmatch(rb"\d{1,6}", digits) or not len(digits) < int(digits) <= len(data):
            break
        record, data = data[len(digits) + 1 : int(digits) - 1], data[int(digits) :]
        key, _, value = record.partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return records
