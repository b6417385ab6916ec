"""The packets of a clip and what they tell before anything is decoded: its frames and their times.

Between the container and the decoder (`utils/frames`). Three kinds of order meet here. Packets come
in decoding order; frames are numbered in the order of display; and decoding may begin at certain
packets only. `PacketTable` holds all three, from one pass that reads the packets and decodes none
(1 to 2 ms for a clip of 10 s).

What the packets tell is a promise, and there are files whose decoder does not keep it. Those are
sorted out here (`PacketTable.odd` says why) and are decoded from their first packet on every time:
exact, and slow.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
from av.packet import Packet
from av.video.stream import VideoStream

from utils.frame_times import end_of_last
from utils.h264 import NalReader

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
    origin: the tick that ffmpeg's command line counts from (see `utils.frame_times`)
    promised: how many frames the file says it has; more than len(pts) if it was cut off
    odd: why the packets cannot be trusted, or "" if they can
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


def read_table(
    container: av.container.InputContainer, stream: VideoStream, keep: bool
) -> tuple[PacketTable, list[Packet[VideoStream]]]:
    """Read every packet of `stream`. The packets themselves are returned if `keep` is true."""
    notes = _Notes()
    packets: list[Packet[VideoStream]] = []
    nal = NalReader.of(stream)
    try:
        for packet in container.demux(stream):
            # A truncated mp4 ends in a packet that is partly there; demux ends with an empty one.
            if not packet.size or packet.is_corrupt:
                continue
            notes.add(packet, nal)
            if keep:
                packets.append(packet)
    except av.error.FFmpegError:
        pass  # the file ends in the middle: `promised` tells
    return notes.table(container, stream), packets


class _Notes:
    """Gathers what `PacketTable` needs while the packets go by."""

    def __init__(self) -> None:
        self.pts: list[int | None] = []
        self.durations: list[int | None] = []
        self.shown: list[int] = []
        self.starts: list[int] = []
        self.hidden: list[int] = []  # pts of packets that an edit list cuts away
        self.new_headers = False
        self.starts_with_headers = 0

    def add(self, packet: Packet[VideoStream], nal: NalReader | None) -> None:
        at = len(self.pts)
        self.pts.append(packet.pts)
        self.durations.append(packet.duration)
        if not packet.is_discard:
            self.shown.append(at)
        elif packet.pts is not None:
            self.hidden.append(packet.pts)
        if packet.is_keyframe:
            if at and packet.has_sidedata("new_extradata"):
                self.new_headers = True
            restartable, headers = nal.look(packet) if nal else (True, False)
            if restartable:
                self.starts.append(at)
                self.starts_with_headers += headers

    def table(self, container: av.container.InputContainer, stream: VideoStream) -> PacketTable:
        base = stream.time_base or Fraction(1, 1000)
        known = [(pts, at) for at in self.shown if (pts := self.pts[at]) is not None]
        odd = self._why_odd(stream, known)
        known.sort()
        promised = len(known)
        missing = _first_missing(stream, len(self.pts))
        if missing is not None:
            dts, promised = missing
            known = [(pts, at) for pts, at in known if pts < dts]
        times = [pts for pts, _ in known]
        last = self.durations[known[-1][1]] if known else None
        starts = [at for at in self.starts if self.pts[at] is not None]
        return PacketTable(
            pts=times,
            packet_of=[at for _, at in known],
            starts=starts,
            starts_pts=[pts for at in starts if (pts := self.pts[at]) is not None],
            time_base=base,
            end=end_of_last(times, last or 0) if times else 0,
            origin=_origin(container, stream, base),
            promised=promised,
            odd=odd,
        )

    def _why_odd(self, stream: VideoStream, known: list[tuple[int, int]]) -> str:
        codec = stream.codec_context
        if codec.name not in _TRUSTED_CODECS:
            return f"frames of {codec.name} are not one a packet"
        if codec.name == "h264" and codec.field_order not in _PROGRESSIVE:
            return "interlaced: two packets may be one frame"
        if len(known) != len(self.shown):
            return "packets without time stamps"
        if len({pts for pts, _ in known}) != len(known):
            return "two packets with one time stamp"
        if self.new_headers or self.starts_with_headers not in (0, len(self.starts)):
            return "several encodings in one track"
        if not known or not self.starts or self.starts[0] != 0:
            return "does not begin with a key frame"
        # Frames hidden before the first shown or behind the last are no trouble. Those in between
        # belong to a second edit, whose time stamps say nothing about the order of decoding.
        if any(min(known)[0] < pts < max(known)[0] for pts in self.hidden):
            return "several edits in one track"
        first = self.pts[0]
        if first is None or any(pts < first for pts, _ in known):
            return "begins with frames whose references are missing"
        if _reorder_depth([pts for pts, _ in known]) > codec.reorder_depth:
            return "reordered more deeply than its header says"
        return ""


def _reorder_depth(pts: Sequence[int]) -> int:
    """How many frames wait, at most, while one that is shown earlier is decoded.

    A decoder that was told a smaller number drops frames until it has found out.
    """
    waiting: list[int] = []
    deepest = 0
    for stamp in pts:
        later = len(waiting) - bisect_right(waiting, stamp)
        deepest = max(deepest, later)
        waiting.insert(len(waiting) - later, stamp)
        if len(waiting) > 32:
            del waiting[0]
    return deepest


def _first_missing(stream: VideoStream, packets: int) -> tuple[int, int] | None:
    """For an mp4 that was cut off: the dts of the first packet that is lost, and the frames there
    should be. No frame shown before that dts is lost, whatever the order of decoding."""
    if "mp4" not in stream.container.format.name:
        return None
    entries = stream.index_entries
    if len(entries) <= packets:
        return None
    return entries[packets].timestamp, sum(not entry.is_discard for entry in entries)


def _origin(
    container: av.container.InputContainer, stream: VideoStream, time_base: Fraction
) -> int:
    if container.format.name == "mpegts":
        return stream.start_time or 0
    return round(Fraction(container.start_time or 0, av.time_base) / time_base)
