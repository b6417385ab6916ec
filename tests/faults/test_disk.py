"""Groups 4 and 5: a disk that fills up, is read-only or vanishes; too few of what a process needs.

The disks are small tmpfs mounts, which take root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import MakeSource
from tests.faults.promise import (
    SMALL,
    Lab,
    fingerprint,
    keeps_promise,
    the_same_again_finishes,
    wait_for,
)
from tests.scripts import finish, link_clips, run
from tests.standin.server import StandIn
from utils.clip import Clip, Result
from utils.report import RESULT_COLUMNS, ReportFile

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount"
)
Mount = Callable[[str], object]


def mount(folder: Path, options: str) -> None:
    argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(argv, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("cannot mount here")


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Mount]:
    """A file system of its own at `folder`; yields what mounts it anew with other options."""
    folder.mkdir(exist_ok=True)
    mount(folder, options)
    try:
        yield lambda options: mount(folder, f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], stderr=subprocess.DEVNULL)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Mount]:
    with disk(tmp_path / "small", "size=1m") as remount:
        yield remount


@pytest.fixture
def lab(tmp_path: Path, standin: StandIn, small_disk: Mount) -> Lab:
    return Lab(tmp_path, standin, "small/out")


@contextmanager
def quota(folder: Path) -> Iterator[Mount]:
    """A folder with a quota, of which the disk's free space says nothing; yields what sets it.

    A btrfs in a file: what limits its subvolumes holds for root, too.
    """
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("no mkfs.btrfs here")
    image, top = folder.with_suffix(".img"), folder.parent
    top.mkdir()
    with image.open("wb") as file:
        file.truncate(200 << 20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(top)]).returncode != 0:
        pytest.skip("cannot mount a file here")
    try:
        for action in (["quota", "enable", str(top)], ["subvolume", "create", str(folder)]):
            subprocess.run(["btrfs", *action], check=True, stdout=subprocess.DEVNULL)
        limit = ["btrfs", "qgroup", "limit"]
        yield lambda size: subprocess.run([*limit, size, str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(top)])


def fill(folder: Path, leave: int = 0) -> Path:
    """Take all the room there is but for `leave` bytes; the file to remove again."""
    path = folder / "filler"
    info = os.statvfs(folder)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, info.f_bavail * info.f_frsize - leave))
    return path


@needs_root
@pytest.mark.parametrize("way", ["cut", pytest.param("fetch", marks=pytest.mark.slow)])
def test_the_disk_fills_up(way: str, lab: Lab, small_disk: Mount, source: MakeSource) -> None:
    """Over ffmpeg's output, and over yt-dlp's; what is there is whole, and more room mends it."""
    video = source(seconds=10, size=(320, 180), complexity=3.0)
    for number in range(6):  # three may be under way
        lab.video(f"filling___{number}", video, 1, 9)
    if way == "fetch":
        lab.standin.knobs(status=403, client="ffmpeg")
    done = lab.run("--n", "1")
    assert "no room left on the disk of" in done.err
    assert len(lab.standin.requests(target="player")) < 6
    assert not (lab.out / ".tmp").exists()
    keeps_promise(lab, done, 2, mend=lambda: small_disk("size=60m"))


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("way", ["cut", "fetch"])
def test_a_quota_is_reached(way: str, tmp_path: Path, standin: StandIn, source: MakeSource) -> None:
    """As a full disk, though the disk says that 100 MB are free."""
    with quota(tmp_path / "disk" / "mine") as limit:
        lab = Lab(tmp_path, standin, "disk/mine/out")
        video = source(seconds=10, size=(320, 180), complexity=3.0)
        for number in range(6):  # three may be under way
            lab.video(f"limited___{number}", video, 1, 9)
        if way == "fetch":
            lab.standin.knobs(status=403, client="ffmpeg")
        limit("1M")
        done = lab.run("--n", "1")
        assert "no room left on the disk of" in done.err
        assert len(lab.standin.requests(target="player")) < 6
        assert not (lab.out / ".tmp").exists()
        keeps_promise(lab, done, 2, mend=lambda: limit("none"))


@needs_root
def test_no_room_for_a_line_of_the_report(lab: Lab, small_disk: Mount) -> None:
    """The disk is full to the last byte, and the line of a clip goes over the end of a block."""
    for number in range(3):
        lab.standin.add_dead(f"no_such_v{number:02d}", "private")
        lab.want(f"no_such_v{number:02d}", lost=True)
    earlier = [Result.of(Clip("x", "x", 1, 2), "network", "youtube", message="x" * 400)] * 9
    with ReportFile(lab.out / "download_report.csv", RESULT_COLUMNS) as report:
        for result in earlier:
            report.append_result(result)
        left = 4096 - (lab.out / "download_report.csv").stat().st_size % 4096
        report.append_result(replace(earlier[0], message="x" * (left - 150)))
    knob = lab.standin.knobs("no_such_v00", target="player", throttle=150, times=1)
    process = lab.start("--n", "1")
    wait_for(lambda: lab.standin.times_used(knob))
    lab.kept.add("filler")
    filler = fill(lab.out)
    done = finish(process)
    assert "no room left on the disk of" in done.err
    keeps_promise(lab, done, 2, mend=filler.unlink)


@needs_root
def test_a_read_only_disk(lab: Lab, small_disk: Mount, source: MakeSource) -> None:
    lab.video("abcdefghijk", source(**SMALL))
    small_disk("ro")
    done = lab.run()
    assert "Read-only file system" in done.err or "permission denied" in done.err
    assert lab.standin.requests() == []
    keeps_promise(lab, done, 2, mend=lambda: small_disk("rw"))


@needs_root
@pytest.mark.parametrize("how", ["unmounted", pytest.param("renamed", marks=pytest.mark.slow)])
def test_the_folder_vanishes(how: str, lab: Lab, tmp_path: Path, source: MakeSource) -> None:
    """The run ends at once, in one line; no clip is counted that is not there."""
    for number in range(8):
        lab.video(f"vanishing_{number}", source(**SMALL))
    process = lab.start("--n", "1")
    wait_for(lambda: lab.clips())
    small = tmp_path / "small"
    if how == "unmounted":
        (tmp_path / "elsewhere").mkdir()
        subprocess.run(["mount", "--bind", str(small), str(tmp_path / "elsewhere")], check=True)
        subprocess.run(["umount", "-l", str(small)], check=True)
    else:
        lab.out.rename(small / "elsewhere")
    done = finish(process)
    try:
        assert done.code == 2, done.err
        assert "is no longer there" in done.err.splitlines()[-1]
        assert done.err.count("error: ") == 1 and done.err.count("failed") <= 1
        assert "on disk:" not in done.err
        assert len(lab.standin.requests(target="player")) < 8
        assert lab.processes() == [] and not lab.clips()
    finally:
        if how == "unmounted":
            argv = ["mount", "--move", str(tmp_path / "elsewhere"), str(small)]
            subprocess.run(argv, check=True)
            (tmp_path / "elsewhere").rmdir()
        else:
            assert not lab.out.exists() or not any(lab.out.iterdir())
            if lab.out.exists():
                lab.out.rmdir()
            (small / "elsewhere").rename(lab.out)
    the_same_again_finishes(lab)


@needs_root
@pytest.mark.parametrize("way", ["disk", pytest.param("quota", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "script, size, more",
    [("frame_extract.py", "700k", ()), ("downscale_videos.py", "300k", ("--short_side", "160"))],
)
def test_no_room_for_frames(
    script: str, size: str, more: Sequence[str], way: str, tmp_path: Path, source: MakeSource
) -> None:
    """frame_extract.py and downscale_videos.py on a full disk: no torn file, and on from there."""
    clip = source(seconds=4, size=(320, 180), complexity=3.0)
    videos = link_clips(tmp_path / "in", **{f"clip{n}": clip for n in range(4)})
    place = tmp_path / "disk" / "mine" if way == "quota" else tmp_path / "disk"
    with quota(place) if way == "quota" else disk(place, f"size={size}") as limit:
        if way == "quota":
            limit(size)
        out = place / "out"
        done = run(script, videos, out, "--n", "1", *more, cwd=tmp_path)
        assert done.code == 2, done.err
        assert done.err.splitlines()[-1].startswith("error: no room left on the disk of")
        assert not (out / ".tmp").exists()
        for folder in (path for path in out.iterdir() if path.is_dir()):
            assert len(list(folder.glob("*.jpg"))) == 100
        limit("none" if way == "quota" else "size=60m")
        assert run(script, videos, out, *more, cwd=tmp_path).code == 0
        before = fingerprint(out)
        assert run(script, videos, out, *more, cwd=tmp_path).code == 0
        assert fingerprint(out) == before


# Root has no limit of processes: another user, who may read and write what root may.
CAPABLE = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
NOBODY = ["setpriv", f"--reuid={54321 + os.getpid() % 1000}", "--clear-groups", *CAPABLE]
LIMITS: dict[str, tuple[list[str], set[int]]] = {
    "64 file descriptors": (["prlimit", "--nofile=64"], {0}),
    "16 file descriptors": (["prlimit", "--nofile=16"], {0, 1, 2}),
    "512 MB": (["prlimit", f"--as={512 << 20}"], {0, 1, 2}),
    "30 processes": ([*NOBODY, "prlimit", "--nproc=30"], {0, 1}),
    "5 processes": ([*NOBODY, "prlimit", "--nproc=5"], {0, 1, 2}),
}
SLOW = ("16 file descriptors", "512 MB", "30 processes", "5 processes")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="faults_") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@needs_root
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in LIMITS]
)
def test_too_little_of(name: str, open_folder: Path, standin: StandIn, source: MakeSource) -> None:
    """Told, and not a traceback; what is there is whole, and with enough the rest comes."""
    lab = Lab(open_folder, standin)
    through, codes = LIMITS[name]
    lab.out.chmod(0o777)
    for number in range(6):
        lab.video(f"limited___{number}", source(**SMALL))
    done = lab.run("--n", "6", through=through)
    assert done.code in codes, done.err
    keeps_promise(lab, done, done.code)
