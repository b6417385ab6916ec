"""Load a clip's audio, exact to the sample, with the same times as its frames."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from clipreader.clip_reader import ClipReader
from clipreader.media import (
    CorruptClip,
    Media,
    NoAudio,
    NoVideo,
    media_name,
    open_clip,
    ratio,
    take_media,
)

Sound = NDArray[np.float32]

_GAP = 0.1  # seconds; times in containers are rounded, and jitter by less
_MARGIN = 1.0  # seconds that are decoded behind the end, for the resampler
MAX_SILENCE = 3600  # seconds of a gap that are filled


def load_audio(
    clip: Media | ClipReader,
    start: float = 0.0,
    stop: float | None = None,
    *,
    sample_rate: int | None = None,
    mono: bool = False,
) -> Sound:
    """(channels, samples) float32: the sound from `start` to before `stop`.

    start, stop: in seconds after the clip's first frame, as with `load_frames(unit="s")`; after the
        first sample of a file without pictures
    sample_rate: resample to this rate; default: the clip's own
    mono: mix the channels down to one, as ffmpeg does

    Before the sound begins and in its gaps there is silence; behind its end there is nothing.
    Raises ClipNotFound, NoAudio, CorruptClip; ValueError for times that make no sense.
    """
    if not math.isfinite(start) or start < 0 or (stop is not None and not stop >= start):
        raise ValueError(f"start is {start} and stop {stop}: 0 <= start <= stop is needed")
    if isinstance(clip, ClipReader):
        return _samples(clip.media, clip.path, clip.first_time, start, stop, sample_rate, mono)
    media = take_media(clip)
    zero: float | None = None
    try:
        with ClipReader(media) as reader:
            zero = reader.first_time
    except NoVideo:
        pass
    return _samples(media, media_name(clip), zero, start, stop, sample_rate, mono)


def _samples(
    media: Media,
    path: Path,
    zero: float | None,
    start: float,
    stop: float | None,
    sample_rate: int | None,
    mono: bool,
) -> Sound:
    """zero: the time of the first frame, None for that of the first sample."""
    with open_clip(media) as container:
        stream = container.streams.audio[0] if container.streams.audio else None
        if stream is None or stream.codec_context is None:
            raise NoAudio(path, "has no audio" if stream is None else "no decoder for its sound")
        rate = sample_rate or stream.codec_context.sample_rate
        until = math.inf if stop is None else (zero or 0) + stop + _MARGIN
        parts, begins = _decoded(container, stream, rate, mono, until, path)
        sound = np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.float32)
        base = ratio(stream.time_base)
        if "mp4" in container.format.name and stream.duration and base:
            # An edit list ends within the last packet; ffmpeg 8 decodes all of that.
            sound = sound[:, : round(stream.duration * base * rate)]
    first = round(((begins if zero is None else zero) + start - begins) * rate)
    count = sound.shape[1] - first if stop is None else round((stop - start) * rate)
    silent = np.zeros((len(sound), max(0, min(-first, count))), np.float32)
    return np.concatenate([silent, sound[:, max(0, first) : max(0, first + count)]], axis=1)


def _decoded(
    container: av.container.InputContainer,
    stream: AudioStream,
    rate: int,
    mono: bool,
    until: float,
    path: Path,
) -> tuple[list[Sound], float]:
    """The sound at `rate` up to a time, gaps filled, and the time of its first sample."""
    resampler = AudioResampler(format="fltp", layout="mono" if mono else None, rate=rate)
    parts: list[Sound] = []
    begins, count = 0.0, 0

    def add(frame: AudioFrame | None) -> None:
        nonlocal count
        for made in resampler.resample(frame):
            parts.append(made.to_ndarray().astype(np.float32, copy=False))
            count += made.samples

    try:
        for frame in container.decode(stream):
            time = float((frame.pts or 0) * (ratio(frame.time_base) or 0))
            if not parts and not count:
                begins = time
            elif (lacking := round((time - begins - _GAP) * rate) - count) > 0:
                silent = min(lacking + round(_GAP * rate), MAX_SILENCE * rate)
                parts.append(np.zeros((len(parts[0]), silent), np.float32))
                count += silent
            if time > until:
                break
            add(frame)
        add(None)
    except av.error.FFmpegError as error:
        raise CorruptClip(path, 0, f"its sound: {error.strerror}") from None
    return parts, begins
