"""A yt-dlp that stays: run as a program by `sources/ytdlp`, imported by nobody.

Takes one command line after another over the pipe whose descriptor is its argument, and answers
with (exit code, stdout, stderr) as `python -m yt_dlp` would have. Ends, with all that it started,
as soon as the other end of the pipe is closed: with the run that it serves, however that ends.
"""

from __future__ import annotations

import io
import os
import queue
import signal
import sys
import threading
import traceback
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection

IDLE_SECONDS = 120.0  # without a task; on a cluster's node nobody says that the run is over

Task = tuple[list[str], dict[str, str]]


def main() -> None:
    pipe = Connection(int(sys.argv[1]))
    sys.argv = ["yt-dlp"]  # what it calls itself where it speaks of its options
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=receive, args=(pipe, tasks), daemon=True).start()
    while True:
        try:
            argv, environment = tasks.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return
        os.environ.clear()
        os.environ.update(environment)
        pipe.send(run(argv))


def receive(pipe: Connection, tasks: queue.SimpleQueue[Task]) -> None:
    """In a thread of its own, so that the end of the pipe is seen while yt-dlp is at work."""
    try:
        while True:
            tasks.put(pipe.recv())
    except (EOFError, OSError):
        os.killpg(os.getpgrp(), signal.SIGKILL)


def run(argv: list[str]) -> tuple[int, str, str]:
    """`yt-dlp ARGV`: what it would end with, and what it would print."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            import yt_dlp  # here, for what is wrong with it is an answer, too

            yt_dlp.main(argv)
            code: object = 0
        except SystemExit as end:
            code = end.code
        except Exception:
            traceback.print_exc()
            code = 1
    if isinstance(code, str):
        err.write(f"{code}\n")
        code = 1
    return int(code) if isinstance(code, int) else 0, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    main()
