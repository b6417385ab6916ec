"""What finds damage in a clip: `decode_whole` says of files what `ffmpeg -xerror` says of them."""

from __future__ import annotations

import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import MakeSource
from utils.parallel import has_died, run_in_processes
from utils.video.ffmpeg import STRICT, file_url, find_ffmpeg
from utils.video.whole import BadClip, decode_whole


def is_bad(path: Path) -> bool:
    try:
        decode_whole(path)
    except BadClip as error:
        assert error.reason == "undecodable"
        return True
    return False


def is_bad_to_ffmpeg(path: Path) -> bool:
    argv = [find_ffmpeg().path, *STRICT, "-threads", "1", "-i", file_url(path)]
    argv += ["-map", "0:v:0", "-map", "0:a?", "-f", "null", "-"]
    done = subprocess.run(argv, capture_output=True, text=True)
    return done.returncode != 0 or bool(done.stderr.strip())


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A file with one fault: an end that is missing, bits that have tipped, bytes that are others.

    The fault may lie in the picture, in the sound, in the index, or in what nobody reads.
    """
    changed = bytearray(data)
    kind = chance.choice(["cut", "flip", "zero", "noise"])
    if kind == "cut":
        return data[: chance.randrange(len(data) // 10, len(data))]
    for _ in range(chance.choice([1, 1, 2, 5, 40])):
        at = chance.randrange(48, len(data) - 64)
        if kind == "flip":
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == "zero":
            changed[at : at + 16] = bytes(16)
        else:
            changed[at : at + 8] = chance.randbytes(8)
    return bytes(changed)


@pytest.mark.parametrize("seed", [5, pytest.param(11, marks=pytest.mark.slow)])
def test_damage_is_found_as_ffmpeg_finds_it(seed: int, tmp_path: Path, source: MakeSource) -> None:
    data = source(seconds=1.2, fps=25).read_bytes()
    chance, path = random.Random(seed), tmp_path / "clip.mp4"
    agreed: Counter[bool] = Counter()
    for number in range(25):
        path.write_bytes(damaged(data, chance))
        expected = is_bad_to_ffmpeg(path)
        assert is_bad(path) == expected, f"file {number} of seed {seed}"
        agreed[expected] += 1
    assert agreed[True] > 10


def test_whole_files_are_good(source: MakeSource) -> None:
    for seconds, fps in ((1.2, 25), (0.4, 10)):
        assert not is_bad(source(seconds=seconds, fps=fps))


def test_nothing_is_logged_outside_of_a_check(source: MakeSource) -> None:
    import av

    before = av.logging.get_level()
    decode_whole(source(seconds=0.4))
    assert av.logging.get_level() == before


def test_only_a_dead_process_speaks_against_the_file() -> None:
    (died,) = run_in_processes(os._exit, [7], 1, lambda task, how: how)
    assert died == "its worker process ended with exit code 7" and has_died(died)
    (raised,) = run_in_processes(int, ["process"], 1, lambda task, how: how)
    assert "process" in raised and not has_died(raised)
