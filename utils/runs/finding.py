"""One line of download.py --check: a link of the chain, its state, and what to type."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, NOT_OK = "ok", "note", "not ok"  # a note costs nothing but should be known


@dataclass(frozen=True)
class Finding:
    """What came of trying a link; `todo` is what to type or do where it is not in order."""

    link: str
    state: str
    text: str
    todo: str = ""

    def line(self) -> str:
        todo = f"; {self.todo}" if self.todo else ""
        return f"{self.link:12} {self.state:6} {self.text}{todo}"
