"""Define the loaders that `benchmarks/load.py` compares, each as its own documentation shows it.

A loader is a function (path, frame numbers) -> (T, H, W, 3) uint8, RGB, on one thread. `installed`
returns those whose library is installed. The import of a library may take a second or fail, so each
is imported once, by the function that makes its loader.

`python -m benchmarks.loaders DIR` prints samples per second of ClipDataset and of other datasets.
torchcodec needs FFmpeg's libraries. If the system has none, those in PyAV's wheel are linked under
their plain names (libavcodec.so.62) in a folder of LD_LIBRARY_PATH, which also names av.libs.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
from av.video.reformatter import VideoReformatter

from clipreader.media import ratio
from load_frames import ClipDataset, ClipReader, load_frames
from utils.cli import Parser

Load = Callable[[Path, Sequence[int]], Any]


def ours() -> Load:
    return lambda path, numbers: load_frames(path, indices=numbers)


def plain_pyav() -> Load:
    """Seek to the key frame before each frame that is not ahead, decode, convert, stack."""

    def load(path: Path, numbers: Sequence[int]) -> Any:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            rate, base = ratio(stream.average_rate), ratio(stream.time_base)
            assert rate is not None and base is not None
            frames: list[Any] = []
            jumps = len(numbers) > 1 and numbers[1] - numbers[0] > 1
            for group in [[number] for number in numbers] if jumps else [numbers]:
                wanted = [round(number / rate / base) for number in group]
                container.seek(wanted[0], stream=stream)
                for frame in container.decode(stream):
                    if frame.pts is not None and frame.pts >= wanted[0]:
                        frames.append(frame.to_ndarray(format="rgb24"))
                    if frame.pts is not None and frame.pts >= wanted[-1]:
                        break
            return np.stack(frames)

    return load


def decord() -> Load:
    reader = importlib.import_module("decord").VideoReader
    return lambda path, numbers: reader(str(path), num_threads=1).get_batch(numbers).asnumpy()


def torchcodec() -> Load:
    importlib.import_module("torch").set_num_threads(1)
    decoder = importlib.import_module("torchcodec.decoders").VideoDecoder

    def load(path: Path, numbers: Sequence[int]) -> Any:
        video = decoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1)
        return video.get_frames_at(list(numbers)).data.numpy()

    return load


def opencv() -> Load:
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)

    def load(path: Path, numbers: Sequence[int]) -> Any:
        capture = cv2.VideoCapture(str(path))
        frames, at = [], 0
        for number in numbers:
            if number != at:
                capture.set(cv2.CAP_PROP_POS_FRAMES, number)
            frames.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
            at = number + 1
        capture.release()
        return np.stack(frames)

    return load


def ffmpeg_pipe() -> Load:
    """The plain way: ffprobe for the size, then every frame through a pipe."""
    ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    ffmpeg = ffmpeg or imageio_ffmpeg.get_ffmpeg_exe()

    def size(path: Path) -> tuple[int, int]:
        if ffprobe is None:
            with av.open(str(path)) as container:
                codec = container.streams.video[0].codec_context
                return codec.width, codec.height
        command = [ffprobe, "-v", "error", "-select_streams", "v:0", "-of", "csv=p=0:s=x"]
        out = subprocess.check_output([*command, "-show_entries", "stream=width,height", str(path)])
        width, height = out.decode().strip().rstrip("x").split("x")
        return int(width), int(height)

    def load(path: Path, numbers: Sequence[int]) -> Any:
        width, height = size(path)
        command = [ffmpeg, "-v", "error", "-threads", "1", "-i", str(path)]
        raw = subprocess.check_output([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
        return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)[numbers]

    return load


def jpeg_dump() -> Load:
    """One JPEG a frame, quality 90, in a folder beside the clip, made by `dump`."""
    decode = importlib.import_module("simplejpeg").decode_jpeg

    def load(path: Path, numbers: Sequence[int]) -> Any:
        folder = dump_of(path)
        return np.stack([decode((folder / f"{n + 1:06d}.jpg").read_bytes()) for n in numbers])

    return load


def dump_of(path: Path) -> Path:
    return path.with_suffix(".frames")


def dump(path: Path) -> int:
    """Write every frame of the clip as JPEG, 4:2:0, quality 90. Returns the bytes."""
    encode = importlib.import_module("simplejpeg").encode_jpeg
    folder = dump_of(path)
    folder.mkdir(exist_ok=True)
    total = 0
    for number, frame in enumerate(load_frames(path), 1):
        data = encode(np.ascontiguousarray(frame), quality=90, colorsubsampling="420")
        (folder / f"{number:06d}.jpg").write_bytes(data)
        total += len(data)
    return total


MAKERS: dict[str, Callable[[], Load]] = {
    "load_frames": ours,
    "PyAV, plain": plain_pyav,
    "decord": decord,
    "torchcodec": torchcodec,
    "OpenCV": opencv,
    "ffmpeg pipe": ffmpeg_pipe,
    "JPEG dump": jpeg_dump,
}


def plainly_decoded(path: Path) -> list[Any]:
    """Every frame, decoded from the first packet on: what all loaders are held against."""
    converter = VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = container.decode(stream)
        return [converter.reformat(f, format="rgb24", threads=1).to_ndarray() for f in frames]


def installed() -> tuple[dict[str, Load], dict[str, str]]:
    """(the loaders that there are, why the others are not)."""
    there: dict[str, Load] = {}
    missing: dict[str, str] = {}
    for name, maker in MAKERS.items():
        try:
            there[name] = maker()
        except Exception as error:  # a peer's libraries may fail in any way
            missing[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:100]
    return there, missing


# --- samples a second, as a training loop asks for them ---


class Samples:
    """A random chunk of 32 frames of each clip, for torch's DataLoader."""

    def __init__(self, paths: Sequence[Path], loader: Callable[[], Load]) -> None:
        self.paths, self.loader = paths, loader
        self.load: Load | None = None
        self.counts = {}
        for path in set(paths):
            with ClipReader(path) as reader:
                self.counts[path] = len(reader)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        self.load = self.load or self.loader()  # in the worker process
        count = self.counts[self.paths[index]]
        first = int(np.random.default_rng(index).integers(max(1, count - 32)))
        return self.load(self.paths[index], range(first, min(count, first + 32)))


def main(argv: Sequence[str] | None = None) -> None:
    """Print samples per second and CPU ms per sample of ClipDataset and of other datasets."""
    parser = Parser(prog="python -m benchmarks.loaders", description=main.__doc__)
    parser.add_argument("videos", type=Path, help="folder of clips")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="use N workers")
    parser.add_argument("--samples", type=int, default=300, metavar="N", help="load N samples")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measure N times")
    args = parser.parse_args(argv)
    torch = importlib.import_module("torch")
    paths = [Path(sample.path) for sample in ClipDataset(args.videos).samples]
    paths = (paths * (args.samples // max(1, len(paths)) + 1))[: args.samples]
    peers: dict[str, Callable[[], Load]] = {"torchcodec": torchcodec, "decord": decord}
    sets: dict[str, Any] = {}
    for name, make in peers.items():
        if importlib.util.find_spec(name) is not None:
            sets[name] = Samples(paths, make)
    ours_set = ClipDataset(args.videos, 32, 1, layout="THWC")
    sets["ClipDataset"] = torch.utils.data.Subset(
        ours_set, [n % len(ours_set) for n in range(args.samples)]
    )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sets}
    for _ in range(args.rounds):
        for name, data in sets.items():
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            options = {"batch_size": None, "num_workers": args.workers}
            for _ in torch.utils.data.DataLoader(data, **options):
                pass
            wall = time.perf_counter() - began
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            found[name].append((args.samples / wall, cpu / args.samples * 1e3))
    for name, rounds in found.items():
        rate, cpu = (median(values) for values in zip(*rounds, strict=True))
        print(f"{name:12} {rate:7.1f} samples/s  {cpu:6.2f} ms of CPU a sample")


if __name__ == "__main__":
    main()
