"""Measure make_report.py at the size of all of Kinetics: time, memory, and the size of its page.

  python -m benchmarks.page [--clips 650000] [--rounds 3] [--videos DIR]

Makes a list of so many rows in 700 classes, a folder with files for 12 of 13 clips, and a report
with a line for each clip, then times make_report.py without probing. With --videos, the files of
the folder are links to these clips, and the page is made once more with the default sample and
images.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from benchmarks.plan import LETTERS, ROOT
from utils.cli import Parser
from utils.clip import clip_name
from utils.report import REPORT_NAME, RESULT_COLUMNS

CLASSES, MISSING_EVERY = 700, 13
START = datetime(2026, 11, 1)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--clips", type=int, default=650_000, metavar="N", help="number of rows")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measure N times")
    parser.add_argument(
        "--videos", type=Path, metavar="DIR", help="probe and show the clips in DIR"
    )
    return parser.parse_args(argv)


def make_inputs(folder: Path, clips: int, videos: Path | None) -> None:
    """kinetics-700_train.csv, and a folder `clips` with most of them and a report."""
    chance = random.Random(1)
    sources = sorted(videos.glob("*.mp4")) if videos else []
    out = folder / "clips"
    out.mkdir()
    with (
        (folder / "kinetics-700_train.csv").open("w") as listing,
        (out / REPORT_NAME).open("w") as report,
    ):
        listing.write("label,youtube_id,time_start,time_end,split\n")
        report.write(",".join(RESULT_COLUMNS) + "\n")
        for number in range(clips):
            youtube_id = "".join(chance.choices(LETTERS, k=11))
            start = chance.randrange(600)
            name = clip_name(youtube_id, start, start + 10)
            label = f"doing the thing of class {number % CLASSES}"
            listing.write(f"{label},{youtube_id},{start},{start + 10},train\n")
            at = (START + timedelta(seconds=12 * number / 8)).strftime("%Y-%m-%dT%H:%M:%SZ")
            is_there = number % MISSING_EVERY != 0
            what = "downloaded,,youtube,1,3.2,812345," if is_there else (
                "unavailable,removed,youtube,1,0.9,0,This video has been removed by the uploader"
            )  # fmt: skip
            report.write(f"{name},{youtube_id},{start},{start + 10},{what},{at}\n")
            if is_there and sources:
                (out / f"{name}.mp4").symlink_to(chance.choice(sources))
            elif is_there:
                os.close(os.open(out / f"{name}.mp4", os.O_CREAT | os.O_WRONLY))


def run(folder: Path, *options: str) -> tuple[float, float, float, float]:
    """(wall s, CPU s, MB of memory, MB of the page) of one make_report.py."""
    command = [sys.executable, str(ROOT / "make_report.py"), "clips", "-q", *options]
    command += ["--input_csv", "kinetics-700_train.csv"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, cwd=folder)
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    page = (folder / "clips_report" / "report.html").stat().st_size / 1e6
    return wall, cpu, after.ru_maxrss / 1024, page


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    videos = args.videos.resolve() if args.videos else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, args.clips, videos)
        print(f"{args.clips:,} rows, median of {args.rounds}: wall s, CPU s, MB, MB of the page")
        rounds = [run(folder, "--sample", "0", "--pictures", "0") for _ in range(args.rounds)]
        medians = [statistics.median(values) for values in zip(*rounds, strict=True)]
        print("numbers and plots " + " ".join(f"{value:7.1f}" for value in medians))
        if videos:
            print("with the default  " + " ".join(f"{value:7.1f}" for value in run(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
