"""A run among others in one folder, of this machine or of others: who is alive, who writes what.

On the ground, under `files`. Machines may share the output folder over a network, where file locks
often hold on one machine only (NFS with `local_lock`, Lustre with `localflock`) and appending is
not atomic. So nothing here trusts a lock of another machine, and a file has one writer.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from utils.errors import UserError

MACHINE_VARIABLE = "KINETICS_MACHINE"  # names this machine, where two have one host name
RUN_PREFIX = "run-"
BEAT_SECONDS = 60.0  # a run shows that it lives so often
SILENT_SECONDS = 24 * 3600.0  # a run of another machine is dead after so long without a sign
_DEAD = ".dead"  # how the names of folders end that are being removed
_NEW_SECONDS = 60.0  # a run may be between making its claim and writing its name into it


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


def lock_path(folder: Path) -> Path:
    """The lock that a run holds on its temporary folder."""
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def showing_life(folder: Path) -> Iterator[None]:
    """Renew the date of a run's folder every minute, for machines that do not see its lock."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with suppress(OSError):
                os.utime(folder)  # no time given: the file server's clock, for all machines alike

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def clear_dead_runs(base: Path) -> None:
    """Remove the temporary folders in `base` of runs that are dead, and what they claimed."""
    for folder in base.glob(f"{RUN_PREFIX}*"):
        if folder.is_dir() and not folder.is_symlink():
            with suppress(OSError):
                _clear_if_dead(folder)
    for lock in base.glob(f"{RUN_PREFIX}*.lock"):  # of a run that was killed as it ended
        if not lock.with_suffix("").exists():
            with suppress(OSError):
                lock.unlink()
    for claimed in base.glob("*.claim*"):  # also what a kill left of `clear_claim`
        with suppress(OSError):
            if not _is_held(claimed):
                clear_claim(claimed)


def _is_held(claimed: Path) -> bool:
    """Whether the run that a claim names still has its temporary folder. Raises OSError."""
    run = claimed.read_text(encoding="utf-8")
    if not run:  # killed over it, or about to write its name, where there are no hard links
        return time.time() - claimed.stat().st_mtime < _NEW_SECONDS
    return (claimed.parent / run).exists()


def clear_claim(claimed: Path) -> None:
    """Remove the claim of a dead run. Raises OSError.

    Renamed first: since it was looked at, another run may have cleared it and claimed the name
    anew. That claim is put back. (Of six runs that started at once beside dead claims, one in 90
    shared another's report; what is left takes three runs within microseconds.)
    """
    aside = claimed.with_name(f"{claimed.name}.{uuid.uuid4().hex}")
    os.rename(claimed, aside)
    if _is_held(aside):
        with suppress(OSError):
            os.link(aside, claimed)
    aside.unlink()


def _clear_if_dead(folder: Path) -> None:
    if folder.suffix == _DEAD:  # whoever cleared it was killed over it
        shutil.rmtree(folder, ignore_errors=True)
        return
    lock = lock_path(folder)
    silent = time.time() - folder.stat().st_mtime
    is_ours = folder.name.rpartition("-")[0] == run_prefix().rstrip("-")
    if silent < SILENT_SECONDS and not is_ours:
        return
    try:
        with FileLock(lock, timeout=0):
            remove_run(folder)
            lock.unlink(missing_ok=True)
    except Timeout:
        pass
    except NotImplementedError:  # a file system without locks
        if silent >= SILENT_SECONDS:
            remove_run(folder)
            lock.unlink(missing_ok=True)


def remove_run(folder: Path) -> None:
    """Remove a run's temporary folder, also while workers of a cluster still write into it.

    Renamed first: what comes after that finds no folder, and is not left behind.
    """
    dead = folder.with_name(folder.name + _DEAD)
    with suppress(OSError):
        os.rename(folder, dead)
    shutil.rmtree(dead, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def claim(workspace: Path, names: Iterable[str]) -> Iterator[str]:
    """The first of `names` that no other run has, this run's own while it lasts.

    workspace: the run's temporary folder; beside it lies a file for each name that is taken, made
    in one step that is atomic on network file systems, too. Raises UserError.
    """
    own = workspace / "claim"
    try:
        own.write_text(workspace.name, encoding="utf-8")
        places = (workspace.with_name(f"{name}.claim") for name in names)
        claimed = next(place for place in places if _take(place, own))
    except OSError as error:
        raise UserError(f"cannot write into {workspace}: {error.strerror}") from error
    try:
        yield claimed.stem
    finally:
        with suppress(OSError):
            claimed.unlink()


def _take(place: Path, own: Path) -> bool:
    """Give the file `own` the name `place`, too; False when that is taken. Raises OSError.

    A link, for it appears with its text: a run that was killed between the making of an empty file
    and the writing of its name left a claim that nobody could tell from a living one.
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
