"""Clips cut from the whole video, which yt-dlp fetches: what helps where sections fail.

A step of a try (`youtube_attempt`), after `youtube_sections`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utils.clip import Clip
from utils.download.youtube_attempt import Attempt
from utils.download.youtube_commands import whole_command
from utils.download.youtube_cut import cut_clip
from utils.download.youtube_errors import FetchError, classify_ytdlp, ytdlp_message
from utils.video.ffmpeg import Input, file_url
from utils.video.whole import BadClip, read_apart


def cut_whole(attempt: Attempt, clips: Sequence[Clip], info_file: Path) -> dict[str, FetchError]:
    """Fetch the video, cut each clip; the errors of those that did not come, by name.

    Raises FetchError where the video itself did not come.
    """
    whole = _fetch_whole(attempt, info_file)
    errors = {}
    try:
        video = read_apart(whole)
        source = Input(file_url(whole))
        for clip in clips:
            try:
                limit = attempt.time_left()
                cut_clip(attempt, clip, [source], limit, known_end=video.end)
            except FetchError as error:
                errors[clip.name] = error
    except BadClip as error:
        raise FetchError(error.reason, f"the whole video: {error.message}") from error
    finally:
        whole.unlink(missing_ok=True)
    return errors


def _fetch_whole(attempt: Attempt, info_file: Path) -> Path:
    options, folder = attempt.options, attempt.folder
    done = attempt.run(whole_command(info_file, options, folder))
    if done.timed_out:
        raise FetchError("timeout", "fetching the whole video took longer than --timeout")
    files = [p for p in folder.glob("whole.*") if p.suffix not in (".part", ".ytdl")]
    if done.returncode != 0 or len(files) != 1:
        raise FetchError(classify_ytdlp(done.stderr, options.url_base), ytdlp_message(done))
    return files[0]
