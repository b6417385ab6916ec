"""Key frames with their boxes and action names on one picture.

For the eye, at the end of make_ava_kin_download_csv.py --preview: are clip, time and box one thing?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

from utils.frame_times import resample_indices
from utils.media import BadClip

TILE_WIDTH = 384  # pixels
CAPTION_HEIGHT = 18
MARGIN = 6
TEXT_SIZE = 12
BACKGROUND, INK = "#ffffff", "#202020"
COLOURS = ("#ffd400", "#00c8ff", "#7dff5a", "#ff7ad9", "#ff9a3c", "#b49cff")


@dataclass(frozen=True)
class Box:
    """One person's box: corners as parts of the picture, and what the person does."""

    corners: tuple[float, float, float, float]  # x1, y1, x2, y2
    actions: tuple[str, ...]


@dataclass(frozen=True)
class KeyFrame:
    """One tile: picture `number` (from 1, at `fps`) of the clip at `path`."""

    path: Path
    caption: str
    number: int
    fps: Fraction
    boxes: tuple[Box, ...]


def picture_of(path: Path, number: int, fps: Fraction) -> Image.Image:
    """Picture `number` (from 1) of a clip at `fps`, as frame_extract.py writes it, upright.

    Raises BadClip when the clip cannot be decoded so far, or has fewer pictures.
    """
    try:
        with av.open(str(path)) as clip:
            if not clip.streams.video:
                raise BadClip("undecodable", "no video stream")
            stream = clip.streams.video[0]
            base = stream.time_base or Fraction(1, 1)
            packets = [p for p in clip.demux(stream) if p.pts is not None and not p.is_discard]
            pts = sorted(p.pts for p in packets if p.pts is not None)
            origin = round(Fraction(clip.start_time or 0, av.time_base) / base)
        shown = resample_indices(pts, base, fps, origin=origin)
        if not 1 <= number <= len(shown):
            raise BadClip("truncated", f"no picture {number}: it has {len(shown)} at {fps} fps")
        wanted = pts[shown[number - 1]]
        with av.open(str(path)) as clip:
            clip.seek(wanted, stream=clip.streams.video[0], backward=True)
            for frame in clip.decode(video=0):
                if frame.pts is not None and frame.pts >= wanted:
                    return _upright(frame, clip.streams.video[0].sample_aspect_ratio)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClip("undecodable", f"cannot be read: {error}") from error
    raise BadClip("truncated", f"picture {number} does not decode")


def _upright(frame: av.VideoFrame, aspect: Fraction | None) -> Image.Image:
    """As a player shows it: pixels square, and turned by the display matrix."""
    picture: Image.Image = frame.to_image()
    if aspect and aspect != 1:
        picture = picture.resize((max(1, round(picture.width * aspect)), picture.height))
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def contact_sheet(tiles: Sequence[tuple[KeyFrame, Image.Image]]) -> Image.Image:
    """The key frames in rows, about as wide as high, each with its caption. At least one."""
    drawn = [_tile(key_frame, picture) for key_frame, picture in tiles]
    columns = math.ceil(math.sqrt(len(drawn)))
    rows = [drawn[at : at + columns] for at in range(0, len(drawn), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    width = MARGIN + columns * (TILE_WIDTH + MARGIN)
    sheet = Image.new("RGB", (width, MARGIN + sum(heights) + MARGIN * len(rows)), BACKGROUND)
    y = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (MARGIN + column * (TILE_WIDTH + MARGIN), y))
        y += height + MARGIN
    return sheet


def _tile(key_frame: KeyFrame, picture: Image.Image) -> Image.Image:
    height = max(1, round(picture.height * TILE_WIDTH / picture.width))
    tile = Image.new("RGB", (TILE_WIDTH, CAPTION_HEIGHT + height), BACKGROUND)
    tile.paste(picture.resize((TILE_WIDTH, height)), (0, CAPTION_HEIGHT))
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(TEXT_SIZE)
    draw.text((2, 1), key_frame.caption, fill=INK, font=font)
    for number, box in enumerate(key_frame.boxes):
        _draw_box(draw, box, (TILE_WIDTH, height), COLOURS[number % len(COLOURS)], font)
    return tile


def _draw_box(
    draw: ImageDraw.ImageDraw,
    box: Box,
    size: tuple[int, int],
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    (width, height), (x1, y1, x2, y2) = size, box.corners
    left, right = sorted((round(x1 * (width - 1)), round(x2 * (width - 1))))
    top, bottom = sorted((round(y1 * (height - 1)), round(y2 * (height - 1))))
    top, bottom = top + CAPTION_HEIGHT, bottom + CAPTION_HEIGHT
    draw.rectangle((left, top, right, bottom), outline=colour, width=2)
    text = "\n".join(box.actions)
    # Inside the box at its top, moved so that it stays on the tile.
    x1, y1, x2, y2 = draw.multiline_textbbox((0, 0), text, font=font)
    x = max(0, min(left + 2, width - round(x2) - 4))
    y = max(CAPTION_HEIGHT, min(top + 2, CAPTION_HEIGHT + height - round(y2) - 4))
    draw.rectangle((x, y, x + x2 + 4, y + y2 + 3), fill=colour)
    draw.multiline_text((x + 2, y), text, fill=INK, font=font)
