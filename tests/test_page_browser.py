"""The page of make_report.py in a real browser, with the network off: Debian's chromium.

Without a browser these tests are skipped, and say so.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import NARROW, WIDE, Seen, open_browser, open_page
from tests.page_clips import LABELS, clip, make_good, write_report, write_rows, youtube_id
from tests.scripts import finish, run, start, write_list

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.xdist_group("browser")
COUNT, THERE = 24, 14
NEW = "all of the classes, by a name that is nowhere near as short as a window of 390 is wide"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture(scope="module")
def folder(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, list, report and page. It asks for the browser first, to be skipped."""
    folder = tmp_path_factory.mktemp("page")
    make_dataset(folder)
    done = run("make_report.py", "clips", "--input_csv", "list.csv", "--pictures", 10, cwd=folder)
    assert done.code == 0, done.err
    return folder


def make_dataset(folder: Path) -> None:
    clips = folder / "clips"
    clips.mkdir()
    make_good(clips, THERE)
    videos = [youtube_id(number) for number in range(COUNT)]
    listing = write_rows(folder / "list.csv", videos)
    with listing.open("a", encoding="utf-8") as file:
        file.write(f'"{NEW}",{youtube_id(COUNT)},1,2,train\n')
        file.write(f"{LABELS[1]},{youtube_id(COUNT + 1)},1,2,val\n")
    rows = []
    for number, video in enumerate(videos):
        hour, minute = divmod(3 * number + 35 * (number > 9), 60)
        at = f"2026-11-22T1{hour}:{minute:02}:00Z"
        what = ("downloaded", "", "youtube") if number < THERE else FAILS[number % len(FAILS)]
        rows.append((video, *what, at))
    write_report(clips / "download_report.csv", rows)


FAILS = (("unavailable", "removed", "youtube"), ("failed", "timeout", "youtube"))


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    with open_page(browser, folder / "clips_report" / "report.html") as (page, seen):
        yield page
    check_quiet(seen)


def check_quiet(seen: Seen, end: str = "/report.html") -> None:
    """Nothing but the file itself, and its own pictures, was asked for; the console is empty."""
    left = [url for url in seen.requests if not url.startswith("data:")]
    assert all(url.startswith("file:") and url.endswith(end) for url in left), left
    assert seen.console == []


def classes(page: Page) -> list[str]:
    """The classes that the table shows, from the top."""
    return page.locator("#class-table tbody tr:not([hidden]) > th").all_text_contents()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_looks_right(browser: Browser, folder: Path, width: int, theme: str) -> None:
    path = folder / "clips_report" / "report.html"
    with open_page(browser, path, width, color_scheme=theme) as (page, seen):
        wide = "document.documentElement.scrollWidth"
        assert page.evaluate(wide) <= width
        for button in page.locator("#class-table tbody button").all():
            button.click()  # strips too must not make it wider
        assert page.evaluate(wide) <= width
        assert page.locator("h1").inner_text().startswith(f"{THERE} of {COUNT + 2} clips")
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body)"
            ".backgroundColor].map((text) => text.match(/[0-9]+/g).slice(0, 3).map(Number))"
        )
        assert (sum(ink) < sum(paper)) == (theme == "light")
        pictures = page.locator("img").all()
        assert len(pictures) > 10
        assert all(picture.evaluate("i => i.naturalWidth > 40") for picture in pictures)
    check_quiet(seen)


def test_a_label_is_text(page: Page) -> None:
    assert page.title().startswith(f"{THERE} of ")  # the label would have set another
    for label in LABELS:
        assert label in classes(page)
    assert page.evaluate("document.querySelectorAll('main script').length") == 0


def test_sorting(page: Page) -> None:
    shares = page.locator("#class-table tbody td:nth-child(4)")

    def column() -> list[float]:
        return [float(text) for text in shares.all_text_contents()]

    assert column() == sorted(column(), reverse=True)  # what lost most comes first
    head = page.locator("#class-table thead th")
    head.nth(3).locator("button").click()
    assert head.nth(3).get_attribute("aria-sort") == "ascending"
    assert column() == sorted(column())
    head.nth(0).locator("button").click()
    assert head.nth(0).get_attribute("aria-sort") == "ascending"
    assert head.nth(3).get_attribute("aria-sort") == "none"
    assert classes(page) == [LABELS[3], LABELS[0], NEW, LABELS[2], LABELS[1]]


def test_searching(page: Page) -> None:
    page.get_by_label("Search classes").fill("LOUD hi")
    assert classes(page) == [LABELS[2]]
    assert page.locator("#found").inner_text() == f"1 of {len(LABELS) + 1}"
    page.get_by_label("Search classes").fill("")
    assert len(classes(page)) == len(LABELS) + 1


def test_a_class_opens_to_its_pictures(page: Page) -> None:
    button = page.get_by_role("button", name=LABELS[1], exact=True)
    assert button.get_attribute("aria-expanded") == "false"
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    strip = page.locator(".strip img")
    mine = {clip(youtube_id(n)) for n in range(THERE) if n % len(LABELS) == 1}
    assert {image.get_attribute("alt") for image in strip.all()} == mine
    page.keyboard.press("Enter")
    assert strip.count() == 0
    assert page.get_by_role("button", name=NEW).count() == 0  # it has no clip, hence no strip


def test_by_keyboard_alone(page: Page) -> None:
    """Tab goes down the page, every stop can be seen, and a picture shows its name at its stop."""
    tops, count = [], page.locator("a[href], button, input").count()
    for _ in range(count):
        page.keyboard.press("Tab")
        stop = page.evaluate(
            "(() => { const e = document.activeElement, b = e.getBoundingClientRect();"
            "return [Math.round(b.top + scrollY), getComputedStyle(e).outlineStyle,"
            "e.textContent || e.id]; })()"
        )
        tops.append(stop[0])
        assert stop[1] != "none", stop
    assert len(tops) == count
    body = tops[2:]  # the link that skips to the numbers stands above everything
    assert all(after >= before - 8 for before, after in zip(body, body[1:], strict=False))
    caption = page.locator(".sheet a:focus .over")
    assert caption.evaluate("e => getComputedStyle(e).opacity") == "1"
    assert "good" in caption.inner_text()


def test_a_plot_says_what_it_shows(page: Page) -> None:
    plots = page.locator("figure.plot svg")
    assert plots.count() == 6
    for plot in plots.all():
        ids = (plot.get_attribute("aria-labelledby") or "").split()
        texts = [page.locator(f"#{each}").inner_text() for each in ids]
        assert len(texts) == 2
        assert all(texts)
    assert page.locator(".box i.pause").count() == 1
    assert "1 pause (hatched), 38 min" in page.locator("#plot-time-says").inner_text()


def test_without_scripts_all_is_there(browser: Browser, folder: Path) -> None:
    path = folder / "clips_report" / "report.html"
    with open_page(browser, path, java_script_enabled=False) as (page, seen):
        assert len(classes(page)) == len(LABELS) + 1
        assert not page.locator("#search").is_visible()
    check_quiet(seen)


def test_odd_labels_print_and_landmarks(browser: Browser, tmp_path: Path) -> None:
    """A label of 300 letters leaves the numbers in sight, on paper too, which is always white."""
    clips = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    clips.mkdir()
    (clips / "not_listed_\udce9\x1b[31m.mp4").touch()
    labels = ["x" * 300, "\u202eabc", "=cmd|'/C calc'!A0"]
    rows = [f'"{label}",{youtube_id(n)},1,2,val' for n, label in enumerate(labels)]
    header = "label,youtube_id,time_start,time_end,split"
    write_list(tmp_path / "list.csv", rows, header)
    out = tmp_path / "page.html"
    words = [str(clips), "--input_csv", "list.csv", "--out", str(out), "--json"]
    done = run("make_report.py", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "\x1b" not in done.err + done.out and json.loads(done.out)["not_listed"] == 1
    table = (tmp_path / "classes.csv").read_text()
    assert "\n'=cmd" in table and "\u202e" not in table
    assert "\n=cmd" in (tmp_path / "missing.csv").read_text()  # a list, exact
    for width in (WIDE, NARROW):
        with open_page(browser, out, width, color_scheme="dark") as (page, seen):
            for cell in page.locator("#class-table tbody tr:first-child td").all():
                box = cell.bounding_box()
                assert box is not None and box["x"] + box["width"] <= width
            assert page.locator("#class-table tbody th > bdi").count() == len(labels)
            names = page.evaluate(
                "[...document.querySelectorAll('section[aria-labelledby], [role=region]')].map("
                "e => e.ariaLabel || document.getElementById("
                "e.getAttribute('aria-labelledby')).textContent)"
            )
            assert len(names) == len(set(names)) and len(names) > 6
            page.emulate_media(media="print")
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert paper == "rgb(255, 255, 255)"
        check_quiet(seen, "/page.html")


PLACE = """() => ({
  title: document.title.split(" clips")[0],
  search: document.getElementById("search").value,
  classes: [...document.querySelectorAll("#class-table tbody tr:not([hidden]) > th")]
    .map((head) => head.textContent),
  pictures: document.querySelectorAll(".strip img").length,
  sorted: document.querySelector("#class-table thead th").getAttribute("aria-sort"),
  y: scrollY,
  focused: document.activeElement.id,
})"""


def asked(page: Page, script: str) -> Any:
    """What the script gives, on a page that loads itself again at any moment."""
    from playwright.sync_api import Error

    for _ in range(100):
        try:
            return page.evaluate(script)
        except Error as error:
            # Between two pages there is no context, or no element yet.
            words = ("navigation", "destroyed", "of null")
            assert any(word in error.message for word in words), error.message
            time.sleep(0.1)
    raise AssertionError("the page does not come to rest")


@pytest.mark.slow
def test_watch_keeps_the_readers_place(browser: Browser, tmp_path: Path) -> None:
    make_dataset(tmp_path)
    options = ["--input_csv", "list.csv", "--pictures", 10, "--watch", 1]
    watching = start("make_report.py", "clips", *options, cwd=tmp_path)
    path = tmp_path / "clips_report" / "report.html"
    until = time.monotonic() + 100
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    with open_page(browser, path) as (page, seen):
        page.locator("#class-table thead button").first.click()
        page.get_by_role("button", name=LABELS[1], exact=True).click()
        page.get_by_label("Search classes").fill("yoga")
        asked(page, "window.scrollTo(0, 900)")
        (tmp_path / "clips" / f"{clip(youtube_id(1))}.mp4").unlink()
        wanted = {
            "title": f"{THERE - 1} of {COUNT + 2}",
            "search": "yoga",
            "classes": [LABELS[1]],
            "pictures": 3,
            "sorted": "ascending",
            "y": 900,
            "focused": "search",
        }
        while (there := asked(page, PLACE)) != wanted and time.monotonic() < until:
            time.sleep(0.1)
        assert there == wanted
    check_quiet(seen)
    watching.send_signal(signal.SIGINT)
    done = finish(watching)
    assert done.code == 128 + signal.SIGINT
    assert path.exists()
    assert not (tmp_path / "clips" / ".tmp").exists()
