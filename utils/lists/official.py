"""Find the official lists and annotations that are requested, and download missing ones.

They come from DeepMind's or CVDF's servers. A list gets its name only if it is complete and reads
as the list that it should be.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from utils.cli import Tell
from utils.clip import Clip, format_time, parse_clip_name
from utils.errors import UserError
from utils.files import make_folder, open_text, publish, run_folder
from utils.lists.forms import looks_like_annotations, open_list
from utils.lists.reading import clips_in, find_lists
from utils.lists.versions import ROWS, OfficialList, same_split
from utils.web import LIST_TRIES, Web, WebError, read_archive, stoppable

DEEPMIND = "https://storage.googleapis.com/deepmind-media/Datasets/"
CVDF = "https://s3.amazonaws.com/kinetics/"
AVA_ARCHIVE = "ava_kinetics_v1_0.tar.gz"
AVA_SPLITS = ("train", "val", "test")
AVA_FILES = re.compile(r"(?:kinetics_(?:train|val|test)_v1\.0\.csv|ava_action_list_v2\.2.*\.pbtxt)")
LIST_FILES = re.compile(r"(?:[^.].*[_-])?(?:train|val|validate|validation|test)\.csv")
# The part of the known rows by which a list may differ, because mirrors leave out lost videos. The
# known train lists differ between servers by a tenth.
MAY_DIFFER = {"train": 0.25, "val": 0.1, "test": 0.1}
LIST_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
LARGEST_FILE = 512 * 2**20  # bytes of one file in an archive; the largest is AVA's train, 60 MB


@dataclass(frozen=True)
class ListServers:
    """The servers of lists; `base` replaces both official ones."""

    web: Web
    base: str | None = None

    @property
    def deepmind(self) -> str:
        return with_slash(self.base or DEEPMIND)

    @property
    def cvdf(self) -> str:
        return with_slash(self.base or CVDF)

    def archive(self, official: OfficialList) -> str:
        """Return the address of DeepMind's archive of a list."""
        return f"{self.deepmind}kinetics{official.dataset}.tar.gz"


def with_slash(base: str) -> str:
    return base if base.endswith("/") else base + "/"


def lists_at_hand(
    given: Sequence[Path] | None, servers: ListServers, dry_run: bool, tell: Tell
) -> Sequence[Path] | None:
    """Fetch the missing official lists, and return the files of all lists that `given` names.

    Returns None if a dry run would have to fetch some. Raises UserError, Stopped.
    """
    paths, missing = find_lists(given)
    if missing and dry_run:
        for each, folder in missing:
            tell(f"would fetch the list {each.name} into {folder}")
        return None
    fetch_lists(missing, servers, tell)
    return paths


def fetch_lists(
    missing: Iterable[tuple[OfficialList, Path]], servers: ListServers, tell: Tell
) -> None:
    """Fetch lists into their folders. Raises UserError that says what to fetch by hand, Stopped."""
    groups: dict[tuple[str, Path], list[OfficialList]] = {}
    for each, folder in missing:
        groups.setdefault((servers.archive(each), folder), []).append(each)
    for (url, folder), lists in groups.items():
        tell(f"fetching {', '.join(each.name for each in lists)} into {folder}")
        make_folder(folder)
        with run_folder(folder) as workspace:
            error = _take_files(servers.web, url, LIST_FILES, workspace)
            raw = {
                same_split(re.split("[_-]", path.stem)[-1]): path for path in workspace.iterdir()
            }
            for each in lists:
                problem = error or "does not hold it"
                if path := raw.get(each.split):
                    problem = _publish_list(each, official_clips(path), folder, workspace)
                if problem:
                    _from_cvdf(each, servers, folder, workspace, f"{url}: {problem}")


def _from_cvdf(
    wanted: OfficialList, servers: ListServers, folder: Path, workspace: Path, problem: str
) -> None:
    """Fetch a list that DeepMind's archive did not give. Raises UserError with both problems."""
    # CVDF has no list of Kinetics-700, and its .csv files of 600 are incomplete but for test.
    is_text = wanted.dataset == "600" and wanted.split != "test"
    if wanted.dataset != "700":
        suffix = "txt" if is_text else "csv"
        url = f"{servers.cvdf}{wanted.dataset}/annotations/{wanted.split}.{suffix}"
        try:
            text = servers.web.text(url)
            (raw := workspace / "raw.csv").write_text(text, encoding="utf-8")
            clips = _txt_clips(text, wanted.split) if is_text else official_clips(raw)
            refused = _publish_list(wanted, clips, folder, workspace)
            if not refused:
                return
            problem += f"; {url}: {refused}"
        except WebError as error:
            problem += f"; {url}: {error}"
    raise UserError(
        f"the list {wanted.name} could not be downloaded ({problem}): download"
        f" {servers.archive(wanted)} manually, and put its {wanted.split} .csv at"
        f" {wanted.path(folder)}"
    )


def _take_files(web: Web, url: str, names: re.Pattern[str], folder: Path) -> str:
    """Write the regular files of an archive with such base names into a folder, each complete.

    Returns what is wrong with the archive; "" if nothing is. Raises Stopped.
    """

    def take() -> None:
        for member, tar in read_archive(web, url, LIST_TRIES):
            path = folder / member.name.rsplit("/", 1)[-1]
            is_wanted = names.fullmatch(path.name) and member.isreg()
            if is_wanted and member.size <= LARGEST_FILE:
                part = path.with_name(f"{path.name}.part")
                with suppress(WebError), part.open("wb") as file:  # the next member raises it again
                    tar.copy(file)
                    part.replace(path)

    try:
        stoppable(take)
    except WebError as error:
        return str(error)
    return ""


def official_clips(path: Path) -> Iterator[Clip]:
    """Yield the clips of a published .csv, in its order. Raises UserError."""
    for _, _, clip in clips_in(path, open_list(path)):
        if isinstance(clip, Clip):
            yield clip


def _txt_clips(text: str, split: str) -> Iterator[Clip]:
    """Yield the clips of CVDF's files of Kinetics-600: a `label:` line, and file names below it."""
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
    """Write a list and give it its name. Returns what is wrong with it; "" if nothing is."""
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
    known = ROWS[wanted]
    if abs(count - known) > known * MAY_DIFFER[wanted.split]:
        return f"it has {count:,} rows, expected {known:,}"
    publish(part, wanted.path(folder))
    return ""


def missing_annotations(folder: Path) -> bool:
    """Return whether a folder has none of the AVA-Kinetics annotations."""
    return not any((folder / f"kinetics_{split}_v1.0.csv").exists() for split in AVA_SPLITS)


def ensure_ava_annotations(folder: Path, lists_base: str | None, tell: Tell) -> None:
    """Fetch the AVA-Kinetics annotations and their label map into `folder`.

    Existing files are kept. Raises UserError that says what to fetch by hand, Stopped.
    """
    servers = ListServers(Web(), lists_base)
    urls = [servers.deepmind + AVA_ARCHIVE, f"{servers.cvdf}700_2020/annotations/{AVA_ARCHIVE}"]
    problems = []
    make_folder(folder)
    for url in urls:
        tell(f"fetching the AVA-Kinetics annotations from {url} into {folder}")
        with run_folder(folder) as workspace:
            problem = _take_files(servers.web, url, AVA_FILES, workspace)
            problem = problem or _publish_annotations(folder, workspace)
        if not problem:
            return
        problems.append(f"{url}: {problem}")
    raise UserError(
        f"the AVA-Kinetics annotations could not be downloaded ({'; '.join(problems)}): download"
        f" {urls[0]} manually, and put its kinetics_*_v1.0.csv and .pbtxt files into {folder}"
    )


def _publish_annotations(folder: Path, workspace: Path) -> str:
    """Give the files their names, if they are complete. Returns what is wrong; "" if nothing is."""
    found = sorted(workspace.iterdir())
    names = {path.name for path in found}
    lacking = [split for split in AVA_SPLITS if f"kinetics_{split}_v1.0.csv" not in names]
    if lacking or len(names) == len(AVA_SPLITS):
        return f"the archive lacks {', '.join(lacking) or 'the label map'}"
    for path in found:
        with open_text(path, errors="replace") as file:
            first = file.readline(1000).rstrip("\r\n").split(",")
        if path.suffix == ".csv" and not looks_like_annotations(first):
            return f"{path.name} does not read as annotations"
    for path in found:
        if not (folder / path.name).exists():
            publish(path, folder / path.name)
    return ""
