"""manifest.csv: exactly which clips a set is of, for a paper, a comparison, a second machine.

Written with every set of lists. `--compare` and `--only_manifest` read one that others wrote.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.clip import AVA_DURATION, AVA_TIME_END, parse_clip_name
from utils.errors import UserError
from utils.lists.versions import ListFile, Rows
from utils.report import format_time, now
from utils.text import printable
from utils.training.choosing import SPLITS, TEST, Choice

NAME = "manifest.csv"
HEAD = "# made by make_training_lists.py"
COLUMNS = ("clip", "split", "label", "bytes", "seconds", "sha256")
VERSION = "manifest"  # of the rows that a manifest gives


@dataclass(frozen=True, slots=True)
class Entry:
    """One clip of a manifest; `sha256` may be "", `seconds` as written."""

    split: str
    label: str
    bytes: int
    seconds: str
    sha256: str


def head(choice: Choice, version: str, options: str) -> list[str]:
    """The lines before the header: what the set was made from, and how."""
    lines = [f"{HEAD} {version} on {now()}", f"# options: {options}"]
    lines.append(f"# versions: {', '.join(choice.versions)}")
    for each in choice.rows.lists:
        with each.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"# list: {printable(each.path.name)} sha256 {digest}")
    how = "measured" if choice.seconds else "as the lists say"
    return [*lines, f"# seconds: {how}"]


def lines(choice: Choice) -> Iterator[str]:
    """The header, then one line a clip, by split and in the order of the lists."""
    yield ",".join(COLUMNS) + "\n"
    rows, names = choice.rows, choice.rows.names
    quoted = [f'"{name.replace(chr(34), chr(34) * 2)}"' if set(name) & set(',"') else name
              for name in choice.classes.names]  # fmt: skip
    quoted.append("")  # number -1: no label
    nominal: dict[float, str] = {}
    measured, hashes, numbers, sizes = choice.seconds, choice.hashes, choice.numbers, choice.sizes
    for split in SPLITS:
        for at in choice.chosen(split):
            if measured:
                text = f"{measured[at]:.3f}"
            elif (text := nominal.get(length := rows.ends[at] - rows.starts[at], "")) == "":
                text = nominal[length] = nominal_seconds(length)
            sha256 = hashes[at] if hashes else ""
            yield f"{names[at]},{split},{quoted[numbers[at]]},{sizes[at]},{text},{sha256}\n"


def nominal_seconds(length: float) -> str:
    """The length of a clip as its list gives it; below 0 (`time_end` -1) for AVA-Kinetics."""
    return format_time(AVA_DURATION if length < 0 else length)


def is_ours(path: Path) -> bool:
    """Whether a file is a manifest of this script."""
    try:
        with path.open("rb") as file:
            return file.read(len(HEAD)) == HEAD.encode()
    except OSError:
        return False


def read_manifest(path: Path) -> dict[str, Entry]:
    """Clip's name -> entry. Raises UserError for a file that is no manifest, with the line."""
    entries: dict[str, Entry] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            numbered = ((n, line) for n, line in enumerate(file, 1) if not line.startswith("#"))
            header = next(csv.reader([next(numbered, (0, ""))[1]]), [])
            if header != list(COLUMNS):
                raise UserError(f"{path} is no manifest: its header is not {','.join(COLUMNS)}")
            for number, line in numbered:
                name, entry = _entry(path, number, line)
                if name in entries:
                    raise UserError(f"{path}:{number}: {name} stands there twice")
                entries[name] = entry
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"manifest {path} cannot be read: {error}") from error
    if not entries:
        raise UserError(f"manifest {path} names no clip")
    return entries


def _entry(path: Path, number: int, line: str) -> tuple[str, Entry]:
    row = next(csv.reader([line]), [])
    if len(row) != len(COLUMNS):
        raise UserError(f"{path}:{number}: {len(row)} columns, not {len(COLUMNS)}")
    name, split, label, size, seconds, sha256 = row
    if parse_clip_name(name) is None or split not in SPLITS or not size.isdecimal():
        raise UserError(f"{path}:{number}: no clip, split and bytes: {printable(line.strip())}")
    return name, Entry(split, label, int(size), seconds, sha256)


def rows_of(path: Path, entries: Mapping[str, Entry]) -> Rows:
    """The clips of a manifest as rows, in place of those of the lists."""
    rows = Rows(lists=[ListFile(path, VERSION, "")])
    for name, entry in entries.items():
        parsed = parse_clip_name(name)
        assert parsed is not None
        rows.list_at.append(0)
        rows.lines.append(0)
        rows.names.append(name)
        rows.labels.append(entry.label)
        rows.splits.append(entry.split)
        rows.starts.append(float(parsed[1]))
        rows.ends.append(AVA_TIME_END if parsed[2] is None else float(parsed[2]))
        rows.extras.append(())
    return rows


def download_rows(choice: Choice, missing: Iterable[int]) -> Iterator[Sequence[str]]:
    """A list for download.py of these rows."""
    yield ("youtube_id", "time_start", "time_end", "label", "split")
    rows = choice.rows
    for at in missing:
        times = (format_time(rows.starts[at]), format_time(rows.ends[at]))
        yield (rows.names[at][:11], *times, choice.label(at), choice.splits[at])


@dataclass(frozen=True)
class Difference:
    """One clip that is not the same here and there."""

    clip: str
    what: str  # only_here, only_there, bytes, sha256, split, label
    here: str
    there: str


def compare(choice: Choice, theirs: Mapping[str, Entry]) -> tuple[int, list[Difference]]:
    """(clips in both, differences). A hash counts before bytes, where both have one.

    Labels are compared by class, so that other case or punctuation is no difference.
    """
    both, found, here = 0, [], set()
    for at in choice.chosen():
        name = choice.rows.names[at]
        here.add(name)
        entry = theirs.get(name)
        if entry is None:
            found.append(Difference(name, "only_here", choice.splits[at], ""))
            continue
        both += 1
        sha256, size = choice.hashes.get(at, ""), choice.sizes[at]
        if sha256 and entry.sha256:
            if sha256 != entry.sha256:
                found.append(Difference(name, "sha256", sha256, entry.sha256))
        elif size != entry.bytes:
            found.append(Difference(name, "bytes", str(size), str(entry.bytes)))
        if choice.splits[at] != entry.split:
            found.append(Difference(name, "split", choice.splits[at], entry.split))
        number = choice.classes.number(entry.label) if entry.label else -1
        if number != choice.numbers[at] and not (choice.splits[at] == TEST and number == -1):
            found.append(Difference(name, "label", choice.label(at), entry.label))
    found += [Difference(n, "only_there", "", e.split) for n, e in theirs.items() if n not in here]
    return both, found
