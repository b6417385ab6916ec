"""Clips are probed and pictured, many at once, in worker processes; and what looks wrong is told.

`Memory` lasts over the rounds of --watch: a clip that has not changed is looked at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from utils.clip import MAX_TIME, Clip, clip_window
from utils.packages import Streak
from utils.page.outcomes import Outcomes
from utils.page.pictures import Form, Picture, PictureTask, make_picture
from utils.page.probing import Look, ProbeTask, hash_edges, probe_clip
from utils.page.suspects import Suspect, find_doubled, find_suspects
from utils.parallel import run_in_processes
from utils.process import STOP, Stopped
from utils.run import Progress

Task = TypeVar("Task", ProbeTask, PictureTask)
Seen = TypeVar("Seen", Look, Picture)


@dataclass
class Memory:
    """What was seen in earlier rounds, by clip, bytes of its file, and form of the picture."""

    looks: dict[tuple[str, int], Look] = field(default_factory=dict)
    pictures: dict[tuple[str, int, Form], Picture] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """What lists, folder and report give. `sizes`: clip -> bytes, of every file in the folder."""

    folder: Path
    clips: Mapping[str, Clip]
    sizes: Mapping[str, int]
    outcomes: Outcomes

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.mp4"

    def youtube_id(self, name: str) -> str:
        """The video of a clip; empty for a file of no list."""
        return self.clips[name].youtube_id if name in self.clips else ""


def probe_clips(
    data: Dataset, names: Sequence[str], memory: Memory, args: argparse.Namespace
) -> list[Look]:
    """A look at each of these clips, but for those gone by now. Raises Stopped, UserError."""
    tasks = [
        ProbeTask(name, data.path(name), clip_window(data.clips[name])[1])
        for name in names
        if (name, data.sizes[name]) not in memory.looks
    ]

    def crashed(task: ProbeTask, how: str) -> Look:
        return Look(task.name, task.listed_seconds, problem=f"the decoder crashed: {how}")

    for look in _run(probe_clip, tasks, crashed, args):
        memory.looks[look.name, data.sizes[look.name]] = look
    looks = (memory.looks[name, data.sizes[name]] for name in names)
    return [look for look in looks if not look.problem or data.path(look.name).exists()]


def make_pictures(
    data: Dataset, wanted: Iterable[tuple[str, Form]], memory: Memory, args: argparse.Namespace
) -> dict[tuple[str, Form], Picture]:
    """A picture for each (clip, form). Raises Stopped, UserError."""
    wanted = list(dict.fromkeys(wanted))
    tasks = [
        PictureTask(name, data.path(name), form)
        for name, form in wanted
        if (name, data.sizes[name], form) not in memory.pictures
    ]

    def crashed(task: PictureTask, how: str) -> Picture:
        return Picture(task.name, task.form, problem=f"the decoder crashed: {how}")

    for made in _run(make_picture, tasks, crashed, args):
        memory.pictures[made.name, data.sizes[made.name], made.form] = made
    return {(name, form): memory.pictures[name, data.sizes[name], form] for name, form in wanted}


def _run(
    worker: Callable[[Task], Seen],
    tasks: Sequence[Task],
    crashed: Callable[[Task, str], Seen],
    args: argparse.Namespace,
) -> Iterable[Seen]:
    if not tasks:
        return
    unit = "clip" if isinstance(tasks[0], ProbeTask) else "picture"
    with (
        Progress(len(tasks), unit, quiet=args.quiet) as progress,
        closing(run_in_processes(worker, tasks, args.num_jobs, crashed)) as seen,
    ):
        streak = Streak()
        for each in seen:
            progress.add("unreadable" if each.problem else "seen")
            streak.add(not each.problem, each.problem)
            if streak.is_hopeless:  # a package that lacks what we call, and no fault of the clips
                raise streak.problem()
            yield each
    if STOP.is_set():
        raise Stopped


def suspects_of(data: Dataset, looks: Sequence[Look]) -> list[Suspect]:
    """What the probed clips show, and which files of the folder are their doubles."""
    found = [_as_reported(data, each) for each in find_suspects(looks, data.youtube_id)]
    edges = {look.name: look.edges for look in looks if look.edges and look.bytes}
    sizes = {data.sizes[name] for name in edges}
    for name, size in data.sizes.items() if sizes else ():
        if size in sizes and name not in edges:
            try:
                edges[name] = hash_edges(data.path(name))
            except OSError:
                continue  # gone by now
        if STOP.is_set():
            raise Stopped
    return [*found, *find_doubled(edges, data.sizes, data.path, data.youtube_id)]


def _as_reported(data: Dataset, suspect: Suspect) -> Suspect:
    """A short clip that download.py kept knowingly says so, and comes after the others."""
    outcome = data.outcomes.of.get(suspect.clip)
    if suspect.kind != "short" or outcome is None or outcome.reason != "short":
        return suspect
    detail = f"{suspect.detail}; kept as short: its video ends there"
    return replace(suspect, detail=detail, badness=suspect.badness - MAX_TIME)
