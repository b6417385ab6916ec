"""The whole pipeline, offline, in a minute: a stand-in for YouTube, real scripts, real clips.

examples:
  python demo.py

Starts the stand-in of tests/standin on this machine, makes a few source videos, writes a list with
live, dead, short, repeated and broken rows, and runs the suite's scripts on it as a user would:
every command is printed, with what it prints. The folder demo_output/ is left to look at.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.standin.server import StandIn
from tests.standin.sources import make_source
from utils.cli import EXIT_INCOMPLETE, EXIT_OK, UserError, make_parser, run_script, say
from utils.files import make_folder

ROOT = Path(__file__).resolve().parent

LIST = """\
label,youtube_id,time_start,time_end,split
juggling,-demo_juggl,3,13,val
juggling,-demo_juggl,12,22,val
yoga,demo_yoga_1,5,15,val
yoga,demo_yoga_1,5,15,val
yoga,demo_short_,14,24,val
yoga,demo_short_,40,50,val
yoga,demo_privat,0,10,val
juggling,demo_remove,0,10,val
juggling,../../evil,0,10,val
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--out", type=Path, default=Path("demo_output"), metavar="DIR", help="where to leave it all"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    out = free_name(args.out)
    make_folder(out)
    started = time.monotonic()
    with StandIn() as standin:
        say(f"making source videos, and a stand-in for YouTube at {standin.api_host}")
        fill(standin, out / "sources")
        listing = out / "list.csv"
        listing.write_text(LIST, encoding="utf-8")
        steps(standin, out, listing)
    say(f"\nall as it should be, in {time.monotonic() - started:.0f} s. Look into {out}/")
    return EXIT_OK


def free_name(path: Path) -> Path:
    """`path`, or `path_2` and on: what an earlier demo left is not written over."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free


def fill(standin: StandIn, folder: Path) -> None:
    """Three videos that play, two that do not."""
    folder.mkdir()
    standin.add_video("-demo_juggl", make_source(folder / "juggling.mp4", seconds=30))
    standin.add_video("demo_yoga_1", make_source(folder / "yoga.mp4", seconds=20, size=(480, 640)))
    standin.add_video("demo_short_", make_source(folder / "short.mp4", seconds=20))
    standin.add_dead("demo_privat", "private")
    standin.add_dead("demo_remove", "removed")


def steps(standin: StandIn, out: Path, listing: Path) -> None:
    clips = out / "clips"
    download = ["download.py", clips, "--input_csv", listing, "--videos_per_hour", 0]
    download += ["--ytdlp_args", standin.ytdlp_args]
    title("A list becomes clips: two videos are dead, one ends early, one row is no clip")
    run(download, expect=EXIT_INCOMPLETE)
    expect_files(clips, "*.mp4", 4)
    title("The same command again asks for nothing that is there or gone for good")
    run([*download, "--quiet"], expect=EXIT_INCOMPLETE)


def title(text: str) -> None:
    say(f"\n=== {text}")


def run(command: Sequence[object], expect: int = EXIT_OK) -> None:
    """Print a command, run it, let it print; a surprising exit code ends the demo."""
    words = [str(word) for word in command]
    say(f"$ python {shlex.join(words)}")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    code = subprocess.run(
        [sys.executable, str(ROOT / words[0]), *words[1:]], env=environment
    ).returncode
    if code != expect:
        raise UserError(f"{words[0]} ended with exit code {code} where {expect} was expected")
    meaning = "  (not all clips are to be had: as it should be here)" if expect else ""
    say(f"[exit code {code}]{meaning}")


def expect_files(folder: Path, pattern: str, count: int) -> None:
    found = len(list(folder.glob(pattern)))
    if found != count:
        raise UserError(f"{folder} holds {found} {pattern} where {count} were expected")


if __name__ == "__main__":
    run_script(main)
