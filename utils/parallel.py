"""Run one function over many tasks: on threads, in worker processes, or on a cluster.

A worker is a function of one task, in an importable module. It returns an outcome, or yields
several, and raises nothing. Scripts call `Workers.run`; `utils/cluster.py` has the same method, so
that no caller needs to know which machines do the work. Only the main thread prints and writes the
report.
"""

from __future__ import annotations

import atexit
import math
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache, partial
from multiprocessing.connection import Connection, Pipe
from typing import Any, Protocol

from utils import process
from utils.cli import say
from utils.errors import ROOT, UserError, describe
from utils.process import STOP, Stopped

Worker = Callable[[Any], Any]  # returns the outcome of a task, or yields several
Lost = Callable[[Any, str], Any]  # the same for a task that was lost, and how it was
Outcomes = Generator[Any, None, None]

PATIENCE = 2.5  # seconds in which a task may end by itself when its run is over
STOP_SECONDS = 3.0  # a thread that still waits for a server after so long is left behind
IDLE_SECONDS = 300.0  # a child on a cluster ends by itself after so long without a task
_POLL_SECONDS = 0.1
RENEW_AFTER = 1000  # tasks: a process that stays for weeks may lose memory
THREADS_PER_JOB = 3  # in turns: further tasks are under way while `pause` holds up others
_END = object()
_of_thread = threading.local()
IS_CHILD = False  # whether this process is a Child's, which may crash


class Crashed(Exception):
    """The worker process died during its task. The text says how."""


class Failed(Exception):
    """The worker raised an exception in its process. The text is the exception's."""


def has_died(how: str) -> bool:
    """Return whether a task was lost because its process died: its file may be at fault."""
    return how.startswith("its worker process")  # as `Children.call` says


# --- child processes -----------------------------------------------------------------------------


class Child:
    """A Python process that does one task after another, with functions of this code.

    It takes frames, which are a pickled (worker, task). It ends when `end` is called, or when this
    process ends for any reason, together with its process group. The class uses nothing of `utils`,
    because it is sent to machines of a cluster, which have no `utils`.

    root: the folder of the code. on_cluster: whether another machine gives the tasks, which may
    disappear. quiet: drop what the child prints. flags: options of the interpreter.
    """

    def __init__(
        self, root: str, on_cluster: bool = False, quiet: bool = False, flags: Sequence[str] = ()
    ) -> None:
        # Replaces the first entry of the path, which is the current folder.
        program = "import sys; sys.path[0] = sys.argv[1]; import utils.parallel as p; p.serve()"
        tasks, self._tasks = Pipe(duplex=False)
        self._answers, answers = Pipe(duplex=False)
        with tasks, answers:
            self.process = subprocess.Popen(
                [sys.executable, *flags, "-c", program, root, "cluster" if on_cluster else ""],
                stdin=tasks.fileno(),
                stdout=answers.fileno(),
                stderr=subprocess.DEVNULL if quiet else None,
                start_new_session=True,
            )
        self.calls = 0
        self.is_idle = True

    def call(self, frame: bytes, is_stopped: Callable[[], bool]) -> bytes:
        """Return the pickled (outcomes, exception or None) of a task.

        Raises TimeoutError if `is_stopped`, and EOFError or OSError if the process has ended.
        """
        self._tasks.send_bytes(frame)
        while not self._answers.poll(_POLL_SECONDS):
            if is_stopped():
                raise TimeoutError
        return self._answers.recv_bytes()

    def hang_up(self) -> None:
        """Let the process drop its task and end by itself."""
        self._tasks.close()

    def end(self, patience: float = 0.5) -> None:
        """End the process and everything that it has started."""
        self.hang_up()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Children:
    """The `Child` processes of a run on one machine: as many as threads call at once."""

    def __init__(self, start: Callable[[], Child]) -> None:
        self.start = start
        self.is_over = False
        self._all: list[Child] = []
        self._lock = threading.Lock()

    def call(self, frame: bytes, is_stopped: Callable[[], bool]) -> tuple[bytes, str]:
        """Do a task in an idle process, or in a new one.

        Returns what `Child.call` does, and "", or else how the process ended.
        """
        with self._lock:
            if self.is_over:
                return b"", "the run is over"
            # Those that ended are reaped, and their pipes closed.
            self._all = [each for each in self._all if each.process.poll() is None]
            child = next((each for each in self._all if each.is_idle), None)
            if child is None:  # within the lock, so that `hang_up` sees every process that starts
                child = self.start()
                self._all.append(child)
            child.is_idle = False
        try:
            answer = child.call(frame, is_stopped)
            child.calls += 1
            if child.calls < RENEW_AFTER:
                child.is_idle = True
            else:
                child.hang_up()
            return answer, ""
        except TimeoutError:
            child.hang_up()
            return b"", "the run is stopped"
        except (EOFError, OSError):
            code = child.process.wait()
        if code < 0:
            return b"", f"its worker process was ended by {signal.Signals(-code).name}"
        return b"", f"its worker process ended with exit code {code}"

    def hang_up(self) -> None:
        """Let all processes end by themselves."""
        with self._lock:
            self.is_over = True
        for child in self._all:
            child.hang_up()

    def close(self) -> None:
        """End all processes."""
        self.hang_up()
        while self._all:  # once: the number of a process that has ended may be another's later
            self._all.pop().end()


# --- the child's side ----------------------------------------------------------------------------


def serve() -> None:
    """Do the tasks that a `Child` receives, one after another."""
    global IS_CHILD
    IS_CHILD = True
    process.limit_memory(os.getpid(), process.CHILD_MEMORY)
    on_cluster = bool(sys.argv[2])
    tasks_in, answers = Connection(os.dup(0)), Connection(os.dup(1))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # keeps printed text out of the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    at_work = threading.Event()

    def watch() -> None:
        run = select.poll()
        run.register(tasks_in.fileno(), 0)  # for its end only
        run.poll()
        leave(at_work if on_cluster else threading.Event())

    threading.Thread(target=watch, daemon=True).start()
    with suppress(EOFError):
        while tasks_in.poll(IDLE_SECONDS if on_cluster else None):
            frame = tasks_in.recv_bytes()
            at_work.set()
            with suppress(OSError):  # the run has ended, which `watch` notices, too
                answers.send_bytes(work(frame))
            at_work.clear()


def work(frame: bytes) -> bytes:
    """Run one task and return what `Child.call` returns."""
    outcomes: list[Any] = []
    problem: Exception | None = None
    try:
        for outcome in outcomes_of(*pickle.loads(frame)):
            outcomes.append(outcome)
    except (Stopped, UserError) as error:
        problem = error
    except Exception as error:
        problem = Failed(describe(error))
    return pickle.dumps((outcomes, problem))


def leave(at_work: threading.Event) -> None:
    """End this process and everything that it has started.

    A task that is at work may end first, because the head of a cluster waits for its outcome.
    """
    STOP.set()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and (process._running or at_work.is_set()):
        time.sleep(0.02)
    os.killpg(os.getpgrp(), signal.SIGKILL)


# --- many at once --------------------------------------------------------------------------------


def outcomes_of(worker: Callable[..., Any], *task: Any) -> Iterator[Any]:
    """Yield what a worker returns or yields for one task."""
    made = worker(*task)
    if isinstance(made, Generator):
        yield from made
    else:
        yield made


def run_parallel(worker: Worker, tasks: Iterable[Any], num_jobs: int) -> Outcomes:
    """Run `worker` over `tasks` on joblib's threads; yield outcomes until the run is stopped.

    For workers that start programs or wait. A task is drawn when a thread is free, and threads
    wait for the caller, so that few outcomes are lost if the process is killed.
    """
    from joblib import Parallel, delayed  # takes 0.1 s, which worker processes do not need

    outcomes: queue.Queue[Any] = queue.Queue(2 * num_jobs)
    problems: list[BaseException] = []
    fresh, drawing = iter(tasks), threading.Lock()
    deadline = math.inf

    def run() -> None:
        with _noted(problems):
            while not problems:
                with drawing:  # not by joblib, which draws several tasks before it begins the first
                    task = next(fresh, _END)
                if task is _END or STOP.is_set():
                    return
                for outcome in outcomes_of(worker, task):
                    outcomes.put(outcome)

    def run_all() -> None:
        with _noted(problems):
            Parallel(num_jobs, backend="threading")(delayed(run)() for _ in range(num_jobs))
        outcomes.put(_END)

    def take() -> Any:
        nonlocal deadline
        while time.monotonic() < deadline:
            if STOP.is_set():
                deadline = min(deadline, time.monotonic() + STOP_SECONDS)
            with suppress(queue.Empty):
                return outcomes.get(timeout=_POLL_SECONDS)
        return _END

    # A daemon, as joblib's are: a task that waits for a silent server must not hold up a stop.
    threading.Thread(target=run_all, daemon=True).start()
    try:
        yield from iter(take, _END)
    except BaseException:  # closed early, because the report cannot be written, for example
        STOP.set()
        for _ in iter(take, _END):
            pass
        raise
    if problems:
        raise problems[0]


@contextmanager
def _noted(problems: list[BaseException]) -> Iterator[None]:
    """Note the exceptions of a thread, so that the main thread can raise them."""
    try:
        yield
    except Stopped:
        pass
    except BaseException as error:
        problems.append(error)


def call_worker(children: Children, worker: Worker, task: Any) -> list[Any]:
    """Return the outcomes of a task, from a child process.

    If the process dies, the task is given to a second one, because a process may be killed when
    memory runs out, which is not the task's fault. (In the pools of joblib, loky, Pebble and the
    standard library a killed worker aborts the run.) Raises Crashed, Failed, Stopped, UserError.
    """
    frame = pickle.dumps((worker, task))
    for _ in range(2):
        answer, how_it_ended = children.call(frame, STOP.is_set)
        if not how_it_ended:
            outcomes: list[Any]
            outcomes, problem = pickle.loads(answer)
            if problem:
                raise problem
            return outcomes
        # A cluster that ends a job, or a closed terminal, often ends these processes first.
        if STOP.wait(_POLL_SECONDS):
            raise Stopped
    raise Crashed(how_it_ended)


@cache
def _lasting_children() -> Children:
    children = Children(partial(Child, str(ROOT)))
    atexit.register(children.close)
    return children


def run_apart(worker: Worker, task: Any) -> Any:
    """Return the one outcome of a task, from a child process that stays for the next task.

    Raises Crashed, Failed, Stopped, UserError.
    """
    (outcome,) = call_worker(_lasting_children(), worker, task)
    return outcome


def run_in_processes(worker: Worker, tasks: Iterable[Any], num_jobs: int, lost: Lost) -> Outcomes:
    """Run `worker` over `tasks` in child processes: for work that Python does itself.

    The worker and the tasks are pickled. lost: for a task that kills its process twice in a row, or
    raises an exception in it.
    """
    with closing(Children(partial(Child, str(ROOT)))) as children:

        def run(task: Any) -> Outcomes:
            try:
                yield from call_worker(children, worker, task)
            except (Crashed, Failed) as error:
                yield from outcomes_of(lost, task, str(error))

        yield from run_parallel(run, tasks, num_jobs)


class TurnEnd:
    """Base class of the last outcome of a worker whose tasks wait for turns."""


class Turns(Protocol):
    """Says when a task may begin (the rate limit for YouTube). Methods work from any thread."""

    def of(self, machine: str) -> Turns:
        """Return the turns of one machine of a cluster."""

    def take_turn(self) -> Any:
        """Return a turn, or as a float the seconds after which to ask again.

        A turn whose `is_check` is true is for no task: the worker is called with None.
        """

    @property
    def check_is_due(self) -> bool:
        """Return whether the next turn is a check, which is made even after the last task."""

    def end(self, turn: Any, attempt: Any) -> tuple[Iterable[Any], Any]:
        """Give a turn back; return the outcomes to report now, and what remains of the task.

        attempt: the worker's `TurnEnd`; None if the task was dropped or lost. What remains begins
        again after `wait` seconds, an attribute of it.
        """

    def note(self) -> str:
        """Return what holds tasks up, for the progress line."""


def pause(seconds: float) -> None:
    """Wait within a task, and let another one work meanwhile. Raises Stopped."""
    jobs: threading.Semaphore | None = getattr(_of_thread, "jobs", None)
    if jobs is None or seconds <= 0:
        return process.sleep(seconds)
    jobs.release()
    try:
        process.sleep(seconds)
    finally:
        _begin_job(jobs)


def _begin_job(jobs: threading.Semaphore) -> None:
    while not jobs.acquire(timeout=_POLL_SECONDS):
        process.sleep(0)


def run_in_turns(worker: Worker, tasks: Iterable[Any], num_jobs: int, turns: Turns) -> Outcomes:
    """Run tasks as `run_parallel` does, each in its turn; what remains of a task begins again."""
    jobs, fresh = threading.Semaphore(num_jobs), iter(tasks)
    waiting: list[tuple[float, Any]] = []  # (not before, task)
    under_way: list[Any] = []  # turns

    def in_turns() -> Iterator[tuple[Any, Any]]:
        """Yield each task, None being a check, with its turn."""
        while True:
            ready = next((each for each in waiting if each[0] <= time.monotonic()), None)
            if ready is None and (task := next(fresh, _END)) is not _END:
                ready = (0.0, task)
                waiting.append(ready)
            if ready is None and not turns.check_is_due:
                if not under_way and not waiting:
                    return
                process.sleep(_POLL_SECONDS)
                continue
            _begin_job(jobs)
            turn = turns.take_turn()
            if isinstance(turn, float):
                jobs.release()
                process.sleep(turn)
                continue
            under_way.append(turn)
            if ready is None or turn.is_check:
                yield None, turn
            else:
                waiting.remove(ready)
                yield ready[1], turn

    def attempt(begun: tuple[Any, Any]) -> Outcomes:
        task, turn = begun
        _of_thread.jobs = jobs
        last = None
        try:
            for outcome in outcomes_of(worker, task):
                if isinstance(outcome, TurnEnd):
                    last = outcome
                else:
                    yield outcome
        finally:
            jobs.release()
            results, rest = turns.end(turn, last)
            if rest is not None:
                waiting.append((time.monotonic() + rest.wait, rest))
            under_way.remove(turn)
        yield from results

    yield from run_parallel(attempt, in_turns(), THREADS_PER_JOB * num_jobs)


class Workers:
    """Runs the tasks of a run on this machine."""

    def __init__(self, num_jobs: int) -> None:
        self.num_jobs = num_jobs
        self.turns: Turns | None = None
        self.say: Callable[[str], None] = say

    def run(
        self,
        worker: Worker,
        tasks: Iterable[Any],
        lost: Lost,
        threads: bool = False,
        turns: Turns | None = None,
    ) -> Outcomes:
        """Run `worker` over `tasks`; yield outcomes until the run is stopped.

        The worker and the tasks can be pickled. lost: for a task that kills its process again and
        again, or raises an exception in it. threads: the worker waits
        or starts programs, and needs no process of its own on this machine. turns: each task waits
        for one (on threads). The worker's last outcome is then a `TurnEnd`, and what remains of
        the task waits for another turn.
        """
        self.turns = turns
        if turns is not None:
            return run_in_turns(worker, tasks, self.num_jobs, turns)
        if threads:
            return run_parallel(worker, tasks, self.num_jobs)
        return run_in_processes(worker, tasks, self.num_jobs, lost)

    def note(self) -> str:
        """Return what holds tasks up, for the progress line."""
        return self.turns.note() if self.turns else ""
