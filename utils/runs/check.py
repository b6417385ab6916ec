"""download.py --check: every link of the chain tried once, a line for each, and what to type.

Beside the run itself: nothing is fetched but one short section, and nothing is left behind. The
links of this machine are in `check_machine`, those across the network in `check_network`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from utils.cli import EXIT_OK, EXIT_USAGE
from utils.errors import UserError
from utils.process import STOP, Stopped, stop_on_signals
from utils.runs.check_machine import (
    check_ffmpeg,
    check_folder,
    check_js_runtime,
    check_python,
    check_room,
    check_ytdlp,
)
from utils.runs.check_network import check_cookies, check_mirror, check_servers, check_youtube
from utils.runs.finding import NOT_OK, Finding

Check = Callable[[argparse.Namespace, Path], Iterator[Finding]]

# Which checks a source needs, in this order; "" is every source.
LINKS: tuple[tuple[str, Check], ...] = (
    ("", check_python),
    ("", check_ffmpeg),
    ("youtube", check_js_runtime),
    ("youtube", check_ytdlp),
    ("cvdf", check_servers),
    ("cvdf", check_mirror),
    ("youtube", check_cookies),
    ("youtube", check_youtube),
    ("", check_folder),
    ("", check_room),
)


def check(args: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Try the links that --source needs; 0 when all are in order, else 2. Raises Stopped."""
    bad = 0
    with stop_on_signals(), tempfile.TemporaryDirectory(prefix="kinetics-check-") as folder:
        for finding in _findings(args, Path(folder)):
            tell(finding.line())
            bad += finding.state == NOT_OK
    tell("all in order" if not bad else f"{bad} not in order: docs/youtube.md says more of YouTube")
    return EXIT_USAGE if bad else EXIT_OK


def _findings(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    for source, link in LINKS:
        if STOP.is_set():
            raise Stopped
        if source and source not in args.source:
            continue
        try:
            yield from link(args, folder)
        except UserError as error:
            name = link.__name__.removeprefix("check_").replace("_", " ")
            yield Finding(name, NOT_OK, str(error))
