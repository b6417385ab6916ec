"""download.py against the plain way, side by side: bytes, requests, CPU and wall seconds a clip.

  python -m benchmarks.download [--videos 8] [--rounds 3] [--seconds 300]

The plain way is what most tools of this kind do: yt-dlp fetches the whole video, then
`ffmpeg -ss S -t 10` cuts it and encodes with its defaults. Both ways fetch the same clips from the
stand-in, in turn, in one run; what is printed is the median over the rounds of ours / plain.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.standin.server import StandIn
from tests.standin.sources import frame_numbers, make_source
from utils.video.ffmpeg import find_ffmpeg

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


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.download", description=__doc__)
    parser.add_argument("--videos", type=int, default=8, help="clips a round (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument(
        "--seconds", type=float, default=300, help="length of a video (default: 300)"
    )
    return parser.parse_args(argv)


def measured(way: Way, standin: StandIn, ids: Sequence[str], start: int, out: Path) -> Cost:
    """Run one way and say what it cost; the stand-in's own CPU is not in it."""
    standin.clear_log()
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    way(standin, ids, start, out)
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    standin.wait_idle()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    for path in out.glob("*.mp4"):
        assert len(frame_numbers(path)) == 250, f"{path} is not 10 s long"
    size = sum(path.stat().st_size for path in out.glob("*.mp4"))
    totals = (standin.bytes_served, len(standin.requests()), cpu, wall, size)
    return Cost(*(total / len(ids) for total in totals))


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


def compare(videos: int, rounds: int, seconds: float) -> tuple[list[tuple[Cost, Cost]], int]:
    """(what a clip cost, plain and ours, each round; the bytes of the video)."""
    ids = [f"benchmark{number:02d}" for number in range(videos)]
    pairs: list[tuple[Cost, Cost]] = []
    with tempfile.TemporaryDirectory() as name, StandIn() as standin:
        folder = Path(name)
        source = make_source(folder / "source.mp4", seconds=seconds)
        for youtube_id in ids:
            standin.add_video(youtube_id, source)
        standin.media_url(ids[0])
        for number in range(rounds):
            start = 20 + number * 37
            a, b = folder / f"plain{number}", folder / f"ours{number}"
            pairs.append(
                (measured(plain, standin, ids, start, a), measured(ours, standin, ids, start, b))
            )
        return pairs, source.stat().st_size


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    pairs, size = compare(args.videos, args.rounds, args.seconds)
    print(f"{args.seconds:g} s video of {size / 1e6:.1f} MB, 10 s clips, {args.rounds} rounds of")
    print(f"{args.videos}, one at a time; a clip, and the median ratio:")
    print(f"{'':14}{'plain':>12}{'ours':>12}{'ratio':>8}")
    rows = (("bytes", 1e6, "MB"), ("requests", 1, ""), ("cpu", 1, "s"), ("wall", 1, "s"))
    for field, unit, suffix in (*rows, ("clip_bytes", 1e6, "MB")):
        left = statistics.median(getattr(p, field) for p, _ in pairs) / unit
        right = statistics.median(getattr(o, field) for _, o in pairs) / unit
        ratio = statistics.median(getattr(o, field) / getattr(p, field) for p, o in pairs)
        print(f"{field + ' ' + suffix:14}{left:12.2f}{right:12.2f}{ratio:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
