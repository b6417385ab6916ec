"""Choose the frames that a clip shows at another frame rate, as ffmpeg's `fps` filter does.

Pure arithmetic on time stamps, below every script that resamples: `frame_extract.py --fps` and
`load_frames(fps=...)` both take their frames from `resample_indices`, so that picture n of the one
is picture n of the other.

Time stamps are whole numbers of ticks ("pts"), a tick lasts `time_base` seconds, and `origin` is
the tick that counts as time 0. ffmpeg's command line counts from the start of the *file*, sound
included (PyAV: `container.start_time`, in microseconds), so a picture track that begins 13 ms after
the sound keeps these 13 ms; in an MPEG transport stream it counts from the first picture
(`stream.start_time`). Picture 1 is always the first frame, however late it is. Edit lists
need no care here: a demuxer has applied them to the pts that it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from clipreader.media import MAX_FRAMES


def parse_fps(text: str) -> Fraction:
    """A rate as the options spell it: `30`, `12.5`, `30000/1001`; `0` is the clip's own rate.

    Raises ValueError for anything that is not a finite number from 0 on.
    """
    try:
        # A guard before Fraction: of "1e999999999" it would make an integer of a gigabyte.
        fps = Fraction(text if len(text) < 30 and "e" not in text.lower() else "")
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a rate such as 30, 12.5 or 30000/1001") from None
    if fps < 0:
        raise ValueError(f"{text!r} is a rate below 0")
    return fps


def end_of_last(pts: Sequence[int], duration: int) -> int:
    """The tick at which the last frame goes, from its pts and the `duration` its packet claims.

    ffmpeg's rule (fftools/ffmpeg_dec.c, video_duration_estimate): the packet's duration, unless
    there is none, or it is one tick where the frame before lasted more than two: then the frame
    before it tells.
    """
    before = pts[-1] - pts[-2] if len(pts) > 1 else 0
    made_up = duration <= 0 or (duration == 1 and before > 2)
    return pts[-1] + (max(before, 1) if made_up else duration)


def resample_indices(
    pts: Sequence[int],
    time_base: Fraction,
    fps: Fraction,
    *,
    end: int | None = None,
    origin: int = 0,
    limit: int = MAX_FRAMES,
) -> list[int]:
    """For each picture at `fps`, the index into `pts` of the frame it shows.

    pts: in the order of display; end: the tick at which the last frame goes (default: as long as
    the frame before it, see `end_of_last`). The result never falls; it doubles and drops as
    `ffmpeg -vf fps=F` does (round=near, eof_action=round), to the very last picture. Like ffmpeg's
    it is empty where the whole clip is shorter than half a picture. Raises ValueError for more than
    `limit` pictures, because 700 bytes can hold a frame that lasts 68 years.

    Source: libavfilter/vf_fps.c. Each time stamp is rounded to the grid of 1/fps first, and a
    frame lasts until the rounded time of the next. Comparing exact times instead gives other
    frames (25 -> 30: every sixth).
    """
    if not pts:
        return []
    if fps <= 0:
        raise ValueError(f"fps is {fps}: a rate above 0 is needed")
    if end is None:
        end = end_of_last(pts, 0)
    per_tick = time_base * fps
    slots = [_round_near(tick - origin, per_tick) for tick in (*pts, end)]
    if (count := slots[-1] - slots[0]) > limit:
        raise ValueError(f"{count} frames at {fps} per second, more than max_frames={limit}")
    shown: list[int] = []
    slot = slots[0]
    for index, until in enumerate(slots[1:]):
        if until > slot:
            shown += [index] * (until - slot)
            slot = until
    return shown


def _round_near(ticks: int, per_tick: Fraction) -> int:
    """ticks * per_tick to the nearest whole number, halves away from 0 (AV_ROUND_NEAR_INF)."""
    doubled = 2 * abs(ticks) * per_tick.numerator + per_tick.denominator
    size = doubled // (2 * per_tick.denominator)
    return size if ticks >= 0 else -size
