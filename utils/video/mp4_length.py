"""How long a clip from elsewhere is, and whether all of it is there, without decoding it.

Beside `checks`, for clips that others cut: from a mirror's archive, or on the disk already. They
are a stranger's bytes, so no decoder sees them in this process: the boxes of an mp4 are read in
Python (0.1 to 0.2 ms a clip, where PyAV takes 11 and an ffmpeg 28 to start), and whatever is no
plain mp4 goes to ffmpeg. No library was found for it: pymp4 1.4.0 (2023, bound to a construct of
2016) fails on the mp4 that ffmpeg writes; mutagen and tinytag read a duration, and no sample table.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from utils.video.ffmpeg import Ffmpeg
from utils.video.probe import DURATION_TOLERANCE, BadClip, measure_end

FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")
LARGEST_INDEX = 16 * 2**20  # bytes of `moov`; that of a 10-second clip has a few thousand

Box = tuple[bytes, int, int]  # kind, where its content begins, and where that ends


@dataclass(frozen=True)
class Length:
    """Where a clip's picture ends on a player's clock, and a frame's mean length, in seconds."""

    seconds: float
    frame: float = 0.0

    def covers(self, seconds: float) -> bool:
        """Whether the clip is that long; as in `media.check_length`, to a frame and a half."""
        return self.seconds >= seconds - max(DURATION_TOLERANCE, 1.5 * self.frame)


class _OddBox(Exception):
    """Not built as a plain mp4 is: ffmpeg has to tell."""


def measure_clip(tool: Ffmpeg, path: Path, timeout: float | None = None) -> Length:
    """How long the picture of a clip is.

    Raises BadClip: `truncated` where bytes are missing, `undecodable` where it is no video.
    """
    try:
        return read_length(path)
    except (_OddBox, struct.error, IndexError):
        return Length(measure_end(tool, path, timeout))


def read_length(path: Path) -> Length:
    """How long the picture of a plain mp4 is, from its index. Raises BadClip, _OddBox.

    Finds a file that breaks off anywhere: its outermost boxes must fill it to the last byte, and
    hold as many bytes of samples as the index lists. Boxes: ISO/IEC 14496-12.
    """
    size = os.path.getsize(path)
    with path.open("rb") as file:
        index, media = None, 0
        for kind, begin, end in _top_boxes(file, size):
            if kind == b"mdat":
                media += end - begin
            elif kind == b"moov":
                if end - begin > LARGEST_INDEX:
                    raise _OddBox
                file.seek(begin)
                index = file.read(end - begin)
    if index is None:
        raise BadClip("truncated", "the file has no index (moov)")
    return _read_index(index, media)


def _top_boxes(file: BinaryIO, size: int) -> Iterator[Box]:
    offset = 0
    while offset < size:
        file.seek(offset)
        header = file.read(16)
        if len(header) < 8:
            raise BadClip("truncated", f"the file breaks off after {size:,} bytes")
        length, kind = struct.unpack(">I4s", header[:8])
        if offset == 0 and kind not in FIRST_BOXES:
            raise _OddBox
        head = 8
        if length == 1:
            length, head = struct.unpack(">Q", header[8:16])[0], 16
        elif length == 0:
            length = size - offset  # up to the end of the file
        if length < head:
            raise BadClip("undecodable", "its boxes are damaged")
        if offset + length > size:
            raise BadClip("truncated", f"the file breaks off after {size:,} bytes")
        yield kind, offset + head, offset + length
        offset += length
    if size == 0:
        raise BadClip("truncated", "the file is empty")


def _boxes(data: bytes, begin: int, end: int) -> Iterator[Box]:
    """The boxes that lie in data[begin:end]."""
    while begin + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, begin)
        if length < 8 or begin + length > end:
            raise _OddBox
        yield kind, begin + 8, begin + length
        begin += length


def _find(data: bytes, box: Box, *path: bytes) -> Box:
    for kind in path:
        found = next((each for each in _boxes(data, box[1], box[2]) if each[0] == kind), None)
        if found is None:
            raise _OddBox
        box = found
    return box


def _read_index(index: bytes, media: int) -> Length:
    """The first picture track's length; `media` is how many bytes of samples there are."""
    whole = (b"moov", 0, len(index))
    second = _time_scale(index, _find(index, whole, b"mvhd"))
    found, samples = None, 0
    for track in _boxes(index, 0, len(index)):
        if track[0] == b"mvex":
            raise _OddBox  # fragments: the samples are listed elsewhere
        if track[0] != b"trak":
            continue
        table = _find(index, track, b"mdia", b"minf", b"stbl")
        samples += _sample_bytes(index, _find(index, table, b"stsz"))
        handler = _find(index, track, b"mdia", b"hdlr")
        if found is None and index[handler[1] + 8 : handler[1] + 12] == b"vide":
            scale = _time_scale(index, _find(index, track, b"mdia", b"mdhd"))
            frames, time = _sample_time(index, _find(index, table, b"stts"))
            shown = _shown(index, track, time / scale, second)
            found = Length(shown, time / scale / max(1, frames))
    if found is None:
        raise BadClip("undecodable", "no video stream")
    if found.seconds <= 0:
        raise BadClip("undecodable", "a video stream without frames")
    if samples > media:
        raise BadClip("truncated", f"{media:,} bytes of samples where its index lists {samples:,}")
    return found


def _time_scale(data: bytes, box: Box) -> int:
    """Units a second, of an `mvhd` or `mdhd`."""
    at = box[1] + (20 if data[box[1]] == 1 else 12)
    scale = int(struct.unpack_from(">I", data, at)[0])
    if scale == 0:
        raise _OddBox
    return scale


def _table(data: bytes, box: Box, skip: int, entry: int) -> tuple[int, int]:
    """(number of entries, where they begin) of a table whose count stands after `skip` bytes."""
    count = int(struct.unpack_from(">I", data, box[1] + skip)[0])
    begin = box[1] + skip + 4
    if begin + count * entry > box[2]:
        raise _OddBox
    return count, begin


def _sample_bytes(data: bytes, box: Box) -> int:
    constant = int(struct.unpack_from(">I", data, box[1] + 4)[0])
    if constant:
        return constant * int(struct.unpack_from(">I", data, box[1] + 8)[0])
    count, begin = _table(data, box, 8, 4)
    return sum(struct.unpack_from(f">{count}I", data, begin))


def _sample_time(data: bytes, box: Box) -> tuple[int, int]:
    """(number of samples, their time in the track's units)."""
    count, begin = _table(data, box, 4, 8)
    pairs = struct.unpack_from(f">{2 * count}I", data, begin)
    time = sum(n * length for n, length in zip(pairs[::2], pairs[1::2], strict=True))
    return sum(pairs[::2]), time


def _shown(data: bytes, track: Box, length: float, second: int) -> float:
    """Where a track of `length` seconds ends on a player's clock, by its edit list if it has one.

    A stream-copied cut holds frames from before its beginning, which its edit list hides.
    """
    try:
        box = _find(data, track, b"edts", b"elst")
    except _OddBox:
        return length
    wide = data[box[1]] == 1
    count, begin = _table(data, box, 4, 20 if wide else 12)
    delay = shown = 0
    for number in range(count):
        at = begin + number * (20 if wide else 12)
        duration, media_time = struct.unpack_from(">Qq" if wide else ">Ii", data, at)
        if media_time < 0 and not shown:
            delay += duration
        elif media_time >= 0:
            shown += duration
    if not shown:
        return length
    return delay / second + min(length, shown / second)
