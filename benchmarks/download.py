"""Compare download.py with the plain way: bytes, requests, CPU time and wall clock per clip.

  python -m benchmarks.download [--videos 8] [--rounds 3] [--seconds 300] [--made] [--dash]

The plain way is what most tools do: yt-dlp downloads the whole video, then `ffmpeg -ss S -t 10`
cuts it and encodes with its defaults. Both ways fetch the same clips from the stand-in, in turn.
The ratios are medians over the rounds, with the plain way as 1. The CPU time is that of all
processes. The videos are two real films in turn (`benchmarks/films`), or a made one.
"""

from __future__ import annotations

import argparse
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.films import NoFilms, make_long_film
from tests.standin.server import StandIn
from tests.standin.sources import make_source
from utils.cli import Parser
from utils.video.ffmpeg import find_ffmpeg
from utils.video.whole import read_video

Way = Callable[[StandIn, Sequence[str], int, Path], None]
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Cost:
    """What fetching the clips cost, a clip."""

    bytes: float
    requests: float
    cpu: float
    wall: float
    clip_bytes: float
    ssim: float  # of the picture, to the source


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks.download", description=__doc__)
    parser.add_argument("--videos", type=int, default=8, metavar="N", help="clips per round")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measure N times")
    parser.add_argument("--seconds", type=float, default=300, metavar="N", help="length of a video")
    parser.add_argument("--made", action="store_true", help="use a made video, not real films")
    parser.add_argument(
        "--dash",
        action="store_true",
        help="serve video and audio separately, as YouTube does above 360 lines",
    )
    return parser.parse_args(argv)


def measured(
    way: Way, standin: StandIn, ids: Sequence[str], start: int, out: Path, source: Path
) -> Cost:
    """Run one way and say what it cost; the stand-in's own CPU is not in it."""
    standin.clear_log()
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    way(standin, ids, start, out)
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    standin.wait_idle()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    for path in out.glob("*.mp4"):
        assert read_video(path).frames == 250, f"{path} is not 10 s long"
    size = sum(path.stat().st_size for path in out.glob("*.mp4"))
    return Cost(
        bytes=standin.bytes_served / len(ids),
        requests=len(standin.requests()) / len(ids),
        cpu=cpu / len(ids),
        wall=wall / len(ids),
        clip_bytes=size / len(ids),
        ssim=likeness(next(out.glob("*.mp4")), source, start),
    )


def likeness(clip: Path, source: Path, start: int) -> float:
    """SSIM of a clip's luma to the same frames of its source, by ffmpeg's filter."""
    given = [find_ffmpeg().path, "-i", str(clip), "-ss", str(start), "-t", "10", "-i", str(source)]
    argv = [*given, "-lavfi", "[0:v][1:v]ssim", "-f", "null", "-"]
    log = subprocess.run(argv, capture_output=True, text=True, check=True).stderr
    found = re.search(r"SSIM Y:([0-9.]+)", log)
    assert found is not None, log
    return float(found[1])


def make_video(path: Path, seconds: float, made: bool) -> Path:
    """The video that all ids stand for."""
    if not made:
        try:
            make_long_film(path.parent, path, seconds)
            return path
        except NoFilms as error:
            print(f"no real films ({error}): a made video", file=sys.stderr)
    return make_source(path, seconds=seconds)


def plain(standin: StandIn, ids: Sequence[str], start: int, out: Path) -> None:
    """The whole video with yt-dlp, then ffmpeg with its defaults."""
    out.mkdir()
    tool = find_ffmpeg().path
    for youtube_id in ids:
        whole = out / f"{youtube_id}.whole"
        fetch = [sys.executable, "-m", "yt_dlp", "--ignore-config", "-q", "-f", "bv*+ba/b"]
        fetch += ["-S", "height:480", "--merge-output-format", "mp4", "--ffmpeg-location", tool]
        fetch += ["-o", f"{whole}.%(ext)s", *standin.ytdlp_arg_list]
        subprocess.run([*fetch, "--", f"https://www.youtube.com/watch?v={youtube_id}"], check=True)
        cut = [tool, "-v", "error", "-ss", str(start), "-i", f"{whole}.mp4", "-t", "10"]
        subprocess.run([*cut, str(out / f"{youtube_id}.mp4")], check=True)
        Path(f"{whole}.mp4").unlink()


def ours(standin: StandIn, ids: Sequence[str], start: int, out: Path) -> None:
    listing = out.with_suffix(".csv")
    rows = [f"{youtube_id},{start},{start + 10}" for youtube_id in ids]
    listing.write_text("\n".join(["youtube_id,time_start,time_end", *rows]) + "\n")
    command = [sys.executable, str(ROOT / "download.py"), str(out), "--input_csv", str(listing)]
    command += ["--ytdlp_args", standin.ytdlp_args, "--videos_per_hour", "0", "--n", "1", "-q"]
    subprocess.run(command, check=True)


def print_rows(pairs: Sequence[tuple[Cost, Cost]]) -> None:
    print(f"{'':14}{'plain':>12}{'ours':>12}{'ratio':>8}")
    rows = (("bytes", 1e6, "MB"), ("requests", 1, ""), ("cpu", 1, "s"), ("wall", 1, "s"))
    for field, unit, suffix in (*rows, ("clip_bytes", 1e6, "MB"), ("ssim", 1, "")):
        left = statistics.median(getattr(p, field) for p, _ in pairs) / unit
        right = statistics.median(getattr(o, field) for _, o in pairs) / unit
        ratio = statistics.median(getattr(o, field) / getattr(p, field) for p, o in pairs)
        digits = 4 if field == "ssim" else 2
        print(f"{field + ' ' + suffix:14}{left:12.{digits}f}{right:12.{digits}f}{ratio:8.2f}")


def compare(
    videos: int, rounds: int, seconds: float, made: bool = False, dash: bool = False
) -> tuple[list[tuple[Cost, Cost]], int]:
    """(what a clip cost, plain and ours, each round; the bytes of the video)."""
    ids = [f"benchmark{number:02d}" for number in range(videos)]
    pairs: list[tuple[Cost, Cost]] = []
    with tempfile.TemporaryDirectory() as name, StandIn() as standin:
        folder = Path(name)
        source = make_video(folder / "source.mp4", seconds, made)
        for youtube_id in ids:
            standin.add_video(youtube_id, source, progressive=False if dash else None)
        standin.media_url(ids[0])
        for number in range(rounds):
            start = 20 + number * 37
            a, b = folder / f"plain{number}", folder / f"ours{number}"
            left = measured(plain, standin, ids, start, a, source)
            pairs.append((left, measured(ours, standin, ids, start, b, source)))
        return pairs, source.stat().st_size


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    pairs, size = compare(args.videos, args.rounds, args.seconds, args.made, args.dash)
    print(f"{args.seconds:g} s video of {size / 1e6:.1f} MB, 10 s clips, {args.rounds} rounds of")
    print(f"{args.videos}, one at a time; a clip, and the median ratio:")
    print_rows(pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
