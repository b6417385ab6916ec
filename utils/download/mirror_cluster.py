"""Archives of the mirror on a Dask cluster: each is read by one process, several by several.

Beside `sources/archives`, which does it on one machine, and which each process runs for its one.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from utils.clip import Clip
from utils.download.archives import read_archives
from utils.download.common import FetchOptions
from utils.download.wanted import Archive, Ending, MirrorOptions, Wanted
from utils.machines import own_folder
from utils.parallel import Workers
from utils.report import Result
from utils.web import Web

JOBS = 2  # checks at once, of the clips of one archive


@dataclass(frozen=True)
class There:
    """What the processes of the cluster have in common."""

    options: FetchOptions


@dataclass(frozen=True)
class ArchiveTask:
    """One archive, and the clips that are wanted of it."""

    url: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class Read:
    """How the reading of one went: what came of its clips, and what was wrong with copies."""

    url: str
    results: tuple[Result, ...] = ()
    problems: tuple[Result, ...] = ()
    error: str = ""
    odd: Counter[str] | None = None


def read_on_cluster(
    archives: Sequence[Archive], wanted: Wanted, options: FetchOptions, cluster: Workers
) -> Generator[Result | Ending, None, None]:
    """Results and endings, as `read_archives` gives them, archive by archive."""
    by_url = {archive.url: archive for archive in archives}

    def tasks() -> Iterator[ArchiveTask]:
        for archive in archives:
            if clips := wanted.clips_of(archive.keys):
                yield ArchiveTask(archive.url, clips)

    def lost(task: ArchiveTask, how: str) -> Read:
        return Read(task.url, error=how)

    work = functools.partial(read_there, There(options))
    for read in cluster.run(work, tasks(), lost):
        for problem in read.problems:
            wanted.problems[problem.clip] = problem
        # Two archives that were read at once may both have held a clip.
        yield from (result for result in read.results if wanted.settle(result))
        yield Ending(by_url[read.url], read.error, read.odd or Counter())


def read_there(there: There, task: ArchiveTask) -> Read:
    """The worker, in a process of the cluster."""
    folder = own_folder(there.options.workspace)
    options = replace(there.options, workspace=folder)
    wanted = Wanted(task.clips)
    archive = Archive(task.url, wanted.keys)
    mirror = MirrorOptions(Web(options.proxies), num_jobs=JOBS)
    results, endings = [], []
    for event in read_archives([archive], wanted, options, mirror):
        if isinstance(event, Result):
            results.append(event)
        else:
            endings.append(event)
    left = [problem for name, problem in wanted.problems.items()]
    error = endings[0].error if endings else "the disk is full"
    odd = endings[0].odd if endings else None
    return Read(task.url, tuple(results), tuple(left), error, odd)
