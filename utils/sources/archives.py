"""Archives of the mirror, read as streams: their members become clips while they come in.

Under `sources/mirror`, which says what is in which archive.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from utils.clip import Clip
from utils.errors import UserError
from utils.files import is_disk_full, publish_many, start_writing
from utils.process import STOP, Stopped, sleep
from utils.report import FAILED, Result
from utils.sources.archive_memory import remember
from utils.sources.common import FetchOptions
from utils.sources.taking import Taken, encode_anew, examine, result_of
from utils.sources.wanted import (
    NAME,
    Archive,
    Ending,
    Key,
    MirrorOptions,
    Wanted,
    member_key,
    oddity,
)
from utils.tar import BadTar, Member, TarStream
from utils.web import WebError, waits

LARGEST_BATCH = 64  # clips that are published at once
HEADS_AT_ONCE = 8
STOP_SECONDS = 2.0  # what a thread that waits for a server gets before it is left behind


@dataclass(frozen=True)
class _Good:
    """A clip that was found good, and waits to be published."""

    result: Result
    key: Key
    path: Path
    done: Future[bool]


class ArchiveReaders:
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

    def __init__(self, archive: Archive, readers: ArchiveReaders) -> None:
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


def failed_result(result: Result, reason: str, error: OSError) -> Result:
    """The result of a clip that was good, and could not be published."""
    message = f"{error.strerror}: {error.filename or ''}"
    return replace(result, status=FAILED, reason=reason, bytes=0, message=message)
