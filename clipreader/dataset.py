"""`ClipDataset`: clips on disk as training samples, chunks of frames and a label each.

It has the two methods that torch's DataLoader asks of a dataset, and needs no torch itself.
"""

from __future__ import annotations

import inspect
import math
import operator
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clipreader.audio import load_audio
from clipreader.clip_reader import ClipReader, Layout, Rate, finish
from clipreader.lists import (
    NO_LABEL,
    SPLITS,
    Classes,
    Listed,
    read_classes,
    read_folder,
    read_list,
)
from clipreader.media import MAX_PIXELS, ClipError, NoAudio
from clipreader.pixels import Array

Rng = np.random.Generator
Transform = Callable[..., Any]

TRIES = 20  # clips in the place of one that is broken


@dataclass(frozen=True, slots=True)
class ClipSample:
    """A clip on disk, and what it shows: an index into `ClipDataset.labels`, or -1."""

    path: str
    label: int

    @property
    def name(self) -> str:
        return os.path.splitext(os.path.basename(self.path))[0]


class ClipDataset:
    """Map-style: `dataset[i]` is (frames, label) of clip i; `len(dataset)` clips.

    samples: the clips, in the order of the list or, of a folder, by name
    labels: the names of the classes; a sample's label is an index into it
    missing: how many clips of the list are not on disk; they are left out
    skipped: how many clips another one stood in for, in all worker processes (on_error="next")

    Made from a list and the `folder` that holds its clips, or from a folder of clips:

    list_or_folder: a download list, a list or manifest.csv of make_training_lists.py, the
        folder of such lists (with split=), or a folder of clips, where sub-folders are labels
    split: only the clips of this split
    classes: the names by their indices: a list, a classes.json or classes.txt. Default: the
        classes.json beside the list, or all labels that the list names, on disk or not, sorted
    unlabelled: keep clips without a label; theirs is -1, which a loss may not take

    frames, stride: a sample is `frames` frames, every `stride`-th. Where a clip is too short
        for that its last frame is repeated
    chunk: "random" place; "middle" of the clip; "segments": `segment_frames` frames from a
        random place in each of `frames` equal parts of the clip; "views": `views` chunks evenly
        over the clip, which are one more axis, before T
    training: False: what would lie at a random place lies in its middle
    crops: 3: of each chunk three squares along the longer side, as further views

    fps: resample first, so that the stride means the same time in every clip
    short_side: scale the shorter side to this many pixels
    layout, as_torch: as in load_frames
    transform: `transform(array)` or `transform(array, rng)`, of each (T, H, W, 3) array, in
        place of layout and as_torch; `rng` is a numpy generator that depends on (seed, epoch,
        clip). `clipreader.transforms` has some
    audio: items are (frames, sound, label); sound is (1, samples) float32 of the time of the
        frames, at this rate (True: 16000), silent where the clip has none
    with_info: a dict as the item's last: the clip's name, path and index, and the numbers of
        its frames
    on_error: "next": another clip, the same one every time, in the place of one that cannot
        be loaded
    seed: what is random depends on (seed, epoch, i) and on nothing else

    Raises ValueError or OSError for a list or folder that cannot be read.
    """

    def __init__(
        self,
        list_or_folder: str | os.PathLike[str],
        frames: int = 32,
        stride: int = 2,
        *,
        folder: str | os.PathLike[str] | None = None,
        split: str | None = None,
        classes: Classes | None = None,
        unlabelled: bool = True,
        fps: Rate | None = None,
        short_side: int | None = None,
        layout: Layout = "TCHW",
        as_torch: bool = False,
        transform: Transform | None = None,
        seed: int = 0,
        chunk: Literal["random", "middle", "segments", "views"] = "random",
        segment_frames: int = 1,
        training: bool = True,
        views: int = 10,
        crops: Literal[1, 3] = 1,
        audio: int | bool = False,
        with_info: bool = False,
        on_error: Literal["raise", "next"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        _check(frames, stride, chunk, segment_frames, views, crops, on_error)
        self.frames, self.stride, self.fps, self.short_side = frames, stride, fps, short_side
        self.layout, self.as_torch, self.transform = layout, as_torch, transform
        self.seed, self.chunk, self.training = seed, chunk, training
        self.segment_frames = segment_frames
        self.views = views if chunk == "views" else 1
        self.crops, self.with_info, self.on_error = crops, with_info, on_error
        self.audio_rate = 16000 if audio is True else int(audio)
        self.max_pixels = max_pixels
        self._gives_rng = transform is not None and _takes_rng(transform)
        self._shared = _Shared()
        self._find_samples(Path(list_or_folder), folder, split, classes, unlabelled)

    def _find_samples(
        self,
        source: Path,
        folder: str | os.PathLike[str] | None,
        split: str | None,
        classes: Classes | None,
        unlabelled: bool,
    ) -> None:
        listed, is_list = _read(source, split)
        beside = (source if source.is_dir() else source.parent) / "classes.json"
        if classes is None and is_list and beside.is_file():
            classes = beside
        named = {each.label for each in listed if isinstance(each.label, str)}
        numbered = {each.label for each in listed if isinstance(each.label, int)}
        if classes is not None:
            self.labels = read_classes(classes)
        else:
            self.labels = sorted(named) or [str(n) for n in range(max(numbered, default=-1) + 1)]
        numbers: dict[str | int | None, int] = {name: n for n, name in enumerate(self.labels)}
        numbers.update((n, n) for n in range(len(self.labels)))
        if unknown := sorted(map(str, (named | numbered) - set(numbers))):
            raise ValueError(
                f"{source}: {len(unknown)} labels are not among the {len(self.labels)} classes,"
                f" first {unknown[0]!r}"
            )
        paths: list[str | None] = [each.files[0] for each in listed]
        if is_list:
            paths = _on_disk(source, folder, listed)
        self.missing = sum(path is None for path in paths)
        self.samples = [
            ClipSample(path, numbers.get(each.label, NO_LABEL))
            for path, each in zip(paths, listed, strict=True)
            if path is not None and (unlabelled or each.label in numbers)
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def set_epoch(self, epoch: int) -> None:
        """Choose other chunks, in worker processes that are running, too (persistent_workers)."""
        self._shared.epoch = epoch

    @property
    def epoch(self) -> int:
        return self._shared.epoch

    @property
    def skipped(self) -> int:
        return self._shared.skipped

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        """(frames, label), or what `audio` and `with_info` make of it.

        Raises IndexError, and ClipError as load_frames does.
        """
        at = operator.index(index)  # torch's and numpy's numbers, too
        if not -len(self) <= at < len(self):
            raise IndexError(f"clip {at} does not exist: there are {len(self)}")
        at %= len(self)
        rng = np.random.default_rng((self.seed, epoch := self.epoch, at, 1))
        tried: set[int] = set()
        while True:
            try:
                return self._item(at, np.random.default_rng((self.seed, epoch, at)))
            except ClipError:
                tried.add(at)
                if self.on_error != "next" or len(tried) >= min(TRIES, len(self)):
                    raise
                self._shared.count_skipped()
                while at in tried:
                    at = int(rng.integers(len(self)))

    def _item(self, at: int, rng: Rng) -> tuple[Any, ...]:
        sample = self.samples[at]
        limits = {"max_pixels": self.max_pixels}
        with ClipReader(sample.path, short_side=self.short_side, **limits) as reader:
            shown = reader.frame_numbers(fps=self.fps)
            if not shown:
                raise ClipError(reader.path, f"shorter than a picture at fps={self.fps}")
            chosen = self._choose(len(shown), rng)
            numbers = np.asarray([[shown[n] for n in each] for each in chosen])
            wanted = sorted(set(numbers.ravel().tolist()))
            array = reader.read(indices=wanted)
            row = {number: place for place, number in enumerate(wanted)}
            sound = self._sound(reader, numbers) if self.audio_rate else None
        rows = [[row[number] for number in each] for each in numbers.tolist()]
        # A chunk that is all of the array as it stands needs no copy.
        chunks = [array if each == list(range(len(array))) else array[each] for each in rows]
        chunks = [crop for each in chunks for crop in _crops(each, self.crops)]
        made = [self._finished(each, rng) for each in chunks]
        one = len(made) == 1 and self.chunk != "views" and self.crops == 1
        item = [made[0] if one else _stacked(made)]
        if sound is not None:
            item.append(finish(sound, None, self.as_torch))
        item.append(sample.label)
        if self.with_info:
            frames = numbers if self.chunk == "views" else numbers[0]
            item.append({"name": sample.name, "path": sample.path, "index": at, "frames": frames})
        return tuple(item)

    def _finished(self, chunk: Array, rng: Rng) -> Any:
        if self.transform is None:
            return finish(chunk, self.layout, self.as_torch)
        return self.transform(chunk, rng) if self._gives_rng else self.transform(chunk)

    def _choose(self, count: int, rng: Rng) -> list[list[int]]:
        """Which of a clip's `count` pictures make the sample: one chunk, or several views."""
        if self.chunk == "segments":
            return [self._segments(count, rng)]
        room = max(0, count - (self.frames - 1) * self.stride - 1)
        if self.chunk == "views":
            firsts = [round(n * room / max(1, self.views - 1)) for n in range(self.views)]
            firsts = firsts if self.views > 1 else [room // 2]
        elif self.chunk == "random" and self.training:
            firsts = [int(rng.integers(room + 1))]
        else:
            firsts = [room // 2]
        return [
            [min(first + n * self.stride, count - 1) for n in range(self.frames)]
            for first in firsts
        ]

    def _segments(self, count: int, rng: Rng) -> list[int]:
        """As TSN: some frames in a row of each of `frames` equal parts."""
        chosen = []
        for part in range(self.frames):
            begin, end = part * count // self.frames, (part + 1) * count // self.frames
            room = max(0, end - begin - (self.segment_frames - 1) * self.stride - 1)
            first = begin + (int(rng.integers(room + 1)) if self.training else room // 2)
            chosen += [min(first + n * self.stride, count - 1) for n in range(self.segment_frames)]
        return chosen

    def _sound(self, reader: ClipReader, numbers: np.ndarray[Any, Any]) -> Any:
        """The sound from the first frame on, as long as the frames are at the clip's rate."""
        rate = float(self.fps or reader.fps)
        samples = math.ceil(
            self.frames * self.segment_frames * self.stride / rate * self.audio_rate
        )
        sound = np.zeros((1, samples), np.float32)
        start = float(reader.times[numbers.min()])
        stop = start + samples / self.audio_rate
        try:
            got = load_audio(reader, start, stop, sample_rate=self.audio_rate, mono=True)
            sound[:, : got.shape[1]] = got[:, :samples]
        except NoAudio:
            pass
        return sound


def _check(
    frames: int, stride: int, chunk: str, segment_frames: int, views: int, crops: int, error: str
) -> None:
    if not all(hasattr(number, "__index__") for number in (frames, stride, segment_frames, views)):
        raise TypeError(
            "frames, stride, segment_frames and views are whole numbers; the folder of the clips is"
            " folder=DIR"
        )
    if min(frames, stride, segment_frames, views) < 1:
        raise ValueError("frames, stride, segment_frames and views are 1 or more")
    for name, value, known in (
        ("chunk", chunk, ("random", "middle", "segments", "views")),
        ("crops", crops, (1, 3)),
        ("on_error", error, ("raise", "next")),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}: one of {known} is needed")


def _takes_rng(transform: Transform) -> bool:
    try:
        parameters = inspect.signature(transform).parameters.values()
    except (TypeError, ValueError):
        return False
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return len([p for p in parameters if p.kind in plain]) > 1


def _read(source: Path, split: str | None) -> tuple[list[Listed], bool]:
    """The clips of a list, of a folder of lists, or of a folder; whether it was a list."""
    if not source.is_dir():
        listed = read_list(source)
        splits = {each.split for each in listed}
        if split is not None and splits != {""}:
            listed = [each for each in listed if each.split == split]
            if not listed:
                raise ValueError(f"{source}: no clip of split {split!r}; it has {sorted(splits)}")
        return listed, True
    lists = {name: source / f"{name}.csv" for name in SPLITS if (source / f"{name}.csv").is_file()}
    parts = {name: source / name for name in SPLITS if (source / name).is_dir()}
    there = lists or parts
    if not there or split is None:
        if there:
            raise ValueError(f"{source}: give split=, one of {', '.join(there)}")
        return read_folder(source), False
    if split not in there:
        raise ValueError(f"{source}: no split {split!r}; there is {', '.join(there)}")
    return (read_list(lists[split]), True) if lists else (read_folder(parts[split]), False)


def _on_disk(
    source: Path, folder: str | os.PathLike[str] | None, listed: Sequence[Listed]
) -> list[str | None]:
    """Where each clip is, None for one that is not there."""
    if folder is None:
        if any(os.path.dirname(each.files[0]) for each in listed):
            return [each.files[0] if os.path.isfile(each.files[0]) else None for each in listed]
        raise ValueError(f"folder is needed: where are the clips of the list {source}?")
    # One look at the folder: asking for 650,000 files one by one takes ten times as long.
    there = {entry.name for entry in os.scandir(folder)}
    found: list[str | None] = []
    for each in listed:
        names = (os.path.basename(name) for name in each.files)
        name = next((name for name in names if name in there), None)
        inside = os.path.join(folder, each.files[0])
        path = os.path.join(folder, name) if name else inside if os.path.isfile(inside) else None
        found.append(path)
    return found


def _crops(chunk: Array, crops: int) -> list[Array]:
    """`chunk`, or three squares of it: at both ends of the longer side, and in the middle."""
    if crops == 1:
        return [chunk]
    height, width = chunk.shape[1:3]
    side, room = min(height, width), abs(height - width)
    places = (0, room // 2, room)
    if width >= height:
        return [chunk[:, :, at : at + side] for at in places]
    return [chunk[:, at : at + side] for at in places]


def _stacked(made: list[Any]) -> Any:
    if isinstance(made[0], np.ndarray):
        return np.stack(made)
    if type(made[0]).__module__.startswith("torch"):
        import torch

        return torch.stack(made)
    return made


class _Shared:
    """The epoch, and how many clips were skipped, for every process that has the dataset.

    A small file: the epoch, then a byte for each clip skipped. Worker processes find it, however
    they were started, where shared memory would need torch or a context.
    """

    def __init__(self) -> None:
        file, self._path = tempfile.mkstemp(prefix="clip_dataset_")
        os.close(file)
        self._last = 0
        self.epoch = 0
        # Not in a child process, where the same object is dropped.
        self._end = weakref.finalize(self, _remove, self._path, os.getpid())

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_last": self.epoch}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def epoch(self) -> int:
        with suppress(OSError):  # pickled, and the dataset that it was made of is gone
            self._last = int.from_bytes(Path(self._path).read_bytes()[:8], "little")
        return self._last

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._last = operator.index(epoch)
        with suppress(OSError), open(self._path, "r+b") as file:
            file.write(self._last.to_bytes(8, "little"))

    @property
    def skipped(self) -> int:
        with suppress(OSError):
            return max(0, os.path.getsize(self._path) - 8)
        return 0

    def count_skipped(self) -> None:
        with suppress(OSError), open(self._path, "ab") as file:
            file.write(b".")


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:
        Path(path).unlink(missing_ok=True)
