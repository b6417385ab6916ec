"""Compare every job of the suite with the plain way, in one table with targets.

  python -m benchmarks.table             # an hour on 2 cores
  python -m benchmarks.table --quick     # 10 minutes; lists of a tenth of the size
  python -m benchmarks.table --only load_frames plan

Each row is one of the other benchmarks, which explain the plain way and print more. `ratio` is the
suite / plain way, the median over turns on the same input, of CPU seconds or of what the row names.
load_frames is the inverse: torchcodec / load_frames. Target seconds are for the machine that
benchmarks/README.md was measured on, and include the start of the script. With --quick, lists and
folders have no verdict, because the start of a script takes as long as for the full size. A row
that cannot be measured shows the reason.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import bookkeeping, download, frames, load, plan
from benchmarks.clips import FILMS, clips_to_measure
from utils.cli import make_parser, run_script
from utils.report import REPORT_NAME
from utils.video.ffmpeg import find_ffmpeg

AT_MOST, AT_LEAST = "<=", ">="
CPU, WALL = "s of CPU", "s by the clock"


@dataclass(frozen=True)
class Row:
    """A line of the table. `wanted` holds for `value`, which is the ratio unless it says a unit.

    scale: of the list, where `wanted` is that of the whole one.
    """

    job: str
    ratio: float
    bound: str
    wanted: float
    value: float | None = None
    unit: str = ""
    scale: float = 1.0

    def __str__(self) -> str:
        value = self.ratio if self.value is None else self.value
        reached = value <= self.wanted if self.bound == AT_MOST else value >= self.wanted
        measured = f"{self.value:.2f} {self.unit}" if self.value is not None else ""
        wanted = f"{self.bound} {self.wanted:g} {self.unit}".rstrip()
        judged = ("yes" if reached else "no") if self.scale == 1 else "full size only"
        cells = (self.job, f"{self.ratio:.2f}", measured, wanted, judged)
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Effort:
    """How much is measured: `scale` of the lists, so many turns."""

    scale: float
    turns: int


FULL, QUICK = Effort(1.0, 5), Effort(0.1, 2)


def downloads(work: Path, effort: Effort) -> Iterator[Row]:
    for kind, dash in (("picture and sound apart", True), ("one file, 360 lines", False)):
        pairs, _ = download.compare(effort.turns + 1, effort.turns, seconds=300, dash=dash)
        cpu = median(ours.cpu / plain.cpu for plain, ours in pairs)
        yield Row(f"download.py, CPU a clip of 10 s: {kind}", cpu, AT_MOST, 0.5)
        ratio = median(ours.bytes / plain.bytes for plain, ours in pairs)
        size = median(ours.bytes for _, ours in pairs) / 1e6
        yield Row(f"download.py, bytes of that clip: {kind}", ratio, AT_MOST, 1.0, size, "MB")


def frame_extract(work: Path, effort: Effort) -> Iterator[Row]:
    groups = clips_to_measure(FILMS, work / "clips").items()
    for (size, clips), wanted in zip(groups, (0.52, 0.52, 0.65), strict=True):
        found = frames.compare(clips, [find_ffmpeg().path], work / size, effort.turns)
        yield Row(f"frame_extract.py, {size}", found["ours/plain0"], AT_MOST, wanted)


def plan_dead(work: Path, effort: Effort) -> Iterator[Row]:
    """Plain: Python's csv reads the list and the report."""
    clips = round(650_000 * effort.scale)
    plan.make_inputs(work, clips)

    def plain() -> None:
        for path in (work / "list.csv", work / "known" / REPORT_NAME):
            with path.open(newline="") as file:
                {row[0]: row for row in csv.reader(file)}

    pairs = bookkeeping.in_turns(partial(plan.time_plan, work, "known"), plain, effort.turns)
    ours, _, ratio, _ = bookkeeping.middle(pairs)
    job = f"plan, a report with {clips:,} dead clips"
    yield Row(job, ratio, AT_MOST, 5, ours, CPU, effort.scale)


def kept_books(name: str, wanted: float, unit: str, work: Path, effort: Effort) -> Iterator[Row]:
    """A job of benchmarks.bookkeeping; wanted in seconds, or (no unit) as a ratio."""
    pairs = bookkeeping.JOBS[name](work, effort.scale, effort.turns)
    ours, _, ratio, wall = bookkeeping.middle(pairs)
    if unit:
        value = wall if unit == WALL else ours
        yield Row(name, ratio, AT_MOST, wanted, value, unit, effort.scale)
    else:
        yield Row(name, ratio, AT_MOST, wanted, scale=effort.scale)


def load_frames(work: Path, effort: Effort) -> Iterator[Row]:
    """640x272 and 640x360, GOP 250; the median over both films."""
    loaders, missing = load.installed()
    if "torchcodec" in missing:
        raise NotThere(f"torchcodec: {missing['torchcodec']}")
    chosen = {name: loaders[name] for name in ("load_frames", "torchcodec")}
    clips = clips_to_measure(FILMS, work, ((640, 360),))["360 lines"]
    ways = {"random chunk": 1.4, "8 uniform": 1.6, "whole clip": 1.4}
    for way, wanted in ways.items():
        each = [load.measure(clip, way, chosen, effort.turns * 4 + 1)[1].ratio for clip in clips]
        yield Row(f"load_frames, {way}; torchcodec / ours", median(each), AT_LEAST, wanted)


class NotThere(Exception):
    """What a row is compared with is not installed."""


JOBS: dict[str, Callable[[Path, Effort], Iterator[Row]]] = {
    "download": downloads,
    "frame_extract": frame_extract,
    "plan": plan_dead,
    "ava_csv": partial(kept_books, "AVA-Kinetics lists", 4.0, CPU),
    "reorg": partial(kept_books, "reorg --no_check", 6.0, WALL),
    "verify": partial(kept_books, "--verify, a clip", 0.6, ""),
    "load_frames": load_frames,
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--quick", action="store_true", help="use fewer turns and shorter lists")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=JOBS,
        default=list(JOBS),
        metavar="ROW",
        help="measure these rows only",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    effort = QUICK if args.quick else FULL
    print("| job | ratio | measured | wanted | reached |\n|---|---|---|---|---|", flush=True)
    for name in args.only:
        with tempfile.TemporaryDirectory(prefix="table_") as folder:
            try:
                for row in JOBS[name](Path(folder), effort):
                    print(row, flush=True)
            except NotThere as error:
                print(f"| {name} | not measured: {error} | | | |", flush=True)
    return 0


if __name__ == "__main__":
    run_script(main)
