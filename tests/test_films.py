"""Films by seed, as people have them: every cut holds exactly the frames of its window.

`FILMS=200 pytest tests/test_films.py` makes more of them.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.standin.server import StandIn
from tests.standin.sources import ffmpeg_path, frame_times, make_dash, make_source
from tests.test_fragments import part_of
from utils.download.youtube_sections import FRAGMENT_OPTIONS, read_index
from utils.process import run_child
from utils.video.cut import cut_video
from utils.video.ffmpeg import FINE_TIME_BASE, CutTask, Encode, Input, file_url, find_ffmpeg, ticks
from utils.video.whole import BadClip, read_video

USUAL = (0, 2, 5, 6, 7, 12, 14, 15)  # seeds that draw each codec, each kind of gaps, each change
SEEDS = [n if n in USUAL else pytest.param(n, marks=pytest.mark.slow) for n in range(20)]
if "FILMS" in os.environ:
    SEEDS = list(range(int(os.environ["FILMS"])))
RATES = ("8", "12.5", "24000/1001", "24", "25", "30000/1001", "30", "60")
ENCODERS = {
    "h264": None,
    "hevc": ["libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:pools=1"],
    "vp9": ["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"],
    "vp8": ["libvpx", "-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "1"],
    "mpeg4": ["mpeg4", "-bf", "2", "-q:v", "3"],
    "av1": ["libsvtav1", "-preset", "12"],
}


@dataclass(frozen=True)
class Film:
    path: Path
    what: str
    frames: list[tuple[Fraction, int]]  # (time from a player's zero, number)
    end: float


def make_film(seed: int, folder: Path) -> Film:
    """A film whose rate, gaps, B-frames, offsets, edit list, codec and container are drawn."""
    chance = random.Random(seed)
    rate, seconds = Fraction(chance.choice(RATES)), chance.uniform(5, 9)
    kind = chance.choice(["constant", "uneven", "left out", "slides"])
    times = [n / rate for n in range(int(seconds * rate))]
    if kind == "uneven":
        times = [t + Fraction(chance.randrange(400), 1000) / rate for t in times]
    elif kind == "left out":
        times = [t for n, t in enumerate(times) if not n or chance.random() < 0.5]
    elif kind == "slides":
        times = [t for t in times if int(t) % 3 == 0]
    bframes, gop = chance.choice([0, 1, 2, 3, 5]), chance.choice([5, 12, 30, 250])
    made = make_source(
        folder / "made.mp4",
        seconds=seconds,
        fps=rate,
        size=(160, 90),
        gop=gop,
        bframes=bframes,
        open_gop=chance.random() < 0.3,
        audio=chance.random() < 0.7,
        pts=[float(t) for t in times],
    )
    codec = chance.choice(["h264"] * 5 + list(ENCODERS))
    encoder = ENCODERS[codec]
    suffix = chance.choice(["mp4", "mp4", "mkv"]) if codec != "vp8" else "mkv"
    before, after = [], []
    change = chance.choice(["", "late picture", "late sound", "short sound", "cut", "no edits"])
    late = chance.choice([0.04, 0.2, 0.513])
    if change == "late picture":
        before = ["-itsoffset", str(late), "-i", str(made), "-i", str(made)]
        after = ["-map", "0:v", "-map", "1:a?"]
    elif change == "late sound":
        before = ["-i", str(made), "-itsoffset", str(late), "-i", str(made)]
        after = ["-map", "0:v", "-map", "1:a?"]
    elif change == "short sound":
        before = ["-i", str(made), "-t", "2", "-i", str(made)]
        after = ["-map", "0:v", "-map", "1:a?"]
    elif change == "cut":
        before = ["-ss", f"{chance.uniform(0.3, 2):.3f}", "-i", str(made)]
    else:
        before = ["-i", str(made)]
        after = ["-use_editlist", "0"] if change == "no edits" and suffix == "mp4" else []
    path = folder / f"film.{suffix}"
    argv = [ffmpeg_path(), "-v", "error", "-nostdin", "-y", *before, *after, "-c", "copy"]
    if encoder:
        base = "1/1000" if codec == "mpeg4" else "1/90000"  # its largest denominator is 65535
        argv += ["-fps_mode", "vfr", "-enc_time_base:v", base, "-c:v", *encoder]
    subprocess.run([*argv, str(path)], check=True, timeout=120, capture_output=True)
    what = f"seed {seed}: {kind} {rate}, {codec} in {suffix}, {bframes} B, GOP {gop}, {change}"
    return Film(path, what, frames_of(path), read_video(path).end)


def windows(film: Film, seed: int) -> Iterator[tuple[float, float]]:
    """(start, seconds) to the millisecond, some of them at a frame's very time."""
    chance = random.Random(seed)
    yield 0.0, round(chance.uniform(0.5, 3), 3)
    for _ in range(3):
        start = round(chance.uniform(0, max(0.1, film.end - 0.5)), 3)
        yield start, round(chance.uniform(0.3, 3), 3)
    time = max(Fraction(0), chance.choice(film.frames)[0])
    yield float(round(time, 3)), 1.0


def wanted(film: Film, start: float, seconds: float) -> list[tuple[float, int]]:
    """The frames of a window; where it has none, the one that is on the screen all the time."""
    begin, end = (
        ticks(Fraction(repr(start))),
        ticks(Fraction(repr(start)) + Fraction(repr(seconds))),
    )
    shown = [(ticks(t), n) for t, n in film.frames]
    inside = [(float((t - begin) * FINE_TIME_BASE), n) for t, n in shown if begin <= t < end]
    return inside or [(0.0, n) for t, n in shown if t < begin][-1:]


def check(film: Film, inputs: list[Input], window: tuple[float, float], way: str) -> None:
    target = film.path.with_name("clip.mp4")
    known = film.end if way != "http" else None
    encode = Encode(preset="ultrafast", crf=15)
    where = f"{film.what}; {way}, {window}"
    if not wanted(film, *window):
        return  # before the first frame of a late picture
    try:
        cut_video(CutTask(run_child, find_ffmpeg(), inputs, *window, encode, target, known))
    except BadClip as error:
        expected = wanted(film, *window)
        # What ends nobody knows how far after its last frame may be refused, and comes otherwise.
        if way == "http" and error.reason == "truncated":
            last = max(t for t, _ in film.frames)
            gaps = [b - a for (a, _), (b, _) in zip(expected, expected[1:], strict=False)]
            if expected[-1][0] + max(gaps, default=0) < window[1] - 0.09 or last < sum(window):
                return
        raise AssertionError(f"{where}: {error.reason}: {error}") from error
    found = frame_times(target)
    expected = wanted(film, *window)
    assert [n for _, n in found] == [n for _, n in expected], where
    assert [t for t, _ in found] == pytest.approx([t for t, _ in expected], abs=2e-5), where


@pytest.mark.parametrize("seed", SEEDS)
def test_every_cut_is_exact(seed: int, tmp_path: Path, standin: StandIn) -> None:
    film = make_film(seed, tmp_path)
    address = standin.add_file(f"/{film.path.name}", film.path)
    # A site's groups are closed: no frame that is shown before a pause lies behind it.
    odd = film.what.endswith("cut") or "slides" in film.what or "mpeg4" in film.what
    can_dash = film.path.suffix == ".mp4" and not odd
    dash = make_dash(film.path)[0] if can_dash else None
    whole = None
    if dash is not None and read_index(dash.read_bytes()) is not None:
        whole = Film(dash, film.what, frames_of(dash), read_video(dash).end)
        (tmp_path / "part").mkdir()
    for window in windows(film, seed):
        check(film, [Input(file_url(film.path))], window, "file")
        check(film, [Input(address)], window, "http")
        if whole is not None:
            part = part_of(whole.path, window[0], sum(window), tmp_path / "part")
            check(whole, [Input(file_url(part), FRAGMENT_OPTIONS)], window, "fragments")


def frames_of(path: Path) -> list[tuple[Fraction, int]]:
    """(time from a player's zero, number) of each frame."""
    with av.open(str(path)) as file:
        zero = Fraction(file.start_time or 0, av.time_base)
    return [(Fraction(t).limit_denominator(10**6) - zero, n) for t, n in frame_times(path)]
