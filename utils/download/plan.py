"""Build the plan of a download run, print it, and print the summary at the end.

The plan reads the lists, the output folder and the report once each, and writes nothing.
"""

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

from utils.cli import EXIT_INCOMPLETE, EXIT_OK, clock, plural, say
from utils.clip import DOWNLOADED, FAILED, REASONS, UNAVAILABLE, Clip
from utils.download.options import clip_suffix, videos_per_hour, youtube_name
from utils.download.sources import SourceContext, is_gone
from utils.errors import UserError
from utils.files import TEMP_FOLDER, free_bytes, names_in
from utils.lists.official import form_of
from utils.lists.reading import ClipLists, Selection, find_lists, read_lists
from utils.lists.versions import same_split
from utils.process import STOP
from utils.report import REPORT_NAME, Known, read_known, report_line
from utils.run import (
    Lines,
    Tally,
    exit_code,
    own_command,
    say_end,
    say_next,
    say_statement,
)

INVALID_SHOWN = 10
BYTES_PER_CLIP, BYTES_PER_SMALL_CLIP = 1_200_000, 600_000  # 10 s at CRF 20: 480 lines; 256
BYTES_PER_SOUND = {"m4a": 165_000, "wav": 1_770_000, "flac": 900_000}  # 10 s in stereo
LINE_BITS = 100e6  # bits per second, of the line that the mirror's time is given for
# Reasons that every further video would meet, too: after so many in a row the run stops.
HOPELESS, HOPELESS_AFTER = ("cookies", "js_runtime"), 5


@dataclass(frozen=True)
class Plan:
    """The clips to download, and the state of the others."""

    lists: ClipLists
    num_lists: int
    on_disk: set[str]
    known: Known
    to_fetch: tuple[Clip, ...]
    skipped: int  # unavailable clips that are not retried


def read_wanted(
    paths: Sequence[Path], args: argparse.Namespace, every_row: bool = False
) -> ClipLists:
    """Read the clips that lists and options request. Raises UserError if there are none."""
    args.lists = find_lists(paths)
    selection = Selection(
        labels=frozenset(label.casefold() for label in args.label),
        splits=frozenset(same_split(split) for split in args.split),
        shard=args.shard,
        limit=args.limit,
        sample=getattr(args, "draw_sample", None),
        per_class=getattr(args, "draw_per_class", None),
        seed=getattr(args, "draw_seed", 0),
    )
    tell = None if args.quiet else say
    lists = read_lists(args.lists, selection, tell=tell, every_row=every_row, **form_of(args))
    if lists.rows == 0:
        raise UserError(f"no rows in {', '.join(map(str, args.lists))}: nothing to download")
    if not lists.is_cut_short:
        _check_words(
            "--label", args.label, {label.casefold(): label for label in lists.labels_seen}
        )
        _check_words(
            "--split", args.split, {same_split(split): split for split in lists.splits_seen}
        )
    return lists


def _check_words(option: str, words: Sequence[str], seen: dict[str, str]) -> None:
    """Raise UserError for a label or split that no row has, with the nearest ones."""
    for word in words:
        key = same_split(word) if option == "--split" else word.casefold()
        if key not in seen:
            near = difflib.get_close_matches(key, sorted(seen), n=3, cutoff=0.5)
            found = ", ".join(seen[each] for each in near or sorted(seen)[:5])
            raise UserError(
                f"{option} {word!r} is not in any list; {'nearest' if near else 'available'}:"
                f" {found or 'none'}"
            )


def make_plan(lists: ClipLists, out: Path, args: argparse.Namespace) -> Plan:
    """Compare the requested clips with the folder and the report."""
    on_disk = lists.clips.keys() & names_in(out, clip_suffix(args))
    missing = [clip for name, clip in lists.clips.items() if name not in on_disk]
    # A killed run leaves its folder, and may have named a clip but not written its line.
    was_killed = (out / TEMP_FOLDER).is_dir()
    known = Known()
    if missing or lists.refused or was_killed:
        known = read_known(out / REPORT_NAME, on_disk if was_killed else ())
    to_fetch = missing
    if not args.retry and args.source == ["youtube"]:
        to_fetch = [clip for clip in missing if not is_gone(clip, known, youtube_name(args))]
    skipped = len(missing) - len(to_fetch)
    return Plan(lists, len(args.lists), on_disk, known, tuple(to_fetch), skipped)


def say_download_plan(plan: Plan, out: Path, args: argparse.Namespace, tools: str) -> None:
    """Print the plan; lines that would say nothing are left out."""
    lists, videos = plan.lists, len({clip.youtube_id for clip in plan.to_fetch})
    repeats = lists.rows - len(lists.refused) - lists.not_wanted - len(lists.clips)
    before = Counter(plan.known.status(clip) for clip in plan.to_fetch)
    unavailable = plan.skipped or before[UNAVAILABLE]
    how = "retried" if args.retry else "skipped (use --retry unavailable)"
    if not args.retry and args.source != ["youtube"]:
        how = "skipped at YouTube, requested from the other sources"
    say_statement(
        [
            ("lists", f"{plural(plan.num_lists, 'file')}, {plural(lists.rows, 'row')}"),
            *(("" if number else "read as", form) for number, form in enumerate(lists.forms())),
            ("clips", f"{len(lists.clips):,} requested"),
            ("", f"{plural(repeats, 'duplicate row')} ignored" * bool(repeats)),
            ("", f"{plural(lists.not_wanted, 'row')} not selected" * bool(lists.not_wanted)),
            ("", "rows after --limit were not read" * lists.is_cut_short),
            ("labels", f"{plural(lists.relabelled, 'row')} with a second label for a clip"
             * bool(lists.relabelled)),
            *invalid_lines(lists),
            ("on disk", plural(len(plan.on_disk), "clip")),
            ("unavailable", f"{plural(unavailable, 'clip')}, {how}" * bool(unavailable)),
            ("to download", f"{plural(len(plan.to_fetch), 'clip')} from {plural(videos, 'video')}"),
            ("", f"{plural(before[FAILED], 'clip')} failed before" * bool(before[FAILED])),
            ("size", f"about {size_text(plan, args)}" * bool(videos)),
            ("time", time_text(videos, size_of(plan, args), args) * bool(videos)),
            ("sources", ", ".join(args.source)),
            ("jobs", f"{args.num_jobs:,}"),
            ("output", f"{out} ({free_bytes(out) / 1e9:,.1f} GB free)"),
            ("tools", tools),
        ]
    )  # fmt: skip


def invalid_lines(lists: ClipLists) -> Lines:
    """The plan's lines for rows that are not clips: the first ten in full."""
    if not lists.refused:
        return []
    lines = [("invalid", plural(len(lists.refused), "row"))]
    lines += [("", str(refused)) for refused in lists.refused[:INVALID_SHOWN]]
    more = len(lists.refused) - INVALID_SHOWN
    return [*lines, ("", f"{more:,} more: see `invalid` in the report" * (more > 0))]


def size_of(plan: Plan, args: argparse.Namespace) -> int:
    """About how many bytes the missing clips will take."""
    if getattr(args, "audio_only", False):
        return round(
            len(plan.to_fetch)
            * BYTES_PER_SOUND[args.audio_format]
            * (1 if args.audio_format == "m4a" else (args.sample_rate or 44_100) / 44_100)
        )
    is_small = args.short_side and args.short_side <= 256
    return len(plan.to_fetch) * (BYTES_PER_SMALL_CLIP if is_small else BYTES_PER_CLIP)


def size_text(plan: Plan, args: argparse.Namespace) -> str:
    size = size_of(plan, args)
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def time_text(videos: int, size: int, args: argparse.Namespace) -> str:
    """`about 2:30:00 at 300 videos per hour`; empty where nothing limits the sources."""
    rate = videos_per_hour(args)
    if "youtube" in args.source:
        if not rate:
            return "no rate limit"
        per = "hour and machine" if args.dask else "hour"
        text = f"about {clock(videos / rate * 3600)} at {rate:,.0f} videos per {per}"
        return text if args.source == ["youtube"] else f"{text}, less what other sources have"
    return f"about {clock(size * 8 / LINE_BITS)} at 100 Mbit/s" if "cvdf" in args.source else ""


def tool_versions(ffmpeg_version: str) -> str:
    """The versions of the tools that do the work. Raises UserError if yt-dlp is not installed."""
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
            versions.append(f"deno {other}" if other else "no deno: YouTube needs it (--check)")
    return ", ".join(versions)


# --- the end -------------------------------------------------------------------------------------


@dataclass
class DownloadTally(Tally):
    """Also count clips per source, and stop when video after video fails for a lasting reason."""

    asked_height: int = 0  # lines; 0: as many as there are
    low: Counter[int] = field(default_factory=Counter)  # clips of videos with fewer, by lines
    sources: Counter[str] = field(default_factory=Counter)
    hopeless: str = ""  # that reason
    _reason: str = ""
    _videos: set[str] = field(default_factory=set)

    def add(self, outcome: Any) -> None:
        super().add(outcome)
        if outcome.is_on_disk:
            self.sources[outcome.source] += 1
            if 0 < outcome.height < self.asked_height:
                self.low[outcome.height] += 1
        if outcome.reason != self._reason:
            self._reason, self._videos = outcome.reason, set()
        if outcome.reason in HOPELESS:
            self._videos.add(outcome.youtube_id)
            if len(self._videos) >= HOPELESS_AFTER:
                self.hopeless = outcome.reason
                STOP.set()

    def say(self) -> None:
        """Print the counts by status and reason, and what each reason means."""
        for status, count in self.statuses.most_common():
            sources = ", ".join(f"{name} {number:,}" for name, number in self.sources.items())
            say(f"  {status} {count:,}" + (f" ({sources})" if status == DOWNLOADED else ""))
            for line in self.reason_lines(REASONS, status):
                say(f"  {line}")
            if status == DOWNLOADED and self.low:
                low, most = self.low.total(), self.asked_height
                heights = ", ".join(f"{n:,} at {height}" for height, n in sorted(self.low.items()))
                say(f"    lower than {most} lines {low:,} ({low / count:.0%}): {heights}")


def end_download(
    plan: Plan, tally: DownloadTally, context: SourceContext, args: argparse.Namespace, report: Path
) -> int:
    """Print the summary and the next command; return the exit code. Raises DiskFull, UserError."""
    out, lists = report.parent, plan.lists
    on_disk = len(plan.on_disk)
    if tally.statuses[DOWNLOADED]:  # the folder is the truth, whatever this run counted
        on_disk = len(lists.clips.keys() & names_in(out, clip_suffix(args)))
    requested, missing = len(lists.clips), len(lists.clips) - on_disk
    processed = sum(tally.statuses.values())
    gone = tally.statuses[UNAVAILABLE] + plan.skipped
    is_all = not lists.refused and (not missing or (args.accept_unavailable and missing <= gone))
    there = f"on disk: {on_disk:,} of {plural(requested, 'requested clip')}"
    if args.quiet and not processed:
        if not is_all:
            say(f"{there}; report: {report}")
    elif not args.quiet or not is_all:
        say_end(processed, len(plan.to_fetch), "clip")
        tally.say()
        say(there)
        if lists.refused:
            say(f"invalid: {plural(len(lists.refused), 'list row')} (`invalid` in the report)")
        say(report_line(report, out / REPORT_NAME))
        if missing and not is_all:
            say_next_steps(missing, gone, tally, context)
    code = exit_code(tally, out, is_all)
    if context.pace.problem and code in (EXIT_OK, EXIT_INCOMPLETE):
        raise UserError(context.pace.problem)
    return code


def say_next_steps(missing: int, gone: int, tally: DownloadTally, context: SourceContext) -> None:
    """Print the next command and what it does."""
    if context.pace.stop_on_block and context.pace.blocks and not context.pace.problem:
        say("YouTube blocks this address: wait an hour, or use --cookies, before you continue")
    if missing > gone:
        say_next(f"downloads the {plural(missing - gone, 'remaining clip')}")
    else:
        more = () if context.ask_again else ("--retry", "unavailable")
        say_next(f"retries {plural(gone, 'unavailable clip')}; nothing else is missing", *more)
    if tally.hopeless:
        say(f"the last {HOPELESS_AFTER} videos failed for the same reason:"
            f" {REASONS[tally.hopeless][1]}")  # fmt: skip
        say(f"find the broken step: {own_command('--check')}")
