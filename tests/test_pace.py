"""The rate limit between the workers: with real threads, and by a clock that the test moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

import pytest

from utils.clip import Clip, Result
from utils.download.pace import FAILING, FAILING_ANYHOW, MANY, Attempted, Pace, Turn
from utils.process import STOP

PASSED, UNCLEAR = Attempted("passed", is_shown=True), Attempted("unclear", "truncated")
BLOCKED = Attempted("blocked", "bot_check")


def gone(number: int) -> Attempted:
    clip = Clip(f"video{number:06d}_000000_000001", f"video{number:06d}", 0, 1)
    return Attempted("gone", "private", results=(Result.of(clip, "private", "youtube"),))


def failed(number: int) -> Attempted:
    return Attempted("unclear", "network", "no route", youtube_id=f"video{number:06d}")


@pytest.fixture
def stops() -> Iterator[Event]:
    """What a pace sets to stop the run."""
    try:
        yield STOP
    finally:
        STOP.clear()


def wait_turn(pace: Pace) -> Turn:
    while isinstance(turn := pace.take_turn(), float):
        time.sleep(turn)
    return turn


class Clock:
    """The time of `utils.download.pace`, which goes on while `wait` waits for a turn."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, pace: Pace) -> Turn:
        while isinstance(turn := pace.take_turn(), float):
            self.now += turn
        return turn


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("utils.download.pace.time", clock)
    return clock


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
    assert 1 < max(starts) - min(starts) < 10  # 1.9 s; more on a machine that does other things


def test_nothing_starts_in_a_block_but_one_scout() -> None:
    pace, started = Pace(pause_seconds=0.5), time.monotonic()
    pace.end(wait_turn(pace), BLOCKED)
    assert "bot_check" in pace.note()
    turns: list[tuple[float, Turn]] = []

    def work() -> None:
        turn = wait_turn(pace)
        turns.append((time.monotonic(), turn))
        time.sleep(0.5)
        pace.end(turn, PASSED)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [at - started for at, _ in turns]
    assert [turn.is_scout for _, turn in turns] == [True, False, False, False]
    assert times[0] > 0.4
    assert times[1] > times[0] + 0.2
    assert pace.note() == ""


def test_workers_under_way_count_as_one_block_and_scouts_double_it(clock: Clock) -> None:
    pace = Pace(pause_seconds=900)
    for turn in [clock.wait(pace) for _ in range(3)]:
        pace.end(turn, BLOCKED)
    assert pace.blocks == 1
    lengths = []
    for _ in range(4):
        before = clock.now
        scout = clock.wait(pace)
        lengths.append(clock.now - before)
        pace.end(scout, BLOCKED)
    assert lengths == pytest.approx([900, 1800, 3600, 3600], abs=1)


def test_a_block_soon_after_another_is_a_longer_pause(clock: Clock) -> None:
    pace = Pace(pause_seconds=900)
    for passed_seconds, pause in ((0, 900), (600, 1800), (7200, 900)):
        clock.now += passed_seconds
        pace.end(clock.wait(pace), BLOCKED)
        before = clock.now
        pace.end(clock.wait(pace), PASSED)
        assert clock.now - before == pytest.approx(pause, abs=1)


@pytest.mark.parametrize("attempt", [UNCLEAR, None])
def test_a_scout_without_an_answer_is_replaced(attempt: Attempted | None) -> None:
    pace = Pace(pause_seconds=0.1)
    pace.end(wait_turn(pace), BLOCKED)
    first = wait_turn(pace)
    before = time.monotonic()
    pace.end(first, attempt)
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


def test_a_row_of_failures_is_a_pause_and_then_the_end(stops: Event) -> None:
    pace = Pace(pause_seconds=0.1)
    for number in range(FAILING):
        again = replace(failed(number), rest="again", results=gone(number).results)
        results, rest = pace.end(wait_turn(pace), again)
        assert (len(results), rest) == ((0, "again") if number < 4 else (1, None))
    assert "paused (network)" in pace.note()
    # A video that failed before says nothing new; another one does.
    turn = wait_turn(pace)
    assert turn.is_scout and not pace.problem
    pace.end(turn, failed(0))
    assert not pace.problem and not stops.is_set()
    pace.end(wait_turn(pace), failed(FAILING))
    assert stops.is_set()
    assert "11 videos in a row failed" in pace.problem


@pytest.mark.parametrize(
    ("between", "pauses"), [(PASSED, 0), (replace(failed(99), may_be_everybodys=False), 1)]
)
def test_what_counts_as_a_row_of_failures(between: Attempted, pauses: int) -> None:
    """A video that comes ends it; a failure that is of its video alone is no part of it."""
    pace = Pace(pause_seconds=9)
    for number in range(FAILING):
        pace.end(wait_turn(pace), between)
        assert pace.blocks == 0
        pace.end(wait_turn(pace), failed(number))
    assert pace.blocks == pauses


def test_many_failures_with_other_messages_are_a_pause_too() -> None:
    pace = Pace(pause_seconds=9)
    for number in range(FAILING_ANYHOW):
        assert pace.blocks == 0
        pace.end(wait_turn(pace), replace(failed(number), message="x" * number))
    assert pace.blocks == 1


def test_a_run_may_end_at_the_first_block(stops: Event) -> None:
    pace = Pace(pause_seconds=9, stop_on_block=True)
    pace.end(wait_turn(pace), BLOCKED)
    assert stops.is_set()
