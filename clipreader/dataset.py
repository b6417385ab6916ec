"""`ClipDataset`: clips on disk as training samples, a chunk of frames and a label each.

It has the two methods that torch's DataLoader requires of a dataset, and needs no torch itself.

The clips are those of a folder or of a list: a download list (CSV or TSV with a header, Kinetics'
JSON; .gz of both), or what `make_training_lists.py` writes: `csv`, `json`, `slowfast`, `videomae`,
`jepa`, `mmaction2`, and `manifest.csv`.
"""

from __future__ import annotations

import csv
import gzip
import inspect
import json
import math
import operator
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipreader.clip_reader import ClipReader, Layout, Rate, finish, load_audio
from clipreader.media import MAX_PIXELS, SUFFIXES, ClipError, NoAudio
from clipreader.transforms import Array, Rng

Folder: TypeAlias = str | os.PathLike[str]
Classes: TypeAlias = Folder | Sequence[str] | Mapping[str, int]
Transform: TypeAlias = Callable[..., Any]

TRIES = 20  # clips in the place of one that is corrupt
SPLITS = ("train", "val", "test", "validate", "validation")
NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class ClipSample:
    """A clip on disk, and its label: an index into `ClipDataset.labels`, or -1."""

    path: str
    label: int

    @property
    def name(self) -> str:
        return os.path.splitext(os.path.basename(self.path))[0]


@dataclass(eq=False, repr=False)
class ClipDataset:
    """Map-style: `dataset[i]` is (frames, label) of clip i; `len(dataset)` clips.

    samples: the clips, in the order of the list, or by name if the source is a folder
    labels: the names of the classes; a sample's label is an index into it
    missing: how many clips of the list are not on disk; they are left out
    skipped: how many clips were replaced by another, in all worker processes (on_error="next")

    Made from a list and the `folder` that holds its clips, or from a folder of clips:

    list_or_folder: a download list, a list or manifest.csv of make_training_lists.py, the
        folder of such lists (with split=), or a folder of clips, where sub-folders are labels
    split: only the clips of this split
    classes: the names by their indices: a list, a classes.json or classes.txt. Default: the
        classes.json next to the list, or all labels in the list, on disk or not, sorted
    unlabelled: keep clips without a label; theirs is -1, which a loss may reject

    frames, stride: a sample is `frames` frames, every `stride`-th. The last frame is repeated
        if the clip is too short
    chunk: "random" position; "middle" of the clip; "segments": `segment_frames` frames from a
        random position in each of `frames` equal parts of the clip; "views": `views` chunks
        evenly over the clip, which are one more axis, before T
    training: False: the middle instead of random positions
    crops: 3: of each chunk three squares along the longer side, as further views

    fps: resample first, so that the stride means the same time in every clip
    short_side: scale the shorter side to this many pixels
    layout, as_torch: as in load_frames
    transform: `transform(array)` or `transform(array, rng)`, of each (T, H, W, 3) array,
        instead of layout and as_torch; `rng` is a NumPy generator that depends on (seed, epoch,
        clip). `clipreader.transforms` has some
    audio: items are (frames, sound, label); sound is (1, samples) float32 of the time of the
        frames, at this rate (True: 16000), silent if the clip has none
    with_info: a dict as the item's last: the clip's name, path and index, and the numbers of
        its frames
    on_error: "next": replace a clip that cannot be loaded by another, the same one every time
    seed: random choices depend on (seed, epoch, i) and on nothing else

    Raises ValueError or OSError for a list or folder that cannot be read or has no clips.
    """

    list_or_folder: Folder
    frames: int = 32
    stride: int = 2
    _: KW_ONLY
    folder: Folder | None = None
    split: str | None = None
    classes: Classes | None = None
    unlabelled: bool = True
    fps: Rate | None = None
    short_side: int | None = None
    layout: Layout = "TCHW"
    as_torch: bool = False
    transform: Transform | None = None
    seed: int = 0
    chunk: Literal["random", "middle", "segments", "views"] = "random"
    segment_frames: int = 1
    training: bool = True
    views: int = 10
    crops: Literal[1, 3] = 1
    audio: int | bool = False
    with_info: bool = False
    on_error: Literal["raise", "next"] = "raise"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        _check_counts(self.frames, self.stride, self.segment_frames, self.views)
        _check_choice("chunk", self.chunk, ("random", "middle", "segments", "views"))
        _check_choice("crops", self.crops, (1, 3))
        _check_choice("on_error", self.on_error, ("raise", "next"))
        self._audio_rate = 16000 if self.audio is True else int(self.audio)
        self._gives_rng = self.transform is not None and _takes_rng(self.transform)
        self._find_samples(Path(self.list_or_folder))
        self._share(epoch=0)

    def _share(self, epoch: int) -> None:
        # The epoch, then a byte for each clip skipped, in a small file. Worker processes find it,
        # however they were started; shared memory would need torch or a context.
        file, self._shared = tempfile.mkstemp(prefix="clip_dataset_")
        os.close(file)
        self.set_epoch(epoch)
        weakref.finalize(self, _remove, self._shared, os.getpid())

    def __copy__(self) -> ClipDataset:
        """Return a dataset with an epoch of its own; only pickled ones share it."""
        made = object.__new__(ClipDataset)
        made.__dict__.update(self.__dict__)
        made._share(self.epoch)
        return made

    def _find_samples(self, source: Path) -> None:
        listed, is_list = _read_source(source, self.split)
        classes = self.classes
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
            raise ValueError(f"{source}: label {unknown[0]!r} is not one of the classes")
        paths: list[str | None] = [each.files[0] for each in listed]
        if is_list:
            paths = _on_disk(source, self.folder, listed)
        self.missing = paths.count(None)
        self.samples = [
            ClipSample(path, numbers.get(each.label, NO_LABEL))
            for path, each in zip(paths, listed, strict=True)
            if path is not None and (self.unlabelled or each.label in numbers)
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def set_epoch(self, epoch: int) -> None:
        """Choose other chunks, also in running worker processes (persistent_workers)."""
        self._epoch = operator.index(epoch)
        with suppress(OSError), open(self._shared, "r+b") as file:
            file.write(self._epoch.to_bytes(8, "little"))

    @property
    def epoch(self) -> int:
        with suppress(OSError), open(self._shared, "rb") as file:  # gone with the first dataset
            self._epoch = int.from_bytes(file.read(8), "little")
        return self._epoch

    @property
    def skipped(self) -> int:
        with suppress(OSError):
            return os.path.getsize(self._shared) - 8
        return 0

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        """Return (frames, label), and what `audio` and `with_info` add.

        Raises IndexError, and ClipError as load_frames does.
        """
        at = operator.index(index)  # torch's and NumPy's numbers, too
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
                with suppress(OSError), open(self._shared, "ab") as file:
                    file.write(b".")
                while at in tried:
                    at = int(rng.integers(len(self)))

    def _item(self, at: int, rng: Rng) -> tuple[Any, ...]:
        sample = self.samples[at]
        side, limit = self.short_side, self.max_pixels
        with ClipReader(sample.path, short_side=side, max_pixels=limit) as reader:
            shown = reader.frame_numbers(fps=self.fps)
            if not shown:
                raise ClipError(reader.path, f"shorter than a frame at fps={self.fps}")
            numbers = np.asarray(shown)[self._choose(len(shown), rng)]
            array = reader.read(indices=numbers.ravel().tolist())
            sound = self._sound(reader, numbers) if self._audio_rate else None
        chunks = array.reshape(*numbers.shape, *array.shape[1:])
        crops = [crop for chunk in chunks for crop in _crops(chunk, self.crops)]
        made = [self._finished(crop, rng) for crop in crops]
        one = len(made) == 1 and self.chunk != "views"
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

    def _choose(self, count: int, rng: Rng) -> NDArray[np.intp]:
        """Return which of a clip's `count` frames make the sample: (1, T), or (views, T)."""
        parts, length = 1, self.frames
        if self.chunk == "segments":  # as TSN
            parts, length = self.frames, self.segment_frames
        edges = np.arange(parts + 1) * count // parts
        offsets = np.arange(length) * self.stride
        rooms = np.maximum(np.diff(edges) - offsets[-1] - 1, 0)
        if self.chunk == "views" and self.views > 1:
            firsts = np.round(np.arange(self.views) * rooms / (self.views - 1)).astype(np.intp)
        elif self.training and self.chunk in ("random", "segments"):
            firsts = edges[:-1] + [int(rng.integers(room + 1)) for room in rooms]
        else:
            firsts = edges[:-1] + rooms // 2
        rows = np.minimum(firsts[:, None] + offsets, count - 1)
        return rows if self.chunk == "views" else rows.reshape(1, -1)

    def _sound(self, reader: ClipReader, numbers: NDArray[np.intp]) -> Any:
        """Return the audio from the first frame on, as long as the frames at the clip's rate."""
        rate = float(self.fps or reader.fps)
        seconds = self.frames * self.segment_frames * self.stride / rate
        samples = math.ceil(seconds * self._audio_rate)
        sound = np.zeros((1, samples), np.float32)
        start = float(reader.times[numbers.min()])
        stop = start + samples / self._audio_rate
        with suppress(NoAudio):
            got = load_audio(reader, start, stop, sample_rate=self._audio_rate, mono=True)
            sound[:, : got.shape[1]] = got[:, :samples]
        return sound


def _check_counts(*counts: int) -> None:
    names = "frames, stride, segment_frames and views"
    if not all(hasattr(number, "__index__") for number in counts):
        raise TypeError(f"{names} are whole numbers; the folder of the clips is folder=DIR")
    if min(counts) < 1:
        raise ValueError(f"{names} must be 1 or more")


def _check_choice(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {known} (got {value!r})")


def _takes_rng(transform: Transform) -> bool:
    try:
        parameters = inspect.signature(transform).parameters.values()
    except (TypeError, ValueError):
        return False
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(plain) > 1


def _crops(chunk: Array, crops: int) -> list[Array]:
    """Return `chunk`, or three squares of it: both ends of the longer side, and the middle."""
    if crops == 1:
        return [chunk]
    side = min(chunk.shape[1:3])
    down, right = chunk.shape[1] - side, chunk.shape[2] - side  # one of them is 0
    places = [(down * n // 2, right * n // 2) for n in range(3)]
    return [chunk[:, top : top + side, left : left + side] for top, left in places]


def _stacked(made: list[Any]) -> Any:
    if isinstance(made[0], np.ndarray):
        return np.stack(made)
    if type(made[0]).__module__.startswith("torch"):
        import torch

        return torch.stack(made)
    return made


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # not in a child process, where a copy of the dataset is dropped
        Path(path).unlink(missing_ok=True)


# --- lists and folders of clips ---


@dataclass(frozen=True, slots=True)
class Listed:
    """A clip of a list. `files`: where it may be, the likeliest first; `label`: the class's name or
    its index, None if the list has neither."""

    files: tuple[str, ...]
    label: str | int | None
    split: str = ""


def _read_source(source: Path, split: str | None) -> tuple[list[Listed], bool]:
    """Return the clips of a list, a folder of lists, or a folder; and if they are of a list."""
    if not source.is_dir():
        listed = read_list(source)
        splits = {each.split for each in listed}
        if split is not None and splits != {""}:
            listed = [each for each in listed if each.split == split]
            if not listed:
                raise ValueError(f"{source}: no clip of split {split!r}; it has {sorted(splits)}")
        return listed, True
    lists = {name: source / f"{name}.csv" for name in SPLITS if (source / f"{name}.csv").is_file()}
    there = lists or {name: source / name for name in SPLITS if (source / name).is_dir()}
    if there and split not in there:
        raise ValueError(f"{source}: give split=, one of {', '.join(there)} (got {split!r})")
    place = there.get(split or "", source)
    return (read_list(place), True) if lists else (_read_folder(place), False)


def _read_folder(folder: Path) -> list[Listed]:
    """Return the clips in a folder and its sub-folders, labelled by these; no hidden ones."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        label = None if Path(where) == folder else os.path.basename(where)
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                found.append(Listed((os.path.join(where, name),), label))
    if not found:
        raise ValueError(f"{folder}: no clips ({' '.join(SUFFIXES)})")
    return found


def _on_disk(source: Path, folder: Folder | None, listed: Sequence[Listed]) -> list[str | None]:
    """Return the path of each clip, None if it is not on disk."""
    if folder is None and not any(os.path.dirname(each.files[0]) for each in listed):
        raise ValueError(f"{source}: give folder=, the folder of the clips of this list")
    # The folder is listed once: testing 650,000 files one by one takes ten times as long.
    there = set(os.listdir(folder)) if folder is not None else set()
    found: list[str | None] = []
    for each in listed:
        names = [name for name in map(os.path.basename, each.files) if name in there]
        path = os.path.join(folder or "", (names or each.files)[0])
        found.append(path if names or os.path.isfile(path) else None)
    return found


# The names of columns in existing lists; `_` stands for a blank and `-`, too.
_COLUMNS = {
    "youtube_id": ("video_id", "ytid", "id"),
    "start": ("time_start", "start_time"),
    "end": ("time_end", "end_time"),
    "label": ("label_name", "class"),
    "split": ("subset",),
}


def read_list(path: Path) -> list[Listed]:
    """Return the clips of a list, no repeats. Raises OSError, and ValueError with the bad line.

    Files are names without a folder, except those of lists that have paths.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read().decode("utf-8-sig", "surrogateescape")
        listed: dict[Listed, None] = {}
        for place, row in _rows_of(text):
            try:
                listed[_from_line(row) if isinstance(row, str) else _from_row(row)] = None
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{place}: {error}") from None
        return list(listed)
    except (ValueError, csv.Error, EOFError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path}: JSON that is not a list of clips in a known form") from None


def _rows_of(text: str) -> Iterator[tuple[str, str | Mapping[str, Any]]]:
    """Yield the rows of a list of any form, each after its place: the line, or JSON's entry."""
    if text.lstrip()[:1] in ("[", "{"):
        data = json.loads(text)
        rows = data if isinstance(data, list) else map(_from_kinetics, data, data.values())
        yield from ((f"entry {number}", row) for number, row in enumerate(rows, 1))
        return
    lines = text.splitlines()
    head = next((at for at, line in enumerate(lines) if line and not line.startswith("#")), 0)
    delimiter = max("\t,;", key=(lines or [""])[head].count)
    table = csv.DictReader(lines[head:], delimiter=delimiter, restkey="")
    if {_column(name) for name in table.fieldnames or ()} & {"youtube_id", "clip", "path"}:
        yield from ((f"line {head + table.line_num}", row) for row in table)
    else:
        stripped = enumerate(map(str.strip, lines), 1)
        yield from ((f"line {number}", line) for number, line in stripped if line)


def _from_line(line: str) -> Listed:
    """Read `path label`, the form of SlowFast, VideoMAE, V-JEPA and MMAction2."""
    path, _, label = line.rpartition(" ")
    if not path or not label.lstrip("-").isdigit():
        raise ValueError(f"neither a header nor `path label`: {line[:60]!r}")
    if label == "-1":  # for pretraining: `path 0 -1`
        path = path.removesuffix(" 0")
    return Listed((path,), int(label) if int(label) >= 0 else None)


def _from_row(row: Mapping[str, Any]) -> Listed:
    values = {_column(name): value for name, value in row.items()}
    number = values.get("number")
    label = str(values.get("label") or "") or None
    return Listed(
        _files_of(values),
        int(number) if number not in (None, "") else label,
        str(values.get("split") or ""),
    )


def _column(name: str) -> str:
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    return next((column for column, names in _COLUMNS.items() if plain in names), plain)


def _from_kinetics(youtube_id: str, entry: Any) -> dict[str, Any]:
    """Return a row of Kinetics' JSON, `{id: {annotations, subset}}`."""
    start, end = entry["annotations"]["segment"]
    label = entry["annotations"].get("label")
    split = entry.get("subset")
    return {"id": youtube_id, "start": start, "end": end, "label": label, "split": split}


def _files_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    if values.get("path"):
        return (str(values["path"]),)
    if values.get("clip"):
        return (f"{values['clip']}.mp4",)
    if not values.get("youtube_id"):
        raise ValueError("no youtube_id")
    youtube_id, start = str(values["youtube_id"]), float(values.get("start") or 0)
    end = float(values.get("end") or -1)
    if end == -1:  # a clip of AVA-Kinetics
        return (f"{youtube_id}_{math.floor(start):06d}.mp4",)
    # The second form distinguishes two clips within a second.
    return (
        f"{youtube_id}_{int(start):06d}_{int(end):06d}.mp4",
        f"{youtube_id}_{start:010.3f}_{end:010.3f}.mp4",
    )


def read_classes(classes: Classes) -> list[str]:
    """Return the names of the classes by index: of a list, `classes.txt`, or `classes.json`."""
    if isinstance(classes, (str, os.PathLike)):
        text = Path(classes).read_text(encoding="utf-8-sig", errors="surrogateescape")
        is_json = os.fspath(classes).endswith(".json")
        try:
            classes = json.loads(text) if is_json else [line for line in text.splitlines() if line]
        except ValueError as error:
            raise ValueError(f"{classes}: {error}") from None
    if isinstance(classes, Mapping):
        names = sorted(classes, key=classes.__getitem__)
        if [classes[name] for name in names] != list(range(len(names))):
            raise ValueError("the indices of the classes are not 0, 1, 2 and so on")
        return names
    if len(set(classes)) != len(classes):
        raise ValueError("two classes have the same name")
    return list(classes)
