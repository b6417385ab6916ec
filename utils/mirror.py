"""The source `cvdf`: clips from the archives of the Common Visual Data Foundation, as they stream.

Between the lists and the disk. The official lists say which archives can hold a wanted clip; each
is read from the socket, and its wanted clips go through `foreign` into the flat folder. No archive
is ever stored.
"""

from __future__ import annotations

import hashlib
import queue
import re
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from utils.cli import UserError
from utils.clips import Clip, list_rows, parse_clip_name
from utils.files import is_disk_full, publish, publish_many, start_writing
from utils.foreign import Taken, encode_anew, examine, result_of
from utils.jobs import plural, run_parallel
from utils.official import (
    CVDF,
    LISTS_FOLDER,
    ListServers,
    OfficialList,
    fetch_lists,
    labels_of,
    with_slash,
)
from utils.process import STOP, Stopped, sleep
from utils.report import FAILED, Result
from utils.tar import BadTar, Member, TarStream
from utils.web import Web, WebError, waits
from utils.youtube import FetchOptions

NAME = "cvdf"  # the source, in the report
# In this order: K700-2020 and most of K600 have an archive a class; K400 mixes, and is the dearest.
DATASETS = ("700_2020", "600", "400")
SPLITS = ("train", "val", "test")
PATH_LISTS = {"700_2020": "k700_2020", "600": "k600", "400": "k400"}
REPLACEMENTS = "400/replacement_for_corrupted_k400.tgz"
LARGEST_CLIP = 500 * 2**20  # bytes
MEMORY_FOLDER = ".cvdf"
LARGEST_BATCH = 64  # clips that are published at once
HEADS_AT_ONCE = 8
STOP_SECONDS = 2.0  # what a thread that waits for a server gets before it is left behind

Key = tuple[str, int, int]  # youtube_id, start, end
Tell = Callable[[str], None]


@dataclass(frozen=True)
class MirrorOptions:
    """Where the mirror is, and how to ask it."""

    web: Web
    base: str = CVDF
    lists: ListServers = field(default_factory=lambda: ListServers(Web()))
    lists_folder: Path = LISTS_FOLDER
    num_jobs: int = 1
    forget: bool = False  # read archives again that have nothing new


@dataclass(frozen=True)
class Archive:
    """One archive, and the wanted clips that it may hold."""

    url: str
    keys: frozenset[Key]

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])


@dataclass
class Ending:
    """How the reading of an archive went."""

    archive: Archive
    error: str = ""  # why it broke off; empty when it ended whole
    taken: int = 0
    odd: Counter[str] = field(default_factory=Counter)  # members that no mirror should hold


class Wanted:
    """The clips that are still wanted. A reader claims one before it takes it."""

    def __init__(self, clips: Iterable[Clip]) -> None:
        self._lock = threading.Lock()
        self._clips = {key: clip for clip in clips if (key := key_of(clip))}
        self._claimed: set[Key] = set()
        self.problems: dict[str, Result] = {}  # by the clip's name: what was wrong with its copy

    def claim(self, key: Key) -> Clip | None:
        with self._lock:
            if key in self._claimed or key not in self._clips:
                return None
            self._claimed.add(key)
            return self._clips[key]

    def give_back(self, key: Key, problem: Result) -> None:
        """Another archive may have a better copy."""
        with self._lock:
            self._claimed.discard(key)
            self.problems[problem.clip] = problem

    def done(self, key: Key) -> None:
        with self._lock:
            self._clips.pop(key, None)

    @property
    def keys(self) -> frozenset[Key]:
        with self._lock:
            return frozenset(self._clips)


def key_of(clip: Clip) -> Key | None:
    """How an archive names a clip; None for one that no archive holds."""
    if clip.is_ava or not (clip.time_start.is_integer() and clip.time_end.is_integer()):
        return None
    return clip.youtube_id, int(clip.time_start), int(clip.time_end)


# ---- which archives -----------------------------------------------------------------------------


def fetch_from_mirror(
    clips: Sequence[Clip], options: FetchOptions, mirror: MirrorOptions, tell: Tell
) -> Generator[Result, None, None]:
    """The clips that the mirror holds, as they land; then a result for each that it does not."""
    wanted = Wanted(clips)
    failed: dict[Key, str] = {}  # clips that an archive may hold which could not be read
    for dataset in DATASETS:
        if not wanted.keys or STOP.is_set():
            break
        archives = [
            archive
            for split in SPLITS
            for archive in find_archives(OfficialList(dataset, split), wanted, mirror, failed, tell)
        ]
        yield from read_stage(dataset, archives, wanted, options, mirror, failed, tell)
        if dataset == "400":
            spares = replacements(archives, wanted, mirror)
            yield from read_stage(dataset, spares, wanted, options, mirror, failed, tell)
    for clip in clips:
        if STOP.is_set():
            return
        key = key_of(clip)
        if key is None or key in wanted.keys:
            yield answer(clip, wanted.problems.get(clip.name), failed.get(key) if key else None)


def replacements(
    archives: Sequence[Archive], wanted: Wanted, mirror: MirrorOptions
) -> list[Archive]:
    """The archive of clips that are corrupt in K400's own, if there is one and it is of use."""
    listed = frozenset[Key]().union(*(archive.keys for archive in archives))
    keys = wanted.keys & listed
    spare = Archive(with_slash(mirror.base) + REPLACEMENTS, keys)
    try:
        if keys:
            mirror.web.size(spare.url)
    except WebError as error:
        return [] if error.for_good else [spare]
    return [spare]


def answer(clip: Clip, problem: Result | None, failure: str | None) -> Result:
    """Why the mirror did not give a clip."""
    if failure is not None:
        return Result.of(clip, "network", NAME, attempts=1, message=failure)
    if problem is not None:
        return problem
    return Result.of(clip, "unavailable", NAME, attempts=1, message="in no archive of the mirror")


def find_archives(
    listed: OfficialList, wanted: Wanted, mirror: MirrorOptions, failed: dict[Key, str], tell: Tell
) -> list[Archive]:
    """The archives of a dataset's split that can hold wanted clips, by its official list."""
    try:
        by_label = listed_clips(listed, wanted.keys, mirror, tell)
        if not by_label:
            return []
        urls = read_paths(listed, mirror)
    except (UserError, WebError) as error:
        tell(f"cvdf         {listed.name} is left out: {error}")
        # Clips of lists that are there get a surer answer.
        failed.update(dict.fromkeys(wanted.keys, f"{listed.name}: {error}"))
        return []
    classes = class_archives(listed, urls, mirror.lists_folder)
    archives = []
    if classes is None:
        everything = frozenset().union(*by_label.values())
        archives = [Archive(url, everything) for url in urls]
    else:
        for label, keys in by_label.items():
            archives += [
                Archive(url, frozenset(keys)) for url in classes.get(same_label(label), [])
            ]
    return archives


def listed_clips(
    listed: OfficialList, wanted: frozenset[Key], mirror: MirrorOptions, tell: Tell
) -> dict[str, set[Key]]:
    """The wanted clips in an official list, by label. Fetches the list. Raises UserError."""
    path = listed.path(mirror.lists_folder)
    if not path.exists():
        fetch_lists([(listed, mirror.lists_folder)], mirror.lists, tell)
    ids = {key[0] for key in wanted}
    by_label: dict[str, set[Key]] = {}
    for youtube_id, start, end, label in list_rows(path):
        if youtube_id in ids:
            with suppress(ValueError):
                key = (youtube_id, int(float(start)), int(float(end)))
                if key in wanted:
                    by_label.setdefault(label, set()).add(key)
    return by_label


def read_paths(listed: OfficialList, mirror: MirrorOptions) -> list[str]:
    """The addresses of a split's archives. Raises WebError."""
    base = with_slash(mirror.base)
    prefix = f"{listed.dataset}/{listed.split}/"
    text = mirror.web.text(f"{base}{prefix}{PATH_LISTS[listed.dataset]}_{listed.split}_path.txt")
    urls = []
    for line in filter(None, map(str.strip, text.splitlines())):
        # A copy of the mirror has copies of the lists, too, which name the original.
        url = urljoin(base, base + line.removeprefix(CVDF) if line.startswith(CVDF) else line)
        if urlsplit(url).scheme in ("http", "https"):
            urls.append(url)
    if not urls:
        raise WebError(f"the mirror lists no archive of {listed.name}", for_good=True)
    return list(dict.fromkeys(urls))


def class_archives(
    listed: OfficialList, urls: Sequence[str], folder: Path
) -> dict[str, list[str]] | None:
    """The archives by class, where there is one a class; None where any may hold any clip."""
    if listed.split == "test" or listed.dataset == "400":
        return None
    names = [unquote(urlsplit(url).path.rsplit("/", 1)[-1]) for url in urls]
    classes: dict[str, list[str]] = {}
    if listed.dataset == "600":
        for url, name in zip(urls, names, strict=True):
            classes.setdefault(same_label(re.sub(r"\.(tar\.gz|tgz|tar)$", "", name)), []).append(
                url
            )
        return classes
    labels = labels_of(listed, folder)
    for url, name in zip(urls, names, strict=True):
        number = re.search(r"_(\d+)\.(?:tar\.gz|tgz|tar)$", name)
        if number is None or not 1 <= int(number[1]) <= len(labels):
            return None  # not the layout that is known: look into all of them
        classes.setdefault(same_label(labels[int(number[1]) - 1]), []).append(url)
    return classes


def same_label(label: str) -> str:
    """One spelling for a class in lists and in the names of archives."""
    return re.sub(r"[\s_]+", " ", label).strip().casefold()


# ---- what an archive is known to hold -----------------------------------------------------------


def memory_path(url: str, out: Path) -> Path:
    return out / MEMORY_FOLDER / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.txt"


def remember(url: str, names: Iterable[str], options: FetchOptions) -> None:
    """Write down that an archive was read to its end, and the good clips that it holds.

    A line for its address, then one a clip. Raises OSError.
    """
    path = memory_path(url, options.out)
    path.parent.mkdir(exist_ok=True)
    part = options.workspace / path.name
    part.write_text("\n".join([url, *sorted(names)]) + "\n", encoding="utf-8")
    publish(part, path)


def can_add(archive: Archive, wanted: frozenset[Key], out: Path) -> bool:
    """Whether an archive may hold a wanted clip, by what is known of it."""
    keys = archive.keys & wanted
    try:
        lines = memory_path(archive.url, out).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return bool(keys)
    held = {parse_clip_name(name) for name in lines[1:]}
    return not keys.isdisjoint(held)


# ---- reading archives ---------------------------------------------------------------------------


def read_stage(
    dataset: str,
    archives: Sequence[Archive],
    wanted: Wanted,
    options: FetchOptions,
    mirror: MirrorOptions,
    failed: dict[Key, str],
    tell: Tell,
) -> Generator[Result, None, None]:
    """Read the archives that can add something; say how many they are, how large, how it went."""
    left = wanted.keys
    reads = [
        a for a in archives if a.keys & left and (mirror.forget or can_add(a, left, options.out))
    ]
    if not reads:
        return
    tell(f"cvdf         {size_line(dataset, reads, mirror)}")
    for event in _ArchiveReaders(reads, wanted, options, mirror).events():
        if isinstance(event, Result):
            yield event
            continue
        if event.error:
            tell(f"network: {event.archive.name}: {event.error}")
            failed.update(dict.fromkeys(event.archive.keys, f"{event.archive.name}: {event.error}"))
        if event.odd:
            odd = ", ".join(f"{n:,} {what}" for what, n in event.odd.most_common())
            tell(f"skipped in {event.archive.name}: {odd}")


def size_line(dataset: str, archives: Sequence[Archive], mirror: MirrorOptions) -> str:
    """How many archives are read, and how many GB, as far as their server says."""

    def head(archive: Archive) -> int:
        try:
            return mirror.web.size(archive.url) or 0
        except WebError:
            return 0

    known = [size for size in run_parallel(head, archives, HEADS_AT_ONCE) if size]
    unsaid = len(archives) - len(known)
    size = sum(known)
    total = f"{size / 1e9:,.1f} GB" if size > 1e8 else f"{size / 1e6:,.1f} MB"
    if not known:
        total = "of unknown size"
    more = f" and {unsaid:,} of unknown size" if known and unsaid else ""
    return f"reading {plural(len(archives), 'archive')} of Kinetics-{dataset}, {total}{more}"


@dataclass(frozen=True)
class _Good:
    """A clip that was found good, and waits to be published."""

    result: Result
    key: Key
    path: Path
    done: Future[bool]


class _ArchiveReaders:
    """Threads that read archives, threads that check what they take out, and one that publishes.

    Clips are published in batches: as many as were found good while the last batch was written to
    the disk. One by one, waiting for the disk takes longer than all the rest.
    """

    def __init__(
        self,
        archives: Sequence[Archive],
        wanted: Wanted,
        options: FetchOptions,
        mirror: MirrorOptions,
    ) -> None:
        self.wanted, self.options, self.mirror = wanted, options, mirror
        self._archives = iter(archives)
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[Result | Ending | BaseException | None] = (
            queue.SimpleQueue()
        )
        self._good: queue.SimpleQueue[_Good | None] = queue.SimpleQueue()
        # Clips between archive and folder: so many, and no more, wait in the temporary folder.
        self._room = threading.Semaphore(2 * LARGEST_BATCH + 4 * mirror.num_jobs)
        self._checkers = ThreadPoolExecutor(mirror.num_jobs)
        self._publisher = threading.Thread(target=self._publish, daemon=True)
        self._over = False
        # Daemons: one that waits for a silent server must not hold up the end of a stopped run.
        count = min(mirror.num_jobs, len(archives))
        self._readers = [threading.Thread(target=self._read, daemon=True) for _ in range(count)]

    def events(self) -> Iterator[Result | Ending]:
        """Results and endings as they come. Raises what a thread raised."""
        for thread in (self._publisher, *self._readers):
            thread.start()
        running = len(self._readers)
        try:
            while running and not STOP.is_set():
                with suppress(queue.Empty):
                    event = self._events.get(timeout=0.1)
                    if event is None:
                        running -= 1
                    elif isinstance(event, BaseException):
                        raise event
                    else:
                        yield event
        finally:
            self._end_threads()
        while not self._events.empty():  # published while the run was being stopped
            event = self._events.get()
            if isinstance(event, Result) and event.is_on_disk:
                yield event

    def _end_threads(self) -> None:
        self._over = True
        self._checkers.shutdown(wait=True, cancel_futures=True)
        self._good.put(None)
        self._publisher.join()
        for thread in self._readers:
            thread.join(STOP_SECONDS / len(self._readers))

    def _read(self) -> None:
        try:
            while not self._is_over:
                with self._lock:
                    archive = next(self._archives, None)
                if archive is None:
                    break
                self._events.put(_Reading(archive, self).run())
        except Stopped:
            pass
        except BaseException as error:
            if not self._is_over:
                self._events.put(error)
        finally:
            self._events.put(None)

    @property
    def _is_over(self) -> bool:
        return self._over or STOP.is_set()

    def finish(self, clip: Clip, key: Key, path: Path) -> Future[bool]:
        """Have a clip checked and published; whether it was good."""
        done: Future[bool] = Future()
        checking = self._checkers.submit(self._check, clip, key, path, done)
        checking.add_done_callback(lambda each: self._settle(each, done))
        return done

    def _settle(self, checking: Future[None], done: Future[bool]) -> None:
        """Pass on to `done` that a check was called off, or what it raised."""
        if checking.cancelled():
            done.set_exception(Stopped())
        elif error := checking.exception():
            done.set_exception(error)

    def _check(self, clip: Clip, key: Key, path: Path, done: Future[bool]) -> None:
        def take() -> Taken:
            taken = examine(clip, path, self.options)
            if self.options.encode.changes_clips:
                return encode_anew(clip, path, taken, self.options)
            start_writing(path)
            return taken

        result = result_of(clip, NAME, take, self.options)
        good = _Good(result, key, path, done)
        if result.is_on_disk and not self.options.encode.changes_clips:
            self._good.put(good)
        else:
            self._end(good)

    def _publish(self) -> None:
        try:
            while (first := self._good.get()) is not None:
                batch = [first]
                while len(batch) < LARGEST_BATCH and not self._good.empty():
                    if (more := self._good.get()) is None:
                        self._good.put(None)
                        break
                    batch.append(more)
                self._publish_batch(batch)
        except BaseException as error:
            self._events.put(error)

    def _publish_batch(self, batch: list[_Good]) -> None:
        if self._is_over:
            for good in batch:
                good.done.set_exception(Stopped())
            return
        try:
            publish_many([(g.path, self.options.out / g.path.name) for g in batch])
        except OSError as error:
            reason = "disk_full" if is_disk_full(error) else "unknown"
            batch = [replace(g, result=failed_result(g.result, reason, error)) for g in batch]
        for good in batch:
            self._end(good)

    def _end(self, good: _Good) -> None:
        """Say what has become of a clip, and make room for another."""
        result = good.result
        good.path.unlink(missing_ok=True)
        if result.is_on_disk:
            self.wanted.done(good.key)
        else:
            self.wanted.give_back(good.key, result)
        if result.is_on_disk or result.reason == "disk_full":
            self._events.put(result)
        self._room.release()
        good.done.set_result(result.is_on_disk)

    def wait_for_room(self) -> None:
        while not self._room.acquire(timeout=0.1):
            if self._is_over:
                raise Stopped

    def drop(self, clip: Clip, key: Key, error: BaseException) -> None:
        """Give up a clip that did not come whole out of its archive. Raises Stopped, UserError."""
        self._room.release()
        reason = "network"
        if isinstance(error, OSError):
            reason = "disk_full" if is_disk_full(error) else "unknown"
        result = Result.of(clip, reason, NAME, attempts=1, message=str(error))
        self.wanted.give_back(key, result)
        if reason == "disk_full":
            self._events.put(result)
            raise Stopped from error
        if reason == "unknown":
            folder = self.options.workspace
            raise UserError(f"cannot write into {folder}: {error}") from error

    def check(self) -> None:
        if self._is_over:
            raise Stopped


class _Reading:
    """One archive, read to its end over as many connections as it takes."""

    def __init__(self, archive: Archive, readers: _ArchiveReaders) -> None:
        self.archive, self.readers = archive, readers
        self.ending = Ending(archive)
        self.held: set[str] = set()
        self.finishing: dict[str, Future[bool]] = {}
        self.place = 0  # where a plain tar can be taken up again
        self.furthest = 0
        self.etag = ""
        self.came_whole = False  # the server sent all that it has

    def run(self) -> Ending:
        tries = waits()
        while True:
            before = self.furthest
            try:
                self._read()
                break
            except BadTar as error:
                if not error.ends_early:
                    self.ending.error = str(error)
                    break
                failure = WebError(str(error), for_good=self.came_whole)
            except WebError as error:
                failure = error
            if self.furthest > before:
                tries = waits()
            wait = next(tries)
            if failure.for_good or wait is None:
                self.ending.error = failure.message
                break
            sleep(wait)
        good = {name for name, done in self.finishing.items() if done.result()}
        self.ending.taken = len(good)
        if not self.ending.error:
            self.held -= self.finishing.keys() - good
            with suppress(OSError):  # it only saves time
                remember(self.archive.url, self.held, self.readers.options)
        return self.ending

    def _read(self) -> None:
        with self.readers.mirror.web.open(self.archive.url, self.place, self.etag) as download:
            self.etag = download.etag
            self.came_whole = download.length is not None
            if not download.start:
                self.ending.odd.clear()
            tar = TarStream(download.read, download.start)
            try:
                for member in tar.members():
                    self.readers.check()
                    self._look_at(member, tar)
            finally:
                # A gzipped archive starts again, and its clips that are there are passed over.
                self.place = 0 if tar.is_gzip else tar.whole
                self.furthest = max(self.furthest, tar.whole)

    def _look_at(self, member: Member, tar: TarStream) -> None:
        if member.is_folder:
            return
        if what := oddity(member):
            self.ending.odd[what] += 1
            return
        key = member_key(member.name)
        if key is None:
            return
        name = "{}_{:06d}_{:06d}".format(*key)
        self.held.add(name)
        clip = self.readers.wanted.claim(key) if key in self.archive.keys else None
        if clip is not None:
            self.finishing[name] = self._take(clip, key, tar)

    def _take(self, clip: Clip, key: Key, tar: TarStream) -> Future[bool]:
        """Write the clip into the temporary folder, and have it finished."""
        readers = self.readers
        readers.wait_for_room()
        path = readers.options.workspace / f"{clip.name}.mp4"
        try:
            with path.open("wb") as file:
                tar.copy(file)
        except BaseException as error:
            path.unlink(missing_ok=True)
            readers.drop(clip, key, error)
            raise
        return readers.finish(clip, key, path)


def member_key(name: str) -> Key | None:
    """The clip that a member is, by its base name; None if it is none."""
    base = name.rsplit("/", 1)[-1]
    if not base.endswith(".mp4"):
        return None
    found = parse_clip_name(base[:-4])
    return None if found is None or found[2] is None else (found[0], found[1], found[2])


def failed_result(result: Result, reason: str, error: OSError) -> Result:
    """The result of a clip that was good, and could not be published."""
    message = f"{error.strerror}: {error.filename or ''}"
    return replace(result, status=FAILED, reason=reason, bytes=0, message=message)


def oddity(member: Member) -> str:
    """Why a member is passed over whatever it is called; empty for a file like any other."""
    if not member.is_file:
        return "not a regular file"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "with an unsafe name"
    if member.name.rsplit("/", 1)[-1].startswith("._"):
        return "with a name that begins with ._"
    if member_key(member.name) is None:
        return "not a clip"
    if member.size > LARGEST_CLIP:
        return f"larger than {LARGEST_CLIP // 2**20} MB"
    return ""
