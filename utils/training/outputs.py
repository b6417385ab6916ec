"""Write the files of training lists, each completely or not at all, and folders of links to clips.

`manifest.csv` records exactly which clips a set has, for a paper, a comparison or a second machine;
`--compare` and `--only_manifest` read it. Links are hard links, or symbolic ones if the disk has no
hard links. Links of an earlier run that no longer belong are removed, and nothing else is.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from utils.cli import LIST_ROLES, VERSION, Tell, plural, printable, without_formula
from utils.clip import AVA_LEAD, AVA_TIME_END, Clip, clip_window, format_time, now, parse_clip_name
from utils.errors import UserError
from utils.files import bounded_lines, make_folder, open_regular, open_text, telling, write_whole
from utils.lists.versions import CLASSES, ListFile
from utils.process import sleep
from utils.report import Known
from utils.training.choosing import MANIFEST_VERSION, SPLITS, TEST, Candidate, Choice, Reason

COLUMNS = ("path", "clip", "youtube_id", "time_start", "time_end", "split", "label", "number",
           "version", "bytes", "seconds", "sha256")  # fmt: skip
TO_DOWNLOAD = "to_download.csv"
MANIFEST_COLUMNS = ("clip", "split", "label", "bytes", "seconds", "sha256")
EXCLUDED_COLUMNS = ("clip", "list", "line", "version", "split", "label", "reason", "status", "why")
NEEDED = ("clip", "timestamp", "x1", "y1", "x2", "y2", "action_id")  # columns of annotations
FRAME_LIST_HEADER = "original_vido_id video_id frame_id path labels\n"  # SlowFast's spelling
SLOWFAST_START, SLOWFAST_FIRST = 900, 2  # the second of a clip's start; the first one annotated
TO_FOLDER = str.maketrans({" ": "_", "/": "_", "\0": "_", "'": None, "(": None, ")": None})
LONGEST = 255  # bytes of a file's name
METADATA, METADATA_COLUMNS = "metadata.csv", ("file_name", "label", "number", "clip", "youtube_id")


@dataclass
class ListSet:
    """A set of lists that is being written.

    clips: their folder, absolute. before: what precedes the name of a clip, or of its folder of
    frames, in a list: empty or with a slash at the end. written: names of files and folders below
    `out`. lost: how many clips were removed meanwhile.
    """

    choice: Choice
    clips: Path
    out: Path
    workspace: Path
    before: str
    args: argparse.Namespace
    tell: Tell
    written: list[str] = field(default_factory=list)
    lost: int = 0

    def write(self, target: str, lines: Iterable[str]) -> None:
        """Write a text file below `out`, whole or not. Raises DiskFull, UserError, Stopped."""
        write_whole(self.out / target, self.workspace, lines)
        self.written.append(target)

    def write_splits(self, target: str, lines: Callable[[ListSet, str], Iterable[str]]) -> None:
        """Write a file for each split that has clips; `{}` in `target` is the split."""
        for split in self.choice.used_splits():
            self.write(target.format(split), lines(self, split))

    def lose(self, row: Candidate) -> None:
        """Note that a clip is missing after all."""
        row.reason = Reason.MISSING
        self.lost += 1


def path_before(folder: Path, prefix: Path | None, may_have_blanks: bool, tell: Tell) -> str:
    """Return what precedes a name of `folder` in a list whose paths are relative to `prefix`.

    prefix: None for absolute paths. may_have_blanks: the reader does not split lines there. Raises
    UserError for a folder that cannot be written so.
    """
    if prefix is None:
        before = f"{folder.as_posix().rstrip('/')}/"
    else:
        below = os.path.relpath(folder, prefix).replace(os.sep, "/")
        before = "" if below == "." else f"{below}/"
    if before.startswith(".."):
        raise UserError(f"{folder} is not below --path_prefix {prefix}: use --absolute")
    if not may_have_blanks and re.search(r'[\s"]', before):
        raise UserError(f"{before}: this format allows no white space or quotes: use --link_dir")
    if not is_utf8(before):
        tell("note         the paths are not UTF-8, which many readers reject: see --link_dir")
    return before


def is_utf8(text: str) -> bool:
    """Return whether a path is UTF-8 (Python keeps other bytes as surrogates)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def csv_lines(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Format rows as lines of a CSV file."""
    writer = csv.writer(SimpleNamespace(write=str), lineterminator="\n")
    return map(writer.writerow, rows)  # returns what `write` returns: the line


# --- beside the lists: classes, manifest, excluded rows ------------------------------------------


def write_beside(files: ListSet, known: Known, theirs: Mapping[str, Candidate] | None) -> None:
    """Write classes, excluded.csv, manifest.csv, and the files of --only_manifest and --compare."""
    choice, args, tell = files.choice, files.args, files.tell
    if names := choice.classes.names:
        files.write("classes.txt", (f"{name}\n" for name in names))
        numbers = {name: number for number, name in enumerate(names)}
        files.write("classes.json", [json.dumps(numbers, ensure_ascii=False, indent=1), "\n"])
    files.write("excluded.csv", csv_lines(_excluded_rows(choice, known)))
    if args.only_manifest:
        files.write(TO_DOWNLOAD, csv_lines(_download_rows(choice)))
    if theirs is not None:
        found = list(compare(choice, theirs))
        files.write("compare.csv", csv_lines([("clip", "what", "here", "there"), *found]))
        kinds = Counter(what for _, what, _, _ in found)
        here, there = kinds.pop("only_here", 0), kinds.pop("only_there", 0)
        both = plural(len(theirs) - there, "clip")
        tell(f"compared     {both} in both; {here:,} only here, {there:,} only in {args.compare}")
        differ = ", ".join(f"{number:,} in {kind}" for kind, number in kinds.most_common())
        tell(f"             different: {differ or 'none'}")
    files.write("manifest.csv", _manifest_lines(files))


def _excluded_rows(choice: Choice, known: Known) -> Iterator[Sequence[object]]:
    """Yield every excluded row, with what the download report has about a missing clip.

    Text that a spreadsheet would run as a formula is escaped; names of clips are exact.
    """
    yield EXCLUDED_COLUMNS
    for row in choice.rows:
        if row.reason:
            why = known.reasons.get(row.clip.name) if row.reason == Reason.MISSING else None
            place = (row.listed.path.name, row.line, row.listed.version, row.split, row.clip.label)
            yield row.clip.name, *map(without_formula, place), row.reason, *(why or ("", ""))[:2]
    for each in choice.refused:
        place = (each.path.name, each.line, "", "", "")
        yield "", *map(without_formula, place), "invalid", "", without_formula(str(each))


def _download_rows(choice: Choice) -> Iterator[Sequence[str]]:
    """Yield the missing clips as a list for download.py."""
    yield LIST_ROLES
    for row in choice.rows:
        if row.reason == Reason.MISSING:
            clip = row.clip
            times = (format_time(clip.time_start), format_time(clip.time_end))
            yield (clip.youtube_id, *times, row.label, row.split)


def _manifest_lines(files: ListSet) -> Iterator[str]:
    """Yield what the set was made from and how, then one line per clip, by split."""
    choice = files.choice
    measured = any(row.seconds is not None for row in choice.chosen())
    yield f"# made by make_training_lists.py {VERSION} on {now()}\n"
    yield f"# options: {printable(shlex.join(files.args.command), 10_000)}\n"
    yield f"# versions: {printable(', '.join(choice.version_names), 10_000)}\n"
    for each in choice.lists:
        with telling(each.path), open_regular(each.path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield f"# list: {printable(each.path.name)} sha256 {digest}\n"
    yield f"# seconds: {'measured' if measured else 'as the lists say'}\n"

    def rows() -> Iterator[Sequence[object]]:
        yield MANIFEST_COLUMNS
        for split in SPLITS:
            for row in choice.chosen(split):
                seconds = format_time(clip_window(row.clip)[1])
                if row.seconds is not None:
                    seconds = f"{row.seconds:.3f}"
                yield row.clip.name, split, row.label, row.bytes, seconds, row.sha256

    yield from csv_lines(rows())


def read_manifest(path: Path) -> dict[str, Candidate]:
    """Read a manifest: clip -> its row. Raises UserError, with the line, if it is invalid."""
    found: dict[str, Candidate] = {}
    listed = ListFile(path, MANIFEST_VERSION, "")
    with telling(path), open_text(path) as file:
        lines = ((n, each) for n, each in enumerate(bounded_lines(file), 1) if each[:1] != "#")
        header = ",".join(MANIFEST_COLUMNS)
        if next(lines, (0, ""))[1].rstrip("\r\n") != header:
            raise UserError(f"{path} is not a manifest: its header must be {header}")
        for number, line in lines:
            fields = next(csv.reader([line]), [])
            parsed = parse_clip_name(fields[0]) if len(fields) == len(MANIFEST_COLUMNS) else None
            if (
                parsed is None
                or fields[1] not in SPLITS
                or not re.fullmatch("[0-9]{1,18}", fields[3])
            ):
                raise UserError(f"{path}:{number}: invalid row: {printable(line.strip())}")
            name, split, label, size, _, sha256 = fields
            youtube_id, start, end = parsed
            clip = Clip(name, youtube_id, start, AVA_TIME_END if end is None else end, label, split)
            row = Candidate(clip, listed, number, split, bytes=int(size), sha256=sha256)
            if found.setdefault(name, row) is not row:
                raise UserError(f"{path}:{number}: {name} appears twice")
    if not found:
        raise UserError(f"manifest {path} has no clip")
    return found


def compare(choice: Choice, theirs: Mapping[str, Candidate]) -> Iterator[tuple[object, ...]]:
    """Yield (clip, what differs, here, there). Hashes count before bytes, if both have one.

    Labels are compared by class, so that other case or punctuation is no difference.
    """
    here = {row.clip.name: row for row in choice.chosen()}
    for name, row in here.items():
        if (their := theirs.get(name)) is None:
            yield name, "only_here", row.split, ""
            continue
        what, both = "bytes", (str(row.bytes), str(their.bytes))
        if row.sha256 and their.sha256:
            what, both = "sha256", (row.sha256, their.sha256)
        if both[0] != both[1]:
            yield name, what, *map(without_formula, both)
        if row.split != their.split:
            yield name, "split", row.split, their.split
        label = their.clip.label
        is_same = row.label == label or row.numbers == (choice.classes.number(label),)
        if not is_same and (label or row.split != TEST):
            yield name, "label", without_formula(row.label), without_formula(label)
    for name, their in theirs.items():
        if name not in here:
            yield name, "only_there", "", their.split


# --- lists that are lines of text; those that readers split at white space have no quoting ------


def path_label(files: ListSet) -> None:
    """Write `{split}.csv`: `path label`, no header; for pretraining `path 0 -1`."""
    files.write_splits("{}.csv", _path_lines)


def _path_lines(files: ListSet, split: str) -> Iterator[str]:
    before, pretrain = files.before, files.args.pretrain
    for row in files.choice.chosen(split):
        yield f"{before}{row.clip.name}.mp4 {'0 -1' if pretrain else row.numbers[0]}\n"


def mmaction2(files: ListSet) -> None:
    """Write `<name>_{split}_list_videos.txt`; for frames `_list_rawframes.txt`.

    The name is `kinetics400` and the like, or that of a list that is of none of the versions.
    """
    versions = files.choice.version_names
    name = "_".join(versions)
    if set(versions) <= set(CLASSES):
        name = f"kinetics{name}"
    name = files.args.name or re.sub(r"[^\w.-]", "_", name)
    kind, lines = ("rawframes", _frame_lines) if files.args.frames else ("videos", _path_lines)
    files.write_splits(f"{name}_{{}}_list_{kind}.txt", lines)


def _frame_lines(files: ListSet, split: str) -> Iterator[str]:
    """Yield `folder total_frames label`."""
    for row in files.choice.chosen(split):
        yield f"{files.before}{row.clip.name} {row.frames} {row.numbers[0]}\n"


def facts_of(row: Candidate) -> dict[str, Any]:
    """Return what the lists say of a clip; None for unknown.

    Of several labels, `label` is as in the list, and `number` a list.
    """
    return {
        "clip": row.clip.name,
        "youtube_id": row.clip.youtube_id,
        "time_start": row.clip.time_start,
        "time_end": row.clip.time_end,
        "split": row.split,
        "label": row.label or None,
        "number": [*row.numbers] if len(row.numbers) > 1 else row.number,
        "version": row.listed.version,
    }


def known_of(files: ListSet, row: Candidate) -> dict[str, Any]:
    """Return all that is known of a clip (COLUMNS), with the further columns of its list."""
    of_file = {"bytes": row.bytes, "seconds": row.seconds, "sha256": row.sha256 or None}
    known = {"path": f"{files.before}{row.clip.name}{row.suffix}"} | facts_of(row) | of_file
    for column, value in row.clip.extra:
        known.setdefault(column, value)
    return known


def csv_with_header(files: ListSet) -> None:
    """Write `{split}.csv` with a header, and the further columns of the lists."""
    files.write_splits("{}.csv", lambda files, split: csv_lines(_csv_rows(files, split)))


def _csv_rows(files: ListSet, split: str) -> Iterator[list[object]]:
    extra = {name for row in files.choice.rows for name, _ in row.clip.extra}
    columns = [*COLUMNS, *sorted(extra.difference(COLUMNS))]
    yield [*columns]
    for row in files.choice.chosen(split):
        known = known_of(files, row)
        known["time_start"] = format_time(row.clip.time_start)
        known["time_end"] = format_time(row.clip.time_end)
        known["number"] = ",".join(map(str, row.numbers))
        yield [known.get(name) for name in columns]


def json_lists(files: ListSet) -> None:
    """Write `{split}.json`: an array of objects, one per line."""
    files.write_splits("{}.json", _json_lines)


def _json_lines(files: ListSet, split: str) -> Iterator[str]:
    # JSON is UTF-8; a path of other bytes is escaped, and Python reads it back as it was.
    encode = json.JSONEncoder(ensure_ascii=not is_utf8(files.before)).encode
    between = "[\n"
    for row in files.choice.chosen(split):
        yield between + encode(known_of(files, row))
        between = ",\n"
    yield "\n]\n"


# --- AVA-Kinetics: the annotations of each clip for MMAction2 and SlowFast -----------------------
#
# The clips come from the AVA-Kinetics list, the rows from annotations_{split}.csv; both are made by
# make_ava_kin_download_csv.py. The readers decide the form of a row.
#
# MMAction2 (AVAKineticsDataset) takes the last two parts of a folder's name for the seconds in
# which the clip begins and ends, so the folders of frames get links with such names (`rawframes/`).
# SlowFast (ava_helper) knows the seconds 902 to 1798 of a video whose frames begin at second 900,
# 30 frames per second. An annotated frame at 3 s of its clip is second 903; one in the first two
# seconds of a clip cannot be given to it.


def ava(files: ListSet) -> None:
    """Write each split's annotations, and with --frames the lists and links of frames."""
    boxes = [box for path in files.args.annotations for box in _read_boxes(path)]
    for split in files.choice.used_splits():
        clips = {row.clip.name: row.clip for row in files.choice.chosen(split)}
        found = [box for box in boxes if box[0] in clips]
        if not found:
            files.tell(f"note         no annotation of --annotations is of a clip of {split}")
            continue
        lines = (f"{_mmaction2_folder(clips[name])},{at},{box},-1\n" for name, at, box in found)
        files.write(f"mmaction2_{split}.csv", lines)
        # The last field is a score, for boxes of a detector.
        lines = (
            f"{name},{SLOWFAST_START + min(at, AVA_LEAD):04d},{box},1.0\n"
            for name, at, box in found
            if at >= SLOWFAST_FIRST
        )
        files.write(f"slowfast_{split}.csv", lines)
        if lost := sum(at < SLOWFAST_FIRST for _, at, _ in found):
            what = plural(lost, "annotation")
            files.tell(f"note         {what} in the first two seconds: not in slowfast_{split}.csv")
        if files.args.frames:
            files.write(f"frame_lists/{split}.csv", _frame_list(files, split))
    if files.args.frames:
        _link_frames(files)
    else:
        files.tell("note         without --frames: no frame lists for SlowFast, no rawframes/")


def _read_boxes(path: Path) -> Iterator[tuple[str, int, str]]:
    """Yield (clip, whole second, `x1,y1,x2,y2,action`) of each annotation. Raises UserError."""
    with telling(path), open_text(path) as file:
        rows = csv.reader(bounded_lines(file))
        header = next(rows, [])
        if missing := [name for name in NEEDED if name not in header]:
            raise UserError(f"{path}:1: no annotations: the header lacks {', '.join(missing)}")
        clip, time, x1, y1, x2, y2, action = map(header.index, NEEDED)
        for line, row in enumerate(rows, 2):
            try:
                if not row[action]:
                    continue  # an annotated frame without boxes
                corners = ",".join(f"{float(row[at]):.3f}" for at in (x1, y1, x2, y2))
                yield row[clip], int(float(row[time])), f"{corners},{int(row[action])}"
            except (IndexError, ValueError, OverflowError):
                raise UserError(f"{path}:{line}: no annotation of a clip") from None


def _mmaction2_folder(clip: Clip) -> str:
    """`<id>_<start:06d>_<end:06d>`, in whole seconds."""
    if not clip.is_ava:
        raise UserError(f"{clip.name} is not an AVA-Kinetics clip: check --input_csv")
    start, seconds = map(int, clip_window(clip))
    return f"{clip.youtube_id}_{start:06d}_{start + seconds:06d}"


def _frame_list(files: ListSet, split: str) -> Iterator[str]:
    yield FRAME_LIST_HEADER
    for number, row in enumerate(files.choice.chosen(split)):
        name = row.clip.name
        for frame in range(1, row.frames + 1):
            yield f'{name} {number} {frame - 1} {files.before}{name}/{frame:06d}.jpg ""\n'


def _link_frames(files: ListSet) -> None:
    """Make `rawframes/` hold links to the folders of frames, under MMAction2's names."""
    folder, frames = make_folder(files.out / "rawframes"), files.args.frames.absolute()
    tree = {_mmaction2_folder(row.clip): row for row in files.choice.chosen()}
    targets = {name: str(frames / row.clip.name) for name, row in tree.items()}
    for entry in os.scandir(folder):
        if entry.is_symlink() and targets.get(entry.name) != os.readlink(entry.path):
            os.unlink(entry.path)
    link_all(files, folder, tree, frames)
    files.written.append("rawframes")


# --- folders of links to the clips: --link_dir, or trees for torchvision and datasets ------------


def class_folder(label: str) -> str:
    """Return a class's folder, as torchvision.datasets.Kinetics names it; "_" for an odd one.

    A name too long for a folder is cut, and ends in a digest of the whole.
    """
    folder = label.translate(TO_FOLDER)
    data = folder.encode(errors="surrogateescape")
    if len(data) > LONGEST:
        digest = hashlib.blake2b(data, digest_size=4).hexdigest()
        folder = f"{data[:200].decode(errors='ignore')}_{digest}"
    return folder if folder.strip(".") else "_"


def torchvision(files: ListSet) -> None:
    """Write `<split>/<class>/<clip>.mp4`. torchvision numbers the existing folders, sorted."""
    folders: dict[str, str] = {}
    for name in files.choice.classes.names:
        folder = class_folder(name)
        if (other := folders.setdefault(folder, name)) != name:
            raise UserError(f"the classes {other!r} and {name!r} would share {folder}/")
    names = [*folders]
    _make_trees(files, lambda row: f"{names[row.numbers[0]]}/{row.clip.name}.mp4")
    for split in files.choice.used_splits():
        files.written.append(split)
        found = sorted(entry.name for entry in os.scandir(files.out / split) if entry.is_dir())
        if found != names[: len(found)]:
            files.tell(f"note         torchvision's class indices of {split}/ are not those of"
                       " classes.txt: it numbers the folders that exist")  # fmt: skip


def huggingface(files: ListSet) -> None:
    """Write `<split>/<clip>.mp4` and `<split>/metadata.csv`.

    There are no class folders, because `datasets` takes a folder such as training_dog/ for a split.
    """
    _make_trees(files, lambda row: f"{row.clip.name}.mp4")
    files.write_splits(f"{{}}/{METADATA}", lambda files, s: csv_lines(_metadata(files, s)))


def _metadata(files: ListSet, split: str) -> Iterator[Sequence[object]]:
    yield METADATA_COLUMNS
    for row in files.choice.chosen(split):
        name, number = row.clip.name, ",".join(map(str, row.numbers))
        yield f"{name}.mp4", row.label, number, name, row.clip.youtube_id


def _make_trees(files: ListSet, name: Callable[[Candidate], str]) -> None:
    """Make `<out>/<split>` hold links with these names to the clips, and no other links of ours.

    Raises UserError, Stopped.
    """
    for split in SPLITS:
        base = files.out / split
        tree = {name(row): row for row in files.choice.chosen(split)}
        with suppress(OSError), open_text(base / METADATA, "replace") as file:
            if file.readline(100) == ",".join(METADATA_COLUMNS) + "\n":  # of an earlier run
                os.unlink(base / METADATA)
        _drop_stale(files, base, tree)
        for below in {os.path.dirname(path) for path in tree}:
            make_folder(base / below)
        link_all(files, base, tree)


def link_all(
    files: ListSet, folder: Path, tree: Mapping[str, Candidate], frames: Path | None = None
) -> None:
    """Make links in a folder to clips, or to their folders in `frames`.

    tree: path in the folder -> clip. A clip that was removed is missing.
    """
    for name, row in tree.items():
        sleep(0)
        source = files.clips / f"{row.clip.name}{row.suffix}"
        try:
            _make_link(frames / row.clip.name if frames else source, folder / name)
        except FileNotFoundError:
            files.lose(row)


def _make_link(source: Path, target: Path) -> None:
    """Make a hard link, or a symbolic one; an existing link to the same file stays.

    Raises FileNotFoundError if `source` was removed, UserError if another file is in the way.
    """
    if os.path.islink(source):
        source = Path(os.path.realpath(source))
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # it exists; or a folder, another disk, or one without hard links
        if not os.path.lexists(target):
            with telling(target, "make the link"):
                os.symlink(source, target)
        elif not os.path.samefile(source, target):
            raise UserError(f"{target} exists and is not {source}: move it") from None


def _drop_stale(files: ListSet, base: Path, tree: Mapping[str, Candidate]) -> None:
    """Remove links to our clips that do not belong; a clip's last name is never removed."""
    kept = 0
    for folder, _, names in os.walk(base):
        if os.path.samefile(folder, files.clips):
            continue  # the clips themselves, under another name of their folder
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".mp4") and path.removeprefix(f"{base}{os.sep}") not in tree:
                if _is_link_to(path, files.clips / name):
                    os.unlink(path)
                else:
                    kept += 1
        if folder != str(base):
            with suppress(OSError):
                os.rmdir(folder)  # refuses one that is not empty
    if kept:
        files.tell(f"note         kept {plural(kept, 'file')} in {base}: not links to the clips")


def _is_link_to(path: str, clip: Path) -> bool:
    """Return whether a file is a second name of a clip, or a symbolic link to it, gone or not."""
    with suppress(OSError):
        if os.path.islink(path):
            return os.readlink(path) == str(clip) or os.path.samefile(path, clip)
        # `clip` may be a symbolic link to `path`, which then has no second name.
        return os.path.samefile(path, clip) and os.stat(path).st_nlink > 1
    return False
