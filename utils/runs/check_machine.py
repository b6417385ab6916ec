"""The links of download.py --check that lie on this machine: packages, tools, the folder.

Each is a function of the options and a temporary folder that yields findings.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from importlib import metadata
from pathlib import Path

from filelock import FileLock

from utils.errors import UserError
from utils.files import free_bytes
from utils.lists.reading import find_lists
from utils.packages import check_packages, describe, module_of, numbers, required
from utils.process import run_child
from utils.runs.download_plan import make_plan, read_wanted
from utils.runs.finding import NOT_OK, NOTE, OK, Finding
from utils.video.ffmpeg import find_ffmpeg, last_line

INSTALL = "pip install -U -r requirements.txt"
OLD_DAYS = 60  # YouTube changes faster than that
BYTES_A_CLIP, BYTES_A_SMALL_CLIP = 1_200_000, 600_000  # 10 s at CRF 20: 480 lines; 256

NOT_IMPORTED = ("deno", "yt-dlp-ejs")  # a program, and scripts


def check_python(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """Python, and every package: there, in a release that will do, imports.

    Releases that are known to be bad lie outside of the bounds in requirements.txt.
    """
    problems = []
    for package in required():
        try:
            check_packages(package)
            if package not in NOT_IMPORTED:
                importlib.import_module(module_of(package))
        except UserError as error:
            problems.append(str(error).partition(": pip")[0])
        except Exception as error:  # a package may fail to import in any way it likes
            problems.append(f"{package} does not import: {describe(error)}")
    python = f"Python {platform.python_version()}"
    if problems:
        yield Finding("packages", NOT_OK, f"{python}; {'; '.join(problems)}", INSTALL)
    else:
        yield Finding("packages", OK, f"{python}, {len(required())} packages")


def check_ffmpeg(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """ffmpeg runs, and has what every clip needs."""
    tool = find_ffmpeg(args.ffmpeg)
    encoders = run_child([tool.path, "-hide_banner", "-encoders"], timeout=60).stdout.split()
    protocols = run_child([tool.path, "-hide_banner", "-protocols"], timeout=60).stdout.split()
    lacks = [name for name in ("libx264", "aac") if name not in encoders]
    lacks += [name for name in ("https",) if name not in protocols]
    text = f"ffmpeg {tool.version}, {tool.path}"
    if lacks:
        todo = f"{INSTALL}, or --ffmpeg PATH of one that has it"
        yield Finding("ffmpeg", NOT_OK, f"{text}, has no {', '.join(lacks)}", todo)
    else:
        yield Finding("ffmpeg", OK, f"{text}: libx264, aac, https")


def check_js_runtime(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """YouTube's player is JavaScript: deno runs a line of it."""
    places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    path = shutil.which("deno", path=places)
    if path is None:
        yield Finding("JavaScript", NOT_OK, "no deno, which YouTube needs", INSTALL)
        return
    cache = {**os.environ, "DENO_DIR": str(folder / "deno"), "NO_COLOR": "1"}
    done = run_child([path, "eval", "console.log(6 * 7)"], timeout=60, env=cache)
    if done.returncode != 0 or done.stdout.strip() != "42":
        text = f"{path} does not run: {last_line(done) or 'no answer'}"
        yield Finding("JavaScript", NOT_OK, text, INSTALL)
    else:
        yield Finding("JavaScript", OK, f"{path} runs")


def check_ytdlp(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """How old yt-dlp is: its releases are named after their day."""
    version = metadata.version("yt-dlp")
    try:
        age = (date.today() - date(*numbers(version))).days
    except (TypeError, ValueError):
        yield Finding("yt-dlp", NOTE, f"{version}, of an unknown day")
        return
    if age > OLD_DAYS:
        text = f"{version} is {age} days old, and YouTube changes faster"
        yield Finding("yt-dlp", NOT_OK, text, 'pip install -U "yt-dlp[deno]" yt-dlp-ejs')
    else:
        yield Finding("yt-dlp", OK, f"{version}, {max(0, age)} days old")


def check_folder(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """The output folder: written to, renamed in, linked in, locked between processes."""
    if args.out is None:
        return
    out = args.out.absolute()
    place = out
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        yield Finding("folder", NOT_OK, f"{place} is a file", "name a folder for the clips")
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".check-", dir=place) as inner:
            notes = _try_folder(Path(inner))
    except OSError as error:
        text = f"{place} cannot be written: {error.strerror}"
        yield Finding("folder", NOT_OK, text, "name another, or mend its permissions")
        return
    where = f"{out}: can be written, renamed in" + ("" if out.exists() else ", will be made")
    yield Finding("folder", NOTE if notes else OK, "; ".join([where, *notes]))


def _try_folder(inner: Path) -> list[str]:
    """What the file system of `inner` cannot do. Raises OSError where it cannot be used."""
    notes = []
    (inner / "a").write_bytes(b"a")
    os.replace(inner / "a", inner / "b")
    try:
        os.link(inner / "b", inner / "c")
    except OSError:
        notes.append("no hard links: clips of other folders are copied")
    if not _locks_hold(inner / "lock"):
        notes.append("locks do not hold between processes: one run at a time in this folder")
    return notes


def _locks_hold(path: Path) -> bool:
    """Whether another process sees a lock of this one."""
    other = (
        "import sys; from filelock import FileLock, Timeout\n"
        "try: FileLock(sys.argv[1], timeout=0).acquire()\n"
        "except Timeout: sys.exit(7)\n"
    )
    with suppress(OSError, NotImplementedError), FileLock(path, timeout=0):
        argv = [sys.executable, "-c", other, str(path)]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=60).returncode == 7
    return False


def check_room(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """Free space against what the lists still want; lists that are not here are not fetched."""
    if args.out is None:
        return
    free = free_bytes(args.out.absolute())
    try:
        find_lists(args.input_csv)
        plan = make_plan(read_wanted(args.input_csv, args), args.out.absolute(), args)
    except UserError as error:
        yield Finding("room", NOTE, f"{free / 1e9:,.1f} GB free; what is wanted is open: {error}")
        return
    needed = len(plan.to_fetch) * bytes_a_clip(args)
    text = f"{free / 1e9:,.1f} GB free, {len(plan.to_fetch):,} clips need about"
    text += f" {needed / 1e9:,.1f} GB"
    if needed > free:
        yield Finding(
            "room", NOT_OK, text, "make room; --short_side 256 halves it, --shard divides it"
        )
    else:
        yield Finding("room", OK, text)


def bytes_a_clip(args: argparse.Namespace) -> int:
    """What a clip takes at most, about, at the size that is asked for."""
    return BYTES_A_SMALL_CLIP if args.short_side and args.short_side <= 256 else BYTES_A_CLIP
