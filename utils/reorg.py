"""Find clips in folders of any layout, and bring the best file for each into one flat folder.

Nothing is overwritten, and a source is removed only when its clip is in place. A source that has to
be copied and then removed (another file system, another container) first gets a line `moving` in
the report, so that a rerun after a kill knows that it may remove the source.
"""

from __future__ import annotations

import errno
import filecmp
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from utils.cli import escape_name, printable, say
from utils.clip import (
    AVA_DURATION,
    AVA_TIME_END,
    FINE_FORMAT,
    TRIM_FORMAT,
    clip_name,
    parse_clip_name,
)
from utils.errors import is_disk_full
from utils.files import TEMP_FOLDER, copy_new, move_across, move_new, publish_new, set_aside
from utils.parallel import Workers, run_parallel
from utils.process import STOP, Stopped
from utils.report import ReportFile, read_report, report_paths
from utils.video.cut import check_same_pictures, rewrap, rewrap_problem
from utils.video.ffmpeg import SOUNDS, Ffmpeg
from utils.video.whole import TOLERANCE, BadClip, check_length, read_sound, read_video

OWN_FOLDERS = (TEMP_FOLDER, ".bad")  # of download.py: temporary files, and bad clips
CLIP_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", *SOUNDS)
REPORT_NAME = "reorg_report.csv"
REPORT_COLUMNS = ("source", "clip", "action", "reason")
MOVE, COPY, LINK = "move", "copy", "link"

# The report's `action` for a file.
MOVED, COPIED, LINKED = "moved", "copied", "linked"
REWRAPPED = "rewrapped"  # remuxed into an mp4; the source is removed when moving
PRESENT = "present"  # the clip is in place with the same bytes; the source is kept
DUPLICATE = "duplicate"  # another file is the clip; this one is kept
SET_ASIDE = "set_aside"  # the same, but it was moved to --duplicates
LEFT = "left"  # not brought in, for the reason given; kept
MOVING = "moving"  # written before a copy whose source is then removed
BROUGHT = (MOVED, COPIED, LINKED, REWRAPPED)

REMARKED = 0.5  # seconds by which a clip may differ from its name without a remark
CHUNK = 200  # clips per task when nothing is decoded: a task costs 66 us, a rename 20
QUICK = 0.001  # seconds per file; see bring_unchecked


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is named like a clip. Its path is a str: a Path costs ten times as much."""

    path: str
    size: int  # bytes
    mtime_ns: int
    device: int
    inode: int

    @classmethod
    def at(cls, path: str, stat: os.stat_result) -> Found:
        return cls(path, stat.st_size, stat.st_mtime_ns, stat.st_dev, stat.st_ino)

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.path)[1].lower()

    @property
    def is_kept(self) -> bool:
        """Whether it is brought in as it is, and not remuxed."""
        return self.suffix == ".mp4" or self.suffix in SOUNDS

    def is_same_file(self, other: Found) -> bool:
        return (self.device, self.inode) == (other.device, other.inode)

    def has_same_bytes(self, other: Found) -> bool:
        return self.size == other.size and filecmp.cmp(self.path, other.path, shallow=False)


@dataclass(frozen=True)
class ClipFiles:
    """The files for one clip; `there` is the one that is in place already."""

    name: str
    files: tuple[Found, ...]
    there: Found | None = None


@dataclass(frozen=True)
class Quality:
    """How good a file is. `problem`: why it cannot be brought in, or ""."""

    problem: str = ""
    duration: float = 0.0  # seconds
    pixels: int = 0


@dataclass(frozen=True)
class HowToBring:
    """The settings for all files."""

    dst: Path
    mode: str
    check: bool
    duplicates: Path | None
    tool: Ffmpeg
    unfinished: frozenset[str] = frozenset()  # sources whose last line in the report is `moving`
    workspace: Path = Path()


@dataclass(frozen=True)
class Filed:
    """The result for one file: a line of the report. `remove` its source after writing it."""

    source: str
    clip: str
    action: str
    reason: str = ""
    remove: bool = False
    disk_full: bool = False


# --- finding -------------------------------------------------------------------------------------


@dataclass
class Tree:
    """The content of a folder: the files of each clip by its name, and other files by kind.

    The name of a sound file keeps its suffix: it is another clip than the video of that name.
    """

    clips: dict[str, list[Found]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


def scan(folder: Path, excluded: Sequence[Path]) -> Tree:
    """Find the clips below `folder`. Symbolic links are counted and never followed."""
    tree, skipped = Tree(), set()
    for path in excluded:
        with suppress(OSError):
            skipped.add((path.stat().st_dev, path.stat().st_ino))
    for entry in _files(folder, skipped, tree):
        stem, suffix = os.path.splitext(entry.name)
        name = canonical_name(stem) if suffix.lower() in CLIP_SUFFIXES else None
        if entry.is_symlink():
            tree.others["symlink"] += 1
        elif not entry.is_file(follow_symlinks=False):
            tree.others["not a regular file"] += 1
        elif name is None:
            tree.others[suffix.lower() or "no suffix"] += 1
        else:
            found = Found.at(entry.path, entry.stat(follow_symlinks=False))
            key = name + found.suffix * (found.suffix in SOUNDS)
            tree.clips.setdefault(key, []).append(found)
    for files in tree.clips.values():
        files.sort(key=lambda found: found.path)
    return tree


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
    """The suite's name for a file named `stem`, whatever its padding; None if it is not a clip's.

    `<id>_<start>_<end>`, or `<id>_<ts>` for an AVA-Kinetics clip.
    """
    parsed = parse_clip_name(stem)
    if parsed is None:
        return None
    youtube_id, start, end = parsed
    if end is not None and end <= start:
        return None
    trim_format = FINE_FORMAT if "." in stem else TRIM_FORMAT
    return clip_name(youtube_id, start, AVA_TIME_END if end is None else end, trim_format)


def file_name(name: str) -> str:
    """The file of a clip in the flat folder."""
    return name if name.endswith(tuple(SOUNDS)) else f"{name}.mp4"


def files_to_bring(tree: Tree, dst: Path) -> list[ClipFiles]:
    """The files of every clip, except those that are in place already."""
    in_place = {}
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(dst) as entries:
        for entry in entries:
            with suppress(OSError):  # a link that loops
                if entry.name.endswith((".mp4", *SOUNDS)) and entry.is_file():
                    in_place[entry.path] = Found.at(entry.path, entry.stat())
    to_bring = []
    for name in sorted(tree.clips):
        final = os.path.join(dst, file_name(name))
        if files := tuple(found for found in tree.clips[name] if found.path != final):
            to_bring.append(ClipFiles(name, files, in_place.get(final)))
    return to_bring


# --- choosing ------------------------------------------------------------------------------------


def judge(found: Found, whole: bool = True) -> Quality:
    """How good a file is; `whole`: decode all of it, too. Raises nothing."""
    if not found.size:
        return Quality("the file is empty")
    path = Path(found.path)
    try:
        if found.suffix in SOUNDS:
            sound = read_sound(path)
            return Quality(duration=sound.samples / sound.rate)
        video = read_video(path, "all" if whole else "packets")
        if not found.is_kept and (problem := rewrap_problem(video)):
            return Quality(problem)
        check_length(video, _named_duration(path.stem) or math.inf)
    except BadClip as error:
        return Quality(error.message)
    return Quality(duration=video.end - video.first, pixels=video.width * video.height)


def _named_duration(stem: str) -> float:
    """The seconds that a clip's name promises."""
    parsed = parse_clip_name(stem)
    if parsed is None:
        return 0.0
    return AVA_DURATION if parsed[2] is None else float(parsed[2] - parsed[1])


def best_of(files: Sequence[Found], worth: dict[str, Quality], there: Found | None) -> Found:
    """The best of these good files: the longer, then the larger video, then the newer.

    The file in place (`there`) gives way to a longer or larger one, but not to a newer one. Lengths
    that differ by less than 0.1 s are equal.
    """
    longest = max(worth[found.path].duration for found in files)
    best = [f for f in files if worth[f.path].duration >= longest - TOLERANCE]
    largest = max(worth[found.path].pixels for found in best)
    best = [found for found in best if worth[found.path].pixels == largest]
    if there in best:
        return there
    newest = max(found.mtime_ns for found in best)
    best = [found for found in best if found.mtime_ns == newest]
    return next((found for found in best if found.is_kept), best[0])


def why_not(found: Found, chosen: Found, worth: dict[str, Quality]) -> str:
    """Why `found` is not the clip, but `chosen` is."""
    mine, its = worth[found.path], worth[chosen.path]
    if mine.problem:
        return mine.problem
    if mine.duration < its.duration - TOLERANCE:
        return f"shorter: {mine.duration:.2f} s, not {its.duration:.2f} s"
    if mine.pixels < its.pixels:
        return "a smaller video"
    return "equally good, but older" if found.mtime_ns < chosen.mtime_ns else "equally good"


# --- bringing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToWeigh:
    """The files of a clip that are to be decoded, and the results for its other files."""

    clip: ClipFiles
    rivals: tuple[Found, ...] = ()
    done: tuple[Filed, ...] = ()


Weighed = tuple[ToWeigh, dict[str, Quality]]


def bring_in(
    chunks: Iterable[Sequence[ClipFiles]], how: HowToBring, workers: Workers
) -> Iterator[list[Filed]]:
    """Bring in all clips: `workers` decode files, threads of this machine move them.

    A file that two machines move at once may be lost, so the workers of a cluster only look.
    """
    if not how.check:
        yield from bring_unchecked(chunks, how, workers.num_jobs)
        return

    def compare(clip: ClipFiles) -> ToWeigh:
        done, rivals = skip_same(clip, how)
        return ToWeigh(clip, tuple(rivals), tuple(done))

    def bring(weighed: Weighed) -> list[Filed]:
        task, worth = weighed
        return [*task.done, *bring_best(task.clip, list(task.rivals), worth, how)]

    clips = (clip for chunk in chunks for clip in chunk)
    with (
        closing(run_parallel(compare, clips, workers.num_jobs)) as compared,
        closing(workers.run(weigh_files, compared, not_weighed)) as weighed,
        closing(run_parallel(bring, weighed, workers.num_jobs)) as brought,
    ):
        yield from brought


def weigh_files(task: ToWeigh) -> Weighed:
    """Decode the files of one clip. Run by the workers."""
    return task, weigh(task.clip, task.rivals, True) if task.rivals else {}


def not_weighed(task: ToWeigh, how: str) -> Weighed:
    """The files of a clip that killed its process again and again, or lost its workers."""
    files = [*task.rivals, *([task.clip.there] if task.clip.there else [])]
    problem = f"the decoder crashed: {how}" if "process" in how else f"cannot be checked: {how}"
    return task, {found.path: Quality(problem) for found in files}


def bring_unchecked(
    chunks: Iterable[Sequence[ClipFiles]], how: HowToBring, num_jobs: int
) -> Iterator[list[Filed]]:
    """Bring in clips whose files are not decoded.

    The first chunk shows whether threads help: on a local disk a rename takes 20 us, most of it in
    Python, and two threads take 1.5 times as long as one.
    """

    def bring_chunk(chunk: Sequence[ClipFiles]) -> list[Filed]:
        filed: list[Filed] = []
        with suppress(Stopped):
            for clip in chunk:
                if STOP.is_set():
                    break
                done, rivals = skip_same(clip, how)
                worth = weigh(clip, rivals, False) if rivals else {}
                filed += [*done, *bring_best(clip, rivals, worth, how)]
        return filed

    remaining = iter(chunks)
    for first in islice(remaining, 1):
        started = time.monotonic()
        yield bring_chunk(first)
        if time.monotonic() - started < QUICK * len(first):
            num_jobs = 1
    yield from run_parallel(bring_chunk, remaining, num_jobs)


def skip_same(clip: ClipFiles, how: HowToBring) -> tuple[list[Filed], list[Found]]:
    """(results for files whose content is in place already, the other files)."""
    done, rivals = [], []
    for found in clip.files:
        same = _same_as_there(found, clip, how)
        if same is None:
            rivals.append(found)
        else:
            done.append(same)
    return done, rivals


def _same_as_there(found: Found, clip: ClipFiles, how: HowToBring) -> Filed | None:
    there, name = clip.there, clip.name
    if there is None:
        return None
    try:
        if found.is_same_file(there):
            is_link = os.path.islink(there.path) or os.lstat(found.path).st_nlink < 2
            if how.mode != MOVE or is_link:
                return Filed(found.path, name, PRESENT, "the same file")
            os.unlink(found.path)  # a second name: --link, or a move that was stopped in between
            return Filed(found.path, name, MOVED, "a second name of the file in place")
        unfinished = how.mode == MOVE and escape_name(found.path) in how.unfinished
        if found.has_same_bytes(there):
            if unfinished:
                return Filed(found.path, name, MOVED, "was copied before", remove=True)
            if how.mode != MOVE:
                return Filed(found.path, name, PRESENT, "the same bytes")
            return put_aside(found, name, "the same bytes as the file in place", how)
        if unfinished and not found.is_kept:
            check_same_pictures(how.tool, Path(found.path), Path(there.path))
            return Filed(found.path, name, REWRAPPED, "was remuxed before", remove=True)
    except BadClip:
        return None
    except OSError as error:
        return failed(found, name, error)
    return None


def weigh(clip: ClipFiles, rivals: Sequence[Found], check: bool) -> dict[str, Quality]:
    """How good these files and the one in place are."""
    everyone = [*rivals, clip.there] if clip.there else list(rivals)
    if len(everyone) > 1 or check or not rivals[0].is_kept:
        return {found.path: judge(found, check) for found in everyone}
    return {rivals[0].path: Quality("" if rivals[0].size else "the file is empty")}


def bring_best(
    clip: ClipFiles, rivals: list[Found], worth: dict[str, Quality], how: HowToBring
) -> list[Filed]:
    """Choose between files that differ, bring the best one in, and put the others aside."""
    if not rivals:
        return []
    everyone = [*rivals, clip.there] if clip.there else list(rivals)
    good = [found for found in everyone if not worth[found.path].problem]
    done: list[Filed] = []
    chosen = None
    while good and chosen is None:
        best = best_of(good, worth, clip.there)
        if best is clip.there:
            chosen = best
            break
        tried = _replace_there(best, clip, worth, how)
        done += tried
        good.remove(best)
        rivals.remove(best)
        if tried[0].action in BROUGHT:
            chosen = best
        elif tried[0].disk_full:
            break
    for found in rivals:
        if chosen is not None:
            done.append(put_aside(found, clip.name, why_not(found, chosen, worth), how))
        else:
            reason = worth[found.path].problem or "the disk is full"
            done.append(Filed(found.path, clip.name, LEFT, reason))
    return done


def _replace_there(
    best: Found, clip: ClipFiles, worth: dict[str, Quality], how: HowToBring
) -> list[Filed]:
    """Bring `best` in; a file in its place goes to --duplicates. The first result is best's."""
    there = clip.there
    if there is None:
        return [bring(best, clip.name, worth[best.path], how)]
    reason = why_not(there, best, worth)
    if how.duplicates is None:
        problem = f"better than the file in place ({reason}); use --duplicates DIR to replace it"
        return [Filed(best.path, clip.name, LEFT, problem)]
    try:
        aside = set_aside(Path(there.path), how.duplicates)
    except OSError as error:
        return [failed(best, clip.name, error)]
    filed = None
    try:
        filed = bring(best, clip.name, worth[best.path], how)
    finally:
        if filed is None or filed.action not in BROUGHT:
            with suppress(FileExistsError):
                move_across(aside, Path(there.path))
    if filed.action not in BROUGHT:
        return [filed]
    return [filed, Filed(there.path, clip.name, SET_ASIDE, reason)]


def put_aside(found: Found, name: str, reason: str, how: HowToBring) -> Filed:
    """Keep a worse file where it is, or move it to --duplicates if clips are moved."""
    if how.duplicates is None or how.mode != MOVE:
        return Filed(found.path, name, DUPLICATE, reason)
    try:
        set_aside(Path(found.path), how.duplicates)
    except OSError as error:
        return Filed(found.path, name, DUPLICATE, f"{reason}; cannot be moved: {error.strerror}")
    return Filed(found.path, name, SET_ASIDE, reason)


def bring(found: Found, name: str, worth: Quality, how: HowToBring) -> Filed:
    """Bring one file into place."""
    try:
        action, remove = _put_in_place(found, os.path.join(how.dst, file_name(name)), how)
    except FileExistsError:
        return Filed(found.path, name, LEFT, "another file of that name is in place")
    except BadClip as error:
        return Filed(found.path, name, LEFT, error.message)
    except OSError as error:
        return failed(found, name, error)
    named, remark = _named_duration(os.path.splitext(file_name(name))[0]), ""
    if worth.duration and named != AVA_DURATION and abs(worth.duration - named) > REMARKED:
        remark = f"lasts {worth.duration:.2f} s; a clip of this name lasts {named:g} s"
    return Filed(found.path, name, action, remark, remove)


def _put_in_place(found: Found, final: str, how: HowToBring) -> tuple[str, bool]:
    """(action, whether to remove the source). Raises FileExistsError, BadClip, OSError."""
    if found.is_kept and how.mode == LINK:
        os.link(found.path, final, follow_symlinks=False)
        return LINKED, False
    if found.is_kept and how.mode == MOVE:
        try:
            move_new(found.path, final)
            return MOVED, False
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
    if how.mode == MOVE and not os.access(os.path.dirname(found.path), os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    temporary = how.workspace / os.path.basename(final)
    if found.is_kept:
        copy_new(Path(found.path), Path(final), temporary)
        return (MOVED, True) if how.mode == MOVE else (COPIED, False)
    try:
        rewrap(how.tool, Path(found.path), temporary)
        os.utime(temporary, ns=(found.mtime_ns, found.mtime_ns))
        publish_new(temporary, Path(final))
    finally:
        temporary.unlink(missing_ok=True)
    return REWRAPPED, how.mode == MOVE


def failed(found: Found, name: str, error: OSError) -> Filed:
    """The result for a file that could not be read, moved or copied."""
    reason = error.strerror or str(error)
    if error.errno == errno.EXDEV:
        reason = "on another file system, where hard links are impossible: use --copy"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason += "; use --copy or --link to keep the source as it is"
    return Filed(found.path, name, LEFT, reason, disk_full=is_disk_full(error))


# --- the report ----------------------------------------------------------------------------------


def read_unfinished(report: Path) -> frozenset[str]:
    """The sources that a killed run was copying in order to remove them.

    This report has no times. So of several reports' lines for a source all must say `moving`: a
    source too few is only kept, and one too many would be removed.
    """
    actions: dict[str, set[str]] = {}
    for path in report_paths(report):
        last = {row[0]: row[2] for row in read_report(path, REPORT_COLUMNS)}
        for source, action in last.items():
            actions.setdefault(source, set()).add(action)
    return frozenset(source for source, found in actions.items() if found == {MOVING})


def announced(
    to_bring: Sequence[ClipFiles], how: HowToBring, report: ReportFile
) -> Iterator[Sequence[ClipFiles]]:
    """The clips in chunks; before each chunk, `moving` lines for sources that are copied.

    Only for a clip with one file: two files with the same bytes could be confused.
    """
    device, size = how.dst.stat().st_dev, 1 if how.check else CHUNK
    for at in range(0, len(to_bring), size):
        chunk = to_bring[at : at + size]
        for clip in chunk if how.mode == MOVE else ():
            found = clip.files[0]
            is_renamed = found.is_kept and found.device == device
            if len(clip.files) == 1 and not clip.there and not is_renamed:
                report.append((escape_name(found.path), clip.name, MOVING, ""))
        yield chunk


def write_down(filed: Sequence[Filed], report: ReportFile) -> None:
    """Write the lines, then remove the sources of clips that were copied into place."""
    report.append(
        *(
            (escape_name(each.source), each.clip, each.action, printable(each.reason, 500))
            for each in filed
        )
    )
    for each in filed:
        try:
            if each.remove:
                os.unlink(each.source)
        except OSError as error:
            say(f"{each.source} was copied, but cannot be removed: {error.strerror}")


def remove_empty_folders(src: Path, report: Path) -> int:
    """Remove folders below `src` that are empty because this run or an earlier one moved clips."""
    emptied: set[str] = set()
    for path in report_paths(report):
        for row in read_report(path, REPORT_COLUMNS):
            folder = os.path.dirname(row[0])
            while row[2] in (MOVED, REWRAPPED, SET_ASIDE) and folder not in emptied | {"", "/"}:
                emptied.add(folder)
                folder = os.path.dirname(folder)
    removed = 0
    for folder, _, _ in os.walk(src, topdown=False):
        if Path(folder) != src and escape_name(folder) in emptied:
            with suppress(OSError):  # it is not empty
                os.rmdir(folder)
                removed += 1
    return removed
