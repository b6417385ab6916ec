"""What yt-dlp knows of a video: one extraction, for all of its clips.

The first step of a try (`youtube_attempt`); what failures mean is in `youtube_errors`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.download.common import YOUTUBE
from utils.download.youtube_attempt import Attempt
from utils.download.youtube_commands import child_environment, extract_command
from utils.download.youtube_errors import FetchError, classify_ytdlp, ytdlp_message
from utils.download.ytdlp import run_ytdlp
from utils.process import Finished


@dataclass(frozen=True)
class Extraction:
    """yt-dlp's JSON of a video, and the file that it is kept in."""

    info: dict[str, Any]
    file: Path


def extract(attempt: Attempt, youtube_id: str) -> Extraction:
    """Ask for a video. Raises FetchError, which says that the site itself told it."""
    argv = extract_command(youtube_id, attempt.options, attempt.folder)
    env = child_environment(attempt.proxy)
    done = run_ytdlp(argv, timeout=attempt.time_left(), env=env)
    try:
        info = read_info(done, attempt.options.url_base)
    except FetchError as error:
        error.at_extraction = True
        raise
    file = attempt.folder / "info.json"
    file.write_text(done.stdout, encoding="utf-8")
    return Extraction(info, file)


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
