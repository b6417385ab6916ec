"""A picture of annotated frames, for make_ava_kin_download_csv.py --preview: right at a glance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.cli import say
from utils.lists import ava
from utils.process import sleep

if TYPE_CHECKING:
    import pandas as pd

    from utils.runs.annotated import KeyFrame
from utils.runs.ava_split import write_file

PREVIEW_NAME = "annotations_preview.png"
PREVIEW_MOST = 400  # key frames; more make a picture that no viewer opens


def preview_frames(
    tables: Iterable[pd.DataFrame], actions: dict[str, str], clips: Path, fps: Fraction, number: int
) -> list[KeyFrame]:
    """`number` key frames that have boxes, spread evenly over the tables; fewer if there are."""
    import pandas as pd

    from utils.runs.annotated import Box, KeyFrame

    rows = pd.concat([table[table["action_id"] != ""] for table in tables], ignore_index=True)
    keys = rows[["clip", "clip_time"]].drop_duplicates()
    places = np.linspace(0, len(keys) - 1, min(number, len(keys))).round().astype(int)
    chosen = []
    for clip, time in keys.iloc[places].itertuples(index=False, name=None):
        here = rows[(rows["clip"] == clip) & (rows["clip_time"] == time)]
        frame = int(here["frame"].iloc[0])
        boxes: dict[tuple[str, ...], list[str]] = {}
        for *corners, action in here[list(ava.COLUMNS[2:])].itertuples(index=False, name=None):
            boxes.setdefault(tuple(corners), []).append(actions.get(action, f"action {action}"))
        chosen.append(
            KeyFrame(
                path=clips / f"{clip}.mp4",
                caption=f"{clip}   {ava.seconds_text(time)} s   {frame:06d}.jpg",
                number=frame,
                fps=fps,
                boxes=tuple(
                    Box(tuple(map(float, corners)), tuple(names))
                    for corners, names in boxes.items()
                ),
            )
        )
    return chosen


def write_preview(key_frames: Sequence[KeyFrame], target: Path, folder: Path) -> int:
    """Draw the contact sheet; how many key frames are on it. Without one, no file is written."""
    from clipreader.media import ClipError
    from utils.runs.annotated import draw_key_frame, save_key_frames

    drawn = []
    for each in key_frames:
        sleep(0)
        try:
            drawn.append((each, draw_key_frame(each)))
        except ClipError as error:
            say(f"no preview of this key frame: {error}")
    if drawn:
        write_file(partial(save_key_frames, drawn=drawn), target, folder)
    return len(drawn)
