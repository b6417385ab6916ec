"""Cut clips out of videos and remux them, with ffmpeg; compare what comes out with the source.

A clip for [start, end) holds exactly the frames with start <= t < end, each at t - start. What the
source has is told by its packets, which the same ffmpeg lists while it reads them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from utils.process import Finished, run_child
from utils.video.ffmpeg import (
    FINE_TIME_BASE,
    STRICT,
    Encode,
    Ffmpeg,
    Input,
    cut_command,
    file_url,
    last_line,
    read_duration,
    sound_command,
    ticks,
)
from utils.video.whole import TOLERANCE, BadClip, Video, picture_hashes, read_sound, read_video

USUAL_RATE = 44_100  # samples per second: what a sound track is first taken to have
SEEK_BACK = 10  # seconds, where reading at a clip's beginning does not give its first frames
# Of FINE_TIME_BASE, half a millisecond: how far a frame may be off where an ffmpeg rounds.
ONE_TICK = 60
NO_TIME = -(2**63)  # what ffmpeg prints
# What may stand in an mp4 that common players and decoders read. By names of decoders.
MP4_VIDEO = frozenset({"h264", "hevc", "av1", "libdav1d", "vp9", "libvpx-vp9", "mpeg4"})
MP4_AUDIO = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus", "alac", "flac"})


class CutFailed(BadClip):
    """ffmpeg ended with an error, or was ended."""

    def __init__(self, done: Finished) -> None:
        reason = "timeout" if done.timed_out else "undecodable"
        super().__init__(reason, last_line(done) or "ffmpeg failed")
        self.done = done


@dataclass(frozen=True)
class Packets:
    """What ffmpeg read of its inputs: when each packet is shown, in ticks of FINE_TIME_BASE."""

    frames: Sequence[int]
    sounds: Sequence[int]


def read_packets(listed: str) -> Packets:
    """The packets that `cut_command` lists: lines of stream, dts, pts, duration, size, checksum."""
    bases = re.findall(r"^#tb (\d+): (\d+)/(\d+)$", listed, re.MULTILINE)
    scale = {number: Fraction(int(up), int(down)) for number, up, down in bases}
    times: dict[str, list[int]] = {"0": [], "1": []}
    for line in listed.splitlines():
        if f", {NO_TIME}," in line:
            raise BadClip(
                "undecodable", "packets without times; encode the video anew, then cut it"
            )
        stream, _, rest = line.partition(",")
        flags = re.search(r" F=0x([0-9A-F]+)", rest)
        if stream in scale and not (flags and int(flags[1], 16) & 4):  # 4: an edit list hides it
            times[stream].append(ticks(int(rest.split(",")[1]) * scale[stream]))
    return Packets(sorted(times["0"]), sorted(times["1"]))


def cut_video(
    run: Callable[[Sequence[str]], Finished],
    tool: Ffmpeg,
    inputs: Sequence[Input],
    start: float,
    seconds: float,
    encode: Encode,
    target: Path,
    *,
    known_end: float | None = None,
) -> float:
    """Cut a window out of a video; returns the seconds of it that the video fills.

    run: runs a command line, with a limit of time. known_end: where the video ends, if that was
    measured. A sound track without a decoder is left out. Raises BadClip: `past_end` where the
    video ends before the window, `truncated` where frames of it are missing; CutFailed.
    """
    begin, end = _exact(start), _exact(start) + _exact(seconds)
    known = None if known_end is None else _exact(known_end)
    is_file = all(each.is_file for each in inputs)
    seeks = [begin, max(Fraction(0), begin - SEEK_BACK), *([Fraction(0)] if is_file else [])]
    problem = ""
    for seek in dict.fromkeys(seeks):
        is_last = seek in (0, seeks[-1])
        command = partial(
            cut_command, tool, inputs, begin, end, target=target, seek=seek, known_end=known
        )
        done, encode = _without_strange_sound(run, command, encode)
        packets = read_packets(done.stdout)
        video_end = read_duration(done.stderr) if known is None else float(known)
        zero = ticks(begin)
        frames = [at for at in packets.frames if zero <= at < ticks(end)]
        if not frames and video_end is not None and video_end < start + TOLERANCE:
            raise BadClip("past_end", f"the video ends at {video_end:.2f} s")
        if not is_last and (not packets.frames or packets.frames[0] > zero):
            continue  # the first frames lie before what was read, in the order of decoding
        if not frames:
            if known is None or not packets.frames or packets.frames[0] > zero:
                raise BadClip("truncated", "no frame of the clip can be read")
            # One picture stands through the whole window.
            zero = max(at for at in packets.frames if at < zero)
            frames, first = [zero], zero * FINE_TIME_BASE
            _run(run, command(encode=encode, first=first))
        try:
            found = read_video(target, "ends")
        except BadClip:
            if is_last:
                raise
            continue  # reading began behind a key frame, and nothing could be decoded
        problem = _difference(found, [at - zero for at in frames], is_last)
        if encode.audio and not found.audio_codec:
            problem = problem or _lost_sound(packets, begin, end)
        if not problem:
            break
    if problem:
        raise BadClip("truncated", problem)
    has = min(start + seconds, start + seconds if video_end is None else video_end)
    if not is_file:
        _check_reached(packets, frames, has)
    return has - start


def _lost_sound(packets: Packets, begin: Fraction, end: Fraction) -> str:
    """What is wrong with a silent clip; "" where the source is silent, too.

    An edit list may hide the sound where reading began.
    """
    is_heard = any(ticks(begin) <= at < ticks(end) for at in packets.sounds)
    return "the sound is missing" if is_heard else ""


def _without_strange_sound(
    run: Callable[[Sequence[str]], Finished], command: Callable[..., list[str]], encode: Encode
) -> tuple[Finished, Encode]:
    """Run a cut; leave out a sound track that ffmpeg has no decoder for."""
    try:
        return _run(run, command(encode=encode)), encode
    except CutFailed as error:
        if not (encode.audio and "no decoder found for" in error.done.stderr):
            raise
    encode = replace(encode, audio=False)
    return _run(run, command(encode=encode)), encode


def cut_sound(
    run: Callable[[Sequence[str]], Finished],
    tool: Ffmpeg,
    source: Input,
    start: float,
    seconds: float,
    encode: Encode,
    target: Path,
    *,
    known_end: float | None = None,
) -> float:
    """Cut a window out of a sound track, to the sample; returns the seconds of it that it fills.

    The arguments are those of `cut_video`. Raises BadClip: `unavailable` where there is no sound,
    `past_end`, `truncated`; CutFailed.
    """
    begin, end = _exact(start), _exact(start) + _exact(seconds)
    rate, resample = encode.sample_rate or USUAL_RATE, bool(encode.sample_rate)
    while True:
        argv = sound_command(tool, source, begin, end, encode, target, rate, resample=resample)
        try:
            done = _run(run, argv)
        except CutFailed as error:
            if "matches no streams" in error.done.stderr:
                raise BadClip("unavailable", "the video has no sound") from error
            raise
        found = read_sound(target)
        samples = found.samples
        if found.rate == rate or resample or not samples:
            break
        rate, resample = found.rate, True
    said = read_duration(done.stderr) if known_end is None else known_end
    ends = math.inf if said is None else said
    if samples == 0:
        if ends < start + TOLERANCE:
            raise BadClip("past_end", f"the sound ends at {ends:.2f} s")
        raise BadClip("unavailable", "the video has no sound there")
    has = seconds if samples == round((end - begin) * rate) else samples / rate
    due = min(seconds, ends - start)
    # Beside a picture the sound may end earlier; a stream of its own is as long as it says.
    is_alone = not source.is_file or "seek_timestamp" in source.options
    if is_alone and has < due - TOLERANCE:
        raise BadClip("truncated", f"{has:.2f} s of {due:.2f} s came")
    return has


def _exact(seconds: float) -> Fraction:
    """The decimal that a float was written as."""
    return Fraction(repr(float(seconds)))


def _run(run: Callable[[Sequence[str]], Finished], argv: Sequence[str]) -> Finished:
    done = run(argv)
    if done.returncode != 0 or done.timed_out:
        raise CutFailed(done)
    return done


def _difference(found: Video, wanted: Sequence[int], is_last: bool) -> str:
    """What is wrong with a clip that should show frames at these times; "" if nothing is."""
    times = [ticks((at + found.zero) * found.time_base) for at in found.times]
    if len(times) == len(wanted):
        off = max(abs(is_at - at) for is_at, at in zip(times, wanted, strict=True))
        if off <= ONE_TICK:
            return ""
    elif (
        is_last
        and len(wanted) / 2 <= len(times) < len(wanted)
        and wanted[-1] - times[-1] < ONE_TICK
    ):
        # Some codecs have packets that show nothing, or half a frame each.
        left = set(wanted)
        near = range(-ONE_TICK, ONE_TICK + 1)
        is_there = all(any(at + by in left for by in near) for at in times)
        if is_there and wanted[-1] - times[-1] <= ONE_TICK:
            return ""
    else:
        return f"{len(times)} frames, but the video has {len(wanted)}"
    return "its frames are not shown at the times of the video's"


def _check_reached(packets: Packets, frames: Sequence[int], end: float) -> None:
    """Whether an address was read to the end of the clip: ffmpeg ends well where it was not.

    Raises BadClip (truncated).
    """
    gaps = [after - at for at, after in zip(frames, frames[1:], strict=False)]
    read = max(frames[-1] + max(gaps, default=0), packets.frames[-1]) * FINE_TIME_BASE
    if read < end - TOLERANCE:
        raise BadClip("truncated", f"{float(read):.2f} s of {end:.2f} s received")


# --- remuxing ------------------------------------------------------------------------------------


def rewrap_problem(video: Video) -> str:
    """Why a file's streams do not go into an mp4 as they are; "" when they do."""
    wrong = {video.codec, video.audio_codec} - {""} - MP4_VIDEO - MP4_AUDIO
    return f"{' and '.join(sorted(wrong))} cannot go into an mp4 without encoding" if wrong else ""


def rewrap(tool: Ffmpeg, source: Path, target: Path) -> None:
    """Put the streams of a file into an mp4, packet by packet, and check that nothing is changed.

    The first video and audio streams go over. Raises BadClip when the mp4 does not decode to the
    very frames of `source`, at its length.
    """
    argv = [tool.path, *STRICT, "-fflags", "+genpts", "-i", file_url(source)]
    argv += ["-map", "0:V:0", "-map", "0:a:0?", "-c", "copy", "-map_chapters", "-1"]
    if read_video(source).codec == "mpeg4":
        argv += ["-bsf:v", "mpeg4_unpack_bframes"]
    argv += ["-map_metadata", "-1", "-movflags", "+faststart", "-f", "mp4", "-y", file_url(target)]
    done = run_child(argv)
    if done.returncode != 0:
        raise BadClip("undecodable", f"cannot be remuxed: {last_line(done)}")
    check_same_pictures(tool, source, target)


def check_same_pictures(tool: Ffmpeg, source: Path, target: Path) -> None:
    """Whether two files decode whole, to the same frames in the same time. Raises BadClip."""
    if picture_hashes(tool, source) != picture_hashes(tool, target):
        raise BadClip("undecodable", "remuxed, it shows other frames")
    before, after = read_video(source), read_video(target)
    if abs(before.end - after.end) > TOLERANCE + before.gap:
        raise BadClip("undecodable", f"remuxed, it lasts {after.end:.2f} s, not {before.end:.2f} s")
    if before.audio_codec and not after.audio_codec:
        raise BadClip("undecodable", "remuxed, it has lost its sound")
