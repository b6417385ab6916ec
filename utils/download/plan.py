"""Decide what a download run has to do, print it, and sum up what it did."""

from __future__ import annotations

import argparse
import difflib
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from utils.cli import clock, plural, say
from utils.clip import Clip
from utils.download.common import Run, is_gone
from utils.download.options import videos_per_hour, youtube_name
from utils.errors import UserError
from utils.files import free_bytes, names_in
from utils.lists.reading import ClipLists, Selection, find_lists, read_lists, same_split
from utils.machines import TEMP_FOLDER
from utils.process import stop_run
from utils.report import (
    DOWNLOADED,
    FAILED,
    REASONS,
    REPORT_NAME,
    UNAVAILABLE,
    Known,
    read_known,
    report_line,
)
from utils.run import Lines, Tally, exit_code, own_command, say_end, say_next, say_statement

REFUSED_SHOWN = 10


@dataclass(frozen=True)
class Plan:
    """What there is to do, decided before anything is done."""

    lists: ClipLists
    num_lists: int
    on_disk: set[str]
    known: Known
    to_fetch: tuple[Clip, ...]
    not_again: int  # known to be unavailable, and not asked for again


def read_wanted(paths: Sequence[Path], args: argparse.Namespace) -> ClipLists:
    """The clips that lists and options ask for. Raises UserError when they ask for none."""
    args.lists = find_lists(paths)
    selection = Selection(
        labels=frozenset(label.casefold() for label in args.label),
        splits=frozenset(same_split(split) for split in args.split),
        shard=args.shard,
        limit=args.limit,
    )
    lists = read_lists(args.lists, selection, args.trim_format, None if args.quiet else say)
    if lists.rows == 0:
        raise UserError(f"no row in {', '.join(map(str, args.lists))}: nothing to download")
    for option, asked, seen in (
        ("--label", args.label, lists.labels_seen),
        ("--split", args.split, lists.splits_seen),
    ):
        for word in () if lists.is_cut_short else asked:
            known = {same_split(s) if option == "--split" else s.casefold() for s in seen}
            wanted = same_split(word) if option == "--split" else word.casefold()
            if wanted not in known:
                near = difflib.get_close_matches(word, sorted(seen), n=3) or sorted(seen)[:5]
                raise UserError(
                    f"{option} {word!r} is in no list; there are {', '.join(near) or 'none'}"
                )
    return lists


def make_plan(lists: ClipLists, out: Path, args: argparse.Namespace) -> Plan:
    """One look at the folder, one at the report. Nothing is written."""
    there = names_in(out, ".mp4")
    on_disk = lists.clips.keys() & there
    missing = [clip for name, clip in lists.clips.items() if name not in on_disk]
    # A run that was killed leaves its folder, and may have named a clip and not written its line.
    was_killed = (out / TEMP_FOLDER).is_dir()
    known = Known()
    if missing or lists.refused or was_killed:  # else the report has nothing to tell
        known = read_known(out / REPORT_NAME, on_disk if was_killed else ())
    again = missing
    if not args.retry and args.source == ["youtube"]:
        again = [clip for clip in missing if not is_gone(clip, known, youtube_name(args))]
    return Plan(lists, len(args.lists), on_disk, known, tuple(again), len(missing) - len(again))


def say_plan(plan: Plan, out: Path, args: argparse.Namespace, tools: str) -> None:
    """The statement before any work."""
    lists, videos = plan.lists, len({clip.youtube_id for clip in plan.to_fetch})
    repeats = lists.rows - len(lists.refused) - lists.not_wanted - len(lists.clips)
    before = Counter(plan.known.status(clip) for clip in plan.to_fetch)
    again = "asked for again" if args.retry else "not asked for again without --retry unavailable"
    if not args.retry and args.source != ["youtube"]:
        again = "asked for at the other sources; at YouTube only with --retry unavailable"
    unavailable = plan.not_again or before[UNAVAILABLE]
    relabelled = f"{plural(lists.relabelled, 'row')} give a clip another label than before"
    not_wanted = f"{plural(lists.not_wanted, 'row')} not selected"
    say_statement(
        [
            ("lists", f"{plural(plan.num_lists, 'file')}, {plural(lists.rows, 'row')}"),
            ("clips", f"{len(lists.clips):,} wanted, {plural(repeats, 'repeat')} left out"),
            ("", not_wanted if lists.not_wanted else ""),
            ("", "read up to --limit, and no further" if lists.is_cut_short else ""),
            *refused_lines(lists),
            ("labels", relabelled if lists.relabelled else ""),
            ("on disk", f"{len(plan.on_disk):,}"),
            ("unavailable", f"{unavailable:,} known" + (f", {again}" if unavailable else "")),
            ("to fetch", f"{plural(len(plan.to_fetch), 'clip')} of {plural(videos, 'video')}"),
            ("", f"{before[FAILED]:,} of them failed before" if before[FAILED] else ""),
            ("sources", ", ".join(args.source)),
            ("pace", plural(args.num_jobs, "job") + pace_in_words(videos, args)),
            ("output", f"{out} ({free_bytes(out) / 1e9:,.1f} GB free)"),
            ("tools", tools),
        ]
    )


def pace_in_words(videos: int, args: argparse.Namespace) -> str:
    """`, at most 300 videos an hour, so 2:30:00 or more`; nothing where YouTube is not asked."""
    rate = videos_per_hour(args)
    if "youtube" not in args.source or not rate:
        return ", no limit of pace" if "youtube" in args.source else ""
    text = f", at most {rate:,.0f} videos an hour"
    if args.dask:
        return f"{text} and machine"
    alone = videos and args.source == ["youtube"]
    return f"{text}, so {clock(videos / rate * 3600)} or more" if alone else text


def refused_lines(lists: ClipLists) -> Lines:
    lines = [("refused", plural(len(lists.refused), "row"))]
    lines += [("", str(refused)) for refused in lists.refused[:REFUSED_SHOWN]]
    more = len(lists.refused) - REFUSED_SHOWN
    return [*lines, ("", f"and {more:,} more: see the report, invalid" if more > 0 else "")]


def tool_versions(ffmpeg_version: str) -> str:
    """What does the work, by version. Raises UserError when yt-dlp is not installed."""
    versions = [f"ffmpeg {ffmpeg_version}"]
    for package in ("yt-dlp", "deno"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError as error:
            if package == "yt-dlp":
                raise UserError(
                    "yt-dlp is not installed: pip install -r requirements.txt"
                ) from error
            other = shutil.which("deno")
            versions.append(f"deno {other}" if other else "no deno: YouTube needs one (--check)")
    return ", ".join(versions)


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
