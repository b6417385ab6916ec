"""ClipDataset, load_audio and the transforms: from lists to a training loop."""

from __future__ import annotations

import copy
import io
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipreader.transforms import CentreCrop, Compose, Flip, Normalise, RandomResizedCrop, resize
from load_frames import (
    ClipDataset,
    ClipError,
    ClipReader,
    CorruptClip,
    FrameIndexError,
    NoAudio,
    NoVideo,
    load_audio,
    load_frames,
)
from tests.standin.sources import ffmpeg_path

ROOT = Path(__file__).parent.parent
NAMES = ("aaaaaaaaaaa_000005_000015", "bbbbbbbbbbb_000000_000010", "ccccccccccc_000000_000010")


@pytest.fixture
def plain(clip: Callable[[str], Path]) -> Path:
    return clip("b_frames.mp4")  # 100 frames, 25 a second, with sound


@pytest.fixture
def shelf(plain: Path, tmp_path: Path) -> Path:
    """A folder with two clips of a list of three."""
    (tmp_path / "list.csv").write_text(
        "label,youtube_id,time_start,time_end,split\n"
        "zumba,aaaaaaaaaaa,5,15,val\n"
        "archery,bbbbbbbbbbb,0,10,val\n"
        "yoga,ccccccccccc,0,10,train\n"
    )
    (tmp_path / "clips").mkdir()
    for name in NAMES[:2]:
        os.link(plain, tmp_path / "clips" / f"{name}.mp4")
    return tmp_path


# --- lists and labels ---


def test_a_dataset_of_a_list_numbers_every_label_that_the_list_names(
    shelf: Path, plain: Path
) -> None:
    reference = load_frames(plain)
    data = ClipDataset(shelf / "list.csv", 8, 4, folder=shelf / "clips", layout="THWC", seed=3)
    assert (len(data), data.labels, data.missing) == (2, ["archery", "yoga", "zumba"], 1)
    frames, label = data[0]
    assert (frames.shape, label, data[1][1]) == ((8, 72, 128, 3), 2, 0)
    first = next(at for at in range(100) if np.array_equal(reference[at], frames[0]))
    assert np.array_equal(frames, reference[first : first + 32 : 4])
    with pytest.raises(IndexError):
        data[2]
    val = ClipDataset(shelf / "list.csv", folder=shelf / "clips", split="val", classes=data.labels)
    assert (val.missing, val.labels) == (0, data.labels)
    with pytest.raises(ValueError, match="no clip of split 'test'"):
        ClipDataset(shelf / "list.csv", folder=shelf / "clips", split="test")
    with pytest.raises(ValueError, match="label 'yoga' is not one of the classes"):
        ClipDataset(shelf / "list.csv", folder=shelf / "clips", classes=["archery", "zumba"])
    with pytest.raises(TypeError, match="folder=DIR"):
        ClipDataset(shelf / "list.csv", shelf / "clips")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give folder="):
        ClipDataset(shelf / "list.csv")


@pytest.mark.parametrize("form", ["slowfast", "videomae", "csv", "json", "jepa", "mmaction2"])
def test_the_lists_that_make_training_lists_writes(shelf: Path, form: str) -> None:
    command = [sys.executable, ROOT / "make_training_lists.py", "clips", "lists", "--format", form]
    command += ["--input_csv", "list.csv", "--columns", "label=label"]
    done = subprocess.run(
        [*map(str, command)], cwd=shelf, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr  # a clip is missing
    numbers = json.loads((shelf / "lists" / "classes.json").read_text())
    assert numbers == {"archery": 0, "yoga": 1, "zumba": 2}
    if form in ("slowfast", "csv"):
        data = ClipDataset(shelf / "lists", 2, 1, folder=shelf / "clips", split="val")
        with pytest.raises(ValueError, match="give split=, one of val"):
            ClipDataset(shelf / "lists", folder=shelf / "clips")
    else:
        (path,) = [*(shelf / "lists").glob("*val*.csv"), *(shelf / "lists").glob("*val*.txt")] or [
            shelf / "lists" / "val.json"
        ]
        data = ClipDataset(path, 2, 1, folder=shelf / "clips")
    assert data.labels == ["archery", "yoga", "zumba"]
    assert {sample.name: sample.label for sample in data.samples} == {NAMES[0]: 2, NAMES[1]: 0}
    manifest = ClipDataset(shelf / "lists" / "manifest.csv", folder=shelf / "clips", split="val")
    assert sorted(manifest.samples, key=str) == sorted(data.samples, key=str)


def test_other_forms_of_lists_and_classes(shelf: Path) -> None:
    segments = {"segment": [5.0, 15.0], "label": "zumba"}
    (shelf / "k.json").write_text(
        json.dumps({"aaaaaaaaaaa": {"annotations": segments, "subset": "validate"}})
    )
    (shelf / "k.tsv").write_text("YTID\tstart-time\tend-time\naaaaaaaaaaa\t5.0\t15.0\n")
    (shelf / "classes.txt").write_text("zumba\nyoga\n")
    for name, label in (("k.json", 0), ("k.tsv", -1)):
        options: dict[str, Any] = {"folder": shelf / "clips", "classes": shelf / "classes.txt"}
        data = ClipDataset(shelf / name, 2, 1, **options)
        assert [(each.name, each.label) for each in data.samples] == [(NAMES[0], label)]
    assert not ClipDataset(shelf / "k.tsv", folder=shelf / "clips", unlabelled=False).samples
    for text in ("", "a b c\n", "[" * 5000, '{"x": 3}', "youtube_id,time_start\n,5\n"):
        (shelf / "bad.csv").write_text(text)
        if text:
            with pytest.raises((ValueError, KeyError), match="bad.csv"):
                ClipDataset(shelf / "bad.csv", folder=shelf / "clips")
    (shelf / "bad.csv").write_text("# a note\n\nyoutube_id,start\n\n,5\n")
    with pytest.raises(ValueError, match=r"bad.csv: line 5: no youtube_id"):
        ClipDataset(shelf / "bad.csv", folder=shelf / "clips")
    for classes in ({"a": 1}, ["a", "a"]):
        with pytest.raises(ValueError):
            ClipDataset(shelf / "k.tsv", folder=shelf / "clips", classes=classes)


def test_a_folder_a_tree_with_splits_and_hidden_files(
    clip: Callable[[str], Path], tmp_path: Path
) -> None:
    for label in ("yoga", "archery"):
        (tmp_path / "val" / label).mkdir(parents=True)
    os.link(clip("one_frame.mp4"), tmp_path / "val" / "yoga" / "a.mp4")
    os.link(clip("tuned.mp4"), tmp_path / "val" / "archery" / "b.mp4")
    (tmp_path / "val" / "archery" / "._b.mp4").write_bytes(b"of a Mac")
    data = ClipDataset(tmp_path, 4, 2, split="val", transform=lambda frames: frames.mean())
    assert [Path(sample.path).name for sample in data.samples] == ["b.mp4", "a.mp4"]
    assert data.labels == ["archery", "yoga"]
    assert isinstance(data[0][0], float)
    with pytest.raises(ValueError, match="give split="):
        ClipDataset(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no clips"):
        ClipDataset(tmp_path / "empty")
    short, unlabelled = ClipDataset(tmp_path / "val" / "yoga", 4, 2)[0]
    assert (short.shape, unlabelled) == ((4, 3, 72, 128), -1)
    assert (short == short[0]).all()


# --- which frames ---


def chosen(shelf: Path, frames: int = 4, stride: int = 2, at: int = 0, **options: Any) -> Any:
    data = ClipDataset(shelf / "clips", frames, stride, with_info=True, **options)
    data.set_epoch(options.pop("epoch", 0))
    array, _, info = data[at]
    whole = load_frames(info["path"])
    expected = whole[info["frames"]]
    if not options.get("crops"):
        assert np.array_equal(array, np.moveaxis(expected, -1, -3))
    return info["frames"].tolist()


def test_chunks_depend_on_seed_epoch_and_clip_only(shelf: Path) -> None:
    def both(epoch: int = 0, **options: Any) -> list[bytes]:
        data = ClipDataset(shelf / "clips", 2, 1, **options)
        data.set_epoch(epoch)
        return [data[n][0].tobytes() for n in (1, 0)]

    assert both() == both()
    assert both(seed=1) != both()
    assert both(epoch=1) != both()
    assert len(set(both(chunk="middle"))) == 1
    assert both(training=False) == both(chunk="middle")


def test_segments_and_views(shelf: Path) -> None:
    assert chosen(shelf, 5, 1, chunk="segments", training=False) == [9, 29, 49, 69, 89]
    drawn = chosen(shelf, 5, 2, chunk="segments", segment_frames=3)
    assert [n // 20 for n in drawn] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert np.diff(drawn).tolist()[:2] == [2, 2]
    assert drawn != chosen(shelf, 5, 2, at=1, chunk="segments", segment_frames=3)
    views = chosen(shelf, 4, 2, chunk="views", views=3)
    assert views == [[0, 2, 4, 6], [46, 48, 50, 52], [93, 95, 97, 99]]
    assert chosen(shelf, 4, 2, chunk="views", views=1) == [[46, 48, 50, 52]]
    data = ClipDataset(shelf / "clips", 4, 2, chunk="views", views=2, crops=3, layout="THWC")
    whole = load_frames(data.samples[0].path)
    assert data[0][0].shape == (6, 4, 72, 72, 3)
    assert np.array_equal(data[0][0][1], whole[0:8:2, :, 28:100])
    assert np.array_equal(data[0][0][5], whole[93::2, :, 56:])


def test_numbers_of_numpy_and_of_torch(shelf: Path) -> None:
    data = ClipDataset(shelf / "clips", 2, 1)
    assert np.array_equal(data[np.int64(1)][0], data[1][0])
    torch = pytest.importorskip("torch")
    subset = torch.utils.data.Subset(data, torch.randperm(2))
    assert len([subset[n] for n in range(2)]) == 2
    assert np.array_equal(data[torch.tensor(1)][0], data[1][0])


# --- clips that cannot be loaded ---


def test_another_clip_in_the_place_of_a_broken_one(shelf: Path) -> None:
    (shelf / "clips" / f"{NAMES[2]}.mp4").write_bytes(b"broken")
    with pytest.raises(CorruptClip):
        ClipDataset(shelf / "clips", 2, 1)[2]
    data = ClipDataset(shelf / "clips", 2, 1, on_error="next", with_info=True)
    first = data[2]
    assert first[2]["name"] in NAMES[:2] and data.skipped >= 1
    assert np.array_equal(data[2][0], first[0])
    pickled = pickle.loads(pickle.dumps(data))
    before = data.skipped
    assert np.array_equal(pickled[2][0], first[0]) and data.skipped > before
    for name in NAMES[:2]:
        (shelf / "clips" / f"{name}.mp4").unlink()
    with pytest.raises(ClipError):
        data[2]


def test_errors_are_built_again_of_their_text() -> None:
    """As torch does it with those of worker processes."""
    for error in (
        CorruptClip(Path("/a/b c.mp4"), 3, "damaged data"),
        NoVideo(Path("/a/b.mp4"), "has no video"),
        FrameIndexError(Path("/a/b.mp4"), 7, 5),
    ):
        text = f"Caught {type(error).__name__} in worker 0.\nOriginal Traceback:\n  raise x\n"
        again: Any = type(error)(text + f"clipreader.media.{type(error).__name__}: {error}\n")
        assert str(again) == str(error)
        assert {**vars(again)} == {**vars(error)}
    assert str(CorruptClip("what nobody wrote").problem) == "what nobody wrote"


# --- other processes ---


def epochs(data: ClipDataset, asked: Any, answers: Any) -> None:
    while (at := asked.get()) is not None:
        answers.put(data[at][0].tobytes())


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_an_epoch_reaches_processes_that_are_running(shelf: Path, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    data = ClipDataset(shelf / "clips", 2, 1)
    asked, answers = context.Queue(), context.Queue()
    child = context.Process(target=epochs, args=(data, asked, answers))
    child.start()
    for epoch in range(3):
        data.set_epoch(epoch)
        asked.put(0)
        assert answers.get(timeout=60) == data[0][0].tobytes()
    asked.put(None)
    child.join(30)
    path = Path(data._shared)
    assert path.exists() and data.epoch == 2
    del data
    assert not path.exists()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_copy_in_a_child_process_leaves_the_file_of_the_epoch(shelf: Path) -> None:
    held = [ClipDataset(shelf / "clips", 2, 1)]
    child = multiprocessing.get_context("fork").Process(target=held.clear)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    held[0].set_epoch(1)
    assert Path(held[0]._shared).exists() and held[0].epoch == 1


def test_a_copy_has_an_epoch_of_its_own(shelf: Path) -> None:
    data = ClipDataset(shelf / "clips", 2, 1)
    data.set_epoch(3)
    other = copy.copy(data)
    other.samples = other.samples[:1]
    other.set_epoch(5)
    assert (data.epoch, other.epoch, len(data), len(other)) == (3, 5, 2, 1)
    del data
    other.set_epoch(6)
    assert other.epoch == 6 and Path(other._shared).exists()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_torchs_dataloader(shelf: Path, method: str) -> None:
    torch = pytest.importorskip("torch")
    (shelf / "clips" / f"{NAMES[2]}.mp4").write_bytes(b"broken")
    options: dict[str, Any] = {"folder": shelf / "clips", "as_torch": True}
    data = ClipDataset(shelf / "list.csv", 8, 2, split="val", **options)
    loader = torch.utils.data.DataLoader(
        *(data, 2),
        num_workers=2,
        multiprocessing_context=method,
        persistent_workers=True,
    )
    seen = []
    for epoch in range(3):
        data.set_epoch(epoch)
        ((frames, labels),) = list(loader)
        assert frames.shape == (2, 8, 3, 72, 128) and frames.dtype == torch.uint8
        assert labels.tolist() == [1, 0]
        assert np.array_equal(frames[1].numpy(), data[1][0].numpy())
        seen.append(frames.numpy().tobytes())
    assert len(set(seen)) == 3
    broken = ClipDataset(shelf / "list.csv", 8, 2, split="train", **options)
    with pytest.raises(CorruptClip, match="corrupt at frame 0") as caught:
        list(torch.utils.data.DataLoader(broken, num_workers=1, multiprocessing_context=method))
    assert caught.value.path.name == f"{NAMES[2]}.mp4" and caught.value.frame == 0


# --- bytes, sound, transforms ---


def test_bytes_and_file_objects(plain: Path, clip: Callable[[str], Path]) -> None:
    for path in (plain, clip("late.mkv"), clip("mpeg4.avi")):
        expected = load_frames(path, 7, 20)
        assert np.array_equal(load_frames(path.read_bytes(), 7, 20), expected)
        assert np.array_equal(load_frames(io.BytesIO(path.read_bytes()), 7, 20), expected)
        with path.open("rb") as file, ClipReader(file) as reader:
            assert np.array_equal(pickle.loads(pickle.dumps(reader))[7:20], expected)
    with pytest.raises(NoVideo, match="<bytes>: is not a media file"):
        load_frames(b"ffconcat version 1.0\nfile a.mp4\n")
    with pytest.raises(CorruptClip, match="<bytes>"):
        load_frames(plain.read_bytes()[:3000])


def as_ffmpeg(path: Path, start: float, seconds: float, *options: str) -> Any:
    command = [ffmpeg_path(), "-v", "error", "-i", str(path), "-map", "0:a:0", "-ss", str(start)]
    command += ["-t", str(seconds), *options, "-f", "f32le", "-"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    return np.frombuffer(done.stdout, np.float32)


def test_sound_is_that_of_ffmpeg(plain: Path, clip: Callable[[str], Path], tmp_path: Path) -> None:
    stereo = tmp_path / "stereo.mkv"
    noise = "anoisesrc=d=3:c=pink:a=0.5:r=48000:seed=4"
    command = [
        ffmpeg_path(),
        "-v",
        "error",
        "-i",
        str(plain),
        "-f",
        "lavfi",
        "-i",
        noise,
        "-t",
        "3",
    ]
    command += ["-f", "lavfi", "-i", noise.replace("=4", "=5"), "-map", "0:v", "-filter_complex"]
    command += ["[1:a][2:a]amerge", "-c:v", "copy", "-c:a", "flac", str(stereo)]
    subprocess.run(command, check=True, timeout=60)
    assert np.array_equal(load_audio(plain, 1.0, 2.5)[0], as_ffmpeg(plain, 1.0, 1.5))
    assert np.array_equal(load_audio(plain, 0.123)[0], as_ffmpeg(plain, 0.123, 99))
    late = clip("late.mp4")  # its picture begins 0.513 s after its sound
    with ClipReader(late) as reader:
        first = reader.first_time
        assert 0.5 < first < 0.53
        expected = as_ffmpeg(late, round(first + 1, 6), 1)
        assert np.array_equal(load_audio(reader, 1, 2)[0], expected)
    both = load_audio(stereo, 0.5, 1.5)
    assert both.shape == (2, 48000) and both.dtype == np.float32
    assert np.array_equal(both.T.ravel(), as_ffmpeg(stereo, 0.5, 1))
    mono = load_audio(stereo, 0.5, 1.5, sample_rate=16000, mono=True)
    expected = as_ffmpeg(stereo, 0.5, 1, "-ar", "16000", "-ac", "1")
    assert mono.shape == (1, 16000) and np.abs(mono[0] - expected).max() < 1e-3
    assert load_audio(plain, 3.5, 60).shape[1] < 0.6 * 44100
    assert load_audio(plain, 60).shape == (1, 0)
    alone = tmp_path / "sound.wav"
    alone.write_bytes(
        subprocess.run(
            [ffmpeg_path(), "-v", "error", "-i", str(plain), "-f", "wav", "-"],
            check=True,
            capture_output=True,
        ).stdout
    )
    assert load_audio(alone, 1, 2).shape == (1, 44100)
    with pytest.raises(NoAudio, match="has no audio"):
        load_audio(clip("tuned.mp4"))
    for start, stop in ((-1, None), (2, 1), (float("nan"), None)):
        with pytest.raises(ValueError):
            load_audio(plain, start, stop)


def test_a_dataset_with_sound(shelf: Path, clip: Callable[[str], Path]) -> None:
    os.link(clip("tuned.mp4"), shelf / "clips" / f"{NAMES[2]}.mp4")
    data = ClipDataset(shelf / "clips", 10, 2, audio=8000, with_info=True, chunk="middle")
    frames, sound, label, info = data[0]
    assert (frames.shape[0], sound.shape, label) == (10, (1, 6400), -1)
    start = info["frames"][0] / 25
    expected = load_audio(info["path"], start, start + 0.8, sample_rate=8000, mono=True)
    assert np.array_equal(sound, expected) and sound.any()
    assert not data[2][1].any() and data[2][1].shape == (1, 6400)


def test_transforms_are_repeatable_and_do_what_they_say(shelf: Path) -> None:
    steps = Compose(RandomResizedCrop(48), Flip(), Normalise(layout="CTHW"))
    data = ClipDataset(shelf / "clips", 4, 2, transform=steps)
    assert data[0][0].shape == (3, 4, 48, 48) and data[0][0].dtype == np.float32
    assert np.array_equal(data[0][0], pickle.loads(pickle.dumps(data))[0][0])
    before = data[0][0]
    data.set_epoch(1)
    assert not np.array_equal(before, data[0][0])

    frames, rng = load_frames(data.samples[0].path, 0, 2), np.random.default_rng(0)
    assert np.array_equal(CentreCrop(64)(frames), frames[:, 4:68, 32:96])
    assert CentreCrop(100)(frames).shape == (2, 100, 100, 3)
    assert np.array_equal(Flip(1)(frames, rng), frames[:, :, ::-1])
    assert np.array_equal(Flip(0)(frames, rng), frames)
    gray = Normalise((0.5,) * 3, (0.5,) * 3, "TCHW")(np.full_like(frames, 255))
    assert gray.shape == (2, 3, 72, 128) and np.allclose(gray, 1)
    slope = np.broadcast_to(np.arange(128, dtype=np.uint8)[:, None] * 2, (1, 72, 128, 3))
    small = resize(slope, 36, 64)
    assert resize(slope[:0], 36, 64).shape == (0, 36, 64, 3)
    assert np.abs(small[0, 10, :, 0].astype(int) - (np.arange(64) * 4 + 1)).max() <= 2
    thin = RandomResizedCrop(8, scale=(0.9, 1))(frames[:, :4], rng)
    assert thin.shape == (2, 8, 8, 3)


# --- beside other projects ---


def test_it_is_imported_beside_a_project_with_its_own_utils(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "utils.py").write_text("ours = 1\n")
    (tmp_path / "train.py").write_text(
        "import sys, utils\nfrom load_frames import ClipDataset, load_frames\n"
        f"print(utils.ours, load_frames({str(plain)!r}, 0, 2).shape)\n"
        "print([m for m in sys.modules if m.startswith('utils.')])\n"
    )
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "1 (2, 72, 128, 3)\n[]\n", done.stderr


def test_what_pip_installs_is_the_loader_alone() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"] == {
        "py-modules": ["load_frames"],
        "packages": ["clipreader"],
        "dynamic": {
            "version": {"attr": "clipreader.VERSION"},
            "dependencies": {"file": ["requirements-loader.txt"]},
        },
    }
    lines = (ROOT / "requirements-loader.txt").read_text().splitlines()
    names = [re.split("[>=<]", line)[0] for line in lines if line and line[0] not in "# "]
    assert names == ["av", "numpy"]


def test_the_examples_of_the_docs(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "loading.md"
    section = "<!-- load examples -->(.*?)<!-- end of load examples -->"
    parts = re.findall(section, page.read_text(encoding="utf-8"), re.DOTALL)
    examples = re.findall(r"```python\n(.*?)```", "".join(parts), re.DOTALL)
    assert len(examples) >= 5
    os.link(shelf / "clips" / f"{NAMES[0]}.mp4", shelf / "clip.mp4")
    monkeypatch.chdir(shelf)
    for example in examples:
        if "torch" in example:
            for name in re.findall(r"^import (\w+)|^from (\w+)", example, re.MULTILINE):
                pytest.importorskip(name[0] or name[1])
        exec(compile(example, str(page), "exec"), {})


@pytest.mark.slow
@pytest.mark.timeout(600)  # torch is imported by ten processes
def test_the_training_loop_resumes_within_an_epoch_and_runs_on_two_ranks(
    shelf: Path, clip: Callable[[str], Path]
) -> None:
    torch = pytest.importorskip("torch")
    clips = shelf / "clips"
    rows = ["label,youtube_id,time_start,time_end,split"]
    for number in range(12):
        split, label = ("val" if number % 3 == 0 else "train"), ("yoga", "zumba")[number % 2]
        rows.append(f"{label},clip_{number:06d},0,10,{split}")
        os.link(clip("tuned.mp4"), clips / f"clip_{number:06d}_000000_000010.mp4")
    (shelf / "list.csv").write_text("\n".join(rows))
    lists = [sys.executable, ROOT / "make_training_lists.py", "clips", "lists", "--format", "csv"]
    options = ["lists", "clips", "--model", "tiny", "--epochs", "2", "--batch", "1"]
    options += ["--frames", "4", "--size", "32"]
    train = [sys.executable, ROOT / "examples" / "train.py", *options]
    ranks = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    saves = ["--workers", "0", "--save", "again.pt"]
    for command in (
        [*lists, "--input_csv", "list.csv"],
        [*train, "--workers", "0", "--save", "once.pt"],
        [*train, *saves, "--stop_after", "11"],
        [*train, *saves],
        [*ranks, "--standalone", *train[1:], "--workers", "1", "--save", "ranks.pt"],
    ):
        words = [*map(str, command)]
        done = subprocess.run(words, cwd=shelf, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
    assert re.search(r"^epoch 2 step 8 loss [\d.]+ top-1 [\d.]+%$", done.stdout, re.MULTILINE)
    once, again = (torch.load(shelf / name)["model"] for name in ("once.pt", "again.pt"))
    assert all(torch.equal(once[key], again[key]) for key in once)
