"""What yt-dlp and ffmpeg print when they fail, and what it means: the one table of error texts.

For `sources/youtube`, which decides what to do about it.
"""

from __future__ import annotations

import re

from utils.download.common import YOUTUBE, is_youtube
from utils.process import Finished
from utils.report import FAILED, REASONS

BLOCKS = ("rate_limited", "bot_check")

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
        r"HTTP error (404|410|5\d\d)|Server returned (404|410|4XX|5XX)|timed out"
        r"|Connection (refused|reset)|redirect loop|Too many redirects|not get any data blocks"
        r"|Failed to resolve|Temporary failure in name resolution|bytes read, \d+ more expected"
        r"|file is empty|Stream ends prematurely|Input/output error|SSL:",
    ),
)
FFMPEG_REASONS = ("rate_limited", "disk_full", "forbidden", "undecodable", "network")
# What yt-dlp says at last of an API that answered nothing of use; its warnings may know more.
_NO_ANSWER = "Failed to extract any player response"
_ERRORS = tuple((reason, re.compile(pattern, re.IGNORECASE)) for reason, pattern in ERRORS)


class FetchError(Exception):
    """A video, or one clip, did not come: `reason` is one of the report's reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.at_extraction = False  # told by the site itself, and not by a server of its data


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
        if reason == "unknown" and _NO_ANSWER in errors:
            return "network"
    elif reason in ("no_format", "forbidden"):
        warned = classify(stderr)
        reason = warned if warned in ("cookies", "js_runtime", *BLOCKS) else reason
    if reason == "bad_id" and not is_youtube(url_base) and "Unsupported URL" in stderr:
        return "network"  # a mirror's error page, for an id that may be a good one
    return reason


def is_for_good(error: FetchError) -> bool:
    """Whether no other try will ever help."""
    return REASONS[error.reason][0] != FAILED


def survives_as_whole(error: FetchError) -> bool:
    """Whether fetching the whole video may help a clip whose section failed."""
    return not is_for_good(error) and error.reason not in ("disk_full", *BLOCKS)


def ytdlp_message(done: Finished) -> str:
    """yt-dlp's own words for its last error, without its advice on reporting bugs."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    text = (errors or done.stderr.strip().splitlines() or ["no message"])[-1]
    text = re.sub(r"^ERROR: (\[[^\]]+\] [^:]+: )?", "", text)
    return re.split(r"\s*(?:; please report this issue|Use --cookies|See +https)", text)[0].strip()
