"""What is wanted of the mirror: its archives, which clips they may hold, which are taken already.

Between `sources/mirror` (which archives) and `sources/archives` (which reads them).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from utils.clip import Clip, parse_clip_name
from utils.lists.official import CVDF, LISTS_FOLDER, ListServers
from utils.report import Result
from utils.tar import Member
from utils.web import Web

NAME = "cvdf"  # the source, in the report
LARGEST_CLIP = 500 * 2**20  # bytes

Key = tuple[str, int, int]  # youtube_id, start, end
Tell = Callable[[str], None]


@dataclass(frozen=True)
class MirrorOptions:
    """Where the mirror is, and how to ask it."""

    web: Web
    base: str = CVDF
    lists: ListServers = field(default_factory=lambda: ListServers(Web()))
    lists_folder: Path = LISTS_FOLDER
    num_jobs: int = 1
    forget: bool = False  # read archives again that have nothing new


@dataclass(frozen=True)
class Archive:
    """One archive, and the wanted clips that it may hold."""

    url: str
    keys: frozenset[Key]

    @property
    def name(self) -> str:
        return unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])


OF_THE_COPY = ("undecodable", "truncated", "past_end")  # reasons that another try does not mend


@dataclass
class Ending:
    """How the reading of an archive went. Its reader counts `taken`, its publisher `settled`."""

    archive: Archive
    error: str = ""  # why it broke off; empty when it ended whole
    odd: Counter[str] = field(default_factory=Counter)  # members that no mirror should hold
    held: set[Key] = field(default_factory=set)  # the clips in it, wanted or not
    bad: set[Key] = field(default_factory=set)  # those of them that were taken out and were no good
    taken: int = 0
    settled: int = 0  # taken out, and published or found bad
    is_unsure: bool = False  # a clip failed for what is no fault of its copy: a full disk, time

    def settle(self, key: Key, result: Result) -> None:
        """One clip less that is on its way."""
        self.settled += 1
        if result.is_on_disk:
            self.bad.discard(key)
        elif result.reason in OF_THE_COPY:
            self.bad.add(key)
        else:
            self.is_unsure = True


class Wanted:
    """The clips that are still wanted. A reader claims one before it takes it."""

    def __init__(self, clips: Iterable[Clip]) -> None:
        self._lock = threading.Lock()
        self._clips = {key: clip for clip in clips if (key := key_of(clip))}
        self._claimed: set[Key] = set()
        self.problems: dict[str, Result] = {}  # by the clip's name: what was wrong with its copy

    def claim(self, key: Key) -> Clip | None:
        with self._lock:
            if key in self._claimed or key not in self._clips:
                return None
            self._claimed.add(key)
            return self._clips[key]

    def give_back(self, key: Key, problem: Result) -> None:
        """Another archive may have a better copy."""
        with self._lock:
            self._claimed.discard(key)
            self.problems[problem.clip] = problem

    def done(self, key: Key) -> None:
        with self._lock:
            self._clips.pop(key, None)

    def clips_of(self, keys: frozenset[Key]) -> tuple[Clip, ...]:
        """The clips among `keys` that are still wanted."""
        with self._lock:
            return tuple(self._clips[key] for key in keys & self._clips.keys())

    def settle(self, result: Result) -> bool:
        """Strike a clip off that another machine took; False if it had been struck off before."""
        key = (result.youtube_id, int(result.time_start), int(result.time_end))
        with self._lock:
            is_wanted = key in self._clips
            if result.is_on_disk:
                self._clips.pop(key, None)
            return is_wanted

    @property
    def keys(self) -> frozenset[Key]:
        with self._lock:
            return frozenset(self._clips)


def key_of(clip: Clip) -> Key | None:
    """How an archive names a clip; None for one that no archive holds."""
    if clip.is_ava or not (clip.time_start.is_integer() and clip.time_end.is_integer()):
        return None
    return clip.youtube_id, int(clip.time_start), int(clip.time_end)


def member_key(name: str) -> Key | None:
    """The clip that a member is, by its base name; None if it is none."""
    base = name.rsplit("/", 1)[-1]
    if not base.endswith(".mp4"):
        return None
    found = parse_clip_name(base[:-4])
    if found is None or found[2] is None:
        return None
    return key_of(Clip("", found[0], found[1], found[2]))


def oddity(member: Member) -> str:
    """Why a member is passed over whatever it is called; empty for a file like any other."""
    if not member.is_file:
        return "not a regular file"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "with an unsafe name"
    if member.name.rsplit("/", 1)[-1].startswith("._"):
        return "with a name that begins with ._"
    if member_key(member.name) is None:
        return "not a clip"
    if member.size > LARGEST_CLIP:
        return f"larger than {LARGEST_CLIP // 2**20} MB"
    return ""
