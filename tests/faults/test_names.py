"""Groups 11 and 12: names of folders, links that lead elsewhere, and who else is in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MakeSource
from tests.faults.promise import SMALL, Lab, fingerprint, keeps_promise
from tests.scripts import finish, run
from tests.standin.server import StandIn
from utils.video import ffmpeg

ODD = (
    "with space",
    "%03d %(id)s",
    "a:b",
    "quote'\"`$(touch x);",
    "-dash",
    "ünï\N{SNOWMAN}",
    "n" * 200,
)
SHIM = Path(__file__).with_name("no_case.c")


def test_odd_names_of_folders(tmp_path: Path, standin: StandIn, source: MakeSource) -> None:
    """All in one path, for input and output, through every script that goes over clips."""
    lab = Lab(tmp_path, standin, Path(*ODD))
    lab.video("abcdefghijk", source(**SMALL))
    lab.video("-bcdefghijk", source(**SMALL))
    standin.knobs("-bcdefghijk", status=403, client="ffmpeg")  # through yt-dlp's own file names
    keeps_promise(lab, lab.run(), 0)
    (lab.out / "holiday.mp4").unlink()
    frames, small = tmp_path / "frames" / Path(*ODD), tmp_path / "small" / Path(*ODD)
    assert run("frame_extract.py", lab.out, frames, "--n", "1", cwd=tmp_path).code == 0
    assert run("downscale_videos.py", lab.out, small, "--short_side", "64", cwd=tmp_path).code == 0
    for name in lab.wanted:
        assert len(list((frames / name).glob("*.jpg"))) == 30
        assert (small / f"{name}.mp4").is_file()
    labels = tmp_path / "labels"
    shutil.copytree(lab.out, labels / ODD[3], ignore=shutil.ignore_patterns("*.csv", "notes*"))
    flat = tmp_path / "flat" / Path(*ODD)
    listing = tmp_path / ODD[5]
    lab.list.rename(listing)
    assert run("reorg_kinetics_videos.py", labels, flat, cwd=tmp_path).code == 0
    assert {path.stem for path in flat.glob("*.mp4")} == lab.wanted
    done = run("load_frames.py", flat / f"{min(lab.wanted)}.mp4", cwd=tmp_path)
    assert done.code == 0, done.err
    assert not (tmp_path / "x").exists()


def test_links_that_lead_elsewhere(lab: Lab, source: MakeSource) -> None:
    """A final name that is a dangling link is replaced, and what it names is not made."""
    name = lab.video("abcdefghijk", source(**SMALL))
    outside = lab.folder / "mine" / "outside.mp4"
    (lab.out / f"{name}.mp4").symlink_to(outside)
    keeps_promise(lab, lab.run(), 0)
    assert not outside.exists()
    assert not (lab.out / f"{name}.mp4").is_symlink()


def test_a_temporary_folder_that_is_a_link(lab: Lab, source: MakeSource) -> None:
    lab.video("abcdefghijk", source(**SMALL))
    (lab.out / ".tmp").symlink_to(lab.folder / "mine")
    lab.kept.add(".tmp")
    done = lab.run()
    assert ".tmp" in done.err
    keeps_promise(lab, done, 2, mend=(lab.out / ".tmp").unlink)


@pytest.mark.slow
def test_a_folder_where_a_clip_should_be(lab: Lab, source: MakeSource) -> None:
    name = lab.video("inthewayyyy", source(**SMALL))
    lab.video("besideitttt", source(**SMALL))
    folder = lab.out / f"{name}.mp4"
    (folder / "mine").mkdir(parents=True)
    done = lab.run()
    assert f"a folder has the name of the file: {folder}" in done.err
    assert (folder / "mine").is_dir()
    assert (done.code, lab.clips() - {name}) == (1, lab.wanted - {name})
    (folder / "mine").rmdir()
    folder.rmdir()
    keeps_promise(lab, lab.run(), 0)


def test_two_runs_at_once(lab: Lab, source: MakeSource) -> None:
    for number in range(4):
        lab.video(f"abcdefghij{number}", source(**SMALL))
    pair = [lab.start() for _ in "ab"]
    first, second = (finish(process) for process in pair)
    assert second.code == 0, second.err
    keeps_promise(lab, first, 0)


@pytest.fixture
def no_case(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose files know no case below `out`, as on macOS."""
    compiler = shutil.which("cc")
    if compiler is None or not SHIM.exists():
        pytest.skip("needs a C compiler")
    library = tmp_path / "no_case.so"
    argv = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM), "-ldl"]
    subprocess.run(argv, check=True)
    return {"LD_PRELOAD": str(library), "NO_CASE": str(tmp_path / "out") + "/"}


def test_ids_that_differ_in_case_alone(
    lab: Lab, source: MakeSource, no_case: dict[str, str]
) -> None:
    """On a file system that takes them for one: told, and nothing overwritten."""
    first = lab.video("ABCDEFGHIJK", source(**SMALL))
    second = lab.video("abcdefghijk", source(**SMALL), 2, 3)
    third = lab.video("abcdefghijK", source(**SMALL))
    assert os.environ.get("LD_PRELOAD") is None
    done = lab.run("--n", "1", env=no_case)
    assert done.code == 1
    assert "differs only in case" in done.err
    there = lab.clips()
    assert second in there and len(there & {first, third}) == 1
    assert lab.bad_clips() == []
    before = fingerprint(lab.out)
    again = lab.run("--n", "1", env=no_case)
    assert again.code == 1 and "differs only in case" in again.err
    for name in there:
        path = f"{name}.mp4"
        assert fingerprint(lab.out)[path] == before[path]
    # On a file system that tells them apart the same command brings what is left.
    keeps_promise(lab, lab.run(), 0)


def test_bytes_that_are_not_utf8_and_private_characters_reach_ffmpeg_as_they_are() -> None:
    name = "a\udc80\udcff\U0010dd00\U0010ffff\u00e9"
    assert ffmpeg._shown(ffmpeg._hidden(name)) == name
