"""Cut a video's clips: from their fragments, with ffmpeg from the address, or from the whole file.

YouTube keeps picture and sound above 360 lines as a head, one index (`sidx`), then fragments of
some seconds that each begin with a key frame. The index costs one small request for all clips, a
clip's fragments one request a stream. ffmpeg, given the address, reads the beginning and the end
of the file and ahead of what it needs: half as many bytes again, in three times the requests.
Whatever does not go as it should is left to the next way, which repairs connections and tells
reasons. (No library was found for the index: pymp4 knows no `sidx`, and PyAV shows no byte of it.)
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.clip import Clip, clip_window
from utils.download.sources import FetchOptions
from utils.download.youtube_extract import (
    Attempt,
    chosen_formats,
    section_inputs,
    whole_command,
    zero_options,
)
from utils.download.youtube_texts import (
    BLOCKS,
    FFMPEG_REASONS,
    FetchError,
    classify,
    classify_ytdlp,
    ytdlp_message,
)
from utils.files import disk_is_full, publish
from utils.process import Finished
from utils.video.cut import CutFailed, cut_sound, cut_video
from utils.video.ffmpeg import Input, complaints, file_url
from utils.video.whole import TOLERANCE, BadClip, read_apart
from utils.web import Web, WebError

if TYPE_CHECKING:
    import requests

INDEX_BYTES = 4096  # a file's head, and its index of up to 20 minutes or so
LARGEST_INDEX = 2**20
INDEX_SECONDS = 20.0
REQUEST_BYTES = 8 * 2**20  # over 10 MiB YouTube slows down
HEAD_BOXES = (b"ftyp", b"moov", b"free")
# Around a window: an edit list may move the frames off the index, and pictures of an open group are
# shown before the key frame that their fragment begins with. A few frames either way.
MARGIN = 0.3  # seconds
SOUND_BEHIND = 1.0  # seconds by which a video's sound may lie behind its picture in the file
# Fragments keep the video's times: without the second ffmpeg would count from the first one's.
FRAGMENT_OPTIONS = {"seek_timestamp": "1"}


class Cut(NamedTuple):
    """A clip that is on disk, under its name."""

    bytes: int
    is_short: bool  # the video ends before the clip does


def cut_clips(
    attempt: Attempt, clips: Sequence[Clip], info: dict[str, Any]
) -> Iterator[tuple[Clip, Cut | FetchError]]:
    """Cut the clips of a video that yt-dlp described; each as it comes, or why it did not."""
    options = attempt.options
    if options.encode.sound and chosen_formats(info)[0].get("acodec") == "none":
        raise FetchError("unavailable", "the video has no sound")
    inputs = section_inputs(info, options)
    errors: dict[str, FetchError] = {}
    if inputs and can_read_through(attempt.proxy):
        for clip, made in cut_sections(attempt, clips, inputs, info.get("duration")):
            if isinstance(made, FetchError) and _may_come_whole(made):
                errors[clip.name] = made
            else:
                yield clip, made
        clips = [clip for clip in clips if clip.name in errors]
    if clips:
        try:
            yield from _cut_whole(attempt, clips, info)
        except FetchError as error:
            for clip in clips:
                yield clip, error


def can_read_through(proxy: str | None) -> bool:
    """Return whether ffmpeg uses this proxy: it ignores others than http:// without a message."""
    return proxy is None or proxy.startswith("http://")


def _may_come_whole(error: FetchError) -> bool:
    return not error.is_final and error.reason not in ("disk_full", *BLOCKS)


# --- the index of a fragmented mp4 ---------------------------------------------------------------


class Fragment(NamedTuple):
    """Where a fragment lies: seconds of the video, and bytes of the file."""

    begin: float
    end: float
    first: int
    size: int


class FragmentIndex(NamedTuple):
    """`head`: the bytes that a decoder needs before any fragment."""

    head: bytes
    fragments: tuple[Fragment, ...]

    @property
    def end(self) -> float:
        """Where the last fragment ends, in seconds."""
        return self.fragments[-1].end

    def window(self, begin: float, end: float) -> tuple[int, int] | None:
        """(first byte, byte after the last) of what holds `begin` to `end` seconds, if any does."""
        begin, end = begin - MARGIN, end + MARGIN
        held = [each for each in self.fragments if each.begin < end and each.end > begin]
        return (held[0].first, held[-1].first + held[-1].size) if held else None


def index_end(data: bytes) -> int | None:
    """How many bytes of a file its head and its index are, by its beginning; None: no such file."""
    place = _find_index(data)
    return None if place is None else place[1]


def read_index(data: bytes) -> FragmentIndex | None:
    """The index that `data`, a file's beginning, holds whole; None where it is another file.

    Also None for one whose first picture is not at 0: ffmpeg, given a part, counts from there.
    """
    place = _find_index(data)
    if place is None or place[1] > len(data):
        return None
    try:
        fragments = _read_fragments(data[: place[1]], place[0] + 8, place[1])
    except struct.error:
        return None
    return FragmentIndex(data[: place[0]], fragments) if fragments else None


def _find_index(data: bytes) -> tuple[int, int] | None:
    """Where the first `sidx` begins and ends."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"sidx" and length >= 32:
            return at, at + length
        if kind not in HEAD_BOXES or length < 8:
            return None
        at += length
    return None


def _read_fragments(data: bytes, at: int, end: int) -> tuple[Fragment, ...]:
    """The fragments of an index with the content data[at:end]; none: odd. Raises struct.error.

    The box: ISO/IEC 14496-12, 8.16.3.
    """
    wide = data[at] == 1
    scale, earliest, skip = struct.unpack_from(">IQQ" if wide else ">III", data, at + 8)
    at += 28 if wide else 20
    count = struct.unpack_from(">xxH", data, at)[0]
    if not scale or earliest or not count:
        return ()
    fragments, time_, first = [], 0, end + skip
    for place in range(at + 4, at + 4 + 12 * count, 12):
        size, length, access = struct.unpack_from(">III", data, place)
        if size >> 31 or not access >> 31 or not size or not length:
            return ()  # an index of indexes, or a fragment that does not begin with a key frame
        begin, time_ = time_, time_ + length
        fragments.append(Fragment(begin / scale, time_ / scale, first, size))
        first += size
    return tuple(fragments)


# --- sections ------------------------------------------------------------------------------------


class Stream(NamedTuple):
    """Picture or sound of a video: where it is, how it is asked for, where its fragments lie."""

    url: str
    web: Web
    fragments: FragmentIndex


def cut_sections(
    attempt: Attempt, clips: Sequence[Clip], inputs: Sequence[Input], claimed: float | None
) -> Iterator[tuple[Clip, Cut | FetchError]]:
    """`claimed`: how long the site says that the video is, in seconds."""
    with open_streams(attempt, inputs, _section_limit(attempt)) as streams:
        for clip in clips:
            try:
                limit = _section_limit(attempt)
                deadline = time.monotonic() + limit
                parts, end = fetch_fragments(attempt, streams, clip, deadline)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise FetchError("timeout", f"a section took longer than {limit:.0f} s")
                cut = cut_clip(attempt, clip, parts or inputs, left, known_end=end, claimed=claimed)
                yield clip, cut
            except FetchError as error:
                yield clip, error


def _section_limit(attempt: Attempt) -> float:
    """Half of the time is kept for the whole video, which a slowed-down section needs."""
    return max(1.0, min(attempt.time_left(), attempt.options.timeout) / 2)


@contextmanager
def open_streams(attempt: Attempt, inputs: Sequence[Input], limit: float) -> Iterator[list[Stream]]:
    """The streams that `inputs` lead to; none where one is no fragmented mp4, or was not had."""
    deadline = time.monotonic() + min(limit, INDEX_SECONDS)
    with ExitStack() as stack:
        streams: list[Stream] = []
        with suppress(WebError):
            streams = [_open_stream(attempt, each, deadline, stack) for each in inputs]
        yield streams


def _open_stream(attempt: Attempt, source: Input, deadline: float, stack: ExitStack) -> Stream:
    """Raises WebError, Stopped."""
    if not source.is_fragmented or source.options.get("tls_verify") == "0":
        raise WebError("nothing for this way", for_good=True)
    web = Web((attempt.proxy,) if attempt.proxy else (), stack.enter_context(_session(source)))
    data = web.part(source.url, 0, INDEX_BYTES, deadline)
    end = index_end(data) or 0
    if len(data) < end <= LARGEST_INDEX:
        data += web.part(source.url, len(data), end, deadline)
    index = read_index(data)
    if index is None:
        raise WebError("no fragmented mp4", for_good=True)
    return Stream(source.url, web, index)


def _session(source: Input) -> requests.Session:
    """Connections that are kept, and the headers and authorities that ffmpeg would be given."""
    import requests

    session = requests.Session()
    for line in source.options.get("headers", "").splitlines():
        name, _, value = line.partition(": ")
        session.headers[name] = value
    session.verify = source.options.get("ca_file", True)
    return session


def fetch_fragments(
    attempt: Attempt, streams: Sequence[Stream], clip: Clip, deadline: float
) -> tuple[list[Input], float | None]:
    """Local files that hold a clip, and where the video's picture ends by its index.

    No files where there are no `streams`, or their bytes did not come. Raises OSError, Stopped.
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
    return inputs, streams[0].fragments.end if streams else None


# --- the whole video -----------------------------------------------------------------------------


def _cut_whole(
    attempt: Attempt, clips: Sequence[Clip], info: dict[str, Any]
) -> Iterator[tuple[Clip, Cut | FetchError]]:
    """Have yt-dlp fetch the video, and cut the clips. Raises FetchError where it did not come."""
    options, folder = attempt.options, attempt.folder
    done = attempt.run_ytdlp(whole_command(options, folder))
    if done.timed_out:
        raise FetchError("timeout", "downloading the whole video took longer than --timeout")
    files = [p for p in folder.glob("whole.*") if p.suffix not in (".part", ".ytdl")]
    if done.returncode != 0 or len(files) != 1:
        raise FetchError(classify_ytdlp(done.stderr, options.url_base), ytdlp_message(done))
    whole = files[0]
    try:
        video = None if options.encode.sound else read_apart(whole, partial=True)
    except BadClip as error:
        raise FetchError(error.reason, f"the whole video: {error.message}") from error
    source = Input(file_url(whole), zero_options(chosen_formats(info)[0], options))
    missing = video.missing if video else ""
    received = math.inf if video is None else video.last - SOUND_BEHIND if missing else video.end
    for clip in clips:
        try:
            limit = attempt.time_left()
            if missing and sum(clip_window(clip)) > received:
                raise FetchError("truncated", f"the whole video: {missing}")
            end = video.end if video else None
            yield clip, cut_clip(attempt, clip, [source], limit, known_end=end)
        except FetchError as error:
            yield clip, error
    whole.unlink(missing_ok=True)


# --- one clip ------------------------------------------------------------------------------------


def cut_clip(
    attempt: Attempt,
    clip: Clip,
    inputs: Sequence[Input],
    limit: float,
    *,
    known_end: float | None = None,
    claimed: float | None = None,
) -> Cut:
    """Cut a clip, in `limit` seconds at the most, and give it its name.

    known_end: where the video ends, by its packets or by its index. claimed: where the site says
    that it does. Raises FetchError, OSError.
    """
    options = attempt.options
    target = attempt.folder / f"{clip.name}{options.encode.suffix}"
    start, wanted = clip_window(clip)

    def run(argv: Sequence[str]) -> Finished:
        return attempt.run(argv, limit)

    window = start, wanted, options.encode, target
    try:
        if options.encode.sound:
            has = cut_sound(run, options.ffmpeg, inputs[0], *window, known_end=known_end)
        else:
            has = cut_video(run, options.ffmpeg, inputs, *window, known_end=known_end)
    except CutFailed as error:
        if error.done.timed_out:
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
    return Cut(size, is_short=has < wanted - TOLERANCE)


def _reason_of(done: Finished, options: FetchOptions) -> str:
    if disk_is_full(options.out):
        return "disk_full"
    # Only ffmpeg's own complaints, and of those only what ffmpeg can know: the log also holds
    # the title and the description of the video, which may say anything ("not a bot").
    reason = classify("\n".join(complaints(done.stderr)))
    return reason if reason in FFMPEG_REASONS else "unknown"
