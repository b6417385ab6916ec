"""What ends a run: the error that a user can mend, and the stop. At the very ground."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend. Its text is one line: what is wrong, where, what to do."""


class Ended(Exception):
    """The run ends here, and nothing is left to be said."""

    def exit_code(self) -> int:
        raise NotImplementedError
