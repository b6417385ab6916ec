"""Lists, names and windows: pure functions, and the files that lists come in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripts import write_list
from utils.clip import ID_PATTERN, Clip, clip_name, clip_window, parse_clip_name
from utils.lists.reading import Selection, read_lists, shard_of

IDS = st.text("AZaz09_-", min_size=11, max_size=11)


def test_names_and_windows() -> None:
    assert clip_name("-bcdefghijk", 7, 17) == "-bcdefghijk_000007_000017"
    assert clip_name("-bcdefghijk", 12.5, 22.5, "%06.1f") == "-bcdefghijk_0012.5_0022.5"
    assert clip_name("-bcdefghijk", 902.9, -1) == "-bcdefghijk_000902"
    assert clip_window(Clip("", "", 7, 17)) == (7, 10)
    assert clip_window(Clip("", "", 902.9, -1)) == (899, 6)
    assert clip_window(Clip("", "", 2.5, -1)) == (0, 6)


@given(IDS, st.integers(0, 999_998), st.integers(1, 1000))
def test_a_name_says_what_it_was_made_from(youtube_id: str, start: int, length: int) -> None:
    name = clip_name(youtube_id, start, start + length)
    assert parse_clip_name(name) == (youtube_id, start, start + length)
    assert parse_clip_name(clip_name(youtube_id, start, -1)) == (youtube_id, start, None)


@given(st.text(max_size=14))
def test_no_id_reaches_out_of_a_folder(text: str) -> None:
    if ID_PATTERN.fullmatch(text):
        assert len(text) == 11
        assert not set(text) - set(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
        )


def test_both_spellings_and_any_order(tmp_path: Path) -> None:
    first = write_list(
        tmp_path / "a.csv",
        ["7,17,abcdefghijk,yoga,1"],
        "time_start,time_end,youtube_id,label,is_cc",
    )
    second = write_list(
        tmp_path / "b.csv", ["yoga,bbcdefghijk,7,17"], "label-name,video-id,start-time,end-time"
    )
    lists = read_lists([first, second])
    assert lists.clips["abcdefghijk_000007_000017"] == Clip(
        "abcdefghijk_000007_000017", "abcdefghijk", 7, 17, "yoga", "", (("is_cc", "1"),)
    )
    assert lists.clips["bbcdefghijk_000007_000017"].label == "yoga"


def test_ids_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    listing = write_list(tmp_path / "a.csv", ["00000000012,7,17", "123456e7890,7,17"])
    assert list(read_lists([listing]).clips) == [
        "00000000012_000007_000017",
        "123456e7890_000007_000017",
    ]


def test_repeats_collapse_and_other_labels_are_counted(tmp_path: Path) -> None:
    header = "label,youtube_id,time_start,time_end"
    old = write_list(tmp_path / "a.csv", ["old,abcdefghijk,7,17", "old,abcdefghijk,7.0,17"], header)
    new = write_list(tmp_path / "b.csv", ["new,abcdefghijk,7,17"], header)
    lists = read_lists([old, new])
    assert (len(lists.clips), lists.rows, lists.relabelled) == (1, 3, 1)


def test_one_name_for_two_windows_is_a_finer_one(tmp_path: Path) -> None:
    rows = ["cccccccccc-,1.25,9", "abcdefghijk,7,17", "abcdefghijk,7.5,17.5"]
    assert list(read_lists([write_list(tmp_path / "b.csv", rows[:2])]).clips) == [
        "cccccccccc-_000001_000009",
        "abcdefghijk_000007_000017",
    ]
    listing = write_list(tmp_path / "a.csv", rows)
    names = list(read_lists([listing]).clips)
    assert names[1:] == ["abcdefghijk_000007.000_000017.000", "abcdefghijk_000007.500_000017.500"]
    for shard in (1, 2, 3):  # every part names its clips as the whole does
        part = read_lists([listing], Selection(shard=(shard, 3))).clips
        assert part.keys() <= set(names)
    assert parse_clip_name(names[2]) == ("abcdefghijk", 7.5, 17.5)
    lists = read_lists([listing], trim_format="%06d")
    assert len(lists.clips) == 2
    assert "--trim_format" in str(lists.refused[0])
    assert len(read_lists([listing], trim_format="%08.1f").clips) == 3


def test_a_stray_quote_costs_its_own_row_only(tmp_path: Path) -> None:
    listing = write_list(tmp_path / "a.csv", ['"abcdefghijk,7,17', "bbcdefghijk,7,17"])
    lists = read_lists([listing])
    assert list(lists.clips) == ["bbcdefghijk_000007_000017"]
    assert [refused.line for refused in lists.refused] == [2]


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_shards_divide_videos_and_machines_agree(shards: int) -> None:
    ids = [f"{n:011d}" for n in range(2000)]
    parts = [shard_of(youtube_id, shards) for youtube_id in ids]
    assert set(parts) == set(range(1, shards + 1))
    assert shard_of("0wR5jVB-WPk", 4) == 3  # for ever: machines share nothing but this
    selection = Selection(shard=(1, shards))
    clips = [Clip("", "0wR5jVB-WPk", 0, 1), Clip("", "0wR5jVB-WPk", 5, 9)]
    assert len({selection.wants(clip) for clip in clips}) == 1
