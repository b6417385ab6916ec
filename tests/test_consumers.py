"""The lists of make_training_lists.py read back by the code that they are written for.

Each test needs its reader (requirements-consumers.txt) and is skipped, by name, without it.
mmaction2 and SlowFast cannot be installed here (mmcv and detectron2 are built against one torch);
test_training_lists.py holds their files to the parsing rules of their sources.
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

from tests.training_sets import clip_names, lists_of, make_clips, make_lists, table, video_id

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is asked of a hub

Set = tuple[Path, list[object]]


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
    torch = pytest.importorskip("torch", reason="no torch: requirements-consumers.txt")
    if "torchvision" not in sys.modules:
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision_operators.append(operators)  # they go when it goes
    return pytest.importorskip(
        "torchvision", reason="no torchvision: pip install --no-deps torchvision"
    )


torchvision_operators: list[Any] = []


def test_webdataset(tmp_path: Path, whole: Set) -> None:
    webdataset = pytest.importorskip("webdataset", reason="no webdataset installed")
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
    datasets = pytest.importorskip("datasets", reason="no datasets installed")
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


def test_pytorchvideo(tmp_path: Path, whole: Set, torchvision: Any) -> None:
    paths = pytest.importorskip(
        "pytorchvideo.data.labeled_video_paths", reason="no pytorchvideo installed"
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
