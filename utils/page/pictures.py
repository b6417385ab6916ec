"""Small pictures of clips: one frame from the middle, as JPEG or WebP, in a worker of its own.

A clip that does not decode costs its own picture.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utils.packages import describe

if TYPE_CHECKING:
    from clipreader.pixels import Array

WIDEST = 3  # times its height: a panorama is cut


@dataclass(frozen=True)
class Form:
    """How a picture is written. `short_side` in pixels."""

    short_side: int
    format: str
    quality: int


# Measured on bikes.mp4 and bigbuckbunny.mp4: 3.9 to 4.1 KB, and 0.85 to 0.95 KB. As a JPEG the
# small one takes 1.6 KB, and strips would be half as long.
SHEET = Form(96, "JPEG", 70)
STRIP = Form(54, "WEBP", 45)


@dataclass(frozen=True)
class PictureTask:
    name: str
    path: Path
    form: Form = SHEET


@dataclass(frozen=True)
class Picture:
    """`src`: a data: address, for the page holds its pictures; empty where there is none."""

    name: str
    form: Form
    src: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def make_picture(task: PictureTask) -> Picture:
    """The worker: never raises. The frame is the one that `load_frames` gives of the middle."""
    from clipreader.clip_reader import ClipReader
    from clipreader.media import ClipError

    try:
        with ClipReader(task.path, short_side=task.form.short_side) as reader:
            frame = reader[len(reader) // 2]
    except (ClipError, OSError, ValueError) as error:
        problem = error.problem if isinstance(error, ClipError) else str(error)
        return Picture(task.name, task.form, problem=problem)
    except Exception as error:  # PyAV and our call do not fit
        return Picture(task.name, task.form, problem=describe(error))
    return written(task.name, frame, task.form)


def written(name: str, frame: Array, form: Form) -> Picture:
    """`frame`, (H, W, 3) uint8, as text for the page; of a very wide or tall one the middle."""
    import numpy as np
    from PIL import Image

    height, width = frame.shape[:2]
    most = WIDEST * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    frame = np.ascontiguousarray(frame[top : top + most, left : left + most])
    file = io.BytesIO()
    more = {"optimize": True} if form.format == "JPEG" else {"method": 6}
    Image.fromarray(frame).save(file, form.format, quality=form.quality, **more)
    text = base64.b64encode(file.getvalue()).decode()
    src = f"data:image/{form.format.lower()};base64,{text}"
    return Picture(name, form, src, frame.shape[1], frame.shape[0])
