"""Take clips from tar archives: the sources `tar:` and `cvdf`, the mirror of CVDF.

An archive is read as a stream and never stored. Its clips have names of the form
`<id>_<start>_<end>.mp4`, in any folder. The official lists tell which archives of the mirror can
hold a clip: Kinetics-700-2020 and most of Kinetics-600 have one archive per class. The mirror's
archives that were read to the end are recorded in `<out>/.cvdf`, so that a rerun skips those that
have nothing to add.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
from collections import deque
from collections.abc import Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from utils import files
from utils.cli import plural, size_text
from utils.clip import Clip, Result, parse_clip_name
from utils.download import disk
from utils.download.sources import FetchOptions, SourceContext
from utils.errors import UserError, is_disk_full
from utils.lists import official
from utils.lists.versions import LISTS_FOLDER, OfficialList
from utils.parallel import run_parallel
from utils.process import STOP, Stopped
from utils.web import TarStream, Web, WebError, read_archive

TARS, MIRROR = "tar", "cvdf"  # in the report
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
LARGEST_CLIP = 500 * 2**20  # bytes
MEMORY_FOLDER = ".cvdf"
# Reasons that do not change if the archive is read again; `unavailable`: the copy has no audio.
OF_THE_COPY = {"undecodable", "truncated", "past_end", "unavailable"}
# K700-2020 and most of K600 have one archive per class. K400 has mixed ones: it costs most.
DATASETS = ("700_2020", "600", "400")
PATHS_LIMIT = 2**20  # bytes; the longest path list has 100,000
HEADS_AT_ONCE = 8
REPLACEMENTS = "400/replacement_for_corrupted_k400.tgz"

Key = tuple[str, float, float]  # youtube_id, start, end


@dataclass(frozen=True)
class Archive:
    """An archive by its address or path, and the clips that it may hold."""

    url: str
    keys: frozenset[Key]
    source: str  # in the report

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])

    @property
    def is_remote(self) -> bool:
        return urlsplit(self.url).scheme in ("http", "https")


@dataclass(frozen=True)
class ArchiveEnd:
    """How the reading of an archive ended."""

    archive: Archive
    error: str = ""  # empty if it was read to the end
    skipped: int = 0  # members that are not clips
    others: frozenset[Key] = frozenset()  # its clips, if it holds none that it should hold


def clip_key(clip: Clip) -> Key | None:
    """Return a clip's key; None for AVA-Kinetics, because no archive has such clips."""
    return None if clip.is_ava else (clip.youtube_id, clip.time_start, clip.time_end)


def member_key(member: tarfile.TarInfo, suffixes: Collection[str] = (".mp4",)) -> Key | None:
    """Return the key of the clip in a member, or None if the member must not be used."""
    folder, _, name = member.name.rpartition("/")
    stem, suffix = os.path.splitext(name)
    is_safe = not member.name.startswith("/") and ".." not in folder.split("/")
    if not (member.isreg() and is_safe and suffix in suffixes and member.size <= LARGEST_CLIP):
        return None
    found = parse_clip_name(stem)
    return None if found is None or found[2] is None else (found[0], found[1], found[2])


# --- one archive ---------------------------------------------------------------------------------


def take_clips(
    options: FetchOptions, web: Web, jobs: int, task: tuple[Archive, dict[Key, Clip]]
) -> Generator[Result | ArchiveEnd, None, None]:
    """Yield a result for each of these clips that an archive holds, and at last an ArchiveEnd.

    The clips are checked in `jobs` threads while the archive is read. Raises Stopped.
    """
    archive, wanted = task[0], dict(task[1])
    held, failed, skipped, error = set[Key](), dict[Key, str](), set[str](), ""
    checks: deque[tuple[Key, Future[Result]]] = deque()
    with (
        tempfile.TemporaryDirectory(dir=options.workspace, ignore_cleanup_errors=True) as folder,
        ThreadPoolExecutor(jobs) as pool,
    ):
        own = replace(options, workspace=Path(folder))

        def checked(most: int) -> Iterator[Result]:
            """Yield results until at most `most` checks are under way."""
            while checks and (len(checks) > most or checks[0][1].done()):
                key, check = checks.popleft()
                result = check.result()
                if not result.is_on_disk:
                    failed[key] = result.reason
                yield result

        try:
            for member, tar in _members(archive, web):
                if STOP.is_set():
                    raise Stopped
                key = member_key(member, options.encode.sources)
                if key is None:
                    if not member.isdir():
                        skipped.add(member.name)
                    continue
                held.add(key)
                if clip := wanted.get(key):
                    path = own.workspace / f"{clip.name}{os.path.splitext(member.name)[1]}"
                    with suppress(WebError):  # the next member raises it again
                        with path.open("wb") as file:
                            tar.copy(file)
                        del wanted[key]
                        checks.append((key, pool.submit(_finish, archive, clip, path, own)))
                yield from checked(2 * jobs)
        except (WebError, OSError) as problem:
            error = str(problem)
            if isinstance(problem, OSError) and is_disk_full(problem):
                clip = next(iter(task[1].values()))
                yield Result.of(clip, "disk_full", archive.source, message=error)
        yield from checked(0)
    if archive.source == MIRROR and not error and OF_THE_COPY.issuperset(failed.values()):
        with suppress(UserError):  # the record only saves time
            _remember(archive.url, held - failed.keys(), options)
    others = frozenset(held if held.isdisjoint(archive.keys) else ())
    yield ArchiveEnd(archive, error, len(skipped), others)


def _members(archive: Archive, web: Web) -> Iterator[tuple[tarfile.TarInfo, TarStream]]:
    if archive.is_remote:
        yield from read_archive(web, archive.url)
        return
    with files.open_regular(archive.url) as file:
        tar = TarStream(file.read)
        for member in tar.members():
            yield member, tar


def _finish(archive: Archive, clip: Clip, path: Path, options: FetchOptions) -> Result:
    """Check a copied clip and publish it."""
    take = partial(disk.take_copy, clip, path, options, may_be_short=True, is_ours=True)
    try:
        return disk.result_of(clip, archive.source, take, options)
    finally:
        path.unlink(missing_ok=True)


def _memory_path(url: str, out: Path) -> Path:
    return out / MEMORY_FOLDER / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.txt"


def _remember(url: str, keys: Collection[Key], options: FetchOptions) -> None:
    """Record the clips of an archive: its address in the first line, then one clip per line."""
    names = sorted(f"{youtube_id}_{start:06g}_{end:06g}" for youtube_id, start, end in keys)
    lines = "\n".join([url, *names]) + "\n"
    files.write_whole(_memory_path(url, options.out), options.workspace, lines)


def can_add(archive: Archive, wanted: Collection[Key], out: Path) -> bool:
    """Return whether an archive may hold a wanted clip, by its record if there is one."""
    keys = archive.keys & set(wanted)
    try:
        lines = files.read_text(_memory_path(archive.url, out)).splitlines()
    except (OSError, ValueError):
        return bool(keys)
    return not keys.isdisjoint({parse_clip_name(name) for name in lines[1:]})


# --- many archives -------------------------------------------------------------------------------


class Reader:
    """Reads archives, and knows which clips are still missing and why."""

    def __init__(self, clips: Sequence[Clip], context: SourceContext, web: Web) -> None:
        self.context, self.web = context, web
        self.clips = {key: clip for clip in clips if (key := clip_key(clip))}
        # Reason and message for a missing clip: of its archive, or else of a bad copy.
        self.failures: dict[Key | None, tuple[str, str]] = {}

    def read(self, archives: Sequence[Archive]) -> Generator[Result, None, list[ArchiveEnd]]:
        """Yield the clips that are now on disk, each once; return how each archive ended."""
        jobs = max(2, self.context.workers.num_jobs // max(1, len(archives)))
        worker = partial(take_clips, self.context.options, self.web, jobs)
        tasks, ends = self._tasks(archives), []
        run = partial(self.context.workers.run, threads=True)
        for made in run(worker, tasks, lambda task, how: ArchiveEnd(task[0], how)):
            if isinstance(made, ArchiveEnd):
                self._note(made)
                ends.append(made)
                continue
            key = (made.youtube_id, float(made.time_start), float(made.time_end))
            if made.is_on_disk:
                if self.clips.pop(key, None):
                    yield made
            elif made.reason == "disk_full":
                yield made
                break
            else:
                self.failures.setdefault(key, (made.reason, made.message))
        return ends

    def _tasks(self, archives: Sequence[Archive]) -> Iterator[tuple[Archive, dict[Key, Clip]]]:
        for archive in archives:
            found = {key: clip for key in archive.keys if (clip := self.clips.get(key))}
            if found:
                yield archive, found

    def _note(self, end: ArchiveEnd) -> None:
        """Tell the user how the reading of an archive ended."""
        name = end.archive.name
        if end.error:
            reason = "network" if end.archive.is_remote else "undecodable"
            message = f"{name}: {end.error}"
            self.context.tell(f"{reason}: {message}")
            self.failures.update(dict.fromkeys(end.archive.keys, (reason, message)))
        if end.skipped:
            self.context.tell(f"skipped in {name}: {plural(end.skipped, 'member')} without a clip")

    def rest(self, clips: Sequence[Clip], source: str, otherwise: str) -> Iterator[Result]:
        """Yield a result for each missing clip."""
        for clip in clips:
            key = clip_key(clip)
            if key is None or key in self.clips:
                reason, message = self.failures.get(key, ("unavailable", otherwise))
                yield Result.of(clip, reason, source, attempts=1, message=message)


def from_tars(
    clips: Sequence[Clip], context: SourceContext, place: str
) -> Generator[Result, None, None]:
    """Yield the results of the source `tar:FILE_OR_FOLDER_OR_URL`."""
    paths = [place]
    if Path(place).is_dir():
        found = (path for suffix in TAR_SUFFIXES for path in Path(place).rglob(f"*{suffix}"))
        paths = [str(path) for path in sorted(found) if os.path.isfile(path)]
    reader = Reader(clips, context, Web(context.options.proxies))
    yield from reader.read([Archive(path, frozenset(reader.clips), TARS) for path in paths])
    if not STOP.is_set():
        yield from reader.rest(clips, TARS, f"in no archive of {place}")


# --- the mirror ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MirrorOptions:
    """Address of the mirror, and the servers of the lists. reread: ignore the records."""

    base: str
    lists: official.ListServers
    reread: bool = False


@dataclass(frozen=True)
class Split:
    """The archives of one split of a dataset.

    labels: by address, the class that an archive should hold; empty if it may hold any clip.
    wanted: the requested clips in the official list, by class.
    """

    listed: OfficialList
    labels: dict[str, str]
    wanted: dict[str, set[Key]]

    def archives(self) -> list[Archive]:
        """Return the archives that should hold requested clips."""
        wanted = {**self.wanted, "": set[Key]().union(*self.wanted.values())}
        return [
            Archive(url, frozenset(wanted[label]), MIRROR)
            for url, label in self.labels.items()
            if label in wanted
        ]

    def is_in_any_order(self, ends: Sequence[ArchiveEnd]) -> bool:
        """Return whether the archives are not of the classes that they should be of.

        Either a class has no archive, or an archive has clips, but none of its class. (A clip that
        is missing in its archive proves nothing.)
        """
        if "" in self.labels.values():
            return False
        if not self.wanted.keys() <= set(self.labels.values()):
            return True
        for end in ends:
            label = self.labels.get(end.archive.url)
            if label and end.others and not end.error:
                clips = official.official_clips(self.listed.path(LISTS_FOLDER))
                labels = {_one_label(clip.label) for clip in clips if clip_key(clip) in end.others}
                if labels and label not in labels:
                    return True
        return False


def from_mirror(
    clips: Sequence[Clip], context: SourceContext, mirror: MirrorOptions
) -> Generator[Result, None, None]:
    """Yield the results of the source `cvdf`."""
    reader = Reader(clips, context, mirror.lists.web)
    with suppress(Stopped):
        for dataset in DATASETS:
            if reader.clips and not STOP.is_set():
                yield from read_archives_of(dataset, reader, mirror)
        if not STOP.is_set():
            yield from reader.rest(clips, MIRROR, "in no archive of the mirror")


def read_archives_of(
    dataset: str, reader: Reader, mirror: MirrorOptions
) -> Generator[Result, None, None]:
    """Read a dataset's archives, in the order in which they are likely to hold requested clips."""
    lists = [OfficialList(dataset, split) for split in ("train", "val", "test")]
    splits = list(filter(None, (find_split(each, reader, mirror) for each in lists)))
    archives = [archive for split in splits for archive in split.archives()]
    ends = yield from read_stage(dataset, archives, reader, mirror)
    read = {end.archive.url for end in ends}
    more = []
    for split in splits:
        if split.is_in_any_order(ends):
            reader.context.tell(
                f"cvdf         {split.listed.name}: the archives are not in the expected order:"
                " looking for clips in all of them"
            )
            split = replace(split, labels=dict.fromkeys(split.labels, ""))
            more += [each for each in split.archives() if each.url not in read]
    yield from read_stage(dataset, more, reader, mirror)
    if dataset == "400" and archives and reader.clips:
        keys = frozenset[Key]().union(*(archive.keys for archive in archives))
        spare = Archive(official.with_slash(mirror.base) + REPLACEMENTS, keys, MIRROR)
        try:
            reader.web.size(spare.url)
        except WebError as error:
            if error.for_good:  # the mirror does not have it
                return
        yield from read_stage(dataset, [spare], reader, mirror)


def read_stage(
    dataset: str, archives: Sequence[Archive], reader: Reader, mirror: MirrorOptions
) -> Generator[Result, None, list[ArchiveEnd]]:
    """Read those of the archives that can add something; return how each ended."""
    left, out = reader.clips.keys(), reader.context.options.out
    reads = [a for a in archives if a.keys & left and (mirror.reread or can_add(a, left, out))]
    if not reads:
        return []

    def size_of_archive(archive: Archive) -> int:
        with suppress(WebError):
            return reader.web.size(archive.url) or 0
        return 0

    sizes = list(run_parallel(size_of_archive, reads, HEADS_AT_ONCE))
    text = size_text(sum(sizes)) if all(sizes) else "of unknown size"
    count = plural(len(reads), "archive")
    reader.context.tell(f"cvdf         reading {count} of Kinetics-{dataset}, {text}")
    return (yield from reader.read(reads))


def find_split(listed: OfficialList, reader: Reader, mirror: MirrorOptions) -> Split | None:
    """Return the archives of a split, or None if its official list has no requested clips."""
    wanted: dict[str, set[Key]] = {}
    labels: set[str] = set()
    try:
        if not listed.path(LISTS_FOLDER).exists():
            official.fetch_lists([(listed, LISTS_FOLDER)], mirror.lists, reader.context.tell)
        for clip in official.official_clips(listed.path(LISTS_FOLDER)):
            labels.add(clip.label)
            if (key := clip_key(clip)) and key in reader.clips:
                wanted.setdefault(_one_label(clip.label), set()).add(key)
        if not wanted:
            return None
        return Split(listed, _labels_by_url(listed, sorted(labels - {""}), mirror), wanted)
    except (UserError, WebError) as error:
        reader.context.tell(f"cvdf         {listed.name} is skipped: {error}")
        # Any clip may be in this list, so that no clip is certainly unavailable.
        failure = "network", f"{listed.name}: {error}"
        reader.failures.update(dict.fromkeys(reader.clips, failure))
        return None


def _labels_by_url(
    listed: OfficialList, labels: Sequence[str], mirror: MirrorOptions
) -> dict[str, str]:
    """Return the class that each archive of a split should hold, by its address. Raises WebError.

    labels: those of the official list, sorted, because Kinetics-700-2020 numbers its archives so.
    """
    base = official.with_slash(mirror.base)
    place = f"{listed.dataset}/{listed.split}/k{listed.dataset}_{listed.split}_path.txt"
    text = mirror.lists.web.text(base + place, PATHS_LIMIT)
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith(official.CVDF):  # also in the path lists of a copy of the mirror
            line = base + line.removeprefix(official.CVDF)
        archive = Archive(urljoin(base, line), frozenset(), MIRROR)
        stem = re.sub(r"\.(tar\.gz|tgz|tar)$", "", archive.name)
        number = re.search(r"_(\d+)$", stem)
        label = ""
        if listed.dataset == "600":
            label = stem
        elif number and 1 <= int(number[1]) <= len(labels):
            label = labels[int(number[1]) - 1]
        if archive.is_remote:
            found[archive.url] = _one_label(label)
    if not found:
        raise WebError(f"the mirror lists no archive of {listed.name}", for_good=True)
    is_by_class = all(found.values()) and listed.split != "test" and listed.dataset != "400"
    return found if is_by_class else dict.fromkeys(found, "")


def _one_label(label: str) -> str:
    """Return one spelling for a class in lists and in the names of archives."""
    return re.sub(r"[\s_]+", " ", label).strip().casefold()
