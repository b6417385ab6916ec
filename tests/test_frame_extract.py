"""frame_extract.py as a user runs it: which frame each picture is, colours, faults, stops."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import simplejpeg
from PIL import Image

from tests import scripts
from tests.conftest import MakeSource
from tests.scripts import link_clips
from tests.standin.sources import ffmpeg_path, read_frame_number
from utils.video.jpeg import with_margin

SCRIPT = Path(__file__).parent.parent / "frame_extract.py"
VARIABLE = [0, 0.04, 0.1, 0.3, 0.32, 0.36, 0.5, 0.9, 1.0, 1.2, 1.5]
SOURCES: dict[str, dict[str, Any]] = {
    "r25": {"seconds": 3, "fps": 25},
    "r30": {"seconds": 3, "fps": 30},
    "ntsc": {"seconds": 2, "fps": "30000/1001"},
    "r60": {"seconds": 2, "fps": 60},
    "variable": {"pts": VARIABLE},
    "late": {"seconds": 2, "fps": 25, "start": 0.5},
}


def run(*arguments: object) -> scripts.Done:
    """One worker unless told otherwise: most of a short run is starting them."""
    folder = Path(tempfile.gettempdir())
    return scripts.run("frame_extract.py", "--n", 1, *arguments, cwd=folder)


def rows(out: Path) -> dict[str, dict[str, str]]:
    return scripts.report_rows(out / "frames_report.csv")


def picture(path: Path | io.BytesIO) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def numbers(folder: Path) -> list[int | None]:
    """The frame numbers that the pictures carry; the files are 000001.jpg and on."""
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"{n:06d}.jpg" for n in range(1, len(files) + 1)]
    return [read_frame_number(picture(file)) for file in files]


def by_ffmpeg(clip: Path, folder: Path, fps: str) -> list[int | None]:
    folder.mkdir(parents=True)
    way = ["-fps_mode", "passthrough"]  # or its image writer doubles a first frame that is late
    way += [] if fps == "0" else ["-vf", f"fps={fps}"]
    argv = [ffmpeg_path(), "-v", "error", "-nostdin", "-i", str(clip), *way, "-q:v", "2"]
    subprocess.run([*argv, "%06d.jpg"], cwd=folder, check=True)
    return numbers(folder)


@pytest.mark.parametrize(
    "fps",
    ["30", "0", *(pytest.param(n, marks=pytest.mark.slow) for n in ("25", "12.5", "30000/1001"))],
)
def test_every_picture_is_the_frame_that_ffmpeg_shows(
    tmp_path: Path, source: MakeSource, fps: str
) -> None:
    made = {name: source(size=(160, 90), **how) for name, how in SOURCES.items()}
    done = run(link_clips(tmp_path / "in", **made), tmp_path / "out", "--fps", fps)
    assert done.code == 0, done.err
    for name, clip in made.items():
        found = numbers(tmp_path / "out" / name)
        assert found == by_ffmpeg(clip, tmp_path / "ffmpeg" / name, fps), name
        row = rows(tmp_path / "out")[name]
        assert (row["status"], int(row["frames"])) == ("written", len(found))
        if fps == "0":
            assert found == list(range(len(found)))


Sizes = dict[str, tuple[dict[str, Any], tuple[int, int]]]  # how a clip is made, what is shown
AS_SHOWN: Sizes = {
    "plain": ({"size": (320, 180)}, (320, 180)),
    "odd": ({"size": (341, 255)}, (341, 255)),
    "wide_pixels": ({"size": (352, 288), "sar": "16/11"}, (512, 288)),
}
SMALLER: Sizes = {
    "landscape": ({"size": (320, 180)}, (160, 90)),
    "portrait": ({"size": (180, 320)}, (90, 160)),
    "rotated": ({"size": (320, 180), "rotation": 90}, (90, 160)),
    "small": ({"size": (120, 68)}, (120, 68)),
}
LARGER: Sizes = {"small": ({"size": (160, 90)}, (320, 180))}


@pytest.mark.parametrize(
    ("clips", "options"),
    [
        (AS_SHOWN, []),
        (SMALLER, ["--short_side", "90"]),
        (LARGER, ["--short_side", "180", "--upscale"]),
    ],
    ids=["as shown", "smaller", "larger"],
)
def test_size_is_that_which_a_player_shows(
    tmp_path: Path, source: MakeSource, clips: Sizes, options: list[str]
) -> None:
    made = {name: source(seconds=0.4, fps=25, **how) for name, (how, _) in clips.items()}
    done = run(link_clips(tmp_path / "in", **made), tmp_path / "out", "--fps", "0", *options)
    assert done.code == 0, done.err
    for name, (_, size) in clips.items():
        assert Image.open(tmp_path / f"out/{name}/000003.jpg").size == size
        assert numbers(tmp_path / "out" / name) == list(range(10))
        row = rows(tmp_path / "out")[name]
        assert (int(row["width"]), int(row["height"])) == size


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 60, 30)]
KINDS = {
    "bt601": ("smpte170m", "yuv420p", "tv", "bt601"),
    "bt709": ("bt709", "yuv420p", "tv", "bt709"),
    "bt709_full": ("bt709", "yuv420p", "pc", "bt709"),
    "bt601_full": ("smpte170m", "yuvj420p", "pc", "bt601"),
    "bt709_10bit": ("bt709", "yuv420p10le", "tv", "bt709"),
    "bt709_444": ("bt709", "yuv444p", "tv", "bt709"),
    "bt2020": ("bt2020nc", "yuv420p10le", "tv", "bt2020"),
}


@pytest.mark.parametrize("options", [[], ["--short_side", "40"]])
def test_a_red_patch_stays_that_red(tmp_path: Path, options: list[str]) -> None:
    """Patches of known RGB through every matrix, range and depth, as they are and scaled."""
    chart = np.repeat(np.array(COLOURS, np.uint8)[None], 64, axis=0).repeat(64, axis=1)
    Image.fromarray(chart).save(tmp_path / "chart.png")
    (tmp_path / "in").mkdir()
    for name, (space, pixels, span, matrix) in KINDS.items():
        scale = f"scale=out_color_matrix={matrix}:out_range={span},format={pixels}"
        argv = [ffmpeg_path(), "-v", "error", "-loop", "1", "-i", str(tmp_path / "chart.png")]
        argv += ["-t", "0.2", "-vf", scale, "-c:v", "libx264", "-crf", "4", "-colorspace", space]
        subprocess.run([*argv, "-color_range", span, str(tmp_path / f"in/{name}.mp4")], check=True)
    done = run(tmp_path / "in", tmp_path / "out", "--fps", "0", *options)
    assert done.code == 0, done.err
    for name in KINDS:
        shown = picture(tmp_path / f"out/{name}/000002.jpg").astype(int)
        step = shown.shape[1] / len(COLOURS)
        middles = [shown[shown.shape[0] // 2, int((n + 0.5) * step)] for n in range(len(COLOURS))]
        assert np.abs(np.array(middles) - COLOURS).max() <= 4, name


def damaged(clip: Path, folder: Path) -> None:
    """A clip that breaks off, one with noise in its middle, one that is noise, an empty one."""
    data = clip.read_bytes()
    half, noise = len(data) // 2, np.random.default_rng(3).bytes(3000)
    (folder / "broken_off.mp4").write_bytes(data[:half])
    (folder / "bad_middle.mp4").write_bytes(data[:half] + noise + data[half + 3000 :])
    (folder / "noise.mp4").write_bytes(noise)
    (folder / "empty.mp4").write_bytes(b"")
    mkv = folder / "whole.mkv"
    subprocess.run([ffmpeg_path(), "-v", "error", "-i", clip, "-c", "copy", mkv], check=True)
    (folder / "broken_off_mkv.mkv").write_bytes(mkv.read_bytes()[:half])


def test_bad_clips_cost_themselves_and_no_other(tmp_path: Path, source: MakeSource) -> None:
    good = source(seconds=0.4, fps=25, size=(64, 64))
    folder = link_clips(tmp_path / "in", **{f"good{n:02d}": good for n in range(95)})
    damaged(source(seconds=3, fps=25, size=(320, 180)), folder)
    done = run(folder, tmp_path / "out", "--fps", "0", "--n", 2)
    assert done.code == 1
    report = rows(tmp_path / "out")
    failed = {clip: row["reason"] for clip, row in report.items() if row["status"] == "failed"}
    assert failed == {
        "broken_off": "truncated",
        "broken_off_mkv": "truncated",
        "bad_middle": "undecodable",
        "noise": "undecodable",
        "empty": "undecodable",
    }
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {f"good{n:02d}" for n in range(95)} | {"whole"}
    assert all(len(list((tmp_path / "out" / name).iterdir())) >= 10 for name in folders)


def test_fragments_with_longer_sound_are_no_truncated_clip(tmp_path: Path) -> None:
    """Opened without the search, such a file gives the sound's length for the picture's."""
    clip = tmp_path / "in" / "fragments.mp4"
    clip.parent.mkdir()
    inputs = ["-f", "lavfi", "-i", "testsrc2=s=96x64:d=1:r=25", "-f", "lavfi", "-i", "sine=d=2"]
    outputs = ["-c:v", "libx264", "-bf", "0", "-movflags", "frag_keyframe+empty_moov", str(clip)]
    subprocess.run([ffmpeg_path(), "-v", "error", "-nostdin", *inputs, *outputs], check=True)
    assert run(clip.parent, tmp_path / "out", "--fps", "0").code == 0
    assert rows(tmp_path / "out")["fragments"]["frames"] == "25"


def test_a_rerun_makes_what_is_missing_and_nothing_else(tmp_path: Path, source: MakeSource) -> None:
    clip = source(seconds=1, fps=25, size=(64, 64))
    folder, out = link_clips(tmp_path / "in/label", a=clip, b=clip), tmp_path / "out"
    link_clips(tmp_path / "in", c=clip)
    assert run(tmp_path / "in", out).code == 0
    before = (out / "label/a/000001.jpg").stat()
    (folder / "d.mp4").symlink_to(clip)
    done = run(tmp_path / "in", out)
    assert done.code == 0
    assert "1 written" in done.err
    assert {path.name for path in (out / "label").iterdir()} == {"a", "b", "d"}
    assert (out / "label/a/000001.jpg").stat().st_ino == before.st_ino
    assert run(tmp_path / "in", out, "--overwrite").code == 0
    assert (out / "label/a/000001.jpg").stat().st_ino != before.st_ino
    assert len(list((out / "label/a").iterdir())) == 30
    (out / "label/e").mkdir()
    (out / "label/e/._000001.jpg").touch()  # macOS leaves such; the clip is not done
    (folder / "e.mp4").symlink_to(clip)
    assert run(tmp_path / "in", out).code == 1


def test_nothing_but_frames_is_replaced(tmp_path: Path, source: MakeSource) -> None:
    clip, out = source(seconds=1, fps=25, size=(64, 64)), tmp_path / "out"
    folder = link_clips(tmp_path / "in", a=clip, b=clip, c=clip)
    (out / "a").mkdir(parents=True)
    for mine in (out / "a" / "notes.txt", out / "b"):
        mine.touch()
    done = run(folder, out, "--overwrite")
    assert done.code == 1 and "1 written, 2 failed" in done.err
    assert [path.name for path in (out / "a").iterdir()] == ["notes.txt"]
    assert (out / "b").is_file() and (out / "c/000001.jpg").exists()


def test_other_settings_are_refused(tmp_path: Path, source: MakeSource) -> None:
    folder = link_clips(tmp_path / "in", a=source(seconds=1, fps=25, size=(64, 64)))
    assert run(folder, tmp_path / "out").code == 0
    (folder / "b.mp4").symlink_to(folder / "a.mp4")
    for options in (["--fps", "25"], ["--short_side", "32"], ["--archive"]):
        done = scripts.run_here("frame_extract.py", "in", "out", *options, cwd=tmp_path)
        assert done.code == 2
        (line,) = done.err.splitlines()
        assert line.startswith("error: ")
        assert "use the same options, or another output folder" in line
        assert not (tmp_path / "out/b").exists()
    (tmp_path / "out/.frames_settings.json").unlink()
    assert scripts.run_here("frame_extract.py", "in", "out", cwd=tmp_path).code == 2


def test_archives_hold_the_same_bytes(tmp_path: Path, source: MakeSource) -> None:
    folder = link_clips(tmp_path / "in", **{"-a b%d": source(seconds=1, fps=25, size=(64, 64))})
    assert run(folder, tmp_path / "files").code == 0
    assert run(folder, tmp_path / "tars", "--archive").code == 0
    with tarfile.open(tmp_path / "tars/-a b%d.tar", "r:") as tar:
        inside = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore
    files = sorted((tmp_path / "files/-a b%d").iterdir())
    assert inside == {file.name: file.read_bytes() for file in files}
    assert "all 1 clip" in run(folder, tmp_path / "tars", "--archive").err


def test_only_the_clips_of_a_list(tmp_path: Path, source: MakeSource) -> None:
    clip = source(seconds=1, fps=25, size=(64, 64))
    names = ["aaaaaaaaaaa_000001_000002", "bbbbbbbbbbb_000001_000002"]
    folder = link_clips(tmp_path / "in", **dict.fromkeys(names, clip))
    head = "youtube_id,time_start,time_end\n"
    (tmp_path / "list.csv").write_text(head + "bbbbbbbbbbb,1,2\n", encoding="utf-8")
    done = run(folder, tmp_path / "out", "--only", tmp_path / "list.csv")
    assert done.code == 0, done.err
    assert [p.name for p in (tmp_path / "out").iterdir() if p.is_dir()] == [names[1]]
    with open(tmp_path / "list.csv", "a", encoding="utf-8") as file:
        file.write("ccccccccccc,1,2\n")
    done = run(folder, tmp_path / "out", "--only", tmp_path / "list.csv")
    assert done.code == 1
    assert "1 clip of the list not among them" in done.err


@pytest.mark.parametrize("form", [pytest.param("raw", marks=pytest.mark.slow), "per_clip"])
def test_key_frames_keep_their_true_numbers(tmp_path: Path, source: MakeSource, form: str) -> None:
    name = "aaaaaaaaaaa_000902"
    clip = source(seconds=6, fps=30, size=(64, 64))
    folder = link_clips(tmp_path / "in", **{name: clip, "bbbbbbbbbbb_000902": clip})
    text = "aaaaaaaaaaa,902.0,0.1,0.1,0.5,0.5,12\naaaaaaaaaaa,902.0,0.1,0.1,0.5,0.5,13\n"
    if form == "per_clip":
        head = "clip,youtube_id,timestamp,clip_time,frame,x1,y1,x2,y2,action_id,action\n"
        text = head + f"{name},aaaaaaaaaaa,902.0,3.0,91,0.1,0.1,0.5,0.5,12,stand\n"
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    for fps, pictures, shown in (
        ("30", [89, 90, 91, 92, 93], [88, 89, 90, 91, 92]),
        ("0", [89, 90, 91, 92, 93], [88, 89, 90, 91, 92]),
        # Frame 90 is dropped by ffmpeg's filter: the picture before it counts.
        ("10", [28, 29, 30, 31, 32], [82, 85, 88, 91, 94]),
    ):
        out = tmp_path / f"out{fps}"
        done = run(folder, out, "--key_frames", tmp_path / "a.csv", "--fps", fps)
        assert done.code == 0, done.err
        assert [p.name for p in out.iterdir() if p.is_dir()] == [name]
        files = sorted((out / name).iterdir())
        assert [file.name for file in files] == [f"{n:06d}.jpg" for n in pictures]
        assert [read_frame_number(picture(file)) for file in files] == shown


def many(tmp_path: Path, source: MakeSource) -> Path:
    clip = source(seconds=6, fps=30, size=(480, 270), complexity=0)
    return link_clips(tmp_path / "in", **{f"clip{n:02d}": clip for n in range(8)})


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    """The script, after its first clip."""
    argv = [sys.executable, str(SCRIPT), str(folder), str(out), "--n", "2"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not any(out.glob("clip*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def assert_gone(children: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


STOPS = [pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGKILL)]
STOPS = [*STOPS, pytest.param(signal.SIGTERM)]


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_leaves_whole_clips_and_a_rerun_finishes(
    tmp_path: Path, source: MakeSource, number: signal.Signals
) -> None:
    folder, out = many(tmp_path, source), tmp_path / "out"
    process = start(folder, out)
    children = psutil.Process(process.pid).children(recursive=True)
    began = time.monotonic()
    # As Ctrl-C in a terminal does: to the whole group, workers included.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 15
    assert_gone(children)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "Traceback" not in errors
        assert "stopped after" in errors
        assert not (out / ".tmp").exists()
    done = [path for path in out.glob("clip*") if path.is_dir()]
    assert 0 < len(done) < 8
    assert all(len(list(path.iterdir())) == 180 for path in done)
    assert run(folder, out).code == 0
    assert len(list(out.glob("clip*"))) == 8
    assert not (out / ".tmp").exists()


def test_a_clip_that_kills_its_worker_fails_alone(tmp_path: Path, source: MakeSource) -> None:
    """The test kills whichever worker has the chosen clip in hand, as a crashing decoder would."""
    clip = source(seconds=6, fps=30, size=(480, 270), complexity=0)
    folder, out = link_clips(tmp_path / "in", a=clip, c=clip), tmp_path / "out"
    shutil.copy(clip, folder / "b.mp4")  # no link, or it could not be told from the others
    argv = [sys.executable, str(SCRIPT), str(folder), str(out), "--n", "2"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    killed: set[int] = set()
    deadline = time.monotonic() + 60
    while len(killed) < 2 and process.poll() is None and time.monotonic() < deadline:
        for worker in psutil.Process(process.pid).children():
            try:
                if any(f.path.endswith("/in/b.mp4") for f in worker.open_files()):
                    worker.kill()
                    killed.add(worker.pid)
            except psutil.Error:
                pass
        time.sleep(0.02)
    _, errors = process.communicate(timeout=60)
    assert len(killed) == 2
    assert process.returncode == 1, errors
    report = rows(out)
    assert {clip: row["status"] for clip, row in report.items()} == {
        "a": "written",
        "b": "failed",
        "c": "written",
    }
    assert report["b"]["reason"] == "undecodable"
    assert "SIGKILL" in report["b"]["message"]
    assert not (out / "b").exists()


@pytest.mark.parametrize("rates", [(5, 5), (5, 6)])
def test_two_runs_at_once(tmp_path: Path, source: MakeSource, rates: tuple[int, int]) -> None:
    """With the same options both find all clips; with other ones a run is refused."""
    clip = source(seconds=1, fps=25, size=(64, 64))
    link_clips(tmp_path / "in", **{f"clip{n}": clip for n in range(8)})
    given = ("frame_extract.py", "in", "out", "--n", "1", "--fps")
    both = [scripts.start(*given, rate, cwd=tmp_path) for rate in rates]
    codes = [scripts.finish(process).code for process in both]
    assert sorted(codes) == ([0, 0] if rates == (5, 5) else [0, 2])
    rate = rates[codes.index(0)]
    assert all(len(numbers(tmp_path / f"out/clip{n}")) == rate for n in range(8))


def test_dry_run_writes_nothing(tmp_path: Path, source: MakeSource) -> None:
    folder = link_clips(tmp_path / "in", a=source(seconds=1, fps=25, size=(64, 64)))
    done = run(folder, tmp_path / "out", "--dry_run")
    assert done.code == 0
    assert "to do        1" in done.err
    assert not (tmp_path / "out").exists()
    assert done.out == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--fps", "-1"], "rate"),
        (["--fps", "fast"], "rate"),
        (["--quality", "0"], "whole number"),
        (["--quality", "101"], "quality"),
        (["--upscale"], "--short_side"),
        (["--only", "nowhere.csv"], "does not exist"),
        (["--key_frames", "nowhere.csv"], "cannot read nowhere.csv"),
    ],
)
def test_bad_usage_is_one_line_and_2(tmp_path: Path, options: list[str], says: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").touch()
    given = [tmp_path / "in", tmp_path / "out", *options]
    done = scripts.run_here("frame_extract.py", *given, cwd=tmp_path)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert says in done.err


def test_folders_that_cannot_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for given in ("nowhere", "out"), ("in", "in"):
        assert scripts.run_here("frame_extract.py", *given, cwd=tmp_path).code == 2


def test_settings_file_says_what_was_asked(tmp_path: Path, source: MakeSource) -> None:
    folder = link_clips(tmp_path / "in", a=source(seconds=1, fps=25, size=(64, 64)))
    run(folder, tmp_path / "out", "--fps", "30000/1001", "--short_side", "48")
    kept = json.loads((tmp_path / "out/.frames_settings.json").read_text(encoding="utf-8"))
    assert (kept["fps"], kept["short_side"], kept["quality"]) == ("30000/1001", 48, 90)


@pytest.mark.parametrize("size", [(96, 171), (97, 160), (97, 171)])
def test_what_lies_behind_an_odd_picture_is_not_in_its_jpeg(
    size: tuple[int, int],
) -> None:
    height, width = size
    chance = np.random.default_rng(1)
    picture = chance.integers(0, 255, size, np.uint8)
    chroma = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
    files = set()
    for rest in (0, 255):
        memory = np.full((height + 2, width + 21), rest, np.uint8)
        memory[:height, :width] = picture
        luma = with_margin(memory[:height, :width])
        files.add(simplejpeg.encode_jpeg_yuv_planes(luma, chroma, chroma, 90))
    assert len(files) == 1
