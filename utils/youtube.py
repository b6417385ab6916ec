"""Clips from YouTube, or from a server of whole videos: yt-dlp finds the video, ffmpeg cuts it.

Between the lists and the disk. One yt-dlp extraction serves all clips of a video; ffmpeg then
reads only the section of each clip and encodes it once. Where sections fail, yt-dlp fetches the
whole video and the clips are cut from the file.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi

from utils.clips import Clip, clip_window
from utils.files import disk_is_full, is_disk_full, publish
from utils.media import (
    DURATION_TOLERANCE,
    BadClip,
    Encode,
    Ffmpeg,
    Input,
    check_clip,
    complaints,
    cut_command,
    file_url,
    last_line,
    measure_end,
    read_source,
)
from utils.pace import Pace, Turn
from utils.packages import UNEXPECTED, describe
from utils.process import Finished, Stopped, run_child, sleep
from utils.report import FAILED, REASONS, Result

YOUTUBE = "https://www.youtube.com/watch?v="
YOUTUBE_NAMES = ("youtube", "url_base")  # in the report: YouTube itself, and another --url_base
BLOCKS = ("rate_limited", "bot_check")
TRIES = 3  # extractions for one video in one run, blocks not counted
SECTION_AGAIN = 50  # of so many videos that come whole, one is tried by section again
STICKY_AFTER = 3  # sections that failed in a row where the whole video came: then it comes first
CHUNK = (
    2**20
)  # bytes a request: the rest of one is sent for nothing; over 10 MiB YouTube slows down

# What yt-dlp and ffmpeg print when they fail, and what it means: the first row that matches counts.
ERRORS: tuple[tuple[str, str], ...] = (
    ("bot_check", r"not a bot|captcha challenge|IP is likely being blocked"),
    (
        "rate_limited",
        r"rate-limited by YouTube|isn.t available, try again later|HTTP error 429"
        r"|Too Many Requests",
    ),
    ("cookies", r"account cookies are no longer valid"),
    (
        "js_runtime",
        r"No supported JavaScript runtime|challenge solving failed|Signature solving failed",
    ),
    ("disk_full", r"No space left|Disk quota exceeded|unable to (open for writing|write data)"),
    ("age_restricted", r"confirm your age|inappropriate for some users|age-restricted"),
    ("private", r"Private video|video is private"),
    ("members_only", r"members-only|channel's members|requires payment"),
    (
        "account_terminated",
        r"account associated with this video has been (terminated|closed)"
        r"|closed their YouTube account",
    ),
    ("geo_blocked", r"in your country|geo restriction"),
    ("copyright", r"copyright (claim|grounds)"),
    (
        "live",
        r"live event will begin|Premieres? (in|will begin)|live event has ended"
        r"|live stream recording is not available|processing this video",
    ),
    ("removed", r"removed by the (uploader|user)|removed for violating|no longer available"),
    ("drm", r"DRM protected"),
    ("bad_id", r"looks truncated|Invalid URL|Unsupported URL"),
    ("unavailable", r"Video unavailable|video is (not available|unavailable)|does not exist"),
    ("no_format", r"Requested format is not available|No video formats found"),
    ("forbidden", r"HTTP error 403|403 Forbidden"),
    ("undecodable", r"Invalid data found when processing input"),
    (
        "network",
        r"HTTP error (404|5\d\d)|Server returned (404|5XX)|timed out|Connection (refused|reset)"
        r"|Failed to resolve|Temporary failure in name resolution|bytes read, \d+ more expected"
        r"|file is empty|Stream ends prematurely|Input/output error|SSL:",
    ),
)
FFMPEG_REASONS = ("rate_limited", "disk_full", "forbidden", "undecodable", "network")
_ERRORS = tuple((reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in ERRORS)


class FetchError(Exception):
    """A video, or one clip, did not come: `reason` is one of the report's reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.at_extraction = False  # told by the site itself, and not by a server of its data


@dataclass(frozen=True)
class FetchOptions:
    """All that a worker has to know; plain data, so that it can go to another process."""

    out: Path
    workspace: Path  # this run's temporary folder, on the same disk as `out`
    ffmpeg: Ffmpeg
    encode: Encode = Encode()
    cookies: Path | None = None
    cookies_from_browser: str | None = None
    proxies: tuple[str, ...] = ()
    ytdlp_args: tuple[str, ...] = ()
    url_base: str = YOUTUBE
    timeout: float = 600.0

    @property
    def source_name(self) -> str:
        return YOUTUBE_NAMES[not is_youtube(self.url_base)]


class SectionLuck:
    """Counts the sections that failed where the whole video came; shared by the workers.

    After STICKY_AFTER in a row the whole video comes first; every SECTION_AGAIN videos a section
    is tried again, or a fault that has passed would cost a run of weeks ten times the bytes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._whole_first = 0

    def whole_first(self) -> bool:
        """Whether the next video should come whole; counts that it is asked."""
        with self._lock:
            if self._failed_in_a_row < STICKY_AFTER:
                return False
            self._whole_first += 1
            return self._whole_first % SECTION_AGAIN != 0

    def section_came(self) -> None:
        with self._lock:
            self._failed_in_a_row = 0

    def only_whole_came(self) -> None:
        with self._lock:
            self._failed_in_a_row += 1


class Budget:
    """The time that is left for a video; waiting for a turn does not use it up."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._deadline - time.monotonic()

    def add(self, seconds: float) -> None:
        self._deadline += seconds

    def require(self) -> float:
        """The seconds left, at least one. Raises FetchError (timeout) when there are none."""
        if self.left <= 0:
            raise FetchError("timeout", "took longer than --timeout")
        return max(1.0, self.left)


def is_youtube(url_base: str) -> bool:
    """Whether an address is YouTube's, however it is spelled: there its pace and blocks hold."""
    host = urlsplit(url_base).hostname or ""
    return host == "youtu.be" or f".{host}".endswith((".youtube.com", ".youtube-nocookie.com"))


def classify(text: str) -> str:
    """The reason that an error output states; `unknown` if none that is known."""
    for reason, pattern in _ERRORS:
        if pattern.search(text):
            return reason
    return "unknown"


def classify_ytdlp(stderr: str, url_base: str = YOUTUBE) -> str:
    """The reason in yt-dlp's output: its errors count first, for not all it warns of is a cause.

    A private video says so in an ERROR, even where a WARNING says that there is no JavaScript. But
    a 429 of YouTube's API stands in a WARNING alone; the ERROR is "Failed to extract any player
    response".
    """
    errors = "\n".join(line for line in stderr.splitlines() if line.startswith("ERROR"))
    reason = classify(errors)
    if reason == "unknown":
        reason = classify(stderr)
    elif reason in ("no_format", "forbidden"):
        warned = classify(stderr)
        reason = warned if warned in ("cookies", "js_runtime", *BLOCKS) else reason
    if reason == "bad_id" and not is_youtube(url_base) and "Unsupported URL" in stderr:
        return "network"  # a mirror's error page, for an id that may be a good one
    return reason


# ---- command lines ------------------------------------------------------------------------------


def format_arguments(options: FetchOptions) -> list[str]:
    """Which of a video's formats: the highest that the encode keeps, H.264 (cheapest to decode)."""
    wanted = "bv*+ba/b" if options.encode.audio else "bv/bv*/b"
    order = "vcodec:h264,acodec:m4a"
    if options.encode.max_height:
        order = f"height:{options.encode.max_height},{order}"
    return ["-f", wanted, "-S", order]


def common_arguments(options: FetchOptions, folder: Path, proxy: str | None) -> list[str]:
    """What every call of yt-dlp has: no configuration but the user's `--ytdlp_args`."""
    argv = [sys.executable, "-m", "yt_dlp", "--ignore-config", "--no-playlist", "--color", "never"]
    argv += ["--socket-timeout", "20", "--ffmpeg-location", options.ffmpeg.path]
    if proxy:
        argv += ["--proxy", proxy]
    if options.cookies:
        # A copy for each call: yt-dlp writes its cookie file anew at its end, and workers that
        # shared one would tear it.
        copy = folder / "cookies.txt"
        copy.unlink(missing_ok=True)
        argv += ["--cookies", str(shutil.copyfile(options.cookies, copy))]
    if options.cookies_from_browser:
        argv += ["--cookies-from-browser", options.cookies_from_browser]
    return argv


def extract_command(
    youtube_id: str, options: FetchOptions, folder: Path, proxy: str | None = None
) -> list[str]:
    """yt-dlp prints all it knows of a video as JSON, the chosen formats' addresses in it."""
    argv = [*common_arguments(options, folder, proxy), *format_arguments(options), "-J"]
    # The address comes after `--`, or an id such as -2JgjPsy4Eo could be read as an option.
    return [*argv, *options.ytdlp_args, "--", options.url_base + youtube_id]


def whole_command(
    info_file: Path, options: FetchOptions, folder: Path, proxy: str | None = None
) -> list[str]:
    """yt-dlp fetches the whole video natively; the extraction is taken from `info_file`."""
    template = str(folder / "whole").replace("%", "%%") + ".%(ext)s"
    argv = [*common_arguments(options, folder, proxy), *format_arguments(options)]
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
        if each.get("protocol") not in ("http", "https", "m3u8", "m3u8_native"):
            return []
        inputs.append(Input(url, http_options(url, each, options)))
    if len(inputs) == 2 and formats[0].get("vcodec") in (None, "none"):
        inputs.reverse()
    return inputs


def http_options(url: str, fmt: Mapping[str, Any], options: FetchOptions) -> dict[str, str]:
    """ffmpeg's options for one address.

    The reconnects repair connections that are cut, stall or are answered 5xx or 429 once; without
    `rw_timeout` a stall hangs for ever. `request_size` keeps YouTube from slowing down (13 s to
    3.9 s); ffmpeg before 8.1 has no such option and would refuse the line.
    """
    headers = dict(fmt.get("http_headers") or {})
    if cookie := cookie_header(fmt.get("cookies")):
        headers["Cookie"] = cookie
    wanted = {
        "headers": "".join(f"{name}: {value}\r\n" for name, value in headers.items()),
        "reconnect": "1",
        "reconnect_on_network_error": "1",
        "reconnect_on_http_error": "429,5xx",
        "reconnect_delay_max": "8",
        "request_size": str(CHUNK),
    }
    found = {k: v for k, v in wanted.items() if v and k in options.ffmpeg.http_options}
    found["rw_timeout"] = "15000000"  # microseconds
    if urlsplit(url).scheme == "https":
        # ffmpeg 9 checks certificates, and looks for the authorities only where Debian keeps them.
        if {"--no-check-certificates", "--no-check-certificate"} & set(options.ytdlp_args):
            found["tls_verify"] = "0"
        else:
            found["ca_file"] = os.environ.get("SSL_CERT_FILE") or certifi.where()
    return found


def cookie_header(cookies: str | None) -> str:
    """yt-dlp's `cookies` of a format (`name=value; Domain=...`) as a Cookie header's value."""
    try:
        parsed = SimpleCookie(cookies or "")
    except CookieError:
        return ""
    return "; ".join(f"{name}={morsel.coded_value}" for name, morsel in parsed.items())


def child_environment(proxy: str | None) -> dict[str, str]:
    """The environment of a child: UTF-8, and the proxy, which ffmpeg takes from there."""
    environment = {**os.environ, "PYTHONUTF8": "1"}
    if proxy:
        environment |= {"http_proxy": proxy, "HTTP_PROXY": proxy, "no_proxy": "", "NO_PROXY": ""}
    return environment


# ---- one video ----------------------------------------------------------------------------------


def fetch_video(
    clips: Sequence[Clip],
    options: FetchOptions,
    pace: Pace | None = None,
    luck: SectionLuck | None = None,
    turn_number: int = 0,
    record: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Fetch all `clips` of one video; one result for each, fewer when the run is stopped.

    `turn_number` says which of the proxies takes the first try. `record` is given the result of a
    clip as soon as its file is in place, for its video may have more that take their time. Raises
    Stopped when nothing was finished.
    """
    video = _Video(clips, options, pace or Pace(), luck or SectionLuck(), turn_number)
    video.record = record
    try:
        video.folder = Path(
            tempfile.mkdtemp(prefix=f"{clips[0].youtube_id}-", dir=options.workspace)
        )
        video.fetch()
    except OSError as error:
        full = is_disk_full(error) or disk_is_full(options.out)
        message = f"{error.strerror or error}: {error.filename or options.out}"
        for clip in list(video.pending):
            video.finish(clip, "disk_full" if full else "unknown", message)
    except UNEXPECTED as error:
        for clip in list(video.pending):
            video.finish(clip, "unknown", describe(error))
    except Stopped:
        if not video.results:
            raise
    finally:
        shutil.rmtree(video.folder, ignore_errors=True)
    return video.results


class _Video:
    """The tries for one video, and what has become of its clips so far."""

    def __init__(
        self,
        clips: Sequence[Clip],
        options: FetchOptions,
        pace: Pace,
        luck: SectionLuck,
        turn_number: int,
    ) -> None:
        self.options, self.pace, self.luck = options, pace, luck
        self.folder = options.workspace / "none"
        self.turn_number = turn_number
        self.pending = list(clips)
        self.results: list[Result] = []
        self.attempts = 0
        self.media_blocks = 0
        self.record: Callable[[Result], None] | None = None
        self.started = time.monotonic()
        self.waited = 0.0
        self.budget = Budget(options.timeout * len(clips))

    def fetch(self) -> None:
        """Try until every clip is on disk or written off."""
        while self.pending:
            turn = self._wait_turn()
            self.attempts += 1
            before = len(self.pending)
            try:
                errors = self._attempt()
            except FetchError as error:
                errors = {clip.name: error for clip in self.pending}
            except BaseException:
                self.pace.unclear(turn)  # or a scout that is gone would be waited for, for ever
                raise
            if (block := self._met_block(errors)) and self.media_blocks <= TRIES:
                self.pace.blocked(turn, block)
                self.attempts -= 1  # nobody's clip fails for a block
                continue
            answered = len(self.pending) < before or any(map(is_for_good, errors.values()))
            (self.pace.passed if answered else self.pace.unclear)(turn)
            self._give_up(errors)
            if self.pending:
                # The wait grows with the tries, and is never the same for two workers.
                sleep(min(2.0**self.attempts, max(0.0, self.budget.left)) * random.uniform(0.5, 1))

    def _wait_turn(self) -> Turn:
        before = time.monotonic()
        turn = self.pace.wait_turn()
        waited = time.monotonic() - before
        self.waited += waited
        self.budget.add(waited)
        return turn

    def _met_block(self, errors: Mapping[str, FetchError]) -> str:
        """The reason of a block; empty if none was met.

        Blocks of the site never end. Blocks on the data of one video do, after some pauses, or
        that one video would hold up all others for ever.
        """
        blocks = [error for error in errors.values() if error.reason in BLOCKS]
        if not blocks:
            return ""
        self.media_blocks += not blocks[0].at_extraction
        return blocks[0].reason

    def _give_up(self, errors: Mapping[str, FetchError]) -> None:
        """Write off the clips for which another try is of no use, or of which there were enough."""
        for clip in list(self.pending):
            error = errors[clip.name]
            hopeless = error.reason in ("timeout", "cookies", "js_runtime", "disk_full", *BLOCKS)
            if is_for_good(error) or hopeless or self.attempts >= TRIES:
                self.finish(clip, error.reason, error.message)

    def finish(self, clip: Clip, reason: str, message: str = "", size: int = 0) -> None:
        """Say what has become of a clip."""
        self.pending.remove(clip)
        result = Result.of(
            clip,
            reason,
            self.options.source_name,
            attempts=self.attempts,
            seconds=time.monotonic() - self.started - self.waited,
            bytes=size,
            message=message,
        )
        self.results.append(result)
        if result.is_on_disk and self.record is not None:
            self.record(result)

    def _attempt(self) -> dict[str, FetchError]:
        """One extraction, and from it sections or the whole video; the errors of what is left."""
        proxies = self.options.proxies
        turn = self.turn_number + self.attempts - 1
        proxy = proxies[turn % len(proxies)] if proxies else None
        info, info_file = self._extract(proxy)
        errors: dict[str, FetchError] = {}
        inputs = section_inputs(info, self.options)
        # ffmpeg knows http:// proxies only, and goes past any other one without a word.
        reachable = proxy is None or proxy.startswith("http://")
        if inputs and reachable and not self.luck.whole_first():
            errors = self._cut_sections(info, inputs, proxy)
        if not any(survives_as_whole(errors.get(clip.name)) for clip in self.pending):
            return errors
        tried_sections = bool(errors)
        came = len(self.pending)
        try:
            errors |= self._cut_whole(info_file, proxy)
        except FetchError as error:
            # What a section told for good (past_end) stays told.
            lasting = {name: each for name, each in errors.items() if is_for_good(each)}
            return {clip.name: error for clip in self.pending} | lasting
        if tried_sections and len(self.pending) < came:
            self.luck.only_whole_came()
        return errors

    def _extract(self, proxy: str | None) -> tuple[dict[str, Any], Path]:
        """What yt-dlp knows of the video, and the file that it is kept in."""
        argv = extract_command(self.pending[0].youtube_id, self.options, self.folder, proxy)
        done = run_child(argv, timeout=self.budget.require(), env=child_environment(proxy))
        try:
            info = read_info(done, self.options.url_base)
        except FetchError as error:
            error.at_extraction = True
            raise
        info_file = self.folder / "info.json"
        info_file.write_text(done.stdout, encoding="utf-8")
        return info, info_file

    def _cut_sections(
        self, info: Mapping[str, Any], inputs: Sequence[Input], proxy: str | None
    ) -> dict[str, FetchError]:
        errors = {}
        for clip in list(self.pending):
            try:
                # Half of the time is kept for the whole video, which a slowed-down section needs.
                limit = min(self.budget.require(), self.options.timeout / 2)
                self._cut(clip, inputs, limit, proxy, claimed=info.get("duration"))
                self.luck.section_came()
            except FetchError as error:
                errors[clip.name] = error
        return errors

    def _cut_whole(self, info_file: Path, proxy: str | None) -> dict[str, FetchError]:
        whole = self._fetch_whole(info_file, proxy)
        errors = {}
        try:
            tool = self.options.ffmpeg
            end = measure_end(tool, whole, timeout=self.budget.require())
            source = Input(file_url(whole), {"protocol_whitelist": "file"})
            for clip in list(self.pending):
                try:
                    self._cut(clip, [source], self.budget.require(), proxy, end=end)
                except FetchError as error:
                    errors[clip.name] = error
        except BadClip as error:
            raise FetchError(error.reason, f"the whole video: {error.message}") from error
        finally:
            whole.unlink(missing_ok=True)
        return errors

    def _fetch_whole(self, info_file: Path, proxy: str | None) -> Path:
        argv = whole_command(info_file, self.options, self.folder, proxy)
        done = run_child(argv, timeout=self.budget.require(), env=child_environment(proxy))
        if done.timed_out:
            raise FetchError("timeout", "fetching the whole video took longer than --timeout")
        files = [p for p in self.folder.glob("whole.*") if p.suffix not in (".part", ".ytdl")]
        if done.returncode != 0 or len(files) != 1:
            reason = classify_ytdlp(done.stderr, self.options.url_base)
            raise FetchError(reason, ytdlp_message(done))
        return files[0]

    def _cut(
        self,
        clip: Clip,
        inputs: Sequence[Input],
        limit: float,
        proxy: str | None,
        *,
        end: float | None = None,
        claimed: float | None = None,
    ) -> None:
        """Cut one clip, check it, give it its name. Raises FetchError.

        `end`: where the picture ends, if it was measured; `claimed`: what the site says.
        """
        options = self.options
        target = self.folder / f"{clip.name}.mp4"
        start, wanted = clip_window(clip)
        if end is not None and end - start < DURATION_TOLERANCE:
            raise FetchError("past_end", f"the video ends at {end:.2f} s")
        argv = cut_command(options.ffmpeg, inputs, start, wanted, options.encode, target)
        done = run_child(argv, timeout=limit, env=child_environment(proxy))
        if done.timed_out:
            raise FetchError("timeout", f"cutting took longer than {limit:.0f} s")
        source = read_source(done.stderr)
        known_end = end if end is not None else source.duration
        expected = wanted if known_end is None else min(wanted, known_end - start)
        if expected < DURATION_TOLERANCE:
            # For good only if both the file and the site say so: one of them may be wrong.
            agreed = claimed is None or start > claimed - 1
            reason = "past_end" if agreed else "truncated"
            raise FetchError(reason, f"the video ends at {known_end:.2f} s")
        if done.returncode != 0:
            raise FetchError(self._reason_of(done), last_line(done) or "ffmpeg failed")
        try:
            check_clip(target, expected, options.encode.audio and source.has_audio)
        except BadClip as error:
            reason = "disk_full" if disk_is_full(options.out) else error.reason
            raise FetchError(reason, error.message) from error
        size = target.stat().st_size
        publish(target, options.out / target.name)
        self.finish(clip, "short" if expected < wanted - DURATION_TOLERANCE else "", size=size)

    def _reason_of(self, done: Finished) -> str:
        if disk_is_full(self.options.out):
            return "disk_full"
        # Only ffmpeg's own complaints, and of those only what ffmpeg can know: the log also holds
        # the title and the description of the video, which may say anything ("not a bot").
        reason = classify("\n".join(complaints(done.stderr)))
        return reason if reason in FFMPEG_REASONS else "unknown"


def is_for_good(error: FetchError) -> bool:
    """Whether no other try will ever help."""
    return REASONS[error.reason][0] != FAILED


def survives_as_whole(error: FetchError | None) -> bool:
    """Whether fetching the whole video may help a clip (None: no section of it was tried)."""
    if error is None:
        return True
    return not is_for_good(error) and error.reason not in ("disk_full", *BLOCKS)


def read_info(done: Finished, url_base: str = YOUTUBE) -> dict[str, Any]:
    """The JSON that yt-dlp printed. Raises FetchError with the reason where it did not."""
    if done.timed_out:
        raise FetchError("timeout", "yt-dlp took longer than --timeout")
    if done.returncode != 0:
        raise FetchError(classify_ytdlp(done.stderr, url_base), ytdlp_message(done))
    try:
        info = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise FetchError("unknown", f"yt-dlp printed no JSON: {ytdlp_message(done)}") from None
    if not isinstance(info, dict) or info.get("_type", "video") != "video":
        raise FetchError("bad_id", "the address does not lead to one video")
    if info.get("live_status") in ("is_live", "is_upcoming", "post_live"):
        raise FetchError("live", f"the video is a live stream ({info['live_status']})")
    return info


def ytdlp_message(done: Finished) -> str:
    """yt-dlp's own words for its last error, without its advice on reporting bugs."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    text = (errors or done.stderr.strip().splitlines() or ["no message"])[-1]
    text = re.sub(r"^ERROR: (\[[^\]]+\] [^:]+: )?", "", text)
    return re.split(r"\s*(?:; please report this issue|Use --cookies|See +https)", text)[0].strip()


def split_words(text: str) -> tuple[str, ...]:
    """`--ytdlp_args` as a shell splits words. Raises ValueError for an open quote."""
    return tuple(shlex.split(text))
