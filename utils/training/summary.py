"""What make_training_lists.py says: classes and leakage before, the table and the next step after.

Beside the formats; nothing is decided here.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from utils.cli import Tell, plural
from utils.lists.classes import CLASSES, Classes
from utils.lists.versions import Part, Rows, shared_videos
from utils.report import Known
from utils.text import printable
from utils.training.choosing import SPLITS, TRAIN, Choice, Reason
from utils.training.manifest import Difference

SHOWN = 10

# What published work had of each version: (who, train, val).
PUBLISHED = {
    ("400",): (
        ("VideoMAEv2", 240_436, 19_796),
        ("gluon-cv", 240_618, 19_404),
        ("CVDF", 241_258, 19_881),
    ),
    ("600",): (("VideoMAEv2", 366_006, 27_935),),
    ("400", "600", "700"): (('VideoMAEv2, "K710"', 658_340, 66_803),),
}
EXCLUDED_COLUMNS = ("clip", "list", "line", "version", "split", "label", "reason", "status", "why")


def say_lists(rows: Rows, classes: Classes, tell: Tell) -> None:
    """What was read, which classes there are, and which were joined."""
    tell(f"lists        {plural(len(rows.lists), 'file')}, {plural(len(rows), 'row')}")
    tell(f"classes      {len(classes.names):,} of {', '.join(rows.versions())}")
    labels = rows.labels_of_versions()
    for version, expected in CLASSES.items():
        if labels.get(version) and len(labels[version]) < expected:
            tell(
                f"note         {version} has {expected} classes, and its lists name"
                f" {len(labels[version])}: numbers are of these (--classes FILE gives all)"
            )
    for old, new in classes.joined:
        tell(f"joined       {old!r} is {new!r}")
    for each in classes.renamed:
        tell(f"renamed      {each.old!r} is {each.new!r} now (all {each.videos} videos of both)")
    if rows.refused:
        tell(f"refused      {plural(len(rows.refused), 'row')}")
        for refused in rows.refused[:SHOWN]:
            tell(f"             {refused}")


def say_held_out(choice: Choice, tell: Tell) -> None:
    """How many videos of train are in a val or test list, by pair of lists, and what was done."""
    pairs = shared_videos(choice.rows)
    for (first, second), count in pairs.items():
        train, held = (first, second) if first[1] == TRAIN else (second, first)
        if train[1] != TRAIN or held[1] in (TRAIN, ""):
            continue
        tell(f"held out     {plural(count, 'video')} of {_part(train)} in {_part(held)}")
    for (first, second), count in pairs.items():
        if TRAIN not in (first[1], second[1]):
            tell(f"shared       {plural(count, 'video')} of {_part(first)} in {_part(second)}")
    if rows := choice.reasons.count(Reason.HELD_OUT):
        tell(f"             {plural(rows, 'row')} of train left out for it")
    if choice.relabelled:
        tell(
            f"labels       {plural(choice.relabelled, 'clip')} with two: the newest version's"
            " counts (other_label in excluded.csv)"
        )
    if choice.without_split:
        tell(f"split        {plural(choice.without_split, 'row')} name none: taken for train")


def _part(part: Part) -> str:
    return f"{part[0]} {part[1]}"


@dataclass(frozen=True)
class Counts:
    """Clips by (split, class number)."""

    wanted: Counter[tuple[str, int]]
    there: Counter[tuple[str, int]]


def count(choice: Choice) -> Counter[tuple[str, int]]:
    """The clips that are still chosen, by split and class."""
    chosen = choice.chosen()
    return Counter((choice.splits[at], choice.numbers[at]) for at in chosen)


def say_table(choice: Choice, counts: Counts, tell: Tell) -> None:
    """Wanted, there, missing and listed for each split; the classes that lost most; the papers'."""
    tell("             wanted       there    missing      listed")
    listed = Counter(choice.splits[at] for at in choice.chosen())
    for split in SPLITS:
        wanted = _sum(counts.wanted, split)
        if not wanted:
            continue
        there = _sum(counts.there, split)
        share = f"{100 * (wanted - there) / wanted:.2f} %"
        tell(f"{split:7}{wanted:12,}{there:12,}{share:>11}{listed[split]:12,}")
    for line in lost_most(choice.classes, counts):
        tell(line)
    for who, train, val in PUBLISHED.get(_versions(choice), ()):
        tell(f"published    {who}: {train:,} train, {val:,} val")


def _versions(choice: Choice) -> tuple[str, ...]:
    """The versions, both forms of 700 as one."""
    return tuple(dict.fromkeys(each.removesuffix("_2020") for each in choice.versions))


def _sum(counts: Mapping[tuple[str, int], int], split: str) -> int:
    return sum(count for (of, _), count in counts.items() if of == split)


def lost_most(classes: Classes, counts: Counts) -> Iterator[str]:
    """A line for each of the ten classes that lost the largest part of their clips."""
    wanted: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    for (split, number), clips in counts.wanted.items():
        if number >= 0:
            wanted[number] += clips
            lost[number] += clips - counts.there[split, number]
    worst = sorted((n for n in lost if lost[n]), key=lambda n: (-lost[n] / wanted[n], -lost[n], n))
    for number in worst[:SHOWN]:
        share = 100 * lost[number] / wanted[number]
        name = printable(classes.names[number])
        yield f"lost most    {share:6.2f} %  {lost[number]:,} of {wanted[number]:,}: {name}"


def excluded_lines(choice: Choice, known: Known) -> Iterator[str]:
    """excluded.csv: every row that is in no list, and what the download report says of it."""
    rows = choice.rows
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")

    def line(row: Iterable[object]) -> str:
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(row)
        return buffer.getvalue()

    yield line(EXCLUDED_COLUMNS)
    texts = {int(reason): reason.text for reason in Reason}
    for at in choice.excluded():
        reason, name = choice.reasons[at], rows.names[at]
        listed = rows.lists[rows.list_at[at]]
        status = why = ""
        if reason == Reason.MISSING:
            status, why, _ = known.reasons.get(name, ("", "", ""))
        label, split = rows.labels[at], choice.splits[at]
        place = (listed.path.name, rows.lines[at], listed.version)
        yield line((name, *place, split, label, texts[reason], status, why))
    for each in rows.refused:
        yield line(("", each.path.name, each.line, "", "", "", "invalid", "", printable(str(each))))


def say_excluded(choice: Choice, tell: Tell) -> None:
    counts = Counter(choice.reasons)
    parts = [f"{counts[reason]:,} {reason.text}" for reason in Reason if reason and counts[reason]]
    tell(f"left out     {', '.join(parts) or 'no row'}")


def say_differences(both: int, found: Iterable[Difference], what: str, tell: Tell) -> None:
    """What --compare found, by kind."""
    kinds = Counter(each.what for each in found)
    only = (kinds.pop("only_here", 0), kinds.pop("only_there", 0))
    tell(f"compared     {plural(both, 'clip')} in both; {only[0]:,} only here, {only[1]:,} only in"
         f" {what}")  # fmt: skip
    differ = ", ".join(f"{number:,} in {kind}" for kind, number in kinds.most_common())
    tell(f"             different: {differ or 'none'}")
