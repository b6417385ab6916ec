"""One page: gather, look at clips, make pictures, and put it all together.

What make_report.py does apart from its options, its rounds and its last line.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from utils.cli import VERSION, plural, say
from utils.download.mirror import NAME as MIRROR
from utils.download.plan import read_wanted
from utils.errors import UserError
from utils.lists.official import form_words, needed_lists
from utils.lists.reading import ClipLists, without_garbage_collection
from utils.lists.versions import same_split
from utils.page.content import Content, NextStep, ShownKind, shown_kinds
from utils.page.counts import NO_LABEL, Counts, count_clips, count_rows, look_at_folder
from utils.page.distributions import distribute
from utils.page.drawing import STRIP_BYTES, Drawn, draw_pictures, draw_sample
from utils.page.history import make_history
from utils.page.looking import Dataset, Memory, make_pictures, probe_clips, suspects_of
from utils.page.outcomes import read_outcomes
from utils.page.pictures import SHEET, STRIP, Form, Picture
from utils.page.splits import Leak, find_leaks, leaking_videos, name_classes, wanted_rows
from utils.page.suspects import in_order
from utils.page.tables import class_rows, median_lengths, missing_rows, suspect_rows, write_all


def make_page(
    listed: Listed, folder: Path, page: Path, memory: Memory, args: argparse.Namespace
) -> Content:
    """Gather, look, write; what the page says. Raises UserError, Stopped."""
    now = datetime.now(UTC)
    with without_garbage_collection():
        data = look_at(listed.lists, folder, args)
        counts = count_all(listed, data, args)
    there = [name for name in data.clips if name in data.sizes]
    looks = probe_clips(data, draw_sample(there, args.sample, args.seed), memory, args)
    leaking = leaking_videos(listed.lists, data.clips, data.sizes) if listed.leaks else []
    suspects = in_order([*suspects_of(data, looks), *leaking])
    kinds = shown_kinds(suspects, len(looks), len(there))
    drawn = draw_pictures(data.clips, there, args.pictures, args.seed)
    pictures = picture_all(data, drawn, kinds, memory, args)
    content = Content(
        folder=str(folder),
        lists=tuple(map(str, args.lists)),
        made_at=now,
        counts=counts,
        medians=median_lengths(counts),
        history=make_history(data.outcomes.minutes, now),
        next_steps=next_steps(counts, page, args),
        leaks=listed.leaks,
        probed=len(looks),
        distributions=distribute(looks),
        kinds=kinds,
        suspects=suspects,
        sheet=tuple(pictures[name, SHEET] for name in drawn.sheet),
        pictures={name: made for (name, form), made in pictures.items() if form == SHEET},
        strips=fitting_strips(drawn, pictures),
        labels=labels_of(data, drawn, kinds),
        link=link_to(folder, page),
        seed=args.seed,
        watch=args.watch or 0,
        version=VERSION,
    )
    write_page(page, data, content)
    return content


def labels_of(data: Dataset, drawn: Drawn, kinds: Sequence[ShownKind]) -> dict[str, str]:
    """The labels of the clips whose pictures the page shows."""
    shown = {*drawn.sheet, *(s.clip for kind in kinds for s in kind.shown)} & data.clips.keys()
    return {name: data.clips[name].label or NO_LABEL for name in shown}


def count_all(listed: Listed, data: Dataset, args: argparse.Namespace) -> Counts:
    """The clips, and the rows of the lists, by what has become of them."""
    counts = count_clips(data.clips, data.sizes, data.outcomes.of)
    rows = wanted_rows(listed.lists, frozenset(map(same_split, args.split)))
    count_rows(counts, rows, data.clips, data.sizes, data.outcomes.of)
    return counts


def write_page(page: Path, data: Dataset, content: Content) -> None:
    """The page, and the tables beside it. Raises UserError, DiskFull."""
    from utils.page.render import render_page

    tables: dict[str, Iterable[Sequence[object]]] = {
        "missing.csv": missing_rows(data.clips, data.sizes, data.outcomes.of),
        "suspects.csv": suspect_rows(content.suspects, data.clips),
        "classes.csv": class_rows(content.counts, content.medians),
    }
    write_all(page, render_page(content), tables)


@dataclass(frozen=True)
class Listed:
    """What the lists say, read once."""

    lists: ClipLists
    leaks: tuple[Leak, ...]


def read_listed(args: argparse.Namespace) -> Listed:
    """The wanted clips, and every row. Raises UserError, for a list that is not there too."""
    paths, missing = needed_lists(args.input_csv)
    if missing:
        official, where = missing[0]
        raise UserError(
            f"the list {official.name} is not in {where}: download.py fetches it; name the lists of"
            " your clips with --input_csv"
        )
    lists = read_wanted(paths, args, every_row=True)
    if not lists.clips:
        raise UserError("no clip is left to report on: see --shard, --label, --split")
    name_classes(lists)
    if not args.quiet:
        say(f"lists        {plural(len(args.lists), 'file')}, {plural(lists.rows, 'row')}")
        if lists.refused:
            say(f"             {plural(len(lists.refused), 'row')} refused: {lists.refused[0]}")
    return Listed(lists, find_leaks(lists))


def look_at(lists: ClipLists, folder: Path, args: argparse.Namespace) -> Dataset:
    """One look at the folder, one at the report. Raises UserError."""
    sizes = look_at_folder(folder, lists.clips)
    if not args.quiet:
        say(f"folder       {plural(len(sizes), 'clip')}")
    outcomes = read_outcomes(folder, lists.clips)
    if not args.quiet:
        say(f"report       {plural(outcomes.lines, 'line')}")
    return Dataset(folder, lists.clips, sizes, outcomes)


def picture_all(
    data: Dataset,
    drawn: Drawn,
    kinds: Sequence[ShownKind],
    memory: Memory,
    args: argparse.Namespace,
) -> dict[tuple[str, Form], Picture]:
    """The contact sheet, what looks wrong, and the strips. Raises Stopped."""
    if not args.pictures:
        return {}
    suspects = [each.clip for kind in kinds for each in kind.shown if each.clip]
    wanted = [(name, SHEET) for name in [*drawn.sheet, *suspects]]
    wanted += [(name, STRIP) for strip in drawn.strips.values() for name in strip]
    return make_pictures(data, wanted, memory, args)


def fitting_strips(
    drawn: Drawn, pictures: Mapping[tuple[str, Form], Picture]
) -> dict[str, list[Picture]]:
    """The strips, the first picture of every class before the second, as far as they fit."""
    strips: dict[str, list[Picture]] = {label: [] for label in drawn.strips}
    left = STRIP_BYTES
    for turn in range(max(map(len, drawn.strips.values()), default=0)):
        for label, names in drawn.strips.items():
            made = pictures[names[turn], STRIP] if turn < len(names) else None
            if made is not None and made.src and len(made.src) <= left:
                left -= len(made.src)
                strips[label].append(made)
    return strips


def link_to(folder: Path, page: Path) -> str:
    """The address of the clips' folder from the page, such as `./` or `../clips/`."""
    way = os.path.relpath(folder, page.parent)
    return "./" if way == "." else f"{quote(way)}/"


def next_steps(counts: Counts, page: Path, args: argparse.Namespace) -> tuple[NextStep, ...]:
    """What to type next, and what it will do."""
    total, steps = counts.total, []
    if total.to_try:
        words = ["python", "download.py", args.folder, "--input_csv", *args.input_csv]
        for option in ("label", "split"):
            words += [f"--{option}", *getattr(args, option)] if getattr(args, option) else []
        if args.shard[1] > 1:
            words += ["--shard", f"{args.shard[0]}/{args.shard[1]}"]
        words += form_words(args)
        what = f"fetches the {plural(total.to_try, 'clip')} that are still to be had"
        steps.append(NextStep(shlex.join(map(str, words)), what))
    if total.gone and not any(source == MIRROR for source in counts.sources):
        words = ["python", "download.py", args.folder, "--source", MIRROR, "--input_csv"]
        command = shlex.join(map(str, [*words, page.parent / "missing.csv"]))
        what = f"looks in the mirror's archives for the {total.gone:,} that are gone from YouTube"
        steps.append(NextStep(command, what))
    if total.there and not total.to_try:
        words = ["python", "make_training_lists.py", args.folder, "lists", "--format", "slowfast"]
        command = shlex.join(map(str, [*words, "--input_csv", *args.input_csv]))
        steps.append(NextStep(command, "writes training lists of what is there"))
    return tuple(steps)
