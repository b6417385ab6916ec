"""Cut clips out of videos and remux them, with ffmpeg; compare the output with the source.

A clip for [start, end) holds exactly the frames with start <= t < end, each at t - start. The
frames of the source are known from its packets, which the same ffmpeg lists while it reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from utils.process import Finished, run_child
from utils.video import ffmpeg
from utils.video.ffmpeg import FINE_TIME_BASE, CutTask, Ffmpeg, ticks
from utils.video.whole import TOLERANCE, BadClip, Video, picture_hashes, read_sound, read_video

USUAL_RATE = 44_100  # samples per second: the first guess for audio
SEEK_BACK = 10  # seconds, if reading at a clip's beginning does not give its first frames
# Of FINE_TIME_BASE, half a millisecond: how far a frame may be off because an ffmpeg rounds.
ONE_TICK = 60
NO_TIME = -(2**63)  # what ffmpeg prints
# What an mp4 may hold so that common players and decoders read it. By names of decoders.
MP4_VIDEO = frozenset({"h264", "hevc", "av1", "libdav1d", "vp9", "libvpx-vp9", "mpeg4"})
MP4_AUDIO = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus", "alac", "flac"})


class CutFailed(BadClip):
    """ffmpeg ended with an error, or was ended."""

    def __init__(self, done: Finished) -> None:
        reason = "timeout" if done.timed_out else "undecodable"
        super().__init__(reason, ffmpeg.last_line(done) or "ffmpeg failed")
        self.done = done


def read_packets(listed: str) -> tuple[list[int], list[int]]:
    """Return the times of the packets that `cut_command` lists: of video and of audio, in ticks.

    The lines: stream, dts, pts, duration, size, checksum. Raises BadClip.
    """
    bases = re.findall(r"^#tb (\d+): (\d+)/(\d+)$", listed, re.MULTILINE)
    scale = {number: Fraction(int(up), int(down)) for number, up, down in bases}
    times: dict[str, list[int]] = {"0": [], "1": []}
    for line in listed.splitlines():
        if f", {NO_TIME}," in line:
            raise BadClip("undecodable", "packets without times; re-encode the video, then cut it")
        stream, _, rest = line.partition(",")
        flags = re.search(r" F=0x([0-9A-F]+)", rest)
        if stream in scale and not (flags and int(flags[1], 16) & 4):  # 4: an edit list hides it
            times[stream].append(ticks(int(rest.split(",")[1]) * scale[stream]))
    return sorted(times["0"]), sorted(times["1"])


def cut_video(task: CutTask) -> float:
    """Cut a clip out of a video; return the seconds of it that the video fills.

    Audio without a decoder is left out. Raises BadClip: `past_end` if the video ends before the
    clip, `truncated` if frames of it are missing; CutFailed.
    """
    places = {task.begin, max(Fraction(0), task.begin - SEEK_BACK)}
    if all(each.is_file for each in task.inputs):
        places.add(Fraction(0))
    *first, last = sorted(places, reverse=True)
    for seek in first:
        try:
            return _cut_from(task, seek, is_last=False)
        except BadClip as error:
            if error.reason == "past_end" or isinstance(error, CutFailed):
                raise
    return _cut_from(task, last, is_last=True)


def _cut_from(task: CutTask, seek: Fraction, is_last: bool) -> float:
    """Cut a clip, reading from `seek` on. Raises BadClip if that does not give all of its frames.

    is_last: whether there is no other place to read from.
    """
    done, encode = _run_without_strange_audio(task, seek)
    shown, heard = read_packets(done.stdout)
    known = task.known_end
    video_end = ffmpeg.read_duration(done.stderr) if known is None else known
    zero, end = ticks(task.begin), ticks(task.end)
    frames = [at for at in shown if zero <= at < end]
    # Without packets that an edit list hides where reading began.
    has_audio = any(zero <= at < end for at in heard)
    if not frames and video_end < task.start + TOLERANCE:
        raise BadClip("past_end", f"the video ends at {video_end:.2f} s")
    is_early = bool(shown) and shown[0] <= zero  # otherwise the first frames may be decoded earlier
    if not is_early and not (is_last and frames):
        raise BadClip("truncated", "no frame of the clip can be read")
    if not frames:
        if known is None:
            raise BadClip("truncated", "no frame of the clip can be read")
        # One frame is shown for the whole clip.
        zero = max(at for at in shown if at < zero)
        frames = [zero]
        _run(task, ffmpeg.cut_command(replace(task, encode=encode), seek, first=zero))
    found = read_video(task.target, "ends")
    if problem := _difference(found, [at - zero for at in frames], is_last):
        raise BadClip("truncated", problem)
    if encode.audio and not found.audio_codec and has_audio:
        raise BadClip("truncated", "the audio is missing")
    has = min(task.start + task.seconds, video_end)
    if not all(each.is_file for each in task.inputs):
        _check_reached(shown, frames, has)
    return has - task.start


def _run_without_strange_audio(task: CutTask, seek: Fraction) -> tuple[Finished, ffmpeg.Encode]:
    """Run a cut; leave out audio that ffmpeg has no decoder for. Raises CutFailed."""
    try:
        return _run(task, ffmpeg.cut_command(task, seek)), task.encode
    except CutFailed as error:
        if not (task.encode.audio and "no decoder found for" in error.done.stderr):
            raise
    task = replace(task, encode=replace(task.encode, audio=False))
    return _run(task, ffmpeg.cut_command(task, seek)), task.encode


def _run(task: CutTask, argv: Sequence[str]) -> Finished:
    done = task.run(argv)
    if done.returncode != 0 or done.timed_out:
        raise CutFailed(done)
    return done


def _difference(found: Video, wanted: Sequence[int], is_last: bool) -> str:
    """Return why a clip does not show its frames at the `wanted` times; "" if it does."""
    times = [ticks((at + found.zero) * found.time_base) for at in found.times]
    if len(times) == len(wanted):
        near = [abs(is_at - at) <= ONE_TICK for is_at, at in zip(times, wanted, strict=True)]
    elif is_last and len(wanted) / 2 <= len(times) < len(wanted):
        # Some codecs have packets that show nothing, or half a frame each.
        due, around = set(wanted), range(-ONE_TICK, ONE_TICK + 1)
        near = [any(at + by in due for by in around) for at in times]
        near.append(abs(wanted[-1] - times[-1]) <= ONE_TICK)
    else:
        return f"{len(times)} frames, but the video has {len(wanted)}"
    return "" if all(near) else "its frames are not shown at the times of the video's"


def _check_reached(shown: Sequence[int], frames: Sequence[int], end: float) -> None:
    """Check that an address was read to the end of the clip, because ffmpeg does not.

    Raises BadClip (truncated).
    """
    gaps = [after - at for at, after in zip(frames, frames[1:], strict=False)]
    read = max(frames[-1] + max(gaps, default=0), shown[-1]) * FINE_TIME_BASE
    if read < end - TOLERANCE:
        raise BadClip("truncated", f"{float(read):.2f} s of {end:.2f} s received")


def cut_sound(task: CutTask) -> float:
    """Cut a clip out of audio, to the sample; return the seconds of it that the audio fills.

    Raises BadClip: `unavailable` if there is no audio, `past_end`, `truncated`; CutFailed.
    """
    source, seconds = task.inputs[0], task.seconds
    rate, resample = task.encode.sample_rate or USUAL_RATE, bool(task.encode.sample_rate)
    while True:
        try:
            done = _run(task, ffmpeg.sound_command(task, rate, resample=resample))
        except CutFailed as error:
            if "matches no streams" in error.done.stderr:
                raise BadClip("unavailable", "the video has no audio") from error
            raise
        found = read_sound(task.target)
        if found.rate == rate or resample or not found.samples:
            break
        rate, resample = found.rate, True
    known = task.known_end
    ends = ffmpeg.read_duration(done.stderr) if known is None else known
    if not found.samples:
        if ends < task.start + TOLERANCE:
            raise BadClip("past_end", f"the audio ends at {ends:.2f} s")
        raise BadClip("unavailable", "the video has no audio there")
    is_all = found.samples == round(ffmpeg.exact(seconds) * rate)
    has = seconds if is_all else found.samples / rate
    due = min(seconds, ends - task.start)
    # Next to video, audio may end earlier; a stream of its own is as long as it says.
    is_alone = not source.is_file or source.is_part
    if is_alone and has < due - TOLERANCE:
        raise BadClip("truncated", f"{has:.2f} s of {due:.2f} s received")
    return has


# --- remuxing ------------------------------------------------------------------------------------


def rewrap_problem(video: Video) -> str:
    """Return why a file's streams cannot be copied into an mp4; "" if they can."""
    wrong = {video.codec, video.audio_codec} - {""} - MP4_VIDEO - MP4_AUDIO
    return f"{' and '.join(sorted(wrong))} cannot go into an mp4 without encoding" if wrong else ""


def rewrap(tool: Ffmpeg, source: Path, target: Path) -> None:
    """Copy the first video and audio streams of a file into an mp4.

    Raises BadClip if the mp4 does not decode to the very frames of `source`, at its length.
    """
    argv = [tool.path, *ffmpeg.STRICT, "-fflags", "+genpts", "-i", ffmpeg.file_url(source)]
    argv += ["-map", "0:V:0", "-map", "0:a:0?", "-c", "copy", "-map_chapters", "-1"]
    argv += ["-map_metadata", "-1", "-movflags", "+faststart", "-f", "mp4"]
    if read_video(source).codec == "mpeg4":
        argv += ["-bsf:v", "mpeg4_unpack_bframes"]
    done = run_child([*argv, "-y", ffmpeg.file_url(target)])
    if done.returncode != 0:
        raise BadClip("undecodable", f"cannot be remuxed: {ffmpeg.last_line(done)}")
    check_same_pictures(tool, source, target)


def check_same_pictures(tool: Ffmpeg, source: Path, target: Path) -> None:
    """Check that two files decode whole, to the same frames in the same time. Raises BadClip."""
    if picture_hashes(tool, source) != picture_hashes(tool, target):
        raise BadClip("undecodable", "remuxed, it shows other frames")
    before, after = read_video(source), read_video(target)
    if abs(before.end - after.end) > TOLERANCE + before.gap:
        raise BadClip("undecodable", f"remuxed, it lasts {after.end:.2f} s, not {before.end:.2f} s")
    if before.audio_codec and not after.audio_codec:
        raise BadClip("undecodable", "remuxed, it has lost its audio")
