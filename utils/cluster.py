"""Run the tasks of a script on the workers of a Dask cluster (--dask).

Each task is pinned to a worker that has said that it can take part, no more of them at once than
it has threads. So a lost worker is known by name, and so are its tasks. A machine that YouTube
blocks is given none until its pace allows it. A worker that joins late is asked, then given tasks.
Only distributed's public interface is used. A worker needs no checkout: the run sends its code.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import logging
import os
import pickle
import queue
import re
import shutil
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

from utils import parallel
from utils.cli import plural, say
from utils.errors import NAMES, UserError, check_packages
from utils.files import machine_name
from utils.parallel import (
    ROOT,
    STOPPED,
    Child,
    TurnEnd,
    Turns,
    Workers,
    make_frame,
    outcomes_of,
    seconds_to_wait,
)
from utils.process import STOP, stop_run
from utils.video.ffmpeg import find_ffmpeg

TRIES = 3  # times that a task is begun, where its worker or its process dies
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0  # for a worker to say whether it can take part
ALONE_SECONDS = 600.0  # without any worker for so long, the run ends
STOP_SECONDS = 7.0  # for the tasks of a stopped run to end in
CLOSE_SECONDS = 3.0
BEAT_SECONDS = 60.0
SAME_RELEASES = ("yt-dlp", "av", "simplejpeg")  # what makes a clip's bytes, or finds them
_POLL_SECONDS = 0.1
_END = object()


# --- options -------------------------------------------------------------------------------------


def add_cluster_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--dask",
        type=dask_address,
        metavar="ADDRESS",
        help="run on the workers of a Dask cluster: the address of its scheduler"
        " (tls://head:8786, tcp://head:8786), or local:N for N workers on this machine",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="with --dask: end if a worker cannot take part (default: run without it)",
    )


def dask_address(text: str) -> str:
    """An argparse type: `tcp://head:8786`, `tls://...`, `head:8786`, `local:4`."""
    if not re.fullmatch(
        r"(local:[1-9][0-9]{0,3}|(?!local:)((tcp|tls|ucx)://)?[\w.\-\[\]:]+:[0-9]+)", text
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is not tls://HOST:PORT, tcp://..., or local:N")
    return text


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
    """The workers of a run: those of --dask that can take part, or this machine.

    workspace: the run's temporary folder. packages, sees: what each of a cluster's workers must
    have and see. Raises UserError.
    """
    if not getattr(args, "dask", None):
        yield Workers(args.num_jobs)
        return
    logging.disable(logging.CRITICAL)  # dask's tracebacks: what matters is said in our own words
    warnings.filterwarnings("ignore", module="distributed")
    if not args.dask.startswith(("local:", "tls://")):
        say(
            f"warning: {args.dask} has no access control: anyone who can reach the port can run"
            " code on these machines; keep it inside, or use tls:// (docs/scale.md)"
        )
    question = Question(
        workspace, tuple(packages), getattr(args, "ffmpeg", None), tuple(sees), uuid4().hex
    )
    with _connect(args.dask, workspace) as client:
        cluster = Cluster(client, question, args.num_jobs)
        try:
            cluster.wait_for_answers()
            if args.strict and cluster.left_out:
                raise UserError("--strict: a worker cannot take part, see above")
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
    """A client of the cluster. Raises UserError."""
    from distributed import Client
    from distributed.security import Security

    local: Any = None
    client: Any = None
    try:
        if address.startswith("local:"):
            local = _start_local(int(address.removeprefix("local:")), workspace / "dask")
        elif address.startswith("tls://") and not Security().get_connection_args("client").get(
            "ssl_context"
        ):
            raise UserError(
                f"{address} needs certificates: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE,"
                " ..._TLS__CLIENT__CERT and ..._TLS__CLIENT__KEY (docs/scale.md)"
            )
        client = Client(local or address, timeout=CONNECT_SECONDS, set_as_default=False)
        yield client
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        if client is not None:
            raise
        # All but the first: an address that Dask does not understand, or needs more for (tls://).
        raise UserError(f"no Dask scheduler answers at {address}: {error}") from None
    finally:
        for each in (client, local):
            if each is not None:
                _aside(partial(each.close, timeout=CLOSE_SECONDS))


def _start_local(count: int, folder: Path) -> Any:
    """Start a scheduler and workers in this process. No port is opened; tasks use child processes.

    LocalCluster cannot do that: its HTTP pages listen on all addresses, also without a dashboard.
    """
    from distributed import Scheduler, SpecCluster, Worker

    class WithoutPages:
        def start_http_server(self, *_: Any, **__: Any) -> None:
            pass

    head = type("LocalScheduler", (WithoutPages, Scheduler), {})
    worker = type("LocalWorker", (WithoutPages, Worker), {})
    options: dict[str, Any] = {"protocol": "inproc://", "dashboard": False}
    own = options | {"nthreads": 1, "local_directory": str(folder)}
    return SpecCluster(
        scheduler={"cls": head, "options": options},
        workers={number: {"cls": worker, "options": own} for number in range(count)},
    )


def _aside(action: Callable[[], Any], seconds: float = CLOSE_SECONDS) -> None:
    """Call what may never come back from a cluster in trouble, and wait for some time."""

    def act() -> None:
        with suppress(Exception):
            action()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)


# --- what a worker is asked before it gets a task ------------------------------------------------


@dataclass(frozen=True)
class Question:
    """The requirements for a worker, and the name of the file that it writes as a test."""

    workspace: Path
    packages: tuple[str, ...]
    ffmpeg: str | None
    sees: tuple[Path, ...]
    token: str

    @property
    def lifeline(self) -> Path:
        """The file that is there as long as the run lasts."""
        return self.workspace / f"alive-{self.token}"


@dataclass(frozen=True)
class SelfReport:
    """A worker's versions and checks. `problem`: why it is unusable."""

    machine: str
    versions: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    written: str = ""  # the name of a file that it wrote into the run's folder


def look_around(question: Question) -> SelfReport:
    """Say what this machine has, and whether its folder is the run's. Run by each worker."""
    machine, written = machine_name(), f"seen-{uuid4().hex}"
    try:
        check_packages(*question.packages)
        versions = {"Python": "{}.{}".format(*sys.version_info)}
        versions["ffmpeg"] = find_ffmpeg(question.ffmpeg).version
        for package in set(SAME_RELEASES) & set(question.packages):
            versions[NAMES.get(package, package)] = metadata.version(package)
        for path in (question.lifeline, *question.sees):
            if not path.exists():
                return SelfReport(machine, problem=f"it cannot see {path}: share the folder")
        (question.workspace / written).write_text(question.token, encoding="ascii")
    except UserError as error:
        return SelfReport(machine, problem=str(error))
    except OSError as error:
        problem = f"it cannot use the folder {question.workspace}: {error.strerror}"
        return SelfReport(machine, problem=problem)
    return SelfReport(machine, versions, written=written)


# --- on each worker ------------------------------------------------------------------------------


class Outpost:
    """The run on one worker, also on one that joins late: its code, and a process for each thread.

    A plugin of dask's. It travels by value, since workers have no `utils` of this run.
    """

    def __init__(self, code: bytes, script: str, lifeline: str) -> None:
        self.code, self.script, self.lifeline = code, script, lifeline
        self.folder = ""  # until it is set up

    def setup(self, worker: Any) -> None:
        """Called by dask, on the worker's event loop."""
        self.idle: list[Child] = []
        self.children: list[Child] = []
        self.lock = threading.Lock()
        self.over = False
        folder = tempfile.mkdtemp(prefix="kinetics-code-")
        zipfile.ZipFile(io.BytesIO(self.code)).extractall(folder)
        self.folder = folder

    def teardown(self, worker: Any) -> None:
        """Called by dask when the run or the worker ends."""
        with self.lock:
            self.over = True
        for child in self.children:
            child.hang_up()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, frame: bytes) -> tuple[list[bytes], bytes, str]:
        """(outcomes, problem) as `Child.receive` has them, or how the process ended."""
        with self.lock:
            if self.over:
                return [], b"", "the run is over"
            if self.idle:
                child = self.idle.pop()
            else:
                child = Child(self.folder, self.script, self.lifeline)
                self.children.append(child)
        outcomes: list[bytes] = []
        try:
            child.send(frame)
            while (answer := child.receive())[0]:
                outcomes.append(answer[1])
        except (EOFError, OSError):
            self.children.remove(child)
            return [], b"", child.how_it_ended()
        self.idle.append(child)
        return outcomes, answer[1], ""


def pack_code() -> bytes:
    """A zip of what the workers need of this checkout."""
    packed = io.BytesIO()
    folders = (ROOT / "utils", ROOT / "clipreader")
    files = [f for folder in folders for f in folder.rglob("*.py")] + [
        *ROOT.glob("requirements*.txt")
    ]
    script = parallel.own_script()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in [*files, *([ROOT / script] if script else [])]:
            archive.write(path, path.relative_to(ROOT))
    return packed.getvalue()


# --- the head ------------------------------------------------------------------------------------


@dataclass
class Begun:
    """What a worker is running: a task, or the check of its requirements."""

    address: str
    machine: str = ""
    task: Any = None
    losses: int = 0  # of workers and processes that were at it before
    turn: Any = None  # of its machine's
    not_before: float = 0.0
    is_question: bool = False


# What a task came to: outcomes, what the worker raised, how its process or worker was lost.
Answer = tuple[Begun, list[Any], str, str]


class Cluster(Workers):
    """The workers of a cluster, for one run."""

    def __init__(self, client: Any, question: Question, num_jobs: int) -> None:
        import cloudpickle
        from distributed import WorkerPlugin

        super().__init__(num_jobs)
        self.client, self.question = client, question
        self.name = f"kinetics-{question.token[:12]}"
        self.fit: dict[str, str] = {}  # address -> machine
        self.threads: dict[str, int] = {}
        self.known: set[str] = set()  # asked, fit or left out
        self.left_out: set[str] = set()
        self.done: Counter[str] = Counter()  # tasks by machine
        self.turns: Turns | None = None
        self.under_way: dict[Any, Begun] = {}  # by dask's future
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()  # futures; workers come and gone
        self.last_beat = time.monotonic()
        question.lifeline.touch()
        self.ours = look_around(question)
        (question.workspace / self.ours.written).unlink()
        for module in (sys.modules[__name__], parallel):  # dask would send names alone
            cloudpickle.register_pickle_by_value(module)
        kind = type("RunOutpost", (Outpost, WorkerPlugin), {})
        plugin = kind(pack_code(), parallel.own_script(), str(question.lifeline))
        # It waits for every worker, and one may never answer.
        _aside(lambda: client.register_plugin(plugin, name=self.name))

    def wait_for_answers(self) -> None:
        """Ask the workers that are there whether they can take part."""
        deadline = time.monotonic() + ANSWER_SECONDS
        self.client.subscribe_topic("all", self._hear)
        for address in self.client.nthreads():
            self._ask(address)
        while (self.under_way or not self.known) and not STOP.is_set():
            self._next_answers()
            if time.monotonic() > deadline:
                break
        for begun in self.under_way.values():
            self._leave_out(begun, f"no answer in {ANSWER_SECONDS:.0f} s")

    def run(
        self,
        worker: Callable[[Any], Any],
        tasks: Iterable[Any],
        lost: Callable[[Any, str], Any],
        threads: bool = False,
        turns: Turns | None = None,
    ) -> Generator[Any, None, None]:
        """As `Workers.run`; a task whose worker or process dies is begun three times.

        Stops the run where the scheduler is lost, or no worker is left.
        """
        fresh, self.turns = iter(tasks), turns
        waiting: deque[Begun] = deque()
        all_drawn, deadline, last_seen = False, 0.0, time.monotonic()
        try:
            while self.under_way or waiting or not all_drawn or self._due():
                while not STOP.is_set():
                    if not all_drawn and not waiting:
                        task = next(fresh, _END)
                        all_drawn = task is _END
                        waiting += [] if all_drawn else [Begun("", task=task)]
                    if not self._begin_next(waiting, worker):
                        break
                for answer in self._next_answers():
                    yield from self._settle(answer, waiting, lost)
                last_seen = time.monotonic() if self.fit else last_seen
                self._look_after(time.monotonic() - last_seen)
                if STOP.is_set():
                    deadline = deadline or time.monotonic() + STOP_SECONDS
                    if time.monotonic() > deadline or not self.under_way:
                        break
            while not self.events.empty():  # a worker that was lost at the very end is told of
                self._next_answers()
        except BaseException:
            STOP.set()  # closed early (the report could not be written, say)
            raise

    def note(self) -> str:
        """Each machine, how many tasks it has done, and what holds it up."""
        parts, here = [], set(self.fit.values())
        for machine in sorted(self.done.keys() | here):
            text = f"{machine} {self.done[machine]:,}" + ("" if machine in here else " lost")
            pause = self.turns.of(machine).note() if self.turns else ""
            parts.append(f"{text} {pause}".rstrip())
        return "; ".join(parts)

    def line(self) -> str:
        """`3 workers with 6 threads on 2 machines: node-1 2, node-2 1`"""
        machines = Counter(self.fit.values())
        threads = sum(self.threads[address] for address in self.fit)
        return (
            f"{plural(len(self.fit), 'worker')} with {plural(threads, 'thread')} on"
            f" {plural(len(machines), 'machine')}: "
            + ", ".join(f"{machine} {count}" for machine, count in sorted(machines.items()))
        )

    def close(self) -> None:
        """End what the run has on the workers."""
        self.question.lifeline.unlink(missing_ok=True)
        if self.client.status == "running":
            for future in self.under_way:
                future.release()
            _aside(lambda: self.client.unregister_worker_plugin(self.name))

    def _hear(self, event: tuple[float, Any]) -> None:
        """Take what the scheduler says of its workers, in dask's thread."""
        message = event[1]
        if isinstance(message, dict) and message.get("action") in ("add-worker", "remove-worker"):
            self.events.put((message["action"], message["worker"]))

    def _ask(self, address: str) -> None:
        """Ask a worker whether it can take part; its coming may be heard of twice."""
        if address not in self.known:
            self.known.add(address)
            self._begin(Begun(address, task=self.question, is_question=True), look_around)

    def _due(self) -> list[str]:
        """The machines for which a turn that is no task's is due."""
        turns = self.turns
        return [m for m in set(self.fit.values()) if turns is not None and turns.of(m).check_is_due]

    def _begin_next(self, waiting: deque[Begun], worker: Callable[[Any], Any]) -> bool:
        """Give the next task to a worker that is free, and whose machine has a turn."""
        now, due = time.monotonic(), self._due()
        begun = next((each for each in waiting if each.not_before <= now), None)
        busy = Counter(each.address for each in self.under_way.values())
        for address in sorted(self.fit, key=lambda each: busy[each]):
            machine = self.fit[address]
            if busy[address] >= self.threads[address] or (begun is None and machine not in due):
                continue
            turn = self.turns.of(machine).take_turn() if self.turns else None
            if isinstance(turn, float):
                continue
            if begun is None or (turn is not None and turn.is_check):
                self._begin(Begun(address, machine, turn=turn), worker)
            else:
                waiting.remove(begun)
                begun.address, begun.machine, begun.turn = address, machine, turn
                self._begin(begun, worker)
            return True
        return False

    def _begin(self, begun: Begun, worker: Callable[[Any], Any]) -> None:
        name = self.name

        def call(frame: bytes) -> Any:  # a closure, which dask sends by value
            from distributed import get_worker

            deadline = time.monotonic() + ANSWER_SECONDS / 2
            plugins: Any = get_worker().plugins
            while not getattr(plugins.get(name), "folder", ""):
                if time.monotonic() > deadline:
                    return ([], b"", "it did not take the code of the run"), 1
                time.sleep(0.05)
            return plugins[name].call(frame), get_worker().state.nthreads

        frame = make_frame(worker, begun.task)
        priority = 100 if begun.is_question else 0
        future = self.client.submit(
            call, frame, workers=[begun.address], pure=False, priority=priority
        )
        self.under_way[future] = begun
        future.add_done_callback(self.events.put)

    def _next_answers(self) -> list[Answer]:
        """What comes next, if it comes soon: of a task, or of all that a lost worker was at."""
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
        if begun is None:  # of a worker that was lost meanwhile
            return []
        outcomes, problem, how = [], "", f"its worker was lost ({event.status})"
        try:
            (packed, said, how), threads = event.result(timeout=CLOSE_SECONDS)
            self.threads[begun.address] = threads
            problem = str(pickle.loads(said)) if said else ""
            outcomes = [pickle.loads(outcome) for outcome in packed]
        except Exception as error:  # dask's own, or its worker is lost just now
            how = f"its worker was lost ({type(error).__name__}: {error})"
        if begun.is_question:
            self._admit(begun, outcomes, problem or how)
            return []
        return [(begun, outcomes, problem, how)]

    def _lose(self, address: str) -> list[Answer]:
        """Forget a worker that is gone; what it was at."""
        self.known.discard(address)
        if machine := self.fit.pop(address, ""):
            self.say(f"lost         worker {address} on {machine}: its tasks go to other workers")
        gone = {f: begun for f, begun in self.under_way.items() if begun.address == address}
        for future in gone:
            del self.under_way[future]
            future.release()
        return [(b, [], "", "its worker was lost") for b in gone.values() if not b.is_question]

    def _admit(self, begun: Begun, reports: list[SelfReport], problem: str) -> None:
        """Take a worker in, or leave it out, by what it says of itself."""
        if STOP.is_set():
            return
        machine = reports[0].machine if reports else ""
        if reports:
            problem = self._problem(reports[0])
        if problem:
            self._leave_out(replace(begun, machine=machine), problem)
        else:
            self.fit[begun.address] = machine

    def _problem(self, report: SelfReport) -> str:
        """Why a worker cannot take part; empty if it can."""
        if report.problem:
            return report.problem
        for name, ours in self.ours.versions.items():
            if (its := report.versions.get(name, "")) != ours:
                return f"it has {name} {its or 'not at all'}, and this run {ours}"
        written = self.question.workspace / report.written
        if not written.exists():
            return f"it writes into another {written.parent} than this run: share the folder"
        written.unlink()
        return ""

    def _leave_out(self, begun: Begun, problem: str) -> None:
        self.left_out.add(begun.address)
        self.say(f"left out     worker {begun.address} on {begun.machine or '?'}: {problem}")

    def _settle(
        self, answer: Answer, waiting: deque[Begun], lost: Callable[[Any, str], Any]
    ) -> Iterator[Any]:
        """The outcomes of a task; what is left of it, or was lost, goes to `waiting`."""
        begun, outcomes, problem, how = answer
        turns = self.turns.of(begun.machine) if self.turns else None
        yield from (each for each in outcomes if not isinstance(each, TurnEnd))
        if turns is not None:
            said = [each for each in outcomes if isinstance(each, TurnEnd)]
            results, rest = turns.end(begun.turn, said[-1] if said else None)
            yield from results
            if rest is not None:
                later = time.monotonic() + seconds_to_wait(rest)
                waiting.append(Begun("", task=rest, not_before=later))
        if problem == STOPPED:
            how, problem = "its worker has ended", ""
        if begun.task is None:
            return
        if not problem and not how:
            self.done[begun.machine] += 1
        elif problem or begun.losses + 1 == TRIES:
            if not STOP.is_set():
                yield from outcomes_of(lambda task: lost(task, problem or how), begun.task)
        else:
            waiting.append(Begun("", task=begun.task, losses=begun.losses + 1))

    def _look_after(self, seconds_alone: float) -> None:
        """Show the workers that the run lives; stop it where the cluster is gone."""
        if time.monotonic() - self.last_beat > BEAT_SECONDS:
            self.last_beat = time.monotonic()
            with suppress(OSError):
                os.utime(self.question.lifeline)
        if not STOP.is_set():
            if seconds_alone > ALONE_SECONDS:
                self.say("the Dask cluster has no worker left: start some, run the same command")
                stop_run()
            if self.client.status != "running":
                self.say("the Dask scheduler is lost: start it again, run the same command")
                stop_run()
        if STOP.is_set():
            self.question.lifeline.unlink(missing_ok=True)
