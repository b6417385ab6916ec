"""What a machine may have or lack: releases of packages, memory, patience. Each told in one line.

A broken package is one that lies first on PYTHONPATH: the scripts themselves run as a user's do.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import MakeSource
from tests.scripts import ROOT, Done, environment, link_clips, write_list
from tests.standin.server import StandIn
from utils.errors import Streak, required

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
# Short sleeps: a signal that comes just before a long one would be seen after it.
HANGS = "import time\nopen('here', 'w').close()\nwhile True:\n    time.sleep(0.05)\n"


def run_with(folder: Path, *arguments: object, cwd: Path) -> Done:
    """A script whose packages are first looked for in `folder`."""
    done = subprocess.run(
        [sys.executable, str(ROOT / str(arguments[0])), *map(str, arguments[1:])],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(cwd) | {"PYTHONPATH": str(folder)},
        timeout=100,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def shadow(folder: Path, name: str, text: str) -> Path:
    """A file that lies before the installed package of that name."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder


def installed(folder: Path, package: str, version: str) -> Path:
    """`package` as pip would list it in another release."""
    text = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    return shadow(folder, f"{package}-{version}.dist-info/METADATA", text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_while_python_imports(script: str, tmp_path: Path) -> None:
    folder = shadow(tmp_path / "first", "argparse.py", HANGS)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / script), "--help"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )
    until = time.monotonic() + 30
    while not (tmp_path / "here").exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=10)[1]
    assert (process.returncode, err) == (130, "stopped\n")


def test_a_package_that_does_not_import(tmp_path: Path) -> None:
    folder = shadow(tmp_path / "first", "psutil.py", "raise ImportError('libfoo.so.3: not found')")
    done = run_with(folder, "download.py", "out", cwd=tmp_path)
    assert done.code == 2
    assert done.err == (
        "error: a package is missing or broken (libfoo.so.3: not found):"
        " pip install -U -r requirements.txt\n"
    )


@pytest.mark.parametrize(
    ("script", "arguments", "version"),
    [
        ("download.py", ["out", "--input_csv", ROOT / "examples/kinetics_sample.csv"], "17.9.1"),
        ("frame_extract.py", ["in", "out", "--fps", "2"], "20.0.0"),
        ("downscale_videos.py", ["in", "out"], "20.0.0"),
    ],
)
def test_a_release_that_was_not_tried(
    script: str, arguments: list[object], version: str, tmp_path: Path
) -> None:
    folder = installed(tmp_path / "first", "av", version)
    (tmp_path / "in").mkdir()
    done = run_with(folder, script, *arguments, cwd=tmp_path)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert f"PyAV {version} is installed, and the suite works with 18.1 or newer, below 20" in (
        done.err
    )


@pytest.mark.parametrize("script", ["frame_extract.py", "downscale_videos.py"])
def test_what_every_clip_meets_ends_the_run(
    script: str, tmp_path: Path, source: MakeSource
) -> None:
    """A PyAV that lacks what we call, in a release that says nothing of it."""
    clip = source(seconds=0.4, fps=25)
    videos = link_clips(tmp_path / "in", **{f"clip{n}": clip for n in range(12)})
    broken = (
        "import av\n"
        "def open(file, mode='r', *, container_options=None):\n    pass\n"
        "av.open = open\n"
    )
    folder = shadow(tmp_path / "first", "sitecustomize.py", broken)
    more = ["--fps", "2"] if script == "frame_extract.py" else []
    done = run_with(folder, script, videos, "out", "--n", "1", *more, cwd=tmp_path)
    assert done.code == 2
    last = done.err.splitlines()[-1]
    assert "5 clips in a row failed with the same error: TypeError: " in last
    assert "unexpected keyword argument" in last
    assert "pip install -U -r requirements.txt" in last


def test_what_every_clip_meets_ends_a_download(
    tmp_path: Path, source: MakeSource, standin: StandIn
) -> None:
    names = [f"everyclip{number:02d}" for number in range(12)]
    for name in names:
        standin.add_video(name, source(seconds=6, size=(256, 144)))
    listing = write_list(tmp_path / "list.csv", [f"{name},3,5" for name in names])
    broken = "import av\ndef open(file):\n    pass\nav.open = open\n"
    folder = shadow(tmp_path / "first", "sitecustomize.py", broken)
    options = ["--ytdlp_args", standin.ytdlp_args, "--videos_per_hour", "0", "--n", "1"]
    done = run_with(folder, "download.py", "out", "--input_csv", listing, *options, cwd=tmp_path)
    assert done.code == 2, done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("error: 5 clips in a row failed with the same error: TypeError: ")
    assert "pip install -U -r requirements.txt" in last
    assert len(standin.requests(target="player")) <= 7


def test_one_odd_file_costs_itself() -> None:
    streak = Streak()
    for _ in range(4):
        streak.add(False, "TypeError: x (av 19.0.2)")
    streak.add(True, "")
    streak.add(False, "cannot be read: Invalid data")
    for _ in range(4):
        streak.add(False, "TypeError: x (av 19.0.2)")
    assert not streak.is_hopeless
    streak.add(False, "TypeError: x (av 19.0.2)")
    assert streak.is_hopeless
    assert "(av 19.0.2): pip install -U" in str(streak.problem())


@pytest.mark.skipif(sys.platform != "linux", reason="needs ulimit -v")
@pytest.mark.parametrize(
    "megabytes", [200, 500, *(pytest.param(n, marks=pytest.mark.slow) for n in (350, 650))]
)
def test_little_memory_is_told_in_one_line(
    megabytes: int, tmp_path: Path, source: MakeSource
) -> None:
    videos = link_clips(tmp_path / "in", **{f"clip{n}": source(seconds=0.4) for n in range(2)})
    script = [sys.executable, str(ROOT / "frame_extract.py"), str(videos), "out", "--fps", "2"]
    done = subprocess.run(
        ["sh", "-c", f'ulimit -v {megabytes * 1000}; exec "$@"', "sh", *script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1, 2), done.stderr


def test_every_requirement_has_a_lower_bound_that_ci_runs() -> None:
    """.ci/run pins what `required` finds: a line that it cannot read would not be run."""
    lines = [
        line
        for name in ("requirements.txt", "requirements-loader.txt")
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.lstrip().startswith(("#", "-r "))
    ]
    assert len(lines) == len(required())
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "from utils.errors import required" in ci
    table = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    for package, (lowest, _) in required().items():
        row = re.search(rf"^\| {re.escape(package)} \| (\S+) \|", table, re.MULTILINE)
        assert row is not None, f"docs/install.md has no row for {package}"
        assert row[1] == lowest, f"docs/install.md: {package} was tried at {row[1]}"
