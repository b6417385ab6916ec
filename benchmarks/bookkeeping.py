"""Measure list making, reorganising and --verify against the plain way, in turn.

  python -m benchmarks.bookkeeping [--scale 1] [--turns 3]

The jobs are make_ava_kin_download_csv.py (plain way: Python's csv reads and writes the same rows),
reorg_kinetics_videos.py --no_check (plain way: os.walk and one rename per file), and
`download.py --verify` (plain way: one `ffmpeg -f null` per clip). The CPU time is that of the whole
script with its child processes. The start of the script is included, but not for --verify.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.clips import FILMS, clips_to_measure
from benchmarks.frames import cpu
from utils.cli import make_parser, positive_int, run_script
from utils.clip import clip_name
from utils.lists.ava import annotations_path
from utils.video.ffmpeg import find_ffmpeg

ROOT = Path(__file__).resolve().parent.parent
LETTERS = string.ascii_letters + string.digits + "-_"
# The real files: split -> key frames, rows a key frame (0: only id and timestamp).
AVA_SPLITS = {"train": (144_000, 7), "val": (31_000, 3), "test": (64_000, 0)}
REORG_FILES, LABELS = 100_000, 400
VERIFY_CLIPS, FEWEST = 48, 12  # with fewer, a worker's start is most of what is measured


@dataclass(frozen=True)
class Pair:
    """What a job cost, and the plain way, in seconds; wall clock for those that wait for a disk."""

    ours: float
    plain: float
    wall: float


def script(name: str, *arguments: object) -> None:
    """Run a script of the suite; 1 (not all are there) is no error here."""
    argv = [sys.executable, str(ROOT / name), *map(str, arguments), "-q"]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode > 1:
        raise RuntimeError(f"{name}: {done.stderr.strip()}")


def in_turns(ours: Callable[[], object], plain: Callable[[], object], turns: int) -> list[Pair]:
    pairs = []
    for _ in range(turns):
        (mine, wall), (theirs, _) = cpu(ours), cpu(plain)
        pairs.append(Pair(mine, theirs, wall))
    return pairs


def ids(chance: random.Random, count: int) -> list[str]:
    return ["".join(chance.choices(LETTERS, k=11)) for _ in range(count)]


def ava_lists(work: Path, scale: float, turns: int) -> list[Pair]:
    """1.17 million rows of annotations, times `scale`, to the lists."""
    raw, chance = work / "raw", random.Random(1)
    raw.mkdir(parents=True)
    for split, (key_frames, boxes) in AVA_SPLITS.items():
        with annotations_path(raw, split).open("w") as file:
            for youtube_id in ids(chance, round(key_frames * scale)):
                at = f"{youtube_id},{chance.randrange(5, 600)}.{chance.randrange(1000):03d}"
                for _ in range(boxes):
                    x, y = chance.random() / 2, chance.random() / 2
                    box = f"{x:.3f},{y:.3f},{x + 0.4:.3f},{y + 0.4:.3f}"
                    file.write(f"{at},{box},{chance.randrange(1, 81)}\n")
                if not boxes:
                    file.write(f"{at}\n")

    def plain() -> None:
        for split in AVA_SPLITS:
            path = annotations_path(raw, split)
            with path.open(newline="") as source, (work / "plain.csv").open("w") as target:
                csv.writer(target).writerows(csv.reader(source))

    make = partial(script, "make_ava_kin_download_csv.py", "--annotations", raw)
    return in_turns(partial(make, "--output", work / "out" / "list.csv"), plain, turns)


def reorg(work: Path, scale: float, turns: int) -> list[Pair]:
    """100,000 files in 400 label folders, times `scale`, into one folder, unchecked."""
    chance, pairs = random.Random(2), []
    for turn in range(turns):
        ours, plain = work / f"ours{turn}", work / f"plain{turn}"
        for number, youtube_id in enumerate(ids(chance, round(REORG_FILES * scale))):
            for top in (ours, plain):
                folder = top / f"label {number % LABELS}"
                folder.mkdir(parents=True, exist_ok=True)
                name = clip_name(youtube_id, number % 600, number % 600 + 10)
                (folder / f"{name}.mp4").write_bytes(b"0")

        def move(top: Path = plain, out: Path = work / f"moved{turn}") -> None:
            out.mkdir()
            for folder, _, names in os.walk(top):
                for name in names:
                    os.rename(f"{folder}/{name}", f"{out}/{name}")

        flat = work / f"flat{turn}"
        brought = partial(script, "reorg_kinetics_videos.py", ours, flat, "--no_check")
        pairs += in_turns(brought, move, 1)
        assert len(list(flat.glob("*.mp4"))) == round(REORG_FILES * scale)
    return pairs


def verify(work: Path, scale: float, turns: int) -> list[Pair]:
    """Whole clips of both films, 360 lines, 10 s, decoded one at a time; seconds a clip."""
    films = next(iter(clips_to_measure(FILMS, work, ((640, 360),)).values()))
    count = max(FEWEST, round(VERIFY_CLIPS * scale))
    out, none = work / "clips", work / "none"
    for folder in (out, none):
        folder.mkdir()
    rows = ["youtube_id,time_start,time_end"]
    for number, youtube_id in enumerate(ids(random.Random(3), count)):
        # A clip of which nobody says how long it should be: the films are of any length.
        rows.append(f"{youtube_id},0,5")
        shutil.copy(films[number % len(films)], out / f"{clip_name(youtube_id, 0, 5)}.mp4")
    (work / "list.csv").write_text("\n".join(rows) + "\n")
    checked = partial(script, "download.py", "--input_csv", work / "list.csv", "--verify")
    options = ("--dry_run", "--n", 1)
    argv = [find_ffmpeg().path, "-v", "error", "-xerror", "-nostdin", "-threads", "1", "-i"]

    def plain() -> None:
        for path in out.iterdir():
            subprocess.run([*argv, str(path), "-f", "null", "-"], check=True)

    pairs = []
    for _ in range(turns):
        idle = cpu(partial(checked, none, *options))[0]
        for pair in in_turns(partial(checked, out, *options), plain, 1):
            ours = pair.ours - idle
            pairs.append(Pair(ours / count, pair.plain / count, pair.wall / count))
    return pairs


JOBS: dict[str, Callable[[Path, float, int], list[Pair]]] = {
    "AVA-Kinetics lists": ava_lists,
    "reorg --no_check": reorg,
    "--verify, a clip": verify,
}


def middle(pairs: Sequence[Pair]) -> tuple[float, float, float, float]:
    """Medians: (our CPU seconds, the plain way's, the ratio turn by turn, our wall seconds)."""
    ours, plain = median(p.ours for p in pairs), median(p.plain for p in pairs)
    return ours, plain, median(p.ours / p.plain for p in pairs), median(p.wall for p in pairs)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="N", help="multiply the full size by N"
    )
    parser.add_argument(
        "--turns", type=positive_int, default=3, metavar="N", help="measure N times"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    print("| | CPU s | plain, CPU s | ratio | wall s |\n|---|---|---|---|---|")
    for name, job in JOBS.items():
        with tempfile.TemporaryDirectory() as folder:
            cells = middle(job(Path(folder), args.scale, args.turns))
        print(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    run_script(main)
