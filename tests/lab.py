"""A Dask cluster as its user starts it: `dask scheduler`, and `dask worker` on each machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.scripts import ROOT
from utils.files import MACHINE_VARIABLE


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


class Lab:
    """A context manager. Machines are child processes with names, locks and addresses of theirs."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder
        self._children: list[subprocess.Popen[bytes]] = []
        self.log = folder / "dask.log"
        where = folder / "scheduler.json"
        self.scheduler = self._start(
            *(sys.executable, "-m", "distributed.cli.dask_scheduler"),
            *("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(where)),
            *("--no-dashboard", "--no-show", *more),
        )
        wait_for(lambda: where.exists() and where.read_text().strip().endswith("}"))
        self.address: str = json.loads(where.read_text())["address"]

    def wait_for_workers(self, count: int) -> None:
        """Until so many have come, in all."""
        wait_for(lambda: self.log.read_text().count("Starting worker compute stream") >= count)

    def cpu_seconds(self) -> float:
        """Of the scheduler, the workers, and what they have started and is running."""
        total = 0.0
        for child in self._children:
            head = psutil.Process(child.pid)
            for process in (head, *head.children(recursive=True)):
                used = process.cpu_times()
                total += used.user + used.system
        return total

    def machine(
        self, name: str, hidden: Path | None = None, packages: Path | None = None, **more: str
    ) -> subprocess.Popen[bytes]:
        """A worker on a machine of that name.

        hidden: a folder that is another one there; packages: those in there come first.
        """
        locks = self.folder / f"locks of {name}"
        locks.mkdir(exist_ok=True)
        far_machine = ROOT / "tests" / "far_machine"
        far = {
            MACHINE_VARIABLE: name,
            "PYTHONPATH": os.pathsep.join(map(str, filter(None, (far_machine, packages)))),
            "FAR_LOCKS": str(locks),
        }
        hide = f'mount -t tmpfs tmpfs "{hidden}" && exec "$@"'
        return self._start(
            *(["unshare", "--mount", "sh", "-c", hide, "-"] if hidden else []),
            *(sys.executable, "-m", "distributed.cli.dask_worker", self.address),
            *("--name", name, "--nthreads", "1", "--no-nanny", "--no-dashboard"),
            *("--local-directory", str(self.folder / "scratch")),
            **far | more,
        )

    def _start(self, *command: str, **more: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | {"TMPDIR": str(self.folder)} | more,
                start_new_session=True,
            )
        self._children.append(process)
        return process

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._children:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
