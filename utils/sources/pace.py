"""Pace: one limiter for all workers, and the pause when YouTube blocks.

YouTube lets a guest ask for about 300 videos an hour and then answers nothing but 429 or "not a
bot" for an hour. So starts are spread evenly, and once a block is met nothing starts until the
pause is over and one video alone, the scout, has come through. Nobody's clip fails for a block.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

from utils.process import sleep, stop_run

MOST_PAUSES = 4  # the pause doubles up to this many times its first length: 15, 30, 60 minutes
SCOUT_SECONDS = 1.0  # at least so long between two scouts
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Turn:
    """The right to ask for one video, given in a period between two blocks."""

    period: int
    is_scout: bool = False


class Pace:
    """Hands out turns. Every turn is given back with `passed`, `blocked` or `unclear`."""

    def __init__(
        self, videos_per_hour: float = 0, pause_seconds: float = 900, stop_on_block: bool = False
    ) -> None:
        self.interval = 3600 / videos_per_hour if videos_per_hour else 0.0
        self.first_pause = pause_seconds
        self.stop_on_block = stop_on_block
        self.blocks = 0
        self._lock = threading.Lock()
        self._next_start = 0.0
        self._period = 0
        self._pause = 0.0
        self._blocked_until: float | None = None
        self._reopened_at = float("-inf")
        self._scout_is_out = False
        self._reason = ""

    def wait_turn(self) -> Turn:
        """Wait until one more video may be asked for. Raises Stopped."""
        while True:
            with self._lock:
                now = time.monotonic()
                if self._blocked_until is None:
                    start = max(now, self._next_start)
                    # Jitter, for requests at a steady beat are what a bot looks like.
                    self._next_start = start + self.interval * random.uniform(0.7, 1.3)
                    turn = Turn(self._period)
                    wait = start - now
                elif now >= self._blocked_until and not self._scout_is_out:
                    self._scout_is_out = True
                    return Turn(self._period, is_scout=True)
                else:
                    turn, wait = None, _POLL_SECONDS
            sleep(wait)
            if turn is not None and turn.period == self._period:
                return turn

    def passed(self, turn: Turn) -> None:
        """The video was answered, be it with "removed": there is no block (any more)."""
        with self._lock:
            if turn.is_scout and turn.period == self._period:
                self._scout_is_out = False
                self._blocked_until = None
                self._reopened_at = self._next_start = time.monotonic()

    def unclear(self, turn: Turn) -> None:
        """The video failed for reasons of its own: a scout that says nothing, send another."""
        with self._lock:
            if turn.is_scout and turn.period == self._period:
                self._scout_is_out = False
                # Scouts keep to the pace too, whatever it is that they meet.
                self._blocked_until = time.monotonic() + max(self.interval, SCOUT_SECONDS)

    def blocked(self, turn: Turn, reason: str) -> None:
        """The video met a block. Those that were under way when it began count as one block."""
        with self._lock:
            if turn.period != self._period:
                return
            now = time.monotonic()
            soon_again = turn.is_scout or now - self._reopened_at < self._pause
            doubled = min(2 * self._pause, MOST_PAUSES * self.first_pause)
            self._pause = doubled if soon_again else self.first_pause
            self._period += 1
            self._scout_is_out = False
            self._blocked_until = now + self._pause
            self._reason = reason
            self.blocks += 1
        if self.stop_on_block:
            stop_run()

    def note(self) -> str:
        """What the progress line says of a block: a countdown; empty when there is none."""
        until = self._blocked_until
        if until is None:
            return ""
        left = max(0, round(until - time.monotonic()))
        if left == 0:
            return f"blocked ({self._reason}), one video tries the ground"
        return f"blocked ({self._reason}), next try in {timedelta(seconds=left)}"
