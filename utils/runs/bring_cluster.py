"""reorg_kinetics_videos.py on a Dask cluster: workers decode the files, this machine moves them.

Beside `runs/bring`. A move that two machines may both be at is a file that may be lost, so that the
workers only look.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from utils.process import Stopped
from utils.reorg import ClipFiles, Filed, Found, HowToBring, Quality, bring_best, skip_same, weigh

if TYPE_CHECKING:
    from utils.cluster.head import Cluster


@dataclass(frozen=True)
class ToWeigh:
    """The files of a clip that are to be decoded, and what became of its others."""

    group: ClipFiles
    rivals: tuple[Found, ...]
    outcomes: tuple[Filed, ...]


Weighed = tuple[ToWeigh, dict[str, Quality]]


def bring_on_cluster(
    chunks: Iterable[Sequence[ClipFiles]], how: HowToBring, cluster: Cluster
) -> Iterator[list[Filed]]:
    """Bring in the clips of all chunks, as their files come back from the workers."""
    ready: deque[list[Filed]] = deque()

    def tasks() -> Iterator[ToWeigh]:
        for chunk in chunks:
            for group in chunk:
                outcomes, rivals = skip_same(group, how)
                if rivals:
                    yield ToWeigh(group, tuple(rivals), tuple(outcomes))
                else:
                    ready.append(outcomes)

    with suppress(Stopped), closing(cluster.run(weigh_there, tasks(), lost)) as weighed:
        for task, worth in weighed:
            settled = bring_best(task.group, list(task.rivals), worth, how)
            yield [*task.outcomes, *settled]
            while ready:
                yield ready.popleft()
    yield from ready


def weigh_there(task: ToWeigh) -> Weighed:
    """The worker, in a process of the cluster."""
    return task, weigh(task.group, task.rivals, True)


def lost(task: ToWeigh, how: str) -> Weighed:
    """Of a clip that has cost three processes of the cluster, or workers: its files stay."""
    files = [*task.rivals, *([task.group.there] if task.group.there else [])]
    return task, {found.path: Quality(f"cannot be checked: {how}") for found in files}
