"""The loaders that `benchmarks/load.py` compares, each as its own documentation would have it.

A loader is a function (path, frame numbers) -> (T, H, W, 3) uint8, RGB, on one thread. `installed`
gives those whose library is there. Importing a peer may take a second or fail: each is imported by
the function that makes its loader, once.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
from av.video.reformatter import VideoReformatter

from clipreader.media import ratio
from load_frames import load_frames

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
