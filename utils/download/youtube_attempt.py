"""One try for a video: what each of its steps knows, and how it runs a child.

Under `youtube_video`, which makes the tries, and beside the steps: `youtube_extract`,
`youtube_sections` or `youtube_whole`, and `youtube_cut`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.clip import Clip
from utils.download.common import FetchOptions
from utils.download.youtube_commands import child_environment
from utils.download.youtube_errors import FetchError
from utils.process import Finished, run_child


@dataclass(frozen=True)
class Attempt:
    """One try. `land` is told of each clip that is on disk, `""` or `short`, and its bytes."""

    options: FetchOptions
    folder: Path  # the video's own, for what is half done
    proxy: str | None
    deadline: float  # of the video, by time.monotonic()
    land: Callable[[Clip, str, int], None]

    def time_left(self) -> float:
        """The seconds left, at least one. Raises FetchError (timeout) when there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise FetchError("timeout", "took longer than --timeout")
        return max(1.0, left)

    def run(self, argv: Sequence[str], limit: float | None = None) -> Finished:
        """Run a child for `limit` seconds, or for all that are left."""
        timeout = self.time_left() if limit is None else limit
        return run_child(argv, timeout=timeout, env=child_environment(self.proxy))
