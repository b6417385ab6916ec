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
from utils.video.checks import check_clip
from utils.video.ffmpeg import Input, complaints, cut_command, last_line, read_source
from utils.video.probe import DURATION_TOLERANCE, BadClip


def cut_clip(
    attempt: Attempt,
    clip: Clip,
    inputs: Sequence[Input],
    limit: float,
    *,
    end: float | None = None,
    told_end: float | None = None,
    claimed: float | None = None,
) -> None:
    """Cut a clip, in `limit` seconds at the most, and let it land. Raises FetchError, OSError.

    `end`: where the picture ends, if it was measured; `told_end`: by the file's index, where the
    inputs are parts of it. `claimed`: where the site says that it does, or the header of a file
    that ends long before it.
    """
    options = attempt.options
    target = attempt.folder / f"{clip.name}.mp4"
    start, wanted = clip_window(clip)
    if end is not None and end - start < DURATION_TOLERANCE:
        raise _past_end(start, end, claimed)
    if end is not None and claimed is not None and end < start + wanted - DURATION_TOLERANCE:
        raise FetchError("truncated", f"{end:.2f} s came of a video of {claimed:.2f} s")
    argv = cut_command(options.ffmpeg, inputs, start, wanted, options.encode, target)
    done = attempt.run(argv, limit)
    if done.timed_out:
        raise FetchError("timeout", f"cutting took longer than {limit:.0f} s")
    source = read_source(done.stderr)
    known_end = next((each for each in (end, told_end) if each is not None), source.duration)
    expected = wanted if known_end is None else min(wanted, known_end - start)
    if expected < DURATION_TOLERANCE:
        raise _past_end(start, known_end, claimed)
    if done.returncode != 0:
        raise FetchError(_reason_of(done, options), last_line(done) or "ffmpeg failed")
    try:
        check_clip(target, expected, options.encode.audio and source.has_audio)
    except BadClip as error:
        reason = "disk_full" if disk_is_full(options.out) else error.reason
        raise FetchError(reason, error.message) from error
    size = target.stat().st_size
    publish(target, options.out / target.name)
    attempt.land(clip, "short" if expected < wanted - DURATION_TOLERANCE else "", size)


def _past_end(start: float, end: float | None, claimed: float | None) -> FetchError:
    """The clip lies behind the video's end, as far as the file tells.

    For good only if both the file and the site say so: one of them may be wrong.
    """
    agreed = claimed is None or start > claimed - 1
    return FetchError("past_end" if agreed else "truncated", f"the video ends at {end:.2f} s")


def _reason_of(done: Finished, options: FetchOptions) -> str:
    if disk_is_full(options.out):
        return "disk_full"
    # Only ffmpeg's own complaints, and of those only what ffmpeg can know: the log also holds
    # the title and the description of the video, which may say anything ("not a bot").
    reason = classify("\n".join(complaints(done.stderr)))
    return reason if reason in FFMPEG_REASONS else "unknown"
