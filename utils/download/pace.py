"""Limit the rate of videos, pause when YouTube blocks, and confirm that videos are unavailable.

Each attempt for a video needs a turn (`take_turn`) and reports its outcome (`end`):

    OPEN ── a block, or FAILING failures in a row ──> PAUSED for 15, then 30, then 60 minutes
     ^                                                   |
     └── it passed ── SCOUT: one attempt at a time <─────┘
                        └── a block: PAUSED for longer; a failure like those before: the run ends

Final verdicts (private, removed, ...) are held back until YouTube shows any video. After MANY of
them in a row the check video, which is known to exist, is requested. If YouTube refuses it as well,
this is a block, and the verdicts become failures.
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

from utils.clip import FAILED, Result
from utils.parallel import TurnEnd
from utils.process import STOP

MANY = 10  # final verdicts in a row before the check video is requested
FAILING = 10  # failures in a row with the same message before a pause
FAILING_ANYHOW = 20  # the same with any messages
NO_SECOND_TRY = 5  # failures in a row with the same message before videos get one attempt only
MOST_PAUSES = 4  # the longest pause is this many times the first one
SCOUT_SECONDS = 1.0  # shortest time between two scouts
# Failures that can concern every video: the network, the address, or the version of yt-dlp.
EVERYBODYS = ("no_format", "forbidden", "network", "timeout", "unknown")
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Turn:
    """Permission for one attempt in a period between two blocks.

    is_check: the attempt must be for the check video.
    """

    period: int
    is_scout: bool = False
    is_check: bool = False


@dataclass(frozen=True)
class Attempted(TurnEnd):
    """The outcome of an attempt for a video.

    verdict: `passed` (YouTube served the video), `gone` (a final verdict), `blocked` or `unclear`.
    rest: the task for another attempt, if there should be one. results: of a final verdict, or of
    the clips of `rest` if there is no other attempt.
    """

    verdict: str
    reason: str = ""
    message: str = ""
    is_shown: bool = False  # YouTube described the video
    results: tuple[Result, ...] = ()
    rest: Any = None
    may_be_everybodys: bool = True  # whether other videos can fail in the same way
    youtube_id: str = ""


class Pace:
    """Give turns to attempts. `end` must follow every turn. All methods are thread-safe."""

    def __init__(
        self,
        videos_per_hour: float = 0,
        pause_seconds: float = 900,
        stop_on_block: bool = False,
        has_check: bool = False,
    ) -> None:
        """has_check: whether there is a check video."""
        self.interval = 3600 / videos_per_hour if videos_per_hour else 0.0
        self.first_pause = pause_seconds
        self.stop_on_block = stop_on_block
        self.has_check = has_check
        self._settings = (videos_per_hour, pause_seconds, stop_on_block, has_check)
        self._machines: dict[str, Pace] = {}
        self._blocks = 0
        self._problem = ""
        self._lock = threading.RLock()
        self._next_start = 0.0
        self._period = 0
        self._pause = 0.0
        self._blocked_until: float | None = None
        self._reopened_at = float("-inf")
        self._is_out = False  # whether a scout or the check video is under way
        self._reason = ""  # of the last pause
        self._held: list[tuple[Result, ...]] = []  # final verdicts
        self._check_after = MANY
        self._failed: dict[str, str] = {}  # youtube_id -> message, of the failures in a row
        self._was_refused = False  # whether only the check video can end the block

    def of(self, machine: str) -> Pace:
        """Return the pace of one machine of a cluster, because each has its own address."""
        return self._machines.setdefault(machine, Pace(*self._settings))

    @property
    def blocks(self) -> int:
        """Return the number of pauses so far, on all machines."""
        return self._blocks + sum(pace.blocks for pace in self._machines.values())

    @property
    def problem(self) -> str:
        """Return why the run was given up, or an empty text."""
        problems = [self._problem, *(pace.problem for pace in self._machines.values())]
        return next(filter(None, problems), "")

    def take_turn(self) -> Turn | float:
        """Return a turn, or the seconds after which to try again."""
        with self._lock:
            now = time.monotonic()
            if self._blocked_until is not None:
                if now < self._blocked_until or self._is_out:
                    return _POLL_SECONDS
                self._is_out = True
                return Turn(self._period, is_scout=True, is_check=self._was_refused)
            if now < self._next_start:
                return min(_POLL_SECONDS, self._next_start - now)
            # Jitter, because requests at regular intervals look like a bot.
            self._next_start = now + self.interval * random.uniform(0.7, 1.3)
            is_check = self.check_is_due
            self._is_out |= is_check
            return Turn(self._period, is_check=is_check)

    @property
    def check_is_due(self) -> bool:
        """Return whether the next turn is for the check video."""
        with self._lock:
            return self.has_check and len(self._held) >= self._check_after and not self._is_out

    def end(self, turn: Turn, attempt: Attempted | None) -> tuple[list[Result], Any]:
        """Record an attempt; return the results to report now and the task for another attempt.

        attempt: None if it was dropped. Stops the run if all videos fail even after a pause, and at
        a block with --on_block stop.
        """
        with self._lock:
            is_current = turn.period == self._period
            if is_current and (turn.is_scout or turn.is_check):
                self._is_out = False
            if attempt is None:
                return [], None
            results = self._release() if attempt.is_shown else []
            if turn.is_check and attempt.verdict in ("blocked", "gone"):
                self._was_refused = True
                results = self._refuse(attempt.message)
                attempt = Attempted("blocked", "rate_limited")
            elif turn.is_check and not attempt.is_shown:
                self._check_after = len(self._held) + 1
            is_new = attempt.youtube_id not in self._failed
            if attempt.verdict == "gone" and self.has_check:
                self._held.append(attempt.results)
            elif attempt.verdict == "gone":
                results += attempt.results
            elif attempt.verdict == "passed":
                self._failed.clear()
            elif attempt.may_be_everybodys and attempt.reason in EVERYBODYS:
                message = re.sub(r"\W|\d", "", f"{attempt.reason}{attempt.message}")[:50]
                self._failed[attempt.youtube_id] = message
            if is_current:
                self._change_state(turn, attempt, is_new)
            if attempt.rest and attempt.verdict != "blocked" and self._alike() >= NO_SECOND_TRY:
                return [*results, *attempt.results], None
            return results, attempt.rest

    def _change_state(self, turn: Turn, attempt: Attempted, is_new: bool) -> None:
        """Pause, end a pause, or give up. is_new: no earlier attempt for this video failed."""
        now, fails = time.monotonic(), attempt.reason in EVERYBODYS
        if attempt.verdict == "blocked":
            self._begin_pause(turn, attempt.reason)
        elif not turn.is_scout:
            if fails and (self._alike() >= FAILING or len(self._failed) >= FAILING_ANYHOW):
                self._begin_pause(turn, attempt.reason)
                if self.stop_on_block:
                    self._give_up(attempt)
        elif attempt.verdict in ("passed", "gone"):
            self._blocked_until = None
            self._was_refused = False
            self._reopened_at = self._next_start = now
        elif fails and is_new and self._reason in EVERYBODYS:
            self._give_up(attempt)
        else:
            self._blocked_until = now + max(self.interval, SCOUT_SECONDS)

    def _alike(self) -> int:
        """Return how many failures in a row have the most frequent message."""
        return max(Counter(self._failed.values()).values(), default=0)

    def _give_up(self, attempt: Attempted) -> None:
        self._problem = (
            f"{len(self._failed)} videos in a row failed ({attempt.reason}: {attempt.message});"
            " check the connection, update yt-dlp, then run the same command"
        )
        STOP.set()

    def _begin_pause(self, turn: Turn, reason: str) -> None:
        """Pause. Attempts under way belong to the period before, and cause no second pause."""
        now = time.monotonic()
        soon_again = turn.is_scout or now - self._reopened_at < self._pause
        doubled = min(2 * self._pause, MOST_PAUSES * self.first_pause)
        self._pause = doubled if soon_again else self.first_pause
        self._period += 1
        self._is_out = False
        self._blocked_until = now + self._pause
        self._reason = reason
        self._blocks += 1
        if self.stop_on_block:
            STOP.set()

    def _release(self) -> list[Result]:
        held, self._held, self._check_after = self._held, [], MANY
        return [result for results in held for result in results]

    def _refuse(self, message: str) -> list[Result]:
        """Turn the final verdicts that were held back into failures."""
        why = f"not believed, because YouTube refuses the check video, too: {message}"
        return [
            replace(each, status=FAILED, reason="rate_limited", message=f"{why}; {each.message}")
            for each in self._release()
        ]

    def last(self) -> list[Result]:
        """Return the verdicts held back at the end of a list. If they are few, they are final."""
        with self._lock:
            here = self._release() if len(self._held) < MANY else self._refuse("no answer")
        return here + [result for pace in self._machines.values() for result in pace.last()]

    def note(self) -> str:
        """Return the countdown of a pause for the progress line, or an empty text."""
        with self._lock:
            until, reason = self._blocked_until, self._reason
        if until is None:
            return ""
        seconds = max(0, round(until - time.monotonic()))
        if not seconds:
            return f"paused ({reason}), trying one video"
        return f"paused ({reason}), next attempt in {timedelta(seconds=seconds)}"
