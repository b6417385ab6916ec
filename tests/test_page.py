"""make_report.py: its numbers, its tables, what it finds wrong, and what it leaves alone."""

from __future__ import annotations

import csv
import json
import signal
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.page_clips import (
    LABELS,
    clip,
    make_bad,
    make_good,
    write_report,
    write_rows,
    youtube_id,
)
from tests.scripts import finish, run, start, write_list
from utils.clip import Clip
from utils.page.content import Content
from utils.page.looks import ClipLook, draw_pictures, draw_sample
from utils.page.plots import (
    histogram,
    make_history,
    number_text,
    ranked_plot,
    stacked,
    time_plot,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of good and bad clips with a list of all of them; clip -> what is wrong with it."""
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "clips").mkdir()
    make_good(folder / "clips")
    wrong = make_bad(folder / "clips")
    videos = sorted({path.stem[:11] for path in (folder / "clips").glob("*.mp4")})
    write_rows(folder / "list.csv", [*videos, "absent_____"])
    return folder, wrong


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.xdist_group("page")
def test_bad_clips_are_found_and_good_ones_are_not(
    dataset: tuple[Path, dict[str, str]],
) -> None:
    folder, wrong = dataset
    before = {path.name: path.read_bytes() for path in (folder / "clips").glob("*.mp4")}
    words = ["clips", "--input_csv", "list.csv", "--sample", "all", "--pictures", 9, "--json"]
    done = run("make_report.py", *words, cwd=folder)
    assert done.code == 0, done.err
    found = {row["clip"]: row["kind"] for row in rows_of(folder / "clips_report" / "suspects.csv")}
    assert found == wrong
    assert all(
        row["detail"] and row["rule"] for row in rows_of(folder / "clips_report/suspects.csv")
    )
    numbers = json.loads(done.out)
    assert (numbers["wanted"], numbers["there"], numbers["probed"]) == (
        len(before) + 1, len(before), len(before),
    )  # fmt: skip
    kinds = defaultdict(int, numbers["suspects"])
    assert (kinds["black"], kinds["doubled"], kinds["silent"], kinds["low_bitrate"]) == (2, 2, 2, 0)
    # Nothing of the user's was touched, and each shown one has its picture.
    assert {path.name: path.read_bytes() for path in (folder / "clips").glob("*.mp4")} == before
    page = (folder / "clips_report" / "report.html").read_text(encoding="utf-8")
    shown = page.count('src="data:image/webp;base64,')
    assert shown == 9 + len(wrong) - 1  # the broken one has none
    assert "http" not in page.replace("http-equiv", "").replace("<code>", "")


@pytest.mark.xdist_group("page")
def test_an_interrupted_run_leaves_the_old_page(dataset: tuple[Path, dict[str, str]]) -> None:
    folder, _ = dataset
    words = [
        "clips",
        "--input_csv",
        "list.csv",
        "--sample",
        0,
        "--pictures",
        0,
        "--out",
        "old.html",
    ]
    assert run("make_report.py", *words, cwd=folder).code == 0
    old = (folder / "old.html").read_bytes()
    running = start(
        "make_report.py", *words[:3], "--out", "old.html", "--sample", "all", cwd=folder
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("report"):  # what comes next is the probing
            break
    time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    done = finish(running)
    assert done.code == 128 + signal.SIGINT
    assert (folder / "old.html").read_bytes() == old
    assert not (folder / ".tmp").exists()


def known_folder(folder: Path) -> Path:
    """20 clips of a list, the first 8 there (empty files), with the reports of two machines."""
    clips = folder / "clips"
    clips.mkdir()
    videos = [youtube_id(number) for number in range(20)]
    for video in videos[:8]:
        (clips / f"{clip(video)}.mp4").touch()
    (clips / f"{clip('not_listed_')}.mp4").touch()
    write_rows(folder / "list.csv", [*videos, videos[0]])  # a repeat counts once
    day = "2026-11-22T"
    rows = [
        (v, "downloaded", "", "youtube", f"{day}10:{n:02}:00Z") for n, v in enumerate(videos[:6])
    ]
    rows.append((videos[6], "downloaded", "short", "cvdf", f"{day}10:06:00Z"))
    rows.append((videos[10], "downloaded", "", "youtube", f"{day}10:07:00Z"))  # deleted since
    rows.append((videos[11], "unavailable", "private", "youtube", f"{day}10:08:00Z"))
    rows.append((videos[12], "failed", "timeout", "youtube", f"{day}10:09:00Z"))
    write_report(clips / "download_report.csv", rows)
    other = [(videos[12], "unavailable", "removed", "youtube", f"{day}11:00:00Z")]
    other.append((videos[11], "failed", "network", "youtube", f"{day}09:00:00Z"))  # an older word
    other.append((videos[13], "failed", "network", "youtube", f"{day}11:01:00Z"))
    write_report(clips / "download_report.other.csv", other)
    return clips


def test_numbers(tmp_path: Path) -> None:
    known_folder(tmp_path)
    words = ["--input_csv", "list.csv", "--sample", 0, "--pictures", 0]
    done = run("make_report.py", "clips", *words, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    numbers = json.loads(done.out)
    counts = {key: numbers[key] for key in ("wanted", "there", "gone", "to_try", "failed", "short")}
    assert counts == {"wanted": 20, "there": 8, "gone": 2, "to_try": 10, "failed": 1, "short": 1}
    assert numbers["not_listed"] == 1
    assert numbers["sources"] == {"youtube": 6, "cvdf": 1, "not in the report": 1}
    reasons = {row["reason"]: row["clips"] for row in numbers["reasons"]}
    assert reasons == {"not requested": 8, "vanished": 1, "private": 1, "removed": 1, "network": 1}
    classes = {row["label"]: row["missing"] for row in numbers["classes"]}
    assert classes == dict.fromkeys(LABELS, 3)
    (part,) = numbers["splits"]
    assert (part["version"], part["split"]) == ("list", "val")
    assert (part["wanted"], part["there"], part["gone"]) == (20, 8, 2)
    table = rows_of(tmp_path / "clips_report" / "classes.csv")
    assert {row["label"]: row["missing_percent"] for row in table} == dict.fromkeys(LABELS, "60.0")
    assert numbers["next"] == [
        "python download.py clips --input_csv list.csv"
    ]  # the mirror was asked already
    missing = {
        row["youtube_id"]: row["reason"]
        for row in rows_of(tmp_path / "clips_report" / "missing.csv")
    }
    assert len(missing) == 12
    assert missing[youtube_id(12)] == "removed"  # the latest word of two machines


def test_missing_is_a_list_for_download(tmp_path: Path) -> None:
    known_folder(tmp_path)
    words = ["--input_csv", "list.csv", "--sample", 0, "--pictures", 0]
    assert run("make_report.py", "clips", *words, "--quiet", cwd=tmp_path).err == ""
    missing = ["--input_csv", "clips_report/missing.csv"]
    done = run("download.py", "clips", *missing, "--dry_run", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "clips        12 requested" in done.err
    # Labels that need quotes came through: the same classes, all of them missing.
    again = run("make_report.py", "clips", *missing, *words[2:], "--json", "-q", "--out", "b.html",
                cwd=tmp_path)  # fmt: skip
    numbers = json.loads(again.out)
    assert {row["label"]: row["missing"] for row in numbers["classes"]} == dict.fromkeys(LABELS, 3)
    assert numbers["there"] == 0


def test_unreadable_clips_and_licences_are_told(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    videos = [youtube_id(number) for number in range(3)]
    write_rows(tmp_path / "list.csv", videos)
    for video in videos:
        (clips / f"{clip(video)}.mp4").write_bytes(b"no video")
    (clips / "loop.mp4").symlink_to("loop.mp4")
    free = {"youtube_id": videos[0], "licence": "Creative Commons"}
    (clips / "videos.jsonl").write_text(json.dumps(free) + "\ntorn {")
    words = ["clips", "--input_csv", "list.csv", "--json", "--pictures", 2]
    done = run("make_report.py", *words, cwd=tmp_path)
    numbers = json.loads(done.out)
    assert numbers["answer"] == "All 3 clips are on disk, 3 of 3 probed cannot be read"
    assert numbers["licences"] == {"not known": 2, "Creative Commons": 1}
    page = (tmp_path / "clips_report" / "report.html").read_text(encoding="utf-8")
    assert "Creative Commons" in page and page.count("no thumbnail") >= 3


def test_videos_under_two_splits(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "train_only_._000001_000011.mp4").touch()
    write_list(tmp_path / "kinetics-400_val.csv", ["leaks_____a,1,11", "fine______a,1,11"])
    write_list(tmp_path / "kinetics-600_val.csv", ["fine______a,1,11"])  # one split, two versions
    write_list(tmp_path / "kinetics-700_2020_train.csv", ["leaks_____a,40,50", "train_____a,1,11"])
    done = run("make_report.py", "clips", "--input_csv", ".", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    numbers = json.loads(done.out)
    assert numbers["leaks"] == [{"one": "400 val", "other": "700_2020 train", "videos": 1}]
    rows = rows_of(tmp_path / "clips_report" / "suspects.csv")
    assert [(row["kind"], row["youtube_id"]) for row in rows] == [("two_splits", "leaks_____a")]
    assert rows[0]["detail"] == "400 val, 700_2020 train"


@pytest.mark.parametrize("case", ["no folder", "no list", "not ours", "its folder is a file"])
def test_what_cannot_be_is_one_line(case: str, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    if case != "no folder":
        clips.mkdir()
    write_list(tmp_path / "list.csv", ["leaks_____a,1,11"])
    listing, out = "list.csv", []
    if case == "no list":
        listing = "kinetics-400_train"
    if case == "not ours":
        (tmp_path / "clips_report").mkdir()
        (tmp_path / "clips_report" / "classes.csv").write_text("mine,and,precious\n")
    if case == "its folder is a file":
        out = ["--out", "list.csv/page.html"]
    done = run("make_report.py", "clips", "--input_csv", listing, *out, cwd=tmp_path)
    assert (done.code, done.err.splitlines()[-1][:7]) == (2, "error: ")
    assert not (tmp_path / "clips_report" / "report.html").exists() and not list(clips.glob("*"))
    if case == "not ours":
        assert (tmp_path / "clips_report" / "classes.csv").read_text() == "mine,and,precious\n"
        assert "move it" in done.err


def test_an_empty_folder_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    write_list(tmp_path / "list.csv", ["leaks_____a,1,11", "bad,1,2"])
    done = run("make_report.py", "clips", "--input_csv", "list.csv", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "invalid      1 row: list.csv:3: youtube_id must be 11" in done.err
    assert "0 of 1 clips, 100% missing" in done.err
    page = (tmp_path / "clips_report" / "report.html").read_text(encoding="utf-8")
    assert "No clip is on disk yet." in page
    words = ["--input_csv", "list.csv", "--dry_run", "--out", "new.html"]
    dry = run("make_report.py", "clips", *words, cwd=tmp_path)
    assert dry.code == 0
    assert not (tmp_path / "new.html").exists()


START = datetime(2026, 11, 22, 10, tzinfo=UTC)


def minutes(*times: tuple[float, int, int, int]) -> dict[str, list[int]]:
    """(minute after START, came, gone, failed) as the report gives them."""
    return {f"{START + timedelta(minutes=at):%Y-%m-%dT%H:%M}": [*counts] for at, *counts in times}


def test_pace_is_that_of_the_last_run() -> None:
    """Ten an hour long ago, then 6 a minute for two hours with a pause of half an hour."""
    long_ago = [(6.0 * n, 1, 0, 0) for n in range(20)]
    run_now = [(1000.0 + n, 4, 2, 1) for n in range(120) if not 30 <= n < 60]
    counts = minutes(*long_ago, *run_now)
    end = START + timedelta(minutes=1000 + 120)
    history = make_history(counts, end + timedelta(minutes=5))
    assert history is not None
    assert history.pace == pytest.approx(90 * 6 / 2)  # the failed will be asked for again
    assert history.is_running
    assert history.hours_left(540) == pytest.approx(2)
    assert history.pauses == [(START + timedelta(minutes=1029), START + timedelta(minutes=1060))]
    assert history.bins["came"].sum() == 20 + 4 * 90
    later = make_history(counts, end + timedelta(hours=9))
    assert later is not None
    assert not later.is_running
    assert make_history({"no time": [1, 0, 0]}, end) is None
    assert "380 clips were downloaded" in time_plot(history).says


def test_plots_are_drawn_to_scale() -> None:
    assert [text for _, text in stacked({"there": "clips"}, [[430, 20]])[1]] == [
        "0",
        "200",
        "400",
        "600",
    ]
    plot = histogram("Length", "seconds", [10.0] * 90 + [5.0] * 10, 0.5)
    assert plot.y_ticks[-1][1] == "100"
    assert [bar for bar in plot.series[0][2] if bar[1]] == [(90, 10), (10, 90)]
    assert "Half have 10 or less" in plot.says
    assert "1 of 3 lack half or more, 1 lack none" in ranked_plot([0, 10, 60]).says
    assert [number_text(n) for n in (0, 0.0312, 12.5, 1234.5)] == ["0", "0.0312", "12.5", "1,234"]


def test_rare_values_share_a_row() -> None:
    for kinds, last in ((6, ("5x5", 100 / 6)), (7, ("2 others", 200 / 7))):
        looks = [ClipLook("", width=n, height=n) for n in range(kinds)]
        sizes = Content.groups(SimpleNamespace(readable=looks))[0][1]  # type: ignore[arg-type]
        assert (len(sizes), sizes[-1]) == (6, pytest.approx(last))


def test_the_same_clips_are_drawn_again() -> None:
    clips = {
        f"c{n}": Clip(f"c{n}", "v", 0, 10, label=f"class {n % 7 if n > 50 else 0}")
        for n in range(700)
    }
    names = list(clips)
    drawn = draw_sample(names, 50, seed=3)
    assert drawn == draw_sample(reversed(names), 50, seed=3)
    assert drawn != draw_sample(names, 50, seed=4)
    assert len(set(drawn) & set(draw_sample(names[:-70], 50, seed=3))) >= 35  # most of them stay
    labels = [(name, clip.label) for name, clip in clips.items()]
    sheet, _ = draw_pictures(labels, 14, seed=3)
    assert sorted(clips[name].label for name in sheet) == sorted(
        f"class {n % 7}" for n in range(14)
    )
    assert draw_pictures(labels, 0, seed=3) == ([], {})


def test_a_selection_of_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    listing = write_list(tmp_path / "list.csv", ["abcdefghijk,1,11"])
    codes = []
    for shard in ("1/2", "2/2"):
        given = ["clips", "--input_csv", listing, "--shard", shard]
        done = run("make_report.py", *given, cwd=tmp_path)
        codes.append(done.code)
    assert sorted(codes) == [0, 2]
