"""Define the options of download.py and check them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from utils.cli import non_negative_float, positive_int
from utils.clip import ID_PATTERN
from utils.download.chain import parse_sources
from utils.download.common import YOUTUBE, YOUTUBE_NAMES, is_youtube
from utils.download.youtube_extract import split_words
from utils.lists.fetching import ListServers, add_input_csv, add_lists_base, add_trim_format
from utils.lists.official import CVDF
from utils.video.ffmpeg import Encode
from utils.web import Web

GUEST_PER_HOUR, ACCOUNT_PER_HOUR = 300, 2000  # what YouTube lets through before it blocks


def add_list_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which clips")
    add_input_csv(group)
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
    add_trim_format(group)


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
    add_lists_base(group)
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
        "--ytdlp_args",
        default="",
        metavar="ARGS",
        help='more arguments for yt-dlp, in one "...": it gets none in any other way, for its own'
        " configuration is not read; they can run programs (--exec): take none from strangers",
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
    if args.out is None and not args.check:
        parser.error("the following arguments are required: out")
    if ID_PATTERN.fullmatch(args.check_id) is None:
        parser.error(f"--check_id {args.check_id!r} is not 11 of A-Z a-z 0-9 _ -")
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
            host = proxy.rpartition("@")[2]  # before it may stand a password
            parser.error(f"--proxy {host}: write http://HOST:PORT or socks5://HOST:PORT")
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


def list_servers(args: argparse.Namespace) -> ListServers:
    return ListServers(Web(tuple(args.proxy)), args.lists_base)


def youtube_name(args: argparse.Namespace) -> str:
    return YOUTUBE_NAMES[not is_youtube(args.url_base)]


def videos_per_hour(args: argparse.Namespace) -> float:
    if args.videos_per_hour is not None:
        return float(args.videos_per_hour)
    if not is_youtube(args.url_base):
        return 0.0
    return ACCOUNT_PER_HOUR if args.cookies or args.cookies_from_browser else GUEST_PER_HOUR
