"""yt-dlp run in processes that have it imported: one takes one extraction after another.

Beside `process.run_child`, whose answer it gives; `youtube_extract` asks. A fresh yt-dlp takes 0.35
to 0.6 CPU-s before it asks for anything, one that stays 0.06 s for an extraction whole. The
processes (`ytdlp_worker`) are made as they are needed, by whichever process runs this: a script, or
a worker of a cluster. Not `utils.workers`: those import the main script anew, and may not be had
in a process that multiprocessing calls a daemon, as dask's are.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from pathlib import Path

from utils.process import STOP, Finished, Stopped, kill_group, run_child

PROGRAM = Path(__file__).with_name("ytdlp_worker.py")
RENEW_AFTER = 100  # command lines: yt-dlp is not made to stay for weeks
POLL_SECONDS = 0.1


class _Process:
    """A yt-dlp that stays, in a session of its own, so that it can be ended as a group."""

    def __init__(self) -> None:
        self.pipe, other_end = Pipe()
        self.calls = 0
        # UTF-8 whatever the locale, and nothing of it on the terminal but what it answers.
        argv = [sys.executable, "-X", "utf8", str(PROGRAM), str(other_end.fileno())]
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[other_end.fileno()],
            start_new_session=True,
        )
        other_end.close()  # or the pipe would not close when the process dies

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def call(self, argv: Sequence[str], timeout: float, env: Mapping[str, str]) -> Finished:
        """Raises Stopped; EOFError or OSError where the process dies over it."""
        deadline = time.monotonic() + timeout
        self.calls += 1
        self.pipe.send((list(argv), dict(env)))
        while not self.pipe.poll(POLL_SECONDS):
            if STOP.is_set():
                raise Stopped
            if time.monotonic() > deadline:
                return Finished(-9, "", "", timed_out=True)
        return Finished(*self.pipe.recv())

    def end(self) -> None:
        """End it, whatever it is at, and what it started."""
        kill_group(self.process)
        self.pipe.close()


_idle: list[_Process] = []
_lock = threading.Lock()


def run_ytdlp(argv: Sequence[str], *, timeout: float, env: Mapping[str, str]) -> Finished:
    """`run_child` for a command line that begins with `python -m yt_dlp`. Raises Stopped."""
    if os.name != "posix":  # a pipe cannot be handed over by its number
        return run_child(argv, timeout=timeout, env=env)
    if STOP.is_set():
        raise Stopped
    process = _take()
    keep = False
    try:
        done = process.call(argv[3:], timeout, env)
        keep = not done.timed_out and process.calls < RENEW_AFTER
    except (EOFError, OSError):
        kill_group(process.process)
        code = process.process.returncode
        if code == 0 and process.calls > 1:  # it had waited long enough, and ended just then
            return run_ytdlp(argv, timeout=timeout, env=env)
        done = Finished(code, "", f"ERROR: yt-dlp ended with exit code {code}")
    finally:
        if keep:
            with _lock:
                _idle.append(process)
        else:
            process.end()
    return done


def _take() -> _Process:
    """The process that was busy last (those that are not needed may end), or a new one."""
    with _lock:
        while _idle:
            if (process := _idle.pop()).is_alive:
                return process
            process.end()
    return _Process()


def end_ytdlp() -> None:
    """End all processes that wait for work. None is at work when a run is over."""
    with _lock:
        while _idle:
            _idle.pop().end()
