"""Bring old Kinetics folders home: clips in label folders move into one flat folder, by one name.

examples:
  python reorg_kinetics_videos.py old_kinetics clips --dry_run
  python reorg_kinetics_videos.py old_kinetics clips --duplicates old_duplicates --remove_empty
  python reorg_kinetics_videos.py /mnt/k400 clips --copy
  python reorg_kinetics_videos.py old_kinetics clips --link --no_check

The second one says first what it will do, then does it:

  source       old_kinetics: 5 clips in 6 files (.mp4 5, .mkv 1)
  others       2 files that are no clips: left (symlink 1, .txt 1)
  twice        1 clip with more than one file; the lesser go to old_duplicates
  to bring in  5 clips, to clips; for 0 of them a file is there already
  how          each file is decoded whole, then moved; 2 jobs
  report       clips/reorg_report.csv
  left: /data/old_kinetics/jogging/d0_jogging-_000005_000015.mp4: the file is empty
  done after 0:00:01: 3 moved, 1 set aside, 1 left, 1 rewrapped
  removed      2 empty folders
  on disk now: 4 of 5 clips

Clips are .mp4, .mkv, .webm and .avi files named <id>_<start>_<end> or, of AVA-Kinetics, <id>_<ts>,
with any padding. They become <id>_<start:06d>_<end:06d>.mp4, which download.py sees as done.
Nothing is written over, and no file is deleted but the one that has moved.
"""

from __future__ import annotations

import utils.early  # noqa: F401 (first: Ctrl-C while the rest is imported)

import argparse
import errno
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from utils.cli import (
    EXIT_INCOMPLETE,
    EXIT_OK,
    UserError,
    add_num_jobs,
    existing_folder,
    make_parser,
    run_script,
    say,
)
from utils.clip import parse_clip_name, printable
from utils.files import (
    DiskFull,
    copy_new,
    is_disk_full,
    make_folder,
    move_across,
    move_new,
    names_in,
    publish_new,
    run_folder,
    set_aside,
    sync_folder,
)
from utils.packages import check_packages
from utils.parallel import run_parallel
from utils.process import STOP, Stopped, received_signal, stop_on_signals, stop_run
from utils.progress import Progress, clock, plural
from utils.report import ReportFile, read_report
from utils.runs.gather import Found, Quality, Tree, choose, examine, scan, why_not
from utils.video.ffmpeg import Ffmpeg, find_ffmpeg
from utils.video.probe import BadClip
from utils.video.rewrap import check_same_pictures, rewrap

REPORT_NAME = "reorg_report.csv"
REPORT_COLUMNS = ("source", "clip", "action", "reason")
MOVE, COPY, LINK = "move", "copy", "link"

# What becomes of a file, as the report's `action` says it.
MOVED, COPIED, LINKED = "moved", "copied", "linked"
REWRAPPED = "rewrapped"  # brought in from another container; the source is gone when moving
PRESENT = "present"  # its clip is in its place with the same bytes; the source stays
DUPLICATE = "duplicate"  # another file is the clip; this one stays where it was
SET_ASIDE = "set_aside"  # the same, and it went to --duplicates
LEFT = "left"  # not brought in, for the reason given; it stays where it was
MOVING = "moving"  # between two file systems, before: a rerun may remove the source, if it is here
BROUGHT = (MOVED, COPIED, LINKED, REWRAPPED)

NAME_TOLERANCE = 0.5  # seconds by which a clip may differ from what its name says, unremarked
CHUNK = 200  # clips a task where nothing is decoded: a task costs 66 us, a rename 20


@dataclass(frozen=True)
class Group:
    """All files for one clip; `there` is the one in its place already."""

    name: str
    files: tuple[Found, ...]
    there: Found | None


@dataclass(frozen=True)
class Job:
    """How the files are brought in: the same for all of them."""

    dst: Path
    mode: str
    check: bool
    duplicates: Path | None
    tool: Ffmpeg
    unfinished: frozenset[str] = frozenset()  # sources whose last line in the report is `moving`
    workspace: Path = Path()

    @property
    def decoder(self) -> Ffmpeg | None:
        return self.tool if self.check else None


@dataclass(frozen=True)
class Outcome:
    """What became of one file: a line of the report. `remove`: the source, once that is written."""

    source: str
    clip: str
    action: str
    reason: str = ""
    remove: bool = False
    disk_full: bool = False


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument("src", type=Path, help="the folder with the clips, at any depth")
    parser.add_argument("dst", type=Path, help="the flat folder that they go to")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--copy", action="store_true", help="copy, and leave the source as it is")
    how.add_argument("--link", action="store_true", help="make hard links, and leave the source")
    parser.add_argument(
        "--duplicates",
        type=Path,
        metavar="DIR",
        help="where the lesser of two files for one clip goes; without it, it stays where it is",
    )
    parser.add_argument(
        "--no_check",
        action="store_true",
        help="do not decode the files: much faster, and a broken clip counts as done",
    )
    parser.add_argument(
        "--remove_empty",
        action="store_true",
        help="remove the folders that are empty once their clips have moved",
    )
    parser.add_argument(
        "--ffmpeg", metavar="PATH", help="the ffmpeg to use (default: that of imageio-ffmpeg)"
    )
    parser.add_argument("--dry_run", action="store_true", help="say what would be done, and end")
    add_num_jobs(parser)
    args = parser.parse_args(argv)
    args.mode = COPY if args.copy else LINK if args.link else MOVE
    if args.remove_empty and args.mode != MOVE:
        parser.error("--remove_empty goes with moving; --copy and --link leave the source as it is")
    return args


# --- one clip ------------------------------------------------------------------------------------


def settle(group: Group, job: Job) -> list[Outcome]:
    """Bring in the best file for one clip, and say what became of each. Raises only Stopped."""
    outcomes, rivals = [], []
    for found in group.files:
        done = same_as_there(found, group, job)
        if done is None:
            rivals.append(found)
        else:
            outcomes.append(done)
    if rivals:
        outcomes += settle_rivals(group, rivals, job)
    return outcomes


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


def settle_rivals(group: Group, rivals: list[Found], job: Job) -> list[Outcome]:
    """Choose between files that differ, bring the chosen one in, put the others aside."""
    everyone = [*rivals, group.there] if group.there else list(rivals)
    if len(everyone) > 1 or job.check or not rivals[0].is_mp4:
        worth = {found.path: examine(found, job.decoder) for found in everyone}
    else:
        worth = {rivals[0].path: Quality("" if rivals[0].size else "the file is empty")}
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
    parsed = parse_clip_name(name)
    if parsed is None or parsed[2] is None or not worth.duration:
        return ""
    named = parsed[2] - parsed[1]
    if abs(worth.duration - named) <= NAME_TOLERANCE:
        return ""
    return f"lasts {worth.duration:.2f} s, where its name says {named}"


# --- all of them ---------------------------------------------------------------------------------


def make_groups(tree: Tree, dst: Path) -> list[Group]:
    """What there is to settle: the files of every clip that are not in their place already."""
    groups = []
    in_place = {found.path: found for found in scan_flat(dst)}
    for name in sorted(tree.clips):
        final = os.path.join(dst, f"{name}.mp4")
        files = tuple(found for found in tree.clips[name] if found.path != final)
        if files:
            groups.append(Group(name, files, in_place.get(final)))
    return groups


def scan_flat(dst: Path) -> Iterator[Found]:
    """The mp4 files that lie flat in `dst`."""
    if not dst.is_dir():
        return
    with os.scandir(dst) as entries:
        for entry in entries:
            if entry.name.endswith(".mp4") and entry.is_file():
                yield Found.at(entry.path, entry.stat())


def report_path(path: str) -> str:
    """A path as the report has it: one line, whatever bytes it is made of."""
    return printable(os.fsencode(path).decode("utf-8", errors="backslashreplace"), 4096)


def read_unfinished(report: Path) -> frozenset[str]:
    """The sources that a run began to move between file systems and was killed over."""
    last = {row[0]: row[2] for row in read_report(report, REPORT_COLUMNS)}
    return frozenset(source for source, action in last.items() if action == MOVING)


def say_plan(tree: Tree, groups: Sequence[Group], job: Job, args: argparse.Namespace) -> None:
    """The statement before any work."""
    files = [found for each in tree.clips.values() for found in each]
    kinds = Counter(os.path.splitext(found.path)[1].lower() for found in files)
    num_others = sum(tree.others.values())
    several = sum(len(group.files) > 1 for group in groups)
    there = sum(group.there is not None for group in groups)
    lesser = f"go to {args.duplicates}" if args.duplicates else "stay where they are"
    check = "each file is decoded whole, then" if job.check else "--no_check: no file is decoded;"
    done = {MOVE: "moved", COPY: "copied", LINK: "hard-linked"}[job.mode]
    say(
        f"source       {args.src}: {plural(len(tree.clips), 'clip')} in"
        f" {plural(len(files), 'file')}{in_brackets(kinds)}"
    )
    say(
        f"others       {plural(num_others, 'file')} that are no clips:"
        f" left{in_brackets(tree.others)}"
    )
    for problem in tree.unreadable:
        say(f"unreadable   {problem}")
    if several:
        say(f"twice        {plural(several, 'clip')} with more than one file; the lesser {lesser}")
    say(
        f"to bring in  {plural(len(groups), 'clip')}, to {args.dst}; for {there:,} of them a file"
        " is there already"
    )
    say(f"how          {check} {done}; {plural(args.num_jobs, 'job')}")
    say(f"report       {args.dst / REPORT_NAME}")


def in_brackets(counts: Counter[str]) -> str:
    text = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
    return f" ({text})" if text else ""


def bring_all(
    groups: Sequence[Group], job: Job, report: ReportFile, args: argparse.Namespace
) -> Counter[str]:
    """Settle every clip, in parallel; returns the counts of actions. Raises DiskFull at the end."""
    size = 1 if job.check else CHUNK
    counts: Counter[str] = Counter()
    is_full = False

    def settle_chunk(chunk: Sequence[Group]) -> list[Outcome]:
        done: list[Outcome] = []
        with suppress(Stopped):
            for group in chunk:
                if STOP.is_set():
                    break
                done += settle(group, job)
        return done

    num_files = sum(len(group.files) for group in groups)
    with Progress(num_files, "file", quiet=args.quiet) as progress:
        chunks = (groups[at : at + size] for at in range(0, len(groups), size))
        for outcomes in run_parallel(settle_chunk, announced(chunks, job, report), args.num_jobs):
            write_down(outcomes, report)
            for outcome in outcomes:
                counts[outcome.action] += 1
                progress.add(outcome.action)
                if outcome.action == LEFT:
                    progress.failure(LEFT, outcome.source, outcome.reason)
                elif args.verbose:
                    progress.say(f"{outcome.action}: {outcome.source}: {outcome.clip}")
                if outcome.disk_full:
                    is_full = True
                    stop_run()
    sync_folder(job.dst)  # the renames of all, at once
    if is_full:
        raise DiskFull(job.dst)
    return counts


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
        for row in read_report(report, REPORT_COLUMNS)
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


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages("av", "ffmpeg-python", "joblib")
    started = time.monotonic()
    src, dst = existing_folder(args.src, "src").resolve(), args.dst.resolve()
    duplicates = args.duplicates.resolve() if args.duplicates else None
    if duplicates in (src, dst):
        raise UserError(f"--duplicates {args.duplicates} is src or dst itself: give another folder")
    job = Job(dst, args.mode, not args.no_check, duplicates, find_ffmpeg(args.ffmpeg))
    with stop_on_signals(), ExitStack() as stack:
        tree = scan(src, [folder for folder in (dst, duplicates) if folder and folder != src])
        groups = make_groups(tree, dst)
        if not args.quiet:
            say_plan(tree, groups, job, args)
        if args.dry_run:
            return EXIT_OK
        make_folder(dst)
        if duplicates:
            make_folder(duplicates)
        unfinished = read_unfinished(dst / REPORT_NAME)
        workspace = stack.enter_context(run_folder(dst))
        report = stack.enter_context(ReportFile(dst / REPORT_NAME, REPORT_COLUMNS))
        job = replace(job, unfinished=unfinished, workspace=workspace)
        counts = bring_all(groups, job, report, args)
        removed = remove_empty_folders(src, report.path) if args.remove_empty else 0
    return finish(tree, counts, removed, args, time.monotonic() - started)


def finish(
    tree: Tree, counts: Counter[str], removed: int, args: argparse.Namespace, elapsed: float
) -> int:
    """The summary and the exit code."""
    if not args.quiet:
        there = names_in(args.dst, ".mp4")
        done = ", ".join(f"{count:,} {action}" for action, count in counts.most_common())
        word = "stopped" if STOP.is_set() else "done"
        say(f"{word} after {clock(elapsed)}: {done.replace('_', ' ') or 'nothing'}")
        if removed:
            say(f"removed      {plural(removed, 'empty folder')}")
        here = sum(name in there for name in tree.clips)
        say(f"on disk now: {here:,} of {plural(len(tree.clips), 'clip')}")
        if counts[LEFT]:
            say(
                f"left: {plural(counts[LEFT], 'file')}, see the reasons in {args.dst / REPORT_NAME}"
            )
            say("      download.py fetches the clips that are not in the folder")
    if signal := received_signal():
        return 128 + signal
    return EXIT_INCOMPLETE if counts[LEFT] or tree.unreadable else EXIT_OK


if __name__ == "__main__":
    run_script(main)
