"""Rows of several versions of the lists, their classes joined, and the videos that they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts import write_list
from utils.errors import UserError
from utils.lists.reading import read_lists
from utils.lists.versions import (
    RENAMES,
    join_classes,
    list_file,
    ordered_classes,
    same_name,
    shared_videos,
)

LABELLED = "label,youtube_id,time_start,time_end,split"


@pytest.mark.parametrize(
    ("name", "version", "split"),
    [
        ("kinetics-700_2020_val.csv", "700_2020", "val"),
        ("somewhere/k400/train.csv", "400", "train"),
        ("Kinetics_600-validate.csv", "600", "val"),
        ("mine_test.csv", "mine", "test"),
        ("contest.csv", "contest", ""),
        ("k4000_train.csv", "k4000", "train"),
    ],
)
def test_a_list_tells_its_version_and_split(name: str, version: str, split: str) -> None:
    found = list_file(Path(name))
    assert (found.version, found.split) == (version, split)


def test_every_row_counts_and_videos_in_several_parts_are_found(tmp_path: Path) -> None:
    old = write_list(
        tmp_path / "kinetics-400_val.csv",
        ["yoga,aaaaaaaaaaa,1,11,", "yoga,aaaaaaaaaaa,1,11,validate", "yoga,../evil,1,11,val"],
        LABELLED,
    )
    new = write_list(
        tmp_path / "kinetics-700_train.csv",
        ["Yoga,aaaaaaaaaaa,5,15,train", '"a, b",bbbbbbbbbbb,5,15,train'],
        LABELLED,
    )
    rows = read_lists([new, old], every_row=True)
    assert rows.versions() == ["400", "700"]
    assert [clip.split for clip in rows.every] == ["train", "train", "val", "val"]
    assert [clip.label for clip in rows.every] == ["Yoga", "a, b", "yoga", "yoga"]
    assert rows.every[0].name == "aaaaaaaaaaa_000005_000015"
    assert [rows.lines[at] for at in range(4)] == [2, 3, 2, 3]
    assert [each.line for each in rows.refused] == [4]
    assert shared_videos(rows) == {(("700", "train"), ("400", "val")): 1}


def test_classes_are_joined_by_name_and_by_rename() -> None:
    old = {"Dying hair", "hugging", "tai-chi"}
    new = {"dyeing hair", "tai chi", "hugging (not baby)"}
    classes = join_classes({"400": old, "600": new})
    assert classes.names == ("dyeing hair", "hugging", "hugging (not baby)", "tai chi")
    assert classes.number("dying hair") == classes.number("dyeing hair") == 0
    assert [each.old for each in classes.renamed] == ["dying hair"]
    assert classes.joined == (("tai-chi", "tai chi"),)
    assert classes.number("unknown") is None
    alone = join_classes({"400": {"dying hair"}})
    assert alone.names == ("dying hair",) and not alone.renamed


def test_no_rename_leads_to_another() -> None:
    new = {same_name(each.new) for each in RENAMES}
    assert not any(same_name(each.old) in new for each in RENAMES)
    assert len(new) == len(RENAMES)


def test_a_file_of_classes_gives_their_order(tmp_path: Path) -> None:
    classes = join_classes({"x": {"b", "a, c"}})
    path = tmp_path / "classes.txt"
    for text in ("b\na, c\n", "0 b\n1 a, c\n", "b,0\n\"a, c\",1\n"):  # fmt: skip
        path.write_text(text)
        assert ordered_classes(path, classes).names == ("b", "a, c")
    path.write_text("b\n")
    with pytest.raises(UserError, match="lacks 'a, c'"):
        ordered_classes(path, classes)
    path.write_text("b\na, c\nB\n")
    with pytest.raises(UserError, match="twice"):
        ordered_classes(path, classes)


def test_two_classes_of_one_list_stay_two() -> None:
    classes = join_classes({"mine": {"c", "c#", "Yoga", "yoga"}, "later": {"C", "yoga"}})
    assert classes.names == ("C", "c#", "yoga")
    assert [classes.number(name) for name in ("c", "c#", "C", "YOGA")] == [0, 1, 0, 2]
