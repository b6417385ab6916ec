"""The limiter between the workers, with real threads and a real clock."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from utils.clip import Clip, Result
from utils.download.pace import FAILING, MANY, Attempted, Pace, Turn
from utils.process import STOP

PASSED, UNCLEAR = Attempted("passed", is_shown=True), Attempted("unclear", "truncated")
BLOCKED = Attempted("blocked", "bot_check")


def gone(number: int) -> Attempted:
    clip = Clip(f"video{number:06d}_000000_000001", f"video{number:06d}", 0, 1)
    return Attempted("gone", "private", results=(Result.of(clip, "private", "youtube"),))


def failed(number: int) -> Attempted:
    return Attempted("unclear", "network", "no route", youtube_id=f"video{number:06d}")


def wait_turn(pace: Pace) -> Turn:
    while isinstance(turn := pace.take_turn(), float):
        time.sleep(turn)
    return turn


def test_starts_are_spread_over_all_workers() -> None:
    pace = Pace(videos_per_hour=36_000)  # one every 0.1 s
    starts: list[float] = []

    def work() -> None:
        for _ in range(5):
            pace.end(wait_turn(pace), PASSED)
            starts.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(starts) - min(starts) == pytest.approx(1.9, abs=0.6)


def test_nothing_starts_in_a_block_but_one_scout() -> None:
    pace = Pace(pause_seconds=0.5)
    pace.end(wait_turn(pace), BLOCKED)
    assert "bot_check" in pace.note()
    turns: list[tuple[float, Turn]] = []

    def work() -> None:
        turn = wait_turn(pace)
        turns.append((time.monotonic(), turn))
        time.sleep(0.5)
        pace.end(turn, PASSED)

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
    for turn in [wait_turn(pace) for _ in range(3)]:
        pace.end(turn, BLOCKED)
    assert pace.blocks == 1
    lengths = []
    for _ in range(4):
        before = time.monotonic()
        scout = wait_turn(pace)
        lengths.append(time.monotonic() - before)
        pace.end(scout, BLOCKED)
    assert lengths == pytest.approx([0.2, 0.4, 0.8, 0.8], abs=0.35)
    assert lengths[2] > lengths[0] + 0.3


@pytest.mark.parametrize("attempt", [UNCLEAR, None])
def test_a_scout_without_an_answer_is_replaced(attempt: Attempted | None) -> None:
    pace = Pace(pause_seconds=0.1)
    pace.end(wait_turn(pace), BLOCKED)
    first = wait_turn(pace)
    pace.end(first, attempt)
    before = time.monotonic()
    second = wait_turn(pace)
    assert attempt is None or time.monotonic() - before > 0.8  # not at once
    assert first.is_scout and second.is_scout
    pace.end(second, PASSED)
    assert not wait_turn(pace).is_scout


def test_verdicts_are_held_back_until_a_video_is_shown() -> None:
    pace = Pace(has_check=True)
    for number in range(MANY - 1):
        assert pace.end(wait_turn(pace), gone(number)) == ([], None)
    results, _ = pace.end(wait_turn(pace), replace(UNCLEAR, is_shown=True))
    assert [result.reason for result in results] == ["private"] * (MANY - 1)
    pace.end(wait_turn(pace), gone(0))
    assert len(pace.last()) == 1


@pytest.mark.parametrize("check", [PASSED, gone(99), BLOCKED, UNCLEAR])
def test_many_verdicts_are_settled_by_the_check_video(check: Attempted) -> None:
    pace = Pace(pause_seconds=0.1, has_check=True)
    for number in range(MANY):
        turn = wait_turn(pace)
        assert not turn.is_check
        pace.end(turn, gone(number))
    turn = wait_turn(pace)
    assert turn.is_check and not pace.check_is_due
    results, _ = pace.end(turn, check)
    if check is UNCLEAR:
        assert not results and not pace.check_is_due and not wait_turn(pace).is_check
        results = pace.last()
    assert {result.status for result in results} == {"unavailable" if check is PASSED else "failed"}
    assert len(results) == MANY
    if check.verdict in ("gone", "blocked"):
        scout = wait_turn(pace)
        assert scout.is_scout and scout.is_check  # nothing else ends such a block
        pace.end(scout, PASSED)
        assert pace.note() == ""


def test_a_row_of_failures_is_a_pause_and_then_the_end() -> None:
    pace = Pace(pause_seconds=0.1)
    for number in range(FAILING):
        again = replace(failed(number), rest="again", results=gone(number).results)
        results, rest = pace.end(wait_turn(pace), again)
        assert (len(results), rest) == ((0, "again") if number < 4 else (1, None))
    assert "paused (network)" in pace.note()
    turn = wait_turn(pace)
    assert turn.is_scout and not pace.problem
    try:
        pace.end(turn, failed(FAILING))
        assert STOP.is_set()
    finally:
        STOP.clear()
    assert "11 videos in a row failed" in pace.problem
