"""Manage temporary folders and reports if several runs or machines share one output folder.

Machines may share the output over a network, where file locks often hold on one machine only (NFS
mounted with local_lock, Lustre with localflock). So a lock counts between the runs of one machine,
and a run of another machine is alive as long as it renews the date of its folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.cli import say
from utils.errors import DiskFull, UserError, is_disk_full
from utils.process import Stopped, sleep, stop_run

TEMP_FOLDER = ".tmp"
MACHINE_VARIABLE = "KINETICS_MACHINE"  # names this machine if two have one host name
RUN_PREFIX = "run-"
BEAT_SECONDS = 60.0  # between two signs of life of a run
LOOK_SECONDS = 1.0  # between two looks whether its folder is still there
SILENT_SECONDS = 24 * 3600.0  # a run of another machine without a sign for so long is dead
_DEAD = ".dead"  # the end of a name whose folder is being removed
_ALONE = "lock"  # held by the one run of this machine that begins or ends


def machine_name() -> str:
    """The name of this machine in names of files."""
    name = os.environ.get(MACHINE_VARIABLE) or socket.gethostname()
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:63] or "unnamed"


def run_prefix() -> str:
    """The start of the names of this machine's temporary folders."""
    return f"{RUN_PREFIX}{machine_name()}-"


def own_folder(workspace: Path) -> Path:
    """Make a folder for this process in the run's temporary one, which machines may share."""
    folder = workspace / f"{machine_name()}-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def run_folder(out: Path) -> Iterator[Path]:
    """Make a temporary folder for this run inside `out`, and remove it at the end.

    First removes what killed runs left. A run holds a lock on its folder until it ends, so a folder
    of this machine whose lock is free has no owner, whatever process ids say, in containers too.
    Nothing outside `out` is removed, even if a link replaces `.tmp` during the run: all is done
    inside the folder that was opened at the start. Raises UserError, DiskFull, Stopped.
    """
    base = out / TEMP_FOLDER
    if base.is_symlink():
        raise UserError(f"{base} is a link, and temporary files stay in {out}: remove the link")
    try:
        opened, name, lock = _begin(base)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(out) from error
        raise UserError(f"cannot write into {base}: {error.strerror}") from error
    try:
        with _showing_life(opened, base, name):
            yield base / name
    finally:
        _remove_run(opened, name)
        os.close(lock)
        with suppress(OSError, Stopped), _alone(opened):
            _clear_dead_runs(opened)
            if os.listdir(opened) == [_ALONE]:
                os.unlink(_ALONE, dir_fd=opened)
                base.rmdir()  # fails where another folder or a link has taken its place
        os.close(opened)


def _begin(base: Path) -> tuple[int, str, int]:
    """The folder `.tmp`, opened; this run's folder in it; the lock on that. Raises OSError."""
    for _ in range(100):
        with suppress(FileNotFoundError):  # a run that ended meanwhile removed `.tmp`
            with suppress(FileExistsError):
                base.mkdir()
            opened = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            with _alone(opened):
                _clear_dead_runs(opened)
                name = run_prefix() + secrets.token_hex(4)
                os.mkdir(name, 0o700, dir_fd=opened)
                lock = _lock(opened, f"{name}.lock")
                if lock is not None:
                    return opened, name, lock
    raise FileNotFoundError(errno.ENOENT, "folders vanish as they are made", str(base))


@contextmanager
def _alone(base: int) -> Iterator[None]:
    """Keep other runs of this machine from beginning or ending. Raises Stopped, OSError."""
    while (lock := _lock(base, _ALONE)) is None:
        sleep(0.02)
    try:
        yield
    finally:
        os.close(lock)


def _lock(base: int, name: str, must: bool = False) -> int | None:
    """Open and lock the file `name`; None if another run holds it.

    On a file system without locks the file is only opened, or, if it `must` be locked, None.
    """
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=base)
    is_held = False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        is_held = must or isinstance(error, BlockingIOError)
    with suppress(FileNotFoundError):  # the run that held it removed it
        named = os.stat(name, dir_fd=base, follow_symlinks=False)
        if not is_held and os.path.samestat(os.fstat(file), named):
            return file
    os.close(file)
    return None


@contextmanager
def _showing_life(opened: int, base: Path, name: str) -> Iterator[None]:
    """Renew the date of a run's folder every minute for machines that do not see its lock.

    Stop the run if another folder, or a link, takes the place of `base`.
    """
    over = threading.Event()

    def beat() -> None:
        looks = 0
        while not over.wait(LOOK_SECONDS):
            looks += 1
            with suppress(OSError):  # no time given: the file server's clock, for all machines
                if looks % (BEAT_SECONDS // LOOK_SECONDS) == 0:
                    os.utime(name, dir_fd=opened, follow_symlinks=False)
            with suppress(FileNotFoundError):
                if os.path.samestat(base.lstat(), os.fstat(opened)):
                    continue
            say(f"{base} was replaced during the run, which ends here: run the same command again")
            return stop_run()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _clear_dead_runs(base: int) -> None:
    """Remove, in the opened folder `.tmp`, what dead runs left: folders, then locks and claims."""
    for name in os.listdir(base):
        with suppress(OSError):
            if name.startswith(RUN_PREFIX) and _is_dead(base, name):
                _remove_run(base, name)
    for name in os.listdir(base):
        with suppress(OSError, ValueError):
            if name.endswith(".claim"):
                owner = _claimant(base, name)
            elif name.startswith(RUN_PREFIX) and name.endswith(".lock"):
                owner = name.removesuffix(".lock")
            else:
                continue
            if not os.access(owner, os.F_OK, dir_fd=base):
                os.unlink(name, dir_fd=base)


def _is_dead(base: int, name: str) -> bool:
    """Whether the folder of a run has no owner. Raises OSError."""
    found = os.stat(name, dir_fd=base, follow_symlinks=False)
    if name.endswith(_DEAD):
        return stat.S_ISDIR(found.st_mode)
    is_silent = time.time() - found.st_mtime >= SILENT_SECONDS
    is_ours = name.rpartition("-")[0] == run_prefix().rstrip("-")
    if not stat.S_ISDIR(found.st_mode) or not (is_silent or is_ours):
        return False
    lock = _lock(base, f"{name}.lock", must=not is_silent)  # without locks only silence tells
    if lock is not None:
        os.close(lock)
    return lock is not None


def _claimant(base: int, name: str) -> str:
    """The run that a claim names, or the claim itself while it is being written. Raises OSError."""
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=base)
    with os.fdopen(file, encoding="utf-8", errors="replace") as opened:
        is_new = time.time() - os.fstat(file).st_mtime < BEAT_SECONDS
        return opened.read(1000) or (name if is_new else "")


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


def claim(workspace: Path, names: Iterable[str]) -> str:
    """Take the first of `names` that no other run has, until this run ends.

    A file beside `workspace`, the run's temporary folder, says who has a name. It is made in one
    step that is atomic on network file systems, too. Raises UserError.
    """
    try:
        for name in names:
            place = workspace.with_name(f"{name}.claim")
            with suppress(FileExistsError), place.open("x", encoding="utf-8") as file:
                file.write(workspace.name)
                return name
    except OSError as error:
        raise UserError(f"cannot write into {workspace.parent}: {error.strerror}") from error
    raise AssertionError("names has no end")
