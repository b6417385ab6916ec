"""Map error messages of YouTube, yt-dlp and ffmpeg to the reasons of the report.

tests/youtube_texts.tsv lists the texts with their sources; a test holds this table against it.
"""

from __future__ import annotations

import re

from utils.download.sources import YOUTUBE, is_youtube
from utils.process import Finished
from utils.report import FAILED, REASONS

BLOCKS = ("rate_limited", "bot_check")

# A text has the reason of the first row that matches. Texts are compared without regard to case,
# to the form of an apostrophe, or to the number of blanks.
TEXTS: tuple[tuple[str, str], ...] = (
    ("disk_full", r"No space left|Disk quota exceeded|Errno 28\b|Errno 122\b|not enough space on"),
    (
        "cookies",
        r"cookies? (are|is) (no longer valid|expired)|not look like a Netscape|invalid Netscape"
        r"|Cookies file (must|is)|cookies? (database|file)\b|failed to (load|read) .*cookies"
        r"|decrypt (with DPAPI|\S*cookie)|unsupported (browser|keyring)|secretstorage"
        r"|custom safari cookies|\bkeyring\b|kwallet|local state|not support profiles",
    ),
    # What the tool or the player client does not understand, before the words that it quotes.
    (
        "no_format",
        r"page needs to be reloaded|(not|only|isn't) available (on|in) (this|the latest)"
        r" (app|device|version)|latest version of YouTube|update (your|the) (app|YouTube)"
        r"|Error 15[0-9]\b|Playback on other (websites|sites|apps)|An extractor error has occurred",
    ),
    ("private", r"private video|video is private|video has been made private"),
    (
        "bot_check",
        r"not a bot|captcha|IP (address )?is likely being blocked|unusual traffic"
        r"|please (sign|log) ?in\b|Login details are needed",
    ),
    (
        "rate_limited",
        r"rate.?limited|content isn't available(?! (in|on|to) )|HTTP Error 429|Too Many Requests"
        r"|Server returned 429|(hit|reached|exceeded) (the|your|a) (request|rate|quota) ?(limit|$)"
        r"|quota exceeded|you've hit the request limit",
    ),
    (
        "members_only",
        r"members.only|channel's members|requires payment|Premium members|YouTube Premium"
        r"|join this channel|purchase|rent (this|to)|subscribers? only|paid content",
    ),
    (
        "age_restricted",
        r"confirm your age|inappropriate|age.restricted|age.verif|verify your age|all viewers"
        r"|viewer discretion|mature audiences|age.gated?",
    ),
    (
        "account_terminated",
        r"(account|channel)\b.*\b(terminated|closed|suspended|deleted|removed)"
        r"|closed their (YouTube )?(account|channel)|(terminated|suspended) account",
    ),
    (
        "removed",
        r"removed (for|because|due to|by) .*(violat|policy|guidelines|terms|hate|uploader|user)"
        r"|violat(es|ed|ing) YouTube's",
    ),
    (
        "geo_blocked",
        r"(in|from) your (country|location|region|area)|geo.?.?restrict|on this country domain"
        r"|not made this video available|blocked it in|Russian government",
    ),
    ("copyright", r"copyright|contains content from"),
    (
        "live",
        r"live ?(event|stream)|\bPremieres?\b|LIVE_STREAM_OFFLINE|(Waiting|Wait) for .* to (begin|"
        r"start)|not currently live|will begin (in|shortly)|is offline|has not (yet )?started"
        r"|scheduled to",
    ),
    ("unknown", r"pending review|being processed|processing this video|still processing"),
    ("no_format", r"this format is DRM"),
    ("drm", r"DRM.protected|DRM.encrypted|protected by DRM"),
    (
        "removed",
        r"(video|content)( has been| was|'s been)? (removed|deleted|taken down)|no longer available"
        r"|removed by the (uploader|user)",
    ),
    (
        "bad_id",
        r"looks truncated|Incomplete YouTube ID|Invalid (URL|video id)|Unsupported URL(?! scheme)"
        r"|not a valid (URL|video|YouTube)",
    ),
    (
        "unavailable",
        r"Video unavailable|(video|content|media) (is (currently )?(not available|unavailable)"
        r"|isn't available)|video (does not|doesn't|no longer) exists?|Content unavailable"
        r"|An error occurred\. Please try again later|Something went wrong",
    ),
    ("forbidden", r"HTTP Error 403|403:? Forbidden|Server returned 403|fragment \d+ not found"),
    ("timeout", r"(page|JSON|data|manifest|file): timed out"),
    ("network", r"Failed to parse JSON.*Expecting value in ''"),
    (
        "no_format",
        r"Requested format is not available|No video formats found|Only images are available"
        r"|Unable to extract|Failed to (parse|decode|decrypt|extract (?!any player))|object has no"
        r" attribute|object is not subscriptable|KeyError|TypeError|Cannot identify player"
        r"|player clients? (has|have) been|No supported .*client|unsupported client"
        r"|Could not find (JS|player|XML)|No media found|extractor (result|failed)"
        r"|No suitable extractor",
    ),
    ("undecodable", r"Invalid data found when processing input"),
    (
        "network",
        r"HTTP error (4\d\d|5\d\d)|Server returned (4\d\d|4XX|5\d\d|5XX)|timed? ?out|timeout"
        r"|Connection (refused|reset|aborted|broken|to .* (closed|lost|failed))|redirect loop"
        r"|Cannot connect|(closed|reset|lost) (the )?connection|redirect(s|ed too)|infinite loop"
        r"|not get any data blocks|Failed to (resolve|establish|connect|perform)|name resolution"
        r"|(name|node|service) not known|nodename nor servname|getaddrinfo|resolve host"
        r"|bytes read|more expected|content too short|file is empty|Stream ends prematurely"
        r"|Input/output error|\bSSL\b|\bTLS\b|SSL:|SSLV?\d?_|certificate|handshake|EOF occurred"
        r"|proxy|SOCKS|Tunnel connection|unreachable|No route to host|network is down"
        r"|Network (error|problem)|Remote (end|host) closed|RemoteDisconnected|IncompleteRead"
        r"|ended prematurely|Broken pipe|Range Not Satisfiable|TransportError|YouTube said:"
        r"|No response|Incomplete data received|empty (response|answer|data)|Bad Request"
        r"|Conflicting range|Precondition check failed|RENEGOTIATION|bad status line"
        r"|protocol error|curl: \(|Failed to extract any player",
    ),
)
_TEXTS = tuple((reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in TEXTS)

FFMPEG_REASONS = ("rate_limited", "disk_full", "forbidden", "undecodable", "network")
_OLD_COOKIES = r"cookies are no longer valid"
_NO_JAVASCRIPT = (
    r"No supported JavaScript runtime|challenge solving failed|Signature solving failed"
    r"|Error solving .* challenge|challenge solver script .* skipped|JS challenge"
)
# What the owner of an account may be told when the account is no longer logged in.
_NEEDS_LOGIN = ("private", "members_only", "age_restricted", *BLOCKS)
_NO_REASON = ("no_format", "forbidden", "network", "unknown")  # a warning may know more than these
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`\uff07\u2032", "'"))


class FetchError(Exception):
    """A video, or one clip, did not come: `reason` is one of the report's reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.at_extraction = False  # told by the site itself, and not by a server of its data

    @property
    def is_final(self) -> bool:
        """Whether no other attempt will ever help."""
        return REASONS[self.reason][0] != FAILED


def classify(text: str) -> str:
    """Return the reason for an error message, or `unknown`."""
    plain = " ".join(text.translate(_APOSTROPHES).split())
    return next((reason for reason, pattern in _TEXTS if pattern.search(plain)), "unknown")


def classify_ytdlp(stderr: str, url_base: str = YOUTUBE) -> str:
    """The reason in what yt-dlp printed. An error decides.

    A warning is heard where the error gives no reason of its own, and never makes a verdict that
    is final: a 429 of the player API, for one, stands in a warning alone.
    """
    errors, warnings = _errors_and_rest(stderr)
    reason = classify(errors)
    said = warnings.translate(_APOSTROPHES)
    if re.search(_OLD_COOKIES, said, re.IGNORECASE) and reason in (*_NEEDS_LOGIN, *_NO_REASON):
        return "cookies"
    if reason in ("no_format", "forbidden", "unknown") and re.search(
        _NO_JAVASCRIPT, stderr, re.IGNORECASE
    ):
        reason = "js_runtime"
    elif reason in _NO_REASON:
        warned = [classify(line) for line in warnings.splitlines()]
        is_silent = "failed to extract any player" in errors.lower()  # a 403 of the API, for one
        known = [w for w in warned if w in ("cookies", *BLOCKS, *["forbidden"] * is_silent)]
        if known:
            return known[0]
        if reason == "unknown":
            lasting = [each for each in warned if each in ("disk_full", "network", "no_format")]
            reason = lasting[0] if lasting else reason
    if reason == "bad_id" and not is_youtube(url_base):
        return "network"  # an error page of another server, for an id that may be a good one
    return reason


def _errors_and_rest(stderr: str) -> tuple[str, str]:
    """The errors and the rest. An error without a text has it in the next line."""
    found: dict[bool, list[str]] = {True: [], False: []}
    before = ""
    for line in stderr.splitlines():
        is_error = re.match(r"\S*: error:|ERROR\b", line) or before.strip() == "ERROR:"
        found[bool(is_error)].append(line)
        before = line
    return "\n".join(found[True]), "\n".join(found[False])


def ytdlp_message(done: Finished) -> str:
    """yt-dlp's own words for its last error, without its advice on reporting bugs."""
    lines = [" ".join(line.split()) for line in _errors_and_rest(done.stderr)[0].splitlines()]
    lines = [line for line in lines if line not in ("", "ERROR:")]
    text = (lines or done.stderr.strip().splitlines() or ["no message"])[-1]
    text = re.sub(r"^ERROR: (\[[^\]]+\] [^:]+: )?|^\[download\] ", "", text)
    cut = r"\s*(?:; please report this issue|Use --cookies|See +https|For more information)"
    return re.split(cut, text)[0].strip()
