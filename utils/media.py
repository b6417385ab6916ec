"""Video files: finding ffmpeg, the command lines for it, probing, and the checks of a clip.

The one place that builds an ffmpeg command line. ffmpeg's exit code proves nothing (half a source,
a full disk and a seek past the end all give 0), so every file it writes is checked here.
"""

from __future__ import annotations

import functools
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg

from utils.cli import UserError
from utils.process import Finished, run_child
from utils.pyav import open_video, ratio

DURATION_TOLERANCE = 0.1  # seconds by which a whole clip may differ from what was asked for


# What may stand in an mp4 that common players and decoders read. By names of decoders.
MP4_VIDEO = frozenset({"h264", "hevc", "av1", "libdav1d", "vp9", "libvpx-vp9", "mpeg4"})
MP4_AUDIO = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus", "alac", "flac"})

# For reading a file that may be a stranger's: no file it names is opened, and an error is an end.
_STRICT = (
    *("-hide_banner", "-nostdin", "-nostats", "-xerror", "-loglevel", "level+error"),
    *("-protocol_whitelist", "file"),
)


class BadClip(Exception):
    """A file that is not the clip it should be. `reason` is one of the report's reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both, or it would not come through a pipe
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


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

    crf: float = 18
    preset: str = "veryfast"
    codec: str = "libx264"
    tune: str | None = None
    x264_params: str | None = None
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
    options = encode_options(encode) | {"vf": scale_filter(encode), **MP4_OPTIONS}
    if encode.audio:
        streams.append(sources[1]["a:0"] if len(sources) > 1 else sources[0]["a:0?"])
        options |= AAC_OPTIONS
    return _command(tool, ffmpeg.output(*streams, file_url(target), **options))


MP4_OPTIONS: dict[str, object] = {"movflags": "+faststart", "map_metadata": -1, "f": "mp4"}
AAC_OPTIONS: dict[str, object] = {"c:a": "aac", "b:a": "128k"}


def encode_options(encode: Encode) -> dict[str, object]:
    """The encoder's part of a command line: codec, quality, GOP."""
    options: dict[str, object] = {
        "c:v": encode.codec,
        "preset": encode.preset,
        "crf": encode.crf,
        "threads": encode.threads,
        "pix_fmt": "yuv420p",
    }
    if encode.codec == "libx265":
        options |= {"tag:v": "hvc1", "x265-params": "log-level=error:pools=none:frame-threads=1"}
    elif encode.x264_params:
        options["x264-params"] = encode.x264_params
    if encode.tune:
        options["tune"] = encode.tune
    if encode.keyint:
        # No scene-cut key frames: they would come on top, and a regular GOP is what was asked for.
        options |= {"g": encode.keyint, "keyint_min": encode.keyint, "sc_threshold": 0}
    return options


def _command(tool: Ffmpeg, output: Any) -> list[str]:
    # -xerror: without it a source that breaks off, or a full disk, ends with exit code 0.
    flags = ["-hide_banner", "-nostdin", "-nostats", "-xerror", "-loglevel", "level+info"]
    return [tool.path, *flags, *output.overwrite_output().compile()[1:]]


def downscale_command(
    tool: Ffmpeg,
    source: Path,
    size: tuple[int, int],
    encode: Encode,
    target: Path,
    *,
    fps: Fraction = Fraction(0),
    time_base: Fraction = Fraction(1, 90_000),
    copy_audio: bool = False,
) -> list[str]:
    """The command line that encodes a whole file anew at `size` (as shown, even sides).

    ffmpeg turns the picture by itself. With `fps` 0 every frame keeps its time: `passthrough`
    neither doubles nor drops, and the encoder counts in the source's own `time_base`, or ffmpeg
    would round variable rates to 1/rate.
    """
    given = ffmpeg.input(file_url(source), threads=encode.threads)
    filters = [f"scale={size[0]}:{size[1]}:flags=bicubic", "setsar=1"]
    options = encode_options(encode) | MP4_OPTIONS
    if fps:
        filters.insert(0, f"fps={fps}")
    else:
        options |= {"fps_mode": "passthrough", "enc_time_base": str(time_base)}
    options["vf"] = ",".join(filters)
    streams = [given["V:0"]]
    if encode.audio:
        streams.append(given["a:0?"])
        options |= {"c:a": "copy"} if copy_audio else AAC_OPTIONS
    return _command(tool, ffmpeg.output(*streams, file_url(target), **options))


def rewrap_command(
    tool: Ffmpeg, source: Path, target: Path, *, audio: bool, copy_audio: bool
) -> list[str]:
    """The command line that puts a file's picture, untouched, into a faststart mp4."""
    given = ffmpeg.input(file_url(source))
    streams, options = [given["V:0"]], {"c:v": "copy", **MP4_OPTIONS}
    if audio:
        streams.append(given["a:0?"])
        options |= {"c:a": "copy"} if copy_audio else AAC_OPTIONS
    return _command(tool, ffmpeg.output(*streams, file_url(target), **options))


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
    # Anchored, for a title or a comment of the source is in the log too, and may hold such words.
    inputs = re.split(r"^(?:\[info\] *)?Output #", log, maxsplit=1, flags=re.MULTILINE)[0]
    time = r"^(?:\[info\])? *Duration: (\d+):(\d\d):(\d\d\.\d+)"
    found = re.search(time, inputs, re.MULTILINE)
    duration = None
    if found is not None:
        duration = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    sound = r"^(?:\[info\])? *Stream #\d+:\d+\S*: Audio:"
    return Source(duration, re.search(sound, inputs, re.MULTILINE) is not None)


def measure_end(tool: Ffmpeg, path: Path, timeout: float | None = None) -> float:
    """Where the picture of a file ends, in seconds, by its packets and not by its header.

    In a child process, for the file is a stranger's. Raises BadClip where the file breaks off.
    """
    argv = [tool.path, *_STRICT]
    argv += ["-i", file_url(path), "-map", "0:v:0", "-c", "copy"]
    done = run_child([*argv, "-f", "framecrc", "-"], timeout=timeout)
    base = re.search(r"^#tb 0: (\d+)/(\d+)$", done.stdout, re.MULTILINE)
    # Lines of framecrc: stream, dts, pts, duration, size, checksum.
    lines = re.finditer(r"^0, *-?\d+, *(-?\d+), *(\d+),", done.stdout, re.MULTILINE)
    end = max((int(line[1]) + int(line[2]) for line in lines), default=None)
    if done.timed_out:
        raise BadClip("timeout", "reading it does not come to an end")
    if base is None or end is None:
        raise BadClip("undecodable", last_line(done) or "no picture in it")
    if done.returncode != 0:
        raise BadClip("truncated", f"breaks off: {last_line(done)}")
    return end * int(base[1]) / int(base[2])


def last_line(finished: Finished) -> str:
    """What a child that failed said last on stderr, without ffmpeg's level marks."""
    lines = [line for line in finished.stderr.splitlines() if line.strip()]
    errors = [line for line in complaints(finished.stderr) if "[warning]" not in line]
    return re.sub(r"\[(error|fatal|info|warning)\] ?", "", (errors or lines or [""])[-1]).strip()


def complaints(log: str) -> list[str]:
    """The lines of ffmpeg's log that are its own warnings and errors, by their level marks."""
    own = re.compile(r"(\[[^\]]* @ 0x[0-9a-f]+\] )*\[(warning|error|fatal|panic)\]")
    return [line for line in log.splitlines() if own.match(line)]


def probe(path: Path) -> Probe:
    """Read a file's packets (no decoding; 2 to 4 ms a clip). Raises BadClip (undecodable)."""
    import av

    try:
        with open_video(path) as container:
            if not container.streams.video:
                raise BadClip("undecodable", "no video stream")
            stream = container.streams.video[0]
            base = ratio(stream.time_base) or Fraction(1, 1)
            times = [
                (packet.pts, packet.duration or 0)
                for packet in container.demux(stream)
                if packet.pts is not None and not packet.is_discard
            ]
            if not times:
                raise BadClip("undecodable", "a video stream without frames")
            rate = ratio(stream.average_rate) or ratio(stream.guessed_rate) or Fraction(0)
            return Probe(
                width=stream.codec_context.width,
                height=stream.codec_context.height,
                fps=rate,
                frames=len(times),
                start=float(min(pts for pts, _ in times) * base),
                end=float(max(pts + length for pts, length in times) * base),
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
        with open_video(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # the workers are the threads
            packets = [p for p in container.demux(stream) if p.pts is not None]
            last_shown = max(p.pts for p in packets if p.pts is not None)
            last_key = max(p.pts for p in packets if p.is_keyframe and p.pts is not None)
        with open_video(path) as container:
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


def check_complete(path: Path) -> None:
    """Whether the packets that a file promises are all there. Raises BadClip (truncated).

    ffmpeg says nothing of a file that ends between two packets: it decodes what there is and exits
    with 0. An mp4 lists its packets beforehand; other containers tell their duration.
    """
    import av

    counts: Counter[int] = Counter()
    end = 0.0
    try:
        with open_video(path) as container:
            streams = [*container.streams.video[:1], *container.streams.audio[:1]]
            for packet in container.demux(streams):
                counts[packet.stream_index] += packet.dts is not None
                base = ratio(packet.time_base)
                if packet.pts is not None and base is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * base))
            if "mp4" in container.format.name:
                for stream in streams:
                    there, promised = counts[stream.index], len(stream.index_entries)
                    if there < promised:
                        raise BadClip("truncated", f"cut off: {there} of {promised} packets")
            elif container.duration and end < container.duration / av.time_base - 0.5:
                promised_end = container.duration / av.time_base
                raise BadClip("truncated", f"cut off: {end:.2f} s of {promised_end:.2f}")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClip("undecodable", f"cannot be read: {error}") from error


def rewrap_problem(path: Path) -> str:
    """Why a file's streams do not go into an mp4 as they are; "" when they do. Raises BadClip."""
    import av

    try:
        with open_video(path) as container:
            streams = [*container.streams.video[:1], *container.streams.audio[:1]]
            names = [stream.codec_context.name for stream in streams]
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClip("undecodable", f"cannot be read: {error}") from error
    wrong = [name for name in names if name not in MP4_VIDEO | MP4_AUDIO]
    return f"{' and '.join(wrong)} cannot go into an mp4 without encoding anew" if wrong else ""


def rewrap(tool: Ffmpeg, source: Path, target: Path) -> None:
    """Put the streams of a file into an mp4, packet by packet, and check that nothing is changed.

    The first picture and the first sound go over. Raises BadClip when the mp4 does not decode to
    the very pictures of `source`, at its length (an AVI without time stamps may not).
    """
    argv = [tool.path, *_STRICT]
    argv += ["-i", file_url(source), "-map", "0:v:0", "-map", "0:a:0?", "-c", "copy"]
    argv += ["-map_metadata", "-1", "-movflags", "+faststart", "-f", "mp4", "-y", file_url(target)]
    finished = run_child(argv)
    if finished.returncode != 0:
        raise BadClip("undecodable", f"cannot be re-wrapped: {last_line(finished)}")
    check_same_pictures(tool, source, target)


def check_same_pictures(tool: Ffmpeg, source: Path, target: Path) -> None:
    """Whether two files decode whole, to the same pictures in the same time. Raises BadClip."""
    decode_whole(tool, target)
    if picture_hashes(tool, source) != picture_hashes(tool, target):
        raise BadClip("undecodable", "re-wrapped, it shows other pictures")
    before, after = probe(source), probe(target)
    if abs((before.end - before.start) - (after.end - after.start)) > DURATION_TOLERANCE:
        raise BadClip(
            "undecodable", f"re-wrapped, it lasts {after.end:.2f} s, not {before.end:.2f}"
        )
    if before.has_audio and not after.has_audio:
        raise BadClip("undecodable", "re-wrapped, it has lost its sound")


def picture_hashes(tool: Ffmpeg, path: Path) -> list[str]:
    """The MD5 of every decoded picture, in the order shown. Raises BadClip (undecodable)."""
    argv = [tool.path, *_STRICT]
    argv += ["-threads", "1", "-i", file_url(path), "-map", "0:v:0", "-fps_mode", "passthrough"]
    finished = run_child([*argv, "-f", "framehash", "-hash", "md5", "-"])
    if finished.returncode != 0:
        raise BadClip("undecodable", f"does not decode: {last_line(finished) or 'ffmpeg failed'}")
    lines = finished.stdout.splitlines()
    return [line.rpartition(",")[2].strip() for line in lines if not line.startswith("#")]


def decode_whole(tool: Ffmpeg, path: Path, timeout: float | None = None) -> None:
    """Decode every frame of a file, in a child process. Raises BadClip (undecodable)."""
    argv = [tool.path, *_STRICT]
    argv += ["-threads", "1", "-i", file_url(path), "-map", "0:v:0", "-map", "0:a?"]
    finished = run_child([*argv, "-f", "null", "-"], timeout=timeout)
    if finished.timed_out:
        raise BadClip("undecodable", "decoding does not come to an end")
    if finished.returncode != 0 or finished.stderr.strip():
        raise BadClip("undecodable", f"does not decode: {last_line(finished) or 'ffmpeg failed'}")
