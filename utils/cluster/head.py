"""A run on a Dask cluster, seen from its head: connect, hand out tasks, take what comes of them.

Over joblib's dask backend (`cluster/backend`), which hands tasks to dask's scheduler and streams
what comes back. Here is what that leaves open: which workers take part (`cluster/members`), what is
asked for again, and that a run ends when it is to end, whatever has become of the cluster.
"""

from __future__ import annotations

import itertools
import pickle
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from distributed import Client
from joblib import Parallel, delayed

from utils.cluster.backend import DaskBackend
from utils.cluster.members import LOOK_SECONDS, Members
from utils.cluster.outpost import TOO_OFTEN
from utils.cluster.sending import call_outpost
from utils.cluster.tasks import STOPPED, Partly
from utils.process import STOP, stop_run

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

LOSSES = 2  # a task whose worker, or process there, died is asked for so often again elsewhere
AHEAD = 2  # tasks under way for each thread of the cluster
STOP_SECONDS = 7.0  # what tasks that are under way get to end in, when the run is stopped
CLOSE_SECONDS = 5.0
ALONE_SECONDS = 600.0  # without any worker for so long, the run ends
_POLL_SECONDS = 0.1


@dataclass
class _Work:
    """The tasks of one `Cluster.run`: those that are not done yet, by number."""

    fresh: Iterator[Any]
    script: str
    function: bytes
    numbers: Iterator[int]
    open: dict[int, Any] = field(default_factory=dict)
    again: deque[int] = field(default_factory=deque)  # of these, what nobody is at
    losses: Counter[int] = field(default_factory=Counter)
    all_drawn: bool = False

    def add(self, task: Any) -> int:
        number = next(self.numbers)
        self.open[number] = task
        return number

    def next(self) -> int | None:
        """The number of a task that nobody is at; None when there is none, for now."""
        if self.again:
            return self.again.popleft()
        for task in self.fresh:
            return self.add(task)
        self.all_drawn = True
        return None

    def frame(self, number: int) -> bytes:
        """A task as `cluster/seat` takes it."""
        return pickle.dumps((self.script, self.function, pickle.dumps(self.open[number])))


class Cluster:
    """The workers of a cluster as the hands of one run; `runs/cluster.open_cluster` makes it.

    name: of the run's outposts. script: what the workers take for `__main__`, in the run's code;
    empty where functions and tasks come from modules.
    """

    def __init__(self, client: Client, name: str, script: str, members: Members) -> None:
        self.client, self.name, self.script, self.members = client, name, script, members
        self._numbers = itertools.count()  # of all tasks of the run, whatever function they are for
        self._done: Counter[str] = Counter()  # tasks by machine
        self._blocks: dict[str, tuple[str, float]] = {}  # machine -> reason, until when
        self._backend: DaskBackend | None = None
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @property
    def ffmpeg(self) -> str | None:
        """--ffmpeg, for each machine to find it."""
        return self.members.question.ffmpeg

    def run(
        self,
        function: Callable[[Task], Outcome | Partly],
        tasks: Iterable[Task],
        lost: Callable[[Task, str], Outcome],
    ) -> Generator[Outcome, None, None]:
        """`function` over `tasks` on the workers, outcomes as they come, until the run is stopped.

        Function and tasks are pickled. `lost(task, how)` is the outcome of a task that has taken
        its worker along three times, or raised. Stops the run where the scheduler is lost.
        """
        work = _Work(iter(tasks), self.script, pickle.dumps(function), self._numbers)
        try:
            while not (work.all_drawn and not work.open) and self._wait_for_workers():
                # Of the last round, what was lost after all others had been drawn.
                work.again = deque(sorted(work.open))
                for number, answer in self._round(self._draw(work)):
                    yield from self._settle(work, number, answer, lost)
            with suppress(Exception):  # the scheduler is lost: `_round` said so
                self.members.see_lost()  # since the watcher's last look
        except BaseException:
            STOP.set()  # closed early (the report could not be written, say): draw no more
            raise

    def note(self) -> str:
        """Every machine, what it has done, and what holds it up, for the progress line."""
        parts, now = [], time.monotonic()
        for machine in sorted(self._done.keys() | set(self.members.machines())):
            text = f"{machine} {self._done[machine]:,}"
            if machine not in self.members.machines():
                text += " lost"
            reason, until = self._blocks.get(machine, ("", 0.0))
            if until > now:
                text += f" blocked ({reason}), next try in {timedelta(seconds=round(until - now))}"
            parts.append(text)
        return "; ".join(parts)

    def close(self) -> None:
        """End what the run has on the workers."""
        self._over.set()
        self._end_outposts().join(CLOSE_SECONDS)
        self._watcher.join(_POLL_SECONDS)

    def _draw(self, work: _Work) -> Iterator[Any]:
        """Tasks for joblib, which asks for one when one is done; never waits."""
        while not STOP.is_set() and self.members.fit and (number := work.next()) is not None:
            yield delayed(call_outpost)(self.name, number, work.frame(number))

    def _round(self, drawn: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        """(number, answer) of the tasks that are drawn, until all are back or the run is over."""
        self._backend = DaskBackend(self.client, self._addresses)
        threads = sum(self.members.threads.get(address, 1) for address in self.members.fit)
        parallel = Parallel(
            backend=self._backend,
            return_as="generator_unordered",
            pre_dispatch=AHEAD * threads,
            batch_size=1,
        )
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=_pump, args=(parallel, drawn, answers), daemon=True).start()
        deadline = None
        while deadline is None or time.monotonic() < deadline:
            with suppress(queue.Empty):
                answer = answers.get(timeout=_POLL_SECONDS)
                if answer is None:
                    return
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
            if self.client.status != "running" and not STOP.is_set():
                self.members.tell(
                    "the Dask scheduler is lost: start it again, and type the same command"
                )
                stop_run()
            if STOP.is_set() and deadline is None:
                deadline = time.monotonic() + STOP_SECONDS
                self._end_outposts()

    def _addresses(self) -> list[str]:
        """Where a task may go: to the machines that are not blocked, if there are any."""
        now = time.monotonic()
        fit = self.members.fit
        free = [each for each, host in fit.items() if self._blocks.get(host, ("", 0.0))[1] <= now]
        return free or self.members.last

    def _settle(
        self, work: _Work, number: int, answer: Any, lost: Callable[[Any, str], Outcome]
    ) -> Iterator[Outcome]:
        """What an answer comes to: an outcome, or a task that is to be asked for again."""
        packed, how = answer or (b"", "its worker was lost")
        if packed:
            worked, outcome, machine = pickle.loads(packed)
            if worked:
                self._done[machine] += 1
                work.open.pop(number)
                yield self._open(outcome, machine, work)
            elif outcome != STOPPED:
                yield lost(work.open.pop(number), outcome)
            else:
                how = "its worker has ended"
        if number not in work.open or STOP.is_set():
            return
        work.losses[number] += 1
        if how != TOO_OFTEN and work.losses[number] <= LOSSES:
            work.again.append(number)
        else:
            yield lost(work.open.pop(number), how)

    def _open(self, outcome: Any, machine: str, work: _Work) -> Any:
        if not isinstance(outcome, Partly):
            return outcome
        if outcome.block is not None:
            until = time.monotonic() + outcome.block.seconds
            self._blocks[machine] = (outcome.block.reason, until)
        if outcome.rest is not None:
            work.again.append(work.add(outcome.rest))
        return outcome.outcome

    def _wait_for_workers(self) -> bool:
        """Whether there is a worker; waits for one, for some time."""
        began = time.monotonic()
        while not self.members.fit and not STOP.is_set():
            if time.monotonic() - began > ALONE_SECONDS:
                self.members.tell("the Dask cluster has no worker any more: start some, and go on")
                stop_run()
            STOP.wait(_POLL_SECONDS)
        return not STOP.is_set()

    def _watch(self) -> None:
        """Keep the list of workers, and take back what waits for one that will not come."""
        while not self._over.wait(LOOK_SECONDS):
            with suppress(Exception):  # the scheduler is lost: `_round` says so
                self.members.look()
                if self._backend is not None:
                    self._backend.give_up_lost(set(self.members.fit))

    def _end_outposts(self) -> threading.Thread:
        """End the run's processes on all workers, which do so themselves once its folder is gone.

        In a thread, for a cluster in trouble may not answer.
        """

        def end() -> None:
            with suppress(Exception):  # ended before, or the scheduler has just gone
                if self.client.status == "running":
                    self.client.unregister_worker_plugin(self.name)

        thread = threading.Thread(target=end, daemon=True)
        thread.start()
        return thread


def _pump(parallel: Any, drawn: Iterator[Any], answers: queue.SimpleQueue[Any]) -> None:
    """joblib's generator in a thread of its own: it cannot be left while it waits."""
    try:
        for answer in parallel(drawn):
            answers.put(answer)
    except BaseException as error:
        answers.put(error)
    answers.put(None)
