"""Open a list of YouTube clips, recognise its format, and return its rows as text.

There are three families: a table with a header, a table without one that its first row gives away,
and JSON (one document, or one a line). A file that can be no list of clips is refused with the
reason. Everything in a list is a stranger's text; `reading` checks it.
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
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import urlsplit

from utils.clip import ID_PATTERN, TIME_PATTERN
from utils.errors import UserError
from utils.files import open_regular
from utils.text import printable

MAX_LINE = 1 << 21  # characters of a table's row; Panda-70M has cells of 128 KiB and more
MAX_JSON = 1 << 29  # characters of one document; the largest official one has 100 million
ROLES = ("youtube_id", "time_start", "time_end", "label", "split")
# The columns of published lists by role, as `_plain` leaves them; of several, the first counts.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "youtube_id": ("youtubeid", "videoid", "ytid", "ytvideoid", "vid", "youtubekey", "videourl",
                   "youtubeurl", "url", "link", "id"),
    "time_start": ("timestart", "starttime", "start", "starttimestamp", "kineticsstart",
                   "segmentstart", "tstart", "begin", "begintime"),
    "time_end": ("timeend", "endtime", "end", "endtimestamp", "kineticsend", "segmentend", "tend",
                 "stop", "stoptime"),
    "label": ("classname", "labelname", "label", "positivelabels", "labels", "class", "action"),
    "split": ("split", "subset", "set", "partition"),
}  # fmt: skip
SEVERAL_LABELS = ("positivelabels", "labels")  # columns of labels with commas between them
SPANS = ("segment", "span", "timestamp", "timestamps")  # [start, end], or a list of these
UNITS = {"seconds": 1.0, "secs": 1.0, "sec": 1.0, "s": 1.0, "ms": 1000.0, "msec": 1000.0,
         "millis": 1000.0, "milliseconds": 1000.0, "frame": 0.0}  # fmt: skip
CONTAINERS = ("annotations", "annotation", "clips", "clip", "segments")
VGGSOUND_SECONDS = 10.0
NEEDED = "youtube_id,time_start,time_end, or --columns youtube_id=NAME,time_start=NAME,..."
SPLIT_WORDS = ("train", "training", "val", "valid", "validate", "validation", "test", "testing")
YOUTUBE_URL = re.compile(
    r"(?:https?:)?(?://)?(?:(?:www|m|music)\.)?(?:youtu\.be/|youtube(?:-nocookie)?\.com/"
    rf"(?:watch/?\?(?:[^#\s]*&)?v=|(?:embed|shorts|live|v)/))({ID_PATTERN.pattern})(?![\w-])",
    re.ASCII | re.IGNORECASE,
)
CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2}(?:[.,]\d{1,30})?)", re.ASCII)
VGGSOUND_FILE = re.compile(rf"({ID_PATTERN.pattern})_(\d{{6}})\.mp4", re.ASCII)

Row = tuple[int, list[Any], str]  # line (0: none), fields, what is wrong with them


class OpenList(NamedTuple):
    """A list under way. `columns` names its fields: ROLES, "*" for an `Extra`, or the list's own.

    `form` is for people. `seconds`: the length of clips that have a start only; `per_second`: how
    many units of its times make a second; `stated`: a person named its columns.
    """

    form: str
    columns: Sequence[str]
    rows: Iterator[Row]
    seconds: float | None = None
    per_second: float = 1.0
    several_labels: bool = False
    stated: bool = False


def open_list(
    path: Path, columns: Mapping[str, str] | None = None, clip_seconds: float | None = None
) -> OpenList:
    """Open a list and recognise its form. Raises UserError for what is no list of clips.

    columns: role -> the list's own name for it, or its number from 1 where there is no header.
    """
    csv.field_size_limit(MAX_LINE)
    given = columns or {}
    encoding, is_json = _look_at_start(path)
    lines = _lines(path, encoding, MAX_JSON if is_json else MAX_LINE)
    if is_json:
        rows = _rows_of_json(path, lines, JsonKeys.of(given, clip_seconds))
        return OpenList("JSON", (*ROLES, "*"), rows, stated=True)
    opened = _open_table(path, lines, given)
    form, seconds = opened.form, opened.seconds if clip_seconds is None else clip_seconds
    if "time_end" not in opened.columns:
        if seconds is None:
            raise UserError(
                f"{path} gives no time_end ({form}): name its column with --columns"
                " time_end=NAME, or give --clip_seconds N"
            )
        form += f"; clips of {seconds:g} s"
    return opened._replace(form=form, seconds=seconds, stated=bool(given))


def find_id(text: str) -> str:
    """The YouTube id that a text gives: 11 characters, `v_` and 11, or an address; "" if none."""
    text = text.strip().removeprefix("'")  # which keeps a spreadsheet from making a formula of it
    if ID_PATTERN.fullmatch(text):
        return text
    if text.startswith("v_") and ID_PATTERN.fullmatch(text[2:]):
        return text[2:]
    found = YOUTUBE_URL.match(text)
    return found[1] if found else ""


def wrong_id(text: str) -> str:
    """Why a text gives no YouTube id."""
    host = urlsplit(text).netloc if re.match(r"https?://[^\[\]]+$", text) else ""
    if host:
        return f"{printable(host, 60)} is not the address of a YouTube video"
    return "youtube_id must be 11 characters from A-Z a-z 0-9 _ -"


def read_time(text: str) -> float | None:
    """Seconds, of `12`, `12.345` or `1:02:03.456`; None for what is no time (exponents, `nan`)."""
    if TIME_PATTERN.fullmatch(text):
        return float(text)
    if found := CLOCK.fullmatch(text):
        hours, minutes, seconds = found.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
    decimal = text.replace(",", ".", 1)
    return float(decimal) if TIME_PATTERN.fullmatch(decimal) else None


def _look_at_start(path: Path) -> tuple[str, bool]:
    """(encoding, whether it is JSON). Raises UserError for a file of another kind."""
    try:
        with _open(path) as file:
            start = file.read(1 << 12)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    kinds = {b"PK\x03\x04": "a spreadsheet or a ZIP archive", b"\xd0\xcf\x11\xe0": "a spreadsheet",
             b"%PDF": "a PDF", b"<": "a web page or XML"}  # fmt: skip
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    for mark, kind in kinds.items():
        if text.startswith(mark):
            raise UserError(f"list {path} is {kind}: save it as CSV, in UTF-8")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", start.decode("utf-16", errors="replace").lstrip()[:1] in ("{", "[")
    if start.count(0) > len(start) // 10:
        raise UserError(f"list {path} is not UTF-8 text: save it as UTF-8")
    return "utf-8-sig", text[:1] in (b"{", b"[")


def _open(path: Path) -> BinaryIO:
    file = open_regular(path)
    if file.read(2) == b"\x1f\x8b":
        file.seek(0)
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    file.seek(0)
    return file


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, UnicodeDecodeError):
        return UserError(f"list {path} is not UTF-8 text: save it as UTF-8")
    return UserError(f"list {path} cannot be read: {getattr(error, 'strerror', None) or error}")


def _lines(path: Path, encoding: str, longest: int) -> Iterator[tuple[int, str]]:
    """(number, text) of every line that is not blank. Raises UserError."""
    try:
        with io.TextIOWrapper(_open(path), encoding, newline="") as file:
            for number, raw in enumerate(iter(lambda: file.readline(longest), ""), 1):
                if len(raw) == longest:
                    raise UserError(f"{path}:{number}: a line without end: this is not a list")
                text = raw.rstrip("\r\n")
                if text and not text.isspace():
                    yield number, text
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _open_table(path: Path, lines: Iterator[tuple[int, str]], given: Mapping[str, str]) -> OpenList:
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
    rest = chain([(line, text)], lines)
    is_numbered = bool(given) and all(map(str.isdecimal, given.values()))
    for head, below in () if is_numbered else ((text, lines), (comment, rest)):
        for delimiter in delimiters if head else "":
            row, problem = _split(head, delimiter)
            if problem:
                raise UserError(f"list {path} is {problem}: it needs a header line and rows")
            if opened := _with_header(path, line, row, _table_rows(below, delimiter), given):
                return opened
    splits = [_split(text, delimiter)[0] for delimiter in delimiters]
    for delimiter, row in zip(delimiters, splits, strict=True) if is_numbered or not given else ():
        if looks_like_annotations(row) and not given:
            raise UserError(
                f"{path}:{line}: AVA-Kinetics annotation file, not a list: run"
                " make_ava_kin_download_csv.py and use the list that it writes"
            )
        if opened := _without_header(row, _table_rows(rest, delimiter), given):
            return opened
    raise UserError(f"{path}:{line}: {_why_no_list(max(splits, key=len), given)}")


def _split(text: str, delimiter: str) -> tuple[list[str], str]:
    """The fields of a line, and what is wrong with it."""
    row, problem = [text], ""
    if '"' in text:
        try:
            row = next(csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=True))
        except csv.Error as error:
            problem = f"not a CSV row ({error})"
    else:
        row = text.split(delimiter)
    # Labels hold spaces; only space beside a delimiter or at an end is no part of a field.
    if f"{delimiter} " in text or f" {delimiter}" in text or "\t" in text or text != text.strip():
        row = [part.strip() for part in row]
    return row, problem


def _table_rows(lines: Iterable[tuple[int, str]], delimiter: str) -> Iterator[Row]:
    """Line by line, and not with one csv.reader over the file: a single stray quote would swallow
    every row up to the next one, and the line numbers with them. No list has a field of two lines.
    """
    quote, before, after = '"', f"{delimiter} ", f" {delimiter}"
    for line, text in lines:
        if quote in text or before in text or after in text or "\t" in text or text[0] == " ":
            row, problem = _split(text, delimiter)
            yield line, row, problem
        else:
            yield line, text.rstrip().split(delimiter), ""


def _plain(name: str) -> str:
    return re.sub(r"[-_\s().\[\]]", "", name.casefold())


def _unit(name: str, role: str) -> tuple[int, float] | None:
    """(rank, units in a second) of a column's name for a role; None if it is not one of its."""
    spellings = SPELLINGS[role]
    if name in spellings:
        return spellings.index(name), 1.0
    for unit, per_second in UNITS.items() if role.startswith("time") else ():
        stem = name.removesuffix("s" if unit == "frame" else "").removesuffix(unit)
        stem = name.removeprefix(unit) if name.startswith("frame") else stem
        if stem in spellings:
            return spellings.index(stem), per_second
    return None


def _with_header(
    path: Path, line: int, header: list[str], rows: Iterator[Row], given: Mapping[str, str]
) -> OpenList | None:
    """The list below a header, if that has what a list needs."""
    plain = [_plain(name) for name in header]
    if any(_plain(name) not in plain for name in given.values()):
        return None
    roles = {plain.index(_plain(name)): role for role, name in given.items()}
    per_second = 1.0
    for role in ROLES:
        ranked = [(*unit, at) for at, name in enumerate(plain) if (unit := _unit(name, role))]
        if role not in given and ranked:
            rank, units, at = min(ranked)
            if [each[0] for each in ranked].count(rank) > 1:
                raise UserError(f"{path}:{line}: the header names {header[at]} twice")
            roles.setdefault(at, role)
            if role == "time_start" and units == 0:
                raise UserError(
                    f"{path}:{line}: {header[at]} counts frames, and a clip's times are seconds:"
                    " divide by the rate of each video"
                )
            per_second = units if role == "time_start" else per_second
    spans = [at for at, name in enumerate(plain) if name in SPANS]
    is_span = bool(spans) and "time_start" not in roles.values()
    if is_span:
        roles[spans[0]] = "time_start"
        rows = _spread(rows, spans[0])
    found = {role: header[at] for at, role in sorted(roles.items())}
    if not {"youtube_id", "time_start"} <= found.keys():
        return None
    columns = [
        roles.get(at) or (f"{name}_in_list" if name in found else name)
        for at, name in enumerate(map(str.lower, header))
    ]
    several = _plain(found.get("label", "")) in SEVERAL_LABELS
    named = [role if name.lower() == role else f"{role}={name}" for role, name in found.items()]
    form = f"table with columns {printable(', '.join(named))}"
    columns += ["time_end"] if is_span else []
    return OpenList(form, columns, rows, None, per_second, several)


def _spread(rows: Iterator[Row], span_at: int) -> Iterator[Row]:
    """The clips of rows whose cells are Python lists: one span of times each, its caption, score"""
    for line, row, problem in rows:
        if problem or span_at >= len(row):
            yield line, [*row, ""], problem
            continue
        cells = {at: _python_list(cell) for at, cell in enumerate(row) if cell.startswith("[")}
        spans = cells.get(span_at) or []
        if len(spans) == 2 and not any(isinstance(each, list) for each in spans):
            spans = [spans]
        if not spans:
            yield line, [*row, ""], "its times are not a list of [start, end]"
        for number, span in enumerate(spans):
            one = [
                _text(cells[at][number]) if len(cells.get(at, ())) == len(spans) else cell
                for at, cell in enumerate(row)
            ]
            is_span = isinstance(span, (list, tuple)) and len(span) == 2
            one[span_at], end = map(_text, span) if is_span else ("", "")
            yield line, [*one, end], ""


def _python_list(cell: str) -> list[Any]:
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    """A value of JSON or of a Python list as a table would write it."""
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return value if isinstance(value, str) else "" if value is None else str(value)


def _without_header(
    row: Sequence[str], rows: Iterator[Row], numbered: Mapping[str, str]
) -> OpenList | None:
    """The list whose first row this is, if that has a known shape."""
    columns = [f"column_{number}" for number in range(1, len(row) + 1)]
    times = [read_time(field) for field in row]
    if numbered:
        for role, number in numbered.items():
            if 1 <= int(number) <= len(row):
                columns[int(number) - 1] = role
        if not {"youtube_id", "time_start"} <= set(columns):
            return None
    elif len(row) == 2 and VGGSOUND_FILE.fullmatch(row[0]):
        columns, rows = ["youtube_id", "time_start", "label"], _vggsound_files(rows)
    elif len(row) < 3 or not find_id(row[0]) or times[1] is None:
        return None
    elif len(row) == 5 and None not in times[1:]:  # AVSpeech: where the face is
        columns = ["youtube_id", "time_start", "time_end", "x", "y"]
    else:
        columns[:2] = "youtube_id", "time_start"
        rest = range(2, len(row))
        if times[2] is not None:
            columns[2], rest = "time_end", rest[1:]
        for at in rest:
            if row[at].lower() in SPLIT_WORDS and "split" not in columns:
                columns[at] = "split"
            elif times[at] is None and "label" not in columns:
                columns[at] = "label"
    is_vggsound = len(columns) > len(row) or {"label", "split"} <= set(columns)
    seconds = VGGSOUND_SECONDS if is_vggsound else None
    return OpenList(f"table without a header: {', '.join(columns)}", columns, rows, seconds)


def _vggsound_files(rows: Iterator[Row]) -> Iterator[Row]:
    for line, row, problem in rows:
        found = VGGSOUND_FILE.fullmatch(row[0])
        yield line, [*(found.groups() if found else (row[0], "")), *row[1:]], problem


def looks_like_annotations(row: Sequence[str]) -> bool:
    """Whether a first line is data of the AVA-Kinetics annotations: `id,timestamp[,...]`."""
    return (
        len(row) in (2, 7)
        and ID_PATTERN.fullmatch(row[0]) is not None
        and TIME_PATTERN.fullmatch(row[1]) is not None
    )


def _why_no_list(row: Sequence[str], given: Mapping[str, str]) -> str:
    """Why a table is no list: its first row is neither a header nor a clip."""
    seen = f"it reads {printable(','.join(row))}"
    if given:
        named = ",".join(f"{role}={name}" for role, name in given.items())
        return f"no youtube_id and time_start with --columns {named}: {seen}"
    if find_id(row[0]) == "" and "://" in row[0]:
        return f"{wrong_id(row[0])}; {seen}"
    times = [number for number, cell in enumerate(row, 1) if TIME_PATTERN.fullmatch(cell)]
    ids = [number for number, cell in enumerate(row, 1) if find_id(cell)]
    if ids and len(times) > 1:
        columns = f"youtube_id={ids[0]},time_start={times[0]},time_end={times[1]}"
        return f"it has no header: {seen}; give --columns {columns}"
    plain = [_plain(name) for name in row]
    has = {r for r in ROLES[:3] if any(_unit(name, r) for name in plain)}
    if find_id(row[0]) or has == {"youtube_id"}:
        return f"it names videos without times of clips: {seen}; needed are {NEEDED}"
    missing = ", ".join(role for role in ROLES[:3] if role not in has)
    return f"the header has no {missing}: {seen}; needed are {NEEDED}"


class JsonKeys(NamedTuple):
    """Where a document's objects have what a list needs.

    given: role -> the key that a person named for it. spans: keys of [start, end]. seconds: the
    length of clips that have a start only.
    """

    given: Mapping[str, str]
    spellings: Mapping[str, tuple[str, ...]]
    spans: Sequence[str]
    seconds: float | None

    @classmethod
    def of(cls, columns: Mapping[str, str], seconds: float | None) -> JsonKeys:
        named = {role: (_plain(name),) for role, name in columns.items()}
        return cls(columns, SPELLINGS | named, named.get("time_start", SPANS), seconds)


def _rows_of_json(path: Path, lines: Iterator[tuple[int, str]], keys: JsonKeys) -> Iterator[Row]:
    """Rows of [*ROLES, extra] of one document, or of one a line."""
    documents = lines
    line, first = next(lines, (0, ""))
    try:
        json.loads(first)
        documents = chain([(line, first)], lines)
    except (ValueError, RecursionError):
        texts, size = [first], 0
        for _, text in lines:
            texts.append(text)
            if (size := size + len(text)) > MAX_JSON:
                raise UserError(f"list {path} has over {MAX_JSON:,} characters of JSON") from None
        documents = iter([(0, "\n".join(texts))])
    count, unseen = 0, {*keys.given}
    for line, text in documents:
        try:
            for row in _clips_in(json.loads(text), {}, {}, 0.0, keys):
                count += 1
                if unseen:
                    unseen = {role for role in unseen if not row[ROLES.index(role)]}
                yield line, row, ""
        except (ValueError, RecursionError) as error:
            problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
            if not line:
                raise UserError(f"list {path} is not JSON that can be read: {problem}") from error
            yield line, [printable(text), "", "", "", "", ()], f"not JSON ({problem})"
    for role in unseen:
        raise UserError(f"--columns {role}={keys.given[role]}: no clip in {path} has this key")
    if not count:
        raise UserError(
            f"list {path} is JSON without clips: each needs the id of its video, and `segment`,"
            " `span` or `timestamps` with a start and an end in seconds"
        )


def _clips_in(
    node: Any, known: Mapping[str, str], roles: Mapping[str, str], offset: float, keys: JsonKeys
) -> Iterator[list[Any]]:
    """The clips in a part of a document. What an object says holds for all that is inside it.

    known: key -> text of all scalars on the way; roles: which of these keys are ROLES. offset: the
    second that times count from.
    """
    if isinstance(node, list):
        for each in node:
            yield from _clips_in(each, known, roles, offset, keys)
        return
    if not isinstance(node, dict):
        return
    node = node.get("database", node) if not known else node
    if not isinstance(node, dict):
        return
    known, roles = _with_scalars(node, known, roles, keys)
    spans = _spans(node, known, roles, keys)
    # FineGym: the times inside of an event count from its start.
    inner = offset + (read_time(spans[0][0]) or 0.0) if spans and "segments" in node else offset
    for key, value in node.items():
        below = known, roles
        is_id = "youtube_id" not in roles and "youtube_id" not in keys.given
        if isinstance(value, dict) and is_id and key not in CONTAINERS:
            below = {**known, "": key}, {**roles, **({"youtube_id": ""} if find_id(key) else {})}
        yield from _clips_in(value, *below, inner, keys)
    if any(key in node for key in CONTAINERS):
        return
    told = {role: known[key] for role, key in roles.items()}
    for number, (start, end) in enumerate(spans):
        extra = {key: text for key, text in known.items() if key and key not in roles.values()}
        for key, value in node.items():  # ActivityNet Captions: a sentence beside each span
            if (
                isinstance(value, list)
                and len(value) == len(spans)
                and _plain(key) not in keys.spans
            ):
                extra[key.lower()] = _text(value[number])
        if (
            offset
            and (first := read_time(start)) is not None
            and (last := read_time(end)) is not None
        ):
            start, end = _text(offset + first), _text(offset + last)
        youtube_id = told.get("youtube_id", known.get("", ""))
        row = [youtube_id, start, end, told.get("label", ""), told.get("split", "")]
        yield [*row, tuple(extra.items())]


def _with_scalars(
    node: dict[str, Any], known: Mapping[str, str], roles: Mapping[str, str], keys: JsonKeys
) -> tuple[dict[str, str], dict[str, str]]:
    """`known` and `roles` with what an object itself says."""
    scalars = {
        key.lower(): _text(value)
        for key, value in node.items()
        if isinstance(value, (str, int, float)) and key.lower() not in SPANS
    }
    mine = {}
    for role, spellings in keys.spellings.items():
        found = [key for key in scalars if _plain(key) in spellings]
        # An address says nothing new, and the `id` of a part is its own.
        if role == "youtube_id" and role not in keys.given:
            found = [key for key in found if find_id(scalars[key])] if role not in roles else []
        if found:
            mine[role] = min(found, key=lambda key: spellings.index(_plain(key)))
    return {**known, **scalars}, {**roles, **mine}


def _spans(
    node: dict[str, Any], known: Mapping[str, str], roles: Mapping[str, str], keys: JsonKeys
) -> list[tuple[str, str]]:
    """The (start, end) that an object gives, as text."""
    for key, value in node.items():
        if _plain(key) in keys.spans and isinstance(value, list) and value:
            spans = value if isinstance(value[0], list) else [value]
            pairs = [each if isinstance(each, list) and len(each) == 2 else ("", "")
                     for each in spans]  # fmt: skip
            return [(_text(start), _text(end)) for start, end in pairs]
    start, end = roles.get("time_start", ""), roles.get("time_end", "")
    here = {key.lower() for key in node}
    if start in here and end in here:
        return [(known[start], known[end])]
    if (
        start in here
        and keys.seconds is not None
        and (first := read_time(known[start])) is not None
    ):
        return [(known[start], _text(first + keys.seconds))]
    return []
