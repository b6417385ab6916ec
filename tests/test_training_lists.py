"""make_training_lists.py on lists of two versions, and its files held to their readers' rules.

The readers themselves run in test_consumers.py, where they are installed.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from make_training_lists import FORMATS
from tests.scripts import run, start, write_list
from tests.standin.sources import ffmpeg_path
from tests.training_sets import (
    AVA_CLIPS,
    AVA_IDS,
    LABELLED,
    clip_names,
    lists_of,
    make_ava,
    make_clips,
    make_lists,
    make_report,
    table,
    video_id,
)
from utils.clip import Clip
from utils.lists.versions import list_file
from utils.training import outputs
from utils.training.choosing import Candidate
from utils.training.outputs import class_folder
from utils.training.shards import Shard, write_shard

Lists = dict[str, Path]


@pytest.fixture
def lists(tmp_path: Path) -> Lists:
    return make_lists(tmp_path / "kinetics_csv")


@pytest.fixture
def clips(tmp_path: Path, lists: Lists) -> Path:
    return make_clips(tmp_path / "clips", clip_names(*lists.values()))


def fields(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def reasons(out: Path) -> Counter[str]:
    return Counter(row["reason"] for row in table(out / "excluded.csv"))


def test_what_is_there_is_listed_and_the_rest_is_told(tmp_path: Path, lists: Lists) -> None:
    given = (lists["400_train"], lists["400_val"])
    names = clip_names(*given)
    clips = make_clips(tmp_path / "clips", names[:-3])
    make_report(clips, **{names[-1]: "unavailable/removed", names[-2]: "failed/timeout"})
    (clips / f"{names[-3]}.mp4").touch()  # an empty file is no clip
    out = tmp_path / "out"
    done = run(
        *("make_training_lists.py", clips, out, "--format", "slowfast", "--input_csv", *given),
        cwd=tmp_path,
    )
    assert done.code == 1 and done.out == ""
    classes = (out / "classes.txt").read_text().splitlines()
    assert classes == ["dying hair", "hugging", "person's (not dog) walk", 'say "hi", wave', "yoga"]
    assert json.loads((out / "classes.json").read_text()) == {n: i for i, n in enumerate(classes)}
    # SlowFast: each line splits into a path and a number, and the path joins to PATH_PREFIX.
    train, val = fields(out / "train.csv"), fields(out / "val.csv")
    assert {len(row) for row in train + val} == {2}
    assert all((clips / path).stat().st_size for path, _ in train + val)
    assert Counter(label for _, label in train) == {str(n): 10 for n in range(5)}
    assert Counter(label for _, label in val) == {"0": 4, "1": 4, "2": 4, "3": 4, "4": 1}
    left = {row["clip"]: row for row in table(out / "excluded.csv")}
    assert left[names[-1]]["reason"] == "missing"
    assert (left[names[-1]]["status"], left[names[-1]]["why"]) == ("unavailable", "removed")
    assert left[names[-1]]["line"] == "21" and left[names[-1]]["list"] == "kinetics-400_val.csv"
    assert reasons(out) == {"missing": 3, "duplicate": 1}
    assert "val              20          17     15.00%          17" in done.err
    assert "most missing  21.43%  3 of 14: yoga" in done.err
    assert "published    gluon-cv: 240,618 train, 19,404 val" in done.err
    assert "kinetics-400_test may be in train" not in done.err
    assert "Kinetics-400: 5 of 400 classes" in done.err
    assert f"DATA.PATH_PREFIX {clips}" in done.err


def test_versions_are_joined_and_no_held_out_video_is_in_train(
    tmp_path: Path, lists: Lists, clips: Path
) -> None:
    out = tmp_path / "out"
    words = [clips, out, "--format", "csv", "--input_csv", tmp_path / "kinetics_csv"]
    said = lists_of(*words)
    assert (out / "classes.txt").read_text().splitlines() == [
        *("Yoga", "dyeing hair", "hugging", "hugging (not baby)", "person's (not dog) walk"),
        'say "hi", wave',
    ]
    assert "renamed      'dying hair' is 'dyeing hair' now" in said
    assert "held out     1 video of Kinetics-700 train in Kinetics-400 val" in said
    assert "1 other_label" in said
    train = {row["clip"]: row for row in table(out / "train.csv")}
    assert train[f"{video_id('t4_', 101)}_000001_000011"]["label"] == "hugging (not baby)"
    assert train[f"{video_id('t4_', 0)}_000000_000010"]["label"] == "dyeing hair"
    held = {row["youtube_id"] for s in ("val", "test") for row in table(out / f"{s}.csv")}
    assert not held & {row["youtube_id"] for row in train.values()} and len(train) == 100
    left = {(r["clip"], r["version"]): r["reason"] for r in table(out / "excluded.csv")}
    assert left == {
        (f"{video_id('v4_', 100)}_000050_000060", "700"): "held_out",
        (f"{video_id('t4_', 101)}_000001_000011", "400"): "other_label",
        (f"{video_id('t4_', 401)}_000001_000011", "400"): "duplicate",
    }
    assert {row["label"] for row in table(out / "test.csv")} == {""}
    assert train[f"{video_id('t7_', 0)}_000000_000010"]["is_cc"] == "0"


def test_the_label_is_that_of_the_newest_version_that_has_one(tmp_path: Path) -> None:
    rows = {"k400_val": "old", "k600_train": "new", "k700_test": ""}
    lists = [
        write_list(tmp_path / f"{name}.csv", [f"{label},{'a' * 11},0,10,{name[5:]},0"], LABELLED)
        for name, label in rows.items()
    ]
    clips = make_clips(tmp_path / "clips", clip_names(*lists))
    lists_of(clips, tmp_path / "out", "--format", "csv", "--input_csv", *lists)
    (row,) = table(tmp_path / "out" / "manifest.csv")
    assert (row["split"], row["label"]) == ("val", "new")
    assert reasons(tmp_path / "out") == {"held_out": 1, "duplicate": 1}


def test_lists_beside_and_holdout_hold_out_too(tmp_path: Path, lists: Lists, clips: Path) -> None:
    only = [clips, tmp_path / "out", "--format", "csv", "--input_csv", lists["700_train"]]
    said = lists_of(*only)
    assert "videos of kinetics-700_test may be in train" in said
    assert "held_out" not in reasons(tmp_path / "out")
    hidden = f"Yoga,{video_id('v7_', 400)},0,10,train,0"
    lists["700_train"].write_text(lists["700_train"].read_text() + hidden + "\n")
    lists_of(*only)
    assert reasons(tmp_path / "out") == {"held_out": 1}  # kinetics-700_val lies beside
    (tmp_path / "part").mkdir()
    part = write_list(tmp_path / "part" / lists["700_val"].name, [f"{video_id('x', 1)},0,10"])
    lists_of(*only, "--holdout", part)  # a list of that name elsewhere takes nothing from it
    assert reasons(tmp_path / "out") == {"held_out": 1}
    lists_of(*only, "--holdout", lists["400_val"])
    assert reasons(tmp_path / "out") == {"held_out": 2}
    names = write_list(tmp_path / "mine.csv", [f"{video_id('t7_', 0)},0,10"])
    lists_of(*only, "--holdout", lists["400_val"], names)
    assert reasons(tmp_path / "out") == {"held_out": 3}


def test_a_subset_keeps_its_numbers_and_replaces_what_is_gone(
    tmp_path: Path, lists: Lists, clips: Path
) -> None:
    def drawn(out: str, *more: object) -> list[list[str]]:
        words = [clips, tmp_path / out, "--format", "jepa", "--input_csv", lists["400_train"]]
        lists_of(*words, *more, code=1 if out == "gone" else 0)
        return fields(tmp_path / out / "train.csv")

    first = drawn("a", "--per_class", 3, "--seed", 5)
    assert first == drawn("b", "--per_class", 3, "--seed", 5)
    assert first != drawn("c", "--per_class", 3, "--seed", 6)
    assert all(Path(path).is_file() and Path(path).is_absolute() for path, _ in first)
    assert Counter(label for _, label in first) == {str(n): 3 for n in range(5)}
    Path(first[0][0]).unlink()
    again = drawn("gone", "--per_class", 3, "--seed", 5)
    assert len(set(map(tuple, first)) & set(map(tuple, again))) == 14 and len(again) == 15
    yoga = drawn("d", "--label", "YOGA!")  # by class, in any spelling
    assert {label for _, label in yoga} == {"4"} and len(yoga) == 10
    assert len(drawn("e", "--fraction", 0.25, "--label", "hugging")) == 2
    said = lists_of(clips, tmp_path / "f", "--format", "csv", "--label", "yogi",
                    "--input_csv", lists["400_train"], code=2)  # fmt: skip
    assert "--label 'yogi' is not in any list; available: yoga" in said


def test_another_order_of_classes(tmp_path: Path, lists: Lists, clips: Path) -> None:
    order = tmp_path / "order.txt"
    names = ["yoga", "hugging", "dying hair", 'say "hi", wave', "person's (not dog) walk", "more"]
    order.write_text("\n".join(names))
    words = [clips, tmp_path / "out", "--format", "videomae", "--input_csv", lists["400_val"]]
    lists_of(*words, "--classes", order)
    assert [label for _, label in fields(tmp_path / "out" / "val.csv")][::4] == list("21340")
    order.write_text("\n".join(names[1:]))
    assert "lacks 'yoga'" in lists_of(*words, "--classes", order, code=2)


def test_unlabelled_test_lists(tmp_path: Path, lists: Lists, clips: Path) -> None:
    given = ["--input_csv", lists["400_val"], lists["400_test"]]
    said = lists_of(clips, tmp_path / "a", "--format", "mmaction2", *given)
    assert "excluded     6 no_label" in said
    assert reasons(tmp_path / "a") == {"no_label": 6}
    assert sorted(p.name for p in (tmp_path / "a").glob("*.txt")) == [
        *("classes.txt", "kinetics400_val_list_videos.txt"),
    ]
    # mmaction2's VideoDataset: `filename, label = line.strip().split()`.
    assert all(len(row) == 2 for row in fields(tmp_path / "a/kinetics400_val_list_videos.txt"))
    lists_of(clips, tmp_path / "b", "--format", "videomae", "--pretrain", *given)
    rows = fields(tmp_path / "b" / "test.csv")
    assert len(rows) == 6 and all(row[1:] == ["0", "-1"] for row in rows)
    lists_of(clips, tmp_path / "c", "--format", "json", *given)
    tests = json.loads((tmp_path / "c" / "test.json").read_text())
    assert {row["number"] for row in tests} == {None}
    vals = json.loads((tmp_path / "c" / "val.json").read_text())
    assert vals[8]["label"] == 'say "hi", wave' and vals[8]["path"] == f"{vals[8]['clip']}.mp4"


def test_frames_of_mmaction2(tmp_path: Path, lists: Lists, clips: Path) -> None:
    frames, names = tmp_path / "frames", clip_names(lists["400_val"])
    for number, name in enumerate(names[:-2]):
        (frames / name).mkdir(parents=True)
        for at in range(1, 4 + number % 2):
            (frames / name / f"{at:06d}.jpg").touch()
    (frames / names[0] / "000002.jpg").unlink()  # a gap
    words = [clips, tmp_path / "out", "--format", "mmaction2", "--input_csv", lists["400_val"]]
    said = lists_of(*words, "--frames", frames, "--name", "k", code=1)
    rows = fields(tmp_path / "out" / "k_val_list_rawframes.txt")
    assert rows[0] == [names[1], "4", "0"] and len(rows) == len(names) - 3
    assert all(len(os.listdir(frames / folder)) == int(total) for folder, total, _ in rows)
    assert reasons(tmp_path / "out") == {"no_frames": 3}
    assert (
        "filename_tmpl='{:06}.jpg', start_index=1" in said and f"data_prefix.img={frames}" in said
    )
    assert "val_dataloader.dataset.ann_file" in said and "train_dataloader" not in said


def test_trees_of_links(tmp_path: Path, lists: Lists, clips: Path) -> None:
    out, names = tmp_path / "out", clip_names(lists["400_val"])
    words = [clips, out, "--format", "torchvision", "--input_csv", lists["400_val"]]
    lists_of(*words)
    tree = {path.name: path for path in out.glob("val/*/*.mp4")}
    assert sorted(tree) == sorted(f"{name}.mp4" for name in names)
    assert {path.parent.name for path in tree.values()} == {
        *("dying_hair", "hugging", "say_\"hi\",_wave", "persons_not_dog_walk", "yoga"),
    }  # fmt: skip
    assert all(os.path.samefile(path, clips / name) for name, path in tree.items())
    # What no longer belongs goes; a file that is not another name of a clip stays.
    (clips / f"{names[0]}.mp4").unlink()
    foreign = out / "val" / "yoga" / "mine.mp4"
    foreign.write_text("mine")
    link = out / "val" / "yoga" / f"{names[-1]}.mp4"
    link.unlink()
    link.symlink_to(foreign)
    table_of_mine = out / "val" / "metadata.csv"
    table_of_mine.write_text("mine\n")
    same_size = out / "val" / "dying_hair" / f"{names[-2]}.mp4"
    same_size.write_bytes(bytes((clips / same_size.name).stat().st_size))
    said = lists_of(*words, "--label", "dying hair", code=1)
    left = {path.name for path in out.glob("val/*/*.mp4")}
    assert left == {"mine.mp4", link.name, same_size.name, *(f"{name}.mp4" for name in names[:4])}
    assert foreign.read_text() == "mine" and "4 files in" in said
    assert link.is_symlink() and not any(same_size.read_bytes())
    assert table_of_mine.read_text() == "mine\n"
    assert tree[f"{names[0]}.mp4"].read_bytes()  # the last name of its file
    assert "class indices of val/ are not those of classes.txt" in said


def test_class_folders_are_torchvisions() -> None:
    assert class_folder("massaging person's head") == "massaging_persons_head"
    assert (
        class_folder("skiing (not slalom or crosscountry)") == "skiing_not_slalom_or_crosscountry"
    )
    assert len(class_folder("a" * 300)) < 256 and class_folder("a" * 300) != class_folder("a" * 301)
    assert class_folder("..") == "_" and class_folder("a/../b") == "a_.._b"


def test_huggingface_metadata(tmp_path: Path, lists: Lists, clips: Path) -> None:
    out = tmp_path / "out"
    given = ["--input_csv", lists["400_val"], lists["400_test"]]
    lists_of(clips, out, "--format", "huggingface", *given)
    rows = table(out / "val" / "metadata.csv")
    assert all((out / "val" / row["file_name"]).is_file() for row in rows) and len(rows) == 20
    assert rows[8]["label"] == 'say "hi", wave'
    assert [row["label"] for row in table(out / "test" / "metadata.csv")] == [""] * 6


def test_shards_are_whole_bounded_and_resumed(tmp_path: Path, lists: Lists, clips: Path) -> None:
    out = tmp_path / "out"
    given = ["--input_csv", lists["400_train"], lists["400_test"], "--shard_size", "20K"]
    words = [clips, out, "--format", "webdataset", *given, "--n", 2]
    lists_of(*words)
    shards = sorted(out.glob("*.tar"))
    assert [path.name for path in shards][:2] == ["test-000000.tar", "train-000000.tar"]
    assert all(path.stat().st_size <= 20_000 for path in shards) and len(shards) > 4
    samples: dict[str, dict[str, bytes]] = {}
    for path in shards:
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, kind = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                samples.setdefault(key, {})[kind] = file.read()
    assert sorted(samples) == sorted(clip_names(lists["400_train"], lists["400_test"]))
    train = [name for name in samples if "cls" in samples[name]]
    assert sorted(train) == sorted(clip_names(lists["400_train"])) and train != sorted(train)
    for name, parts in samples.items():
        assert parts["mp4"] == (clips / f"{name}.mp4").read_bytes()
        known = json.loads(parts["json"])
        assert known["clip"] == name
        assert known["number"] == (int(parts["cls"]) if "cls" in parts else None)
    before = {path: path.read_bytes() for path in shards}
    times = {path: path.stat().st_mtime_ns for path in shards}
    shards[1].unlink()
    shards[2].write_bytes(b"torn")
    assert f"{len(shards) - 2:,} of them existing" in lists_of(*words)
    assert {path: path.read_bytes() for path in shards} == before
    same = [path for path in shards if path.stat().st_mtime_ns == times[path]]
    assert len(same) == len(shards) - 2
    assert "is of another selection" in lists_of(*words, "--seed", 1, code=2)
    assert "more than --shard_size 10,000" not in lists_of(*words, "--dry_run")


def test_a_shard_whose_clip_is_gone_or_changed_is_not_written(tmp_path: Path) -> None:
    clip = tmp_path / "x.mp4"
    clip.write_bytes(b"12345")
    for path, size in ((clip, 6), (tmp_path / "gone.mp4", 5)):
        final, temporary = tmp_path / "a.tar", tmp_path / "a.part"
        rows = [
            Candidate(Clip(path.stem, "x" * 11, 0, 10), list_file(path), 1, "val", bytes=size)
            for path, size in ((clip, 5), (path, size))
        ]
        _, problem = write_shard(Shard(final, temporary, tmp_path, rows))
        assert problem.startswith(str(path)) and "run again" in problem
        assert not final.exists() and not temporary.exists()


def test_lengths_and_hashes_are_measured_once(tmp_path: Path, source: Callable[..., Path]) -> None:
    long, short = source(seconds=4), source(seconds=2)
    clips = make_clips(tmp_path / "clips", ["aaaaaaaaaaa_000000_000010"], long)
    make_clips(clips, ["bbbbbbbbbbb_000000_000010"], short)
    (clips / "ccccccccccc_000000_000010.mp4").write_bytes(long.read_bytes()[:5000])
    rows = [f"yoga,{c * 11},0,10,train,0" for c in "abc"]
    listing = write_list(tmp_path / "mine_train.csv", rows, LABELLED)
    words = [clips, tmp_path / "out", "--format", "csv", "--input_csv", listing]
    lists_of(*words)
    assert [row["seconds"] for row in table(tmp_path / "out/manifest.csv")] == ["10", "10", "10"]
    lists_of(*words, "--min_seconds", 3, "--hash", code=1)
    (row,) = table(tmp_path / "out" / "manifest.csv")
    assert row["clip"][:1] == "a" and row["seconds"] == "4.000" and len(row["sha256"]) == 64
    assert reasons(tmp_path / "out") == {"short": 1, "unreadable": 1}
    memory = tmp_path / "out" / ".measured.csv"
    lines = memory.read_text().splitlines()
    lists_of(*words, "--min_seconds", 3, "--hash", code=1)
    assert memory.read_text().splitlines() == lines
    changed = clips / "aaaaaaaaaaa_000000_000010.mp4"
    changed.unlink()  # a link to a video that others use
    changed.write_bytes(long.read_bytes() + b"\0\0\0\x08free")
    lists_of(*words, "--min_seconds", 3, "--hash", code=1)
    (again,) = table(tmp_path / "out" / "manifest.csv")
    assert len(again["sha256"]) == 64 and again["sha256"] != row["sha256"]
    assert len(memory.read_text().splitlines()) == len(lines) + 1


def test_manifests_are_compared_and_followed(tmp_path: Path, lists: Lists, clips: Path) -> None:
    given = ["--input_csv", lists["400_train"], lists["400_val"]]
    theirs = tmp_path / "theirs" / "manifest.csv"
    lists_of(clips, theirs.parent, "--format", "csv", *given, "--per_class", 2)
    head = theirs.read_text().splitlines()[:7]
    assert head[0].startswith("# made by make_training_lists.py 1.") and "--per_class 2" in head[1]
    assert head[2] == "# versions: 400" and head[3].startswith("# list: kinetics-400_train.csv sha")
    rows = table(theirs)
    gone, changed = rows[0]["clip"], rows[1]["clip"]
    (clips / f"{gone}.mp4").unlink()
    (clips / f"{changed}.mp4").write_bytes(b"encoded otherwise")
    out = tmp_path / "out"
    said = lists_of(clips, out, "--format", "csv", *given, "--compare", theirs, code=1)
    assert "19 clips in both; 50 only here, 1 only in" in said and "1 in bytes" in said
    differences = {row["clip"]: row for row in table(out / "compare.csv")}
    assert differences[gone]["what"] == "only_there" and differences[changed]["what"] == "bytes"
    said = lists_of(
        *(clips, tmp_path / "same", "--format", "slowfast", *given, "--only_manifest", theirs),
        code=1,
    )
    listed = {row[0].removesuffix(".mp4"): row[1] for split in ("train", "val")
              for row in fields(tmp_path / "same" / f"{split}.csv")}  # fmt: skip
    classes = (tmp_path / "same" / "classes.txt").read_text().splitlines()
    assert {c: classes[int(n)] for c, n in listed.items()} == {
        row["clip"]: row["label"] for row in rows[1:]
    }
    (row,) = table(tmp_path / "same" / "to_download.csv")
    assert gone.startswith(row["youtube_id"]) and row["split"] == "train"
    assert "download.py" in said and "to_download.csv" in said
    words = [clips, tmp_path / "none", "--format", "csv", *given, "--only_manifest", theirs]
    text = "".join(f"{row['clip']}\n" for row in rows)
    (tmp_path / "all.csv").write_text(f"clip\n{text}")
    said = lists_of(*words, "--exclude", tmp_path / "all.csv", code=2)
    assert "no clip to list (20 excluded)" in said


def test_ava_forms(tmp_path: Path) -> None:
    ids, names = AVA_IDS, AVA_CLIPS
    listing, boxes, clips, frames = make_ava(tmp_path)
    words = [clips, tmp_path / "out", "--format", "ava", "--input_csv", listing]
    said = lists_of(*words, "--annotations", boxes, "--frames", frames)
    lines = (tmp_path / "out" / "mmaction2_train.csv").read_text().splitlines()
    first = f"{ids[0]}_000899_000905"
    assert lines[0] == f"{first},902,0.250,0.400,0.750,0.900,12,-1" and len(lines) == 2
    # AVAKineticsDataset takes the last two parts of the name for start and end, in seconds.
    assert [int(part) for part in first.split("_")[-2:]] == [899, 905]
    assert (tmp_path / "out" / "rawframes" / first / "000005.jpg").exists()
    # SlowFast: the second in a video that begins at 900, whose frame is (second - 900) * 30.
    boxes_of = (tmp_path / "out" / "slowfast_train.csv").read_text().splitlines()
    assert boxes_of == [f"{names[0]},0903,0.250,0.400,0.750,0.900,12,1.0"]
    assert "1 annotation in the first two seconds" in said
    listed = (tmp_path / "out" / "frame_lists" / "train.csv").read_text().splitlines()
    assert listed[0] == "original_vido_id video_id frame_id path labels"
    assert listed[1] == f'{names[0]} 0 0 {names[0]}/000001.jpg ""' and len(listed) == 11
    assert all((frames / line.split()[3]).exists() for line in listed[1:])
    mine, stale = (tmp_path / "out" / "rawframes" / name for name in ("mine", "stale"))
    mine.mkdir()
    stale.symlink_to(mine)
    lists_of(*words, "--annotations", boxes, "--frames", frames)
    assert mine.is_dir() and not stale.is_symlink()
    boxes.write_text(boxes.read_text() + "torn,line\n")
    assert f"{boxes}:5: no annotation" in lists_of(
        *words, "--annotations", boxes, "--frames", frames, code=2
    )


def test_white_space_in_paths(tmp_path: Path, lists: Lists) -> None:
    clips = make_clips(tmp_path / "my clips", clip_names(lists["400_val"]))
    out, links = tmp_path / "out", tmp_path / "links"
    words = [clips, out, "--format", "jepa", "--input_csv", lists["400_val"]]
    said = lists_of(*words, code=2)
    assert "white space" in said and "--link_dir" in said and not out.exists()
    lists_of(*words, "--link_dir", links)
    assert all(Path(path).parent == links and Path(path).is_file()
               for path, _ in fields(out / "val.csv"))  # fmt: skip
    said = lists_of(*words, "--link_dir", out / "links" / "all")
    assert "not written by this run" not in said
    in_the_way = links / f"{clip_names(lists['400_val'])[0]}.mp4"
    in_the_way.unlink()
    in_the_way.write_text("mine")
    said = lists_of(*words, "--link_dir", links, code=2)
    assert f"{in_the_way} exists and is not " in said and in_the_way.read_text() == "mine"
    lists_of(*words, "--path_prefix", clips)  # the reader joins it, unsplit
    assert fields(out / "val.csv")[0][0] == f"{clip_names(lists['400_val'])[0]}.mp4"
    said = lists_of(*words, "--path_prefix", links, code=2)
    assert "is not below --path_prefix" in said


def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, lists: Lists, clips: Path) -> None:
    given = ["--format", "slowfast", "--input_csv", lists["400_train"]]
    (tmp_path / "empty").mkdir()
    said = lists_of(tmp_path / "empty", tmp_path / "a", *given, code=2)
    assert (
        "50 missing" in said
        and f"check {tmp_path / 'empty'}" in said
        and not (tmp_path / "a").exists()
    )
    assert "does not exist" in lists_of(tmp_path / "no", tmp_path / "a", *given, code=2)
    assert "is the folder of clips" in lists_of(clips, clips, *given, code=2)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "train.csv").write_text("mine")
    assert "contains train.csv, which this script did not write" in lists_of(
        clips, foreign, *given, code=2
    )
    assert (foreign / "train.csv").read_text() == "mine"
    odd = write_list(tmp_path / "odd.csv", [f"yoga,{'a' * 11},0,10,dev,0"], LABELLED)
    words = [clips, tmp_path / "a", "--format", "csv", "--input_csv", odd]
    assert f"{odd}:2: the split 'dev' is not train, val or test" in lists_of(*words, code=2)
    two = [f"a b,{video_id('t4_', 0)},0,10,train,0", f"A B,{video_id('v4_', 0)},0,10,train,0"]
    listing = write_list(
        tmp_path / "two_train.csv", [*two, f"a-c,{'../evil'},0,1,train,0"], LABELLED
    )
    words = [clips, tmp_path / "t", "--format", "torchvision", "--input_csv", listing]
    said = lists_of(*words, code=1)  # one class, however it is spelled; and a row that is none
    assert "joined       'A B' is 'a b'" in said
    assert "invalid      1 row" in said and reasons(tmp_path / "t") == {"invalid": 1}
    listing = write_list(
        tmp_path / "c_train.csv", [two[0], two[1].replace("A B", "a (b)")], LABELLED
    )
    words = [clips, tmp_path / "u", "--format", "torchvision", "--input_csv", listing]
    assert "the classes 'a (b)' and 'a b' would share a_b/" in lists_of(*words, code=2)
    wrong = [
        ["--per_class", "0"],
        ["--fraction", "2"],
        ["--shard_size", "5"],
        ["--shard_size", "1M"],
        ["--pretrain"],
        ["--frames", str(clips)],
        ["--absolute", "--path_prefix", "/"],
        ["--name", "a/b"],
    ]
    for bad in wrong:
        lists_of(clips, tmp_path / "b", *given, *bad, code=2)
    for option in ("--absolute", "--link_dir=x", "--path_prefix=x"):
        words = [clips, tmp_path / "b", "--format", "webdataset", option]
        assert "requires --format slowfast or mmaction2" in lists_of(*words, code=2)
    assert "needs --annotations" in lists_of(clips, tmp_path / "b", "--format", "ava", code=2)
    assert not (tmp_path / "b").exists()


def test_a_killed_run_leaves_whole_shards_and_is_finished(tmp_path: Path, lists: Lists) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in clip_names(lists["400_train"]):
        (clips / f"{name}.mp4").write_bytes(os.urandom(2_000_000))
    given = ["--format", "webdataset", "--input_csv", lists["400_train"], "--shard_size", "5M"]
    words = [clips, tmp_path / "out", *given, "--n", 2]
    process = start("make_training_lists.py", *words, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((tmp_path / "out").glob("*.tar")):
        time.sleep(0.005)
    process.kill()
    process.communicate()
    left = sorted((tmp_path / "out").glob("*.tar"))
    assert left and all(len(members_of(path)) % 3 == 0 for path in left)
    lists_of(clips, tmp_path / "out", *given)
    names = [name for path in (tmp_path / "out").glob("*.tar") for name in members_of(path)]
    assert len(names) == len(set(names)) == 3 * 50
    assert not (tmp_path / "out" / ".tmp").exists()


def members_of(path: Path) -> list[str]:
    """The names in a whole tar; raises where it is torn."""
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None and len(file.read()) == member.size
        return tar.getnames()


def test_dry_run_writes_nothing(tmp_path: Path, lists: Lists, clips: Path) -> None:
    given = ["--format", "slowfast", "--input_csv", lists["400_train"], "--dry_run"]
    assert "train            50          50      0.00%" in lists_of(clips, tmp_path / "out", *given)
    assert not (tmp_path / "out").exists()


def test_a_clip_that_goes_while_links_are_made(
    tmp_path: Path, lists: Lists, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder changes after the look, as with a download.py --verify beside."""
    from utils.training import choosing

    look, gone = choosing.look, clip_names(lists["400_val"])[0]

    def look_and_lose(*words: object) -> None:
        look(*words)  # type: ignore[arg-type]
        (clips / f"{gone}.mp4").unlink()

    monkeypatch.setattr(choosing, "look", look_and_lose)
    for form in ("huggingface", "webdataset"):
        make_clips(clips, [gone])
        words = [clips, tmp_path / form, "--format", form, "--input_csv", lists["400_val"]]
        said = lists_of(*words, code=1)
        assert "run again" in said
        assert gone not in {row["clip"] for row in table(tmp_path / form / "manifest.csv")}


def test_clips_where_links_are_removed_are_refused(tmp_path: Path) -> None:
    clips = tmp_path / "data" / "train"
    clips.mkdir(parents=True)
    (tmp_path / "data" / ".make_training_lists").touch()
    clip = clips / "abcdefghijk_000001_000011.mp4"
    clip.write_bytes(b"the only copy")
    listing = write_list(tmp_path / "list.csv", ["abcdefghijk,1,11"])
    given = [clips, tmp_path / "data", "--input_csv", listing, "--format", "csv"]
    done = run("make_training_lists.py", *given, cwd=tmp_path)
    assert done.code == 2
    assert "use another folder for the lists" in done.err
    assert clip.exists()
    # Nor by another name of the folder, as on a disk that takes `Data` for `data`.
    (tmp_path / "Data").symlink_to(clips)
    files = SimpleNamespace(clips=clips, tell=print)
    outputs._drop_stale(files, tmp_path / "Data", {})  # type: ignore[arg-type]
    assert clip.exists()
    # Nor where the folder of clips has links to the files in the tree.
    (tmp_path / "tree").mkdir()
    moved = clip.rename(tmp_path / "tree" / clip.name)
    clip.symlink_to(moved)
    outputs._drop_stale(files, tmp_path / "tree", {})  # type: ignore[arg-type]
    assert clip.read_bytes() == b"the only copy"


def test_clips_are_excluded_by_file_and_by_licence(
    tmp_path: Path, lists: Lists, clips: Path
) -> None:
    names = clip_names(lists["400_val"])
    words = [clips, tmp_path / "out", "--format", "csv", "--input_csv", lists["400_val"]]
    (tmp_path / "suspects.csv").write_text(f"kind,clip\nblack,{names[0]}\nblack,'{names[1]}\n")
    more = write_list(tmp_path / "more.csv", [f"{names[2][:11]},2,12", "zzzzzzzzzzz,1,2"])
    said = lists_of(*words, "--exclude", tmp_path / "suspects.csv", more)
    assert reasons(tmp_path / "out") == {"excluded": 3}
    assert f"excluded     1 clip of the 2 in {more}" in said
    assert "cannot read" in lists_of(*words, "--exclude", tmp_path / "no.csv", code=2)
    assert "download.py --metadata" in lists_of(*words, "--license", "creativecommon", code=2)
    free = "Creative Commons Attribution license (reuse allowed)"
    lines = [{"youtube_id": names[0][:11], "licence": free}, {"youtube_id": names[1][:11]}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + "[" * 200_000 + '\n{"torn'
    (clips / "videos.jsonl").write_text(text)
    said = lists_of(*words, "--license", "creativecommon")
    assert {row["clip"] for row in table(tmp_path / "out" / "val.csv")} == {names[0]}
    assert "19 clips without 'creativecommon' (18 of them not in videos.jsonl)" in said
    lists_of(*words, "--license", "youtube")
    assert {row["clip"] for row in table(tmp_path / "out" / "val.csv")} == {names[1]}


def test_the_report_of_another_folder_says_why(tmp_path: Path, lists: Lists) -> None:
    names = clip_names(lists["400_val"])
    made = make_clips(tmp_path / "clips_256", names[1:])
    make_report(make_clips(tmp_path / "clips", []), **{names[0]: "unavailable/removed"})
    words = [made, tmp_path / "out", "--format", "jepa", "--input_csv", lists["400_val"]]
    assert "--report DIR" in lists_of(*words, code=1)
    assert "--report DIR" not in lists_of(*words, "--report", tmp_path / "clips", code=1)
    assert "--report" in lists_of(*words, "--report", tmp_path / "nowhere", code=2)
    (row,) = table(tmp_path / "out" / "excluded.csv")
    assert (row["reason"], row["status"], row["why"]) == ("missing", "unavailable", "removed")


@pytest.mark.parametrize("form", [name for name in FORMATS if name != "ava"])
def test_odd_names_and_the_next_line(form: str, tmp_path: Path, lists: Lists) -> None:
    """A folder that is not UTF-8 with a quote; labels that are a formula, too long, or a file."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9'"))
    labels = ("=cmd|' /C calc'!A0", "x" * 300, "metadata.csv", "\x1b[31mred")
    rows = [f'"{label}",{video_id("odd", n)},0,10,val,0' for n, label in enumerate(labels)]
    listing = write_list(tmp_path / "my list_val.csv", rows, LABELLED)
    clips = make_clips(folder / "clips", clip_names(listing)[:-1])
    words = [clips, folder / "out", "--format", form, "--input_csv", listing]
    said = lists_of(*words, *(["--absolute"] if form == "json" else []), code=1)
    assert "Traceback" not in said and "\x1b" not in said
    assert len(table(folder / "out/manifest.csv")) == 3
    assert [row["label"] for row in table(folder / "out/excluded.csv")] == [r"\x1b[31mred"]
    assert "my_list" in said or form != "mmaction2"
    for line in said.splitlines():
        if line.startswith("next: "):
            command = shlex.split(line[6:])
            if command[1] == "-c":
                compile(command[2], "next", "exec")
            assert not {"LAST", "CONFIG", "CONFIG.yaml"} & set(command)
    if form in ("json", "videomae"):
        text = (folder / "out" / ("val.json" if form == "json" else "val.csv")).read_bytes()
        paths = (
            [row["path"] for row in json.loads(text)]
            if form == "json"
            else [os.fsdecode(line.split()[0]) for line in text.splitlines()]
        )
        assert len(paths) == 3 and all(map(os.path.isfile, paths)) and "not UTF-8" in said


def test_frames_in_tars_are_refused(tmp_path: Path, lists: Lists, clips: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / f"{clip_names(lists['400_val'])[0]}.tar").touch()
    words = [clips, tmp_path / "out", "--format", "mmaction2", "--input_csv", lists["400_val"]]
    assert "without --archive" in lists_of(*words, "--frames", frames, code=2)
    assert not (tmp_path / "out").exists()


def test_every_worker_has_a_shard(tmp_path: Path, lists: Lists, clips: Path) -> None:
    words = [clips, tmp_path / "out", "--format", "webdataset", "--input_csv", lists["400_train"]]
    said = lists_of(*words, "--workers", 8, code=2)
    assert "train has 1 shard of 50 clips, fewer than --workers 8: use --shard_size" in said
    assert not list((tmp_path / "out").glob("*.tar"))
    size = max(10_000, int(said.split("--shard_size ")[1].split()[0]))
    lists_of(*words, "--workers", 8, "--shard_size", size)
    assert len(list((tmp_path / "out").glob("*.tar"))) >= 8
    assert "use fewer workers" in lists_of(*words, "--workers", 51, code=2)


def test_shards_of_sound(tmp_path: Path, lists: Lists) -> None:
    names = clip_names(lists["400_val"])
    clips = make_clips(tmp_path / "clips", [])
    for name, suffix in zip(names, (".m4a", ".wav", ".flac", ".mp4", ".txt"), strict=False):
        (clips / f"{name}{suffix}").write_bytes(b"sound")
    words = [clips, tmp_path / "out", "--format", "webdataset", "--input_csv", lists["400_val"]]
    lists_of(*words, code=1)
    members = members_of(tmp_path / "out" / "val-000000.tar")
    assert {name.rpartition(".")[2] for name in members} == {
        *("m4a", "wav", "flac", "mp4", "cls", "json")
    }
    words = [clips, tmp_path / "json", "--format", "json", "--input_csv", lists["400_val"]]
    lists_of(*words, "--link_dir", tmp_path / "links", code=1)
    paths = {row["path"] for row in json.loads((tmp_path / "json" / "val.json").read_text())}
    assert paths == set(os.listdir(tmp_path / "links")) and len(paths) == 4
    words = [clips, tmp_path / "lines", "--format", "slowfast", "--input_csv", lists["400_val"]]
    lists_of(*words, code=1)
    assert len(fields(tmp_path / "lines" / "val.csv")) == 1


def test_sound_is_measured(tmp_path: Path, lists: Lists) -> None:
    """Files as `download.py --audio_only` writes them, each also cut off, one a text, one short."""
    names = clip_names(lists["400_val"])
    clips = make_clips(tmp_path / "clips", [])

    def write(name: str, suffix: str, seconds: float = 3) -> bytes:
        path = clips / f"{name}{suffix}"
        tone = ["-f", "lavfi", "-i", f"sine=440:sample_rate=16000:duration={seconds}"]
        more = ["-movflags", "+faststart"] if suffix == ".m4a" else []
        subprocess.run([ffmpeg_path(), "-v", "error", *tone, *more, path], check=True)
        return path.read_bytes()

    suffixes = (".m4a", ".wav", ".flac")
    for whole, torn, suffix in zip(names, names[3:], suffixes, strict=False):
        content = write(whole, suffix)
        (clips / f"{torn}{suffix}").write_bytes(content[: len(content) // 2])
    (clips / f"{names[6]}.wav").write_text("no sound\n" * 99)
    write(names[7], ".flac", 1)
    words = [clips, tmp_path / "out", "--format", "json", "--input_csv", lists["400_val"]]
    lists_of(*words, "--min_seconds", 2, "--hash", code=1)
    rows = json.loads((tmp_path / "out" / "val.json").read_text())
    assert [row["path"] for row in rows] == [n + s for n, s in zip(names, suffixes, strict=False)]
    assert all(abs(row["seconds"] - 3) < 0.07 and len(row["sha256"]) == 64 for row in rows), rows
    assert reasons(tmp_path / "out") == {"unreadable": 4, "short": 1, "missing": 12}


@pytest.mark.parametrize("option", ["--compare", "--only_manifest", "--exclude", "--annotations"])
@pytest.mark.parametrize("odd", ["fifo", "huge number", "huge field", "loop"])
def test_files_that_are_not_what_they_say(
    option: str, odd: str, tmp_path: Path, lists: Lists, clips: Path
) -> None:
    path = tmp_path / "odd.csv"
    if odd == "fifo":
        os.mkfifo(path)
    elif odd == "loop":
        path.symlink_to(path)
    else:
        long = "9" * 6000 if odd == "huge number" else "x" * 200_000
        head = "clip,split,label,bytes,seconds,sha256\n"
        path.write_text(f"{head}aaaaaaaaaaa_000000_000010,val,a,{long},1,\n")
    form = "ava" if option == "--annotations" else "csv"
    words = [clips, tmp_path / "out", "--format", form, "--input_csv", lists["400_val"]]
    code = 0 if option == "--exclude" and odd.startswith("huge") else 2
    assert str(path) in lists_of(*words, option, path, code=code)


def test_several_labels_reach_the_formats_that_take_them(tmp_path: Path) -> None:
    listing = tmp_path / "audioset_train.csv"
    listing.write_text(
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        'aaaaaaaaaaa, 0.000, 10.000, "/m/b,/m/a"\nbbbbbbbbbbb, 0.000, 10.000, "/m/b"\n'
    )
    clips = make_clips(tmp_path / "clips", [f"{c * 11}_000000_000010" for c in "ab"])
    words = [clips, "--input_csv", listing, "--format"]
    lists_of(*words, "json", tmp_path / "json")
    rows = json.loads((tmp_path / "json" / "train.json").read_text())
    assert [(row["label"], row["number"]) for row in rows] == [("/m/b,/m/a", [1, 0]), ("/m/b", 1)]
    lists_of(*words, "csv", tmp_path / "csv")
    lists_of(*words, "huggingface", tmp_path / "hf")
    for path in (tmp_path / "csv" / "train.csv", tmp_path / "hf" / "train" / "metadata.csv"):
        found = [(row["label"], row["number"]) for row in table(path)]
        assert found == [("/m/b,/m/a", "1,0"), ("/m/b", "1")]
    lists_of(*words, "webdataset", tmp_path / "wds")
    members = members_of(tmp_path / "wds" / "train-000000.tar")
    assert sum(name.endswith(".cls") for name in members) == 1
    said = lists_of(*words, "slowfast", tmp_path / "sf", "--label", "/m/b")
    assert "excluded     1 several_labels" in said
    assert reasons(tmp_path / "sf") == {"several_labels": 1}
    # The text and the numbers are of one list: the newest.
    first = write_list(tmp_path / "first.csv", ["dog,aaaaaaaaaaa,0,10,val"], LABELLED[:-6])
    lists_of(*words, "json", tmp_path / "both", "--input_csv", first, listing)
    (row,) = json.loads((tmp_path / "both" / "val.json").read_text())
    assert (row["label"], row["number"]) == ("/m/b,/m/a", [1, 0])
