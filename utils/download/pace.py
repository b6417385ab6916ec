"""Pace: one limiter for all workers, and the pause when YouTube blocks.

YouTube lets a guest ask for about 300 videos an hour and then answers nothing but 429 or "not a
bot" for an hour. So starts are spread evenly, and once a block is met nothing starts until the
pause is over and one video alone, the scout, has come through. Nobody's clip fails for a block.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import psutil
from filelock import FileLock

from utils.machines import machine_name
from utils.process import Stopped, sleep, stop_run

MOST_PAUSES = 4  # the pause doubles up to this many times its first length: 15, 30, 60 minutes
SCOUT_SECONDS = 1.0  # at least so long between two scouts
HOLD_SECONDS = 5.0  # on a cluster, a block holds a video so long before another machine takes it
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Turn:
    """The right to ask for one video, given in a period between two blocks."""

    period: int
    is_scout: bool = False


@dataclass
class PaceState:
    """What a limiter knows. Times are those of `time.monotonic`, which a machine's processes share.

    scout: the process that has the scout; 0 where none is out.
    """

    next_start: float = 0.0
    period: int = 0
    pause: float = 0.0
    blocked_until: float | None = None
    reopened_at: float = float("-inf")
    scout: int = 0
    reason: str = ""
    blocks: int = 0


class TurnedAway(Stopped):
    """This machine is blocked, and another one may have the video."""


class Pace:
    """Hands out turns. Every turn is given back with `passed`, `blocked` or `unclear`."""

    def __init__(
        self, videos_per_hour: float = 0, pause_seconds: float = 900, stop_on_block: bool = False
    ) -> None:
        self.interval = 3600 / videos_per_hour if videos_per_hour else 0.0
        self.first_pause = pause_seconds
        self.stop_on_block = stop_on_block
        self.hold_seconds = float("inf")
        self._lock = threading.Lock()
        self._known = PaceState()

    @contextmanager
    def _state(self) -> Iterator[PaceState]:
        """The state, to look at and to change, while nobody else does."""
        with self._lock:
            yield self._known

    @property
    def blocks(self) -> int:
        with self._state() as state:
            return state.blocks

    def wait_turn(self) -> Turn:
        """Wait until one more video may be asked for. Raises Stopped, TurnedAway."""
        asked = time.monotonic()
        while True:
            with self._state() as state:
                now = time.monotonic()
                if state.blocked_until is None:
                    start = max(now, state.next_start)
                    # Jitter, for requests at a steady beat are what a bot looks like.
                    state.next_start = start + self.interval * random.uniform(0.7, 1.3)
                    turn = Turn(state.period)
                    wait = start - now
                elif now >= state.blocked_until and not _is_out(state.scout):
                    state.scout = os.getpid()
                    return Turn(state.period, is_scout=True)
                elif now - asked > self.hold_seconds:
                    raise TurnedAway
                else:
                    turn, wait = None, _POLL_SECONDS
            sleep(wait)
            if turn is None:
                continue
            with self._state() as state:
                if turn.period == state.period:
                    return turn

    def passed(self, turn: Turn) -> None:
        """The video was answered, be it with "removed": there is no block (any more)."""
        with self._state() as state:
            if turn.is_scout and turn.period == state.period:
                state.scout = 0
                state.blocked_until = None
                state.reopened_at = state.next_start = time.monotonic()

    def unclear(self, turn: Turn) -> None:
        """The video failed for reasons of its own: a scout that says nothing, send another."""
        with self._state() as state:
            if turn.is_scout and turn.period == state.period:
                state.scout = 0
                # Scouts keep to the pace too, whatever it is that they meet.
                state.blocked_until = time.monotonic() + max(self.interval, SCOUT_SECONDS)

    def blocked(self, turn: Turn, reason: str) -> None:
        """The video met a block. Those that were under way when it began count as one block."""
        with self._state() as state:
            if turn.period != state.period:
                return
            now = time.monotonic()
            soon_again = turn.is_scout or now - state.reopened_at < state.pause
            doubled = min(2 * state.pause, MOST_PAUSES * self.first_pause)
            state.pause = doubled if soon_again else self.first_pause
            state.period += 1
            state.scout = 0
            state.blocked_until = now + state.pause
            state.reason = reason
            state.blocks += 1
        if self.stop_on_block:
            stop_run()

    def count_block(self) -> None:
        """A machine of the cluster has met a block, and sees to its pause itself."""
        with self._state() as state:
            state.blocks += 1
        if self.stop_on_block:
            stop_run()

    def pause_left(self) -> tuple[str, float] | None:
        """(the reason of a block, the seconds to its next try); None where there is none."""
        with self._state() as state:
            if state.blocked_until is None:
                return None
            return state.reason, max(0.0, state.blocked_until - time.monotonic())

    def note(self) -> str:
        """What the progress line says of a block: a countdown; empty when there is none."""
        block = self.pause_left()
        if block is None:
            return ""
        reason, seconds = block
        if round(seconds) == 0:
            return f"blocked ({reason}), one video tries the ground"
        return f"blocked ({reason}), next try in {timedelta(seconds=round(seconds))}"


def _is_out(scout: int) -> bool:
    """Whether there is a scout, and its process lives: a worker of a cluster may be killed."""
    return scout == os.getpid() or (scout != 0 and psutil.pid_exists(scout))


def _boot() -> str:
    """A name for this start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:  # not Linux
        return f"{psutil.boot_time():.0f}"


class MachinePace(Pace):
    """The limiter of all processes of a run on this machine, in a file of the run's folder.

    The lock needs to hold on this machine only. A block turns videos away, to other machines.
    """

    def __init__(self, workspace: Path, videos_per_hour: float, pause_seconds: float) -> None:
        super().__init__(videos_per_hour, pause_seconds)
        self.hold_seconds = HOLD_SECONDS
        # Times are of the clock since the machine started: of another start they mean nothing.
        self._path = workspace / f"pace-{machine_name()}-{_boot()}.json"
        self._file_lock = FileLock(f"{self._path}.lock")

    @contextmanager
    def _state(self) -> Iterator[PaceState]:
        with self._lock, self._locked():
            state = PaceState()
            with suppress(FileNotFoundError, ValueError, TypeError):  # torn by a power cut
                state = PaceState(**json.loads(self._path.read_text(encoding="utf-8")))
            yield state
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(asdict(state)), encoding="utf-8")
            os.replace(part, self._path)  # a process that is killed as it writes tears nothing

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._path.parent.is_dir():  # which the lock would make
            raise Stopped
        try:
            self._file_lock.acquire()
        except NotImplementedError:  # a file system without locks
            yield
            return
        try:
            yield
        finally:
            self._file_lock.release()
