"""How a run ends in the scripts that work clip by clip: what came of it, its exit code.

After `opening`; a script adds what it alone knows.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.cli import EXIT_INCOMPLETE, EXIT_OK, say
from utils.files import DiskFull
from utils.packages import Streak
from utils.process import STOP, received_signal, stop_run
from utils.progress import clock
from utils.text import command_line

_STARTED = time.monotonic()  # as good as when the script was


@dataclass
class Tally:
    """What came of a run so far."""

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)  # frames and bytes of what came
    streak: Streak = field(default_factory=Streak)
    disk_full: bool = False

    def add(self, outcome: Any) -> None:
        """Count a line of a report. Stops the run where none of the others would fare better."""
        self.statuses[outcome.status] += 1
        self.reasons[outcome.reason] += 1
        for name in ("frames", "bytes"):
            self.totals[name] += getattr(outcome, name, 0)
        self.streak.add(outcome.is_on_disk, outcome.message)
        self.disk_full |= outcome.reason == "disk_full"
        if self.disk_full or self.streak.is_hopeless:
            stop_run()

    def reason_lines(self, table: Mapping[str, tuple[str, str]], *statuses: str) -> list[str]:
        """How many met each reason of these statuses, and what it means."""
        return [
            f"  {reason} {count:,}: {table[reason][1]}"
            for reason, count in self.reasons.most_common()
            if reason and table[reason][0] in statuses
        ]


def say_end(what: str) -> None:
    """The first line of the summary: `done after 0:00:13: 4 written, 1 failed`."""
    word = "stopped" if STOP.is_set() else "done"
    say(f"{word} after {clock(time.monotonic() - _STARTED)}: {what}")


def say_next(what: str, *more: str) -> None:
    """What to type next, the command of this run with `more` behind it, and what it will do."""
    say(f"next: {own_command(*more)}")
    say(f"      {what}")


def own_command(*more: str) -> str:
    """This run's command line."""
    return command_line(["python", *sys.argv, *more])


def exit_code(tally: Tally, out: Path, is_all: bool) -> int:
    """The exit code, `is_all`: nothing is missing. Raises DiskFull, UserError."""
    if signal := received_signal():
        return 128 + signal
    if tally.disk_full:
        raise DiskFull(out)
    if tally.streak.is_hopeless:
        raise tally.streak.problem()
    return EXIT_OK if is_all else EXIT_INCOMPLETE
