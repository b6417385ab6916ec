"""Command lines: the parser, argument types, printing, one-line errors, escaping of text.

A script makes its parser here, and its `main` runs inside `run_script`, which turns a `UserError`
into one line on stderr and exit code 2.

File names, labels, and messages of servers and tools are not trusted. They are printed and written
through the functions at the end, so that none moves the cursor, changes a window's title, forges a
line of a report, or ends a run because its bytes are not UTF-8.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from clipreader import VERSION
from utils.errors import UserError, problem_of, version_line
from utils.process import Stopped, catch_signals, received_signal

Tell = Callable[[str], None]  # says a line
Value = TypeVar("Value")

LIST_ROLES = ("youtube_id", "time_start", "time_end", "label", "split")  # columns that are used

EXIT_OK = 0  # all wanted clips are on disk
EXIT_INCOMPLETE = 1  # finished, and some are missing: the report says which and why
EXIT_USAGE = 2  # bad usage, bad list, missing tool, disk full

# The order of the groups of options in every --help; a script's own groups have number 0.
_PLACES = {"positional arguments": -3, "options": -3, "which clips": -2, "where from": -1}
_PLACES |= {"how to run": 1, "general": 2, "rarely needed": 3}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as written and ends every option's help with its default."""

    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size().columns
        super().__init__(prog, width=max(40, min(columns, 80)) - 1)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if not action.option_strings or action.required or "default" in text or action.nargs == 0:
            return text
        if action.default is argparse.SUPPRESS or action.default in (None, "", [], ()):
            return text
        return f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser in which `--input-csv` is `--input_csv`, and nothing is abbreviated.

    `text_options` take a value that may begin with `-` (`--ytdlp_args "--limit-rate 1M"`).
    """

    def __init__(self, *, text_options: Sequence[str] = (), **kwargs: Any) -> None:
        self.text_options = text_options
        self._words: list[str] = []
        super().__init__(formatter_class=_Help, allow_abbrev=False, **kwargs)

    def group(self, title: str) -> argparse._ArgumentGroup:
        """Return the group of options with that title, made if there is none yet."""
        found = [group for group in self._action_groups if group.title == title]
        return found[0] if found else self.add_argument_group(title)

    def format_help(self) -> str:
        self._action_groups.sort(key=lambda group: _PLACES.get(group.title or "", 0))
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = list(self._spell(iter(sys.argv[1:] if args is None else args)))
        return super().parse_known_args(self._words, namespace)

    def _spell(self, words: Iterator[str]) -> Iterator[str]:
        """Yield the words as argparse reads them. Ends the script at an unknown option."""
        for word in words:
            if word == "--":
                yield from (word, *words)
                break
            name, equals, value = word.partition("=")
            if word.startswith("--"):
                name = "--" + name[2:].replace("-", "_")
                following = None if equals or name not in self.text_options else next(words, None)
                if following is not None:
                    equals, value = "=", following
            self._check_option(name, word)
            yield name + equals + value

    def _check_option(self, name: str, word: str) -> None:
        """End the script with an error if `word` looks like an option and is none."""
        known = self._option_string_actions
        if name in known or name[:1] != "-" or re.fullmatch("-[0-9.]*", name):
            return
        is_short = name[:2] != "--"
        if is_short and (os.path.lexists(word) or re.search(r"[./]", word)):
            self.error(f"{word}: no such option; if it is a file or a folder, write ./{word}")
        if not is_short or name[:2] not in known:
            near = difflib.get_close_matches(name, known, 1)
            self.error(f"{name}: no such option" + (f"; did you mean {near[0]}?" if near else ""))

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (?:-[^ :]*/)?(--\w+|\S+?): ", r"\1: ", message)
        message = message.replace(": must ", " must ", 1)  # of a type made by `must`
        known = self._option_string_actions
        greedy = [word for word in self._words if word in known and known[word].nargs == "+"]
        if greedy and re.search("arguments are required|folder is missing", message):
            message += f"; words after {greedy[-1]} are read as its values: put the folder first"
        text = f"{self.prog}: error: {message} (see {self.prog} --help)"
        self.exit(EXIT_USAGE, shown(text) + "\n")


class _Version(argparse.Action):
    """Looks the versions up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"{parser.prog} {version_line(VERSION)}")
        parser.exit(EXIT_OK)


def make_parser(doc: str, *, text_options: Sequence[str] = ()) -> Parser:
    """Return a parser whose --help shows the script's own docstring, as it is written."""
    summary, _, examples = doc.strip().partition("\n\n")
    parser = Parser(description=summary, epilog=examples, text_options=text_options)
    group = parser.group("general")
    group.add_argument("--version", action=_Version, nargs=0, help="print versions and exit")
    group.add_argument("-q", "--quiet", action="store_true", help="print only errors")
    group.add_argument("-v", "--verbose", action="store_true", help="print more about each clip")
    return parser


def add_shared(group: argparse._ActionsContainer, *names: str) -> None:
    """Add options that mean the same in several scripts (`_SHARED`), by name."""
    for name in names:
        group.add_argument(*_ALIASES.get(name, ()), name, dest=name[2:], **_SHARED[name])


def cpu_count() -> int:
    """Return the number of cores that this process may use (cluster jobs may not use all)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def matching(pattern: str, convert: Callable[[str], Value], what: str) -> Callable[[str], Value]:
    """Return an argparse type for texts of that pattern."""

    def parse(text: str) -> Value:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return convert(text)

    return parse


# Their lengths are limited because ffmpeg holds 32 bits, and Fraction("1e999999999") takes minutes.
positive_int = matching("(?=.*[1-9])[0-9]{1,9}", int, "a whole number above 0")
non_negative_int = matching("[0-9]{1,18}", int, "a whole number, 0 or above")
_DECIMAL = r"[0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}"
non_negative_float = matching(_DECIMAL, float, "a number from 0 on")
_RATE = r"[0-9]{1,9}(?:\.[0-9]{1,9}|/[1-9][0-9]{0,8})?"  # 0 stands for the clip's own rate
frame_rate = matching(_RATE, Fraction, "a rate such as 30, 12.5 or 30000/1001")
_TRIM_FORMAT = r"%0?[0-9]{0,2}(?:d|\.[0-9]{1,3}f)"  # one printf conversion, and nothing else
trim_format = matching(_TRIM_FORMAT, str, "a format such as %06d or %010.3f")


def must(
    rule: str, is_good: Callable[[Value], object], convert: Callable[[str], Value]
) -> Callable[[str], Value]:
    """Return an argparse type for values that pass a test; `rule` says what they must be or do."""

    def parse(text: str) -> Value:
        value = convert(text)
        if not is_good(value):
            end = str(value).rpartition("@")[2]  # a password may precede a host
            raise argparse.ArgumentTypeError(f"must {rule} (got {end})")
        return value

    return parse


web_address = must("start with http:// or https://", re.compile("https?://.").match, str)


def named_columns(text: str) -> dict[str, str]:
    """Parse an argument: `youtube_id=Clip,time_start=From`."""
    found = dict(part.partition("=")[::2] for part in text.split(","))
    for role, name in found.items():
        if role not in LIST_ROLES or not name.strip():
            roles = ", ".join(LIST_ROLES)
            raise argparse.ArgumentTypeError(f"{role!r} is not ROLE=NAME with a role of {roles}")
    return {role: name.strip() for role, name in found.items()}


_ALIASES = {"--num_jobs": ("-n", "-j", "--n")}
_SHARED: dict[str, dict[str, Any]] = {}


def _share(name: str, **settings: Any) -> None:
    """Define an option for `add_shared`."""
    _SHARED[name] = settings


_text = "keep only these labels, case-insensitive (default: all)"
_share("--label", nargs="+", default=[], metavar="LABEL", help=_text)
_text = "keep only these splits; val is also validate (default: all)"
_share("--split", nargs="+", default=[], metavar="SPLIT", help=_text)
_text = (
    "lists (CSV, TSV, JSON; .gz too), folders of lists, or names of official lists such as"
    " kinetics-400_val (default: the twelve official lists)"
)
_share("--input_csv", nargs="+", type=Path, metavar="LIST", help=_text)
_text = (
    "columns of a list that is not recognised, as youtube_id=Clip,time_start=From; numbers from 1"
    " if it has no header"
)
_share("--columns", type=named_columns, metavar="ROLE=NAME,...", help=_text)
_text = "length of the clips of a list that gives only their start"
_share("--clip_seconds", type=non_negative_float, metavar="N", help=_text)
_text = (
    "times in file names (default: %%06d, or %%010.3f if two clips of the lists would have the same"
    " name)"
)
_share("--trim_format", type=trim_format, metavar="FORMAT", help=_text)
_text = "server of the official lists (default: DeepMind's, then CVDF's)"
_share("--lists_base", type=web_address, metavar="URL", help=_text)
_share("--limit", type=positive_int, metavar="N", help="keep the first N clips")
_share("--dry_run", action="store_true", help="print the plan and exit")
_text = "number of parallel jobs (default: the number of cores, here %(default)s)"
_share("--num_jobs", type=positive_int, metavar="N", default=cpu_count(), help=_text)
_share("--ffmpeg", metavar="FILE", help="ffmpeg to use (default: imageio-ffmpeg's)")


def existing_folder(path: Path, what: str) -> Path:
    """Return the absolute path of an existing folder. Raises UserError, which says `what` it is."""
    if not path.is_dir():
        raise UserError(f"{what} {path} does not exist, or is not a folder")
    return path.absolute()


def say(text: str = "") -> None:
    """Print one line to stderr: secrets hidden, control characters escaped.

    Standard output carries data only. A closed terminal is no error.
    """
    with suppress(OSError):
        print(shown(text), file=sys.stderr, flush=True)


def teller(quiet: bool) -> Tell:
    """Return `say`, or with --quiet a function that prints nothing."""
    return (lambda text: None) if quiet else say


def plural(count: int, noun: str) -> str:
    """Return `1 clip`, `2,000 clips`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def size_text(size: float) -> str:
    """Return a number of bytes as `1.2 GB` or `3.4 MB`."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def clock(seconds: float) -> str:
    """Return a duration as people read it: `0:01:40`, `2 days, 3:00:00`."""
    return str(timedelta(seconds=round(seconds)))


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and exit with its code; no traceback for what a user can fix."""
    catch_signals()
    try:
        code = main()
    except Stopped:
        code = 128 + received_signal()
    except BrokenPipeError:
        # `| head` closed stdout: not an error of ours. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except Exception as error:
        problem = problem_of(error)
        if not problem:
            raise
        say(f"error: {problem}")
        code = EXIT_USAGE
    sys.exit(code)


# --- text from outside ---------------------------------------------------------------------------

_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")


def escape(text: str) -> str:
    """Return a text with the UTF-8 bytes (`\\x1b`) of each character that is unsafe to print.

    Unsafe are all that Python calls not printable: control characters, those that change the
    direction of text, odd blanks, and lone surrogates, which stand for bytes that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _as_bytes(each) for each in text)


def _as_bytes(character: str) -> str:
    is_byte = "\udc80" <= character <= "\udcff"  # of a name that is not UTF-8
    data = character.encode("utf-8", errors="surrogateescape" if is_byte else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in data)


def escape_name(name: str | os.PathLike[str]) -> str:
    """Escape a path for a report, in which no other path is written the same way.

    A name that holds the text `\\x1b` itself is written with `\\x5c` for its backslash.
    """
    text = re.sub(r"\\(?=x[0-9a-f]{2})", r"\\x5c", os.fspath(name))
    return escape(text)


def printable(text: str, length: int = 120) -> str:
    """Return text from outside in one line: escaped, and cut to `length`."""
    text = escape(text)
    return text if len(text) <= length else text[: length - 3] + "..."


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as lines of CSV, unescaped, because scripts read them back."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def escaped_row(row: Iterable[object]) -> list[object]:
    """Escape the texts of a row of a report, so that it stays one line."""
    return [escape(cell) if isinstance(cell, str) else cell for cell in row]


def without_formula(cell: object) -> object:
    """Escape a cell, with `'` before a formula (`=cmd|...`); numbers stay as they are."""
    if not isinstance(cell, str):
        return cell
    is_formula = _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{escape(cell)}" if is_formula else escape(cell)


_SECRET_WORD = r"token|secret|passw(?:or)?d|pwd|auth|sig|signature|key|credential|session|jwt"
# What each pattern finds after its group is hidden. A password in an address (user:password@ or
# TOKEN@) may hold a slash or a quote, so all is hidden up to the last @ of the word.
_SECRETS = (
    r"(://[^/@\s:'\"]*:)\S*(?=@)",
    r"(://)(?![^\s:]*:\*\*\*@)\S*(?=@)",
    r"((?<![\w-])(?:--[\w-]*(?:password|twofactor)|-p|-2)[ =]['\"]?)[^\s'\"]+",
    r"(--add-headers?[ =]['\"]?)[^'\"]+",
    r"(?<![\w-])(-p)(?!ix_fmt|reset|ro|ass|snr|rint)[^\s'\"=]+",  # of yt-dlp; not of ffmpeg
    rf"\b((?i:[\w.-]*(?:{_SECRET_WORD})=))[^\s&;'\"#]+",
    r"\b((?:visitor_data|data_sync_id)=)[^\s&;'\"#]+",
    r"(\b(?i:(?:Proxy-)?Authorization|(?:Set-)?Cookie|X-[\w-]+|[\w-]*Api-?Key) ?: ?)[^'\"]+",
)
_SECRET_OPTION = re.compile(r"--[\w-]*(?:password|twofactor)|-p|-2|--add-headers?")


def hide_secrets(text: str) -> str:
    """Return a text with `***` for each password, token and cookie in it.

    `command_line` hides more, because it knows which words are values of which options.
    """
    for pattern in _SECRETS:
        text = re.sub(pattern, r"\1***", text)
    return text


def shown(text: str) -> str:
    """Return a line of text as it may be printed: secrets hidden, unsafe characters escaped."""
    return escape(hide_secrets(text))


def command_line(words: Sequence[str]) -> str:
    """Return a command line as it is typed in a shell, secrets hidden, also in --ytdlp_args."""
    found: list[str] = []
    before = ""
    for word in words:
        # A word may hold a password with blanks, which `hide_secrets` takes for its end.
        hidden = re.sub(r"(://(?:[^/@\s:]*:)?).*@", r"\1***@", word, flags=re.DOTALL)
        hidden = hide_secrets(hidden)
        if _SECRET_OPTION.fullmatch(before):
            hidden = "***"
        elif hidden != word and re.search(r"\s", word):  # the secret may go on after the blank
            option = re.match(r"--[\w-]+=", word)
            hidden = f"{option[0] if option else ''}***"
        found.append(hidden)
        before = word
    return shlex.join(found)
