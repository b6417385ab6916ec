"""Debian's chromium, driven over a page on disk with the network off. Skips where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
# As root, without a screen, and asking nobody for anything by itself.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE, NARROW = 1280, 390


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser of the test's own; skips the test, with the reason, where there is none."""
    driver = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install it")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} is not there (apt-get install chromium)")
    with driver.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """What a page did besides what it should: requests that left, and what its console said."""

    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)


@contextmanager
def open_page(
    browser: Browser, path: Path, width: int = WIDE, **options: Any
) -> Iterator[tuple[Page, Seen]]:
    """The file, opened as by a double click. options: Playwright's, for the window."""
    context = browser.new_context(viewport={"width": width, "height": 800}, offline=True, **options)
    page, seen = context.new_page(), Seen()
    page.on("console", lambda message: seen.console.append(message.text))
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    try:
        page.goto(path.absolute().as_uri())
        yield page, seen
    finally:
        context.close()
