"""Take clips from tar archives, read as streams, of the CVDF mirror or any other.

An archive is never stored. Its members are known by their names, `<id>_<start>_<end>.mp4` in any
folder. Fully read archives are recorded in `<out>/.cvdf`, so that a rerun reads no archive
that has nothing to add.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter, deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from utils.clip import Clip, clip_window, parse_clip_name
from utils.download.disk import Taken, check_copy, reencode, result_of, take_sound
from utils.download.sources import FetchOptions, SourceContext
from utils.errors import UserError, is_disk_full
from utils.files import open_regular, own_folder, publish, read_text
from utils.process import STOP, Stopped
from utils.report import Result
from utils.tar import BadTar, Member, TarStream, read_archive
from utils.web import Web, WebError

NAME = "tar"  # in the report
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
LARGEST_CLIP = 500 * 2**20  # bytes
MEMORY_FOLDER = ".cvdf"
# Reasons that another try does not mend; `unavailable`: the copy has no sound.
OF_THE_COPY = ("undecodable", "truncated", "past_end", "unavailable")

Key = tuple[str, float, float]  # youtube_id, start, end


@dataclass(frozen=True)
class Archive:
    """An archive by its address or path, and the clips that it may hold. source: for the report.

    jobs: clips that are checked at once. memory: whether what it holds is written down.
    """

    url: str
    keys: frozenset[Key]
    source: str
    jobs: int = 2
    memory: bool = False

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])


@dataclass(frozen=True)
class ArchiveEnd:
    """How the reading of an archive ended."""

    archive: Archive
    error: str = ""  # why it broke off; empty when it was read to its end
    odd: Mapping[str, int] | None = None  # members that are no clips, by what they are
    held: frozenset[Key] = frozenset()


def key_of(clip: Clip) -> Key | None:
    """How an archive names a clip; None for one of AVA-Kinetics, which no archive holds."""
    return None if clip.is_ava else (clip.youtube_id, clip.time_start, clip.time_end)


def member_key(name: str, suffixes: Collection[str] = (".mp4",)) -> Key | None:
    """The clip that a member is, by its base name; None if it is none."""
    stem, suffix = os.path.splitext(name.rsplit("/", 1)[-1])
    found = parse_clip_name(stem) if suffix in suffixes else None
    return None if found is None or found[2] is None else (found[0], found[1], found[2])


def oddity(member: Member, suffixes: Collection[str] = (".mp4",)) -> str:
    """Why a member is skipped whatever it is called; empty for a clip."""
    if not member.is_file:
        return "not a regular file"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "with an unsafe name"
    if member.name.rsplit("/", 1)[-1].startswith("._"):
        return "with a name that begins with ._"
    if member_key(member.name, suffixes) is None:
        return "not a clip"
    if member.size > LARGEST_CLIP:
        return f"larger than {LARGEST_CLIP // 2**20} MB"
    return ""


# --- one archive ---------------------------------------------------------------------------------


def take_clips(
    options: FetchOptions, web: Web, task: tuple[Archive, Sequence[Clip]]
) -> Generator[Result | ArchiveEnd, None, None]:
    """Take these clips out of an archive: a result for each that it holds, at last its end.

    The worker. Raises Stopped, and UserError where the temporary folder cannot be written.
    """
    archive, clips = task
    suffixes = options.encode.sources
    wanted = {key: clip for clip in clips if (key := key_of(clip))}
    odd, held, good, last = Counter[str](), set[Key](), set[Key](), None
    error, is_sure = "", True
    checks: deque[Future[Result]] = deque()
    with _own_workspace(options) as own, ThreadPoolExecutor(archive.jobs) as pool:

        def finished(most: int) -> Iterator[Result]:
            nonlocal is_sure
            while checks and (len(checks) > most or checks[0].done()):
                result = checks.popleft().result()
                if result.is_on_disk:
                    good.add((result.youtube_id, float(result.time_start), float(result.time_end)))
                is_sure &= result.is_on_disk or result.reason in OF_THE_COPY
                yield result

        try:
            for member, tar in _members(archive.url, web):
                if STOP.is_set():
                    raise Stopped
                if tar is not last:  # another connection; where it begins anew, so does the count
                    last, odd = tar, odd if tar.start else Counter()
                if what := "" if member.is_folder else oddity(member, suffixes):
                    odd[what] += 1
                key = None if what else member_key(member.name, suffixes)
                if key is None:
                    continue
                held.add(key)
                if clip := wanted.pop(key, None):
                    path = own.workspace / f"{clip.name}{os.path.splitext(member.name)[1]}"
                    if _copy(tar, path):
                        checks.append(pool.submit(_finish, archive, clip, path, own))
                    else:
                        wanted[key] = clip  # of a connection that broke off; the stream goes on
                yield from finished(2 * archive.jobs)
        except (BadTar, WebError) as problem:
            error = str(problem)
        except OSError as problem:
            if not is_disk_full(problem):
                where = problem.filename or archive.url
                raise UserError(f"{where}: {problem.strerror}") from problem
            yield Result.of(clips[0], "disk_full", archive.source, message=str(problem))
        yield from finished(0)
    if archive.memory and not error and is_sure:
        with suppress(OSError):  # it only saves time
            _remember(archive.url, held - (set(map(key_of, clips)) & held - good), options)
    yield ArchiveEnd(archive, error, odd, frozenset(held))


@contextmanager
def _own_workspace(options: FetchOptions) -> Iterator[FetchOptions]:
    """The same options with a temporary folder for one archive alone."""
    parent = own_folder(options.workspace)
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
        yield replace(options, workspace=Path(folder))


def _members(url: str, web: Web) -> Iterator[tuple[Member, TarStream]]:
    if urlsplit(url).scheme in ("http", "https"):
        yield from read_archive(web, url)
        return
    try:
        file = open_regular(url)
    except OSError as error:
        raise BadTar(f"cannot be read: {error.strerror}") from error
    with file:
        tar = TarStream(file.read)
        for member in tar.members():
            yield member, tar


def _copy(tar: TarStream, path: Path) -> bool:
    """Write a member out; False where the stream broke off. Raises OSError."""
    try:
        with path.open("wb") as file:
            tar.copy(file)
    except (BadTar, WebError):
        path.unlink(missing_ok=True)
        return False
    return True


def _finish(archive: Archive, clip: Clip, path: Path, options: FetchOptions) -> Result:
    """Check a copied clip and publish it."""

    def take() -> Taken:
        if options.encode.sound:
            return take_sound(clip, path, 0.0, clip_window(clip)[1], options)
        taken = check_copy(clip, path, options)
        if options.encode.changes_clips:
            return reencode(clip, path, taken, options)
        publish(path, options.out / path.name)
        return taken

    try:
        return result_of(clip, archive.source, take, options)
    finally:
        path.unlink(missing_ok=True)


# --- which archives were read --------------------------------------------------------------------


def _memory_path(url: str, out: Path) -> Path:
    return out / MEMORY_FOLDER / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.txt"


def _remember(url: str, keys: Collection[Key], options: FetchOptions) -> None:
    """Write down the good clips of an archive: a line for its address, then one a clip."""
    path = _memory_path(url, options.out)
    path.parent.mkdir(exist_ok=True)
    part = own_folder(options.workspace) / path.name
    names = sorted(f"{youtube_id}_{start:06g}_{end:06g}" for youtube_id, start, end in keys)
    part.write_text("\n".join([url, *names]) + "\n", encoding="utf-8")
    publish(part, path)


def can_add(archive: Archive, wanted: Collection[Key], out: Path) -> bool:
    """Whether an archive may hold a wanted clip, by what is known of it."""
    keys = archive.keys & set(wanted)
    try:
        lines = read_text(_memory_path(archive.url, out)).splitlines()
    except (OSError, ValueError):
        return bool(keys)
    return not keys.isdisjoint({parse_clip_name(name) for name in lines[1:]})


# --- many archives -------------------------------------------------------------------------------


@dataclass
class Wanted:
    """The clips that are still missing, and the reasons for failed ones."""

    clips: dict[Key, Clip]
    problems: dict[Key, Result]  # what was wrong with a copy
    failures: dict[Key, str]  # the archive that may hold a clip, and could not be read

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> Wanted:
        return cls({key: clip for clip in clips if (key := key_of(clip))}, {}, {})

    def read(
        self, archives: Sequence[Archive], context: SourceContext, web: Web
    ) -> Generator[Result | ArchiveEnd, None, None]:
        """Read archives; each clip that is on disk, once, and the end of each archive."""

        jobs = max(2, context.workers.num_jobs // max(1, len(archives)))

        def tasks() -> Iterator[tuple[Archive, Sequence[Clip]]]:
            for archive in archives:
                found = (self.clips.get(key) for key in archive.keys)
                if clips := [clip for clip in found if clip]:
                    yield replace(archive, jobs=jobs), clips

        def lost(task: tuple[Archive, Sequence[Clip]], how: str) -> ArchiveEnd:
            return ArchiveEnd(task[0], how)

        worker = partial(take_clips, context.options, web)
        for made in context.workers.run(worker, tasks(), lost, threads=True):
            if isinstance(made, ArchiveEnd):
                if made.error:
                    context.tell(f"network: {made.archive.name}: {made.error}")
                    why = f"{made.archive.name}: {made.error}"
                    self.failures.update(dict.fromkeys(made.archive.keys, why))
                if made.odd:
                    odd = ", ".join(f"{n:,} {w}" for w, n in Counter(made.odd).most_common())
                    context.tell(f"skipped in {made.archive.name}: {odd}")
                yield made
                continue
            key = (made.youtube_id, float(made.time_start), float(made.time_end))
            if made.is_on_disk:
                if self.clips.pop(key, None):
                    yield made
            elif made.reason == "disk_full":
                yield made
                return
            else:
                self.problems[key] = made

    def rest(self, clips: Sequence[Clip], source: str, otherwise: str) -> Iterator[Result]:
        """A result for each clip that did not come."""
        for clip in clips:
            key = key_of(clip)
            if key is not None and key not in self.clips:
                continue
            if key in self.failures:
                message = self.failures[key]
                yield Result.of(clip, "network", source, attempts=1, message=message)
            elif key in self.problems:
                yield self.problems[key]
            else:
                yield Result.of(clip, "unavailable", source, attempts=1, message=otherwise)


def from_tars(
    clips: Sequence[Clip], context: SourceContext, place: str
) -> Generator[Result, None, None]:
    """The source `tar:FILE_OR_FOLDER_OR_URL`."""
    wanted = Wanted.of(clips)
    paths = [place]
    if Path(place).is_dir():
        found = (path for suffix in TAR_SUFFIXES for path in Path(place).rglob(f"*{suffix}"))
        paths = [str(path) for path in sorted(found) if os.path.isfile(path)]
    archives = [Archive(path, frozenset(wanted.clips), NAME) for path in paths]
    with suppress(Stopped):
        for made in wanted.read(archives, context, Web(context.options.proxies)):
            if isinstance(made, Result):
                yield made
    if not STOP.is_set():
        yield from wanted.rest(clips, NAME, f"in no archive of {place}")
