"""Encode decoded frames as JPEGs, with the colours, shape and size that a player shows.

JPEG (JFIF) holds full-range BT.601. Video is mostly limited range, and from YouTube mostly BT.709.
The planes are converted directly, because a conversion to RGB and back costs 4 to 7 dB of luma.
Only scaling and uncommon pixel formats use swscale.
"""

from __future__ import annotations

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

# 8-bit planar formats that a JPEG stores as they are, chroma subsampling included.
PLANAR = frozenset({"yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p"})
# AVColorSpace (ITU-T H.273, table 4) -> its name in the `colorspace` filter. All others, and
# frames without one, count as BT.601, as in ffmpeg and PyAV.
MATRICES = {1: "bt709", 4: "fcc", 7: "smpte240m", 9: "bt2020nc", 10: "bt2020nc"}


class JpegEncoder:
    """Encodes the frames of one clip, all with the size of the first one."""

    def __init__(
        self,
        picture_of: Callable[[VideoFrame], tuple[int, int, Fraction | None]],
        quality: int = 90,
        short_side: int | None = None,
        upscale: bool = False,
    ) -> None:
        """picture_of: `FrameSource.picture_of` of the clip. quality: JPEG's, 1 to 100. short_side:
        the length of the JPEGs' shorter side; None keeps the clip's size."""
        # glibc returns freed blocks above a threshold to the system, which costs page faults for
        # every frame. Freeing a large block raises the threshold (mallopt(3), M_MMAP_THRESHOLD).
        np.empty(24 << 20, np.uint8)
        self._picture_of, self._quality = picture_of, quality
        self._short_side, self._upscale = short_side, upscale
        self.size = (0, 0)
        self.shown_size = (0, 0)
        self._orientation = Orientation()
        self._scaler = VideoReformatter()
        self._filters: dict[tuple[object, ...], Graph] = {}

    def encode(self, frame: VideoFrame) -> bytes:
        """Return the JPEG of `frame`. Raises ValueError if it has no size or format."""
        if not all(self.size):
            width, height, aspect = self._picture_of(frame)  # as stored, not rotated
            self.size = shown_size(width, height, aspect)
            if self._short_side and (self._short_side < min(self.size) or self._upscale):
                self.size = shown_size(width, height, aspect, self._short_side)
            self._orientation = Orientation.of(frame)
            self.shown_size = self.size[::-1] if self._orientation.transposed else self.size
        planes = self._planes(frame)
        if self._orientation != Orientation():
            planes = [np.ascontiguousarray(self._orientation.turn(plane)) for plane in planes]
        planes[0] = with_margin(planes[0])
        return bytes(simplejpeg.encode_jpeg_yuv_planes(*planes, self._quality))

    def _planes(self, frame: VideoFrame) -> list[Plane]:
        """Return Y, U and V in full-range BT.601, in the final size."""
        space = int(frame.colorspace)
        is_full = int(frame.color_range) == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        if frame.format.name not in PLANAR:
            frame, is_full = self._to_planar(frame, is_full)
        if not is_full or space in MATRICES:
            frame = self._to_jpeg_colours(frame, space, is_full)
        # After the colours, because a scaled width is often odd (640x360 -> 455x256).
        if (frame.width, frame.height) != self.size:
            frame = self._scale(frame, True, width=self.size[0], height=self.size[1])
        return [
            np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
                : plane.height, : plane.width
            ]
            for plane in frame.planes
        ]

    def _to_planar(self, frame: VideoFrame, is_full: bool) -> tuple[VideoFrame, bool]:
        """Return a frame of 10 bits, RGB and the like as 8-bit planes; whether they are full range.

        RGB becomes full-range BT.601.
        """
        name, is_rgb = frame.format.name, bool(frame.format.is_rgb)
        chroma = next((c for c in ("444", "422") if c in name), "444" if is_rgb else "420")
        target = f"yuv{'j' if is_full or is_rgb else ''}{chroma}p"
        return self._scale(frame, is_full, format=target), is_full or is_rgb

    def _scale(self, frame: VideoFrame, is_full: bool, **shape: Any) -> VideoFrame:
        """Change a frame's size or pixel format; range and matrix stay, except for RGB."""
        span = ColorRange.JPEG if is_full else ColorRange.MPEG
        colours: dict[str, Any] = {"src_color_range": span, "dst_color_range": span}
        if frame.format.is_rgb:
            colours = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.JPEG}
        bicubic = Interpolation.BICUBIC
        # The workers are the threads.
        return self._scaler.reformat(frame, interpolation=bicubic, threads=1, **colours, **shape)

    def _to_jpeg_colours(self, frame: VideoFrame, space: int, is_full: bool) -> VideoFrame:
        """Return a planar 8-bit frame in full-range BT.601."""
        name = frame.format.name
        if frame.width % 2 or frame.height % 2:  # the filter refuses these
            return frame.reformat(
                format=name.replace("yuvj", "yuv").replace("yuv", "yuvj"),
                src_colorspace=space if space in MATRICES else Colorspace.ITU601,
                dst_colorspace=Colorspace.ITU601,
                src_color_range=ColorRange.JPEG if is_full else ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
        key = (name, frame.width, frame.height, space, is_full)
        if key not in self._filters:
            self._filters[key] = colour_filter(frame, MATRICES.get(space, "bt470bg"), is_full)
        self._filters[key].push(frame)
        converted = self._filters[key].pull()
        assert isinstance(converted, VideoFrame)
        return converted


def with_margin(plane: Plane) -> Plane:
    """Return the luma plane, with its last column or row repeated behind an odd width or height.

    libjpeg-turbo reads an even number of both, so that its files otherwise depend on what is in
    memory behind the plane.
    """
    height, width = plane.shape
    if height % 2 == 0 and width % 2 == 0:
        return plane
    return np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")[:height, :width]


def colour_filter(frame: VideoFrame, space: str, is_full: bool) -> Graph:
    """Make a filter that converts frames like this one to full-range BT.601.

    libavfilter's `colorspace` does it in one pass of vector code: 0.06 ms for a 340x256 frame of
    BT.709, where swscale takes 0.48 (by way of RGB).
    """
    graph = Graph()
    graph.threads = 1  # the workers are the threads
    given = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=VideoFormat(frame.format.name, frame.width, frame.height),
        time_base=Fraction(1, 1000),
    )
    # A JPEG has no primaries and no transfer: any will do if both sides have the same. `fast`
    # leaves them alone.
    same = "iprimaries=bt709:itrc=bt709:primaries=bt709:trc=bt709:fast=1"
    source = f"ispace={space}:irange={'pc' if is_full else 'tv'}"
    convert = graph.add("colorspace", f"{source}:space=bt470bg:range=pc:{same}")
    graph.link_nodes(given, convert, graph.add("buffersink")).configure()
    return graph
