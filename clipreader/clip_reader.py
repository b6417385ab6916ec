"""`ClipReader`: read a clip as a sequence of arrays.

`frame_source` decodes and `pixels` converts to RGB. This module resolves the requested frames,
places each in the array, and supports threads, forks, pickling and given memory.
"""

from __future__ import annotations

import math
import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal, Self

import numpy as np
from av import VideoFrame

from clipreader.frame_source import FrameSource
from clipreader.media import (
    MAX_FRAMES,
    MAX_PIXELS,
    CorruptClip,
    FrameIndexError,
    Media,
    TooLarge,
    media_name,
    take_media,
)
from clipreader.packets import parse_fps, resample_indices
from clipreader.pixels import Array, Orientation, Painter, shown_size

Unit = Literal["frame", "s"]
Layout = Literal["THWC", "TCHW"]
Rate = float | Fraction | str

MAX_SHORT_SIDE = 16384  # swscale's limit

_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

_CLOSE = 1e-6  # seconds; 0.1 as a float lies a little behind the frame at 1/10


class ClipReader:
    """A clip as a sequence of frames: `len(r)`, `r[7]`, `r[10:20]`, `r.read(...)`.

    Frames are numbered from 0 in the order of display, RGB, upright, uint8. Use it from any number
    of threads (they take turns), after a fork, or pickled: a copy opens the file anew when it is
    first used. Close it, or use it in a `with`.
    """

    def __init__(
        self,
        source: Media,
        *,
        short_side: int | None = None,
        max_pixels: int = MAX_PIXELS,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        """source: a path, the bytes of a file, or a binary file object, which is read to its end.

        short_side: scale the shorter side to this many pixels, up or down
        max_pixels, max_frames: what a clip may have, for files can ask for any amount of memory

        Raises ClipNotFound, NoVideo, TooLarge or CorruptClip.
        """
        if short_side is not None and short_side not in range(1, MAX_SHORT_SIDE + 1):
            raise ValueError(f"short_side is {short_side}: 1 to {MAX_SHORT_SIDE} is needed")
        self.path = media_name(source)
        self.media = take_media(source)
        self.short_side = short_side
        self._limits = {"max_pixels": max_pixels, "max_frames": max_frames}
        self._closed = False
        self._renew()
        self._opened()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._source: FrameSource | None = None
        self._painter: Painter | None = None

    def _opened(self) -> FrameSource:
        if self._pid != os.getpid():
            # After a fork the file's position is shared with the parent, and the lock may be held
            # by a thread that does not exist here.
            self._renew()
        with self._lock:
            if self._closed:
                raise ValueError(f"{self.path}: the reader is closed")
            if self._source is None:
                self._source = FrameSource(self.media, **self._limits)
            return self._source

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._pid != os.getpid():
            self._renew()
        with self._lock:
            if self._source is not None:
                self._source.close()
            self._source = None
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        own = ("path", "short_side", "media", "_limits", "_closed")
        return {name: self.__dict__[name] for name in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    def __len__(self) -> int:
        return self._opened().table.promised

    @property
    def fps(self) -> Fraction:
        """Frames a second, on the average over the clip."""
        table = self._opened().table
        return len(table.pts) / ((table.end - table.pts[0]) * table.time_base)

    @property
    def times(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(T,) float64: when each frame is shown, in seconds after the first."""
        table = self._opened().table
        return (np.asarray(table.pts) - table.pts[0]) * float(table.time_base)

    @property
    def first_time(self) -> float:
        """When the first frame is shown, in seconds on the file's own clock."""
        table = self._opened().table
        return float(table.pts[0] * table.time_base)

    @property
    def key_frames(self) -> list[int]:
        """The frames at which decoding may begin: loading is fastest just behind them."""
        table = self._opened().table
        if table.odd:
            return list(table.starts)
        at = set(table.starts)
        return [frame for frame, packet in enumerate(table.packet_of) if packet in at]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of each frame."""
        source = self._opened()
        with self._lock:
            if self._painter is None:
                self._painter_for(source, next(source.decode([0]))[1])
            assert self._painter is not None
            return self._painter.shape

    def __getitem__(self, key: int | slice) -> Array:
        """`r[7]`: (H, W, 3); `r[10:20]`, `r[::2]`: (T, H, W, 3). As in a list, -1 is the last."""
        if isinstance(key, slice):
            return self.read(indices=range(*key.indices(len(self))))
        return self.read(indices=[key])[0]

    def read(
        self,
        start: float | None = None,
        stop: float | None = None,
        *,
        indices: Sequence[float] | None = None,
        unit: Unit = "frame",
        fps: Rate | None = None,
        out: Array | None = None,
    ) -> Array:
        """(T, H, W, 3) uint8: the frames from `start` to before `stop`, or those of `indices`.

        See `load_frames.load_frames` for the arguments and the errors raised.
        """
        frames = self.frame_numbers(start, stop, indices=indices, unit=unit, fps=fps)
        with self._lock:
            return self._load(self._opened(), frames, out)

    def frame_numbers(
        self,
        start: float | None = None,
        stop: float | None = None,
        *,
        indices: Sequence[float] | None = None,
        unit: Unit = "frame",
        fps: Rate | None = None,
    ) -> Sequence[int]:
        """The numbers of the clip's own frames that `read` with these arguments gives."""
        if unit not in ("frame", "s"):
            raise ValueError(f"unit is {unit!r}: 'frame' or 's' is needed")
        if indices is not None and (start is not None or stop is not None):
            raise ValueError("use either indices, or start and stop")
        shown, times = self._shown_at(fps)
        chosen: Sequence[int]
        if indices is not None:
            chosen = [
                self._one(index, len(shown), times if unit == "s" else None) for index in indices
            ]
        elif unit == "s":
            chosen = self._seconds(start, stop, len(shown), times)
        else:
            chosen = self._span(start, stop, len(shown))
        return chosen if isinstance(shown, range) else [shown[n] for n in chosen]

    def _shown_at(self, fps: Rate | None) -> tuple[Sequence[int], Sequence[float]]:
        """For each picture at `fps` the frame that it shows, and its time in seconds."""
        table = self._opened().table
        rate = parse_fps(str(fps)) if fps is not None else Fraction(0)
        if not rate:
            return range(table.promised), self.times.tolist()
        try:
            shown = resample_indices(
                *(table.pts, table.time_base, rate),
                end=table.end,
                origin=table.origin,
                limit=self._limits["max_frames"],
            )
        except ValueError as error:
            raise TooLarge(self.path, str(error)) from None
        if table.promised > len(table.pts):
            shown.append(len(table.pts))  # a lost frame: whoever asks for it is told
        return shown, [float(n / rate) for n in range(len(shown))]

    def _one(self, index: float, count: int, times: Sequence[float] | None) -> int:
        if times is not None:
            return self._at(index, count, times)
        number = _whole(index)
        if not -count <= number < count:
            raise FrameIndexError(self.path, number, count)
        return number % count

    def _at(self, seconds: float, count: int, times: Sequence[float]) -> int:
        """The picture on the screen at a time. Of a file that was cut off, the first one lost."""
        if not math.isfinite(seconds):
            raise ValueError(f"{seconds} is not a time")
        if seconds < float(self._duration()) + _CLOSE:
            number = bisect_right(times, seconds + _CLOSE) - 1
        else:
            number = len(times)
        if not 0 <= number < count:
            raise FrameIndexError(self.path, number, count)
        return number

    def _span(self, start: float | None, stop: float | None, count: int) -> range:
        first = 0 if start is None else _whole(start)
        last = count if stop is None else _whole(stop)
        if first < 0 or first > count:
            raise FrameIndexError(self.path, first, count)
        if last < 0 or last > count:
            raise FrameIndexError(self.path, last - 1, count)
        if last < first:
            raise ValueError(f"stop is {stop}, before start, {start}")
        return range(first, last)

    def _seconds(
        self, start: float | None, stop: float | None, count: int, times: Sequence[float]
    ) -> range:
        if start is not None:
            self._at(start, count, times)
        if stop is not None and math.isnan(stop):
            raise ValueError(f"{stop} is not a time")
        if start is not None and stop is not None and stop < start:
            raise ValueError(f"stop is {stop} s, before start, {start} s")
        first = 0 if start is None else bisect_left(times, start - _CLOSE)
        last = count if stop is None else bisect_left(times, stop - _CLOSE)
        if stop is not None and last == len(times) and stop > float(self._duration()) + _CLOSE:
            last = count  # more than `times` if the file was cut off: whoever asks for it is told
        return range(first, max(first, last))

    def _duration(self) -> Fraction:
        table = self._opened().table
        return (table.end - table.pts[0]) * table.time_base

    def _load(self, source: FrameSource, frames: Sequence[int], out: Array | None) -> Array:
        rows: dict[int, list[int]] = {}
        for row, frame in enumerate(frames):
            rows.setdefault(frame, []).append(row)
        have = len(source.table.pts)
        array: Array | None = None
        last = -1
        try:
            for number, picture in source.decode(sorted(n for n in rows if n < have)):
                painter = self._painter or self._painter_for(source, picture)
                if array is None:
                    array = self._room(out, (len(frames), *painter.shape))
                first, *others = rows[number]
                painter.paint(picture, array[first])
                for row in others:
                    array[row] = array[first]
                last = number
            if any(number >= have for number in rows):
                raise CorruptClip(self.path, have, "the rest of the file is missing")
        except CorruptClip as error:
            before = [row for row, number in enumerate(frames) if number <= last]
            error.frames = array[before] if array is not None else None
            raise
        return array if array is not None else self._room(out, (0, *self.shape))

    def _room(self, out: Array | None, shape: tuple[int, ...]) -> Array:
        """`out`, if it fits, or a new array."""
        if out is None:
            if (size := math.prod(shape)) > _MEMORY:
                raise TooLarge(self.path, f"{size >> 20:,} MB of frames, more than the memory has")
            return np.empty(shape, np.uint8)
        if not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.shape != shape:
            found = f"{getattr(out, 'shape', type(out).__name__)} {getattr(out, 'dtype', '')}"
            raise ValueError(f"out is {found.strip()}, and {shape} uint8 is needed")
        if not out.flags.writeable:
            raise ValueError("out is read-only")
        return out

    def _painter_for(self, source: FrameSource, frame: VideoFrame) -> Painter:
        # A frame tells how it is turned; the container, through PyAV, does not.
        width, height = shown_size(*source.picture_of(frame), self.short_side)
        self._painter = Painter(width, height, Orientation.of(frame))
        return self._painter


def finish(array: Any, layout: Layout | None, as_torch: bool) -> Any:
    """Return `array` in the requested layout, or as a tensor, on the same memory."""
    if layout not in ("THWC", "TCHW", None):
        raise ValueError(f"layout is {layout!r}: 'THWC' or 'TCHW' is needed")
    view = array.transpose(0, 3, 1, 2) if layout == "TCHW" else array
    if not as_torch:
        return view
    import torch

    return torch.from_numpy(view)


def _whole(number: float) -> int:
    if not math.isfinite(number) or number != int(number):
        raise TypeError(f"{number} is not the number of a frame; for seconds use unit='s'")
    return int(number)
