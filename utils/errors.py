"""Define the exceptions that end a run: errors that a user can fix, a full disk, a stop."""

from __future__ import annotations

import errno
from pathlib import Path


class UserError(Exception):
    """Something that the user can fix. Its text is one line: what is wrong, where, what to do."""


class DiskFull(UserError):
    """The disk is full: the run stops, and the same command resumes it once there is room."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"no room left on the disk of {folder}: make room, then run the same command again"
        )


def is_disk_full(error: OSError) -> bool:
    """Whether an error says that the disk, or the user's part of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class Ended(Exception):
    """The run ends here, without a message."""

    def exit_code(self) -> int:
        raise NotImplementedError
