"""Which lists: the options that scripts share, and the official lists among them, fetched."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.cli import Tell
from utils.clip import trim_format
from utils.lists.fetching import ListServers, fetch_needed
from utils.lists.official import needed_lists


def add_input_csv(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--input_csv",
        nargs="+",
        type=Path,
        default=[Path("kinetics_csv")],
        metavar="LIST",
        help="lists, and folders of lists (*.csv); an official one that is not there is fetched",
    )


def add_lists_base(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--lists_base",
        metavar="URL",
        help="a server of the official lists (default: DeepMind's, then CVDF's)",
    )


def add_trim_format(
    group: argparse._ActionsContainer, what: str = "how times are written in file names"
) -> None:
    group.add_argument(
        "--trim_format", type=trim_format, default="%06d", help=f"{what} (default: %%06d)"
    )


def lists_at_hand(
    given: Sequence[Path], servers: ListServers, dry_run: bool, tell: Tell
) -> Sequence[Path] | None:
    """The paths of the lists that `given` names; official ones that are not there are fetched.

    None where a dry run would have to fetch some. Raises UserError, Stopped.
    """
    needed = needed_lists(given)
    if needed.missing and dry_run:
        for each, folder in needed.missing:
            tell(f"would fetch the list {each.name} into {folder}")
        return None
    if needed.missing:
        fetch_needed(needed, servers, tell)
    return needed.paths
