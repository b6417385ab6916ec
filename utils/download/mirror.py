"""The source `cvdf`: clips from the archives of the Common Visual Data Foundation, as they stream.

Between the lists and the disk. The official lists say which archives can hold a wanted clip; each
is read from the socket, and its wanted clips go through `foreign` into the flat folder. No archive
is ever stored.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from utils.cli import plural
from utils.clip import Clip
from utils.cluster import Cluster
from utils.download.archive_memory import can_add
from utils.download.archives import read_archives
from utils.download.common import FetchOptions, Run
from utils.download.mirror_cluster import read_on_cluster
from utils.download.wanted import NAME, Archive, Key, MirrorOptions, Tell, Wanted, key_of
from utils.errors import UserError
from utils.lists.official import CVDF, fetch_lists, official_clips, with_slash
from utils.lists.versions import OfficialList
from utils.parallel import Workers, run_parallel
from utils.process import STOP, Stopped
from utils.report import Result
from utils.web import WebError

# In this order: K700-2020 and most of K600 have an archive a class; K400 mixes, and is the dearest.
DATASETS = ("700_2020", "600", "400")
SPLITS = ("train", "val", "test")
PATH_LISTS = {"700_2020": "k700_2020", "600": "k600", "400": "k400"}
HEADS_AT_ONCE = 8
REPLACEMENTS = "400/replacement_for_corrupted_k400.tgz"


def from_mirror(
    clips: Sequence[Clip], run: Run, mirror: MirrorOptions
) -> Generator[Result, None, None]:
    """The source `cvdf`."""
    with suppress(Stopped):
        yield from fetch_from_mirror(clips, run.options, mirror, run.tell, run.workers)


def fetch_from_mirror(
    clips: Sequence[Clip],
    options: FetchOptions,
    mirror: MirrorOptions,
    tell: Tell,
    cluster: Workers,
) -> Generator[Result, None, None]:
    """The clips that the mirror holds, as they land; then a result for each that it does not."""
    wanted = Wanted(clips)
    failed: dict[Key, str] = {}  # clips that an archive may hold which could not be read
    for dataset in DATASETS:
        if not wanted.keys or STOP.is_set():
            break
        archives = [
            archive
            for split in SPLITS
            for archive in find_archives(OfficialList(dataset, split), wanted, mirror, failed, tell)
        ]
        yield from read_stage(dataset, archives, wanted, options, mirror, failed, tell, cluster)
        if dataset == "400":
            spares = replacements(archives, wanted, mirror)
            yield from read_stage(dataset, spares, wanted, options, mirror, failed, tell, cluster)
    for clip in clips:
        if STOP.is_set():
            return
        key = key_of(clip)
        if key is None or key in wanted.keys:
            yield answer(clip, wanted.problems.get(clip.name), failed.get(key) if key else None)


def replacements(
    archives: Sequence[Archive], wanted: Wanted, mirror: MirrorOptions
) -> list[Archive]:
    """The archive of clips that are corrupt in K400's own, if there is one and it is of use."""
    listed = frozenset[Key]().union(*(archive.keys for archive in archives))
    keys = wanted.keys & listed
    spare = Archive(with_slash(mirror.base) + REPLACEMENTS, keys)
    try:
        if keys:
            mirror.web.size(spare.url)
    except WebError as error:
        return [] if error.for_good else [spare]
    return [spare]


def answer(clip: Clip, problem: Result | None, failure: str | None) -> Result:
    """Why the mirror did not give a clip."""
    if failure is not None:
        return Result.of(clip, "network", NAME, attempts=1, message=failure)
    if problem is not None:
        return problem
    return Result.of(clip, "unavailable", NAME, attempts=1, message="in no archive of the mirror")


def find_archives(
    listed: OfficialList, wanted: Wanted, mirror: MirrorOptions, failed: dict[Key, str], tell: Tell
) -> list[Archive]:
    """The archives of a dataset's split that can hold wanted clips, by its official list."""
    try:
        by_label = listed_clips(listed, wanted.keys, mirror, tell)
        if not by_label:
            return []
        urls = read_paths(listed, mirror)
    except (UserError, WebError) as error:
        tell(f"cvdf         {listed.name} is left out: {error}")
        # Clips of lists that are there get a surer answer.
        failed.update(dict.fromkeys(wanted.keys, f"{listed.name}: {error}"))
        return []
    classes = class_archives(listed, urls, mirror.lists_folder)
    archives = []
    if classes is None:
        everything = frozenset().union(*by_label.values())
        archives = [Archive(url, everything) for url in urls]
    else:
        for label, keys in by_label.items():
            archives += [
                Archive(url, frozenset(keys)) for url in classes.get(same_label(label), [])
            ]
    return archives


def listed_clips(
    listed: OfficialList, wanted: frozenset[Key], mirror: MirrorOptions, tell: Tell
) -> dict[str, set[Key]]:
    """The wanted clips in an official list, by label. Fetches the list. Raises UserError."""
    path = listed.path(mirror.lists_folder)
    if not path.exists():
        fetch_lists([(listed, mirror.lists_folder)], mirror.lists, tell)
    ids = {key[0] for key in wanted}
    by_label: dict[str, set[Key]] = {}
    for clip in official_clips(listed, mirror.lists_folder):
        if clip.youtube_id in ids and (key := key_of(clip)) in wanted:
            by_label.setdefault(clip.label, set()).add(key)
    return by_label


def read_paths(listed: OfficialList, mirror: MirrorOptions) -> list[str]:
    """The addresses of a split's archives. Raises WebError."""
    base = with_slash(mirror.base)
    prefix = f"{listed.dataset}/{listed.split}/"
    text = mirror.web.text(f"{base}{prefix}{PATH_LISTS[listed.dataset]}_{listed.split}_path.txt")
    urls = []
    for line in filter(None, map(str.strip, text.splitlines())):
        # A copy of the mirror has copies of the lists, too, which name the original.
        url = urljoin(base, base + line.removeprefix(CVDF) if line.startswith(CVDF) else line)
        if urlsplit(url).scheme in ("http", "https"):
            urls.append(url)
    if not urls:
        raise WebError(f"the mirror lists no archive of {listed.name}", for_good=True)
    return list(dict.fromkeys(urls))


def class_archives(
    listed: OfficialList, urls: Sequence[str], folder: Path
) -> dict[str, list[str]] | None:
    """The archives by class, where there is one a class; None where any may hold any clip."""
    if listed.split == "test" or listed.dataset == "400":
        return None
    names = [unquote(urlsplit(url).path.rsplit("/", 1)[-1]) for url in urls]
    classes: dict[str, list[str]] = {}
    if listed.dataset == "600":
        for url, name in zip(urls, names, strict=True):
            classes.setdefault(same_label(re.sub(r"\.(tar\.gz|tgz|tar)$", "", name)), []).append(
                url
            )
        return classes
    # CVDF numbers its archives by the sorted labels.
    labels = sorted({clip.label for clip in official_clips(listed, folder)} - {""})
    for url, name in zip(urls, names, strict=True):
        number = re.search(r"_(\d+)\.(?:tar\.gz|tgz|tar)$", name)
        if number is None or not 1 <= int(number[1]) <= len(labels):
            return None  # not the layout that is known: look into all of them
        classes.setdefault(same_label(labels[int(number[1]) - 1]), []).append(url)
    return classes


def same_label(label: str) -> str:
    """One spelling for a class in lists and in the names of archives."""
    return re.sub(r"[\s_]+", " ", label).strip().casefold()


def read_stage(
    dataset: str,
    archives: Sequence[Archive],
    wanted: Wanted,
    options: FetchOptions,
    mirror: MirrorOptions,
    failed: dict[Key, str],
    tell: Tell,
    cluster: Workers,
) -> Generator[Result, None, None]:
    """Read the archives that can add something; say how many they are, how large, how it went."""
    left = wanted.keys
    reads = [
        a for a in archives if a.keys & left and (mirror.forget or can_add(a, left, options.out))
    ]
    if not reads:
        return
    tell(f"cvdf         {size_line(dataset, reads, mirror)}")
    if isinstance(cluster, Cluster):
        events = read_on_cluster(reads, wanted, options, cluster)
    else:
        events = read_archives(reads, wanted, options, mirror)
    for event in events:
        if isinstance(event, Result):
            yield event
            continue
        if event.error:
            tell(f"network: {event.archive.name}: {event.error}")
            failed.update(dict.fromkeys(event.archive.keys, f"{event.archive.name}: {event.error}"))
        if event.odd:
            odd = ", ".join(f"{n:,} {what}" for what, n in event.odd.most_common())
            tell(f"skipped in {event.archive.name}: {odd}")


def size_line(dataset: str, archives: Sequence[Archive], mirror: MirrorOptions) -> str:
    """How many archives are read, and how many GB, as far as their server says."""

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
