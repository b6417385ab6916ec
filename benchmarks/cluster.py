"""Measure what --dask costs per task, and how much faster more machines are under rate limits.

  python -m benchmarks.cluster [--tasks 400] [--rounds 3]

The first table runs tasks that do nothing, on 4 threads and on 2 workers with 2 threads, in turn:
the difference is the way to the worker and back. The second runs tasks that wait for their turn as
downloads do, on 1, 2 and 4 workers that count as separate machines, each with its own rate limit.
"""

from __future__ import annotations

import argparse
import functools
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.cli import Parser
from utils.cluster import open_workers
from utils.download.pace import Attempted, Pace
from utils.files import run_folder
from utils.parallel import run_parallel

if TYPE_CHECKING:
    from tests.lab import Lab

PER_HOUR = 7200  # turns an hour and machine: 2 a second, where a guest of YouTube's has 300 an hour
SECONDS = 10.0  # how long the tasks of the second part take one machine


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--tasks", type=int, default=400, metavar="N", help="tasks per round")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measure N times")
    return parser.parse_args(argv)


def nothing(task: int) -> int:
    return task


@functools.cache
def pace_of(workspace: Path) -> Pace:
    return Pace(PER_HOUR, 900)


def take_turn(workspace: Path, task: int) -> int:
    pace = pace_of(workspace)
    while isinstance(turn := pace.take_turn(), float):
        time.sleep(turn)
    pace.end(turn, Attempted("passed"))
    return task


def lost(task: int, how: str) -> int:
    raise RuntimeError(f"task {task}: {how}")


def cpu_seconds() -> float:
    """Of this process and the children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


def overhead(lab: Lab, tasks: int, rounds: int, folder: Path) -> None:
    """Milliseconds a task, in turn."""
    walls: dict[str, list[float]] = {"threads": [], "workers": []}
    cpus: dict[str, list[float]] = {"threads": [], "workers": []}
    options = argparse.Namespace(dask=lab.address, strict=True, quiet=True, num_jobs=4)
    with run_folder(folder) as workspace, open_workers(options, workspace, ["av"]) as cluster:
        assert len(list(cluster.run(nothing, range(8), lost))) == 8  # their processes start
        for _ in range(rounds):
            for way in walls:
                before, began = cpu_seconds() + lab.cpu_seconds(), time.monotonic()
                if way == "threads":
                    done = list(run_parallel(nothing, range(tasks), 4))
                else:
                    done = list(cluster.run(nothing, range(tasks), lost))
                assert sorted(done) == list(range(tasks))
                walls[way].append((time.monotonic() - began) / tasks * 1000)
                used = cpu_seconds() + lab.cpu_seconds() - before
                cpus[way].append(used / tasks * 1000)
    for way in walls:
        wall, cpu = statistics.median(walls[way]), statistics.median(cpus[way])
        print(f"{way:8} {wall:7.2f} ms a task by the clock, {cpu:.2f} ms of CPU in all")


def throughput(address: str, machines: int, folder: Path) -> float:
    """Turns an hour, by the clock."""
    options = argparse.Namespace(dask=address, strict=True, quiet=True, num_jobs=4)
    tasks = int(machines * SECONDS * PER_HOUR / 3600)
    with run_folder(folder) as workspace, open_workers(options, workspace, ["av"]) as cluster:
        list(cluster.run(nothing, range(4 * machines), lost))
        began = time.monotonic()
        assert len(list(cluster.run(functools.partial(take_turn, workspace), range(tasks), lost)))
        return tasks / (time.monotonic() - began) * 3600


def main(argv: Sequence[str] | None = None) -> int:
    from tests.lab import Lab  # not with the others: workers of the cluster import this module

    args = parse_args(argv)
    for part in ("overhead", 1, 2, 4):
        machines = part if isinstance(part, int) else 2
        with tempfile.TemporaryDirectory() as name, Lab(Path(name)) as lab:
            for number in range(machines):
                lab.machine(f"machine-{number}")
            lab.wait_for_workers(machines)
            if part == "overhead":
                overhead(lab, args.tasks, args.rounds, Path(name))
            else:
                rate = throughput(lab.address, machines, Path(name))
                print(f"{machines} of {PER_HOUR:,} turns an hour each: {rate:,.0f} an hour")
    return 0


if __name__ == "__main__":
    from benchmarks import cluster  # by its name, because workers cannot import `__main__`

    sys.exit(cluster.main())
