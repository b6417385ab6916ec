"""Download the clips of Kinetics lists into one flat folder, each clip once, checked and resumable.

examples:
  python download.py clips --input_csv examples/kinetics_sample.csv
  python download.py clips --input_csv kinetics_csv --split val --n 8
  python download.py clips --input_csv kinetics_csv --shard 1/4 --cookies cookies.txt
  python download.py clips --dry_run
  python download.py clips --source clips:/data/k700,cvdf,youtube

The first one says what it will do, fetches, and ends like this:

  done after 0:00:13: 7 clips asked for
    downloaded 4 (4 from youtube)
      short 1: kept; the video, or the clip it was cut from, ends before the clip does
    unavailable 3
      past_end 1: the clip starts after the video ends
      private 1: private; only an account it is shared with sees it (--cookies)
      removed 1: taken down by its uploader or by YouTube
  on disk now: 4 of 7 wanted clips
  report: clips/download_report.csv
  next: python download.py clips --input_csv examples/kinetics_sample.csv --retry unavailable
        asks again for the 3 that are unavailable; nothing else is missing

Lists: youtube_id,time_start,time_end[,label,split,...]. Clips: <id>_<start>_<end>.mp4.
"""

from __future__ import annotations

import utils.early  # noqa: F401 (first: Ctrl-C while the rest is imported)

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from utils.cli import EXIT_OK, add_num_jobs, make_parser, run_script, say, teller
from utils.cluster import add_cluster_options, check_dask
from utils.download.chain import SourceSettings, ask_sources, make_source
from utils.download.check import check_steps, try_tools, verify
from utils.download.common import CHECK_ID, NOT_ASKED, FetchOptions, Run, Source, is_youtube
from utils.download.options import (
    add_fetch_options,
    add_list_options,
    add_picture_options,
    check_args,
    list_servers,
    videos_per_hour,
)
from utils.download.pace import Pace
from utils.download.plan import (
    DownloadTally,
    Plan,
    finish,
    make_plan,
    read_wanted,
    say_plan,
    tool_versions,
)
from utils.download.wanted import MirrorOptions
from utils.files import make_folder
from utils.lists.fetching import lists_at_hand
from utils.packages import check_packages
from utils.process import sleep, stop_on_signals
from utils.report import REPORT_NAME, RESULT_COLUMNS, Known, ReportFile, Result
from utils.run import Opened, open_run, watch
from utils.video.ffmpeg import Encode, find_ffmpeg
from utils.web import Web

PACKAGES = ("yt-dlp", "yt-dlp-ejs", "av", "ffmpeg-python", "joblib", "requests", "urllib3")
FOUND = "found on disk: the run that fetched it was killed before its line was written"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "", text_options=["--ytdlp_args"])
    parser.add_argument(
        "out",
        type=Path,
        nargs="?",
        help="the flat folder that the clips go to (--check: may be left out)",
    )
    add_list_options(parser)
    add_fetch_options(parser)
    add_picture_options(parser)
    group = parser.add_argument_group("what to do")
    add_num_jobs(group)
    add_cluster_options(group)
    group.add_argument("--dry_run", action="store_true", help="say what would be done, and end")
    group.add_argument(
        "--verify",
        action="store_true",
        help="first decode every wanted clip on disk whole; bad ones go to <out>/.bad/ and are"
        " fetched anew",
    )
    group.add_argument(
        "--retry",
        choices=["unavailable", "all"],
        help="ask again for clips that were unavailable, too; with `all` also read archives again"
        " that had nothing more to give (default: only failed ones, which are always asked for)",
    )
    group.add_argument(
        "--check",
        action="store_true",
        help="try every link of the chain once, say of each whether it is in order, and end",
    )
    group.add_argument(
        "--check_id",
        default=CHECK_ID,
        metavar="ID",
        help="a public video: what --check asks YouTube for, and a run that doubts its answers"
        " (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    check_args(parser, args)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.check:
        return check_steps(args, say)
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
        if args.verify:
            verify(lists, out, args)
        plan = make_plan(lists, out, args)
        sleep(0)
        if not args.quiet:
            say_plan(plan, out, args, tools)
        if args.dry_run:
            return EXIT_OK
        if plan.to_fetch:
            try_tools(args)
        cookies = [args.cookies.absolute()] if args.cookies else []
        report = out / REPORT_NAME
        with open_run(args, report, RESULT_COLUMNS, PACKAGES, cookies, args.shard) as opened:
            run, sources = make_run(args, out, opened, plan.known)
            tally = fetch(plan, run, sources, opened.report, args)
    return finish(plan, tally, run, args, opened.report.path)


def make_run(
    args: argparse.Namespace, out: Path, opened: Opened, known: Known
) -> tuple[Run, tuple[Source, ...]]:
    """What the sources share, and the sources themselves, in the order of --source."""
    encode = Encode(
        crf=args.crf,
        keyint=args.keyint,
        short_side=args.short_side,
        max_height=args.max_height or None,
        audio=not args.no_audio,
    )
    options = FetchOptions(
        out=out,
        workspace=opened.workspace,
        ffmpeg=find_ffmpeg(args.ffmpeg),
        encode=encode,
        cookies=args.cookies.absolute() if args.cookies else None,
        cookies_from_browser=args.cookies_from_browser,
        proxies=tuple(args.proxy),
        ytdlp_args=args.ytdlp_args,
        url_base=args.url_base,
        timeout=args.timeout,
        check_id=args.check_id,
    )
    pause, stops = args.block_pause * 60, args.on_block == "stop"
    pace = Pace(videos_per_hour(args), pause, stops, has_check=is_youtube(args.url_base))
    settings = SourceSettings(make_mirror(args), args.allow_partial)
    sources = tuple(make_source(name, settings) for name in args.source)
    again = bool(args.retry)
    return Run(options, opened.workers, pace, known, again), sources


def make_mirror(args: argparse.Namespace) -> MirrorOptions:
    return MirrorOptions(
        web=Web(tuple(args.proxy)),
        base=args.mirror_base,
        lists=list_servers(args),
        num_jobs=args.num_jobs,
        forget=args.retry == "all",
    )


def report_first(plan: Plan, report: ReportFile) -> None:
    """What is known before any source is asked: rows refused, and clips that a kill left unsaid."""
    for refused in plan.lists.refused:
        result = Result.of_refused(refused)
        if result.message not in plan.known.refused:
            report.append_result(result)
    for name in plan.known.unreported:
        report.append_result(Result.of(plan.lists.clips[name], "", "", message=FOUND))


def fetch(
    plan: Plan, run: Run, sources: Sequence[Source], report: ReportFile, args: argparse.Namespace
) -> DownloadTally:
    """Ask the sources for what is missing, and write down what becomes of each clip."""
    tally = DownloadTally()
    recorded: set[str] = set()

    def record(result: Result) -> None:
        # From the workers' threads: a line is one write, and whole whoever writes it.
        report.append_result(result)
        recorded.add(result.clip)

    report_first(plan, report)
    with (
        watch(len(plan.to_fetch), "clip", args.quiet, run.workers, run.pace.note) as progress,
        closing(ask_sources(plan.to_fetch, run, sources)) as results,
    ):
        if not args.quiet:
            run.tell = progress.say
        run.record = record
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
