"""download.py end to end: the real yt-dlp and ffmpeg against the stand-in; files are opened."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import pytest

from tests.conftest import MakeSource
from tests.scripts import ROOT, Done, finish, report_rows, run, run_here, start, write_list
from tests.standin.proxy import Proxy
from tests.standin.server import DEAD, StandIn
from tests.standin.sources import beep_times, frame_numbers, make_source, top_boxes
from utils.download.sources import FetchOptions
from utils.download.youtube_extract import section_inputs
from utils.process import run_child
from utils.video.ffmpeg import CutTask, Encode, Input, cut_command, find_ffmpeg
from utils.video.whole import read_video

FAST = ("--videos_per_hour", "0")
SMALL: dict[str, Any] = {"seconds": 20, "size": (256, 144)}  # quickly made, and cut


def arguments(standin: StandIn, out: Path, listing: Path, *more: object) -> list[object]:
    return [out, "--input_csv", listing, "--ytdlp_args", standin.ytdlp_args, *FAST, *more]


def download(standin: StandIn, folder: Path, rows: list[str], *more: object) -> Done:
    listing = write_list(folder / "list.csv", rows)
    return run("download.py", *arguments(standin, folder / "out", listing, *more), cwd=folder)


def clips_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.mp4"))


def nothing_temporary(out: Path) -> bool:
    return not (out / ".tmp").exists()


@pytest.mark.parametrize(
    ("height", "itags"), [(360, {18}), pytest.param(480, {135, 140}, marks=pytest.mark.slow)]
)
def test_clips_are_exact_and_come_from_one_extraction(
    height: int, itags: set[int], standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    """Picture and sound from one address, and from two, as YouTube has it above 360 lines."""
    standin.add_video("-bcdefghijk", source(seconds=20, size=(640, height)))
    rows = ["-bcdefghijk,3,13", "-bcdefghijk,10,15", "-bcdefghijk,3,13"]
    done = download(standin, tmp_path, rows)
    assert done.code == 0, done.err
    out = tmp_path / "out"
    first, second = out / "-bcdefghijk_000003_000013.mp4", out / "-bcdefghijk_000010_000015.mp4"
    assert clips_in(out) == [first.name, second.name]
    assert frame_numbers(first) == list(range(75, 325))
    assert frame_numbers(second) == list(range(250, 375))
    assert beep_times(first) == pytest.approx(range(10), abs=0.040)
    assert len(standin.requests(target="player")) == 1
    assert {request.itag for request in standin.requests(target="media")} == itags
    boxes = [kind for kind, _, _ in top_boxes(first)]
    assert boxes.index("moov") < boxes.index("mdat")
    with av.open(str(first)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert container.streams.audio[0].codec_context.name == "aac"
    row = report_rows(out / "download_report.csv")[first.stem]
    assert (row["status"], row["reason"], row["source"]) == ("downloaded", "", "youtube")
    assert int(row["bytes"]) == first.stat().st_size
    assert done.out == ""
    assert nothing_temporary(out)


@pytest.mark.slow
def test_a_section_is_fetched_and_not_the_video(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    video = source(seconds=60, complexity=2.0)
    standin.add_video("abcdefghijk", video)
    assert download(standin, tmp_path, ["abcdefghijk,30,32"]).code == 0
    # A 30th of the video is wanted; each request leaves some 200 kB in the sockets.
    assert standin.bytes_served < video.stat().st_size / 2


def test_second_run_asks_for_nothing(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    standin.add_video("abcdefghijk", source(**SMALL))
    standin.add_dead("deadvideo__", "private")
    rows = ["abcdefghijk,3,5", "deadvideo__,3,5"]
    assert download(standin, tmp_path, rows).code == 1
    standin.clear_log()
    again = download(standin, tmp_path, rows)
    assert again.code == 1
    assert standin.requests() == []
    assert "--retry unavailable" in again.err
    assert download(standin, tmp_path, rows, "--retry", "unavailable").code == 1
    assert len(standin.requests("deadvideo__", target="player")) == 1
    assert standin.requests("abcdefghijk") == []


def test_every_reason_has_its_own_name(standin: StandIn, tmp_path: Path) -> None:
    wanted, rows = {}, []
    dead = {name: answer for name, answer in DEAD.items() if answer.expected not in BLOCKING}
    for number, (name, answer) in enumerate(dead.items()):
        standin.add_dead(f"dead_{number:06d}", name)
        rows.append(f"dead_{number:06d},0,10")
        wanted[f"dead_{number:06d}_000000_000010"] = answer.expected
    done = download(standin, tmp_path, [*rows, "shortid____,0,1"], "--n", "4")
    found = report_rows(tmp_path / "out" / "download_report.csv")
    assert {clip: found[clip]["reason"] for clip in wanted} == wanted
    assert found["shortid_____000000_000001"]["reason"] == "unavailable"
    assert done.code == 1
    for clip, reason in wanted.items():
        assert found[clip]["message"]
        assert f"{reason}: {clip}: {found[clip]['message']}" in done.err
        status = "failed" if reason in ("no_format", "unknown") else "unavailable"
        assert found[clip]["status"] == status


BLOCKING = ("bot_check", "rate_limited")


def test_no_javascript_runtime_has_its_own_name(standin: StandIn, tmp_path: Path) -> None:
    standin.add_dead("abcdefghijk", "no_format")
    listing = write_list(tmp_path / "list.csv", ["abcdefghijk,0,10"])
    command = [tmp_path / "out", "--input_csv", listing, *FAST]
    done = run("download.py", *command, "--ytdlp_args", standin.ytdlp_args_without_js, cwd=tmp_path)
    assert done.code == 1
    rows = report_rows(tmp_path / "out" / "download_report.csv")
    assert [row["reason"] for row in rows.values()] == ["js_runtime"]


def test_a_hopeless_run_ends_and_points_to_check(standin: StandIn, tmp_path: Path) -> None:
    names = [f"hopeless_{number:02d}" for number in range(12)]
    for name in names:
        standin.add_dead(name, "no_format")
    listing = write_list(tmp_path / "list.csv", [f"{name},0,10" for name in names])
    command = [tmp_path / "out", "--input_csv", listing, *FAST, "--n", "2"]
    done = run("download.py", *command, "--ytdlp_args", standin.ytdlp_args_without_js, cwd=tmp_path)
    assert done.code == 1
    assert len(report_rows(tmp_path / "out" / "download_report.csv")) < len(names)
    last = done.err.splitlines()[-1]
    assert last.startswith("find the broken step: ")
    assert last.endswith(" --check")


def test_the_end_of_a_video(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    standin.add_video("twenty_secs", source(**SMALL))
    standin.add_video("more_sound_", source(**SMALL, video_seconds=15))
    rows = [
        f"{name},{times}" for name in ("twenty_secs", "more_sound_") for times in ("12,22", "30,40")
    ]
    done = download(standin, tmp_path, [*rows, "more_sound_,17,19", "twenty_secs,10,20"])
    found = report_rows(tmp_path / "out" / "download_report.csv")
    ends = {clip: (row["status"], row["reason"]) for clip, row in found.items()}
    assert ends == {
        "twenty_secs_000012_000022": ("downloaded", "short"),
        "twenty_secs_000030_000040": ("unavailable", "past_end"),
        "twenty_secs_000010_000020": ("downloaded", ""),
        "more_sound__000012_000022": ("downloaded", "short"),
        "more_sound__000030_000040": ("unavailable", "past_end"),
        "more_sound__000017_000019": ("unavailable", "past_end"),
    }
    assert done.code == 1
    short = tmp_path / "out" / "more_sound__000012_000022.mp4"
    assert frame_numbers(short) == list(range(300, 375))


def test_a_block_makes_no_failures(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    names = [f"blocked{number:04d}" for number in range(6)]
    for name in names:
        standin.add_video(name, source(**SMALL))
    standin.block("bot_check", after=2, requests=3)
    rows = [f"{name},8,10" for name in names]
    done = download(standin, tmp_path, rows, "--n", "3", "--block_pause", "0.03", "-v")
    assert done.code == 0, done.err
    assert len(clips_in(tmp_path / "out")) == 6
    asked = [request.time for request in standin.requests(target="player")]
    # Two that were answered, those under way at the block (at most three), then alone and late.
    assert len(asked) <= 2 + 3 + 6
    assert max(b - a for a, b in zip(asked, asked[1:], strict=False)) > 1.5


def test_on_block_stop_ends_the_run_and_a_rerun_goes_on(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    names = [f"blocked{number:04d}" for number in range(4)]
    for name in names:
        standin.add_video(name, source(**SMALL))
    standin.block(429, after=1)
    rows = [f"{name},8,10" for name in names]
    done = download(standin, tmp_path, rows, "--n", "1", "--on_block", "stop")
    assert done.code == 1
    assert "YouTube blocks" in done.err
    found = report_rows(tmp_path / "out" / "download_report.csv")
    assert [row["status"] for row in found.values()] == ["downloaded"]
    standin.unblock()
    standin.clear_log()
    assert download(standin, tmp_path, rows, "--n", "1").code == 0
    assert standin.requests(names[0]) == []


def test_picture_options_hold_in_one_encode(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video("landscape__", source(seconds=3, size=(960, 540)))
    standin.add_video("portrait___", source(seconds=3, size=(360, 640)))
    rows = ["landscape__,1,2", "portrait___,1,2"]
    assert download(standin, tmp_path, rows).code == 0
    out = tmp_path / "out"
    assert (read_video(out / "landscape___000001_000002.mp4").height) == 480
    assert (read_video(out / "portrait____000001_000002.mp4").height) == 640  # the shorter: 360
    shutil.rmtree(out)
    options = ("--short_side", "128", "--keyint", "10", "--no_audio", "--max_height", "0")
    assert download(standin, tmp_path, rows, *options).code == 0
    for name, size in (("landscape__", (228, 128)), ("portrait___", (128, 228))):
        path = out / f"{name}_000001_000002.mp4"
        found = read_video(path)
        assert (found.width, found.height, found.audio_codec) == (*size, "")
        with av.open(str(path)) as container:
            keys = [i for i, f in enumerate(container.decode(video=0)) if f.key_frame]
        assert keys == [0, 10, 20]
        assert frame_numbers(path) == list(range(25, 50))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--input_csv", "nowhere.csv"], "nowhere.csv does not exist"),
        (["--shard", "0/4"], "0/4"),
        (["--shard", "5/4"], "5/4"),
        (["--trim_format", "%s/../%s"], "trim_format"),
        (["--n", "0"], "whole number"),
        (["--limit", "-3"], "whole number"),
        (["--ytdlp_args", "'open"], "ytdlp_args"),
        (["--cookies", "no.txt"], "no.txt"),
        (["--cookies", ".", "--dry_run"], "--cookies must be a readable file (got .)"),
        (["--url_base", "file:///etc/"], "http"),
        (["--proxy", "localhost"], "proxy"),
        (["--ffmpeg", "/no/ffmpeg"], "/no/ffmpeg"),
        (["--label", "abseilin"], "abseiling"),
        (["--split", "training"], "val"),
        (["--verb"], "--verb"),
    ],
)
def test_bad_options_are_said_in_one_line(options: list[str], says: str, tmp_path: Path) -> None:
    write_list(
        tmp_path / "list.csv",
        ["abseiling,abcdefghijk,8,10,val"],
        "label,youtube_id,time_start,time_end,split",
    )
    done = run_here("download.py", "out", "--input_csv", "list.csv", *options, cwd=tmp_path)
    assert done.code == 2, done.err
    assert says in done.err
    assert not (tmp_path / "out").exists()


def test_dry_run_touches_nothing(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    standin.add_video("abcdefghijk", source(**SMALL))
    done = download(standin, tmp_path, ["abcdefghijk,8,10"], "--dry-run")
    assert done.code == 0
    assert "to download  1 clip from 1 video" in done.err
    assert not (tmp_path / "out").exists()
    assert standin.requests() == []


def test_narrowing(tmp_path: Path) -> None:
    rows = [
        f"{label},abc{n:08d},0,10,{split}"
        for n, (label, split) in enumerate(
            [
                ("Tap Dancing", "val"),
                ("tap dancing", "validate"),
                ("yoga", "train"),
                ("yoga", "val"),
            ]
            * 25
        )
    ]
    write_list(tmp_path / "list.csv", rows, "label,youtube_id,time_start,time_end,split")

    def count(*options: str) -> int:
        words = ["out", "--input_csv", "list.csv", "--dry_run", *options]
        done = run_here("download.py", *words, cwd=tmp_path)
        assert done.code == 0, done.err
        line = next(line for line in done.err.splitlines() if line.startswith("clips"))
        return int(line.split()[1].replace(",", ""))

    assert count() == 100
    assert count("--label", "tap dancing") == 50
    assert count("--split", "validate") == 75
    assert count("--split", "val", "--label", "yoga", "--limit", "7") == 7
    assert sum(count("--shard", f"{i}/3") for i in (1, 2, 3)) == 100
    assert count("--shard", "1/1") == 100


def test_a_stop_loses_no_line_of_a_video_with_more_clips(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video("abcdefghijk", source(seconds=20))
    rows = [f"abcdefghijk,{start},{start + 5}" for start in range(12)]
    listing, out = write_list(tmp_path / "list.csv", rows), tmp_path / "out"
    process = start("download.py", *arguments(standin, out, listing), cwd=tmp_path)
    report = out / "download_report.csv"
    # The line is there while the video is still being worked on, and not at its end.
    wait_for(lambda: clips_in(out) and len(report_rows(report)) >= 1)
    standin.knobs(stall_after=1000)
    process.send_signal(signal.SIGINT)
    done = finish(process, 20)
    assert done.code == 128 + signal.SIGINT
    there = clips_in(out)
    assert 1 <= len(there) < 12
    assert sorted(f"{clip}.mp4" for clip in report_rows(report)) == there
    assert f"on disk: {len(there)} of 12" in done.err


@pytest.mark.slow
def test_a_scout_that_fails_by_itself_is_replaced(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    """Its cookie file is gone while all others wait for it: they must not wait for ever."""
    names = [f"blocked{number:04d}" for number in range(3)]
    for name in names:
        standin.add_video(name, source(**SMALL))
    standin.block("bot_check")
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n")
    cookies.chmod(0o400)
    listing = write_list(tmp_path / "list.csv", [f"{name},8,10" for name in names])
    more = ("--n", "2", "--block_pause", "0.05", "--cookies", cookies)
    process = start(
        "download.py", *arguments(standin, tmp_path / "out", listing, *more), cwd=tmp_path
    )
    wait_for(lambda: len(standin.requests(target="player")) >= 2)
    cookies.unlink()
    standin.unblock()
    done = finish(process, 60)
    assert done.code == 1
    reasons = {
        row["reason"] for row in report_rows(tmp_path / "out" / "download_report.csv").values()
    }
    assert reasons <= {"unknown", ""}


def wait_for(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def test_verify_finds_bad_clips_and_fetches_them_anew(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    names = ["goodgoodgoo", "trunc______", "garbage____", "tooshort___", "shortsource"]
    for name in names:
        standin.add_video(name, source(**SMALL))
    rows = [f"{name},8,10" for name in names[:4]] + ["shortsource,15,25"]
    assert download(standin, tmp_path, rows).code == 0
    out = tmp_path / "out"
    good = (out / "goodgoodgoo_000008_000010.mp4").read_bytes()
    (out / "trunc_______000008_000010.mp4").write_bytes(good[: len(good) // 2])
    (out / "garbage_____000008_000010.mp4").write_bytes(b"not a video")
    short = out / "tooshort____000008_000010.mp4"
    tool = find_ffmpeg().path
    cut = [tool, "-v", "error", "-y", "-i", str(short), "-t", "1", str(tmp_path / "cut.mp4")]
    subprocess.run(cut, check=True)
    os.replace(tmp_path / "cut.mp4", short)
    standin.clear_log()
    dry = download(standin, tmp_path, rows, "--verify", "--dry_run")
    assert "5 of 5 clips, 3 bad" in dry.err
    assert len(clips_in(out)) == 5
    done = download(standin, tmp_path, rows, "--verify")
    assert done.code == 0, done.err
    assert {request.youtube_id for request in standin.requests()} == set(names[1:4])
    assert len(list((out / ".bad").iterdir())) == 3
    for name in names[:4]:
        assert frame_numbers(out / f"{name}_000008_000010.mp4") == list(range(200, 250))


def test_url_base_serves_whole_videos(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    standin.add_video("-bcdefghijk", source(**SMALL))
    standin.add_video("pagenotvid_", source(**SMALL))
    standin.knobs("pagenotvid_", target="watch", html=True)
    listing = write_list(tmp_path / "list.csv", ["-bcdefghijk,8,10", "pagenotvid_,8,10"])
    command = [tmp_path / "out", "--input_csv", listing, "--url_base", standin.url_base]
    done = run("download.py", *command, cwd=tmp_path)
    assert done.code == 1
    assert "no rate limit" in done.err
    path = tmp_path / "out" / "-bcdefghijk_000008_000010.mp4"
    assert frame_numbers(path) == list(range(200, 250))
    assert beep_times(path) == pytest.approx([0, 1], abs=0.040)
    rows = report_rows(tmp_path / "out" / "download_report.csv")
    # A mirror's error page says nothing of the id: worth another try.
    assert rows["pagenotvid__000008_000010"]["status"] == "failed"
    assert rows[path.stem]["source"] == "url_base"


@pytest.mark.slow
def test_clips_inside_what_came_of_a_whole_video(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    path = source(seconds=20)
    standin.add_video("-bcdefghijk", path)
    standin.knobs("-bcdefghijk", target=None, client="ffmpeg", status=403)
    part = path.stat().st_size * 6 // 10
    standin.knobs("-bcdefghijk", target=None, client="native", truncate=part)
    listing = write_list(tmp_path / "list.csv", ["-bcdefghijk,4,6", "-bcdefghijk,15,17"])
    command = [tmp_path / "out", "--input_csv", listing, "--url_base", standin.url_base]
    done = run("download.py", *command, cwd=tmp_path)
    rows = report_rows(tmp_path / "out" / "download_report.csv")
    assert rows["-bcdefghijk_000015_000017"]["reason"] == "truncated", done.err
    clip = tmp_path / "out" / "-bcdefghijk_000004_000006.mp4"
    assert frame_numbers(clip) == list(range(100, 150))


def test_cookies_are_used_and_left_as_they_are(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video("abcdefghijk", source(**SMALL))
    cookies = tmp_path / "cookies.txt"
    cookies.write_text(
        "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t2147483647\tvisitor\tme\n"
    )
    before = cookies.read_bytes()
    done = download(standin, tmp_path, ["abcdefghijk,8,10"], "--cookies", cookies)
    assert done.code == 0, done.err
    assert cookies.read_bytes() == before


@pytest.mark.slow
def test_other_frame_rates(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    standin.add_video("ntsc_______", source(seconds=12, fps="30000/1001"))
    standin.add_video("silent_____", source(seconds=12, audio=False))
    standin.add_video("slideshow__", source(seconds=12, fps=2, gop=4))
    done = download(
        standin,
        tmp_path,
        [f"{name},2,10" for name in ("ntsc_______", "silent_____", "slideshow__")],
    )
    assert done.code == 0, done.err
    # The first frame shown at or after 2 s is number 60 (2.002 s); 240 frames fill eight seconds.
    assert frame_numbers(tmp_path / "out" / "ntsc________000002_000010.mp4") == list(range(60, 300))
    assert frame_numbers(tmp_path / "out" / "silent______000002_000010.mp4") == list(range(50, 250))
    assert frame_numbers(tmp_path / "out" / "slideshow___000002_000010.mp4") == list(range(4, 20))


def test_ava_rows_are_six_seconds_around_the_key_frame(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video("abcdefghijk", source(**SMALL))
    done = download(standin, tmp_path, ["abcdefghijk,10.4,-1", "abcdefghijk,2,-1"])
    assert done.code == 0, done.err
    assert frame_numbers(tmp_path / "out" / "abcdefghijk_000010.mp4") == list(range(175, 325))
    assert frame_numbers(tmp_path / "out" / "abcdefghijk_000002.mp4") == list(range(0, 150))


def test_the_report_says_what_the_files_are(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    """Every row of a list is accounted for, and -q is silent where nothing went wrong."""
    standin.add_video("abcdefghijk", source(**SMALL))
    done = download(standin, tmp_path, ["abcdefghijk,8,10"], "-q")
    assert (done.code, done.err) == (0, "")
    assert list(report_rows(tmp_path / "out" / "download_report.csv")) == [
        "abcdefghijk_000008_000010"
    ]


def test_make_source_is_what_the_tests_think(tmp_path: Path) -> None:
    assert frame_numbers(make_source(tmp_path / "a.mp4", seconds=1)) == list(range(25))


def test_proxies_take_turns_and_carry_all(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    names = [f"proxied{number:04d}" for number in range(2)]
    # One that ffmpeg reads, and one whose fragments are fetched.
    for name, one_file in zip(names, (True, False), strict=True):
        standin.add_video(name, source(**SMALL), progressive=one_file)
    with Proxy() as first, Proxy() as second:
        proxies = ["--proxy", first.address, "--proxy", second.address]
        done = download(standin, tmp_path, [f"{name},8,10" for name in names], "--n", "1", *proxies)
        assert done.code == 0, done.err
        for proxy in (first, second):
            assert [asked for asked in proxy.asked if asked.startswith("CONNECT")]
            assert [asked for asked in proxy.asked if asked.startswith("GET")]
        asked = [line for line in first.asked + second.asked if line.startswith("GET")]
        assert len(asked) == len(standin.requests(server="http"))


def test_sections_come_over_https_too(
    standin: StandIn, source: MakeSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ffmpeg 9 checks certificates by default; it has to be told which authorities to trust."""
    video = source(**SMALL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ROOT / "tests" / "standin" / "standin.pem")
    handler = functools.partial(QuietHandler, directory=str(video.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://127.0.0.1:{server.server_port}/{video.name}"
    tool = find_ffmpeg()
    codes = {}
    for trusted in (True, False):
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(ROOT / "tests" / "standin" / "standin.pem"))
        else:
            monkeypatch.delenv("SSL_CERT_FILE")
        options = FetchOptions(tmp_path, tmp_path, tool)
        (given,) = section_inputs({"url": url, "protocol": "https"}, options)
        kept = {k: v for k, v in given.options.items() if not k.startswith("reconnect")}
        given = Input(url, kept)  # a reconnect would try for minutes
        target = tmp_path / f"{trusted}.mp4"
        task = CutTask(run_child, tool, [given], 8, 2, Encode(), target)
        argv = cut_command(task, seek=Fraction(8))
        codes[trusted] = run_child(argv, timeout=60).returncode
    server.shutdown()
    server.server_close()
    assert codes[True] == 0
    assert codes[False] != 0
    assert frame_numbers(tmp_path / "True.mp4") == list(range(200, 250))


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_list_in_place_of_the_folder_is_told_before_any_request(tmp_path: Path) -> None:
    listing = write_list(tmp_path / "my list.csv", ["abcdefghijk,0,10"])
    (tmp_path / "notes.txt").write_text("x")
    for word in ("my list.csv", "nowhere.csv", "notes.txt", "a.json", "kinetics-400_val"):
        done = run_here("download.py", word, cwd=tmp_path)
        assert done.code == 2
        assert f"{word} is not a folder" in done.err and "OUT --input_csv" in done.err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".cache") == [
        listing.name,
        "notes.txt",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--crf", "99"], "--crf must be between 0 and 51 (got 99)"),
        (["--short_side", "8"], "--short_side must be 16 or more (got 8)"),
        (["--timeout", "0"], "--timeout must be more than 0 (got 0.0)"),
        (["--url_base", "ftp://x"], "--url_base must start with http:// or https:// (got ftp://x)"),
    ],
)
def test_errors_name_the_option(words: list[str], says: str, tmp_path: Path) -> None:
    done = run_here("download.py", "out", *words, cwd=tmp_path)
    assert done.code == 2 and says in done.err
    assert not (tmp_path / "out").exists()


def test_the_plan_says_how_much_and_how_long(tmp_path: Path) -> None:
    listing = write_list(tmp_path / "list.csv", (f"{number:011d},0,10" for number in range(3000)))
    plan = ["out", "--input_csv", listing, "--dry_run"]
    done = run_here("download.py", *plan, cwd=tmp_path)
    assert "size         about 3.6 GB" in done.err
    assert "time         about 15:00:00 at 200 videos per hour\n" in done.err
    done = run_here("download.py", *plan, "--source", "cvdf", "--short_side", 256, cwd=tmp_path)
    assert "size         about 1.8 GB" in done.err
    assert "time         about 0:02:24 at 100 Mbit/s" in done.err


def test_accept_unavailable(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    """Exit code 0 when all that is missing is unavailable, in the first run and in a rerun."""
    standin.add_video("goodgoodgoo", source(**SMALL))
    standin.add_dead("deaddeaddea", "removed")
    rows = ["goodgoodgoo,0,2", "deaddeaddea,0,2"]
    assert download(standin, tmp_path, rows).code == 1
    accept = "--accept_unavailable"
    assert download(standin, tmp_path, rows, accept).code == 0
    assert download(standin, tmp_path, rows, accept, "--retry", "unavailable").code == 0
    done = download(standin, tmp_path, rows, accept, "--quiet")
    assert (done.code, done.err) == (0, "")
    # A clip that failed, or a row that is not one, is not accepted.
    assert download(standin, tmp_path, [*rows, "short,0,2"], accept).code == 1
    standin.add_dead("failfailfai", "no_format")
    done = download(standin, tmp_path, [*rows, "failfailfai,0,2"], accept)
    assert done.code == 1 and "1 remaining clip" in done.err
