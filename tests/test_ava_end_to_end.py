"""AVA-Kinetics from annotation to labelled frame, script after script, on the stand-in."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import MakeSource
from tests.scripts import ROOT, run
from tests.standin.server import StandIn
from tests.standin.sources import read_frame_number

BOX = (0.25, 0.4, 0.75, 0.9)
# id, timestamp, the one frame of the 25 fps video that carries the mark: the one shown then
KEY_FRAMES = (
    ("-keyframe_1", "12.48", 312),
    ("early_frame", "2.2", 55),
    ("mid-frame__", "7.5", 187),
)


@pytest.mark.skipif(not (ROOT / "frame_extract.py").exists(), reason="needs frame_extract.py")
@pytest.mark.slow
def test_the_annotated_frame_is_the_one_with_the_mark(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    rows = []
    for youtube_id, timestamp, frame in KEY_FRAMES:
        standin.add_video(youtube_id, source(seconds=20, box=(frame, frame + 1, *BOX)))
        rows.append(f"{youtube_id},{timestamp},{','.join(map(str, BOX))},12")
    annotations = tmp_path / "ava"
    annotations.mkdir()
    (annotations / "kinetics_val_v1.0.csv").write_text("\n".join(rows) + "\n")
    listing, clips = annotations / "list.csv", tmp_path / "clips"

    lists = ["--annotations", annotations, "--output", listing, "--splits", "val"]
    assert run("make_ava_kin_download_csv.py", *lists, cwd=tmp_path).code == 0
    fetch = [clips, "--input_csv", listing, "--ytdlp_args", standin.ytdlp_args]
    done = run("download.py", *fetch, "--videos_per_hour", "0", cwd=tmp_path)
    assert done.code == 0, done.err
    done = run("make_ava_kin_download_csv.py", *lists, "--clips", clips, "--probe", cwd=tmp_path)
    assert done.code == 0, done.err
    done = run("frame_extract.py", clips, tmp_path / "frames", cwd=tmp_path)
    assert done.code == 0, done.err

    with (annotations / "annotations_val.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(KEY_FRAMES)
    for row, (_, _, frame) in zip(table, KEY_FRAMES, strict=True):
        folder, number = tmp_path / "frames" / row["clip"], int(row["frame"])
        picture = np.asarray(Image.open(folder / f"{number:06d}.jpg"))
        assert read_frame_number(picture) == frame
        assert is_marked(picture), row
        # And no picture that shows another frame is.
        for neighbour in (number - 1, number + 1):
            other = np.asarray(Image.open(folder / f"{neighbour:06d}.jpg"))
            assert is_marked(other) == (read_frame_number(other) == frame)


def is_marked(picture: np.ndarray) -> bool:
    height, width = picture.shape[:2]
    x, y = round(width * (BOX[0] + BOX[2]) / 2), round(height * (BOX[1] + BOX[3]) / 2)
    red, green, blue = picture[y - 5 : y + 5, x - 5 : x + 5].reshape(-1, 3).mean(axis=0)
    return bool(red > 180 and green < 80 and blue < 80)
