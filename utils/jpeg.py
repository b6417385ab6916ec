"""One decoded frame becomes one JPEG: colours, shape and size as a player shows them.

After the decoder (`utils/frames`), in the worker processes of frame_extract.py. JPEG (JFIF) holds
full-range BT.601; video is mostly limited range, and from YouTube mostly BT.709. The planes are
brought over by numpy in place, without the detour through RGB that costs 4 to 7 dB of luma; only
scaling and uncommon pixel formats go through swscale.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import simplejpeg
from av import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from utils.pictures import shown_size

Plane = NDArray[np.uint8]

# 8-bit planar formats that go to the JPEG as they are stored, chroma subsampling included.
PLANAR = frozenset(f"yuv{j}{chroma}p" for j in ("", "j") for chroma in ("420", "422", "444"))
# Luma weights of red and blue, by AVColorSpace (ITU-T H.273, table 4). What says nothing, and all
# the rest, counts as BT.601, as ffmpeg and PyAV take it.
BT601 = (0.299, 0.114)
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}


@dataclass(frozen=True)
class Look:
    """How pictures are wanted. `short_side` None keeps the size; quality is JPEG's, 1 to 100."""

    quality: int = 90
    short_side: int | None = None
    upscale: bool = False


@dataclass(frozen=True)
class Orientation:
    """How a player turns a stored picture: first transposed, then mirrored."""

    transposed: bool = False
    mirrored_x: bool = False
    mirrored_y: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Orientation:
        """Read a frame's display matrix (ISO/IEC 14496-12, 6.2.2), for right angles and mirrors."""
        side_data: Any = frame.side_data  # PyAV's stubs take it for a mapping
        for data in side_data:
            if data.type.name == "DISPLAYMATRIX":
                a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
                if abs(b) > abs(a):
                    return cls(True, c < 0, b < 0)
                return cls(False, a < 0, d < 0)
        return cls()

    def turn(self, plane: Plane) -> Plane:
        if self == Orientation():
            return plane
        plane = plane.T if self.transposed else plane
        plane = plane[:, ::-1] if self.mirrored_x else plane
        return np.ascontiguousarray(plane[::-1] if self.mirrored_y else plane)


def picture_size(width: int, height: int, aspect: Fraction | None, look: Look) -> tuple[int, int]:
    """(width, height), still unturned, of the picture of a stored frame; aspect: of its pixels."""
    size = shown_size(width, height, aspect)
    if look.short_side is None or (look.short_side >= min(size) and not look.upscale):
        return size
    return shown_size(width, height, aspect, look.short_side)


class PictureMaker:
    """JPEGs of the frames of one clip. All of them get the size of the first one's picture."""

    def __init__(self, look: Look, aspect: Fraction | None) -> None:
        self.look = look
        self._aspect = aspect
        self.size: tuple[int, int] | None = None
        self.shown_size = (0, 0)
        self._orientation = Orientation()
        self._scaler = VideoReformatter()
        self._full_range: dict[tuple[object, ...], FullRange] = {}

    def jpeg(self, frame: VideoFrame) -> bytes:
        """The picture of `frame`. Raises ValueError for a frame that has no size or format."""
        if self.size is None:
            self.size = picture_size(frame.width, frame.height, self._aspect, self.look)
            self._orientation = Orientation.of(frame)
            turned = self._orientation.transposed
            self.shown_size = self.size[::-1] if turned else self.size
        planes = [self._orientation.turn(plane) for plane in self._planes(frame)]
        return bytes(simplejpeg.encode_jpeg_yuv_planes(*planes, self.look.quality))

    def _planes(self, frame: VideoFrame) -> list[Plane]:
        """Y, U and V in full-range BT.601, of the wanted size."""
        name, space = frame.format.name, int(frame.colorspace)
        is_full = int(frame.color_range) == ColorRange.JPEG or name.startswith("yuvj")
        if name not in PLANAR or (frame.width, frame.height) != self.size:
            frame, is_full = self._reformat(frame, name, is_full)
        planes = [
            np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
                : plane.height, : plane.width
            ]
            for plane in frame.planes
        ]
        weights = LUMA_WEIGHTS.get(space, BT601)
        if is_full and weights == BT601:
            return planes
        key = (weights, is_full, *(plane.shape for plane in planes))
        if key not in self._full_range:
            self._full_range[key] = FullRange(planes, weights, is_full)
        return self._full_range[key].convert(planes)

    def _reformat(self, frame: VideoFrame, name: str, is_full: bool) -> tuple[VideoFrame, bool]:
        """Scale, and bring 10 bits, RGB and the like to 8-bit planes, range and matrix kept."""
        assert self.size is not None
        is_rgb = frame.format.is_rgb or int(frame.colorspace) == 0
        target = name
        if name not in PLANAR:
            chroma = next((c for c in ("444", "422") if c in name), "444" if is_rgb else "420")
            target = f"yuv{'j' if is_full or is_rgb else ''}{chroma}p"
        colour = ColorRange.JPEG if is_full else ColorRange.MPEG
        more: dict[str, Any] = {"src_color_range": colour, "dst_color_range": colour}
        if frame.format.is_rgb:
            more = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.JPEG}
        frame = self._scaler.reformat(
            frame,
            *self.size,
            format=target,
            interpolation=Interpolation.BICUBIC,
            threads=1,  # the workers are the threads
            **more,
        )
        return frame, is_full or frame.format.name.startswith("yuvj")


class FullRange:
    """Planes of any matrix and range -> full-range BT.601, into buffers that are used again.

    Fresh arrays for each frame cost more than the arithmetic: 750 us where this takes 190 at
    340x256 (BT.709). Without a change of matrix it is the exact table,
    round((y - 16) * 255 / 219) and round((c - 128) * 255 / 224) + 128, at a quarter of the time
    of `np.take`, for a division by a constant is vectorised and a look-up is not.
    """

    def __init__(self, planes: list[Plane], weights: tuple[float, float], is_full: bool) -> None:
        luma, chroma = planes[0].shape, planes[1].shape
        self.same_matrix = weights == BT601
        self.steps = _Steps.of(weights, is_full)
        self.wide: NDArray[Any] = np.empty(luma, np.uint16)
        self.wide_chroma = np.empty(chroma, np.uint16)
        self.out = [np.empty(plane.shape, np.uint8) for plane in planes]
        self.vertical = 2 if chroma[0] < luma[0] else 1
        self.horizontal = 2 if chroma[1] < luma[1] else 1
        self.u, self.v, self.sum, self.part = (np.empty(chroma, np.float32) for _ in range(4))
        self.shift: NDArray[Any] = np.empty(chroma, np.uint16)
        self.wide_shift: NDArray[Any] = np.empty(
            (chroma[0], chroma[1] * self.horizontal), np.uint16
        )

    def convert(self, planes: list[Plane]) -> list[Plane]:
        """The converted planes; good until the next call."""
        luma, u, v = planes
        if self.same_matrix:
            self._stretch_luma(luma)
            self._stretch_chroma(u, self.out[1])
            self._stretch_chroma(v, self.out[2])
        else:
            np.copyto(self.u, u)
            np.copyto(self.v, v)
            self._convert_luma(luma)
            self._mix(self.u, self.v, self.steps.u, self.out[1])
            self._mix(self.u, self.v, self.steps.v, self.out[2])
        return self.out

    def _stretch_luma(self, luma: Plane) -> None:
        """(y - 16) * 255 / 219, rounded; 255 / 219 is 85 / 73."""
        wide, out = self.wide, self.out[0]
        np.clip(luma, 16, 235, out=out)
        np.multiply(out, np.uint16(85), out=wide, dtype=np.uint16)
        np.subtract(wide, np.uint16(16 * 85 - 36), out=wide)
        np.floor_divide(wide, np.uint16(73), out=wide)
        np.copyto(out, wide, casting="unsafe")

    def _stretch_chroma(self, chroma: Plane, out: Plane) -> None:
        """(c - 128) * 255 / 224 + 128, rounded: 0.5 to 255.5 for 16 to 240."""
        wide = self.wide_chroma
        np.clip(chroma, 16, 240, out=out)
        np.multiply(out, np.uint16(255), out=wide, dtype=np.uint16)
        np.subtract(wide, np.uint16(16 * 255 - 2 * 112), out=wide)
        np.floor_divide(wide, np.uint16(224), out=wide)
        np.minimum(wide, np.uint16(255), out=wide)
        np.copyto(out, wide, casting="unsafe")

    def _convert_luma(self, luma: Plane) -> None:
        """Luma in another matrix is luma plus a part of both chromas (each for 2x2 pixels)."""
        steps, wide, out = self.steps, self.wide, self.out[0]
        np.multiply(self.u, steps.luma[0], out=self.sum)
        np.multiply(self.v, steps.luma[1], out=self.part)
        np.add(self.sum, self.part, out=self.sum)
        np.add(self.sum, steps.luma[2], out=self.sum)
        np.copyto(self.shift, self.sum, casting="unsafe")
        shift: NDArray[Any] = self.shift
        if self.horizontal == 2:  # both halves of a 32-bit number are the two pixels of a pair
            pairs = self.wide_shift.view(np.uint32)
            np.multiply(shift, np.uint32(0x10001), out=pairs, dtype=np.uint32)
            shift = self.wide_shift
        np.clip(luma, steps.low, steps.high, out=out)
        np.multiply(out, steps.numerator, out=wide, dtype=np.uint16)
        shift = shift[:, : wide.shape[1]]
        for row in range(self.vertical):
            rows = wide[row :: self.vertical]
            np.add(rows, shift[: len(rows)], out=rows)
        np.floor_divide(wide, steps.denominator, out=wide)
        np.clip(wide, steps.headroom, steps.headroom + np.uint16(255), out=wide)
        np.subtract(wide, steps.headroom, out=wide)
        np.copyto(out, wide, casting="unsafe")

    def _mix(
        self,
        u: np.ndarray[Any, Any],
        v: np.ndarray[Any, Any],
        parts: tuple[np.float32, np.float32, np.float32],
        out: Plane,
    ) -> None:
        np.multiply(u, parts[0], out=self.sum)
        np.multiply(v, parts[1], out=self.part)
        np.add(self.sum, self.part, out=self.sum)
        np.add(self.sum, parts[2], out=self.sum)
        np.clip(self.sum, np.float32(0), np.float32(255), out=self.sum)
        np.copyto(out, self.sum, casting="unsafe")


Parts = tuple[np.float32, np.float32, np.float32]


@dataclass(frozen=True)
class _Steps:
    """The numbers of a change of matrix, for unsigned 16-bit luma and float chroma.

    Luma is y * numerator + shift, divided by denominator, less `headroom`, which keeps what a
    saturated colour takes from it above 0.
    """

    low: int
    high: int
    numerator: np.uint16
    denominator: np.uint16
    headroom: np.uint16
    luma: Parts
    u: Parts
    v: Parts

    @classmethod
    def of(cls, weights: tuple[float, float], is_full: bool) -> _Steps:
        matrix = to_bt601(weights)
        low, high, top, bottom = (0, 255, 146, 146) if is_full else (16, 235, 170, 146)
        stretch = 1.0 if is_full else 255 / 224
        headroom = 64
        # In units of 1/146 of a level: the range, the headroom, rounding, chroma about its zero.
        per_u, per_v = (146 * stretch * part for part in matrix[0][1:])
        constant = headroom * 146 + 73 - low * top - 128 * (per_u + per_v) + 0.5
        rows = []
        for _, of_u, of_v in matrix[1:]:
            zero = 128 - 128 * stretch * (of_u + of_v) + 0.5
            rows.append((np.float32(stretch * of_u), np.float32(stretch * of_v), np.float32(zero)))
        return cls(
            low,
            high,
            np.uint16(top),
            np.uint16(bottom),
            np.uint16(headroom),
            (np.float32(per_u), np.float32(per_v), np.float32(constant)),
            rows[0],
            rows[1],
        )


def to_bt601(weights: tuple[float, float]) -> list[list[float]]:
    """The 3x3 matrix from YCbCr of `weights` (red, blue) to that of BT.601, on full-range values.

    Y = kr R + kg G + kb B; Cb = (B - Y) / (2 - 2 kb); Cr = (R - Y) / (2 - 2 kr) (ITU-T H.273, 8.3).
    """
    product = _from_rgb(BT601) @ np.linalg.inv(_from_rgb(weights))
    return [[float(value) for value in row] for row in product]


def _from_rgb(weights: tuple[float, float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    red, blue = weights
    luma = np.array([red, 1 - red - blue, blue])
    cb = (np.array([0, 0, 1]) - luma) / (2 - 2 * blue)
    cr = (np.array([1, 0, 0]) - luma) / (2 - 2 * red)
    return np.stack([luma, cb, cr])
