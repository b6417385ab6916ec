"""Groups 1 to 3: kills of the run, kills of its children, signals, a terminal that closes."""

from __future__ import annotations

import errno
import io
import math
import os
import pickle
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from random import Random
from typing import Any

import psutil
import pytest

from benchmarks.kills import kill_again_and_again, want_clips
from tests.conftest import MakeSource
from tests.faults.promise import SMALL, Lab, keeps_promise, wait_for
from tests.scripts import Done, finish
from utils import parallel, run

STALLED = ("stalled___1", "stalled___2")


def stall(lab: Lab, source: MakeSource) -> None:
    """A list whose first video comes and whose others never do."""
    lab.video("comes_first", source(**SMALL))
    for youtube_id in STALLED:
        lab.video(youtube_id, source(**SMALL))
        lab.standin.knobs(youtube_id, stall_after=3000)


def is_in_the_middle(lab: Lab) -> bool:
    """One clip is there, and ffmpeg waits for the next."""
    waiting = lab.standin.requests(target="media", finished=False)
    return len(lab.clips()) == 1 and len(waiting) >= 1


@pytest.mark.slow
def test_the_run_is_killed_again_and_again(lab: Lab, source: MakeSource) -> None:
    """The short form of benchmarks/kills.py."""
    want_clips(lab, source(**SMALL), videos=4, clips=2)
    tally = kill_again_and_again(lab, 4, Random(7))
    assert (tally.kills, tally.bad, tally.torn) == (4, 0, 0)
    keeps_promise(lab, lab.run(), 0)


@pytest.mark.slow
def test_a_killed_run_leaves_what_the_next_one_clears(lab: Lab, source: MakeSource) -> None:
    stall(lab, source)
    process = lab.start("--n", "2")
    wait_for(lambda: is_in_the_middle(lab))
    process.kill()
    lab.end_orphans()
    done = finish(process)
    assert (lab.out / ".tmp").exists()
    keeps_promise(lab, done, -signal.SIGKILL)
    assert not (lab.out / ".tmp").exists()


@pytest.mark.parametrize(
    ("program", "target"),
    [("yt_dlp", "player"), pytest.param("ffmpeg", "media", marks=pytest.mark.slow)],
)
def test_one_child_is_killed(program: str, target: str, lab: Lab, source: MakeSource) -> None:
    """The video is tried again in the same run, and the others are not harmed."""
    stall(lab, source)
    lab.standin.clear_knobs()
    victim = STALLED[0]
    knob = lab.standin.knobs(victim, target=target, stall_after=0, times=1)
    process = lab.start("--n", "2")
    wait_for(lambda: lab.standin.times_used(knob) and len(lab.clips()) == 2)
    child = next(child for child in lab.processes() if is_program(child, program, victim))
    child.kill()
    done = finish(process)
    others = {row["attempts"] for name, row in lab.report().items() if victim not in name}
    assert others == {"1"}
    keeps_promise(lab, done, 0)


def is_program(process: psutil.Process, program: str, youtube_id: str) -> bool:
    line = process.cmdline()
    if program == "yt_dlp":  # it stays, and says nothing of what it is at: the one that is waiting
        return any("p.serve()" in word for word in line) and bool(process.net_connections())
    name = os.path.basename(line[0]) + " " + " ".join(line[1:3])
    return program in name and any(youtube_id in word for word in line)


def once(number: signal.Signals) -> Callable[[subprocess.Popen[str]], None]:
    return lambda process: process.send_signal(number)


def twice(number: signal.Signals) -> Callable[[subprocess.Popen[str]], None]:
    def send(process: subprocess.Popen[str]) -> None:
        process.send_signal(number)
        time.sleep(0.05)  # as `timeout` does, and people do
        process.send_signal(number)

    return send


@pytest.mark.parametrize(
    ("send", "number"),
    [
        pytest.param(once(signal.SIGINT), signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(twice(signal.SIGINT), signal.SIGINT, marks=pytest.mark.slow),
        (once(signal.SIGTERM), signal.SIGTERM),
        pytest.param(once(signal.SIGHUP), signal.SIGHUP, marks=pytest.mark.slow),
    ],
    ids=["Ctrl-C", "Ctrl-C twice", "SIGTERM", "SIGHUP"],
)
def test_a_signal_stops_the_run_in_order(
    send: Callable[[subprocess.Popen[str]], None],
    number: signal.Signals,
    lab: Lab,
    source: MakeSource,
) -> None:
    stall(lab, source)
    process = lab.start("--n", "2")
    wait_for(lambda: is_in_the_middle(lab))
    before = time.monotonic()
    send(process)
    done = finish(process, 20)
    assert time.monotonic() - before < 15
    assert "stopping" in done.err and "stopped after" in done.err
    assert not (lab.out / ".tmp").exists()
    keeps_promise(lab, done, 128 + number)


@pytest.mark.slow
def test_the_terminal_closes(lab: Lab, source: MakeSource) -> None:
    """What a user sees on it is lost; the run ends as by SIGHUP."""
    stall(lab, source)
    ours, theirs = pty.openpty()
    given: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = lab.start("--n", "2", through=["setsid", "-c"], **given)
    os.close(theirs)
    wait_for(lambda: is_in_the_middle(lab))
    os.close(ours)
    done = Done(process.wait(20), "", "")
    assert not (lab.out / ".tmp").exists()
    keeps_promise(lab, done, 128 + signal.SIGHUP)


def test_processes_that_end_leave_nothing_and_none_stays_for_weeks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "RENEW_AFTER", 2)
    start = partial(parallel.Child, str(parallel.ROOT))
    with closing(parallel.Children(start)) as children:

        def call(function: Callable[[int], object], value: int) -> tuple[bytes, str]:
            return children.call(pickle.dumps((function, value)), lambda: function is time.sleep)

        assert call(os._exit, 3)[1].endswith("exit code 3")
        assert call(time.sleep, 60) == (b"", "the run is stopped")
        sessions = [call(os.getsid, 0)[0] for _ in range(4)]
        assert sessions[0] == sessions[1] != sessions[2] == sessions[3]
        assert call(math.isqrt, 9)[1] == ""
        wait_for(lambda: sum(each.process.poll() is None for each in children._all) == 1)
        for each in children._all:
            each.is_idle = False
        call(math.isqrt, 9)
        assert len(children._all) == 2


class ClosedTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


def test_a_message_above_the_bar_is_lost_with_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", ClosedTerminal())
    with run.Progress(1, "clip") as progress:
        progress.say("nobody reads this")
        progress.add("failed")
