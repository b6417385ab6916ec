"""Fixtures that the tests share: videos made once per run, and a stand-in per test.

Tests whose module starts something large (a browser, a cluster) have an `xdist_group`, so that one
worker of `pytest -n` runs them all and starts it once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import clip_kinds
from tests.standin.server import StandIn
from tests.standin.sources import cached_source, ffmpeg_path

MakeSource = Callable[..., Path]
RunYtdlp = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure() -> None:
    """What a `nohup` or an `&` before pytest ignores, the scripts that it starts would, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of the run share."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    (folder / "shared").mkdir(exist_ok=True)
    return folder / "shared"


@pytest.fixture(scope="session")
def source(shared_folder: Path) -> MakeSource:
    """`source(seconds=20, ...)`: as `make_source`, but every kind of video is made once per run."""
    return lambda **options: cached_source(shared_folder / "sources", **options)


@pytest.fixture(scope="session")
def clip(shared_folder: Path) -> Callable[[str], Path]:
    """`clip(name)`: a clip of `tests.clip_kinds.KINDS`, made once per run."""
    return lambda name: clip_kinds.make(shared_folder, name)


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def ytdlp(tmp_path: Path) -> RunYtdlp:
    """Runs the real yt-dlp in a process of its own, in the test's folder."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "yt_dlp", "--ignore-config", "--no-cache-dir"]
        command += ["--ffmpeg-location", ffmpeg_path(), *arguments]
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
            env=environment,
            timeout=120,
        )

    return run
