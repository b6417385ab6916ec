"""`ClipDataset`: clips on disk as training samples, a random chunk of frames and a label each.

Above `decode/clip_reader`; `load_frames.py` shows it to the world. It has the two methods that
torch's DataLoader asks of a dataset, and needs no torch itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipreader.clip_reader import ClipReader, Layout, Rate, finish
from clipreader.pixels import Array
from utils.errors import UserError
from utils.lists.reading import read_lists

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")
NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class Sample:
    """A clip on disk, and what it shows: an index into `ClipDataset.labels`, or -1."""

    path: str
    label: int


class ClipDataset:
    """Map-style: `dataset[i]` is (array, label) of clip i; `len(dataset)` clips.

    samples: the clips, in the order of the list or, of a folder, by name
    labels: the names of the classes, sorted; a sample's label is an index into it
    missing: how many clips of the list are not on disk; they are left out
    """

    def __init__(
        self,
        list_or_folder: str | os.PathLike[str],
        frames: int = 32,
        stride: int = 2,
        *,
        folder: str | os.PathLike[str] | None = None,
        fps: Rate | None = None,
        short_side: int | None = None,
        layout: Layout = "TCHW",
        as_torch: bool = False,
        transform: Callable[[Array], Any] | None = None,
        seed: int = 0,
        chunk: str = "random",
    ) -> None:
        """A download list with the `folder` that holds its clips, or a folder of clips.

        A list's clips are `<folder>/<clip name>.mp4`. In a folder, clips that lie in sub-folders
        are labelled by these; others have the label -1.

        frames, stride: a sample is `frames` frames, every `stride`-th. Where a clip is too short
            for that its last frame is repeated
        fps: resample first, so that the stride means the same time in every clip
        short_side: scale the shorter side to this many pixels
        layout, as_torch: as in load_frames
        transform: applied to the (T, H, W, 3) array, in place of layout and as_torch: a crop, say,
            without which clips of different shapes do not make a batch
        seed, chunk: "random": where the chunk lies depends on (seed, epoch, i) and on nothing else;
            "middle": in the middle of the clip

        Raises UserError for a list or folder that cannot be read.
        """
        _check_sampling(frames, stride, chunk)
        self.frames, self.stride, self.fps, self.short_side = frames, stride, fps, short_side
        self.layout, self.as_torch, self.transform = layout, as_torch, transform
        self.seed, self.chunk, self.epoch = seed, chunk, 0
        self.missing = 0
        self._find_samples(Path(list_or_folder), folder)

    def _find_samples(self, source: Path, folder: str | os.PathLike[str] | None) -> None:
        named = _in_folder(source) if source.is_dir() else self._in_list(source, folder)
        self.labels = sorted({label for _, label in named if label})
        number = {label: at for at, label in enumerate(self.labels)}
        self.samples = [Sample(path, number.get(label, NO_LABEL)) for path, label in named]

    def _in_list(
        self, source: Path, folder: str | os.PathLike[str] | None
    ) -> list[tuple[str, str]]:
        if folder is None:
            raise ValueError(f"folder is needed: where are the clips of the list {source}?")
        try:
            # One look at the folder: asking for 650,000 files one by one takes ten times as long.
            with os.scandir(folder) as entries:
                there = {entry.name for entry in entries}
        except OSError as error:
            raise UserError(f"folder {folder} cannot be read: {error.strerror}") from None
        clips = read_lists([source]).clips.values()
        found = [clip for clip in clips if f"{clip.name}.mp4" in there]
        self.missing = len(clips) - len(found)
        return [(os.path.join(folder, f"{clip.name}.mp4"), clip.label) for clip in found]

    def __len__(self) -> int:
        return len(self.samples)

    def set_epoch(self, epoch: int) -> None:
        """Choose other chunks. Call it before the DataLoader is iterated; worker processes kept
        with persistent_workers=True do not hear of it."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """(array or tensor, label). Raises IndexError, and ClipError as load_frames does."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} asked for, and there are {len(self)}")
        sample = self.samples[index]
        with ClipReader(sample.path, short_side=self.short_side) as reader:
            count = len(reader.frame_numbers(fps=self.fps))
            chosen = self._choose(count, index % len(self))
            array = reader.read(indices=chosen, fps=self.fps)
        if self.transform is not None:
            return self.transform(array), sample.label
        return finish(array, self.layout, self.as_torch), sample.label

    def _choose(self, count: int, index: int) -> Sequence[int]:
        """Which of a clip's `count` pictures make the sample."""
        room = max(0, count - (self.frames - 1) * self.stride - 1)
        first = room // 2
        if self.chunk == "random":
            # Not one generator that lives on: workers would share its state, and a chunk would
            # depend on which worker loads it.
            first = int(np.random.default_rng((self.seed, self.epoch, index)).integers(room + 1))
        return [min(first + n * self.stride, count - 1) for n in range(self.frames)]


def _check_sampling(frames: int, stride: int, chunk: str) -> None:
    if frames < 1 or stride < 1:
        raise ValueError(f"frames {frames}, stride {stride}: 1 or more is needed")
    if chunk not in ("random", "middle"):
        raise ValueError(f"chunk is {chunk!r}: 'random' or 'middle' is needed")


def _in_folder(folder: Path) -> list[tuple[str, str]]:
    """(path, label) of every clip in a folder and its sub-folders; nothing of hidden ones."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        label = "" if Path(where) == folder else os.path.basename(where)
        clips = (name for name in files if name.lower().endswith(SUFFIXES))
        found += [(os.path.join(where, name), label) for name in sorted(clips)]
    return found
