"""Python on a machine of its own, for tests: its locks, its appending and its address.

Put on PYTHONPATH, with FAR_LOCKS as this machine's folder of locks. A lock is seen on this machine
only (NFS with `local_lock`, Lustre with `localflock`), and appending is what it is on NFS: a look
at the size, then a write there. With FAR_ADDRESS (127.0.0.2, say) its connections come from there.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from typing import Any

LOCKS = os.environ["FAR_LOCKS"]
ADDRESS = os.environ.get("FAR_ADDRESS", "")
ROUND_TRIP_SECONDS = 0.002
_locks: dict[tuple[int, int, int], int] = {}
_appending: set[int] = set()
_flock, _open, _write, _close = fcntl.flock, os.open, os.write, os.close


def flock(file: int, operation: int) -> None:
    stat = os.fstat(file)
    key = (file, stat.st_dev, stat.st_ino)
    if key not in _locks:
        path = f"{LOCKS}/{stat.st_dev}-{stat.st_ino}"
        _locks[key] = _open(path, os.O_RDWR | os.O_CREAT, 0o600)
    _flock(_locks[key], operation)
    if operation & fcntl.LOCK_UN:
        _close(_locks.pop(key))


def open_file(path: Any, flags: int, *more: Any, **named: Any) -> int:
    file = _open(path, flags & ~os.O_APPEND, *more, **named)
    _appending.discard(file)
    if flags & os.O_APPEND:
        _appending.add(file)
    return file


def write(file: int, data: Any) -> int:
    if file not in _appending:
        return _write(file, data)
    size = os.fstat(file).st_size
    time.sleep(ROUND_TRIP_SECONDS)
    return os.pwrite(file, data, size)


def connect(self: socket.socket, address: Any) -> None:
    if ADDRESS and self.family == socket.AF_INET and not self.getsockname()[1]:
        self.bind((ADDRESS, 0))
    _connect(self, address)


_connect = socket.socket.connect
socket.socket.connect = connect  # type: ignore[method-assign, assignment]
fcntl.flock = flock  # type: ignore[assignment]
os.open = open_file
os.supports_dir_fd.add(open_file)  # shutil asks
os.write = write
