"""Videos that stand in train and in val or test: what must not be, told from the lists alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Leak:
    """How many videos of a list's val or test are in another's train."""

    held_out: str  # kinetics-400 val
    train: str
    videos: int

    @property
    def sentence(self) -> str:
        return f"{self.videos:,} videos of {self.held_out} are in {self.train} too."
