"""Run one function over many tasks: on threads, in worker processes, or on a cluster.

A worker is a function of one task. It returns an outcome, or yields several, and raises nothing.
`Workers.run` is what a script calls; `utils/cluster.py` has the same method, so that no caller
knows which machines do the work. Only the main thread prints and writes the report.
"""

from __future__ import annotations

import os
import pickle
import queue
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from utils import process as processes
from utils.cli import say
from utils.errors import UserError, describe
from utils.process import CHILD_MEMORY, STOP, Stopped, limit_memory, sleep

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 2.5  # seconds in which a task may end by itself when its run is over
STOP_SECONDS = 3.0  # a thread that waits for a silent server is left behind after so long
LOOK_SECONDS = 1.0  # between two looks at a lifeline
SILENT_SECONDS = 300.0  # a lifeline that was not renewed for so long is that of a dead run
STOPPED = "stopped"  # what a child answers where a task was dropped
_POLL_SECONDS = 0.1
THREADS_A_JOB = 3  # tasks under way for each job in turns: those that `pause` do no work
_END = object()
_of_thread = threading.local()
IS_CHILD = False  # whether this process is a Child's: one that a crash may cost


class Crashed(Exception):
    """The worker process died over its task. The text says how."""


class Failed(Exception):
    """The worker raised, in its process. The text is the exception's, as reported."""


# --- one child process, for every use ------------------------------------------------------------


class Child:
    """A Python process that does one task after another, with functions of this code.

    It takes frames (`make_frame`) and gives back outcomes. It ends when `end` is called, and by
    itself when this process ends, however that ends. Its process group goes with it.
    Nothing of `utils` is named in here: on a cluster the class travels to machines without it.

    root: the folder of the code. script: its script that becomes `__main__`, for functions that
    are defined there. lifeline: a file; the child ends when it is removed, or not renewed.
    quiet: what the child prints is dropped. flags: for the interpreter.
    """

    def __init__(
        self,
        root: str,
        script: str = "",
        lifeline: str = "",
        quiet: bool = False,
        flags: Sequence[str] = (),
    ) -> None:
        # The first place on the path is the code's, and not the folder that we happen to be in.
        program = "import sys; sys.path[0] = sys.argv[1]; import utils.parallel as p; p.serve()"
        self.process = subprocess.Popen(
            [sys.executable, *flags, "-c", program, root, script, lifeline],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet or sys.stderr is None else None,
            start_new_session=True,
        )
        self._answers: queue.SimpleQueue[tuple[bool, bytes] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, frame: bytes) -> None:
        """Give it a task. Raises OSError where it has ended."""
        assert self.process.stdin is not None
        pickle.dump(frame, self.process.stdin)
        self.process.stdin.flush()

    def receive(self, seconds: float | None = None) -> tuple[bool, bytes]:
        """(whether more comes of this task, a pickled outcome), or at the end (False, problem).

        The problem is a pickled text, empty where the worker did not raise. Raises queue.Empty
        after `seconds`, and EOFError where the process has ended.
        """
        answer = self._answers.get(timeout=seconds)
        if answer is None:
            self._answers.put(None)
            raise EOFError
        return answer

    def hang_up(self) -> None:
        """Let it end by itself: what it is at is dropped."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()

    def end(self, patience: float = 0.5) -> None:
        """End it, whatever it is at, and all that it has started."""
        self.hang_up()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def how_it_ended(self) -> str:
        """In words, once it has."""
        code = self.process.wait()
        if code < 0:
            return f"its worker process was ended by {signal.Signals(-code).name}"
        return f"its worker process ended with exit code {code}"

    def _read(self) -> None:
        assert self.process.stdout is not None
        with suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                self._answers.put(pickle.load(self.process.stdout))
        self._answers.put(None)


def make_frame(function: Callable[..., Any], task: object) -> bytes:
    """A task as `Child.send` takes it."""
    return pickle.dumps((pickle.dumps(function), pickle.dumps(task)))


def own_script() -> str:
    """The script that runs, by its path in the code; empty for one that is not of the suite."""
    path = Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve()
    is_ours = path.suffix == ".py" and path.parent in (ROOT, ROOT / "benchmarks")
    return path.relative_to(ROOT).as_posix() if is_ours else ""


# --- the child's side ----------------------------------------------------------------------------


def serve() -> None:
    """Do the tasks that come, one after another. What a Child runs."""
    global IS_CHILD
    IS_CHILD = True
    limit_memory(os.getpid(), CHILD_MEMORY)
    root, script, lifeline = sys.argv[1:]
    sys.argv[:] = [os.path.join(root, script)]
    tasks_in, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what somebody prints must not get between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    at_work = threading.Event()
    frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read_tasks() -> None:
        with suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                frames.put(pickle.load(tasks_in))
        leave(at_work, root if lifeline else "")

    threading.Thread(target=read_tasks, daemon=True).start()
    if lifeline:
        threading.Thread(target=watch, args=(lifeline, at_work, root), daemon=True).start()
    while True:
        frame = frames.get()
        at_work.set()
        for answer in work(os.path.join(root, script) if script else "", frame):
            with suppress(OSError):  # nobody waits for it any more: `read_tasks` sees that, too
                pickle.dump(answer, answers)
                answers.flush()
        at_work.clear()


def work(script: str, frame: bytes) -> Iterator[tuple[bool, bytes]]:
    """Run one task and return its result, as `Child.receive` does."""
    problem: str | UserError = ""
    try:
        if script:
            become(script)
        function, task = pickle.loads(frame)
        for outcome in outcomes_of(load(function), pickle.loads(task)):
            yield True, pickle.dumps(outcome)
    except Stopped:
        problem = STOPPED
    except UserError as error:
        problem = error
    except Exception as error:
        problem = describe(error)
    yield False, pickle.dumps(problem)


@lru_cache(maxsize=4)
def load(function: bytes) -> Callable[[Any], Any]:
    """The function of a run, unpickled once for all of its tasks."""
    loaded: Callable[[Any], Any] = pickle.loads(function)
    return loaded


@lru_cache(maxsize=1)
def become(script: str) -> None:
    """Make a script this process's `__main__`, as multiprocessing does it."""
    module = types.ModuleType("__mp_main__")
    module.__dict__.update(runpy.run_path(script, run_name="__mp_main__"))
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def watch(lifeline: str, at_work: threading.Event, root: str) -> None:
    """End when the run's lifeline is gone, or its run silent.

    The file is opened, and not only looked at: network file systems then ask their server.
    """
    renewed, seen = 0.0, time.monotonic()
    while True:
        time.sleep(LOOK_SECONDS)
        try:
            with open(lifeline, "rb") as file:
                now = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            if renewed:
                break
            continue  # this machine does not see the folder at all, as the check will say
        except OSError:
            continue
        if now != renewed:
            renewed, seen = now, time.monotonic()
        elif time.monotonic() - seen > SILENT_SECONDS:
            break
    leave(at_work, root)


def leave(at_work: threading.Event, code: str) -> None:
    """End this process, and before it what it has started.

    code: on a cluster, the run's code, which a worker that was killed cannot take away. There the
    head waits for what the task at hand comes to.
    """
    STOP.set()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and (processes._running or (code and at_work.is_set())):
        time.sleep(0.02)
    if code:
        shutil.rmtree(code, ignore_errors=True)
    if hasattr(os, "killpg"):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


# --- many at once --------------------------------------------------------------------------------


def outcomes_of(worker: Callable[[Any], Any], task: Any) -> Iterator[Any]:
    """What a worker makes of one task, whether it returns or yields."""
    made = worker(task)
    if isinstance(made, Generator):
        yield from made
    else:
        yield made


def run_parallel(
    worker: Callable[[Task], Outcome], tasks: Iterable[Task], num_jobs: int
) -> Generator[Any, None, None]:
    """Run `worker` over `tasks` on joblib's threads; outcomes as they come, until a stop.

    For work that is done in child processes, or by waiting. A task is drawn when a thread is free,
    and threads wait for the caller: few outcomes are lost where the process is killed.
    """
    from joblib import Parallel, delayed  # 0.1 s, which worker processes need not wait for

    outcomes: queue.Queue[Any] = queue.Queue(2 * num_jobs)
    problems: list[BaseException] = []

    def draw() -> Iterator[Any]:
        with _noted(problems):
            for task in tasks:
                if STOP.is_set() or problems:
                    return
                yield delayed(run)(task)

    def run(task: Task) -> None:
        with _noted(problems):
            for outcome in outcomes_of(worker, task):
                outcomes.put(outcome)

    def run_all() -> None:
        settings = {"backend": "threading", "return_as": "generator_unordered", "batch_size": 1}
        with _noted(problems):
            for _ in Parallel(num_jobs, pre_dispatch=num_jobs, **settings)(draw()):
                pass
        outcomes.put(_END)

    # A daemon, as joblib's are: a task that waits for a silent server must not hold up a stop.
    threading.Thread(target=run_all, daemon=True).start()
    deadline, is_closed = float("inf"), None
    while time.monotonic() < deadline:
        with suppress(queue.Empty):
            if (outcome := outcomes.get(timeout=_POLL_SECONDS)) is _END:
                break
            if not is_closed:
                try:
                    yield outcome
                except BaseException as error:  # the report could not be written, say
                    is_closed = error
                    STOP.set()
        if STOP.is_set() and deadline == float("inf"):
            deadline = time.monotonic() + STOP_SECONDS
    if is_closed:
        raise is_closed
    if problems:
        raise problems[0]


@contextmanager
def _noted(problems: list[BaseException]) -> Iterator[None]:
    """Note what is raised in a thread, for the main thread to raise it."""
    try:
        yield
    except Stopped:
        pass
    except BaseException as error:
        problems.append(error)


class WorkerPool(Generic[Task, Outcome]):
    """Calls `function` in worker processes, as many as threads call at once.

    A task is given to a second process when its first one dies: it may have been killed for want
    of memory, which is not the task's fault. (In the pools of joblib, loky, Pebble and the standard
    library a killed worker aborts the run.)
    """

    def __init__(self, function: Callable[[Task], Outcome]) -> None:
        self.function = function
        self._idle: list[Child] = []
        self._all: list[Child] = []
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, task: Task) -> Outcome:
        """The one outcome of a task. Raises Crashed, Failed, Stopped, UserError."""
        (outcome,) = self.outcomes(task)
        return outcome

    def outcomes(self, task: Task) -> list[Outcome]:
        """All outcomes of a task. Raises Crashed, Failed, Stopped, UserError."""
        frame = make_frame(self.function, task)
        for is_last in (False, True):
            with self._lent() as child:
                found: list[Outcome] = []
                try:
                    child.send(frame)
                    while (answer := self._answer(child))[0]:
                        found.append(pickle.loads(answer[1]))
                except (EOFError, OSError):
                    # Who ends a job step (a cluster, a closed terminal) often ends these first.
                    if STOP.wait(_POLL_SECONDS):
                        raise Stopped from None
                    if is_last:
                        raise Crashed(child.how_it_ended()) from None
                    continue
            problem = pickle.loads(answer[1])
            if isinstance(problem, UserError):
                raise problem  # every task would meet it
            if problem:
                raise Failed(problem) if problem != STOPPED else Stopped
            return found
        raise AssertionError

    @staticmethod
    def _answer(child: Child) -> tuple[bool, bytes]:
        while True:
            with suppress(queue.Empty):
                return child.receive(_POLL_SECONDS)
            if STOP.is_set():
                raise Stopped

    @contextmanager
    def _lent(self) -> Iterator[Child]:
        with self._lock:
            if self._closed:
                raise Stopped
            if self._idle:
                child = self._idle.pop()
            else:  # within the lock, so that no process starts that `__exit__` does not see
                child = Child(str(ROOT), own_script())
                self._all.append(child)
        yield child
        if child.process.poll() is None:
            with self._lock:
                self._idle.append(child)

    def __enter__(self) -> WorkerPool[Task, Outcome]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._closed = True
        for child in self._all:
            child.end()


def run_in_processes(
    worker: Callable[[Task], Outcome],
    tasks: Iterable[Task],
    num_jobs: int,
    lost: Callable[[Task, str], Outcome],
) -> Generator[Outcome, None, None]:
    """Run `worker` over `tasks` in worker processes: for work that Python does itself.

    Worker and tasks are pickled. `lost(task, how)` is the outcome of a task that kills its process,
    twice in a row, or that raises in it.
    """
    with WorkerPool(worker) as pool:

        def run(task: Task) -> Generator[Outcome, None, None]:
            try:
                yield from pool.outcomes(task)
            except (Crashed, Failed) as error:
                yield lost(task, str(error))

        yield from run_parallel(run, tasks, num_jobs)


class TurnEnd:
    """Base of what a worker yields last where its tasks wait for turns."""


class Turns(Protocol):
    """Says when a task may begin (the pace at which YouTube is asked). Called from any thread."""

    def of(self, machine: str) -> Turns:
        """The turns of one machine of a cluster."""

    def take_turn(self) -> Any:
        """A turn, or as a float the seconds after which to ask again.

        Where its `is_check` is true, no task may use it: the worker is called with None.
        """

    @property
    def check_is_due(self) -> bool:
        """Whether the next turn is such a one, and is waited for at the end, too."""

    def end(self, turn: Any, attempt: Any) -> tuple[Iterable[Any], Any]:
        """Give a turn back: the outcomes that may be reported now, and the task that is left.

        attempt: the `TurnEnd` that the worker gave; None where the task was dropped or lost.
        """

    def note(self) -> str:
        """What holds tasks up, for the progress line."""


def seconds_to_wait(task: Any) -> float:
    """How long a task that is left is to wait before its next turn."""
    return float(getattr(task, "wait", 0.0))


def pause(seconds: float) -> None:
    """Wait within a task. Here, another one may work meanwhile. Raises Stopped."""
    jobs: threading.Semaphore | None = getattr(_of_thread, "jobs", None)
    if jobs is None or seconds <= 0:
        return sleep(seconds)
    jobs.release()
    try:
        sleep(seconds)
    finally:
        _begin_job(jobs)


def _begin_job(jobs: threading.Semaphore) -> None:
    while not jobs.acquire(timeout=_POLL_SECONDS):
        sleep(0)


def run_in_turns(
    worker: Callable[[Any], Any], tasks: Iterable[Any], num_jobs: int, turns: Turns
) -> Generator[Any, None, None]:
    """`run_parallel` for tasks that each wait for a turn; what is left of one comes again."""
    jobs, fresh = threading.Semaphore(num_jobs), iter(tasks)
    again: list[tuple[float, Any]] = []  # (not before, task)
    under_way: list[Any] = []  # turns

    def draw() -> Iterator[tuple[Any, Any]]:
        while True:
            now = time.monotonic()
            ready = next((each for each in again if each[0] <= now), None)
            if ready:
                again.remove(ready)
            task = ready[1] if ready else next(fresh, _END)
            if task is _END and not turns.check_is_due:
                if not under_way and not again:
                    return
                sleep(_POLL_SECONDS)
                continue
            _begin_job(jobs)
            turn = turns.take_turn()
            if task is not _END and (isinstance(turn, float) or turn.is_check):
                again.insert(0, (0.0, task))
            if isinstance(turn, float):
                jobs.release()
                sleep(turn)
            else:
                under_way.append(turn)
                yield None if turn.is_check or task is _END else task, turn

    drawing, lock = draw(), threading.Lock()
    is_over = False

    def attempt(_: object) -> Generator[Any, None, None]:
        nonlocal is_over
        with lock:  # here, because joblib draws several tasks before it begins the first
            drawn = next(drawing, None)
        if drawn is None:
            is_over = True
            return
        task, turn = drawn
        _of_thread.jobs = jobs
        said = None
        try:
            for outcome in outcomes_of(worker, task):
                if isinstance(outcome, TurnEnd):
                    said = outcome
                else:
                    yield outcome
        finally:
            jobs.release()
            results, rest = turns.end(turn, said)
            if rest is not None:
                again.append((time.monotonic() + seconds_to_wait(rest), rest))
            under_way.remove(turn)
        yield from results

    yield from run_parallel(attempt, iter(lambda: is_over, True), THREADS_A_JOB * num_jobs)


class Workers:
    """Does the tasks of a run on this machine."""

    def __init__(self, num_jobs: int) -> None:
        self.num_jobs = num_jobs
        self.say: Callable[[str], None] = say

    def run(
        self,
        worker: Callable[[Any], Any],
        tasks: Iterable[Any],
        lost: Callable[[Any, str], Any],
        threads: bool = False,
        turns: Turns | None = None,
    ) -> Generator[Any, None, None]:
        """Run `worker` over `tasks`; outcomes as they come, until the run is stopped.

        The worker and the tasks can be pickled. lost: gives, or yields, the outcome of a task that
        kills its process again and again, or raises in it. threads: the worker waits, or starts
        programs, and needs no process of its own on this machine. turns: each task waits for one
        (on threads); the worker's last outcome is then a `TurnEnd`, and what is left of the task
        waits for another.
        """
        if turns is not None:
            return run_in_turns(worker, tasks, self.num_jobs, turns)
        if threads:
            return run_parallel(worker, tasks, self.num_jobs)
        return run_in_processes(worker, tasks, self.num_jobs, lost)

    def note(self) -> str:
        """What the progress line says of them."""
        return ""
