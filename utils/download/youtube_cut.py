"""One clip, cut with ffmpeg, checked, and given its name.

The last step of a try (`youtube_attempt`): from the addresses of a section, or from a whole video.
"""

from __future__ import annotations

from collections.abc import Sequence

from utils.clip import Clip, clip_window
from utils.download.common import FetchOptions
from utils.download.youtube_attempt import Attempt
from utils.download.youtube_errors import FFMPEG_REASONS, FetchError, classify
from utils.files import disk_is_full, publish
from utils.process import Finished
from utils.video.cut import CutFailed, cut_video
from utils.video.ffmpeg import Input, complaints
from utils.video.whole import TOLERANCE, BadClip


def cut_clip(
    attempt: Attempt,
    clip: Clip,
    inputs: Sequence[Input],
    limit: float,
    *,
    known_end: float | None = None,
    claimed: float | None = None,
) -> None:
    """Cut a clip, in `limit` seconds at the most, and let it land. Raises FetchError, OSError.

    known_end: where the video ends, by its packets or its index. claimed: where the site says that
    it does.
    """
    options = attempt.options
    target = attempt.folder / f"{clip.name}.mp4"
    start, wanted = clip_window(clip)
    try:
        has = cut_video(
            lambda argv: attempt.run(argv, limit),
            options.ffmpeg,
            inputs,
            start,
            wanted,
            options.encode,
            target,
            known_end=known_end,
        )
    except CutFailed as error:
        if error.reason == "timeout":
            raise FetchError("timeout", f"cutting took longer than {limit:.0f} s") from error
        raise FetchError(_reason_of(error.done, options), error.message) from error
    except BadClip as error:
        reason = error.reason
        if reason == "past_end" and claimed is not None and start <= claimed - 1:
            reason = "truncated"  # for good only if both the file and the site say so
        reason = "disk_full" if disk_is_full(options.out) else reason
        raise FetchError(reason, error.message) from error
    size = target.stat().st_size
    publish(target, options.out / target.name)
    attempt.land(clip, "short" if has < wanted - TOLERANCE else "", size)


def _reason_of(done: Finished, options: FetchOptions) -> str:
    if disk_is_full(options.out):
        return "disk_full"
    # Only ffmpeg's own complaints, and of those only what ffmpeg can know: the log also holds
    # the title and the description of the video, which may say anything ("not a bot").
    reason = classify("\n".join(complaints(done.stderr)))
    return reason if reason in FFMPEG_REASONS else "unknown"
