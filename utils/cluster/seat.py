"""A process on a worker of a cluster that does one task after another, with the run's own code.

Started by `cluster/outpost`, spoken to through a pipe: a pickled (script, function, task) in,
(whether it worked, outcome) out. When the pipe closes, whatever the reason, the run is over: what
is under way is stopped as by Ctrl-C, its children too.
"""

from __future__ import annotations

import functools
import os
import pickle
import queue
import runpy
import shutil
import signal
import struct
import sys
import threading
import time
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from utils.cluster.tasks import STOPPED
from utils.machines import machine_name
from utils.packages import describe
from utils.process import STOP, Stopped

PATIENCE = 2.5  # seconds; a little less than the outpost has


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what somebody prints must not get between the answers
    frames: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=read_frames, args=(sys.stdin.buffer, frames), daemon=True).start()
    while (frame := frames.get()) is not None:
        answer = pickle.dumps(work(*pickle.loads(frame)))
        try:
            answers.write(struct.pack(">Q", len(answer)) + answer)
            answers.flush()
        except OSError:
            break
    leave()


def read_frames(pipe: BinaryIO, frames: queue.SimpleQueue[bytes | None]) -> None:
    """Take what comes, also while a task is under way: the end must be seen at once."""
    while len(head := pipe.read(8)) == 8:
        frames.put(pipe.read(struct.unpack(">Q", head)[0]))
    STOP.set()
    frames.put(None)
    time.sleep(PATIENCE)
    leave()


def leave() -> None:
    """End, and take the code away: a worker that was killed cannot."""
    with suppress(OSError):
        shutil.rmtree(os.getcwd(), ignore_errors=True)
    os._exit(0)


def work(script: str, function: bytes, task: bytes) -> tuple[bool, Any, str]:
    """(whether it worked, the outcome or in words what it raised, this machine)."""
    try:
        if script:
            become(script)
        return True, load(function)(pickle.loads(task)), machine_name()
    except Stopped:
        return False, STOPPED, machine_name()
    except Exception as error:
        return False, describe(error), machine_name()


@functools.cache
def become(script: str) -> None:
    """Make the run's script this process's `__main__`, as multiprocessing does it.

    Functions of the script are then found under the name that they have at the head.
    """
    module = types.ModuleType("__mp_main__")
    module.__dict__.update(runpy.run_path(script, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


@functools.lru_cache(maxsize=4)
def load(function: bytes) -> Callable[[Any], Any]:
    """The function of a run, unpickled once: the same for all of its tasks."""
    loaded: Callable[[Any], Any] = pickle.loads(function)
    return loaded


if __name__ == "__main__":
    main()
