"""reorg_kinetics_videos.py on trees made for it, run as a user runs it."""

from __future__ import annotations

import csv
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from tests.standin.sources import ffmpeg_path, frame_numbers
from utils import parallel, process
from utils.errors import UserError
from utils.reorg import (
    Filed,
    Found,
    HowToBring,
    bring,
    bring_in,
    canonical_name,
    file_same,
    files_to_bring,
    scan,
)
from utils.report import ReportFile, read_report
from utils.video.ffmpeg import find_ffmpeg

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "reorg_kinetics_videos.py"
REPORT = "reorg_report.csv"
COLUMNS = ("source", "clip", "action", "reason")
Source = Callable[..., Path]


def command(src: Path, dst: Path, *options: str | Path) -> list[str]:
    return [sys.executable, str(SCRIPT), str(src), str(dst), "--n", "2", *map(str, options)]


def reorg(src: Path, dst: Path, *options: str | Path, code: int = 0, bound: bool = False) -> str:
    """Run the script, with one worker, because most of a short run is starting them; what it said.

    bound: without root's right to write anywhere.
    """
    done = subprocess.run(
        command(src, dst, "--n", "1", *options),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=_drop_rights if bound else None,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert not (dst / ".tmp").exists()
    return done.stderr


def _drop_rights() -> None:
    for right in (1, 2, 3):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
        ctypes.CDLL(None).prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP; no harm for another user


def report_of(dst: Path) -> dict[str, tuple[str, str]]:
    """Source's last parts -> (action, reason), the last line counting."""
    with (dst / REPORT).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {"/".join(Path(r["source"]).parts[-2:]): (r["action"], r["reason"]) for r in rows}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".csv"}


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture
def clip(source: Source) -> Path:
    return source(seconds=2, fps=25, size=(160, 120))


@pytest.fixture
def longer(source: Source) -> Path:
    return source(seconds=3, fps=25, size=(160, 120))


def put(source: Path, *to: Path) -> None:
    for path in to:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)


def cut_off(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = source.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("-bcdefghij-_5_15", "-bcdefghij-_000005_000015"),
        ("a_c_1_2_fgh_000005_000015", "a_c_1_2_fgh_000005_000015"),
        ("abcdefghijk_0000000005_0000000015", "abcdefghijk_000005_000015"),
        ("abcdefghijk_12", "abcdefghijk_000012"),
        ("abcdefghijk_000015_000005", None),
        ("abcdefghijk", None),
        ("abcdefghij_000005_000015", None),
        ("abcdefghijk_000005_000015.temp", None),
        ("abcdefghijk_٥_١٥", None),
    ],
)
def test_names(stem: str, name: str | None) -> None:
    assert canonical_name(stem) == name


def test_a_tree_of_everything(tmp_path: Path, clip: Path) -> None:
    src, dst = tmp_path / "old 100%", tmp_path / "new"
    good = {
        "jogging/-bcdefghij-_000005_000007.mp4": "-bcdefghij-_000005_000007.mp4",
        "train/passing american football (not in-game)/abcdefghijk_5_7.mp4": (
            "abcdefghijk_000005_000007.mp4"
        ),
        "it's/a/b/c/-_-_-_-_-_-_3.MP4": "-_-_-_-_-_-_000003.mp4",
        "x/LMNOPQRSTUV_000000_000010.mp4": "LMNOPQRSTUV_000000_000010.mp4",
    }
    put(clip, *(src / path for path in good))
    (src / "bad").mkdir()
    (src / "bad" / "emptyemptye_000001_000003.mp4").touch()
    (src / "bad" / "textXXtextX_000001_000003.mp4").write_text("not a video")
    cut_off(clip, src / "bad" / "truncatedXX_000001_000003.mp4")
    put(clip, src / "bad" / "other name.mp4", src / "bad" / "abcdefghijk_5_7.part")
    put(clip, src / ".tmp" / "run-1" / "halfhalfhal_000001_000003.mp4")
    put(clip, tmp_path / "outside" / "outsideXXXX_000001_000003.mp4")
    with av.open(str(clip)) as container:  # cut between two packets: ffmpeg says nothing of it
        ends = sorted(
            (packet.pos or 0) + packet.size for packet in container.demux() if packet.size
        )
    cut = src / "bad" / "cutbetween__000001_000003.mp4"
    cut.write_bytes(clip.read_bytes()[: ends[-8]])
    (src / "bad" / "loop").symlink_to(src)
    (src / "bad" / "out").symlink_to(tmp_path / "outside")
    (src / "linklinklin_000001_000003.mp4").symlink_to(clip)
    (src / "empty before").mkdir()
    before = files_below(src)

    said = reorg(src, dst, "--dry_run")
    assert "8 clips in 8 files (.mp4 8)" in said
    assert "ignored      5 other files (symlink 3, " in said
    assert files_below(src) == before and not dst.exists()

    said = reorg(src, dst, code=1)
    assert "4 left, 4 moved" in said and "on disk: 4 of 8 clips" in said
    assert names(dst) == set(good.values())
    assert all((dst / name).read_bytes() == clip.read_bytes() for name in good.values())
    assert set(files_below(src)) == set(before) - set(good)
    report = report_of(dst)
    assert report["bad/emptyemptye_000001_000003.mp4"] == ("left", "the file is empty")
    assert report["bad/truncatedXX_000001_000003.mp4"][0] == "left"
    assert "incomplete" in report["bad/cutbetween__000001_000003.mp4"][1]
    assert report["b/c/-_-_-_-_-_-_3.MP4".partition("/")[2]] == ("moved", "")
    assert report["x/LMNOPQRSTUV_000000_000010.mp4"] == (
        "moved",
        "lasts 2.00 s; a clip of this name lasts 10 s",
    )
    assert (src / "jogging").is_dir()

    reorg(src, dst, "--remove_empty", code=1)
    assert not (src / "jogging").exists() and not (src / "it's").exists()
    assert (src / "empty before").is_dir()
    assert (src / "bad" / "other name.mp4").exists()
    assert (tmp_path / "outside" / "outsideXXXX_000001_000003.mp4").exists()


def test_two_files_for_one_clip(tmp_path: Path, clip: Path, longer: Path) -> None:
    src, dst, aside = tmp_path / "src", tmp_path / "dst", tmp_path / "aside"
    put(clip, src / "a" / "identicalXX_1_3.mp4", src / "b" / "identicalXX_000001_000003.mp4")
    put(clip, src / "b" / "truncatedXX_000001_000003.mp4")
    cut_off(longer, src / "a" / "truncatedXX_000001_000003.mp4")
    put(clip, src / "a" / "longerXXXXX_1_4.mp4")
    put(longer, src / "b" / "longerXXXXX_1_4.mp4")
    before = sorted(files_below(src).values())
    reorg(src, dst)
    assert (dst / "truncatedXX_000001_000003.mp4").read_bytes() == clip.read_bytes()
    assert (dst / "longerXXXXX_000001_000004.mp4").read_bytes() == longer.read_bytes()
    report = report_of(dst)
    assert report["a/longerXXXXX_1_4.mp4"] == ("duplicate", "shorter: 2.00 s, not 3.00 s")
    assert report["a/truncatedXX_000001_000003.mp4"][0] == "duplicate"
    assert len(files_below(src)) == 3

    reorg(src, dst, "--duplicates", aside)
    assert files_below(src) == {}
    assert len(names(aside)) == 3
    assert (
        sorted([*files_below(aside).values(), *map(Path.read_bytes, dst.glob("*.mp4"))]) == before
    )


def test_a_file_in_place_is_never_written_over(tmp_path: Path, clip: Path, longer: Path) -> None:
    src, dst, aside = tmp_path / "src", tmp_path / "dst", tmp_path / "aside"
    name = "abcdefghijk_000001_000004.mp4"
    put(longer, src / "a" / name)
    put(clip, dst / name)
    said = reorg(src, dst, code=1)
    assert "better than the file in place (shorter: 2.00 s, not 3.00 s)" in said
    assert (dst / name).read_bytes() == clip.read_bytes() and (src / "a" / name).exists()
    reorg(src, dst, "--duplicates", aside)
    assert (dst / name).read_bytes() == longer.read_bytes()
    assert (aside / name).read_bytes() == clip.read_bytes()
    # The other way round, the newcomer is the duplicate; and a second file finds a free name.
    put(clip, src / "a" / name)
    reorg(src, dst, "--duplicates", aside)
    assert (dst / name).read_bytes() == longer.read_bytes()
    assert names(aside) == {name, name.replace(".mp4", ".1.mp4")}


@pytest.mark.parametrize("how", ["--copy", "--link"])
def test_copy_and_link_leave_the_source(tmp_path: Path, clip: Path, how: str) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    put(clip, src / "a" / "abcdefghijk_1_3.mp4", src / "b" / "abcdefghijk_1_3.mp4")
    os.utime(src / "a" / "abcdefghijk_1_3.mp4", (1e9, 1e9))
    before = files_below(src)
    for _ in range(2):
        reorg(src, dst, how)
        assert files_below(src) == before
        assert names(dst) == {"abcdefghijk_000001_000003.mp4"}
    reorg(src, tmp_path / "other", how, "--duplicates", tmp_path / "aside")
    assert files_below(src) == before and not any((tmp_path / "aside").iterdir())
    same = os.path.samefile(src / "b" / "abcdefghijk_1_3.mp4", next(dst.glob("*.mp4")))
    assert same == (how == "--link")
    # A move after --link takes the second name away, and no data.
    reorg(src, dst)
    assert (dst / "abcdefghijk_000001_000003.mp4").read_bytes() == clip.read_bytes()
    assert (src / "a" / "abcdefghijk_1_3.mp4").exists()
    assert (src / "b" / "abcdefghijk_1_3.mp4").exists() == (how == "--copy")


def how_to_move(dst: Path, report: ReportFile | None = None) -> HowToBring:
    opened: Any = SimpleNamespace(report=report)
    return HowToBring(dst, "move", True, None, find_ffmpeg(), frozenset(), opened)


def found_at(path: Path) -> Found:
    return Found(str(path), path.stat().st_size, path.stat().st_mtime_ns)


def test_a_file_that_is_the_clip_itself_is_kept(tmp_path: Path) -> None:
    """The folder has a second name, as on a disk that takes `Data` for `data`; or the clip is a
    link to the file, which has a second name elsewhere."""
    (tmp_path / "src").mkdir()
    path = tmp_path / "src" / "abcdefghijk_000001_000003.mp4"
    path.write_text("the only copy")
    found = found_at(path)

    def same(there: Path) -> Filed:
        return file_same(found, found_at(there), path.name, how_to_move(there.parent))

    (tmp_path / "dst").symlink_to("src")
    assert same(tmp_path / "dst" / path.name).action == "present"
    os.link(path, tmp_path / "second")
    (tmp_path / "link.mp4").symlink_to(path)
    assert same(tmp_path / "link.mp4").action == "present"
    assert path.read_text() == "the only copy"
    assert same(tmp_path / "second").action == "moved"  # a second name goes
    assert not path.exists()


def test_other_containers_are_rewrapped(tmp_path: Path, clip: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    codecs = {
        "matroskaXXX_1_3.mkv": ["-c", "copy"],
        "mpegfourXXX_1_3.avi": ["-c:v", "mpeg4", "-bf", "0", "-c:a", "libmp3lame"],
        "vpnineXXXXX_1_3.webm": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus"],
        "vpeightXXXX_1_3.webm": ["-c:v", "libvpx", "-deadline", "realtime", "-an"],
    }
    for name, options in codecs.items():
        argv = [ffmpeg_path(), "-v", "error", "-i", str(clip), *options, str(src / name)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    reorg(src, dst, code=1)
    assert names(src) == {"vpeightXXXX_1_3.webm"}
    action, reason = report_of(dst)["src/vpeightXXXX_1_3.webm"]
    assert action == "left" and "vp8 cannot go into an mp4" in reason
    for name in ("matroskaXXX", "mpegfourXXX", "vpnineXXXXX"):
        assert frame_numbers(dst / f"{name}_000001_000003.mp4") == list(range(50)), name


def test_without_check_a_broken_file_counts_as_done(tmp_path: Path, clip: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    cut_off(clip, src / "abcdefghijk_1_3.mp4")
    (src / "emptyemptye_1_3.mp4").touch()
    assert "without decoding them" in reorg(src, dst, "--no_check", code=1)
    assert names(dst) == {"abcdefghijk_000001_000003.mp4"}


def test_in_place_and_inside_each_other(tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "clips"
    put(clip, folder / "a" / "abcdefghijk_1_3.mp4", folder / "flatflatfla_000001_000003.mp4")
    put(clip, folder / "unpaddedXXX_1_3.mp4")
    reorg(folder, folder, "--remove_empty")
    expected = {f"{n}_000001_000003.mp4" for n in ("abcdefghijk", "flatflatfla", "unpaddedXXX")}
    assert names(folder) == expected
    reorg(folder, folder / "flat")  # dst inside src
    assert names(folder / "flat") == expected
    assert "0 clips in 0 files" in reorg(folder, folder / "flat")
    reorg(folder / "flat", folder)  # src inside dst
    assert names(folder) - {"flat"} == expected
    assert "use another" in reorg(folder, folder, "--duplicates", folder, code=2)


def test_a_read_only_source(tmp_path: Path, clip: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    put(clip, src / "a" / "abcdefghijk_1_3.mp4")
    (src / "a").chmod(0o555)
    try:
        said = reorg(src, dst, code=1, bound=True)
        assert "use --copy or --link" in said
        assert names(dst) == set() and (src / "a" / "abcdefghijk_1_3.mp4").exists()
        reorg(src, dst, "--copy", bound=True)
        assert names(dst) == {"abcdefghijk_000001_000003.mp4"}
    finally:
        (src / "a").chmod(0o755)


def test_a_file_in_place_returns_if_the_better_one_cannot_be_moved(
    tmp_path: Path, clip: Path, longer: Path
) -> None:
    src, dst, aside = tmp_path / "src", tmp_path / "dst", tmp_path / "aside"
    name = "abcdefghijk_000001_000004.mp4"
    put(longer, src / "a" / name)
    put(clip, dst / name)
    (src / "a").chmod(0o555)
    try:
        assert "use --copy or --link" in reorg(src, dst, "--duplicates", aside, code=1, bound=True)
    finally:
        (src / "a").chmod(0o755)
    assert (dst / name).read_bytes() == clip.read_bytes()
    assert (src / "a" / name).read_bytes() == longer.read_bytes()
    assert names(aside) == set()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to move to")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


def test_between_file_systems(tmp_path: Path, elsewhere: Path, clip: Path) -> None:
    src = tmp_path / "src"
    put(clip, src / "a" / "abcdefghijk_1_3.mp4")
    os.utime(src / "a" / "abcdefghijk_1_3.mp4", (1e9, 1e9))
    assert "use --copy" in reorg(src, elsewhere, "--link", code=1)
    reorg(src, elsewhere, "--remove_empty")
    final = elsewhere / "abcdefghijk_000001_000003.mp4"
    assert final.read_bytes() == clip.read_bytes() and final.stat().st_mtime == 1e9
    assert names(src) == set()
    put(clip, src / "b" / "abcdefghijk_1_3.mp4")
    reorg(src, tmp_path / "dst", "--duplicates", elsewhere)
    put(clip, src / "b" / "abcdefghijk_1_3.mp4")
    reorg(src, tmp_path / "dst", "--duplicates", elsewhere)
    assert names(elsewhere) == {final.name, "abcdefghijk_1_3.mp4"}


def test_only_a_source_that_is_copied_and_removed_is_announced(
    tmp_path: Path, elsewhere: Path, clip: Path
) -> None:
    src = tmp_path / "src"
    for dst, options, announced in (
        (elsewhere / "copied", ["--copy"], []),
        (elsewhere / "moved", [], [str(src / "a" / "abcdefghijk_1_3.mp4")]),
        (tmp_path / "renamed", [], []),
    ):
        put(clip, src / "a" / "abcdefghijk_1_3.mp4", src / "b" / "abcdefghijk_1_3.mp4")
        os.utime(src / "b" / "abcdefghijk_1_3.mp4", (1e9, 1e9))
        reorg(src, dst, *options)
        rows = list(read_report(dst / REPORT, COLUMNS))
        assert [row[0] for row in rows if row[2] == "moving"] == announced
        assert [row[2] for row in rows][-2:] == ["copied" if options else "moved", "duplicate"]


def test_a_source_is_not_removed_without_a_line(tmp_path: Path, elsewhere: Path) -> None:
    path, final = tmp_path / "abcdefghijk_1_3.mp4", elsewhere / "abcdefghijk_000001_000003.mp4"
    path.write_text("a clip")
    with ReportFile(tmp_path / REPORT, COLUMNS) as report:
        how = how_to_move(elsewhere, report)
        how.opened.workspace = elsewhere / "tmp"  # type: ignore[misc]
        (elsewhere / "tmp").mkdir()
        (tmp_path / REPORT).rename(tmp_path / "gone.csv")  # as an unmounted disk
        with pytest.raises(UserError):
            bring(found_at(path), final.name, how)
        assert path.exists() and not final.exists()
        (tmp_path / "gone.csv").rename(tmp_path / REPORT)
        assert bring(found_at(path), final.name, how).action == "moved"
        assert not path.exists() and final.read_text() == "a clip"


def test_a_move_killed_between_copy_and_removal_is_finished(tmp_path: Path, clip: Path) -> None:
    """The state that such a kill leaves; a duplicate that was never being moved stays."""
    src, dst = tmp_path / "src", tmp_path / "dst"
    put(clip, src / "a" / "abcdefghijk_1_3.mp4", dst / "abcdefghijk_000001_000003.mp4")
    put(clip, src / "b" / "abcdefghijk_1_3.mp4")
    with ReportFile(dst / REPORT, COLUMNS) as report:
        name = "abcdefghijk_000001_000003"
        report.append((src / "a" / "abcdefghijk_1_3.mp4", name, "moving", ""))
    reorg(src, dst)
    assert list(files_below(src)) == ["b/abcdefghijk_1_3.mp4"]
    assert report_of(dst)["a/abcdefghijk_1_3.mp4"] == ("moved", "was copied before")
    assert (dst / "abcdefghijk_000001_000003.mp4").read_bytes() == clip.read_bytes()


def test_a_remux_killed_before_the_removal_is_finished(tmp_path: Path, clip: Path) -> None:
    """A source with other frames than the clip is kept, and one that was never being moved."""
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    for name in ("abcdefghijk", "bcdefghijkl", "cdefghijklm"):
        ffmpeg("-i", clip, "-c", "copy", src / f"{name}_1_3.mkv")
    reorg(src, dst, "--copy")
    ffmpeg("-i", clip, "-t", 1, "-c", "copy", src / "bcdefghijkl_1_3.mkv")
    with ReportFile(dst / REPORT, COLUMNS) as report:
        for name in ("abcdefghijk", "bcdefghijkl"):
            report.append((src / f"{name}_1_3.mkv", f"{name}_000001_000003", "moving", ""))
    reorg(src, dst)
    assert names(src) == {"bcdefghijkl_1_3.mkv", "cdefghijklm_1_3.mkv"}
    assert report_of(dst)["src/abcdefghijk_1_3.mkv"] == ("rewrapped", "was remuxed before")


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    contents = {f"{n:011d}_{n % 50:06d}_000090.mp4": f"clip {n}".encode() for n in range(6000)}
    for number, (name, data) in enumerate(contents.items()):
        path = src / str(number % 40) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    running = subprocess.Popen(command(src, dst, "--no_check", "-q"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(dst.glob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.002)
    running.kill()
    running.wait()
    after = {**{p.name: p.read_bytes() for p in src.rglob("*.mp4")}}
    after |= {p.name: p.read_bytes() for p in dst.glob("*.mp4")}
    assert after == contents  # nothing is lost
    assert any(src.rglob("*.mp4")), "killed too late to say anything"
    reorg(src, dst, "--no_check", "--remove_empty")
    assert {p.name: p.read_bytes() for p in dst.glob("*.mp4")} == contents
    assert not any(src.rglob("*.mp4"))


def test_sigterm_stops_in_order(tmp_path: Path, source: Source) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    video = source(seconds=20, fps=25)
    put(video, *(src / f"{n:011d}_000000_000020.mp4" for n in range(40)))
    running = subprocess.Popen(command(src, dst), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(dst.glob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.02)
    started = time.monotonic()
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=30)
    assert time.monotonic() - started < 15
    assert running.returncode == 128 + signal.SIGTERM
    assert "stopping" in said and "stopped after" in said
    assert not (dst / ".tmp").exists()
    assert len(list(src.glob("*.mp4"))) + len(list(dst.glob("*.mp4"))) == 40


def ffmpeg(*arguments: object) -> None:
    subprocess.run([ffmpeg_path(), "-loglevel", "error", "-y", *map(str, arguments)], check=True)


def test_films_as_people_have_them(tmp_path: Path) -> None:
    """Codecs, GOPs and streams that players show are brought in."""
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    film = ["-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=4", "-pix_fmt", "yuv420p"]
    xvid = ["-c:v", "mpeg4", "-vtag", "XVID", "-bf", "2"]
    ffmpeg(*film, *xvid, src / "xvidXXXXXXX_1_5.avi")
    ffmpeg(*film, *xvid, "-bsf:v", "mpeg4_unpack_bframes", src / "unpackedXXX_1_5.avi")
    open_gop = ["-c:v", "libx264", "-bf", "3", "-g", "12", "-x264-params", "open-gop=1"]
    ffmpeg(*film, *open_gop, tmp_path / "open.mp4")
    ffmpeg("-ss", 0.7, "-i", tmp_path / "open.mp4", "-c", "copy", src / "opengopXXXX_1_4.mp4")
    ffmpeg("-f", "lavfi", "-i", "color=s=64x64", "-frames:v", 1, tmp_path / "cover.png")
    both = ["-i", tmp_path / "cover.png", "-i", tmp_path / "open.mp4", "-map", 0, "-map", 1]
    cover = ["-c", "copy", "-disposition:v:0", "attached_pic"]
    ffmpeg(*both, *cover, src / "coverXXXXXX_1_5.mp4")
    reorg(src, dst)
    assert len(names(dst)) == 4
    for path in dst.glob("*.mp4"):
        with av.open(str(path)) as container:
            codec = container.streams.video
            shown = next(s for s in codec if s.codec_context.name in ("h264", "mpeg4"))
            frames = sum(1 for _ in container.decode(shown))
        assert 80 <= frames <= 100 and (path.stem.startswith("opengop") or frames == 100)


def test_a_stop_while_files_are_compared(tmp_path: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    for folder in (src, dst):
        folder.mkdir()
        for number in range(40):
            (folder / f"clip{number:07d}_000001_000003.mp4").write_text("the same bytes")
    slow = (
        "import filecmp, time, reorg_kinetics_videos as script; compare = filecmp.cmp;"
        " filecmp.cmp = lambda *a, **k: time.sleep(0.2) or compare(*a, **k);"
        " script.cli.run_script(script.main)"
    )
    words = [sys.executable, "-c", slow, str(src), str(dst), "--no_check", "--n", "2"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        assert any(line.startswith("stop ") for line in child.stderr)
        time.sleep(0.5)
        child.terminate()
        said = child.stderr.read()
    assert child.returncode == 143 and "Traceback" not in said, said


def test_a_stop_while_a_cluster_is_silent(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(clip, tmp_path / "goodgoodgoo_1_3.mp4")
    (tmp_path / "dst").mkdir()
    to_bring = files_to_bring(scan(tmp_path, []), tmp_path / "dst")
    over = threading.Event()

    def look(*_: object) -> Iterator[object]:
        process.STOP.set()
        over.wait(30)
        yield from ()

    monkeypatch.setattr(parallel, "STOP_SECONDS", 0.5)
    workers = SimpleNamespace(num_jobs=2, run=look)
    how: Any = SimpleNamespace(dst=tmp_path, mode="copy", check=True)
    how.opened = SimpleNamespace(workers=workers)
    try:
        assert list(bring_in(to_bring, how)) == []
    finally:
        over.set()
        process.STOP.clear()


def test_a_folder_that_shows_names_only(tmp_path: Path, clip: Path) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    put(clip, src / "a" / "goodgoodgoo_1_3.mp4", src / "b" / "hiddenhidde_1_3.mp4")
    (src / "b").chmod(0o400)
    said = reorg(src, dst, code=1, bound=True)
    (src / "b").chmod(0o700)
    assert "unreadable   " in said and "1 moved" in said


def test_files_that_are_not_clips_are_left(tmp_path: Path, clip: Path) -> None:
    """Manifests, pipes, looping links and far too long files; each once, with its reason."""
    src, dst = tmp_path / "src", tmp_path / "dst"
    (src / "a").mkdir(parents=True)
    dst.mkdir()
    put(clip, src / "a" / "goodgoodgoo_1_3.mp4", tmp_path / "private.mp4")
    private = (tmp_path / "private.mp4").as_uri()
    (src / "a" / "concatconca_1_3.mp4").write_text(f"ffconcat version 1.0\nfile {private}\n")
    (src / "a" / "dashdashdas_1_3.mp4").write_text(
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
        ' mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4">'
        f'<Representation id="1" bandwidth="1"><BaseURL>{private}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    (src / "a" / "playlistpla_1_3.mp4").write_text(f"#EXTM3U\n#EXTINF:2,\n{private}\n")
    ffmpeg("-stream_loop", 9, "-i", clip, "-c", "copy", src / "a" / "longlonglon_1_3.mp4")
    os.mkfifo(src / "a" / "fifofifofif_1_3.mp4")
    os.mkfifo(dst / "goodgoodgo2_000001_000003.mp4")
    put(clip, src / "a" / "goodgoodgo2_1_3.mp4")
    (src / "a" / "looplooploo_1_3.mp4").symlink_to("looplooploo_1_3.mp4")
    (dst / "looplooploo_000001_000003.mp4").symlink_to("looplooploo_000001_000003.mp4")
    said = reorg(src, dst, code=1)
    assert "1 moved, 5 left" in said or "5 left, 1 moved" in said
    report = report_of(dst)
    assert report["a/goodgoodgoo_1_3.mp4"] == ("moved", "")
    for name in ("concatconca", "dashdashdas", "playlistpla"):
        assert report[f"a/{name}_1_3.mp4"][0] == "left"
    assert report["a/longlonglon_1_3.mp4"][1].endswith(" s long, but its name says 2 s")
    assert report["a/goodgoodgo2_1_3.mp4"] == ("left", "another file of that name is in place")
    assert (tmp_path / "private.mp4").read_bytes() == clip.read_bytes()


def test_names_that_are_not_text(tmp_path: Path, clip: Path) -> None:
    """Bytes that are not UTF-8, and terminal codes: moved like others, shown and written safely."""
    src, dst = tmp_path / "src", tmp_path / "dst"
    latin = os.fsdecode(os.fsencode(src) + b"/caf\xe9 \x1b]0;title\x07")
    codes = "\x1b[31mred\u202e"
    put(clip, Path(latin) / "goodgoodgoo_1_3.mp4", src / codes / "goodgoodgo2_1_3.mp4")
    (Path(latin) / "emptyemptye_1_3.mp4").touch()
    said = reorg(src, dst, "--verbose", "--remove_empty", code=1)
    text = (dst / REPORT).read_text(encoding="utf-8")
    for unsafe in ("\x1b", "\x07", "\u202e", "\udce9"):
        assert unsafe not in said and unsafe not in text
    assert "\\xe9" in said and "\\xe9" in text
    assert len(names(dst)) == 2
    assert Path(latin).exists() and not (src / codes).exists()  # the first still has a file
    (Path(latin) / "emptyemptye_1_3.mp4").unlink()
    reorg(src, dst, "--remove_empty")
    assert not Path(latin).exists()


def test_a_folder_without_clips_is_refused(tmp_path: Path, clip: Path) -> None:
    put(clip, tmp_path / "src" / "holiday.mp4")
    said = reorg(tmp_path / "src", tmp_path / "dst", code=2)
    assert "contains no clips (.mp4 1)" in said and len(said.splitlines()) == 1
    assert not (tmp_path / "dst").exists()
