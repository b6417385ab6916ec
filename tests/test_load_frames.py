"""load_frames.py: every frame of every kind of file is the one that decoding from the start gives.

The reference is PyAV decoding everything in order, itself held against ffmpeg's own decoding. What
is drawn by Hypothesis is which frames are asked for, and how.
"""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from clipreader import frame_source
from clipreader.transforms import Array, shown_size
from load_frames import (
    ClipError,
    ClipNotFound,
    ClipReader,
    CorruptClip,
    FrameIndexError,
    NoVideo,
    load_frames,
    main,
)
from tests.clip_kinds import KINDS, frame_hashes
from tests.scripts import run_here
from tests.standin.sources import ffmpeg_path

ROOT = Path(__file__).parent.parent

# Files whose packets do not tell the frames: loaded by decoding from the start.
ODD = {
    *("no_key_first.mkv", "stamped_wrong.mov", "stamped_wrong_hevc.mp4", "vp8.webm"),
    *("mpeg4.avi", "mpeg2.ts", "interlaced.mp4"),
}


@lru_cache(maxsize=3)
def decoded(path: Path) -> tuple[Array, list[str]]:
    """Every frame by plain decoding: as an array, upright, and the MD5 of each as stored."""
    pictures, hashes = [], []
    converter = VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            hashes.append(hashlib.md5(frame.to_ndarray().tobytes()).hexdigest())
            rgb = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            pictures.append(np.rot90(rgb, frame.rotation // 90))
    return np.stack(pictures), hashes


def some_indices(data: st.DataObject, count: int) -> list[int]:
    number = st.integers(0, count - 1)
    near = number.flatmap(lambda at: st.just(list(range(at, min(count, at + 9)))))
    return data.draw(st.one_of(near, st.lists(number, max_size=6)))


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_the_one_that_decoding_from_the_start_gives(
    clip: Callable[[str], Path], name: str
) -> None:
    path = clip(name)
    reference, hashes = decoded(path)
    with av.open(str(path)) as container:
        stored = container.streams.video[0].codec_context.pix_fmt
    assert hashes == frame_hashes(path, stored or "yuv420p")
    assert len({frame.tobytes() for frame in reference}) == len(reference)

    with ClipReader(path) as reader:
        assert bool(reader._opened().table.odd) == (name in ODD)
        assert len(reader) == len(reference)
        assert np.array_equal(reader[:], reference)

        @settings(max_examples=12, deadline=None, database=None)
        @given(st.data())
        def anywhere(data: st.DataObject) -> None:
            indices = some_indices(data, len(reference))
            assert np.array_equal(reader.read(indices=indices), reference[indices])

        anywhere()


def test_what_only_the_pictures_own_headers_say(
    clip: Callable[[str], Path], plain: Path, tmp_path: Path
) -> None:
    oblong = tmp_path / "oblong.mp4"
    arguments = ["-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=2/1"]
    command = [ffmpeg_path(), "-v", "error", "-i", str(plain), *arguments, str(oblong)]
    subprocess.run(command, check=True)
    oblong.write_bytes(oblong.read_bytes().replace(b"pasp", b"free"))
    wrong_size, unsaid = tmp_path / "wrong_size.mp4", tmp_path / "unsaid.mp4"
    data = bytearray(plain.read_bytes())
    width = data.index(b"avc1", data.index(b"stsd")) + 28
    assert data[width : width + 2] == (128).to_bytes(2, "big")
    data[width : width + 2] = (64).to_bytes(2, "big")
    wrong_size.write_bytes(data)
    unsaid.write_bytes(clip("interlaced.mp4").read_bytes().replace(b"fiel", b"free"))
    with ClipReader(oblong) as reader:
        assert reader.shape == (72, 256, 3)
    assert np.array_equal(load_frames(wrong_size), load_frames(plain))
    with ClipReader(unsaid) as reader:
        assert reader._opened().table.odd
        assert np.array_equal(reader[:], decoded(clip("interlaced.mp4"))[0])


@pytest.mark.parametrize("name", sorted({"b_frames.mp4", "open_gop.ts", "late.mkv", "vp8.webm"}))
def test_a_film_too_long_for_the_memory_is_read_from_its_file(
    clip: Callable[[str], Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_source, "KEEP_PACKETS_BELOW", 0)
    reference, _ = decoded(clip(name))
    with ClipReader(clip(name)) as reader:
        for indices in ([0], [49], range(30, 45), [3, 48, 21, 3]):
            assert np.array_equal(reader.read(indices=indices), reference[list(indices)])


def test_few_packets_are_decoded_for_a_chunk(clip: Callable[[str], Path]) -> None:
    from clipreader.packets import plan_chunks

    with ClipReader(clip("b_frames.mp4")) as reader:
        table = reader._opened().table
        assert reader.key_frames == [0, 21, 41, 55, 79]
        chunks = plan_chunks(table, [45, 46, 60, 99])
        assert [(chunk.frames, table.starts[chunk.start]) for chunk in chunks] == [
            ([45, 46], 41),
            ([60], 55),
            ([99], 79),
        ]


# --- what can be asked for ---


@pytest.fixture
def plain(clip: Callable[[str], Path]) -> Path:
    return clip("b_frames.mp4")  # 100 frames, 25 a second


def test_start_stop_indices_and_slices(plain: Path) -> None:
    reference, _ = decoded(plain)
    assert np.array_equal(load_frames(plain, start=40, stop=72), reference[40:72])
    assert np.array_equal(load_frames(plain, 90), reference[90:])
    assert np.array_equal(load_frames(plain, stop=3), reference[:3])
    assert np.array_equal(load_frames(plain, indices=[9, -1, 9, 0]), reference[[9, 99, 9, 0]])
    assert load_frames(plain, indices=[]).shape == (0, 72, 128, 3)
    with ClipReader(plain) as reader:
        assert (len(reader), reader.fps, reader.shape) == (100, 25, (72, 128, 3))
        assert np.allclose(reader.times, np.arange(100) / 25)
        assert np.array_equal(reader[10:20], reference[10:20])
        assert np.array_equal(reader[-5:400:2], reference[-5:400:2])
        assert np.array_equal(reader[::-25], reference[::-25])
        assert np.array_equal(reader[-1], reference[-1])
        assert reader[5:5].shape == (0, 72, 128, 3)


def test_a_limit_above_what_ffmpeg_can_hold(plain: Path) -> None:
    assert len(load_frames(plain, 0, 1, max_pixels=1 << 40)) == 1


def test_by_time(plain: Path) -> None:
    with ClipReader(plain) as reader:
        assert list(reader.frame_numbers(1, 2, unit="s")) == list(range(25, 50))
        assert list(reader.frame_numbers(0.12, 0.2, unit="s")) == [3, 4]
        assert list(reader.frame_numbers(3.9, 60, unit="s")) == [98, 99]
        assert list(reader.frame_numbers(indices=[0, 0.119, 0.12, 3.99], unit="s")) == [0, 2, 3, 99]
        for bad in (-0.1, 4.01, 60):
            with pytest.raises(FrameIndexError):
                reader.read(indices=[bad], unit="s")
        with pytest.raises(FrameIndexError):
            reader.read(4.5, unit="s")


@pytest.mark.parametrize("name", ["b_frames.mp4", "variable.mp4", "late.mp4", "open_gop.ts"])
@pytest.mark.parametrize("fps", ["30", "8", "30000/1001"])
def test_resampled_as_ffmpeg_does(clip: Callable[[str], Path], name: str, fps: str) -> None:
    path = clip(name)
    reference, hashes = decoded(path)
    command = [ffmpeg_path(), "-v", "error", "-i", str(path), "-map", "0:v:0", "-vf", f"fps={fps}"]
    command += ["-fps_mode", "passthrough", "-f", "framemd5", "-"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    expected = [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]
    with ClipReader(path) as reader:
        numbers = reader.frame_numbers(fps=fps)
        assert [hashes[number] for number in numbers] == expected
        got = reader.read(5, 9, fps=fps)
    assert np.array_equal(got, reference[list(numbers)[5:9]])


def test_fps_0_is_the_clips_own_rate_and_seconds_count_at_the_new_rate(plain: Path) -> None:
    with ClipReader(plain) as reader:
        assert list(reader.frame_numbers(fps=0)) == list(range(100))
        assert len(reader.frame_numbers(1, 2, unit="s", fps=8)) == 8
        assert len(reader.frame_numbers(fps=Fraction(25, 2))) == 50


def test_out_is_written_to_and_checked(plain: Path) -> None:
    reference, _ = decoded(plain)
    room = np.zeros((6, 72, 128, 3), np.uint8)
    got = load_frames(plain, 10, 14, out=room[1:5])
    assert np.shares_memory(got, room)
    assert np.array_equal(room[1:5], reference[10:14])
    assert not room[0].any() and not room[5].any()
    frozen = room[:4]
    frozen.flags.writeable = False
    wrong: list[Any] = [room, room[:4].astype(np.float32), room[:4].tolist(), frozen]
    for bad in wrong:
        with pytest.raises(ValueError, match="out is"):
            load_frames(plain, 10, 14, out=bad)


def test_layout_is_a_view(plain: Path) -> None:
    frames = load_frames(plain, 0, 4, layout="TCHW")
    assert frames.shape == (4, 3, 72, 128)
    assert np.array_equal(frames.transpose(0, 2, 3, 1), decoded(plain)[0][:4])
    assert frames.base is not None


def test_short_side_scales_to_what_a_one_step_scaler_gives(plain: Path) -> None:
    small = load_frames(plain, 0, 5, short_side=36)
    assert small.shape == (5, 36, 64, 3)
    means = np.abs(small.astype(float) - decoded(plain)[0][:5, ::2, ::2])
    assert means.mean() < 40  # the content is noise
    assert load_frames(plain, 0, 1, short_side=144).shape == (1, 144, 256, 3)


def test_a_turned_clip_is_upright(clip: Callable[[str], Path], plain: Path) -> None:
    upright = decoded(plain)[0][:3]
    turned = load_frames(clip("turned.mp4"), 0, 3)
    assert turned.shape == (3, 128, 72, 3)
    assert np.array_equal(turned, np.rot90(upright, 1, axes=(1, 2)))
    assert load_frames(clip("turned.mp4"), 0, 1, short_side=36).shape == (1, 64, 36, 3)


@pytest.mark.parametrize(
    "rotation", ["90", "270", *(pytest.param(n, marks=pytest.mark.slow) for n in ("0", "180"))]
)
@pytest.mark.parametrize("mirror", ["", "-display_hflip", "-display_vflip"])
def test_turned_and_mirrored_as_ffmpeg_does(
    plain: Path, tmp_path: Path, rotation: str, mirror: str
) -> None:
    path = tmp_path / "turned.mp4"
    ffmpeg = [ffmpeg_path(), "-v", "error"]
    turn = ["-display_rotation", rotation, *mirror.split()]
    subprocess.run([*ffmpeg, *turn, "-i", str(plain), "-c", "copy", str(path)], check=True)
    turned = load_frames(path, 0, 3)
    command = [*ffmpeg, "-i", str(path), "-frames:v", "3", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    raw = subprocess.run([*command, "-"], check=True, capture_output=True).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(turned.shape)
    assert np.abs(shown.astype(int) - turned).mean() < 4  # another rounding, the same picture


def test_pixels_are_made_square_unless_the_aspect_is_a_scalers_rounding() -> None:
    assert shown_size(720, 576, Fraction(16, 15)) == (768, 576)
    assert shown_size(720, 480, Fraction(8, 9)) == (720, 540)
    assert shown_size(454, 256, Fraction(2048, 2043)) == (454, 256)
    assert shown_size(454, 256, None, 128) == (227, 128)
    assert shown_size(256, 454, Fraction(0), 128) == (128, 227)
    for damaged in (Fraction(30000), Fraction(1, 30000)):
        assert shown_size(128, 72, damaged) == (128, 72)


def test_arguments_that_make_no_sense(plain: Path) -> None:
    for bad in (
        {"indices": [1], "start": 2},
        {"unit": "minutes"},
        {"layout": "HWC"},
        {"fps": "fast"},
        {"start": 5, "stop": 4},
        {"short_side": 0},
        {"short_side": 1.5},
        {"short_side": 100_000},
        {"indices": [float("nan")], "unit": "s"},
        {"start": 0, "stop": float("nan"), "unit": "s"},
    ):
        with pytest.raises(ValueError):
            load_frames(plain, **bad)
    for start in (0.5, float("inf")):
        with pytest.raises(TypeError, match="unit='s'"):
            load_frames(plain, start=start)


# --- errors ---


def test_a_frame_that_is_not_there(plain: Path) -> None:
    for bad in ({"indices": [100]}, {"indices": [-101]}, {"start": 0, "stop": 101}, {"start": -1}):
        with pytest.raises(FrameIndexError, match=r"frame .*the clip has 100") as caught:
            load_frames(plain, **bad)
        assert caught.value.frames == 100
        assert isinstance(caught.value, IndexError)


def test_no_file_no_video_no_data(tmp_path: Path) -> None:
    for odd in (None, 5, ["a.mp4"]):
        with pytest.raises(TypeError, match="a clip is a path"):
            load_frames(odd)  # type: ignore[arg-type]
    with pytest.raises(ClipNotFound, match="gone.mp4: no such file"):
        load_frames(tmp_path / "gone.mp4")
    with pytest.raises(NoVideo, match="folder"):
        load_frames(tmp_path)
    sound = tmp_path / "sound.m4a"
    command = [ffmpeg_path(), "-v", "error", "-f", "lavfi", "-i", "sine=d=1", str(sound)]
    subprocess.run(command, check=True)
    with pytest.raises(NoVideo, match="sound.m4a"):
        load_frames(sound)
    with pytest.raises(NoVideo, match="^<bytes>: has no video"):
        load_frames(sound.read_bytes())
    with pytest.raises(ClipNotFound):
        load_frames("x" * 300)
    for content in (b"", b"no video" * 999):
        (tmp_path / "bad.mp4").write_bytes(content)
        with pytest.raises(CorruptClip, match="bad.mp4") as caught:
            load_frames(tmp_path / "bad.mp4")
        assert (caught.value.frame, caught.value.frames) == (0, None)


def test_video_of_a_codec_that_nobody_knows(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "encrypted.mp4"
    path.write_bytes(plain.read_bytes().replace(b"avc1", b"encv"))
    with pytest.raises(NoVideo, match=r"encrypted.mp4: the video is encrypted"):
        load_frames(path)


def test_a_name_that_looks_like_a_protocol(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("12:30.mp4").write_bytes(plain.read_bytes())
    assert len(load_frames("12:30.mp4")) == 100


def test_two_sizes_in_one_track(plain: Path, tmp_path: Path) -> None:
    parts = [tmp_path / "a.ts", tmp_path / "b.ts"]
    encode = ["-c:v", "libx264", "-preset", "veryfast", "-f", "mpegts"]
    for part, size in zip(parts, ("128:72", "96:64"), strict=True):
        command = [ffmpeg_path(), "-v", "error", "-i", str(plain), "-an", "-vf", f"scale={size}"]
        subprocess.run([*command, *encode, str(part)], check=True)
    both, path = tmp_path / "both.ts", tmp_path / "both.mp4"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    command = [ffmpeg_path(), "-v", "error", "-i", str(both), "-c", "copy", str(path)]
    subprocess.run(command, check=True)
    with ClipReader(path) as reader:
        assert reader[len(reader) - 1].shape == (72, 128, 3) == reader.shape


def test_a_packet_that_was_lost_on_the_way(clip: Callable[[str], Path], tmp_path: Path) -> None:
    data = bytearray(clip("stream.ts").read_bytes())
    size, video = 188, []
    for at in range(0, len(data), size):
        if (data[at + 1] & 31) << 8 | data[at + 2] == 256 and not data[at + 1] & 64:
            video.append(at)
    lost = video[len(video) // 2]
    del data[lost : lost + size]
    path = tmp_path / "lost.ts"
    path.write_bytes(data)
    with pytest.raises(CorruptClip, match=r"lost.ts: corrupt at frame \d+: damaged") as caught:
        load_frames(path)
    broken = caught.value.frame
    assert 30 < broken < 70
    assert np.array_equal(caught.value.frames, decoded(clip("stream.ts"))[0][:broken])


def test_damage_in_a_clip_that_begins_without_a_keyframe(
    clip: Callable[[str], Path], tmp_path: Path
) -> None:
    reference = load_frames(clip("no_key_first.mkv"))
    data = bytearray(clip("no_key_first.mkv").read_bytes())
    at = len(data) * 60 // 100
    data[at : at + 4000] = bytes(4000)
    path = tmp_path / "damaged.mkv"
    path.write_bytes(data)
    with pytest.raises(CorruptClip) as caught:
        load_frames(path)
    broken = caught.value.frame
    assert 30 < broken < 70
    assert np.array_equal(caught.value.frames, reference[:broken])


def test_a_stream_without_times_has_its_rate(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "raw.h264"
    command = [ffmpeg_path(), "-v", "error", "-i", str(plain), "-an", "-c", "copy", str(path)]
    subprocess.run(command, check=True)
    with ClipReader(path) as reader:
        assert (len(reader), reader.fps) == (100, 25)
        assert reader.times[-1] == pytest.approx(99 / 25)
        assert len(reader.frame_numbers(fps=5)) == 20
        assert reader.frame_numbers(1, 2, unit="s") == range(25, 50)


@pytest.fixture
def front(plain: Path, tmp_path: Path) -> bytes:
    """The plain clip with its index in front, so that its end can be cut off."""
    path = tmp_path / "front.mp4"
    command = [ffmpeg_path(), "-v", "error", "-y", "-i", str(plain), "-c", "copy"]
    subprocess.run([*command, "-movflags", "+faststart", str(path)], check=True)
    return path.read_bytes()


def test_a_clip_that_was_cut_off(plain: Path, front: bytes, tmp_path: Path) -> None:
    reference, _ = decoded(plain)
    path = tmp_path / "cut_off.mp4"
    path.write_bytes(front[: len(front) * 6 // 10])
    with pytest.raises(CorruptClip, match="cut_off.mp4: corrupt at frame 5.: the rest") as caught:
        load_frames(path)
    broken = caught.value.frame
    assert 50 <= broken < 60
    assert np.array_equal(caught.value.frames, reference[:broken])
    assert np.array_equal(load_frames(path, 0, broken), reference[:broken])
    with pytest.raises(CorruptClip) as caught:
        load_frames(path, indices=[90, 2, 1])
    assert np.array_equal(caught.value.frames, reference[[2, 1]])
    for lost in (
        {"unit": "s", "start": 1},
        {"unit": "s", "start": 1, "stop": 3.5},
        {"unit": "s", "start": 3},
        {"unit": "s", "indices": [3]},
        {"unit": "s", "fps": 5},
        {"fps": 8},
    ):
        with pytest.raises(CorruptClip):
            load_frames(path, **lost)
    assert len(load_frames(path, unit="s", start=1, stop=1.5)) == 13


@pytest.mark.parametrize("damage", ["zeros", "flips"])
def test_a_damaged_clip(plain: Path, front: bytes, tmp_path: Path, damage: str) -> None:
    reference, _ = decoded(plain)
    data = bytearray(front)
    at = len(data) * 55 // 100
    if damage == "zeros":
        data[at : at + 6000] = bytes(6000)
    else:
        for step in range(0, 4000, 97):
            data[at + step] ^= 1 << step % 8
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with pytest.raises(CorruptClip, match=r"damaged.mp4: corrupt at frame \d+") as caught:
        load_frames(path)
    broken = caught.value.frame
    assert 40 < broken < 70
    assert np.array_equal(caught.value.frames, reference[:broken])
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.frame) == (str(caught.value), broken)
    assert np.array_equal(load_frames(path, 90, 100), reference[90:])


def test_errors_come_whole_out_of_another_process() -> None:
    for error in (
        ClipNotFound(Path("a.mp4"), "no such file"),
        NoVideo(Path("a.mp4"), "has no video"),
        FrameIndexError(Path("a.mp4"), 7, 5),
        CorruptClip(Path("a.mp4"), 3, "damaged data"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and str(copy) == str(error)
        assert copy.__dict__ == error.__dict__ and isinstance(copy, ClipError)


# --- threads, processes, files ---


def test_threads_share_a_reader(plain: Path) -> None:
    reference, _ = decoded(plain)
    wrong: list[int] = []
    with ClipReader(plain) as reader:

        def work(seed: int) -> None:
            for start in np.random.default_rng(seed).integers(0, 90, 12).tolist():
                if not np.array_equal(reader[start : start + 8], reference[start : start + 8]):
                    wrong.append(start)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def _sums(reader: ClipReader, answers: Any) -> None:
    answers.put([int(reader[at].sum()) for at in (0, 50, 99, 20)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_reader_goes_into_another_process(plain: Path, method: str) -> None:
    reference, _ = decoded(plain)
    context: Any = multiprocessing.get_context(method)
    with ClipReader(plain) as reader:
        reader[7]
        # A lock that another thread of the parent holds at the time of the fork.
        held = threading.Event()
        done = threading.Event()

        def hold() -> None:
            with reader._lock:
                held.set()
                done.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        answers = context.Queue()
        child = context.Process(target=_sums, args=(reader, answers))
        child.start()
        assert answers.get(timeout=60) == [int(reference[at].sum()) for at in (0, 50, 99, 20)]
        child.join()
        done.set()
        thread.join()
        assert np.array_equal(reader[8], reference[8])


def test_a_closed_reader_says_so_and_keeps_no_file(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = psutil.Process().num_fds()
    reader = ClipReader(plain)
    assert psutil.Process().num_fds() == before + 1
    reader.close()
    reader.close()
    assert psutil.Process().num_fds() == before
    with pytest.raises(ValueError, match="closed"):
        reader[0]
    reader = ClipReader(plain)  # while it closes, nobody opens it again
    with closing(reader._opened()) as source, monkeypatch.context() as patch:
        patch.setattr(source, "close", lambda: pytest.raises(ValueError, reader.__getitem__, 0))
        reader.close()


def test_nothing_leaks(clip: Callable[[str], Path], tmp_path: Path) -> None:
    path, damaged = clip("one_frame.mp4"), tmp_path / "damaged.mp4"
    damaged.write_bytes(clip("all_key.mp4").read_bytes()[:5000])
    process = psutil.Process()

    def load(times: int) -> None:
        for _ in range(times):
            load_frames(path)
            with pytest.raises(CorruptClip):
                load_frames(damaged)

    load(50)
    gc.collect()
    memory, files = process.memory_info().rss, process.num_fds()
    gc.disable()  # what only the collector frees would pile up between its visits
    try:
        load(300)
    finally:
        gc.enable()
    assert process.num_fds() == files
    assert process.memory_info().rss - memory < 3 << 20


def test_as_torch_shares_memory(plain: Path) -> None:
    torch = pytest.importorskip("torch")
    room = np.zeros((2, 72, 128, 3), np.uint8)
    tensor = load_frames(plain, 0, 2, out=room, as_torch=True, layout="TCHW")
    assert isinstance(tensor, torch.Tensor) and tensor.shape == (2, 3, 72, 128)
    assert tensor.data_ptr() == room.ctypes.data


# --- the command line, the examples ---


def script(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "load_frames.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_script_prints_what_it_loaded(plain: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    done = script(str(plain), "--start", "40", "--stop", "72", "--sheet", str(sheet))
    assert done.returncode == 0, done.stderr
    assert "shape   (32, 72, 128, 3) uint8\n" in done.stdout
    assert "frames  40 to 71 of 100\n" in done.stdout
    assert "times   1.600 to 2.840 s\n" in done.stdout
    assert re.search(r"loaded  in \d+\.\d ms\n", done.stdout)
    from PIL import Image

    with Image.open(sheet) as picture:
        assert picture.width > 300 and picture.height > 200


def test_the_script_fails_in_one_line(plain: Path, front: bytes, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(front[: len(front) // 2])
    listing = tmp_path / "my_list.csv"
    listing.write_text("youtube_id,time_start,time_end\n" * 9)
    for code, args in (
        (2, [listing]),
        (2, [plain, "--sheet", listing]),
        (2, [tmp_path / "gone.mp4"]),
        (2, [plain, "--indices", "100"]),
        (2, [plain, "--sheet", tmp_path / "no_folder" / "a.png"]),
        (2, []),
    ):
        done = run_here("load_frames.py", *args, cwd=tmp_path)
        assert (done.code, len(done.err.splitlines())) == (code, 1), done.err
    broken = script(str(cut))
    assert (broken.returncode, len(broken.stderr.splitlines())) == (1, 1), broken.stderr
    done = run_here("load_frames.py", listing, cwd=tmp_path)
    assert "my_list.csv: is not a video\n" in done.err
    assert listing.read_text().startswith("youtube_id")  # not overwritten by a sheet


def test_the_script_draws_by_seconds(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(plain), "--unit", "s", "--start", "1", "--stop", "2", "--fps", "5"]) == 0
    assert "shape   (5, 72, 128, 3)" in capsys.readouterr().out


def test_only_numpy_and_av_are_imported() -> None:
    heavy = "torch, pandas, PIL, simplejpeg, joblib, tqdm, yt_dlp, requests, cv2"
    code = f"import sys, load_frames; print([m for m in {heavy.split(', ')} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
