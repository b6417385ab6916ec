"""What reorg_kinetics_videos.py writes down, before and after each move, and its summary."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from utils.cli import EXIT_INCOMPLETE, EXIT_OK, say
from utils.files import names_in
from utils.process import STOP, received_signal
from utils.progress import plural
from utils.report import ReportFile, read_report, report_paths
from utils.runs.ending import say_end
from utils.runs.gather import Tree
from utils.runs.reorg_actions import (
    LEFT,
    MOVE,
    MOVED,
    MOVING,
    REPORT_COLUMNS,
    REWRAPPED,
    SET_ASIDE,
    Group,
    Job,
    Outcome,
    report_path,
)
from utils.text import printable


def read_unfinished(report: Path) -> frozenset[str]:
    """The sources that a run began to move between file systems and was killed over.

    This report has no times. So of several a source counts that no report says more of: one too
    few stays where it is, and one too many would be removed.
    """
    actions: dict[str, set[str]] = {}
    for path in report_paths(report):
        last = {row[0]: row[2] for row in read_report(path, REPORT_COLUMNS)}
        for source, action in last.items():
            actions.setdefault(source, set()).add(action)
    return frozenset(source for source, found in actions.items() if found == {MOVING})


def announced(
    chunks: Iterable[Sequence[Group]], job: Job, report: ReportFile
) -> Iterator[Sequence[Group]]:
    """The chunks; before each, a line for the sources that are removed after they are here.

    Only for a clip with one file: of two with the same bytes one would be taken for the other.
    """
    device = job.dst.stat().st_dev
    for chunk in chunks:
        for group in chunk:
            found = group.files[0]
            is_plain_move = found.is_mp4 and found.device == device
            if job.mode == MOVE and len(group.files) == 1 and not group.there and not is_plain_move:
                report.append((report_path(found.path), group.name, MOVING, ""))
        yield chunk


def write_down(outcomes: Sequence[Outcome], report: ReportFile) -> None:
    """Write the lines, then remove the sources of clips that were copied and are in their place."""
    report.append_all(
        (report_path(each.source), each.clip, each.action, printable(each.reason, 500))
        for each in outcomes
    )
    for each in outcomes:
        if not each.remove:
            continue
        try:
            os.unlink(each.source)
        except OSError as error:
            say(f"{each.source} has been copied, and cannot be removed: {error.strerror}")


def remove_empty_folders(src: Path, report: Path) -> int:
    """Remove the folders under `src` that clips have left, in this run or before, and are empty."""
    folders = {
        Path(row[0]).parent
        for path in report_paths(report)
        for row in read_report(path, REPORT_COLUMNS)
        if row[2] in (MOVED, REWRAPPED, SET_ASIDE)
    }
    removed = 0
    for folder in folders:
        while folder != src and folder.is_relative_to(src):
            try:
                folder.rmdir()  # refuses a folder that is not empty
                removed += 1
            except FileNotFoundError:
                pass
            except OSError:
                break
            folder = folder.parent
    return removed


def finish(
    tree: Tree, counts: Counter[str], removed: int, args: argparse.Namespace, report: Path
) -> int:
    """The summary and the exit code."""
    if not args.quiet:
        there = names_in(args.dst, ".mp4")
        done = ", ".join(f"{count:,} {action}" for action, count in counts.most_common())
        say_end(done.replace("_", " ") or "nothing")
        if removed:
            say(f"removed: {plural(removed, 'empty folder')}")
        here = sum(name in there for name in tree.clips)
        say(f"on disk now: {here:,} of {plural(len(tree.clips), 'clip')}")
        if counts[LEFT]:
            say(f"left: {plural(counts[LEFT], 'file')}, see the reasons in {report}")
            say("      download.py fetches the clips that are not in the folder")
    if signal := received_signal():
        return 128 + signal
    # Stopped, and by no signal: a cluster that was lost.
    return EXIT_INCOMPLETE if counts[LEFT] or tree.unreadable or STOP.is_set() else EXIT_OK
