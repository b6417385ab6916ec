"""make_ava_kin_download_csv.py, run as a user runs it, and the rules of lists/ava beneath."""

from __future__ import annotations

import csv
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipreader.packets import resample_indices
from tests.scripts import run
from utils.clip import Clip, Result, clip_window, now
from utils.lists import ava
from utils.lists.reading import read_lists
from utils.report import REPORT_NAME, RESULT_COLUMNS, ReportFile

ROOT = Path(__file__).parents[1]
LABEL_MAP = """label {
  name: "bend/bow (at the waist)"
  label_id: 1
  label_type: PERSON_MOVEMENT
}
label {
  name: "talk to (e.g., self, a person, a group)"
  label_id: 79
  label_type: PERSON_INTERACTION
}
"""
TRAIN = """-aaaaaaaaaa,7.433,0.100,0.200,0.300,0.400,79
-aaaaaaaaaa,7.433,0.100,0.200,0.300,0.400,1
00000000012,0902,0.1,0.2,0.3,0.4,79
123456e7890,2.5
"""
VAL = "b_bbbbbbbbb,3,0.5,0.5,0.9,0.9,1\nb_bbbbbbbbb,3.9,0.5,0.5,0.9,0.9,2\ncccccccccc-,0.04\n"
TEST = "ddddddddddd,12.5\nddddddddddd,3.25\neeeeeeeeeee,12.5\n"


@pytest.fixture
def ava_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ava 100%"
    folder.mkdir()
    for split, text in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        (folder / f"kinetics_{split}_v1.0.csv").write_text(text)
    (folder / "ava_action_list_v2.2.pbtxt").write_text(LABEL_MAP)
    (folder / "ava_action_list_v2.2_for_activitynet.pbtxt").write_text("item { name: 'no' id: 1 }")
    return folder


def make(folder: Path, *arguments: str | Path, code: int = 0) -> str:
    """Run the script with `folder`; what it said."""
    command = [sys.executable, str(ROOT / "make_ava_kin_download_csv.py")]
    command += ["--annotations", str(folder), "--output", str(folder / "out" / "list.csv")]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, cwd=folder, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def rows_of(folder: Path, split: str) -> list[dict[str, str]]:
    with (folder / "out" / f"annotations_{split}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_list_holds_every_key_frame_once_and_download_reads_it(ava_folder: Path) -> None:
    said = make(ava_folder)
    assert (ava_folder / "out" / "list.csv").read_text() == (
        "youtube_id,time_start,time_end,split\n"
        "-aaaaaaaaaa,7,-1,train\n"
        "00000000012,902,-1,train\n"
        "b_bbbbbbbbb,3,-1,val\n"
        "cccccccccc-,0,-1,val\n"
        "ddddddddddd,3,-1,test\n"
        "ddddddddddd,12,-1,test\n"
        "eeeeeeeeeee,12,-1,test\n"
    )
    assert "train: 4 rows, 3 annotated frames, 1 without boxes (excluded)" in said
    assert "action_id 2" in said  # not in the label map
    lists = read_lists([ava_folder / "out" / "list.csv"])
    assert not lists.refused
    assert list(lists.clips)[:2] == ["-aaaaaaaaaa_000007", "00000000012_000902"]


def test_annotations_are_in_terms_of_the_clips(ava_folder: Path) -> None:
    make(ava_folder)
    text = (ava_folder / "out" / "annotations_train.csv").read_text()
    assert text == (
        "clip,youtube_id,timestamp,clip_time,frame,x1,y1,x2,y2,action_id,action\n"
        "-aaaaaaaaaa_000007,-aaaaaaaaaa,7.433,3.433,104,0.100,0.200,0.300,0.400,79,"
        '"talk to (e.g., self, a person, a group)"\n'
        "-aaaaaaaaaa_000007,-aaaaaaaaaa,7.433,3.433,104,0.100,0.200,0.300,0.400,1,"
        '"bend/bow (at the waist)"\n'
        "00000000012_000902,00000000012,0902,3.0,91,0.1,0.2,0.3,0.4,79,"
        '"talk to (e.g., self, a person, a group)"\n'
    )
    val = [(row["clip"], row["clip_time"], row["frame"]) for row in rows_of(ava_folder, "val")]
    assert val == [
        ("b_bbbbbbbbb_000003", "3.0", "91"),
        ("b_bbbbbbbbb_000003", "3.9", "118"),
        ("cccccccccc-_000000", "0.04", "2"),
    ]


def test_a_second_run_writes_the_same_bytes(ava_folder: Path) -> None:
    make(ava_folder)
    before = {path.name: path.read_bytes() for path in (ava_folder / "out").iterdir()}
    make(ava_folder)
    after = {path.name: path.read_bytes() for path in (ava_folder / "out").iterdir()}
    assert before == after
    assert len(before) == 4  # and no temporary folder


def test_unlabelled_train_frames_and_single_splits(ava_folder: Path) -> None:
    make(ava_folder, "--include_unlabelled", "--splits", "train", "--fps", "25")
    assert "123456e7890,2,-1,train" in (ava_folder / "out" / "list.csv").read_text()
    last = rows_of(ava_folder, "train")[-1]
    assert (last["clip_time"], last["frame"], last["action"]) == ("2.5", "63", "")
    assert not (ava_folder / "out" / "annotations_val.csv").exists()


def test_bad_rows_are_named_and_the_others_kept(ava_folder: Path) -> None:
    path = ava_folder / "kinetics_val_v1.0.csv"
    bad = [
        "../../../etc,3",
        "abcdefghijk,3,0.1,0.2,0.3,0.4,12,9",
        'abcdefghijk,"3',
        "abcdefghijk,nan",
        "abcdefghijk,1e3",
        "abcdefghijk,3,0.1,0.2,,0.4,12",
        "abcdefghijk,3,0.1,0.2,7,0.4,12",
    ]
    path.write_text("\ufeff" + VAL.replace("\n", "\r\n") + "\r\n" + "\r\n".join(bad))
    said = make(ava_folder, code=1)
    for number, line in enumerate(bad, 5):
        assert f"{path}:{number}: " in said, line
    assert "is not youtube_id,timestamp" in said
    assert len(rows_of(ava_folder, "val")) == 3
    assert "etc" not in (ava_folder / "out" / "list.csv").read_text()


def test_a_bad_row_at_the_very_end_is_named(ava_folder: Path) -> None:
    path = ava_folder / "kinetics_val_v1.0.csv"
    path.write_text(VAL.rstrip("\n") + "\n../../../etc,3")
    assert f"{path}:{VAL.rstrip().count(chr(10)) + 2}: " in make(ava_folder, code=1)


def test_what_cannot_go_on_is_one_line(ava_folder: Path) -> None:
    assert "--clips DIR" in make(ava_folder, "--preview", "3", code=2)
    assert "above 0" in make(ava_folder, "--fps", "0", code=2)
    (ava_folder / "kinetics_test_v1.0.csv").write_text("youtube_id,time_start,time_end\n")
    assert "contains no annotations" in make(ava_folder, code=2)
    (ava_folder / "kinetics_test_v1.0.csv").unlink()
    said = make(ava_folder, code=2)
    assert "ava_kinetics_v1_0.tar.gz" in said and len(said.splitlines()) <= 4
    assert not (ava_folder / "out").exists()


def test_no_file_of_another_kind_is_written_over(ava_folder: Path) -> None:
    source = ava_folder / "kinetics_val_v1.0.csv"
    assert "not a file of this script" in make(ava_folder, "--output", source, code=2)
    assert source.read_text() == VAL
    make(ava_folder, "--dry_run")
    assert not (ava_folder / "out").exists()


def test_clips_on_disk_and_partial_windows(ava_folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("-aaaaaaaaaa_000007", "b_bbbbbbbbb_000003"):
        (clips / f"{name}.mp4").touch()
    with ReportFile(clips / REPORT_NAME, RESULT_COLUMNS) as report:
        for clip, start, end, status in (
            ("-aaaaaaaaaa_000007", "4", "9.5", "downloaded"),
            ("-aaaaaaaaaa_000007", "5", "9.5", "downloaded"),
            ("-aaaaaaaaaa_000007", "7", "-1", "failed"),
            ("b_bbbbbbbbb_000003", "2", "8", "downloaded"),  # partial then, and whole since
            ("b_bbbbbbbbb_000003", "3", "-1", "downloaded"),
        ):
            report.append_result(Result(clip, clip[:11], start, end, status, finished_at=now()))
    said = make(ava_folder, "--clips", clips)
    assert "train: 1 of 2 clips on disk; 1 row of missing clips excluded" in said
    partial = rows_of(ava_folder, "train")
    assert {(row["clip_time"], row["frame"]) for row in partial} == {("2.433", "74")}
    assert [row["frame"] for row in rows_of(ava_folder, "val")] == ["91", "118"]
    assert rows_of(ava_folder, "test") == []
    assert len((ava_folder / "out" / "list.csv").read_text().splitlines()) == 8  # the list is whole


def test_the_preview_shows_the_box_on_the_marked_frame(
    ava_folder: Path, tmp_path: Path, source: Callable[..., Path]
) -> None:
    """The stand-in's frame 103, and no other, is marked red where the annotation has its box."""
    clips = tmp_path / "clips"
    clips.mkdir()
    video = source(seconds=6, fps=30, audio=False, box=(103, 104, 0.1, 0.4, 0.3, 0.8))
    shutil.copy(video, clips / "-aaaaaaaaaa_000007.mp4")
    (clips / "00000000012_000902.mp4").write_bytes(b"not a video")
    text = TRAIN.replace("0.100,0.200,0.300,0.400", "0.100,0.400,0.300,0.800")
    (ava_folder / "kinetics_train_v1.0.csv").write_text(text)
    said = make(ava_folder, "--clips", clips, "--preview", "5", code=1)
    assert "00000000012_000902.mp4" in said and "drew 1 annotated frame:" in said
    picture = Image.open(ava_folder / "out" / "annotations_preview.png").convert("RGB")
    pixels = np.asarray(picture).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    yellow = (pixels[..., 0] > 240) & (abs(pixels[..., 1] - 212) < 8) & (pixels[..., 2] < 30)
    (red_y, red_x), (box_y, box_x) = np.nonzero(red), np.nonzero(yellow)
    assert red.sum() > 1500
    # The drawn box is the frame of the red one: they end within 3 pixels of each other.
    assert abs(red_x.min() - box_x.min()) <= 3
    assert abs(red_y.max() - box_y.max()) <= 3
    assert red_y.min() >= box_y.min() - 3


def test_probed_pictures_are_those_that_frame_extract_writes(
    ava_folder: Path, tmp_path: Path, source: Callable[..., Path]
) -> None:
    """Clips of many rates: the named picture is written, alone, and shows the annotated frame."""
    clips, rows, expected = tmp_path / "clips", [], {}
    clips.mkdir()
    rates = ["8", "12.5", "24", "25", "30000/1001", "30", "60"]
    for at, rate in enumerate(map(Fraction, rates)):
        name = f"rateratera{at}_000010"
        shutil.copy(
            source(seconds=6, fps=float(rate), size=(160, 120), audio=False), clips / f"{name}.mp4"
        )
        frame = math.ceil(Fraction("3.1") * rate)
        rows.append(f"{name[:11]},{float(7 + frame / rate):.3f},0.1,0.1,0.9,0.9,1\n")
        shown = resample_indices(range(math.ceil(6 * rate)), 1 / rate, Fraction(30))
        # At 60 fps half of the frames are dropped: then the picture before.
        same = [n for n, index in enumerate(shown, 1) if index == frame]
        before = [n for n, index in enumerate(shown, 1) if index < frame]
        expected[name] = same[0] if same else before[-1]
    (ava_folder / "kinetics_val_v1.0.csv").write_text("".join(rows))
    make(ava_folder, "--clips", clips, "--splits", "val", "--probe")
    found = {row["clip"]: int(row["frame"]) for row in rows_of(ava_folder, "val")}
    assert found == expected
    annotations = ava_folder / "out" / "annotations_val.csv"
    given = [clips, "frames", "--key_frames", annotations, "--window", "0"]
    done = run("frame_extract.py", *given, cwd=tmp_path)
    assert done.code == 0, done.err
    written = {path.parent.name: int(path.stem) for path in tmp_path.glob("frames/*/*.jpg")}
    assert written == expected


@given(st.decimals(0, 40, places=3), st.sampled_from([24, 25, 30, 60, Fraction(30000, 1001)]))
def test_the_picture_is_the_one_on_the_screen(timestamp: object, rate: int | Fraction) -> None:
    """The rule against its definition, in fractions; and the clip's start against utils.clip."""
    ns, fps = ava.nanoseconds(f"{timestamp:f}"), Fraction(rate)
    start, duration = clip_window(Clip("", "", ns // ava.SECOND, -1.0))
    assert ava.clip_start(ns // ava.SECOND) == start * ava.SECOND
    time = Fraction(ns, ava.SECOND) - Fraction(start)
    number = int(ava.picture_number(ns - int(start) * ava.SECOND, fps))
    grace = Fraction(1, 2000)
    assert 0 <= time < duration
    assert (number - 1) / fps - grace <= time < number / fps
