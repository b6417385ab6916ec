"""What head and workers of a cluster say to each other, beside tasks and their outcomes.

Dask is not imported here: a seat need not have it, and starts in a third of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOKEN = "token.txt"  # a file in the run's folder, that every worker is to read
STOPPED = "stopped"  # what a seat says of a task that it dropped


@dataclass(frozen=True)
class Block:
    """A pause of one machine: why, and how many seconds are left of it."""

    reason: str
    seconds: float


@dataclass(frozen=True)
class Partly:
    """The outcome of a task of which something may be left, which another machine is to do.

    outcome: as from a task that was done whole; rest: a task, or None.
    """

    outcome: Any
    rest: Any = None
    block: Block | None = None


@dataclass(frozen=True)
class Question:
    """What a worker is asked: to read a token in the folder, to write one, and what it has."""

    folder: Path
    token: str
    packages: tuple[str, ...]
    ffmpeg: str | None  # --ffmpeg
    sees: tuple[Path, ...] = ()  # what else it has to see


@dataclass(frozen=True)
class Finding:
    """What a worker says of itself. `versions`: name -> release, as they are to agree with ours."""

    machine: str
    versions: Mapping[str, str] = field(default_factory=dict)
    token: str = ""  # the name of the file that it wrote
    problem: str = ""
