"""Measure the plan of download.py at the size of all of Kinetics: time and memory.

  python -m benchmarks.plan [--clips 650000] [--rounds 3]

Makes a list of so many rows and a folder with a file for each clip, then times `download.py
--dry_run` three ways: with all clips on disk, with none, and with none and a report of them all.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from utils.cli import Parser
from utils.clip import clip_name
from utils.report import REPORT_NAME, RESULT_COLUMNS

ROOT = Path(__file__).resolve().parent.parent
LETTERS = string.ascii_letters + string.digits + "-_"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--clips", type=int, default=650_000, metavar="N", help="number of rows")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measure N times")
    return parser.parse_args(argv)


def make_inputs(folder: Path, clips: int) -> None:
    """list.csv, a folder `full` with every clip, and `empty` with a report that has them dead."""
    chance = random.Random(1)
    full, empty, known = folder / "full", folder / "empty", folder / "known"
    for each in (full, empty, known):
        each.mkdir()
    with (folder / "list.csv").open("w") as listing, (known / REPORT_NAME).open("w") as report:
        listing.write("label,youtube_id,time_start,time_end,split\n")
        report.write(",".join(RESULT_COLUMNS) + "\n")
        for number in range(clips):
            youtube_id = "".join(chance.choices(LETTERS, k=11))
            start = chance.randrange(600)
            name = clip_name(youtube_id, start, start + 10)
            listing.write(f"label {number % 700},{youtube_id},{start},{start + 10},train\n")
            report.write(
                f"{name},{youtube_id},{start},{start + 10},unavailable,removed,youtube,1,3.2,0,"
                "This video has been removed by the uploader,2026-11-22T17:37:35Z\n"
            )
            os.close(os.open(full / f"{name}.mp4", os.O_CREAT | os.O_WRONLY))


def time_plan(folder: Path, out: str) -> tuple[float, float]:
    """(wall, CPU seconds) of the plan for one of the folders that `make_inputs` made."""
    command = [sys.executable, str(ROOT / "download.py"), str(folder / out), "-q"]
    command += ["--dry_run", "--input_csv", str(folder / "list.csv")]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, args.clips)
        print(f"{args.clips:,} rows, median of {args.rounds}: wall s, CPU s, MB")
        for out in ("full", "empty", "known"):
            runs = [time_plan(folder, out) for _ in range(args.rounds)]
            wall, cpu = (statistics.median(times) for times in zip(*runs, strict=True))
            # The peak of all children so far; `full` comes first, and the rest can only add.
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(f"{out:6} {wall:6.1f} {cpu:6.1f} {peak:6.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
