"""PyAV, as all its releases that we take have it: the one place that knows what changed in them.

At the very ground: whoever opens a video opens it here. PyAV 19 (Python 3.12 and newer get it) has
no `metadata_errors`, reads side data as a mapping, and gives times and rates as `AVRational`, which
rounds to 32 bits where two are multiplied and is 0 where PyAV 18 had None; PyAV 18 is the last for
Python 3.11.
"""

from __future__ import annotations

import functools
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # 0.12 s, which a script pays when it opens its first file
    import av


@functools.cache
def _open_arguments() -> dict[str, Any]:
    import av

    # A title in Latin-1 is no reason to refuse a clip: PyAV 18 would raise UnicodeDecodeError.
    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def open_video(path: Path, options: dict[str, str] | None = None) -> av.container.InputContainer:
    """Open a file for reading. `options`: ffmpeg's, for the container and its streams.

    Raises av.error.FFmpegError, OSError.
    """
    import av

    # Absolute: ffmpeg takes the first part of a name such as 12:30.mp4 for a protocol.
    return av.open(os.path.abspath(path), "r", options=options or {}, **_open_arguments())


def ratio(value: Any) -> Fraction | None:
    """A time base, a rate or an aspect of PyAV's as an exact fraction; None where it is not set."""
    if not value or not value.denominator:
        return None
    return Fraction(value.numerator, value.denominator)


def display_matrix(frame: av.VideoFrame) -> Any:
    """The nine numbers of a frame's display matrix, as a buffer of int32; None if it has none."""
    side_data: Any = frame.side_data  # its stubs differ from release to release
    return side_data.get("DISPLAYMATRIX")
