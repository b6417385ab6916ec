"""An open clip that gives any of its frames exactly as decoding from the start gives them.

Between the packets (`decode/packets`) and the pictures (`decode/pixels`); `load_frames.ClipReader`
is its public face. It knows no arrays: frames leave it as PyAV decodes them, with their numbers.

Which frames there are: those that ffmpeg's decoder puts out. Frames that an edit list cuts away
(stream-copied cuts have them) are not among them.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import av
from av import VideoFrame
from av.packet import Packet
from av.stream import Discard
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from clipreader.errors import ClipError, ClipNotFound, CorruptClip, NoVideo
from clipreader.h264 import codes_whole_frames
from clipreader.media import NotMedia, check_regular, open_media, ratio
from clipreader.packets import PacketTable, Run, plan_runs, read_table, whole_packets
from clipreader.times import end_of_last

# A clip's packets stay in memory (1 to 2 MB for 10 s): the one pass that lists them has read them
# anyhow, and decoding from them needs no seeking. A film's do not.
KEEP_PACKETS_BELOW = 64 << 20

# ffmpeg decodes a file's first frame to open it, 2 to 4 of the 3 to 5 ms that opening takes. An mp4
# says in its tables what is needed: no decoder is let into the search, no parser onto the packets.
_UNPROBED = {"codec_whitelist": "none", "fflags": "noparse+nofillin"}

DEFAULT_RATE = 25  # ffmpeg's, for streams that tell none

SkipFrame = Literal["DEFAULT", "NONREF"]


class FrameSource:
    """An open clip. Not safe for threads or forks by itself: `ClipReader` sees to that."""

    table: PacketTable
    _packets: list[Packet[VideoStream]]

    def __init__(self, path: Path, *, probe: bool = True) -> None:
        """probe: ffmpeg decodes the first frame while opening, so that `stream` tells all there is
        to tell. Without, most files open three times as fast, and only `picture_of` is sure.

        Raises ClipNotFound, NoVideo, or CorruptClip if nothing of it can be read.
        """
        self.path = path
        self.probed = probe or not self._open_unprobed()
        if self.probed:
            self._open({})
        try:
            if self.probed:
                self._read_packets()
            if self.table.odd:
                self._packets = []
                self.table = self._numbered_by_decoding()
            if not self.table.pts:
                raise CorruptClip(path, 0, "no frame of it can be decoded")
        except BaseException:
            self.close()
            raise

    def _open(self, options: dict[str, str]) -> None:
        self._container = _container_of(self.path, options)
        try:
            self._stream = _only_video(self._container, self.path)
        except BaseException:
            self._container.close()
            raise
        self._codec = self._stream.codec_context
        self._size = self._codec.width, self._codec.height  # of the first frame, if probed
        self._packets = []

    def _read_packets(self) -> None:
        self._keep = os.path.getsize(self.path) < KEEP_PACKETS_BELOW
        self.table, self._packets = read_table(self._container, self._stream, self._keep)

    def _open_unprobed(self) -> bool:
        """Open an mp4 of plain H.264. False, and nothing is open, if it is not one.

        Nor if it is in fragments: their times (`start_time`) are found by the search only.
        """
        if not _is_mp4(self.path):
            return False
        try:
            self._open(_UNPROBED)
        except ClipError:
            return False
        whole = codes_whole_frames(self._codec.extradata or b"")
        if self._codec.name == "h264" and whole and self._stream.start_time is not None:
            self._read_packets()
            if self.table.pts and not self.table.odd and not self.table.own_headers:
                return True
        self.close()
        return False

    @property
    def stream(self) -> VideoStream:
        """The video stream, for what its head says of it."""
        return self._stream

    def picture_of(self, frame: VideoFrame) -> tuple[int, int, Fraction | None]:
        """(width, height, sample aspect ratio) as stored, of the clip that `frame` is from."""
        if self.probed:
            return *self._size, ratio(self._stream.sample_aspect_ratio)
        aspect = self._stream.sample_aspect_ratio or self._codec.sample_aspect_ratio
        return frame.width, frame.height, ratio(aspect)

    def close(self) -> None:
        """Close the file and drop the packets."""
        self._packets = []
        self._container.close()

    def decode(self, frames: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The frames of these numbers (rising, each once), each with its number.

        Raises CorruptClip where one cannot be decoded; those before it have been given by then.
        """
        if self.table.odd:
            yield from self._decode_from_start(frames)
            return
        for run in plan_runs(self.table, frames):
            yield from self._decode_run(run)

    def _decode_run(self, run: Run) -> Iterator[tuple[int, VideoFrame]]:
        table = self.table
        wanted = {table.pts[frame]: frame for frame in run.frames}
        needed = {table.packet_of[frame] for frame in run.frames}
        codec = self._fresh_codec()
        # H.264's non-reference frames need not be decoded on the way to the frames wanted, since
        # nothing refers to them. HEVC's may be referred to by a higher temporal layer.
        skip: SkipFrame = "NONREF" if codec.name == "h264" else "DEFAULT"
        skipping: SkipFrame = "DEFAULT"
        for at, packet in enumerate(self._packets_from(run.first), run.first):
            if at > run.last:
                break
            mode: SkipFrame = "DEFAULT" if at in needed else skip
            if mode != skipping:
                codec.skip_frame = skipping = mode
            yield from self._pick(codec, packet, at, wanted)
        codec.skip_frame = "DEFAULT"
        yield from self._pick(codec, None, run.last, wanted)
        if wanted:
            raise CorruptClip(self.path, min(wanted.values()), "its packet gives no picture")

    def _pick(
        self,
        codec: VideoCodecContext,
        packet: Packet[VideoStream] | None,
        at: int,
        wanted: dict[int, int],
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Decode one packet (None: what the decoder still holds), give the frames wanted."""
        problem = "damaged data" if packet is not None and packet.is_corrupt else ""
        decoded: list[VideoFrame] = []
        if not problem:
            try:
                decoded = codec.decode(packet)
            except av.error.FFmpegError as error:
                problem = str(error.strerror)
        if problem:
            broken = self._frame_of(at)
            if packet is not None:
                yield from self._whole_before(broken, codec, wanted)
            raise CorruptClip(self.path, broken, problem)
        for frame in decoded:
            number = wanted.pop(frame.pts, None) if frame.pts is not None else None
            if frame.is_corrupt:
                # Also on the way there: what refers to a damaged frame is damaged unnoticed.
                broken = number if number is not None else self._frame_at(frame.pts)
                raise CorruptClip(self.path, broken, "damaged data")
            if number is not None:
                yield number, frame

    def _whole_before(
        self, broken: int, codec: VideoCodecContext, wanted: dict[int, int]
    ) -> Iterator[tuple[int, VideoFrame]]:
        """The frames before `broken` that the decoder still holds back for the sake of order."""
        for number, frame in self._pick(codec, None, broken, wanted):
            if number < broken:
                yield number, frame

    def _decode_from_start(self, frames: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """For odd files: decode everything, number the frames as they come."""
        wanted = iter(frames)
        target = next(wanted, None)
        for number, frame in enumerate(self._decode_all()):
            if target is None:
                return
            if number == target:
                yield number, frame
                target = next(wanted, None)
        if target is not None:
            raise CorruptClip(self.path, target, "fewer frames came than before")

    def _decode_all(self) -> Iterator[VideoFrame]:
        # By a new decoder: one that was flushed conceals missing references in another way.
        with _container_of(self.path, {}) as container:
            stream = _only_video(container, self.path)
            for packet in chain(whole_packets(container, stream), [None]):
                try:
                    yield from stream.codec_context.decode(packet)
                except av.error.InvalidDataError:
                    # As ffmpeg does: clips that were cut in the middle of a GOP begin with such.
                    continue

    def _numbered_by_decoding(self) -> PacketTable:
        table = self.table
        frames = [(frame.pts, frame.key_frame) for frame in self._decode_all()]
        # Sorted: where time stamps are in the order of decoding, they are still the right ones.
        stamps = sorted(pts for pts, _ in frames if pts is not None)
        end, origin = table.end, table.origin
        if len(set(stamps)) < len(frames):  # raw streams and AVI: all that is known is the rate
            tick = 1 / (ratio(self._stream.average_rate) or DEFAULT_RATE) / table.time_base
            stamps = [round(n * tick) for n in range(len(frames))]
            end, origin = round(len(frames) * tick), 0
        elif stamps and (not table.pts or stamps[-1] != table.pts[-1]):
            end = end_of_last(stamps, 0)
        return replace(
            table,
            pts=stamps,
            end=end,
            origin=origin,
            packet_of=range(len(stamps)),
            starts=[number for number, (_, key) in enumerate(frames) if key],
            starts_pts=[],
            promised=len(stamps) + table.promised - len(table.pts),
        )

    def _fresh_codec(self) -> VideoCodecContext:
        if self._codec.is_open:
            self._codec.flush_buffers()
        self._codec.skip_frame = "DEFAULT"
        return self._codec

    def _packets_from(self, position: int) -> Iterator[Packet[VideoStream]]:
        if self._keep:
            return islice(self._packets, position, None)
        return self._packets_from_file(position)

    def _packets_from_file(self, position: int) -> Iterator[Packet[VideoStream]]:
        """As `_packets_from`, read from the file once more."""
        with _container_of(self.path, {} if self.probed else _UNPROBED) as container:
            stream = _only_video(container, self.path)
            packets = whole_packets(container, stream)
            if position == 0:
                yield from packets
                return
            # mp4 seeks by decoding time, others by the time of display: either way the packet
            # stands at or behind the place found, unless key frames lie very close together.
            stamp = self.table.starts_pts[bisect_left(self.table.starts, position)]
            container.seek(stamp, stream=stream)
            found = False
            for packet in packets:
                found = found or packet.pts == stamp
                if found:
                    yield packet
        if not found:
            yield from islice(self._packets_from_file(0), position, None)

    def _frame_of(self, packet: int) -> int:
        """The number of the frame that the packet at this position gives, or of the next."""
        return min(
            (frame for frame, at in enumerate(self.table.packet_of) if at >= packet),
            default=len(self.table.pts) - 1,
        )

    def _frame_at(self, pts: int | None) -> int:
        return next((n for n, stamp in enumerate(self.table.pts) if stamp == pts), 0)


def _is_mp4(path: Path) -> bool:
    try:
        check_regular(path)
        with path.open("rb") as file:
            return file.read(8)[4:] == b"ftyp"
    except OSError:
        return False


def _container_of(path: Path, options: dict[str, str]) -> av.container.InputContainer:
    try:
        return open_media(path, options)
    except NotMedia as error:
        raise NoVideo(path, str(error)) from None
    except av.error.FFmpegError as error:
        if path.stat().st_size == 0:
            raise CorruptClip(path, 0, "the file is empty") from None
        raise CorruptClip(path, 0, str(error.strerror)) from None
    except FileNotFoundError:
        raise ClipNotFound(path) from None
    except OSError as error:
        raise ClipNotFound(path, str(error.strerror)) from None


def _only_video(container: av.container.InputContainer, path: Path) -> VideoStream:
    """The stream to load, one thread decoding it; the container reads no other from then on."""
    covers = av.stream.Disposition.attached_pic
    videos = [s for s in container.streams.video if not s.disposition & covers]
    if not videos:
        raise NoVideo(path, "holds no video")
    if videos[0].codec_context is None:
        raise NoVideo(path, "holds video that is encrypted, or of a codec that is not known here")
    for stream in container.streams:
        if stream is not videos[0]:
            stream.discard = Discard.all
    videos[0].codec_context.thread_count = 1
    videos[0].codec_context.thread_type = "NONE"
    return videos[0]
