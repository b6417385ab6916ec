"""Which workers of a Dask cluster take part in the run: asked before they get a clip, and watched.

Under `cluster/head`. A worker that joins late is asked as well; one that is lost is told.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed import Client, Future

from utils.cli import plural
from utils.cluster.sending import call_outpost
from utils.cluster.tasks import TOKEN, Finding, Question
from utils.process import STOP

ANSWER_SECONDS = 60.0
LOOK_SECONDS = 1.0
_POLL_SECONDS = 0.02


class Members:
    """The workers by address. `tell` is given a line for each that is left out, joins or is lost.

    ask: what a worker does with a Question. ours: what the run itself has, to compare.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        workspace: Path,
        ask: Callable[[Question], Finding],
        question: Question,
        tell: Callable[[str], None],
    ) -> None:
        self.client, self.name, self.workspace, self.tell = client, name, workspace, tell
        self.question = question
        (workspace / TOKEN).write_text(question.token, encoding="utf-8")
        self._frame = pickle.dumps(("", pickle.dumps(ask), pickle.dumps(question)))
        self._ours = ask(question)
        (workspace / self._ours.token).unlink(missing_ok=True)
        self.fit: dict[str, str] = {}  # address -> machine
        self.threads: dict[str, int] = {}
        self.left_out: dict[str, str] = {}  # address -> why, with its host
        self.last: list[str] = []  # the addresses that were fit when there were any
        self._seeing = threading.Lock()  # the watcher's thread, and the main one at a run's end
        self._asked: dict[str, tuple[Future, float]] = {}  # address -> its answer, until when

    def look(self, wait: bool = False) -> None:
        """Ask new workers, and see which are gone.

        wait: for all answers; else one that is slow is taken at a later look, for what a lost
        worker was at must not wait for it.
        """
        there = self.see_lost()
        self.left_out = {each: why for each, why in self.left_out.items() if each in there}
        self._asked = {each: asked for each, asked in self._asked.items() if each in there}
        deadline = time.monotonic() + ANSWER_SECONDS
        known = self.fit.keys() | self.left_out.keys() | self._asked.keys()
        for address in (each for each in there if each not in known):
            self._asked[address] = (self._ask(address), deadline)
        for address, (future, deadline) in list(self._asked.items()):
            if not wait and not future.done() and time.monotonic() < deadline:
                continue
            finding = self._answer(future, deadline)
            if STOP.is_set():
                return
            del self._asked[address]
            if problem := self._problem(finding):
                host = finding.machine or there[address]["host"]
                self.left_out[address] = f"{address} on {host}: {problem}"
                self.tell(f"left out     worker {self.left_out[address]}")
            else:
                self.fit = {**self.fit, address: finding.machine}
        self.last = list(self.fit) or self.last

    def see_lost(self) -> dict[str, Any]:
        """Tell of workers that are gone; what the scheduler says of those that are there."""
        with self._seeing:
            there: dict[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
            for address in self.fit.keys() - there.keys():
                gone = f"worker {address} on {self.fit[address]}"
                self.tell(f"lost         {gone}: what it was at goes to others")
            # New ones in place of the old, for other threads read them at any time.
            self.threads = {address: worker["nthreads"] for address, worker in there.items()}
            self.fit = {address: host for address, host in self.fit.items() if address in there}
        return there

    def machines(self) -> Counter[str]:
        """How many fit workers each machine has."""
        return Counter(self.fit.values())

    def line(self) -> str:
        """`3 workers with 6 threads on 2 machines: node-1 2, node-2 1`"""
        machines = self.machines()
        threads = sum(self.threads[address] for address in self.fit)
        return (
            f"{plural(len(self.fit), 'worker')} with {plural(threads, 'thread')} on"
            f" {plural(len(machines), 'machine')}: "
            + ", ".join(f"{machine} {count}" for machine, count in sorted(machines.items()))
        )

    def _ask(self, address: str) -> Future:
        return self.client.submit(
            call_outpost,
            self.name,
            -1,
            self._frame,
            workers=[address],
            pure=False,
            priority=100,
        )

    def _answer(self, future: Future, deadline: float) -> Finding:
        while not future.done():
            if time.monotonic() > deadline or STOP.wait(_POLL_SECONDS):
                return Finding("", problem=f"no answer in {ANSWER_SECONDS:.0f} s")
        try:
            answer, how = future.result(timeout=ANSWER_SECONDS)
        except Exception as error:  # of dask's own: what the worker raises comes as an answer
            return Finding("", problem=f"{type(error).__name__}: {error}")
        if not answer:
            return Finding("", problem=f"cannot run the code of this run: {how}")
        worked, finding, _ = pickle.loads(answer)
        if not worked:
            return Finding("", problem=finding)
        assert isinstance(finding, Finding)
        return finding

    def _problem(self, finding: Finding) -> str:
        """Why a worker cannot take part; empty if it can."""
        if finding.problem:
            return finding.problem
        for name, ours in self._ours.versions.items():
            its = finding.versions.get(name, "")
            if its != ours:
                return f"it has {name} {its or 'not at all'}, and this run {ours}"
        written = self.workspace / finding.token
        try:
            if written.read_text(encoding="utf-8") != self.question.token:
                return f"what it wrote into {self.question.folder} came here as something else"
        except OSError:
            return f"it writes into another {self.question.folder} than this run: share the folder"
        finally:
            with suppress(OSError):
                written.unlink()
        return ""
