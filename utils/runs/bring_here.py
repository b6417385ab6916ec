"""reorg_kinetics_videos.py on this machine: threads move the files, worker processes decode them.

Beside `runs/bring`, and `runs/bring_cluster` for many machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from utils.parallel import run_parallel
from utils.process import STOP, Stopped
from utils.runs.bring import settle
from utils.runs.gather import Found, Quality, examine
from utils.runs.reorg_actions import Group, Job, Outcome
from utils.workers import Crashed, Failed, WorkerPool


def settle_here(
    chunks: Iterable[Sequence[Group]], job: Job, num_jobs: int
) -> Iterator[list[Outcome]]:
    """`settle` for the groups of all chunks; files are decoded in processes, which may crash."""
    with WorkerPool(examine) as pool:

        def look(found: Found, whole: bool) -> Quality:
            try:
                return pool(found) if whole else examine(found, whole)
            except (Crashed, Failed) as failure:
                return Quality(f"the decoder crashed: {failure}")

        def settle_chunk(chunk: Sequence[Group]) -> list[Outcome]:
            done: list[Outcome] = []
            with suppress(Stopped):
                for group in chunk:
                    if STOP.is_set():
                        break
                    done += settle(group, job, look)
            return done

        yield from run_parallel(settle_chunk, chunks, num_jobs)
