"""Whether a clip is whole: length, sound, both ends, every packet.

Behind every file that ffmpeg writes, for its exit code proves nothing: half a source, a full disk
and a seek past the end all give 0.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipreader.media import open_media
from utils.video.probe import DURATION_TOLERANCE, BadClip, Packets, Probe, probe

_LOGGING = threading.Lock()


def decode_ends(path: Path) -> None:
    """Decode a file at its beginning, and from its last key frame on to the end.

    Raises BadClip: `undecodable` where it does not decode, `truncated` where frames that the
    container promises do not come out.
    """
    import av

    try:
        with open_media(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # the workers are the threads
            packets = [p for p in container.demux(stream) if p.pts is not None]
            last_shown = max(p.pts for p in packets if p.pts is not None)
            last_key = max(p.pts for p in packets if p.is_keyframe and p.pts is not None)
        with open_media(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            if next(iter(container.decode(stream)), None) is None:
                raise BadClip("undecodable", "the first frame does not decode")
            container.seek(last_key, stream=stream, backward=True)
            decoded = [frame.pts for frame in container.decode(stream) if frame.pts is not None]
        if not decoded or max(decoded) < last_shown:
            raise BadClip("truncated", "the last frames do not decode")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClip("undecodable", f"does not decode: {error}") from error


def check_length(found: Probe, expected: float) -> None:
    """Whether a clip is as long as it should be, in seconds. Raises BadClip (truncated).

    At low frame rates the last frame may end one frame interval early; that is no truncation.
    """
    tolerance = max(DURATION_TOLERANCE, 1.5 / float(found.fps) if found.fps else 0.0)
    if found.end < expected - tolerance:
        raise BadClip("truncated", f"{found.end:.2f} s where {expected:.2f} s were to be had")


def check_clip(path: Path, expected: float, wants_audio: bool) -> Probe:
    """Check a clip that was just cut: picture, duration, sound, both ends decode. Raises BadClip.

    `expected`: the seconds that its source could give.
    """
    found = probe(path)
    check_length(found, expected)
    if found.end > expected + max(DURATION_TOLERANCE, 2 / float(found.fps or 1)):
        raise BadClip("undecodable", f"{found.end:.2f} s where {expected:.2f} s were asked for")
    if wants_audio and not found.has_audio:
        raise BadClip("truncated", "the sound is missing")
    decode_ends(path)
    return found


def check_complete(found: Probe) -> None:
    """Whether the packets that a file promises are all there. Raises BadClip (truncated).

    ffmpeg says nothing of a file that ends between two packets: it decodes what there is and exits
    with 0. An mp4 lists its packets beforehand; other containers tell their duration.
    """
    if found.missing:
        raise BadClip("truncated", found.missing)


@contextmanager
def _complaints() -> Iterator[list[tuple[int, str, str]]]:
    """What ffmpeg's libraries log as an error in this thread: (level, part, text) each."""
    import av

    # The level is that of the process, and outside of this nothing is to be logged.
    with _LOGGING:
        before = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture() as complaints:
                yield complaints
        finally:
            av.logging.set_level(before)


def decode_whole(path: Path, timeout: float = math.inf) -> Probe:
    """Decode every frame of a file, picture and sound. Raises BadClip (undecodable).

    Returns what its packets tell, as `probe` does: it is read once for both. It counts as bad as
    soon as ffmpeg's libraries complain, also of damage that they conceal: what `ffmpeg -xerror
    -f null -` ends on. The deblocking filter finds no fault: without it 0.57 to 0.64 of the CPU of
    an ffmpeg started for each, with it 0.70 to 0.79. timeout: seconds, for huge pictures.
    """
    import av

    deadline = time.monotonic() + timeout
    shown = None  # where the last picture stands
    try:
        with _complaints() as complaints, open_media(path) as container:
            streams = [*container.streams.video[:1], *container.streams.audio]
            if not container.streams.video or any(s.codec_context is None for s in streams):
                raise BadClip("undecodable", "does not decode: no picture, or no decoder for it")
            for stream in streams:
                stream.codec_context.thread_type = "NONE"
            streams[0].codec_context.options = {"skip_loop_filter": "all"}
            packets = Packets(container)
            for packet in container.demux(streams):
                packets.note(packet)
                if time.monotonic() > deadline:
                    raise BadClip("undecodable", "decoding does not come to an end")
                for frame in packet.decode():
                    assert isinstance(frame, av.frame.Frame)  # no subtitle among the streams
                    if frame.is_corrupt:
                        raise BadClip("undecodable", "does not decode: a corrupt frame")
                    if packet.stream is streams[0]:
                        shown = _later(frame.pts or 0, shown)
                if complaints:
                    break
            found = packets.probe() if shown is not None and not complaints else None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClip("undecodable", f"does not decode: {error}") from error
    if complaints or found is None:
        why = complaints[0][2].strip() if complaints else "no picture came out"
        raise BadClip("undecodable", f"does not decode: {why}")
    return found


def _later(pts: int, before: int | None) -> int:
    """`pts`, if it does not lie before `before`. Raises BadClip."""
    if before is not None and pts < before:
        raise BadClip("undecodable", "does not decode: its times run backwards")
    return pts
