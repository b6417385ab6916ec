"""Official lists and AVA-Kinetics annotations, fetched on demand from DeepMind's or CVDF's servers.

Between `lists/official` (which are wanted) and `lists/reading`. A list is settled whole or not at
all, and only when it reads as the list that it should be.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from utils.cli import Tell
from utils.clip import ID_PATTERN, parse_clip_name, trim_format
from utils.errors import UserError
from utils.files import make_folder, publish
from utils.lists.official import (
    AVA_ARCHIVE,
    CVDF,
    DEEPMIND,
    MAY_DIFFER,
    ROWS,
    UNFINISHED,
    Needed,
    OfficialList,
    needed_lists,
)
from utils.lists.reading import COLUMNS, REQUIRED, list_rows
from utils.machines import run_folder
from utils.process import sleep
from utils.tar import BadTar, TarStream
from utils.text import printable
from utils.web import LIST_TRIES, Web, WebError, stoppable, waits

LIST_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
LARGEST_FILE = 512 * 2**20  # bytes of one file in an archive; the largest is AVA's train, 60 MB


def fetch_needed(needed: Needed, servers: ListServers, tell: Callable[[str], None]) -> None:
    """Fetch what is missing. Raises UserError that says what to fetch by hand, Stopped."""
    # A run that gets no further than some of all lists must not pass for one that got them.
    for folder in needed.whole:
        (make_folder(folder) / UNFINISHED).touch()
    fetch_lists(needed.missing, servers, tell)
    for folder in needed.whole:
        (folder / UNFINISHED).unlink()


@dataclass(frozen=True)
class ListServers:
    """Where lists come from; `base` stands for both official servers."""

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
            problem = settle(each, csv_rows(raw), folder, workspace)
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
            if wanted.file.endswith(".txt"):
                rows = txt_rows(text, wanted.split)
            else:
                raw = workspace / "raw.csv"
                raw.write_text(text, encoding="utf-8")
                rows = csv_rows(raw)
            refused = settle(wanted, rows, folder, workspace)
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
    for wait in waits(LIST_TRIES):
        try:
            with web.open(url) as download:
                tar = TarStream(download.read)
                for member in tar.members():
                    path = target(member.name.rsplit("/", 1)[-1])
                    if path is None or not member.is_file or member.size > LARGEST_FILE:
                        continue
                    part = path.with_name(f"{path.name}.part")
                    with part.open("wb") as file:
                        tar.copy(file)
                    part.replace(path)
            return
        except BadTar as error:
            if not error.ends_early:
                raise WebError(str(error), for_good=True) from error
            if wait is None:
                raise WebError(str(error)) from error
        except WebError as error:
            if error.for_good or wait is None:
                raise
        sleep(wait)


def csv_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a published .csv, in the order of LIST_COLUMNS. Raises UserError."""
    with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
        rows = csv.reader(file)
        header = [COLUMNS.get(name.strip().lower(), name) for name in next(rows, [])]
        missing = [name for name in REQUIRED if name not in header]
        if missing:
            raise UserError(f"its columns are {printable(','.join(header))}")
        places = [header.index(name) if name in header else -1 for name in LIST_COLUMNS]
        for row in rows:
            if len(row) == len(header):
                yield [row[at].strip() if at >= 0 else "" for at in places]


def txt_rows(text: str, split: str) -> Iterator[list[str]]:
    """The rows of CVDF's K600 files: a `label:` line, file names below it, a blank line."""
    label = ""
    for line in map(str.strip, text.splitlines()):
        clip = parse_clip_name(line.rsplit("/", 1)[-1].removesuffix(".mp4"))
        if clip is not None and clip[2] is not None:
            yield [label, clip[0], str(clip[1]), str(clip[2]), split]
        elif line.endswith(":"):
            label = line[:-1].strip()


def settle(
    wanted: OfficialList, rows: Iterable[Sequence[str]], folder: Path, workspace: Path
) -> str:
    """Write a list and give it its name, if it is what it should be; else, why not."""
    part, count = workspace / wanted.path(folder).name, 0
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(LIST_COLUMNS)
            for row in rows:
                if ID_PATTERN.fullmatch(row[1]):
                    writer.writerow(row)
                    count += 1
    except (UserError, csv.Error) as error:
        return str(error)
    known, may_differ = ROWS[wanted.dataset, wanted.split], MAY_DIFFER[wanted.split]
    if abs(count - known) > known * may_differ:
        return f"it has {count:,} rows where {known:,} are known"
    publish(part, wanted.path(folder))
    return ""


def labels_of(wanted: OfficialList, folder: Path) -> tuple[str, ...]:
    """The labels of a list on disk, sorted: CVDF numbers its archives by them."""
    return tuple(sorted({label for *_, label in list_rows(wanted.path(folder)) if label}))


AVA_FILES = re.compile(r"(?:kinetics_(?:train|val|test)_v1\.0\.csv|ava_action_list_v2\.2.*\.pbtxt)")
AVA_SPLITS = ("train", "val", "test")


def missing_annotations(folder: Path) -> bool:
    """Whether a folder has none of the AVA-Kinetics annotations."""
    return not any((folder / f"kinetics_{split}_v1.0.csv").exists() for split in AVA_SPLITS)


def ensure_ava_annotations(
    folder: Path, lists_base: str | None, tell: Callable[[str], None], web: Web | None = None
) -> None:
    """Fetch the AVA-Kinetics annotations and their label map into `folder` if it has none.

    Files that are there are left as they are. Raises UserError that says what to fetch by hand.
    """
    if not missing_annotations(folder):
        return
    servers = ListServers(web or Web(), lists_base)
    urls = [servers.deepmind + AVA_ARCHIVE, f"{servers.cvdf}700_2020/annotations/{AVA_ARCHIVE}"]
    problems = []
    make_folder(folder)
    for url in urls:
        tell(f"fetching the AVA-Kinetics annotations from {url} into {folder}")
        with run_folder(folder) as workspace:
            try:
                take_files(
                    servers.web,
                    url,
                    lambda name: workspace / name if AVA_FILES.fullmatch(name) else None,
                )
                problem = _settle_annotations(folder, workspace)
            except WebError as error:
                problem = str(error)
        if not problem:
            return
        problems.append(f"{url}: {problem}")
    raise UserError(
        f"the AVA-Kinetics annotations could not be fetched ({'; '.join(problems)}): fetch"
        f" {urls[0]} by hand, and put its kinetics_*_v1.0.csv and .pbtxt files into {folder}"
    )


def _settle_annotations(folder: Path, workspace: Path) -> str:
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
            if len(row) not in (2, 7) or not ID_PATTERN.fullmatch(row[0]):
                return f"{path.name} does not read as annotations"
    for path in came:
        if not (folder / path.name).exists():
            publish(path, folder / path.name)
    return ""


def add_input_csv(group: argparse._ActionsContainer, fetches: bool = True) -> None:
    group.add_argument(
        "--input_csv",
        nargs="+",
        type=Path,
        default=[Path("kinetics_csv")],
        metavar="LIST",
        help="lists (CSV files) or folders of lists"
        + ("; missing official lists are downloaded" if fetches else ""),
    )


def add_lists_base(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--lists_base",
        metavar="URL",
        help="server of the official lists (default: DeepMind's, then CVDF's)",
    )


def add_trim_format(
    group: argparse._ActionsContainer, what: str = "number format of the times in file names"
) -> None:
    group.add_argument(
        "--trim_format", type=trim_format, default="%06d", help=f"{what} (default: %%06d)"
    )


def lists_at_hand(
    given: Sequence[Path], servers: ListServers, dry_run: bool, tell: Tell
) -> Sequence[Path] | None:
    """The paths of the lists that `given` names; official ones that are not there are fetched.

    None where a dry run would have to fetch some. Raises UserError, Stopped.
    """
    needed = needed_lists(given)
    if needed.missing and dry_run:
        for each, folder in needed.missing:
            tell(f"would fetch the list {each.name} into {folder}")
        return None
    if needed.missing:
        fetch_needed(needed, servers, tell)
    return needed.paths
