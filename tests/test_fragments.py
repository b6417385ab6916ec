"""Clips out of the fragments of a video: the index, the bytes that are fetched, the cut."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeSource
from tests.scripts import ROOT, finish, report_rows, run, start, write_list
from tests.standin.server import StandIn
from tests.standin.sources import beep_times, ffmpeg_path, frame_numbers, frame_times, make_dash
from tests.test_cuts import TOOLS, UNEVEN
from utils.clip import Clip
from utils.download.sources import FetchOptions
from utils.download.youtube_extract import Attempt, section_inputs
from utils.download.youtube_sections import (
    FRAGMENT_OPTIONS,
    INDEX_BYTES,
    fetch_fragments,
    find_index,
    open_streams,
    read_index,
)
from utils.process import run_child
from utils.video.cut import cut_video
from utils.video.ffmpeg import CutTask, Encode, Input, file_url, find_ffmpeg
from utils.web import Web, WebError

LONG = {"seconds": 16, "size": (160, 90)}
SOURCES: dict[str, dict[str, Any]] = {
    "25": {"gop": 50},
    "29.97, B-frames": {"fps": "30000/1001", "gop": 60, "bframes": 3},
    "uneven": {"pts": [16 * t / 4 for t in UNEVEN], "gop": 10},
}
WINDOWS = [(0, 2), (1.98, 3), (2, 2), (7.3, 4.1), (13, 10)]


def part_of(path: Path, start: float, end: float, folder: Path) -> Path:
    """A file of the head and of the fragments that hold a window, as they are fetched."""
    data = path.read_bytes()
    index = read_index(data)
    assert index is not None
    window = index.window(start, end)
    assert window is not None
    part = folder / path.name
    part.write_bytes(index.head + data[slice(*window)])
    return part


def cut(tool: str, inputs: list[Input], window: tuple[float, float], target: Path) -> Path:
    encode = Encode(preset="ultrafast")
    cut_video(CutTask(run_child, find_ffmpeg(tool), inputs, *window, encode, target))
    return target


CASES: list[Any] = [(name, ffmpeg_path()) for name in SOURCES]
for other in TOOLS:
    if other != ffmpeg_path():
        CASES.append(("uneven", other))
        CASES += [pytest.param(n, other, marks=pytest.mark.slow) for n in SOURCES if n != "uneven"]


@pytest.mark.parametrize(("name", "tool"), CASES)
def test_a_cut_of_fragments_is_that_of_the_whole(
    name: str, tool: str, source: MakeSource, tmp_path: Path
) -> None:
    both = [path for path in make_dash(source(**LONG | SOURCES[name])) if path]
    assert len(both) == 2
    for begin, seconds in WINDOWS:
        parts = [part_of(path, begin, begin + seconds, tmp_path) for path in both]
        whole = cut(tool, [Input(file_url(p)) for p in both], (begin, seconds), tmp_path / "a.mp4")
        inputs = [Input(file_url(path), FRAGMENT_OPTIONS) for path in parts]
        found = cut(tool, inputs, (begin, seconds), tmp_path / "b.mp4")
        assert frame_times(found) == frame_times(whole)
        beeps = [n - begin for n in range(16) if begin <= n < begin + seconds - 0.1]
        assert beep_times(found) == pytest.approx(beeps, abs=0.002)
        if tool == ffmpeg_path():  # 5.1 has the sound of the whole 23 ms early
            assert found.read_bytes() == whole.read_bytes()


def test_what_has_no_index_of_fragments_is_left_alone(source: MakeSource) -> None:
    plain = source(**LONG).read_bytes()
    assert find_index(plain) is None and read_index(plain) is None
    late = make_dash(source(seconds=4, size=(160, 90), start=1.513))[0].read_bytes()
    assert find_index(late) is not None and read_index(late) is None
    data = make_dash(source(**LONG))[0].read_bytes()
    _, end = find_index(data) or (0, 0)
    assert end and read_index(data[:end]) == read_index(data)
    for bit in (end - 12, end - 4):  # an index of indexes; no keyframe at the beginning
        odd = bytearray(data[:end])
        odd[bit] ^= 0x80
        assert read_index(bytes(odd)) is None
    for short in (0, 7, 8, end - 12, end - 1):
        assert read_index(data[:short]) is None


def test_a_clip_costs_two_requests_a_stream(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    path = source(seconds=60, size=(160, 90), gop=50)
    standin.add_video("abcdefghijk", path, progressive=False)
    listing = write_list(tmp_path / "list.csv", ["abcdefghijk,31,34", "abcdefghijk,5,8"])
    standin.clear_log()
    done = run("download.py", *options(standin, tmp_path, listing), cwd=tmp_path)
    assert done.code == 0, done.err
    for begin in (5, 31):
        clip = tmp_path / "out" / f"abcdefghijk_{begin:06d}_{begin + 3:06d}.mp4"
        assert frame_numbers(clip) == list(range(25 * begin, 25 * begin + 75))
        assert beep_times(clip) == pytest.approx([0, 1, 2], abs=0.002)
    requests = standin.requests(target="media")
    assert len(requests) == 2 * (1 + 2)
    indexes = [request for request in requests if request.span == INDEX_BYTES]
    assert len(indexes) == 2
    whole = sum(part.stat().st_size for part in make_dash(path) if part)
    assert sum(request.bytes_sent for request in requests) < whole / 3


FAULTS: dict[str, dict[str, Any]] = {
    "refused____": {"status": 403},
    "refusedonce": {"status": 403, "times": 1},
    "later______": {"status": 503, "times": 3},
    "cut________": {"cut_after": 3000},
    "in_part____": {"truncate": 60_000},
    "no_range___": {"no_range": True},
    "web_page___": {"html": True},
    "gzipped____": {"gzip": True},
    "reset______": {"reset": True},
    "odd________": {"body": b"\0\0\0\x20sidx" + b"\xff" * 5000},
}


def test_what_does_not_come_in_fragments_comes_through_ffmpeg(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    path = source(seconds=20, size=(160, 90), gop=50)
    for youtube_id, fault in FAULTS.items():
        standin.add_video(youtube_id, path, progressive=False)
        standin.knobs(youtube_id, client="native", **fault)
    listing = write_list(tmp_path / "list.csv", [f"{name},12,15" for name in FAULTS])
    more = options(standin, tmp_path, listing, "--n", "5")
    done = run("download.py", *more, cwd=tmp_path)
    assert done.code == 0, done.err
    for youtube_id in FAULTS:
        clip = tmp_path / "out" / f"{youtube_id}_000012_000015.mp4"
        assert frame_numbers(clip) == list(range(300, 375)), youtube_id
        assert standin.requests(youtube_id, target="media", client="ffmpeg"), youtube_id


@pytest.mark.parametrize("is_trusted", [True, False])
def test_fragments_come_over_https_from_whom_we_trust(
    is_trusted: bool,
    standin: StandIn,
    source: MakeSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make_dash(source(**LONG))[0]
    url = standin.add_file("/v.mp4", path).replace(standin.root, f"https://{standin.api_host}")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(ROOT / "tests" / "standin" / "standin.pem"))
    chosen = FetchOptions(tmp_path, tmp_path, find_ffmpeg())
    attempt = Attempt(chosen, tmp_path, None, time.monotonic() + 60)
    video = {"url": url, "protocol": "https", "container": "mp4_dash"}
    streams = open_streams(attempt, section_inputs(video, chosen), 60)
    assert bool(streams) == is_trusted
    clip = Clip("abcdefghijk_000005_000007", "abcdefghijk", 5, 7)
    parts, end = fetch_fragments(attempt, streams, clip, time.monotonic() + 60)
    if not parts:
        assert not is_trusted
    else:
        assert end == 16
        (given,) = parts
        fetched = Path(given.url.removeprefix("file:"))
        assert fetched.read_bytes() == part_of(path, 5, 7, tmp_path).read_bytes()


@pytest.mark.parametrize("host", ["[::1", "a" * 300, "...", "", "h:99999", "a b", "\0"])
def test_an_odd_address_of_a_stream_is_an_error_like_any(host: str) -> None:
    with pytest.raises(WebError):
        Web().part(f"http://{host}/v", 0, 10, time.monotonic() + 20)


def test_a_stop_waits_for_no_fragment(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    standin.add_video("abcdefghijk", source(seconds=20, size=(160, 90)), progressive=False)
    standin.knobs(client="native", stall_after=INDEX_BYTES)
    listing = write_list(tmp_path / "list.csv", ["abcdefghijk,12,15"])
    process = start("download.py", *options(standin, tmp_path, listing), cwd=tmp_path)
    deadline = time.monotonic() + 30
    while len(standin.requests(target="media")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    done = finish(process, 20)
    assert done.code == 128 + signal.SIGINT and "stopped" in done.err
    assert time.monotonic() - began < 15
    assert not (tmp_path / "out" / ".tmp").exists()


@pytest.mark.slow
def test_a_fragment_that_never_comes_is_a_timeout(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video("abcdefghijk", source(seconds=20, size=(160, 90)), progressive=False)
    standin.knobs(stall_after=INDEX_BYTES)
    listing = write_list(tmp_path / "list.csv", ["abcdefghijk,12,15"])
    began = time.monotonic()
    done = run("download.py", *options(standin, tmp_path, listing, "--timeout", "8"), cwd=tmp_path)
    assert done.code == 1 and time.monotonic() - began < 25
    (row,) = report_rows(tmp_path / "out" / "download_report.csv").values()
    assert row["reason"] == "timeout"


def options(standin: StandIn, folder: Path, listing: Path, *more: str) -> list[object]:
    given = [folder / "out", "--input_csv", listing, "--ytdlp_args", standin.ytdlp_args]
    return [*given, "--videos_per_hour", "0", *more]
