"""Find clips in folders of any layout, and bring the best file for each into one flat folder.

Nothing is overwritten, and a source is removed only when its clip is in place. A source that has to
be copied and then removed (another file system, another container) first gets a line `moving` in
the report, so that a rerun after a kill knows that it may remove the source.
"""

from __future__ import annotations

import errno
import filecmp
import os
import stat
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from utils import clip as clips
from utils import files
from utils.cli import escape_name, printable
from utils.errors import is_disk_full
from utils.parallel import run_parallel
from utils.process import STOP, Stopped
from utils.report import ReportFile, read_report, report_paths
from utils.run import Opened
from utils.video import cut, whole
from utils.video.ffmpeg import SOUNDS, Ffmpeg
from utils.video.whole import BadClip

OWN_FOLDERS = (files.TEMP_FOLDER, ".bad")  # of download.py: temporary files, and bad clips
CLIP_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", *SOUNDS)
REPORT_NAME = "reorg_report.csv"
REPORT_COLUMNS = ("source", "clip", "action", "reason")
MOVE, COPY, LINK = "move", "copy", "hard-link"

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
CHUNK = 200  # clips per task if nothing is decoded: a task costs more than a rename


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is named like a clip. Its path is a str: a Path costs ten times as much.

    The last fields are set by `judge`. problem: why it cannot be brought in, or "". is_same: as the
    file in place.
    """

    path: str
    size: int  # bytes
    mtime_ns: int
    problem: str = ""
    duration: float = 0.0  # seconds
    pixels: int = 0
    is_same: bool = False

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.path)[1].lower()

    @property
    def is_kept(self) -> bool:
        """Return whether it is brought in as it is, not remuxed."""
        return self.suffix == ".mp4" or self.suffix in SOUNDS


@dataclass(frozen=True)
class ClipFiles:
    """The files for one clip; `there` is the one that is already in place.

    name: of its file in the flat folder.
    """

    name: str
    files: tuple[Found, ...]
    there: Found | None = None


@dataclass(frozen=True)
class HowToBring:
    """The settings for all files."""

    dst: Path
    mode: str
    check: bool
    duplicates: Path | None
    tool: Ffmpeg
    unfinished: frozenset[str]  # sources whose last line in the report is `moving`
    opened: Opened


@dataclass(frozen=True)
class Filed:
    """The result for one file: a line of the report."""

    source: str
    clip: str  # its file in the flat folder
    action: str
    reason: str = ""
    disk_full: bool = False


# --- finding -------------------------------------------------------------------------------------


@dataclass
class Tree:
    """The content of a folder: the files of each clip by its name, and other files by kind.

    Audio and video of the same name are two clips, because the name includes `.mp4` or `.wav`.
    """

    clips: dict[str, list[Found]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


def scan(folder: Path, excluded: Sequence[Path]) -> Tree:
    """Find the clips below `folder`. Symbolic links are counted and never followed."""
    tree, skipped = Tree(), [os.stat(each) for each in excluded if each.exists()]

    def note(error: OSError) -> None:
        tree.unreadable.append(f"{error.filename}: {error.strerror}")

    for here, folders, names in os.walk(folder, onerror=note):
        for name in [*folders, *names]:
            try:
                info = os.lstat(file := os.path.join(here, name))
            except OSError as error:  # removed since, or in a folder that shows names only
                note(error)
                continue
            stem, suffix = os.path.splitext(name)
            suffix = suffix.lower()
            if stat.S_ISDIR(info.st_mode):
                if name in OWN_FOLDERS or any(os.path.samestat(info, each) for each in skipped):
                    folders.remove(name)
            elif stat.S_ISLNK(info.st_mode):
                tree.others["symlink"] += 1
            elif not stat.S_ISREG(info.st_mode):
                tree.others["not a regular file"] += 1
            elif suffix not in CLIP_SUFFIXES or not (clip := canonical_name(stem)):
                tree.others[suffix or "no suffix"] += 1
            else:
                clip += suffix if suffix in SOUNDS else ".mp4"
                tree.clips.setdefault(clip, []).append(Found(file, info.st_size, info.st_mtime_ns))
    return tree


def canonical_name(stem: str) -> str | None:
    """Return the suite's name for a file named `stem`; None if it is not the name of a clip.

    A clip's is `<id>_<start>_<end>` or, for AVA-Kinetics, `<id>_<ts>`, with any padding.
    """
    parsed = clips.parse_clip_name(stem)
    if parsed is None:
        return None
    youtube_id, start, end = parsed
    if end is not None and end <= start:
        return None
    trim_format = clips.FINE_FORMAT if "." in stem else clips.TRIM_FORMAT
    end = clips.AVA_TIME_END if end is None else end
    return clips.clip_name(youtube_id, start, end, trim_format)


def files_to_bring(tree: Tree, dst: Path) -> list[ClipFiles]:
    """Return the files of every clip, except those that are already in place."""
    to_bring = []
    for name in sorted(tree.clips):
        final, there = os.path.join(dst, name), None
        with suppress(OSError):  # there is none, or a link that loops
            if stat.S_ISREG((found := os.stat(final)).st_mode):
                there = Found(final, found.st_size, found.st_mtime_ns)
        rest = [found for found in tree.clips[name] if found.path != final]
        if rest:
            rest.sort(key=lambda found: found.path)
            to_bring.append(ClipFiles(name, tuple(rest), there))
    return to_bring


# --- choosing ------------------------------------------------------------------------------------


def look_closely(chunk: Sequence[ClipFiles]) -> list[ClipFiles]:
    """Compare and decode the files of clips, and change nothing. Run by the workers."""
    return [look_at(clip, True) for clip in chunk]


def not_looked_at(chunk: Sequence[ClipFiles], how: str) -> list[ClipFiles]:
    """Return the result for files that killed their process twice, or lost their workers."""
    problem = f"cannot be checked: {how}"
    return [
        ClipFiles(clip.name, tuple(replace(found, problem=problem) for found in clip.files))
        for clip in chunk
    ]


def look_at(clip: ClipFiles, check: bool) -> ClipFiles:
    """Compare the files of one clip with the one in place, and judge those that differ.

    Without `check` a clip's only file is not even opened.
    """
    there, first = clip.there, clip.files[0]
    if not check and there is None and len(clip.files) == 1 and first.is_kept and first.size:
        return clip
    judged = tuple(judge(found, check, there) for found in clip.files)
    if there and not all(found.is_same for found in judged):
        there = judge(there, check)
    return replace(clip, files=judged, there=there)


def judge(found: Found, check: bool, there: Found | None = None) -> Found:
    """Return a file as it was judged, unless it is the same as `there`; `check`: decode all."""
    path = Path(found.path)
    try:
        if there and (os.path.samefile(path, there.path) or filecmp.cmp(path, there.path, False)):
            return replace(found, is_same=True)
        if not found.size:
            return replace(found, problem="the file is empty")
        if found.suffix in SOUNDS:
            sound = whole.read_sound(path)
            return replace(found, duration=sound.samples / sound.rate)
        video = whole.read_video(path)
        if not found.is_kept and (problem := cut.rewrap_problem(video)):
            return replace(found, problem=problem)
        whole.check_length(video, named_duration(found.path))
        if check:
            whole.decode_whole(path)
    except BadClip as error:
        return replace(found, problem=error.message)
    except OSError as error:
        return replace(found, problem=error.strerror or str(error))
    return replace(found, duration=video.end - video.first, pixels=video.width * video.height)


def named_duration(path: str) -> float:
    """Return the seconds that a clip's name promises."""
    parsed = clips.parse_clip_name(os.path.splitext(os.path.basename(path))[0])
    assert parsed is not None
    return clips.AVA_DURATION if parsed[2] is None else float(parsed[2] - parsed[1])


def best_of(good: Sequence[Found], there: Found | None) -> Found:
    """Return the best of these good files: the longer, then the larger video, then the newer.

    The file in place (`there`) is replaced by a longer or larger one, but not by a newer one.
    Lengths that differ by less than 0.1 s are equal.
    """
    longest = max(found.duration for found in good)
    long = [found for found in good if found.duration >= longest - whole.TOLERANCE]
    return max(long, key=lambda f: (f.pixels, f is there, f.mtime_ns, f.is_kept))


def why_not(found: Found, chosen: Found) -> str:
    """Return the reason why `found` is not the clip, but `chosen` is."""
    if found.problem:
        return found.problem
    if found.duration < chosen.duration - whole.TOLERANCE:
        return f"shorter: {found.duration:.2f} s, not {chosen.duration:.2f} s"
    if found.pixels < chosen.pixels:
        return "a smaller video"
    return "equally good, but older" if found.mtime_ns < chosen.mtime_ns else "equally good"


# --- bringing ------------------------------------------------------------------------------------


def bring_in(to_bring: Sequence[ClipFiles], how: HowToBring) -> Iterator[list[Filed]]:
    """Bring in all clips: the workers decode files, threads of this machine move them.

    The workers of a cluster only look, because a file that two machines move at once may be lost.
    """

    def bring_chunk(chunk: Sequence[ClipFiles]) -> list[Filed]:
        filed: list[Filed] = []
        with suppress(Stopped):
            for clip in chunk:
                if STOP.is_set():
                    break
                filed += bring_clip(clip if how.check else look_at(clip, False), how)
        return filed

    workers = how.opened.workers
    size = 1 if how.check else CHUNK
    chunks = (to_bring[at : at + size] for at in range(0, len(to_bring), size))
    looked: Generator[Sequence[ClipFiles], None, None] = chunks
    if how.check:
        looked = workers.run(look_closely, chunks, not_looked_at)
    try:
        with closing(run_parallel(bring_chunk, looked, workers.num_jobs)) as brought:
            yield from brought
    finally:
        with suppress(ValueError):  # a thread that a stop left behind still waits in it
            looked.close()


def bring_clip(clip: ClipFiles, how: HowToBring) -> list[Filed]:
    """Bring the best of a clip's files in, and put the others aside."""
    filed: list[Filed] = []
    rivals: list[Found] = []
    there = clip.there
    for found in clip.files:
        if there and (found.is_same or was_remuxed(found, there, how)):
            filed.append(file_same(found, there, clip.name, how))
        else:
            rivals.append(found)
    candidates = [*rivals, there] if there and rivals else rivals
    good = [found for found in candidates if not found.problem]
    chosen = None
    while good and chosen is None:
        best = best_of(good, there)
        good.remove(best)
        if best is there:
            chosen = best
            break
        rivals.remove(best)
        tried = replace_there(best, clip, how)
        filed += tried
        if tried[0].action in BROUGHT:
            chosen = best
        elif tried[0].disk_full:
            break
    for found in rivals:
        if chosen:
            filed.append(put_aside(found, clip.name, why_not(found, chosen), how))
        else:
            problem = found.problem or "the disk is full"
            filed.append(Filed(found.path, clip.name, LEFT, problem))
    return filed


def file_same(found: Found, there: Found, name: str, how: HowToBring) -> Filed:
    """Keep, remove or put aside a file whose content is in place already."""
    try:
        is_second_name = os.path.samefile(found.path, there.path)
        is_link = os.path.islink(there.path) or os.lstat(found.path).st_nlink < 2
        if how.mode != MOVE or (is_second_name and is_link):
            same = "file" if is_second_name else "bytes"
            return Filed(found.path, name, PRESENT, f"the same {same}")
        if not is_second_name and escape_name(found.path) not in how.unfinished:
            return put_aside(found, name, "the same bytes as the file in place", how)
        os.unlink(found.path)
    except OSError as error:
        return failed(found, name, error)
    if is_second_name:  # of --link, or of a move that was stopped in between
        return Filed(found.path, name, MOVED, "a second name of the file in place")
    if found.is_same:
        return Filed(found.path, name, MOVED, "was copied before")
    return Filed(found.path, name, REWRAPPED, "was remuxed before")


def was_remuxed(found: Found, there: Found, how: HowToBring) -> bool:
    """Return whether a killed run remuxed `found` into place and did not remove it."""
    if found.is_kept or how.mode != MOVE or escape_name(found.path) not in how.unfinished:
        return False
    try:
        cut.check_same_pictures(how.tool, Path(found.path), Path(there.path))
    except BadClip:
        return False
    return True


def replace_there(best: Found, clip: ClipFiles, how: HowToBring) -> list[Filed]:
    """Bring `best` in; a file in its place goes to --duplicates. The first result is best's."""
    there = clip.there
    if there is None:
        return [bring(best, clip.name, how)]
    reason = why_not(there, best)
    if how.duplicates is None:
        problem = f"better than the file in place ({reason}); use --duplicates DIR to replace it"
        return [Filed(best.path, clip.name, LEFT, problem)]
    try:
        aside = files.set_aside(Path(there.path), how.duplicates)
    except OSError as error:
        return [failed(best, clip.name, error)]
    filed = None
    try:
        filed = bring(best, clip.name, how)
    finally:
        if filed is None or filed.action not in BROUGHT:
            with suppress(FileExistsError):
                files.move_across(aside, Path(there.path))
    if filed.action not in BROUGHT:
        return [filed]
    return [filed, Filed(there.path, clip.name, SET_ASIDE, reason)]


def put_aside(found: Found, name: str, reason: str, how: HowToBring) -> Filed:
    """Keep a worse file where it is, or move it to --duplicates if clips are moved."""
    if how.duplicates is None or how.mode != MOVE:
        return Filed(found.path, name, DUPLICATE, reason)
    try:
        files.set_aside(Path(found.path), how.duplicates)
    except OSError as error:
        return Filed(found.path, name, DUPLICATE, f"{reason}; cannot be moved: {error.strerror}")
    return Filed(found.path, name, SET_ASIDE, reason)


def bring(found: Found, name: str, how: HowToBring) -> Filed:
    """Bring one file into place."""
    final = os.path.join(how.dst, name)
    try:
        action = put_in_place(found, final, how)
    except FileExistsError:
        return Filed(found.path, name, LEFT, "another file of that name is in place")
    except BadClip as error:
        return Filed(found.path, name, LEFT, error.message)
    except OSError as error:
        return failed(found, name, error)
    named, remark = named_duration(final), ""
    if found.duration and named != clips.AVA_DURATION and abs(found.duration - named) > REMARKED:
        remark = f"lasts {found.duration:.2f} s; a clip of this name lasts {named:g} s"
    return Filed(found.path, name, action, remark)


def put_in_place(found: Found, final: str, how: HowToBring) -> str:
    """Link, move, copy or remux a file; return the action.

    Raises FileExistsError, BadClip, OSError.
    """
    if how.mode == LINK and found.is_kept:
        os.link(found.path, final, follow_symlinks=False)
        return LINKED
    if how.mode != MOVE:
        return copy_in_place(found, final, how)
    try:
        if found.is_kept:
            files.move_new(found.path, final)
            return MOVED
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    if not os.access(os.path.dirname(found.path), os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    write_down([Filed(found.path, os.path.basename(final), MOVING)], how.opened.report)
    copied = copy_in_place(found, final, how)
    files.remove_moved(found.path, final)
    return MOVED if copied == COPIED else copied


def copy_in_place(found: Found, final: str, how: HowToBring) -> str:
    """Copy or remux a file; return the action. Raises FileExistsError, BadClip, OSError."""
    temporary = how.opened.workspace / os.path.basename(final)
    if found.is_kept:
        files.copy_new(Path(found.path), Path(final), temporary)
        return COPIED
    try:
        cut.rewrap(how.tool, Path(found.path), temporary)
        os.utime(temporary, ns=(found.mtime_ns, found.mtime_ns))
        files.publish_new(temporary, Path(final))
    finally:
        temporary.unlink(missing_ok=True)
    return REWRAPPED


def failed(found: Found, name: str, error: OSError) -> Filed:
    """Return the result for a file that could not be moved or copied."""
    reason = error.strerror or str(error)
    if error.errno == errno.EXDEV:
        reason = "on another file system, where hard links are impossible: use --copy"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason += "; use --copy or --link to keep the source as it is"
    return Filed(found.path, name, LEFT, reason, disk_full=is_disk_full(error))


# --- the report ----------------------------------------------------------------------------------


def read_unfinished(report: Path) -> frozenset[str]:
    """Return the sources that a killed run was copying in order to remove them.

    If several reports have lines for a source, all must say `moving`, because this report has no
    times: a missing source is only kept, and a wrong one would be removed.
    """
    actions: dict[str, set[str]] = {}
    for path in report_paths(report):
        last = {row[0]: row[2] for row in read_report(path, REPORT_COLUMNS)}
        for source, action in last.items():
            actions.setdefault(source, set()).add(action)
    return frozenset(source for source, found in actions.items() if found == {MOVING})


def write_down(filed: Sequence[Filed], report: ReportFile) -> None:
    """Write the lines of these files."""
    rows = []
    for each in filed:
        clip, reason = each.clip.removesuffix(".mp4"), printable(each.reason, 500)
        rows.append((escape_name(each.source), clip, each.action, reason))
    report.append(*rows)


def remove_empty_folders(src: Path, report: Path) -> int:
    """Remove folders below `src` that are empty because this run or an earlier one moved clips."""
    folders: set[str] = set()
    for path in report_paths(report):
        for source, _, action, _ in read_report(path, REPORT_COLUMNS):
            if action in (MOVED, MOVING, REWRAPPED, SET_ASIDE):
                folders.add(os.path.dirname(source))
    emptied = {str(each) for folder in folders for each in (Path(folder), *Path(folder).parents)}
    removed = 0
    for folder, _, _ in os.walk(src, topdown=False):
        if Path(folder) != src and escape_name(folder) in emptied:
            with suppress(OSError):  # it is not empty
                os.rmdir(folder)
                removed += 1
    return removed
