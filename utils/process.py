"""Run child processes, and stop a run.

yt-dlp and ffmpeg run only here: argv lists, stdin closed, a session of their own. It is killed as a
group, because yt-dlp leaves its ffmpeg running when it alone is ended.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

from utils.errors import UserError

STOP = threading.Event()  # set once, by a signal or a full disk; every worker looks at it
PATIENCE = 5.0  # seconds in which a stopped run ends by itself
_signal_received = 0
_signal_at = 0.0
_running: set[subprocess.Popen[bytes]] = set()
OUTPUT_LIMIT = 64 * 2**20  # bytes that a child may print; what yt-dlp says of a video has 1 MB
CHILD_MEMORY = psutil.virtual_memory().total // 2
_POLL_SECONDS = 0.1
_NO_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR)


class Stopped(Exception):
    """The run is being stopped: drop unfinished work without a message."""


@dataclass(frozen=True)
class Finished:
    """A child process that ended, or was ended (`timed_out`)."""

    returncode: int
    stdout: str
    stderr: str
    timed_out: bool = False


def run_child(
    argv: Sequence[str],
    *,
    timeout: float | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    memory: int = CHILD_MEMORY,
) -> Finished:
    """Run `argv` to its end, or for `timeout` seconds, and return what it printed.

    A child that prints more than OUTPUT_LIMIT bytes is ended. memory: bytes that it may use, if the
    system can limit them. No process of its group is ever left. Raises Stopped when the run is
    being stopped, and UserError when there is no such program.
    """
    if STOP.is_set():
        raise Stopped
    deadline = time.monotonic() + (math.inf if timeout is None else timeout)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        if error.errno not in _NO_PROGRAM:
            raise
        raise UserError(f"cannot run {argv[0]}: {error.strerror}") from error
    limit_memory(process.pid, memory)
    _running.add(process)
    with process:  # closes its pipes
        try:
            out, err, timed_out = _communicate(process, deadline)
        finally:
            kill_group(process)
            _running.discard(process)
    stdout, stderr = (data.decode(errors="replace") for data in (out, err))
    return Finished(process.returncode, stdout, stderr, timed_out)


def limit_memory(pid: int, memory: int) -> None:
    """Limit the memory of a process and of all that it will start, if the system can.

    RLIMIT_DATA counts what can be written to. RLIMIT_AS would count addresses, too, of which
    JavaScript engines reserve terabytes.
    """
    with suppress(psutil.Error, OSError, AttributeError):
        psutil.Process(pid).rlimit(psutil.RLIMIT_DATA, (memory, memory))


def _communicate(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes, bool]:
    """Return what a child prints until it is to be ended, and whether it takes too long.

    Its pipes may be held open by a process that left its group. Raises Stopped.
    """
    while True:
        try:
            return *process.communicate(timeout=_POLL_SECONDS), False
        except subprocess.TimeoutExpired as error:
            out, err = error.output or b"", error.stderr or b""
        if STOP.is_set():
            raise Stopped
        if len(out) + len(err) > OUTPUT_LIMIT:
            return out, err + b"\n(printed without end)", False
        if time.monotonic() > deadline:
            return out, err, True


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a child of `run_child` and all that it started; no harm when they have ended."""
    # The group outlives its leader, so this also finds the ffmpeg of a yt-dlp that is gone.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def received_signal() -> int:
    """Return the number of the signal that stopped the run; 0 if none did."""
    return _signal_received


def catch_signals() -> None:
    """From now on, let Ctrl-C, SIGTERM and a closed terminal stop the run in order.

    Further signals are ignored for PATIENCE seconds, because `timeout` and shells send a second one
    at once. After that, one more ends the process and its children.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        global _signal_received, _signal_at
        if not _signal_received:
            _signal_received, _signal_at = number, time.monotonic()
            STOP.set()
            # os.write, because print may be under way in the very thread that this interrupts.
            with suppress(OSError):
                os.write(2, b"\nstopping: unfinished work is dropped, finished work is kept\n")
        elif time.monotonic() - _signal_at > PATIENCE:
            for process in list(_running):
                kill_group(process)
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, stop)


def sleep(seconds: float) -> None:
    """Sleep, but no longer than the run lasts. Raises Stopped."""
    if STOP.wait(max(0.0, seconds)):
        raise Stopped
