"""Compare load_frames with every other installed loader: time, exactness, two workers.

  python -m benchmarks.load                        # on two real films (benchmarks/films.py)
  python -m benchmarks.load --videos my_clips      # on some of your clips
  pip install -r benchmarks/requirements.txt       # installs the other loaders

The loaders load the same frames in turn, because a ratio of neighbours varies less than
milliseconds do. For each loader the tables show the median of wall time and of CPU time in ms
(child processes included), the median of the ratio to load_frames (CPU time, turn by turn), and the
largest difference of any value from the reference, which is plain decoding from the start. There is
a table for each clip and each way of loading: the whole clip, 32 frames in a row at a random place,
8 frames evenly over the clip. The last table shows chunks per second with 1 and 2 worker processes,
the median of three rounds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import queue
import random
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np

from benchmarks.clips import FILMS, MADE, add_videos_option, make_clip
from benchmarks.films import AS_YOUTUBE, NoFilms, encode, get_films
from benchmarks.loaders import Load, dump, installed, plainly_decoded
from load_frames import ClipError, ClipReader, load_frames
from utils.cli import EXIT_OK, make_parser, positive_int, run_script, say
from utils.errors import UserError

CHUNK, UNIFORM = 32, 8
ROUNDS = 3  # of the table with two workers
STUCK_AFTER = 120  # seconds; 30 chunks take less than 10

# How the clips are made of the films: as YouTube would have them, and downscaled.
_FAST = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "22"]
ENCODES: dict[str, tuple[int, list[str]]] = {
    "360_lines_gop_250": (360, AS_YOUTUBE),
    "256_lines_gop_250": (256, AS_YOUTUBE),
    "256_lines_gop_30": (256, [*_FAST, "-g", "30"]),
    "256_lines_for_loading": (
        256,
        [*_FAST, "-g", "30", "-tune", "fastdecode", "-bf", "3", "-x264-params", "b-pyramid=none"],
    ),
}


@dataclass(frozen=True)
class Row:
    """What one loader did in one kind of load. Times in ms, medians; `ratio` to load_frames."""

    loader: str
    wall: float
    cpu: float
    ratio: float
    difference: int | None


def make_clips(folder: Path, videos: str) -> list[Path]:
    """The two films, or one made shot of 10 s where --videos asks for it or the films cannot be
    had, in every encoding of `ENCODES`."""
    sources = []
    if videos == FILMS:
        try:
            sources = get_films(folder / "films")
        except NoFilms as error:
            say(f"a made clip instead of the two real films ({error})")
    if not sources:
        sources = [folder / "made.mp4"]
        make_clip(sources[0], (640, 360), seed=1, shots=1)
    paths = []
    for source in sources:
        with av.open(str(source)) as container:
            own = container.streams.video[0].height
        for name, (lines, options) in ENCODES.items():
            paths.append(folder / f"{source.stem}_{name}.mp4")
            encode(source, paths[-1], min(own, lines), options)
    return paths


@lru_cache(maxsize=1)
def reference(path: Path) -> np.ndarray[Any, Any]:
    return np.stack(plainly_decoded(path))


def ways(count: int, seed: int) -> dict[str, Sequence[int]]:
    """The frames of each way of loading, for a clip of `count` frames, at this turn."""
    start = random.Random(seed).randint(0, max(0, count - CHUNK))
    return {
        "whole clip": range(count),
        "random chunk": range(start, min(count, start + CHUNK)),
        "8 uniform": [int(at) for at in np.linspace(0, count - 1, UNIFORM)],
    }


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def measure(path: Path, way: str, loaders: dict[str, Load], turns: int) -> list[Row]:
    """Every loader in turn, `turns` times over, after one turn to warm up that also compares."""
    with ClipReader(path) as reader:
        count = len(reader)
    differences = {name: difference(load, path, way, count) for name, load in loaders.items()}
    wall: dict[str, list[float]] = {name: [] for name in loaders}
    cpu: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(turns):
        frames = ways(count, turn)[way]
        for name, load in loaders.items():
            if differences[name] is None:
                continue
            began, spent = time.perf_counter(), cpu_seconds()
            load(path, frames)
            cpu[name].append((cpu_seconds() - spent) * 1e3)
            wall[name].append((time.perf_counter() - began) * 1e3)
    ours = cpu["load_frames"]
    return [
        Row(
            name,
            median(wall[name] or [0]),
            median(cpu[name] or [0]),
            median(a / max(b, 1e-9) for a, b in zip(cpu[name] or [0] * turns, ours, strict=True)),
            differences[name],
        )
        for name in loaders
    ]


def difference(load: Load, path: Path, way: str, count: int) -> int | None:
    """The largest difference from the reference; None if the loader fails on this clip."""
    frames = ways(count, 0)[way]
    try:
        got = np.asarray(load(path, frames))
    except Exception as error:
        say(f"{path.name}: {str(error).strip().splitlines()[-1:]}")
        return None
    expected = reference(path)[list(frames)]
    if got.shape != expected.shape:
        return 255
    return max(
        int(np.abs(a.astype(np.int16) - b).max()) for a, b in zip(got, expected, strict=True)
    )


def _work(name: str, path: Path, count: int, chunks: int, gate: Any, answers: Any) -> None:
    load = installed()[0][name]
    load(path, ways(count, 0)["random chunk"])
    gate.wait()
    began = time.perf_counter()
    for turn in range(chunks):
        load(path, ways(count, turn)["random chunk"])
    answers.put(time.perf_counter() - began)


def throughput(name: str, path: Path, workers: int, chunks: int) -> float | None:
    """Random chunks a second of `workers` processes together; None if one of them gets stuck."""
    with ClipReader(path) as reader:
        count = len(reader)
    context = multiprocessing.get_context("spawn")
    gate, answers = context.Barrier(workers), context.Queue()
    arguments = (name, path, count, chunks, gate, answers)
    processes = [context.Process(target=_work, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        slowest = max(answers.get(timeout=STUCK_AFTER) for _ in processes)
    except queue.Empty:
        return None
    finally:
        for process in processes:
            process.join(timeout=5)
            process.kill()
    return workers * chunks / slowest


def print_table(title: str, rows: Sequence[Row]) -> None:
    print(f"\n{title}\n")
    print(f"| {'loader':12} |  wall ms |   CPU ms | CPU, load_frames = 1 | largest difference |")
    print("|---|---|---|---|---|")
    for row in rows:
        if row.difference is None:
            print(f"| {row.loader:12} | fails | | | |")
            continue
        print(
            f"| {row.loader:12} | {row.wall:8.1f} | {row.cpu:8.1f} | {row.ratio:20.2f} "
            f"| {row.difference:18} |"
        )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_videos_option(parser)
    parser.add_argument("--clips", type=positive_int, default=3, metavar="N", help="use N clips")
    parser.add_argument(
        "--turns", type=positive_int, default=9, metavar="N", help="measure N times"
    )
    parser.add_argument(
        "--only", metavar="NAME,...", help="compare load_frames with these loaders only"
    )
    parser.add_argument("--no_workers", action="store_true", help="skip the last table")
    return parser.parse_args(argv)


def chosen_loaders(only: str | None) -> dict[str, Load]:
    loaders, missing = installed()
    for name, why in missing.items():
        say(f"without {name}: {why}")
    if only is None:
        return loaders
    wanted = {"load_frames", *only.split(",")}
    return {name: load for name, load in loaders.items() if name in wanted}


def find_clips(folder: Path, limit: int) -> list[Path]:
    """Some clips of the folder that can be loaded, evenly over their names."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    found = sorted(p for p in folder.rglob("*") if p.suffix in (".mp4", ".mkv", ".webm"))
    if not found:
        raise UserError(f"there are no clips (.mp4, .mkv, .webm) in {folder}")
    return found[:: max(1, len(found) // limit)][:limit]


def run(paths: Sequence[Path], folder: Path, args: argparse.Namespace) -> None:
    loaders = chosen_loaders(args.only)
    clips = []
    for number, original in enumerate(paths):
        # The dump lies beside the clip, and nothing is written into the user's folder.
        path = folder / original.name
        if path != original:
            path = folder / f"{number}_{original.name}"
            path.symlink_to(original.absolute())
        try:
            load_frames(path)  # a damaged clip has nothing to compare
            size = dump(path) if "JPEG dump" in loaders else 0
        except ClipError as error:
            say(str(error))
            continue
        clips.append(path)
        note = f", {size / 1e6:.1f} MB as JPEG" if size else ""
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB{note}")
    for path in clips:
        for way in ("random chunk", "8 uniform", "whole clip"):
            print_table(f"{path.name}, {way}", measure(path, way, loaders, args.turns))
    if not args.no_workers and clips:
        print_workers(clips[0], loaders)


def print_workers(path: Path, loaders: dict[str, Load]) -> None:
    print(f"\n{path.name}, random chunks a second\n\n| loader       | 1 worker | 2 workers |")
    print("|---|---|---|")
    rates: dict[tuple[str, int], list[float | None]] = {}
    for _ in range(ROUNDS):
        for name in loaders:
            chunks = 4 if name == "ffmpeg pipe" else 30
            for workers in (1, 2):
                rate = throughput(name, path, workers, chunks)
                rates.setdefault((name, workers), []).append(rate)
    for name in loaders:
        one, two = (_middle(rates[name, workers]) for workers in (1, 2))
        print(f"| {name:12} | {one:>8} | {two:>9} |")


def _middle(rates: Sequence[float | None]) -> str:
    known = [rate for rate in rates if rate is not None]
    return f"{median(known):.1f}" if len(known) == len(rates) else "stuck"


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="load_bench_") as name:
        folder = Path(name)
        if args.videos in (FILMS, MADE):
            paths = make_clips(folder, args.videos)
        else:
            paths = find_clips(Path(args.videos), args.clips)
        run(paths, folder, args)
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
