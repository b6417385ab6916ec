"""What a video file on disk is, whether it is whole, and what its pictures measure.

After `frames` (which decodes), before frame_extract.py and downscale_videos.py. The files are
strangers' and a decoder can crash: `inspect` is called in worker processes only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipreader.media import ratio
from clipreader.times import resample_indices
from utils.video.checks import decode_ends
from utils.video.probe import DURATION_TOLERANCE, BadClip

if TYPE_CHECKING:
    from clipreader.frame_source import FrameSource


@dataclass(frozen=True)
class Video:
    """A whole video. `width` and `height` are as shown: upright, square pixels.

    frames: those of it that are shown; resampled: how many they are at the rate asked for; end: in
    seconds from the file's beginning; time_base: of its time stamps.
    """

    width: int
    height: int
    frames: int
    resampled: int
    end: float
    rate: Fraction
    time_base: Fraction
    codec: str
    pixel_format: str
    audio_codec: str  # empty: no sound


@dataclass(frozen=True)
class Question:
    """What `inspect` is to look at. fps: 0 for the video's own."""

    path: Path
    fps: Fraction = Fraction(0)
    decode: bool = False  # also whether both ends decode


def inspect(question: Question) -> Video | BadClip:
    """Read a file's packets; the BadClip is returned and not raised, to come through a pipe."""
    from clipreader.frame_source import FrameSource
    from clipreader.media import ClipError

    try:
        source = FrameSource(question.path)
        try:
            check_whole(source)
            video = _video(source, question.fps)
        finally:
            source.close()
        if question.decode:
            decode_ends(question.path)
        return video
    except BadClip as error:
        return error
    except ClipError as error:
        return BadClip("undecodable", error.problem)
    except (OSError, ValueError) as error:
        return BadClip("undecodable", f"cannot be read: {error}")


def _video(source: FrameSource, fps: Fraction) -> Video:
    from clipreader.pixels import Orientation
    from utils.video.jpeg import Look, picture_size

    stream, table = source.stream, source.table
    frame = next(frame for _, frame in source.decode([0]))
    size = picture_size(frame.width, frame.height, ratio(stream.sample_aspect_ratio), Look())
    audio = stream.container.streams.audio
    width, height = size[::-1] if Orientation.of(frame).transposed else size
    return Video(
        width=width,
        height=height,
        frames=len(table.pts),
        resampled=len(pictures_of(source, fps)),
        end=float((table.end - table.origin) * table.time_base),
        rate=ratio(stream.average_rate) or Fraction(0),
        time_base=table.time_base,
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        audio_codec=audio[0].codec_context.name if audio else "",
    )


def pictures_of(source: FrameSource, fps: Fraction) -> Sequence[int]:
    """For each picture at `fps`, from the first, the number of the frame that it shows."""
    table = source.table
    if not fps:
        return range(len(table.pts))
    return resample_indices(table.pts, table.time_base, fps, end=table.end, origin=table.origin)


def check_whole(source: FrameSource) -> None:
    """Raises BadClip (truncated) when the file holds less than its head promises.

    mp4 promises frames, the others a duration. That every frame which is there also decodes is
    FrameSource's promise.
    """
    table = source.table
    if len(table.pts) < table.promised:
        raise BadClip("truncated", f"{len(table.pts)} of {table.promised} frames are there")
    promised = _promised_end(source.stream)
    have = float((table.end - table.origin) * table.time_base)
    if promised is not None and have < promised - tolerance(ratio(source.stream.average_rate)):
        raise BadClip("truncated", f"{have:.2f} s of {promised:.2f} s are there")


def tolerance(rate: Fraction | None) -> float:
    """The seconds by which an end may be off: at low rates the last frame may be one interval."""
    return max(DURATION_TOLERANCE, 1.5 / float(rate) if rate else 0.0)


def _promised_end(stream: Any) -> float | None:
    """When the picture ends by the container's head, from the file's beginning; None: unsaid.

    A Matroska file has a tag for each stream, `00:00:10.010000000`; the container's own duration is
    that of the longest stream, which may be the sound.
    """
    container, base = stream.container, ratio(stream.time_base)
    if stream.duration is not None and base is not None:
        first = float((stream.start_time or 0) * base)
        return first - (container.start_time or 0) / 1e6 + float(stream.duration * base)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if container.duration is None or len(container.streams) > 1:
        return None
    return float(container.duration / 1e6)
