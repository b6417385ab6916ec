"""The stage of demo.py: run scripts as a user would, print each command, check what it wrote."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.standin.server import StandIn
from utils.cli import EXIT_OK, say
from utils.errors import UserError
from utils.process import STOP, Stopped

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Stage:
    """The folder that everything happens in, and the stand-in that the videos come from."""

    folder: Path
    standin: StandIn
    step: str = ""  # its output goes to examples/<step>.txt: docs show some (tests/docs_tables.py)

    def run(self, script: str, *words: object, expect: int = EXIT_OK, because: str = "") -> None:
        """Print a command, run it, let it print; a surprising exit code ends the demo."""
        path = os.path.relpath(ROOT / script, self.folder)
        arguments = [str(word) for word in words]
        shown = shlex.join([path, *arguments])
        # A long word, and the same each time: main printed it.
        hidden = shlex.quote(self.standin.ytdlp_args), '"$STANDIN"'
        shown = shown.replace(*hidden)
        say(f"$ python {shown}")
        code, lines = run_to_end([sys.executable, path, *arguments], self.folder, hidden)
        example = self.folder / "examples" / f"{self.step}.txt"
        example.parent.mkdir(exist_ok=True)
        with example.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in [f"$ python {shown}", *lines]))
        if code != expect:
            raise UserError(f"{script} ended with exit code {code}, but {expect} was expected")
        if expect:
            say(f"[exit code {code}, as expected: {because}]")

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
        """Check that the folder contains these files and no others (reports do not count)."""
        found = {p.name for p in (self.folder / folder).iterdir() if p.name[0] != "."}
        found = {name for name in found if not name.endswith("_report.csv")}
        if found != set(names):
            raise UserError(f"{folder} contains {sorted(found)}, but {sorted(names)} was expected")


def free_name(path: Path) -> Path:
    """`path`, or `path_2` and so on: the output of an earlier demo is kept."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free


def run_to_end(argv: Sequence[str], folder: Path, hidden: tuple[str, str]) -> tuple[int, list[str]]:
    """The exit code of a script, and the lines that it printed. Raises Stopped on a signal.

    hidden: a text, and what is shown in its place.
    """
    if STOP.is_set():
        raise Stopped
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # A session of its own: Ctrl-C reaches it once, from here, and it ends in order.
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PATH": path},  # so that `next:` says python
        start_new_session=True,
    )
    lines: list[str] = []

    def show() -> None:
        for line in process.stdout or ():
            say(line.rstrip("\n").replace(*hidden))
            lines.append(line.rstrip("\n"))

    showing = threading.Thread(target=show)
    showing.start()
    while process.poll() is None:
        if STOP.wait(0.05):
            process.terminate()
            process.wait()
    showing.join()
    if STOP.is_set():
        raise Stopped
    return process.returncode, lines
