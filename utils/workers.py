"""Worker processes for work that is done in Python itself (decoding): one that dies costs one task.

Beside `process`, which runs ffmpeg and yt-dlp. Each thread of `parallel.run_parallel` has a
process of its own and speaks to it through a pipe, so that it is known which task killed one. In
the pools of joblib, loky and the standard library a killed worker aborts the whole run; so it does
in Pebble 5.2.3, which promises otherwise (with a worker killed every half second, 3,500 of 4,000
tasks failed; here none), and whose workers go on when their parent is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from utils.packages import describe
from utils.process import STOP, Stopped, without_ctrl_c

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

_POLL_SECONDS = 0.1


class Crashed(Exception):
    """The worker process died over its task. The text says how."""


class Failed(Exception):
    """The function raised, in its worker process. The text is the exception's, as reported."""


class WorkerProcess(Generic[Task, Outcome]):
    """A process that applies `function` to one task after another.

    Started afresh and not forked: a fork of a process with threads may inherit a lock that is
    held. `function` and tasks must be picklable, and a script needs its `__main__` guard.
    """

    def __init__(self, function: Callable[[Task], Outcome]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(function, other_end), daemon=True)
        try:
            with without_ctrl_c():
                self._process.start()
        finally:
            other_end.close()  # or the pipe would not close when the process dies

    def call(self, task: Task) -> Outcome:
        """`function(task)` in the process. Raises Crashed, and Stopped when the run is stopped.

        After either the process is gone. Raises Failed where `function` raised.
        """
        try:
            self._pipe.send(task)
            while not self._pipe.poll(_POLL_SECONDS):
                if STOP.is_set():
                    raise Stopped
            worked, outcome = self._pipe.recv()
        except (EOFError, OSError):
            self.end()
            # Who ends a job step (a cluster, a closed terminal) often ends the workers first.
            if STOP.wait(_POLL_SECONDS):
                raise Stopped from None
            raise Crashed(_how_it_ended(self._process.exitcode)) from None
        except Stopped:
            self.end()
            raise
        if not worked:
            raise Failed(outcome)
        result: Outcome = outcome
        return result

    def end(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


class WorkerPool(Generic[Task, Outcome]):
    """As many worker processes as threads ask for at once; all are ended with the pool."""

    def __init__(self, function: Callable[[Task], Outcome]) -> None:
        self._function = function
        self._idle: list[WorkerProcess[Task, Outcome]] = []
        self._all: list[WorkerProcess[Task, Outcome]] = []
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, task: Task) -> Outcome:
        """`function(task)`; when its process dies, once more in a fresh one.

        A process may also be killed for want of memory, which is not the task's fault. Raises
        Crashed when the second dies too, and Stopped.
        """
        process = self._take()
        try:
            outcome = process.call(task)
        except Crashed:
            process = self._take()
            outcome = process.call(task)
        with self._lock:
            self._idle.append(process)
        return outcome

    def _take(self) -> WorkerProcess[Task, Outcome]:
        with self._lock:
            if self._closed:
                raise Stopped
            if self._idle:
                return self._idle.pop()
            # Within the lock, so that no process starts that `__exit__` does not see.
            process = WorkerProcess(self._function)
            self._all.append(process)
            return process

    def __enter__(self) -> WorkerPool[Task, Outcome]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._closed = True
        for process in self._all:
            process.end()


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its worker process was ended by {signal.Signals(-code).name}"
    return f"its worker process ended with exit code {code}"


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    """The worker's side: tasks in, outcomes out, until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As `early` has it, for workers that no script of ours has started (on a cluster).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the other side is gone: nobody waits for an answer
        while True:
            task = pipe.recv()
            try:
                answer = (True, function(task))
            except Exception as error:
                answer = (False, describe(error))
            pipe.send(answer)


def _end_with_parent() -> None:
    """A run that is killed outright must not leave its workers at work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
