"""The steps of make_training_lists.py, in their order: read, choose, look, measure, write beside.

Each step has one reason to fail and says it in one line; what is decided where is in the modules
that they call.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.cli import EXIT_INCOMPLETE, EXIT_OK, VERSION, Tell, existing_folder, plural
from utils.errors import UserError
from utils.files import make_folder
from utils.lists.classes import Classes, join_classes, read_classes
from utils.lists.fetching import ListServers, lists_at_hand
from utils.lists.official import BY_NAME
from utils.lists.reading import find_lists
from utils.lists.versions import OFFICIAL, Rows, read_rows
from utils.report import REPORT_NAME, Known, read_known
from utils.training import manifest, summary, there
from utils.training.choosing import (
    HOLDOUT,
    NO_LABEL,
    SPLITS,
    TEST,
    VAL,
    Choice,
    Reason,
    choose,
)
from utils.training.formats import FORMATS
from utils.training.job import Job, check_paths, path_before, write_lines
from utils.training.subsets import draw, select
from utils.training.summary import Counts
from utils.training.trees import link_all
from utils.web import Web

MARK = ".make_training_lists"  # stands in a folder that is ours to write into
EXCLUDED, COMPARED, TO_DOWNLOAD = "excluded.csv", "compare.csv", "to_download.csv"
CLASSES_TXT, CLASSES_JSON = "classes.txt", "classes.json"


@dataclass(frozen=True)
class Read:
    """Rows of the lists, of which those from `wanted` on are only held out."""

    rows: Rows
    wanted: int
    classes: Classes
    versions: tuple[str, ...]


def read(args: argparse.Namespace, tell: Tell) -> Read | None:
    """Read all lists; None where --dry_run would have to fetch some. Raises UserError, Stopped."""
    paths = _ensure(args.input_csv, args, tell)
    holdout = _ensure(args.holdout, args, tell)
    if paths is None or holdout is None:
        return None
    rows = read_rows(paths, args.trim_format)
    if not len(rows):
        raise UserError(f"no clip in {', '.join(map(str, paths))}: nothing to list")
    labels: dict[str, set[str]] = rows.labels_of_versions()
    entries = manifest.read_manifest(args.only_manifest) if args.only_manifest else None
    if entries is not None:
        labels[manifest.VERSION] = {entry.label for entry in entries.values() if entry.label}
    classes = join_classes(labels)
    if args.classes:
        classes = read_classes(args.classes, classes)
    summary.say_lists(rows, classes, tell)
    versions = tuple(rows.versions())
    holdout += _beside(rows, holdout, tell)
    if entries is not None:
        holdout += [each.path for each in rows.lists if each.split in (VAL, TEST)]
        rows = manifest.rows_of(args.only_manifest, entries)
    wanted = len(rows)
    read_rows(holdout, args.trim_format, rows)
    for at in range(wanted, len(rows)):
        rows.splits[at] = rows.splits[at] or HOLDOUT
    return Read(rows, wanted, classes, versions)


def _ensure(given: Sequence[Path], args: argparse.Namespace, tell: Tell) -> list[Path] | None:
    """The lists that `given` names; official ones that are not there are fetched."""
    paths = lists_at_hand(given, ListServers(Web(()), args.lists_base), args.dry_run, tell)
    return None if paths is None else find_lists(paths)


def _beside(rows: Rows, holdout: Sequence[Path], tell: Tell) -> list[Path]:
    """The val and test lists of the versions named that lie beside the lists, and are not named."""
    named = {(each.version, each.split) for each in rows.lists} | set(rows.parts())
    known = {os.path.abspath(path) for path in holdout}
    found = []
    for version in rows.versions():
        folders = {each.path.parent for each in rows.lists if each.version == version}
        for split in (VAL, TEST) if version in OFFICIAL else ():
            if (version, split) in named:
                continue
            name = f"kinetics-{version}_{split}"
            assert name in BY_NAME
            paths = [path for folder in folders if (path := folder / f"{name}.csv").exists()]
            if not paths and all(Path(each).stem != name for each in known):
                tell(f"note         {name} is not beside the lists: its videos may be in train;"
                     f" --holdout {name} fetches it")  # fmt: skip
            found += [path for path in paths if os.path.abspath(path) not in known]
    return found


def choose_rows(read: Read, args: argparse.Namespace, tell: Tell) -> Choice:
    """One row a clip, without the videos that are held out, without what was not asked for."""
    choice = choose(read.rows, read.classes, read.wanted, read.versions)
    summary.say_held_out(choice, tell)
    select(choice, args.split, args.label)
    if FORMATS[args.format].labelled and not args.pretrain:
        without: Counter[str] = Counter()
        for at in list(choice.chosen()):
            if choice.numbers[at] == NO_LABEL:
                choice.drop(at, Reason.NO_LABEL)
                without[choice.splits[at]] += 1
        for split, number in without.items():
            tell(
                f"no label     {plural(number, 'clip')} of {split}: left out of {args.format} lists"
            )
    if not any(True for _ in choice.chosen()):
        raise UserError("no row is left to be listed: see the lines above, and --split, --label")
    return choice


def _base(args: argparse.Namespace, clips: Path) -> tuple[Path, Path | None]:
    """(the folder that lists name, the folder that its paths are relative to, if any)."""
    base = args.frames or args.link_dir or clips
    base = base.absolute()
    if args.path_prefix:
        return base, args.path_prefix.absolute()
    return base, None if args.absolute or FORMATS[args.format].absolute else base


def check_out(out: Path, clips: Path, args: argparse.Namespace) -> None:
    """Raises UserError for a folder that holds others' files, and for paths no reader can have."""
    if out.resolve() == clips.resolve():
        raise UserError(f"{args.out} is the folder of clips: name another one for the lists")
    # There links are made, and those of an earlier run removed.
    trees = [(out / split).resolve() for split in SPLITS]
    if any(clips.resolve().is_relative_to(tree) for tree in trees):
        raise UserError(f"{args.clips} lies in {args.out}: name a folder for the lists elsewhere")
    if args.frames:
        existing_folder(args.frames, "--frames")
    base, prefix = _base(args, clips)
    if FORMATS[args.format].spaces:
        check_paths(path_before(base, prefix))
    if (out / MARK).exists() or not out.is_dir():
        return
    foreign = [name for name in os.listdir(out) if name not in (".tmp", MARK)]
    if foreign:
        raise UserError(
            f"{args.out} holds {sorted(foreign)[0]} and is not of this script: name another folder"
        )


def look_at_clips(choice: Choice, clips: Path, args: argparse.Namespace, tell: Tell) -> None:
    """What is on disk. Raises UserError where that is nothing."""
    wanted = sum(1 for _ in choice.chosen())
    there.look(choice, clips)
    left = any(True for _ in choice.chosen())
    if not left and not args.only_manifest:
        raise UserError(
            f"none of {plural(wanted, 'clip')} is in {args.clips}: is it the folder that"
            " download.py filled, with the same --trim_format?"
        )
    if args.frames:
        there.look_at_frames(choice, args.frames)


def measure_clips(choice: Choice, clips: Path, out: Path, args: argparse.Namespace) -> None:
    """Lengths and hashes, if they were asked for."""
    if args.hash or args.measure or args.min_seconds:
        memory = out / there.MEMORY_NAME
        there.measure(choice, clips, memory, args.hash, args.num_jobs, args.quiet)
    if args.min_seconds:
        there.drop_short(choice, args.min_seconds)


def count_and_draw(
    choice: Choice, wanted: Counter[tuple[str, int]], args: argparse.Namespace
) -> Counts:
    """Count what is there, then draw the subset."""
    counts = Counts(wanted, summary.count(choice))
    draw(choice, args.per_class, args.fraction, args.seed)
    return counts


def make_job(
    choice: Choice, clips: Path, out: Path, workspace: Path, args: argparse.Namespace, tell: Tell
) -> Job:
    """All that a format needs; with --link_dir, the links are made here."""
    base, prefix = _base(args, clips)
    job = Job(
        choice,
        args.link_dir.absolute() if args.link_dir else clips,
        out,
        workspace,
        tell,
        prefix,
        args.name or "kinetics" + "_".join(choice.versions),
        args.seed,
        args.shard_size,
        args.num_jobs,
        args.quiet,
        args.pretrain,
        args.frames.absolute() if args.frames else None,
        tuple(args.annotations),
    )
    if args.link_dir:
        names = [choice.rows.names[at] for at in choice.chosen()]
        link_all(names, clips, make_folder(args.link_dir), job.gone)
        drop_gone(job)
    return job


def drop_gone(job: Job) -> None:
    """Clips that went away while they were read are missing after all."""
    for name in job.gone:
        if (at := job.choice.index.get(name)) is not None:
            job.choice.drop(at, Reason.MISSING)


def write_beside(
    job: Job, args: argparse.Namespace, theirs: Mapping[str, manifest.Entry] | None
) -> list[Path]:
    """classes, excluded.csv, manifest.csv, and what --compare and --only_manifest ask for."""
    choice, written = job.choice, []
    if names := choice.classes.names:
        written.append(write_lines(job, CLASSES_TXT, (f"{name}\n" for name in names)))
        numbers = {name: number for number, name in enumerate(names)}
        text = json.dumps(numbers, ensure_ascii=False, indent=1) + "\n"
        written.append(write_lines(job, CLASSES_JSON, [text]))
    missing = [at for at in choice.excluded() if choice.reasons[at] == Reason.MISSING]
    known = read_known(args.clips / REPORT_NAME) if missing else Known()
    written.append(write_lines(job, EXCLUDED, summary.excluded_lines(choice, known)))
    if args.only_manifest:
        rows = manifest.download_rows(choice, missing)
        written.append(write_lines(job, TO_DOWNLOAD, _csv_lines(rows)))
    if theirs is not None:
        both, found = manifest.compare(choice, theirs)
        lines = [("clip", "what", "here", "there")]
        lines += [(each.clip, each.what, each.here, each.there) for each in found]
        written.append(write_lines(job, COMPARED, _csv_lines(lines)))
        summary.say_differences(both, found, args.compare, job.tell)
    head = manifest.head(choice, VERSION, shlex.join(args.command))
    lines_of = (line for part in ((f"{line}\n" for line in head), manifest.lines(choice))
                for line in part)  # fmt: skip
    written.append(write_lines(job, manifest.NAME, lines_of))
    return written


def _csv_lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in rows:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(row)
        yield text.getvalue()


def say_plan(choice: Choice, counts: Counts, tell: Tell) -> None:
    summary.say_excluded(choice, tell)
    summary.say_table(choice, counts, tell)


def finish(
    job: Job, counts: Counts, written: Sequence[Path], args: argparse.Namespace, tell: Tell
) -> int:
    """The table, what was written, the next step; the exit code."""
    choice = job.choice
    say_plan(choice, counts, tell)
    names = [os.path.relpath(path, job.out) for path in written]
    shown = names if len(names) <= 10 else [*names[:3], f"... {len(names) - 8} more", *names[-5:]]
    tell(f"wrote {args.out}: {', '.join(shown)}")
    forms = ("{}.csv", "{}.json", "*_{}_list_*.txt", "*_{}.csv", "frame_lists/{}.csv")
    there = (p for each in SPLITS for form in forms for p in job.out.glob(form.format(each)))
    if stale := sorted({os.path.relpath(path, job.out) for path in there} - set(names)):
        tell(f"note         left from an earlier run: {', '.join(stale)}")
    if job.gone:
        tell(f"not written, or gone while read: {plural(len(job.gone), 'clip')}: run again")
    if args.only_manifest and choice.reasons.count(Reason.MISSING):
        tell(f"next: python download.py {shlex.quote(str(args.clips))} --input_csv"
             f" {shlex.quote(str(args.out / TO_DOWNLOAD))}")  # fmt: skip
    if args.frames:
        tell("      frames: filename_tmpl='{:06}.jpg', start_index=1")
    if start := FORMATS[args.format].start:
        tell("next: " + start.format(**_words(job, args)))
    return exit_code(choice, job.gone)


def _words(job: Job, args: argparse.Namespace) -> dict[str, object]:
    return {
        "out": shlex.quote(str(job.out)),
        "prefix": shlex.quote(str(job.prefix)) if job.prefix else "''",
        "name": job.name,
        "kind": "rawframes" if args.frames else "videos",
        "key": "img" if args.frames else "video",
        "classes": len(job.choice.classes.names),
    }


def exit_code(choice: Choice, gone: Sequence[str]) -> int:
    """1 where a clip that was wanted is not there, or a row is none."""
    lacking = (Reason.MISSING, Reason.UNREADABLE, Reason.NO_FRAMES)
    if gone or choice.rows.refused or any(choice.reasons.count(reason) for reason in lacking):
        return EXIT_INCOMPLETE
    return EXIT_OK
