"""What the user sees of a run: a bar or a line a minute, counts, durations.

On the ground; scripts feed it in their main thread.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from tqdm import tqdm

from utils.cli import say
from utils.text import shown

PLAIN_LINE_SECONDS = 60
SAME_MESSAGE_SHOWN = 3


class Progress:
    """Counts by outcome, rate and time left: a bar on a terminal, else a plain line a minute.

    `note` gives a text that is shown with the counts (a pause and its countdown).
    """

    def __init__(
        self, total: int, unit: str, *, quiet: bool = False, note: Callable[[], str] = str
    ) -> None:
        self.total, self.unit, self.quiet, self.note = total, unit, quiet, note
        self.counts: Counter[str] = Counter()
        self._shown: Counter[str] = Counter()
        self._started = time.monotonic()
        self._done = threading.Event()
        self._on_terminal = is_terminal() and not quiet
        self._bar = tqdm(
            total=total,
            unit=unit,
            file=sys.stderr,
            disable=not self._on_terminal,
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Progress:
        self._ticker.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._ticker.join()
        self._bar.close()

    def add(self, outcome: str) -> None:
        """One more is finished, and came to `outcome`."""
        self.counts[outcome] += 1
        if self._on_terminal:
            self._bar.set_postfix_str(self._outcomes(), refresh=False)
            self._bar.update(1)

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._on_terminal:
            tqdm.write(shown(text), file=sys.stderr)
        else:
            say(text)

    def failure(self, cause: str, what: str, message: str) -> None:
        """Show a failure, cause first; one and the same message three times, then never again."""
        key = f"{cause}: {message}"
        self._shown[key] += 1
        if self._shown[key] <= SAME_MESSAGE_SHOWN:
            self.say(f"{cause}: {what}" + (f": {message}" if message else ""))
        if self._shown[key] == SAME_MESSAGE_SHOWN:
            self.say(f"{cause}: (more with this message are counted and reported, not shown)")

    def line(self) -> str:
        """The plain form: done of total, outcomes, rate an hour, time left."""
        done = sum(self.counts.values())
        elapsed = time.monotonic() - self._started
        parts = [f"{done:,} of {self.total:,} {self.unit}s"]
        if done:
            left = timedelta(seconds=round(elapsed / done * max(0, self.total - done)))
            parts += [self._outcomes(), f"{done / elapsed * 3600:,.0f} an hour", f"{left} left"]
        if note := self.note():
            parts.append(note)
        return "; ".join(parts)

    def _outcomes(self) -> str:
        return ", ".join(f"{n:,} {outcome}" for outcome, n in self.counts.most_common())

    def _tick(self) -> None:
        seconds = 1 if self._on_terminal else PLAIN_LINE_SECONDS
        while not self._done.wait(seconds):
            if self._on_terminal:
                note = self.note()
                self._bar.set_postfix_str("; ".join(t for t in (self._outcomes(), note) if t))
            elif not self.quiet:
                say(f"{time.strftime('%H:%M:%S')} {self.line()}")


def is_terminal() -> bool:
    """Whether stderr is a terminal with a size; one of no lines (a bare pty) shows no bar."""
    try:
        return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).lines > 0
    except (OSError, ValueError):
        return False


def plural(count: int, noun: str) -> str:
    """`1 clip`, `2,000 clips`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def clock(seconds: float) -> str:
    """Elapsed time as people read it: `0:01:40`, `2 days, 3:00:00`."""
    return str(timedelta(seconds=round(seconds)))
