"""The links of download.py --check across the network: list servers, mirror, YouTube, proxies.

Each is a function of the options and a temporary folder that yields findings. Less than 2 MB come.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator, Sequence
from http.cookiejar import LoadError, MozillaCookieJar
from pathlib import Path
from typing import Any

from utils.clip import Clip
from utils.download.common import FetchOptions, is_youtube
from utils.download.youtube_attempt import Attempt
from utils.download.youtube_commands import child_environment, extract_command, section_inputs
from utils.download.youtube_errors import BLOCKS, FetchError, classify
from utils.download.youtube_extract import read_info
from utils.download.youtube_fragments import fetch_window, open_streams
from utils.lists.fetching import with_slash
from utils.lists.official import DEEPMIND, OfficialList
from utils.process import run_child
from utils.report import REASONS
from utils.runs.finding import NOT_OK, NOTE, OK, Finding
from utils.text import hide_secrets
from utils.video.checks import check_clip
from utils.video.ffmpeg import Encode, Input, cut_command, find_ffmpeg, last_line
from utils.video.probe import BadClip
from utils.web import Web, WebError

SECONDS = 2.0  # of the section
LINES = 144  # of its picture: two seconds of a dense video at 480 lines came to 3.6 MB
PAGE = "docs/youtube.md says what helps"
UPDATE = 'pip install -U --pre "yt-dlp[deno]" yt-dlp-ejs'
LOGIN_COOKIES = ("LOGIN_INFO", "SAPISID", "__Secure-3PSID", "__Secure-1PSID")


def check_servers(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """The official lists: one HEAD, through each proxy."""
    base = with_slash(args.lists_base or DEEPMIND)
    yield from _heads("lists", base + OfficialList("400", "val").archive, args, "--lists_base URL")


def check_mirror(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """The mirror: one HEAD, through each proxy."""
    url = with_slash(args.mirror_base) + "600/val/k600_val_path.txt"
    yield from _heads("mirror", url, args, "--mirror_base URL of another, or --source youtube")


def _heads(link: str, url: str, args: argparse.Namespace, other: str) -> Iterator[Finding]:
    for proxy in args.proxy or [None]:
        way = f" through {hide_secrets(proxy)}" if proxy else ""
        yield _head(link, url, Web((proxy,) if proxy else ()), way, other)


def _head(link: str, url: str, web: Web, way: str, other: str) -> Finding:
    begun = time.monotonic()
    try:
        web.size(url)
    except WebError as error:
        text = f"{hide_secrets(url)}{way}: {hide_secrets(error.message)}"
        return Finding(link, NOT_OK, text, f"try again, or {other}")
    return Finding(
        link, OK, f"{hide_secrets(url)} answers in {time.monotonic() - begun:.1f} s{way}"
    )


def check_cookies(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """Whether the file holds an account's cookies that are not over."""
    if args.cookies is None:
        return
    todo = "export them anew from a browser that is logged in"
    jar = MozillaCookieJar(args.cookies)
    try:
        jar.load(ignore_discard=True, ignore_expires=True)
    except (LoadError, OSError, UnicodeDecodeError) as error:
        text = f"{args.cookies} is no cookie file in Netscape format ({error})"
        yield Finding("cookies", NOT_OK, text, todo)
        return
    login = [c for c in jar if c.name in LOGIN_COOKIES and c.domain.endswith("youtube.com")]
    over = [cookie for cookie in login if cookie.is_expired()]
    if over:
        text = f"{args.cookies}: {over[0].name} is over"
        yield Finding("cookies", NOT_OK, text, todo)
    elif not login:
        yield Finding("cookies", NOTE, f"{args.cookies} holds no login of YouTube", todo)
    else:
        yield Finding("cookies", OK, f"{args.cookies}: {len(login)} login cookies, none over")


def check_youtube(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """One extraction, straight or through each proxy, and a section cut from the first."""
    cut = False
    for proxy in args.proxy or [None]:
        link = f"proxy {hide_secrets(proxy)}:" if proxy else "YouTube"
        options = _options(args, folder)
        try:
            info, log = _extract(args.check_id, options, folder, proxy)
        except FetchError as error:
            yield _failed(link, error, args)
            continue
        yield _extracted(link, info, log, args)
        if not cut:
            cut = True
            yield from _cut(info, options, folder, proxy)


def _options(args: argparse.Namespace, folder: Path) -> FetchOptions:
    return FetchOptions(
        out=folder,
        workspace=folder,
        ffmpeg=find_ffmpeg(args.ffmpeg),
        encode=Encode(max_height=LINES, audio=False),
        cookies=args.cookies.absolute() if args.cookies else None,
        cookies_from_browser=args.cookies_from_browser,
        ytdlp_args=(*args.ytdlp_args, "--verbose"),  # says which client is asked
        url_base=args.url_base,
        timeout=min(args.timeout, 120.0),
    )


def _extract(
    youtube_id: str, options: FetchOptions, folder: Path, proxy: str | None
) -> tuple[dict[str, Any], str]:
    argv = extract_command(youtube_id, options, folder)
    done = run_child(argv, timeout=options.timeout, env=child_environment(proxy))
    return read_info(done, options.url_base), done.stderr


def _extracted(link: str, info: dict[str, Any], log: str, args: argparse.Namespace) -> Finding:
    formats = info.get("formats") or [info]
    usable = [each for each in formats if str(each.get("url", "")).startswith("http")]
    clients = re.findall(r"Downloading (.+?) player API JSON", log)
    who = f"client {', '.join(dict.fromkeys(clients))}; " if clients else ""
    if classify(log) == "cookies":  # the extraction went on as a guest's
        return Finding(link, NOT_OK, "the account's cookies are over", REASONS["cookies"][1])
    text = f"{args.check_id}: {who}{len(usable)} of {len(formats)} formats with an address"
    return Finding(link, OK if usable else NOT_OK, text, "" if usable else UPDATE)


def _failed(link: str, error: FetchError, args: argparse.Namespace) -> Finding:
    """What an extraction that failed says of the address, the cookies, or the video."""
    message = hide_secrets(error.message)
    if error.reason in BLOCKS:
        return Finding(link, NOT_OK, f"this address is blocked ({error.reason}): {message}", PAGE)
    meaning = REASONS[error.reason][1]
    todo = f"{meaning}; or --check_id of another video" if is_youtube(args.url_base) else meaning
    return Finding(link, NOT_OK, f"{error.reason}: {message}", todo)


def _cut(
    info: dict[str, Any], options: FetchOptions, folder: Path, proxy: str | None
) -> Iterator[Finding]:
    """A short section, as a clip is cut: exact and checked; and how fast it came."""
    inputs = section_inputs(info, options)
    if not inputs or (proxy and not proxy.startswith("http://")):
        yield Finding("section", NOTE, "cannot be read in sections here: videos come whole")
        return
    begun = time.monotonic()
    try:
        way = _cut_start(inputs, options, folder / "section.mp4", proxy)
    except (BadClip, OSError) as error:
        yield Finding("section", NOT_OK, hide_secrets(str(error)), f"{UPDATE}; {PAGE}")
        return
    seconds = time.monotonic() - begun
    size = (folder / "section.mp4").stat().st_size
    text = f"{SECONDS:.0f} s, found by {way}, cut and encoded in {seconds:.1f} s"
    yield Finding("section", OK, f"{text}: {size / seconds / 1000:,.0f} kB of clip a second")


def _cut_start(
    inputs: Sequence[Input], options: FetchOptions, target: Path, proxy: str | None
) -> str:
    """Cut a video's first seconds; says what found their bytes. Raises BadClip, OSError."""
    deadline = time.monotonic() + options.timeout
    attempt = Attempt(options, target.parent, proxy, deadline, lambda *_: None)
    with open_streams(attempt, inputs, options.timeout) as streams:
        window = fetch_window(attempt, streams, Clip("section", "", 0.0, SECONDS), deadline)
    given = window.inputs if window else inputs
    argv = cut_command(options.ffmpeg, given, 0.0, SECONDS, options.encode, target)
    done = attempt.run(argv, options.timeout)
    if done.returncode != 0:
        raise BadClip("network", last_line(done) or "ffmpeg failed")
    check_clip(target, SECONDS, wants_audio=False)
    return "the video's index" if window else "ffmpeg"
