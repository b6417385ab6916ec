#!/usr/bin/env python3
"""Scale clips down to a short side of 256, with the same names, frames and times.

examples:
  python downscale_videos.py clips clips_256
  python downscale_videos.py clips clips_256 --for_loading
  python downscale_videos.py clips clips_30fps --short_side 320 --fps 30 --no_audio

Writes clips_256/<clip>.mp4: H.264, yuv420p, faststart. Clips that are
already small are remuxed, not re-encoded. Every clip is checked against its source.
"""

from __future__ import annotations

from utils.errors import check_packages  # isort: skip (first: Ctrl-C while the rest is imported)

import argparse
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from utils.batch import (
    ClipFile,
    Made,
    add_batch_options,
    check_folders,
    finish,
    limits_of,
    make_one,
    plan_batch,
    run_batch,
    say_batch,
)
from utils.cli import (
    EXIT_OK,
    Parser,
    add_shared,
    frame_rate,
    make_parser,
    non_negative_float,
    positive_int,
    run_script,
)
from utils.cluster import check_dask
from utils.files import disk_is_full, names_in, publish
from utils.machines import own_folder
from utils.process import run_child, stop_on_signals
from utils.report import now
from utils.run import Lines, has_settings, open_run, write_settings
from utils.video.ffmpeg import (
    Encode,
    Ffmpeg,
    downscale_command,
    find_ffmpeg,
    last_line,
    require_encoder,
)
from utils.video.whole import BadClip, Limits, Video, read_apart

REPORT_NAME = "downscale_report.csv"
SETTINGS_NAME = ".downscale_settings.json"
PACKAGES = ("av", "numpy", "ffmpeg-python", "joblib")
TIME_TOLERANCE = 0.005  # seconds by which a frame may be shown at another time
CODECS = {"libx264": "h264", "libx265": "hevc"}  # encoder -> what PyAV calls it
PRESETS = ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower"]
COPIED_AUDIO = frozenset({"aac", "mp3", "mp3float"})  # what every player takes from an mp4

# benchmarks/README.md, "downscale", has the comparison: 0.55 of the CPU of x264's defaults at SSIM
# within 0.0015 and 1.06 times the bytes. `veryfast` alone loses 0.004 to 0.006 of SSIM; the longer
# look-ahead, trellis and variance-based quantisation give it back for next to no CPU. Key frames
# are x264's own (at most 250 frames apart, and at cuts): a GOP of 30 costs 9 to 30 % in bytes, and
# is for those who load random chunks.
DEFAULT = Encode(
    crf=22.5,
    preset="veryfast",
    x264_params="trellis=1:aq-mode=2:rc-lookahead=30",
    short_side=256,
)
# What loads fastest (benchmarks/README.md, "load"): --for_loading. Nothing refers to a B-frame
# without a pyramid, so a reader skips three frames of four on its way to a chunk.
FOR_LOADING = replace(
    DEFAULT,
    keyint=30,
    tune="fastdecode",
    x264_params=f"{DEFAULT.x264_params}:bframes=3:b-pyramid=none",
)


@dataclass(frozen=True)
class DownscaleResult(Made):
    """A line of downscale_report.csv. `seconds` is the time it took; sizes are the output's."""

    action: str = ""  # encoded, rewrapped
    frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    bytes: int = 0
    source_bytes: int = 0
    message: str = ""
    finished_at: str = field(default_factory=now)


COLUMNS = tuple(each.name for each in fields(DownscaleResult))


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

    def __call__(self, task: ClipFile) -> DownscaleResult:
        result = make_one(DownscaleResult, task.clip, lambda: self._downscale(task))
        if result.reason in ("truncated", "undecodable") and disk_is_full(self.out):
            return replace(result, reason="disk_full")
        return result

    def _downscale(self, task: ClipFile) -> DownscaleResult:
        """Scale, check and publish one clip. Raises BadClip, OSError, Stopped."""
        source = read_apart(task.path, "first", fps=self.fps, limits=self.limits)
        # The clip's path may be longer than a name can be.
        digest = hashlib.blake2b(os.fsencode(task.clip), digest_size=16).hexdigest()
        temporary = own_folder(self.workspace) / f"{digest}.mp4"
        final = self.out / f"{task.clip}.mp4"
        try:
            action, made = self._make(task.path, source, temporary)
            size = temporary.stat().st_size
            final.parent.mkdir(parents=True, exist_ok=True)
            publish(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)
        return DownscaleResult(
            clip=task.clip,
            action=action,
            frames=made.frames,
            fps=round(float(made.rate), 5),
            width=made.width,
            height=made.height,
            bytes=size,
            source_bytes=task.path.stat().st_size,
        )

    def _make(self, path: Path, source: Video, target: Path) -> tuple[str, Video]:
        """Write `target`; (`rewrapped` or `encoded`, what came out). Raises BadClip."""
        side = self.encode.short_side or 0
        is_small = (
            min(source.width, source.height) <= side
            and source.codec == CODECS[self.encode.codec]
            and source.pixel_format == "yuv420p"
        )
        ways: list[dict[str, Any]] = [{"encode": None}] if self.remux and is_small else []
        ways += [{}, {"step": Fraction(source.gap).limit_denominator(10**6)}]
        # A sound that nothing here decodes is left out.
        has_sound = source.audio_codec not in ("", "unknown")
        common = {
            "encode": self.encode,
            "audio": self.encode.audio and has_sound,
            "copy_audio": source.audio_codec in COPIED_AUDIO,
            "size": small_size(source.width, source.height, self.encode),
            "fps": self.fps,
            "time_base": source.time_base,
            "first": source.first,
        }
        problem: BadClip | None = None
        for way in ways:
            command = downscale_command(self.tool, path, target, **{**common, **way})
            try:
                made = self._run(command, source, target, bool(common["audio"]), "encode" in way)
            except BadClip as error:
                problem = error
                if error.reason == "timeout":
                    break
            else:
                return "rewrapped" if "encode" in way else "encoded", made
        assert problem is not None
        raise problem

    def _run(
        self, command: Sequence[str], source: Video, target: Path, audio: bool, copied: bool
    ) -> Video:
        """Run ffmpeg, then compare what it wrote with the source. Raises BadClip."""
        done = run_child(command, timeout=self.limits.timeout or None)
        if done.timed_out:
            raise BadClip("timeout", f"took longer than --timeout {self.limits.timeout:g}")
        if done.returncode != 0:
            raise BadClip("undecodable", last_line(done))
        made = read_apart(target, "ends", limits=self.limits)
        frames = source.frames if copied else source.resampled
        # ffmpeg's fps filter may give one picture more or less at the very end.
        if abs(made.frames - frames) > (1 if self.fps else 0):
            raise BadClip("truncated", f"wrote {made.frames} frames, but the source has {frames}")
        if not self.fps and differs(source, made):
            raise BadClip("truncated", "the frames written are not shown at the source's times")
        if audio and not made.audio_codec:
            raise BadClip("truncated", "the sound is missing")
        return made


def differs(source: Video, made: Video) -> bool:
    """Whether a frame is shown at another time than in the source."""
    pairs = zip(source.times, made.times, strict=True)
    shift = min(0, source.times[0]) * source.time_base
    zero = made.zero  # past 0 where a picture without sound begins later
    off = max(abs(a * source.time_base - shift - (b + zero) * made.time_base) for a, b in pairs)
    return off > max(TIME_TOLERANCE, source.gap / 2)


def small_size(width: int, height: int, encode: Encode) -> tuple[int, int]:
    """The size to scale to, even on both sides: the shorter one `short_side`, the aspect kept.

    A video that is smaller keeps its size, but for odd sides, unless `encode.upscale`.
    """
    assert encode.short_side is not None
    side, short = encode.short_side, min(width, height)
    if side > short and not encode.upscale:
        side = short
    side = max(2, side // 2 * 2)
    if width <= height:
        return side, max(2, 2 * round(height * side / width / 2))
    return max(2, 2 * round(width * side / height / 2)), side


def add_encode_options(parser: Parser) -> None:
    group = parser.group("video and audio")
    group.add_argument(
        "--short_side",
        type=positive_int,
        default=DEFAULT.short_side,
        metavar="N",
        help="scale the shorter side to N pixels; the other follows",
    )
    group.add_argument("--upscale", action="store_true", help="also scale smaller clips up")
    group.add_argument(
        "--fps",
        type=frame_rate,
        default=Fraction(0),
        metavar="F",
        help="frames per second; 0 keeps every frame and its time",
    )
    group.add_argument(
        "--keyint",
        type=positive_int,
        metavar="N",
        help="set a keyframe every N frames; a smaller N makes random chunks faster to load, and"
        " files larger (default: at scene cuts, at most 250 apart)",
    )
    group.add_argument(
        "--crf",
        type=non_negative_float,
        metavar="Q",
        help=f"quality: 0 (lossless) to 51 (default: {DEFAULT.crf:g})",
    )
    group.add_argument(
        "--preset",
        choices=PRESETS,
        help=f"encoder preset; slower ones make smaller files (default: {DEFAULT.preset})",
    )
    group.add_argument("--codec", choices=list(CODECS), help=f"encoder (default: {DEFAULT.codec})")
    group.add_argument(
        "--for_loading",
        action="store_true",
        help=f"encode for fast loading: a keyframe every {FOR_LOADING.keyint} frames, -tune"
        f" {FOR_LOADING.tune}, no B-pyramid; files are larger",
    )
    group.add_argument("--no_audio", action="store_true", help="drop the audio")


def choose_encode(args: argparse.Namespace) -> Encode:
    """Return the encode of the options; single options override --for_loading."""
    chosen: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("keyint", "crf", "preset", "codec")
        if getattr(args, name) is not None
    }
    base = FOR_LOADING if args.for_loading else DEFAULT
    if args.preset and args.preset != DEFAULT.preset:  # what mends veryfast is not for the others
        others = (base.x264_params or "").removeprefix(DEFAULT.x264_params or "").lstrip(":")
        base = replace(base, x264_params=others or None)
    shape: dict[str, Any] = {
        "short_side": args.short_side,
        "upscale": args.upscale,
        "audio": not args.no_audio,
    }
    return replace(base, **chosen, **shape)


def settings_of(args: argparse.Namespace) -> dict[str, object]:
    """The options that all clips of an output folder share, as they were given."""
    names = ("short_side", "upscale", "keyint", "crf", "preset", "codec", "for_loading", "no_audio")
    return {"fps": str(args.fps), **{name: getattr(args, name) for name in names}}


def wants_encoding(args: argparse.Namespace) -> bool:
    """Whether an option asks for more of a small video than a fresh mp4."""
    given = (args.keyint, args.crf, args.preset, args.codec)
    return bool(args.for_loading or args.upscale or args.fps or any(v is not None for v in given))


def encode_lines(encode: Encode, fps: Fraction, remux: bool) -> Lines:
    """The script's own lines of the statement."""
    rate = f"{fps} frames per second" if fps else "original rate and times"
    parts = [
        f"shorter side {encode.short_side}",
        rate,
        f"{encode.codec} {encode.preset} CRF {encode.crf:g}",
        f"a keyframe every {encode.keyint} frames" if encode.keyint else "keyframes at cuts",
        "with audio" if encode.audio else "no audio",
    ]
    small = "remuxed, not encoded" if remux else "re-encoded like the others"
    return [("output", ", ".join(parts)), ("small clips", small)]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "videos_dir", metavar="input_dir", type=Path, help="folder of videos, flat or nested"
    )
    parser.add_argument("output_dir", type=Path, help="folder for the scaled clips")
    add_encode_options(parser)
    add_batch_options(parser)
    add_shared(parser.group("rarely needed"), "--ffmpeg")
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
    check_folders(args)
    encode, remux = choose_encode(args), not wants_encoding(args)
    tool = find_ffmpeg(args.ffmpeg)
    out: Path = args.output_dir
    with stop_on_signals():
        batch = plan_batch(args, lambda folder: names_in(folder, ".mp4"))
        settings = settings_of(args)
        has_settings(out / SETTINGS_NAME, settings, "scaled clips")
        if not args.quiet:
            say_batch(batch, args, encode_lines(encode, args.fps, remux))
        if args.dry_run:
            return EXIT_OK
        if batch.to_do:
            require_encoder(tool, encode.codec)
        with open_run(args, out / REPORT_NAME, COLUMNS, PACKAGES, [args.videos_dir]) as run:
            write_settings(out / SETTINGS_NAME, run.workspace, settings)
            worker = Downscaler(tool, encode, args.fps, remux, limits_of(args), out, run.workspace)
            outcomes = run.workers.run(worker, batch.tasks(), DownscaleResult.lost)
            tally = run_batch(batch, outcomes, run, args)
    written = f"size: {tally.totals['bytes'] / 1e6:,.1f} MB written"
    return finish(batch, tally, args, run.report.path, written)


if __name__ == "__main__":
    import downscale_videos  # by its name, because worker processes cannot import `__main__`

    run_script(downscale_videos.main)
