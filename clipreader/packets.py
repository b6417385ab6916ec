"""The packets of a clip and what they tell before anything is decoded: its frames and their times.

Between the container and the decoder (`decode/frame_source`). Three kinds of order meet here.
Packets come in decoding order; frames are numbered in the order of display; and decoding may begin
at certain packets only. `PacketTable` holds all three, from one pass that reads the packets and
decodes none (1 to 2 ms for a clip of 10 s).

What the packets tell is a promise, and there are files whose decoder does not keep it. Those are
sorted out here (`PacketTable.odd` says why) and are decoded from their first packet on every time:
exact, and slow.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
from av.packet import Packet
from av.video.stream import VideoStream

from clipreader.h264 import NalReader
from clipreader.media import ratio
from clipreader.times import end_of_last

# One packet gives one frame, and nothing before a key frame is needed after it: true of these, once
# `_restartable` has seen the key frame. VP8 has packets that show nothing, MPEG-4 in AVI packs two
# frames into one, and so on.
_TRUSTED_CODECS = frozenset({"h264", "hevc", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1"})

_PROGRESSIVE = (0, 1)  # AVFieldOrder: unknown, progressive


@dataclass(frozen=True)
class PacketTable:
    """Where each frame of a clip is. Positions count packets, in decoding order, from 0.

    pts: for each frame, in the order of display, its time stamp in ticks of `time_base`
    packet_of: for each frame the position of its packet
    starts: positions at which decoding may begin, rising; starts_pts: their time stamps
    end: the tick at which the last frame goes
    origin: the tick that ffmpeg's command line counts from (see `decode/times`)
    promised: how many frames the file says it has; more than len(pts) if it was cut off
    odd: why the packets cannot be trusted, or "" if they can
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
    own_headers: bool

    def start_for(self, frame: int) -> int:
        """The last packet from which on decoding gives `frame` as decoding everything does.

        Behind an open GOP's key frame come packets whose frames are shown before it and need the
        GOP before: the key frame has to be early enough in both orders.
        """
        at = bisect_right(self.starts, self.packet_of[frame]) - 1
        while at > 0 and self.starts_pts[at] > self.pts[frame]:
            at -= 1
        return self.starts[max(at, 0)] if self.starts else 0


@dataclass(frozen=True)
class Run:
    """One stretch of packets to decode: from `first` to `last`, for the frames in `frames`."""

    first: int
    last: int
    frames: tuple[int, ...]


def plan_runs(table: PacketTable, frames: Sequence[int]) -> list[Run]:
    """The fewest packets that give `frames` (rising, each once), as runs in the order of display.

    Two frames share a run unless a key frame lies between the one's packets and the other's.
    """
    spans: list[tuple[int, int, list[int]]] = []
    for frame in frames:
        first, last = table.start_for(frame), table.packet_of[frame]
        if spans and first <= spans[-1][1]:
            begin, end, shared = spans[-1]
            shared.append(frame)
            spans[-1] = (begin, max(end, last), shared)
        else:
            spans.append((first, last, [frame]))
    return [Run(first, last, tuple(wanted)) for first, last, wanted in spans]


def whole_packets(
    container: av.container.InputContainer, stream: VideoStream
) -> Iterator[Packet[VideoStream]]:
    """Every packet of `stream` from where the container stands, to where the file ends or breaks.

    A truncated mp4 ends in a packet that is partly there, and is left out; a transport stream's
    damaged packets are whole pictures with a hole. Demuxing ends with an empty packet.
    """
    is_mp4 = "mp4" in container.format.name
    try:
        for packet in container.demux(stream):
            if packet.size and not (is_mp4 and packet.is_corrupt):
                yield packet
    except av.error.FFmpegError:
        return  # the file ends in the middle: `PacketTable.promised` tells


def read_table(
    container: av.container.InputContainer, stream: VideoStream, keep: bool
) -> tuple[PacketTable, list[Packet[VideoStream]]]:
    """Read every packet of `stream`. The packets themselves are returned if `keep` is true."""
    notes = _Notes(NalReader.of(stream))
    packets: list[Packet[VideoStream]] = []
    for packet in whole_packets(container, stream):
        notes.add(packet)
        if keep:
            packets.append(packet)
    return notes.table(container, stream), packets


class _Notes:
    """Gathers what `PacketTable` needs while the packets go by.

    packets: (pts, duration, whether an edit list cuts it away) of each
    """

    def __init__(self, nal: NalReader | None) -> None:
        self.packets: list[tuple[int | None, int | None, bool]] = []
        self.starts: list[int] = []
        self.new_headers = False
        self.starts_with_headers = 0
        self.late_b_frame = False  # a B-frame shown after all that it can refer to
        self._latest: float = -math.inf
        self._nal = nal

    def add(self, packet: Packet[VideoStream]) -> None:
        """Note the next packet, in decoding order."""
        pts = packet.pts
        is_key = packet.is_keyframe
        if is_key:
            self._add_key(packet)
        if pts is not None and pts > self._latest:
            self._latest = pts
            if not is_key and self._nal and self._nal.has_b_slices(packet):
                self.late_b_frame = True
        self.packets.append((pts, packet.duration, packet.is_discard))

    def _add_key(self, packet: Packet[VideoStream]) -> None:
        if self.packets and packet.has_sidedata("new_extradata"):
            self.new_headers = True
        restartable, headers = self._nal.look(packet) if self._nal else (True, False)
        if restartable:
            self.starts.append(len(self.packets))
            self.starts_with_headers += headers

    def table(self, container: av.container.InputContainer, stream: VideoStream) -> PacketTable:
        base = ratio(stream.time_base) or Fraction(1, 1000)
        packets = self.packets
        known = [
            (pts, at)
            for at, (pts, _, hidden) in enumerate(packets)
            if not hidden and pts is not None
        ]
        odd = self._why_odd(stream, known)
        known.sort()
        promised = len(known)
        missing = _first_missing(stream, len(packets))
        if missing is not None:
            dts, promised = missing
            known = [(pts, at) for pts, at in known if pts < dts]
        times = [pts for pts, _ in known]
        last = packets[known[-1][1]][1] if known else None
        starts = [(at, pts) for at in self.starts if (pts := packets[at][0]) is not None]
        return PacketTable(
            pts=times,
            packet_of=[at for _, at in known],
            starts=[at for at, _ in starts],
            starts_pts=[pts for _, pts in starts],
            time_base=base,
            end=end_of_last(times, last or 0) if times else 0,
            origin=_origin(container, stream, base),
            promised=promised,
            odd=odd,
            own_headers=self.starts_with_headers > 0,
        )

    def _why_odd(self, stream: VideoStream, known: list[tuple[int, int]]) -> str:
        codec = stream.codec_context
        if codec.name not in _TRUSTED_CODECS:
            return f"frames of {codec.name} are not one a packet"
        if codec.name == "h264" and codec.field_order not in _PROGRESSIVE:
            return "interlaced: two packets may be one frame"
        hidden = [pts for pts, _, is_hidden in self.packets if is_hidden]
        if len(known) + len(hidden) != len(self.packets):
            return "packets without time stamps"
        shown = [pts for pts, _ in known]
        if len(set(shown)) != len(shown):
            return "two packets with one time stamp"
        if self.new_headers or self.starts_with_headers not in (0, len(self.starts)):
            return "several encodings in one track"
        if not shown or not self.starts or self.starts[0] != 0:
            return "does not begin with a key frame"
        # Frames hidden before the first shown or behind the last are no trouble. Those in between
        # belong to a second edit, whose time stamps say nothing about the order of decoding.
        earliest, latest = min(shown), max(shown)
        if any(pts is not None and earliest < pts < latest for pts in hidden):
            return "several edits in one track"
        first = self.packets[0][0]
        if first is None or earliest < first:
            return "begins with frames whose references are missing"
        depth = _reorder_depth(shown)
        # HEVC's slices do not tell: x265 writes P-frames as B-frames that look back only.
        if self.late_b_frame or (codec.name == "hevc" and depth == 0 < codec.reorder_depth):
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
    container: av.container.InputContainer, stream: VideoStream, time_base: Fraction
) -> int:
    if container.format.name == "mpegts":
        return stream.start_time or 0
    return round(Fraction(container.start_time or 0, av.time_base) / time_base)
