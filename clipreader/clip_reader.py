"""Read a clip as arrays: `ClipReader` for frames, `load_audio` for audio.

`frame_source` decodes and `transforms` converts to RGB. This module finds the requested frames and
places each in the array.
"""

from __future__ import annotations

import math
import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any, Literal, Self, TypeAlias

import av
import numpy as np
from av import VideoFrame
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from numpy.typing import NDArray

from clipreader import media
from clipreader.frame_source import FrameSource
from clipreader.media import CorruptClip, FrameIndexError, Media, TooLarge
from clipreader.packets import FrameTable, parse_fps
from clipreader.transforms import Array, Orientation, Painter, shown_size

Unit: TypeAlias = Literal["frame", "s"]
Layout: TypeAlias = Literal["THWC", "TCHW"]
Rate: TypeAlias = float | Fraction | str
Sound: TypeAlias = NDArray[np.float32]

MAX_SHORT_SIDE = 16384  # swscale's limit
MAX_SILENCE = 3600  # seconds of a gap in the audio that are filled

_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

_CLOSE = 1e-6  # seconds; 0.1 as a float is a little after the frame at 1/10
_GAP = 0.1  # seconds; audio times in containers are rounded, and jitter by less
_MARGIN = 1.0  # seconds of audio that are decoded after the end, for the resampler


class ClipReader:
    """A clip as a sequence of frames: `len(r)`, `r[7]`, `r[10:20]`, `r.read(...)`.

    Frames are numbered from 0 in display order, RGB, upright, uint8. Use it from any number of
    threads (they take turns), after a fork, or pickled: a copy opens the file again when it is
    first used. Close it, or use it in a `with`.
    """

    def __init__(
        self,
        source: Media,
        *,
        short_side: int | None = None,
        max_pixels: int = media.MAX_PIXELS,
        max_frames: int = media.MAX_FRAMES,
    ) -> None:
        """source: a path, the bytes of a file, or a binary file object, which is read to its end.

        short_side: scale the shorter side to this many pixels, up or down
        max_pixels, max_frames: limits, because a small file can require any amount of memory

        Raises ClipNotFound, NoVideo, TooLarge or CorruptClip.
        """
        if short_side is not None and short_side not in range(1, MAX_SHORT_SIDE + 1):
            raise ValueError(f"short_side must be from 1 to {MAX_SHORT_SIDE} (got {short_side})")
        self.path = media.media_name(source)
        self.media = media.take_media(source)
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
            # After a fork the file's position is shared with the parent, and a thread that does not
            # exist here may hold the lock.
            self._renew()
        with self._lock:
            if self._closed:
                raise ValueError(f"{self.path}: the reader is closed")
            if self._source is None:
                self._source = FrameSource(self.media, **self._limits)
            return self._source

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._closed = True  # first, or another thread could open the file again
        if self._pid == os.getpid():  # after a fork, the parent has the file and the lock
            with self._lock:
                if self._source is not None:
                    self._source.close()
                self._source = None

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

    @property
    def _table(self) -> FrameTable:
        return self._opened().table

    def __len__(self) -> int:
        return self._table.promised

    @property
    def fps(self) -> Fraction:
        """The average number of frames per second."""
        return len(self._table.pts) / self._duration()

    def _duration(self) -> Fraction:
        table = self._table
        return (table.end - table.pts[0]) * table.time_base

    @property
    def times(self) -> NDArray[np.float64]:
        """(T,) float64: when each frame is shown, in seconds after the first."""
        table = self._table
        return (np.asarray(table.pts) - table.pts[0]) * float(table.time_base)

    @property
    def first_time(self) -> float:
        """When the first frame is shown, in seconds on the file's own clock."""
        return float(self._table.pts[0] * self._table.time_base)

    @property
    def key_frames(self) -> list[int]:
        """The frames at which decoding can begin: loading is fastest right after them."""
        starts = set(self._table.starts)
        return [frame for frame, packet in enumerate(self._table.packet_of) if packet in starts]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3) of each frame."""
        source = self._opened()
        with self._lock:
            painter = self._painter or self._painter_for(source, next(source.decode([0]))[1])
            return painter.shape

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
        out: Array | None = None,
        **chosen: Any,
    ) -> Array:
        """Return (T, H, W, 3) uint8: the frames from `start` to before `stop`, or of `indices=`.

        `chosen` is `indices`, `unit` and `fps`; see `load_frames.load_frames` for all arguments and
        the errors raised.
        """
        frames = self.frame_numbers(start, stop, **chosen)
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
        """Return the numbers of the clip's own frames that `read` loads for these arguments."""
        if unit not in ("frame", "s"):
            raise ValueError(f"unit must be 'frame' or 's' (got {unit!r})")
        if indices is not None and (start is not None or stop is not None):
            raise ValueError("use either indices, or start and stop")
        shown, times = self._shown_at(fps)
        count = len(shown)
        if indices is not None and unit == "s":
            return [shown[self._on_screen(seconds, count, times)] for seconds in indices]
        if indices is not None:
            numbers = [frame_number(index) for index in indices]
            if outside := [n for n in numbers if not -count <= n < count]:
                raise FrameIndexError(self.path, outside[0], count)
            return [shown[number] for number in numbers]
        if unit == "s":
            if start is not None:
                self._on_screen(start, count, times)
            first = 0 if start is None else bisect_left(times, start - _CLOSE)
            last = count if stop is None else bisect_left(times, stop - _CLOSE)
            if stop is not None and last == len(times) and stop > float(self._duration()) + _CLOSE:
                last = count  # more than `times` if the file was cut off
        else:
            first = 0 if start is None else frame_number(start)
            last = count if stop is None else frame_number(stop)
            if not 0 <= first <= count:
                raise FrameIndexError(self.path, first, count)
            if not 0 <= last <= count:
                raise FrameIndexError(self.path, last - 1, count)
        if stop is not None and (math.isnan(stop) or (start is not None and stop < start)):
            raise ValueError(f"start is {start} and stop {stop}: start <= stop is needed")
        return shown[first:last]

    def _shown_at(self, fps: Rate | None) -> tuple[Sequence[int], Sequence[float]]:
        """Return, for each frame at `fps`, the clip's frame that it shows, and its time."""
        source, table = self._opened(), self._table
        rate = parse_fps(str(fps)) if fps is not None else Fraction(0)
        if not rate:
            return range(table.promised), self.times.tolist()
        shown = source.resampled(rate)
        if table.promised > len(table.pts):
            shown = [*shown, len(table.pts)]  # a lost frame: loading it raises CorruptClip
        return shown, [float(n / rate) for n in range(len(shown))]

    def _on_screen(self, seconds: float, count: int, times: Sequence[float]) -> int:
        """Return the frame that is shown at a time; if the file was cut off, the first one lost."""
        if not math.isfinite(seconds):
            raise ValueError(f"{seconds} is not a time")
        number = len(times)
        if seconds < float(self._duration()) + _CLOSE:
            number = bisect_right(times, seconds + _CLOSE) - 1
        if not 0 <= number < count:
            raise FrameIndexError(self.path, number, count)
        return number

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
                for row in rows[number]:
                    painter.paint(picture, array[row])
                last = number
            if any(number >= have for number in rows):
                raise CorruptClip(self.path, have, "the rest of the file is missing")
        except CorruptClip as error:
            before = [row for row, number in enumerate(frames) if number <= last]
            error.frames = array[before] if array is not None else None
            raise
        return array if array is not None else self._room(out, (0, *self.shape))

    def _room(self, out: Array | None, shape: tuple[int, ...]) -> Array:
        """Return `out`, if it fits, or a new array."""
        if out is None:
            if (size := math.prod(shape)) > _MEMORY:
                raise TooLarge(self.path, f"{size >> 20:,} MB of frames, more than the memory has")
            return np.empty(shape, np.uint8)
        is_frames = isinstance(out, np.ndarray) and out.dtype == np.uint8 and out.shape == shape
        if not is_frames or not out.flags.writeable:
            raise ValueError(f"out is not a writeable uint8 array of shape {shape}")
        return out

    def _painter_for(self, source: FrameSource, frame: VideoFrame) -> Painter:
        # PyAV tells how a clip is turned on its frames only, not on the container.
        width, height = shown_size(*source.picture_of(frame), self.short_side)
        self._painter = Painter(width, height, Orientation.of(frame))
        return self._painter


def frame_number(number: float) -> int:
    """Return a frame number as an int. Raises TypeError if it is not whole."""
    if not math.isfinite(number) or number != int(number):
        raise TypeError(f"{number} is not the number of a frame; for seconds use unit='s'")
    return int(number)


def finish(array: Any, layout: Layout | None, as_torch: bool) -> Any:
    """Return `array` in the requested layout, or as a tensor, on the same memory."""
    if layout not in ("THWC", "TCHW", None):
        raise ValueError(f"layout must be 'THWC' or 'TCHW' (got {layout!r})")
    view = array.transpose(0, 3, 1, 2) if layout == "TCHW" else array
    if not as_torch:
        return view
    import torch

    return torch.from_numpy(view)


# --- audio ---


def load_audio(
    clip: Media | ClipReader,
    start: float = 0.0,
    stop: float | None = None,
    *,
    sample_rate: int | None = None,
    mono: bool = False,
) -> Sound:
    """Return (channels, samples) float32: the audio from `start` to before `stop`.

    start, stop: in seconds after the clip's first frame, as with `load_frames(unit="s")`; after the
        first sample if the file has no video
    sample_rate: resample to this rate; default: the clip's own
    mono: mix the channels down to one, as ffmpeg does

    Before the audio begins and in its gaps there is silence; after its end there is nothing.
    Raises ClipNotFound, NoAudio, CorruptClip; ValueError for times that make no sense.
    """
    if not math.isfinite(start) or start < 0 or (stop is not None and not stop >= start):
        raise ValueError(f"start is {start} and stop {stop}: 0 <= start <= stop is needed")
    zero: float | None = None
    if isinstance(clip, ClipReader):
        source, path, zero = clip.media, clip.path, clip.first_time
    else:
        source, path = media.take_media(clip), media.media_name(clip)
        with suppress(media.NoVideo), ClipReader(source) as reader:
            zero = reader.first_time
    until = math.inf if stop is None else (zero or 0) + stop + _MARGIN
    with media.open_clip(source) as container:
        streams = container.streams.audio
        if not streams or streams[0].codec_context is None:
            raise media.NoAudio(path, "no decoder for its audio" if streams else "has no audio")
        rate = sample_rate or streams[0].codec_context.sample_rate
        try:
            sound, begins = _decode_audio(container, rate, mono, until)
        except av.error.FFmpegError as error:
            raise CorruptClip(path, 0, f"its audio: {error.strerror}") from None
        if media.is_mp4(container) and streams[0].duration:
            # An edit list ends within the last packet; ffmpeg 8 decodes all of that.
            duration = streams[0].duration * media.time_base(streams[0])
            sound = sound[:, : round(duration * rate)]
    first = round(((begins if zero is None else zero) + start - begins) * rate)
    count = sound.shape[1] - first if stop is None else round((stop - start) * rate)
    silent = np.zeros((len(sound), max(0, min(-first, count))), np.float32)
    return np.concatenate([silent, sound[:, max(0, first) : max(0, first + count)]], axis=1)


def _decode_audio(
    container: InputContainer, rate: int, mono: bool, until: float
) -> tuple[Sound, float]:
    """Return the audio at `rate` up to a time, gaps filled, and the time of its first sample."""
    resampler = AudioResampler(format="fltp", layout="mono" if mono else None, rate=rate)
    parts: list[Sound] = []
    begins, count = 0.0, 0

    def add(frame: AudioFrame | None) -> None:
        nonlocal count
        for made in resampler.resample(frame):
            parts.append(made.to_ndarray().astype(np.float32, copy=False))
            count += made.samples

    for frame in container.decode(audio=0):
        time = float((frame.pts or 0) * (media.ratio(frame.time_base) or 0))
        if not parts:
            begins = time
        elif (lacking := round((time - begins - _GAP) * rate) - count) > 0:
            silent = min(lacking + round(_GAP * rate), MAX_SILENCE * rate)
            parts.append(np.zeros((len(parts[0]), silent), np.float32))
            count += silent
        if time > until:
            break
        add(frame)
    add(None)
    return np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.float32), begins
