"""How a run begins in the scripts that work clip by clip: what it says first, and what it opens.

After a script's plan; `ending` is the other end.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.cli import say
from utils.files import make_folder, run_folder
from utils.progress import Progress
from utils.report import ReportFile, own_report
from utils.runs.cluster import open_cluster

if TYPE_CHECKING:
    from utils.cluster.head import Cluster

Lines = list[tuple[str, str]]  # (label, text)


def say_statement(lines: Iterable[tuple[str, str]]) -> None:
    """What will be done, before any work: a line for each (label, text), none without a text."""
    for label, text in (*lines, ("stop", "Ctrl-C; the same command goes on from there")):
        if text:
            say(f"{label:13}{text}")


@dataclass(frozen=True)
class Opened:
    """What a run holds as long as it lasts."""

    workspace: Path  # its temporary folder, below the output
    report: ReportFile
    cluster: Cluster | None  # --dask


@contextmanager
def open_run(
    args: argparse.Namespace,
    report: Path,
    columns: Sequence[str],
    packages: Sequence[str],
    sees: Sequence[Path] = (),
    shard: tuple[int, int] = (1, 1),
) -> Iterator[Opened]:
    """Open all of it, in the folder of `report`. Raises UserError, DiskFull.

    packages, sees: what every worker of a cluster must have, and see.
    """
    with (
        run_folder(make_folder(report.parent)) as workspace,
        own_report(report, columns, workspace, shard) as own,
        open_cluster(args, workspace, packages, sees) as cluster,
    ):
        yield Opened(workspace, own, cluster)


@contextmanager
def watch(
    total: int, unit: str, quiet: bool, cluster: Cluster | None, note: Callable[[], str] = str
) -> Iterator[Progress]:
    """The progress of a run, with what its cluster has to say."""
    with Progress(total, unit, quiet=quiet, note=cluster.note if cluster else note) as progress:
        if cluster:
            cluster.members.tell = progress.say
        yield progress
