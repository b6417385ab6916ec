"""YouTube as it answers in 2026, by the stand-in: download.py with the real yt-dlp."""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import MakeSource
from tests.scripts import Done, report_rows, run, write_list
from tests.standin.answers import CHECK_ID
from tests.standin.server import StandIn
from tests.standin.sources import frame_numbers
from utils.download.pace import FAILING, MANY
from utils.report import RESULT_COLUMNS, read_licences

SMALL = {"seconds": 10, "size": (160, 90), "gop": 25}
NOWHERE = "youtube:innertube_host=127.0.0.1:9;player_skip=webpage,configs,js,initial_data"


def download(standin: StandIn, folder: Path, ids: list[str], *more: object) -> Done:
    listing = write_list(folder / "list.csv", [f"{each},2,4" for each in ids])
    given = [folder / "out", "--input_csv", listing, "--videos_per_hour", "0", *more]
    if "--ytdlp_args" not in more:
        given += ["--ytdlp_args", standin.ytdlp_args]
    return run("download.py", *given, cwd=folder)


def report(folder: Path) -> dict[str, dict[str, str]]:
    return report_rows(folder / "out" / "download_report.csv")


def reasons(folder: Path) -> Counter[str]:
    return Counter(row["reason"] for row in report(folder).values())


def names(count: int, word: str = "video") -> list[str]:
    return [f"{word[:6]}{number:0{11 - len(word[:6])}d}" for number in range(count)]


def asked(standin: StandIn, *but: str) -> Counter[str]:
    """How often the player was asked for each video."""
    requests = standin.requests(target="player")
    return Counter(each.youtube_id for each in requests if each.youtube_id not in but)


@pytest.mark.parametrize("progressive", [pytest.param(True, marks=pytest.mark.slow), False])
def test_data_is_not_asked_for_before_an_advertisement_is_over(
    progressive: bool, standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    """The waits are no part of --timeout, and other videos are fetched meanwhile."""
    ids = names(3)
    for youtube_id in ids:
        standin.add_video(youtube_id, source(**SMALL), progressive=progressive, ad_seconds=20)
    begun = time.monotonic()
    done = download(standin, tmp_path, ids, "--n", "1", "--timeout", "19")
    assert done.code == 0, done.err
    # One after another would take more than 60 s. A busy machine may take as long; there it shows
    # by the order of the requests.
    asked_at, served_at = (
        [each.time for each in standin.requests(target=target)] for target in ("player", "media")
    )
    assert time.monotonic() - begun < 60 or max(asked_at) < min(served_at)
    assert standin.requests(status=403) == []
    assert asked(standin) == Counter(ids)
    assert frame_numbers(tmp_path / "out" / f"{ids[0]}_000002_000004.mp4") == list(range(50, 100))
    assert all(float(row["seconds"]) < 19 for row in report(tmp_path).values())


@pytest.mark.parametrize(
    "ban",
    [
        "rate_limited/ban",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("removed", "unavailable/other_ban")),
    ],
)
def test_a_ban_writes_no_clip_off(ban: str, standin: StandIn, tmp_path: Path) -> None:
    """In words that are known, in other words, and in those of videos that are really gone."""
    standin.block(ban)
    done = download(standin, tmp_path, names(30), "--n", "2", "--on_block", "stop")
    assert done.code == 1
    assert "YouTube blocks" in done.err
    assert set(reasons(tmp_path)) <= {"rate_limited"}
    assert {row["status"] for row in report(tmp_path).values()} <= {"failed"}
    assert asked(standin).total() <= MANY + 4
    standin.unblock()
    standin.clear_log()
    for youtube_id in names(30):
        standin.add_dead(youtube_id, "private")
    assert download(standin, tmp_path, names(30)).code == 1
    assert reasons(tmp_path) == {"private": 30}
    assert asked(standin, CHECK_ID) == Counter(names(30))


def test_a_ban_in_other_words_is_waited_out(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    ids = names(MANY + 5)
    for youtube_id in ids:
        standin.add_video(youtube_id, source(**SMALL))
    standin.block("unavailable/other_ban", requests=MANY + 2)
    done = download(standin, tmp_path, ids, "--n", "1", "--block_pause", "0.02")
    assert done.code == 1
    # Those that met the ban are asked for by the next run.
    assert reasons(tmp_path) == {"rate_limited": MANY, "": 5}
    assert download(standin, tmp_path, ids).code == 0
    assert reasons(tmp_path) == {"": MANY + 5}


def test_forty_videos_that_are_gone_stay_gone(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    for number, youtube_id in enumerate(names(40)):
        standin.add_dead(youtube_id, ("removed", "private", "unavailable/bare")[number % 3])
    assert download(standin, tmp_path, names(40), "--n", "2").code == 1
    assert {row["status"] for row in report(tmp_path).values()} == {"unavailable"}
    assert len(standin.requests(CHECK_ID)) in (3, 4)
    assert asked(standin, CHECK_ID) == Counter(names(40))


@pytest.mark.parametrize(
    "dead", ["no_format/reload", pytest.param("no_format/app", marks=pytest.mark.slow)]
)
def test_what_every_video_meets_ends_the_run(dead: str, standin: StandIn, tmp_path: Path) -> None:
    for youtube_id in names(40):
        standin.add_dead(youtube_id, dead)
    done = download(standin, tmp_path, names(40), "--n", "2", "--block_pause", "0.02")
    assert done.code == 2
    last = done.err.splitlines()[-1]
    assert "videos in a row failed" in last and "update yt-dlp" in last
    assert reasons(tmp_path).keys() == {"no_format"}
    assert len(asked(standin)) <= FAILING + 6
    assert asked(standin).total() <= FAILING + 20  # and not three times each


def test_no_network_ends_the_run(standin: StandIn, tmp_path: Path) -> None:
    given = ["--ytdlp_args", f"--extractor-args '{NOWHERE}'", "--block_pause", "0.02"]
    done = download(standin, tmp_path, names(40), "--n", "2", *given)
    assert done.code == 2
    assert "videos in a row failed" in done.err and "connection" in done.err.splitlines()[-1]
    assert reasons(tmp_path).keys() == {"network"} and len(report(tmp_path)) <= FAILING + 6


def test_a_pause_ends_when_a_video_comes(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    ids = names(FAILING + 4)
    for youtube_id in ids:
        standin.add_video(youtube_id, source(**SMALL))
    for youtube_id in ids[:FAILING]:
        standin.knobs(youtube_id, target="player", status=500)
    done = download(standin, tmp_path, ids, "--n", "1", "--block_pause", "0.02")
    assert done.code == 1
    assert reasons(tmp_path) == {"network": FAILING, "": 4}


ARGUMENTS = {
    "--no-such": "no such option: --no-such",
    "--config-locations /nowhere": "config location /nowhere does not exist",
    "--limit-rate much": "invalid rate limit",
    "--cookies-from-browser lynx": "unsupported browser",
}


@pytest.mark.parametrize(
    "arguments",
    [n if "config" in n else pytest.param(n, marks=pytest.mark.slow) for n in ARGUMENTS],
)
def test_a_usage_error_of_ytdlp_ends_the_run_at_once(
    arguments: str, standin: StandIn, tmp_path: Path
) -> None:
    done = download(standin, tmp_path, names(1), "--ytdlp_args", arguments)
    assert done.code == 2 and ARGUMENTS[arguments] in done.err.splitlines()[-1]
    assert not (tmp_path / "out" / "download_report.csv").exists()


@pytest.mark.parametrize(
    "text",
    [
        '[{"domain": ".youtube.com"}]',
        *(pytest.param(text, marks=pytest.mark.slow) for text in ("no cookies\n", "\xff\x00")),
    ],
)
def test_a_file_that_holds_no_cookies_is_told_at_once(
    text: str, standin: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "cookies.txt").write_text(text, encoding="latin-1")
    done = download(standin, tmp_path, names(1), "--cookies", tmp_path / "cookies.txt")
    assert done.code == 2 and done.err.splitlines()[-1].startswith("error: --cookies: ")
    assert standin.requests() == []


def test_a_browser_without_cookies_is_told_at_once(standin: StandIn, tmp_path: Path) -> None:
    done = download(standin, tmp_path, names(1), "--cookies_from_browser", "chrome")
    assert done.code == 2
    assert "--cookies_from_browser: could not find chrome cookies" in done.err


def test_a_warning_is_no_verdict(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    """ffmpeg-location X does not exist: a warning, before an error that nobody knows."""
    standin.knobs("abcdefghijk", target="player", body=b"[]")
    more = f"{standin.ytdlp_args} --ffmpeg-location /nowhere --max-filesize 1"
    done = download(standin, tmp_path, ["abcdefghijk"], "--ytdlp_args", more)
    assert done.code == 1
    assert {row["status"] for row in report(tmp_path).values()} == {"failed"}


def test_what_came_below_the_height_is_said(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video("only_18____", source(**SMALL), adaptive=False)
    standin.add_video("has_480____", source(**SMALL | {"size": (854, 480)}))
    done = download(standin, tmp_path, ["only_18____", "has_480____"])
    assert done.code == 0, done.err
    assert {name[:11]: row["height"] for name, row in report(tmp_path).items()} == {
        "only_18____": "90",
        "has_480____": "480",
    }
    assert "below 480p 1 (50%): 1 at 90p" in done.err


def test_a_report_without_heights_is_read_and_added_to(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    old = [each for each in RESULT_COLUMNS if each != "height"]
    row = "oldvideo___,2,4,unavailable,private,youtube,1,1.0,0,x,2026-01-01T00:00:00Z"
    path = tmp_path / "out" / "download_report.csv"
    path.parent.mkdir()
    path.write_text(",".join(old) + f"\noldvideo____000002_000004,{row}\n", encoding="utf-8")
    standin.add_video("abcdefghijk", source(**SMALL))
    assert download(standin, tmp_path, ["oldvideo___", "abcdefghijk"]).code == 1
    assert standin.requests("oldvideo___") == []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(each["reason"], each["height"], each["finished_at"][-1]) for each in rows] == [
        ("private", "", "Z"),
        ("", "90", "Z"),
    ]


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ((), 480),
        pytest.param(("--short_side", "256"), 480, marks=pytest.mark.slow),
        pytest.param(("--max_height", "360"), 360, marks=pytest.mark.slow),
    ],
)
def test_portrait_video_is_chosen_by_its_shorter_side(
    options: tuple[str, ...], lines: int, standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    sizes = [(240, 426), (360, 640), (480, 854)]
    standin.add_video("abcdefghijk", [source(**SMALL | {"size": size}) for size in sizes])
    assert download(standin, tmp_path, ["abcdefghijk"], *options).code == 0
    (row,) = report(tmp_path).values()
    assert row["height"] == str(lines)


@pytest.mark.parametrize("target", [pytest.param("player", marks=pytest.mark.slow), "watch"])
def test_an_answer_without_end_is_bounded(
    target: str, standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video("abcdefghijk", source(**SMALL))
    standin.knobs("abcdefghijk", target=target, html=True, endless=True)
    more = ["--timeout", "60"] + (["--url_base", standin.url_base] if target == "watch" else [])
    done = download(standin, tmp_path, ["abcdefghijk"], *more)
    assert done.code == 1
    assert reasons(tmp_path).keys() <= {"network", "unknown", "timeout", "no_format"}
    served = sum(each.bytes_sent for each in standin.requests())
    assert served < 8 * 2**30


def test_arguments_for_ytdlp_stand_on_no_command_line(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    seen = tmp_path / "seen.txt"
    look = f"cat /proc/[0-9]*/cmdline >> {seen} 2>/dev/null; true"
    standin.add_video("abcdefghijk", source(**SMALL))
    standin.knobs("abcdefghijk", client="ffmpeg", status=404)
    more = f"{standin.ytdlp_args} --video-password s3cr3tt --exec 'before_dl:{look} #'"
    listing = write_list(tmp_path / "list.csv", ["abcdefghijk,2,4"])
    argv = [tmp_path / "out", "--input_csv", listing, "--videos_per_hour", "0"]
    done = run("download.py", *argv, "--ytdlp_args", more, cwd=tmp_path)
    assert done.code == 0, done.err
    lines = [line for line in seen.read_bytes().split(b"download.py") if b"s3cr3tt" in line]
    assert len(lines) == 1  # the one of the user


def test_what_youtube_says_of_a_video_is_kept_once(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    for youtube_id in names(2):
        standin.add_video(youtube_id, source(**SMALL), title="A \u2603 [31m")
    path = tmp_path / "out" / "videos.jsonl"
    path.parent.mkdir()
    path.write_text(f'{{"youtube_id": "{names(2)[1]}", "licence": "cc"}}\n{{"torn')
    assert download(standin, tmp_path, names(2), "--metadata").code == 0
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    found = json.loads(lines[2])
    assert (found["youtube_id"], found["title"]) == (names(2)[0], "A \u2603 [31m")
    assert (found["height"], found["duration"], found["licence"]) == (90, 10, None)
    assert read_licences(path) == {names(2)[0]: "youtube", names(2)[1]: "cc"}
    assert download(standin, tmp_path, names(2), "--metadata").code == 0
    assert path.read_text().splitlines() == lines
    for licence, kept in (("youtube", names(2)[0]), ("CC", names(2)[1])):
        words = ["out", licence, "--format", "csv", "--input_csv", "list.csv"]
        done = run("make_training_lists.py", *words, "--license", licence, cwd=tmp_path)
        assert done.code == 0 and "1 clip without" in done.err, done.err
        with (tmp_path / licence / "train.csv").open(newline="") as file:
            assert [row["youtube_id"] for row in csv.DictReader(file)] == [kept]
