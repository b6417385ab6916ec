"""The stage of demo.py: runs scripts as a user would, prints every command, checks what it wrote.

Beside the stand-in, above `server`; knows no single step of the demo.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.standin.server import StandIn
from utils.cli import EXIT_OK, say
from utils.errors import UserError
from utils.process import STOP, Stopped

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Stage:
    """The folder that everything happens in, and the stand-in that it comes from."""

    folder: Path
    standin: StandIn

    def run(self, script: str, *words: object, expect: int = EXIT_OK, because: str = "") -> None:
        """Print a command, run it, let it print; a surprising exit code ends the demo."""
        path = os.path.relpath(ROOT / script, self.folder)
        arguments = [str(word) for word in words]
        shown = shlex.join([path, *arguments])
        # A long word, and the same each time: main printed it.
        shown = shown.replace(shlex.quote(self.standin.ytdlp_args), '"$STANDIN"')
        say(f"$ python {shown}")
        code = run_to_end([sys.executable, path, *arguments], self.folder)
        if code != expect:
            raise UserError(f"{script} ended with exit code {code} where {expect} was expected")
        if expect:
            say(f"[exit code {code}, as it should be here: {because}]")

    def download(
        self, out: str, listing: str, *more: object, expect: int = EXIT_OK, because: str = ""
    ) -> None:
        """download.py on the stand-in, which has no rate limit."""
        words = [out, "--input_csv", listing, *more, "--videos_per_hour", 0]
        words += ["--ytdlp_args", self.standin.ytdlp_args]
        self.run("download.py", *words, expect=expect, because=because)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def expect(self, folder: str, *names: str) -> None:
        """The folder holds these files (report and hidden ones aside) and no other."""
        found = {p.name for p in (self.folder / folder).iterdir() if p.name[0] != "."}
        found = {name for name in found if not name.endswith("_report.csv")}
        if found != set(names):
            raise UserError(f"{folder} holds {sorted(found)} where {sorted(names)} was expected")


def free_name(path: Path) -> Path:
    """`path`, or `path_2` and on: what an earlier demo left is not written over."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free


def run_to_end(argv: Sequence[str], folder: Path) -> int:
    """The exit code of a script that prints to our terminal. Raises Stopped on a signal."""
    if STOP.is_set():
        raise Stopped
    # A session of its own: Ctrl-C reaches it once, from here, and it ends in order.
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    while True:
        try:
            return process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            if STOP.is_set():
                process.terminate()
                process.wait()
                raise Stopped from None
