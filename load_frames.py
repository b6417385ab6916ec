#!/usr/bin/env python3
"""Load a clip, or a chunk of one, into a numpy array: exact frames, at the speed of frame dumps.

In Python:

    from load_frames import load_frames, ClipReader, ClipDataset
    load_frames("clip.mp4", start=40, stop=72)     # (32, H, W, 3) uint8, RGB

On the command line, to look at what it gives:

    python load_frames.py clip.mp4 --start 40 --stop 72
    python load_frames.py clip.mp4 --fps 2 --short_side 128 --sheet sheet.png
    python load_frames.py --bench my_clips

The first prints:

    clip    clip.mp4
    shape   (32, 256, 454, 3) uint8
    frames  40 to 71 of 300
    times   1.333 to 2.367 s
    loaded  in 24.1 ms
"""

from __future__ import annotations

import utils.early  # noqa: F401 (first: Ctrl-C while the rest is imported)

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipreader.clip_reader import ClipReader, Layout, Rate, Unit, finish
from clipreader.media import (
    MAX_FRAMES,
    MAX_PIXELS,
    ClipError,
    ClipNotFound,
    CorruptClip,
    FrameIndexError,
    Media,
    NoVideo,
    TooLarge,
)
from clipreader.pixels import Array
from clipreader.times import parse_fps
from utils.cli import (
    EXIT_INCOMPLETE,
    EXIT_OK,
    EXIT_USAGE,
    make_parser,
    positive_int,
    run_script,
    say,
)
from utils.errors import UserError
from utils.packages import check_packages
from utils.runs.clip_dataset import ClipDataset

__all__ = [
    "ClipDataset",
    "ClipError",
    "ClipNotFound",
    "ClipReader",
    "CorruptClip",
    "FrameIndexError",
    "NoVideo",
    "TooLarge",
    "load_frames",
]


def load_frames(
    path: Media,
    start: float | None = None,
    stop: float | None = None,
    *,
    indices: Sequence[float] | None = None,
    unit: Unit = "frame",
    fps: Rate | None = None,
    short_side: int | None = None,
    out: Array | None = None,
    layout: Layout = "THWC",
    as_torch: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
) -> Any:
    """The frames of a clip: a (T, H, W, 3) uint8 array, RGB, upright.

    path: a path, the bytes of a file, or a binary file object, which is read to its end
    start, stop: from this frame to before that one; default: the whole clip
    indices: these frames instead, in this order, repeats allowed; -1 is the last
    unit: "frame", or "s": start, stop and indices are seconds after the first frame. start and stop
        then give the frames that appear in between (stop may lie behind the end), an index gives
        the frame that is on the screen at that time
    fps: take the frames that a resampled clip shows, by the rule of ffmpeg and frame_extract.py;
        start, stop and indices then count pictures of that rate. 12.5, "30000/1001"; 0: its own
    short_side: scale the shorter side to this many pixels
    out: a (T, H, W, 3) uint8 array to write into, and to return
    layout: "THWC", or "TCHW": a view of the same memory, (T, 3, H, W)
    as_torch: a torch tensor on the same memory
    max_pixels, max_frames: of a picture, and of the clip; more is TooLarge

    Raises, all of them ClipError: ClipNotFound; NoVideo; TooLarge; FrameIndexError (`.frames`: how
    many there are); CorruptClip (`.frame`: where; `.frames`: what was asked for and comes before
    it). And ValueError or TypeError for arguments that make no sense.
    """
    limits = {"max_pixels": max_pixels, "max_frames": max_frames}
    with ClipReader(path, short_side=short_side, **limits) as reader:
        array = reader.read(start, stop, indices=indices, unit=unit, fps=fps, out=out)
    return finish(array, layout, as_torch)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("clip", type=Path, nargs="?", help="the clip to load")
    what = parser.add_argument_group("what to load (default: every frame)")
    what.add_argument("--start", type=float, metavar="N", help="from this frame")
    what.add_argument("--stop", type=float, metavar="N", help="to before this frame")
    what.add_argument("--indices", type=_numbers, metavar="N,N,...", help="these frames instead")
    what.add_argument(
        "--unit", choices=("frame", "s"), default="frame", help="what the numbers above count"
    )
    what.add_argument("--fps", type=_rate, default="0", help="resample; 0 is the clip's own rate")
    what.add_argument("--short_side", type=positive_int, metavar="N", help="scale to N pixels")
    show = parser.add_argument_group("what to show")
    show.add_argument("--sheet", type=Path, metavar="PNG", help="draw the frames in a grid")
    show.add_argument(
        "--bench", type=Path, metavar="DIR", help="compare the installed loaders on these clips"
    )
    args = parser.parse_args(argv)
    if (args.clip is None) == (args.bench is None):
        parser.error("give either a clip, or --bench and a folder of clips")
    return args


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 0,37,74") from None


def _rate(text: str) -> str:
    try:
        parse_fps(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages("av", "numpy")
    if args.bench is not None:
        # In a process of its own: the benchmark imports this module.
        argv = [sys.executable, "-m", "benchmarks.load", "--videos", args.bench.absolute()]
        return subprocess.run(argv, cwd=Path(__file__).parent).returncode
    try:
        _show(args)
    except CorruptClip as error:
        say(f"error: {error}")
        return EXIT_INCOMPLETE
    except (ClipError, ValueError, TypeError) as error:
        say(f"error: {error}")
        return EXIT_USAGE
    return EXIT_OK


def _show(args: argparse.Namespace) -> None:
    chosen = {"indices": args.indices, "unit": args.unit, "fps": args.fps}
    began = time.perf_counter()
    with ClipReader(args.clip, short_side=args.short_side) as reader:
        frames = reader.read(args.start, args.stop, **chosen)
        ms = (time.perf_counter() - began) * 1e3
        numbers = reader.frame_numbers(args.start, args.stop, **chosen)
        times = reader.times[list(numbers)]
        count = len(reader)
    print(f"clip    {args.clip}")
    print(f"shape   {frames.shape} {frames.dtype}")
    if len(numbers):
        print(f"frames  {numbers[0]} to {numbers[-1]} of {count}")
        print(f"times   {times[0]:.3f} to {times[-1]:.3f} s")
    print(f"loaded  in {ms:.1f} ms")
    if args.sheet is not None:
        from clipreader.contact_sheet import save_sheet

        try:
            save_sheet(args.sheet, frames, [str(number) for number in numbers])
        except (OSError, ValueError) as error:
            raise UserError(f"{args.sheet} cannot be written: {error}") from None
        print(f"sheet   {args.sheet}")


if __name__ == "__main__":
    run_script(main)
