"""Measure make_training_lists.py at the size of all of Kinetics, by format: time and memory.

  python -m benchmarks.training [--clips 650000] [--rounds 1] [--formats slowfast csv ...]

Uses 650,000 rows of train and val, and a folder with a file for each of them. The CPU time is that
of the process and its children; memory is the peak of one process (the kernel's ru_maxrss).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
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

ROOT = Path(__file__).resolve().parent.parent
LETTERS = string.ascii_letters + string.digits + "-_"
FORMATS = ("slowfast", "mmaction2", "videomae", "jepa", "csv", "json", "torchvision", "huggingface",
           "webdataset")  # fmt: skip


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--clips", type=int, default=650_000, metavar="N", help="number of rows")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="measure N times")
    parser.add_argument(
        "--formats", nargs="+", default=FORMATS, help="measure these formats only (default: all)"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="work in DIR (default: a temporary folder)"
    )
    return parser.parse_args(argv)


def make_inputs(folder: Path, clips: int) -> None:
    """kinetics-700_{train,val}.csv, and a folder `clips` with a file of one byte a clip."""
    chance = random.Random(1)
    (folder / "clips").mkdir()
    with (
        (folder / "kinetics-700_train.csv").open("w") as train,
        (folder / "kinetics-700_val.csv").open("w") as val,
    ):
        for file in (train, val):
            file.write("label,youtube_id,time_start,time_end,split\n")
        for number in range(clips):
            youtube_id = "".join(chance.choices(LETTERS, k=11))
            start = chance.randrange(600)
            split, file = ("val", val) if number % 19 == 0 else ("train", train)
            times = f"{start},{start + 10}"
            file.write(f"label {number % 700},{youtube_id},{times},{split}\n")
            path = folder / "clips" / f"{clip_name(youtube_id, start, start + 10)}.mp4"
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
            os.write(descriptor, b"x")
            os.close(descriptor)


def measure(folder: Path, form: str) -> tuple[float, float, int]:
    """(CPU seconds, wall seconds, peak bytes) of one run into a fresh folder."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "make_training_lists.py", str(folder / "clips"), str(out)]
    command += ["--format", form, "--quiet"]
    command += ["--shard_size", "100M"] if form == "webdataset" else []
    command += ["--input_csv", *(str(folder / f"kinetics-700_{s}.csv") for s in ("train", "val"))]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{form} ended with {process.returncode}")
    took = time.monotonic() - started
    return usage.ru_utime + usage.ru_stime, took, usage.ru_maxrss * 1024


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        make_inputs(folder, args.clips)
        print(f"{args.clips:,} rows, {args.clips:,} files; median of {args.rounds}")
        for form in args.formats:
            runs = [measure(folder, form) for _ in range(args.rounds)]
            cpu, wall, peak = (statistics.median(column) for column in zip(*runs, strict=True))
            print(f"{form:12} {cpu:6.1f} s CPU {wall:6.1f} s wall {peak / 1e6:6.0f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
