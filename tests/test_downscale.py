"""downscale_videos.py as a user runs it: frames, times, sizes, sound, checks, resuming."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from tests import scripts
from tests.conftest import MakeSource
from tests.scripts import link_clips
from tests.standin.sources import beep_times, ffmpeg_path, frame_times, top_boxes

VARIABLE = [0, 0.04, 0.1, 0.3, 0.32, 0.36, 0.5, 0.9, 1.0, 1.2, 1.5]


def run(*arguments: object) -> scripts.Done:
    """One worker unless told otherwise: most of a short run is starting them."""
    folder = Path(tempfile.gettempdir())
    return scripts.run("downscale_videos.py", "--n", 1, *arguments, cwd=folder)


def rows(out: Path) -> dict[str, dict[str, str]]:
    return scripts.report_rows(out / "downscale_report.csv")


RATES: dict[str, dict[str, Any]] = {
    "25": {"fps": 25},
    "ntsc": {"fps": "30000/1001"},
    "60": {"fps": 60},
    "variable": {"pts": VARIABLE},
    "late": {"fps": 25, "start": 0.5},
}


def test_rate_times_frames_and_sound_are_kept(tmp_path: Path, source: MakeSource) -> None:
    clips = {name: source(seconds=2, size=(320, 180), **how) for name, how in RATES.items()}
    done = run(link_clips(tmp_path / "in", **clips), tmp_path / "out", "--short_side", "96")
    assert done.code == 0, done.err
    for name, clip in clips.items():
        made = tmp_path / "out" / f"{name}.mp4"
        before, after = frame_times(clip), frame_times(made)
        with av.open(str(clip)) as file:
            origin = (file.start_time or 0) / 1e6
        assert [number for _, number in after] == [number for _, number in before], name
        shift = [b - origin - a for (b, _), (a, _) in zip(before, after, strict=True)]
        assert max(map(abs, shift)) < 0.002, name
        beeps = [time - origin for time in beep_times(clip)]
        assert beep_times(made) == pytest.approx(beeps, abs=0.03), name
        row = rows(tmp_path / "out")[name]
        found = (row["status"], row["action"], int(row["frames"]))
        assert found == ("written", "encoded", len(after))


@pytest.mark.slow
def test_another_rate_shows_the_frames_of_ffmpegs_filter(
    tmp_path: Path, source: MakeSource
) -> None:
    clip = source(seconds=2, size=(320, 180), fps=25)
    done = run(
        link_clips(tmp_path / "in", a=clip), tmp_path / "out", "--fps", "30", "--short_side", "96"
    )
    assert done.code == 0, done.err
    argv = [ffmpeg_path(), "-v", "error", "-i", str(clip), "-vf", "fps=30", "-crf", "10"]
    subprocess.run([*argv, str(tmp_path / "plain.mp4")], check=True)
    assert frame_times(tmp_path / "out/a.mp4") == frame_times(tmp_path / "plain.mp4")


SHAPES: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "landscape": ({"size": (640, 360)}, (228, 128)),
    "portrait": ({"size": (360, 640)}, (128, 228)),
    "rotated": ({"size": (640, 360), "rotation": 90}, (128, 228)),
    "odd": ({"size": (341, 255)}, (172, 128)),
    "wide_pixels": ({"size": (352, 288), "sar": "16/11"}, (228, 128)),
}


def test_shorter_side_and_aspect(tmp_path: Path, source: MakeSource) -> None:
    clips = {name: source(seconds=0.4, fps=25, **how) for name, (how, _) in SHAPES.items()}
    done = run(link_clips(tmp_path / "in", **clips), tmp_path / "out", "--short_side", "128")
    assert done.code == 0, done.err
    for name, (_, size) in SHAPES.items():
        made = tmp_path / "out" / f"{name}.mp4"
        with av.open(str(made)) as file:
            video = file.streams.video[0]
            assert (video.width, video.height) == size, name
            assert video.pix_fmt == "yuv420p"
            assert (video.sample_aspect_ratio or 1) == 1
            assert not next(file.decode(video)).rotation
        assert [n for _, n in frame_times(made)] == list(range(10)), name
        kinds = [kind for kind, _, _ in top_boxes(made)]
        assert kinds.index("moov") < kinds.index("mdat")


def pictures(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(video=0) if packet.size]


def test_a_small_video_is_taken_as_it_is(tmp_path: Path, source: MakeSource) -> None:
    clip = source(seconds=1, fps=25, size=(128, 96))
    folder = link_clips(tmp_path / "in", a=clip)
    assert run(folder, tmp_path / "out").code == 0
    assert pictures(tmp_path / "out/a.mp4") == pictures(clip)
    assert frame_times(tmp_path / "out/a.mp4") == frame_times(clip)
    assert rows(tmp_path / "out")["a"]["action"] == "rewrapped"
    for number, options in enumerate((["--keyint", "5"], ["--fps", "10"])):
        out = tmp_path / f"other{number}"
        assert run(folder, out, *options).code == 0
        assert rows(out)["a"]["action"] == "encoded"
        assert (rows(out)["a"]["width"], rows(out)["a"]["height"]) == ("128", "96")
    assert run(folder, tmp_path / "up", "--upscale", "--short_side", "192").code == 0
    assert (rows(tmp_path / "up")["a"]["width"], rows(tmp_path / "up")["a"]["height"]) == (
        "256",
        "192",
    )


def test_options_reach_the_file(tmp_path: Path, source: MakeSource) -> None:
    clip = source(seconds=2, fps=30, size=(160, 90))
    folder = link_clips(tmp_path / "in", a=clip)
    done = run(folder, tmp_path / "a", "--keyint", "12", "--no_audio", "--codec", "libx265")
    assert done.code == 0, done.err
    with av.open(str(tmp_path / "a/a.mp4")) as file:
        keys = [n for n, frame in enumerate(file.decode(video=0)) if frame.key_frame]
        assert keys == [0, 12, 24, 36, 48]
        assert file.streams.video[0].codec_context.name == "hevc"
        assert not file.streams.audio
    assert run(folder, tmp_path / "b", "--for_loading").code == 0
    with av.open(str(tmp_path / "b/a.mp4")) as file:
        assert [n for n, frame in enumerate(file.decode(video=0)) if frame.key_frame] == [0, 30]
        encoder = (tmp_path / "b/a.mp4").read_bytes()
        assert b"cabac=0" in encoder and b"b_pyramid=0" in encoder


def test_bad_clips_cost_themselves_and_no_other(tmp_path: Path, source: MakeSource) -> None:
    folder = link_clips(tmp_path / "in/label", good=source(seconds=0.4, fps=25, size=(320, 180)))
    data = source(seconds=3, fps=25, size=(320, 180)).read_bytes()
    half, noise = len(data) // 2, np.random.default_rng(3).bytes(3000)
    (folder / "broken_off.mp4").write_bytes(data[:half])
    (folder / "bad_middle.mp4").write_bytes(data[:half] + noise + data[half + 3000 :])
    (folder / "noise.mp4").write_bytes(noise)
    done = run(tmp_path / "in", tmp_path / "out", "--short_side", "96")
    assert done.code == 1
    report = rows(tmp_path / "out")
    assert {clip: row["reason"] for clip, row in report.items()} == {
        "label/good": "",
        "label/broken_off": "truncated",
        "label/bad_middle": "undecodable",
        "label/noise": "undecodable",
    }
    assert [path.name for path in (tmp_path / "out/label").iterdir()] == ["good.mp4"]


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_stop_leaves_whole_clips_and_a_rerun_finishes(
    tmp_path: Path, source: MakeSource, number: signal.Signals
) -> None:
    clip = source(seconds=4, fps=30, size=(480, 270), complexity=0)
    folder, out = (
        link_clips(tmp_path / "in", **{f"clip{n}": clip for n in range(6)}),
        tmp_path / "out",
    )
    process = scripts.start("downscale_videos.py", folder, out, "--n", "2", cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not any(out.glob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    began = time.monotonic()
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 15
    if number == signal.SIGINT:
        assert process.returncode == 128 + number
        assert "Traceback" not in errors
        assert not psutil.wait_procs(children, timeout=5)[1]
        assert not (out / ".tmp").exists()
    psutil.wait_procs(children, timeout=30)
    made = sorted(out.glob("*.mp4"))
    assert 0 < len(made) < 6
    assert all(len(pictures(path)) == 120 for path in made)
    inodes = {path: path.stat().st_ino for path in made}
    assert run(folder, out).code == 0
    assert len(list(out.glob("*.mp4"))) == 6
    assert all(path.stat().st_ino == inode for path, inode in inodes.items())
    assert not (out / ".tmp").exists()


def test_clips_of_other_options_are_not_mixed(tmp_path: Path, source: MakeSource) -> None:
    folder, out = link_clips(tmp_path / "in", a=source(seconds=0.4, fps=25)), tmp_path / "out"
    assert run(folder, out, "--short_side", "96").code == 0
    inode = (out / "a.mp4").stat().st_ino
    for options in ([], ["--short_side", "64"], ["--short_side", "96", "--overwrite", "--fps", 30]):
        done = scripts.run_here("downscale_videos.py", folder, out, *options, cwd=tmp_path)
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert "made with --" in done.err and (out / "a.mp4").stat().st_ino == inode
    assert run(folder, out, "--short_side", "96").code == 0


@pytest.mark.parametrize(
    "options", [["--crf", "60"], ["--short_side", "8"], ["--preset", "best"], ["--fps", "x"]]
)
def test_bad_usage_is_one_line_and_2(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "in").mkdir()
    done = scripts.run_here("downscale_videos.py", "in", "out", *options, cwd=tmp_path)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1


def test_a_folder_is_not_its_own_output(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert scripts.run_here("downscale_videos.py", "in", "in", cwd=tmp_path).code == 2
