"""Command lines: the parser, argument types, exit codes, printing, one-line errors.

A script makes its parser here, and its `main` runs inside `run_script`, which turns a `UserError`
into one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import os
import re
import shutil
import signal
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from clipreader import VERSION
from utils.errors import Ended, UserError, hand_over, import_problem, version_line
from utils.text import shown

Tell = Callable[[str], None]  # says a line

EXIT_OK = 0  # all wanted clips are on disk
EXIT_INCOMPLETE = 1  # finished, and some are missing: the report says which and why
EXIT_USAGE = 2  # bad usage, bad list, missing tool, disk full


# The order of the groups of options in every --help. Groups with other titles stand between.
_FIRST = ("positional arguments", "options", "which clips", "where from")
_LAST = ("how to run", "general", "rarely needed")
_WIDTH = 79


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as written and ends every option's help with its default."""

    def __init__(self, prog: str) -> None:
        columns = shutil.get_terminal_size().columns
        super().__init__(prog, width=max(40, min(columns, 80)) - 1)

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        if _has_many_choices(action):
            return lambda size: ("NAME",) * size
        return super()._metavar_formatter(action, default_metavar)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if _has_many_choices(action):
            text += f": {', '.join(map(str, action.choices or ()))}"
        if not action.option_strings or action.required or "default" in text or action.nargs == 0:
            return text
        if action.default is argparse.SUPPRESS or action.default in (None, "", [], ()):
            return text
        if isinstance(action.default, (list, tuple)):
            return f"{text} (default: {' '.join(map(str, action.default))})"
        return f"{text} (default: %(default)s)"


def _has_many_choices(action: argparse.Action) -> bool:
    length = len(",".join(map(str, action.choices or ())))
    return action.metavar is None and length > (10 if action.nargs == "+" else 30)


def _wrapped(text: str) -> str:
    """A docstring in lines of at most 80 columns; long commands are continued with a backslash."""
    wrap = functools.partial(textwrap.wrap, break_long_words=False, break_on_hyphens=False)
    lines = []
    for paragraph in text.split("\n\n"):
        if not re.search(r"^ ", paragraph, re.MULTILINE):
            lines += [*wrap(paragraph, _WIDTH), ""]
            continue
        for line in paragraph.split("\n"):
            indent = line[: len(line) - len(line.lstrip())] + "    "
            more = " \\" if line.lstrip().startswith("python ") else ""
            parts = wrap(line, _WIDTH - len(more), subsequent_indent=indent)
            lines += [part + more for part in parts[:-1]] + parts[-1:]
        lines.append("")
    return "\n".join(lines).rstrip()


class Parser(argparse.ArgumentParser):
    """An ArgumentParser in which `--input-csv` is `--input_csv`, and nothing is abbreviated.

    `text_options` take a value that may begin with `-` (`--ytdlp_args "--limit-rate 1M"`).
    """

    def __init__(self, *, text_options: Sequence[str] = (), **kwargs: Any) -> None:
        self.text_options = frozenset(text_options)
        self._words: list[str] = []
        super().__init__(formatter_class=_Help, allow_abbrev=False, **kwargs)

    def group(self, title: str) -> argparse._ArgumentGroup:
        """The group of options with that title, made if there is none yet.

        --help shows the groups of all scripts in one order: "which clips", "where from", the
        script's own, "how to run", "general", "rarely needed".
        """
        found = [group for group in self._action_groups if group.title == title]
        return found[0] if found else self.add_argument_group(title)

    def format_help(self) -> str:
        self._action_groups.sort(key=lambda group: _place(group.title or ""))
        return super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = self._spell(list(sys.argv[1:] if args is None else args))
        for word in self._words:
            if word == "--":
                break
            if self._is_unknown(word):
                self.error(self._about_unknown(word))
        return super().parse_known_args(self._words, namespace)

    def _spell(self, words: list[str]) -> list[str]:
        spelled: list[str] = []
        rest = iter(words)
        for word in rest:
            if word == "--":
                return [*spelled, word, *rest]
            if word.startswith("--"):
                name, equals, value = word.partition("=")
                name = "--" + name[2:].replace("-", "_")
                if not equals and name in self.text_options:
                    following = next(rest, None)
                    if following is not None:
                        equals, value = "=", following
                word = name + equals + value
            spelled.append(word)
        return spelled

    def _is_unknown(self, word: str) -> bool:
        if not word.startswith("-") or word == "-" or re.fullmatch(r"-[0-9.]+", word):
            return False
        known = self._option_string_actions
        return word.partition("=")[0] not in known and (word[:2] == "--" or word[:2] not in known)

    def _about_unknown(self, word: str) -> str:
        name = word.partition("=")[0]
        if name[:2] != "--" and (os.path.lexists(word) or re.search(r"[./]", word)):
            return f"{word}: no such option; if it is a file or a folder, write ./{word}"
        near = difflib.get_close_matches(name, self._option_string_actions, 1)
        return f"{name}: no such option" + (f"; did you mean {near[0]}?" if near else "")

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (?:-[^ :]*/)?(--\w+|\S+?): ", r"\1: ", message)
        if re.search("arguments are required|folder is missing", message) and (
            last := self._greedy()
        ):
            message += f"; words after {last} are read as its values: put the folder first"
        dashed = [word for word in self._words if word[:1] == "-" and os.path.lexists(word)]
        if dashed and "./" not in message:
            message += f"; for the file {dashed[0]} write ./{dashed[0]}"
        text = f"{self.prog}: error: {message} (see {self.prog} --help)"
        self.exit(EXIT_USAGE, shown(text) + "\n")

    def _greedy(self) -> str:
        """An option that takes any number of values and was given more than one."""
        last, counts = "", Counter[str]()
        for word in self._words:
            action = self._option_string_actions.get(word)
            if action is not None:
                last = word if action.nargs in ("+", "*") else ""
            elif last:
                counts[last] += 1
        return next((option for option, count in counts.items() if count > 1), "")


def _place(title: str) -> int:
    if title in _FIRST:
        return _FIRST.index(title)
    return len(_FIRST) + (1 + _LAST.index(title) if title in _LAST else 0)


class _Version(argparse.Action):
    """Looks the versions up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"{parser.prog} {version_line(VERSION)}")
        parser.exit(EXIT_OK)


def make_parser(doc: str, *, text_options: Sequence[str] = ()) -> Parser:
    """A parser that shows the script's own docstring: the first paragraph, then the examples."""
    summary, _, examples = doc.strip().partition("\n\n")
    parser = Parser(
        description=_wrapped(summary), epilog=_wrapped(examples), text_options=text_options
    )
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
    """The cores this process may use (a cluster job is often given fewer than there are)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def positive_int(text: str) -> int:
    """An argparse type: a whole number from 1 on, that ffmpeg too can hold."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def non_negative_int(text: str) -> int:
    """An argparse type: a whole number from 0 on."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or above")
    return int(text)


def non_negative_float(text: str) -> float:
    """An argparse type: a finite number from 0 on."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value


def frame_rate(text: str) -> Fraction:
    """An argparse type: `30`, `12.5`, `30000/1001`; 0 where the clip's own rate is meant."""
    # Fraction("1e999999999") would take minutes and gigabytes.
    if not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9}|/[1-9][0-9]{0,8})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate such as 30, 12.5 or 30000/1001")
    return Fraction(text)


_ALIASES = {"--num_jobs": ("-n", "-j", "--n")}
_SHARED: dict[str, dict[str, Any]] = {
    "--label": {
        "nargs": "+",
        "default": [],
        "metavar": "LABEL",
        "help": "keep only these labels, case-insensitive (default: all)",
    },
    "--split": {
        "nargs": "+",
        "default": [],
        "metavar": "SPLIT",
        "help": "keep only these splits; val is also validate (default: all)",
    },
    "--limit": {"type": positive_int, "metavar": "N", "help": "keep the first N clips"},
    "--dry_run": {"action": "store_true", "help": "print the plan and exit"},
    "--num_jobs": {
        "type": positive_int,
        "metavar": "N",
        "default": cpu_count(),
        "help": "number of parallel jobs (default: the number of cores, here %(default)s)",
    },
    "--ffmpeg": {"metavar": "FILE", "help": "ffmpeg to use (default: imageio-ffmpeg's)"},
}


def existing_folder(path: Path, what: str) -> Path:
    """`path`, made absolute, if it is a folder; else a `UserError` that names it."""
    if not path.is_dir():
        problem = "is not a folder" if path.exists() else "does not exist"
        raise UserError(f"{what} {path} {problem}")
    return path.absolute()


def say(text: str = "") -> None:
    """Print one line to stderr: secrets hidden, control characters escaped.

    Standard output carries data only. A closed terminal is no error.
    """
    with suppress(OSError):
        print(shown(text), file=sys.stderr, flush=True)


def teller(quiet: bool) -> Tell:
    """`say`, and with --quiet nothing."""
    return (lambda text: None) if quiet else say


def plural(count: int, noun: str) -> str:
    """`1 clip`, `2,000 clips`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def clock(seconds: float) -> str:
    """Elapsed time as people read it: `0:01:40`, `2 days, 3:00:00`."""
    return str(timedelta(seconds=round(seconds)))


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script's `main` and exit with its code; no traceback for what a user can fix."""
    hand_over()
    try:
        code = main()
    except UserError as error:
        say(f"error: {error}")
        code = EXIT_USAGE
    except Ended as end:
        code = end.exit_code()
    except KeyboardInterrupt:
        say("stopped")
        code = 128 + signal.SIGINT
    except (ImportError, MemoryError) as error:
        say(f"error: {import_problem(error)}")
        code = EXIT_USAGE
    except BrokenPipeError:
        # `| head` closed stdout: not an error of ours. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except OSError as error:  # a working directory that is gone, a disk that fails
        say(f"error: {error.strerror or error}: {error.filename or 'no file named'}")
        code = EXIT_USAGE
    except Exception as error:
        if not _lacks_threads(error):
            raise
        say("error: no more threads may be started (memory, ulimit): fewer jobs (--num_jobs)")
        code = EXIT_USAGE
    sys.exit(code)


def _lacks_threads(error: BaseException | None) -> bool:
    """Whether a thread could not be started; Python's pool raises another error while it tidies."""
    while error is not None:
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            return True
        error = error.__context__
    return False
