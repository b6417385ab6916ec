"""What reorg_kinetics_videos.py has to do, decided before anything is moved, and its statement."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.progress import plural
from utils.runs.gather import Found, Tree
from utils.runs.opening import say_statement
from utils.runs.reorg_actions import COPY, LINK, MOVE, REPORT_NAME, Group, Job

# --- all of them ---------------------------------------------------------------------------------


def make_groups(tree: Tree, dst: Path) -> list[Group]:
    """What there is to settle: the files of every clip that are not in their place already."""
    groups = []
    in_place = {found.path: found for found in scan_flat(dst)}
    for name in sorted(tree.clips):
        final = os.path.join(dst, f"{name}.mp4")
        files = tuple(found for found in tree.clips[name] if found.path != final)
        if files:
            groups.append(Group(name, files, in_place.get(final)))
    return groups


def scan_flat(dst: Path) -> Iterator[Found]:
    """The mp4 files that lie flat in `dst`."""
    if not dst.is_dir():
        return
    with os.scandir(dst) as entries:
        for entry in entries:
            if entry.name.endswith(".mp4") and entry.is_file():
                yield Found.at(entry.path, entry.stat())


def say_plan(tree: Tree, groups: Sequence[Group], job: Job, args: argparse.Namespace) -> None:
    """The statement before any work."""
    files = [found for each in tree.clips.values() for found in each]
    kinds = Counter(os.path.splitext(found.path)[1].lower() for found in files)
    num_others = sum(tree.others.values())
    several = sum(len(group.files) > 1 for group in groups)
    there = sum(group.there is not None for group in groups)
    lesser = f"go to {args.duplicates}" if args.duplicates else "stay where they are"
    check = "each file is decoded whole, then" if job.check else "--no_check: no file is decoded;"
    done = {MOVE: "moved", COPY: "copied", LINK: "hard-linked"}[job.mode]
    twice = f"{plural(several, 'clip')} with more than one file; the lesser {lesser}"
    to_do = f"{plural(len(groups), 'clip')}, to {args.dst}"
    num_clips, num_files = plural(len(tree.clips), "clip"), plural(len(files), "file")
    others = f"{plural(num_others, 'file')} that are no clips: left{in_brackets(tree.others)}"
    say_statement(
        [
            ("source", f"{args.src}: {num_clips} in {num_files}{in_brackets(kinds)}"),
            ("others", others),
            *(("unreadable", problem) for problem in tree.unreadable),
            ("twice", twice if several else ""),
            ("to bring in", f"{to_do}; for {there:,} of them a file is there already"),
            ("how", f"{check} {done}; {plural(args.num_jobs, 'job')}"),
            ("report", str(args.dst / REPORT_NAME)),
        ]
    )


def in_brackets(counts: Counter[str]) -> str:
    text = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
    return f" ({text})" if text else ""
