"""One archive of the mirror, read as a stream: the wanted clips in it go into the temporary folder.

Under `sources/archives`, whose pipeline begins here.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from utils.clip import Clip
from utils.download.common import FetchOptions
from utils.download.wanted import NAME, Archive, Ending, Key, Wanted, member_key, oddity
from utils.errors import UserError, is_disk_full
from utils.process import STOP, Stopped, sleep
from utils.report import Result
from utils.tar import BadTar, Member, TarStream
from utils.web import Web, WebError, waits

Item = TypeVar("Item")

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Copied:
    """A clip as it came out of its archive, in the temporary folder."""

    clip: Clip
    key: Key
    path: Path
    archive: Ending


@dataclass(frozen=True)
class Checked:
    """The same, and what its check said."""

    copied: Copied
    result: Result


Done = Checked | Ending | Result | BaseException  # what comes out of the pipeline


@dataclass(frozen=True)
class Line:
    """The pipeline: readers put into `files`, checkers from there into `done`; both are bounded."""

    wanted: Wanted
    options: FetchOptions
    web: Web
    files: queue.Queue[Copied]
    done: queue.Queue[Done]
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def is_over(self) -> bool:
        return self.over.is_set() or STOP.is_set()

    def put(self, target: queue.Queue[Item], item: Item) -> None:
        """Pass on, once there is room. Raises Stopped."""
        while not self.is_over:
            try:
                return target.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
        raise Stopped


@dataclass
class _Place:
    """How far the reading of an archive came."""

    start: int = 0  # where a plain tar can be taken up again
    furthest: int = 0
    etag: str = ""
    came_whole: bool = False  # the server sent all that it has


def read_archive(archive: Archive, line: Line) -> Ending:
    """Read an archive to its end, over as many connections as it takes.

    Raises Stopped, and UserError where the temporary folder cannot be written.
    """
    ending, place, tries = Ending(archive), _Place(), waits()
    while True:
        before = place.furthest
        try:
            _read_on(ending, place, line)
            return ending
        except BadTar as error:
            if not error.ends_early:
                ending.error = str(error)
                return ending
            failure = WebError(str(error), for_good=place.came_whole)
        except WebError as error:
            failure = error
        if place.furthest > before:
            tries = waits()
        wait = next(tries)
        if failure.for_good or wait is None:
            ending.error = failure.message
            return ending
        sleep(wait)


def _read_on(ending: Ending, place: _Place, line: Line) -> None:
    """Read over one connection. Raises WebError, BadTar, Stopped."""
    with line.web.open(ending.archive.url, place.start, place.etag) as download:
        place.etag = download.etag
        place.came_whole = download.length is not None
        if not download.start:
            ending.odd.clear()
        tar = TarStream(download.read, download.start)
        try:
            for member in tar.members():
                if line.is_over:
                    raise Stopped
                _look_at(member, tar, ending, line)
        finally:
            # A gzipped archive starts again, and its clips that are there are passed over.
            place.start = 0 if tar.is_gzip else tar.whole
            place.furthest = max(place.furthest, tar.whole)


def _look_at(member: Member, tar: TarStream, ending: Ending, line: Line) -> None:
    if member.is_folder:
        return
    if what := oddity(member):
        ending.odd[what] += 1
        return
    key = member_key(member.name)
    if key is None:
        return
    ending.held.add(key)
    clip = line.wanted.claim(key) if key in ending.archive.keys else None
    if clip is not None:
        path = line.options.workspace / f"{clip.name}.mp4"
        _copy(clip, key, path, tar, line)
        ending.taken += 1
        line.put(line.files, Copied(clip, key, path, ending))


def _copy(clip: Clip, key: Key, path: Path, tar: TarStream, line: Line) -> None:
    """Write a clip out; it is given back where that fails. Raises as `read_archive` says."""
    try:
        with path.open("wb") as file:
            tar.copy(file)
    except (BadTar, WebError, OSError) as error:
        path.unlink(missing_ok=True)
        reason = "network"
        if isinstance(error, OSError):
            reason = "disk_full" if is_disk_full(error) else "unknown"
        result = Result.of(clip, reason, NAME, attempts=1, message=str(error))
        line.wanted.give_back(key, result)
        if reason == "disk_full":
            line.put(line.done, result)
            raise Stopped from error
        if reason == "unknown":
            raise UserError(f"cannot write into {path.parent}: {error}") from error
        raise
