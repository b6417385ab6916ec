"""Group 14: tools that are missing, too old or broken. Each is told before the first clip.

A broken package is one that lies first on PYTHONPATH; a broken ffmpeg is a script of that name.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeSource
from tests.faults.promise import SMALL, Lab, keeps_promise
from tests.scripts import finish
from utils.video.ffmpeg import find_ffmpeg

NO_WHEEL = "raise ImportError('not here')"
OLD_FFMPEG = "#!/bin/sh\necho 'ffmpeg version 4.4.1 Copyright (c) the FFmpeg developers'\n"
# A real one but for its encoders.
BARE_FFMPEG = """#!/bin/sh
case "$*" in *encoder=*) echo "Codec is not recognized by FFmpeg."; exit 0;; esac
exec {real} "$@"
"""
NO_PROGRAM = "#!/bin/sh\necho 'error while loading shared libraries: libx.so.1' >&2\nexit 127\n"
META = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
CRASHES = "raise RuntimeError('yt-dlp is broken')"

# name: files that lie first, more options, what the one line says
CASES: dict[str, tuple[dict[str, str], list[str], str]] = {
    "no ffmpeg": ({"imageio_ffmpeg.py": NO_WHEEL}, [], "ffmpeg not found: pip install -r"),
    "no such ffmpeg": ({}, ["--ffmpeg", "{first}/none"], "/none: No such file"),
    "ffmpeg does not run": ({"ff": NO_PROGRAM}, ["--ffmpeg", "{first}/ff"], "libx.so.1"),
    "old ffmpeg": (
        {"ff": OLD_FFMPEG},
        ["--ffmpeg", "{first}/ff"],
        "is ffmpeg 4.4.1, and the suite works with 5.1 or newer: pip install -U -r",
    ),
    "ffmpeg without libx264": (
        {"ff": BARE_FFMPEG},
        ["--ffmpeg", "{first}/ff"],
        "has no libx264: pip install -U -r requirements.txt",
    ),
    "old yt-dlp": (
        {"yt_dlp-2023.1.6.dist-info/METADATA": META.format(name="yt-dlp", version="2023.1.6")},
        [],
        "yt-dlp 2023.1.6 is installed, and the suite works with 2026.10.26 or newer:"
        " pip install -U -r requirements.txt",
    ),
    "yt-dlp crashes": (
        {"yt_dlp/__init__.py": "", "yt_dlp/__main__.py": CRASHES},
        [],
        "yt-dlp does not start (RuntimeError: yt-dlp is broken): pip install -U -r",
    ),
    "unknown argument": ({}, ["--ytdlp_args", "--no-such-option"], "no such option: --no-such"),
}


def lay_first(lab: Lab, files: dict[str, str]) -> Path:
    first = lab.folder / "mine" / "first"
    first.mkdir()
    for name, text in files.items():
        path = first / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("{real}", find_ffmpeg().path))
        path.chmod(0o755)
    return first


@pytest.mark.parametrize("name", CASES)
def test_told_before_the_first_clip(name: str, lab: Lab, source: MakeSource) -> None:
    files, options, says = CASES[name]
    for number in range(3):
        lab.video(f"abcdefghij{number}", source(**SMALL))
    first = lay_first(lab, files)
    env = {"PYTHONPATH": str(first), "PATH": str(first), "PYTHONDONTWRITEBYTECODE": "1"}
    more = [option.format(first=first) for option in options]
    done = finish(lab.start(*more, env=env))
    assert says in done.err.splitlines()[-1], done.err
    assert lab.standin.requests() == []
    assert lab.report() == {}
    if name == "yt-dlp crashes":
        keeps_promise(lab, done, 2)
    assert done.code == 2


def test_no_javascript_runtime(lab: Lab) -> None:
    """A folder of links to all packages but deno's, in place of site-packages."""
    lab.standin.add_dead("no_js______", "no_format")
    lab.want("no_js______", lost=True)
    packages = lab.folder / "packages"
    packages.mkdir()
    for path in (Path(pytest.__file__).parent.parent).iterdir():
        if not path.name.startswith("deno"):
            (packages / path.name).symlink_to(path)
    env = {"PYTHONPATH": str(packages), "PATH": "/usr/bin:/bin", "PYTHONNOUSERSITE": "1"}
    process = lab.start("-q", through=[sys.executable, "-S", "-c", EXEC], env=os.environ | env)
    done = finish(process)
    assert "no JavaScript runtime, which YouTube requires: pip install -U -r" in done.err


EXEC = """
import os, sys
# -S, and what was put behind: no site-packages but PYTHONPATH's.
os.execv(sys.argv[1], [sys.argv[1], "-S", *sys.argv[2:]])
"""
