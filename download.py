#!/usr/bin/env python3
r"""Download the clips of Kinetics lists into one flat folder: once each, checked.

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
from collections.abc import Sequence
from contextlib import closing, nullcontext

from utils.cli import EXIT_OK, run_script, teller
from utils.clip import Result
from utils.cluster import check_dask
from utils.download.archives import MirrorOptions
from utils.download.check import check_steps, try_tools, verify
from utils.download.options import (
    clip_settings,
    clip_suffix,
    fetch_options,
    list_servers,
    parse_args,
    videos_per_hour,
)
from utils.download.pace import Pace
from utils.download.plan import (
    DownloadTally,
    Plan,
    end_download,
    make_plan,
    read_wanted,
    say_download_plan,
    tool_versions,
)
from utils.download.sources import (
    NOT_ASKED,
    Source,
    SourceContext,
    ask_sources,
    is_youtube,
    make_source,
)
from utils.files import make_folder
from utils.lists.official import lists_at_hand
from utils.process import sleep, stop_on_signals
from utils.report import REPORT_NAME, RESULT_COLUMNS, Known, ReportFile, VideosFile
from utils.run import Opened, has_settings, open_run, show_progress, write_settings
from utils.video.ffmpeg import find_ffmpeg

PACKAGES = ("yt-dlp", "yt-dlp-ejs", "av", "ffmpeg-python", "joblib", "requests", "urllib3")
SETTINGS_NAME = ".clips_settings.json"
FOUND = "found on disk: the run that downloaded it was killed before it wrote this line"


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(__doc__ or "", argv)
    if args.check:
        return check_steps(args)
    check_packages(*PACKAGES)
    check_dask(args)
    with stop_on_signals():
        paths = lists_at_hand(args.input_csv, list_servers(args), args.dry_run, teller(args.quiet))
        if paths is None:
            return EXIT_OK
        lists = read_wanted(paths, args)
        out = args.out.absolute()
        tools = tool_versions(find_ffmpeg(args.ffmpeg).version)
        if not args.dry_run:
            make_folder(out)
        suffix = clip_suffix(args)
        settings = out / (f".sound_settings{suffix}.json" if args.audio_only else SETTINGS_NAME)
        if has_clips := any(out.glob(f"*{suffix}")):
            has_settings(settings, clip_settings(args), "clips")
        if args.verify:
            verify(lists, out, args)
        plan = make_plan(lists, out, args)
        sleep(0)
        if not args.quiet:
            say_download_plan(plan, out, args, tools)
        if args.dry_run:
            return EXIT_OK
        if plan.to_fetch:
            try_tools(args)
        cookies = [args.cookies.absolute()] if args.cookies else []
        report = out / REPORT_NAME
        with open_run(args, report, RESULT_COLUMNS, PACKAGES, cookies, args.shard) as opened:
            if not has_clips:  # how clips of an older version were made is not known
                write_settings(settings, opened.workspace, clip_settings(args))
            context, sources = open_sources(args, opened, plan.known)
            tally = fetch(plan, context, sources, opened.report, args)
    return end_download(plan, tally, context, args, opened.report.path)


def open_sources(
    args: argparse.Namespace, opened: Opened, known: Known
) -> tuple[SourceContext, tuple[Source, ...]]:
    """The settings that all sources share, and the sources in the order of --source."""
    options = fetch_options(args, opened.report.path.parent, opened.workspace)
    mirror = MirrorOptions(args.mirror_base, list_servers(args), reread=args.retry == "all")
    pause, stops = args.block_pause * 60, args.on_block == "stop"
    pace = Pace(videos_per_hour(args), pause, stops, has_check=is_youtube(args.url_base))
    context = SourceContext(options, opened.workers, pace, known, bool(args.retry))
    return context, tuple(make_source(name, mirror, args.allow_partial) for name in args.source)


def fetch(
    plan: Plan,
    context: SourceContext,
    sources: Sequence[Source],
    report: ReportFile,
    args: argparse.Namespace,
) -> DownloadTally:
    """Request the missing clips from the sources, and write a line for each to the report."""
    heights = [each for each in (args.short_side, args.max_height) if each and not args.audio_only]
    tally = DownloadTally(asked_height=min(heights, default=0))
    recorded: set[str] = set()

    def record(result: Result) -> None:
        # Called from the workers' threads: each line is one write.
        report.append_result(result)
        recorded.add(result.clip)

    for refused in plan.lists.refused:
        result = Result.of_refused(refused)
        if result.message not in plan.known.refused:
            report.append_result(result)
    for name in plan.known.unreported:
        report.append_result(Result.of(plan.lists.clips[name], "", "", message=FOUND))
    with (
        VideosFile(report.path) if args.metadata else nullcontext() as context.videos,
        show_progress(
            len(plan.to_fetch), "clip", args.quiet, context.workers, context.pace.note
        ) as progress,
        closing(ask_sources(plan.to_fetch, context, sources)) as results,
    ):
        if not args.quiet:
            context.tell = progress.say
        context.record = record
        for result in results:
            tally.add(result)
            progress.add(result.status)
            if result.message == NOT_ASKED:
                continue  # the report has it
            if result.clip not in recorded:
                report.append_result(result)
            if not result.is_on_disk:
                progress.failure(result.reason, result.clip, result.message)
            elif args.verbose:
                progress.say(f"{result.clip}: {result.seconds:.1f} s, {result.bytes:,} bytes")
    return tally


if __name__ == "__main__":
    run_script(main)
