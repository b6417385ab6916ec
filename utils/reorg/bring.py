"""Bring files into the flat folder, each under its clip's name, and report every one."""

from __future__ import annotations

import argparse
import errno
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from utils.cli import EXIT_INCOMPLETE, EXIT_OK, plural, say
from utils.clip import parse_clip_name
from utils.errors import is_disk_full
from utils.files import copy_new, move_across, move_new, names_in, publish_new, set_aside
from utils.parallel import Workers, run_parallel
from utils.process import STOP, Stopped, received_signal
from utils.reorg.gather import (
    BROUGHT,
    COPIED,
    DUPLICATE,
    LEFT,
    LINK,
    LINKED,
    MOVE,
    MOVED,
    MOVING,
    PRESENT,
    REPORT_COLUMNS,
    REWRAPPED,
    SET_ASIDE,
    Found,
    Group,
    Job,
    Outcome,
    Quality,
    Tree,
    choose,
    examine,
    report_path,
    why_not,
)
from utils.report import ReportFile, read_report, report_paths
from utils.run import say_end
from utils.text import printable
from utils.video.probe import BadClip
from utils.video.rewrap import check_same_pictures, rewrap

Look = Callable[[Found, bool], Quality]  # `examine`, here or in a worker process
NAME_TOLERANCE = 0.5  # seconds by which a clip may differ from what its name says, unremarked


# --- one clip ------------------------------------------------------------------------------------


def settle(group: Group, job: Job, look: Look = examine) -> list[Outcome]:
    """Bring in the best file for one clip, and say what became of each. Raises only Stopped."""
    outcomes, rivals = pass_over_same(group, job)
    if rivals:
        worth = weigh(group, rivals, job.check, look)
        outcomes += settle_rivals(group, rivals, worth, job)
    return outcomes


def pass_over_same(group: Group, job: Job) -> tuple[list[Outcome], list[Found]]:
    """(what became of the files whose very content is in its place, the other files)."""
    outcomes, rivals = [], []
    for found in group.files:
        done = same_as_there(found, group, job)
        if done is None:
            rivals.append(found)
        else:
            outcomes.append(done)
    return outcomes, rivals


def weigh(
    group: Group, rivals: Sequence[Found], check: bool, look: Look = examine
) -> dict[str, Quality]:
    """What the files are worth, and the one in its place if there is one; decoded if `check`.

    Raises nothing but what `look` does.
    """
    everyone = [*rivals, group.there] if group.there else list(rivals)
    if len(everyone) > 1 or check or not rivals[0].is_mp4:
        return {found.path: look(found, check) for found in everyone}
    return {rivals[0].path: Quality("" if rivals[0].size else "the file is empty")}


def same_as_there(found: Found, group: Group, job: Job) -> Outcome | None:
    """The outcome for a file whose very content is in its place already; None for any other."""
    there = group.there
    if there is None:
        return None
    try:
        if found.is_same_file(there):
            if job.mode != MOVE:
                return Outcome(found.path, group.name, PRESENT, "the same file")
            if os.path.islink(there.path) or os.lstat(found.path).st_nlink < 2:
                return Outcome(found.path, group.name, PRESENT, "the same file")
            os.unlink(found.path)  # its second name: a move or a --link that was stopped in between
            return Outcome(found.path, group.name, MOVED, "a second name of the file in place")
        unfinished = job.mode == MOVE and report_path(found.path) in job.unfinished
        if found.has_same_bytes(there):
            if unfinished:
                return Outcome(found.path, group.name, MOVED, "was copied before", remove=True)
            if job.mode != MOVE:
                return Outcome(found.path, group.name, PRESENT, "the same bytes")
            return put_aside(found, group.name, "the same bytes as the file in place", job)
        if unfinished and not found.is_mp4:
            check_same_pictures(job.tool, Path(found.path), Path(there.path))
            return Outcome(found.path, group.name, REWRAPPED, "was rewrapped before", remove=True)
    except BadClip:
        return None
    except OSError as error:
        return failed(found, group.name, error)
    return None


def settle_rivals(
    group: Group, rivals: list[Found], worth: dict[str, Quality], job: Job
) -> list[Outcome]:
    """Choose between files that differ, bring the chosen one in, put the others aside."""
    everyone = [*rivals, group.there] if group.there else list(rivals)
    good = [found for found in everyone if not worth[found.path].problem]
    outcomes: list[Outcome] = []
    chosen = None
    while good and chosen is None:
        best = choose(good, worth, group.there) if len(good) > 1 else good[0]
        if best is group.there:
            chosen = best
            continue
        tried = bring_best(best, group, worth, job)
        outcomes += tried
        good.remove(best)
        rivals.remove(best)
        if tried[0].action in BROUGHT:
            chosen = best
        elif tried[0].disk_full:
            break
    for found in rivals:
        if chosen is not None:
            reason = why_not(found, chosen, worth)
            outcomes.append(put_aside(found, group.name, reason, job))
        else:
            reason = worth[found.path].problem or "the disk is full"
            outcomes.append(Outcome(found.path, group.name, LEFT, reason))
    return outcomes


def bring_best(best: Found, group: Group, worth: dict[str, Quality], job: Job) -> list[Outcome]:
    """Bring `best` in; the one that is in its place gives way to --duplicates, or not at all.

    The first outcome is that of `best`.
    """
    there = group.there
    if there is None:
        return [bring(best, group.name, worth[best.path], job)]
    reason = why_not(there, best, worth)
    if job.duplicates is None:
        problem = (
            f"better than the file in place ({reason}), which is not written over: with"
            " --duplicates DIR that one goes there"
        )
        return [Outcome(best.path, group.name, LEFT, problem)]
    try:
        aside = set_aside(Path(there.path), job.duplicates)
    except OSError as error:
        return [failed(best, group.name, error)]
    outcome = None
    try:
        outcome = bring(best, group.name, worth[best.path], job)
    finally:
        if outcome is None or outcome.action not in BROUGHT:
            with suppress(FileExistsError):
                move_across(aside, Path(there.path))
    if outcome.action not in BROUGHT:
        return [outcome]
    return [outcome, Outcome(there.path, group.name, SET_ASIDE, reason)]


def put_aside(found: Found, name: str, reason: str, job: Job) -> Outcome:
    """A lesser file stays where it is, or goes to --duplicates when its clips are moved."""
    if job.duplicates is None or job.mode != MOVE:
        return Outcome(found.path, name, DUPLICATE, reason)
    try:
        set_aside(Path(found.path), job.duplicates)
    except OSError as error:
        return Outcome(found.path, name, DUPLICATE, f"{reason}; cannot be moved: {error.strerror}")
    return Outcome(found.path, name, SET_ASIDE, reason)


def bring(found: Found, name: str, worth: Quality, job: Job) -> Outcome:
    """Give a file its place, by whatever way it takes."""
    try:
        action, remove = place(found, os.path.join(job.dst, f"{name}.mp4"), job)
    except FileExistsError:
        return Outcome(found.path, name, LEFT, "a file of that name has appeared in the meantime")
    except BadClip as error:
        return Outcome(found.path, name, LEFT, error.message)
    except OSError as error:
        return failed(found, name, error)
    return Outcome(found.path, name, action, length_remark(name, worth), remove)


def place(found: Found, final: str, job: Job) -> tuple[str, bool]:
    """(action, whether the source is to be removed). Raises FileExistsError, BadClip, OSError."""
    if found.is_mp4 and job.mode == LINK:
        os.link(found.path, final, follow_symlinks=False)
        return LINKED, False
    if found.is_mp4 and job.mode == MOVE:
        try:
            move_new(found.path, final)
            return MOVED, False
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
    if job.mode == MOVE and not os.access(os.path.dirname(found.path), os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    temporary = job.workspace / os.path.basename(final)
    if found.is_mp4:
        copy_new(Path(found.path), Path(final), temporary)
        return (MOVED, True) if job.mode == MOVE else (COPIED, False)
    try:
        rewrap(job.tool, Path(found.path), temporary)
        os.utime(temporary, ns=(found.mtime_ns, found.mtime_ns))
        publish_new(temporary, Path(final))
    finally:
        temporary.unlink(missing_ok=True)
    return REWRAPPED, job.mode == MOVE


def failed(found: Found, name: str, error: OSError) -> Outcome:
    reason = error.strerror or str(error)
    if error.errno == errno.EXDEV:
        reason = "on another file system, where no hard link reaches: use --copy"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = f"{reason}; to leave the source as it is, use --copy or --link"
    return Outcome(found.path, name, LEFT, reason, disk_full=is_disk_full(error))


def length_remark(name: str, worth: Quality) -> str:
    """A word on a clip that is whole, but not as long as its name says."""
    parsed = parse_clip_name(name) if worth.duration else None
    if parsed is None or parsed[2] is None:
        return ""
    named = parsed[2] - parsed[1]
    if abs(worth.duration - named) <= NAME_TOLERANCE:
        return ""
    return f"lasts {worth.duration:.2f} s, where its name says {named}"


# Seconds a file. A rename on a disk of this machine takes 20 us, most of it in Python, and threads
# hinder one another at it: two take 1.5 times as long as one. On a network's disk they are a help.
QUICK = 0.001


@dataclass(frozen=True)
class ToWeigh:
    """The files of a clip that are to be decoded, and what became of its others."""

    group: Group
    rivals: tuple[Found, ...]
    outcomes: tuple[Outcome, ...]


Weighed = tuple[ToWeigh, dict[str, Quality]]


def settle_all(
    chunks: Iterable[Sequence[Group]], job: Job, workers: Workers
) -> Iterator[list[Outcome]]:
    """Settle the groups of all chunks: `workers` decode files, threads of this machine move them.

    A file that two machines move at once may be lost, so the workers of a cluster only look.
    """
    if not job.check:
        yield from settle_unchecked(chunks, job, workers.num_jobs)
        return
    ready: deque[list[Outcome]] = deque()

    def compare(group: Group) -> ToWeigh:
        outcomes, rivals = pass_over_same(group, job)
        return ToWeigh(group, tuple(rivals), tuple(outcomes))

    def to_weigh(compared: Iterable[ToWeigh]) -> Iterator[ToWeigh]:
        for task in compared:
            if task.rivals:
                yield task
            else:
                ready.append(list(task.outcomes))

    def bring_in(weighed: Weighed) -> list[Outcome]:
        task, worth = weighed
        return [*task.outcomes, *settle_rivals(task.group, list(task.rivals), worth, job)]

    groups = (group for chunk in chunks for group in chunk)
    with (
        closing(run_parallel(compare, groups, workers.num_jobs)) as compared,
        closing(workers.run(weigh_files, to_weigh(compared), lost)) as weighed,
        closing(run_parallel(bring_in, weighed, workers.num_jobs)) as settled,
    ):
        for outcomes in settled:
            yield outcomes
            while ready:
                yield ready.popleft()
    yield from ready


def weigh_files(task: ToWeigh) -> Weighed:
    """Decode the files of one clip. Run by the workers."""
    return task, weigh(task.group, task.rivals, True)


def lost(task: ToWeigh, how: str) -> Weighed:
    """The files of a clip that killed its process again and again, or lost its workers."""
    files = [*task.rivals, *([task.group.there] if task.group.there else [])]
    problem = f"the decoder crashed: {how}" if "process" in how else f"cannot be checked: {how}"
    return task, {found.path: Quality(problem) for found in files}


def settle_unchecked(
    chunks: Iterable[Sequence[Group]], job: Job, num_jobs: int
) -> Iterator[list[Outcome]]:
    """Settle groups whose files are not decoded.

    The first chunk tells whether one thread does it as well as many.
    """

    def settle_chunk(chunk: Sequence[Group]) -> list[Outcome]:
        done: list[Outcome] = []
        with suppress(Stopped):
            for group in chunk:
                if STOP.is_set():
                    break
                done += settle(group, job)
        return done

    remaining = iter(chunks)
    for first in islice(remaining, 1):
        started = time.monotonic()
        done = settle_chunk(first)
        if time.monotonic() - started < QUICK * len(first):
            num_jobs = 1
        yield done
    yield from run_parallel(settle_chunk, remaining, num_jobs)


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
