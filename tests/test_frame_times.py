"""Resampling, against the real ffmpeg: the same frames, and as many, at every rate."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipreader.media import ratio
from clipreader.packets import end_of_last, parse_fps, resample_indices

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0"]
SOUND = ["-f", "lavfi", "-i", "sine=d=2"]


def lavfi(rate: str) -> list[str]:
    return ["-f", "lavfi", "-i", f"testsrc2=s=64x48:d=2:r={rate}"]


SOURCES = {
    "25.mp4": [*lavfi("25"), *SOUND, *X264],
    "30.mp4": [*lavfi("30"), *X264],
    "ntsc.mp4": [*lavfi("30000/1001"), *X264],
    "60.mkv": [*lavfi("60"), *X264],
    "vfr.mp4": [
        *lavfi("30"),
        *["-vf", "select='lt(random(3),0.5)'", "-fps_mode", "vfr"],
        *["-enc_time_base", "1/90000", "-video_track_timescale", "90000", *X264],
    ],
    "late.mp4": ["-itsoffset", "0.513", *lavfi("25"), *SOUND, *X264],
    "late_by_17_ms.mkv": ["-itsoffset", "0.017", *lavfi("25"), *SOUND, *X264],
    "cut_by_copy.mp4": ["-ss", "0.63", "-t", "1", "-i", "25.mp4", "-c", "copy", "-copyts"],
    "stream.ts": [*lavfi("25"), *SOUND, *X264],
    "short.mp4": ["-f", "lavfi", "-i", "testsrc2=s=64x48:d=0.28:r=25", *X264],
    "packed.avi": [*lavfi("25"), "-c:v", "mpeg4"],
}
RATES = ["30", "25", "30000/1001", "29.97", "60", "12.5", "1"]


def run(folder: Path, *args: str) -> str:
    command = [FFMPEG, "-v", "error", "-nostdin", "-y", *args]
    done = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rates")
    for name, args in SOURCES.items():
        run(folder, *args, name)
    return folder


def hashes(folder: Path, name: str, filtering: str) -> list[str]:
    """The MD5 of every frame that ffmpeg gives. One filter a run: ffmpeg 9 with ten outputs of
    different rates came to a standstill, idle."""
    args = ["-i", name, "-map", "0:v:0", "-vf", filtering, "-fps_mode", "passthrough"]
    lines = run(folder, *args, "-f", "framemd5", "-").splitlines()
    return [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]


@pytest.mark.xdist_group("rates")
@pytest.mark.parametrize("name", SOURCES)
def test_the_frames_are_those_of_ffmpegs_fps_filter(folder: Path, name: str) -> None:
    every = hashes(folder, name, "null")
    with av.open(str(folder / name)) as container:
        stream = container.streams.video[0]
        frames = [(frame.pts, frame.duration) for frame in container.decode(stream)]
        pts = [pts for pts, _ in frames if pts is not None]
        base = ratio(stream.time_base)
        assert base is not None and stream.start_time is not None
        origin = round(Fraction(container.start_time, 1_000_000) / base)
        if container.format.name == "mpegts":
            origin = stream.start_time
    assert len(every) == len(pts)
    end = end_of_last(pts, frames[-1][1])
    for rate in RATES:
        shown = resample_indices(pts, base, parse_fps(rate), end=end, origin=origin)
        assert [every[i] for i in shown] == hashes(folder, name, f"fps={rate}"), rate


def test_25_to_30_doubles_every_fifth_frame() -> None:
    shown = resample_indices(range(50), Fraction(1, 25), Fraction(30))
    assert len(shown) == 60
    assert [i for i, j in zip(shown, shown[1:], strict=False) if i == j] == list(range(2, 50, 5))


@given(
    gaps=st.lists(st.integers(1, 5000), min_size=1, max_size=60),
    fps=st.fractions(Fraction(1, 10), 240),
    start=st.integers(-100_000, 100_000),
)
def test_order_and_length_hold_for_any_times(gaps: list[int], fps: Fraction, start: int) -> None:
    pts = [start + sum(gaps[:n]) for n in range(len(gaps))]
    shown = resample_indices(pts, Fraction(1, 90_000), fps, end=start + sum(gaps))
    assert shown == sorted(shown)
    assert set(shown) <= set(range(len(pts)))
    assert abs(len(shown) - sum(gaps) * fps / 90_000) <= 1


def test_the_last_frame_lasts_as_its_packet_says_unless_that_was_made_up() -> None:
    assert end_of_last([0, 40, 80], 40) == 120
    assert end_of_last([0, 40, 80], 55) == 135
    assert end_of_last([0, 40, 80], 0) == 120
    assert end_of_last([0, 40, 80], 1) == 120
    assert end_of_last([0, 1, 2], 1) == 3
    assert end_of_last([7], 0) == 8


def test_no_frames_give_no_pictures_and_no_rate_is_an_error() -> None:
    assert resample_indices([], Fraction(1, 25), Fraction(30)) == []
    with pytest.raises(ValueError, match="above 0"):
        resample_indices([0], Fraction(1, 25), Fraction(0))


@pytest.mark.parametrize("text", ["", "x", "-1", "1/0", "nan", "inf"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_fps(text)
