"""The error that a user can mend. At the very ground: whoever finds one raises it."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user can mend. Its text is one line: what is wrong, where, what to do."""
