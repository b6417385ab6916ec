"""Map error messages of YouTube, yt-dlp and ffmpeg to the reasons of the report.

tests/youtube_texts.tsv lists known texts and where they come from; a test compares them with TEXTS.
"""

from __future__ import annotations

import re

from utils.clip import FAILED, REASONS
from utils.download.sources import YOUTUBE, is_youtube
from utils.process import Finished
from utils.video.whole import BadClip

BLOCKS = ("rate_limited", "bot_check")

# The first row that matches gives the reason. Case, the form of apostrophes and the number of
# blanks do not matter.
TEXTS: tuple[tuple[str, str], ...] = (
    ("disk_full", r"No space left|Disk quota exceeded|Errno (28|122)\b|not enough space on"),
    ("cookies", r"cookies? (database|file)\b|cookies? (are|is) (no longer valid|expired)"),
    ("cookies", r"failed to (load|read) .*cookies|decrypt (with DPAPI|\S*cookie)|secretstorage"),
    ("cookies", r"unsupported browser|\bkeyring\b|kwallet|local state|not support profiles"),
    # Errors of the tool or the player client stand before the texts that they quote.
    ("no_format", r"page needs to be reloaded|latest version of YouTube|Error 15[0-9]\b"),
    ("no_format", r"(not|only|isn't) available (on|in) (this|the latest) (app|device|version)"),
    ("no_format", r"update (your|the) (app|YouTube)|Playback on other (websites|sites|apps)"),
    ("no_format", r"An extractor error has occurred"),
    ("private", r"private video|video is private|video has been made private"),
    ("bot_check", r"not a bot|captcha|IP (address )?is likely being blocked|unusual traffic"),
    ("bot_check", r"please (sign|log) ?in\b|Login details are needed"),
    ("rate_limited", r"rate.?limited|content isn't available(?! (in|on|to) )|HTTP Error 429"),
    ("rate_limited", r"Too Many Requests|(request|rate|quota) limit|quota exceeded"),
    ("members_only", r"members.only|channel's members|Premium members|YouTube Premium"),
    ("members_only", r"requires payment|paid content|purchase|rent (this|to)|subscribers? only"),
    ("age_restricted", r"(confirm|verify) your age|age.(restricted|verif|gate)|inappropriate"),
    ("age_restricted", r"all viewers|viewer discretion|mature audiences"),
    ("account_terminated", r"(account|channel)\b.*\b(terminated|closed|suspended|deleted|removed)"),
    ("account_terminated", r"closed their (YouTube )?(account|channel)"),
    ("removed", r"removed (for|because|due to|by) .*(violat|policy|guidelines|terms|hate)"),
    ("removed", r"violat(es|ed|ing) YouTube's"),
    ("geo_blocked", r"(in|from) your (country|location|region|area)|geo.?.?restrict|blocked it in"),
    ("geo_blocked", r"on this country domain|not made this video available|Russian government"),
    ("copyright", r"copyright|contains content from"),
    ("live", r"live ?(event|stream)|\bPremieres?\b|LIVE_STREAM_OFFLINE|is offline|scheduled to"),
    ("live", r"(Waiting|Wait) for .* to (begin|start)|not currently live|will begin (in|shortly)"),
    ("live", r"has not (yet )?started"),
    ("unknown", r"pending review|being processed|processing this video"),
    ("no_format", r"this format is DRM"),
    ("drm", r"DRM.(protected|encrypted)|protected by DRM"),
    ("removed", r"(video|content)( has been| was|'s been)? (removed|deleted|taken down)"),
    ("removed", r"no longer available|removed by the (uploader|user)"),
    ("bad_id", r"looks truncated|Incomplete YouTube ID|Unsupported URL(?! scheme)"),
    ("bad_id", r"Invalid (URL|video id)|not a valid (URL|video|YouTube)"),
    ("unavailable", r"Video unavailable|(video|content|media) isn't available"),
    ("unavailable", r"(video|content|media) is (currently )?(not available|unavailable)"),
    ("unavailable", r"video (does not|doesn't|no longer) exists?|Content unavailable"),
    ("unavailable", r"An error occurred\. Please try again later|Something went wrong"),
    ("forbidden", r"HTTP Error 403|403:? Forbidden|Server returned 403|fragment \d+ not found"),
    ("timeout", r"(page|JSON|data|manifest|file): timed out"),
    ("network", r"Failed to parse JSON.*Expecting value in ''"),
    ("no_format", r"Requested format is not available|No video formats found|No media found"),
    ("no_format", r"Only images are available|Unable to extract|extractor (result|failed)"),
    ("no_format", r"Failed to (parse|decode|decrypt|extract (?!any player))|KeyError|TypeError"),
    ("no_format", r"object has no attribute|object is not subscriptable|Cannot identify player"),
    ("no_format", r"player clients? (has|have) been|(unsupported |No supported .*)client"),
    ("no_format", r"Could not find (JS|player|XML)|No suitable extractor"),
    ("undecodable", r"Invalid data found when processing input"),
    ("network", r"HTTP error [45]\d\d|Server returned [45](\d\d|XX)|timed? ?out|timeout"),
    ("network", r"Connection (refused|reset|aborted|broken|to .* (closed|lost|failed))"),
    ("network", r"(closed|reset|lost) (the )?connection|Cannot connect|redirect(s|ed too| loop)"),
    ("network", r"Failed to (resolve|connect)|name resolution|getaddrinfo|nodename nor servname"),
    ("network", r"(name|node|service) not known|more expected|content too short|file is empty"),
    ("network", r"not get any data blocks|Input/output error|certificate|Remote (end|host) closed"),
    ("network", r"\bSSL|\bTLS\b|handshake|proxy|SOCKS|No route to host|Broken pipe|IncompleteRead"),
    ("network", r"network (is down|error|problem)|YouTube said:|Incomplete data|Conflicting range"),
    ("network", r"unreachable|end(s|ed) prematurely|RENEGOTIATION|curl: \("),
    ("network", r"Failed to extract any player"),
)
_TEXTS = tuple((reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in TEXTS)

FFMPEG_REASONS = ("rate_limited", "disk_full", "forbidden", "undecodable", "network")
_NO_JAVASCRIPT = re.compile(
    r"No supported JavaScript runtime|challenge solving failed|Signature solving failed"
    r"|Error solving .* challenge|challenge solver script .* skipped|JS challenge",
    re.IGNORECASE,
)
# YouTube also answers these to the owner of an account who is no longer logged in.
_NEEDS_LOGIN = ("private", "members_only", "age_restricted", *BLOCKS)
_NO_REASON = ("no_format", "forbidden", "network", "unknown")  # a warning can be more precise
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`\uff07\u2032", "'"))


class FetchError(BadClip):
    """A video or a clip that could not be fetched."""

    at_extraction = False  # whether the site itself gave the error, not a server of its data

    @property
    def is_final(self) -> bool:
        """Return whether another attempt is pointless."""
        return REASONS[self.reason][0] != FAILED


def classify(text: str) -> str:
    """Return the reason for an error message, or `unknown`."""
    plain = " ".join(text.translate(_APOSTROPHES).split())
    return next((reason for reason, pattern in _TEXTS if pattern.search(plain)), "unknown")


def classify_ytdlp(stderr: str, url_base: str = YOUTUBE) -> str:
    """Return the reason for what yt-dlp printed.

    The error decides. If it gives no reason of its own, warnings are read as well, because a 429
    of the player API is only a warning. A warning never leads to a final reason.
    """
    errors, warnings = _errors_and_rest(stderr)
    reason = classify(errors)
    warned = [classify(line) for line in warnings.splitlines()]
    if "cookies" in warned and reason in (*_NEEDS_LOGIN, *_NO_REASON):
        return "cookies"
    if reason in ("no_format", "forbidden", "unknown") and _NO_JAVASCRIPT.search(stderr):
        return "js_runtime"
    if reason in _NO_REASON:
        heard = list(BLOCKS)
        if "failed to extract any player" in errors.lower():  # after a 403 of the API, for example
            heard.append("forbidden")
        if not set(warned).intersection(heard) and reason == "unknown":
            heard = ["disk_full", "network", "no_format"]
        return next((each for each in warned if each in heard), reason)
    if reason == "bad_id" and not is_youtube(url_base):
        return "network"  # an error page of another server says nothing about the ID
    return reason


def _errors_and_rest(stderr: str) -> tuple[str, str]:
    """Split the lines into errors and the rest. The text of an empty error is on the next line."""
    found: dict[bool, list[str]] = {True: [], False: []}
    before = ""
    for line in stderr.splitlines():
        is_error = re.match(r"\S*: error:|ERROR\b", line) or before.strip() == "ERROR:"
        found[bool(is_error)].append(line)
        before = line
    return "\n".join(found[True]), "\n".join(found[False])


def ytdlp_message(done: Finished) -> str:
    """Return yt-dlp's last error, without its advice on reporting bugs."""
    lines = [" ".join(line.split()) for line in _errors_and_rest(done.stderr)[0].splitlines()]
    lines = [line for line in lines if line not in ("", "ERROR:")]
    text = (lines or done.stderr.strip().splitlines() or ["no message"])[-1]
    text = re.sub(r"^ERROR: (\[[^\]]+\] [^:]+: )?|^\[download\] ", "", text)
    cut = r"\s*(?:; please report this issue|Use --cookies|See +https|For more information)"
    return re.split(cut, text)[0].strip()
