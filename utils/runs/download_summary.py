"""What came of a run of download.py, what to type next, and the exit code."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.cli import say
from utils.download.common import Run
from utils.files import names_in
from utils.process import stop_run
from utils.progress import plural
from utils.report import DOWNLOADED, REASONS, REPORT_NAME, UNAVAILABLE, report_line
from utils.runs.download_plan import Plan
from utils.runs.ending import Tally, exit_code, own_command, say_end, say_next

# Reasons that every further video would meet too: after so many in a row the run stops.
HOPELESS, HOPELESS_AFTER = ("cookies", "js_runtime"), 5


@dataclass
class DownloadTally(Tally):
    """Also which source gave how many, and whether video after video meets what no wait mends."""

    sources: Counter[str] = field(default_factory=Counter)
    hopeless: str = ""  # the reason that they met
    _reason: str = ""
    _videos: set[str] = field(default_factory=set)

    def add(self, outcome: Any) -> None:
        super().add(outcome)
        if outcome.is_on_disk:
            self.sources[outcome.source] += 1
        if outcome.reason != self._reason:
            self._reason, self._videos = outcome.reason, set()
        if outcome.reason in HOPELESS:
            self._videos.add(outcome.youtube_id)
            if len(self._videos) >= HOPELESS_AFTER:
                self.hopeless = outcome.reason
                stop_run()

    def lines(self) -> list[str]:
        """Counts by status and reason, and what each reason means."""
        lines = []
        for status, count in self.statuses.most_common():
            sources = ", ".join(f"{number:,} from {name}" for name, number in self.sources.items())
            of = f" ({sources})" if status == DOWNLOADED else ""
            lines.append(f"  {status} {count:,}{of}")
            lines += [f"  {line}" for line in self.reason_lines(REASONS, status)]
        return lines


def finish(
    plan: Plan, tally: DownloadTally, run: Run, args: argparse.Namespace, report: Path
) -> int:
    """The summary, what to type next, and the exit code. Raises DiskFull, UserError."""
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
        say_end(f"{plural(asked, 'clip')} asked for")
        for line in tally.lines():
            say(line)
        say(f"on disk now: {on_disk:,} of {plural(wanted, 'wanted clip')}")
        if refused:
            say(f"refused: {plural(refused, 'row')} of the lists, see `invalid` in the report")
        say(report_line(report, out / REPORT_NAME))
        say_next_steps(plan, tally, run, on_disk)
    return exit_code(tally, out, on_disk == wanted and not refused)


def say_next_steps(plan: Plan, tally: DownloadTally, run: Run, on_disk: int) -> None:
    """What to type next, and what it will do."""
    missing = len(plan.lists.clips) - on_disk
    gone = tally.statuses[UNAVAILABLE] + plan.not_again
    if run.pace.stop_on_block and run.pace.blocks:
        say("YouTube blocks: wait an hour, or give --cookies, before you go on")
    if missing > gone:
        say_next(f"fetches the {missing - gone:,} that are still to be had")
    elif missing:
        again = () if run.ask_again else ("--retry", "unavailable")
        say_next(
            f"asks again for the {gone:,} that are unavailable; nothing else is missing", *again
        )
    if tally.hopeless:
        say(f"the last videos all failed for one reason: {REASONS[tally.hopeless][1]}")
        say(f"see which link is broken: {own_command('--check')}")
