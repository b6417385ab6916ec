"""Group 9: videos of every kind, fetched, downscaled, extracted and loaded: the frames agree.

Served as a lab's own server of whole videos would (--url_base). Every frame carries its number.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from load_frames import load_frames
from tests.conftest import MakeSource
from tests.faults.promise import SMALL, Lab, keeps_promise
from tests.scripts import run
from tests.standin.sources import ffmpeg_path, frame_numbers

X264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "25", "-crf", "20")
VARIABLE = [n / 25 for n in range(100) if n % 7 and n % 11]  # frames left out, as recorders do
UNEVEN = [n / 25 + (0, 0.011, -0.012, 0.008, -0.012)[n % 5] for n in range(100)]  # as phones do


@dataclass(frozen=True)
class Kind:
    """How a video is made of the usual source, and what a clip of it holds."""

    make: Sequence[str] = ()  # ffmpeg's arguments behind -i; none: the source itself
    suffix: str = ".mp4"
    source: dict[str, Any] = field(default_factory=dict)  # `make_source`'s options
    times: tuple[int, int] = (1, 2)
    frames: Sequence[int] = range(25, 50)
    reason: str = ""
    silent: bool = False


KINDS: dict[str, Kind] = {
    "audio_only_": Kind(["-vn", "-c", "copy"], reason="undecodable"),
    "video_only_": Kind(["-an", "-c", "copy"], silent=True),
    "zero_frames": Kind(["-c", "copy", "-bsf:v", "noise=drop=1"], reason="undecodable"),
    "corrupt____": Kind(["-c", "copy"], reason="undecodable"),
    "moov_at_end": Kind(["-c", "copy"]),
    "rotated____": Kind(source={"size": (160, 90), "rotation": 90}),
    "odd_sizes__": Kind(source={"size": (161, 91)}),  # and 4:4:4
    "ten_bits___": Kind([*X264, "-pix_fmt", "yuv420p10le", "-c:a", "copy"]),
    "vp9_opus___": Kind(["-c:v", "libvpx-vp9", "-cpu-used", "8", "-c:a", "libopus"], ".webm"),
    "av1________": Kind(["-c:v", "libsvtav1", "-preset", "12", "-g", "25", "-c:a", "copy"]),
    "fps_60_____": Kind(source={"fps": 60}, frames=range(60, 120)),
    "fps_1______": Kind(source={"fps": 1, "seconds": 6}, times=(1, 4), frames=(1, 2, 3)),
    "variable___": Kind(
        source={"pts": VARIABLE}, frames=[i for i, t in enumerate(VARIABLE) if 1 <= t < 2]
    ),
    "uneven_____": Kind(source={"pts": UNEVEN}),
    "full_chroma": Kind([*X264, "-pix_fmt", "yuv444p", "-c:a", "copy"]),
    "interlaced_": Kind(
        [*X264, "-flags", "+ildct+ilme", "-x264-params", "interlaced=1", "-c:a", "copy"],
        source={"size": (160, 96)},
    ),
    "late_start_": Kind(source={"start": 1.5}),
    "too_short__": Kind(times=(3, 13), frames=range(75, 100), reason="short"),
    "past_end___": Kind(times=(10, 20), reason="past_end"),
}
IN_CI = ("audio_only_", "rotated____", "vp9_opus___", "uneven_____")


def made(kind: Kind, name: str, folder: Path, source: MakeSource) -> Path:
    usual = source(**(SMALL | kind.source))
    if not kind.make:
        return usual
    path = folder / f"{name}{kind.suffix}"
    argv = [ffmpeg_path(), "-v", "error", "-nostdin", "-y", "-i", str(usual), *kind.make]
    subprocess.run([*argv, str(path)], check=True, timeout=60)
    if name == "corrupt____":
        data = bytearray(path.read_bytes())
        middle = range(len(data) // 5, len(data) * 3 // 5)
        data[middle.start : middle.stop] = bytes(n * 89 % 251 for n in middle)
        path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(IN_CI, id="some"),
        pytest.param([n for n in KINDS if n not in IN_CI], id="the others", marks=pytest.mark.slow),
    ],
)
def test_videos_of_every_kind(
    names: Sequence[str], lab: Lab, source: MakeSource, tmp_path: Path
) -> None:
    bad = []
    for name in names:
        kind = KINDS[name]
        lab.standin.add_video(name, made(kind, name, lab.folder / "mine", source))
        lost = kind.reason == "past_end"
        clip = lab.want(name, *kind.times, lost=lost)
        if not lost:
            lab.frames[clip] = list(kind.frames)
            lab.silent |= {clip}
        if kind.reason == "undecodable":
            bad.append(clip)
            lab.frames[clip] = list(range(25, 50))
    lab.more = ["--url_base", lab.standin.url_base, "--ytdlp_args", "", "--n", "4"]
    done = lab.run()
    assert lab.reasons() == {name: KINDS[name].reason for name in names}, lab.report()
    agree(lab, tmp_path)

    def good_ones() -> None:
        for clip in bad:
            lab.standin.add_video(clip[:11], source(**SMALL))

    keeps_promise(lab, done, 1, mend=good_ones)


def agree(lab: Lab, folder: Path) -> None:
    """The clip, its small version, its JPEGs and its array have the same frames."""
    frames, small = folder / "frames", folder / "small"
    (lab.out / "holiday.mp4").unlink()
    more = ["--fps", "0", "--n", "2"]
    assert run("frame_extract.py", lab.out, frames, *more, cwd=folder).code == 0
    more = ["--short_side", "64", "--n", "2"]
    assert run("downscale_videos.py", lab.out, small, *more, cwd=folder).code == 0
    for name in lab.clips():
        wanted = lab.frames[name]
        assert len(list((frames / name).glob("*.jpg"))) == len(wanted), name
        assert frame_numbers(small / f"{name}.mp4") == wanted, name
        assert len(load_frames(lab.out / f"{name}.mp4")) == len(wanted), name
    for path in (frames, small):
        shutil.rmtree(path)
    (lab.out / "holiday.mp4").write_bytes(b"no clip of any list")
