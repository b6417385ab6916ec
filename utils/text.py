"""Make text safe for terminals and files: escape characters, hide secrets, format CSV lines.

File names, labels, and messages of servers and tools are not trusted. They are printed and written
through this module, so that none moves the cursor, changes a window's title, forges a line of a
report, or ends a run because its bytes are not UTF-8.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
from collections.abc import Iterable, Sequence

_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")


def escape(text: str) -> str:
    """`text`, safe to print: each unsafe character as the bytes that it has in UTF-8 (`\\x1b`).

    Unsafe is what Python calls not printable: control characters, what changes the direction of
    text, odd blanks, and the lone surrogates that stand for bytes that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _as_bytes(each) for each in text)


def _as_bytes(character: str) -> str:
    is_byte = "\udc80" <= character <= "\udcff"  # of a name that is not UTF-8
    data = character.encode("utf-8", errors="surrogateescape" if is_byte else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in data)


def escape_name(name: str | os.PathLike[str]) -> str:
    """A path for a report: as `escape`, and `unescape_name` gives exactly the same path again.

    A name that holds the text `\\x1b` itself is written with `\\x5c` for its backslash.
    """
    text = re.sub(r"\\(?=x[0-9a-f]{2})", r"\\x5c", os.fspath(name))
    return escape(text)


def unescape_name(text: str) -> str:
    """The path that `escape_name` wrote."""
    if "\\x" not in text:
        return text
    data = text.encode("utf-8", errors="surrogateescape")
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), data).decode(
        "utf-8", errors="surrogateescape"
    )


def printable(text: str, length: int = 120) -> str:
    """Text from outside in one line: escaped, and cut where it is longer than `length`."""
    text = escape(text)
    return text if len(text) <= length else text[: length - 3] + "..."


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as lines of CSV, exactly as they are: for lists that scripts read back."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def escaped_row(row: Iterable[object]) -> list[object]:
    """A row of a report: unsafe characters of its texts escaped, so that it stays one line."""
    return [escape(cell) if isinstance(cell, str) else cell for cell in row]


def without_formula(cell: object) -> object:
    """`'=cmd|...` of `=cmd|...`, escaped; numbers stay as they are."""
    if not isinstance(cell, str):
        return cell
    is_formula = _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{escape(cell)}" if is_formula else escape(cell)


_SECRET_WORD = r"token|secret|passw(?:or)?d|pwd|auth|sig|signature|key|credential|session|jwt"
_SECRETS = (
    # user:password@ and TOKEN@ of an address. A password may hold a slash or a quote, so all is
    # hidden up to the last @ of the word.
    (re.compile(r"(://[^/@\s:'\"]*):\S*@"), r"\1:***@"),
    (re.compile(r"(://)(?![^\s:]*:\*\*\*@)\S*@"), r"\1***@"),
    (re.compile(r"((?<![\w-])(?:--[\w-]*(?:password|twofactor)|-p|-2)[ =])[^\s'\"]+"), r"\1***"),
    # `-pSECRET` of yt-dlp; ffmpeg has options that begin so, too.
    (re.compile(r"(?<![\w-])(-p)(?!ix_fmt|reset|ro|ass|snr|rint)[^\s'\"=]+"), r"\1***"),
    (re.compile(rf"\b([\w.-]*(?:{_SECRET_WORD})=)[^\s&;'\"#]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b((?:visitor_data|data_sync_id)=)[^\s&;'\"#]+"), r"\1***"),
    (
        re.compile(
            r"(\b(?:(?:Proxy-)?Authorization|(?:Set-)?Cookie|X-[\w-]+|[\w-]*Api-?Key) ?: ?)[^'\"]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
)
_SECRET_VALUE = re.compile(rf"([\w.-]*(?:{_SECRET_WORD})=)[^&;#]+", re.IGNORECASE)
_SECRET_OPTION = re.compile(r"--[\w-]*(?:password|twofactor)|-p|-2|--ytdlp-args|--add-headers?")
_HARMLESS_HEADERS = ("user-agent", "referer", "accept", "accept-language", "origin")


def hide_secrets(text: str) -> str:
    """Passwords, tokens and cookies as `***`, wherever they stand in a text.

    Of a command line whose arguments are known, `command_line` hides more.
    """
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def shown(text: str) -> str:
    """One line of text as it may be printed: secrets hidden, unsafe characters escaped."""
    return escape(hide_secrets(text))


def command_line(words: Sequence[str]) -> str:
    """A command line as it is typed in a shell, secrets hidden, also in --ytdlp_args."""
    return shlex.join(_without_secrets(words))


def _without_secrets(words: Sequence[str]) -> list[str]:
    shown: list[str] = []
    before = ""
    for word in words:
        name, equals, value = word.partition("=")
        option, start, text = before, "", word
        if equals and not _SECRET_OPTION.fullmatch(before):  # --option=value
            option, start, text = name.replace("_", "-"), f"{name}=", value
        if option == "--ytdlp-args":
            word = start + _hide_inner(text)
        elif option in ("--add-header", "--add-headers"):
            word = start + _hide_header(text)
        elif _SECRET_OPTION.fullmatch(option):
            word = f"{start}***"
        elif re.match(r"-[p2][^-]", word):
            word = f"{word[:2]}***"
        else:
            word = re.sub(r"(://[^/@:]*:|://).*@", r"\1***@", word, flags=re.DOTALL)
            word = hide_secrets(_SECRET_VALUE.sub(r"\1***", word))
        shown.append(word)
        before = "" if equals else word.replace("_", "-")
    return shown


def _hide_inner(value: str) -> str:
    try:
        return shlex.join(_without_secrets(shlex.split(hide_secrets(value))))
    except ValueError:  # a quote without its other: no words
        return hide_secrets(value)


def _hide_header(value: str) -> str:
    name, colon, _ = value.partition(":")
    harmless = name.strip().lower() in _HARMLESS_HEADERS
    return value if harmless or not colon else f"{name}:***"
