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
from utils.page.content import TABLES, Content, check_outputs, json_numbers, write_page
from utils.page.dataset import Counts, Dataset, count_all, look_again, read_dataset
from utils.page.looks import PROBE, SHEET, STRIP, Looks, draw_pictures, draw_sample, look_at_clips
from utils.page.plots import make_history
from utils.page.suspects import find_suspects
from utils.process import sleep, stop_on_signals

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
    check_outputs(page)
    with stop_on_signals():
        data = read_dataset(folder, args)
        if args.dry_run:
            sample = "all" if args.sample is None else f"up to {args.sample:,}"
            cli.say(f"clips        {len(data.clips):,} requested; {sample} of those on disk probed")
            cli.say(
                f"page         {page} would be written, and in the same folder {', '.join(TABLES)}"
            )
            return cli.EXIT_OK
        make_folder(page.parent)
        looks: Looks = {}
        while True:
            content = make_page(data, page, looks, args)
            tell(content)
            if not args.watch:
                return cli.EXIT_OK
            sleep(args.watch)


def make_page(data: Dataset, page: Path, looks: Looks, args: argparse.Namespace) -> Content:
    """Gather, look, write; what the page says. Raises UserError, Stopped."""
    now = datetime.now(UTC)
    look_again(data, args.quiet)
    counts = count_all(data, args.split)
    there = [name for name in data.clips if name in data.sizes and name not in data.sounds]
    sample = [(name, PROBE) for name in draw_sample(there, args.sample, args.seed)]
    probed = look_at_clips(data, sample, looks, args).values()
    labels = ((name, data.label(name)) for name in there)
    sheet, strips = draw_pictures(labels, args.pictures, args.seed)
    content = Content(
        data=data,
        args=args,
        page=page,
        made_at=now,
        counts=counts,
        history=make_history(data.minutes, now),
        next_steps=next_steps(counts, page, args, next(iter(data.sounds.values()), "")),
        # A clip that is gone by now is no broken one.
        looks=[look for look in probed if not look.problem or data.path(look.name).exists()],
        suspects=(),
        sheet=sheet,
        strips=strips,
        pictures={},
    )
    content.suspects = find_suspects(data, content.looks)
    if args.pictures:
        shown = [each.clip for kind in content.kinds() for each in kind["shown"] if each.clip]
        wanted = [(name, SHEET) for name in [*sheet, *shown]]
        wanted += [(name, STRIP) for strip in strips.values() for name in strip]
        content.pictures = look_at_clips(data, wanted, looks, args)
    write_page(content)
    return content


def next_steps(
    counts: Counts, page: Path, args: argparse.Namespace, sound: str
) -> list[tuple[str, str]]:
    """Return the next commands, each with what it does."""
    total, steps = counts.total, []
    if total.to_try:
        words = ["python", "download.py", args.folder, *form_words(args)]
        words += ["--audio_only", "--audio_format", sound[1:]] if sound else []
        for option in ("label", "split"):
            words += [f"--{option}", *getattr(args, option)] if getattr(args, option) else []
        if args.shard[1] > 1:
            words += ["--shard", f"{args.shard[0]}/{args.shard[1]}"]
        what = (
            f"downloads the {cli.plural(total.to_try, 'missing clip')} that may still be available"
        )
        steps.append((shlex.join(map(str, words)), what))
    if total.gone and not any(source == MIRROR for source in counts.sources):
        words = ["python", "download.py", args.folder, "--source", MIRROR, "--input_csv"]
        command = shlex.join(map(str, [*words, page.parent / "missing.csv"]))
        gone = cli.plural(total.gone, "clip")
        what = f"searches the mirror's archives for the {gone} unavailable on YouTube"
        steps.append((command, what))
    if total.there and not total.to_try:
        words = ["python", "make_training_lists.py", args.folder, "lists", "--format", "slowfast"]
        command = shlex.join(map(str, [*words, *form_words(args)]))
        steps.append((command, "writes training lists of the clips on disk"))
    return steps


def tell(content: Content) -> None:
    """Print the path of the page and its first line."""
    args, page = content.args, content.page
    if args.json:
        print(json.dumps(json_numbers(content), indent=1), flush=True)
    if args.quiet:
        return
    cli.say(content.answer)
    found = [f"{each['count']:,} {each['kind'].title.lower()}" for each in content.kinds()
             if each["count"]]  # fmt: skip
    what = f"suspicious: {', '.join(found)}" if found else "nothing suspicious"
    cli.say(f"probed       {cli.plural(len(content.looks), 'clip')}; {what}")
    cli.say(f"page         {page} ({page.stat().st_size / 1e6:.1f} MB), with {', '.join(TABLES)}")


if __name__ == "__main__":
    cli.run_script(main)
