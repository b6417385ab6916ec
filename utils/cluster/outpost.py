"""The run's outpost on a worker of a Dask cluster: starts the processes that do the work there.

Sent to the workers as it stands, by value: they have no `utils` of this run, and the packages of
another one of that name may lie on their path. So nothing is imported here but the standard library
and dask's own. The work is done in child processes (`cluster/seat`), one a task at a time, as
`workers` has it on one machine: a decoder that crashes, or a run that is stopped, ends a child and
not the worker.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin, get_worker

WATCH_SECONDS = 2.0
SILENT_SECONDS = 300.0  # a head that has not renewed its folder for so long is dead
PATIENCE = 3.0  # seconds in which a seat ends by itself, with what it has started
STARTS = 3  # a task that took its worker away with it so often is not begun again
TOO_OFTEN = "it was lost with its worker three times"


class Outpost(WorkerPlugin):
    """One a run and worker process. Set up on workers that join late, too.

    workspace: the run's temporary folder on the shared disk. While it is there and renewed the
    run lives; whatever becomes of its head and of the scheduler, the work here ends with it.
    """

    def __init__(self, code: bytes, workspace: str) -> None:
        self.code, self.workspace = code, workspace

    def setup(self, worker: Any) -> None:
        """Called by dask, on its event loop."""
        self._lock = threading.Lock()
        self._folder = ""
        self._idle: list[subprocess.Popen[bytes]] = []
        self._seats: set[subprocess.Popen[bytes]] = set()
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def teardown(self, worker: Any) -> None:
        """Called by dask when the run or the worker ends."""
        self._end()

    def call(self, frame: bytes) -> tuple[bytes, str]:
        """(what the seat answers, ""), or (b"", how its process ended)."""
        try:
            seat = self._take()
        except OSError as error:
            return b"", f"no process could be started: {error}"
        assert seat.stdin is not None and seat.stdout is not None
        with suppress(OSError):
            write_frame(seat.stdin, frame)
        answer = read_frame(seat.stdout)
        if answer is None:
            with self._lock:
                self._seats.discard(seat)
            code = seat.wait()
            if code < 0:
                return b"", f"its worker process was ended by {signal.Signals(-code).name}"
            return b"", f"its worker process ended with exit code {code}"
        with self._lock:
            self._idle.append(seat)
        return answer, ""

    def _take(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._over.is_set():
                raise OSError("the run is over")
            if self._idle:
                return self._idle.pop()
            if not self._folder:
                self._folder = tempfile.mkdtemp(prefix="kinetics-code-")
                with zipfile.ZipFile(io.BytesIO(self.code)) as archive:
                    archive.extractall(self._folder)
            path = os.pathsep.join(filter(None, (self._folder, os.environ.get("PYTHONPATH"))))
            seat = subprocess.Popen(
                [sys.executable, "-m", "utils.cluster.seat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=self._folder,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,
            )
            self._seats.add(seat)
            return seat

    def _watch(self) -> None:
        """End the work when the head is gone: its folder is removed, or not renewed any more."""
        renewed, seen = 0.0, time.monotonic()
        while not self._over.wait(WATCH_SECONDS):
            try:
                now = os.stat(self.workspace).st_mtime
            except FileNotFoundError:
                if renewed:  # it was there: on a worker that does not see it, the check says so
                    break
                continue
            except OSError:
                continue
            if now != renewed:
                renewed, seen = now, time.monotonic()
            elif time.monotonic() - seen > SILENT_SECONDS:
                break
        self._end()

    def _end(self) -> None:
        """End all seats, and what they have started; a seat that hears no more does so itself."""
        with self._lock:
            self._over.set()
            seats, folder = list(self._seats), self._folder
            self._seats.clear()
            self._folder = ""
        for seat in seats:
            assert seat.stdin is not None
            with suppress(OSError):
                seat.stdin.close()
        deadline = time.monotonic() + PATIENCE
        for seat in seats:
            with suppress(subprocess.TimeoutExpired):
                seat.wait(max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(seat.pid, signal.SIGKILL)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def call_outpost(name: str, number: int, frame: bytes) -> tuple[bytes, str]:
    """What dask runs: one task, in the outpost of its worker. Raises nothing.

    A task that is begun leaves a mark in the run's folder until it is done. One that has lost its
    worker three times is not begun a fourth time.
    """
    outpost: Any = get_worker().plugins.get(name)
    if outpost is None:
        return b"", "the run's outpost is not on this worker"
    mark = Path(outpost.workspace) / f"begun-{number}"
    with suppress(OSError):
        if number >= 0:
            with mark.open("ab") as file:
                if file.tell() >= STARTS:
                    return b"", TOO_OFTEN
                file.write(b".")
    answer: tuple[bytes, str] = outpost.call(frame)
    with suppress(OSError):
        mark.unlink(missing_ok=True)
    return answer


def write_frame(file: Any, frame: bytes) -> None:
    """A message to the other side of a pipe. Raises OSError."""
    file.write(struct.pack(">Q", len(frame)) + frame)
    file.flush()


def read_frame(file: Any) -> bytes | None:
    """The next message; None when the other side is gone."""
    try:
        head = file.read(8)
        if len(head) < 8:
            return None
        frame: bytes = file.read(struct.unpack(">Q", head)[0])
    except (OSError, ValueError):
        return None
    return frame
