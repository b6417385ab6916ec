"""The chain of sources: every clip from the first that has it.

The one place that knows all sources. A new one is a module beside this, and a row in SOURCES.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from utils.clip import Clip
from utils.download.archives import from_tars
from utils.download.common import Run, Source, more_telling
from utils.download.disk import from_disk
from utils.download.mirror import MirrorOptions, from_mirror
from utils.download.youtube import from_youtube
from utils.process import STOP
from utils.report import Result


def ask_sources(
    clips: Sequence[Clip], run: Run, sources: Sequence[Source]
) -> Generator[Result, None, None]:
    """Every clip from the first source that has it; one result for each, the most telling one."""
    answers: dict[str, Result] = {}
    for number, source in enumerate(sources, 1):
        left = [c for c in clips if number == 1 or c.name in answers]
        if not left or STOP.is_set():
            return
        with closing(source(left, run)) as results:
            for result in results:
                before = answers.pop(result.clip, None)
                if before is not None and not result.is_on_disk:
                    result = more_telling(before, result)
                if result.is_on_disk or number == len(sources) or result.reason == "disk_full":
                    yield result
                else:
                    answers[result.clip] = result


@dataclass(frozen=True)
class SourceSettings:
    """What single sources need besides what all of them share."""

    mirror: MirrorOptions
    allow_partial: bool = False  # of clips:DIR


# A row a source: its name in --source, and how it is made.
SOURCES: dict[str, Callable[[SourceSettings], Source]] = {
    "youtube": lambda settings: from_youtube,
    "cvdf": lambda settings: partial(from_mirror, mirror=settings.mirror),
}
CLIPS, TAR = "clips:", "tar:"  # and a place: sources that are made anew for each


def parse_sources(text: str) -> list[str]:
    """An argparse type: `clips:/a:/b,cvdf,youtube` as names of sources, in that order."""
    # Only a comma before another source separates: a folder's name may hold one.
    names = re.split(rf",(?={CLIPS}|{TAR}|(?:{'|'.join(SOURCES)})(?:,|$))", text)
    for name in names:
        if name.startswith(CLIPS):
            for folder in folders_of(name):
                if not folder.is_dir():
                    raise argparse.ArgumentTypeError(f"{name}: {folder} is not a folder")
        elif name.startswith(TAR):
            place = name.removeprefix(TAR)
            is_there = os.path.isfile(place) or os.path.isdir(place)
            if urlsplit(place).scheme not in ("http", "https") and not is_there:
                raise argparse.ArgumentTypeError(f"{name}: {place} is not a file or folder")
        elif name not in SOURCES:
            known = ", ".join([*SOURCES, "clips:DIR", "tar:FILE_OR_FOLDER_OR_URL"])
            raise argparse.ArgumentTypeError(f"{name!r} is no source; there are {known}")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} names a source twice")
    return names


def folders_of(name: str) -> tuple[Path, ...]:
    """The folders of `clips:DIR[:DIR...]`."""
    return tuple(Path(folder) for folder in name.removeprefix(CLIPS).split(":"))


def make_source(name: str, settings: SourceSettings) -> Source:
    """The source of that name."""
    if name.startswith(CLIPS):
        return partial(from_disk, folders=folders_of(name), allow_partial=settings.allow_partial)
    if name.startswith(TAR):
        return partial(from_tars, place=name.removeprefix(TAR))
    return SOURCES[name](settings)
