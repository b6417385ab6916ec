"""Video files: finding ffmpeg, the command lines for it, probing, and the checks of a clip.

The one place that builds an ffmpeg command line. ffmpeg's exit code proves nothing (half a source,
a full disk and a seek past the end all give 0), so every file it writes is checked here.
"""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import ffmpeg

from utils.cli import UserError
from utils.process import Finished, run_child

DURATION_TOLERANCE = 0.1  # seconds by which a whole clip may differ from what was asked for


class BadClip(Exception):
    """A file that is not the clip it should be. `reason` is one of the report's reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Ffmpeg:
    """An ffmpeg program, its version, and the options of its HTTP protocol."""

    path: str
    version: str
    http_options: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Input:
    """One input of a command line: an address or a path, and the ffmpeg options before `-i`."""

    url: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Encode:
    """How a clip is encoded: once, H.264 and AAC in mp4, constant quality.

    Defaults: `veryfast` takes 1.2 CPU-s for 10 s of 640x360 where x264's own `medium` takes 3.3,
    and at constant quality pays for it in bytes, not in looks. benchmarks/README.md has the
    comparison behind CRF 18.
    """

    crf: int = 18
    preset: str = "veryfast"
    keyint: int | None = None
    short_side: int | None = None
    upscale: bool = False
    max_height: int | None = None
    audio: bool = True
    threads: int = 1

    @property
    def changes_clips(self) -> bool:
        """Whether a clip that somebody else cut has to be encoded anew to be as asked for."""
        return bool(self.short_side or self.keyint or not self.audio)


@dataclass(frozen=True)
class Probe:
    """A video file as its packets tell it. Times in seconds, on the clock a player shows."""

    width: int
    height: int
    fps: Fraction
    frames: int
    start: float
    end: float
    container_duration: float | None
    has_audio: bool

    @property
    def duration(self) -> float:
        return self.end


@dataclass(frozen=True)
class Source:
    """What ffmpeg's log tells of its inputs: the first one's seconds (None: unknown), and sound."""

    duration: float | None
    has_audio: bool


@functools.cache
def find_ffmpeg(chosen: str | None = None) -> Ffmpeg:
    """The ffmpeg to use: `chosen`, else that of imageio-ffmpeg's wheel, else the one on PATH.

    Raises UserError when there is none, or when it does not run.
    """
    path = chosen or _ffmpeg_of_wheel() or shutil.which("ffmpeg")
    if path is None:
        raise UserError("ffmpeg not found: pip install -r requirements.txt, or give --ffmpeg PATH")
    path = shutil.which(path) or path
    version = run_child([path, "-hide_banner", "-version"], timeout=60)
    found = re.match(r"ffmpeg version (\S+)", version.stdout)
    if version.returncode != 0 or found is None:
        raise UserError(f"{path} does not run as ffmpeg: {last_line(version) or 'no version'}")
    http = run_child([path, "-hide_banner", "-h", "protocol=http"], timeout=60)
    options = frozenset(re.findall(r"^\s+-(\w+)", http.stdout, re.MULTILINE))
    return Ffmpeg(path, found[1], options)


def _ffmpeg_of_wheel() -> str | None:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def cut_command(
    tool: Ffmpeg,
    inputs: Sequence[Input],
    start: float,
    duration: float,
    encode: Encode,
    target: Path,
) -> list[str]:
    """The command line that cuts `duration` seconds at `start` and encodes them, frame-exactly.

    With two inputs the first gives the picture and the second the sound. `-ss` before `-i` with a
    re-encode is exact: ffmpeg seeks to the key frame before, decodes, and drops what is too early.
    """
    sources = [
        ffmpeg.input(each.url, ss=_seconds(start), t=_seconds(duration), **each.options)
        for each in inputs
    ]
    streams = [sources[0]["v:0"]]
    options: dict[str, object] = {
        "c:v": "libx264",
        "preset": encode.preset,
        "crf": encode.crf,
        "threads": encode.threads,
        "pix_fmt": "yuv420p",
        "vf": scale_filter(encode),
        "movflags": "+faststart",
        "map_metadata": -1,
        "f": "mp4",
    }
    if encode.keyint:
        # No scene-cut key frames: they would come on top, and a regular GOP is what was asked for.
        options |= {"g": encode.keyint, "keyint_min": encode.keyint, "sc_threshold": 0}
    if encode.audio:
        streams.append(sources[1]["a:0"] if len(sources) > 1 else sources[0]["a:0?"])
        options |= {"c:a": "aac", "b:a": "128k"}
    output = ffmpeg.output(*streams, file_url(target), **options).overwrite_output()
    # -xerror: without it a source that breaks off, or a full disk, ends with exit code 0.
    flags = ["-hide_banner", "-nostdin", "-nostats", "-xerror", "-loglevel", "level+info"]
    return [tool.path, *flags, *output.compile()[1:]]


def scale_filter(encode: Encode) -> str:
    """The scale filter of an encode: even sides (4:2:0 needs them), the aspect kept.

    `short_side` sets the shorter side, whichever it is, and never makes a picture larger without
    `upscale`; else `max_height` bounds the height.
    """
    if encode.short_side:
        side = f"{encode.short_side}" if encode.upscale else f"min({encode.short_side},min(iw,ih))"
        side = f"trunc({side}/2)*2"
        return f"scale=w='if(lte(iw,ih),{side},-2)':h='if(lte(iw,ih),-2,{side})':flags=bicubic"
    height = f"min({encode.max_height},ih)" if encode.max_height else "ih"
    return f"scale=w=-2:h='trunc({height}/2)*2':flags=bicubic"


def file_url(path: Path) -> str:
    """A path as ffmpeg takes it: `file:` and absolute, or `a:b.mp4` would be a protocol `a`."""
    return f"file:{path.absolute()}"


def _seconds(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def read_source(log: str) -> Source:
    """The first input's duration, and whether any input has sound, from ffmpeg's log."""
    inputs = log.split("\nOutput #")[0].split("[info] Output #")[0]
    found = re.search(r"Duration: (\d+):(\d\d):(\d\d\.\d+)", inputs)
    duration = None
    if found is not None:
        duration = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    return Source(duration, re.search(r"Stream #\d+:\d+.*: Audio:", inputs) is not None)


def measure_end(tool: Ffmpeg, path: Path, timeout: float | None = None) -> float:
    """Where the picture of a file ends, in seconds, by its packets and not by its header.

    In a child process, for the file is a stranger's. Raises BadClip where the file breaks off.
    """
    argv = [
        tool.path,
        "-hide_banner",
        "-nostdin",
        "-nostats",
        "-xerror",
        "-loglevel",
        "level+error",
    ]
    argv += ["-protocol_whitelist", "file", "-i", file_url(path), "-map", "0:v:0", "-c", "copy"]
    done = run_child([*argv, "-f", "framecrc", "-"], timeout=timeout)
    base = re.search(r"^#tb 0: (\d+)/(\d+)$", done.stdout, re.MULTILINE)
    # Lines of framecrc: stream, dts, pts, duration, size, checksum.
    times = re.findall(r"^0, *-?\d+, *(-?\d+), *(\d+),", done.stdout, re.MULTILINE)
    if done.timed_out:
        raise BadClip("timeout", "reading it does not come to an end")
    if base is None or not times:
        raise BadClip("undecodable", last_line(done) or "no picture in it")
    if done.returncode != 0:
        raise BadClip("truncated", f"breaks off: {last_line(done)}")
    return max(int(pts) + int(length) for pts, length in times) * int(base[1]) / int(base[2])


def last_line(finished: Finished) -> str:
    """What a child that failed said last on stderr, without ffmpeg's level marks."""
    lines = [line for line in finished.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "[error]" in line or "[fatal]" in line]
    return re.sub(r"\[(error|fatal|info|warning)\] ?", "", (errors or lines or [""])[-1]).strip()


def probe(path: Path) -> Probe:
    """Read a file's packets (no decoding; 2 to 4 ms a clip). Raises BadClip (undecodable)."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadClip("undecodable", "no video stream")
            stream = container.streams.video[0]
            base = stream.time_base or Fraction(1, 1)
            times = [
                (packet.pts, packet.duration or 0)
                for packet in container.demux(stream)
                if packet.pts is not None and not packet.is_discard
            ]
            if not times:
                raise BadClip("undecodable", "a video stream without frames")
            rate = stream.average_rate or stream.guessed_rate or Fraction(0)
            duration = container.duration
            return Probe(
                width=stream.codec_context.width,
                height=stream.codec_context.height,
                fps=Fraction(rate),
                frames=len(times),
                start=float(min(pts for pts, _ in times) * base),
                end=float(max(pts + length for pts, length in times) * base),
                container_duration=None if duration is None else duration / av.time_base,
                has_audio=bool(container.streams.audio),
            )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClip("undecodable", f"cannot be read: {error}") from error


def decode_ends(path: Path) -> None:
    """Decode a file at its beginning, and from its last key frame on to the end.

    Raises BadClip: `undecodable` where it does not decode, `truncated` where frames that the
    container promises do not come out.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # the workers are the threads
            packets = [p for p in container.demux(stream) if p.pts is not None]
            last_shown = max(p.pts for p in packets if p.pts is not None)
            last_key = max(p.pts for p in packets if p.is_keyframe and p.pts is not None)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            if next(iter(container.decode(stream)), None) is None:
                raise BadClip("undecodable", "the first frame does not decode")
            container.seek(last_key, stream=stream, backward=True)
            decoded = [frame.pts for frame in container.decode(stream) if frame.pts is not None]
        if not decoded or max(decoded) < last_shown:
            raise BadClip("truncated", "the last frames do not decode")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClip("undecodable", f"does not decode: {error}") from error


def check_length(found: Probe, expected: float) -> None:
    """Whether a clip is as long as it should be, in seconds. Raises BadClip (truncated).

    At low frame rates the last frame may end one frame interval early; that is no truncation.
    """
    tolerance = max(DURATION_TOLERANCE, 1.5 / float(found.fps) if found.fps else 0.0)
    if found.end < expected - tolerance:
        raise BadClip("truncated", f"{found.end:.2f} s where {expected:.2f} s were to be had")


def check_clip(path: Path, expected: float, wants_audio: bool) -> Probe:
    """Check a clip that was just cut: picture, duration, sound, both ends decode. Raises BadClip.

    `expected`: the seconds that its source could give.
    """
    found = probe(path)
    check_length(found, expected)
    if found.end > expected + max(DURATION_TOLERANCE, 2 / float(found.fps or 1)):
        raise BadClip("undecodable", f"{found.end:.2f} s where {expected:.2f} s were asked for")
    if wants_audio and not found.has_audio:
        raise BadClip("truncated", "the sound is missing")
    decode_ends(path)
    return found


def decode_whole(tool: Ffmpeg, path: Path, timeout: float | None = None) -> None:
    """Decode every frame of a file, in a child process. Raises BadClip (undecodable)."""
    argv = [
        tool.path,
        "-hide_banner",
        "-nostdin",
        "-nostats",
        "-xerror",
        "-loglevel",
        "level+error",
    ]
    argv += ["-threads", "1", "-i", file_url(path), "-map", "0:v:0", "-map", "0:a?"]
    finished = run_child([*argv, "-f", "null", "-"], timeout=timeout)
    if finished.timed_out:
        raise BadClip("undecodable", "decoding does not come to an end")
    if finished.returncode != 0 or finished.stderr.strip():
        raise BadClip("undecodable", f"does not decode: {last_line(finished) or 'ffmpeg failed'}")
