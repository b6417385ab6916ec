#!/usr/bin/env python3
r"""Download the clips of lists into one flat folder, each clip once and checked.

examples:
  python download.py clips --input_csv examples/kinetics_sample.csv
  python download.py clips --input_csv kinetics-700_2020_val --n 8
  python download.py clips --source cvdf,youtube --input_csv \
      kinetics-400_train
  python download.py clips --shard 1/4 --cookies cookies.txt
  python download.py clips --dry_run

The first command prints a plan, downloads, and ends with a summary:

  finished in 0:00:13: 7 of 7 clips processed
    downloaded 4 (youtube 4)
    unavailable 3
      past_end 1: the clip starts after the end of the video
      ...
  on disk: 4 of 7 requested clips
  report: clips/download_report.csv
  next: python download.py clips --input_csv examples/kinetics_sample.csv
        --retry unavailable
        retries 3 unavailable clips; nothing else is missing

Lists: youtube_id,time_start,time_end[,label,split,...]. Clips:
<youtube_id>_<start>_<end>.mp4; with --audio_only .m4a, .wav or .flac.
"""

from __future__ import annotations

from utils.errors import check_packages  # isort: skip (first: Ctrl-C while the rest is imported)

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from utils import report, run
from utils.cli import EXIT_INCOMPLETE, EXIT_OK, plural, run_script, say, teller
from utils.clip import DOWNLOADED, REASONS, UNAVAILABLE, Result
from utils.cluster import check_dask
from utils.download import archives, check, disk, plan, sources, youtube
from utils.download.pace import Pace
from utils.download.sources import SourceContext
from utils.errors import UserError
from utils.files import make_folder, names_in
from utils.lists.official import lists_at_hand
from utils.process import STOP, sleep

PACKAGES = ("yt-dlp", "yt-dlp-ejs", "av", "ffmpeg-python", "joblib", "requests", "urllib3")
SETTINGS_NAME = ".clips_settings.json"
VIDEO_SETTINGS = ("max_height", "short_side", "keyint", "no_audio")
FOUND = "found on disk: the run that downloaded it was killed before it wrote this line"
# Reasons that every further video would have, too: after so many in a row the run stops.
LASTING, LASTING_AFTER = ("cookies", "js_runtime"), 5


def main(argv: Sequence[str] | None = None) -> int:
    args = plan.parse_args(__doc__ or "", argv)
    if args.check:
        return check.check_steps(args)
    check_packages(*PACKAGES)
    check_dask(args)
    servers, tell = plan.list_servers(args), teller(args.quiet)
    paths = lists_at_hand(args.input_csv, servers, args.dry_run, tell)
    if paths is None:
        return EXIT_OK
    lists = plan.read_wanted(paths, args)
    out = args.out.absolute()
    tools = check.tool_versions(args)
    if not args.dry_run:
        make_folder(out)
    suffix = sources.clip_suffix(args)
    # Options that make two clips of one name different.
    names = ("sample_rate",) if args.audio_only else VIDEO_SETTINGS
    settings = {name: getattr(args, name) for name in names}
    kept = out / (f".sound_settings{suffix}.json" if args.audio_only else SETTINGS_NAME)
    if has_clips := any(out.glob(f"*{suffix}")):
        run.has_settings(kept, settings, "clips")
    if args.verify:
        check.verify(lists, out, args)
    planned = plan.make_plan(lists, out, args)
    sleep(0)
    if not args.quiet:
        plan.say_download_plan(planned, out, args, tools)
    if args.dry_run:
        return EXIT_OK
    if planned.to_fetch:
        check.try_tools(args)
    cookies = [args.cookies.absolute()] if args.cookies else []
    main_report, columns = out / report.REPORT_NAME, report.RESULT_COLUMNS
    with run.open_run(args, main_report, columns, PACKAGES, cookies, args.shard) as opened:
        if not has_clips:  # how clips of an older version were made is not known
            kept.unlink(missing_ok=True)
            run.write_settings(kept, opened.workspace, settings, "clips")
        options = sources.fetch_options(args, out, opened.workspace)
        pause, stops = args.block_pause * 60, args.on_block == "stop"
        has_check = sources.is_youtube(args.url_base)
        pace = Pace(plan.videos_per_hour(args), pause, stops, has_check=has_check)
        retry = bool(args.retry)
        context = SourceContext(options, opened.workers, pace, planned.known, retry)
        tally = fetch(planned, context, opened.report, args)
    return end_download(planned, tally, context, args, opened.report.path)


def make_source(name: str, args: argparse.Namespace) -> sources.Source:
    """Return the source of a name in --source."""
    if name.startswith(sources.CLIPS):
        folders = sources.folders_of(name)
        return partial(disk.from_disk, folders=folders, allow_partial=args.allow_partial)
    if name.startswith(sources.TAR):
        return partial(archives.from_tars, place=name.removeprefix(sources.TAR))
    if name == "cvdf":
        reread = args.retry == "all"
        mirror = archives.MirrorOptions(args.mirror_base, plan.list_servers(args), reread=reread)
        return partial(archives.from_mirror, mirror=mirror)
    return youtube.from_youtube


def fetch(
    planned: plan.Plan, context: SourceContext, own: report.ReportFile, args: argparse.Namespace
) -> DownloadTally:
    """Request the missing clips from the sources, and write a line for each to the report."""
    heights = [each for each in (args.short_side, args.max_height) if each and not args.audio_only]
    tally = DownloadTally(asked_height=min(heights, default=0))
    recorded: set[str] = set()

    def record(result: Result) -> None:
        # Called from the workers' threads: each line is one write.
        own.append_result(result)
        recorded.add(result.clip)

    for refused in planned.lists.refused:
        invalid = Result.of_refused(refused)
        if invalid.message not in planned.known.refused:
            own.append_result(invalid)
    for name in planned.known.unreported:
        own.append_result(Result.of(planned.lists.clips[name], "", "", message=FOUND))
    chain = [make_source(name, args) for name in args.source]
    with (
        report.VideosFile(own.path) if args.metadata else nullcontext() as context.videos,
        run.Progress(len(planned.to_fetch), "clip", args.quiet, context.workers) as progress,
        closing(sources.ask_sources(planned.to_fetch, context, chain)) as results,
    ):
        if not args.quiet:
            context.tell = progress.say
        context.record = record
        for result in results:
            tally.add(result)
            progress.add(result.status)
            if result.message == sources.NOT_ASKED:
                continue  # the report has it
            if result.clip not in recorded:
                own.append_result(result)
            if not result.is_on_disk:
                progress.failure(result.reason, result.clip, result.message)
            elif args.verbose:
                progress.say(f"{result.clip}: {result.seconds:.1f} s, {result.bytes:,} bytes")
    return tally


# --- the end -------------------------------------------------------------------------------------


@dataclass
class DownloadTally(run.Tally):
    """Also count clips per source, and stop if video after video fails for a lasting reason."""

    asked_height: int = 0  # pixels; 0: any
    low: Counter[int] = field(default_factory=Counter)  # clips of lower videos, by their height
    sources: Counter[str] = field(default_factory=Counter)
    hopeless: str = ""  # the lasting reason
    _failed_in_a_row: set[str] = field(default_factory=set)  # videos

    def add(self, outcome: Any) -> None:
        super().add(outcome)
        if outcome.is_on_disk:
            self.sources[outcome.source] += 1
            if 0 < outcome.height < self.asked_height:
                self.low[outcome.height] += 1
        if outcome.reason not in LASTING:
            self._failed_in_a_row.clear()
            return
        self._failed_in_a_row.add(outcome.youtube_id)
        if len(self._failed_in_a_row) >= LASTING_AFTER:
            self.hopeless = outcome.reason
            STOP.set()

    def say(self) -> None:
        """Print the counts by status and reason, and what each reason means."""
        for status, count in self.statuses.most_common():
            came = ", ".join(f"{name} {number:,}" for name, number in self.sources.items())
            say(f"  {status} {count:,}" + (f" ({came})" if status == DOWNLOADED else ""))
            for line in self.reason_lines(REASONS, status):
                say(f"  {line}")
            if status == DOWNLOADED and self.low:
                low, most = self.low.total(), self.asked_height
                heights = ", ".join(f"{n:,} at {height}p" for height, n in sorted(self.low.items()))
                say(f"    below {most}p {low:,} ({low / count:.0%}): {heights}")


def end_download(
    planned: plan.Plan,
    tally: DownloadTally,
    context: SourceContext,
    args: argparse.Namespace,
    path: Path,
) -> int:
    """Print the summary and the next command; return the exit code. Raises DiskFull, UserError."""
    out, lists, requested = path.parent, planned.lists, len(planned.lists.clips)
    # The folder counts, whatever this run counted.
    on_disk = len(lists.clips.keys() & names_in(out, sources.clip_suffix(args)))
    missing, processed = requested - on_disk, sum(tally.statuses.values())
    gone = tally.statuses[UNAVAILABLE] + planned.skipped
    is_all = not lists.refused and (not missing or (args.accept_unavailable and missing <= gone))
    if not args.quiet or not is_all:
        run.say_end(processed, len(planned.to_fetch), "clip")
        tally.say()
        say(f"on disk: {on_disk:,} of {plural(requested, 'requested clip')}")
        if lists.refused:
            say(f"invalid: {plural(len(lists.refused), 'list row')} (`invalid` in the report)")
        say(report.report_line(path, out / report.REPORT_NAME))
        if missing and not is_all:
            say_next_steps(missing, gone, tally, context)
    code = run.exit_code(tally, out, is_all)
    if context.pace.problem and code in (EXIT_OK, EXIT_INCOMPLETE):
        raise UserError(context.pace.problem)
    return code


def say_next_steps(missing: int, gone: int, tally: DownloadTally, context: SourceContext) -> None:
    """Print the next command and what it does."""
    if context.pace.stop_on_block and context.pace.blocks and not context.pace.problem:
        say("YouTube blocks this address: wait an hour, or use --cookies, before you continue")
    if missing > gone:
        run.say_next(f"downloads the {plural(missing - gone, 'remaining clip')}")
    else:
        more = () if context.ask_again else ("--retry", "unavailable")
        run.say_next(f"retries {plural(gone, 'unavailable clip')}; nothing else is missing", *more)
    if tally.hopeless:
        meaning = REASONS[tally.hopeless][1]
        say(f"the last {LASTING_AFTER} videos failed for the same reason: {meaning}")
        say(f"find the broken step: {run.own_command('--check')}")


if __name__ == "__main__":
    run_script(main)
