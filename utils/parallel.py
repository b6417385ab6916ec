"""Many clips at once on joblib's threads, or each in a worker process of its own.

A worker is a plain function of one task that returns a result and never raises. Scripts loop over
`run_parallel` in their main thread; only that thread prints and writes the report.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from itertools import takewhile
from typing import TypeVar

from utils.process import STOP, Stopped
from utils.workers import Crashed, Failed, WorkerPool

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def run_parallel(
    worker: Callable[[Task], Outcome], tasks: Iterable[Task], num_jobs: int
) -> Generator[Outcome, None, None]:
    """`worker` over `tasks` on threads, results as they come; ends early when the run is stopped.

    Threads, for the work is in child processes. Tasks are drawn as workers become free.
    """

    from joblib import Parallel, delayed  # 0.1 s, which worker processes need not wait for

    def run(task: Task) -> Outcome | None:
        try:
            return worker(task)
        except Stopped:
            return None

    parallel = Parallel(
        n_jobs=num_jobs,
        backend="threading",
        return_as="generator_unordered",
        pre_dispatch=num_jobs,
        batch_size=1,
    )
    wanted = takewhile(lambda _: not STOP.is_set(), tasks)
    outcomes = parallel(delayed(run)(task) for task in wanted)
    try:
        for outcome in outcomes:
            if outcome is not None:
                yield outcome
    except BaseException:
        # Closed early (the report could not be written, say): let no worker go on alone.
        STOP.set()
        for _ in outcomes:
            pass
        raise


def run_in_processes(
    worker: Callable[[Task], Outcome],
    tasks: Iterable[Task],
    num_jobs: int,
    crashed: Callable[[Task, str], Outcome],
) -> Generator[Outcome, None, None]:
    """`run_parallel` for work that Python does itself: each thread has a worker process.

    `crashed(task, how)` gives the outcome of a task that kills its process, twice in a row, or that
    raises in it. The processes end when the run is stopped, and when the caller is through.
    """
    with WorkerPool(worker) as pool:

        def run(task: Task) -> Outcome:
            try:
                return pool(task)
            except (Crashed, Failed) as failure:
                return crashed(task, str(failure))

        yield from run_parallel(run, tasks, num_jobs)
