"""Limit the rate of videos, pause when YouTube blocks, and confirm that videos are unavailable.

A limiter for one machine. Each attempt for a video takes a turn (`wait_turn`), and `end` is told
what the attempt came to:

    OPEN ── a block, or FAILING videos in a row ──> PAUSED, 15 minutes, then 30, then 60
     ^  \\                                              |
     |   MANY final verdicts in a row: the check video  | the pause is over
     |   is asked for; refused, too: a block            v
     └──────────── it passed ──────────────────── SCOUT: one attempt alone
                                                        └─ it did not: PAUSED, longer, or the end

A final verdict (private, removed, ...) is held back until YouTube has shown a video after it.
After MANY of them in a row the check video decides, which is known to exist. If it is refused, the
verdicts were those of a block.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from utils.parallel import TurnEnd
from utils.process import STOP, sleep
from utils.report import FAILED, Result

MANY = 10  # final verdicts in a row, after which the check video is asked for
FAILING = 10  # videos that fail in a row in the same words, after which everything waits
FAILING_ANYHOW = 20  # and in any words
NO_SECOND_TRY = 5  # of those in the same words, after which a video has one attempt
MOST_PAUSES = 4  # the pause doubles up to this many times its first length
SCOUT_SECONDS = 1.0  # at least so long between two scouts
# Failures that may be everybody's: of the network, the address, or the version of yt-dlp.
EVERYBODYS = ("no_format", "forbidden", "network", "timeout", "unknown")
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Turn:
    """The right to one attempt, given in a period between two blocks.

    is_check: for the check video, and no other.
    """

    period: int
    is_scout: bool = False
    is_check: bool = False


@dataclass(frozen=True)
class Attempted(TurnEnd):
    """What an attempt for a video says about YouTube.

    verdict: `passed` (clips came, or the video lacks them), `gone` (a final verdict), `blocked` or
    `unclear`. rest: the task that is left for another attempt; None where none is. results: of the
    clips that come to nothing if there is no other attempt, and those of a final verdict.
    """

    verdict: str
    reason: str = ""
    message: str = ""
    is_shown: bool = False  # YouTube described the video
    results: tuple[Result, ...] = ()
    rest: Any = None
    may_be_everybodys: bool = True  # a failure that other videos may meet, too
    youtube_id: str = ""


class Pace:
    """Hands out turns. Every turn is given back with `end`. All methods work from any thread."""

    def __init__(
        self,
        videos_per_hour: float = 0,
        pause_seconds: float = 900,
        stop_on_block: bool = False,
        has_check: bool = False,
    ) -> None:
        """has_check: whether a video is known to exist, which settles doubts."""
        self.interval = 3600 / videos_per_hour if videos_per_hour else 0.0
        self.first_pause = pause_seconds
        self.stop_on_block = stop_on_block
        self.has_check = has_check
        self._machines: dict[str, Pace] = {}
        self._blocks = 0
        self._problem = ""  # why the run was given up
        self._lock = threading.Lock()
        self._next_start = 0.0
        self._period = 0
        self._pause = 0.0
        self._blocked_until: float | None = None
        self._reopened_at = float("-inf")
        self._is_out = False  # a scout, or an attempt for the check video
        self._reason = ""
        self._held: list[tuple[Result, ...]] = []
        self._check_after = MANY  # verdicts that are held back
        self._failed: dict[str, str] = {}  # the videos that have failed in a row, and their words
        self._is_row = False  # the pause is for such a row
        self._was_refused = False  # the check video was: only it can end the block

    def of(self, machine: str) -> Pace:
        """The pace of one machine of a cluster: each has an address of its own."""
        if machine not in self._machines:
            pace = Pace(0, self.first_pause, self.stop_on_block, self.has_check)
            pace.interval = self.interval
            self._machines[machine] = pace
        return self._machines[machine]

    @property
    def blocks(self) -> int:
        """The pauses so far, on all machines."""
        return self._blocks + sum(pace.blocks for pace in self._machines.values())

    @property
    def problem(self) -> str:
        """Why the run was given up; empty if it was not."""
        problems = [self._problem, *(pace.problem for pace in self._machines.values())]
        return next(filter(None, problems), "")

    def take_turn(self) -> Turn | float:
        """A turn, or the seconds after which to ask again."""
        with self._lock:
            now = time.monotonic()
            if self._blocked_until is not None:
                if now < self._blocked_until or self._is_out:
                    return _POLL_SECONDS
                self._is_out = True
                return Turn(self._period, is_scout=True, is_check=self._was_refused)
            if now < self._next_start:
                return min(_POLL_SECONDS, self._next_start - now)
            # Jitter, because requests at a steady beat are what a bot looks like.
            self._next_start = now + self.interval * random.uniform(0.7, 1.3)
            is_check = self._check_is_due()
            self._is_out |= is_check
            return Turn(self._period, is_check=is_check)

    def wait_turn(self) -> Turn:
        """Wait until one more attempt may be made. Raises Stopped."""
        sleep(0)
        while isinstance(turn := self.take_turn(), float):
            sleep(turn)
        return turn

    @property
    def check_is_due(self) -> bool:
        """Whether the next turn will be one for the check video."""
        with self._lock:
            return self._check_is_due()

    def _check_is_due(self) -> bool:
        return self.has_check and len(self._held) >= self._check_after and not self._is_out

    def end(self, turn: Turn, attempt: Attempted | None) -> tuple[list[Result], Any]:
        """Give a turn back; the results that may be reported now, and the task that is left.

        attempt: None for one that was dropped. Stops the run on a block if it is to stop then, and
        where all videos fail after a pause, too.
        """
        with self._lock:
            if attempt is None:
                self._is_out &= turn.period != self._period
                return [], None
            results = self._end(turn, attempt)
            if attempt.rest is None or attempt.verdict == "blocked":
                return results, attempt.rest
            if self._alike() < NO_SECOND_TRY:
                return results, attempt.rest
            return [*results, *attempt.results], None

    def _end(self, turn: Turn, attempt: Attempted) -> list[Result]:
        is_current = turn.period == self._period
        is_known = attempt.youtube_id in self._failed
        if is_current and (turn.is_scout or turn.is_check):
            self._is_out = False
        results = self._release() if attempt.is_shown else []
        if turn.is_check and not attempt.is_shown:
            self._check_after = len(self._held) + 1
        if turn.is_check and attempt.verdict in ("blocked", "gone"):
            results = self._refuse(attempt.message)
            self._was_refused = True
            if is_current:
                self._begin_pause(turn, "rate_limited")
            return results
        if attempt.verdict == "blocked":
            if is_current:
                self._begin_pause(turn, attempt.reason)
            return results
        if attempt.verdict == "gone":
            if self.has_check:
                self._held.append(attempt.results)
            else:
                results += attempt.results
        elif attempt.verdict == "passed":
            self._failed.clear()
        elif attempt.may_be_everybodys and attempt.reason in EVERYBODYS:
            words = re.sub(r"\W|\d", "", f"{attempt.reason}{attempt.message}")[:50]
            self._failed[attempt.youtube_id] = words
        if is_current:
            self._look_at_the_row(turn, attempt, is_known)
        return results

    def _look_at_the_row(self, turn: Turn, attempt: Attempted, is_known: bool) -> None:
        """Open again after a scout that passed; pause, or give up, where all videos fail.

        A second failure of a video of the row (`is_known`) says nothing new.
        """
        if turn.is_scout and attempt.verdict in ("passed", "gone"):
            self._blocked_until = None
            self._was_refused = False
            self._reopened_at = self._next_start = time.monotonic()
        elif turn.is_scout and self._is_row and not is_known and attempt.reason in EVERYBODYS:
            self._give_up(attempt, ", the last one after a pause")
        elif turn.is_scout:
            # Scouts keep to the pace, too, whatever it is that they meet.
            self._blocked_until = time.monotonic() + max(self.interval, SCOUT_SECONDS)
        elif attempt.verdict == "unclear" and (
            self._alike() >= FAILING or len(self._failed) >= FAILING_ANYHOW
        ):
            self._begin_pause(turn, attempt.reason)
            self._is_row = True
            if self.stop_on_block:
                self._give_up(attempt)

    def _alike(self) -> int:
        """How many of the videos that failed in a row did so in the same words."""
        return max(Counter(self._failed.values()).values(), default=0)

    def _give_up(self, attempt: Attempted, more: str = "") -> None:
        self._problem = (
            f"{len(self._failed)} videos in a row failed{more} ({attempt.reason}:"
            f" {attempt.message}); check the connection, update yt-dlp, then run the same command"
        )
        STOP.set()

    def _begin_pause(self, turn: Turn, reason: str) -> None:
        """Pause. What was under way then belongs to an older period, and does not count."""
        now = time.monotonic()
        soon_again = turn.is_scout or now - self._reopened_at < self._pause
        doubled = min(2 * self._pause, MOST_PAUSES * self.first_pause)
        self._pause = doubled if soon_again else self.first_pause
        self._period += 1
        self._is_out = self._is_row = False
        self._blocked_until = now + self._pause
        self._reason = reason
        self._blocks += 1
        if self.stop_on_block:
            STOP.set()

    def _release(self) -> list[Result]:
        held, self._held, self._check_after = self._held, [], MANY
        return [result for results in held for result in results]

    def _refuse(self, message: str) -> list[Result]:
        """The verdicts that were held back, as what they are when the check video is refused."""
        why = f"not believed, because YouTube refuses the check video, too: {message}"
        return [
            replace(each, status=FAILED, reason="rate_limited", message=f"{why}; {each.message}")
            for each in self._release()
        ]

    def last(self) -> list[Result]:
        """The verdicts that are held back at the end of a list: believed if they are few."""
        with self._lock:
            here = self._release() if len(self._held) < MANY else self._refuse("no answer")
        return here + [result for pace in self._machines.values() for result in pace.last()]

    def note(self) -> str:
        """What the progress line says of a block: a countdown; empty when there is none."""
        with self._lock:
            until, reason = self._blocked_until, self._reason
        if until is None:
            return ""
        seconds = max(0, round(until - time.monotonic()))
        if not seconds:
            return f"paused ({reason}), trying one video"
        return f"paused ({reason}), next attempt in {timedelta(seconds=seconds)}"
