"""Decode any frames of an open clip, identical to decoding from the start.

Frames are returned as PyAV decodes them, cropped as the container says, with their numbers.
`clip_reader.ClipReader` makes arrays of them.

A clip has the frames that ffmpeg's decoder returns. Frames that an edit list cuts away
(stream-copied cuts have them) are not among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain, dropwhile, islice
from typing import Literal

import av
from av import VideoFrame
from av.codec.context import Flags
from av.container import InputContainer
from av.filter import Graph
from av.packet import Packet
from av.stream import Discard, Stream
from av.video.stream import VideoStream

from clipreader import media, packets
from clipreader.media import CorruptClip

# A clip's packets stay in memory (1 to 2 MB for 10 s): the pass that lists them has read them, and
# decoding from them needs no seeking. A film's do not.
KEEP_PACKETS_BELOW = 64 << 20

DEFAULT_RATE = 25  # ffmpeg's, for streams without a rate

SkipFrame = Literal["DEFAULT", "NONREF"]


class FrameSource:
    """An open clip. Not safe for threads or forks by itself: `ClipReader` is."""

    def __init__(
        self,
        source: media.Media,
        *,
        max_pixels: int = media.MAX_PIXELS,
        max_frames: int = media.MAX_FRAMES,
    ) -> None:
        """Raises ClipNotFound, NoVideo, TooLarge, or CorruptClip if nothing of it can be read."""
        self.path = media.media_name(source)
        self._media = source
        self._max_pixels, self._max_frames = max_pixels, max_frames
        self._read_packets = partial(packets.whole_packets, max_frames=max_frames)
        self._rolling: Iterator[tuple[int, VideoFrame]] | None = None
        self._next = 0  # the frame that `_rolling` gives next
        self._packets: list[Packet[Stream]] = []
        self._container = self._open()
        try:
            self.stream = self._only_picture(self._container)
            self._codec = codec = self.stream.codec_context
            self._size = codec.width, codec.height
            self._crop = media.cropping(self.stream)
            self._croppers: dict[tuple[int, int, str], Graph] = {}
            keep = self._container.size < KEEP_PACKETS_BELOW
            self.table, self._packets = packets.read_frame_table(
                self._container, self.stream, keep=keep, max_frames=max_frames
            )
            # In a clip that begins in the middle of a GOP, damage counts from its first start on.
            starts = self.table.starts
            self._safe_from = self.table.starts_pts[0] if starts and starts[0] else None
            if self.table.odd:
                self.table = self._numbered_by_decoding()
            if not self.table.pts:
                raise CorruptClip(self.path, 0, "no frame of it can be decoded")
        except BaseException:
            self.close()
            raise

    def _open(self) -> InputContainer:
        return media.open_clip(self._media, max_pixels=self._max_pixels)

    def _only_picture(self, container: InputContainer) -> VideoStream:
        """Return the stream to load, on one thread, and discard the container's other streams."""
        picture = media.picture_stream(container, self.path)
        codec = picture.codec_context
        if codec.width * codec.height > self._max_pixels:
            size, limit = f"{codec.width}x{codec.height}", self._max_pixels
            raise media.TooLarge(self.path, f"{size} pixels, more than max_pixels={limit}")
        for stream in container.streams:
            if stream is not picture:
                stream.discard = Discard.all
        codec.thread_count = 1
        codec.thread_type = "NONE"
        codec.flags |= Flags.unaligned  # a crop on the left is rounded otherwise
        codec.options = media.pixel_limit(self._max_pixels)
        return picture

    def picture_of(self, frame: VideoFrame) -> tuple[int, int, Fraction | None]:
        """Return (width, height, sample aspect ratio) of the clip of `frame`, cropped."""
        width, height = (frame.width, frame.height) if any(self._crop) else self._size
        aspect = self.stream.sample_aspect_ratio or self._codec.sample_aspect_ratio
        return width, height, media.ratio(aspect)

    def resampled(self, fps: Fraction) -> Sequence[int]:
        """Return, for each frame at `fps`, the number of the frame that it shows. Raises TooLarge.

        0 is the clip's own rate. The result is empty if the clip is shorter than half a frame.
        """
        table = self.table
        if not fps:
            return range(len(table.pts))
        times = {"end": table.end, "origin": table.origin, "limit": self._max_frames}
        try:
            return packets.resample_indices(table.pts, table.time_base, fps, **times)
        except ValueError as error:
            raise media.TooLarge(self.path, str(error)) from None

    def close(self) -> None:
        """Close the file and drop the packets."""
        self._packets = []
        self._rolling = None
        self._container.close()

    def decode(self, frames: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Yield the frames of these numbers (rising, no repeats), each with its number.

        Raises CorruptClip at the first that cannot be decoded, after yielding those before it.
        """
        if self.table.odd:
            found = self._decode_rolling(frames)
        else:
            chunks = packets.plan_chunks(self.table, frames)
            found = chain.from_iterable(map(self._decode_chunk, chunks))
        for number, frame in found:
            yield number, self._cropped(frame)

    def _decode_chunk(self, chunk: packets.Chunk) -> Iterator[tuple[int, VideoFrame]]:
        """Decode from the chunk's start; if that meets damage, from the first packet.

        Not every packet that says so is a place where decoding can begin.
        """
        left = chunk.frames.copy()
        damage: list[tuple[int, str]] = []  # no errors: their tracebacks hold this frame
        for start in dict.fromkeys((chunk.start, 0)):
            try:
                for number, frame in self._decode_from(start, chunk.last, tuple(left)):
                    left.remove(number)
                    yield number, frame
                return
            except CorruptClip as error:
                damage.append((error.frame, error.problem))
        raise CorruptClip(self.path, *damage[0])

    def _decode_from(
        self, start: int, last: int, frames: Sequence[int]
    ) -> Iterator[tuple[int, VideoFrame]]:
        table, codec = self.table, self._codec
        wanted = {table.pts[frame]: frame for frame in frames}
        needed = {table.packet_of[frame] for frame in frames}
        if codec.is_open:
            codec.flush_buffers()
        # H.264's non-reference frames need not be decoded on the way to the requested frames, since
        # nothing refers to them. HEVC's may be referred to by a higher temporal layer.
        skip: SkipFrame = "NONREF" if codec.name == "h264" else "DEFAULT"
        for at, packet in enumerate(self._packets_from(start), table.starts[start]):
            if at > last:
                break
            codec.skip_frame = "DEFAULT" if at in needed else skip
            yield from self._pick(packet, at, wanted)
        codec.skip_frame = "DEFAULT"
        yield from self._pick(None, last, wanted)
        if wanted:
            raise CorruptClip(self.path, min(wanted.values()), "its packet contains no frame")

    def _pick(
        self, packet: Packet[Stream] | None, at: int, wanted: dict[int, int]
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Decode one packet (None: what the decoder still holds), and yield the frames wanted."""
        problem = "damaged data" if packet is not None and packet.is_corrupt else ""
        decoded: list[VideoFrame] = []
        if not problem:
            try:
                decoded = self._codec.decode(packet)
            except av.error.FFmpegError as error:
                problem = str(error.strerror)
        for frame in decoded:
            if frame.is_corrupt:
                # Also on the way to the requested ones: what refers to a damaged frame is damaged.
                pts = frame.pts
                broken = next((n for n, each in enumerate(self.table.pts) if each == pts), 0)
                raise CorruptClip(self.path, broken, "damaged data")
            if frame.pts in wanted:
                yield wanted.pop(frame.pts), frame
        if problem:
            # The frame of the packet at this position, or of the next that has one.
            after = (n for n, place in enumerate(self.table.packet_of) if place >= at)
            broken = min(after, default=len(self.table.pts) - 1)
            if packet is not None:  # the decoder may still hold frames that are shown before it
                for number, frame in self._pick(None, at, wanted):
                    if number < broken:
                        yield number, frame
            raise CorruptClip(self.path, broken, problem)

    def _decode_rolling(self, frames: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Decode everything and number the frames as they come.

        The decoder keeps its position, so a film that is read chunk by chunk is decoded once.
        """
        for target in frames:
            if self._rolling is None or target < self._next:
                self._rolling, self._next = enumerate(self._decode_all(strict=True)), 0
            for number, frame in self._rolling:
                self._next = number + 1
                if number == target:
                    yield number, frame
                    break
            else:
                self._rolling = None
                raise CorruptClip(self.path, target, "decoded fewer frames than before")

    def _decode_all(self, strict: bool = False) -> Iterator[VideoFrame]:
        """Decode as ffmpeg does. strict: raise CorruptClip at damage after `_safe_from`."""
        number, is_safe = 0, False
        # With a new decoder: one that was flushed conceals missing references in another way.
        with self._open() as container:
            stream = self._only_picture(container)
            every = self._packets or self._read_packets(container, stream)
            for packet in chain(every, [None]):
                if strict and packet is not None and self._safe_from is not None:
                    is_safe = is_safe or packet.pts == self._safe_from
                try:
                    frames = stream.codec_context.decode(packet)
                except av.error.InvalidDataError as error:
                    if is_safe:
                        raise CorruptClip(self.path, number, str(error.strerror)) from None
                    continue  # clips cut in the middle of a GOP begin with such
                for frame in frames:
                    if is_safe and frame.is_corrupt:
                        raise CorruptClip(self.path, number, "damaged data")
                    yield frame
                    number += 1

    def _numbered_by_decoding(self) -> packets.FrameTable:
        """Return the table of a clip whose packets do not identify its frames."""
        table = self.table
        frames = [(frame.pts, frame.duration, frame.key_frame) for frame in self._decode_all()]
        # Sorted, because time stamps in decoding order are still the right ones.
        stamps = sorted(pts for pts, _, _ in frames if pts is not None)
        end, origin = 0, table.origin
        if len(set(stamps)) < len(frames):  # raw streams and AVI: only the rate is known
            rate = media.ratio(self.stream.average_rate) or DEFAULT_RATE
            tick = 1 / rate / table.time_base
            stamps = [round(n * tick) for n in range(len(frames))]
            end, origin = round(len(frames) * tick), 0
        elif frames:
            end = packets.end_of_last(stamps, frames[-1][1])
        return replace(
            table,
            pts=stamps,
            end=end,
            origin=origin,
            packet_of=range(len(stamps)),
            starts=[number for number, (_, _, is_key) in enumerate(frames) if is_key],
            starts_pts=[],
            promised=len(frames) + table.promised - len(table.pts),
        )

    def _packets_from(self, start: int) -> Iterator[Packet[Stream]]:
        """Yield the packets from the `start`-th of `starts` on, from memory or from the file."""
        if self._packets:
            yield from islice(self._packets, self.table.starts[start], None)
            return
        stamp = self.table.starts_pts[start]
        # An mp4 is sought by decoding time: that may lead behind the packet if other keyframes
        # follow closely.
        for is_sought in (True, False) if start else (False,):
            with self._open() as container:
                stream = self._only_picture(container)
                if is_sought:
                    container.seek(stamp, stream=stream)
                every = self._read_packets(container, stream)
                found = dropwhile(lambda packet: packet.pts != stamp, every)
                if (first := next(found, None)) is not None:
                    yield first
                    yield from found
                    return

    def _cropped(self, frame: VideoFrame) -> VideoFrame:
        """Return `frame` without what the container crops: a view of its planes, not a copy."""
        if not any(self._crop):
            return frame
        kind = frame.width, frame.height, frame.format.name
        if kind not in self._croppers:
            left, right, top, bottom = self._crop
            width, height = frame.width - left - right, frame.height - top - bottom
            size = f"w={max(1, width)}:h={max(1, height)}:x={left}:y={top}"
            self._croppers[kind] = graph = Graph()
            graph.threads = 1
            base = frame.time_base or Fraction(1, 1000)
            source = graph.add_buffer(None, frame.width, frame.height, frame.format, time_base=base)
            # The crop is rounded to whole chroma samples.
            graph.link_nodes(source, graph.add("crop", size), graph.add("buffersink")).configure()
        self._croppers[kind].vpush(frame)
        return self._croppers[kind].vpull()
