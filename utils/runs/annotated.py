"""Key frames with their boxes and action names drawn in, for the eye.

At the end of make_ava_kin_download_csv.py --preview: do clip, time and box belong together?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clipreader.clip_reader import ClipReader
from clipreader.contact_sheet import save_sheet
from clipreader.pixels import Array

TILE = (384, 288)  # pixels; a picture is shrunk or enlarged until it fits
CAPTION_HEIGHT = 16
TEXT_SIZE = 12
INK = "#101010"
COLOURS = ("#ffd400", "#00c8ff", "#7dff5a", "#ff7ad9", "#ff9a3c", "#b49cff")


@dataclass(frozen=True)
class Box:
    """One person's box: x1, y1, x2, y2 as parts of the picture, and what the person does."""

    corners: tuple[float, ...]
    actions: tuple[str, ...]


@dataclass(frozen=True)
class KeyFrame:
    """Picture `number` (from 1, at `fps`) of the clip at `path`, and the boxes in it."""

    path: Path
    caption: str
    number: int
    fps: Fraction
    boxes: tuple[Box, ...]


def draw_key_frame(key_frame: KeyFrame) -> Image.Image:
    """A tile: the very picture that frame_extract.py writes, with the boxes, under its caption.

    Raises ClipError when the clip cannot be read so far, or has fewer pictures.
    """
    with ClipReader(key_frame.path) as clip:
        frames = clip.read(indices=[key_frame.number - 1], fps=key_frame.fps)
    picture = Image.fromarray(frames[0])
    scale = min(TILE[0] / picture.width, TILE[1] / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    picture = picture.resize(size)
    draw = ImageDraw.Draw(picture)
    for number, box in enumerate(key_frame.boxes):
        _draw_box(draw, box, size, COLOURS[number % len(COLOURS)])
    return picture


def save_key_frames(path: Path, drawn: Sequence[tuple[KeyFrame, Image.Image]]) -> None:
    """Write what `draw_key_frame` gave, at least one, as a contact sheet; format by suffix."""
    height = CAPTION_HEIGHT + max(picture.height for _, picture in drawn)
    tiles: Array = np.zeros((len(drawn), height, TILE[0], 3), np.uint8)
    for tile, (_, picture) in zip(tiles, drawn, strict=True):
        left = (TILE[0] - picture.width) // 2
        area = tile[CAPTION_HEIGHT : CAPTION_HEIGHT + picture.height, left : left + picture.width]
        area[:] = np.asarray(picture)
    save_sheet(path, tiles, [key_frame.caption for key_frame, _ in drawn])


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, size: tuple[int, int], colour: str) -> None:
    (width, height), (x1, y1, x2, y2) = size, box.corners
    left, right = sorted((round(x1 * (width - 1)), round(x2 * (width - 1))))
    top, bottom = sorted((round(y1 * (height - 1)), round(y2 * (height - 1))))
    draw.rectangle((left, top, right, bottom), outline=colour, width=2)
    font = ImageFont.load_default(TEXT_SIZE)
    text = "\n".join(box.actions)
    *_, wide, high = draw.multiline_textbbox((0, 0), text, font=font)
    # Inside the box at its top, moved so that it stays in the picture.
    x = max(0, min(left + 2, width - round(wide) - 4))
    y = max(0, min(top + 2, height - round(high) - 4))
    draw.rectangle((x, y, x + wide + 4, y + high + 3), fill=colour)
    draw.multiline_text((x + 2, y), text, fill=INK, font=font)
