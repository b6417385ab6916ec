"""The limiter between the workers, with real threads and a real clock."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from utils.download.pace import MachinePace, Pace, Turn, TurnedAway
from utils.machines import MACHINE_VARIABLE
from utils.process import Stopped


def test_starts_are_spread_over_all_workers() -> None:
    pace = Pace(videos_per_hour=36_000)  # one every 0.1 s
    starts: list[float] = []

    def work() -> None:
        for _ in range(5):
            pace.passed(pace.wait_turn())
            starts.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(starts) - min(starts) == pytest.approx(1.9, abs=0.6)


def test_nothing_starts_in_a_block_but_one_scout() -> None:
    pace = Pace(pause_seconds=0.5)
    turn = pace.wait_turn()
    pace.blocked(turn, "bot_check")
    assert "bot_check" in pace.note()
    turns: list[tuple[float, Turn]] = []

    def work() -> None:
        turn = pace.wait_turn()
        turns.append((time.monotonic(), turn))
        time.sleep(0.5)
        pace.passed(turn)

    started = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [at - started for at, _ in turns]
    assert [turn.is_scout for _, turn in turns] == [True, False, False, False]
    assert times[0] > 0.4
    assert times[1] > times[0] + 0.4
    assert pace.note() == ""


def test_workers_under_way_count_as_one_block_and_scouts_double_it() -> None:
    pace = Pace(pause_seconds=0.2)
    turns = [pace.wait_turn() for _ in range(3)]
    for turn in turns:
        pace.blocked(turn, "rate_limited")
    assert pace.blocks == 1
    lengths = []
    for _ in range(4):
        before = time.monotonic()
        scout = pace.wait_turn()
        lengths.append(time.monotonic() - before)
        pace.blocked(scout, "rate_limited")
    assert lengths == pytest.approx([0.2, 0.4, 0.8, 0.8], abs=0.3)
    assert lengths[2] > lengths[0] + 0.3


def test_a_scout_without_an_answer_is_replaced() -> None:
    pace = Pace(pause_seconds=0.1)
    pace.blocked(pace.wait_turn(), "bot_check")
    first = pace.wait_turn()
    pace.unclear(first)
    before = time.monotonic()
    second = pace.wait_turn()
    assert time.monotonic() - before > 0.8  # not at once
    assert first.is_scout and second.is_scout
    pace.passed(second)
    assert not pace.wait_turn().is_scout


def test_a_machines_processes_share_one_limiter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(MACHINE_VARIABLE, "alpha")
    first, second = MachinePace(tmp_path, 60, 900), MachinePace(tmp_path, 60, 900)
    monkeypatch.setenv(MACHINE_VARIABLE, "beta")
    elsewhere = MachinePace(tmp_path, 60, 900)
    turn = first.wait_turn()
    with second._state() as state:
        assert state.next_start > time.monotonic() + 30  # the other process's next turn
    first.blocked(turn, "bot_check")
    second.hold_seconds = 0.0
    with pytest.raises(TurnedAway):
        second.wait_turn()
    block = second.pause_left()
    assert block is not None and block[0] == "bot_check" and block[1] > 800
    assert (second.blocks, elsewhere.blocks, elsewhere.pause_left()) == (1, 0, None)
    assert elsewhere.wait_turn().period == 0


def test_a_scout_whose_process_was_killed_is_replaced(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    pace = MachinePace(tmp_path, 0, 0.01)
    pace.blocked(pace.wait_turn(), "rate_limited")
    with pace._state() as state:
        state.scout = gone.pid
    assert pace.wait_turn().is_scout


def test_a_machines_pace_ends_with_its_run(tmp_path: Path) -> None:
    pace = MachinePace(tmp_path / "run", 0, 900)
    with pytest.raises(Stopped):
        pace.wait_turn()
    assert not (tmp_path / "run").exists()
