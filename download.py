"""Download the clips of Kinetics lists into one flat folder, each clip once, checked and resumable.

examples:
  python download.py clips --input_csv examples/kinetics_sample.csv
  python download.py clips --input_csv kinetics_csv --split val --n 8
  python download.py clips --input_csv kinetics_csv --shard 1/4 --cookies cookies.txt
  python download.py clips --dry_run
  python download.py clips --source clips:/data/k700,cvdf,youtube

The first one says what it will do, fetches, and ends like this:

  done after 0:00:13, 7 clips asked for
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
import difflib
import re
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path

from utils.cli import (
    EXIT_INCOMPLETE,
    EXIT_OK,
    UserError,
    add_num_jobs,
    make_parser,
    non_negative_float,
    positive_int,
    run_script,
    say,
)
from utils.clip import Clip, by_video, clip_window, trim_format
from utils.files import (
    DiskFull,
    free_bytes,
    make_folder,
    names_in,
    run_folder,
    set_aside,
)
from utils.lists.fetching import ListServers, fetch_needed
from utils.lists.official import CVDF, needed_lists
from utils.lists.reading import ClipLists, Selection, find_lists, read_lists, same_split
from utils.packages import check_packages
from utils.parallel import run_parallel
from utils.process import STOP, Stopped, received_signal, stop_on_signals, stop_run
from utils.progress import Progress, clock, plural
from utils.report import (
    DOWNLOADED,
    FAILED,
    REASONS,
    REPORT_NAME,
    RESULT_COLUMNS,
    UNAVAILABLE,
    Known,
    ReportFile,
    Result,
    Tally,
    read_known,
    read_shorts,
)
from utils.sources.archives import MirrorOptions
from utils.sources.common import YOUTUBE, YOUTUBE_NAMES, FetchOptions, is_youtube
from utils.sources.disk import get_clip, index_clips
from utils.sources.mirror import fetch_from_mirror
from utils.sources.pace import Pace
from utils.sources.youtube import SectionLuck, fetch_video
from utils.sources.youtube_commands import split_words
from utils.video.checks import check_complete, check_length, decode_whole
from utils.video.ffmpeg import Encode, find_ffmpeg
from utils.video.probe import BadClip, probe
from utils.web import Web

BAD_FOLDER = ".bad"
NOT_ASKED = "known from an earlier run"
REFUSED_SHOWN = 10
GUEST_PER_HOUR, ACCOUNT_PER_HOUR = 300, 2000  # what YouTube lets through before it blocks


@dataclass(frozen=True)
class Plan:
    """What there is to do, decided before anything is done."""

    lists: ClipLists
    num_lists: int
    on_disk: set[str]
    known: Known
    to_fetch: tuple[Clip, ...]
    not_again: int  # known to be unavailable, and not asked for again


@dataclass
class Run:
    """What the sources share while a run lasts."""

    options: FetchOptions
    num_jobs: int
    pace: Pace
    known: Known  # what the report says of clips that are not on disk
    ask_again: bool = False  # --retry
    mirror: MirrorOptions | None = None
    allow_partial: bool = False
    tell: Callable[[str], None] = lambda text: None  # a line for the user, from the main thread
    record: Callable[[Result], None] | None = None  # a clip that is on disk, at once
    luck: SectionLuck = field(default_factory=SectionLuck)


# A source takes the clips that are still wanted, and yields a result for each, as they come.
Source = Callable[[Sequence[Clip], Run], Generator[Result, None, None]]


def from_youtube(clips: Sequence[Clip], run: Run) -> Generator[Result, None, None]:
    """The source `youtube`: one task a video, on threads, for the work is in child processes."""

    def fetch(task: tuple[int, tuple[Clip, ...]]) -> list[Result]:
        number, group = task
        return fetch_video(group, run.options, run.pace, run.luck, number, run.record)

    asked = []
    for clip in clips:
        if run.ask_again or not is_gone(clip, run.known, run.options.source_name):
            asked.append(clip)
        else:
            reason = run.known.reasons[clip.name][1]
            yield Result.of(clip, reason, run.options.source_name, message=NOT_ASKED)
    for results in run_parallel(fetch, enumerate(by_video(asked)), run.num_jobs):
        yield from results


def from_disk(
    clips: Sequence[Clip], run: Run, folders: tuple[Path, ...], name: str
) -> Generator[Result, None, None]:
    """The source `clips:DIR[:DIR...]`."""
    index = index_clips(folders, frozenset(clip.youtube_id for clip in clips))

    def get(clip: Clip) -> Result:
        return get_clip(clip, index, run.options, name, run.allow_partial)

    yield from run_parallel(get, clips, run.num_jobs)


def from_mirror(clips: Sequence[Clip], run: Run) -> Generator[Result, None, None]:
    """The source `cvdf`."""
    assert run.mirror is not None
    with suppress(Stopped):
        yield from fetch_from_mirror(clips, run.options, run.mirror, run.tell)


def ask_sources(
    clips: Sequence[Clip], run: Run, sources: Sequence[tuple[str, Source]]
) -> Generator[Result, None, None]:
    """Every clip from the first source that has it; one result for each, the most telling one."""
    answers: dict[str, Result] = {}
    for number, (_, source) in enumerate(sources, 1):
        left = [c for c in clips if number == 1 or c.name in answers]
        if not left or STOP.is_set():
            return
        with closing(source(left, run)) as results:
            for result in results:
                before = answers.pop(result.clip, None)
                if before is not None and not result.is_on_disk:
                    result = more_telling(before, result)
                if result.is_on_disk or number == len(sources) or result.reason == "disk_full":
                    yield result
                else:
                    answers[result.clip] = result


def more_telling(earlier: Result, later: Result) -> Result:
    """Which of two sources' answers for a clip that neither gave goes into the report.

    First what another try may mend, then YouTube's own reason, then a copy that is damaged, and
    only then that a source does not hold the clip.
    """

    def weight(result: Result) -> int:
        if result.reason in ("truncated", "undecodable"):
            return 1
        if result.status == UNAVAILABLE:
            return 2 if result.source in YOUTUBE_NAMES else 0
        return 3

    return earlier if weight(earlier) > weight(later) else later


def is_gone(clip: Clip, known: Known, source: str) -> bool:
    """Whether `source` once said that it will never have the clip."""
    return known.status(clip) == UNAVAILABLE and known.reasons[clip.name][2] == source


SOURCES: dict[str, Source] = {"youtube": from_youtube, "cvdf": from_mirror}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "", text_options=["--ytdlp_args"])
    parser.add_argument("out", type=Path, help="the flat folder that the clips go to")
    add_list_options(parser)
    add_fetch_options(parser)
    add_picture_options(parser)
    group = parser.add_argument_group("what to do")
    add_num_jobs(group)
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
    args = parser.parse_args(argv)
    check_args(parser, args)
    return args


def add_list_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which clips")
    group.add_argument(
        "--input_csv",
        nargs="+",
        type=Path,
        default=[Path("kinetics_csv")],
        metavar="LIST",
        help="lists, and folders of lists (*.csv); an official one that is not there is fetched",
    )
    group.add_argument(
        "--label", nargs="+", default=[], metavar="LABEL", help="only these labels, in any case"
    )
    group.add_argument(
        "--split", nargs="+", default=[], metavar="SPLIT", help="only these splits; val is validate"
    )
    group.add_argument("--limit", type=positive_int, metavar="N", help="only the first N clips")
    group.add_argument(
        "--shard",
        type=shard,
        default=(1, 1),
        metavar="I/N",
        help="only part I of N, counted from 1, for machines that share the work (default: 1/1)",
    )
    group.add_argument(
        "--trim_format",
        type=trim_format,
        default="%06d",
        help="how times are written in file names (default: %%06d)",
    )


def add_fetch_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where from")
    group.add_argument(
        "--source",
        type=parse_sources,
        default="youtube",
        metavar="LIST",
        help="where clips come from, in this order: youtube, cvdf (the archives of the CVDF"
        " mirror), clips:DIR[:DIR...] (clips on disk), separated by commas",
    )
    group.add_argument(
        "--allow_partial",
        action="store_true",
        help="with clips:DIR: keep what is there of an AVA-Kinetics clip, if its key frame is",
    )
    group.add_argument(
        "--mirror_base",
        default=CVDF,
        metavar="URL",
        help="where the mirror is; another one needs the same layout",
    )
    group.add_argument(
        "--lists_base",
        metavar="URL",
        help="a server of the official lists (default: DeepMind's, then CVDF's)",
    )
    group = parser.add_argument_group("how to fetch")
    group.add_argument(
        "--videos_per_hour",
        type=non_negative_float,
        metavar="N",
        help=f"start at most N videos an hour, 0 for no limit (default: {GUEST_PER_HOUR} from"
        f" YouTube as a guest, {ACCOUNT_PER_HOUR} with cookies, none from another --url_base)",
    )
    group.add_argument(
        "--on_block",
        choices=["wait", "stop"],
        default="wait",
        help="when YouTube blocks: wait and go on, or stop the run",
    )
    group.add_argument(
        "--block_pause",
        type=non_negative_float,
        default=15.0,
        metavar="MINUTES",
        help="the first pause after a block; doubles up to four times that",
    )
    group.add_argument("--cookies", type=Path, metavar="FILE", help="cookies in Netscape format")
    group.add_argument(
        "--cookies_from_browser", metavar="BROWSER", help="cookies from a browser, as yt-dlp does"
    )
    group.add_argument(
        "--proxy",
        action="append",
        default=[],
        metavar="URL",
        help="a proxy; give it again for more, workers take turns",
    )
    group.add_argument(
        "--ytdlp_args", default="", metavar="ARGS", help='more arguments for yt-dlp, in one "..."'
    )
    group.add_argument("--ffmpeg", metavar="PATH", help="ffmpeg to use (default: the wheel's)")
    group.add_argument(
        "--url_base", default=YOUTUBE, metavar="URL", help="the address to which an id is added"
    )
    group.add_argument(
        "--timeout",
        type=non_negative_float,
        default=600.0,
        metavar="SECONDS",
        help="give up a clip after this long, all tries included, pauses not",
    )


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("picture and sound")
    group.add_argument(
        "--max_height", type=int, default=480, metavar="N", help="at most N lines; 0 for no bound"
    )
    group.add_argument(
        "--short_side", type=positive_int, metavar="N", help="scale the shorter side down to N"
    )
    group.add_argument(
        "--keyint", type=positive_int, metavar="N", help="a key frame every N frames"
    )
    group.add_argument("--no_audio", action="store_true", help="leave the sound out")
    group.add_argument(
        "--crf",
        type=int,
        default=Encode.crf,
        metavar="N",
        help="x264's quality, 0 (lossless) to 51",
    )


def check_args(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """What argparse cannot say by itself; ends with exit code 2."""
    if args.cookies:
        try:
            args.cookies.open("rb").close()
        except OSError as error:
            parser.error(f"--cookies {args.cookies}: {error.strerror}")
    for option in ("url_base", "mirror_base", "lists_base"):
        address = getattr(args, option)
        if address is not None and not re.match(r"https?://.", address):
            parser.error(f"--{option} {address}: an address begins with http:// or https://")
    for proxy in args.proxy:
        if not re.match(r"(https?|socks\w*)://.", proxy):
            parser.error(f"--proxy {proxy}: write http://HOST:PORT or socks5://HOST:PORT")
    if args.max_height < 0 or args.timeout <= 0 or not 0 <= args.crf <= 51:
        parser.error("--max_height is 0 or more, --timeout more than 0, --crf within 0 and 51")
    if args.block_pause <= 0:
        parser.error("--block_pause is more than 0")
    if args.short_side is not None and args.short_side < 16:
        parser.error("--short_side is 16 or more")
    try:
        args.ytdlp_args = split_words(args.ytdlp_args)
    except ValueError as error:
        parser.error(f"--ytdlp_args: {error}".lower())


def shard(text: str) -> tuple[int, int]:
    """An argparse type: `2/4` is the second of four parts."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 1/4")
    return int(found[1]), int(found[2])


def parse_sources(text: str) -> list[tuple[str, Source]]:
    """An argparse type: `clips:/a:/b,cvdf,youtube` as names and sources, in that order."""
    sources: list[tuple[str, Source]] = []
    # Only a comma before another source separates: a folder's name may hold one.
    for name in re.split(r",(?=clips:|cvdf(?:,|$)|youtube(?:,|$))", text):
        if name.startswith("clips:"):
            folders = tuple(Path(folder) for folder in name[len("clips:") :].split(":"))
            for folder in folders:
                if not folder.is_dir():
                    raise argparse.ArgumentTypeError(f"{name}: {folder} is not a folder")
            sources.append((name, partial(from_disk, folders=folders, name="clips")))
        elif name in SOURCES:
            sources.append((name, SOURCES[name]))
        else:
            known = ", ".join([*SOURCES, "clips:DIR"])
            raise argparse.ArgumentTypeError(f"{name!r} is no source; there are {known}")
    names = [name for name, _ in sources]
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} names a source twice")
    return sources


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages("yt-dlp", "yt-dlp-ejs", "av", "ffmpeg-python", "joblib", "requests", "urllib3")
    started = time.monotonic()
    if not ensure_lists(args):
        return 128 + received_signal() if STOP.is_set() else EXIT_OK
    lists = read_wanted(args)
    out = args.out.absolute()
    tools = tool_versions(find_ffmpeg(args.ffmpeg).version)
    if not args.dry_run:
        make_folder(out)
    with stop_on_signals():
        if args.verify:
            verify(lists, out, args)
        plan = make_plan(lists, out, args)
        if STOP.is_set():
            return 128 + received_signal()
        if not args.quiet:
            say_plan(plan, out, args, tools)
        if args.dry_run:
            return EXIT_OK
        with run_folder(out) as workspace, ReportFile(out / REPORT_NAME, RESULT_COLUMNS) as report:
            run = make_run(args, out, workspace, plan.known)
            tally = fetch(plan, run, report, args)
    return finish(plan, tally, run, args, out, time.monotonic() - started)


def ensure_lists(args: argparse.Namespace) -> bool:
    """Fetch official lists that are wanted and not there; whether the run can go on.

    Raises UserError where one could not be had.
    """
    needed = needed_lists(args.input_csv)
    args.input_csv = needed.paths
    if needed.missing and args.dry_run:
        for each, folder in needed.missing:
            say(f"would fetch the list {each.name} into {folder}")
        return False
    if needed.missing:
        with stop_on_signals(), suppress(Stopped):
            fetch_needed(needed, list_servers(args), quiet_say(args))
    return not STOP.is_set()


def list_servers(args: argparse.Namespace) -> ListServers:
    return ListServers(Web(tuple(args.proxy)), args.lists_base)


def quiet_say(args: argparse.Namespace) -> Callable[[str], None]:
    return (lambda text: None) if args.quiet else say


def read_wanted(args: argparse.Namespace) -> ClipLists:
    """The clips that lists and options ask for. Raises UserError when they ask for none."""
    args.lists = find_lists(args.input_csv)
    selection = Selection(
        labels=frozenset(label.casefold() for label in args.label),
        splits=frozenset(same_split(split) for split in args.split),
        shard=args.shard,
        limit=args.limit,
    )
    lists = read_lists(args.lists, selection, args.trim_format)
    if lists.rows == 0:
        raise UserError(f"no row in {', '.join(map(str, args.lists))}: nothing to download")
    for option, asked, seen in (
        ("--label", args.label, lists.labels_seen),
        ("--split", args.split, lists.splits_seen),
    ):
        for word in asked:
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
    # With all there and nothing refused, the report has nothing to tell.
    known = read_known(out / REPORT_NAME) if missing or lists.refused else Known()
    again = missing
    if not args.retry and [name for name, _ in args.source] == ["youtube"]:
        again = [clip for clip in missing if not is_gone(clip, known, youtube_name(args))]
    return Plan(lists, len(args.lists), on_disk, known, tuple(again), len(missing) - len(again))


def youtube_name(args: argparse.Namespace) -> str:
    return YOUTUBE_NAMES[not is_youtube(args.url_base)]


def videos_per_hour(args: argparse.Namespace) -> float:
    if args.videos_per_hour is not None:
        return float(args.videos_per_hour)
    if not is_youtube(args.url_base):
        return 0.0
    return ACCOUNT_PER_HOUR if args.cookies or args.cookies_from_browser else GUEST_PER_HOUR


def say_plan(plan: Plan, out: Path, args: argparse.Namespace, tools: str) -> None:
    """The statement before any work."""
    lists, videos = plan.lists, len({clip.youtube_id for clip in plan.to_fetch})
    repeats = lists.rows - len(lists.refused) - lists.not_wanted - len(lists.clips)
    before = Counter(plan.known.status(clip) for clip in plan.to_fetch)
    sources = [name for name, _ in args.source]
    rate = videos_per_hour(args)
    pace = f"at most {rate:,.0f} videos an hour" if rate else "no limit of pace"
    if rate and videos and sources == ["youtube"]:
        pace += f", so {clock(videos / rate * 3600)} or more"
    again = "asked for again" if args.retry else "not asked for again without --retry unavailable"
    if not args.retry and sources != ["youtube"]:
        again = "asked for at the other sources; at YouTube only with --retry unavailable"
    unavailable = plan.not_again or before[UNAVAILABLE]
    say(f"lists        {plural(plan.num_lists, 'file')}, {plural(lists.rows, 'row')}")
    say(f"clips        {len(lists.clips):,} wanted, {plural(repeats, 'repeat')} left out")
    if lists.not_wanted:
        say(f"             {plural(lists.not_wanted, 'row')} not selected")
    say_refused(lists)
    if lists.relabelled:
        say(f"labels       {plural(lists.relabelled, 'row')} give a clip another label than before")
    say(f"on disk      {len(plan.on_disk):,}")
    say(f"unavailable  {unavailable:,} known" + (f", {again}" if unavailable else ""))
    say(f"to fetch     {plural(len(plan.to_fetch), 'clip')} of {plural(videos, 'video')}")
    if before[FAILED]:
        say(f"             {before[FAILED]:,} of them failed before")
    say(f"sources      {', '.join(sources)}")
    say(f"pace         {plural(args.num_jobs, 'job')}{', ' + pace if 'youtube' in sources else ''}")
    say(f"output       {out} ({free_bytes(out) / 1e9:,.1f} GB free)")
    say(f"tools        {tools}")
    say("stop         Ctrl-C; the same command goes on from there")


def say_refused(lists: ClipLists) -> None:
    say(f"refused      {plural(len(lists.refused), 'row')}")
    for refused in lists.refused[:REFUSED_SHOWN]:
        say(f"             {refused}")
    if len(lists.refused) > REFUSED_SHOWN:
        say(
            f"             and {len(lists.refused) - REFUSED_SHOWN:,} more: see the report, invalid"
        )


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
            versions.append(f"deno {other}" if other else "no deno: YouTube needs one (README)")
    return ", ".join(versions)


def make_run(args: argparse.Namespace, out: Path, workspace: Path, known: Known) -> Run:
    encode = Encode(
        crf=args.crf,
        keyint=args.keyint,
        short_side=args.short_side,
        max_height=args.max_height or None,
        audio=not args.no_audio,
    )
    options = FetchOptions(
        out=out,
        workspace=workspace,
        ffmpeg=find_ffmpeg(args.ffmpeg),
        encode=encode,
        cookies=args.cookies.absolute() if args.cookies else None,
        cookies_from_browser=args.cookies_from_browser,
        proxies=tuple(args.proxy),
        ytdlp_args=args.ytdlp_args,
        url_base=args.url_base,
        timeout=args.timeout,
    )
    pace = Pace(videos_per_hour(args), args.block_pause * 60, args.on_block == "stop")
    mirror = MirrorOptions(
        web=Web(options.proxies),
        base=args.mirror_base,
        lists=list_servers(args),
        num_jobs=args.num_jobs,
        forget=args.retry == "all",
    )
    return Run(options, args.num_jobs, pace, known, bool(args.retry), mirror, args.allow_partial)


def fetch(plan: Plan, run: Run, report: ReportFile, args: argparse.Namespace) -> Tally:
    """Ask the sources for what is missing, and write down what becomes of each clip."""
    tally = Tally()
    recorded: set[str] = set()

    def record(result: Result) -> None:
        # From the workers' threads: a line is one write, and whole whoever writes it.
        report.append_result(result)
        recorded.add(result.clip)

    for refused in plan.lists.refused:
        result = Result.of_refused(refused)
        if result.message not in plan.known.refused:
            report.append_result(result)
    with (
        Progress(len(plan.to_fetch), "clip", quiet=args.quiet, note=run.pace.note) as progress,
        closing(ask_sources(plan.to_fetch, run, args.source)) as results,
    ):
        if not args.quiet:
            run.tell = progress.say
        run.record = record
        for result in results:
            tally.add(result)
            progress.add(result.status)
            if result.reason == "disk_full" or tally.hopeless or tally.streak.is_hopeless:
                stop_run()
            if result.message == NOT_ASKED:
                continue  # the report has it
            if result.clip not in recorded:
                report.append_result(result)
            if not result.is_on_disk:
                progress.failure(result.reason, result.clip, result.message)
            elif args.verbose:
                progress.say(f"{result.clip}: {result.seconds:.1f} s, {result.bytes:,} bytes")
    return tally


def verify(lists: ClipLists, out: Path, args: argparse.Namespace) -> None:
    """Decode the wanted clips on disk whole; move the bad ones aside (--dry_run: only say so)."""
    tool = find_ffmpeg(args.ffmpeg)
    there = names_in(out, ".mp4")
    clips = [clip for name, clip in lists.clips.items() if name in there]
    shorts = read_shorts(out / REPORT_NAME)

    def check(clip: Clip) -> tuple[Clip, BadClip | None]:
        path = out / f"{clip.name}.mp4"
        try:
            decode_whole(tool, path, args.timeout)
            check_complete(path)
            if clip.name not in shorts:
                check_length(probe(path), clip_window(clip)[1])
        except BadClip as error:
            return clip, error
        return clip, None

    with Progress(len(clips), "clip", quiet=args.quiet) as progress:
        for clip, error in run_parallel(check, clips, args.num_jobs):
            progress.add("bad" if error else "good")
            if error is None:
                continue
            place = "would be moved aside"
            if not args.dry_run:
                place = move_bad(out / f"{clip.name}.mp4", out / BAD_FOLDER)
            progress.say(f"{error.reason}: {clip.name}: {error.message}; {place}")
    if not args.quiet:
        done, bad = sum(progress.counts.values()), progress.counts["bad"]
        say(f"verified     {done:,} of {plural(len(clips), 'clip')}, {bad:,} bad")


def move_bad(path: Path, folder: Path) -> str:
    """Move a bad clip aside; what was done. Raises UserError."""
    try:
        return f"moved to {set_aside(path, folder)}"
    except FileNotFoundError:
        return "gone already"  # another run, or the user, was quicker
    except OSError as error:
        raise UserError(f"cannot move {path} to {folder}: {error.strerror}") from error


def finish(
    plan: Plan, tally: Tally, run: Run, args: argparse.Namespace, out: Path, elapsed: float
) -> int:
    """The summary, what to type next, and the exit code."""
    on_disk = len(plan.on_disk) + tally.statuses[DOWNLOADED]
    wanted, refused = len(plan.lists.clips), len(plan.lists.refused)
    asked = sum(tally.statuses.values())
    if args.quiet and not asked:
        if on_disk < wanted:
            say(f"on disk: {on_disk:,} of {plural(wanted, 'wanted clip')}; {out / REPORT_NAME}")
    elif not args.quiet or on_disk < wanted or refused:
        stopped = "stopped" if STOP.is_set() else "done"
        say(f"{stopped} after {clock(elapsed)}, {plural(asked, 'clip')} asked for")
        for line in tally.lines():
            say(f"  {line}")
        say(f"on disk now: {on_disk:,} of {plural(wanted, 'wanted clip')}")
        if refused:
            say(f"refused: {plural(refused, 'row')} of the lists, see `invalid` in the report")
        say(f"report: {out / REPORT_NAME}")
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
    command = shlex.join(["python", *sys.argv])
    missing = len(plan.lists.clips) - on_disk
    gone = tally.statuses[UNAVAILABLE] + plan.not_again
    steps = []
    if run.pace.stop_on_block and run.pace.blocks:
        steps.append("YouTube blocks: wait an hour, or give --cookies, before you go on")
    if tally.hopeless:
        steps.append(f"the last videos all failed for one reason: {REASONS[tally.hopeless][1]}")
    if missing > gone:
        steps.append(f"next: {command}")
        steps.append(f"      fetches the {missing - gone:,} that are still to be had")
    elif missing:
        steps.append(f"next: {command}" + ("" if run.ask_again else " --retry unavailable"))
        steps.append(
            f"      asks again for the {gone:,} that are unavailable; nothing else is missing"
        )
    return steps


if __name__ == "__main__":
    run_script(main)
