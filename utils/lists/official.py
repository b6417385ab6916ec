"""Find the official lists and annotations that are requested, and download missing ones.

They come from DeepMind's or CVDF's servers. A list gets its name only whole, and only if it reads
as the list that it should be.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from utils.cli import Tell
from utils.clip import Clip, format_time, parse_clip_name
from utils.errors import UserError
from utils.files import make_folder, publish, run_folder
from utils.lists.forms import looks_like_annotations, open_list
from utils.lists.reading import clips_in
from utils.lists.versions import ALL_LISTS, BY_NAME, ROWS, OfficialList
from utils.web import LIST_TRIES, Web, WebError, read_archive, stoppable

DEEPMIND = "https://storage.googleapis.com/deepmind-media/Datasets/"
CVDF = "https://s3.amazonaws.com/kinetics/"
LISTS_FOLDER = Path("kinetics_csv")
AVA_ARCHIVE = "ava_kinetics_v1_0.tar.gz"
# A part of the known rows by which a list may differ: mirrors leave out what is gone. The known
# train lists differ between servers by a tenth.
MAY_DIFFER = {"train": 0.25, "val": 0.1, "test": 0.1}
LIST_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
LARGEST_FILE = 512 * 2**20  # bytes of one file in an archive; the largest is AVA's train, 60 MB


def needed_lists(
    given: Sequence[Path] | None,
) -> tuple[list[Path], list[tuple[OfficialList, Path]]]:
    """Return the paths of the lists, and the missing official lists with their folders.

    given: paths, and names of official lists, with or without folder and .csv; None: all twelve. A
    folder is taken as it is.
    """
    if given is None:
        given = [LISTS_FOLDER / each.name for each in ALL_LISTS]
    paths: list[Path] = []
    missing: dict[tuple[OfficialList, Path], None] = {}
    for path in given:
        official = BY_NAME.get(path.name.removesuffix(".gz").removesuffix(".csv"))
        if official is not None and not path.exists():
            folder = LISTS_FOLDER if path.parent == Path(".") else path.parent
            path = official.path(folder)
            if not path.exists():
                missing[official, folder] = None
        paths.append(path)
    return paths, list(missing)


def lists_at_hand(
    given: Sequence[Path] | None, servers: ListServers, dry_run: bool, tell: Tell
) -> Sequence[Path] | None:
    """Fetch the missing official lists, and return the paths of all that `given` names.

    Returns None if a dry run would have to fetch some. Raises UserError, Stopped.
    """
    paths, missing = needed_lists(given)
    if missing and dry_run:
        for each, folder in missing:
            tell(f"would fetch the list {each.name} into {folder}")
        return None
    fetch_lists(missing, servers, tell)
    return paths


@dataclass(frozen=True)
class ListServers:
    """The servers of lists; `base` replaces both official ones."""

    web: Web
    base: str | None = None
    down: dict[str, WebError] = field(default_factory=dict)  # servers that could not be reached

    @contextmanager
    def reaching(self, url: str) -> Iterator[None]:
        """Asks a server that is down only once in a run. Raises WebError."""
        host = urlsplit(url).netloc
        if host in self.down:
            raise self.down[host]
        try:
            yield
        except WebError as error:
            if not error.for_good:
                self.down[host] = error
            raise

    @property
    def deepmind(self) -> str:
        return with_slash(self.base or DEEPMIND)

    @property
    def cvdf(self) -> str:
        return with_slash(self.base or CVDF)


def with_slash(base: str) -> str:
    return base if base.endswith("/") else base + "/"


def fetch_lists(
    missing: Iterable[tuple[OfficialList, Path]], servers: ListServers, tell: Callable[[str], None]
) -> None:
    """Fetch lists into their folders. Raises UserError that says what to fetch by hand, Stopped."""
    by_archive: dict[tuple[str, Path], list[OfficialList]] = {}
    for each, folder in missing:
        by_archive.setdefault((each.archive, folder), []).append(each)
    for (_, folder), lists in by_archive.items():
        tell(f"fetching {', '.join(each.name for each in lists)} into {folder}")
        make_folder(folder)
        with run_folder(folder) as workspace:
            problems = _from_archive(lists, servers, folder, workspace)
            left = [each for each in lists if each.name in problems]
            for each in left:
                _from_cvdf(each, servers, folder, workspace, problems[each.name])


def _from_archive(
    lists: Sequence[OfficialList], servers: ListServers, folder: Path, workspace: Path
) -> dict[str, str]:
    """Take lists from DeepMind's archive; the names of those that did not come, with the reason."""
    url = servers.deepmind + lists[0].archive
    wanted = {each.split: each for each in lists}

    def target(name: str) -> Path | None:
        found = re.fullmatch(r"(?:.*[_-])?(train|val|validate|validation|test)\.csv", name)
        split = found[1] if found else ""
        split = "val" if split.startswith("val") else split
        return workspace / f"raw_{split}.csv" if split in wanted else None

    problems = {each.name: f"{url} does not hold it" for each in lists}
    try:
        with servers.reaching(url):
            take_files(servers.web, url, target)
    except WebError as error:
        problems = {each.name: f"{url}: {error}" for each in lists}
    for each in lists:
        raw = workspace / f"raw_{each.split}.csv"
        if raw.exists():
            problem = _publish_list(each, _csv_clips(raw), folder, workspace)
            if problem:
                problems[each.name] = f"{url}: {problem}"
            else:
                del problems[each.name]
    return problems


def _from_cvdf(
    wanted: OfficialList, servers: ListServers, folder: Path, workspace: Path, problem: str
) -> None:
    if wanted.file is not None:
        url = servers.cvdf + wanted.file
        try:
            with servers.reaching(url):
                text = servers.web.text(url)
            (raw := workspace / "raw.csv").write_text(text, encoding="utf-8")
            is_text = wanted.file.endswith(".txt")
            clips = _txt_clips(text, wanted.split) if is_text else _csv_clips(raw)
            refused = _publish_list(wanted, clips, folder, workspace)
            if not refused:
                return
            problem += f"; {url}: {refused}"
        except WebError as error:
            problem += f"; {url}: {error}"
    raise UserError(
        f"the list {wanted.name} could not be fetched ({problem}): fetch"
        f" {servers.deepmind}{wanted.archive} by hand, and put its {wanted.split} .csv at"
        f" {wanted.path(folder)}"
    )


def take_files(web: Web, url: str, target: Callable[[str], Path | None]) -> None:
    """Write members of an archive to the paths that `target` gives for their base names.

    Only regular ones, each whole. Raises WebError, Stopped.
    """
    stoppable(lambda: _take_files(web, url, target))


def _take_files(web: Web, url: str, target: Callable[[str], Path | None]) -> None:
    for member, tar in read_archive(web, url, LIST_TRIES):
        path = target(member.name.rsplit("/", 1)[-1])
        if path is None or not member.isreg() or member.size > LARGEST_FILE:
            continue
        part = path.with_name(f"{path.name}.part")
        with suppress(WebError), part.open("wb") as file:  # the next member raises it again
            tar.copy(file)
            part.replace(path)


def _csv_clips(path: Path) -> Iterator[Clip]:
    """The clips of a published .csv. Raises UserError."""
    for _, _, clip in clips_in(path, open_list(path)):
        if isinstance(clip, Clip):
            yield clip


def _txt_clips(text: str, split: str) -> Iterator[Clip]:
    """The clips of CVDF's K600 files: a `label:` line, file names below it, a blank line."""
    label = ""
    for line in map(str.strip, text.splitlines()):
        name = line.rsplit("/", 1)[-1].removesuffix(".mp4")
        parsed = parse_clip_name(name)
        if parsed is not None and parsed[2] is not None:
            yield Clip(name, parsed[0], parsed[1], parsed[2], label, split)
        elif line.endswith(":"):
            label = line[:-1].strip()


def _publish_list(
    wanted: OfficialList, clips: Iterable[Clip], folder: Path, workspace: Path
) -> str:
    """Write a list and give it its name, if it is what it should be; else, why not."""
    part, count = workspace / wanted.path(folder).name, 0
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(LIST_COLUMNS)
            for clip in clips:
                times = format_time(clip.time_start), format_time(clip.time_end)
                writer.writerow((clip.label, clip.youtube_id, *times, clip.split))
                count += 1
    except UserError as error:
        return str(error)
    known, may_differ = ROWS[wanted.dataset, wanted.split], MAY_DIFFER[wanted.split]
    if abs(count - known) > known * may_differ:
        return f"it has {count:,} rows, expected {known:,}"
    publish(part, wanted.path(folder))
    return ""


def official_clips(wanted: OfficialList, folder: Path) -> Iterator[Clip]:
    """The clips of a list on disk, in its order. Raises UserError."""
    return _csv_clips(wanted.path(folder))


AVA_FILES = re.compile(r"(?:kinetics_(?:train|val|test)_v1\.0\.csv|ava_action_list_v2\.2.*\.pbtxt)")
AVA_SPLITS = ("train", "val", "test")


def _ava_path(workspace: Path, name: str) -> Path | None:
    return workspace / name if AVA_FILES.fullmatch(name) else None


def missing_annotations(folder: Path) -> bool:
    """Whether a folder has none of the AVA-Kinetics annotations."""
    return not any((folder / f"kinetics_{split}_v1.0.csv").exists() for split in AVA_SPLITS)


def ensure_ava_annotations(
    folder: Path, lists_base: str | None, tell: Callable[[str], None], web: Web | None = None
) -> None:
    """Fetch the AVA-Kinetics annotations and their label map into `folder`.

    Files that are there are left as they are. Raises UserError that says what to fetch by hand.
    """
    servers = ListServers(web or Web(), lists_base)
    urls = [servers.deepmind + AVA_ARCHIVE, f"{servers.cvdf}700_2020/annotations/{AVA_ARCHIVE}"]
    problems = []
    make_folder(folder)
    for url in urls:
        tell(f"fetching the AVA-Kinetics annotations from {url} into {folder}")
        with run_folder(folder) as workspace:
            try:
                take_files(servers.web, url, lambda name: _ava_path(workspace, name))
                problem = _publish_annotations(folder, workspace)
            except WebError as error:
                problem = str(error)
        if not problem:
            return
        problems.append(f"{url}: {problem}")
    raise UserError(
        f"the AVA-Kinetics annotations could not be fetched ({'; '.join(problems)}): fetch"
        f" {urls[0]} by hand, and put its kinetics_*_v1.0.csv and .pbtxt files into {folder}"
    )


def _publish_annotations(folder: Path, workspace: Path) -> str:
    """Give the files that came their names; why not, if they are not what they should be."""
    came = sorted(path for path in workspace.iterdir() if AVA_FILES.fullmatch(path.name))
    names = {path.name for path in came}
    lacking = [s for s in AVA_SPLITS if f"kinetics_{s}_v1.0.csv" not in names]
    if lacking or not any(name.endswith(".pbtxt") for name in names):
        return f"the archive lacks {', '.join(lacking) or 'the label map'}"
    for path in came:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", errors="replace") as file:
                row = file.readline().rstrip("\r\n").split(",")
            if not looks_like_annotations(row):
                return f"{path.name} does not read as annotations"
    for path in came:
        if not (folder / path.name).exists():
            publish(path, folder / path.name)
    return ""
