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
        stops, has_check = args.on_block == "stop", sources.is_youtube(args.url_base)
        pace = Pace(plan.videos_per_hour(args), args.block_pause * 60, stops, has_check)
        tally = fetch(planned, opened, pace, args)
    return end_download(planned, tally, pace, args, opened.report.path)


def make_source(name: str, planned: plan.Plan, args: argparse.Namespace) -> sources.Source:
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
    return partial(youtube.from_youtube, gone=planned.gone)


def fetch(
    planned: plan.Plan, opened: run.Opened, pace: Pace, args: argparse.Namespace
) -> DownloadTally:
    """Request the missing clips from the sources, and write a line for each to the report."""
    own, total = opened.report, len(planned.to_fetch)
    tally, recorded = DownloadTally(), set[str]()

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
    options = sources.fetch_options(args, own.path.parent, opened.workspace)
    context = SourceContext(options, opened.workers, pace, record)
    chain = [make_source(name, planned, args) for name in args.source]
    with (
        report.VideosFile(own.path) if args.metadata else nullcontext() as context.videos,
        run.Progress(total, "clip", args.quiet, opened.workers) as progress,
        closing(sources.ask_sources(planned.to_fetch, context, chain)) as results,
    ):
        if not args.quiet:
            context.tell = progress.say
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
    """Also count clips per source and height, and stop if every further video would fail, too."""

    sources: Counter[str] = field(default_factory=Counter)
    heights: Counter[int] = field(default_factory=Counter)  # of the videos, 0 if unknown
    hopeless: str = ""  # what to do, if video after video fails for lasting reasons
    _lasting: dict[str, str] = field(default_factory=dict)  # video -> reason, of those in a row

    def add(self, outcome: Any) -> None:
        super().add(outcome)
        if outcome.is_on_disk:
            self.sources[outcome.source] += 1
            self.heights[outcome.height] += 1
        if outcome.reason not in LASTING:
            self._lasting.clear()
            return
        self._lasting[outcome.youtube_id] = outcome.reason
        if len(self._lasting) >= LASTING_AFTER:
            reasons = sorted(set(self._lasting.values()))
            self.hopeless = "; ".join(f"{each}: {REASONS[each][1]}" for each in reasons)
            STOP.set()

    def say(self, asked_height: int) -> None:
        """Print the counts by status and reason, and what each reason means.

        asked_height: videos with fewer lines are counted; 0 if any will do.
        """
        low = {n: self.heights[n] for n in sorted(self.heights) if 0 < n < asked_height}
        for status, count in self.statuses.most_common():
            came = ", ".join(f"{name} {number:,}" for name, number in self.sources.items())
            say(f"  {status} {count:,}" + (f" ({came})" if status == DOWNLOADED else ""))
            for line in self.reason_lines(REASONS, status):
                say(f"  {line}")
            if status == DOWNLOADED and low:
                clips, heights = sum(low.values()), (f"{low[n]:,} at {n}p" for n in low)
                share = f"{clips:,} ({clips / count:.0%})"
                say(f"    below {asked_height}p {share}: {', '.join(heights)}")


def end_download(
    planned: plan.Plan, tally: DownloadTally, pace: Pace, args: argparse.Namespace, path: Path
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
        heights = [args.short_side, args.max_height] if not args.audio_only else []
        tally.say(min(filter(None, heights), default=0))
        say(f"on disk: {on_disk:,} of {plural(requested, 'requested clip')}")
        if lists.refused:
            say(f"invalid: {plural(len(lists.refused), 'list row')} (`invalid` in the report)")
        say(report.report_line(path, out / report.REPORT_NAME))
        if missing and not is_all:
            say_next_steps(missing, gone, tally, pace, args)
    code = run.exit_code(tally, out, is_all)
    if pace.problem and code in (EXIT_OK, EXIT_INCOMPLETE):
        raise UserError(pace.problem)
    return code


def say_next_steps(
    missing: int, gone: int, tally: DownloadTally, pace: Pace, args: argparse.Namespace
) -> None:
    """Print the next command and what it does."""
    if pace.stop_on_block and pace.blocks and not pace.problem:
        say("YouTube blocks this address: wait an hour, or use --cookies, before you continue")
    if missing > gone:
        run.say_next(f"downloads the {plural(missing - gone, 'remaining clip')}")
    else:
        more = () if args.retry else ("--retry", "unavailable")
        run.say_next(f"retries {plural(gone, 'unavailable clip')}; nothing else is missing", *more)
    if tally.hopeless:
        say(f"{LASTING_AFTER} videos in a row failed: {tally.hopeless}")
        say(f"find the broken step: {run.own_command('--check')}")


if __name__ == "__main__":
    run_script(main)
