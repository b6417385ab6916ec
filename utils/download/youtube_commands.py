"""The command lines of yt-dlp, and ffmpeg's options for the addresses that it finds.

For `sources/youtube`, which runs them. Pure functions, but for the copy of a cookie file.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi

from utils.download.common import FetchOptions
from utils.video.ffmpeg import Input

# Bytes a request: the rest of the last one is sent for nothing; over 10 MiB YouTube slows down.
CHUNK = 2**18
# While ffmpeg reads a file's beginning, end and index, of which it needs little.
INDEX_CHUNK = 2**15


def format_arguments(options: FetchOptions) -> list[str]:
    """Which of a video's formats: the highest that the encode keeps, H.264 (cheapest to decode)."""
    wanted = "bv*+ba/b" if options.encode.audio else "bv/bv*/b"
    order = "vcodec:h264,acodec:m4a"
    if options.encode.max_height:
        order = f"height:{options.encode.max_height},{order}"
    return ["-f", wanted, "-S", order]


def common_arguments(options: FetchOptions, folder: Path) -> list[str]:
    """What every call of yt-dlp has: no configuration but the user's `--ytdlp_args`."""
    argv = [sys.executable, "-m", "yt_dlp", "--ignore-config", "--no-playlist", "--color", "never"]
    argv += ["--socket-timeout", "20", "--ffmpeg-location", options.ffmpeg.path]
    if options.cookies:
        # A copy for each call: yt-dlp writes its cookie file anew at its end, and workers that
        # shared one would tear it.
        copy = folder / "cookies.txt"
        copy.unlink(missing_ok=True)
        argv += ["--cookies", str(shutil.copyfile(options.cookies, copy))]
    if options.cookies_from_browser:
        argv += ["--cookies-from-browser", options.cookies_from_browser]
    return argv


def extract_command(youtube_id: str, options: FetchOptions, folder: Path) -> list[str]:
    """yt-dlp prints all it knows of a video as JSON, the chosen formats' addresses in it."""
    argv = [*common_arguments(options, folder), *format_arguments(options), "-J"]
    # The address comes after `--`, or an id such as -2JgjPsy4Eo could be read as an option.
    return [*argv, *options.ytdlp_args, "--", options.url_base + youtube_id]


def whole_command(info_file: Path, options: FetchOptions, folder: Path) -> list[str]:
    """yt-dlp fetches the whole video natively; the extraction is taken from `info_file`."""
    template = str(folder / "whole").replace("%", "%%") + ".%(ext)s"
    argv = [*common_arguments(options, folder), *format_arguments(options)]
    argv += ["--no-progress", "--merge-output-format", "mp4/mkv", "-o", template]
    return [*argv, *options.ytdlp_args, "--load-info-json", str(info_file)]


def section_inputs(info: Mapping[str, Any], options: FetchOptions) -> list[Input]:
    """The chosen formats as inputs of ffmpeg: picture first. Empty if ffmpeg cannot read them."""
    formats = info.get("requested_formats") or [info]
    inputs = []
    for each in formats:
        url = each.get("url")
        if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
            return []
        if each.get("cookies"):
            return []  # ffmpeg takes them on its command line alone, which `ps` shows to everybody
        if each.get("protocol") not in ("http", "https", "m3u8", "m3u8_native"):
            return []
        fragmented = each.get("container") in ("mp4_dash", "m4a_dash")
        inputs.append(Input(url, http_options(url, each, options), fragmented))
    if len(inputs) == 2 and formats[0].get("vcodec") in (None, "none"):
        inputs.reverse()
    return inputs


def http_options(url: str, fmt: Mapping[str, Any], options: FetchOptions) -> dict[str, str]:
    """ffmpeg's options for one address.

    The reconnects repair connections that are cut, stall or are answered 5xx or 429 once; without
    `rw_timeout` a stall hangs for ever. `request_size` keeps YouTube from slowing down (13 s to
    3.9 s), and small ones save bytes (benchmarks/README.md); ffmpeg before 8.1 has no such option
    and would refuse the line.
    """
    headers = dict(fmt.get("http_headers") or {})
    wanted = {
        "headers": "".join(f"{name}: {value}\r\n" for name, value in headers.items()),
        "reconnect": "1",
        "reconnect_on_network_error": "1",
        "reconnect_on_http_error": "429,5xx",
        "reconnect_delay_max": "8",
        "request_size": str(CHUNK),
        "initial_request_size": str(INDEX_CHUNK),
    }
    found = {k: v for k, v in wanted.items() if v and k in options.ffmpeg.http_options}
    if "request_size" in found:
        found["multiple_requests"] = "1"  # over one connection
    found["rw_timeout"] = "15000000"  # microseconds
    if urlsplit(url).scheme == "https":
        # ffmpeg 9 checks certificates, and looks for the authorities only where Debian keeps them.
        if {"--no-check-certificates", "--no-check-certificate"} & set(options.ytdlp_args):
            found["tls_verify"] = "0"
        else:
            found["ca_file"] = os.environ.get("SSL_CERT_FILE") or certifi.where()
    return found


def child_environment(proxy: str | None) -> dict[str, str]:
    """The environment of a child: UTF-8, and the proxy, which yt-dlp and ffmpeg take from there.

    Not on a command line: a proxy's password may be in it, and `ps` shows that to everybody.
    """
    environment = {**os.environ, "PYTHONUTF8": "1"}
    if proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            environment |= {name: proxy, name.upper(): proxy}
        environment |= {"no_proxy": "", "NO_PROXY": ""}
    return environment


def split_words(text: str) -> tuple[str, ...]:
    """`--ytdlp_args` as a shell splits words. Raises ValueError for an open quote."""
    return tuple(shlex.split(text))
