"""ffmpeg: finding it, its command lines, and what its log says.

The one place that builds an ffmpeg command line. Nothing is run here but ffmpeg's own version;
`sources` and downscale_videos.py run the lines, `video/checks` judges what comes out.
"""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg

from utils.errors import UserError
from utils.process import Finished, run_child

# For reading a file that may be a stranger's: no file it names is opened, and an error is an end.
STRICT = (
    *("-hide_banner", "-nostdin", "-nostats", "-xerror", "-loglevel", "level+error"),
    *("-protocol_whitelist", "file"),
)
OLDEST = (5, 1)  # the first release that knows -fps_mode
# In which the usual rates (24, 25, 30, 60, and 1000/1001 of them) are whole numbers of ticks.
FINE_TIME_BASE = Fraction(1, 120_000)


@dataclass(frozen=True)
class Ffmpeg:
    """An ffmpeg program, its version, and the options of its HTTP protocol.

    chosen: what --ffmpeg says. Pickled, it is found again where it arrives: on another machine
    the program of the wheel may be elsewhere.
    """

    path: str
    version: str
    http_options: frozenset[str] = frozenset()
    chosen: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return find_ffmpeg, (self.chosen,)


@dataclass(frozen=True)
class Input:
    """One input of a command line: an address or a path, and the ffmpeg options before `-i`.

    `is_fragmented`: whether the site says that it is an mp4 of fragments, with an index.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict)
    is_fragmented: bool = False


@dataclass(frozen=True)
class Encode:
    """How a clip is encoded: once, H.264 and AAC in mp4, constant quality.

    Defaults: `veryfast` takes 1.2 CPU-s for 10 s of 640x360 where x264's own `medium` takes 3.3,
    and at constant quality pays for it in bytes, not in looks. benchmarks/README.md has the
    comparison behind CRF 20.
    """

    crf: float = 20
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
    release = re.match(r"n?(\d+)\.(\d+)", found[1])  # none in a build from git, which is taken
    if release is not None and (int(release[1]), int(release[2])) < OLDEST:
        raise UserError(
            f"{path} is ffmpeg {found[1]}, and the suite works with {OLDEST[0]}.{OLDEST[1]} or"
            " newer: pip install -U -r requirements.txt, or give --ffmpeg PATH"
        )
    http = run_child([path, "-hide_banner", "-h", "protocol=http"], timeout=60)
    options = frozenset(re.findall(r"^\s+-(\w+)", http.stdout, re.MULTILINE))
    return Ffmpeg(path, found[1], options, chosen)


def require_encoder(tool: Ffmpeg, name: str) -> None:
    """Whether ffmpeg was built with an encoder. Raises UserError; takes 30 ms."""
    done = run_child([tool.path, "-hide_banner", "-h", f"encoder={name}"], timeout=60)
    if not done.stdout.startswith(f"Encoder {name} "):
        raise UserError(
            f"{tool.path} (ffmpeg {tool.version}) has no {name}:"
            " pip install -U -r requirements.txt, or give --ffmpeg PATH of one that has it"
        )


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
    Every frame that is left keeps its time, in a clip that begins at `start`.
    """
    sources = [
        ffmpeg.input(each.url, ss=_seconds(start), t=_seconds(duration), **each.options)
        for each in inputs
    ]
    streams = [sources[0]["v:0"]]
    options = encode_options(encode) | keep_times(FINE_TIME_BASE) | MP4_OPTIONS
    options["vf"] = scale_filter(encode)
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


def keep_times(time_base: Fraction) -> dict[str, object]:
    """The options that keep every frame, and its time to a tick of `time_base`.

    Left to itself ffmpeg counts in 1/rate: at variable rates frames were left out or, by ffmpeg
    5.1, doubled, and a picture of 29.97 frames a second stood up to 17 ms off its sound. Not
    `passthrough`, which fails where two frames have one time.
    """
    return {"fps_mode": "vfr", "enc_time_base:v": str(time_base)}


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

    ffmpeg turns the picture by itself. With `fps` 0 every frame keeps its time, counted in the
    source's own `time_base`.
    """
    given = ffmpeg.input(file_url(source), threads=encode.threads)
    filters = [f"scale={size[0]}:{size[1]}:flags=bicubic", "setsar=1"]
    options = encode_options(encode) | MP4_OPTIONS
    if fps:
        filters.insert(0, f"fps={fps}")
    else:
        options |= keep_times(time_base)
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


def last_line(finished: Finished) -> str:
    """What a child that failed said last on stderr, without ffmpeg's level marks."""
    lines = [line for line in finished.stderr.splitlines() if line.strip()]
    errors = [line for line in complaints(finished.stderr) if "[warning]" not in line]
    return re.sub(r"\[(error|fatal|info|warning)\] ?", "", (errors or lines or [""])[-1]).strip()


def complaints(log: str) -> list[str]:
    """The lines of ffmpeg's log that are its own warnings and errors, by their level marks."""
    own = re.compile(r"(\[[^\]]* @ 0x[0-9a-f]+\] )*\[(warning|error|fatal|panic)\]")
    return [line for line in log.splitlines() if own.match(line)]
