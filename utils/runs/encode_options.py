"""How downscale_videos.py encodes: its options, its defaults, and what is small already."""

from __future__ import annotations

import argparse
from dataclasses import replace
from fractions import Fraction
from typing import Any

from utils.cli import frame_rate, non_negative_float, positive_int
from utils.run import Lines
from utils.video.ffmpeg import Encode
from utils.video.whole import Video

CODECS = {"libx264": "h264", "libx265": "hevc"}  # encoder -> what PyAV calls it
COPIED_AUDIO = frozenset({"aac", "mp3"})  # what every player takes from an mp4

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


def is_small(video: Video, encode: Encode) -> bool:
    """Whether a video can be taken as it is."""
    assert encode.short_side is not None
    return (
        min(video.width, video.height) <= encode.short_side
        and video.codec == CODECS[encode.codec]
        and video.pixel_format == "yuv420p"
    )


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


def add_encode_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("picture and sound")
    group.add_argument(
        "--short_side",
        type=positive_int,
        default=DEFAULT.short_side,
        metavar="N",
        help="the shorter side, in pixels; the other follows",
    )
    group.add_argument("--upscale", action="store_true", help="scale smaller videos up")
    group.add_argument(
        "--fps",
        type=frame_rate,
        default=Fraction(0),
        metavar="F",
        help="frames a second; 0 keeps rate, times and frames as they are",
    )
    group.add_argument(
        "--keyint",
        type=positive_int,
        metavar="N",
        help="a key frame every N frames: smaller loads random chunks faster and costs bytes"
        " (default: x264's own, at scene cuts and at most 250 apart)",
    )
    group.add_argument(
        "--crf",
        type=non_negative_float,
        metavar="Q",
        help=f"the encoder's quality, 0 (lossless) to 51 (default: {DEFAULT.crf:g})",
    )
    group.add_argument(
        "--preset",
        choices=[
            "ultrafast",
            "superfast",
            "veryfast",
            "faster",
            "fast",
            "medium",
            "slow",
            "slower",
        ],
        help=f"the encoder's effort (default: {DEFAULT.preset})",
    )
    group.add_argument(
        "--codec", choices=list(CODECS), help=f"the encoder (default: {DEFAULT.codec})"
    )
    group.add_argument(
        "--for_loading",
        action="store_true",
        help=f"made for load_frames.py: a key frame every {FOR_LOADING.keyint} frames, -tune"
        f" {FOR_LOADING.tune}, no B-pyramid; larger, and faster to load",
    )
    group.add_argument("--no_audio", action="store_true", help="leave the sound out")


def choose_encode(args: argparse.Namespace) -> Encode:
    """What the options ask for; each one given goes before --for_loading."""
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


def wants_encoding(args: argparse.Namespace) -> bool:
    """Whether an option asks for more of a small video than a fresh mp4."""
    given = (args.keyint, args.crf, args.preset, args.codec)
    return bool(args.for_loading or args.upscale or args.fps or any(v is not None for v in given))


def encode_lines(encode: Encode, fps: Fraction, as_it_is: bool) -> Lines:
    """The script's own lines of the statement."""
    rate = f"{fps} frames a second" if fps else "rate and times kept"
    parts = [
        f"shorter side {encode.short_side}",
        rate,
        f"{encode.codec} {encode.preset} CRF {encode.crf:g}",
        f"a key frame every {encode.keyint} frames" if encode.keyint else "key frames at cuts",
        "sound kept" if encode.audio else "no sound",
    ]
    small = "not encoded: copied into a fresh mp4" if as_it_is else "encoded like all others"
    return [("output", ", ".join(parts)), ("small clips", small)]
