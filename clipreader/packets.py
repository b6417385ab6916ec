"""Read the packets of a media file, without decoding, and count frames by their times.

`packets_of` describes a file. `read_frame_table` is for `frame_source`, which decodes. Three kinds
of order meet here: packets come in decoding order, frames are numbered in display order, and
decoding can begin at certain packets only. `FrameTable` holds all three. In some files the decoder
does not return what the packets promise; `FrameTable.odd` marks them.

Time stamps ("pts") are whole numbers of ticks, and a tick lasts `time_base` seconds. Resampling
counts from the tick `origin`, as ffmpeg's command line does: the start of the *file*, audio
included, but the first frame of an MPEG transport stream.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from clipreader import media

# With these codecs one packet is one frame, and nothing before a keyframe is needed after it once
# `look_at_key` has seen the keyframe. VP8 has packets that show nothing, MPEG-4 in AVI packs two
# frames into one, and so on.
_TRUSTED_CODECS = frozenset({"h264", "hevc", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1"})

_PROGRESSIVE = (0, 1)  # AVFieldOrder: unknown, progressive


class Mark(NamedTuple):
    """A packet without its data.

    pts, duration: in ticks, None if unknown; an mp4 has the durations of neighbours in decoding
    order, which are wrong if rates vary. is_key: according to the container. is_hidden: cut away by
    an edit list.
    """

    pts: int | None
    duration: int | None
    size: int
    is_key: bool
    is_hidden: bool

    @classmethod
    def of(cls, packet: Packet[Stream]) -> Mark:
        return cls(packet.pts, packet.duration, packet.size, packet.is_keyframe, packet.is_discard)


def shown_packets(marks: Sequence[Mark]) -> list[tuple[int, int]]:
    """Return (pts, position) of the packets that are shown, in display order."""
    each = enumerate(marks)
    return sorted((m.pts, at) for at, m in each if m.pts is not None and not m.is_hidden)


def packets_of(container: InputContainer) -> tuple[list[Mark], list[Mark] | None]:
    """Read the packets of the video and of the first audio track, None if there is none.

    Both up to the end or to where the file breaks off. Raises ClipError.
    """
    streams = [media.picture_stream(container), *container.streams.audio[:1]]
    tracks: dict[int, list[Mark]] = {stream.index: [] for stream in streams}
    for packet in whole_packets(container, *streams):
        tracks[packet.stream_index].append(Mark.of(packet))
    video, *audio = tracks.values()
    if not shown_packets(video):
        raise media.NoVideo(container.name, "a video stream without frames")
    return video, audio[0] if audio else None


def end_of_video(container: InputContainer, video: Sequence[Mark]) -> float:
    """Return when the last frame ends, in seconds after the time that a player shows as 0."""
    known = shown_packets(video)
    last = end_of_last([pts for pts, _ in known], video[known[-1][1]].duration)
    stream = media.picture_stream(container)
    return float(last * media.time_base(stream) - _zero(container))


def _zero(container: InputContainer) -> Fraction:
    """Return the time that a player shows as 0, in seconds on the file's own clock.

    That is the earliest start of a stream, after edit lists, in whole microseconds.
    """
    return Fraction(container.start_time or 0, av.time_base)


def whole_packets(
    container: InputContainer, *streams: Stream, max_frames: int = media.MAX_FRAMES
) -> Iterator[Packet[Stream]]:
    """Yield the packets from the container's position to where the file ends or breaks off.

    A truncated mp4 ends in an incomplete packet, which is left out; damaged packets of a transport
    stream are frames with a hole. Demuxing ends with an empty packet.

    Raises TooLarge for more than `max_frames` packets of a stream, and CorruptClip for an index
    that refers to the same bytes again and again.
    """
    is_mp4 = media.is_mp4(container)
    room = 4 * container.size + (1 << 20) if container.size > 0 else math.inf
    path, count = container.name, 0
    try:
        for packet in container.demux(list(streams)):
            if not packet.size or (is_mp4 and packet.is_corrupt):
                continue
            room -= packet.size
            count += 1
            if room < 0:
                problem = "its index refers to more data than the file contains"
                raise media.CorruptClip(path, 0, problem)
            if count > max_frames * len(streams):
                raise media.TooLarge(path, f"has more than max_frames={max_frames} frames")
            yield packet
    except av.error.FFmpegError:
        return  # the file ends in the middle: `listed` and `promised` tell


# --- the frames of a clip ---


@dataclass(frozen=True)
class FrameTable:
    """The frames of a clip. Positions count packets, in decoding order, from 0.

    pts: the time stamp of each frame, in display order, in ticks of `time_base`
    packet_of: the position of each frame's packet
    starts: positions at which decoding can begin, rising; starts_pts: their time stamps
    end: the tick at which the last frame ends; origin: the tick that resampling counts from
    promised: how many frames the file should have; more than len(pts) if it was cut off
    odd: the packets do not identify the frames; such a clip is decoded from its first packet every
        time, which is exact but slow, and packet_of and starts count frames
    """

    pts: Sequence[int]
    packet_of: Sequence[int]
    starts: Sequence[int]
    starts_pts: Sequence[int]
    time_base: Fraction
    end: int
    origin: int
    promised: int
    odd: bool

    def start_for(self, frame: int) -> int:
        """Return the place in `starts` from which decoding gives `frame` exactly.

        After an open GOP's keyframe come packets whose frames are shown before it and need the GOP
        before, so the keyframe has to be early enough in both orders.
        """
        place = bisect_right(self.starts, self.packet_of[frame]) - 1
        while place > 0 and self.starts_pts[place] > self.pts[frame]:
            place -= 1
        return max(place, 0)


@dataclass
class Chunk:
    """Packets to decode together: from the `start`-th of `starts` to `last`, for `frames`."""

    start: int
    last: int
    frames: list[int]


def plan_chunks(table: FrameTable, frames: Sequence[int]) -> list[Chunk]:
    """Return the fewest packets that give `frames` (rising, no repeats), in display order.

    Two frames share a chunk unless there are packets in between that neither needs.
    """
    chunks: list[Chunk] = []
    for frame in frames:
        start, last = table.start_for(frame), table.packet_of[frame]
        if chunks and table.starts[start] <= chunks[-1].last + 1:
            chunks[-1].last = max(chunks[-1].last, last)
            chunks[-1].frames.append(frame)
        else:
            chunks.append(Chunk(start, last, [frame]))
    return chunks


def read_frame_table(
    container: InputContainer, stream: VideoStream, *, keep: bool, max_frames: int
) -> tuple[FrameTable, list[Packet[Stream]]]:
    """Read every packet of `stream`. The packets themselves are returned if `keep` is true."""
    codec = stream.codec_context
    marks: list[Mark] = []
    kept: list[Packet[Stream]] = []
    starts: list[int] = []
    own_headers, odd = 0, False
    for packet in whole_packets(container, stream, max_frames=max_frames):
        mark = Mark.of(packet)
        if mark.is_key:
            can_start, has_headers = True, False
            if codec.name in ("h264", "hevc"):
                can_start, has_headers = look_at_key(codec, bytes(packet))
            if can_start:
                starts.append(len(marks))
                own_headers += has_headers
            if marks and packet.has_sidedata("new_extradata"):
                odd = True  # several encodings in one track
        marks.append(mark)
        if keep:
            kept.append(packet)
    if own_headers not in (0, len(starts)):
        odd = True  # several encodings in one track
    # A clip that begins with packets that need earlier ones: only decoding tells which of them give
    # a frame. Not so if an edit list has merely taken the first frames away.
    known = shown_packets(marks)
    if known and (starts[:1] != [0] or known[0][0] < (marks[0].pts or 0)):
        odd = True
    odd = odd or _is_odd(codec, marks)
    return _frame_table(container, stream, marks, starts, odd), kept


def _frame_table(
    container: InputContainer,
    stream: VideoStream,
    marks: Sequence[Mark],
    starts: Sequence[int],
    odd: bool,
) -> FrameTable:
    known, base = shown_packets(marks), media.time_base(stream)
    promised = len(known)
    # Of an mp4 that was cut off, no frame shown before the dts of the first lost packet is lost,
    # in any decoding order. Empty entries of the index are no packets.
    entries = stream.index_entries if media.is_mp4(container) else ()
    filled = [entry for entry in entries if entry.size] if len(entries) > len(marks) else []
    if len(filled) > len(marks):
        promised = sum(not entry.is_discard for entry in filled)
        known = [(pts, at) for pts, at in known if pts < filled[len(marks)].timestamp]
    times = [pts for pts, _ in known]
    begun = [(at, pts) for at in starts if (pts := marks[at].pts) is not None]
    origin = round(_zero(container) / base)
    if container.format.name == "mpegts":
        origin = stream.start_time or 0
    return FrameTable(
        pts=times,
        packet_of=[at for _, at in known],
        starts=[at for at, _ in begun],
        starts_pts=[pts for _, pts in begun],
        time_base=base,
        end=end_of_last(times, marks[known[-1][1]].duration) if known else 0,
        origin=origin,
        promised=promised,
        odd=odd,
    )


def _is_odd(codec: VideoCodecContext, marks: Sequence[Mark]) -> bool:
    """Return True if the packets do not identify the frames, by codec and time stamps."""
    if codec.name not in _TRUSTED_CODECS:
        return True
    if codec.name == "h264" and codec.field_order not in _PROGRESSIVE:
        return True  # two packets can be one frame
    times = [mark.pts for mark in marks if mark.pts is not None and not mark.is_hidden]
    if not times or None in {mark.pts for mark in marks} or len(set(times)) < len(times):
        return True
    # Frames hidden before the first shown or after the last do not matter. Those in between belong
    # to a second edit, whose time stamps do not tell the decoding order.
    first, last = min(times), max(times)
    if any(mark.is_hidden and first < (mark.pts or 0) < last for mark in marks):
        return True
    # How many frames wait, at most, while one that is shown earlier is decoded: that is by how many
    # places a frame moves forward. A decoder that was told less drops frames until it has noticed.
    order = sorted(range(len(times)), key=times.__getitem__)
    depth = max(decoded - place for place, decoded in enumerate(order))
    if depth == 0 < codec.reorder_depth and len(times) > 2:
        return True  # time stamps in decoding order, or no B-frame in all the clip
    return depth > codec.reorder_depth


def look_at_key(codec: VideoCodecContext, packet: bytes) -> tuple[bool, bool]:
    """Return (decoding can begin at this key packet, it brings headers of its own).

    Some encoders of H.264 and HEVC call every I-frame a key. If it is no IDR frame, later frames
    may refer to frames before it, and come out wrong with no error when decoding begins at it.

    Written by hand because no library was suitable: h26x-extractor reads neither SEI nor HEVC, and
    PyAV shows neither. Source: ITU-T H.264, 7.3 and Annex D; ITU-T H.265, 7.3.
    """
    is_hevc, headers = codec.name == "hevc", False
    for nal in _nal_units(codec, packet):
        kind = packet[nal] >> 1 & 63 if is_hevc else packet[nal] & 31
        headers = headers or kind in ((32, 33, 34) if is_hevc else (7, 8))
        if is_hevc and kind < 32:
            return 16 <= kind <= 21, headers
        if not is_hevc and 1 <= kind <= 5:
            return kind == 5, headers
        if kind == 6 and not is_hevc and _is_exact_recovery_point(packet[nal + 1 : nal + 64]):
            return True, headers
    return False, headers


def _nal_units(codec: VideoCodecContext, packet: bytes) -> Iterator[int]:
    """Yield the position of the first byte of each NAL unit (ISO/IEC 14496-15)."""
    extra, place = codec.extradata or b"", 21 if codec.name == "hevc" else 4
    configured = len(extra) > place and extra[0] == 1
    at, size = 0, (extra[place] & 3) + 1 if configured else 0  # 0: start codes
    while size and at + size < len(packet):
        yield at + size
        at += size + int.from_bytes(packet[at : at + size], "big")
    while not size and (at := packet.find(b"\0\0\1", at) + 3) > 2 and at < len(packet):
        yield at


def _is_exact_recovery_point(sei: bytes) -> bool:
    """Return True if SEI messages (ITU-T H.264, 7.3.2.3 and D.1.8) have an exact recovery point.

    That is recovery_frame_cnt 0 and exact_match_flag 1, which x264 writes with an open GOP's
    I-frame. With --intra-refresh the count is above 0, and the frame is complete some frames later.
    """
    at = 0
    while at + 2 < len(sei) and sei[at] != 0x80:
        if sei[at] == 6:
            return sei[at + 2] >> 6 == 0b11  # ue(v) 0 is the bit 1, then the flag
        at += 2 + sei[at + 1]
    return False


# --- frames at another rate ---


def parse_fps(text: str) -> Fraction:
    """Return a rate as the options spell it: `30`, `12.5`, `30000/1001`; 0 is the clip's own rate.

    Raises ValueError for anything that is not a finite number from 0 on.
    """
    try:
        # Checked before Fraction, which would make an integer of a gigabyte of "1e999999999".
        fps = Fraction(text if len(text) < 30 and "e" not in text.lower() else "")
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a rate such as 30, 12.5 or 30000/1001") from None
    if fps < 0:
        raise ValueError(f"{text!r} is a rate below 0")
    return fps


def end_of_last(pts: Sequence[int], duration: int | None) -> int:
    """Return the tick at which the last frame ends, from its packet's duration.

    ffmpeg's rule (fftools/ffmpeg_dec.c, video_duration_estimate): the frame before it decides if
    there is no duration, or if it is one tick and the frame before lasted more than two.
    """
    before = pts[-1] - pts[-2] if len(pts) > 1 else 0
    if not duration or duration < 0 or (duration == 1 and before > 2):
        duration = max(before, 1)
    return pts[-1] + duration


def resample_indices(
    pts: Sequence[int],
    time_base: Fraction,
    fps: Fraction,
    *,
    end: int | None = None,
    origin: int = 0,
    limit: int = media.MAX_FRAMES,
) -> list[int]:
    """Return, for each frame at `fps`, the index into `pts` of the clip's frame that it shows.

    pts: in display order; end: the tick at which the last frame ends (default: see `end_of_last`).
    Repeats and drops frames as `ffmpeg -vf fps=F` does (round=near, eof_action=round), to the very
    last frame. As with ffmpeg, the result is empty if the clip is shorter than half a frame. Raises
    ValueError for more than `limit` frames, because 700 bytes can hold a frame that lasts 68 years.

    Source: libavfilter/vf_fps.c. Each time stamp is rounded to the grid of 1/fps first, and a
    frame lasts until the rounded time of the next. Comparing exact times instead gives other
    frames (25 -> 30: every sixth).
    """
    if not pts:
        return []
    if fps <= 0:
        raise ValueError(f"fps is {fps}: a rate above 0 is needed")
    if end is None:
        end = end_of_last(pts, 0)
    slots = [_round_near(tick - origin, time_base * fps) for tick in (*pts, end)]
    if (count := slots[-1] - slots[0]) > limit:
        raise ValueError(f"{count} frames at {fps} per second, more than max_frames={limit}")
    chosen: list[int] = []
    for index, until in enumerate(slots[1:]):
        chosen += [index] * (until - slots[0] - len(chosen))
    return chosen


def _round_near(ticks: int, per_tick: Fraction) -> int:
    """Return ticks * per_tick, rounded with halves away from 0 (AV_ROUND_NEAR_INF)."""
    doubled = 2 * abs(ticks) * per_tick.numerator + per_tick.denominator
    size = doubled // (2 * per_tick.denominator)
    return size if ticks >= 0 else -size
