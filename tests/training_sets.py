"""A small folder of clips and lists of two versions, for the tests of make_training_lists.py.

Most clips are a few bytes: the script decodes nothing. Where a reader decodes, give it `video`.
"""

from __future__ import annotations

import contextlib
import csv
import io
from pathlib import Path

import make_training_lists
from tests.scripts import write_list
from utils.errors import UserError
from utils.report import REPORT_NAME, RESULT_COLUMNS

LABELLED = "label,youtube_id,time_start,time_end,split,is_cc"
# The names of two classes change; one has a comma and quotes, one an apostrophe and parentheses.
OLD = ("dying hair", "hugging", '"say ""hi"", wave"', "person's (not dog) walk", "yoga")
NEW = ("dyeing hair", "hugging (not baby)", '"say ""hi"", wave"', "person's (not dog) walk", "Yoga")

# An id with underscores, as readers split names at them; and a key frame near its video's begin.
AVA_IDS = ("aaa_1_2_3_4", "bbbbbbbbbbb")
AVA_CLIPS = ("aaa_1_2_3_4_000902", "bbbbbbbbbbb_000001")


def video_id(group: str, number: int) -> str:
    return f"{group}{number:0{11 - len(group)}d}"


def make_lists(folder: Path) -> dict[str, Path]:
    """kinetics-400_{train,val,test}.csv and kinetics-700_{train,val}.csv: ten clips a class."""
    folder.mkdir(parents=True, exist_ok=True)

    def rows(group: str, labels: tuple[str, ...], split: str, per_class: int) -> list[str]:
        return [
            f"{label},{video_id(group, 100 * n + i)},{i},{i + 10},{split},0"
            for n, label in enumerate(labels)
            for i in range(per_class)
        ]

    old_val = rows("v4_", OLD, "val", 4)
    # The newer train list holds what the older val list held out: one video, another window.
    leak = f"hugging (not baby),{video_id('v4_', 100)},50,60,train,0"
    both = f"hugging (not baby),{video_id('t4_', 101)},1,11,train,0"  # a clip with two labels
    lists = {
        "400_train": [*rows("t4_", OLD, "train", 10), f"yoga,{video_id('t4_', 401)},1,11,train,0"],
        "400_val": old_val,
        "700_train": [*rows("t7_", NEW, "train", 10), leak, both],
        "700_val": rows("v7_", NEW, "validate", 4),
    }
    made = {
        name: write_list(folder / f"kinetics-{name}.csv", lines, LABELLED)
        for name, lines in lists.items()
    }
    tests = [f"{video_id('e4_', i)},{i},{i + 10},test" for i in range(6)]
    header = "youtube_id,time_start,time_end,split"
    made["400_test"] = write_list(folder / "kinetics-400_test.csv", tests, header)
    return made


def clip_names(*lists: Path) -> list[str]:
    """The clips of lists, each once, in their order."""
    names: dict[str, None] = {}
    for path in lists:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                start, end = int(row["time_start"]), int(row["time_end"])
                names[f"{row['youtube_id']}_{start:06d}_{end:06d}"] = None
    return list(names)


def make_ava(folder: Path, frames_each: int = 5) -> tuple[Path, Path, Path, Path]:
    """(list, annotations, clips, frames) of two AVA-Kinetics key frames of train."""
    listing = write_list(
        folder / "videos_to_download.csv",
        [f"{AVA_IDS[0]},902,-1,train", f"{AVA_IDS[1]},1,-1,train"],
        "youtube_id,time_start,time_end,split",
    )
    boxes = write_list(
        folder / "annotations_train.csv",
        [
            f'{AVA_CLIPS[0]},{AVA_IDS[0]},902.48,3.48,105,0.25,0.4,0.75,0.90049,12,"a, b"',
            f"{AVA_CLIPS[1]},{AVA_IDS[1]},1.5,1.5,46,0,0,1,1,80,stand",
            f"{AVA_CLIPS[1]},{AVA_IDS[1]},1.5,1.5,46,,,,,,",
        ],
        "clip,youtube_id,timestamp,clip_time,frame,x1,y1,x2,y2,action_id,action",
    )
    frames = folder / "frames"
    for name in AVA_CLIPS:
        (frames / name).mkdir(parents=True)
        for at in range(1, frames_each + 1):
            (frames / name / f"{at:06d}.jpg").touch()
    return listing, boxes, make_clips(folder / "clips", list(AVA_CLIPS)), frames


def make_clips(folder: Path, names: list[str], video: Path | None = None) -> Path:
    """Files of these names, each of its own bytes, or links to a video."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / f"{name}.mp4"
        if video is None:
            path.write_bytes(f"{name} ".encode() * (1 + len(name) % 7))
        else:
            path.hardlink_to(video)
    return folder


def make_report(clips: Path, **reasons: str) -> None:
    """A download report: clip -> `status/reason`."""
    lines = [",".join(RESULT_COLUMNS)]
    for clip, text in reasons.items():
        status, reason = text.split("/")
        lines.append(
            f"{clip},{clip[:11]},0,10,{status},{reason},youtube,1,0,0,,2026-01-01T00:00:00Z"
        )
    (clips / REPORT_NAME).write_text("\n".join(lines) + "\n")


def lists_of(*words: object, code: int = 0) -> str:
    """Run the script in this process; what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            got = make_training_lists.main([str(word) for word in words])
        except UserError as error:
            print(f"error: {error}", file=said)
            got = 2
        except SystemExit as end:
            got = int(str(end.code))
    assert got == code, said.getvalue()
    return said.getvalue()


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV with a header; lines that begin with # are passed over."""
    with path.open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))
