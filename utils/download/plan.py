"""Define the options of download.py, and plan a run: the requested clips and the missing ones.

The plan reads the lists, the output folder and the report once each, and writes nothing.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils import cli
from utils.cli import plural
from utils.clip import FAILED, ID_PATTERN, UNAVAILABLE, Clip
from utils.cluster import add_cluster_options
from utils.download import sources
from utils.errors import UserError
from utils.files import TEMP_FOLDER, free_bytes, names_in
from utils.lists import official
from utils.lists.reading import ClipLists, Selection, form_of, read_lists
from utils.lists.versions import official_list, same_split
from utils.report import REPORT_NAME, Known, read_known
from utils.run import say_statement
from utils.video.cut import USUAL_RATE
from utils.video.ffmpeg import AAC_RATES, SOUNDS, Encode
from utils.web import Web

LIST_SUFFIXES = (".csv", ".tsv", ".json", ".gz")
# YouTube blocks a guest after about 1,000 requests per hour, an account after 4,000. yt-dlp's
# default clients send five per video (docs/youtube.md).
GUEST_PER_HOUR, ACCOUNT_PER_HOUR = 200, 800
# Options that cannot be combined with --audio_only.
VIDEO_OPTIONS = ("max_height", "short_side", "keyint", "crf", "no_audio")

BYTES_PER_CLIP, BYTES_PER_SMALL_CLIP = 1_200_000, 600_000  # 10 s at CRF 20: 480 lines; 256
# 10 s in stereo, at the usual rate.
BYTES_PER_SOUND = {"m4a": 165_000, "wav": 1_770_000, "flac": 900_000}
LINE_BITS = 100e6  # bits per second, assumed for the mirror's time
INVALID_SHOWN = 10


def split_words(text: str) -> tuple[str, ...]:
    """Split --ytdlp_args as a shell does, as an argparse type."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).lower()) from error


readable_file = cli.must(
    "be a readable file", lambda path: path.is_file() and os.access(path, os.R_OK), Path
)
proxy_address = cli.must(
    "be http://HOST:PORT or socks5://HOST:PORT", re.compile(r"(https?|socks\w*)://.").match, str
)
more_than_0 = cli.must("be more than 0", lambda value: value > 0, cli.non_negative_float)


# --- options -------------------------------------------------------------------------------------


def parse_args(doc: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse download.py's command line; exits with code 2 if an option is wrong."""
    parser = cli.make_parser(doc, text_options=["--ytdlp_args"])
    text = "folder for the clips (optional with --check)"
    parser.add_argument("out", type=Path, nargs="?", help=text)
    add_list_options(parser)
    add_download_options(parser)
    args = parser.parse_args(argv)
    check_options(parser, args)
    return args


def add_list_options(parser: cli.Parser) -> None:
    """Add the options that select clips; `read_wanted` needs them."""
    parser.set_defaults(draw_sample=None, draw_per_class=None, draw_seed=0)
    group = parser.group("which clips")
    cli.add_shared(group, "--input_csv", "--columns", "--clip_seconds")
    cli.add_shared(group, "--label", "--split", "--limit")
    text = "process part I of N of the videos, for machines that share nothing (default: 1/1)"
    group.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help=text)
    cli.add_shared(group, "--trim_format")


def add_download_options(parser: cli.Parser) -> None:
    """Add the options that download.py alone has. docs/download.md shows them, too."""
    cli.add_shared(parser.group("how to run"), "--num_jobs", "--dry_run")
    add_cluster_options(parser.group("how to run"))
    cli.add_shared(parser.group("rarely needed"), "--ffmpeg", "--lists_base")
    _add_source_options(parser)
    _add_encode_options(parser)
    add = parser.group("how to run").add_argument
    text = (
        "also retry unavailable clips; `all` also re-reads archives that were read to the end"
        " (default: retry failed clips only)"
    )
    add("--retry", choices=["unavailable", "all"], help=text)
    text = "exit with 0 if only unavailable clips are missing"
    add("--accept_unavailable", action="store_true", help=text)
    text = "decode all requested clips on disk, and download bad ones again"
    add("--verify", action="store_true", help=text)
    text = "test every step of a download once, print the results and exit"
    add("--check", action="store_true", help=text)
    add = parser.group("rarely needed").add_argument
    text = "first pause after a block; later pauses are two and four times as long"
    add("--block_pause", type=more_than_0, default=15.0, metavar="MINUTES", help=text)
    text = "extra yt-dlp arguments, quoted. Some run programs: use only those you trust"
    add("--ytdlp_args", type=split_words, default="", metavar="ARGS", help=text)
    text = "URL that precedes the video ID"
    add("--url_base", type=cli.web_address, default=sources.YOUTUBE, metavar="URL", help=text)
    text = "URL of a mirror with the folders of CVDF's"
    add("--mirror_base", type=cli.web_address, default=official.CVDF, metavar="URL", help=text)
    text = "public video for --check, and to test whether YouTube blocks the run"
    video_id = cli.must("be 11 characters from A-Z a-z 0-9 _ -", ID_PATTERN.fullmatch, str)
    add("--check_id", type=video_id, default=sources.CHECK_ID, metavar="ID", help=text)


def _add_source_options(parser: cli.Parser) -> None:
    """Add the options that draw clips at random, and those of the sources."""
    add = parser.group("which clips").add_argument
    # The names in `args` are others, because make_report.py has another --sample.
    text = "keep N clips at random, the same for the same --seed (default: all)"
    add("--sample", dest="draw_sample", type=cli.positive_int, metavar="N", help=text)
    text = "keep at most N clips per label, at random (default: all)"
    add("--per_class", dest="draw_per_class", type=cli.positive_int, metavar="N", help=text)
    text = "seed of --sample and --per_class"
    add("--seed", dest="draw_seed", type=cli.non_negative_int, default=0, metavar="N", help=text)
    add = parser.group("where from").add_argument
    text = (
        "comma-separated sources, tried in this order: youtube, cvdf (CVDF mirror),"
        " clips:DIR[:DIR...] (clips on disk), tar:PLACE (tar archives: a file, folder or URL)"
    )
    add("--source", type=sources.parse_sources, default="youtube", metavar="SOURCES", help=text)
    text = "with clips:DIR: accept a partial AVA-Kinetics clip if it contains the annotated frame"
    add("--allow_partial", action="store_true", help=text)
    text = "cookies in Netscape format; never modified"
    add("--cookies", type=readable_file, metavar="FILE", help=text)
    text = "read cookies from a browser, as yt-dlp does"
    add("--cookies_from_browser", metavar="NAME", help=text)
    text = (
        "proxy; repeat the option to use several in turn. To hide a password, set https_proxy in"
        " the environment instead"
    )
    add("--proxy", type=proxy_address, action="append", default=[], metavar="URL", help=text)
    text = (
        f"start at most N videos per hour; 0 means no limit (default: {GUEST_PER_HOUR} from"
        f" YouTube, {ACCOUNT_PER_HOUR} with cookies, no limit from another --url_base)"
    )
    add("--videos_per_hour", type=cli.non_negative_float, metavar="N", help=text)
    text = "when YouTube blocks: pause and continue, or stop the run"
    add("--on_block", choices=["wait", "stop"], default="wait", help=text)
    text = "time limit per clip, retries included; clips of a video share the total"
    add("--timeout", type=more_than_0, default=600.0, metavar="SECONDS", help=text)


def _add_encode_options(parser: cli.Parser) -> None:
    """Add the options of the video and audio of the clips."""
    add = parser.group("video and audio").add_argument
    text = "maximum video height in pixels; 0 means no limit"
    add("--max_height", type=cli.non_negative_int, default=480, metavar="N", help=text)
    text = "scale the shorter side down to N pixels (default: keep)"
    side = cli.must("be 16 or more", lambda pixels: pixels >= 16, cli.positive_int)
    add("--short_side", type=side, metavar="N", help=text)
    text = "set a keyframe every N frames (default: at scene cuts, at most 250 apart)"
    add("--keyint", type=cli.positive_int, metavar="N", help=text)
    add("--no_audio", action="store_true", help="drop the audio")
    text = "download only the audio: <clip>.m4a, or another --audio_format"
    add("--audio_only", action="store_true", help=text)
    text = "with --audio_only: AAC in m4a, or 16-bit wav or flac"
    add("--audio_format", choices=[each[1:] for each in SOUNDS], default="m4a", help=text)
    text = "with --audio_only: resample to N samples per second (default: keep)"
    add("--sample_rate", type=cli.positive_int, metavar="N", help=text)
    crf = cli.must("be between 0 and 51", lambda crf: crf <= 51, cli.non_negative_int)
    text = "x264 quality: 0 (lossless) to 51"
    add("--crf", type=crf, default=Encode.crf, metavar="N", help=text)
    text = "write metadata of each video (title, licence, ...) to OUT/videos.jsonl"
    add("--metadata", action="store_true", help=text)


def shard(text: str) -> tuple[int, int]:
    """Parse `2/4`, the second of four parts, as an argparse type."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 1/4")
    return int(found[1]), int(found[2])


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Check the options that argparse cannot check; exits with code 2 if one is wrong."""
    if args.out is None and not args.check:
        parser.error("the output folder is missing: python download.py OUT --input_csv LIST")
    is_list = args.out and (args.out.suffix in LIST_SUFFIXES or official_list(str(args.out)))
    if args.out and not args.out.is_dir() and (is_list or args.out.exists()):
        use = f"python download.py OUT --input_csv {shlex.quote(str(args.out))}"
        parser.error(f"{args.out} is not a folder: name the output folder first ({use})")
    if not args.audio_only and (args.sample_rate or args.audio_format != "m4a"):
        parser.error("--audio_format and --sample_rate need --audio_only")
    for option in VIDEO_OPTIONS:
        if args.audio_only and getattr(args, option) != parser.get_default(option):
            parser.error(f"--{option} cannot be combined with --audio_only")
    rates = AAC_RATES if args.audio_format == "m4a" else range(1000, 192_001)
    if args.sample_rate and args.sample_rate not in rates:
        known = ", ".join(map(str, AAC_RATES)) if rates is AAC_RATES else "1000 to 192000"
        parser.error(f"--sample_rate must be one of {known} (got {args.sample_rate})")


def videos_per_hour(args: argparse.Namespace) -> float:
    """Return the rate limit; 0 means no limit."""
    if args.videos_per_hour is not None:
        return float(args.videos_per_hour)
    if not sources.is_youtube(args.url_base):
        return 0.0
    return ACCOUNT_PER_HOUR if args.cookies or args.cookies_from_browser else GUEST_PER_HOUR


def list_servers(args: argparse.Namespace) -> official.ListServers:
    """Return the servers of the official lists."""
    return official.ListServers(Web(tuple(args.proxy)), args.lists_base)


# --- the plan ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """The clips to download, and the state of the others."""

    lists: ClipLists
    on_disk: set[str]
    known: Known
    gone: dict[str, str]  # clips that YouTube is not asked for again, and the reasons
    to_fetch: tuple[Clip, ...]
    skipped: int  # of these, clips that no other source is asked for


def read_wanted(
    paths: Sequence[Path], args: argparse.Namespace, every_row: bool = False
) -> ClipLists:
    """Read the clips that lists and options request. Raises UserError if there are none."""
    args.lists = paths
    selection = Selection(
        labels=frozenset(label.casefold() for label in args.label),
        splits=frozenset(same_split(split) for split in args.split),
        shard=args.shard,
        limit=args.limit,
        sample=args.draw_sample,
        per_class=args.draw_per_class,
        seed=args.draw_seed,
    )
    tell, form = cli.teller(args.quiet), form_of(args)
    lists = read_lists(args.lists, selection, tell=tell, every_row=every_row, **form)
    if lists.rows == 0:
        raise UserError(f"no rows in {', '.join(map(str, args.lists))}: nothing to download")
    if not lists.is_cut_short:
        _check_words("--label", args.label, lists.labels_seen, str.casefold)
        _check_words("--split", args.split, lists.splits_seen, same_split)
    return lists


def _check_words(
    option: str, words: Sequence[str], seen: Collection[str], fold: Callable[[str], str]
) -> None:
    """Raise UserError for a label or split that no row has, with the nearest ones."""
    known = {fold(each): each for each in seen}
    for word in words:
        if fold(word) not in known:
            near = difflib.get_close_matches(fold(word), sorted(known), n=3, cutoff=0.5)
            found = ", ".join(known[each] for each in near or sorted(known)[:5])
            which = "nearest" if near else "available"
            raise UserError(f"{option} {word!r} is not in any list; {which}: {found or 'none'}")


def make_plan(lists: ClipLists, out: Path, args: argparse.Namespace) -> Plan:
    """Compare the requested clips with the folder and the report."""
    on_disk = lists.clips.keys() & names_in(out, sources.clip_suffix(args))
    missing = [clip for name, clip in lists.clips.items() if name not in on_disk]
    # A killed run leaves its folder, and may have named a clip but not written its line.
    was_killed = (out / TEMP_FOLDER).is_dir()
    known = Known()
    if missing or lists.refused or was_killed:
        known = read_known(out / REPORT_NAME, on_disk if was_killed else ())
    gone: dict[str, str] = {}
    youtube = sources.youtube_name(args.url_base)
    for clip in missing:
        status, reason, source = known.reasons.get(clip.name, ("", "", ""))
        if status == UNAVAILABLE and source == youtube and not args.retry:
            gone[clip.name] = reason
    is_alone = args.source == ["youtube"]
    to_fetch = tuple(clip for clip in missing if not (is_alone and clip.name in gone))
    return Plan(lists, on_disk, known, gone, to_fetch, len(missing) - len(to_fetch))


def say_download_plan(plan: Plan, out: Path, args: argparse.Namespace, tools: str) -> None:
    """Print the plan, without the lines that have nothing to say."""
    lists, videos = plan.lists, len({clip.youtube_id for clip in plan.to_fetch})
    repeats = lists.rows - len(lists.refused) - lists.not_wanted - len(lists.clips)
    size = size_of(plan, args)
    before = Counter(plan.known.status(clip) for clip in plan.to_fetch)
    how = "retried" if args.retry else "skipped (use --retry unavailable)"
    if not args.retry and args.source != ["youtube"]:
        how = "skipped at YouTube, requested from the other sources"
    invalid = [str(refused) for refused in lists.refused[:INVALID_SHOWN]]
    if len(lists.refused) > INVALID_SHOWN:
        invalid.append(f"{len(lists.refused) - INVALID_SHOWN:,} more: see `invalid` in the report")
    say_statement(
        [
            ("lists", f"{plural(len(args.lists), 'file')}, {plural(lists.rows, 'row')}"),
            *(("" if number else "read as", form) for number, form in enumerate(lists.forms())),
            ("clips", f"{len(lists.clips):,} requested"),
            ("", _some(repeats, "duplicate row", "ignored")),
            ("", _some(lists.not_wanted, "row", "not selected")),
            ("", "rows after --limit were not read" * lists.is_cut_short),
            ("labels", _some(lists.relabelled, "row", "with a second label for a clip")),
            ("invalid", _some(len(lists.refused), "row")),
            *(("", line) for line in invalid),
            ("on disk", plural(len(plan.on_disk), "clip")),
            ("unavailable", _some(plan.skipped or before[UNAVAILABLE], "clip", how)),
            ("to download", f"{plural(len(plan.to_fetch), 'clip')} from {plural(videos, 'video')}"),
            ("", _some(before[FAILED], "clip", "failed before")),
            ("size", f"about {cli.size_text(size)}" * bool(videos)),
            ("time", time_text(videos, size, args) * bool(videos)),
            ("sources", ", ".join(args.source)),
            ("jobs", f"{args.num_jobs:,}"),
            ("output", f"{out} ({free_bytes(out) / 1e9:,.1f} GB free)"),
            ("tools", tools),
        ]
    )


def _some(count: int, noun: str, more: str = "") -> str:
    return f"{plural(count, noun)} {more}".rstrip() if count else ""


def size_of(plan: Plan, args: argparse.Namespace) -> int:
    """Return about how many bytes the missing clips will take."""
    per_clip = BYTES_PER_CLIP
    if args.audio_only:
        per_clip = BYTES_PER_SOUND[args.audio_format]
        if args.sample_rate and args.audio_format != "m4a":  # AAC has one bit rate at all of them
            per_clip = per_clip * args.sample_rate // USUAL_RATE
    elif args.short_side and args.short_side <= 256:
        per_clip = BYTES_PER_SMALL_CLIP
    return len(plan.to_fetch) * per_clip


def time_text(videos: int, size: int, args: argparse.Namespace) -> str:
    """Return `about 2:30:00 at 300 videos per hour`; empty if nothing limits the sources."""
    rate = videos_per_hour(args)
    if "youtube" not in args.source:
        time_ = cli.clock(size * 8 / LINE_BITS)
        return f"about {time_} at 100 Mbit/s" if "cvdf" in args.source else ""
    if not rate:
        return "no rate limit"
    per = "hour and machine" if args.dask else "hour"
    text = f"about {cli.clock(videos / rate * 3600)} at {rate:,.0f} videos per {per}"
    return text if args.source == ["youtube"] else f"{text}, less what other sources have"
