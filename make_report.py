#!/usr/bin/env python3
"""See what you have: one page of the dataset, to look at and to mail.

examples:
  python make_report.py clips --input_csv kinetics-400_train kinetics-400_val
  python make_report.py clips --input_csv my_list.csv --sample all --pictures 300
  python make_report.py clips --input_csv my_list.csv --watch 60

Writes clips/report.html, one file that needs nothing else: what is there and what is missing, by
class and by reason, how long it will still take, what looks wrong, pictures. Beside it missing.csv
(a list for download.py), suspects.csv and classes.csv. Nothing is moved or deleted. It prints:

    lists        2 files, 266,440 rows
    folder       218,340 clips
    report       243,012 lines
    218,340 of 266,440 clips, 18.1 % missing, 31 h left at this pace
    3 of 2,000 probed clips look wrong: 2 frozen, 1 black
    page         clips/report.html (2.4 MB), with missing.csv, suspects.csv and classes.csv
"""

from __future__ import annotations

import utils.early  # noqa: F401 (first: Ctrl-C while the rest is imported)

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from utils.cli import (
    EXIT_OK,
    add_num_jobs,
    existing_folder,
    make_parser,
    non_negative_int,
    plural,
    positive_int,
    run_script,
    say,
)
from utils.download.options import add_list_options
from utils.files import make_folder
from utils.lists.reading import ClipLists
from utils.packages import check_packages
from utils.page.content import Content, numbers
from utils.page.looking import Memory
from utils.page.making import make_page, read_listed
from utils.page.tables import TABLES, check_ours
from utils.process import sleep, stop_on_signals

PAGE_NAME = "report.html"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    parser.add_argument("folder", type=Path, help="the folder of clips, as download.py fills it")
    add_list_options(parser, fetches=False)
    what = parser.add_argument_group("what the page shows")
    what.add_argument(
        "--out", type=Path, metavar="HTML", help="the page (default: report.html in the folder)"
    )
    what.add_argument(
        "--sample",
        type=number_or_all,
        default=2000,
        metavar="N",
        help="probe so many clips, 0 to 'all', for picture and sound and for what looks wrong",
    )
    what.add_argument(
        "--pictures",
        type=non_negative_int,
        default=120,
        metavar="N",
        help="clips of the contact sheet; 0 for a page without any picture",
    )
    what.add_argument(
        "--seed", type=int, default=0, help="draws the clips that are probed and shown"
    )
    how = parser.add_argument_group("how to go about it")
    how.add_argument(
        "--watch",
        type=positive_int,
        metavar="SECONDS",
        help="make the page anew so often, until Ctrl-C; it loads itself again",
    )
    how.add_argument("--json", action="store_true", help="print the numbers on stdout, as JSON")
    how.add_argument("--dry_run", action="store_true", help="say what would be made, and end")
    add_num_jobs(how)
    return parser.parse_args(argv)


def number_or_all(text: str) -> int | None:
    """An argparse type: a whole number from 0 on, or `all`, which is None."""
    return None if text == "all" else non_negative_int(text)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages("jinja2", "av", "numpy", "pillow", "joblib")
    folder = existing_folder(args.folder, "the folder of clips")
    page: Path = (args.out or args.folder / PAGE_NAME).absolute()
    check_ours(page)
    with stop_on_signals():
        listed = read_listed(args)
        if args.dry_run:
            say_dry_run(listed.lists, page, args)
            return EXIT_OK
        make_folder(page.parent)
        memory = Memory()
        while True:
            content = make_page(listed, folder, page, memory, args)
            tell(content, page, args)
            if not args.watch:
                return EXIT_OK
            sleep(args.watch)


def say_dry_run(lists: ClipLists, page: Path, args: argparse.Namespace) -> None:
    sample = "all" if args.sample is None else f"up to {args.sample:,}"
    say(f"clips        {len(lists.clips):,} wanted, {sample} of those that are there are probed")
    say(f"page         {page} would be written, and beside it {', '.join(TABLES)}")


def tell(content: Content, page: Path, args: argparse.Namespace) -> None:
    """What was made, and what it says first."""
    if args.json:
        print(json.dumps(numbers(content), ensure_ascii=False, indent=1), flush=True)
    if args.quiet:
        return
    say(content.answer)
    found = [f"{it.count:,} {it.kind.title.lower()}" for it in content.kinds if it.count]
    what = f"looks wrong: {', '.join(found)}" if found else "nothing looks wrong"
    say(f"probed       {plural(content.probed, 'clip')}; {what}")
    size = page.stat().st_size / 1e6
    say(f"page         {page} ({size:.1f} MB), with {', '.join(TABLES)}")


if __name__ == "__main__":
    run_script(main)
