"""Write the files of training lists, each completely or not at all.

`manifest.csv` is exactly which clips a set is of, for a paper, a comparison, a second machine;
`--compare` and `--only_manifest` read one that others wrote.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import shlex
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from utils.cli import VERSION, Tell, csv_text, plural, printable, without_formula
from utils.clip import AVA_DURATION, AVA_LEAD, AVA_TIME_END, parse_clip_name
from utils.errors import UserError
from utils.files import bounded_lines, make_folder, open_regular, open_text, telling, write_whole
from utils.lists.versions import OFFICIAL, ListFile
from utils.report import Known, format_time, now
from utils.training.choosing import (
    MANIFEST_VERSION,
    NO_LABEL,
    SPLITS,
    TEST,
    Candidate,
    Choice,
    Reason,
)

COLUMNS = ("path", "clip", "youtube_id", "time_start", "time_end", "split", "label", "number")
MORE_COLUMNS = ("version", "bytes", "seconds", "sha256")
CHUNK = 1024  # lines at once
CLASSES_TXT, CLASSES_JSON, MANIFEST = "classes.txt", "classes.json", "manifest.csv"
EXCLUDED, COMPARED, TO_DOWNLOAD = "excluded.csv", "compare.csv", "to_download.csv"
HEAD = "# made by make_training_lists.py"
MANIFEST_COLUMNS = ("clip", "split", "label", "bytes", "seconds", "sha256")
EXCLUDED_COLUMNS = ("clip", "list", "line", "version", "split", "label", "reason", "status", "why")
NEEDED = ("clip", "timestamp", "x1", "y1", "x2", "y2", "action_id")
FRAME_LIST_HEADER = "original_vido_id video_id frame_id path labels\n"  # sic: so they spell it
SLOWFAST_START, SLOWFAST_FIRST = 900, 902
DOWNLOAD_COLUMNS = ("youtube_id", "time_start", "time_end", "label", "split")


@dataclass
class ListSet:
    """A set of lists that is being written: of which clips, where to, how they name the clips.

    clips: the folder that lists name, absolute; it may be --link_dir. prefix: what paths are
    relative to; None: they are absolute. gone: clips that went away while they were read.
    """

    choice: Choice
    clips: Path
    out: Path
    workspace: Path
    prefix: Path | None
    args: argparse.Namespace
    tell: Tell
    gone: list[str] = field(default_factory=list)

    def before(self) -> str:
        """What stands before a clip, or its folder of frames, in a list: empty or with a slash."""
        return path_before(self.args.frames or self.clips, self.prefix)

    def write(self, target: str, lines: Iterable[str]) -> Path:
        """Write a text file below `out`, whole or not. Raises DiskFull, UserError, Stopped."""
        write_whole(self.out / target, self.workspace, lines)
        return self.out / target


def path_before(folder: Path, prefix: Path | None) -> str:
    """What stands before a name of `folder` in a list. Raises UserError."""
    folder = folder.absolute()
    if prefix is None:
        return f"{folder.as_posix().rstrip('/')}/"
    below = os.path.relpath(folder, prefix).replace(os.sep, "/")
    if below.startswith(".."):
        raise UserError(
            f"{folder} is not below --path_prefix {prefix}: use a folder above it, or --absolute"
        )
    return "" if below == "." else f"{below}/"


def check_paths(before: str, splits_at_blanks: bool, tell: Tell) -> None:
    """Raises UserError for a path that a reader would split at its white space, or unquote."""
    if splits_at_blanks and set(before) & set(string.whitespace + '"'):
        raise UserError(
            f"the paths in the lists would hold white space or quotes ({before}...), where this"
            " format's reader splits them: give --link_dir DIR (links to the clips in a folder"
            " without), or a --path_prefix below it"
        )
    if not is_utf8(before):
        tell("note         the paths are not UTF-8, and many readers take nothing else:"
             " --link_dir DIR makes links in a folder whose name is")  # fmt: skip


def is_utf8(text: str) -> bool:
    """Whether a path holds no byte that is not UTF-8 (Python keeps these as surrogates)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def csv_lines(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    """Rows as lines of a CSV file."""
    following = iter(rows)
    while chunk := list(islice(following, CHUNK)):
        yield csv_text(chunk)


def write_beside(
    files: ListSet, known: Known, theirs: Mapping[str, Candidate] | None
) -> list[Path]:
    """Write classes, excluded.csv, manifest.csv, and what --only_manifest and --compare ask for."""
    choice, args, written = files.choice, files.args, []
    if names := choice.classes.names:
        written.append(files.write(CLASSES_TXT, (f"{name}\n" for name in names)))
        numbers = {name: number for number, name in enumerate(names)}
        text = json.dumps(numbers, ensure_ascii=False, indent=1) + "\n"
        written.append(files.write(CLASSES_JSON, [text]))
    written.append(files.write(EXCLUDED, csv_lines(_excluded_rows(choice, known))))
    if args.only_manifest:
        written.append(files.write(TO_DOWNLOAD, csv_lines(_download_rows(choice))))
    if theirs is not None:
        found = compare(choice, theirs)
        lines: list[tuple[object, ...]] = [("clip", "what", "here", "there")]
        lines += [(name, what, *map(without_formula, both)) for name, what, *both in found]
        written.append(files.write(COMPARED, csv_lines(lines)))
        _say_differences(choice, theirs, found, files)
    written.append(files.write(MANIFEST, _manifest_lines(choice, args)))
    return written


def _excluded_rows(choice: Choice, known: Known) -> Iterator[Sequence[object]]:
    """Every row that is in no list, and what the download report says of it.

    Texts are for spreadsheets: none is taken for a formula. Names of clips are exact.
    """
    yield EXCLUDED_COLUMNS
    texts = {reason: reason.text for reason in Reason}
    for row in choice.rows:
        if row.reason:
            status = why = ""
            if row.reason == Reason.MISSING:
                status, why, _ = known.reasons.get(row.name, ("", "", ""))
            place = (row.listed.path.name, row.line, row.listed.version, row.split, row.label)
            yield row.name, *map(without_formula, place), texts[row.reason], status, why
    for each in choice.refused:
        place = (each.path.name, each.line, "", "", "")
        yield "", *map(without_formula, place), "invalid", "", without_formula(str(each))


def _download_rows(choice: Choice) -> Iterator[Sequence[str]]:
    """A list for download.py of the clips that are missing."""
    yield DOWNLOAD_COLUMNS
    for row in choice.rows:
        if row.reason == Reason.MISSING:
            times = (format_time(row.start), format_time(row.end))
            yield (row.youtube_id, *times, choice.label(row), row.split)


def _manifest_lines(choice: Choice, args: argparse.Namespace) -> Iterator[str]:
    """What the set was made from and how, then one line a clip, by split."""
    measured = any(row.seconds is not None for row in choice.chosen())
    yield f"{HEAD} {VERSION} on {now()}\n"
    yield f"# options: {printable(shlex.join(args.command), 10_000)}\n"
    yield f"# versions: {printable(', '.join(choice.versions), 10_000)}\n"
    for each in choice.lists:
        with telling(each.path), open_regular(each.path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield f"# list: {printable(each.path.name)} sha256 {digest}\n"
    yield f"# seconds: {'measured' if measured else 'as the lists say'}\n"

    def rows() -> Iterator[Sequence[object]]:
        yield MANIFEST_COLUMNS
        for split in SPLITS:
            for row in choice.chosen(split):
                if row.seconds is not None:
                    seconds = f"{row.seconds:.3f}"
                else:
                    seconds = format_time(row.end - row.start if row.end > 0 else AVA_DURATION)
                yield row.name, split, choice.label(row), row.bytes, seconds, row.sha256

    yield from csv_lines(rows())


def read_manifest(path: Path) -> dict[str, Candidate]:
    """Clip -> its row. Raises UserError, with the line, for an invalid manifest."""
    found: dict[str, Candidate] = {}
    listed = ListFile(path, MANIFEST_VERSION, "")
    with telling(path), open_text(path) as file:
        lines = ((n, each) for n, each in enumerate(bounded_lines(file), 1) if each[:1] != "#")
        header = ",".join(MANIFEST_COLUMNS)
        if next(lines, (0, ""))[1].rstrip("\r\n") != header:
            raise UserError(f"{path} is not a manifest: its header must be {header}")
        for number, line in lines:
            row = _read_entry(listed, number, line)
            if found.setdefault(row.name, row) is not row:
                raise UserError(f"{path}:{number}: {row.name} appears twice")
    if not found:
        raise UserError(f"manifest {path} names no clip")
    return found


def _read_entry(listed: ListFile, number: int, line: str) -> Candidate:
    try:
        fields = next(csv.reader([line]), [])
    except csv.Error as error:
        raise UserError(f"{listed.path}:{number}: {error}") from error
    if len(fields) != len(MANIFEST_COLUMNS):
        raise UserError(
            f"{listed.path}:{number}: {len(fields)} columns, not {len(MANIFEST_COLUMNS)}"
        )
    name, split, label, size, _, sha256 = fields
    parsed = parse_clip_name(name)
    if parsed is None or split not in SPLITS or not re.fullmatch(r"\d{1,18}", size, re.ASCII):
        raise UserError(
            f"{listed.path}:{number}: no clip, split and bytes: {printable(line.strip())}"
        )
    start, end = float(parsed[1]), AVA_TIME_END if parsed[2] is None else float(parsed[2])
    row = Candidate(name, listed, number, start, end, label, split, sha256=sha256)
    row.bytes = int(size)
    return row


def compare(choice: Choice, theirs: Mapping[str, Candidate]) -> list[tuple[str, str, str, str]]:
    """(clip, what differs, here, there). A hash counts before bytes, where both have one.

    Labels are compared by class, so that other case or punctuation is no difference.
    """
    found, here = [], set()
    for row in choice.chosen():
        here.add(row.name)
        their = theirs.get(row.name)
        if their is None:
            found.append((row.name, "only_here", row.split, ""))
            continue
        if row.sha256 and their.sha256:
            if row.sha256 != their.sha256:
                found.append((row.name, "sha256", row.sha256, their.sha256))
        elif row.bytes != their.bytes:
            found.append((row.name, "bytes", str(row.bytes), str(their.bytes)))
        if row.split != their.split:
            found.append((row.name, "split", row.split, their.split))
        number = choice.classes.number(their.label) if their.label else -1
        if number != row.number and not (row.split == TEST and number == -1):
            found.append((row.name, "label", choice.label(row), their.label))
    found += [(n, "only_there", "", row.split) for n, row in theirs.items() if n not in here]
    return found


def _say_differences(
    choice: Choice,
    theirs: Mapping[str, Candidate],
    found: Sequence[tuple[str, str, str, str]],
    files: ListSet,
) -> None:
    kinds = Counter(what for _, what, _, _ in found)
    here, there = kinds.pop("only_here", 0), kinds.pop("only_there", 0)
    files.tell(
        f"compared     {plural(len(theirs) - there, 'clip')} in both; {here:,} only here,"
        f" {there:,} only in {files.args.compare}"
    )
    differ = ", ".join(f"{number:,} in {kind}" for kind, number in kinds.most_common())
    files.tell(f"             different: {differ or 'none'}")


# --- lists that are lines of text; those that readers split at white space have no quoting ------


def path_label(files: ListSet) -> list[Path]:
    """`{split}.csv`: `path label`, no header; for pretraining `path 0 -1`."""
    return [
        files.write(f"{split}.csv", _path_lines(files, split))
        for split in files.choice.used_splits()
    ]


def _path_lines(files: ListSet, split: str) -> Iterator[str]:
    before, pretrain = files.before(), files.args.pretrain
    for row in files.choice.chosen(split):
        yield f"{before}{row.name}.mp4 {'0 -1' if pretrain else row.number}\n"


def mmaction2(files: ListSet) -> list[Path]:
    """`<name>_{split}_list_videos.txt`, or `_list_rawframes.txt`: `folder total_frames label`."""
    name, frames = mmaction2_name(files), files.args.frames
    kind, lines = ("rawframes", _frame_folders) if frames else ("videos", _path_lines)
    return [
        files.write(f"{name}_{split}_list_{kind}.txt", lines(files, split))
        for split in files.choice.used_splits()
    ]


def _frame_folders(files: ListSet, split: str) -> Iterator[str]:
    before = files.before()
    for row in files.choice.chosen(split):
        yield f"{before}{row.name} {row.frames} {row.number}\n"


def mmaction2_name(files: ListSet) -> str:
    """How mmaction2's lists begin: `kinetics400`, or the name of a list of none of the versions."""
    versions = files.choice.versions
    name = "_".join(versions)
    if set(versions) <= set(OFFICIAL):
        name = f"kinetics{name}"
    return files.args.name or "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def known_of(choice: Choice, row: Candidate, path: str) -> dict[str, Any]:
    """What is known of a clip, with the further columns of its list; None where nothing is.

    Of several labels, `label` is as the list has it, and `number` a list.
    """
    number: int | list[int] | None = [*row.several] or row.number
    if number == NO_LABEL:
        number = None
    known: dict[str, Any] = {
        "path": path,
        "clip": row.name,
        "youtube_id": row.youtube_id,
        "time_start": row.start,
        "time_end": row.end,
        "split": row.split,
        "label": choice.label(row) or None,
        "number": number,
        "version": row.listed.version,
        "bytes": row.bytes,
        "seconds": row.seconds,
        "sha256": row.sha256 or None,
    }
    for column, value in row.extra:
        known.setdefault(column, value)
    return known


def csv_with_header(files: ListSet) -> list[Path]:
    """`{split}.csv` with a header, and the further columns of the lists."""
    return [files.write(f"{s}.csv", csv_lines(_csv(files, s))) for s in files.choice.used_splits()]


def _csv(files: ListSet, split: str) -> Iterator[list[object]]:
    choice, before = files.choice, files.before()
    columns = [*COLUMNS, *MORE_COLUMNS]
    kinds = {tuple(name for name, _ in row.extra) for row in choice.rows}
    columns += sorted({name for kind in kinds for name in kind} - set(columns))
    yield [*columns]
    for row in choice.chosen(split):
        known = known_of(choice, row, f"{before}{row.name}{row.suffix}")
        known["time_start"], known["time_end"] = format_time(row.start), format_time(row.end)
        if row.several:
            known["number"] = ",".join(map(str, row.several))
        yield [known.get(name) for name in columns]


def json_lists(files: ListSet) -> list[Path]:
    """`{split}.json`: an array of objects, one a line."""
    return [files.write(f"{s}.json", _json(files, s)) for s in files.choice.used_splits()]


def _json(files: ListSet, split: str) -> Iterator[str]:
    before = files.before()
    # JSON is UTF-8; a path of other bytes is escaped, and Python reads it back as it was.
    encode = json.JSONEncoder(ensure_ascii=not is_utf8(before)).encode
    between = "[\n"
    for row in files.choice.chosen(split):
        path = f"{before}{row.name}{row.suffix}"
        yield between + encode(known_of(files.choice, row, path))
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


class AvaBox(NamedTuple):
    """One annotation: its clip, the whole second of its video, corners (0..1), action."""

    clip: str
    second: int
    corners: str  # x1,y1,x2,y2 with three decimals
    action: str


def ava(files: ListSet) -> list[Path]:
    """Write each split's annotations, and with --frames the lists and links of frames."""
    boxes: list[AvaBox] = []
    for path in files.args.annotations:
        with telling(path), open_text(path) as file:
            boxes += _read_boxes(path, csv.reader(bounded_lines(file)))
    written = []
    for split in files.choice.used_splits():
        clips = {row.name for row in files.choice.chosen(split)}
        of_split = [box for box in boxes if box.clip in clips]
        if not of_split:
            files.tell(f"note         no annotation of --annotations is of a clip of {split}")
            continue
        lines = (
            f"{_mmaction2_folder(b.clip)},{b.second},{b.corners},{b.action},-1\n" for b in of_split
        )
        written.append(files.write(f"mmaction2_{split}.csv", lines))
        fitting = [box for box in of_split if _slowfast_second(box) >= SLOWFAST_FIRST]
        # The eighth field is a score where these boxes stand for a detector's.
        lines = (
            f"{b.clip},{_slowfast_second(b):04d},{b.corners},{b.action},1.0\n" for b in fitting
        )
        written.append(files.write(f"slowfast_{split}.csv", lines))
        if lost := len(of_split) - len(fitting):
            files.tell(
                f"note         {plural(lost, 'annotation')} of {split} in the first two seconds of"
                " a clip: SlowFast cannot have them, and slowfast_*.csv is without"
            )
        if files.args.frames:
            written.append(files.write(f"frame_lists/{split}.csv", _frame_list(files, split)))
    if files.args.frames:
        _link_frames(files)
    else:
        files.tell("note         without --frames: no frame lists for SlowFast, no rawframes/")
    return written


def _read_boxes(path: Path, rows: Iterator[list[str]]) -> Iterator[AvaBox]:
    header = next(rows, [])
    if missing := [name for name in NEEDED if name not in header]:
        raise UserError(
            f"{path}:1: the header has no {', '.join(missing)}: use annotations_{{split}}.csv of"
            " make_ava_kin_download_csv.py"
        )
    clip, time, x1, y1, x2, y2, action = (header.index(name) for name in NEEDED)
    for line, row in enumerate(rows, 2):
        try:
            if not row[action]:
                continue  # a key frame without boxes
            corners = ",".join(f"{float(row[at]):.3f}" for at in (x1, y1, x2, y2))
            yield AvaBox(row[clip], int(float(row[time])), corners, str(int(row[action])))
        except (IndexError, ValueError, OverflowError):
            raise UserError(f"{path}:{line}: no annotation of a clip") from None


def _clip_seconds(second: int) -> tuple[int, int]:
    """(start, end) in its video, in seconds, of the clip about an annotated frame."""
    start = max(0, second - AVA_LEAD)
    return start, start + int(AVA_DURATION)


def _slowfast_second(box: AvaBox) -> int:
    return SLOWFAST_START + box.second - _clip_seconds(box.second)[0]


def _mmaction2_folder(clip: str) -> str:
    """`<id>_<start:06d>_<end:06d>` of `<id>_<ts:06d>`."""
    parsed = parse_clip_name(clip)
    if parsed is None or parsed[2] is not None:
        raise UserError(
            f"{clip} is not an AVA-Kinetics clip: use the AVA-Kinetics list as --input_csv"
        )
    start, end = _clip_seconds(int(parsed[1]))
    return f"{parsed[0]}_{start:06d}_{end:06d}"


def _frame_list(files: ListSet, split: str) -> Iterator[str]:
    yield FRAME_LIST_HEADER
    before = files.before()
    for number, row in enumerate(files.choice.chosen(split)):
        for frame in range(1, row.frames + 1):
            yield f'{row.name} {number} {frame - 1} {before}{row.name}/{frame:06d}.jpg ""\n'


def _link_frames(files: ListSet) -> None:
    folder = make_folder(files.out / "rawframes")
    frames = Path(files.args.frames).absolute()
    wanted = {_mmaction2_folder(row.name): str(frames / row.name) for row in files.choice.chosen()}
    for entry in os.scandir(folder):
        if entry.is_symlink() and wanted.get(entry.name) != os.readlink(entry.path):
            os.unlink(entry.path)
    for name, target in wanted.items():
        try:
            os.symlink(target, folder / name, target_is_directory=True)
        except FileExistsError:
            if not os.path.islink(folder / name):
                raise UserError(f"{folder / name} exists and is not a link: move it") from None
        except OSError as error:
            raise UserError(f"cannot make the link {folder / name}: {error.strerror}") from error
