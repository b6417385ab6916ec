"""Open a media file: the one door through which every part of the suite goes to PyAV.

What is behind the door is a stranger's. So only regular files are opened (a FIFO would hang, and a
device never ends), and only by demuxers of real containers: ffmpeg tries every demuxer on every
file, and DASH, HLS and ffconcat texts make it open what they name. `MEDIA_FORMATS` says the same to
an ffmpeg command line.

It also is the one place that knows what changed in PyAV's releases. PyAV 19 (Python 3.12 and newer
get it) has no `metadata_errors`, reads side data as a mapping, and gives times and rates as
`AVRational`, which rounds to 32 bits where two are multiplied and is 0 where PyAV 18 had None;
PyAV 18 is the last for Python 3.11.
"""

from __future__ import annotations

import functools
import io
import os
import stat
from array import array
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

if TYPE_CHECKING:  # 0.12 s, which a script pays when it opens its first file
    import av

Media: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO

# Demuxers by their names, as `ffmpeg -format_whitelist` and libavformat's option of that name take
# them. Containers and raw streams only: no images, no playlists, nothing that names other files.
MEDIA_FORMATS = ",".join(
    (
        *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "flv", "live_flv"),
        *("mpegts", "mpeg", "ogg", "asf", "asf_o", "wtv", "mxf", "gxf", "nut", "rm", "dv", "swf"),
        *("nsv", "ivf", "kux", "pva", "ty", "yuv4mpegpipe"),
        *("h264", "hevc", "vvc", "av1", "obu", "m4v", "mpegvideo", "h263", "h261", "vc1", "dirac"),
        *("mjpeg", "wav", "w64", "flac", "mp3", "aac", "loas", "ac3", "eac3", "dts", "truehd"),
        *("aiff", "au", "caf", "amr", "wv", "ape", "tta"),
    )
)
MEDIA_PROTOCOLS = "file"  # of a file on disk; for `ffmpeg -protocol_whitelist`, too


class NotMedia(OSError):
    """What cannot be a clip: a folder, a FIFO, a device, a text that names other files."""


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise NotMedia unless `path` is a regular file or a link to one; OSError if it is gone."""
    mode = os.stat(path).st_mode  # a link that loops raises here
    if not stat.S_ISREG(mode):
        kind = next((word for test, word in _KINDS if test(mode)), "something else")
        raise NotMedia(f"is {kind}, not a regular file")


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@functools.cache
def _open_arguments() -> dict[str, Any]:
    import av

    # A title in Latin-1 is no reason to refuse a clip: PyAV 18 would raise UnicodeDecodeError.
    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def open_media(source: Media, options: dict[str, str] | None = None) -> av.container.InputContainer:
    """Open a media file for reading: a path, the bytes of a file, or a binary file object.

    options: ffmpeg's, for the container and its streams. Raises NotMedia, another OSError, or
    av.FFmpegError.
    """
    import av

    if isinstance(source, (str, os.PathLike)):
        check_regular(source)
        # Absolute: ffmpeg takes the first part of a name such as 12:30.mp4 for a protocol.
        file: Any = os.path.abspath(os.fspath(source))
        if not _is_utf8(file):
            file = open(file, "rb")  # noqa: SIM115 (the container keeps it; PyAV encodes names)
    else:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
    guard = {"format_whitelist": MEDIA_FORMATS, "protocol_whitelist": MEDIA_PROTOCOLS}
    try:
        return av.open(file, "r", options={**(options or {}), **guard}, **_open_arguments())
    except av.error.ArgumentError:  # what a format that is not on the list ends in
        raise NotMedia("is not a media file: a playlist, an image, or damaged") from None


def ratio(value: Any) -> Fraction | None:
    """A time base, a rate or an aspect of PyAV's as an exact fraction; None where it is not set."""
    if not value or not value.denominator:
        return None
    return Fraction(value.numerator, value.denominator)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


# By degrees, as `frame.rotation` counts them.
_MATRICES = {
    90: array("i", (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30)),
    180: array("i", (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30)),
    270: array("i", (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)),
}


def display_matrix(frame: av.VideoFrame) -> Any:
    """The nine numbers of a frame's display matrix, as a buffer of int32; None if it has none."""
    side_data: Any
    try:
        side_data = frame.side_data  # its stubs differ from release to release
    except ValueError:  # a kind of side data that this PyAV has no name for spoils all of them
        return _MATRICES.get(frame.rotation % 360)
    return side_data.get("DISPLAYMATRIX")
