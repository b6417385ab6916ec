"""Open media files safely with PyAV. All parts of the suite use `open_media`.

Files are not trusted. Only regular files are opened, because a FIFO hangs and a
device never ends. Only demuxers of real containers look at them, because ffmpeg tries every demuxer
on every file, and DASH, HLS and ffconcat texts make it open what they name. `MEDIA_FORMATS` says
the same to an ffmpeg command line. Pictures have at most `MAX_PIXELS` pixels.

All differences between PyAV releases are handled here. PyAV 19 (Python 3.12 and newer
get it) has no `metadata_errors`, reads side data as a mapping, and gives times and rates as
`AVRational`, which rounds to 32 bits where two are multiplied and is 0 where PyAV 18 had None;
PyAV 18 is the last for Python 3.11.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import re
import stat
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

if TYPE_CHECKING:  # 0.12 s, which a script pays when it opens its first file
    import av
    from av.video.stream import VideoStream

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

MAX_PIXELS = 8192 * 8192  # of a picture: 200 MB as an array
MAX_FRAMES = 2_000_000  # of a clip: 18 hours at 30 a second, 0.5 GB of numbers

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotMedia(OSError):
    """Not a clip: a folder, a FIFO, a device, a text that names other files."""


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise NotMedia unless `path` is a regular file or a link to one; OSError if it is gone."""
    mode = os.stat(path).st_mode  # a link that loops raises here
    if not stat.S_ISREG(mode):
        kind = next((word for test, word in _KINDS if test(mode)), "something else")
        raise NotMedia(f"is {kind}, not a regular file")


@functools.cache
def _open_arguments() -> dict[str, Any]:
    import av

    # A title in Latin-1 is no reason to refuse a clip: PyAV 18 would raise UnicodeDecodeError.
    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def open_media(
    source: Media, options: dict[str, str] | None = None, *, max_pixels: int = MAX_PIXELS
) -> av.container.InputContainer:
    """Open a media file for reading: a path, the bytes of a file, or a binary file object.

    options: ffmpeg's, for the container and its streams. max_pixels: of a picture that ffmpeg
    decodes to learn what the file is. Raises NotMedia, another OSError, or av.FFmpegError.
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
    guard["max_pixels"] = str(max_pixels)
    try:
        return av.open(file, "r", options={**(options or {}), **guard}, **_open_arguments())
    except av.error.ArgumentError:  # what a format that is not on the list ends in
        raise NotMedia("is not a media file: a playlist, an image, or damaged") from None


def take_media(source: Media) -> str | os.PathLike[str] | bytes:
    """A path or bytes as they are, the bytes of a file object. Raises TypeError for others."""
    if isinstance(source, (str, os.PathLike, bytes)):
        return source
    if not hasattr(source, "read"):
        kind = type(source).__name__
        raise TypeError(f"a clip is a path, bytes or an open file, not of type {kind}")
    return source.read()


def open_clip(
    source: Media, options: dict[str, str] | None = None, *, max_pixels: int = MAX_PIXELS
) -> av.container.InputContainer:
    """As `open_media`, and a file that cannot be opened is a ClipError."""
    import av

    name = media_name(source)
    try:
        return open_media(source, options, max_pixels=max_pixels)
    except NotMedia as error:
        raise NoVideo(name, str(error)) from None
    except av.error.FFmpegError as error:
        is_path = isinstance(source, (str, os.PathLike))
        if source == b"" or (is_path and os.path.getsize(name) == 0):
            raise CorruptClip(name, 0, "the file is empty") from None
        raise CorruptClip(name, 0, str(error.strerror)) from None
    except FileNotFoundError:
        raise ClipNotFound(name, "no such file") from None
    except OSError as error:
        raise ClipNotFound(name, str(error.strerror)) from None


def media_name(source: Media) -> Path:
    """The name of a source in errors."""
    if isinstance(source, (str, os.PathLike)):
        return Path(source)
    return Path(str(getattr(source, "name", "<bytes>")))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def picture_stream(container: av.container.InputContainer) -> VideoStream | None:
    """The stream that a player shows, ffmpeg's `0:V:0`; None if there is none.

    A cover image may come before it. A track that nothing is known of gives way to a later one.
    """
    from av.stream import Disposition

    shown = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    return next((s for s in shown if s.codec_context is not None), shown[0] if shown else None)


def codec_name(stream: Any) -> str:
    """The name of a stream's decoder; "" where there is none."""
    return stream.codec_context.name if stream.codec_context is not None else ""


def cropping(stream: VideoStream) -> tuple[int, int, int, int]:
    """(left, right, top, bottom): the pixels that the container has a player cut off.

    mp4's `clap` and Matroska's PixelCrop. PyAV has no other way to it than ffmpeg's description.
    """
    with captured_logs(32):  # AV_LOG_INFO
        container: Any = stream.container  # its stubs lack the method
        text = container.dumps_format()
    found = re.search(
        rf"^  Stream #0:{stream.index}\b(?:\n(?!  Stream)|[^\n])*?"
        r"^ +Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)$",
        text,
        re.MULTILINE,
    )
    left, right, top, bottom = map(int, found.groups()) if found else (0, 0, 0, 0)
    fits = top + bottom < stream.codec_context.height and left + right < stream.codec_context.width
    return (left, right, top, bottom) if fits else (0, 0, 0, 0)


_LOGGING = threading.Lock()
# A fork in between would leave the child with a lock that nobody opens, and another level.
os.register_at_fork(
    before=_LOGGING.acquire, after_in_parent=_LOGGING.release, after_in_child=_LOGGING.release
)


@contextmanager
def captured_logs(level: int) -> Iterator[list[tuple[int, str, str]]]:
    """What ffmpeg's libraries log in this thread at `level` or worse: (level, part, text) each."""
    import av

    # The level is that of the process. What other threads log meanwhile goes to Python's logging,
    # which prints it if nobody listens.
    if not (logger := logging.getLogger("libav")).handlers:
        logger.addHandler(logging.NullHandler())
    with _LOGGING:
        before = av.logging.get_level()
        av.logging.set_level(level)
        try:
            with av.logging.Capture() as logs:
                yield logs
        finally:
            av.logging.set_level(before)


def ratio(value: Any) -> Fraction | None:
    """A time base, a rate or an aspect of PyAV's as an exact fraction; None where it is not set."""
    if not value or not value.denominator:
        return None
    return Fraction(value.numerator, value.denominator)


# By degrees, as `frame.rotation` counts them.
_MATRICES = {
    90: array("i", (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30)),
    180: array("i", (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30)),
    270: array("i", (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)),
}


def display_matrix(frame: av.VideoFrame) -> Any:
    """The nine numbers of a frame's display matrix, as a buffer of int32; None if it has none."""
    side_data: Any
    # A frame and its side data hold each other until Python's collector comes by. So they are asked
    # of a copy of a few bytes.
    small = frame.reformat(16, 16, format="gray", interpolation="POINT", threads=1)
    try:
        side_data = small.side_data  # its stubs differ from release to release
    except ValueError:  # a kind of side data that this PyAV has no name for spoils all of them
        return _MATRICES.get(frame.rotation % 360)
    return side_data.get("DISPLAYMATRIX")


# --- what can be wrong with a clip ---


class ClipError(Exception):
    """A clip that cannot be loaded as asked. `path` is the file.

    Made of one text, as torch's DataLoader does it for an error of a worker process, it takes its
    attributes from that text's last line.
    """

    def __init__(self, path: Path | str, problem: str | None = None) -> None:
        text = str(path)
        if problem is None:
            last = re.search(r"^\S*: (.*?): (.*)\s*\Z", text, re.MULTILINE)
            path, problem = last.groups() if last else ("", text)
        super().__init__(path, problem)
        self.path = Path(path)
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class ClipNotFound(ClipError, FileNotFoundError):
    """The file does not exist."""


class NoVideo(ClipError):
    """The file is there and holds no pictures: sound only, a cover image, or something else."""


class NoAudio(ClipError):
    """The file is there and holds no sound."""


class TooLarge(ClipError):
    """A clip that would take more memory than is allowed."""


class FrameIndexError(ClipError, IndexError):
    """A requested frame does not exist. `frames` is the number of frames."""

    def __init__(self, path: Path | str, index: int = -1, frames: int = -1) -> None:
        problem = f"frame {index} does not exist: the clip has {frames}" if frames >= 0 else None
        super().__init__(path, problem)
        if found := re.fullmatch(r"frame (-?\d+) does not exist: the clip has (\d+)", self.problem):
            index, frames = int(found[1]), int(found[2])
        self.index = index
        self.frames = frames

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.index, self.frames)


class CorruptClip(ClipError):
    """The clip is damaged from frame `frame` on.

    `frames` holds those asked for that come before it, in the order asked, as an array of shape
    (T, H, W, 3), uint8; None if there are none.
    """

    def __init__(
        self, path: Path | str, frame: int = -1, problem: str | None = None, frames: Any = None
    ) -> None:
        super().__init__(path, problem)
        if found := re.match(r"corrupt at frame (\d+): ", self.problem):
            frame, self.problem = int(found[1]), self.problem[found.end() :]
        self.frame = frame
        self.frames = frames

    def __str__(self) -> str:
        return f"{self.path}: corrupt at frame {self.frame}: {self.problem}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.frame, self.problem, self.frames)
