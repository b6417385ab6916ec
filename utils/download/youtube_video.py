"""One video: the tries, until each of its clips is on disk or written off.

Under `sources/youtube`. A try (`youtube_attempt`) is one extraction (`youtube_extract`), then the
section of each clip (`youtube_sections`), then the whole video for those that failed
(`youtube_whole`); either way `youtube_cut` makes the clip.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.clip import Clip
from utils.download.common import FetchOptions
from utils.download.pace import Pace
from utils.download.youtube_attempt import Attempt
from utils.download.youtube_commands import section_inputs
from utils.download.youtube_errors import BLOCKS, FetchError, is_for_good, survives_as_whole
from utils.download.youtube_extract import extract
from utils.download.youtube_sections import SectionLuck, are_reachable, cut_sections
from utils.download.youtube_whole import cut_whole
from utils.errors import is_disk_full
from utils.files import disk_is_full
from utils.packages import UNEXPECTED, describe
from utils.process import Stopped, sleep
from utils.report import Result

TRIES = 3  # extractions for one video in one run, blocks not counted
HOPELESS = ("timeout", "cookies", "js_runtime", "disk_full", *BLOCKS)  # no other try in this run


@dataclass(frozen=True)
class Worker:
    """What a worker fetches videos with; `turn_number`: which proxy takes a video's first try."""

    options: FetchOptions
    pace: Pace
    luck: SectionLuck
    turn_number: int = 0


@dataclass
class Account:
    """What has become of a video's clips so far, and what they have cost."""

    source: str  # in the report
    record: Callable[[Result], None] | None
    began: float = field(default_factory=time.monotonic)  # moved on by the waits for a turn
    attempts: int = 0
    data_blocks: int = 0  # blocks that were not met at the extraction
    results: dict[str, Result] = field(default_factory=dict)

    def finish(self, clip: Clip, reason: str, size: int = 0, message: str = "") -> None:
        """Write down what has become of a clip."""
        result = Result.of(
            clip,
            reason,
            self.source,
            attempts=self.attempts,
            seconds=time.monotonic() - self.began,
            bytes=size,
            message=message,
        )
        self.results[clip.name] = result
        if result.is_on_disk and self.record is not None:
            self.record(result)

    def give_up(self, clips: Sequence[Clip], reason: str, message: str) -> None:
        """Write off all of `clips` that nothing is known of yet."""
        for clip in clips:
            if clip.name not in self.results:
                self.finish(clip, reason, message=message)


def fetch_video(
    clips: Sequence[Clip],
    options: FetchOptions,
    pace: Pace | None = None,
    luck: SectionLuck | None = None,
    turn_number: int = 0,
    record: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Fetch all `clips` of one video; one result for each, fewer when the run is stopped.

    `turn_number` says which of the proxies takes the first try. `record` is given the result of a
    clip as soon as its file is in place, for its video may have more that take their time. Raises
    Stopped when nothing was finished.
    """
    worker = Worker(options, pace or Pace(), luck or SectionLuck(), turn_number)
    account = Account(options.source_name, record)
    prefix = f"{clips[0].youtube_id}-"
    try:
        with tempfile.TemporaryDirectory(
            prefix=prefix, dir=options.workspace, ignore_cleanup_errors=True
        ) as folder:
            _fetch(clips, worker, Path(folder), account)
    except OSError as error:
        full = is_disk_full(error) or disk_is_full(options.out)
        message = f"{error.strerror or error}: {error.filename or options.out}"
        account.give_up(clips, "disk_full" if full else "unknown", message)
    except UNEXPECTED as error:
        account.give_up(clips, "unknown", describe(error))
    except Stopped:
        if not account.results:
            raise
    return list(account.results.values())


def _fetch(clips: Sequence[Clip], worker: Worker, folder: Path, account: Account) -> None:
    """Try until every clip is on disk or written off; `account` says of each."""
    pace, pending = worker.pace, list(clips)
    while pending:
        before = time.monotonic()
        turn = pace.wait_turn()
        account.began += time.monotonic() - before
        account.attempts += 1
        deadline = account.began + worker.options.timeout * len(clips)
        proxy = _proxy_of(worker, account)
        attempt = Attempt(worker.options, folder, proxy, deadline, land=account.finish)
        try:
            errors = _try_once(attempt, pending, worker.luck)
        except FetchError as error:
            errors = {clip.name: error for clip in pending}
        except BaseException:
            pace.unclear(turn)  # or a scout that is gone would be waited for, for ever
            raise
        left = [clip for clip in pending if clip.name in errors]
        if block := _met_block(errors, account):
            pace.blocked(turn, block)
            account.attempts -= 1  # nobody's clip fails for a block
            pending = left
            continue
        answered = len(left) < len(pending) or any(map(is_for_good, errors.values()))
        (pace.passed if answered else pace.unclear)(turn)
        pending = _worth_a_try(left, errors, account)
        if pending:
            # The wait grows with the tries, and is never the same for two workers.
            wait = min(2.0**account.attempts, max(0.0, deadline - time.monotonic()))
            sleep(wait * random.uniform(0.5, 1))


def _proxy_of(worker: Worker, account: Account) -> str | None:
    proxies = worker.options.proxies
    turn = worker.turn_number + account.attempts - 1
    return proxies[turn % len(proxies)] if proxies else None


def _met_block(errors: Mapping[str, FetchError], account: Account) -> str:
    """The reason of a block that is to be waited for; empty if there is none.

    Blocks of the site never end. Blocks on the data of one video do, after some pauses, or
    that one video would hold up all others for ever.
    """
    block = next((error for error in errors.values() if error.reason in BLOCKS), None)
    if block is None:
        return ""
    account.data_blocks += not block.at_extraction
    return block.reason if account.data_blocks <= TRIES else ""


def _worth_a_try(
    clips: Sequence[Clip], errors: Mapping[str, FetchError], account: Account
) -> list[Clip]:
    """The clips that another try may bring; the others are written off."""
    pending = []
    for clip in clips:
        error = errors[clip.name]
        if is_for_good(error) or error.reason in HOPELESS or account.attempts >= TRIES:
            account.finish(clip, error.reason, message=error.message)
        else:
            pending.append(clip)
    return pending


def _try_once(attempt: Attempt, clips: Sequence[Clip], luck: SectionLuck) -> dict[str, FetchError]:
    """One extraction, and from it sections or the whole video; the errors of what did not come.

    Raises FetchError where nothing came.
    """
    found = extract(attempt, clips[0].youtube_id)
    inputs = section_inputs(found.info, attempt.options)
    errors: dict[str, FetchError] = {}
    left = list(clips)
    if are_reachable(inputs, attempt.proxy) and not luck.whole_first():
        errors = cut_sections(attempt, clips, inputs, found.info.get("duration"), luck)
        left = [clip for clip in clips if clip.name in errors]
        if not any(map(survives_as_whole, errors.values())):
            return errors
    try:
        whole_errors = cut_whole(attempt, left, found.file)
    except FetchError as error:
        # What a section told for good (past_end) stays told.
        lasting = {name: each for name, each in errors.items() if is_for_good(each)}
        return {clip.name: error for clip in left} | lasting
    if errors and len(whole_errors) < len(left):
        luck.only_whole_came()
    return whole_errors
