"""Open media files safely with PyAV, and define what can be wrong with a clip.

All parts of the suite use `open_clip`. Files are not trusted. Only regular files are opened,
because a FIFO hangs and a device never ends. Only demuxers of real containers look at them, because
ffmpeg tries every demuxer on every file, and DASH, HLS and ffconcat texts make it open the files
that they name. `MEDIA_FORMATS` says the same to an ffmpeg command line.

All differences between PyAV releases are handled here. PyAV 19 (for Python 3.12 and newer) has no
`metadata_errors`, reads side data as a mapping, and gives times and rates as `AVRational`, which
rounds to 32 bits when two are multiplied and is 0 where PyAV 18 has None.
"""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

if TYPE_CHECKING:  # importing av takes 0.12 s, which a script pays when it opens its first file
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

Media: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO

# Demuxers by their names, as `ffmpeg -format_whitelist` and libavformat's option of that name take
# them. Containers and raw streams only: no images, no playlists, nothing that names other files.
MEDIA_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,mpegts,mpeg,ogg,asf,asf_o,wtv,mxf,gxf,"
    "nut,rm,dv,swf,nsv,ivf,kux,pva,ty,yuv4mpegpipe,h264,hevc,vvc,av1,obu,m4v,mpegvideo,h263,h261,"
    "vc1,dirac,mjpeg,wav,w64,flac,mp3,aac,loas,ac3,eac3,dts,truehd,aiff,au,caf,amr,wv,ape,tta"
)
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")  # of clips
MEDIA_PROTOCOLS = "file"  # for a file on disk; for `ffmpeg -protocol_whitelist`, too

# ffmpeg decodes frames to learn what a file is. Their pixels do not matter, and coarse ones save a
# tenth of the time. Nothing that is decoded later is affected.
_COARSE = {"skip_loop_filter": "all", "skip_idct": "all"}

# Limits, because a few bytes can require any amount of memory or time.
MAX_PIXELS = 8192 * 8192  # of a frame: 200 MB as an array
MAX_FRAMES = 2_000_000  # of a clip: 18 hours at 30 per second, 0.5 GB of numbers


def open_clip(source: Media, *, max_pixels: int = MAX_PIXELS) -> InputContainer:
    """Open a media file for reading: a path, the bytes of a file, or a binary file object.

    max_pixels: of a frame that ffmpeg decodes to learn what the file is. Raises NoVideo if it is
    not a media file, and ClipNotFound or CorruptClip if it cannot be read.
    """
    import av

    name, is_path = media_name(source), isinstance(source, (str, os.PathLike))
    options = {"format_whitelist": MEDIA_FORMATS, "protocol_whitelist": MEDIA_PROTOCOLS}
    options |= pixel_limit(max_pixels) | _COARSE
    more: dict[str, Any] = {}
    if int(av.__version__.partition(".")[0]) < 19:
        more["metadata_errors"] = "replace"  # a title in Latin-1 would raise UnicodeDecodeError
    try:
        if isinstance(source, (str, os.PathLike)):
            mode = os.stat(source).st_mode  # a link that loops raises here
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
                raise NoVideo(name, f"is {kind}, not a regular file")
            # Absolute, because ffmpeg takes the first part of a name like 12:30.mp4 for a protocol.
            file: Any = os.path.abspath(os.fspath(source))
        else:
            file = io.BytesIO(source) if isinstance(source, bytes) else source
        return av.open(file, "r", options=options, **more)
    except av.error.ArgumentError:  # what a format that is not on the list ends in
        problem = "is not a media file: a playlist, an image, or damaged"
        raise NoVideo(name, problem) from None
    except av.error.FFmpegError as error:
        if source == b"" or (is_path and os.path.getsize(name) == 0):
            raise CorruptClip(name, 0, "the file is empty") from None
        if is_path and name.suffix.lower() not in SUFFIXES and _is_text(name):
            raise NoVideo(name, "is not a video") from None
        raise CorruptClip(name, 0, str(error.strerror)) from None
    except OSError as error:
        problem = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror)
        raise ClipNotFound(name, problem) from None


def _is_text(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return b"\0" not in file.read(1024)
    return False  # its own error tells why it cannot be read


def pixel_limit(max_pixels: int) -> dict[str, str]:
    """Return libav's option for the largest frame, which it keeps in 32 bits."""
    return {"max_pixels": str(min(max_pixels, 2**31 - 1))}


def take_media(source: Media) -> str | os.PathLike[str] | bytes:
    """Return a path or bytes as they are, and the bytes of a file object. Raises TypeError."""
    if isinstance(source, (str, os.PathLike, bytes)):
        return source
    if not hasattr(source, "read"):
        kind = type(source).__name__
        raise TypeError(f"a clip is a path, bytes or an open file, not of type {kind}")
    return source.read()


def media_name(source: Media) -> Path:
    """Return the name of a source, for errors."""
    if isinstance(source, (str, os.PathLike)):
        return Path(source)
    return Path(str(getattr(source, "name", "<bytes>")))


def is_mp4(container: InputContainer) -> bool:
    """Return True for mp4, mov and their relatives, which list every packet in an index."""
    return "mp4" in container.format.name


def picture_stream(container: InputContainer, name: Path | None = None) -> VideoStream:
    """Return the stream that a player shows, ffmpeg's `0:V:0`. Raises NoVideo.

    A cover image can come before it. A track without a decoder gives way to a later one. name: of
    the clip, for the error; default: the container's.
    """
    from av.stream import Disposition

    shown = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if found := next((s for s in shown if s.codec_context is not None), None):
        return found
    problem = "the video is encrypted, or its codec is unknown" if shown else "has no video"
    raise NoVideo(name or container.name, problem)


def codec_name(stream: Any) -> str:
    """Return the name of a stream's decoder; "" if there is none."""
    return stream.codec_context.name if stream.codec_context is not None else ""


def ratio(value: Any) -> Fraction | None:
    """Return a time base, rate or aspect of PyAV's as an exact fraction; None if it is not set."""
    if not value or not value.denominator:
        return None
    return Fraction(value.numerator, value.denominator)


def time_base(stream: Any) -> Fraction:
    """Return how many seconds a tick of a stream lasts."""
    return ratio(stream.time_base) or Fraction(1, 1000)


def cropping(stream: VideoStream) -> tuple[int, int, int, int]:
    """Return (left, right, top, bottom): the pixels that the container has a player cut off.

    mp4's `clap` and Matroska's PixelCrop. PyAV shows them in ffmpeg's description only.
    """
    with captured_logs(32):  # AV_LOG_INFO
        container: Any = stream.container  # its stubs lack the method
        text = container.dumps_format()
    found = re.search(
        rf"^  Stream #0:{stream.index}\b(?:(?!^  Stream).)*?"
        r"^ +Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)$",
        text,
        re.MULTILINE | re.DOTALL,
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
    """Collect what ffmpeg's libraries log in this thread at `level`: (level, part, text) each."""
    import av

    # The level is that of the process. What other threads log meanwhile goes to Python's logging,
    # which prints it if there is no handler.
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


def display_matrix(frame: VideoFrame) -> Sequence[int] | None:
    """Return the nine numbers of a frame's display matrix (signs matter); None if it has none."""
    side_data: Any
    # Asked of a copy of a few bytes, because a frame and its side data refer to each other, and
    # stay in memory until Python's collector runs.
    small = frame.reformat(16, 16, format="gray", interpolation="POINT", threads=1)
    try:
        side_data = small.side_data  # its stubs differ from release to release
    except ValueError:  # one kind of side data that PyAV 18 has no name for spoils all of them
        turns = {90: (0, -1, 0, 1, 0), 180: (-1, 0, 0, 0, -1), 270: (0, 1, 0, -1, 0)}
        return turns.get(frame.rotation % 360)
    matrix = side_data.get("DISPLAYMATRIX")
    return None if matrix is None else array("i", bytes(matrix))


# --- errors ---


class ClipError(Exception):
    """A clip that cannot be loaded as asked. `path` is the file.

    torch's DataLoader makes the error of a worker process again from one text. The attributes are
    then taken from the last line of that text.
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
    """The file has no video: only audio, a cover image, or something else."""


class NoAudio(ClipError):
    """The file has no audio."""


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


class CorruptClip(ClipError):
    """The clip is damaged from frame `frame` on.

    `frames` holds the requested frames before it, in the order asked, as an array of shape
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
