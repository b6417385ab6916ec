"""End a script with one line: errors that a user can fix, unfit packages, Ctrl-C during imports.

Every script imports this first. Until `cli.run_script` takes over, Ctrl-C ends with `stopped` and
130, and a failed import with one line and 2 instead of a traceback. Programs that import
`load_frames` keep their own handlers.

requirements.txt is the only place that says which releases of packages will do. A change in a
package affects every clip, so it is reported once: before the first clip if the release shows it,
otherwise after a few clips in a row (`Streak`).
"""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType, TracebackType

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


class UserError(Exception):
    """Something that the user can fix. Its text is one line: what is wrong, where, what to do."""


class DiskFull(UserError):
    """The disk is full: the run stops, and the same command resumes it once there is room."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)  # not the text, because worker processes pickle the arguments

    def __str__(self) -> str:
        disk = f"the disk of {self.args[0]}"
        return f"no room left on {disk}: make room, then run the same command again"


def is_disk_full(error: OSError) -> bool:
    """Return whether an error says that the disk, or the user's part of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


# --- before and during imports --------------------------------------------------------------------


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(128 + number)


def _say_problem(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if problem := problem_of(error):
        os.write(2, f"error: {problem}\n".encode(errors="backslashreplace"))
        os._exit(2)
    sys.__excepthook__(kind, error, trace)


def problem_of(error: BaseException) -> str:
    """Return what a user can do about an error, in one line; empty for an error of the suite."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory: give this process more, or use fewer jobs (--num_jobs)"
    if isinstance(error, ImportError):
        return f"a package is missing or broken ({error}): pip install -U -r requirements.txt"
    if isinstance(error, OSError):  # a working directory that is gone, a disk that fails
        return f"{error.strerror or error}: {error.filename or 'no file named'}"
    cause: BaseException | None = error
    while cause is not None:  # Python's pool raises another error while it tidies
        if isinstance(cause, RuntimeError) and "start new thread" in str(cause):
            return "no more threads may be started (memory, ulimit): fewer jobs (--num_jobs)"
        cause = cause.__context__
    return ""


def _open_closed_streams() -> None:
    """Give a process that was started without them (`2>&-`) its three standard streams.

    Otherwise the first file that is opened becomes number 2, and errors are written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            os.set_inheritable(number, True)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


_script = getattr(sys.modules["__main__"], "__file__", None)
if _script and os.path.dirname(os.path.realpath(_script)) == str(ROOT):  # one of ours
    _open_closed_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    sys.excepthook = _say_problem
    # numpy, which joblib and pandas bring in, would start a thread a core for linear algebra, which
    # nothing here does, and each spins at first: 0.08 s of CPU on 2 cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


# --- packages -------------------------------------------------------------------------------------


@functools.cache
def required() -> dict[str, tuple[str, str]]:
    """Return package -> (lowest release that will do, first one that was not tried, or nothing)."""
    found = {}
    text = "".join(path.read_text(encoding="utf-8") for path in REQUIREMENTS)
    for line in text.splitlines():
        if row := re.match(r"([a-z][\w.-]*)(?:\[\w+\])?>=([\w.]+)(?:,<([\w.]+))?\s*(?:#|$)", line):
            found[row[1]] = (row[2], row[3] or "")
    return found


def release_of(package: str) -> str:
    """Return the installed release of a package; empty if it is not installed."""
    from importlib import metadata  # slow to import, and Ctrl-C is to be caught before

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def check_packages(*packages: str) -> None:
    """Check that packages are installed, in releases that will do. Raises UserError."""
    for package in packages:
        (lowest, untried), have = required()[package], release_of(package)
        name = NAMES.get(package, package)
        if not have:
            raise UserError(f"{name} is not installed: pip install -r requirements.txt")
        is_too_new = untried and numbers(have) >= numbers(untried)
        if numbers(have) < numbers(lowest) or is_too_new:
            wanted = f"{lowest} or newer" + (f", below {untried}" if untried else "")
            raise UserError(
                f"{name} {have} is installed, and the suite works with {wanted}:"
                " pip install -U -r requirements.txt"
            )


def module_of(package: str) -> str:
    """Return the name under which a package is imported."""
    return MODULES.get(package, package.replace("-", "_"))


def numbers(release: str) -> tuple[int, ...]:
    """Return (2026, 10, 26) for `2026.10.26`, to compare releases."""
    return tuple(map(int, re.findall(r"\d+", release)[:3]))


def describe(error: BaseException) -> str:
    """Describe an unexpected exception for the report, as UNEXPECTED_MESSAGE expects it."""
    return f"{type(error).__name__}: {error}"


class Streak:
    """Count the clips in a row that failed with the same unexpected exception."""

    def __init__(self) -> None:
        self.message = ""
        self._count = 0

    def add(self, is_good: bool, message: str) -> None:
        """Count a finished clip. Messages that a clip may cause by itself do not count."""
        if is_good:
            self._count = 0
        elif UNEXPECTED_MESSAGE.match(message):
            self._count = self._count + 1 if message == self.message else 1
            self.message = message

    @property
    def is_hopeless(self) -> bool:
        return self._count >= STREAK

    def problem(self) -> UserError:
        """Return the error that ends the run, with what to type."""
        start = f"{STREAK} clips in a row failed with the same error: {self.message}"
        if self.message.startswith("MemoryError"):
            return UserError(f"{start}: give this run more memory, or use fewer jobs (--num_jobs)")
        return UserError(f"{start}: pip install -U -r requirements.txt; see download.py --check")


def version_line(version: str) -> str:
    """Return the suite's version, and what it runs on, in one line for a bug report."""
    packages = ("yt-dlp", "imageio-ffmpeg", "av", "numpy")
    found = [f"{NAMES.get(each, each)} {release_of(each) or 'is missing'}" for each in packages]
    python = f"Python {sys.version.split()[0]} on {sys.platform}"
    return f"{version} ({', '.join([python, *found])})"
