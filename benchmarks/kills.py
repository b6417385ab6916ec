"""Kill download.py at random moments, and check its clips and its report after each kill.

  python -m benchmarks.kills [--kills 200] [--videos 20] [--clips 3] [--seed 1]

Runs download.py on 60 clips (20 videos of the stand-in, three clips each) and kills it with SIGKILL
at a random moment. The next run resumes. When all clips are there, the folder is emptied. Every
second run takes its clips from a folder (--source clips:DIR): such a run mostly checks, renames and
writes lines, so that kills also hit these steps. After each kill, every file under a final name is
decoded and its frame numbers are read.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from tests.faults.promise import SMALL, Lab, checks, problem_of
from tests.scripts import finish
from tests.standin.server import StandIn
from tests.standin.sources import make_source
from utils.cli import Parser


@dataclass
class KillTally:
    """What the kills did."""

    kills: int = 0
    ended: int = 0  # runs that were through before the kill
    checked: int = 0  # clips that were there after a kill; a clip counts once a kill
    bad: int = 0  # of them not whole, exact and playable
    torn: int = 0  # lines of the report that are no whole row
    unreported: set[tuple[int, str]] = field(default_factory=set)  # clips with a name and no line
    rounds: int = 0  # how often all clips were there
    moments: Counter[str] = field(default_factory=Counter)  # what was half done at the kill


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="kill N times")
    parser.add_argument("--videos", type=int, default=20, metavar="N", help="number of videos")
    parser.add_argument("--clips", type=int, default=3, metavar="N", help="clips per video")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="seed of the random moments"
    )
    return parser.parse_args(argv)


def want_clips(lab: Lab, source: Path, videos: int, clips: int) -> None:
    """`clips` clips of a second each, of each of so many videos."""
    for number in range(videos):
        youtube_id = f"kill_{number:06d}"
        # Picture and sound in one file, and apart, in turn.
        lab.standin.add_video(youtube_id, source, progressive=number % 2 == 0)
        for start in range(clips):
            lab.want(youtube_id, start, start + 1)


def kill_again_and_again(
    lab: Lab, kills: int, rng: Random, say: Callable[[str], None] = lambda text: None
) -> KillTally:
    """Start and kill, so many times; the folder is left as the last one left it."""
    tally = KillTally()
    longest = {"youtube": 8.0, "clips": 3.0}  # seconds of a run; learned as they go
    held = lab.folder / "held"
    while tally.kills < kills:
        if lab.clips() == lab.wanted:
            tally.rounds += 1
            keep_aside(lab, held)
            empty(lab)
        way = "clips" if held.is_dir() and tally.kills % 2 else "youtube"
        lab.more = ["--source", f"clips:{held}"] if way == "clips" else []
        moment = rng.uniform(0.2, longest[way])
        before, process = time.monotonic(), lab.start("-q")
        while time.monotonic() - before < moment:
            if process.poll() is not None:
                break
            time.sleep(0.01)
        running = process.poll() is None
        tally.moments[f"{way}: {moment_of(lab)}"] += running
        process.kill()
        done = finish(process)
        if not running:
            tally.ended += 1
            longest[way] = min(longest[way], time.monotonic() - before)
            checks(lab, done)
            continue
        tally.kills += 1
        count_damage(lab, tally)
        lab.end_orphans()
        if tally.kills % 10 == 0:
            say(f"{tally.kills} kills, {tally.checked:,} clips looked at, {tally.bad} bad")
    lab.more = []
    return tally


def moment_of(lab: Lab) -> str:
    """What the run is at, by its children and its temporary files."""
    if not (lab.out / ".tmp").is_dir():
        return "start or end"
    names = set()
    for process in lab.processes():
        with suppress(psutil.Error):
            names.add(process.name())
    if any("ffmpeg" in name for name in names):
        return "cut"
    temporary: list[str] = []
    with suppress(FileNotFoundError):  # a folder went while it was looked at
        temporary += [path.suffix for path in (lab.out / ".tmp").rglob("*") if path.is_file()]
    if len(names) and ".mp4" in temporary:
        return "check, rename or line"
    return "fetch"


def count_damage(lab: Lab, tally: KillTally) -> None:
    """Look at every clip and every line."""
    there = lab.clips()
    tally.checked += len(there)
    problems = [text for name in sorted(there) if (text := problem_of(lab, name))]
    tally.bad += len(problems)
    for text in problems:
        print(f"bad: {text}", file=sys.stderr)
    tally.unreported |= {(tally.rounds, name) for name in there - set(lab.report())}
    for path in lab.out.glob("download_report*.csv"):
        lines = path.read_bytes().split(b"\n")[:-1]
        tally.torn += sum(line.count(b",") < 11 for line in lines if line)


def keep_aside(lab: Lab, held: Path) -> None:
    """The clips of a run that is through, as a source of their own."""
    if not held.is_dir():
        held.mkdir()
        for name in lab.wanted:
            shutil.copyfile(lab.out / f"{name}.mp4", held / f"{name}.mp4")


def empty(lab: Lab) -> None:
    """Begin anew; bystanders stay."""
    for path in [*lab.out.glob("kill_*.mp4"), *lab.out.glob("download_report*.csv")]:
        path.unlink()


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills_") as name, StandIn() as standin:
        (Path(name) / "lab").mkdir()
        lab = Lab(Path(name) / "lab", standin)
        source = make_source(Path(name) / "source.mp4", **SMALL)  # the stand-in writes beside it
        want_clips(lab, source, args.videos, args.clips)
        tally = kill_again_and_again(
            lab, args.kills, Random(args.seed), lambda text: print(text, file=sys.stderr)
        )
        last = lab.run()
        checks(lab, last)
    minutes = (time.monotonic() - began) / 60
    print(f"kills                {tally.kills} in {minutes:.0f} minutes")
    print(
        f"runs                 {tally.rounds} times all clips, {tally.ended} ended before the kill"
    )
    print(f"clips looked at      {tally.checked:,}")
    print(f"bad files            {tally.bad}")
    print(f"torn report lines    {tally.torn}")
    print(
        f"lost report lines    {len(tally.unreported)} (killed between a file's name and its line)"
    )
    print(f"the last run         exit {last.code}, {len(lab.wanted)} of {len(lab.wanted)} clips")
    print(f"killed while at      {json.dumps(dict(tally.moments.most_common()))}")
    return 0 if tally.bad == tally.torn == last.code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
