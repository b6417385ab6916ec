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
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from utils import cli
from utils.download.plan import add_list_options
from utils.files import make_folder
from utils.page import content, dataset, looks, plots
from utils.process import sleep


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.make_parser(__doc__ or "")
    parser.add_argument("folder", type=Path, help="folder of the clips (the output of download.py)")
    add_list_options(parser)
    add = parser.group("what the page shows").add_argument
    text = "file to write (default: report.html in FOLDER_report, next to the folder)"
    add("--out", type=Path, metavar="HTML", help=text)
    add("--sample", type=number_or_all, default=2000, metavar="N", help="clips to probe, or `all`")
    text = "clips in the contact sheet; 0 for a page without images"
    add("--pictures", type=cli.non_negative_int, default=120, metavar="N", help=text)
    add("--seed", type=int, default=0, metavar="N", help="seed for the choice of these clips")
    group = parser.group("how to run")
    text = "rebuild the page every N seconds until Ctrl-C; open pages reload themselves"
    group.add_argument("--watch", type=cli.positive_int, metavar="SECONDS", help=text)
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
    page = (args.out or beside.with_name(f"{beside.name}_report") / "report.html").absolute()
    content.check_outputs(page)
    data = dataset.read_dataset(folder, args)
    say, tables = cli.teller(args.quiet), ", ".join(content.TABLES)
    if args.dry_run:
        sample = "all" if args.sample is None else f"up to {args.sample:,}"
        cli.say(f"clips        {len(data.clips):,} requested; {sample} of those on disk probed")
        cli.say(f"page         {page} would be written, and in the same folder {tables}")
        return cli.EXIT_OK
    make_folder(page.parent)
    seen: looks.Looks = {}
    while True:
        made = make_content(data, page, seen, args)
        content.write_page(made)
        if args.json:
            print(json.dumps(content.json_numbers(made), indent=1), flush=True)
        say(made.answer)
        say(f"probed       {cli.plural(len(made.looks), 'clip')}; {made.findings}")
        say(f"page         {page} ({cli.size_text(page.stat().st_size)}), with {tables}")
        if not args.watch:
            return cli.EXIT_OK
        sleep(args.watch)


def make_content(
    data: dataset.Dataset, page: Path, seen: looks.Looks, args: argparse.Namespace
) -> content.Content:
    """Read folder and reports, probe clips, make thumbnails. Raises UserError, Stopped."""
    now = datetime.now(UTC)
    dataset.look_again(data, cli.teller(args.quiet))
    there = [name for name in data.clips if name in data.sizes and name not in data.sounds]
    sample = [(name, looks.PROBE) for name in looks.draw_sample(there, args.sample, args.seed)]
    looks.look_at_clips(data, sample, seen, args)
    probed = [seen[each] for each in sample]
    # A clip that has gone meanwhile is not broken.
    probed = [look for look in probed if not look.problem or data.path(look.name).exists()]
    suspects = looks.find_suspects(data, probed)
    labels = ((name, data.label(name)) for name in there)
    sheet, strips = looks.draw_pictures(labels, args.pictures, args.seed)
    most = content.SHOWN_OF_A_KIND if args.pictures else 0
    shown = [suspect.clip for found in suspects.values() for suspect in found[:most]]
    large = [*sheet, *(name for name in shown if name and name not in data.sounds)]
    small = [name for names in strips.values() for name in names]
    wanted = [(name, looks.SHEET) for name in large] + [(name, looks.STRIP) for name in small]
    looks.look_at_clips(data, wanted, seen, args)
    return content.Content(
        data=data,
        args=args,
        page=page,
        made_at=now,
        counts=dataset.count_all(data, args.split),
        history=plots.make_history(data.minutes, now),
        looks=probed,
        suspects=suspects,
        sheet=sheet,
        strips=strips,
        pictures=seen,
    )


if __name__ == "__main__":
    cli.run_script(main)
