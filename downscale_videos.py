#!/usr/bin/env python3
r"""Scale clips down to a short side of 256, with the same names, frames and times.

examples:
  python downscale_videos.py clips clips_256
  python downscale_videos.py clips clips_256 --for_loading
  python downscale_videos.py clips clips_30fps --short_side 320 --fps 30 \
      --no_audio

Writes clips_256/<clip>.mp4: H.264, yuv420p, faststart. Clips that are already
small are remuxed, not re-encoded. Every clip is checked against its source.
"""

from __future__ import annotations

from utils.errors import check_packages  # isort: skip (first: Ctrl-C while the rest is imported)

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from utils import batch, cli, run
from utils.batch import ClipFile, Made
from utils.cluster import check_dask
from utils.files import disk_is_full, names_in, publish
from utils.process import run_child
from utils.video import ffmpeg
from utils.video.ffmpeg import Encode, Ffmpeg
from utils.video.whole import BadClip, Limits, Video, read_apart

REPORT_NAME = "downscale_report.csv"
SETTINGS_NAME = ".downscale_settings.json"
PACKAGES = ("av", "numpy", "ffmpeg-python", "joblib")
ENCODING = ("keyint", "crf", "preset", "codec")  # options that are fields of Encode
TIME_TOLERANCE = 0.005  # seconds by which a frame may be shown at another time
CODECS = {"libx264": "h264", "libx265": "hevc"}  # encoder -> what PyAV calls it
PRESETS = ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower"]
COPIED_AUDIO = frozenset({"aac", "mp3", "mp3float"})  # what every player takes from an mp4

# Chosen by benchmarks/downscale.py. `veryfast` alone loses SSIM; the longer look-ahead, trellis and
# variance-based quantisation restore it for little CPU time.
DEFAULT = Encode(
    crf=22.5,
    preset="veryfast",
    x264_params="trellis=1:aq-mode=2:rc-lookahead=30",
    short_side=256,
)
# Without a B-pyramid no frame refers to a B-frame, so a reader skips three frames of four on its
# way to a chunk.
LOADING_PARAMS = "bframes=3:b-pyramid=none"
FOR_LOADING = replace(
    DEFAULT,
    keyint=30,
    tune="fastdecode",
    x264_params=f"{DEFAULT.x264_params}:{LOADING_PARAMS}",
)


# --- one clip, in a worker process ---------------------------------------------------------------


@dataclass(frozen=True)
class Downscaler:
    """The worker: makes one small clip after another. remux: small videos are not encoded."""

    tool: Ffmpeg
    encode: Encode
    fps: Fraction
    remux: bool
    limits: Limits
    out: Path
    workspace: Path

    def __call__(self, task: ClipFile) -> Made:
        made = batch.make_one(task, self.workspace, self._downscale)
        if made.reason in ("truncated", "undecodable") and disk_is_full(self.out):
            return replace(made, reason="disk_full")
        return made

    def _downscale(self, task: ClipFile, folder: Path) -> Made:
        """Scale, check and publish one clip; `folder` is temporary.

        Raises BadClip, OSError, Stopped.
        """
        source = read_apart(task.path, "first", fps=self.fps, limits=self.limits)
        temporary, final = folder / "clip.mp4", self.out / f"{task.clip}.mp4"
        action, made = self._make(task.path, source, temporary)
        size = temporary.stat().st_size
        final.parent.mkdir(parents=True, exist_ok=True)
        publish(temporary, final)
        return Made(
            task.clip,
            action=action,
            frames=made.frames,
            fps=round(float(made.rate), 5),
            width=made.width,
            height=made.height,
            bytes=size,
            source_bytes=task.path.stat().st_size,
        )

    def _make(self, path: Path, source: Video, target: Path) -> tuple[str, Video]:
        """Write `target`; return `rewrapped` or `encoded`, and the result. Raises BadClip."""
        is_small = (
            min(source.width, source.height) <= (self.encode.short_side or 0)
            and source.codec == CODECS[self.encode.codec]
            and source.pixel_format == "yuv420p"
        )
        # The last way is for files without times: frames at equal distances.
        step = Fraction(source.gap).limit_denominator(10**6)
        ways = [("encoded", self._encoding(source, each)) for each in (Fraction(0), step)]
        if self.remux and is_small:
            ways.insert(0, ("rewrapped", {"c:v": "copy"}))
        for action, options in ways:
            try:
                return action, self._run(path, source, target, options)
            except BadClip as error:
                problem = error
                if error.reason == "timeout":
                    break
        raise problem

    def _encoding(self, source: Video, step: Fraction) -> dict[str, object]:
        """Return the options that scale and encode the video, as it is shown: ffmpeg rotates it.

        Without --fps every frame keeps its time, counted in the source's own time base. step: the
        seconds from each frame to the next, for a file without times.
        """
        options = ffmpeg.encode_options(self.encode)
        width, height = small_size(source.width, source.height, self.encode)
        filters = [f"scale={width}:{height}:flags=bicubic", "setsar=1"]
        if self.fps:
            filters.insert(0, f"fps={self.fps}")
        elif step:
            filters.insert(0, f"setpts=({max(0, source.first)}+N*{step})/TB")
        options |= {} if self.fps else ffmpeg.keep_times(source.time_base)
        return options | {"vf": ",".join(filters)}

    def _run(self, path: Path, source: Video, target: Path, options: Mapping[str, object]) -> Video:
        """Run ffmpeg, then compare its output with the source. Raises BadClip."""
        before: dict[str, object] = {"threads": self.encode.threads}
        if source.first < 0:  # an mp4 hides what comes before its zero
            before["itsoffset"] = -source.first
        # Audio that ffmpeg has no decoder for is dropped.
        audio = self.encode.audio and source.audio_codec not in ("", "unknown")
        sound = {"c:a": "copy"} if source.audio_codec in COPIED_AUDIO else ffmpeg.AAC_OPTIONS
        options = {**ffmpeg.MP4_OPTIONS, **options, **(sound if audio else {})}
        command = ffmpeg.file_command(self.tool, path, target, before, options, audio)
        done = run_child(command, timeout=self.limits.timeout or None)
        if done.timed_out:
            raise BadClip("timeout", f"took longer than --timeout {self.limits.timeout:g}")
        if done.returncode != 0:
            raise BadClip("undecodable", ffmpeg.last_line(done))
        made, frames = read_apart(target, "ends", limits=self.limits), source.resampled
        # ffmpeg's fps filter may write one frame more or less at the end.
        if abs(made.frames - frames) > (1 if self.fps else 0):
            raise BadClip("truncated", f"wrote {made.frames} frames, but the source has {frames}")
        if not self.fps and differs(source, made):
            raise BadClip("truncated", "the output's frames have other times than the source's")
        if audio and not made.audio_codec:
            raise BadClip("truncated", "the audio is missing")
        return made


def differs(source: Video, made: Video) -> bool:
    """Return whether a frame is shown at another time than in the source."""
    pairs = zip(source.times, made.times, strict=True)
    shift = min(0, source.times[0]) * source.time_base
    zero = made.zero  # above 0 if the first frame of a video without audio is late
    off = max(abs(a * source.time_base - shift - (b + zero) * made.time_base) for a, b in pairs)
    return off > max(TIME_TOLERANCE, source.gap / 2)


def small_size(width: int, height: int, encode: Encode) -> tuple[int, int]:
    """Return the size to scale to: both sides even, the shorter one `short_side`.

    Without `encode.upscale` a smaller video keeps its size, except that odd sides become even.
    """
    assert encode.short_side is not None
    side, short = encode.short_side, min(width, height)
    if side > short and not encode.upscale:
        side = short
    side = max(2, side // 2 * 2)
    long = max(2, 2 * round(max(width, height) * side / short / 2))
    return (side, long) if width <= height else (long, side)


# --- the options ---------------------------------------------------------------------------------


def choose_encode(args: argparse.Namespace) -> tuple[Encode, bool]:
    """Return the encode of the options, and whether small videos are remuxed, not re-encoded.

    Single options override --for_loading.
    """
    encode = FOR_LOADING if args.for_loading else DEFAULT
    if args.preset and args.preset != DEFAULT.preset:  # DEFAULT's parameters suit `veryfast` only
        encode = replace(encode, x264_params=LOADING_PARAMS if args.for_loading else None)
    given = {name: getattr(args, name) for name in ENCODING if getattr(args, name) is not None}
    encode = replace(encode, short_side=args.short_side, upscale=args.upscale, **given)
    is_remuxed = not (args.for_loading or args.upscale or args.fps or given)
    return replace(encode, audio=not args.no_audio), is_remuxed


def encode_lines(encode: Encode, fps: Fraction, remux: bool) -> run.Lines:
    """Return the script's own lines of the plan."""
    parts = [
        f"shorter side {encode.short_side}",
        f"{fps} frames per second" if fps else "original rate and times",
        f"{encode.codec} {encode.preset} CRF {encode.crf:g}",
        f"a keyframe every {encode.keyint} frames" if encode.keyint else "keyframes at cuts",
        "with audio" if encode.audio else "no audio",
    ]
    small = "remuxed, not encoded" if remux else "re-encoded like the others"
    return [("output", ", ".join(parts)), ("small clips", small)]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.make_parser(__doc__ or "")
    parser.add_argument("videos_dir", type=Path, help="folder of videos, flat or nested")
    parser.add_argument("output_dir", type=Path, help="folder for the scaled clips")
    group = parser.group("video and audio")
    batch.add_size_options(group, fps=0, short_side=DEFAULT.short_side)
    add = group.add_argument
    keyint = (
        "set a keyframe every N frames; a smaller N makes random chunks faster to load, and files"
        " larger (default: at scene cuts, at most 250 apart)"
    )
    add("--keyint", type=cli.positive_int, metavar="N", help=keyint)
    crf = f"quality: 0 (lossless) to 51 (default: {DEFAULT.crf:g})"
    add("--crf", type=cli.non_negative_float, metavar="Q", help=crf)
    preset = f"one of {', '.join(PRESETS)}; slower ones make smaller files"
    preset += f" (default: {DEFAULT.preset})"
    add("--preset", choices=PRESETS, metavar="NAME", help=preset)
    add("--codec", choices=list(CODECS), help=f"encoder (default: {DEFAULT.codec})")
    loading = (
        f"encode for fast loading: a keyframe every {FOR_LOADING.keyint} frames, -tune"
        f" {FOR_LOADING.tune}, no B-pyramid; files are larger"
    )
    add("--for_loading", action="store_true", help=loading)
    add("--no_audio", action="store_true", help="drop the audio")
    batch.add_batch_options(parser)
    cli.add_shared(parser.group("rarely needed"), "--ffmpeg")
    args = parser.parse_args(argv)
    if args.crf is not None and args.crf > 51:
        parser.error(f"--crf must be between 0 and 51 (got {args.crf:g})")
    if args.short_side < 16:
        parser.error(f"--short_side must be at least 16 (got {args.short_side})")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages(*PACKAGES)
    check_dask(args)
    encode, remux = choose_encode(args)
    settings = batch.settings_of(args, *ENCODING, "for_loading", "no_audio")
    tool = ffmpeg.find_ffmpeg(args.ffmpeg)
    plan = batch.plan_batch(args, lambda folder: names_in(folder, ".mp4"))
    kept, report = plan.out / SETTINGS_NAME, plan.out / REPORT_NAME
    run.has_settings(kept, settings, "scaled clips")
    batch.say_batch(plan, args, encode_lines(encode, args.fps, remux))
    if args.dry_run:
        return cli.EXIT_OK
    if plan.to_do:
        ffmpeg.require_encoder(tool, encode.codec)
    with run.open_run(args, report, batch.COLUMNS, PACKAGES, [plan.videos]) as opened:
        run.write_settings(kept, opened.workspace, settings, "scaled clips")
        limits = Limits(args.max_frames, args.max_pixels, args.timeout)
        worker = Downscaler(tool, encode, args.fps, remux, limits, plan.out, opened.workspace)
        tally = batch.run_batch(plan, worker, batch.COLUMNS, opened, args)
    size = f"size: {tally.totals['bytes'] / 1e6:,.1f} MB written"
    return batch.end_batch(plan, tally, args, opened.report.path, size)


if __name__ == "__main__":
    import downscale_videos  # by its name, because worker processes cannot import `__main__`

    cli.run_script(downscale_videos.main)
