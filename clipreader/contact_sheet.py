"""Frames in a grid, each with its number: a picture to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from clipreader.pixels import Array

GAP = 2  # pixels between frames
WIDEST = 1920  # pixels; frames shrink until the sheet is no wider


def save_sheet(path: Path, frames: Array, captions: Sequence[str]) -> None:
    """Write `frames`, (T, H, W, 3) uint8, as a grid about as wide as a screen; format by suffix.

    Raises ValueError for no frames or an unknown suffix, OSError where it cannot be written.
    """
    if not len(frames):
        raise ValueError("there are no frames to draw")
    height, width = frames.shape[1:3]
    columns = math.ceil(math.sqrt(len(frames) * 1.2 * height / width))
    columns = min(len(frames), max(1, columns))
    scale = min(1.0, WIDEST / columns / width)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    rows = math.ceil(len(frames) / columns)
    sheet = Image.new("RGB", (columns * (size[0] + GAP) - GAP, rows * (size[1] + GAP) - GAP))
    for number, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
        picture = Image.fromarray(np.ascontiguousarray(frame)).resize(size)
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, 0, *(side + 3 for side in draw.textbbox((0, 0), caption)[2:])), "black")
        draw.text((2, 1), caption, "white")
        row, column = divmod(number, columns)
        sheet.paste(picture, (column * (size[0] + GAP), row * (size[1] + GAP)))
    sheet.save(path)
