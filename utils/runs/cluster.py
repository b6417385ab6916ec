"""--dask: the options, and the cluster that a run opens with them.

Beside the scripts' plans; `utils/cluster` is imported only when it is asked for, and dask with it.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import re
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from utils.cli import say
from utils.cluster.code import own_script, pack_code
from utils.cluster.tasks import TOKEN, Finding, Question
from utils.errors import UserError
from utils.machines import machine_name
from utils.packages import NAMES, check_packages
from utils.process import STOP, without_ctrl_c
from utils.video.ffmpeg import find_ffmpeg

if TYPE_CHECKING:
    from utils.cluster.head import Cluster

CONNECT_SECONDS = 10.0
SEND_SECONDS = 30.0  # for all workers to take the code
WORKERS_SECONDS = 30.0  # for the first worker to be there
SAME_RELEASES = ("yt-dlp", "av", "simplejpeg")  # what makes a clip's bytes, or finds them


def add_cluster_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--dask",
        type=dask_address,
        metavar="ADDRESS",
        help="work on the workers of a Dask cluster: the address of its scheduler, such as"
        " tcp://head:8786, or local:N for N workers on this machine",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="with --dask: end when a worker cannot take part, and do not leave it out",
    )


def dask_address(text: str) -> str:
    """An argparse type: `tcp://head:8786`, `tls://...`, `head:8786`, `local:4`."""
    if not re.fullmatch(
        r"(local:[1-9][0-9]{0,3}|(?!local:)((tcp|tls|ucx)://)?[\w.\-\[\]:]+:[0-9]+)", text
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is not tcp://HOST:PORT, nor local:N")
    return text


def check_dask(args: argparse.Namespace) -> None:
    """Whether what --dask needs is installed. Raises UserError."""
    if args.strict and not args.dask:
        raise UserError("--strict goes with --dask ADDRESS")
    if args.dask and importlib.util.find_spec("distributed") is None:
        raise UserError("--dask needs Dask: pip install -r requirements-cluster.txt")


@contextmanager
def open_cluster(
    args: argparse.Namespace,
    workspace: Path,
    packages: Sequence[str],
    sees: Sequence[Path] = (),
) -> Iterator[Cluster | None]:
    """The workers that --dask names, each asked whether it can take part; None without --dask.

    workspace: the run's temporary folder; sees: what else every worker has to see.
    Raises UserError.
    """
    if not args.dask:
        yield None
        return
    from utils.cluster.head import Cluster
    from utils.cluster.members import Members

    with ExitStack() as stack:
        client = _connect(args.dask, stack)
        name = f"kinetics-{uuid4().hex[:12]}"
        script = own_script()
        _send_code(client, name, workspace, script)
        question = Question(
            workspace, uuid4().hex, tuple(packages), getattr(args, "ffmpeg", None), tuple(sees)
        )
        members = Members(client, name, workspace, look_around, question, say)
        members.look(wait=True)
        if args.strict and members.left_out:
            raise UserError("--strict: a worker cannot take part, see above")
        if not members.fit and not STOP.is_set():
            raise UserError(f"no worker of {args.dask} can take part, see above")
        if not args.quiet:
            say(f"dask         {members.line()}")
        cluster = Cluster(client, name, script, members)
        stack.callback(cluster.close)
        yield cluster
        if not args.quiet:
            say(f"machines     {cluster.note() or 'none came to anything'}")


def _connect(address: str, stack: ExitStack) -> Any:
    """A client of the cluster, with a worker at least. Raises UserError."""
    from distributed import Client, LocalCluster

    logging.disable(logging.CRITICAL)  # dask's tracebacks: what matters is told in our own words
    warnings.filterwarnings("ignore", module="distributed")
    where: Any = address
    if address.startswith("local:"):
        scratch = tempfile.mkdtemp(prefix="kinetics-dask-")
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        with without_ctrl_c():
            where = LocalCluster(
                n_workers=int(address.removeprefix("local:")),
                threads_per_worker=1,
                dashboard_address=None,
                local_directory=scratch,
            )
        stack.callback(_quietly, where.close, timeout=5)
    try:
        client = Client(where, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        # All but the first: an address that Dask does not understand, or needs more for (tls://).
        raise UserError(f"no Dask scheduler answers at {address}: {error}") from None
    stack.callback(_quietly, client.close, timeout=3)
    deadline = time.monotonic() + WORKERS_SECONDS
    while not client.scheduler_info()["workers"] and not STOP.wait(0.1):
        if time.monotonic() > deadline:
            raise UserError(f"Dask has no workers: start some (dask worker {address})")
    return client


def _quietly(close: Callable[..., Any], timeout: float) -> None:
    try:
        close(timeout=timeout)
    except Exception:  # a cluster that is lost cannot be closed in order, and nobody minds
        return


def _send_code(client: Any, name: str, workspace: Path, script: str) -> None:
    """The run's code to all workers, and to those that join later.

    In a thread, for it waits for every worker, and one may never answer. A worker that did not take
    the code says so when it is asked, and is left out.
    """
    from utils.cluster.outpost import Outpost

    def send() -> None:
        with suppress(Exception):  # what a worker raises
            client.register_plugin(Outpost(pack_code(script), str(workspace)), name=name)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    deadline = time.monotonic() + SEND_SECONDS
    while thread.is_alive() and time.monotonic() < deadline and not STOP.wait(0.05):
        pass


def look_around(question: Question) -> Finding:
    """Run by each worker, and by the head itself: what is there, and is the folder the same?"""
    machine = machine_name()
    try:
        check_packages(*question.packages)
        versions = {"Python": "{}.{}".format(*sys.version_info)}
        versions["ffmpeg"] = find_ffmpeg(question.ffmpeg).version
        for package in set(SAME_RELEASES) & set(question.packages):
            versions[NAMES.get(package, package)] = metadata.version(package)
    except UserError as error:
        return Finding(machine, problem=str(error))
    written = f"token-{uuid4().hex}"
    try:
        for path in question.sees:
            if not path.exists():
                return Finding(machine, problem=f"it does not see {path}")
        if (question.folder / TOKEN).read_text(encoding="utf-8") != question.token:
            return Finding(machine, problem=f"its {question.folder} is another one than this run's")
        (question.folder / written).write_text(question.token, encoding="utf-8")
    except OSError as error:
        problem = f"it cannot use the folder {question.folder}: {error.strerror}"
        return Finding(machine, problem=problem)
    return Finding(machine, versions, written)
