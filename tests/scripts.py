"""Runs the suite's scripts as a user does: in a child process, in a folder of the test's own."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import psutil

from utils.cli import run_script

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def environment(folder: Path) -> dict[str, str]:
    """No caches outside of the test's folder, and no terminal's width in the help."""
    return os.environ | {"XDG_CACHE_HOME": str(folder / ".cache"), "COLUMNS": "100"}


def start(
    script: str, *arguments: object, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a script and do not wait for it; `env` is added to its environment."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        env=environment(cwd) | dict(env or {}),
    )


def finish(process: subprocess.Popen[str], timeout: float = 400) -> Done:
    """Wait for a script; its children must have ended with it."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {timeout} s:\n{err}") from None
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


def run(script: str, *arguments: object, cwd: Path, timeout: float = 400) -> Done:
    """Run a script to its end."""
    return finish(start(script, *arguments, cwd=cwd), timeout)


def run_here(script: str, *arguments: object, cwd: Path) -> Done:
    """Run a script's `main` in this process: for what ends before any work, as a usage error does.

    Starting a process takes 0.3 s, most of it imports.
    """
    module = importlib.import_module(script.removesuffix(".py"))
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", [str(ROOT / script), *map(str, arguments)]),
        mock.patch.dict(os.environ, environment(cwd)),
    ):
        try:
            run_script(module.main)
        except SystemExit as end:
            return Done(int(end.code or 0), out.getvalue(), err.getvalue())


def next_commands(printed: str) -> list[list[str]]:
    """The commands of the `next:` lines, each checked to be one that a shell can run as it is."""
    commands = []
    for line in printed.splitlines():
        if line.startswith("next: "):
            words = shlex.split(line.removeprefix("next: "))
            assert re.fullmatch(r"(.*/)?python[\d.]*", words[0]), line
            placeholder = re.compile(r"[A-Z]{3,}|<.*>|.*\.\.\.|.*\bLAST\b.*")
            assert not any(placeholder.fullmatch(word) for word in words), line
            if "-c" in words:
                compile(words[words.index("-c") + 1], "next", "exec")
            commands.append(words)
    return commands


def write_list(
    path: Path, rows: Iterable[str], header: str = "youtube_id,time_start,time_end"
) -> Path:
    """A download list with these rows."""
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def link_clips(folder: Path, **clips: Path) -> Path:
    """A folder of clips: links, for sources are made once."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in clips.items():
        (folder / f"{name}.mp4").symlink_to(path)
    return folder


def report_rows(path: Path) -> dict[str, dict[str, str]]:
    """The report by clip: the last line for a clip counts."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["clip"]: row for row in csv.DictReader(file)}


def children_with(word: str) -> list[psutil.Process]:
    """The processes of this machine that have `word` on their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(word in part for part in process.info["cmdline"] or []):
            found.append(process)
    return found
