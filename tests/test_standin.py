"""The stand-in has to be right before anything that is tested against it can be."""

from __future__ import annotations

import http.client
import json
import shlex
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from email.message import Message
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from clipreader.media import ratio
from tests.conftest import MakeSource, RunYtdlp
from tests.standin.server import DEAD, StandIn
from tests.standin.sources import (
    beep_times,
    ffmpeg_path,
    frame_numbers,
    frame_times,
    make_dash,
    make_source,
    read_frame_number,
    top_boxes,
)
from utils.download.youtube_texts import classify_ytdlp

ID = "abcdefghijk"
WATCH = f"https://www.youtube.com/watch?v={ID}"


def ffmpeg(*arguments: str | Path) -> None:
    command = [ffmpeg_path(), "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def get(url: str, **headers: str) -> tuple[int, bytes, Message]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def ask_player(standin: StandIn, youtube_id: str = ID) -> tuple[int, bytes]:
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection(standin.api_host, timeout=10, context=context)
    try:
        body = json.dumps({"videoId": youtube_id})
        connection.request("POST", "/youtubei/v1/player?prettyPrint=false", body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# --- sources -----------------------------------------------------------------------------------


@pytest.mark.parametrize("short_side", [256, 128, 64])
def test_frame_numbers_survive_scaling_and_crf_28(
    source: MakeSource, tmp_path: Path, short_side: int
) -> None:
    small = tmp_path / "small.mp4"
    scale = ["-vf", f"scale=-2:{short_side}", "-c:v", "libx264", "-crf", "28"]
    ffmpeg("-i", source(), "-t", "4", *scale, "-preset", "veryfast", small)
    assert frame_numbers(small) == list(range(100))


def test_other_pictures_carry_no_number() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (360, 640, 3), dtype=np.uint8)
    for picture in (noise, np.zeros_like(noise), np.full_like(noise, 255), noise[..., 0]):
        assert read_frame_number(picture) is None


def test_beeps_are_on_the_second_also_after_a_cut(source: MakeSource, tmp_path: Path) -> None:
    assert beep_times(source()) == pytest.approx(range(20), abs=0.003)
    cut = tmp_path / "cut.mp4"
    ffmpeg("-ss", "3.52", "-t", "4", "-i", source(), "-preset", "veryfast", cut)
    assert beep_times(cut) == pytest.approx([0.48, 1.48, 2.48, 3.48], abs=0.005)
    first, number = frame_times(cut)[0]
    assert (first, number) == (pytest.approx(0, abs=0.001), 88)


@pytest.mark.parametrize(
    "options",
    [
        {"rotation": 90},
        {"rotation": 180},
        {"rotation": 270},
        {"size": (361, 203)},
        {"size": (360, 640)},
        {"fps": "30000/1001"},
        {"open_gop": True, "bframes": 3, "gop": 25},
        {"bframes": 0},
        {"audio": False},
        {"sar": "4/3"},
    ],
    ids=str,
)
def test_variants_can_be_read_back(source: MakeSource, options: dict[str, object]) -> None:
    path = source(seconds=2, **options)
    rate = Fraction(str(options.get("fps", 25)))
    times = frame_times(path)
    assert [number for _, number in times] == list(range(round(2 * rate)))
    assert times[7][0] == pytest.approx(float(7 / rate), abs=0.001)
    assert len(beep_times(path)) == (2 if options.get("audio", True) else 0)
    with av.open(str(path)) as clip:
        picture = clip.streams.video[0]
        assert (picture.width, picture.height) == options.get("size", (640, 360))
        assert ratio(picture.sample_aspect_ratio) == (Fraction(4, 3) if "sar" in options else None)


def test_a_start_off_zero_irregular_times_and_a_short_picture(source: MakeSource) -> None:
    late = source(seconds=2, start=1.5)
    assert frame_times(late)[0] == (pytest.approx(1.5, abs=0.002), 0)
    assert beep_times(late) == pytest.approx([1.5, 2.5], abs=0.003)
    times = [0.0, 0.05, 0.2, 0.24, 0.5, 1.0, 1.7]
    irregular = frame_times(source(seconds=2, pts=times))
    assert [time for time, _ in irregular] == pytest.approx(times, abs=0.001)
    short = source(seconds=3, video_seconds=1.5)
    assert len(frame_numbers(short)) == 38
    assert len(beep_times(short)) == 3


def test_the_box_is_red_while_it_lasts(source: MakeSource) -> None:
    with av.open(str(source(seconds=2, box=(5, 10, 0.5, 0.5, 0.8, 0.9)))) as clip:
        pictures = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    inside = [picture[200:300, 340:480].mean(axis=(0, 1)) for picture in pictures[:15]]
    red = [bool(r > 220 and g < 40 and b < 40) for r, g, b in inside]
    assert red == [5 <= number < 10 for number in range(15)]


@pytest.mark.slow
def test_the_dash_files_have_one_index_and_keep_their_times(source: MakeSource) -> None:
    video, audio = make_dash(source())
    assert audio is not None
    for path in (video, audio):
        kinds = [kind for kind, _, _ in top_boxes(path)]
        assert kinds[:4] == ["ftyp", "moov", "sidx", "moof"]
        assert kinds.count("sidx") == 1
    assert frame_times(video) == frame_times(source())
    assert beep_times(audio) == beep_times(source())


def test_a_source_is_as_large_as_a_real_video_of_its_size(source: MakeSource) -> None:
    # 5 minutes of 360p are 15 to 25 MB on YouTube.
    assert 15e6 < source().stat().st_size * 15 < 25e6


def test_more_frames_than_the_blocks_can_count_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="32768"):
        make_source(tmp_path / "long.mp4", seconds=1400)
    assert list(tmp_path.iterdir()) == []


# --- through yt-dlp ----------------------------------------------------------------------------


@pytest.mark.slow
def test_ytdlp_lists_the_formats_of_every_height(
    standin: StandIn, ytdlp: RunYtdlp, source: MakeSource
) -> None:
    standin.add_video(ID, [source(), source(seconds=2, size=(1280, 720))], length_seconds=21)
    run = ytdlp(*standin.ytdlp_arg_list, "-J", "--", WATCH)
    assert run.returncode == 0, run.stderr
    info = json.loads(run.stdout)
    assert info["duration"] == 21
    formats = {f["format_id"]: f for f in info["formats"]}
    assert set(formats) == {"18", "134", "136", "140"}
    assert (formats["136"]["height"], formats["134"]["height"]) == (720, 360)
    assert formats["140"]["vcodec"] == formats["134"]["acodec"] == "none"
    assert formats["134"]["filesize"] == make_dash(source())[0].stat().st_size


def test_ytdlp_downloads_through_the_youtube_extractor(
    standin: StandIn, ytdlp: RunYtdlp, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video(ID, source())
    arguments = [*shlex.split(standin.ytdlp_args), "-f", "134+140", "-o", "whole.mp4"]
    run = ytdlp(*arguments, "--", WATCH)
    assert run.returncode == 0, run.stderr
    assert frame_numbers(tmp_path / "whole.mp4") == list(range(500))
    assert beep_times(tmp_path / "whole.mp4") == pytest.approx(range(20), abs=0.003)
    assert {r.client for r in standin.requests(ID, target="media")} == {"native"}
    sizes = sum(path.stat().st_size for path in make_dash(source()) if path)
    assert standin.bytes_served == sizes


@pytest.mark.slow
def test_a_section_is_frame_exact_and_cheap(
    standin: StandIn, ytdlp: RunYtdlp, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video(ID, source(seconds=14, complexity=3))
    cut = ["--download-sections", "*8-10", "--force-keyframes-at-cuts", "-o", "cut.mp4"]
    run = ytdlp(*standin.ytdlp_arg_list, "-f", "134+140", *cut, "--", WATCH)
    assert run.returncode == 0, run.stderr
    assert frame_numbers(tmp_path / "cut.mp4") == list(range(200, 250))
    assert beep_times(tmp_path / "cut.mp4") == pytest.approx([0, 1], abs=0.005)
    assert {r.client for r in standin.requests(ID, target="media")} == {"ffmpeg"}
    assert standin.bytes_served < 0.7 * source(seconds=14, complexity=3).stat().st_size


def test_ffmpeg_seeks_by_the_index(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    path = source(seconds=14, complexity=3)
    standin.add_video(ID, path)
    cut = tmp_path / "cut.mp4"
    ffmpeg("-ss", "8", "-t", "2", "-i", standin.media_url(ID, 134), cut)
    assert frame_numbers(cut) == list(range(200, 250))
    assert standin.bytes_served < 0.6 * path.stat().st_size
    fragment = standin.requests(ID, target="media")[-1]
    assert int(fragment.range.removeprefix("bytes=").removesuffix("-")) > 1_000_000


def test_the_generic_extractor_gets_the_whole_video(
    standin: StandIn, ytdlp: RunYtdlp, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video(ID, source())
    run = ytdlp("-o", "whole.mp4", "--", standin.url_base + ID)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "whole.mp4").read_bytes() == source().read_bytes()


def test_ytdlp_words_every_reason_as_the_table_expects(standin: StandIn, ytdlp: RunYtdlp) -> None:
    ids = {f"dead_{number:06d}": name for number, name in enumerate(DEAD)}
    for youtube_id, name in ids.items():
        standin.add_dead(youtube_id, name)
    urls = [f"https://www.youtube.com/watch?v={youtube_id}" for youtube_id in ids]
    run = ytdlp(*standin.ytdlp_arg_list, "--", *urls)
    found = {}
    for block in run.stderr.split("ERROR: [youtube] ")[1:]:
        youtube_id, _, _ = block.partition(": ")
        found[ids[youtube_id]] = classify_ytdlp(f"ERROR: [youtube] {block}")
    assert found == {name: dead.expected for name, dead in DEAD.items()}


def test_a_machine_without_javascript(standin: StandIn, ytdlp: RunYtdlp) -> None:
    standin.add_dead(ID, "no_format")
    run = ytdlp(*shlex.split(standin.ytdlp_args_without_js), "--", WATCH)
    assert run.returncode == 1
    assert "No supported JavaScript runtime" in run.stderr


# --- knobs -------------------------------------------------------------------------------------


@pytest.fixture
def served(standin: StandIn, source: MakeSource) -> tuple[str, bytes]:
    """The address of a video's 134, and what it ought to give."""
    standin.add_video(ID, source())
    return standin.media_url(ID), make_dash(source())[0].read_bytes()


def test_ranges_and_head(standin: StandIn, served: tuple[str, bytes]) -> None:
    url, whole = served
    assert get(url)[:2] == (200, whole)
    status, body, headers = get(url, Range="bytes=10-19")
    assert (status, body) == (206, whole[10:20])
    assert headers["Content-Range"] == f"bytes 10-19/{len(whole)}"
    assert get(url, Range=f"bytes={len(whole) - 5}-")[:2] == (206, whole[-5:])
    assert get(url, Range="bytes=-7")[:2] == (206, whole[-7:])
    assert get(url, Range=f"bytes=5-{10**9}")[:2] == (206, whole[5:])
    status, _, headers = get(url, Range=f"bytes={len(whole)}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(whole)}")
    head = urllib.request.Request(url, method="HEAD")
    with urllib.request.urlopen(head, timeout=10) as answer:
        assert answer.headers["Content-Length"] == str(len(whole))
        assert answer.headers["Accept-Ranges"] == "bytes"
    assert get(standin.root + "/nothing")[0] == 404
    assert get(standin.media_url("unknown_id_"))[0] == 404


def test_one_connection_serves_many_requests(standin: StandIn, served: tuple[str, bytes]) -> None:
    connection = http.client.HTTPConnection(standin.root.removeprefix("http://"), timeout=10)
    for _ in range(3):
        connection.request("GET", served[0].removeprefix(standin.root), headers={"Range": "0-9"})
        assert connection.getresponse().read() == served[1]
    local = connection.sock.getsockname()
    connection.request("GET", "/nothing")
    assert connection.getresponse().read()
    assert connection.sock.getsockname() == local
    connection.close()


def test_cut_after(standin: StandIn, served: tuple[str, bytes]) -> None:
    knob = standin.knobs(ID, cut_after=1000, times=1)
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(served[0])
    assert caught.value.partial == served[1][:1000]
    assert get(served[0])[:2] == (200, served[1])
    assert standin.times_used(knob) == 1


def test_stall_ends_when_the_client_leaves(standin: StandIn, served: tuple[str, bytes]) -> None:
    standin.knobs(ID, stall_after=500)
    answer = urllib.request.urlopen(served[0], timeout=0.3)
    assert answer.read(500) == served[1][:500]
    with pytest.raises(TimeoutError):
        answer.read(1)
    assert not standin.wait_idle(0.1)
    answer.close()
    assert standin.wait_idle(2)
    assert standin.requests(ID)[0].bytes_sent == 500


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_status_a_number_of_times(standin: StandIn, served: tuple[str, bytes], status: int) -> None:
    standin.knobs(ID, status=status, times=2)
    assert [get(served[0])[0] for _ in range(3)] == [status, status, 200]
    assert [r.status for r in standin.requests(ID)] == [status, status, 200]


def test_html_no_range_no_length_and_truncate(standin: StandIn, served: tuple[str, bytes]) -> None:
    url, whole = served
    standin.knobs(ID, html=True, times=1)
    status, body, headers = get(url, Range="bytes=0-99")
    assert (status, headers.get_content_type()) == (200, "text/html")
    assert b"Before you continue" in body
    standin.knobs(ID, no_range=True, times=1)
    status, body, headers = get(url, Range="bytes=100-")
    assert (status, body, headers["Accept-Ranges"]) == (200, whole, None)
    standin.knobs(ID, no_length=True, times=1)
    status, body, headers = get(url, Range="bytes=0-99")
    assert (status, body, headers["Content-Length"]) == (206, whole[:100], None)
    standin.knobs(ID, truncate=3000, times=1)
    status, body, headers = get(url, Range="bytes=1000-")
    assert (status, body) == (206, whole[1000:3000])
    assert headers["Content-Range"] == "bytes 1000-2999/3000"
    assert get(url)[:2] == (200, whole)


def test_throttle_only_what_youtube_throttles(standin: StandIn, served: tuple[str, bytes]) -> None:
    standin.knobs(ID, throttle=200_000, only="big", truncate=200_000)
    began = time.monotonic()
    get(served[0], Range="bytes=0-199999")
    assert time.monotonic() - began < 3
    began = time.monotonic()
    get(served[0], Range="bytes=0-")
    assert 0.9 < time.monotonic() - began < 10


def test_knobs_meet_only_whom_they_are_for(standin: StandIn, served: tuple[str, bytes]) -> None:
    standin.knobs(ID, status=403, client="ffmpeg")
    standin.knobs(ID, status=404, user_agent="Curl")
    standin.knobs(ID, status=429, itag=140)
    standin.knobs(ID, status=500, target="watch")
    standin.knobs("other_video", status=503)
    assert get(served[0])[0] == 200
    assert get(served[0], **{"Icy-MetaData": "1"})[0] == 403
    assert get(served[0], **{"User-Agent": "Lavf/62"})[0] == 403
    assert get(served[0], **{"User-Agent": "Curl/8"})[0] == 404
    assert get(standin.media_url(ID, 140))[0] == 429
    assert get(standin.url_base + ID)[0] == 500
    standin.clear_knobs(ID)
    assert get(standin.url_base + ID)[0] == 200
    with pytest.raises(ValueError, match="target"):
        standin.knobs(ID, target="medium")


def test_files_for_a_mirror_take_the_same_knobs(standin: StandIn, tmp_path: Path) -> None:
    archive = tmp_path / "part_0.tar.gz"
    archive.write_bytes(bytes(range(256)) * 40)
    url = standin.add_file("/k400/val/part_0.tar.gz", archive)
    listing = standin.add_file("lists/val.csv", b"a,b\n")
    assert get(listing)[:2] == (200, b"a,b\n")
    assert get(url, Range="bytes=256-511")[:2] == (206, bytes(range(256)))
    standin.knobs("/k400/val/part_0.tar.gz", status=503, times=1)
    assert [get(url)[0], get(url)[0]] == [503, 200]
    assert [r.status for r in standin.requests(target="file")] == [200, 206, 503, 200]
    assert standin.bytes_served == 4 + 256 + 10240 + len(
        b"<html><body>503 Service Unavailable</body></html>"
    )
    standin.clear_log()
    assert standin.requests() == []


def test_the_player_can_fail_and_block(standin: StandIn, source: MakeSource) -> None:
    standin.add_video(ID, source(seconds=2))
    standin.knobs(ID, target="player", status=500, times=1)
    assert ask_player(standin)[0] == 500
    standin.block("bot_check", after=2, requests=1)
    answers = [ask_player(standin)[1] for _ in range(4)]
    assert [b"not a bot" in text for text in answers] == [False, False, True, False]
    standin.block(429)
    assert [ask_player(standin)[0] for _ in range(3)] == [429, 429, 429]
    standin.unblock()
    assert ask_player(standin)[0] == 200
    standin.block("rate_limited", seconds=0.2)
    assert b"try again later" in ask_player(standin)[1]
    time.sleep(0.25)
    assert b"streamingData" in ask_player(standin)[1]
    assert len(standin.requests(target="player")) == 11


# --- stopping ----------------------------------------------------------------------------------


def test_stopping_is_quick_and_leaves_nothing(
    source: MakeSource, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(threading.enumerate())
    with StandIn() as standin:
        standin.add_video(ID, source(seconds=2))
        standin.knobs(ID, stall_after=100)
        standin.knobs(ID, throttle=1000, target="watch")
        answers = [urllib.request.urlopen(standin.media_url(ID), timeout=5) for _ in range(3)]
        answers.append(urllib.request.urlopen(standin.url_base + ID, timeout=5))
        # A connection that never says anything, not even a TLS greeting.
        host, port = standin.api_host.split(":")
        silent = socket.create_connection((host, int(port)))
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert set(threading.enumerate()) == before
    for answer in answers:
        answer.close()
    silent.close()
    again = socket.socket()
    again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    again.bind((host, int(port)))
    again.close()
    assert capfd.readouterr() == ("", "")


def test_plain_http_alone_needs_no_certificate(source: MakeSource) -> None:
    with StandIn(https=False) as standin:
        standin.add_video(ID, source(seconds=2))
        assert get(standin.url_base + ID)[1] == source(seconds=2).read_bytes()
        with pytest.raises(RuntimeError, match="https=False"):
            _ = standin.ytdlp_args
