"""What head and workers of a cluster say to each other, beside tasks and their outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
