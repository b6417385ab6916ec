"""Find ffmpeg, build its command lines, and read its log."""

from __future__ import annotations

import functools
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg

from clipreader.media import MEDIA_FORMATS, MEDIA_PROTOCOLS
from utils.errors import UserError
from utils.process import Finished, run_child

# What ffmpeg may open, as options of an input: media, and nothing else that it names.
FROM_FILE = {"format_whitelist": MEDIA_FORMATS, "protocol_whitelist": MEDIA_PROTOCOLS}
FROM_ADDRESS = {
    "format_whitelist": f"{MEDIA_FORMATS},hls",
    "protocol_whitelist": "http,https,tls,tcp,httpproxy,crypto",
}
# -xerror: without it a source that breaks off, or a full disk, ends with exit code 0.
QUIET = ["-hide_banner", "-nostdin", "-nostats", "-xerror", "-loglevel"]
# For an untrusted file.
STRICT = [*QUIET, "level+error", "-format_whitelist", MEDIA_FORMATS]
STRICT += ["-protocol_whitelist", MEDIA_PROTOCOLS]
# Audio files by suffix: how they are written. The edit list of an .m4a hides what AAC adds to both
# ends, to a fraction of a sample.
SOUNDS: dict[str, dict[str, object]] = {
    ".m4a": {"c:a": "aac", "b:a": "128k", "f": "mp4", "movflags": "+faststart"}
    | {"movie_timescale": 120_000},
    ".wav": {"c:a": "pcm_s16le", "f": "wav"},
    ".flac": {"c:a": "flac", "sample_fmt": "s16", "f": "flac"},
}
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
OLDEST = (5, 1)  # the first release that knows -fps_mode
# In which the usual rates (24, 25, 30, 60, and 1000/1001 of them) are whole numbers of ticks.
FINE_TIME_BASE = Fraction(1, 120_000)
MP4_OPTIONS: dict[str, object] = {
    "movflags": "+faststart",
    "movie_timescale": FINE_TIME_BASE.denominator,  # of edit lists; otherwise milliseconds
    "map_metadata": -1,
    "map_chapters": -1,
    "f": "mp4",
}
# Audio that begins late is preceded by silence, because the clip would otherwise begin with it;
# times that run backwards are corrected. The encoder refuses other layouts, such as 6.1.
AAC_OPTIONS: dict[str, object] = {
    "c:a": "aac",
    "b:a": "128k",
    "af": "aresample=async=1:first_pts=0,aformat=channel_layouts=mono|stereo|3.0|4.0|5.0|5.1|7.1",
}


@dataclass(frozen=True)
class Ffmpeg:
    """An ffmpeg program, its version, and the options of its HTTP protocol.

    chosen: the value of --ffmpeg. Unpickling finds the program again, because another machine may
    have the wheel's program elsewhere.
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

    is_fragmented: whether the site says that it is an mp4 of fragments, with an index.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict)
    is_fragmented: bool = False

    @property
    def is_file(self) -> bool:
        return self.url.startswith("file:")

    @property
    def is_part(self) -> bool:
        """Return whether times count from the whole video's zero, not from the first sample."""
        return "seek_timestamp" in self.options

    def reading(self) -> dict[str, str]:
        """Return all options before `-i`. Only media is opened, and no file that it names."""
        return {**(FROM_FILE if self.is_file else FROM_ADDRESS), **self.options}


@dataclass(frozen=True)
class Encode:
    """How a clip is encoded: once, H.264 and AAC in mp4, constant quality.

    The default preset takes 1.2 CPU-s for 10 s of 640x360, x264's own `medium` 3.3; at constant
    quality the files are larger, not worse. CRF 20: see benchmarks/README.md. sound: the suffix of
    an audio file, one of SOUNDS, without video. sample_rate: of an audio file; None keeps it.
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
    sound: str = ""
    sample_rate: int | None = None

    @property
    def suffix(self) -> str:
        """Return the suffix of a clip's file."""
        return self.sound or ".mp4"

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the suffixes of files that a clip may be made of."""
        return (".mp4", *SOUNDS) if self.sound else (".mp4",)

    @property
    def changes_clips(self) -> bool:
        """Return whether a clip made elsewhere must be re-encoded to match the options."""
        return bool(self.short_side or self.keyint or not self.audio)


@dataclass(frozen=True)
class CutTask:
    """A clip to cut: `seconds` from `start` on, written to `target`.

    run: runs a command line, with a time limit. inputs: one with video and audio, or one of each.
    known_end: where the video ends, in seconds, if that was measured.
    """

    run: Callable[[Sequence[str]], Finished]
    tool: Ffmpeg
    inputs: Sequence[Input]
    start: float
    seconds: float
    encode: Encode
    target: Path
    known_end: float | None = None

    @property
    def begin(self) -> Fraction:
        return exact(self.start)

    @property
    def end(self) -> Fraction:
        return exact(self.start) + exact(self.seconds)


def exact(seconds: float) -> Fraction:
    """Return the decimal that a float was written as."""
    return Fraction(repr(float(seconds)))


def ticks(seconds: Fraction) -> int:
    """Return seconds in the time base of a cut, halves up."""
    return math.floor(seconds / FINE_TIME_BASE + Fraction(1, 2))


# --- the program ---------------------------------------------------------------------------------


@functools.cache
def find_ffmpeg(chosen: str | None = None) -> Ffmpeg:
    """Return the ffmpeg to use: `chosen`, or imageio-ffmpeg's, or the one on PATH.

    Raises UserError if there is none, or if it does not run.
    """
    path = chosen
    if path is None:
        with suppress(ImportError, RuntimeError):
            import imageio_ffmpeg

            path = str(imageio_ffmpeg.get_ffmpeg_exe())
    path = path or shutil.which("ffmpeg")
    if path is None:
        raise UserError("ffmpeg not found: pip install -r requirements.txt, or give --ffmpeg PATH")
    path = shutil.which(path) or path
    version = run_child([path, "-hide_banner", "-version"], timeout=60)
    found = re.match(r"ffmpeg version (\S+)", version.stdout)
    if version.returncode != 0 or found is None:
        raise UserError(f"{path} does not run as ffmpeg: {last_line(version) or 'no version'}")
    release = re.match(r"n?(\d+)\.(\d+)", found[1])  # a build from git has none, and is accepted
    if release is not None and (int(release[1]), int(release[2])) < OLDEST:
        raise UserError(
            f"{path} is ffmpeg {found[1]}, and the suite works with {OLDEST[0]}.{OLDEST[1]} or"
            " newer: pip install -U -r requirements.txt, or give --ffmpeg PATH"
        )
    http = run_child([path, "-hide_banner", "-h", "protocol=http"], timeout=60)
    options = frozenset(re.findall(r"^\s+-(\w+)", http.stdout, re.MULTILINE))
    return Ffmpeg(path, found[1], options, chosen)


def require_encoder(tool: Ffmpeg, name: str) -> None:
    """Check that ffmpeg was built with an encoder. Raises UserError; takes 30 ms."""
    done = run_child([tool.path, "-hide_banner", "-h", f"encoder={name}"], timeout=60)
    if not done.stdout.startswith(f"Encoder {name} "):
        raise UserError(
            f"{tool.path} (ffmpeg {tool.version}) has no {name}:"
            " pip install -U -r requirements.txt, or give --ffmpeg PATH of one that has it"
        )


# --- command lines -------------------------------------------------------------------------------


def cut_command(task: CutTask, seek: Fraction, first: int | None = None) -> list[str]:
    """Return the command line that cuts the frames with start <= t < end, each at t - start.

    `t` counts from a player's zero. The frames are selected by their own times. The packets that
    ffmpeg read of the inputs are listed on stdout (`cut.read_packets`).

    seek: where reading begins: at the clip's start or before. first: the tick of a frame before the
    start that the clip shows from 0 on, instead.
    """
    encode, inputs = task.encode, task.inputs
    # No -t: before -i it counts from the first frame that arrives, and keeps frames from after
    # the end. No accurate seek: it would trim by the file's own beginning, which a part lacks.
    # No -ss 0: ffmpeg would seek, and may arrive behind the first keyframe.
    before = {"ss": _seconds(seek), "noaccurate_seek": None} if seek else {}
    sources = [ffmpeg.input(_hidden(each.url), **before, **each.reading()) for each in inputs]
    start, begin, end = _seconds(task.begin), ticks(task.begin), ticks(task.end)
    zero = begin if first is None else first
    options = encode_options(encode) | keep_times(FINE_TIME_BASE) | MP4_OPTIONS
    options["vf"] = (
        f"settb={FINE_TIME_BASE},trim=start_pts={zero}:end_pts={end},"
        f"setpts=PTS-{zero},{scale_filter(encode)}"
    )
    if task.known_end is not None:
        # The last frame is shown until the clip ends, and no longer.
        shown = min(end, ticks(exact(task.known_end))) - begin
        options["bsf:v"] = f"setts=pts=PTS:dts=DTS:duration=max(1\\,{shown}-PTS)"
    streams = [sources[0]["V:0"]]
    if encode.audio:
        streams.append(sources[1]["a:0"] if len(sources) > 1 else sources[0]["a:0?"])
        trim = f"atrim=start={start}:end={_seconds(task.end)}"
        options |= AAC_OPTIONS
        options["af"] = f"{trim},asetpts=PTS-{start}/TB,{options['af']}"
    clip = ffmpeg.output(*streams, _hidden(file_url(task.target)), **options)
    log = {"c": "copy", "copyinkf": None, "to": _seconds(task.end), "f": "framecrc"}
    # Matroska has no dts, and those that ffmpeg makes up may fall, which ends a run with -xerror.
    log |= {f"bsf:{kind}": "setts=pts=PTS:dts=N-1e12" for kind in "va"[: len(streams)]}
    packets = ffmpeg.output(*streams, "pipe:1", **log)
    return _command(task.tool, ffmpeg.merge_outputs(clip, packets), _time_flags(inputs))


def sound_command(task: CutTask, rate: int, *, resample: bool) -> list[str]:
    """Return the command line that cuts the samples with start <= t < end, at `rate` per second.

    Reading begins a second or two earlier, on a whole second, because decoders and resamplers need
    earlier samples, and the samples of all rates coincide there. Gaps, and a missing beginning,
    become silence.
    """
    first = max(0, math.floor(task.begin) - 1)
    source = task.inputs[0]
    given = ffmpeg.input(
        _hidden(source.url), ss=str(first), noaccurate_seek=None, **source.reading()
    )
    begin = math.ceil((task.begin - first) * rate)
    filters = [
        f"atrim=start={first}:end={math.ceil(task.end) + 1}",
        f"asetpts=round(PTS-{first}/TB)",
        "aresample=async=1:first_pts=0:min_comp=0",
        *([f"aresample={rate}"] if resample else []),
        f"atrim=start_sample={begin}:end_sample={begin + round(exact(task.seconds) * rate)}",
        "asetpts=N",
        "asetnsamples=4096:p=0",  # the flac encoder refuses a first frame of a few samples
    ]
    if task.encode.sound == ".m4a":
        filters.append(str(AAC_OPTIONS["af"]))
    options = {**SOUNDS[task.encode.sound], "map_metadata": -1, "map_chapters": -1}
    options["af"] = ",".join(filters)
    clip = ffmpeg.output(given["a:0"], _hidden(file_url(task.target)), **options)
    return _command(task.tool, clip, _time_flags([source]))


def file_command(
    tool: Ffmpeg,
    source: Path,
    target: Path,
    before: Mapping[str, object],
    options: Mapping[str, object],
    audio: bool,
) -> list[str]:
    """Return the command line that makes a file of the first video, and audio, of another.

    before: options of the source.
    """
    given = ffmpeg.input(_hidden(file_url(source)), **before, **FROM_FILE)
    streams = [given["V:0"], given["a:0?"]] if audio else [given["V:0"]]
    return _command(tool, ffmpeg.output(*streams, _hidden(file_url(target)), **options))


def encode_options(encode: Encode) -> dict[str, object]:
    """Return the encoder's options: codec, quality, GOP."""
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
        # No keyframes at scene cuts, because they would come on top of the regular ones.
        options |= {"g": encode.keyint, "keyint_min": encode.keyint, "sc_threshold": 0}
    return options


def keep_times(time_base: Fraction) -> dict[str, object]:
    """Return the options that keep every frame, and its time to a tick of `time_base`.

    By default ffmpeg counts in 1/rate: at variable rates frames were left out or, by ffmpeg 5.1,
    doubled, and video of 29.97 frames per second was up to 17 ms off its audio. Not `passthrough`,
    which fails if two frames have one time.
    """
    return {"fps_mode": "vfr", "enc_time_base:v": str(time_base)}


def scale_filter(encode: Encode) -> str:
    """Return the scale filter of an encode: even sides (4:2:0 needs them), the aspect kept.

    `short_side` sets the shorter side, and `max_height` limits it. Neither enlarges a video without
    `upscale`.
    """
    limit = encode.short_side or encode.max_height
    side = f"min({limit},min(iw,ih))" if limit else "min(iw,ih)"
    if encode.short_side and encode.upscale:
        side = f"{limit}"
    side = f"trunc({side}/2)*2"
    return f"scale=w='if(lte(iw,ih),{side},-2)':h='if(lte(iw,ih),-2,{side})':flags=bicubic"


def file_url(path: Path) -> str:
    """Return a path for ffmpeg: `file:` and absolute, because in `a:b.mp4` `a` is a protocol."""
    return f"file:{path.absolute()}"


def _command(tool: Ffmpeg, output: Any, flags: Sequence[str] = ()) -> list[str]:
    words = output.overwrite_output().compile()[1:]
    return [tool.path, *QUIET, "level+info", *flags, *map(_shown, words)]


def _time_flags(inputs: Sequence[Input]) -> list[str]:
    is_part = any(each.is_part for each in inputs)
    return ["-copyts"] if is_part else ["-copyts", "-start_at_zero"]


def _hidden(url: str) -> str:
    """Return a path for ffmpeg-python, which fails at bytes that are not UTF-8."""
    return "".join(chr(0x100000 + ord(c)) if "\udc80" <= c <= "\udcff" else c for c in url)


def _shown(word: str) -> str:
    return "".join(chr(ord(c) - 0x100000) if "\U0010dc80" <= c <= "\U0010dcff" else c for c in word)


def _seconds(value: Fraction) -> str:
    return f"{float(value):.6f}".rstrip("0").rstrip(".")


# --- the log -------------------------------------------------------------------------------------


def read_duration(log: str) -> float:
    """Return the first input's seconds from ffmpeg's log; infinity if unknown."""
    # Anchored, because the log also has titles and comments of the source, which may say the same.
    inputs = re.split(r"^(?:\[info\] *)?Output #", log, maxsplit=1, flags=re.MULTILINE)[0]
    time = r"^(?:\[info\])? *Duration: (\d+):(\d\d):(\d\d\.\d+)"
    found = re.search(time, inputs, re.MULTILINE)
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else math.inf


def last_line(finished: Finished) -> str:
    """Return the last line of a failed child's stderr, without ffmpeg's level marks."""
    lines = finished.stderr.strip().splitlines() or [""]
    errors = [line for line in complaints(finished.stderr) if "[warning]" not in line]
    return re.sub(r"\[(error|fatal|info|warning)\] ?", "", (errors or lines)[-1]).strip()


def complaints(log: str) -> list[str]:
    """Return the lines of ffmpeg's log that are its own warnings and errors, by their marks."""
    own = re.compile(r"(\[[^\]]* @ 0x[0-9a-f]+\] )*\[(warning|error|fatal|panic)\]")
    return [line for line in log.splitlines() if own.match(line)]
