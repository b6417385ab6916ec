"""Look up videos with yt-dlp: its command lines, its process, its answers.

yt-dlp runs in child processes that take one command line after another. A new process takes 0.35 to
0.6 s of CPU time before its first request, a complete extraction in one that stays takes 0.06 s.
Another reason: the user's `--ytdlp_args` must not be on a command line, where `ps` shows them.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import pickle
import shutil
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import certifi

from clipreader.media import MEDIA_FORMATS
from utils import process
from utils.clip import now
from utils.download.sources import YOUTUBE, FetchOptions
from utils.download.youtube_texts import FetchError, classify_ytdlp, ytdlp_message
from utils.errors import ROOT
from utils.parallel import Child, Children
from utils.process import STOP, Finished, Stopped
from utils.video.ffmpeg import Input

# Bytes per request. What ffmpeg does not need of the last one is wasted, and YouTube slows down
# requests of more than 10 MiB.
CHUNK = 2**18
# The same while ffmpeg reads a file's beginning, end and index, of which it needs little.
INDEX_CHUNK = 2**15
MEMORY_LIMIT = 2**30  # bytes per process, which usually takes 100 MB: an answer may never end
LONGEST_WAIT = 600.0  # seconds; advertisements are shorter
INFO_FILE = "info.json"  # yt-dlp's JSON of a video, in the folder of its attempt
METADATA = ("title", "channel", "channel_id", "upload_date", "categories", "tags", "language")
NOTHING = '{"id": "none", "title": "none", "extractor": "none", "url": "http://127.0.0.1:9/none"}'


@dataclass
class Attempt:
    """What the steps of one attempt for a video need to know, and how they run programs."""

    options: FetchOptions
    folder: Path  # for unfinished files
    proxy: str | None
    deadline: float  # of the video, by time.monotonic()

    def time_left(self) -> float:
        """Return the seconds left, at least one. Raises FetchError (timeout) if none are left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise FetchError("timeout", "took longer than --timeout")
        return max(1.0, left)

    def run(self, argv: Sequence[str], limit: float) -> Finished:
        """Run a program for at most `limit` seconds."""
        return process.run_child(argv, timeout=limit, env=child_environment(self.proxy))

    def run_ytdlp(self, argv: Sequence[str]) -> Finished:
        """Run yt-dlp for at most the time left. Raises FetchError (timeout), Stopped."""
        done = run_ytdlp(argv, timeout=self.time_left(), env=child_environment(self.proxy))
        if done.timed_out:
            raise FetchError("timeout", "yt-dlp took longer than --timeout")
        return done


# --- command lines -------------------------------------------------------------------------------


def common_arguments(options: FetchOptions, folder: Path) -> list[str]:
    """Return the arguments of every call of yt-dlp, without those of `--ytdlp_args`.

    They choose the highest format that the encode can use, and H.264, the cheapest to decode.
    """
    argv = ["--ignore-config", "--no-playlist", "--color", "never"]
    argv += ["--socket-timeout", "20", "--ffmpeg-location", options.ffmpeg.path]
    if options.cookies:  # a copy, because yt-dlp rewrites its cookie file at the end
        argv += ["--cookies", str(shutil.copyfile(options.cookies, folder / "cookies.txt"))]
    if options.cookies_from_browser:
        argv += ["--cookies-from-browser", options.cookies_from_browser]
    order = "vcodec:h264,acodec:m4a"
    if options.encode.max_height:
        order = f"res:{options.encode.max_height},{order}"  # `res` is the shorter side
    wanted = "bv*+ba/b" if options.encode.audio else "bv/bv*/b"
    # The last choice tells a video without audio from one whose formats are not offered.
    return [*argv, "-f", "ba/b/bv" if options.encode.sound else wanted, "-S", order]


def extract_command(youtube_id: str, options: FetchOptions, folder: Path) -> list[str]:
    """Return the arguments with which yt-dlp prints its JSON of a video."""
    argv = [*common_arguments(options, folder), "-J", *options.ytdlp_args]
    # The address comes after `--`, or an id such as -2JgjPsy4Eo could be read as an option.
    return [*argv, "--", options.url_base + youtube_id]


def whole_command(options: FetchOptions, folder: Path) -> list[str]:
    """Return the arguments with which yt-dlp downloads the video of `folder / INFO_FILE`."""
    template = str(folder / "whole").replace("%", "%%") + ".%(ext)s"
    argv = [*common_arguments(options, folder), "--no-progress", "-o", template]
    argv += ["--merge-output-format", "mp4/mkv", *options.ytdlp_args]
    return [*argv, "--load-info-json", str(folder / INFO_FILE)]


def child_environment(proxy: str | None) -> dict[str, str]:
    """Return the environment for yt-dlp and ffmpeg: UTF-8 and the proxy.

    A proxy is not given on a command line, because `ps` would show its password.
    """
    environment = {**os.environ, "PYTHONUTF8": "1"}
    if proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            environment |= {name: proxy, name.upper(): proxy}
        environment |= {"no_proxy": "", "NO_PROXY": ""}
    return environment


# --- the process that yt-dlp runs in -------------------------------------------------------------


@cache
def _children() -> Children:
    flags = ("-X", "utf8", "-X", "runs=yt_dlp")
    children = Children(partial(Child, str(ROOT), quiet=True, flags=flags))
    atexit.register(children.close)  # of a run that ends before `end_ytdlp`, or of a late thread
    return children


def run_ytdlp(argv: Sequence[str], *, timeout: float, env: Mapping[str, str]) -> Finished:
    """Run `yt-dlp ARGV` in a process that stays. Raises Stopped."""
    deadline = time.monotonic() + timeout
    frame = pickle.dumps((answer_as_ytdlp, (list(argv), dict(env))))
    answer, how = _children().call(frame, lambda: STOP.is_set() or time.monotonic() > deadline)
    outcomes, problem = pickle.loads(answer) if answer else ([], how)
    if outcomes:
        return Finished(*outcomes[0])
    if STOP.is_set():
        raise Stopped
    error = f"ERROR: yt-dlp: {problem or 'no answer'}"
    return Finished(-9, "", error, timed_out=time.monotonic() > deadline)


def end_ytdlp() -> None:
    """End the processes."""
    _children().close()
    _children.cache_clear()


def try_ytdlp(options: FetchOptions) -> str:
    """Return what is wrong with yt-dlp, the user's arguments or the cookies, or an empty text."""
    file = options.workspace / INFO_FILE  # of no video, so that nothing is requested
    file.write_text(NOTHING, encoding="utf-8")
    argv = [*common_arguments(options, options.workspace), "--quiet", *options.ytdlp_args]
    argv += ["--no-batch-file", "--simulate", "--load-info-json", str(file)]
    done = run_ytdlp(argv, timeout=60, env=child_environment(None))
    if done.returncode == 0:
        return ""
    message = ytdlp_message(done).removeprefix("yt-dlp: error: ")
    browser = options.cookies_from_browser
    option = "--cookies" if options.cookies else "--cookies_from_browser" if browser else ""
    if done.returncode == 2 and not (browser and "cookies" in message):
        option = "--ytdlp_args"
    if option and done.returncode in (1, 2):
        return f"{option}: {message}"
    return f"yt-dlp does not start ({message}): pip install -U -r requirements.txt"


def answer_as_ytdlp(task: tuple[list[str], dict[str, str]]) -> tuple[int, str, str]:
    """Run a yt-dlp command line in this process; return its exit code, stdout and stderr."""
    argv, environment = task
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = ["yt-dlp"]  # its name in its error messages
    process.limit_memory(os.getpid(), MEMORY_LIMIT)
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            import yt_dlp.__main__  # here, so that an error is part of the answer

            yt_dlp.main(argv)
        except SystemExit as end:
            code = end.code
        except MemoryError:
            code = "ERROR: an answer without end: IncompleteRead"
        except Exception:
            traceback.print_exc()
            code = 1
    if isinstance(code, str):
        err.write(f"{code}\n")
        code = 1
    return int(code) if isinstance(code, int) else 0, out.getvalue(), err.getvalue()


# --- the extraction ------------------------------------------------------------------------------


def ask_ytdlp(attempt: Attempt, youtube_id: str) -> dict[str, Any]:
    """Return yt-dlp's JSON of a video, and write it to INFO_FILE. Raises FetchError."""
    argv = extract_command(youtube_id, attempt.options, attempt.folder)
    done = attempt.run_ytdlp(argv)
    try:
        info = read_info(done, attempt.options.url_base)
    except FetchError as error:
        error.at_extraction = True
        raise
    (attempt.folder / INFO_FILE).write_text(done.stdout, encoding="utf-8")
    return info


def read_info(done: Finished, url_base: str = YOUTUBE) -> dict[str, Any]:
    """Return the JSON that yt-dlp printed. Raises FetchError if it failed."""
    if done.returncode != 0:
        raise FetchError(classify_ytdlp(done.stderr, url_base), ytdlp_message(done))
    try:
        info = json.loads(done.stdout)
    except (ValueError, RecursionError):  # a number of 5,000 digits is a ValueError, too
        raise FetchError("unknown", f"yt-dlp printed no JSON: {ytdlp_message(done)}") from None
    if not isinstance(info, dict) or info.get("_type", "video") != "video":
        raise FetchError("bad_id", "the address does not lead to one video")
    if info.get("live_status") in ("is_live", "is_upcoming", "post_live"):
        raise FetchError("live", f"the video is a live stream ({info['live_status']})")
    return info


def chosen_formats(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the formats that yt-dlp chose, the one with the video first."""
    formats = list(info.get("requested_formats") or [info])
    return sorted(formats, key=lambda each: each.get("vcodec") in (None, "none"))


def height_of(info: Mapping[str, Any]) -> int:
    """Return the lines of a video as YouTube counts them (its shorter side); 0 if unknown."""
    sides = [chosen_formats(info)[0].get(side) for side in ("height", "width")]
    return min((int(side) for side in sides if isinstance(side, int | float) and side), default=0)


def metadata_of(youtube_id: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return a video's line of videos.jsonl from yt-dlp's answer (--metadata)."""
    kept = {name: info.get(name) for name in METADATA}
    kept |= {"duration": info.get("duration"), "licence": info.get("license")}
    kept |= {"views": info.get("view_count"), "format": info.get("format_id")}
    kept |= {"height": height_of(info), "asked_at": now()}
    return {"youtube_id": youtube_id, **kept}


def seconds_until_available(info: Mapping[str, Any]) -> float:
    """Return the seconds until YouTube serves the video's data: it answers 403 before.

    A viewer would see an advertisement until then.
    """
    times = [each.get("available_at") for each in chosen_formats(info)]
    until = max((float(each) for each in times if isinstance(each, int | float)), default=0.0)
    wait = until - time.time()  # without an advertisement it is just over, and none is due
    return min(wait + 0.5, LONGEST_WAIT) if wait > 0 else 0.0


def section_inputs(
    info: Mapping[str, Any], options: FetchOptions, proxy: str | None = None
) -> list[Input]:
    """Return the chosen formats as inputs of ffmpeg, or nothing if it cannot read them all."""
    if proxy and not proxy.startswith("http://"):
        return []  # ffmpeg ignores such a proxy without a message
    inputs = []
    for each in chosen_formats(info):
        url = each.get("url")
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            return []
        if each.get("cookies"):
            return []  # ffmpeg takes them on its command line only, where `ps` shows them
        if each.get("protocol") not in ("http", "https", "m3u8", "m3u8_native"):
            return []
        http = http_options(url, each, options) | zero_options(each, options)
        is_fragmented = each.get("container") in ("mp4_dash", "m4a_dash")
        inputs.append(Input(url, http, is_fragmented))
    return inputs


def zero_options(fmt: Mapping[str, Any], options: FetchOptions) -> dict[str, str]:
    """Return ffmpeg's options that keep the video's zero for an audio stream without the video.

    Without them ffmpeg would count from the first sample, which may come later.
    """
    is_stream = fmt.get("vcodec") == "none" and fmt.get("ext") in ("m4a", "mp4", "webm")
    return {"seek_timestamp": "1"} if options.encode.sound and is_stream else {}


def http_options(url: str, fmt: Mapping[str, Any], options: FetchOptions) -> dict[str, str]:
    """Return ffmpeg's options for one address.

    The reconnects repair connections that break, stall or get a 5xx or 429 once; without
    `rw_timeout` a stall never ends. YouTube does not slow down requests of `request_size`, and
    small ones save bytes (benchmarks/README.md).
    """
    headers = dict(fmt.get("http_headers") or {})
    found = {
        "headers": "".join(f"{name}: {value}\r\n" for name, value in headers.items()),
        "reconnect": "1",
        "reconnect_on_network_error": "1",
        "reconnect_on_http_error": "429,5xx",
        "reconnect_delay_max": "8",
        "rw_timeout": "15000000",  # microseconds
    }
    if "request_size" in options.ffmpeg.http_options:  # ffmpeg 8.1 and newer
        found |= {"request_size": str(CHUNK), "initial_request_size": str(INDEX_CHUNK)}
        found["multiple_requests"] = "1"  # over one connection
    if not str(fmt.get("protocol")).startswith("m3u8"):
        found["format_whitelist"] = MEDIA_FORMATS  # only a playlist may name other addresses
    if url.startswith("https:"):
        # ffmpeg 9 checks certificates, but finds the authorities on Debian only.
        if {"--no-check-certificates", "--no-check-certificate"} & set(options.ytdlp_args):
            found["tls_verify"] = "0"
        else:
            found["ca_file"] = os.environ.get("SSL_CERT_FILE") or certifi.where()
    return found
