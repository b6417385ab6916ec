"""Temporary folders of runs, and which run writes which report: several runs may share one output.

Machines may share the output over a network, where file locks often hold on one machine only (NFS
with `local_lock`, Lustre with `localflock`). So a lock is trusted between runs of one machine only.
A run of another machine lives as long as it renews the date of its folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import socket
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import DiskFull, UserError, is_disk_full
from utils.process import sleep

TEMP_FOLDER = ".tmp"
MACHINE_VARIABLE = "KINETICS_MACHINE"  # names this machine, where two have one host name
RUN_PREFIX = "run-"
BEAT_SECONDS = 60.0  # a run shows that it lives so often
SILENT_SECONDS = 24 * 3600.0  # a run of another machine is dead after so long without a sign
_DEAD = ".dead"  # how the names of folders end that are being removed
_ALONE = "lock"


def machine_name() -> str:
    """What this machine is called in names of files."""
    name = os.environ.get(MACHINE_VARIABLE) or socket.gethostname()
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:63] or "unnamed"


def run_prefix() -> str:
    """How the temporary folders of this machine's runs begin."""
    return f"{RUN_PREFIX}{machine_name()}-"


def own_folder(workspace: Path) -> Path:
    """A folder of this process's own in the run's temporary one, which machines may share."""
    folder = workspace / f"{machine_name()}-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def run_folder(out: Path) -> Iterator[Path]:
    """Make a temporary folder for this run inside `out`, and remove it at the end.

    First removes what killed runs left. A run holds a lock on its folder as long as it lives, so a
    folder of this machine whose lock is free is nobody's, whatever process ids say, in containers
    too. Nothing outside of `out` is ever removed, also if somebody puts a link in the place of
    `.tmp` while the run goes on: all is done within the folder that was opened at the start.
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
        with _showing_life(opened, name):
            yield base / name
    finally:
        _remove_run(opened, name)
        os.close(lock)
        _tidy(opened, base)


def _begin(base: Path) -> tuple[int, str, int]:
    """The folder `.tmp`, opened; this run's folder in it; the lock on that. Raises OSError."""
    for _ in range(100):
        base.mkdir(exist_ok=True)
        opened = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            with suppress(FileNotFoundError):  # a run that ended meanwhile removed `.tmp`
                name = run_prefix() + secrets.token_hex(4)
                with _alone(opened):
                    _clear_dead_runs(opened)
                    os.mkdir(name, 0o700, dir_fd=opened)
                    lock = _lock(opened, f"{name}.lock")
                _remove_dead(opened)
                if lock is not None:
                    return opened, name, lock
        except BaseException:
            os.close(opened)
            raise
        os.close(opened)
    raise FileNotFoundError(errno.ENOENT, "folders vanish as they are made", str(base))


def _tidy(opened: int, base: Path) -> None:
    """At a run's end: remove its claims, and `.tmp`, unless other runs use it."""
    with suppress(OSError):  # another run that ends removed it, or a link is there now
        lock = _lock(opened, _ALONE)
        if lock is not None:  # else another run begins or ends, and does it
            _clear_dead_runs(opened)
            if os.listdir(opened) == [_ALONE]:
                os.unlink(_ALONE, dir_fd=opened)
                base.rmdir()
            os.close(lock)
    os.close(opened)


@contextmanager
def _alone(base: int) -> Iterator[None]:
    """No other run of this machine begins or takes a name meanwhile. Raises Stopped, OSError."""
    while (lock := _lock(base, _ALONE)) is None:
        sleep(0.02)
    try:
        yield
    finally:
        os.close(lock)


def _lock(base: int, name: str, must: bool = False) -> int | None:
    """The lock file `name`, opened and locked; None if another run holds it.

    On a file system without locks it is only opened, or, where it `must` be locked, is None, too.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    file = os.open(name, flags, 0o600, dir_fd=base)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except OSError:
        if must:
            os.close(file)
            return None
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file), os.stat(name, dir_fd=base, follow_symlinks=False)):
            return file
    os.close(file)  # whoever held it removed it
    return None


@contextmanager
def _showing_life(base: int, name: str) -> Iterator[None]:
    """Renew the date of a run's folder every minute, for machines that do not see its lock."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with suppress(OSError):  # no time given: the file server's clock, for all machines
                os.utime(name, dir_fd=base, follow_symlinks=False)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _clear_dead_runs(base: int) -> None:
    """Take away, in the opened folder `.tmp`, the names of runs that are dead, and their claims."""
    for name in os.listdir(base):
        if name.startswith(RUN_PREFIX) and not name.endswith((_DEAD, ".lock")):
            with suppress(OSError):
                _clear_if_dead(base, name)
    for name in os.listdir(base):
        with suppress(OSError):
            if name.startswith(RUN_PREFIX) and name.endswith(".lock"):
                owner = name.removesuffix(".lock")
            elif ".claim" in name:
                owner = _claimant(base, name)
            else:
                continue
            if not (owner and _is_there(base, owner)):
                os.unlink(name, dir_fd=base)


def _is_there(base: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=base, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _clear_if_dead(base: int, name: str) -> None:
    found = os.stat(name, dir_fd=base, follow_symlinks=False)
    is_silent = time.time() - found.st_mtime >= SILENT_SECONDS
    is_ours = name.rpartition("-")[0] == run_prefix().rstrip("-")
    if not stat.S_ISDIR(found.st_mode) or not (is_silent or is_ours):
        return
    # Without locks only silence tells.
    lock = _lock(base, f"{name}.lock", must=not is_silent)
    if lock is not None:
        os.rename(name, name + _DEAD, src_dir_fd=base, dst_dir_fd=base)
        os.close(lock)


def _claimant(base: int, name: str) -> str:
    """The run that a claim names. Raises OSError."""
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=base)
    with os.fdopen(file, encoding="utf-8", errors="replace") as opened:
        return opened.read(1000)


def _remove_dead(base: int) -> None:
    for name in os.listdir(base):
        if name.startswith(RUN_PREFIX) and name.endswith(_DEAD):
            _remove_tree(base, name)


def _remove_run(base: int, name: str) -> None:
    """Remove a run's temporary folder, also while workers of a cluster still write into it.

    Renamed first: what comes after that finds no folder, and is not left behind.
    """
    with suppress(OSError):
        os.rename(name, name + _DEAD, src_dir_fd=base, dst_dir_fd=base)
    _remove_tree(base, name + _DEAD)
    _remove_tree(base, name)
    with suppress(OSError):
        os.unlink(f"{name}.lock", dir_fd=base)


def _remove_tree(base: int, name: str) -> None:
    """Remove a folder in the opened folder `base`, as far as it can be removed."""
    with suppress(OSError):
        for _, folders, files, here in os.fwalk(name, topdown=False, dir_fd=base):
            for remove, names in ((os.unlink, files), (os.rmdir, folders), (os.unlink, folders)):
                for each in names:
                    with suppress(OSError):  # a link to a folder counts as one
                        remove(each, dir_fd=here)
        os.rmdir(name, dir_fd=base)


def claim(workspace: Path, names: Iterable[str]) -> str:
    """The first of `names` that no other run has, this run's own as long as it lasts.

    workspace: the run's temporary folder; beside it lies a file for each name that is taken, made
    in one step that is atomic on network file systems, too. Raises UserError.
    """
    own = workspace / "claim"
    try:
        own.write_text(workspace.name, encoding="utf-8")
        return next(name for name in names if _take(workspace.with_name(f"{name}.claim"), own))
    except OSError as error:
        raise UserError(f"cannot write into {workspace}: {error.strerror}") from error


def _take(place: Path, own: Path) -> bool:
    """Give the file `own` the name `place`, too; False when that is taken. Raises OSError.

    A link appears with its text. A run that is killed between the making of a file and the writing
    of its name leaves a claim of nobody, which the next run clears.
    """
    try:
        os.link(own, place)
    except FileExistsError:
        return False
    except OSError:  # no hard links here
        try:
            with place.open("x", encoding="utf-8") as file:
                file.write(own.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True
