"""What came of a run of download.py, what to type next, and the exit code."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from utils.cli import EXIT_INCOMPLETE, EXIT_OK, hide_passwords, say
from utils.files import DiskFull, names_in
from utils.process import STOP, received_signal
from utils.progress import clock, plural
from utils.report import DOWNLOADED, FAILED, REASONS, REPORT_NAME, UNAVAILABLE, Tally, report_line
from utils.runs.download_plan import Plan
from utils.sources.common import Run


def finish(
    plan: Plan, tally: Tally, run: Run, args: argparse.Namespace, report: Path, elapsed: float
) -> int:
    """The summary, what to type next, and the exit code."""
    out = report.parent
    on_disk = len(plan.on_disk)
    if tally.statuses[DOWNLOADED]:  # counted in the folder: it is the truth, whatever came of a run
        on_disk = len(plan.lists.clips.keys() & names_in(out, ".mp4"))
    wanted, refused = len(plan.lists.clips), len(plan.lists.refused)
    asked = sum(tally.statuses.values())
    if args.quiet and not asked:
        if on_disk < wanted:
            say(f"on disk: {on_disk:,} of {plural(wanted, 'wanted clip')}; {report}")
    elif not args.quiet or on_disk < wanted or refused:
        stopped = "stopped" if STOP.is_set() else "done"
        say(f"{stopped} after {clock(elapsed)}, {plural(asked, 'clip')} asked for")
        for line in tally.lines():
            say(f"  {line}")
        say(f"on disk now: {on_disk:,} of {plural(wanted, 'wanted clip')}")
        if refused:
            say(f"refused: {plural(refused, 'row')} of the lists, see `invalid` in the report")
        say(report_line(report, out / REPORT_NAME))
        for line in next_steps(plan, tally, run, on_disk):
            say(line)
    if signal := received_signal():
        return 128 + signal
    if tally.reasons[(FAILED, "disk_full")]:
        raise DiskFull(out)
    if tally.streak.is_hopeless:
        raise tally.streak.problem()
    return EXIT_OK if on_disk == wanted and not refused else EXIT_INCOMPLETE


def next_steps(plan: Plan, tally: Tally, run: Run, on_disk: int) -> list[str]:
    """What to type next, and what it will do."""
    command = hide_passwords(shlex.join(["python", *sys.argv]))
    missing = len(plan.lists.clips) - on_disk
    gone = tally.statuses[UNAVAILABLE] + plan.not_again
    steps = []
    if run.pace.stop_on_block and run.pace.blocks:
        steps.append("YouTube blocks: wait an hour, or give --cookies, before you go on")
    if missing > gone:
        steps.append(f"next: {command}")
        steps.append(f"      fetches the {missing - gone:,} that are still to be had")
    elif missing:
        steps.append(f"next: {command}" + ("" if run.ask_again else " --retry unavailable"))
        steps.append(
            f"      asks again for the {gone:,} that are unavailable; nothing else is missing"
        )
    if tally.hopeless:
        steps.append(f"the last videos all failed for one reason: {REASONS[tally.hopeless][1]}")
        steps.append(f"see which link is broken: {check_command()}")
    return steps


def check_command() -> str:
    """The command of this run, with --check."""
    return hide_passwords(shlex.join(["python", *sys.argv, "--check"]))
