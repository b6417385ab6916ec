"""Read files safely, write them completely or not at all, and find videos.

Every script writes into `<out>/.tmp/<run>/` and renames finished files into place.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import filecmp
import io
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from utils.errors import DiskFull, UserError, is_disk_full
from utils.process import STOP, sleep

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v"})
FULL_BELOW = 32 * 2**20  # bytes; with less free than this, a bad output was a full disk
_REPLACING = threading.Lock()  # a look and a rename are one step for the threads of a run
_NO_HARD_LINKS = (errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


TEXT_LIMIT = 64 * 2**20  # bytes; the largest list has 25 MB
SETTINGS_LIMIT = 2**20
LONGEST_LINE = 2**20  # characters

TEMP_FOLDER = ".tmp"
MACHINE_VARIABLE = "KINETICS_MACHINE"  # names this machine if two have one host name
RUN_PREFIX = "run-"
BEAT_SECONDS = 1.0  # between two signs of life of a run
SILENT_SECONDS = 24 * 3600.0  # a run of another machine without a sign for so long is dead
_DEAD = ".dead"  # the end of a name whose folder is being removed


def open_regular(path: str | Path, limit: int | None = None) -> io.BufferedReader:
    """Open a regular file, or a link to one, for reading. Raises OSError.

    Use it for every file that others may have put there, because a FIFO would block the run for
    ever, and a device has no end. limit: the largest size in bytes.
    """
    flags = os.O_NONBLOCK | os.O_NOCTTY  # the open does not wait for a FIFO's writer
    file = open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags))  # noqa: SIM115
    found, problem = os.fstat(file.fileno()), None
    if not stat.S_ISREG(found.st_mode):
        problem = OSError(errno.EINVAL, "is not a regular file", str(path))
    elif limit is not None and found.st_size > limit:
        problem = OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))
    if problem is not None:
        file.close()
        raise problem
    return file


def open_text(path: str | Path, errors: str = "strict", limit: int | None = None) -> TextIO:
    """Open UTF-8 text, with or without a byte order mark, as `open_regular`; keep line ends."""
    return io.TextIOWrapper(open_regular(path, limit), "utf-8-sig", errors, newline="")


def bounded_lines(file: TextIO, longest: int = LONGEST_LINE) -> Iterator[str]:
    """Yield the lines of a file with their ends. Raises ValueError for a line that is too long."""
    while line := file.readline(longest + 1):
        if len(line) > longest:
            raise ValueError(f"a line is longer than {longest:,} characters")
        yield line


def read_text(path: str | Path, limit: int = TEXT_LIMIT, errors: str = "strict") -> str:
    """Return the text of a regular file of at most `limit` bytes. Raises OSError, ValueError."""
    with open_regular(path, limit) as file:
        try:
            return file.read(limit).decode("utf-8-sig", errors)
        except UnicodeDecodeError:
            raise ValueError("is not UTF-8 text") from None


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises OSError, and ValueError with a short reason."""
    return parse_json(read_text(path, SETTINGS_LIMIT))


def parse_json(text: str | bytes) -> dict[str, Any]:
    """Return the object in a JSON text from outside. Raises only ValueError."""
    try:
        found = json.loads(text)
    except (RecursionError, ValueError) as error:  # or no UTF-8, or a number of many digits
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError("is not a JSON object")
    return found


@contextmanager
def telling(path: Path, doing: str = "read") -> Iterator[None]:
    """Report an error of a file in one line: `cannot read PATH: WHY`.

    Raises UserError for OSError, ValueError and csv.Error, and DiskFull if the disk is full.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(path.parent) from error
        raise UserError(f"cannot {doing} {path}: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"cannot {doing} {path}: {error}") from error


def write_whole(path: Path, workspace: Path, text: str | Iterable[str]) -> None:
    """Write a text file that appears complete or not at all.

    text: also in pieces; a stop of the run takes effect between two. workspace: a temporary folder
    on the same file system. Names that are not UTF-8 keep their bytes. Raises DiskFull,
    UserError, Stopped.
    """
    temporary = workspace / f"part-{secrets.token_hex(4)}"
    with telling(path, "write"):
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            for number, piece in enumerate([text] if isinstance(text, str) else text):
                if number % 1000 == 0:
                    sleep(0)
                file.write(piece)
        sleep(0)
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(temporary, path)


def check_ours(path: Path, first: str, how: str) -> None:
    """Raise UserError if `path` is a file whose first line does not begin with `first`.

    This way no output replaces a file of another program. how: what the user can do.
    """
    if os.path.lexists(path):
        with telling(path), open_text(path, errors="replace") as file:
            if file.read(len(first)) != first:
                raise UserError(f"{path} is not a file of this script: {how}")


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of `folder`, or of its nearest existing parent."""
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def disk_is_full(folder: Path) -> bool:
    """Return whether a full disk explains a bad output: less than FULL_BELOW is free.

    A quota shows only when a file is written, so space is reserved in a file without a name.
    """
    if free_bytes(folder) < FULL_BELOW:
        return True
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, FULL_BELOW)
    except OSError as error:
        return is_disk_full(error)
    return False


def make_folder(path: Path) -> Path:
    """Make a folder that can be written, and return its absolute path. Raises UserError."""
    path = path.absolute()
    with telling(path, "make the folder"):
        path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"cannot write into the folder {path}: permission denied")
    return path


def publish(temporary: Path, final: Path) -> None:
    """Sync a finished file to disk, then rename it into place in one step. Raises OSError.

    After a power cut there is either the complete file or none. It never replaces a folder, nor a
    file of another name: on macOS and Windows `abc` and `ABC` name the same file, so the second of
    two IDs that differ only in case would replace the first.
    """
    _sync_file(temporary)
    if final.is_dir() and not final.is_symlink():  # os.replace would name the temporary file only
        raise IsADirectoryError(errno.EISDIR, "a folder has the name of the file", str(final))
    with _REPLACING:
        if os.path.lexists(final) and _is_of_another_name(final):
            message = "a file exists whose name differs only in case"
            raise FileExistsError(errno.EEXIST, message, str(final))
        os.replace(temporary, final)
    sync_folder(final.parent)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _is_of_another_name(path: Path) -> bool:
    """Return whether the file at `path` is stored under a name that differs in case."""
    other = path.with_name(path.name.swapcase())
    if not os.path.lexists(other) or not os.path.samestat(path.lstat(), other.lstat()):
        return False  # as nearly always: this file system knows case, and no listing is needed
    return path.name not in os.listdir(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` last through a power cut, where the system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems refuse to sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def names_in(folder: Path, suffix: str) -> set[str]:
    """Return the names, without `suffix`, of the files in `folder`; none if it does not exist.

    650,000 names take 1.0 s with scandir; `Path.exists` one by one takes 2.5 to 10 s.
    """
    with telling(folder):
        if not folder.exists():
            return set()
        with os.scandir(folder) as entries:
            found = (each for each in entries if each.name.endswith(suffix) and _is_file(each))
            return {each.name.removesuffix(suffix) for each in found}


def sizes_in(
    folder: Path, suffixes: Container[str], names: Container[str] | None = None
) -> Iterator[tuple[str, str, int]]:
    """Yield (name, suffix, bytes) of the files in `folder` with these suffixes. Raises UserError.

    A size takes one more request to the disk per file than a name (`names_in`). names: only these.
    """
    with telling(folder), os.scandir(folder) as entries:
        for entry in entries:
            name, suffix = os.path.splitext(entry.name)
            if suffix in suffixes and (names is None or name in names) and _is_file(entry):
                with suppress(OSError):  # removed since
                    yield name, suffix, entry.stat().st_size


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Return whether it is a regular file, or a link to one; a link that loops is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def move_new(path: str | Path, final: str | Path) -> None:
    """Rename within a file system, never over a file. Raises FileExistsError, OSError (EXDEV...).

    It makes a hard link, then removes the old name, because `os.rename` replaces an existing file
    silently. After a kill in between, the file has both names.
    """
    try:
        os.link(path, final, follow_symlinks=False)
    except OSError as error:
        # Some file systems have no hard links; some systems refuse them for another user's files.
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(final):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from error
        os.rename(path, final)
        return
    remove_moved(path, final)


def remove_moved(path: str | Path, final: str | Path) -> None:
    """Remove a file whose content is at `final`, too; if it cannot be, remove `final` instead.

    A file that is gone already (another run, a server that answers twice) is no error, because then
    `final` may be the last of it. Raises OSError.
    """
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
    except OSError:
        os.unlink(final)
        raise


def publish_new(temporary: Path, final: Path) -> None:
    """Do as `publish` does, but never over a file. Raises FileExistsError, OSError."""
    _sync_file(temporary)
    move_new(temporary, final)
    sync_folder(final.parent)


def copy_new(path: Path, final: Path, temporary: Path) -> None:
    """Copy a file with its times, read it back, and give it its name; never over a file.

    temporary: a free path on the file system of `final`. Raises FileExistsError, and OSError also
    if the copy does not hold the same bytes.
    """
    try:
        shutil.copy2(path, temporary, follow_symlinks=False)
        if not filecmp.cmp(path, temporary, shallow=False):
            raise OSError(errno.EIO, "the copy does not hold the same bytes", str(path))
        publish_new(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def move_across(path: Path, final: Path) -> None:
    """Do as `move_new` does, also to another file system. Raises FileExistsError, OSError."""
    try:
        move_new(path, final)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with run_folder(final.parent) as workspace:
            copy_new(path, final, workspace / final.name)
        remove_moved(path, final)


def find_videos(folder: Path, leave_out: Path) -> tuple[dict[str, str], list[str]]:
    """Return the videos in `folder`, flat or nested: clip -> file, as paths below `folder`.

    A clip is the path of its file without the suffix (`abseiling/x_000001_000011`). The second part
    lists further files of the same clip; an .mp4 is preferred. Skips `leave_out` (an output folder
    inside `folder`), hidden names, links to folders, and all but regular files. Raises UserError.
    """
    files: list[tuple[str, bool, str]] = []
    folders = [""]
    while folders:
        below = folders.pop()
        with telling(folder / below), os.scandir(folder / below) as entries:
            for entry in entries:
                stem, dot, suffix = entry.name.rpartition(".")
                if entry.name.startswith("."):
                    continue
                if dot + suffix.lower() in VIDEO_SUFFIXES:
                    if _is_file(entry):
                        files.append((below + stem, suffix != "mp4", suffix))
                elif entry.is_dir(follow_symlinks=False) and Path(entry.path) != leave_out:
                    folders.append(f"{below}{entry.name}/")
    clips: dict[str, str] = {}
    twice = []
    for clip, _, suffix in sorted(files):
        if clips.setdefault(clip, f"{clip}.{suffix}") != f"{clip}.{suffix}":
            twice.append(f"{clip}.{suffix}")
    return clips, twice


def set_aside(path: Path, folder: Path) -> Path:
    """Move a file into `folder` under its own name, or the next free one; never over a file.

    Raises UserError, OSError.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link, which is not followed: remove it")
    folder.mkdir(exist_ok=True)
    target = folder / path.name
    for number in itertools.count(1):
        try:
            move_across(path, target)
            break
        except FileExistsError:
            target = folder / f"{path.stem}.{number}{path.suffix}"
    return target


# --- the temporary folder of a run ---------------------------------------------------------------
#
# Machines may share the output over a network, where file locks often hold on one machine only
# (NFS mounted with local_lock, Lustre with localflock). So a lock counts between the runs of one
# machine, and a run of another machine is alive as long as it renews the date of its folder.


def machine_name() -> str:
    """Return the name of this machine for names of files."""
    name = os.environ.get(MACHINE_VARIABLE) or socket.gethostname()
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:63] or "unnamed"


@contextmanager
def run_folder(out: Path, names: Iterable[str] = ()) -> Iterator[Path]:
    """Make a temporary folder for this run inside `out`, and remove it at the end.

    It is called `run-` and the first of `names` that no other run has, on any machine. Removes what
    killed runs left. Removes nothing outside `out`, even if a link replaces `.tmp` during the run,
    because it works inside the folder that was opened at the start. Raises UserError, DiskFull.
    """
    base = out / TEMP_FOLDER
    if base.is_symlink():
        raise UserError(f"{base} is a link, and temporary files stay in {out}: remove the link")
    other_names = (f"{machine_name()}-{number}" for number in itertools.count(1))
    with telling(base, "write into"):
        opened, name, lock = _begin_run(base, itertools.chain(names, other_names))
    over, was_replaced = threading.Event(), threading.Event()

    def show_life() -> None:
        """Renew the folder's date for machines that do not see its lock; stop if it is replaced."""
        while not over.wait(BEAT_SECONDS):
            with suppress(OSError):  # no time is given: the file server's clock, for all machines
                os.utime(name, dir_fd=opened, follow_symlinks=False)
            with suppress(FileNotFoundError):
                if os.path.samestat(base.lstat(), os.fstat(opened)):
                    continue
            was_replaced.set()
            return STOP.set()

    watch = threading.Thread(target=show_life, daemon=True)
    watch.start()
    try:
        yield base / name
    finally:
        over.set()
        watch.join()
        _remove_run(opened, name)
        os.close(lock)
        os.close(opened)
        with suppress(OSError):  # other runs have folders in it, or it was replaced
            base.rmdir()
    if was_replaced.is_set():
        raise UserError(
            f"{base} is no longer there, or was replaced during the run (is the disk still"
            " mounted?): run the same command again"
        )


def _begin_run(base: Path, names: Iterator[str]) -> tuple[int, str, int]:
    """Return the folder `.tmp`, opened, this run's folder in it, and its lock. Raises OSError."""
    name = RUN_PREFIX + next(names)
    for _ in range(100):
        with suppress(FileNotFoundError):  # a run that ended meanwhile removed `.tmp`
            base.mkdir(exist_ok=True)
            opened = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            for left in os.listdir(opened):
                with suppress(OSError):
                    _clear_dead_run(opened, left)
            while (lock := _take_name(opened, name)) is None:
                name = RUN_PREFIX + next(names)
            return opened, name, lock
    raise FileNotFoundError(errno.ENOENT, "folders vanish as they are made", str(base))


def _take_name(base: int, name: str) -> int | None:
    """Make a run's folder and return its lock, or None if another run has it. Raises OSError."""
    lock = _lock(base, f"{name}.lock")
    if lock is None:
        return None
    try:
        os.mkdir(name, 0o700, dir_fd=base)  # in one step, on network file systems, too
        os.ftruncate(lock, 0)
        os.write(lock, machine_name().encode())
        return lock
    except FileExistsError:  # of another machine's run
        os.close(lock)
        return None


def _lock(base: int, name: str, must: bool = False) -> int | None:
    """Open and lock the file `name`; return None if another run holds it. Raises OSError.

    On a file system without locks the file is only opened. must: it has to exist and be locked.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | (0 if must else os.O_CREAT)
    file = os.open(name, flags, 0o600, dir_fd=base)
    is_free = True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        is_free = not must and not isinstance(error, BlockingIOError)
    with suppress(FileNotFoundError):  # the run that held it removed it
        named = os.stat(name, dir_fd=base, follow_symlinks=False)
        if is_free and os.path.samestat(os.fstat(file), named):
            return file
    os.close(file)
    return None


def _clear_dead_run(base: int, name: str) -> None:
    """Remove the folder `name` from the opened folder `.tmp` if its run is dead. Raises OSError.

    A run of this machine is dead if its lock is free, whatever process IDs say, also in containers.
    """
    found = os.stat(name, dir_fd=base, follow_symlinks=False)
    if not name.startswith(RUN_PREFIX) or not stat.S_ISDIR(found.st_mode):
        return
    if name.endswith(_DEAD):
        return shutil.rmtree(name, ignore_errors=True, dir_fd=base)
    is_silent = time.time() - found.st_mtime >= SILENT_SECONDS
    lock = _lock(base, f"{name}.lock", must=not is_silent)  # without locks only silence tells
    if lock is not None:
        if is_silent or os.read(lock, 100).decode() == machine_name():
            _remove_run(base, name)
        os.close(lock)


def _remove_run(base: int, name: str) -> None:
    """Remove a run's temporary folder, also while workers of a cluster still write into it.

    It is renamed first: workers then find no folder, and leave nothing behind.
    """
    with suppress(OSError):
        os.rename(name, name + _DEAD, src_dir_fd=base, dst_dir_fd=base)
    for each in (name + _DEAD, name):
        shutil.rmtree(each, ignore_errors=True, dir_fd=base)
    with suppress(OSError):
        os.unlink(f"{name}.lock", dir_fd=base)
