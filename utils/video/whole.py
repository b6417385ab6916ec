"""Decide whether a video file is complete, by the times of its frames.

Never by durations: that of a container is only a claim, and in an mp4 those of packets follow the
decoding order. `clipreader` reads the packets. An untrusted file can crash a decoder, so that
`read_apart` reads it in a worker process.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from clipreader import media
from utils import parallel
from utils.process import run_child
from utils.video.ffmpeg import STRICT, Ffmpeg, file_url, find_ffmpeg, last_line

if TYPE_CHECKING:
    from av.container.core import Container

    from clipreader.frame_source import FrameSource

TOLERANCE = 0.1  # seconds by which a clip made elsewhere may be too short
TOO_LONG = 1.0  # seconds by which it may be too long

Depth = Literal["packets", "first", "ends"]  # what is decoded: nothing, or some frames


class BadClip(Exception):
    """A file that is not the clip it should be. `reason` is one of the report's reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both, because pickling needs them
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Video:
    """A video file as described by its packets.

    width, height: as shown (upright, square pixels) if frames were decoded, otherwise as stored.
    times: of its frames in the order shown, in ticks of `time_base`, 0 being a player's zero, which
    is `zero` in the file. end: where the last frame ends, in seconds. resampled: the number of
    frames at the requested rate. Codecs have FFmpeg's names for their decoders. audio_codec: "" for
    no audio, "unknown" for audio without a decoder. missing: what the file promises and does not
    contain, in words.
    """

    width: int
    height: int
    times: Sequence[int]
    time_base: Fraction
    zero: int
    end: float
    rate: Fraction
    resampled: int
    codec: str
    audio_codec: str
    pixel_format: str
    missing: str

    @property
    def frames(self) -> int:
        return len(self.times)

    @property
    def first(self) -> float:
        """Return when the first frame is shown, in seconds."""
        return float(self.times[0] * self.time_base)

    @property
    def last(self) -> float:
        """Return when the last frame is shown, in seconds."""
        return float(self.times[-1] * self.time_base)

    @property
    def gap(self) -> float:
        """Return the mean time from a frame to the next, in seconds."""
        return (self.last - self.first) / max(1, self.frames - 1)

    def covers(self, seconds: float) -> bool:
        """Return whether it is that long, to 1.5 frames, because its source is unknown."""
        return self.end >= seconds - max(TOLERANCE, 1.5 * self.gap)


@dataclass(frozen=True)
class Limits:
    """Limits for a file, because a few bytes can require any amount of memory or time.

    max_frames, max_pixels: of a clip, of a frame. timeout: seconds for a clip, 0 for no limit.
    """

    max_frames: int = media.MAX_FRAMES
    max_pixels: int = media.MAX_PIXELS
    timeout: float = 3600.0

    @property
    def of_source(self) -> dict[str, int]:
        """Return the arguments for a FrameSource."""
        return {"max_frames": self.max_frames, "max_pixels": self.max_pixels}


def read_video(
    path: Path,
    depth: Depth = "packets",
    fps: Fraction = Fraction(0),
    limits: Limits = Limits(),
    partial: bool = False,
) -> Video:
    """Read a file's packets; decode also its first frame, or both ends.

    partial: accept a file of which only the beginning is there; `Video.missing` tells.
    Raises BadClip: `truncated` if frames are missing, `undecodable` if it is no video.
    """
    from clipreader.frame_source import FrameSource

    with _bad_file(limits), closing(FrameSource(path, **limits.of_source)) as source:
        video = _video(source, depth != "packets", fps)
        if video.missing and not partial:
            raise BadClip("truncated", video.missing)
        if depth == "ends":
            last = max(source.table.starts, default=0)
            packets = enumerate(source.table.packet_of)
            for _ in source.decode([n for n, at in packets if at >= last or n == 0]):
                pass
    return video


@contextmanager
def _bad_file(limits: Limits = Limits()) -> Iterator[None]:
    """Raise BadClip as `bad_clips` does, and for all other errors of libav."""
    import av

    try:
        with bad_clips(limits):
            yield
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClip("undecodable", f"does not decode: {error}") from error


@contextmanager
def bad_clips(limits: Limits) -> Iterator[None]:
    """Raise BadClip for every fault of the file that is read inside, and past its time limit."""
    try:
        with time_limit(limits.timeout):
            yield
    except media.TooLarge as error:
        raise BadClip("unknown", f"{error.problem}; to allow it, raise that option") from error
    except media.CorruptClip as error:
        problem = f"does not decode at frame {error.frame}: {error.problem}"
        raise BadClip("undecodable", problem) from error
    except media.ClipError as error:
        raise BadClip("undecodable", error.problem) from error


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End the code inside after so many seconds; 0: never. Raises BadClip (timeout).

    Works only in the main thread of a process, which is where worker processes run tasks.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise BadClip("timeout", f"took longer than --timeout {seconds:g}")

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _video(source: FrameSource, is_decoded: bool, fps: Fraction) -> Video:
    from clipreader.transforms import Orientation, shown_size

    stream, table = source.stream, source.table
    codec = stream.codec_context
    width, height, pixel_format = codec.width, codec.height, ""
    if is_decoded:
        frame = next(frame for _, frame in source.decode([0]))
        width, height, aspect = source.picture_of(frame)
        width, height = shown_size(width, height, aspect)
        if Orientation.of(frame).transposed:
            width, height = height, width
        pixel_format = frame.format.name
    sound = stream.container.streams.audio[:1]
    return Video(
        width=width,
        height=height,
        times=tuple(pts - table.origin for pts in table.pts),
        time_base=table.time_base,
        zero=table.origin,
        end=_end(source),
        rate=media.ratio(stream.average_rate) or Fraction(0),
        resampled=len(pictures_of(source, fps)),
        codec=codec.name,
        audio_codec=media.codec_name(sound[0]) or "unknown" if sound else "",
        pixel_format=pixel_format,
        missing=missing_part(stream.container, source.path, len(table.pts), table.promised),
    )


def _end(source: FrameSource) -> float:
    """Return where the last frame ends: it is shown as long as the one before, or as its track."""
    table, stream = source.table, source.stream
    stands = table.end - table.pts[-1]
    if len(table.pts) > 1:
        stands = min(stands, table.pts[-1] - table.pts[-2]) or stands
    end = table.pts[-1] + stands
    if stream.duration is not None and stream.start_time is not None:
        end = max(end, stream.start_time + stream.duration)
    return float((end - table.origin) * table.time_base)


def missing_part(container: Container, path: Path, frames: int, promised: int | None) -> str:
    """Return what a file promises and does not contain, in words; "" if it is complete.

    promised: the number of frames in its header. In an mp4 every packet of the index must exist,
    because ffmpeg accepts a file that ends between two packets.
    """
    if promised and frames < promised:
        return f"incomplete: {frames} of {promised} frames"
    size = path.stat().st_size
    entries = (entry for stream in container.streams for entry in stream.index_entries)
    is_mp4 = "mp4" in container.format.name
    ends = max((each.pos + each.size for each in entries if is_mp4), default=0)
    is_cut = size < max(ends, _promised_size(path))
    return f"incomplete: it ends after {size:,} bytes" if is_cut else ""


def _promised_size(path: Path) -> int:
    """Return the bytes that a Matroska or AVI file has by its own header; 0 if it does not say."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"RIFF":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != b"\x1a\x45\xdf\xa3" or (at := head.find(b"\x18\x53\x80\x67")) < 0:
        return 0
    at += 4  # the segment's size: its leading zeros tell how many bytes it has (RFC 8794, 4)
    length = 9 - head[at].bit_length() if at < len(head) and head[at] else 9
    size = int.from_bytes(head[at : at + length], "big") & ((1 << 7 * length) - 1)
    is_unknown = length > 8 or size == (1 << 7 * length) - 1
    return 0 if is_unknown else at + length + size


def pictures_of(source: FrameSource, fps: Fraction) -> Sequence[int]:
    """Return, for each frame at `fps`, the number of the clip's frame that it shows.

    A clip that is shorter than half a frame has one, too. Raises TooLarge.
    """
    return source.resampled(fps) or [0]


# --- an untrusted file ---------------------------------------------------------------------------


def read_apart(path: Path, depth: Depth = "packets", **options: Any) -> Video:
    """Read a file as `read_video` does, in a worker process, which may crash.

    Raises BadClip, Stopped.
    """
    task = (path, depth, options)
    try:
        found = _read(task) if parallel.IS_CHILD else parallel.run_apart(_read, task)
    except parallel.Crashed as crash:
        raise BadClip("undecodable", f"the decoder crashed: {crash}") from crash
    except parallel.Failed as failure:
        raise BadClip("unknown", str(failure)) from failure
    if isinstance(found, BadClip):
        raise found
    assert isinstance(found, Video)
    return found


def _read(task: tuple[Path, Depth, dict[str, Any]]) -> Video | BadClip:
    """Return a BadClip instead of raising it, so that it comes through a pipe."""
    path, depth, options = task
    try:
        return read_video(path, depth, **options)
    except BadClip as error:
        return error


def check_clip(path: Path, seconds: float, depth: Depth = "ends") -> Video:
    """Check a clip made elsewhere, `seconds` long by its name. Raises BadClip, Stopped.

    It may be shorter: the caller knows whether its source ends there.
    """
    video = read_apart(path, depth)
    if video.end < TOLERANCE and video.frames < 2:
        raise BadClip("truncated", f"{video.end:.2f} s long")
    check_length(video, seconds)
    return video


def check_length(video: Video, seconds: float) -> None:
    """Check that a clip shows no frames long after the end in its name. Raises BadClip."""
    if video.last > seconds + TOO_LONG:
        raise BadClip("undecodable", f"{video.end:.2f} s long, but its name says {seconds:g} s")


class Sound(NamedTuple):
    """An audio file as it is played: samples per second, and their number."""

    rate: int
    samples: int


def read_sound(path: Path) -> Sound:
    """Decode a file with only audio and count its samples. Raises BadClip (undecodable)."""
    with _bad_file(), media.open_clip(path) as container:
        if not container.streams:
            return Sound(1, 0)  # an mp4 that ffmpeg wrote without input
        if container.streams.video or not container.streams.audio:
            raise BadClip("undecodable", "is not an audio file")
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        rate = stream.codec_context.sample_rate
        if stream.duration is not None:
            # AAC fills up its last packet, and not every decoder removes that.
            samples = min(samples, round(stream.duration * media.time_base(stream) * rate))
        return Sound(rate, samples)


def check_sound(path: Path, seconds: float) -> Sound:
    """Check that an audio file has all samples of so many seconds. Raises BadClip."""
    sound = read_sound(path)
    if sound.samples != round(seconds * sound.rate):
        found = sound.samples / sound.rate
        raise BadClip("truncated", f"{found:.2f} s of {seconds:.2f} s found")
    return sound


# --- decoding all --------------------------------------------------------------------------------


def decode_whole(path: Path, timeout: float = 0) -> None:
    """Decode every frame of a file, video and audio. Raises BadClip (undecodable, timeout).

    Damage is what stops `ffmpeg -xerror`. ffmpeg decides if the libraries complain, because they
    complain of intact files, too (of a cut inside an open GOP). The deblocking filter finds no
    fault: without it this takes 0.6 of the CPU time of one ffmpeg per file.
    """
    import av

    shown = 0
    with (
        _bad_file(Limits(timeout=timeout)),
        media.captured_logs(av.logging.ERROR) as complaints,
        media.open_clip(path) as container,
    ):
        videos = [s for s in container.streams.video if s.codec_context][:1]
        streams = [*videos, *(s for s in container.streams.audio if s.codec_context)]
        for stream in streams:
            stream.codec_context.thread_type = "NONE"
            stream.codec_context.options = {"skip_loop_filter": "all"}
        for packet in container.demux(streams if videos else []):
            for frame in packet.decode():
                assert isinstance(frame, av.frame.Frame)  # no subtitle among the streams
                if frame.is_corrupt:
                    raise BadClip("undecodable", "does not decode: a corrupt frame")
                shown += packet.stream is videos[0]
            if complaints:
                break
    if complaints:
        picture_hashes(find_ffmpeg(), path)
    elif not shown:
        raise BadClip("undecodable", "does not decode: no frames")


def picture_hashes(tool: Ffmpeg, path: Path) -> list[str]:
    """Return the MD5 of every decoded frame, in the order shown; decode the audio, too.

    In a child process. Raises BadClip (undecodable) if `ffmpeg -xerror` stops.
    """
    argv = [tool.path, *STRICT, "-threads", "1", "-i", file_url(path)]
    argv += ["-map", "0:V:0", "-map", "0:a?", "-fps_mode", "passthrough"]
    done = run_child([*argv, "-f", "framehash", "-hash", "md5", "-"])
    if done.returncode != 0:
        raise BadClip("undecodable", f"does not decode: {last_line(done) or 'ffmpeg failed'}")
    lines = done.stdout.splitlines()
    return [line.rpartition(",")[2].strip() for line in lines if line.startswith("0,")]
