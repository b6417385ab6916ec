"""Which pictures of a clip are wanted: all of them, or those about its AVA-Kinetics key frames.

For frame_extract.py --key_frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from utils.video.whole import BadClip

if TYPE_CHECKING:
    from clipreader.frame_source import FrameSource


def wanted_numbers(
    source: FrameSource,
    shown: Sequence[int],
    key_times: Sequence[int] | None,
    window: int | None,
) -> list[int]:
    """The numbers, from 1, of the pictures wanted; `shown`: each one's frame. Raises BadClip."""
    pictures = len(shown)
    if key_times is None or window is None:
        return list(range(1, pictures + 1))
    from utils.lists.ava import key_picture

    numbers: set[int] = set()
    for key_time in key_times:
        number = key_picture(source.table, shown, key_time)
        if number > pictures:
            raise BadClip("past_end", f"key frame {number} of {pictures} pictures")
        numbers |= set(range(max(1, number - window), min(pictures, number + window) + 1))
    return sorted(numbers)


def read_all_key_times(args: argparse.Namespace) -> dict[str, tuple[int, ...]] | None:
    """Clip's name -> times of its key frames, from all of --key_frames; None without it."""
    if not args.key_frames:
        return None
    from utils.lists.ava import read_key_times

    found: dict[str, tuple[int, ...]] = {}
    for path in args.key_frames:
        for clip, times in read_key_times(path, args.videos_dir).items():
            found[clip] = (*found.get(clip, ()), *times)
    return found
