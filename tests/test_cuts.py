"""A cut keeps every frame of its window, each at its own time: what exact means for a clip.

With the ffmpeg of the wheel, and with the one on PATH where there is one: they differ in how they
pace a picture that is left to them.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import pytest

from tests.conftest import MakeSource
from tests.standin.sources import ffmpeg_path, frame_numbers, frame_times
from utils.process import Finished, run_child
from utils.video.cut import cut_video
from utils.video.ffmpeg import CutTask, Encode, Input, file_url, find_ffmpeg
from utils.video.whole import BadClip

TOOLS = sorted({ffmpeg_path(), shutil.which("ffmpeg") or ffmpeg_path()})
TICK = 1e-5  # seconds
JITTER = (0, 0.011, -0.012, 0.008, -0.012)  # seconds
UNEVEN = [n / 25 + JITTER[n % 5] for n in range(100)]
SOURCES: dict[str, dict[str, Any]] = {
    "25": {"fps": 25},
    "29.97": {"fps": "30000/1001"},
    "59.94": {"fps": "60000/1001"},
    "12.5": {"fps": "12.5"},
    "off the grid": {"fps": 25, "start": 1.513},
    "uneven": {"pts": UNEVEN},
    "left out": {"pts": [t for n, t in enumerate(UNEVEN) if n % 7 and n % 11]},
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", SOURCES)
def test_every_frame_keeps_its_time(
    name: str, tool: str, source: MakeSource, tmp_path: Path
) -> None:
    path = source(seconds=4, size=(160, 90), gop=25, **SOURCES[name])
    times = [time - first_time(path) for time, _ in frame_times(path)]
    inside = [n for n, time in enumerate(times) if time >= 1 - TICK]
    inside = [n for n in inside if times[n] < times[inside[0]] + 2 - TICK]
    found = frame_times(cut(tool, path, tmp_path / "clip.mp4"))
    assert [number for _, number in found] == inside
    wanted = [times[n] - 1 for n in inside]
    # ffmpeg 5.1 writes where a picture begins in whole milliseconds.
    assert [time for time, _ in found] == pytest.approx(wanted, abs=0.001 + TICK)


def first_time(path: Path) -> float:
    """What ffmpeg counts seconds from."""
    with av.open(str(path)) as container:
        return (container.start_time or 0) / av.time_base


@pytest.mark.parametrize("tool", TOOLS)
def test_two_frames_of_one_time_are_both_kept(
    tool: str, source: MakeSource, tmp_path: Path
) -> None:
    twice = tmp_path / "twice.mkv"
    argv = [ffmpeg_path(), "-v", "error", "-i", str(source(seconds=4, size=(160, 90), bframes=0))]
    same = "setts=pts='if(eq(mod(N,10),7),PTS-DURATION,PTS)'"
    subprocess.run([*argv, "-an", "-c", "copy", "-bsf:v", same, str(twice)], check=True, timeout=60)
    assert frame_numbers(cut(tool, twice, tmp_path / "clip.mp4")) == list(range(25, 75))


LATER = "setpts=PTS+between(N\\,10\\,20)*{}/TB"  # some frames, by so many seconds
SOME = "select=mod(n+1\\,3)"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (LATER.format(0.0004), ""),
        (LATER.format(0.002), "not shown at the times"),
        (SOME, ""),
        (f"{SOME},{LATER.format(0.002)}", "not shown at the times"),
        ("select=lt(n\\,40)", "not shown at the times"),
        ("select=lt(n\\,20)", "20 frames, but the video has 50"),
    ],
)
def test_a_clip_with_frames_at_other_times_is_refused(
    changes: str, problem: str, source: MakeSource, tmp_path: Path
) -> None:
    target = tmp_path / "clip.mp4"

    def run_badly(argv: Sequence[str]) -> Finished:
        """As an ffmpeg that moves frames, or loses some."""
        done, moved = run_child(argv), tmp_path / "moved.mp4"
        change = [ffmpeg_path(), "-v", "error", "-y", "-i", str(target), "-vf", changes]
        change += ["-fps_mode", "passthrough", "-enc_time_base:v", "1/120000"]
        run = subprocess.run([*change, "-preset", "ultrafast", str(moved)], timeout=60)
        assert run.returncode == 0
        moved.replace(target)
        return done

    given = Input(file_url(source(seconds=4, size=(160, 90), gop=25)))
    encode = Encode(preset="ultrafast", audio=False)
    task = CutTask(run_badly, find_ffmpeg(), [given], 1, 2, encode, target)
    if not problem:
        assert cut_video(task) == 2
    else:
        with pytest.raises(BadClip, match=problem):
            cut_video(task)


def cut(tool: str, path: Path, target: Path) -> Path:
    """Two seconds from 1 s on, as download.py cuts them."""
    given = Input(file_url(path))
    encode = Encode(preset="ultrafast")
    cut_video(CutTask(run_child, find_ffmpeg(tool), [given], 1, 2, encode, target))
    return target
