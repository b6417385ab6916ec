"""Which archives of the mirror were read to their end, and which clips they hold.

Kept in `<out>/.cvdf`, so that a rerun reads no archive that has nothing to add.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from utils.clip import parse_clip_name
from utils.download.common import FetchOptions
from utils.download.wanted import Archive, Key
from utils.files import publish, read_text

MEMORY_FOLDER = ".cvdf"


def memory_path(url: str, out: Path) -> Path:
    return out / MEMORY_FOLDER / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.txt"


def remember(url: str, keys: Iterable[Key], options: FetchOptions) -> None:
    """Write down that an archive was read to its end, and the good clips that it holds.

    A line for its address, then one a clip. Raises OSError.
    """
    path = memory_path(url, options.out)
    path.parent.mkdir(exist_ok=True)
    part = options.workspace / path.name
    names = sorted("{}_{:06d}_{:06d}".format(*key) for key in keys)
    part.write_text("\n".join([url, *names]) + "\n", encoding="utf-8")
    publish(part, path)


def can_add(archive: Archive, wanted: frozenset[Key], out: Path) -> bool:
    """Whether an archive may hold a wanted clip, by what is known of it."""
    keys = archive.keys & wanted
    try:
        lines = read_text(memory_path(archive.url, out)).splitlines()
    except (OSError, ValueError):
        return bool(keys)
    held = {parse_clip_name(name) for name in lines[1:]}
    return not keys.isdisjoint(held)
