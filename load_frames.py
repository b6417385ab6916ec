#!/usr/bin/env python3
"""Load the exact frames of a clip, or of a part of it, into a NumPy array.

examples:
  python load_frames.py clip.mp4 --start 40 --stop 72
  python load_frames.py clip.mp4 --fps 2 --short_side 128 --sheet sheet.png
  python load_frames.py --bench my_clips

The first command prints:
  clip    clip.mp4
  shape   (32, 256, 454, 3) uint8
  frames  40 to 71 of 300
  times   1.333 to 2.367 s
  loaded  in 24.1 ms

In Python:
  from load_frames import load_frames, load_audio, ClipReader, ClipDataset
  load_frames("clip.mp4", start=40, stop=72)     # (32, H, W, 3) uint8, RGB
"""

from __future__ import annotations

import sys

try:
    import argparse
    import functools
    import platform
    import re
    import time
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any, NoReturn

    import av
    import numpy as np

    from clipreader import VERSION
    from clipreader.clip_reader import ClipReader, Layout, Rate, Unit, finish, load_audio
    from clipreader.dataset import ClipDataset
    from clipreader.media import (
        MAX_FRAMES,
        MAX_PIXELS,
        ClipError,
        ClipNotFound,
        CorruptClip,
        FrameIndexError,
        Media,
        NoAudio,
        NoVideo,
        TooLarge,
    )
    from clipreader.transforms import Array, save_sheet
except (ImportError, KeyboardInterrupt) as stop:
    if __name__ != "__main__":
        raise
    is_missing = isinstance(stop, ImportError)
    install = f"error: {stop}: pip install -U -r requirements.txt"
    print(install if is_missing else "stopped", file=sys.stderr)
    sys.exit(2 if is_missing else 130)

__all__ = [
    "ClipDataset",
    "ClipError",
    "ClipNotFound",
    "ClipReader",
    "CorruptClip",
    "FrameIndexError",
    "NoAudio",
    "NoVideo",
    "TooLarge",
    "load_audio",
    "load_frames",
]

EXIT_OK, EXIT_INCOMPLETE, EXIT_USAGE = 0, 1, 2


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
    """Return the frames of a clip: a (T, H, W, 3) uint8 array, RGB, upright.

    path: a path, the bytes of a file, or a binary file object, which is read to its end
    start, stop: first frame (inclusive) and last frame (exclusive); default: the whole clip
    indices: load these frames, in this order; repeats are allowed, -1 is the last
    unit: "frame", or "s": start, stop and indices are seconds after the first frame. start and stop
        then give the frames that appear in between (stop can be after the end), an index gives
        the frame that is on the screen at that time
    fps: resample to this rate: the frames that ffmpeg and frame_extract.py give; start, stop and
        indices then count frames of that rate. 12.5, "30000/1001"; 0: the clip's own
    short_side: scale the shorter side to this many pixels
    out: a (T, H, W, 3) uint8 array to write into, and to return
    layout: "THWC", or "TCHW": a view of the same memory, (T, 3, H, W)
    as_torch: a torch tensor on the same memory
    max_pixels, max_frames: limits of a frame and of the clip; more is TooLarge

    Raises a ClipError: ClipNotFound; NoVideo; TooLarge; FrameIndexError (`.frames`: the number of
    frames); CorruptClip (`.frame`: where; `.frames`: the requested frames before it). And
    ValueError or TypeError for arguments that make no sense.
    """
    limits = {"max_pixels": max_pixels, "max_frames": max_frames}
    with ClipReader(path, short_side=short_side, **limits) as reader:
        array = reader.read(start, stop, indices=indices, unit=unit, fps=fps, out=out)
    return finish(array, layout, as_torch)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        text = _printable(f"{self.prog}: error: {message} (see {self.prog} --help)")
        self.exit(EXIT_USAGE, f"{text}\n")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    summary, _, examples = (__doc__ or "").partition("\n\n")
    parser = _Parser(
        description=summary,
        epilog=examples,
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, width=79),
        allow_abbrev=False,
    )
    parser.add_argument("clip", type=Path, nargs="?", help="clip to load")
    add = parser.add_argument_group("what to load (default: every frame)").add_argument
    add("--start", type=float, metavar="N", help="first frame (inclusive)")
    add("--stop", type=float, metavar="N", help="last frame (exclusive)")
    add("--indices", type=_numbers, metavar="N,N,...", help="frames to load instead")
    unit = "unit of the three options above (default: frame)"
    add("--unit", choices=("frame", "s"), default="frame", help=unit)
    fps = "resample to N frames per second (default: 0, the clip's own)"
    add("--fps", default="0", metavar="N", help=fps)
    add("--short_side", type=int, metavar="N", help="scale to N pixels")
    pixels = f"reject frames of more than N pixels (default: {MAX_PIXELS})"
    add("--max_pixels", type=int, default=MAX_PIXELS, metavar="N", help=pixels)
    add = parser.add_argument_group("what to show").add_argument
    add("--sheet", type=Path, metavar="PNG", help="draw the frames as a grid in a new file")
    add("--bench", type=Path, metavar="DIR", help="time the loading of chunks of these clips")
    python = f"Python {platform.python_version()} on {sys.platform}"
    line = f"%(prog)s {VERSION} ({python}, PyAV {av.__version__}, numpy {np.__version__})"
    add = parser.add_argument_group("general").add_argument
    add("--version", action="version", version=line, help="print versions and exit")
    add("-q", "--quiet", action="store_true", help="print only errors")
    add("-v", "--verbose", action="store_true", help="also print the time of each frame")
    words = sys.argv[1:] if argv is None else argv
    # Options may be spelled with dashes, as in the other scripts.
    args = parser.parse_args([re.sub(r"^--[\w-]+", _underscored, word) for word in words])
    if (args.clip is None) == (args.bench is None):
        parser.error("name a clip, or use --bench DIR")
    if args.sheet is not None and args.sheet.exists():
        parser.error(f"--sheet: {args.sheet} already exists; choose another name")
    return args


def _underscored(option: re.Match[str]) -> str:
    return "--" + option[0][2:].replace("-", "_")


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 0,37,74") from None


def main(argv: Sequence[str] | None = None) -> int:
    try:
        args = parse_args(argv)
        lines = _time_chunks(args.bench) if args.bench else _load(args)
        if not args.quiet:
            print("\n".join(lines))
        return EXIT_OK
    except (ClipError, OSError, ValueError, TypeError) as error:
        print(f"error: {_printable(error)}", file=sys.stderr)
        return EXIT_INCOMPLETE if isinstance(error, CorruptClip) else EXIT_USAGE
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _printable(text: object) -> str:
    """Escape what a terminal obeys or cannot show."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def _load(args: argparse.Namespace) -> list[str]:
    """Load the frames, draw the sheet, and return the lines to print."""
    began = time.perf_counter()
    with ClipReader(args.clip, short_side=args.short_side, max_pixels=args.max_pixels) as reader:
        numbers = reader.frame_numbers(
            args.start, args.stop, indices=args.indices, unit=args.unit, fps=args.fps
        )
        frames = reader.read(indices=numbers)
        ms = (time.perf_counter() - began) * 1e3
        times = reader.times[list(numbers)]
        count = len(reader)
    lines = [f"clip    {_printable(args.clip)}", f"shape   {frames.shape} {frames.dtype}"]
    if len(numbers):
        lines.append(f"frames  {numbers[0]} to {numbers[-1]} of {count}")
        lines.append(f"times   {times[0]:.3f} to {times[-1]:.3f} s")
    lines.append(f"loaded  in {ms:.1f} ms")
    if args.verbose:
        each = zip(numbers, times, strict=True)
        lines += [f"frame   {number} at {time_:.6f} s" for number, time_ in each]
    if args.sheet is not None:
        save_sheet(args.sheet, frames, [str(number) for number in numbers])
        lines.append(f"sheet   {_printable(args.sheet)}")
    return lines


def _time_chunks(folder: Path) -> list[str]:
    """Load a chunk of 32 frames from the middle of each clip, and return the time it takes."""
    data = ClipDataset(folder, 32, 1, chunk="middle")
    wall, cpu = time.perf_counter(), time.process_time()
    for index in range(len(data)):
        data[index]
    wall = (time.perf_counter() - wall) / len(data) * 1e3
    cpu = (time.process_time() - cpu) / len(data) * 1e3
    return [
        f"clips   {len(data)}, a chunk of 32 frames of each, on one thread",
        f"took    {wall:.1f} ms per chunk, {cpu:.1f} ms of CPU",
    ]


if __name__ == "__main__":
    sys.exit(main())
