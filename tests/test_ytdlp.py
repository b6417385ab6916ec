"""yt-dlp in a process that stays: it answers as a fresh one, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import MakeSource
from tests.scripts import ROOT
from tests.standin.server import StandIn
from utils.download.sources import FetchOptions
from utils.download.youtube_extract import (
    child_environment,
    end_ytdlp,
    extract_command,
    run_ytdlp,
)
from utils.process import Finished, run_child
from utils.video.ffmpeg import Ffmpeg


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    end_ytdlp()
    psutil.wait_procs(staying(), timeout=20)  # one whose run has just ended sees that in a moment
    assert staying() == []


def staying(parent: int | None = None) -> list[psutil.Process]:
    """The processes that stay, of this process or of another."""
    found = []
    for child in psutil.Process(parent).children():
        with suppress(psutil.Error):  # it has ended
            if "runs=yt_dlp" in child.cmdline():
                found.append(child)
    return found


def command(standin: StandIn, folder: Path, youtube_id: str, *more: str) -> list[str]:
    tool = Ffmpeg("ffmpeg", "9")
    options = FetchOptions(folder, folder, tool, ytdlp_args=(*standin.ytdlp_arg_list, *more))
    return extract_command(youtube_id, options, folder)


def described(printed: str) -> list[object]:
    """What was printed, line by line; of a JSON its keys and the chosen format."""
    lines: list[object] = []
    for line in printed.splitlines():
        if line.startswith("{"):
            info = json.loads(line)
            lines.append((sorted(info), info.get("format_id")))
        else:
            lines.append(line)
    return lines


def ask(argv: list[str], timeout: float = 60) -> Finished:
    return run_ytdlp(argv, timeout=timeout, env=child_environment(None))


@pytest.mark.slow
def test_it_answers_as_a_fresh_one(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    standin.add_video("abcdefghijk", source(seconds=20))
    standin.add_dead("privatevide", "private")
    standin.add_dead("noformats__", "no_format")
    commands = [
        command(standin, tmp_path, "privatevide"),
        command(standin, tmp_path, "noformats__"),
        command(standin, tmp_path, "abcdefghijk", "--no-such-option"),
        command(standin, tmp_path, "abcdefghijk", "--match-filters", "duration > 100"),
        command(standin, tmp_path, "abcdefghijk", "-S", "height:1"),
        command(standin, tmp_path, "abcdefghijk", "--simulate", "--print", "title"),
        command(standin, tmp_path, "abcdefghijk", "--version"),
        command(standin, tmp_path, "abcdefghijk", "--cookies", str(tmp_path / "no" / "file")),
        command(standin, tmp_path, "abcdefghijk"),
    ]
    others = psutil.Process().children(recursive=True)  # of tests before this, in its process
    for argv in commands:
        program = [sys.executable, "-m", "yt_dlp", *argv]
        fresh, stays = run_child(program, timeout=60, env=child_environment(None)), ask(argv)
        assert (stays.returncode, stays.timed_out) == (fresh.returncode, False), argv
        said = fresh.stderr.replace("__main__.py: error", "yt-dlp: error")
        assert stays.stderr.splitlines()[-1:] == said.splitlines()[-1:]
        ours, theirs = described(stays.stdout), described(fresh.stdout)
        assert ours == theirs
    assert len(staying()) == 1  # one took them all
    left = [p for p in psutil.Process().children(recursive=True) if p not in others]
    assert left == staying()


def test_one_that_dies_costs_its_task_alone(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video("abcdefghijk", source(seconds=20))
    argv = command(standin, tmp_path, "abcdefghijk")
    assert ask(argv).returncode == 0
    (first,) = staying()
    first.kill()  # while it waits: nobody is harmed
    first.wait()
    assert ask(argv).returncode == 0
    (second,) = staying()
    assert second.pid != first.pid
    standin.knobs("abcdefghijk", target="player", stall_after=0)
    threading.Timer(1, second.kill).start()
    done = ask(argv)
    assert done.returncode != 0 and not done.timed_out and "SIGKILL" in done.stderr
    standin.clear_knobs()
    assert ask(argv).returncode == 0


def test_the_time_limit_ends_it_and_all_it_started(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video("abcdefghijk", source(seconds=20))
    more = ("--no-simulate", "--skip-download", "--exec", "before_dl:sleep 4321 #")
    begun = time.monotonic()
    done = ask(command(standin, tmp_path, "abcdefghijk", *more), timeout=4)
    assert done.timed_out
    assert time.monotonic() - begun < 30
    psutil.wait_procs(staying() + sleepers("4321"), timeout=5)
    assert staying() == []
    assert not sleepers("4321")


def sleepers(seconds: str) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline"])
    return [each for each in found if each.info["cmdline"] == ["sleep", seconds]]


def test_nothing_outlives_a_run_that_is_killed(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    """Killed outright while yt-dlp is at work, and has a child at work."""
    standin.add_video("abcdefghijk", source(seconds=20))
    more = ("--no-simulate", "--skip-download", "--exec", "before_dl:sleep 4322 #")
    argv = command(standin, tmp_path, "abcdefghijk", *more)
    code = "import sys, json, os; from utils.download.youtube_extract import run_ytdlp\n"
    code += "run_ytdlp(json.loads(sys.argv[1]), timeout=60, env=dict(os.environ))"
    run = subprocess.Popen([sys.executable, "-c", code, json.dumps(argv)], cwd=ROOT)
    until = time.monotonic() + 60
    while not sleepers("4322") and time.monotonic() < until:
        time.sleep(0.05)
    assert sleepers("4322")
    (stays,) = staying(run.pid)
    run.kill()
    run.wait()
    psutil.wait_procs([stays], timeout=20)
    assert not stays.is_running() or stays.status() == psutil.STATUS_ZOMBIE
    until = time.monotonic() + 10
    while sleepers("4322") and time.monotonic() < until:
        time.sleep(0.05)
    assert not sleepers("4322")


def test_it_works_in_a_daemon_process(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    """dask's workers are such processes; multiprocessing lets them have no children."""
    standin.add_video("abcdefghijk", source(seconds=20))
    argv = command(standin, tmp_path, "abcdefghijk")
    code = "import multiprocessing as m, sys, json, os\n"
    code += "from utils.download.youtube_extract import run_ytdlp\n"
    code += "def work(argv, pipe):\n"
    code += "    pipe.send(run_ytdlp(argv, timeout=60, env=dict(os.environ)).returncode)\n"
    code += "if __name__ == '__main__':\n"
    code += "    ours, theirs = m.Pipe()\n"
    code += "    p = m.get_context('fork').Process(target=work, args=(json.loads(sys.argv[1]),"
    code += " theirs), daemon=True)\n"
    code += "    p.start(); print(ours.recv())\n"
    given = [sys.executable, "-c", code, json.dumps(argv)]
    done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.stdout == "0\n", done.stderr


def test_a_process_that_leaves_its_group_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pipes are closed at the limits, so that it can neither delay a run nor fill memory."""
    monkeypatch.setattr("utils.process.OUTPUT_LIMIT", 2**20)
    printed = run_child(["sh", "-c", "setsid cat /dev/zero & exit 3"])
    assert printed.stderr.endswith("(printed without end)")
    begun = time.monotonic()
    assert run_child(["sh", "-c", "echo x; setsid sleep 40 & exit 3"], timeout=1).timed_out
    assert time.monotonic() - begun < 30
