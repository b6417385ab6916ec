"""The report survives what kills a run, and says nothing that was not written whole."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from utils.cli import csv_text
from utils.clip import REASONS, Clip, Result, format_time
from utils.errors import UserError
from utils.report import (
    REPORT_NAME,
    RESULT_COLUMNS,
    VIDEOS_NAME,
    ReportFile,
    VideosFile,
    read_known,
    read_licences,
    read_report,
)

CLIPS = [Clip(f"abcdefghij{n}_000001_000002", f"abcdefghij{n}", 1, 2) for n in range(3)]


def write_three(path: Path) -> None:
    with ReportFile(path, RESULT_COLUMNS) as report:
        for clip, reason in zip(CLIPS, ("removed", "network", ""), strict=True):
            result = Result.of(clip, reason, "youtube", message='said "no", twice\nover', seconds=1)
            report.append_result(result)


def test_torn_at_any_byte(tmp_path: Path) -> None:
    whole = tmp_path / "whole.csv"
    write_three(whole)
    data = whole.read_bytes()
    rows = list(read_report(whole, RESULT_COLUMNS))
    assert len(rows) == 3
    for length in range(len(data)):
        path = tmp_path / "torn.csv"
        path.write_bytes(data[:length])
        before = list(read_report(path, RESULT_COLUMNS))
        assert len(before) == max(0, data[:length].count(b"\n") - 1)
        with ReportFile(path, RESULT_COLUMNS) as report:
            report.append_result(Result.of(CLIPS[0], "private", "youtube"))
        after = list(read_report(path, RESULT_COLUMNS))
        # A line that lacks nothing but its end is whole.
        assert after[:-1] in (before, rows[: len(before) + 1])
        assert after[-1][5] == "private"
        with path.open(encoding="utf-8", newline="") as file:
            assert [row["reason"] for row in csv.DictReader(file)][-1] == "private"


def test_the_last_line_for_a_clip_counts(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    write_three(path)
    with ReportFile(path, RESULT_COLUMNS) as report:
        report.append_result(Result.of(CLIPS[1], "", "youtube"))
        report.append_result(Result.of(CLIPS[2], "forbidden", "youtube"))
    assert read_known(path).reasons == {
        CLIPS[0].name: ("unavailable", "removed", "youtube"),
        CLIPS[2].name: ("failed", "forbidden", "youtube"),
    }


def test_another_file_under_that_name_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    for content in ("my,notes\n1,2\n", "hello"):
        path.write_text(content)
        with pytest.raises(UserError, match="not a report"):
            ReportFile(path, RESULT_COLUMNS)
        with pytest.raises(UserError, match="not a report"):
            list(read_report(path, RESULT_COLUMNS))
        assert path.read_text() == content


def test_a_report_of_an_older_version_is_read_and_gets_the_new_column(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    write_three(path)
    rows = list(read_report(path, RESULT_COLUMNS))
    at = RESULT_COLUMNS.index("height")
    lines = [[cell for n, cell in enumerate(row) if n != at] for row in (RESULT_COLUMNS, *rows)]
    path.write_text(csv_text(lines), encoding="utf-8")
    without = [[*row[:at], "", *row[at + 1 :]] for row in rows]
    assert list(read_report(path, RESULT_COLUMNS)) == without
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "report.csv.part").symlink_to("mine")  # where the new one is written
    with ReportFile(path, RESULT_COLUMNS) as report:
        report.append(rows[0])
    assert (tmp_path / "mine").read_text() == "mine" and not path.is_symlink()
    assert list(read_report(path, RESULT_COLUMNS)) == [*without, rows[0]]
    with path.open(encoding="utf-8", newline="") as file:
        assert tuple(next(csv.reader(file))) == RESULT_COLUMNS


def test_videos_are_appended_once_to_a_regular_file(tmp_path: Path) -> None:
    report, path = tmp_path / REPORT_NAME, tmp_path / VIDEOS_NAME
    path.write_text('{"youtube_id": "a"}\n{"youtube_id": "to')
    with VideosFile(report) as videos:
        for name in ("a", "b", "b"):
            videos.add({"youtube_id": name, "licence": "cc"})
    assert read_licences(path) == {"a": "youtube", "b": "cc"}
    assert path.read_text().count("\n") == 3
    path.rename(tmp_path / "mine")
    path.symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="is a link"):
        VideosFile(report)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="not a regular file"):
        VideosFile(report)


def test_times_read_as_the_list_has_them() -> None:
    assert [format_time(t) for t in (417.0, 12.5, 0.0, -1.0)] == ["417", "12.5", "0", "-1"]


def test_reasons_are_those_of_the_contract() -> None:
    gone = "removed private account_terminated copyright members_only age_restricted geo_blocked"
    gone += " live drm bad_id past_end unavailable"
    again = "rate_limited bot_check forbidden cookies js_runtime no_format network timeout"
    again += " truncated undecodable disk_full unknown"
    assert {r for r, (status, _) in REASONS.items() if status == "unavailable"} == set(gone.split())
    assert {r for r, (status, _) in REASONS.items() if status == "failed"} == set(again.split())
    assert {r for r, (status, _) in REASONS.items() if status == "downloaded"} == {"", "short"}
