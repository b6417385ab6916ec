"""Compare frame_extract.py with the plain way: CPU time per frame, wall clock, SSIM, colours.

examples:
  python -m benchmarks.frames
  python -m benchmarks.frames --videos clips --ffmpeg /usr/bin/ffmpeg

The plain way is one `ffmpeg -threads 1 -i clip -q:v 1 out/%06d.jpg` per clip, two clips at a time
(ffmpeg treats -q:v 1 as 2). Ratios are medians over turns in which both process the same clip.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import av

import frame_extract
from benchmarks.clips import add_videos_option, clips_to_measure
from utils.batch import ClipFile
from utils.cli import make_parser, positive_int, run_script
from utils.video.ffmpeg import find_ffmpeg
from utils.video.whole import Limits

SSIM = re.compile(r"Y:([\d.]+).*?U:([\d.]+).*?V:([\d.]+)")


def cpu(work: Callable[[], object]) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of `work`, child processes that have ended included."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    before, began = [resource.getrusage(kind) for kind in kinds], time.monotonic()
    work()
    spent, after = time.monotonic() - began, [resource.getrusage(kind) for kind in kinds]
    pairs = zip(before, after, strict=True)
    return sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in pairs), spent


def plain(ffmpeg: str, clip: Path, out: Path) -> None:
    out.mkdir(parents=True)
    argv = [ffmpeg, "-nostdin", "-v", "error", "-threads", "1", "-i", str(clip.absolute())]
    subprocess.run([*argv, "-q:v", "1", "%06d.jpg"], check=True, cwd=out)


def ours(clip: Path, out: Path) -> None:
    """As a worker does it, in this very process."""
    out.mkdir(parents=True, exist_ok=True)
    args = frame_extract.parse_args([str(clip.parent), str(out), "--fps", "0"])
    worker = frame_extract.Extractor(args, Limits(), out, out)
    result = worker(ClipFile(clip.stem, clip))
    if result.status != "written":
        raise RuntimeError(f"{clip}: {result.reason}: {result.message}")


def decode_only(clip: Path) -> None:
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = "NONE"
        for _ in container.decode(video=0):
            pass


def quality(ffmpeg: str, clip: Path, pictures: Path, matrix: str) -> tuple[float, float]:
    """(SSIM of luma, of chroma) of JPEGs against the decoded frames, by ffmpeg's ssim filter.

    matrix: that of the JPEGs' values; the plain way leaves them in the video's own.
    """
    source = "[0]scale=out_color_matrix=bt601:out_range=full,format=yuvj444p[a]"
    jpegs = f"[1]scale=in_color_matrix={matrix}:out_color_matrix=bt601:in_range=full"
    graph = f"{source};{jpegs}:out_range=full,format=yuvj444p[b];[b][a]ssim"
    argv = [ffmpeg, "-nostdin", "-i", str(clip.absolute()), "-start_number", "1", "-i", "%06d.jpg"]
    done = subprocess.run(
        [*argv, "-fps_mode", "passthrough", "-lavfi", graph, "-f", "null", "-"],
        cwd=pictures,
        capture_output=True,
        text=True,
        check=True,
    )
    found = SSIM.findall(done.stderr)[-1]
    return float(found[0]), (float(found[1]) + float(found[2])) / 2


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def compare(
    clips: Sequence[Path], ffmpegs: Sequence[str], work: Path, turns: int
) -> dict[str, float]:
    """CPU ratios, SSIM and bytes of one size of clips.

    Every turn writes into folders of its own, and nothing is removed before the end: ext4 looks
    through the inodes that were freed just before, which doubled the cost of a file.
    """
    ratios: dict[str, list[float]] = {}
    ours(clips[0], work / "warm_up")  # the first one imports what it needs
    for turn in range(turns):
        for clip in clips:
            mine = cpu(partial(ours, clip, work / f"ours{turn}"))[0]
            decoding = cpu(partial(decode_only, clip))[0]
            for number, ffmpeg in enumerate(ffmpegs):
                out = work / f"plain{turn}" / f"{clip.stem}{number}"
                theirs = cpu(partial(plain, ffmpeg, clip, out))[0]
                ratios.setdefault(f"ours/plain{number}", []).append(mine / theirs)
                ratios.setdefault(f"decoding/plain{number}", []).append(decoding / theirs)
    found = {name: median(values) for name, values in ratios.items()}
    tool, clip = find_ffmpeg().path, clips[0]
    with av.open(str(clip)) as container:
        matrix = (
            "bt709" if int(container.streams.video[0].codec_context.colorspace) == 1 else "bt601"
        )
    mine_dir, plain_dir = work / "ours0" / clip.stem, work / "plain0" / f"{clip.stem}0"
    found["ssim"], found["ssim_uv"] = quality(tool, clip, mine_dir, "bt601")
    found["ssim_plain"], found["ssim_uv_plain"] = quality(tool, clip, plain_dir, matrix)
    found["bytes"] = bytes_in(mine_dir) / bytes_in(plain_dir)
    return found


def two_at_a_time(clips: Sequence[Path], ffmpeg: str, work: Path) -> float:
    """Wall clock of frame_extract.py --n 2, start included, as a part of two plain ways at once."""
    links = work / "videos"
    links.mkdir()
    for number in range(16):
        (links / f"{number:02d}.mp4").symlink_to(clips[number % len(clips)].absolute())
    names = sorted(links.iterdir())
    script = Path(__file__).parent.parent / "frame_extract.py"
    argv = [sys.executable, str(script), str(links)]

    def script_run(turn: int) -> None:
        subprocess.run(
            [*argv, str(work / f"script{turn}"), "--fps", "0", "--n", "2", "-q"], check=True
        )

    def plain_run(turn: int) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda p: plain(ffmpeg, p, work / f"two{turn}" / p.stem), names))

    turns = range(2)
    pairs = [(cpu(partial(script_run, n))[1], cpu(partial(plain_run, n))[1]) for n in turns]
    return median(mine / theirs for mine, theirs in pairs)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    add_videos_option(parser)
    parser.add_argument(
        "--ffmpeg",
        nargs="+",
        metavar="PATH",
        help="ffmpegs of the plain way (default: that of the wheel)",
    )
    parser.add_argument(
        "--turns", type=positive_int, default=5, metavar="N", help="measure N times"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    ffmpegs = args.ffmpeg or [find_ffmpeg().path]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        groups = clips_to_measure(args.videos, work / "clips")
        for number, ffmpeg in enumerate(ffmpegs):
            print(f"plain{number}: {find_ffmpeg(ffmpeg).version}")
        for size, clips in groups.items():
            of_size = work / size
            found = compare(clips, ffmpegs, of_size, args.turns)
            found["wall"] = two_at_a_time(clips, ffmpegs[0], of_size)
            print(size, ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    run_script(main)
