"""Source `cvdf`: take clips from the archives of the Common Visual Data Foundation.

The official lists say which archive holds a clip: Kinetics-700-2020 and most of Kinetics-600 have
one for each class. That layout is believed until an archive shows another one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from utils.cli import plural
from utils.clip import Clip
from utils.download.archives import Archive, ArchiveEnd, Key, Wanted, can_add, key_of
from utils.download.sources import SourceContext
from utils.errors import UserError
from utils.lists.official import (
    CVDF,
    LISTS_FOLDER,
    ListServers,
    fetch_lists,
    official_clips,
    with_slash,
)
from utils.lists.versions import OfficialList
from utils.parallel import run_parallel
from utils.process import STOP, Stopped
from utils.report import Result
from utils.web import Web, WebError

NAME = "cvdf"  # in the report
# In this order: K700-2020 and most of K600 have an archive a class; K400 mixes, and is the dearest.
DATASETS = ("700_2020", "600", "400")
SPLITS = ("train", "val", "test")
PATH_LISTS = {"700_2020": "k700_2020", "600": "k600", "400": "k400"}
PATHS_LIMIT = 2**20  # bytes; the longest path list has 100,000
HEADS_AT_ONCE = 8
REPLACEMENTS = "400/replacement_for_corrupted_k400.tgz"


@dataclass(frozen=True)
class MirrorOptions:
    """Where the mirror is, and how to ask it. forget: read archives that had nothing new again."""

    web: Web
    base: str = CVDF
    lists: ListServers = field(default_factory=lambda: ListServers(Web()))
    lists_folder: Path = LISTS_FOLDER
    forget: bool = False


@dataclass
class Split:
    """The archives of one split of a dataset.

    labels: the class that each archive is believed to hold; empty where any may hold any clip.
    """

    listed: OfficialList
    by_label: dict[str, set[Key]]  # the wanted clips in the official list
    urls: list[str]
    labels: dict[str, str]
    read: set[str] = field(default_factory=set)

    def archives(self) -> list[Archive]:
        """The archives that are believed to hold wanted clips."""
        if not self.labels:
            return self.all_others()
        keys = {_same_label(label): keys for label, keys in self.by_label.items()}
        believed = [(url, keys.get(self.labels[url])) for url in self.urls]
        return [Archive(url, frozenset(k), NAME, memory=True) for url, k in believed if k]

    def all_others(self) -> list[Archive]:
        """The archives that were not read, each for every wanted clip of the split."""
        keys = frozenset[Key]().union(*self.by_label.values())
        urls = (url for url in self.urls if url not in self.read)
        return [Archive(url, keys, NAME, memory=True) for url in urls]

    def lacks_archives(self) -> bool:
        """Whether a class has no archive, by their names."""
        there = set(self.labels.values())
        return bool(there) and any(_same_label(label) not in there for label in self.by_label)

    def shows_another(self, end: ArchiveEnd, folder: Path) -> str:
        """The class that an archive holds by the official list; empty where it is the believed one.

        A clip may lack in its archive, so that the members decide, and not what is missing.
        """
        believed = self.labels.get(end.archive.url)
        if believed is None or end.error or end.held & end.archive.keys:
            return ""
        clips = (clip for clip in official_clips(self.listed, folder) if key_of(clip) in end.held)
        labels = Counter(clip.label for clip in clips)
        shown = max(labels, key=lambda label: labels[label], default="")
        return "" if _same_label(shown) == believed else shown


def from_mirror(
    clips: Sequence[Clip], context: SourceContext, mirror: MirrorOptions
) -> Generator[Result, None, None]:
    """The source `cvdf`: clips as they come, then a result for each that did not."""
    wanted = Wanted.of(clips)
    with suppress(Stopped):
        for dataset in DATASETS:
            if not wanted.clips or STOP.is_set():
                break
            found = (find_split(dataset, split, wanted, context, mirror) for split in SPLITS)
            splits = [split for split in found if split]
            believed = [archive for split in splits for archive in split.archives()]
            is_odd = yield from read_stage(dataset, believed, splits, wanted, context, mirror)
            more = [a for split in is_odd for a in split.all_others()]
            yield from read_stage(dataset, more, splits, wanted, context, mirror)
            if dataset == "400":
                spare = replacements(believed, wanted, mirror)
                yield from read_stage(dataset, spare, splits, wanted, context, mirror)
        if not STOP.is_set():
            yield from wanted.rest(clips, NAME, "in no archive of the mirror")


def replacements(
    archives: Sequence[Archive], wanted: Wanted, mirror: MirrorOptions
) -> list[Archive]:
    """The archive of clips that are corrupt in K400's own, if there is one and it is of use."""
    keys = frozenset(wanted.clips.keys() & set().union(*(archive.keys for archive in archives)))
    spare = Archive(with_slash(mirror.base) + REPLACEMENTS, keys, NAME, memory=True)
    try:
        if keys:
            mirror.web.size(spare.url)
    except WebError as error:
        return [] if error.for_good else [spare]
    return [spare]


def find_split(
    dataset: str, split: str, wanted: Wanted, context: SourceContext, mirror: MirrorOptions
) -> Split | None:
    """The archives of a split, if wanted clips are in its official list."""
    listed = OfficialList(dataset, split)
    try:
        if not (by_label := listed_clips(listed, wanted.clips, context, mirror)):
            return None
        urls = read_paths(listed, mirror)
    except (UserError, WebError) as error:
        context.tell(f"cvdf         {listed.name} is left out: {error}")
        # Clips of lists that are there get a surer answer.
        wanted.failures.update(dict.fromkeys(wanted.clips, f"{listed.name}: {error}"))
        return None
    return Split(listed, by_label, urls, believed_labels(listed, urls, mirror.lists_folder))


def listed_clips(
    listed: OfficialList, wanted: Collection[Key], context: SourceContext, mirror: MirrorOptions
) -> dict[str, set[Key]]:
    """The wanted clips in an official list, by label. Fetches the list. Raises UserError."""
    if not listed.path(mirror.lists_folder).exists():
        fetch_lists([(listed, mirror.lists_folder)], mirror.lists, context.tell)
    ids = {key[0] for key in wanted}
    by_label: dict[str, set[Key]] = {}
    for clip in official_clips(listed, mirror.lists_folder):
        key = key_of(clip) if clip.youtube_id in ids else None
        if key is not None and key in wanted:
            by_label.setdefault(clip.label, set()).add(key)
    return by_label


def read_paths(listed: OfficialList, mirror: MirrorOptions) -> list[str]:
    """The addresses of a split's archives. Raises WebError."""
    base = with_slash(mirror.base)
    prefix = f"{listed.dataset}/{listed.split}/"
    name = f"{PATH_LISTS[listed.dataset]}_{listed.split}_path.txt"
    text = mirror.web.text(base + prefix + name, PATHS_LIMIT)
    urls = []
    for line in filter(None, map(str.strip, text.splitlines())):
        # A copy of the mirror has copies of the lists, too, which name the original.
        url = urljoin(base, base + line.removeprefix(CVDF) if line.startswith(CVDF) else line)
        if urlsplit(url).scheme in ("http", "https"):
            urls.append(url)
    if not urls:
        raise WebError(f"the mirror lists no archive of {listed.name}", for_good=True)
    return list(dict.fromkeys(urls))


def believed_labels(listed: OfficialList, urls: Sequence[str], folder: Path) -> dict[str, str]:
    """The class of each archive by its name; empty where any may hold any clip."""
    if listed.split == "test" or listed.dataset == "400":
        return {}
    names = {url: Archive(url, frozenset(), NAME).name for url in urls}
    if listed.dataset == "600":
        return {u: _same_label(re.sub(r"\.(tar\.gz|tgz|tar)$", "", n)) for u, n in names.items()}
    # CVDF numbers its archives by the sorted labels.
    labels = sorted({clip.label for clip in official_clips(listed, folder)} - {""})
    believed = {}
    for url, name in names.items():
        number = re.search(r"_(\d+)\.(?:tar\.gz|tgz|tar)$", name)
        if number is None or not 1 <= int(number[1]) <= len(labels):
            return {}  # not the layout that is known: look into all of them
        believed[url] = _same_label(labels[int(number[1]) - 1])
    return believed


def _same_label(label: str) -> str:
    """One spelling for a class in lists and in the names of archives."""
    return re.sub(r"[\s_]+", " ", label).strip().casefold()


def read_stage(
    dataset: str,
    archives: Sequence[Archive],
    splits: Sequence[Split],
    wanted: Wanted,
    context: SourceContext,
    mirror: MirrorOptions,
) -> Generator[Result, None, list[Split]]:
    """Read the archives that can add something; returns the splits whose layout is another one."""
    left, out = wanted.clips.keys(), context.options.out
    reads = [a for a in archives if a.keys & left and (mirror.forget or can_add(a, left, out))]
    of_url = {url: split for split in splits for url in split.urls}
    odd = [split for split in splits if split.lacks_archives()]
    if not reads:
        return odd
    context.tell(f"cvdf         {size_line(dataset, reads, mirror)}")
    for made in wanted.read(reads, context, mirror.web):
        if isinstance(made, Result):
            yield made
            continue
        split = of_url.get(made.archive.url)
        if split is None:
            continue
        split.read.add(made.archive.url)
        if split not in odd and (shown := split.shows_another(made, mirror.lists_folder)):
            odd.append(split)
            context.tell(
                f"cvdf         {made.archive.name} has {shown!r} instead of the expected class:"
                f" looking for clips in all archives of {split.listed.name}"
            )
    return odd


def size_line(dataset: str, archives: Sequence[Archive], mirror: MirrorOptions) -> str:
    """How many archives are read, and how many GB, as far as the server says."""

    def head(archive: Archive) -> int:
        try:
            return mirror.web.size(archive.url) or 0
        except WebError:
            return 0

    known = [size for size in run_parallel(head, archives, HEADS_AT_ONCE) if size]
    unsaid = len(archives) - len(known)
    size = sum(known)
    total = f"{size / 1e9:,.1f} GB" if size > 1e8 else f"{size / 1e6:,.1f} MB"
    if not known:
        total = "of unknown size"
    more = f" and {unsaid:,} of unknown size" if known and unsaid else ""
    return f"reading {plural(len(archives), 'archive')} of Kinetics-{dataset}, {total}{more}"
