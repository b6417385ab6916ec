"""The packages that the suite stands on: which releases it was tried with, and which are here.

On the ground, beside `cli`. requirements.txt is the one place that says which releases will do.
What a package has changed meets every clip alike: it is told before the first one where the release
says so, else after a handful (`Streak`), and never 650,000 times.
"""

from __future__ import annotations

import functools
import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import TracebackType

from utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "requirements-loader.txt")
MODULES = {"ffmpeg-python": "ffmpeg", "pillow": "PIL"}  # the others but for their dashes
NAMES = {"av": "PyAV"}  # as people call them

# What a file's content cannot cause: our calls and the package's release do not fit.
UNEXPECTED = (TypeError, AttributeError, ImportError, MemoryError)
STREAK = 5
UNEXPECTED_MESSAGE = re.compile(
    r"(TypeError|AttributeError|ImportError|ModuleNotFoundError|MemoryError)\b"
    r"|its worker process ended with exit code"
)


@functools.cache
def required() -> dict[str, tuple[str, str]]:
    """Package -> (lowest release that will do, first that was not tried; empty: open)."""
    found = {}
    text = "".join(path.read_text(encoding="utf-8") for path in REQUIREMENTS)
    for line in text.splitlines():
        if row := re.match(r"([a-z][\w.-]*)(?:\[\w+\])?>=([\w.]+)(?:,<([\w.]+))?\s*(?:#|$)", line):
            found[row[1]] = (row[2], row[3] or "")
    return found


def check_packages(*packages: str) -> None:
    """Whether these are installed, in releases that will do. Raises UserError; takes 1 ms each."""
    for package in packages:
        lowest, untried = required()[package]
        name = NAMES.get(package, package)
        try:
            have = metadata.version(package)
        except metadata.PackageNotFoundError:
            raise UserError(f"{name} is not installed: pip install -r requirements.txt") from None
        too_new = bool(untried) and numbers(have) >= numbers(untried)
        if numbers(have) < numbers(lowest) or too_new:
            raise UserError(
                f"{name} {have} is installed, and the suite works with {releases(package)}:"
                " pip install -U -r requirements.txt"
            )


def module_of(package: str) -> str:
    """The module that a package is imported by."""
    return MODULES.get(package, package.replace("-", "_"))


def numbers(release: str) -> tuple[int, ...]:
    """`2026.10.26` -> (2026, 10, 26), for comparing."""
    return tuple(map(int, re.findall(r"\d+", release)[:3]))


def releases(package: str) -> str:
    """`18.1 or newer, below 20`."""
    lowest, untried = required()[package]
    return f"{lowest} or newer" + (f", below {untried}" if untried else "")


def describe(error: BaseException) -> str:
    """An unexpected exception for the report: `TypeError: open() got ... (av 20.0.0)`."""
    text = f"{type(error).__name__}: {error}"
    for package in _packages_in(error):
        try:
            return f"{text} ({package} {metadata.version(package)})"
        except metadata.PackageNotFoundError:
            continue
    return text


def _packages_in(error: BaseException) -> Iterator[str]:
    """The packages of ours that an exception may come from, likeliest first."""
    of_module = {module_of(package): package for package in required()}
    modules = []
    if isinstance(error, AttributeError) and error.obj is not None:
        kind = error.obj if isinstance(error.obj, type) else type(error.obj)
        modules += [getattr(error.obj, "__name__", ""), kind.__module__]
    if isinstance(error, ImportError) and error.name:
        modules.append(error.name)
    modules += reversed(list(_modules_of(error.__traceback__)))
    for module in modules:
        if package := of_module.get(str(module).partition(".")[0]):
            yield package


def _modules_of(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        yield trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next


class Streak:
    """Counts clips that fail by the same unexpected exception, with no good one between them."""

    def __init__(self) -> None:
        self.message = ""
        self._count = 0

    def add(self, is_good: bool, message: str) -> None:
        """One more clip was finished. Messages that a clip may cause by itself do not count."""
        if is_good or (message != self.message and UNEXPECTED_MESSAGE.match(message)):
            self.message, self._count = "", 0
        if not is_good and UNEXPECTED_MESSAGE.match(message):
            self.message = message
            self._count += 1

    @property
    def is_hopeless(self) -> bool:
        return self._count >= STREAK

    def problem(self) -> UserError:
        """Why the run ends, and what to type."""
        start = f"{STREAK} clips in a row met the same: {self.message}"
        found = re.search(r"\(([\w.-]+) (\S+)\)$", self.message)
        if self.message.startswith("MemoryError"):
            return UserError(f"{start}: give this run more memory, or fewer jobs (--num_jobs)")
        if found and found[1] in required():
            name = NAMES.get(found[1], found[1])
            return UserError(
                f"{start}: {name} {found[2]} is installed, the suite works with"
                f" {releases(found[1])}: pip install -U -r requirements.txt"
            )
        return UserError(f"{start}: pip install -U -r requirements.txt; see download.py --check")


def version_line(version: str) -> str:
    """The suite's version, and what it runs on, in one line for a bug report."""
    parts = [f"Python {platform.python_version()} on {sys.platform}"]
    for package in ("yt-dlp", "av", "numpy"):
        try:
            parts.append(f"{NAMES.get(package, package)} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            parts.append(f"no {NAMES.get(package, package)}")
    return f"{version} ({', '.join([parts[0], parts[1], _ffmpeg_version(), *parts[2:]])})"


def _ffmpeg_version() -> str:
    try:
        import imageio_ffmpeg

        return f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}"
    except (ImportError, RuntimeError):
        return "no ffmpeg in the environment"
