"""Look up videos with yt-dlp: its command lines, its process, its answers.

yt-dlp runs in child processes that stay and take one command line after another. A fresh one takes
0.35 to 0.6 s of CPU time before its first request, a whole extraction in one that stays 0.06 s.
Besides, the user's `--ytdlp_args` are then on no command line, which `ps` shows to all users.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import queue
import shlex
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi

from clipreader.media import MEDIA_FORMATS
from utils.clip import now
from utils.download.sources import YOUTUBE, FetchOptions
from utils.download.youtube_texts import FetchError, classify_ytdlp, ytdlp_message
from utils.parallel import ROOT, Child
from utils.process import STOP, Finished, Stopped, run_child
from utils.video.ffmpeg import Input

# Bytes a request: the rest of the last one is sent for nothing; over 10 MiB YouTube slows down.
CHUNK = 2**18
# While ffmpeg reads a file's beginning, end and index, of which it needs little.
INDEX_CHUNK = 2**15
RENEW_AFTER = 100  # command lines: yt-dlp is not made to stay for weeks
MEMORY_LIMIT = 2**30  # bytes of data in a yt-dlp process, which takes some 100 MB
LONGEST_WAIT = 600.0  # seconds: advertisements are shorter than that
_POLL_SECONDS = 0.1
METADATA = {  # in videos.jsonl -> yt-dlp's name
    "title": "title",
    "channel": "channel",
    "channel_id": "channel_id",
    "upload_date": "upload_date",
    "licence": "license",
    "categories": "categories",
    "tags": "tags",
    "language": "language",
    "duration": "duration",
    "views": "view_count",
    "format": "format_id",
}
NOTHING = '{"id": "none", "title": "none", "extractor": "none", "url": "http://127.0.0.1:9/none"}'


@dataclass
class Attempt:
    """One attempt for a video: what each of its steps knows, and how it runs a program."""

    options: FetchOptions
    folder: Path  # for what is half done
    proxy: str | None
    deadline: float  # of the video, by time.monotonic()

    def time_left(self) -> float:
        """The seconds left, at least one. Raises FetchError (timeout) when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise FetchError("timeout", "took longer than --timeout")
        return max(1.0, left)

    def run(self, argv: Sequence[str], limit: float) -> Finished:
        """Run a program for `limit` seconds at the most."""
        return run_child(argv, timeout=limit, env=child_environment(self.proxy))

    def run_ytdlp(self, argv: Sequence[str]) -> Finished:
        """Run yt-dlp with these arguments for the time that is left."""
        return run_ytdlp(argv, timeout=self.time_left(), env=child_environment(self.proxy))


# --- command lines -------------------------------------------------------------------------------


def common_arguments(options: FetchOptions, folder: Path) -> list[str]:
    """What every call of yt-dlp has: no configuration but the user's `--ytdlp_args`.

    Of a video's formats the highest that the encode keeps, H.264 (cheapest to decode).
    """
    argv = ["--ignore-config", "--no-playlist", "--color", "never"]
    argv += ["--socket-timeout", "20", "--ffmpeg-location", options.ffmpeg.path]
    if options.cookies:
        argv += ["--cookies", copy_cookies(options.cookies, folder)]
    if options.cookies_from_browser:
        argv += ["--cookies-from-browser", options.cookies_from_browser]
    order = "vcodec:h264,acodec:m4a"
    if options.encode.max_height:
        order = f"res:{options.encode.max_height},{order}"  # `res` is the shorter side
    wanted = "bv*+ba/b" if options.encode.audio else "bv/bv*/b"
    # A video without sound is taken, too, to be told from one whose formats are not offered.
    return [*argv, "-f", "ba/b/bv" if options.encode.sound else wanted, "-S", order]


def copy_cookies(cookies: Path, folder: Path) -> str:
    """Copy the cookies for one call, because yt-dlp rewrites its cookie file at the end."""
    copy = folder / "cookies.txt"
    copy.unlink(missing_ok=True)
    return str(shutil.copyfile(cookies, copy))


def extract_command(youtube_id: str, options: FetchOptions, folder: Path) -> list[str]:
    """yt-dlp prints all it knows of a video as JSON, the chosen formats' addresses in it."""
    argv = [*common_arguments(options, folder), "-J", *options.ytdlp_args]
    # The address comes after `--`, or an id such as -2JgjPsy4Eo could be read as an option.
    return [*argv, "--", options.url_base + youtube_id]


def whole_command(info_file: Path, options: FetchOptions, folder: Path) -> list[str]:
    """yt-dlp fetches the whole video; the extraction is taken from `info_file`."""
    template = str(folder / "whole").replace("%", "%%") + ".%(ext)s"
    argv = [*common_arguments(options, folder), "--no-progress", "-o", template]
    argv += ["--merge-output-format", "mp4/mkv", *options.ytdlp_args]
    return [*argv, "--load-info-json", str(info_file)]


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


# --- the process that yt-dlp runs in -------------------------------------------------------------

_idle: list[tuple[Child, int]] = []  # with the number of command lines that each has had
_lock = threading.Lock()


def run_ytdlp(argv: Sequence[str], *, timeout: float, env: Mapping[str, str]) -> Finished:
    """`yt-dlp ARGV` in a process that stays, with what it ends with and prints. Raises Stopped."""
    deadline = time.monotonic() + timeout
    child, calls = _ytdlp_process()
    keep = False
    try:
        child.send(pickle.dumps((answer_as_ytdlp, (list(argv), dict(env)))))
        while True:
            if STOP.is_set():
                raise Stopped
            if time.monotonic() > deadline:
                return Finished(-9, "", "", timed_out=True)
            with suppress(queue.Empty):
                is_outcome, answer = child.receive(_POLL_SECONDS)
                break
        done = pickle.loads(answer)
        if not is_outcome:
            return Finished(1, "", f"ERROR: {done}")
        child.receive(timeout)  # the end of the task
        keep = calls < RENEW_AFTER
        return Finished(*done)
    except (EOFError, OSError):
        code = child.process.wait()
        return Finished(code, "", f"ERROR: yt-dlp ended with exit code {code}")
    finally:
        if keep:
            with _lock:
                _idle.append((child, calls))
        else:
            child.end(0)


def _ytdlp_process() -> tuple[Child, int]:
    """The process that was busy last, or a new one, and which of its command lines is next."""
    with _lock:
        while _idle:
            child, calls = _idle.pop()
            if child.process.poll() is None:
                return child, calls + 1
            child.end(0)
    return Child(str(ROOT), quiet=True, flags=("-X", "utf8", "-X", "runs=yt_dlp")), 1


def end_ytdlp() -> None:
    """End the processes that wait for a command line."""
    with _lock:
        while _idle:
            _idle.pop()[0].end(0)


def try_ytdlp(
    arguments: Sequence[str], cookies: Path | None = None, browser: str | None = None
) -> str:
    """What is wrong with yt-dlp, the user's arguments for it, or the cookies; empty if nothing."""
    # With an empty extraction it has nothing to do but to read its arguments and the cookies.
    argv = ["--ignore-config", "--color", "never", "--quiet", *arguments, "--no-batch-file"]
    argv += ["--cookies-from-browser", browser] if browser else []
    with tempfile.TemporaryDirectory(prefix="kinetics-") as folder:
        if cookies:
            argv += ["--cookies", copy_cookies(cookies, Path(folder))]
        file = Path(folder) / "info.json"
        file.write_text(NOTHING, encoding="utf-8")
        argv += ["--simulate", "--load-info-json", str(file)]
        done = run_ytdlp(argv, timeout=60, env=child_environment(None))
    message = ytdlp_message(done)
    if done.returncode == 0:
        return ""
    if (browser and "cookies" in message) or ((cookies or browser) and done.returncode == 1):
        option = "--cookies" if cookies else "--cookies_from_browser"
        return f"{option}: {message.removeprefix('yt-dlp: error: ')}"
    if done.returncode == 2:
        return f"--ytdlp_args: {message.removeprefix('yt-dlp: error: ')}"
    return f"yt-dlp does not start ({message}): pip install -U -r requirements.txt"


def answer_as_ytdlp(task: tuple[list[str], dict[str, str]]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a yt-dlp command line, in the process that runs this."""
    argv, environment = task
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = ["yt-dlp"]  # what it calls itself where it speaks of its options
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            _limit_memory()
            import yt_dlp.__main__  # here, because what is wrong with it is an answer, too

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


def _limit_memory() -> None:
    """Bound what an answer without end can take.

    Not the address space: of that JavaScript engines reserve gigabytes that they never use.
    """
    with suppress(ImportError, ValueError, OSError):  # another system, or a lower limit
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))


# --- the extraction ------------------------------------------------------------------------------


def ask_ytdlp(attempt: Attempt, youtube_id: str) -> dict[str, Any]:
    """yt-dlp's JSON of a video, also in the file `info_file`. Raises FetchError."""
    argv = extract_command(youtube_id, attempt.options, attempt.folder)
    done = attempt.run_ytdlp(argv)
    try:
        info = read_info(done, attempt.options.url_base)
    except FetchError as error:
        error.at_extraction = True
        raise
    info_file(attempt).write_text(done.stdout, encoding="utf-8")
    return info


def info_file(attempt: Attempt) -> Path:
    return attempt.folder / "info.json"


def read_info(done: Finished, url_base: str = YOUTUBE) -> dict[str, Any]:
    """The JSON that yt-dlp printed. Raises FetchError with the reason where it did not."""
    if done.timed_out:
        raise FetchError("timeout", "yt-dlp took longer than --timeout")
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
    """The formats that yt-dlp chose, the one with the picture first."""
    formats = list(info.get("requested_formats") or [info])
    return sorted(formats, key=lambda each: each.get("vcodec") in (None, "none"))


def height_of(info: Mapping[str, Any]) -> int:
    """The lines of the picture, as YouTube counts them: its shorter side; 0 if unknown."""
    sides = [chosen_formats(info)[0].get(side) for side in ("height", "width")]
    return min((int(side) for side in sides if isinstance(side, int | float) and side), default=0)


def metadata_of(youtube_id: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return a video's line of videos.jsonl from yt-dlp's answer (--metadata)."""
    kept = {name: info.get(key) for name, key in METADATA.items()}
    return {"youtube_id": youtube_id, **kept, "height": height_of(info), "asked_at": now()}


def seconds_to_wait(info: Mapping[str, Any]) -> float:
    """The seconds until YouTube gives out the video's data: before, it answers 403.

    A viewer would see an advertisement until then.
    """
    times = [each.get("available_at") for each in chosen_formats(info)]
    until = max((float(each) for each in times if isinstance(each, int | float)), default=0.0)
    wait = until - time.time()
    return min(wait + 0.5, LONGEST_WAIT) if wait > 0 else 0.0


def section_inputs(info: Mapping[str, Any], options: FetchOptions) -> list[Input]:
    """The chosen formats as inputs of ffmpeg: picture first. Empty if ffmpeg cannot read them."""
    inputs = []
    for each in chosen_formats(info):
        url = each.get("url")
        if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
            return []
        if each.get("cookies"):
            return []  # ffmpeg takes them on its command line alone, which `ps` shows to everybody
        if each.get("protocol") not in ("http", "https", "m3u8", "m3u8_native"):
            return []
        http = http_options(url, each, options) | zero_options(each, options)
        is_fragmented = each.get("container") in ("mp4_dash", "m4a_dash")
        inputs.append(Input(url, http, is_fragmented))
    return inputs


def zero_options(fmt: Mapping[str, Any], options: FetchOptions) -> dict[str, str]:
    """ffmpeg's options for a sound stream fetched alone: its zero is the video's.

    Without them ffmpeg would count from the first sample, which may come later.
    """
    is_stream = fmt.get("vcodec") == "none" and fmt.get("ext") in ("m4a", "mp4", "webm")
    return {"seek_timestamp": "1"} if options.encode.sound and is_stream else {}


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
    is_playlist = str(fmt.get("protocol")).startswith("m3u8")
    found["format_whitelist"] = f"{MEDIA_FORMATS},hls" if is_playlist else MEDIA_FORMATS
    found["protocol_whitelist"] = "http,https,tcp,tls,httpproxy,crypto"
    if urlsplit(url).scheme == "https":
        # ffmpeg 9 checks certificates, and looks for the authorities only where Debian keeps them.
        if {"--no-check-certificates", "--no-check-certificate"} & set(options.ytdlp_args):
            found["tls_verify"] = "0"
        else:
            found["ca_file"] = os.environ.get("SSL_CERT_FILE") or certifi.where()
    return found
