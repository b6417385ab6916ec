"""Find ffmpeg, build its command lines, and read its log."""

from __future__ import annotations

import functools
import math
import re
import shutil
from collections.abc import Mapping, Sequence
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
# What Python has for bytes that are not UTF-8 <-> characters that nobody uses.
_HIDDEN = {0xDC00 + byte: 0x10FF00 + byte for byte in range(0x80, 0x100)}
_SHOWN = {hidden: byte for byte, hidden in _HIDDEN.items()}
# For reading a file that may be a stranger's: an error is an end.
QUIET = ("-hide_banner", "-nostdin", "-nostats", "-xerror", "-loglevel")
STRICT = [*QUIET, "level+error"]
for _name, _value in FROM_FILE.items():
    STRICT += [f"-{_name}", _value]
# Sound files by suffix: how they are written. The edit list of an .m4a hides what AAC adds to both
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

    @property
    def is_file(self) -> bool:
        return self.url.startswith("file:")

    def reading(self) -> dict[str, str]:
        """All options before `-i`. Only media is opened, and no file that an address names."""
        return {**(FROM_FILE if self.is_file else FROM_ADDRESS), **self.options}


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
    sound: str = ""  # the suffix of a sound file, one of SOUNDS: no picture
    sample_rate: int | None = None  # of a sound file; None: as the source

    @property
    def suffix(self) -> str:
        """The suffix of a clip's file."""
        return self.sound or ".mp4"

    @property
    def sources(self) -> tuple[str, ...]:
        """The suffixes of files that a clip may be made of."""
        return (".mp4", *SOUNDS) if self.sound else (".mp4",)

    @property
    def changes_clips(self) -> bool:
        """Whether a clip made elsewhere must be re-encoded to match the options."""
        return bool(self.short_side or self.keyint or not self.audio)


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
    start: Fraction,
    end: Fraction,
    encode: Encode,
    target: Path,
    seek: Fraction,
    first: Fraction | None = None,
    known_end: Fraction | None = None,
) -> list[str]:
    """The command line that cuts the frames with start <= t < end, each at t - start.

    With two inputs the first gives the picture and the second the sound. `t` counts from the zero
    of a player; the frames are chosen by their own times, and what ffmpeg read of the inputs is
    listed on stdout (`cut.read_packets`).

    seek: where reading begins: at `start` or before. first: the time of the one frame that the clip
    shows at 0, where it has come before `start`. known_end: where the source's picture ends.
    """
    is_part = any("seek_timestamp" in each.options for each in inputs)
    flags = ["-copyts", *(() if is_part else ("-start_at_zero",))]
    # No -t: before -i it counts from the first frame that arrives, and keeps frames from after
    # the end. No accurate seek: it would trim by the file's own beginning, which a part lacks.
    # No -ss 0: ffmpeg would seek, and may land behind the first key frame.
    before = {"ss": _seconds(seek), "noaccurate_seek": None} if seek else {}
    sources = [ffmpeg.input(_hidden(each.url), **before, **each.reading()) for each in inputs]
    zero = start if first is None else first
    options = encode_options(encode) | keep_times(FINE_TIME_BASE) | MP4_OPTIONS
    options["vf"] = (
        f"settb={FINE_TIME_BASE},trim=start_pts={ticks(zero)}:end_pts={ticks(end)},"
        f"setpts=PTS-{ticks(zero)},{scale_filter(encode)}"
    )
    if known_end is not None:
        # The last frame stands until the clip ends, and no longer.
        stands = ticks(min(end, known_end)) - ticks(start)
        options["bsf:v"] = f"setts=pts=PTS:dts=DTS:duration=max(1\\,{stands}-PTS)"
    streams = [sources[0]["V:0"]]
    listed = [sources[0]["V:0"]]
    if encode.audio:
        sound = sources[1]["a:0"] if len(sources) > 1 else sources[0]["a:0?"]
        streams.append(sound)
        listed.append(sound)
        trim = f"atrim=start={_seconds(start)}:end={_seconds(end)}"
        options |= AAC_OPTIONS
        options["af"] = f"{trim},asetpts=PTS-{_seconds(start)}/TB,{options['af']}"
    clip = ffmpeg.output(*streams, _hidden(file_url(target)), **options)
    log = {"c": "copy", "copyinkf": None, "to": _seconds(end), "f": "framecrc"}
    # Matroska has no dts, and those that ffmpeg makes up may fall, which -xerror would end at.
    log |= {f"bsf:{kind}": "setts=pts=PTS:dts=N-1e12" for kind in "va"[: len(listed)]}
    packets = ffmpeg.output(*listed, "pipe:1", **log)
    return _command(tool, ffmpeg.merge_outputs(clip, packets), flags)


def sound_command(
    tool: Ffmpeg,
    source: Input,
    start: Fraction,
    end: Fraction,
    encode: Encode,
    target: Path,
    rate: int,
    *,
    resample: bool,
) -> list[str]:
    """The command line that cuts the sound samples with start <= t < end, at `rate` per second.

    Reading begins a second or two earlier, on a whole second: decoders and resamplers need what
    comes before, and the samples of all rates meet there. Gaps, and what is missing at the
    beginning, are silence.
    """
    first = max(0, math.floor(start) - 1)
    is_part = "seek_timestamp" in source.options
    given = ffmpeg.input(
        _hidden(source.url), ss=str(first), noaccurate_seek=None, **source.reading()
    )
    begin = math.ceil((start - first) * rate)
    filters = [
        f"atrim=start={first}:end={math.ceil(end) + 1}",
        f"asetpts=round(PTS-{first}/TB)",
        "aresample=async=1:first_pts=0:min_comp=0",
        *([f"aresample={rate}"] if resample else []),
        f"atrim=start_sample={begin}:end_sample={begin + round((end - start) * rate)}",
        "asetpts=N",
        "asetnsamples=4096:p=0",  # the flac encoder refuses a first frame of some samples
    ]
    if encode.sound == ".m4a":
        filters.append(str(AAC_OPTIONS["af"]))
    options = {**SOUNDS[encode.sound], "map_metadata": -1, "map_chapters": -1}
    options["af"] = ",".join(filters)
    clip = ffmpeg.output(given["a:0"], _hidden(file_url(target)), **options)
    return _command(tool, clip, ["-copyts", *(() if is_part else ("-start_at_zero",))])


def ticks(seconds: Fraction) -> int:
    """Seconds in the time base of a cut, halves up."""
    return math.floor(seconds / FINE_TIME_BASE + Fraction(1, 2))


MP4_OPTIONS: dict[str, object] = {
    "movflags": "+faststart",
    "movie_timescale": FINE_TIME_BASE.denominator,  # that of edit lists, else milliseconds
    "map_metadata": -1,
    "map_chapters": -1,
    "f": "mp4",
}
# A sound that begins late is preceded by silence, or the clip would begin with it; one whose times
# run backwards is put right. The encoder takes these layouts and refuses others, such as 6.1.
AAC_OPTIONS: dict[str, object] = {
    "c:a": "aac",
    "b:a": "128k",
    "af": "aresample=async=1:first_pts=0,aformat=channel_layouts=mono|stereo|3.0|4.0|5.0|5.1|7.1",
}


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


def _command(tool: Ffmpeg, output: Any, flags: Sequence[str] = ()) -> list[str]:
    # -xerror: without it a source that breaks off, or a full disk, ends with exit code 0.
    words = [tool.path, *QUIET, "level+info", *flags, *output.overwrite_output().compile()[1:]]
    return [word.translate(_SHOWN) for word in words]


def downscale_command(
    tool: Ffmpeg,
    source: Path,
    target: Path,
    encode: Encode | None,
    *,
    audio: bool,
    copy_audio: bool = False,
    size: tuple[int, int] = (0, 0),
    fps: Fraction = Fraction(0),
    time_base: Fraction = FINE_TIME_BASE,
    first: float = 0,
    step: Fraction = Fraction(0),
) -> list[str]:
    """The command line that encodes a whole file at `size` (as shown, even sides).

    ffmpeg turns the picture by itself. encode: None copies the packets of the picture. With `fps` 0
    every frame keeps its time, counted in the source's own `time_base`. first: when the source's
    first frame is shown. step: seconds from each frame to the next, where the file has no times.
    """
    options: dict[str, object] = {"c:v": "copy", **MP4_OPTIONS}
    # An mp4 hides what comes before its zero.
    before: dict[str, object] = {"itsoffset": -first} if first < 0 else {}
    if encode is not None:
        before["threads"] = encode.threads
        filters = [f"scale={size[0]}:{size[1]}:flags=bicubic", "setsar=1"]
        options |= encode_options(encode)
        options |= {} if fps else keep_times(time_base)
        if fps or step:
            filters.insert(0, f"fps={fps}" if fps else f"setpts=({max(0, first)}+N*{step})/TB")
        options["vf"] = ",".join(filters)
    given = ffmpeg.input(_hidden(file_url(source)), **before, **FROM_FILE)
    streams = [given["V:0"]]
    if audio:
        streams.append(given["a:0?"])
        options |= {"c:a": "copy"} if copy_audio else AAC_OPTIONS
    return _command(tool, ffmpeg.output(*streams, _hidden(file_url(target)), **options))


def scale_filter(encode: Encode) -> str:
    """The scale filter of an encode: even sides (4:2:0 needs them), the aspect kept.

    `short_side` sets the shorter side, whichever it is, and `max_height` bounds it; neither makes
    a picture larger without `upscale`.
    """
    limit = encode.short_side or encode.max_height
    side = f"min({limit},min(iw,ih))" if limit else "min(iw,ih)"
    if encode.short_side and encode.upscale:
        side = f"{limit}"
    side = f"trunc({side}/2)*2"
    return f"scale=w='if(lte(iw,ih),{side},-2)':h='if(lte(iw,ih),-2,{side})':flags=bicubic"


def file_url(path: Path) -> str:
    """A path as ffmpeg takes it: `file:` and absolute, or `a:b.mp4` would be a protocol `a`."""
    return f"file:{path.absolute()}"


def _hidden(url: str) -> str:
    """A path as ffmpeg-python takes it, which encodes it: bytes that are not UTF-8 replaced."""
    return url.translate(_HIDDEN)


def _seconds(value: Fraction) -> str:
    return f"{float(value):.6f}".rstrip("0").rstrip(".")


def read_duration(log: str) -> float | None:
    """The first input's seconds, from ffmpeg's log; None: unknown."""
    # Anchored: a title or a comment of the source is in the log, too, and may hold such words.
    inputs = re.split(r"^(?:\[info\] *)?Output #", log, maxsplit=1, flags=re.MULTILINE)[0]
    time = r"^(?:\[info\])? *Duration: (\d+):(\d\d):(\d\d\.\d+)"
    found = re.search(time, inputs, re.MULTILINE)
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None


def last_line(finished: Finished) -> str:
    """Return the last line of a failed child's stderr, without ffmpeg's level marks."""
    lines = [line for line in finished.stderr.splitlines() if line.strip()]
    errors = [line for line in complaints(finished.stderr) if "[warning]" not in line]
    return re.sub(r"\[(error|fatal|info|warning)\] ?", "", (errors or lines or [""])[-1]).strip()


def complaints(log: str) -> list[str]:
    """The lines of ffmpeg's log that are its own warnings and errors, by their level marks."""
    own = re.compile(r"(\[[^\]]* @ 0x[0-9a-f]+\] )*\[(warning|error|fatal|panic)\]")
    return [line for line in log.splitlines() if own.match(line)]
