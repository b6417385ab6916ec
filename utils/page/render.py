"""The page as HTML: `templates/page.html` filled with `Content`. Nothing is decided here.

Every text is escaped by jinja2, for labels are a stranger's. The page has a policy of its own
(Content-Security-Policy): no address is asked for anything, and no script runs but page.js.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from utils.page.content import Content
from utils.page.plots import HEIGHT, WIDTH, moment, number_text
from utils.page.tables import GENERATOR

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"


def render_page(content: Content) -> str:
    """The whole page, one file."""
    environment = _environment()
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        page=content,
        generator=f'{GENERATOR} {content.version}">',
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        strips=_strips(content),
        box=f"0 0 {WIDTH} {HEIGHT}",
    )


def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "thousands": lambda number: f"{number:,}",
        "percent": lambda number: f"{number:.1f}",
        "short_number": number_text,
        "moment": moment,
        "tied": lambda text: re.sub(r"(?<=\d) (?=%|h\b|min\b|days\b)", "\N{NO-BREAK SPACE}", text),
        "address": quote,
        "size": lambda size: f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB",
    }
    return environment


def _strips(content: Content) -> dict[str, Any]:
    """What page.js shows when a class is opened: label -> [clip, picture, width, height] each."""
    return {
        label: [[p.name, p.src, p.width, p.height] for p in pictures if p.src]
        for label, pictures in content.strips.items()
    }
