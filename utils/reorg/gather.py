"""Find the clips below a folder, whatever its layout, and choose between files for one clip."""

from __future__ import annotations

import argparse
import filecmp
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.cli import plural
from utils.clip import AVA_TIME_END, clip_name, parse_clip_name
from utils.machines import TEMP_FOLDER
from utils.run import say_statement
from utils.text import printable
from utils.video.checks import check_complete, decode_whole
from utils.video.ffmpeg import Ffmpeg
from utils.video.probe import DURATION_TOLERANCE, BadClip, probe
from utils.video.rewrap import rewrap_problem

# What download.py puts into its output folder that are no clips: half-done files, and bad ones.
OWN_FOLDERS = (TEMP_FOLDER, ".bad")
CLIP_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")


@dataclass(frozen=True, slots=True)
class Found:
    """A file whose name says that it is a clip. A str: a Path costs ten times as much, 100,000
    times."""

    path: str
    size: int  # bytes
    mtime_ns: int
    device: int
    inode: int

    @classmethod
    def at(cls, path: str, stat: os.stat_result) -> Found:
        return cls(path, stat.st_size, stat.st_mtime_ns, stat.st_dev, stat.st_ino)

    @property
    def is_mp4(self) -> bool:
        return self.path[-4:].lower() == ".mp4"

    def is_same_file(self, other: Found) -> bool:
        return (self.device, self.inode) == (other.device, other.inode)

    def has_same_bytes(self, other: Found) -> bool:
        return self.size == other.size and filecmp.cmp(self.path, other.path, shallow=False)


@dataclass
class Tree:
    """What lies under a folder: the files of each clip by its name, and the rest by kind."""

    clips: dict[str, list[Found]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Quality:
    """What a file is worth. `problem`: why it cannot be brought in at all, or ""."""

    problem: str = ""
    duration: float = 0.0  # seconds
    pixels: int = 0


def scan(folder: Path, passed_over: Sequence[Path]) -> Tree:
    """Find the clips under `folder`, at any depth. Symlinks are counted and never followed.

    passed_over: folders that are not entered (the output, when it lies inside).
    """
    tree = Tree()
    skipped = {(stat.st_dev, stat.st_ino) for stat in _stats(passed_over)}
    for entry in _files(folder, skipped, tree):
        stem, suffix = os.path.splitext(entry.name)
        if entry.is_symlink():
            tree.others["symlink"] += 1
            continue
        if not entry.is_file(follow_symlinks=False):
            tree.others["no regular file"] += 1
            continue
        name = canonical_name(stem) if suffix.lower() in CLIP_SUFFIXES else None
        if name is None:
            tree.others[suffix.lower() or "no suffix"] += 1
            continue
        found = Found.at(entry.path, entry.stat(follow_symlinks=False))
        tree.clips.setdefault(name, []).append(found)
    for files in tree.clips.values():
        files.sort(key=lambda found: found.path)
    return tree


def _stats(folders: Sequence[Path]) -> Iterator[os.stat_result]:
    for folder in folders:
        if folder.exists():
            yield folder.stat()


def _files(folder: Path, skipped: set[tuple[int, int]], tree: Tree) -> Iterator[os.DirEntry[str]]:
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        yield entry
                        continue
                    stat = entry.stat(follow_symlinks=False)
                    is_skipped = (stat.st_dev, stat.st_ino) in skipped
                    if not is_skipped and entry.name not in OWN_FOLDERS:
                        waiting.append(entry.path)
        except OSError as error:
            tree.unreadable.append(f"{here}: {error.strerror}")


def canonical_name(stem: str) -> str | None:
    """The suite's name for a file named `stem`, six digits whatever its padding; None for no clip.

    `<id>_<start>_<end>`, or `<id>_<ts>` of an AVA-Kinetics clip.
    """
    parsed = parse_clip_name(stem)
    if parsed is None:
        return None
    youtube_id, start, end = parsed
    if end is not None and end <= start:
        return None
    return clip_name(youtube_id, start, AVA_TIME_END if end is None else end)


def examine(found: Found, whole: bool = True) -> Quality:
    """What a file is worth; `whole`: decode all of it, too. Raises nothing."""
    if not found.size:
        return Quality("the file is empty")
    path = Path(found.path)
    try:
        if not found.is_mp4 and (problem := rewrap_problem(path)):
            return Quality(problem)
        seen = probe(path)
        if whole:
            check_complete(seen)
            decode_whole(path)
    except BadClip as error:
        return Quality(error.message)
    return Quality(duration=seen.end - seen.start, pixels=seen.width * seen.height)


def choose(files: Sequence[Found], worth: dict[str, Quality], there: Found | None) -> Found:
    """Which of these good files is the clip: the longer, then the larger picture, then the newer.

    there: the one that has its place already, if it is among them. It gives way to a longer one or
    a larger picture, but not to a newer date. Lengths that differ by less than 0.1 s are one.
    """
    longest = max(worth[found.path].duration for found in files)
    best = [f for f in files if worth[f.path].duration >= longest - DURATION_TOLERANCE]
    largest = max(worth[found.path].pixels for found in best)
    best = [found for found in best if worth[found.path].pixels == largest]
    if there in best:
        return there
    newest = max(found.mtime_ns for found in best)
    best = [found for found in best if found.mtime_ns == newest]
    return next((found for found in best if found.is_mp4), best[0])


def why_not(found: Found, chosen: Found, worth: dict[str, Quality]) -> str:
    """Why `chosen` is the clip and `found` is not, in words."""
    mine, its = worth[found.path], worth[chosen.path]
    if mine.problem:
        return mine.problem
    if mine.duration < its.duration - DURATION_TOLERANCE:
        return f"shorter: {mine.duration:.2f} s, not {its.duration:.2f}"
    if mine.pixels < its.pixels:
        return "a smaller picture"
    if found.mtime_ns < chosen.mtime_ns:
        return "as good, and older"
    return "as good"


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


@dataclass(frozen=True)
class Outcome:
    """What became of one file: a line of the report. `remove`: the source, once that is written."""

    source: str
    clip: str
    action: str
    reason: str = ""
    remove: bool = False
    disk_full: bool = False


REPORT_NAME = "reorg_report.csv"


def report_path(path: str) -> str:
    """A path as the report has it: one line, whatever bytes it is made of."""
    return printable(os.fsencode(path).decode("utf-8", errors="backslashreplace"), 4096)


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
    twice = f"{plural(several, 'clip')} with more than one file; the lesser {lesser}"
    to_do = f"{plural(len(groups), 'clip')}, to {args.dst}"
    num_clips, num_files = plural(len(tree.clips), "clip"), plural(len(files), "file")
    others = f"{plural(num_others, 'file')} that are no clips: left{in_brackets(tree.others)}"
    say_statement(
        [
            ("source", f"{args.src}: {num_clips} in {num_files}{in_brackets(kinds)}"),
            ("others", others),
            *(("unreadable", problem) for problem in tree.unreadable),
            ("twice", twice if several else ""),
            ("to bring in", f"{to_do}; for {there:,} of them a file is there already"),
            ("how", f"{check} {done}; {plural(args.num_jobs, 'job')}"),
            ("report", str(args.dst / REPORT_NAME)),
        ]
    )


def in_brackets(counts: Counter[str]) -> str:
    text = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
    return f" ({text})" if text else ""
