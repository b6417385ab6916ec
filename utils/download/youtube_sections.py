"""Cut a video's clips: from fragments, with ffmpeg from the address, or from the complete file.

YouTube's streams above 360 lines have a head, one index (`sidx`), then fragments of some seconds
that each begin with a keyframe. The index costs one small request for all clips, and a clip's
fragments cost one request per stream. ffmpeg, given the address, also reads the end of the file and
more than it needs: 1.5 times the bytes, in three times the requests. If fragments do not arrive as
expected, ffmpeg gets the address, because it repairs connections and reports reasons.
(pymp4 does not know `sidx`, and PyAV does not give access to it.)
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

from utils.clip import Clip, clip_window
from utils.download import youtube_extract, youtube_texts
from utils.download.sources import FetchOptions
from utils.download.youtube_extract import Attempt, chosen_formats
from utils.download.youtube_texts import FetchError
from utils.files import disk_is_full, publish
from utils.video.cut import CutFailed, cut_sound, cut_video
from utils.video.ffmpeg import CutTask, Input, complaints, file_url
from utils.video.whole import TOLERANCE, BadClip, read_apart
from utils.web import Web, WebError

INDEX_BYTES = 4096  # a file's head, and its index of up to about 20 minutes
LARGEST_INDEX = 2**20
INDEX_SECONDS = 20.0
REQUEST_BYTES = 8 * 2**20  # over 10 MiB YouTube slows down
HEAD_BOXES = (b"ftyp", b"moov", b"free")
# Fragments are also taken this close to a window, because an edit list may move frames relative to
# the index, and frames of an open group are shown before the keyframe of their fragment.
MARGIN = 0.3  # seconds
SOUND_BEHIND = 1.0  # seconds by which a video's audio may come later in the file than its frames
# Fragments keep the video's times, but without this ffmpeg would count from the first of them.
FRAGMENT_OPTIONS = {"seek_timestamp": "1"}


class Cut(NamedTuple):
    """A clip that is now in the output folder."""

    bytes: int
    is_short: bool  # the video ends before the clip does


def cut_clips(
    attempt: Attempt, clips: Sequence[Clip], info: dict[str, Any]
) -> Iterator[tuple[Clip, Cut | FetchError]]:
    """Cut the clips of a video that yt-dlp described; yield each clip with its outcome.

    Raises FetchError that holds for all clips without an outcome, OSError, Stopped.
    """
    options = attempt.options
    if options.encode.sound and chosen_formats(info)[0].get("acodec") == "none":
        raise FetchError("unavailable", "the video has no audio")
    if inputs := youtube_extract.section_inputs(info, options, attempt.proxy):
        left = []
        for clip, made in cut_sections(attempt, clips, inputs):
            if _is_settled(clip, made, info.get("duration")):
                yield clip, made
            else:
                left.append(clip)
        clips = left
    if clips:
        yield from _cut_whole(attempt, clips, info)


def _is_settled(clip: Clip, made: Cut | FetchError, claimed: float | None) -> bool:
    """Return whether the complete video would give nothing else.

    claimed: the length of the video in seconds, according to the site.
    """
    if isinstance(made, Cut) or made.reason in ("disk_full", *youtube_texts.BLOCKS):
        return True
    if made.reason == "past_end" and claimed is not None:
        return clip_window(clip)[0] > claimed - 1  # the file alone may be cut off
    return made.is_final


# --- the index of a fragmented mp4 ---------------------------------------------------------------


class FragmentIndex(NamedTuple):
    """The fragments of a file.

    head: the bytes that a decoder needs before any fragment. times, places: where each fragment
    begins, in seconds and in bytes, and at last where the last one ends.
    """

    head: bytes
    times: list[float]
    places: list[int]

    def window(self, begin: float, end: float) -> tuple[int, int] | None:
        """Return the first byte of the fragments of a window, and the byte after their last one."""
        begin, end = begin - MARGIN, end + MARGIN
        ends = self.times[1:]
        held = [n for n, last in enumerate(ends) if self.times[n] < end and last > begin]
        return (self.places[held[0]], self.places[held[-1] + 1]) if held else None


def find_index(data: bytes) -> tuple[int, int] | None:
    """Return where the first `sidx` of a file begins and ends, if the beginning shows one."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"sidx" and length >= 32:
            return at, at + length
        if kind not in HEAD_BOXES or length < 8:
            return None
        at += length
    return None


def read_index(data: bytes) -> FragmentIndex | None:
    """Read the index (ISO/IEC 14496-12, 8.16.3) from a file's beginning, if that holds all of it.

    Returns None also if the first frame is not at 0, because ffmpeg counts from there in a part.
    """
    begin, end = find_index(data) or (0, len(data) + 1)
    if end > len(data):
        return None
    box = data[begin:end]
    is_wide = box[8] == 1
    at = 36 if is_wide else 28
    try:
        scale, earliest, skip = struct.unpack_from(">IQQ" if is_wide else ">III", box, 16)
        (count,) = struct.unpack_from(">xxH", box, at)
        rows = list(struct.iter_unpack(">III", box[at + 4 : at + 4 + 12 * count]))
    except struct.error:
        return None
    if not scale or earliest or not count or len(rows) < count:
        return None
    for size, length, access in rows:
        # The first bit of `size` means an index of indexes, that of `access` a keyframe.
        if size >> 31 or not access >> 31 or not size or not length:
            return None
    times = accumulate((length for _, length, _ in rows), initial=0)
    places = accumulate((size for size, _, _ in rows), initial=end + skip)
    return FragmentIndex(data[:begin], [each / scale for each in times], list(places))


# --- sections ------------------------------------------------------------------------------------


class Stream(NamedTuple):
    """The address of a video's frames or audio, its connection, and its index."""

    url: str
    web: Web
    fragments: FragmentIndex


def cut_sections(
    attempt: Attempt, clips: Sequence[Clip], inputs: Sequence[Input]
) -> Iterator[tuple[Clip, Cut | FetchError]]:
    """Cut clips from their fragments or with ffmpeg from the address."""
    streams = open_streams(attempt, inputs, _section_limit(attempt))
    for clip in clips:
        try:
            deadline = time.monotonic() + _section_limit(attempt)
            parts, end = fetch_fragments(attempt, streams, clip, deadline)
            left = max(0.1, deadline - time.monotonic())
            yield clip, cut_clip(attempt, clip, parts or inputs, left, end)
        except FetchError as error:
            yield clip, error


def _section_limit(attempt: Attempt) -> float:
    """Return half of the time left, because the complete video may have to be downloaded after."""
    return max(1.0, min(attempt.time_left(), attempt.options.timeout) / 2)


def open_streams(attempt: Attempt, inputs: Sequence[Input], limit: float) -> list[Stream]:
    """Read the indexes of all inputs. Returns nothing if one has no index or does not arrive."""
    deadline = time.monotonic() + min(limit, INDEX_SECONDS)
    with suppress(WebError):
        return [_open_stream(attempt, each, deadline) for each in inputs]
    return []


def _open_stream(attempt: Attempt, source: Input, deadline: float) -> Stream:
    """Read the index of an input, with the headers and certificates that ffmpeg would be given.

    Raises WebError, Stopped.
    """
    import requests  # takes 0.1 s

    if not source.is_fragmented or source.options.get("tls_verify") == "0":
        raise WebError("cannot be read in fragments", for_good=True)
    session = requests.Session()
    for line in source.options.get("headers", "").splitlines():
        name, _, value = line.partition(": ")
        session.headers[name] = value
    session.verify = source.options.get("ca_file", True)
    web = Web((attempt.proxy,) if attempt.proxy else (), session)
    data = web.part(source.url, 0, INDEX_BYTES, deadline)
    _, end = find_index(data) or (0, 0)
    if len(data) < end <= LARGEST_INDEX:
        data += web.part(source.url, len(data), end, deadline)
    index = read_index(data)
    if index is None:
        raise WebError("has no index", for_good=True)
    return Stream(source.url, web, index)


def fetch_fragments(
    attempt: Attempt, streams: Sequence[Stream], clip: Clip, deadline: float
) -> tuple[list[Input], float | None]:
    """Download a clip's fragments; return them as inputs, and where the video ends by its index.

    Returns no inputs if a fragment did not arrive. Raises OSError, Stopped.
    """
    start, seconds = clip_window(clip)
    inputs = []
    for number, stream in enumerate(streams):
        path = attempt.folder / f"fragments{number}.mp4"
        window = stream.fragments.window(start, start + seconds)
        if window is None:
            return [], None
        try:
            with path.open("wb") as file:
                file.write(stream.fragments.head)
                for first in range(*window, REQUEST_BYTES):
                    last = min(window[1], first + REQUEST_BYTES)
                    piece = stream.web.part(stream.url, first, last, deadline)
                    if len(piece) < last - first:
                        raise WebError("ends before its last fragment", for_good=True)
                    file.write(piece)
        except WebError:
            return [], None
        inputs.append(Input(file_url(path), FRAGMENT_OPTIONS))
    return inputs, streams[0].fragments.times[-1] if streams else None


# --- the whole video -----------------------------------------------------------------------------


def _cut_whole(
    attempt: Attempt, clips: Sequence[Clip], info: dict[str, Any]
) -> Iterator[tuple[Clip, Cut | FetchError]]:
    """Download the complete video with yt-dlp and cut the clips. Raises FetchError."""
    options, folder = attempt.options, attempt.folder
    done = attempt.run_ytdlp(youtube_extract.whole_command(options, folder))
    files = [p for p in folder.glob("whole.*") if p.suffix not in (".part", ".ytdl")]
    if done.returncode != 0 or len(files) != 1:
        reason = youtube_texts.classify_ytdlp(done.stderr, options.url_base)
        raise FetchError(reason, youtube_texts.ytdlp_message(done))
    whole = files[0]
    try:
        video = None if options.encode.sound else read_apart(whole, partial=True)
    except BadClip as error:
        raise FetchError(error.reason, f"the whole video: {error.message}") from error
    zero = youtube_extract.zero_options(chosen_formats(info)[0], options)
    source = Input(file_url(whole), zero)
    for clip in clips:
        try:
            if video and video.missing and sum(clip_window(clip)) > video.last - SOUND_BEHIND:
                raise FetchError("truncated", f"the whole video: {video.missing}")
            end = video.end if video else None
            yield clip, cut_clip(attempt, clip, [source], attempt.time_left(), end)
        except FetchError as error:
            yield clip, error
    whole.unlink(missing_ok=True)


# --- one clip ------------------------------------------------------------------------------------


def cut_clip(
    attempt: Attempt, clip: Clip, inputs: Sequence[Input], limit: float, known_end: float | None
) -> Cut:
    """Cut a clip in at most `limit` seconds, and publish it.

    known_end: where the video ends, by its packets or its index. Raises FetchError, OSError.
    """
    options = attempt.options
    target = attempt.folder / f"{clip.name}{options.encode.suffix}"
    start, wanted = clip_window(clip)
    run, encode = partial(attempt.run, limit=limit), options.encode
    task = CutTask(run, options.ffmpeg, inputs, start, wanted, encode, target, known_end)
    try:
        has = cut_sound(task) if encode.sound else cut_video(task)
    except BadClip as error:
        reason, message = _reason_of(error, options), error.message
        if reason == "timeout":
            message = f"cutting took longer than {limit:.0f} s"
        raise FetchError(reason, message) from error
    size = target.stat().st_size
    publish(target, options.out / target.name)
    return Cut(size, is_short=has < wanted - TOLERANCE)


def _reason_of(error: BadClip, options: FetchOptions) -> str:
    if disk_is_full(options.out):
        return "disk_full"
    if not isinstance(error, CutFailed) or error.done.timed_out:
        return error.reason
    # Only ffmpeg's own complaints, and only reasons that ffmpeg can know, because the log also has
    # the title and the description of the video, which may contain any text ("not a bot").
    reason = youtube_texts.classify("\n".join(complaints(error.done.stderr)))
    return reason if reason in youtube_texts.FFMPEG_REASONS else "unknown"
