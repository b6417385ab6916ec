"""Which bytes of a fragmented mp4 a window of it lies in, as its index (`sidx`) tells.

Under `sources/youtube_fragments`, which fetches them. YouTube keeps picture and sound above 360
lines so: a head, one index, then fragments of some seconds that each begin with a key frame. The
box: ISO/IEC 14496-12, 8.16.3. No library was found: pymp4 (see `mp4_length`) knows no `sidx`, and
PyAV shows no byte of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

HEAD_BOXES = (b"ftyp", b"moov", b"free")
# Around a window: an edit list may move the frames off the index, and pictures of an open group are
# shown before the key frame that their fragment begins with. A few frames either way.
MARGIN = 0.3  # seconds


@dataclass(frozen=True)
class Fragment:
    """Where a fragment lies: seconds of the video, and bytes of the file."""

    begin: float
    end: float
    first: int
    size: int


@dataclass(frozen=True)
class FragmentIndex:
    """`head`: the bytes that a decoder needs before any fragment."""

    head: bytes
    fragments: tuple[Fragment, ...]

    @property
    def end(self) -> float:
        """Where the last fragment ends, in seconds."""
        return self.fragments[-1].end

    def window(self, begin: float, end: float) -> tuple[int, int] | None:
        """(first byte, byte after the last) of what holds `begin` to `end` seconds, if any does."""
        begin, end = begin - MARGIN, end + MARGIN
        held = [each for each in self.fragments if each.begin < end and each.end > begin]
        if not held:
            return None
        return held[0].first, held[-1].first + held[-1].size


def index_end(data: bytes) -> int | None:
    """How many bytes of a file its head and its index are, by its beginning; None: no such file."""
    place = _find_index(data)
    return None if place is None else place[1]


def read_index(data: bytes) -> FragmentIndex | None:
    """The index that `data`, a file's beginning, holds whole; None where it is another file.

    Also None for one whose first picture is not at 0: ffmpeg, given a part, counts from there.
    """
    place = _find_index(data)
    if place is None or place[1] > len(data):
        return None
    try:
        fragments = _read_fragments(data[: place[1]], place[0] + 8, place[1])
    except struct.error:
        return None
    return FragmentIndex(data[: place[0]], fragments) if fragments else None


def _find_index(data: bytes) -> tuple[int, int] | None:
    """Where the first `sidx` begins and ends."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"sidx" and length >= 32:
            return at, at + length
        if kind not in HEAD_BOXES or length < 8:
            return None
        at += length
    return None


def _read_fragments(data: bytes, at: int, end: int) -> tuple[Fragment, ...]:
    """The fragments of an index with the content data[at:end]; none: odd. Raises struct.error."""
    wide = data[at] == 1
    scale, earliest, skip = struct.unpack_from(">IQQ" if wide else ">III", data, at + 8)
    at += 28 if wide else 20
    count = struct.unpack_from(">xxH", data, at)[0]
    if not scale or earliest or not count:
        return ()
    fragments, time, first = [], 0, end + skip
    for place in range(at + 4, at + 4 + 12 * count, 12):
        size, length, access = struct.unpack_from(">III", data, place)
        if size >> 31 or not access >> 31 or not size or not length:
            return ()  # an index of indexes, or a fragment that does not begin with a key frame
        begin, time = time, time + length
        fragments.append(Fragment(begin / scale, time / scale, first, size))
        first += size
    return tuple(fragments)
