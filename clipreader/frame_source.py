"""Decode any frames of an open clip, identical to decoding from the start.

It knows no arrays: frames leave it as PyAV decodes them, cropped as the container wants it, with
their numbers. `clip_reader.ClipReader` is its public face.

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
from typing import Literal

import av
from av import VideoFrame
from av.codec.context import Flags
from av.filter import Graph
from av.packet import Packet
from av.stream import Discard, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from clipreader.h264 import codes_whole_frames
from clipreader.media import (
    MAX_FRAMES,
    MAX_PIXELS,
    ClipError,
    CorruptClip,
    Media,
    NoVideo,
    TooLarge,
    check_regular,
    cropping,
    media_name,
    open_clip,
    picture_stream,
    ratio,
)
from clipreader.packets import Chunk, FrameTable, plan_chunks, read_frame_table, whole_packets
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

    table: FrameTable
    _packets: list[Packet[Stream]]

    def __init__(
        self,
        source: Media,
        *,
        probe: bool = True,
        max_pixels: int = MAX_PIXELS,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        """probe: ffmpeg decodes the first frame while opening, so that `stream` tells all there is
        to tell. Without, most mp4s open three times as fast, and only `picture_of` is sure.

        Raises ClipNotFound, NoVideo, TooLarge, or CorruptClip if nothing of it can be read.
        """
        self.path = media_name(source)
        self._media = source
        self._max_pixels, self._max_frames = max_pixels, max_frames
        self._rolling: Iterator[tuple[int, VideoFrame]] | None = None
        self._next = 0  # the frame that it gives next
        if probe or not _is_mp4(source) or not self._open(probed=False):
            self._open(probed=True)
        try:
            self._crop = cropping(self._stream)
            self._croppers: dict[tuple[int, int, str], Graph] = {}
            if self.table.odd or self.table.torn:
                self.table = self._numbered_by_decoding()
            if not self.table.pts:
                raise CorruptClip(self.path, 0, "no frame of it can be decoded")
        except BaseException:
            self.close()
            raise

    def _open(self, *, probed: bool) -> bool:
        """Open the file and list its packets. Unprobed: false, and nothing is open, unless it is an
        mp4 of plain H.264: then that tells all.

        Not if it is in fragments: their times (`start_time`) are found by the search only.
        """
        self.probed = probed
        try:
            self._container = self._container_of()
        except ClipError:
            if probed:
                raise
            return False
        try:
            self._stream = self._only_picture(self._container)
            self._codec = codec = self._stream.codec_context
            self._size = codec.width, codec.height  # of the first frame, if probed
            self._keep = self._container.size < KEEP_PACKETS_BELOW
            whole = codec.name == "h264" and codes_whole_frames(codec.extradata or b"")
            if probed or (whole and self._stream.start_time is not None):
                self.table, self._packets = read_frame_table(
                    self._container,
                    self._stream,
                    keep=self._keep,
                    probed=probed,
                    max_frames=self._max_frames,
                )
                odd = self.table.odd or self.table.torn or self.table.own_headers
                if probed or (self.table.pts and not odd):
                    return True
        except BaseException:
            self._container.close()
            raise
        self._container.close()
        return False

    def _container_of(self) -> av.container.InputContainer:
        options = {} if self.probed else _UNPROBED
        return open_clip(self._media, options, max_pixels=self._max_pixels)

    def _only_picture(self, container: av.container.InputContainer) -> VideoStream:
        """The stream to load, one thread decoding it; the container reads no other from then on."""
        picture = picture_stream(container)
        if picture is None:
            raise NoVideo(self.path, "has no video")
        codec = picture.codec_context
        if codec is None:
            raise NoVideo(self.path, "the video is encrypted, or its codec is unknown")
        if codec.width * codec.height > self._max_pixels:
            raise TooLarge(
                self.path,
                f"{codec.width}x{codec.height} pixels, more than max_pixels={self._max_pixels}",
            )
        for stream in container.streams:
            if stream is not picture:
                stream.discard = Discard.all
        codec.thread_count = 1
        codec.thread_type = "NONE"
        codec.flags |= Flags.unaligned  # a crop on the left is rounded otherwise
        codec.options = {"max_pixels": str(self._max_pixels)}
        return picture

    @property
    def stream(self) -> VideoStream:
        """The video stream, for what its head says of it."""
        return self._stream

    def picture_of(self, frame: VideoFrame) -> tuple[int, int, Fraction | None]:
        """(width, height, sample aspect ratio) of the clip that `frame` is from, cropped."""
        aspect = self._stream.sample_aspect_ratio
        if self.probed and not any(self._crop):
            return *self._size, ratio(aspect)
        return frame.width, frame.height, ratio(aspect or self._codec.sample_aspect_ratio)

    def close(self) -> None:
        """Close the file and drop the packets."""
        self._packets = []
        self._rolling = None
        self._container.close()

    def decode(self, frames: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """The frames of these numbers (rising, each once), each with its number.

        Raises CorruptClip where one cannot be decoded; those before it have been given by then.
        """
        if self.table.odd:
            found = self._decode_rolling(frames)
        else:
            found = chain.from_iterable(map(self._decode_chunk, plan_chunks(self.table, frames)))
        for number, frame in found:
            yield number, self._cropped(frame)

    def _decode_chunk(self, chunk: Chunk) -> Iterator[tuple[int, VideoFrame]]:
        """Where decoding from the middle meets damage, it begins further back, at last at the
        start: not every packet that says so can be begun at."""
        left = chunk.frames.copy()
        damage: CorruptClip | None = None
        for start in dict.fromkeys((chunk.start, max(0, chunk.start - 1), 0)):
            try:
                for number, frame in self._decode_from(start, chunk.last, tuple(left)):
                    left.remove(number)
                    yield number, frame
                return
            except CorruptClip as error:
                damage = damage or error
        assert damage is not None
        try:
            raise damage
        finally:
            del damage  # its traceback holds this frame: a circle that only the collector ends

    def _decode_from(
        self, start: int, last: int, frames: Sequence[int]
    ) -> Iterator[tuple[int, VideoFrame]]:
        table = self.table
        if table.torn and start == 0:
            yield from self._decode_rolling(frames)
            return
        wanted = {table.pts[frame]: frame for frame in frames}
        needed = {table.packet_of[frame] for frame in frames}
        codec = self._codec
        if codec.is_open:
            codec.flush_buffers()
        # H.264's non-reference frames need not be decoded on the way to the frames wanted, since
        # nothing refers to them. HEVC's may be referred to by a higher temporal layer.
        skip: SkipFrame = "NONREF" if codec.name == "h264" else "DEFAULT"
        codec.skip_frame = skipping = "DEFAULT"
        first = table.starts[start] if table.starts else 0
        for at, packet in enumerate(self._packets_from(first), first):
            if at > last:
                break
            mode: SkipFrame = "DEFAULT" if at in needed else skip
            if mode != skipping:
                codec.skip_frame = skipping = mode
            yield from self._pick(codec, packet, at, wanted)
        codec.skip_frame = "DEFAULT"
        yield from self._pick(codec, None, last, wanted)
        if wanted:
            raise CorruptClip(self.path, min(wanted.values()), "its packet contains no frame")

    def _pick(
        self,
        codec: VideoCodecContext,
        packet: Packet[Stream] | None,
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
                # The frames before it that the decoder still holds back for the sake of order.
                for number, frame in self._pick(codec, None, broken, wanted):
                    if number < broken:
                        yield number, frame
            raise CorruptClip(self.path, broken, problem)
        for frame in decoded:
            if frame.is_corrupt:
                # Also on the way there: what refers to a damaged frame is damaged unnoticed.
                raise CorruptClip(self.path, self._frame_at(frame.pts), "damaged data")
            if frame.pts in wanted:
                yield wanted.pop(frame.pts), frame

    def _decode_rolling(self, frames: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Decode everything and number the frames as they come. The decoder stays where it is for
        the next chunk, if that lies ahead: a film read in chunks is decoded once."""
        for target in frames:
            if self._rolling is None or target < self._next:
                self._rolling, self._next = enumerate(self._decode_all()), 0
            for number, frame in self._rolling:
                self._next = number + 1
                if number == target:
                    yield number, frame
                    break
            else:
                self._rolling = None
                raise CorruptClip(self.path, target, "decoded fewer frames than before")

    def _decode_all(self) -> Iterator[VideoFrame]:
        # By a new decoder: one that was flushed conceals missing references in another way.
        with self._container_of() as container:
            stream = self._only_picture(container)
            packets = self._packets or whole_packets(container, stream, self._max_frames)
            for packet in chain(packets, [None]):
                try:
                    yield from stream.codec_context.decode(packet)
                except av.error.InvalidDataError:
                    # As ffmpeg does: clips that were cut in the middle of a GOP begin with such.
                    continue

    def _numbered_by_decoding(self) -> FrameTable:
        table = self.table
        frames = [(frame.pts, frame.key_frame) for frame in self._decode_all()]
        promised = len(frames) + table.promised - len(table.pts)
        if table.torn:
            came = {pts for pts, _ in frames}
            there = [number for number, pts in enumerate(table.pts) if pts in came]
            if [table.pts[number] for number in there] == [pts for pts, _ in frames]:
                return replace(
                    table,
                    pts=[table.pts[number] for number in there],
                    packet_of=[table.packet_of[number] for number in there],
                    promised=promised,
                )
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
            promised=promised,
            odd=table.odd or "begins with frames whose references are missing",
        )

    def _packets_from(self, position: int) -> Iterator[Packet[Stream]]:
        if self._keep:
            return islice(self._packets, position, None)
        return self._packets_from_file(position)

    def _packets_from_file(self, position: int) -> Iterator[Packet[Stream]]:
        """As `_packets_from`, read from the file once more."""
        with self._container_of() as container:
            stream = self._only_picture(container)
            packets = whole_packets(container, stream, self._max_frames)
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

    def _cropped(self, frame: VideoFrame) -> VideoFrame:
        """`frame` without what the container crops: no copy, a view of its planes."""
        if not any(self._crop):
            return frame
        kind = frame.width, frame.height, frame.format.name
        if kind not in self._croppers:
            self._croppers[kind] = _crop_graph(frame, self._crop)
        self._croppers[kind].push(frame)
        cropped = self._croppers[kind].pull()
        assert isinstance(cropped, VideoFrame)
        return cropped

    def _frame_of(self, packet: int) -> int:
        """The number of the frame that the packet at this position gives, or of the next."""
        return min(
            (frame for frame, at in enumerate(self.table.packet_of) if at >= packet),
            default=len(self.table.pts) - 1,
        )

    def _frame_at(self, pts: int | None) -> int:
        return next((n for n, stamp in enumerate(self.table.pts) if stamp == pts), 0)


def _crop_graph(frame: VideoFrame, crop: tuple[int, int, int, int]) -> Graph:
    left, right, top, bottom = crop
    width, height = max(1, frame.width - left - right), max(1, frame.height - top - bottom)
    graph = Graph()
    graph.threads = 1
    given = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=VideoFormat(frame.format.name, frame.width, frame.height),
        time_base=frame.time_base or Fraction(1, 1000),
    )
    cut = graph.add("crop", f"w={width}:h={height}:x={left}:y={top}")  # rounded to whole chroma
    sink = graph.add("buffersink")
    given.link_to(cut)
    cut.link_to(sink)
    graph.configure()
    return graph


def _is_mp4(source: Media) -> bool:
    if isinstance(source, bytes):
        return source[4:8] == b"ftyp"
    if not isinstance(source, (str, os.PathLike)):
        return False
    try:
        check_regular(source)
        with open(source, "rb") as file:
            return file.read(8)[4:] == b"ftyp"
    except OSError:
        return False
