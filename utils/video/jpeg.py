"""Encode decoded frames as JPEGs, with the colours, shape and size that a player shows.

JPEG (JFIF) holds full-range BT.601. Video is mostly limited range, and from YouTube mostly BT.709.
The planes are converted directly, because the way through RGB costs 4 to 7 dB of luma. Only scaling
and uncommon pixel formats use swscale.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import simplejpeg
from av import VideoFrame
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from clipreader.transforms import Orientation, shown_size

Plane = NDArray[np.uint8]

# 8-bit planar formats that go to the JPEG as they are stored, chroma subsampling included.
PLANAR = frozenset(f"yuv{j}{chroma}p" for j in ("", "j") for chroma in ("420", "422", "444"))
# AVColorSpace (ITU-T H.273, table 4) -> as the `colorspace` filter calls it. What says nothing, and
# all the rest, counts as BT.601, as ffmpeg and PyAV take it.
BT601 = "bt470bg"
MATRICES = {1: "bt709", 4: "fcc", 7: "smpte240m", 9: "bt2020nc", 10: "bt2020nc"}


class PictureMaker:
    """JPEGs of the frames of one clip. All of them get the size of the first one's picture."""

    def __init__(
        self,
        picture_of: Callable[[VideoFrame], tuple[int, int, Fraction | None]],
        quality: int = 90,
        short_side: int | None = None,
        upscale: bool = False,
    ) -> None:
        """picture_of: `FrameSource.picture_of` of the clip. quality: JPEG's, 1 to 100. short_side:
        of the pictures; None keeps the clip's size."""
        _keep_freed_memory()
        self._picture_of, self._quality = picture_of, quality
        self._short_side, self._upscale = short_side, upscale
        self.size: tuple[int, int] | None = None
        self.shown_size = (0, 0)
        self._orientation = Orientation()
        self._scaler = VideoReformatter()
        self._odd_scaler = VideoReformatter()  # a second one, for each keeps one set of tables
        self._full_range: dict[tuple[object, ...], FullRange] = {}

    def jpeg(self, frame: VideoFrame) -> bytes:
        """The picture of `frame`. Raises ValueError for a frame that has no size or format."""
        if self.size is None:
            width, height, aspect = self._picture_of(frame)  # as stored, unturned
            self.size = shown_size(width, height, aspect)
            if self._short_side and (self._short_side < min(self.size) or self._upscale):
                self.size = shown_size(width, height, aspect, self._short_side)
            self._orientation = Orientation.of(frame)
            turned = self._orientation.transposed
            self.shown_size = self.size[::-1] if turned else self.size
        planes = self._planes(frame)
        if self._orientation != Orientation():
            planes = [np.ascontiguousarray(self._orientation.turn(plane)) for plane in planes]
        planes[0] = with_margin(planes[0])
        return bytes(simplejpeg.encode_jpeg_yuv_planes(*planes, self._quality))

    def _planes(self, frame: VideoFrame) -> list[Plane]:
        """Y, U and V in full-range BT.601, of the wanted size."""
        space_code = int(frame.colorspace)
        is_full = int(frame.color_range) == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        if frame.format.name not in PLANAR:
            frame, is_full = self._to_planar(frame, is_full)
        if not is_full or space_code in MATRICES:
            frame = self._to_jpeg_colours(frame, space_code, is_full)
        # After the colours: a scaled width is often odd (640x360 -> 455x256).
        if (frame.width, frame.height) != self.size:
            frame = self._reformat(frame, frame.format.name, True, self.size)
        return [
            np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
                : plane.height, : plane.width
            ]
            for plane in frame.planes
        ]

    def _to_planar(self, frame: VideoFrame, is_full: bool) -> tuple[VideoFrame, bool]:
        """10 bits, RGB and the like as 8-bit planes, and whether these are full range."""
        name = frame.format.name
        is_rgb = bool(frame.format.is_rgb)
        chroma = next((c for c in ("444", "422") if c in name), "444" if is_rgb else "420")
        target = f"yuv{'j' if is_full or is_rgb else ''}{chroma}p"
        return self._reformat(frame, target, is_full), is_full or is_rgb

    def _reformat(
        self, frame: VideoFrame, target: str, is_full: bool, size: tuple[int, int] | None = None
    ) -> VideoFrame:
        """swscale, range and matrix kept; RGB becomes full-range BT.601."""
        span = ColorRange.JPEG if is_full else ColorRange.MPEG
        more: dict[str, Any] = {"src_color_range": span, "dst_color_range": span}
        if frame.format.is_rgb:
            more = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.JPEG}
        return self._scaler.reformat(
            frame,
            *(size or (frame.width, frame.height)),
            format=target,
            interpolation=Interpolation.BICUBIC,
            threads=1,  # the workers are the threads
            **more,
        )

    def _to_jpeg_colours(self, frame: VideoFrame, space_code: int, is_full: bool) -> VideoFrame:
        """Full-range BT.601 of a planar 8-bit frame."""
        if frame.width % 2 or frame.height % 2:  # which the filter cannot: swscale, by way of RGB
            return self._odd_scaler.reformat(
                frame,
                format=frame.format.name.replace("yuvj", "yuv").replace("yuv", "yuvj"),
                src_colorspace=space_code if space_code in MATRICES else Colorspace.ITU601,
                dst_colorspace=Colorspace.ITU601,
                src_color_range=ColorRange.JPEG if is_full else ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        key = (frame.format.name, frame.width, frame.height, space_code, is_full)
        if key not in self._full_range:
            self._full_range[key] = FullRange(frame, MATRICES.get(space_code, BT601), is_full)
        return self._full_range[key].convert(frame)


def with_margin(plane: Plane) -> Plane:
    """The luma plane, and behind an odd width or height one more column or row of the last one.

    libjpeg-turbo reads an even number of both, and of a block compresses all of it: what lay behind
    the picture in memory made files that differed from run to run.
    """
    height, width = plane.shape
    if height % 2 == 0 and width % 2 == 0:
        return plane
    return np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")[:height, :width]


@functools.cache
def _keep_freed_memory() -> None:
    """Once a process: let malloc keep what a frame frees, for the next one.

    glibc gives blocks above a threshold back to the system, which costs page faults anew for every
    frame: 3 to 5 % of all from 640x360 on. The threshold rises to the largest block that was freed
    (mallopt(3), M_MMAP_THRESHOLD), 32 MB at most; one that is never written to costs nothing.
    """
    np.empty(24 << 20, np.uint8)


class FullRange:
    """Frames of any matrix and range -> full-range BT.601, by libavfilter's `colorspace`.

    One pass with vector code for both: 0.06 ms for a 340x256 frame of BT.709, where table look-ups
    and numpy take 0.33 and swscale (by way of RGB) 0.48. `fast` leaves gamma and primaries alone,
    which a JPEG does not know either.
    """

    def __init__(self, frame: VideoFrame, space: str, is_full: bool) -> None:
        self._graph = Graph()
        self._graph.threads = 1  # the workers are the threads
        options = f"ispace={space}:irange={'pc' if is_full else 'tv'}:space=bt470bg:range=pc:fast=1"
        given = self._graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=VideoFormat(frame.format.name, frame.width, frame.height),
            time_base=Fraction(1, 1000),
        )
        # What the primaries and the transfer are called does not matter, as long as it is the same.
        same = "iprimaries=bt709:itrc=bt709:primaries=bt709:trc=bt709"
        convert = self._graph.add("colorspace", f"{options}:{same}")
        sink = self._graph.add("buffersink")
        given.link_to(convert)
        convert.link_to(sink)
        self._graph.configure()
        self._given, self._sink = given, sink

    def convert(self, frame: VideoFrame) -> VideoFrame:
        """The converted frame."""
        self._given.push(frame)
        converted = self._sink.pull()
        assert isinstance(converted, VideoFrame)
        return converted
