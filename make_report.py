#!/usr/bin/env python3
"""Write a one-page HTML report of the dataset.

examples:
  python make_report.py clips --input_csv kinetics-400_train kinetics-400_val
  python make_report.py clips --input_csv my_list.csv --sample all
  python make_report.py clips --input_csv my_list.csv --watch 60

Writes clips_report/report.html, one file without external resources: clips on
disk and missing clips by class and reason, estimated time left, suspicious
clips, thumbnails. missing.csv (a list for download.py), suspects.csv and
classes.csv are written to the same folder. Nothing is moved, deleted or
downloaded. The first command prints:

    lists        2 files, 266,440 rows
    folder       218,340 clips
    report       243,012 lines
    218,340 of 266,440 clips, 18.1% missing, 31 h left at this pace
    probed       2,000 clips; suspicious: 2 frozen, 1 black
    page         clips_report/report.html (2.4 MB), with missing.csv, ...
"""

from __future__ import annotations

from utils.errors import check_packages  # isort: skip (first: Ctrl-C while the rest is imported)

import argparse
import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from utils import cli
from utils.download.archives import MIRROR
from utils.download.plan import add_list_options
from utils.files import make_folder
from utils.lists.reading import form_words
from utils.page import content, dataset, looks, plots
from utils.process import sleep

PAGE_NAME = "report.html"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.make_parser(__doc__ or "")
    parser.add_argument("folder", type=Path, help="folder of the clips (the output of download.py)")
    add_list_options(parser)
    group = parser.group("what the page shows")
    group.add_argument(
        "--out",
        type=Path,
        metavar="HTML",
        help="file to write (default: report.html in FOLDER_report, next to the folder)",
    )
    group.add_argument(
        "--sample",
        type=number_or_all,
        default=2000,
        metavar="N",
        help="number of clips to probe, or `all` (0 = none)",
    )
    group.add_argument(
        "--pictures",
        type=cli.non_negative_int,
        default=120,
        metavar="N",
        help="number of clips in the contact sheet; 0 for a page without images",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed for the choice of clips to probe and to show",
    )
    group = parser.group("how to run")
    group.add_argument(
        "--watch",
        type=cli.positive_int,
        metavar="SECONDS",
        help="rebuild the page every N seconds until Ctrl-C; open pages reload themselves",
    )
    group.add_argument("--json", action="store_true", help="print the numbers on stdout as JSON")
    cli.add_shared(group, "--num_jobs", "--dry_run")
    return parser.parse_args(argv)


def number_or_all(text: str) -> int | None:
    """An argparse type: a whole number from 0 on, or `all`, which is None."""
    return None if text == "all" else cli.non_negative_int(text)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages("jinja2", "av", "numpy", "pandas", "pillow", "joblib")
    folder = cli.existing_folder(args.folder, "the folder of clips")
    # Beside the clips: their folder stays flat, with nothing but clips and the download's report.
    beside = folder.resolve()
    page = (args.out or beside.with_name(f"{beside.name}_report") / PAGE_NAME).absolute()
    content.check_outputs(page)
    data = dataset.read_dataset(folder, args)
    tables = ", ".join(content.TABLES)
    if args.dry_run:
        sample = "all" if args.sample is None else f"up to {args.sample:,}"
        cli.say(f"clips        {len(data.clips):,} requested; {sample} of those on disk probed")
        cli.say(f"page         {page} would be written, and in the same folder {tables}")
        return cli.EXIT_OK
    make_folder(page.parent)
    memory: looks.Looks = {}
    while True:
        tell(make_page(data, page, memory, args), tables)
        if not args.watch:
            return cli.EXIT_OK
        sleep(args.watch)


def make_page(
    data: dataset.Dataset, page: Path, memory: looks.Looks, args: argparse.Namespace
) -> content.Content:
    """Read, probe, write; return the content of the page. Raises UserError, Stopped."""
    now = datetime.now(UTC)
    dataset.look_again(data, args.quiet)
    counts = dataset.count_all(data, args.split)
    there = [name for name in data.clips if name in data.sizes and name not in data.sounds]
    sample = [(name, looks.PROBE) for name in looks.draw_sample(there, args.sample, args.seed)]
    probed = looks.look_at_clips(data, sample, memory, args).values()
    # A clip that has gone meanwhile is not broken.
    seen = [look for look in probed if not look.problem or data.path(look.name).exists()]
    found = looks.find_suspects(data, seen)
    labels = ((name, data.label(name)) for name in there)
    sheet, strips = looks.draw_pictures(labels, args.pictures, args.seed)
    wanted: list[tuple[str, int]] = []
    if args.pictures:
        shown = [each.clip for kind in found.values() for each in kind[: content.SHOWN_OF_A_KIND]]
        shown = [name for name in shown if name and name not in data.sounds]
        wanted += [(name, looks.SHEET) for name in [*sheet, *shown]]
        wanted += [(name, looks.STRIP) for strip in strips.values() for name in strip]
    made = content.Content(
        data=data,
        args=args,
        page=page,
        made_at=now,
        counts=counts,
        history=plots.make_history(data.minutes, now),
        next_steps=next_steps(counts, page, args, next(iter(data.sounds.values()), "")),
        looks=seen,
        suspects=found,
        sheet=sheet,
        strips=strips,
        pictures=looks.look_at_clips(data, wanted, memory, args),
    )
    content.write_page(made)
    return made


def next_steps(
    counts: dataset.Counts, page: Path, args: argparse.Namespace, sound: str
) -> list[tuple[str, str]]:
    """Return the next commands, each with what it does."""
    total, steps = counts.total, []
    if total.to_try:
        words = ["download.py", args.folder, *form_words(args)]
        words += ["--audio_only", "--audio_format", sound[1:]] if sound else []
        for option in ("label", "split"):
            words += [f"--{option}", *getattr(args, option)] if getattr(args, option) else []
        if args.shard[1] > 1:
            words += ["--shard", f"{args.shard[0]}/{args.shard[1]}"]
        missing = cli.plural(total.to_try, "missing clip")
        steps.append((words, f"downloads the {missing} that may still be available"))
    if total.gone and MIRROR not in counts.sources:
        table = page.parent / "missing.csv"
        words = ["download.py", args.folder, "--source", MIRROR, "--input_csv", table]
        gone = cli.plural(total.gone, "clip")
        steps.append(
            (words, f"searches the mirror's archives for the {gone} unavailable on YouTube")
        )
    if total.there and not total.to_try:
        words = ["make_training_lists.py", args.folder, "lists", "--format", "slowfast"]
        words += form_words(args)
        steps.append((words, "writes training lists of the clips on disk"))
    return [(shlex.join(["python", *map(str, words)]), what) for words, what in steps]


def tell(made: content.Content, tables: str) -> None:
    """Print the numbers of the page, its first line and its path."""
    if made.args.json:
        print(json.dumps(content.json_numbers(made), indent=1), flush=True)
    if made.args.quiet:
        return
    cli.say(made.answer)
    counted = {kind.title.lower(): len(found) for kind, found in made.suspects.items()}
    found = [f"{count:,} {title}" for title, count in counted.items() if count]
    what = f"suspicious: {', '.join(found)}" if found else "nothing suspicious"
    cli.say(f"probed       {cli.plural(len(made.looks), 'clip')}; {what}")
    cli.say(f"page         {made.page} ({cli.size_text(made.page.stat().st_size)}), with {tables}")


if __name__ == "__main__":
    cli.run_script(main)
