"""The lists of make_training_lists.py read back by the code that they are written for.

Each test needs its reader, and is skipped, by name, without it.
tests/requirements-consumers.txt says how they are installed.
SlowFast is its release of 2019 on PyPI, whose parsing is stricter than today's (it asserts two
fields); MMAction2 is 1.2.0 with mmcv-lite, which has no compiled operators.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import write_list
from tests.training_sets import (
    AVA_CLIPS,
    clip_names,
    lists_of,
    make_ava,
    make_clips,
    make_lists,
    table,
    video_id,
)

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is asked of a hub

Set = tuple[Path, list[object]]
FIRST, SECOND = "tests/requirements-consumers.txt", "tests/requirements-consumers-nodeps.txt"
NO_MMACTION2 = f"no MMAction2: {SECOND}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, source: Callable[..., Path]) -> Set:
    """(folder of clips, the options that name the lists); the clips are real."""
    folder = tmp_path_factory.mktemp("set")
    lists = make_lists(folder / "kinetics_csv")
    given = [lists["400_train"], lists["400_val"]]
    video = folder / "video.mp4"
    video.write_bytes(source(seconds=2).read_bytes())
    return make_clips(folder / "clips", clip_names(*given), video), ["--input_csv", *given]


def expected(out: Path, split: str) -> dict[str, int]:
    """Clip -> number, from the manifest and classes.json."""
    numbers = json.loads((out / "classes.json").read_text())
    rows = table(out / "manifest.csv")
    return {row["clip"]: numbers[row["label"]] for row in rows if row["split"] == split}


@pytest.fixture
def torchvision() -> Any:
    """torchvision without its compiled operators, which its lists of folders do not use."""
    torch = pytest.importorskip("torch", reason=f"no torch: {FIRST}")
    if "torchvision" not in sys.modules:
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision_operators.append(operators)  # they go when it goes
    return pytest.importorskip("torchvision", reason=f"no torchvision: {SECOND}")


torchvision_operators: list[Any] = []


def test_webdataset(tmp_path: Path, whole: Set) -> None:
    webdataset = pytest.importorskip("webdataset", reason=f"no webdataset: {FIRST}")
    clips, given = whole
    lists_of(clips, tmp_path, "--format", "webdataset", *given, "--shard_size", "1M", "--n", 2)
    shards = sorted(map(str, tmp_path.glob("train-*.tar")))
    assert len(shards) > 1 and max(map(os.path.getsize, shards)) <= 10**6
    read: dict[str, int] = {}
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
        name = sample["__key__"]
        assert name not in read and sample["json"]["clip"] == name
        assert sample["mp4"] == (clips / f"{name}.mp4").read_bytes()
        read[name] = sample["cls"]
    assert read == expected(tmp_path, "train") and len(read) == 50


def test_huggingface_videofolder(tmp_path: Path, whole: Set) -> None:
    datasets = pytest.importorskip("datasets", reason=f"no datasets: {FIRST}")
    clips, given = whole
    out = tmp_path / "out"
    lists_of(clips, out, "--format", "huggingface", *given)
    loaded = datasets.load_dataset(
        "videofolder", data_dir=str(out), cache_dir=str(tmp_path / "cache")
    )
    assert set(loaded) == {"train", "validation"}
    for split, ours in (("train", "train"), ("validation", "val")):
        rows = loaded[split].cast_column("video", datasets.Video(decode=False))
        read = {Path(row["video"]["path"]).stem: row for row in rows}
        assert {name: row["number"] for name, row in read.items()} == expected(out, ours)
        assert read[next(iter(read))]["clip"] in read
    labels = {row["label"] for row in loaded["train"].select_columns(["label"])}
    assert labels == set((out / "classes.txt").read_text().splitlines())


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_huggingface_finds_no_split_in_a_label(tmp_path: Path, split: str) -> None:
    datasets = pytest.importorskip("datasets", reason=f"no datasets: {FIRST}")
    labels = ["training dog", "test drive", "dev", "metadata.csv", "x" * 300]
    rows = [
        f"{label},_{split}_{n:0{9 - len(split)}},0,10,{split}" for n, label in enumerate(labels)
    ]
    header = "label,youtube_id,time_start,time_end,split"
    listing = write_list(tmp_path / "list.csv", rows, header)
    clips = make_clips(tmp_path / "clips", clip_names(listing))
    lists_of(clips, tmp_path / "out", "--format", "huggingface", "--input_csv", listing)
    loaded = datasets.load_dataset(
        "videofolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache")
    )
    assert set(loaded) == {"validation" if split == "val" else split}
    (rows_read,) = (part.select_columns(["label", "clip"]) for part in loaded.values())
    assert sorted(row["label"] for row in rows_read) == sorted(labels)


def test_pytorchvideo(tmp_path: Path, whole: Set, torchvision: Any) -> None:
    paths = pytest.importorskip(
        "pytorchvideo.data.labeled_video_paths",
        reason=f"no pytorchvideo: {SECOND}",
    )
    clips, given = whole
    lists_of(clips, tmp_path, "--format", "slowfast", *given)
    read = paths.LabeledVideoPaths.from_path(str(tmp_path / "val.csv"))
    read.path_prefix = str(clips)
    found = {Path(path).stem: info["label"] for path, info in read if Path(path).is_file()}
    assert found == expected(tmp_path, "val") and len(found) == 20


def test_torchvision_folders(tmp_path: Path, whole: Set, torchvision: Any) -> None:
    clips, given = whole
    lists_of(clips, tmp_path, "--format", "torchvision", *given)
    folder = str(tmp_path / "val")
    classes, numbers = torchvision.datasets.folder.find_classes(folder)
    samples = torchvision.datasets.folder.make_dataset(folder, numbers, ("avi", "mp4"))
    assert {Path(path).stem: number for path, number in samples} == expected(tmp_path, "val")
    assert classes == sorted(classes) and len(classes) == 5


def test_slowfast(tmp_path: Path, whole: Set, torchvision: Any) -> None:
    kinetics = pytest.importorskip("slowfast.datasets.kinetics", reason=f"no SlowFast: {SECOND}")
    from slowfast.config.defaults import get_cfg

    clips, given = whole
    lists_of(clips, tmp_path, "--format", "slowfast", *given)
    config = get_cfg()
    config.DATA.PATH_TO_DATA_DIR, config.DATA.PATH_PREFIX = str(tmp_path), str(clips)
    for split in ("train", "val"):
        read = kinetics.Kinetics(config, split)
        assert all(map(os.path.isfile, read._path_to_videos))
        names = [Path(path).stem for path in read._path_to_videos]
        assert dict(zip(names, read._labels, strict=True)) == expected(tmp_path, split)


def test_slowfast_ava(tmp_path: Path, torchvision: Any) -> None:
    helper = pytest.importorskip("slowfast.datasets.ava_helper", reason=f"no SlowFast: {SECOND}")
    from slowfast.config.defaults import get_cfg

    listing, boxes, clips, frames = make_ava(tmp_path, frames_each=180)
    out = tmp_path / "out"
    lists_of(clips, out, "--format", "ava", "--input_csv", listing, "--annotations", boxes,
             "--frames", frames)  # fmt: skip
    config = get_cfg().AVA
    config.FRAME_LIST_DIR, config.FRAME_DIR = str(out / "frame_lists"), str(frames)
    config.TRAIN_LISTS, config.ANNOTATION_DIR = ["train.csv"], str(out)
    config.TRAIN_GT_BOX_LISTS = ["slowfast_train.csv"]
    whole_config = type("Config", (), {"AVA": config})
    paths, names = helper.load_image_lists(whole_config, is_train=True)
    found = helper.load_boxes_and_labels(whole_config, mode="train")
    assert names == list(AVA_CLIPS) and list(map(len, paths)) == [180, 180]
    (key_frame,), ((annotated,),) = helper.get_keyframe_data([found[names[0]]])
    # Its key frame's whole second is 3 s into the clip: picture 91 at 30 a second.
    assert paths[key_frame[0]][key_frame[3]].endswith(f"{names[0]}/000091.jpg")
    assert annotated == [[[0.25, 0.4, 0.75, 0.9], [12]]]


def test_mmaction2(tmp_path: Path, whole: Set, torchvision: Any) -> None:
    datasets = pytest.importorskip("mmaction.datasets", reason=NO_MMACTION2)
    clips, given = whole
    out, frames = tmp_path / "out", tmp_path / "frames"
    for name in clip_names(*(Path(str(path)) for path in given[1:])):
        (frames / name).mkdir(parents=True)
        for at in (1, 2, 3):
            (frames / name / f"{at:06d}.jpg").touch()
    lists_of(clips, out, "--format", "mmaction2", *given)
    videos = datasets.VideoDataset(
        str(out / "kinetics400_train_list_videos.txt"), [], data_prefix={"video": str(clips)}
    )
    found = {Path(row["filename"]).stem: row["label"] for row in videos}
    assert found == expected(out, "train") and Path(videos[0]["filename"]).is_file()
    lists_of(clips, out, "--format", "mmaction2", *given, "--frames", frames)
    folders = datasets.RawframeDataset(
        str(out / "kinetics400_val_list_rawframes.txt"),
        [],
        data_prefix={"img": str(frames)},
        filename_tmpl="{:06}.jpg",
        start_index=1,
    )
    assert {Path(r["frame_dir"]).name: r["label"] for r in folders} == expected(out, "val")
    row = folders[0]
    last = row["filename_tmpl"].format(row["start_index"] + row["total_frames"] - 1)
    assert (Path(row["frame_dir"]) / last).is_file() and row["total_frames"] == 3


def test_mmaction2_ava_kinetics(tmp_path: Path, torchvision: Any) -> None:
    datasets = pytest.importorskip("mmaction.datasets", reason=NO_MMACTION2)
    listing, boxes, clips, frames = make_ava(tmp_path, frames_each=180)
    out = tmp_path / "out"
    lists_of(clips, out, "--format", "ava", "--input_csv", listing, "--annotations", boxes,
             "--frames", frames)  # fmt: skip
    read = datasets.AVAKineticsDataset(
        str(out / "mmaction2_train.csv"),
        None,
        [],
        None,
        filename_tmpl="{:06}.jpg",
        data_prefix={"img": str(out / "rawframes")},
    )
    assert len(read) == 2
    row = read[0]
    assert (row["timestamp"], row["timestamp_start"], row["timestamp_end"]) == (902, 899, 905)
    assert row["gt_bboxes"].tolist() == [[0.25, 0.4, 0.75, 0.9]] and row["gt_labels"][0, 12] == 1
    centre = row["fps"] * (row["timestamp"] - row["timestamp_start"]) + row["start_index"]
    assert (Path(row["frame_dir"]) / row["filename_tmpl"].format(centre)).is_file()


def test_jepa_and_videomae_by_pandas(tmp_path: Path, whole: Set) -> None:
    """`pd.read_csv(path, header=None, delimiter=" ")`, then columns 0 and 1."""
    import pandas as pd

    clips, given = whole
    for form in ("jepa", "videomae"):
        out = tmp_path / form
        lists_of(clips, out, "--format", form, *given)
        data = pd.read_csv(out / "train.csv", header=None, delimiter=" ")
        found = {Path(path).stem: number for path, number in data.values if Path(path).is_file()}
        assert found == expected(out, "train") and data.shape == (50, 2)


def test_csv_by_pandas(tmp_path: Path, whole: Set) -> None:
    import pandas as pd

    clips, given = whole
    lists_of(clips, tmp_path, "--format", "csv", *given, "--absolute")
    data = pd.read_csv(tmp_path / "train.csv")
    assert dict(zip(data["clip"], data["number"], strict=True)) == expected(tmp_path, "train")
    assert data["path"].map(os.path.isfile).all() and data["time_end"].dtype.kind == "i"
    assert Counter(data["label"])['say "hi", wave'] == 10
    assert video_id("t4_", 0) in set(data["youtube_id"])
