"""Check the installed packages against the releases that the suite was tested with.

requirements.txt is the only place that says which releases will do. A change in a package affects
every clip, so it is reported once: before the first clip if the release shows it, otherwise after a
few clips in a row (`Streak`).
"""

from __future__ import annotations

import functools
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from traceback import walk_tb

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
    """Package -> (lowest release that will do, first one that was not tried, or nothing)."""
    found = {}
    text = "".join(path.read_text(encoding="utf-8") for path in REQUIREMENTS)
    for line in text.splitlines():
        if row := re.match(r"([a-z][\w.-]*)(?:\[\w+\])?>=([\w.]+)(?:,<([\w.]+))?\s*(?:#|$)", line):
            found[row[1]] = (row[2], row[3] or "")
    return found


def release_of(package: str) -> str:
    """The release of a package that is installed; empty if it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def check_packages(*packages: str) -> None:
    """Check that these are installed, in releases that will do, in 1 ms each. Raises UserError."""
    for package in packages:
        (lowest, untried), have = required()[package], release_of(package)
        name = NAMES.get(package, package)
        if not have:
            raise UserError(f"{name} is not installed: pip install -r requirements.txt")
        too_new = bool(untried) and numbers(have) >= numbers(untried)
        if numbers(have) < numbers(lowest) or too_new:
            raise UserError(
                f"{name} {have} is installed, and the suite works with {releases(package)}:"
                " pip install -U -r requirements.txt"
            )


def module_of(package: str) -> str:
    """The name under which a package is imported."""
    return MODULES.get(package, package.replace("-", "_"))


def numbers(release: str) -> tuple[int, ...]:
    """`2026.10.26` -> (2026, 10, 26), for comparing."""
    return tuple(map(int, re.findall(r"\d+", release)[:3]))


def releases(package: str) -> str:
    """`18.1 or newer, below 20`."""
    lowest, untried = required()[package]
    return f"{lowest} or newer" + (f", below {untried}" if untried else "")


def describe(error: BaseException) -> str:
    """Describe an unexpected exception for the report, with the package that it likely comes from.

    `TypeError: open() got an unexpected keyword argument 'mode' (av 20.0.0)`
    """
    owner = getattr(error, "obj", None)  # of an attribute that is missing
    kind = owner if isinstance(owner, type) else type(owner)
    frames = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    missing = error.name if isinstance(error, ImportError) else ""
    of_module = {module_of(package): package for package in required()}
    for module in (getattr(owner, "__name__", ""), kind.__module__, missing, *reversed(frames)):
        package = of_module.get(str(module).partition(".")[0], "")
        if package and (release := release_of(package)):
            return f"{type(error).__name__}: {error} ({package} {release})"
    return f"{type(error).__name__}: {error}"


class Streak:
    """Count the clips in a row that failed with the same unexpected exception."""

    def __init__(self) -> None:
        self.message = ""
        self._count = 0

    def add(self, is_good: bool, message: str) -> None:
        """Count a finished clip. Messages that a clip may cause by itself do not count."""
        if is_good or (message != self.message and UNEXPECTED_MESSAGE.match(message)):
            self.message, self._count = "", 0
        if not is_good and UNEXPECTED_MESSAGE.match(message):
            self.message = message
            self._count += 1

    @property
    def is_hopeless(self) -> bool:
        return self._count >= STREAK

    def problem(self) -> UserError:
        """The error that ends the run, with what to type."""
        start = f"{STREAK} clips in a row failed with the same error: {self.message}"
        found = re.search(r"\(([\w.-]+) (\S+)\)$", self.message)
        if self.message.startswith("MemoryError"):
            return UserError(f"{start}: give this run more memory, or use fewer jobs (--num_jobs)")
        if found and found[1] in required():
            name = NAMES.get(found[1], found[1])
            return UserError(
                f"{start}: {name} {found[2]} is installed, the suite works with"
                f" {releases(found[1])}: pip install -U -r requirements.txt"
            )
        return UserError(f"{start}: pip install -U -r requirements.txt; see download.py --check")


def version_line(version: str) -> str:
    """The suite's version, and what it runs on, in one line for a bug report."""
    found = [f"Python {platform.python_version()} on {sys.platform}"]
    for package in ("yt-dlp", "av", "numpy"):
        name, release = NAMES.get(package, package), release_of(package)
        found.append(f"{name} {release}" if release else f"no {name}")
    found.insert(2, _ffmpeg_version())
    return f"{version} ({', '.join(found)})"


def _ffmpeg_version() -> str:
    try:
        import imageio_ffmpeg

        return f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}"
    except (ImportError, RuntimeError):
        return "no ffmpeg in the environment"
