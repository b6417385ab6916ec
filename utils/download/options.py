"""Define the options of download.py and check them."""

from __future__ import annotations

import argparse
import functools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.cli import (
    Parser,
    add_shared,
    make_parser,
    non_negative_float,
    non_negative_int,
    positive_int,
)
from utils.clip import ID_PATTERN
from utils.cluster import add_cluster_options
from utils.download.sources import (
    CHECK_ID,
    YOUTUBE,
    YOUTUBE_NAMES,
    FetchOptions,
    is_youtube,
    parse_sources,
)
from utils.lists.official import CVDF, ListServers, add_input_csv, add_lists_base, add_trim_format
from utils.lists.versions import BY_NAME
from utils.video.ffmpeg import AAC_RATES, SOUNDS, Encode, find_ffmpeg
from utils.web import Web

LIST_SUFFIXES = frozenset({".csv", ".tsv", ".json", ".gz"})

# YouTube counts requests before it blocks: those of a guest and of an account in an hour. One video
# takes yt-dlp's default clients five (docs/youtube.md).
GUEST_REQUESTS, ACCOUNT_REQUESTS, REQUESTS_A_VIDEO = 1000, 4000, 5
GUEST_PER_HOUR = GUEST_REQUESTS // REQUESTS_A_VIDEO
ACCOUNT_PER_HOUR = ACCOUNT_REQUESTS // REQUESTS_A_VIDEO
OF_THE_PICTURE = {"max_height": 480, "short_side": None, "keyint": None, "crf": Encode.crf}
OF_THE_PICTURE |= {"no_audio": False}  # options with their defaults; --audio_only needs none


# What --help says of each option. docs/download.md shows the same (tests/docs_tables.py).
TEXTS = f"""
--shard            process part I of N, by a hash of the video ID: for several machines that share
                   the work (default: 1/1)
--sample           keep N clips at random, the same for everybody with the same --seed
                   (default: all)
--per_class        keep at most N clips per label, at random (default: all)
--seed             seed of --sample and --per_class
--source           comma-separated sources, tried in this order: youtube, cvdf (the archives of the
                   CVDF mirror), clips:DIR[:DIR...] (clips on disk), tar:PLACE (tars: a file, folder
                   or URL)
--allow_partial    with clips:DIR: accept part of an AVA-Kinetics clip if it contains the annotated
                   frame
--cookies          cookies in Netscape format; never modified
--cookies_from_browser    read cookies from a browser, as yt-dlp does
--proxy            proxy; repeat the option to rotate between several. Its password is never
                   printed. The variables https_proxy and http_proxy also keep it off the command
                   line
--videos_per_hour  start at most N videos per hour; 0 means no limit (default: {GUEST_PER_HOUR} from
                   YouTube, {ACCOUNT_PER_HOUR} with cookies, no limit from another --url_base)
--on_block         when YouTube blocks: pause and continue, or stop the run
--timeout          time limit per clip, including retries but not rate-limit pauses; the clips of a
                   video share their total
--max_height       maximum video height in pixels; 0 means no limit
--short_side       scale the shorter side down to N pixels (default: keep)
--keyint           set a keyframe every N frames (default: at scene cuts, at most 250 apart)
--no_audio         drop the audio
--audio_only       download the audio alone: <clip>.m4a, or another --audio_format
--audio_format     with --audio_only: AAC in m4a, or 16-bit wav or flac
--sample_rate      with --audio_only: resample to N samples per second (default: keep)
--crf              x264 quality: 0 (lossless) to 51
--metadata         write metadata of each video (title, licence, ...) to OUT/videos.jsonl
--retry            also retry unavailable clips; `all` also re-reads archives that were read to the
                   end (default: retry failed clips only)
--accept_unavailable      exit with 0 if only unavailable clips are missing
--verify           first decode every requested clip on disk; move bad ones to OUT/.bad/ and
                   download them again
--check            test every step once (packages, network, cookies, download, folder), print the
                   results and exit
--block_pause      first pause after a block; doubles up to four times this
--ytdlp_args       extra yt-dlp arguments, quoted. yt-dlp's own config file is ignored. Arguments
                   such as --exec run programs: use only arguments you trust
--url_base         address before a video ID
--mirror_base      mirror laid out like CVDF's
--check_id         public video: --check downloads from it, and a run that doubts YouTube's answers
"""
_TEXTS = {
    name: " ".join(text.split())
    for name, text in re.findall(r"^(--\w+) (.*(?:\n .*)*)", TEXTS, re.MULTILINE)
}


def parse_args(doc: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse download.py's command line; exits with code 2 if an option is wrong."""
    parser = make_parser(doc, text_options=["--ytdlp_args"])
    parser.add_argument(
        "out", type=Path, nargs="?", help="folder for the clips (optional with --check)"
    )
    add_list_options(parser)
    add_options(parser)
    args = parser.parse_args(argv)
    check_options(parser, args)
    return args


def add_list_options(parser: Parser, fetches: bool = True) -> None:
    group = parser.group("which clips")
    add_input_csv(group, fetches)
    add_shared(group, "--label", "--split", "--limit")
    _add(group, "--shard", type=shard, default=(1, 1), metavar="I/N")
    add_trim_format(group)


def add_options(parser: Parser) -> None:
    """Add the options that download.py alone has."""
    count: dict[str, Any] = {"type": positive_int, "metavar": "N"}
    whole: dict[str, Any] = {"type": non_negative_int, "metavar": "N"}
    number: dict[str, Any] = {"type": non_negative_float}
    flag: dict[str, Any] = {"action": "store_true"}
    add = functools.partial(_add, parser.group("which clips"))
    add("--sample", dest="draw_sample", **count)  # make_report.py has another --sample
    add("--per_class", dest="draw_per_class", **count)
    add("--seed", dest="draw_seed", default=0, **whole)
    add = functools.partial(_add, parser.group("where from"))
    add("--source", type=parse_sources, default="youtube", metavar="SOURCES")
    add("--allow_partial", **flag)
    add("--cookies", type=Path, metavar="FILE")
    add("--cookies_from_browser", metavar="NAME")
    add("--proxy", action="append", default=[], metavar="URL")
    add("--videos_per_hour", metavar="N", **number)
    add("--on_block", choices=["wait", "stop"], default="wait")
    add("--timeout", default=600.0, metavar="SECONDS", **number)
    add = functools.partial(_add, parser.group("video and audio"))
    add("--max_height", default=480, **whole)
    add("--short_side", **count)
    add("--keyint", **count)
    add("--no_audio", **flag)
    add("--audio_only", **flag)
    add("--audio_format", choices=[suffix[1:] for suffix in SOUNDS], default="m4a")
    add("--sample_rate", **count)
    add("--crf", type=int, default=Encode.crf, metavar="N")
    add("--metadata", **flag)
    group = parser.group("how to run")
    add_shared(group, "--num_jobs", "--dry_run")
    _add(group, "--retry", choices=["unavailable", "all"])
    for name in ("--accept_unavailable", "--verify", "--check"):
        _add(group, name, **flag)
    add_cluster_options(group)
    group = parser.group("rarely needed")
    _add(group, "--block_pause", default=15.0, metavar="MINUTES", **number)
    _add(group, "--ytdlp_args", default="", metavar="ARGS")
    add_shared(group, "--ffmpeg")
    _add(group, "--url_base", default=YOUTUBE, metavar="URL")
    _add(group, "--mirror_base", default=CVDF, metavar="URL")
    add_lists_base(group)
    _add(group, "--check_id", default=CHECK_ID, metavar="ID")


def _add(group: argparse._ArgumentGroup, name: str, **settings: Any) -> None:
    group.add_argument(name, help=_TEXTS[name], **settings)


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Check what argparse cannot check by itself; exits with code 2."""
    if args.out is None and not args.check:
        parser.error("the output folder is missing: python download.py OUT --input_csv LIST")
    is_list = args.out and (args.out.suffix in LIST_SUFFIXES or str(args.out) in BY_NAME)
    if args.out and not args.out.is_dir() and (is_list or args.out.exists()):
        use = f"python download.py OUT --input_csv {shlex.quote(str(args.out))}"
        parser.error(f"{args.out} is not a folder: name the output folder first ({use})")
    for option, is_good, rule in (
        ("check_id", ID_PATTERN.fullmatch(args.check_id), "11 characters from A-Z a-z 0-9 _ -"),
        ("crf", 0 <= args.crf <= 51, "between 0 and 51"),
        ("timeout", args.timeout > 0, "more than 0"),
        ("block_pause", args.block_pause > 0, "more than 0"),
        ("short_side", args.short_side is None or args.short_side >= 16, "16 or more"),
    ):
        if not is_good:
            parser.error(f"--{option} must be {rule} (got {getattr(args, option)})")
    if not args.audio_only and (args.sample_rate or args.audio_format != "m4a"):
        parser.error("--audio_format and --sample_rate need --audio_only")
    for option, default in OF_THE_PICTURE.items():
        if args.audio_only and getattr(args, option) != default:
            parser.error(f"--{option} cannot be combined with --audio_only")
    if args.sample_rate:
        rates = AAC_RATES if args.audio_format == "m4a" else range(1000, 192_001)
        if args.sample_rate not in rates:
            known = ", ".join(map(str, AAC_RATES)) if rates is AAC_RATES else "1000 to 192000"
            parser.error(f"--sample_rate must be one of {known} (got {args.sample_rate})")
    if args.cookies:
        try:
            args.cookies.open("rb").close()
        except OSError as error:
            parser.error(f"--cookies {args.cookies}: {error.strerror}")
    for option in ("url_base", "mirror_base", "lists_base"):
        address = getattr(args, option)
        if address is not None and not re.match(r"https?://.", address):
            parser.error(f"--{option} must start with http:// or https:// (got {address})")
    for proxy in args.proxy:
        if not re.match(r"(https?|socks\w*)://.", proxy):
            host = proxy.rpartition("@")[2]  # a password may stand before it
            parser.error(f"--proxy must be http://HOST:PORT or socks5://HOST:PORT (got {host})")
    try:
        args.ytdlp_args = tuple(shlex.split(args.ytdlp_args))
    except ValueError as error:
        parser.error(f"--ytdlp_args: {error}".lower())


def clip_settings(args: argparse.Namespace) -> dict[str, object]:
    """The options that make two clips of one name different."""
    picture = ("max_height", "short_side", "keyint", "no_audio")
    names = ("sample_rate",) if args.audio_only else picture
    return {name: getattr(args, name) for name in names}


def shard(text: str) -> tuple[int, int]:
    """An argparse type: `2/4` is the second of four parts."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 1/4")
    return int(found[1]), int(found[2])


def fetch_options(args: argparse.Namespace, out: Path, workspace: Path) -> FetchOptions:
    """The settings that all sources share."""
    return FetchOptions(
        out=out,
        workspace=workspace,
        ffmpeg=find_ffmpeg(args.ffmpeg),
        encode=Encode(
            crf=args.crf,
            keyint=args.keyint,
            short_side=args.short_side,
            max_height=args.max_height or None,
            audio=not args.no_audio,
            sound=clip_suffix(args) if args.audio_only else "",
            sample_rate=args.sample_rate,
        ),
        cookies=args.cookies.absolute() if args.cookies else None,
        cookies_from_browser=args.cookies_from_browser,
        proxies=tuple(args.proxy),
        ytdlp_args=args.ytdlp_args,
        url_base=args.url_base,
        timeout=args.timeout,
        check_id=args.check_id,
        metadata=args.metadata,
    )


def list_servers(args: argparse.Namespace) -> ListServers:
    return ListServers(Web(tuple(args.proxy)), args.lists_base)


def clip_suffix(args: argparse.Namespace) -> str:
    """The suffix of the clips' files."""
    return f".{args.audio_format}" if getattr(args, "audio_only", False) else ".mp4"


def youtube_name(args: argparse.Namespace) -> str:
    return YOUTUBE_NAMES[not is_youtube(args.url_base)]


def videos_per_hour(args: argparse.Namespace) -> float:
    if args.videos_per_hour is not None:
        return float(args.videos_per_hour)
    if not is_youtube(args.url_base):
        return 0.0
    return ACCOUNT_PER_HOUR if args.cookies or args.cookies_from_browser else GUEST_PER_HOUR
