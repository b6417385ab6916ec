"""Read the packets of a media file, without decoding.

`packets_of` returns the length, the tracks and the completeness of a file. `read_frame_table` is
for `frame_source`, which decodes.

Three kinds of order meet here. Packets come in decoding order; frames are numbered in the order of
display; and decoding may begin at certain packets only. `FrameTable` holds all three. What packets
tell is a promise, and there are files whose decoder does not keep it: `FrameTable.odd` says why.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from clipreader.h264 import NalReader
from clipreader.media import (
    MAX_FRAMES,
    CorruptClip,
    NoVideo,
    TooLarge,
    codec_name,
    picture_stream,
    ratio,
)
from clipreader.times import end_of_last

# One packet gives one frame, and nothing before a key frame is needed after it: true of these, once
# `NalReader` has seen the key frame. VP8 has packets that show nothing, MPEG-4 in AVI packs two
# frames into one, and so on.
_TRUSTED_CODECS = frozenset({"h264", "hevc", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1"})

_MICROSECOND = Fraction(1, 1_000_000)
_PROGRESSIVE = (0, 1)  # AVFieldOrder: unknown, progressive


@dataclass
class StreamPackets:
    """The packets of one stream, in the order of the file. Lists of one length, one item a packet.

    pts: in ticks of `time_base`, None where the file says none; durations: likewise, and in an mp4
    that of the packet's neighbours in decoding order, so of no use where rates vary
    sizes: in bytes; keys: what the container calls key frames; hidden: what an edit list cuts away
    codec: the decoder's name, "" where there is none
    listed: how many packets the index of an mp4 lists; None: the container has no such index
    """

    codec: str
    time_base: Fraction
    listed: int | None
    pts: list[int | None] = field(default_factory=list)
    durations: list[int | None] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)

    @classmethod
    def of(cls, stream: Stream) -> StreamPackets:
        """Nothing read yet."""
        is_mp4 = "mp4" in stream.container.format.name
        base = ratio(stream.time_base) or Fraction(1, 1000)
        listed = len(stream.index_entries) if is_mp4 else None
        return cls(codec_name(stream), base, listed)

    def add(self, packet: Packet[Stream]) -> None:
        self.pts.append(packet.pts)
        self.durations.append(packet.duration)
        self.sizes.append(packet.size)
        self.keys.append(packet.is_keyframe)
        self.hidden.append(packet.is_discard)

    def shown(self) -> list[tuple[int, int]]:
        """(pts, position) of the packets that are shown, in the order of display."""
        each = enumerate(zip(self.pts, self.hidden, strict=True))
        return sorted((pts, at) for at, (pts, hidden) in each if pts is not None and not hidden)


@dataclass
class FilePackets:
    """A media file as described by its packets.

    picture: of the track that a player shows; sound: of the first audio track, None if there is
    none; both read to the end or to where the file breaks off
    zero: the time that a player shows as 0, in seconds on the file's own clock: the earliest start
    of a stream, after edit lists; end: of the last frame, in seconds from `zero`
    width, height: as stored, without crop and aspect; rate: frames a second, 0 if nothing says so
    """

    picture: StreamPackets
    sound: StreamPackets | None
    zero: Fraction
    end: Fraction
    width: int
    height: int
    rate: Fraction


def packets_of(
    container: av.container.InputContainer, *, max_frames: int = MAX_FRAMES
) -> FilePackets:
    """Read every packet of the picture and of the first sound of an open file. Raises ClipError."""
    stream = picture_stream(container)
    if stream is None or stream.codec_context is None:
        raise NoVideo(Path(container.name), "no video stream, or no decoder for it")
    streams: list[Stream] = [stream, *container.streams.audio[:1]]
    tracks = {each.index: StreamPackets.of(each) for each in streams}
    width, height = stream.codec_context.width, stream.codec_context.height  # decoding changes it
    for packet in whole_packets(container, streams, max_frames):
        tracks[packet.stream_index].add(packet)
    picture, *sound = tracks.values()
    if not (shown := picture.shown()):
        raise NoVideo(Path(container.name), "a video stream without frames")
    zero = _zero(container)
    last = end_of_last([pts for pts, _ in shown], picture.durations[shown[-1][1]] or 0)
    rate = ratio(stream.average_rate) or ratio(stream.guessed_rate) or Fraction(0)
    end = last * picture.time_base - zero
    return FilePackets(picture, sound[0] if sound else None, zero, end, width, height, rate)


def _zero(container: av.container.InputContainer) -> Fraction:
    """The earliest start of a stream, which ffmpeg says in microseconds, as exactly as that has."""
    told = Fraction(container.start_time or 0, av.time_base)
    starts = [
        Fraction(stream.start_time) * base
        for stream in container.streams
        if stream.start_time is not None and (base := ratio(stream.time_base))
    ]
    return min((start for start in starts if abs(start - told) < _MICROSECOND), default=told)


def whole_packets(
    container: av.container.InputContainer,
    streams: Stream | Sequence[Stream],
    max_frames: int = MAX_FRAMES,
) -> Iterator[Packet[Stream]]:
    """Every packet from where the container stands, to where the file ends or breaks off.

    A truncated mp4 ends in a packet that is partly there, and is left out; a transport stream's
    damaged packets are whole pictures with a hole. Demuxing ends with an empty packet.

    Raises TooLarge for more than `max_frames` packets of a stream, and CorruptClip for an index
    that has the same bytes read over and over.
    """
    is_mp4 = "mp4" in container.format.name
    several = list(streams) if isinstance(streams, Sequence) else [streams]
    room = 4 * container.size + (1 << 20) if container.size > 0 else math.inf
    path, count = Path(container.name), 0
    try:
        for packet in container.demux(several):
            if packet.size and not (is_mp4 and packet.is_corrupt):
                room -= packet.size
                count += 1
                if room < 0:
                    raise CorruptClip(
                        path, 0, "its index refers to more data than the file contains"
                    )
                if count > max_frames * len(several):
                    raise TooLarge(path, f"has more than max_frames={max_frames} frames")
                yield packet
    except av.error.FFmpegError:
        return  # the file ends in the middle: `listed` and `promised` tell


@dataclass(frozen=True)
class FrameTable:
    """Where each frame of a clip is. Positions count packets, in decoding order, from 0.

    pts: for each frame, in the order of display, its time stamp in ticks of `time_base`
    packet_of: for each frame the position of its packet
    starts: positions at which decoding may begin, rising; starts_pts: their time stamps
    end: the tick at which the last frame goes
    origin: the tick that ffmpeg's command line counts from (see `times`)
    promised: how many frames the file says it has; more than len(pts) if it was cut off
    odd: why packets do not tell the frames, or "" if they do: such a clip is decoded from its
        first packet on every time, exact and slow
    torn: whether it begins with packets that need earlier ones; which of them give a frame, only
        decoding tells
    own_headers: whether key packets bring parameter sets, which may change the picture's size
    """

    pts: Sequence[int]
    packet_of: Sequence[int]
    starts: Sequence[int]
    starts_pts: Sequence[int]
    time_base: Fraction
    end: int
    origin: int
    promised: int
    odd: str
    torn: bool
    own_headers: bool

    def start_for(self, frame: int) -> int:
        """The place in `starts` from which on decoding gives `frame` as decoding everything does.

        Behind an open GOP's key frame come packets whose frames are shown before it and need the
        GOP before: the key frame has to be early enough in both orders.
        """
        place = bisect_right(self.starts, self.packet_of[frame]) - 1
        while place > 0 and self.starts_pts[place] > self.pts[frame]:
            place -= 1
        return max(place, 0)


@dataclass
class Chunk:
    """Packets to decode in one go: from the `start`-th of `starts` to `last`, for `frames`."""

    start: int
    last: int
    frames: list[int]


def plan_chunks(table: FrameTable, frames: Sequence[int]) -> list[Chunk]:
    """The fewest packets that give `frames` (rising, each once), in the order of display.

    Two frames share a chunk unless packets that neither needs lie between, before a key frame.
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


@dataclass
class _Keys:
    """What the bytes of a picture's packets tell.

    starts: positions at which decoding may begin; with_headers: how many of these bring parameter
    sets; new_headers: whether the container changes them; late_b_frame: whether a B-frame is shown
    after all that it can refer to
    """

    starts: list[int] = field(default_factory=list)
    with_headers: int = 0
    new_headers: bool = False
    late_b_frame: bool = False


def read_frame_table(
    container: av.container.InputContainer,
    stream: VideoStream,
    *,
    keep: bool,
    probed: bool = True,
    max_frames: int = MAX_FRAMES,
) -> tuple[FrameTable, list[Packet[Stream]]]:
    """Read every packet of `stream`. The packets themselves are returned if `keep` is true.

    probed: whether ffmpeg has looked at the streams, see `frame_source`.
    """
    nal, noted, keys = NalReader.of(stream), StreamPackets.of(stream), _Keys()
    kept: list[Packet[Stream]] = []
    latest: float = -math.inf
    for packet in whole_packets(container, stream, max_frames):
        pts = packet.pts
        if packet.is_keyframe:
            restartable, headers = nal.look(packet) if nal else (True, False)
            if restartable:
                keys.starts.append(len(noted.pts))
                keys.with_headers += headers
            if noted.pts and packet.has_sidedata("new_extradata"):
                keys.new_headers = True
        elif nal and pts is not None and pts > latest and nal.has_b_slices(packet):
            keys.late_b_frame = True
        if pts is not None and pts > latest:
            latest = pts
        noted.add(packet)
        if keep:
            kept.append(packet)
    table = _frame_table(stream, noted, keys)
    first = table.pts[0] if table.pts else 0
    return replace(table, origin=_origin(container, stream, first, probed)), kept


def _frame_table(stream: VideoStream, noted: StreamPackets, keys: _Keys) -> FrameTable:
    known = noted.shown()
    odd = _why_odd(stream, noted, keys)
    # Not so where the first frames merely have been taken away by an edit list.
    torn = not odd and bool(known) and (keys.starts[:1] != [0] or known[0][0] < (noted.pts[0] or 0))
    promised = len(known)
    missing = _first_missing(stream, len(noted.pts))
    if missing is not None:
        dts, promised = missing
        known = [(pts, at) for pts, at in known if pts < dts]
    times = [pts for pts, _ in known]
    last = noted.durations[known[-1][1]] if known else None
    starts = [(at, pts) for at in keys.starts if (pts := noted.pts[at]) is not None]
    if torn and keys.starts[:1] != [0]:
        starts.insert(0, (0, times[0] if times else 0))
    return FrameTable(
        pts=times,
        packet_of=[at for _, at in known],
        starts=[at for at, _ in starts],
        starts_pts=[pts for _, pts in starts],
        time_base=noted.time_base,
        end=end_of_last(times, last or 0) if times else 0,
        origin=0,
        promised=promised,
        odd=odd,
        torn=torn,
        own_headers=keys.with_headers > 0,
    )


def _why_odd(stream: VideoStream, noted: StreamPackets, keys: _Keys) -> str:
    codec = stream.codec_context
    if codec.name not in _TRUSTED_CODECS:
        return f"frames of {codec.name} are not one a packet"
    if codec.name == "h264" and codec.field_order not in _PROGRESSIVE:
        return "interlaced: two packets may be one frame"
    if None in noted.pts:
        return "packets without time stamps"
    stamps = list(zip(noted.pts, noted.hidden, strict=True))
    shown = [pts for pts, is_cut in stamps if pts is not None and not is_cut]
    if len(set(shown)) != len(shown):
        return "two packets with one time stamp"
    if keys.new_headers or keys.with_headers not in (0, len(keys.starts)):
        return "several encodings in one track"
    if not shown:
        return "no packet is shown"
    # Frames hidden before the first shown or behind the last are no trouble. Those in between
    # belong to a second edit, whose time stamps say nothing about the order of decoding.
    earliest, latest = min(shown), max(shown)
    if any(is_cut and pts is not None and earliest < pts < latest for pts, is_cut in stamps):
        return "several edits in one track"
    depth = _reorder_depth(shown)
    # HEVC's slices do not tell: x265 writes P-frames as B-frames that look back only.
    if keys.late_b_frame or (codec.name == "hevc" and depth == 0 < codec.reorder_depth):
        return "time stamps in the order of decoding"
    if depth > codec.reorder_depth:
        return "reordered more deeply than its header says"
    return ""


def _reorder_depth(pts: Sequence[int]) -> int:
    """How many frames wait, at most, while one that is shown earlier is decoded.

    A decoder that was told a smaller number drops frames until it has found out. The number is that
    of the places by which a frame moves forward: where most wait, all that is shown earlier has
    been decoded.
    """
    shown = sorted(range(len(pts)), key=pts.__getitem__)
    return max(decoded - place for place, decoded in enumerate(shown))


def _first_missing(stream: VideoStream, packets: int) -> tuple[int, int] | None:
    """For an mp4 that was cut off: the dts of the first packet that is lost, and the frames there
    should be. No frame shown before that dts is lost, whatever the order of decoding."""
    if "mp4" not in stream.container.format.name:
        return None
    entries = stream.index_entries
    if len(entries) <= packets:
        return None
    filled = [entry for entry in entries if entry.size]  # empty ones are no packets
    if len(filled) <= packets:
        return None
    return filled[packets].timestamp, sum(not entry.is_discard for entry in filled)


def _origin(
    container: av.container.InputContainer, stream: VideoStream, first: int, probed: bool
) -> int:
    if container.format.name == "mpegts":
        return stream.start_time or 0
    base = ratio(stream.time_base) or Fraction(1, 1000)
    if probed:
        return round(_zero(container) / base)
    # An mp4 says by itself where its tracks begin, but for the reordering of the pictures.
    starts = [first * base]
    for track in container.streams.audio:
        shown = next((e.timestamp for e in track.index_entries if not e.is_discard), None)
        if shown is not None:
            starts.append(max(0, shown) * (ratio(track.time_base) or base))
    return round(min(starts) / base)
