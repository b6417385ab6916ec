"""Start and end a run: plan lines, temporary folder, report, progress, counts, exit code."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.cli import EXIT_INCOMPLETE, EXIT_OK, clock, say
from utils.cluster import open_workers
from utils.errors import DiskFull
from utils.files import make_folder
from utils.machines import run_folder
from utils.packages import Streak
from utils.parallel import Workers
from utils.process import STOP, received_signal, stop_run
from utils.report import ReportFile, own_report
from utils.text import command_line, shown

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


Lines = list[tuple[str, str]]  # (label, text)


def say_statement(lines: Iterable[tuple[str, str]]) -> None:
    """What will be done, before any work: a line for each (label, text), none without a text."""
    for label, text in (*lines, ("stop", "Ctrl-C; the same command goes on from there")):
        if text:
            say(f"{label:13}{text}")


@dataclass(frozen=True)
class Opened:
    """What a run holds as long as it lasts."""

    workspace: Path  # its temporary folder, below the output
    report: ReportFile
    workers: Workers  # of this machine, or of --dask


@contextmanager
def open_run(
    args: argparse.Namespace,
    report: Path,
    columns: Sequence[str],
    packages: Sequence[str],
    sees: Sequence[Path] = (),
    shard: tuple[int, int] = (1, 1),
) -> Iterator[Opened]:
    """Open all of it, in the folder of `report`. Raises UserError, DiskFull.

    packages, sees: what every worker of a cluster must have, and see.
    """
    with (
        run_folder(make_folder(report.parent)) as workspace,
        own_report(report, columns, workspace, shard) as own,
        open_workers(args, workspace, packages, sees) as workers,
    ):
        yield Opened(workspace, own, workers)


@contextmanager
def watch(
    total: int, unit: str, quiet: bool, workers: Workers, note: Callable[[], str] = str
) -> Iterator[Progress]:
    """The progress of a run, with what its workers have to say."""
    with Progress(total, unit, quiet=quiet, note=lambda: workers.note() or note()) as progress:
        workers.say = progress.say
        yield progress
        workers.say = say


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
