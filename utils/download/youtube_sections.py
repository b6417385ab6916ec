"""Clips read as sections of a video: what a clip needs of it is fetched, and little more.

A step of a try (`youtube_attempt`), before `youtube_whole`, which takes what fails here. Out of the
fragments of `youtube_fragments`, where there are any; else ffmpeg reads the address.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from utils.clip import Clip
from utils.download.youtube_attempt import Attempt
from utils.download.youtube_cut import cut_clip
from utils.download.youtube_errors import FetchError
from utils.download.youtube_fragments import Stream, fetch_window, open_streams
from utils.video.ffmpeg import Input

SECTION_AGAIN = 50  # of so many videos that come whole, one is tried by section again
STICKY_AFTER = 3  # sections that failed in a row where the whole video came: then it comes first


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


def are_reachable(inputs: Sequence[Input], proxy: str | None) -> bool:
    """Whether ffmpeg can read these: it goes past a proxy that is no http:// one without a word."""
    return bool(inputs) and (proxy is None or proxy.startswith("http://"))


def cut_sections(
    attempt: Attempt,
    clips: Sequence[Clip],
    inputs: Sequence[Input],
    claimed: float | None,
    luck: SectionLuck,
) -> dict[str, FetchError]:
    """Cut each clip out of `inputs`; the errors of those that did not come, by name.

    `claimed`: how long the site says that the video is, in seconds.
    """
    errors = {}
    with open_streams(attempt, inputs, _limit(attempt)) as streams:
        for clip in clips:
            try:
                _cut_section(attempt, clip, inputs, streams, claimed)
                luck.section_came()
            except FetchError as error:
                errors[clip.name] = error
    return errors


def _limit(attempt: Attempt) -> float:
    """Half of the time is kept for the whole video, which a slowed-down section needs."""
    return min(attempt.time_left(), attempt.options.timeout / 2)


def _cut_section(
    attempt: Attempt,
    clip: Clip,
    inputs: Sequence[Input],
    streams: Sequence[Stream],
    claimed: float | None,
) -> None:
    """Cut a clip out of its fragments, or have ffmpeg read the addresses. Raises FetchError."""
    limit = _limit(attempt)
    deadline = time.monotonic() + limit
    window = fetch_window(attempt, streams, clip, deadline)
    left = deadline - time.monotonic()
    if left <= 0:
        raise FetchError("timeout", f"fetching a section took longer than {limit:.0f} s")
    if window is None:
        cut_clip(attempt, clip, inputs, left, claimed=claimed)
    else:
        cut_clip(attempt, clip, window.inputs, left, known_end=window.end, claimed=claimed)
