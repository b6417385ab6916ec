"""Compare downscale_videos.py with the plain way: CPU time, bytes, SSIM, and the cost of GOPs.

examples:
  python -m benchmarks.downscale
  python -m benchmarks.downscale --videos clips --turns 3

The plain way is `ffmpeg -i clip -c:v libx264 -vf scale=... -threads 1` with x264's defaults
(medium, CRF 23). The script's CPU time is that of a whole worker: probing, ffmpeg and checks.
SSIM is that of luma and chroma together against the scaled source, from ffmpeg's ssim filter.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import mean, median

import av

from benchmarks.clips import add_videos_option, clips_to_measure
from benchmarks.frames import cpu
from downscale_videos import DEFAULT, FOR_LOADING, Downscaler, small_size
from utils.batch import ClipFile
from utils.cli import make_parser, positive_int, run_script
from utils.video.ffmpeg import Encode, find_ffmpeg
from utils.video.whole import Limits

WAYS: dict[str, Encode] = {
    "default": DEFAULT,
    "veryfast CRF 22": replace(DEFAULT, crf=22, x264_params=None),
    "faster CRF 23": replace(DEFAULT, crf=23, preset="faster", x264_params=None),
    "keyint 60": replace(DEFAULT, keyint=60),
    "keyint 30": replace(DEFAULT, keyint=30),
    "keyint 16": replace(DEFAULT, keyint=16),
    "keyint 12": replace(DEFAULT, keyint=12),
    "for_loading": FOR_LOADING,
}


def plain(clip: Path, size: tuple[int, int], target: Path) -> None:
    argv = [find_ffmpeg().path, "-nostdin", "-y", "-v", "error", "-i", str(clip)]
    argv += ["-c:v", "libx264", "-vf", f"scale={size[0]}:{size[1]}", "-threads", "1"]
    subprocess.run([*argv, str(target)], check=True)


def ours(encode: Encode, clip: Path, work: Path) -> None:
    """As a worker does it, in this very process."""
    worker = Downscaler(find_ffmpeg(), encode, Fraction(0), False, Limits(), work / "ours", work)
    result = worker(ClipFile(clip.stem, clip))
    if result.status != "written":
        raise RuntimeError(f"{clip}: {result.reason}: {result.message}")


def ssim(clip: Path, made: Path, size: tuple[int, int]) -> float:
    graph = f"[1:v]scale={size[0]}:{size[1]}:flags=bicubic[r];[0:v][r]ssim"
    argv = [find_ffmpeg().path, "-nostdin", "-i", str(made), "-i", str(clip), "-lavfi", graph]
    done = subprocess.run([*argv, "-f", "null", "-"], capture_output=True, text=True, check=True)
    return float(re.findall(r"All:([\d.]+)", done.stderr)[-1])


def compare(clips: Sequence[Path], work: Path, turns: int) -> dict[str, tuple[float, float, float]]:
    """way -> (CPU and bytes as parts of the plain way's, SSIM less the plain way's)."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for turn in range(turns):
        for clip in clips:
            with av.open(str(clip)) as container:
                stream = container.streams.video[0]
                size = small_size(stream.width, stream.height, DEFAULT)
            theirs = work / "plain.mp4"
            cost = cpu(partial(plain, clip, size, theirs))[0]
            quality = ssim(clip, theirs, size) if turn == 0 else 0.0
            for name, encode in WAYS.items():
                spent = cpu(partial(ours, encode, clip, work))[0]
                made = work / "ours" / f"{clip.stem}.mp4"
                better = ssim(clip, made, size) - quality if turn == 0 else float("nan")
                parts = spent / cost, made.stat().st_size / theirs.stat().st_size, better
                found.setdefault(name, []).append(parts)
    return {name: middle(each) for name, each in found.items()}


def middle(each: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Median CPU, mean bytes, mean SSIM (of the turns that measured it)."""
    better = [value for _, _, value in each if not math.isnan(value)]
    return median(cost for cost, _, _ in each), mean(size for _, size, _ in each), mean(better)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    add_videos_option(parser)
    parser.add_argument(
        "--turns", type=positive_int, default=3, metavar="N", help="measure N times"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sizes = ((640, 360), (1280, 720))
        groups = clips_to_measure(args.videos, work / "clips", sizes)
        clips = [clip for each in groups.values() for clip in each]
        print(f"{len(clips)} clips, {', '.join(groups)}; the plain way is 1")
        print("| | CPU | bytes | SSIM |\n|---|---|---|---|")
        for name, (cost, size, better) in compare(clips, work, args.turns).items():
            print(f"| {name} | {cost:.2f} | {size:.2f} | {better:+.4f} |")
    return 0


if __name__ == "__main__":
    run_script(main)
