"""Run the tasks of a script on the workers of a Dask cluster (--dask).

Each worker is asked whether it can take part, also one that joins late. A task is pinned to one
worker, and a worker has no more tasks at once than threads. So the tasks of a lost worker are
known, and a machine that YouTube blocks gets no tasks until its rate limit allows them. Only
distributed's public interface is used. A worker needs no checkout, because the run sends its code.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import logging
import pickle
import queue
import shutil
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from utils import parallel
from utils.cli import matching, plural, say
from utils.errors import NAMES, ROOT, UserError, check_packages, release_of
from utils.files import machine_name
from utils.parallel import Child, Children, Lost, Outcomes, TurnEnd, Turns, Worker, Workers
from utils.process import STOP, Stopped
from utils.video.ffmpeg import find_ffmpeg

TRIES = 3  # times that a task is begun if its worker or its process dies
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0  # for a worker to say whether it can take part
ALONE_SECONDS = 600.0  # after so long without any worker the run ends
STOP_SECONDS = 7.0  # for the tasks of a stopped run to end
CLOSE_SECONDS = 3.0
SAME_RELEASES = ("yt-dlp", "av", "simplejpeg")  # packages that find clips, or decide their bytes
CODE = ("*.py", "utils/**/*.py", "clipreader/**/*.py", "benchmarks/*.py", "requirements*.txt")
_POLL_SECONDS = 0.1
_END = object()


# --- options -------------------------------------------------------------------------------------


dask_address = matching(
    r"local:[1-9][0-9]{0,3}|(?!local:)((tcp|tls|ucx)://)?[\w.\-\[\]:]+:[0-9]+",
    str,
    "tls://HOST:PORT, tcp://..., or local:N",
)


def add_cluster_options(parser: argparse._ActionsContainer) -> None:
    add = parser.add_argument
    text = (
        "run on the workers of a Dask cluster: the address of its scheduler (tls://head:8786,"
        " tcp://head:8786), or local:N for N workers on this machine"
    )
    add("--dask", type=dask_address, metavar="ADDRESS", help=text)
    text = "with --dask: exit with 2 if a worker is unusable (default: exclude it)"
    add("--strict", action="store_true", help=text)


def check_dask(args: argparse.Namespace) -> None:
    """Check that what --dask needs is installed. Raises UserError."""
    if args.strict and not args.dask:
        raise UserError("--strict needs --dask ADDRESS")
    if args.dask and importlib.util.find_spec("distributed") is None:
        raise UserError("--dask needs Dask: pip install -r requirements-cluster.txt")


@contextmanager
def open_workers(
    args: argparse.Namespace, workspace: Path, packages: Sequence[str], sees: Sequence[Path] = ()
) -> Iterator[Workers]:
    """Open the workers of a run: those of --dask that can take part, or this machine's.

    workspace: the run's temporary folder. packages, sees: what each of a cluster's workers must
    have and see. Raises UserError.
    """
    if not getattr(args, "dask", None):
        yield Workers(args.num_jobs)
        return
    logging.disable(logging.CRITICAL)  # dask's tracebacks: our own messages say what matters
    warnings.filterwarnings("ignore", module="distributed")
    if not args.dask.startswith(("local:", "tls://")):
        say(
            f"warning: {args.dask} has no access control: anyone who can reach the port can run"
            " code on these machines; keep it inside, or use tls:// (docs/scale.md)"
        )
    ffmpeg = getattr(args, "ffmpeg", None)
    proof = workspace / f"head-{uuid4().hex}"  # no other folder of this name has this file
    proof.touch()
    versions = versions_of(packages, ffmpeg)
    question = Question(workspace, packages, ffmpeg, (proof, *sees), versions)
    with _connect(args.dask, workspace) as client:
        cluster = Cluster(client, question, args.num_jobs)
        try:
            cluster.wait_for_answers()
            if args.strict and cluster.left_out:
                raise UserError("--strict: a worker is unusable, see above")
            if not cluster.fit and not STOP.is_set():
                why = "can take part, see above" if cluster.left_out else "is there: start some"
                raise UserError(f"no worker of {args.dask} {why}")
            if not args.quiet:
                say(f"dask         {cluster.line()}")
            yield cluster
            if not args.quiet:
                say(f"machines     {cluster.note() or 'no task was done'}")
        finally:
            cluster.close()


@contextmanager
def _connect(address: str, workspace: Path) -> Iterator[Any]:
    """Connect to the scheduler, or start one. Raises UserError."""
    from distributed import Client
    from distributed.security import Security

    local: Any = None
    try:
        certificates = Security().get_connection_args("client").get("ssl_context")
        if address.startswith("local:"):
            local = _start_local(int(address.removeprefix("local:")), workspace / "dask")
        elif address.startswith("tls://") and not certificates:
            raise UserError(
                f"{address} needs certificates: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE,"
                " ..._TLS__CLIENT__CERT and ..._TLS__CLIENT__KEY (docs/scale.md)"
            )
        client = Client(local or address, timeout=CONNECT_SECONDS, set_as_default=False)
    # An OSError, or an address that Dask does not understand, or needs more for (tls://).
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise UserError(f"no Dask scheduler answers at {address}: {error}") from None
    try:
        yield client
    finally:
        for each in (client, local):
            if each is not None:
                _aside(partial(each.close, timeout=CLOSE_SECONDS))


def _start_local(count: int, folder: Path) -> Any:
    """Start a scheduler and workers in this process, which open no port."""
    from distributed import LocalCluster, Scheduler, Worker

    kind: Any
    for kind in (Scheduler, Worker):  # their HTTP pages would listen on all addresses
        kind.start_http_server = lambda *_, **__: None
    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        local_directory=str(folder),
    )


def _aside(action: Callable[[], Any], seconds: float = CLOSE_SECONDS) -> None:
    """Make a call that may never return if the cluster is in trouble, and wait some time."""

    def act() -> None:
        with suppress(Exception):
            action()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)


# --- what a worker is asked before it gets a task ------------------------------------------------


@dataclass(frozen=True)
class Question:
    """The requirements for a worker.

    sees: paths that it must see. versions: those of the head (`versions_of`), which it must have.
    """

    workspace: Path
    packages: Sequence[str]
    ffmpeg: str | None
    sees: Sequence[Path]
    versions: Mapping[str, str]


def versions_of(packages: Sequence[str], ffmpeg: str | None) -> dict[str, str]:
    """Return this machine's versions of what finds clips, or decides their bytes.

    Raises UserError if one of the packages is missing.
    """
    check_packages(*packages)
    versions = {"Python": "{}.{}".format(*sys.version_info), "ffmpeg": find_ffmpeg(ffmpeg).version}
    for package in set(SAME_RELEASES) & set(packages):
        versions[NAMES.get(package, package)] = release_of(package)
    return versions


def answer_question(question: Question) -> tuple[str, str]:
    """Return this machine's name, and why it cannot take part; "" if it can."""
    return machine_name(), _problem_here(question)


def _problem_here(question: Question) -> str:
    try:
        for name, version in versions_of(question.packages, question.ffmpeg).items():
            if version != question.versions[name]:
                return f"it has {name} {version}, and this run {question.versions[name]}"
        for path in question.sees:
            if not path.exists():
                return f"it cannot see {path}: share the folder"
        test = question.workspace / f"seen-{uuid4().hex}"
        test.touch()
        test.unlink()
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"it cannot use the folder {question.workspace}: {error.strerror}"
    return ""


# --- on each worker ------------------------------------------------------------------------------


class Outpost:
    """A plugin of dask's: the run's code on one worker, and a child process for each thread.

    It is sent by value, because workers have no `utils` of this run.
    """

    def __init__(self, code: bytes) -> None:
        self.code = code

    def setup(self, worker: Any) -> None:
        """Unpack the code. Called by dask."""
        self.folder = tempfile.mkdtemp(prefix="kinetics-code-")
        zipfile.ZipFile(io.BytesIO(self.code)).extractall(self.folder)
        self.children = Children(partial(Child, self.folder, on_cluster=True))

    def teardown(self, worker: Any) -> None:
        """End the children. Called by dask when the run or the worker ends."""
        self.children.hang_up()
        shutil.rmtree(self.folder, ignore_errors=True)


def pack_code() -> bytes:
    """Return a zip of the code that the workers need."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (path for pattern in CODE for path in ROOT.glob(pattern)):
            archive.write(path, path.relative_to(ROOT))
    return packed.getvalue()


# --- the head ------------------------------------------------------------------------------------


@dataclass
class Begun:
    """A task, or the question, and the worker that runs it; then what came of it.

    task: None is a check of the machine's `turns`. losses: of workers and processes that ran the
    task before. outcomes, problem: what it returned, and what it raised. loss: how its process or
    its worker was lost.
    """

    task: Any
    losses: int = 0
    not_before: float = 0.0
    address: str = ""
    machine: str = ""
    turn: Any = None
    outcomes: Sequence[Any] = ()
    problem: str = ""
    loss: str = ""


class Cluster(Workers):
    """The workers of a cluster, for one run."""

    def __init__(self, client: Any, question: Question, num_jobs: int) -> None:
        import cloudpickle
        from distributed import WorkerPlugin

        super().__init__(num_jobs)
        self.client, self.question = client, question
        self.name = f"kinetics-{uuid4().hex[:12]}"
        self.asked: set[str] = set()  # addresses, also of workers that are left out
        self.fit: dict[str, str] = {}  # address -> machine
        self.threads: dict[str, int] = {}
        self.left_out = 0
        self.done: Counter[str] = Counter()  # tasks by machine
        self.is_closed = False
        self.under_way: dict[Any, Begun] = {}  # by dask's future
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()  # futures; workers come and gone
        for module in (sys.modules[__name__], parallel):  # otherwise dask sends only names
            cloudpickle.register_pickle_by_value(module)
        kind = type("RunOutpost", (Outpost, WorkerPlugin), {})
        # It waits for every worker, and one may never answer.
        _aside(lambda: client.register_plugin(kind(pack_code()), name=self.name))

    def wait_for_answers(self) -> None:
        """Ask the workers of the cluster whether they can take part."""
        deadline = time.monotonic() + ANSWER_SECONDS
        self.client.subscribe_topic("all", self._hear)
        for address in self.client.nthreads():
            self._ask(address)
        while (self.under_way or not self.asked) and not STOP.is_set():
            self._next_answers()
            if time.monotonic() > deadline:
                break
        for begun in self.under_way.values():
            self._leave_out(begun, f"no answer in {ANSWER_SECONDS:.0f} s")

    def run(
        self,
        worker: Worker,
        tasks: Iterable[Any],
        lost: Lost,
        threads: bool = False,
        turns: Turns | None = None,
    ) -> Outcomes:
        """Run tasks as `Workers.run` does; a task whose worker or process dies is begun 3 times.

        Stops the run if the scheduler is lost, or no worker is left.
        """
        fresh, self.turns = iter(tasks), turns
        waiting: list[Begun] = []
        deadline, last_seen = 0.0, time.monotonic()
        try:
            while True:
                while not STOP.is_set() and self._begin_next(waiting, fresh, worker):
                    pass
                if not self.under_way and not waiting and not self._due():
                    break
                for begun in self._next_answers():
                    yield from self._settle(begun, waiting, lost)
                last_seen = time.monotonic() if self.fit else last_seen
                self._look_after(time.monotonic() - last_seen)
                if STOP.is_set():
                    deadline = deadline or time.monotonic() + STOP_SECONDS
                    if time.monotonic() > deadline or not self.under_way:
                        break
            while not self.events.empty():  # names a worker that was lost at the very end
                self._next_answers()
        except BaseException:
            STOP.set()  # closed early, because the report cannot be written, for example
            raise

    def note(self) -> str:
        """Return each machine, how many tasks it has done, and what holds it up."""
        parts, here = [], set(self.fit.values())
        for machine in sorted(self.done.keys() | here):
            text = f"{machine} {self.done[machine]:,}" + ("" if machine in here else " lost")
            pause = self.turns.of(machine).note() if self.turns else ""
            parts.append(f"{text} {pause}".rstrip())
        return "; ".join(parts)

    def line(self) -> str:
        """Return `3 workers with 6 threads on 2 machines: node-1 2, node-2 1`."""
        machines = Counter(self.fit.values())
        threads = sum(self.threads[address] for address in self.fit)
        return (
            f"{plural(len(self.fit), 'worker')} with {plural(threads, 'thread')} on"
            f" {plural(len(machines), 'machine')}: "
            + ", ".join(f"{machine} {count}" for machine, count in sorted(machines.items()))
        )

    def close(self) -> None:
        """End what the run has on the workers, which drop their tasks."""
        if not self.is_closed and self.client.status == "running":
            self.is_closed = True
            _aside(lambda: self.client.unregister_worker_plugin(self.name))

    def _hear(self, event: tuple[float, Any]) -> None:
        """Take a message of the scheduler about its workers, in dask's thread."""
        message = event[1]
        if isinstance(message, dict) and message.get("action") in ("add-worker", "remove-worker"):
            self.events.put((message["action"], message["worker"]))

    def _ask(self, address: str) -> None:
        """Ask a worker whether it can take part, once; dask may announce it twice."""
        if address not in self.asked:
            self.asked.add(address)
            self._begin(Begun(self.question, address=address), answer_question, priority=100)

    def _due(self) -> list[str]:
        """Return the machines for which a turn that is a check is due."""
        turns = self.turns
        return [m for m in set(self.fit.values()) if turns is not None and turns.of(m).check_is_due]

    def _begin_next(self, waiting: list[Begun], fresh: Iterator[Any], worker: Worker) -> bool:
        """Give the next task to a free worker whose machine has a turn."""
        now, due = time.monotonic(), self._due()
        ready = next((each for each in waiting if each.not_before <= now), None)
        if ready is None and (task := next(fresh, _END)) is not _END:
            ready = Begun(task)
            waiting.append(ready)
        busy = Counter(each.address for each in self.under_way.values())
        for address in sorted(self.fit, key=lambda each: busy[each]):
            machine = self.fit[address]
            if busy[address] >= self.threads[address] or (ready is None and machine not in due):
                continue
            turn = self.turns.of(machine).take_turn() if self.turns else None
            if isinstance(turn, float):
                continue
            begun = ready
            if begun is None or (turn is not None and turn.is_check):
                begun = Begun(None)
            else:
                waiting.remove(begun)
            begun.address, begun.machine, begun.turn = address, machine, turn
            self._begin(begun, worker)
            return True
        return False

    def _begin(self, begun: Begun, worker: Worker, priority: int = 0) -> None:
        name = self.name

        def call(frame: bytes) -> Any:  # a closure, which dask sends by value
            from distributed import get_worker

            here: Any = get_worker()
            key, deadline = here.get_current_task(), time.monotonic() + ANSWER_SECONDS / 2

            def is_stopped() -> bool:  # dask's own word that the head has ended
                return key not in here.state.tasks or here.state.tasks[key].state == "cancelled"

            while not getattr(here.plugins.get(name), "children", None):
                if time.monotonic() > deadline or is_stopped():
                    return (b"", "it did not take the code of the run"), 1
                time.sleep(0.05)
            return here.plugins[name].children.call(frame, is_stopped), here.state.nthreads

        frame, where = pickle.dumps((worker, begun.task)), [begun.address]
        future = self.client.submit(call, frame, workers=where, pure=False, priority=priority)
        self.under_way[future] = begun
        future.add_done_callback(self.events.put)

    def _next_answers(self) -> list[Begun]:
        """Return the next tasks that ended, if one ends soon: several if a worker is lost."""
        try:
            event = self.events.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return []
        if isinstance(event, tuple):
            if event[0] == "remove-worker":
                return self._lose(event[1])
            self._ask(event[1])
            return []
        begun = self.under_way.pop(event, None)
        if begun is None:  # its worker was lost before
            return []
        try:
            answer, self.threads[begun.address] = event.result(timeout=CLOSE_SECONDS)
            begun.loss = answer[1]
            if not begun.loss:
                begun.outcomes, error = pickle.loads(answer[0])
                if isinstance(error, Stopped):
                    begun.loss = "its worker has ended"
                elif error is not None:
                    begun.problem = str(error)
        except Exception as error:  # dask's own, or its worker is being lost
            begun.loss = f"its worker was lost ({type(error).__name__}: {error})"
        if begun.task is not self.question:
            return [begun]
        self._admit(begun)
        return []

    def _lose(self, address: str) -> list[Begun]:
        """Forget a lost worker, and return its tasks."""
        self.asked.discard(address)
        if machine := self.fit.pop(address, ""):
            self.say(f"lost         worker {address} on {machine}: its tasks go to other workers")
        gone = {f: begun for f, begun in self.under_way.items() if begun.address == address}
        for future, begun in gone.items():
            del self.under_way[future]
            future.release()
            begun.loss = "its worker was lost"
        return [begun for begun in gone.values() if begun.task is not self.question]

    def _admit(self, begun: Begun) -> None:
        """Take a worker in, or leave it out, by its answer."""
        problem = begun.problem or begun.loss
        if begun.outcomes:
            begun.machine, problem = begun.outcomes[0]
        if not problem:
            self.fit[begun.address] = begun.machine
        elif not STOP.is_set():
            self._leave_out(begun, problem)

    def _leave_out(self, begun: Begun, problem: str) -> None:
        self.left_out += 1
        self.say(f"excluded     worker {begun.address} on {begun.machine or '?'}: {problem}")

    def _settle(self, begun: Begun, waiting: list[Begun], lost: Lost) -> Iterator[Any]:
        """Yield the outcomes of a task; add what remains of it, or was lost, to `waiting`."""
        last = None
        for outcome in begun.outcomes:
            if isinstance(outcome, TurnEnd):
                last = outcome
            else:
                yield outcome
        if self.turns is not None:
            results, rest = self.turns.of(begun.machine).end(begun.turn, last)
            yield from results
            if rest is not None:
                waiting.append(Begun(rest, not_before=time.monotonic() + rest.wait))
        if begun.task is None:
            return
        if not begun.problem and not begun.loss:
            self.done[begun.machine] += 1
        elif begun.problem or begun.losses + 1 == TRIES:
            if not STOP.is_set():
                yield from parallel.outcomes_of(lost, begun.task, begun.problem or begun.loss)
        else:
            waiting.append(Begun(begun.task, begun.losses + 1))

    def _look_after(self, seconds_alone: float) -> None:
        """Stop the run if the cluster is gone; tell the workers if the run is stopped."""
        if not STOP.is_set():
            if seconds_alone > ALONE_SECONDS:
                self.say("the Dask cluster has no worker left: start some, run the same command")
                STOP.set()
            if self.client.status != "running":
                self.say("the Dask scheduler is lost: start it again, run the same command")
                STOP.set()
        if STOP.is_set():
            self.close()
