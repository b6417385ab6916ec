"""Open a list of YouTube clips, recognise its format, and return its rows as text.

There are three families: a table with a header, a table without one whose first row shows what its
columns are, and JSON (one document, or one per line). A file that cannot be a list of clips is
refused with the reason. The text of a list is not trusted: `reading` checks it.
"""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from utils import files
from utils.cli import LIST_ROLES, printable
from utils.clip import ID_PATTERN, TIME_PATTERN, Extra
from utils.errors import UserError

MAX_LINE = 1 << 21  # characters of a table's row; Panda-70M has cells of 128 KiB and more
MAX_JSON = 1 << 29  # characters of one document; the largest official one has 100 million
SPANS = ("segment", "span", "timestamp", "timestamps")  # [start, end], or a list of these
# The columns of published lists by role, as `_plain` leaves them; of several, the first counts.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "youtube_id": ("youtubeid", "videoid", "ytid", "ytvideoid", "vid", "youtubekey", "videourl",
                   "youtubeurl", "url", "link", "id"),
    "time_start": ("timestart", "starttime", "start", "starttimestamp", "kineticsstart",
                   "segmentstart", "tstart", "begin", "begintime", *SPANS),
    "time_end": ("timeend", "endtime", "end", "endtimestamp", "kineticsend", "segmentend", "tend",
                 "stop", "stoptime"),
    "label": ("classname", "labelname", "label", "positivelabels", "labels", "class", "action"),
    "split": ("split", "subset", "set", "partition"),
}  # fmt: skip
SEVERAL_LABELS = ("positivelabels", "labels")  # columns of labels with commas between them
UNITS = {"": 1.0, "seconds": 1.0, "secs": 1.0, "sec": 1.0, "s": 1.0, "ms": 1000.0, "msec": 1000.0,
         "millis": 1000.0, "milliseconds": 1000.0, "frame": 0.0, "frames": 0.0}  # fmt: skip
CONTAINERS = ("annotations", "annotation", "clips", "clip", "segments")
VGGSOUND_SECONDS = 10.0
# Times are milliseconds if the first clips all last this many seconds, past the first hour.
FIRST_ROWS, TOO_LONG, AN_HOUR = 50, 1000.0, 3600.0
NEEDED = "youtube_id,time_start,time_end, or --columns youtube_id=NAME,time_start=NAME,..."
SPLIT_WORDS = ("train", "training", "val", "valid", "validate", "validation", "test", "testing")
# Spreadsheets may have `'` before a text, which keeps them from making a formula of it.
BARE_ID = re.compile(rf"\s*'?(?:v_)?({ID_PATTERN.pattern})\s*")
YOUTUBE_URL = re.compile(
    r"\s*'?(?:https?:)?(?://)?(?:(?:www|m|music)\.)?(?:youtu\.be/|youtube(?:-nocookie)?\.com/"
    rf"(?:watch/?\?(?:[^#\s]*&)?v=|(?:embed|shorts|live|v)/))({ID_PATTERN.pattern})(?![\w-])",
    re.ASCII | re.IGNORECASE,
)
CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2}(?:\.\d{1,30})?)", re.ASCII)
VGGSOUND_FILE = re.compile(rf"^({ID_PATTERN.pattern})_(\d{{6}})\.mp4(?=,)", re.ASCII)

# Line (0: none), text, the texts of LIST_ROLES, further columns, problem.
Row = tuple[int, str, Sequence[str], Extra, str]


class OpenList(NamedTuple):
    """A list that is being read.

    form: its description for people. per_second: how many units of its times make a second.
    clip_seconds: the length of clips that have a start only.
    """

    form: str
    rows: Iterator[Row]
    per_second: float = 1.0
    clip_seconds: float | None = None
    several_labels: bool = False


class Keys(NamedTuple):
    """How columns, and keys of JSON, are recognised.

    given: role -> the name that a person gave. spellings: role -> names, as `_plain` leaves them.
    spans: the same of [start, end]. seconds: the length of clips that have a start only.
    """

    given: Mapping[str, str]
    spellings: Mapping[str, tuple[str, ...]]
    spans: Sequence[str]  # a list that is called `start` holds the starts of several clips
    seconds: float | None


def open_list(
    path: Path, columns: Mapping[str, str] | None = None, clip_seconds: float | None = None
) -> OpenList:
    """Open a list and recognise its form. Raises UserError if it is not a list of clips.

    columns: role -> the name of its column, or the column's number from 1 if there is no header.
    clip_seconds: the length of the clips of a list that gives only their start.
    """
    csv.field_size_limit(MAX_LINE)
    given = columns or {}
    named = {role: (_plain(name),) for role, name in given.items()}
    keys = Keys(given, SPELLINGS | named, named.get("time_start", SPANS), clip_seconds)
    encoding, is_json = _look_at_start(path)
    lines = _lines(path, encoding, MAX_JSON if is_json else MAX_LINE)
    if is_json:
        return OpenList("JSON", _rows_of_json(path, lines, keys), clip_seconds=clip_seconds)
    return _open_table(path, lines, keys)


def find_id(text: str) -> str:
    """Return the YouTube id in a text (11 characters, `v_` and 11, or an address), or ""."""
    found = BARE_ID.fullmatch(text) or YOUTUBE_URL.match(text)
    return found[1] if found else ""


def read_time(text: str) -> float | None:
    """Return the seconds of `12`, `12.345` or `1:02:03.456`; None for another text."""
    text = text.strip().replace(",", ".")
    if TIME_PATTERN.fullmatch(text):
        return float(text)
    found = CLOCK.fullmatch(text)
    if found is None:
        return None
    hours, minutes, seconds = found.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise UserError for every error of a file that cannot be read as text."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"list {path} is not UTF-8 text: save it as UTF-8") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"list {path} cannot be read: {why}") from error


def _look_at_start(path: Path) -> tuple[str, bool]:
    """Return a file's encoding, and whether it is JSON. Raises UserError if it is no text."""
    with _reading(path), _open(path) as file:
        start = file.read(1 << 12)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"%PDF", b"<")):
        kind = "a spreadsheet, a ZIP archive, a PDF or a web page"
        raise UserError(f"list {path} is {kind}: save it as CSV, in UTF-8")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", start.decode("utf-16", errors="replace").lstrip()[:1] in ("{", "[")
    if start.count(0) > len(start) // 10:
        raise UserError(f"list {path} is not UTF-8 text: save it as UTF-8")
    return "utf-8-sig", text[:1] in (b"{", b"[")


def _open(path: Path) -> BinaryIO:
    """Open a file, unpacked if it is gzipped, whatever its name is."""
    file = files.open_regular(path)
    is_packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast("BinaryIO", gzip.GzipFile(fileobj=file)) if is_packed else file


def _lines(path: Path, encoding: str, longest: int) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of every line that is not blank. Raises UserError."""
    with _reading(path), io.TextIOWrapper(_open(path), encoding, newline="") as file:
        for number, text in enumerate(files.bounded_lines(file, longest), 1):
            if not text.isspace():
                yield number, text.rstrip("\r\n")


# --- tables --------------------------------------------------------------------------------------


def _open_table(path: Path, lines: Iterator[tuple[int, str]], keys: Keys) -> OpenList:
    """Recognise a table by its header or its first row. Raises UserError if neither is known."""
    comment, delimiters = "", ",\t;"
    for line, text in lines:  # noqa: B007
        if text.startswith("#"):
            comment = text.lstrip("# ")
        elif re.fullmatch(r"sep=.", text.strip(), re.IGNORECASE):  # of spreadsheets
            delimiters = text.strip()[-1]
        else:
            break
    else:
        raise UserError(f"list {path} is empty: it needs a header line and rows")
    is_vggsound = VGGSOUND_FILE.match(text) is not None
    if is_vggsound:
        text = VGGSOUND_FILE.sub(r"\1,\2", text)
        lines = ((number, VGGSOUND_FILE.sub(r"\1,\2", each)) for number, each in lines)
    where, rest = f"{path}:{line}", chain([(line, text)], lines)
    is_numbered = bool(keys.given) and all(map(str.isdecimal, keys.given.values()))
    rows = [_cells(text, delimiter) for delimiter in delimiters]
    for delimiter, row in zip(delimiters, rows, strict=True):
        heads = [(row, lines), (_cells(comment, delimiter), rest)]
        if is_numbered:
            heads = [([str(number) for number in range(1, len(row) + 1)], rest)]
        elif not keys.given and (columns := _columns_of(where, row)):
            is_vggsound |= {"label", "split"} <= set(columns)
            heads.append((columns, rest))
        for header, below in heads:
            roles = _roles(where, header, keys)
            if {"youtube_id", "time_start", *keys.given} <= set(roles.values()):
                seconds = VGGSOUND_SECONDS if is_vggsound else None
                return _table(path, header, roles, below, delimiter, keys, seconds)
    raise UserError(f"{where}: {_why_no_list(max(rows, key=len), keys)}")


def _split(text: str, delimiter: str, columns: Sequence[str] = ()) -> tuple[list[str], str]:
    """Return the fields of a line, one for each column at least, and what is wrong with it.

    Lines are split one by one, because one csv.reader over the file would take all rows between
    two stray quotes for one field. No known list has a field of two lines. Spreadsheets add empty
    fields, or leave those out.
    """
    fields, problem = [text], ""
    if '"' not in text:
        fields = text.split(delimiter)
    else:
        try:
            reader = csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=True)
            fields = next(reader)
        except csv.Error as error:
            problem = f"not a CSV row ({error})"
    width = len(columns)
    if columns and len(fields) != width:
        if any(map(str.strip, fields[width:])) or any(columns[len(fields) :]):
            problem = problem or f"{len(fields)} columns, but the header has {width}"
        fields += [""] * (width - len(fields))
    return fields, problem


def _cells(text: str, delimiter: str) -> list[str]:
    return [field.strip() for field in _split(text, delimiter)[0]]


def _table_rows(
    lines: Iterable[tuple[int, str]], delimiter: str, columns: Sequence[str]
) -> Iterator[Row]:
    """Yield the rows of a table."""
    width = len(columns)
    at = [columns.index(role) if role in columns else width for role in LIST_ROLES]
    cells_of = itemgetter(*at)
    others = {name: at for at, name in enumerate(columns) if name and name not in LIST_ROLES}
    for line, text in lines:
        fields, problem = _split(text, delimiter, columns)
        fields.append("")  # the cell of roles that the table does not have
        extra = tuple([(name, fields[at].strip()) for name, at in others.items()]) if others else ()
        yield line, text, cells_of(fields), extra, problem


def _plain(name: str) -> str:
    return re.sub(r"[-_\s().\[\]]", "", name.casefold())


def _spelling_of(name: str, role: str, keys: Keys) -> tuple[int, float] | None:
    """Return (rank, units per second) of a column's name for a role; None for another name."""
    spellings = keys.spellings[role]
    for unit, per_second in UNITS.items() if role.startswith("time") else [("", 1.0)]:
        for stem in (name.removesuffix(unit), name.removeprefix(unit)):
            if stem in spellings:
                return spellings.index(stem), per_second
    return None


def _roles(where: str, header: Sequence[str], keys: Keys) -> dict[int, str]:
    """Return column -> role of a header; {} if it lacks a given name.

    Raises UserError if it is unclear.
    """
    plain = [_plain(name) for name in header]
    roles: dict[int, str] = {}
    for role in dict.fromkeys([*keys.given, *LIST_ROLES]):
        found = [
            (*rank, at) for at, name in enumerate(plain) if (rank := _spelling_of(name, role, keys))
        ]
        if not found and role in keys.given:
            return {}
        if not found:
            continue
        best, units, at = min(found)
        if [each[0] for each in found].count(best) > 1:
            raise UserError(f"{where}: the header names {header[at]} twice")
        if units == 0:
            raise UserError(
                f"{where}: {header[at]} counts frames, and a clip's times are seconds: divide by"
                " the rate of each video"
            )
        roles.setdefault(at, role)
    return roles


def _table(
    path: Path,
    header: Sequence[str],
    roles: Mapping[int, str],
    lines: Iterator[tuple[int, str]],
    delimiter: str,
    keys: Keys,
    seconds: float | None,
) -> OpenList:
    """Return the list below a header. Raises UserError if its times cannot be used.

    seconds: the length of the clips of a known form that gives only their start.
    """
    names = {role: header[at] for at, role in sorted(roles.items())}
    words = [role if name.lower() == role else f"{role}={name}" for role, name in names.items()]
    form = f"table with columns {printable(', '.join(words))}"
    if _plain(names["time_start"]) in SPANS and "time_start" not in keys.given:
        return OpenList(form, _spread(lines, delimiter, header, keys))
    columns = [
        roles.get(at) or (f"{name}_in_list" if name in names else name)
        for at, name in enumerate(map(str.lower, header))
    ]
    rows = _table_rows(lines, delimiter, columns)
    _, per_second = _spelling_of(_plain(names["time_start"]), "time_start", keys) or (0, 1.0)
    if "time_end" in names:
        seconds = None
        if not keys.given and per_second == 1:
            rows = _refuse_milliseconds(path, rows)
    else:
        seconds = seconds if keys.seconds is None else keys.seconds
        if seconds is None:
            raise UserError(
                f"{path} has no time_end ({form}): name its column with --columns time_end=NAME,"
                " or use --clip_seconds N"
            )
        form += f"; clips of {seconds:g} s"
    several_labels = _plain(names.get("label", "")) in SEVERAL_LABELS
    return OpenList(form, rows, per_second, seconds, several_labels)


def _spread(
    lines: Iterable[tuple[int, str]], delimiter: str, header: Sequence[str], keys: Keys
) -> Iterator[Row]:
    """Yield the clips of rows whose cells are Python lists, with a value for each clip."""
    for line, text in lines:
        fields, problem = _split(text, delimiter, header)
        cells = dict(zip(header, map(str.strip, fields), strict=False))
        values = {name: _python_list(cell) or cell for name, cell in cells.items()}
        clips = [] if problem else list(_clips_in(values, {}, {}, 0.0, keys))
        if not clips:
            yield line, text, (), (), problem or "its times are not a list of [start, end]"
        for clip in clips:
            yield _row_of(line, clip)


def _row_of(line: int, clip: Mapping[str, str]) -> Row:
    """Return the row of a clip that `_clips_in` found."""
    extra = tuple([each for each in clip.items() if each[0] not in LIST_ROLES])
    return line, ",".join(clip.values()), [clip.get(role, "") for role in LIST_ROLES], extra, ""


def _python_list(cell: str) -> list[Any]:
    """Return the list that a cell holds as Python writes it; [] if it is not one."""
    try:
        value = ast.literal_eval(cell) if cell.startswith("[") else []
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    """Return a value of JSON or of a Python list as a table would write it."""
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return value if isinstance(value, str) else "" if value is None else str(value)


def _columns_of(where: str, row: Sequence[str]) -> list[str]:
    """Return the columns of a list whose first row this is; [] if that has no known shape.

    Raises UserError for AVA-Kinetics annotations.
    """
    if looks_like_annotations(row):
        raise UserError(
            f"{where}: AVA-Kinetics annotation file, not a list: run"
            " make_ava_kin_download_csv.py and use the list that it writes"
        )
    times = [read_time(field) for field in row]
    if len(row) < 3 or not find_id(row[0]) or times[1] is None:
        return []
    if len(row) == 5 and None not in times[1:]:  # AVSpeech: x, y of the face
        return ["youtube_id", "time_start", "time_end", "x", "y"]
    columns = ["youtube_id", "time_start"] + ["time_end"] * (times[2] is not None)
    for at in range(len(columns), len(row)):
        if row[at].lower() in SPLIT_WORDS and "split" not in columns:
            columns.append("split")
        elif times[at] is None and "label" not in columns:
            columns.append("label")
        else:
            columns.append(f"column_{at + 1}")
    return columns


def _later(text: str, seconds: float) -> str:
    """Return a time moved by some seconds; a text that is not a time is returned as it is."""
    found = read_time(text)
    return text if found is None else _text(found + seconds)


def _refuse_milliseconds(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """Return the rows, if the first of them can be seconds. Raises UserError for milliseconds."""
    first = list(islice(rows, FIRST_ROWS))
    texts = [text.strip() for row in first if not row[-1] for text in row[2][1:3]]
    if all(map(str.isdecimal, texts)):
        times = list(map(float, texts))
        lengths = [b - a for a, b in zip(times[::2], times[1::2], strict=True) if b > a]
        if lengths and min(lengths) >= TOO_LONG and max(times) > AN_HOUR:
            raise UserError(
                f"{path}: its clips last {min(lengths):,.0f} s and more: are its times"
                " milliseconds? Name such columns start_ms and end_ms, or use --columns"
                " time_start=NAME,time_end=NAME if they are seconds"
            )
    return chain(first, rows)


def looks_like_annotations(row: Sequence[str]) -> bool:
    """Return whether a row is one of the AVA-Kinetics annotations: `id,timestamp[,...]`."""
    return (
        len(row) in (2, 7)
        and ID_PATTERN.fullmatch(row[0]) is not None
        and TIME_PATTERN.fullmatch(row[1]) is not None
    )


def _why_no_list(row: Sequence[str], keys: Keys) -> str:
    """Return why a table is not a list: its first row is neither a header nor a clip."""
    seen = f"it reads {printable(','.join(row))}"
    if keys.given:
        named = ",".join(f"{role}={name}" for role, name in keys.given.items())
        return f"no youtube_id and time_start with --columns {named}: {seen}"
    times = [number for number, cell in enumerate(row, 1) if TIME_PATTERN.fullmatch(cell)]
    ids = [number for number, cell in enumerate(row, 1) if find_id(cell)]
    if ids and len(times) > 1:
        columns = f"youtube_id={ids[0]},time_start={times[0]},time_end={times[1]}"
        return f"it has no header: {seen}; use --columns {columns}"
    has = {r for r in LIST_ROLES[:3] if any(_spelling_of(_plain(name), r, keys) for name in row)}
    if ids or has == {"youtube_id"}:
        return f"it names videos without times of clips: {seen}; needed are {NEEDED}"
    missing = ", ".join(role for role in LIST_ROLES[:3] if role not in has)
    return f"the header has no {missing}: {seen}; needed are {NEEDED}"


# --- JSON ----------------------------------------------------------------------------------------


def _rows_of_json(path: Path, lines: Iterator[tuple[int, str]], keys: Keys) -> Iterator[Row]:
    """Yield the clips of one document, or of one per line."""
    count, unseen = 0, set(keys.given)
    for line, text in _documents(path, lines):
        try:
            document = json.loads(text)
            if isinstance(document, dict):
                document = document.get("database", document)
            for clip in _clips_in(document, {}, {}, 0.0, keys):
                count += 1
                unseen -= {role for role in unseen if clip.get(role)}
                yield _row_of(line, clip)
        except (ValueError, RecursionError) as error:
            problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
            if not line:
                raise UserError(f"list {path} is not JSON that can be read: {problem}") from error
            yield line, text, (), (), f"not JSON ({problem})"
    for role in unseen:
        raise UserError(f"--columns {role}={keys.given[role]}: no clip in {path} has this key")
    if not count:
        raise UserError(
            f"list {path} is JSON without clips: each needs the id of its video, and `segment`,"
            " `span` or `timestamps` with a start and an end in seconds"
        )


def _documents(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each document; one of many lines has line 0."""
    line, first = next(lines)
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        texts, size = [first], len(first)
        for _, text in lines:
            texts.append(text)
            if (size := size + len(text)) > MAX_JSON:
                raise UserError(f"list {path} has over {MAX_JSON:,} characters of JSON") from None
        yield 0, "\n".join(texts)
    else:
        yield line, first
        yield from lines


def _clips_in(
    node: Any, known: Mapping[str, str], roles: Mapping[str, str], offset: float, keys: Keys
) -> Iterator[dict[str, str]]:
    """Yield the clips in a part of a document. What an object says holds for all inside it.

    known: key -> text of the scalars of the objects around, and "" -> the key of the object that
    may name a video. roles: role -> its key in `known`. offset: the second that times count from.
    """
    if isinstance(node, list):
        for each in node:
            yield from _clips_in(each, known, roles, offset, keys)
    if not isinstance(node, dict):
        return
    known, roles = _with_scalars(node, known, roles, keys)
    spans = _spans(node, known, roles, offset, keys)
    if spans and "segments" in node:  # FineGym: the times inside an event count from its start
        offset = read_time(spans[0][0]) or 0.0
    has_id = "youtube_id" in roles or "youtube_id" in keys.given
    for key, value in node.items():
        below = known, roles
        if isinstance(value, dict) and not has_id and key not in CONTAINERS:
            below = {**known, "": key}, {**roles, **({"youtube_id": ""} if find_id(key) else {})}
        yield from _clips_in(value, *below, offset, keys)
    if any(key in node for key in CONTAINERS):
        return
    row = {"youtube_id": known.get("", "")} | {role: known[key] for role, key in roles.items()}
    more = {key: text for key, text in known.items() if key and key not in roles.values()}
    row |= {f"{key}_in_list" if key in row else key: text for key, text in more.items()}
    lists = {
        key.lower(): value  # ActivityNet Captions: a sentence for each span
        for key, value in node.items()
        if isinstance(value, list) and len(value) == len(spans) and _plain(key) not in keys.spans
    }
    for number, (start, end) in enumerate(spans):
        texts = {key: _text(value[number]) for key, value in lists.items()}
        yield row | texts | {"time_start": start, "time_end": end}


def _with_scalars(
    node: dict[str, Any], known: Mapping[str, str], roles: Mapping[str, str], keys: Keys
) -> tuple[dict[str, str], dict[str, str]]:
    """Return `known` and `roles` with what an object itself says."""
    scalars = {
        key.lower(): _text(value)
        for key, value in node.items()
        if isinstance(value, (str, int, float)) and key.lower() not in SPANS
    }
    mine = {}
    for role, spellings in keys.spellings.items():
        found = [key for key in scalars if _plain(key) in spellings]
        # An address without an id says nothing, and the `id` of a part is not the video's.
        if role == "youtube_id" and role not in keys.given:
            found = [key for key in found if find_id(scalars[key]) and role not in roles]
        if found:
            mine[role] = min(found, key=lambda key: spellings.index(_plain(key)))
    return {**known, **scalars}, {**roles, **mine}


def _spans(
    node: dict[str, Any],
    known: Mapping[str, str],
    roles: Mapping[str, str],
    offset: float,
    keys: Keys,
) -> list[tuple[str, str]]:
    """Return the (start, end) of each clip of an object, as texts."""
    spans: list[Any] = []
    for key, value in node.items():
        if value and isinstance(value, list) and _plain(key) in keys.spans:
            spans = value if isinstance(value[0], list) else [value]
    own = {key.lower() for key in node}
    start, end = (
        known[roles[role]] if roles.get(role) in own else None
        for role in ("time_start", "time_end")
    )
    if not spans and start is not None and (end is not None or keys.seconds is not None):
        spans = [[start, end]]
    pairs = [each if isinstance(each, list) and len(each) == 2 else ("", "") for each in spans]
    return [(_later(_text(start), offset), _later(_text(end), offset)) for start, end in pairs]
