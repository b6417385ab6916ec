"""reorg_kinetics_videos.py on this machine: threads move the files, worker processes decode them.

Beside `runs/bring`, and `runs/bring_cluster` for many machines.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from utils.parallel import Crashed, Failed, WorkerPool, run_parallel
from utils.process import STOP, Stopped
from utils.runs.bring import settle
from utils.runs.gather import Found, Quality, examine
from utils.runs.reorg_actions import Group, Job, Outcome

# Seconds a file. A rename on a disk of this machine takes 20 us, most of it in Python, and threads
# hinder one another at it: two take 1.5 times as long as one. On a network's disk they are a help.
QUICK = 0.001


def settle_here(
    chunks: Iterable[Sequence[Group]], job: Job, num_jobs: int
) -> Iterator[list[Outcome]]:
    """`settle` for the groups of all chunks; files are decoded in processes, which may crash.

    Where none is decoded, the first chunk tells whether one thread does it as well as many.
    """
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

        remaining = iter(chunks)
        for first in islice(remaining, 0 if job.check else 1):
            started = time.monotonic()
            done = settle_chunk(first)
            if time.monotonic() - started < QUICK * len(first):
                num_jobs = 1
            yield done
        yield from run_parallel(settle_chunk, remaining, num_jobs)
