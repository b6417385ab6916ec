"""Archives of the mirror as a pipeline: readers, checkers, and the caller, who publishes.

Under `sources/mirror`, which says what is in which archive; `archive_reading` reads one. Between
archive and folder there are 2 * LARGEST_BATCH + 4 * num_jobs clips and no more: both queues are
bounded.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from utils.download.archive_memory import remember
from utils.download.archive_reading import POLL_SECONDS, Checked, Copied, Done, Line, read_archive
from utils.download.common import FetchOptions
from utils.download.taking import Taken, encode_anew, examine, result_of
from utils.download.wanted import NAME, Archive, Ending, MirrorOptions, Wanted
from utils.errors import is_disk_full
from utils.files import publish_many, start_writing
from utils.process import STOP, Stopped
from utils.report import FAILED, Result

LARGEST_BATCH = 64  # clips that are published at once
STOP_SECONDS = 2.0  # what a thread that waits for a server gets before it is left behind


def read_archives(
    archives: Sequence[Archive], wanted: Wanted, options: FetchOptions, mirror: MirrorOptions
) -> Generator[Result | Ending, None, None]:
    """Results and endings as they come. Raises what a thread raised.

    Clips are published in batches: as many as were found good while the last batch was written to
    the disk. One by one, waiting for the disk takes longer than all the rest.
    """
    jobs = mirror.num_jobs
    line = Line(wanted, options, mirror.web, queue.Queue(2 * jobs), queue.Queue(LARGEST_BATCH))
    todo: queue.SimpleQueue[Archive] = queue.SimpleQueue()
    for archive in archives:
        todo.put(archive)
    # Daemons: one that waits for a silent server must not hold up the end of a stopped run.
    readers = [_thread(_read, todo, line) for _ in range(min(jobs, len(archives)))]
    checkers = [_thread(_check, line) for _ in range(jobs)]
    reading: list[Ending] = []  # read to their ends, with clips still on their way
    left = len(archives)
    try:
        while left and not STOP.is_set():
            batch = _next_batch(line)
            is_full = False
            for result in _publish(batch, line):
                is_full |= result.reason == "disk_full"
                yield result
            if is_full:  # its reader has ended without a word, and STOP is for the caller to set
                break
            reading += [item for item in batch if isinstance(item, Ending)]
            for ending in [each for each in reading if each.settled == each.taken]:
                reading.remove(ending)
                left -= 1
                _remember(ending, options)
                yield ending
    finally:
        line.over.set()
        rest = _end(line, checkers, readers)
    if options.encode.changes_clips:  # made while the run was being stopped
        yield from (each.result for each in rest if each.result.is_on_disk)


def _thread(work: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, daemon=True)
    thread.start()
    return thread


def _read(todo: queue.SimpleQueue[Archive], line: Line) -> None:
    try:
        while not line.is_over:
            line.put(line.done, read_archive(todo.get_nowait(), line))
    except (queue.Empty, Stopped):
        pass
    except BaseException as error:
        with suppress(Stopped):
            line.put(line.done, error)


def _check(line: Line) -> None:
    try:
        while not line.is_over:
            with suppress(queue.Empty):
                copied = line.files.get(timeout=POLL_SECONDS)
                line.done.put(Checked(copied, _check_copy(copied, line.options)))
    except Stopped:
        pass
    except BaseException as error:
        line.done.put(error)


def _check_copy(copied: Copied, options: FetchOptions) -> Result:
    def take() -> Taken:
        taken = examine(copied.clip, copied.path, options)
        if options.encode.changes_clips:
            return encode_anew(copied.clip, copied.path, taken, options)
        start_writing(copied.path)
        return taken

    return result_of(copied.clip, NAME, take, options)


def _next_batch(line: Line) -> list[Done]:
    """What has come out of the pipeline; nothing if that takes long."""
    batch: list[Done] = []
    with suppress(queue.Empty):
        batch.append(line.done.get(timeout=POLL_SECONDS))
        while len(batch) < LARGEST_BATCH:
            batch.append(line.done.get_nowait())
    return batch


def _publish(batch: Sequence[Done], line: Line) -> Iterator[Result]:
    """Give the good clips of a batch their names, and say what has become of each that counts.

    Raises what a thread raised, after that.
    """
    checked = [item for item in batch if isinstance(item, Checked)]
    if not line.options.encode.changes_clips:
        checked = _give_names(checked, line.options)
    for each in checked:
        copied, result = each.copied, each.result
        copied.path.unlink(missing_ok=True)
        copied.archive.settle(copied.key, result)
        if result.is_on_disk:
            line.wanted.done(copied.key)
        else:
            line.wanted.give_back(copied.key, result)
    results = [each.result for each in checked] + [i for i in batch if isinstance(i, Result)]
    yield from (each for each in results if each.is_on_disk or each.reason == "disk_full")
    for item in batch:
        if isinstance(item, BaseException):
            raise item


def _give_names(checked: Sequence[Checked], options: FetchOptions) -> list[Checked]:
    good = [each.copied.path for each in checked if each.result.is_on_disk]
    failed = publish_many([(path, options.out / path.name) for path in good]) if good else {}
    return [
        replace(each, result=failed_result(each.result, failed[each.copied.path]))
        if each.copied.path in failed
        else each
        for each in checked
    ]


def failed_result(result: Result, error: OSError) -> Result:
    """The result of a clip that was good, and could not be published."""
    reason = "disk_full" if is_disk_full(error) else "unknown"
    message = f"{error.strerror}: {error.filename or ''}"
    return replace(result, status=FAILED, reason=reason, bytes=0, message=message)


def _remember(ending: Ending, options: FetchOptions) -> None:
    if not ending.error and not ending.is_unsure:
        with suppress(OSError):  # it only saves time
            remember(ending.archive.url, ending.held - ending.bad, options)


def _end(
    line: Line, checkers: Sequence[threading.Thread], readers: Sequence[threading.Thread]
) -> list[Checked]:
    """Wait for the threads, for some time; what checkers were still at."""
    rest = []
    while any(thread.is_alive() for thread in checkers) or not line.done.empty():
        rest += _next_batch(line)
    for thread in readers:
        thread.join(STOP_SECONDS / len(readers))
    return [item for item in rest if isinstance(item, Checked)]
