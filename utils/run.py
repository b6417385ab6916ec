"""Start and end a run: plan, temporary folder, report, progress, counts, next command, exit code.

The scripts give it their texts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from utils.cli import EXIT_INCOMPLETE, EXIT_OK, clock, command_line, plural, say, shown
from utils.cluster import open_workers
from utils.errors import DiskFull, Streak, UserError
from utils.files import RUN_PREFIX, make_folder, publish_new, read_json, run_folder, telling
from utils.parallel import Workers
from utils.process import STOP, received_signal
from utils.report import ReportFile, own_names

PLAIN_LINE_SECONDS = 60
SAME_MESSAGE_SHOWN = 3
_STARTED = time.monotonic()  # the script starts within milliseconds of this import

Lines = list[tuple[str, str]]  # (label, text)


# --- the start -----------------------------------------------------------------------------------


def say_statement(lines: Iterable[tuple[str, str]]) -> None:
    """Print the plan: a line for each (label, text) that has a text."""
    for label, text in (*lines, ("stop", "press Ctrl-C; run the same command again to resume")):
        if text:
            say(f"{label:13}{text}")


@dataclass(frozen=True)
class Opened:
    """The resources of a run."""

    workspace: Path  # its temporary folder, inside the output folder
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
    """Open the resources of a run in the folder of `report`. Raises UserError, DiskFull.

    Every worker of a cluster must have `packages` and see the paths in `sees`.
    """
    with (
        run_folder(make_folder(report.parent), own_names(report, shard)) as workspace,
        ReportFile(report.with_name(workspace.name.removeprefix(RUN_PREFIX)), columns) as own,
        open_workers(args, workspace, packages, sees) as workers,
    ):
        yield Opened(workspace, own, workers)


def has_settings(path: Path, wanted: Mapping[str, object], made: str) -> bool:
    """Return whether `path` holds the options that the files in its folder were made with.

    made: what these files are. Raises UserError if the options are not the `wanted` ones, because
    files that were made with different options are never mixed.
    """
    if not os.path.lexists(path):
        return False
    try:
        before = _without_off(read_json(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); use another output folder") from None
    wanted = _without_off(wanted)
    other = [
        f"with --{name} {before[name]}".removesuffix(" True")
        if name in before
        else f"without --{name}"
        for name in {**wanted, **before}
        if before.get(name) != wanted.get(name)
    ]
    if other:
        raise UserError(
            f"{path.parent} holds {made} made {', '.join(other)}; use the same options, or another"
            " output folder"
        )
    return True


def _without_off(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the options that are set; those that are off may be None, False, or not there."""
    return {
        name: value for name, value in settings.items() if value is not None and value is not False
    }


def write_settings(path: Path, workspace: Path, wanted: Mapping[str, object], made: str) -> None:
    """Write the options that the files of a folder are made with, before the first file.

    Raises UserError if another run has begun in the folder meanwhile, with other options.
    """
    if not has_settings(path, wanted, made):
        temporary = workspace / path.name
        with telling(path, "write"), suppress(FileExistsError):
            temporary.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
            publish_new(temporary, path)
        has_settings(path, wanted, made)


# --- meanwhile -----------------------------------------------------------------------------------


class Progress:
    """Show counts by outcome, rate and time left: a bar on a terminal, otherwise a line per minute.

    It also shows the messages of the `workers` of a run, and what holds them up.
    """

    def __init__(
        self, total: int, unit: str, quiet: bool = False, workers: Workers | None = None
    ) -> None:
        self.total, self.unit, self.quiet = total, unit, quiet
        self._workers = workers or Workers(1)
        self.counts: Counter[str] = Counter()
        self._shown: Counter[str] = Counter()
        self._started = time.monotonic()
        self._done = threading.Event()
        self._on_terminal = sys.stderr.isatty() and not quiet
        self._bar = tqdm(
            total=total, unit=unit, disable=not self._on_terminal, dynamic_ncols=True, smoothing=0.1
        )
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self._workers.say = self.say
        self._ticker.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._workers.say = say
        self._done.set()
        self._ticker.join()
        self._bar.close()

    def add(self, outcome: str) -> None:
        """Count one more that ended with `outcome`."""
        self.counts[outcome] += 1
        if self._on_terminal:
            self._bar.set_postfix_str(self._outcomes(), refresh=False)
            self._bar.update(1)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._on_terminal:
            with suppress(OSError):  # as `say`
                tqdm.write(shown(text), file=sys.stderr)
        else:
            say(text)

    def failure(self, cause: str, what: str, message: str) -> None:
        """Print a failure, the cause first; the same message at most three times."""
        key = f"{cause}: {message}"
        self._shown[key] += 1
        if self._shown[key] <= SAME_MESSAGE_SHOWN:
            self.say(f"{cause}: {what}" + (f": {message}" if message else ""))
        if self._shown[key] == SAME_MESSAGE_SHOWN:
            self.say(f"{cause}: (more failures with this message are in the report only)")

    def line(self) -> str:
        """Return the plain form: done of total, outcomes, rate per hour, time left."""
        done = sum(self.counts.values())
        elapsed = time.monotonic() - self._started
        parts = [f"{done:,} of {plural(self.total, self.unit)}"]
        if done:
            left = clock(elapsed / done * max(0, self.total - done))
            parts += [self._outcomes(), f"{done / elapsed * 3600:,.0f} per hour", f"{left} left"]
        return "; ".join([*parts, *filter(None, [self._workers.note()])])

    def _outcomes(self) -> str:
        return ", ".join(f"{n:,} {outcome}" for outcome, n in self.counts.most_common())

    def _tick(self) -> None:
        seconds = 1 if self._on_terminal else PLAIN_LINE_SECONDS
        while not self._done.wait(seconds):
            if self._on_terminal:
                parts = [self._outcomes(), self._workers.note()]
                self._bar.set_postfix_str("; ".join(filter(None, parts)))
            elif not self.quiet:
                say(f"{time.strftime('%H:%M:%S')} {self.line()}")


@dataclass
class Tally:
    """Count the results of a run; stop the run when every further clip would fail, too."""

    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)  # frames and bytes written
    streak: Streak = field(default_factory=Streak)
    disk_full: bool = False

    def add(self, outcome: Any) -> None:
        """Count one line of a report."""
        self.statuses[outcome.status] += 1
        self.reasons[outcome.reason] += 1
        for name in ("frames", "bytes"):
            self.totals[name] += getattr(outcome, name, 0)
        self.streak.add(outcome.is_on_disk, outcome.message)
        self.disk_full |= outcome.reason == "disk_full"
        if self.disk_full or self.streak.is_hopeless:
            STOP.set()

    def reason_lines(self, table: Mapping[str, tuple[str, str]], *statuses: str) -> list[str]:
        """Return lines for the reasons with these statuses: how many clips, and what it means."""
        return [
            f"  {reason} {count:,}: {table[reason][1]}"
            for reason, count in sorted(self.reasons.items(), key=lambda each: (-each[1], each[0]))
            if reason and table[reason][0] in statuses
        ]


# --- the end -------------------------------------------------------------------------------------


def say_end(done: int, total: int, unit: str, counts: str = "") -> None:
    """Print the summary's first line: `finished in 0:00:13: 5 of 5 clips processed: 4 written`."""
    took = clock(time.monotonic() - _STARTED)
    start = f"stopped after {took}" if STOP.is_set() else f"finished in {took}"
    end = f"{done:,} of {plural(total, unit)} processed" if total else "nothing to do"
    say(f"{start}: {end}" + (f": {counts}" if counts else ""))


def say_next(what: str, *more: str) -> None:
    """Print the next command, this run's with `more` options, and what it will do."""
    say(f"next: {own_command(*more)}")
    say(f"      {what}")


def own_command(*more: str) -> str:
    """Return this run's command line, as it was typed, with `more` options."""
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    return command_line([sys.orig_argv[0], sys.argv[0], *words[:at], *more, *words[at:]])


def exit_code(tally: Tally, out: Path, is_all: bool) -> int:
    """Return the exit code. is_all: nothing is missing. Raises DiskFull, UserError."""
    if signal := received_signal():
        return 128 + signal
    if tally.disk_full:
        raise DiskFull(out)
    if tally.streak.is_hopeless:
        raise tally.streak.problem()
    return EXIT_OK if is_all else EXIT_INCOMPLETE
