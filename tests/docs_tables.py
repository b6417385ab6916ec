"""Write the parts of README and docs that the code knows: option tables, reasons, official lists.

    python -m tests.docs_tables                 after a change of options, reasons or lists
    python -m tests.docs_tables demo_output     also the examples of output, from a run of demo.py

A part stands between `<!-- options download.py -->` (or another name below) and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from tests.scripts import ROOT
from utils.cli import Parser
from utils.clip import REASONS
from utils.download.plan import ACCOUNT_PER_HOUR, BYTES_PER_CLIP, GUEST_PER_HOUR, LINE_BITS
from utils.lists.versions import ROWS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EVERYWHERE = {"--help", "--version", "--quiet", "--verbose"}  # README has them, for all scripts
MIRROR_BYTES_PER_CLIP = 870e9 / 650_000  # docs/sources.md: all archives, all clips
PART = re.compile(r"(<!-- (options|reasons|lists|demo) ?(\S*) -->\n).*?(<!-- end -->)", re.DOTALL)


class _Caught(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser that a script builds."""

    def catch(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        raise _Caught(parser)

    module = importlib.import_module(script.removesuffix(".py"))
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", catch),
        mock.patch.object(Parser, "parse_args", catch),
    ):
        try:
            module.main([])
        except _Caught as caught:
            return caught.parser
    raise AssertionError(f"{script} parsed no options")


def options(script: str) -> Iterable[str]:
    """A row for each option: its name, the text of `--help`, its default."""
    yield "| option | effect | default |"
    yield "|---|---|---|"
    for action in parser_of(script)._actions:
        names = [name for name in action.option_strings if name.startswith("--")]
        name = "--num_jobs" if "--num_jobs" in names else next(iter(names), "")
        if not name or name in EVERYWHERE or action.help == argparse.SUPPRESS:
            continue
        effect, default = (action.help or "") % {"default": action.default, "prog": script}, ""
        if found := re.fullmatch(r"(.*\S) ?\(default: (.*)\)", effect, re.DOTALL):
            effect, default = found[1], re.sub(r", here \d+", "", found[2])
        elif action.nargs == 0:
            default = "off"
        elif isinstance(action.default, (list, tuple)):
            default = " ".join(f"`{each}`" for each in action.default)
        elif action.default not in (None, ""):
            default = f"`{action.default}`"
        if action.choices and not action.metavar:
            effect += " (" + ", ".join(f"`{each}`" for each in action.choices) + ")"
        row = [f"`{name}`", effect, default]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def reasons(_: str) -> Iterable[str]:
    yield "| status | reason | meaning and what to do |"
    yield "|---|---|---|"
    for reason, (status, text) in REASONS.items():
        yield f"| `{status}` | {f'`{reason}`' if reason else ''} | {text} |"


def lists(_: str) -> Iterable[str]:
    """The official lists, with size and time from YouTube and from the mirror."""
    yield "| list | clips | YouTube, GB | YouTube, hours without cookies |" + (
        " YouTube, hours with an account | `cvdf`, GB | `cvdf`, hours at 100 Mbit/s |"
    )
    yield "|---|---|---|---|---|---|---|"
    for (dataset, split), rows in ROWS.items():
        size = rows * MIRROR_BYTES_PER_CLIP
        mirror = f"{size / 1e9:,.0f} | {size * 8 / LINE_BITS / 3600:,.1f}"
        hours = f"{rows / GUEST_PER_HOUR:,.0f} | {rows / ACCOUNT_PER_HOUR:,.0f}"
        yield (
            f"| `kinetics-{dataset}_{split}` | {rows:,} | {rows * BYTES_PER_CLIP / 1e9:,.0f} |"
            f" {hours} | {'in 700_2020 | ' if dataset == '700' else mirror} |"
        )


KINDS = {"options": options, "reasons": reasons, "lists": lists}


def renewed(text: str, demo: Path | None = None) -> str:
    """A page with its made parts made again."""

    def make(found: re.Match[str]) -> str:
        start, kind, name, end = found.groups()
        if kind == "demo" and demo is not None:
            lines: Iterable[str] = ["```", *demo_lines(demo, name), "```"]
        elif kind == "demo":
            return found[0]
        else:
            lines = KINDS[kind](name)
        return start + "".join(f"{line}\n" for line in lines) + end

    return PART.sub(make, text)


def demo_lines(demo: Path, name: str) -> list[str]:
    """What a step of demo.py printed, without what differs from run to run."""
    text = (demo / "examples" / f"{name}.txt").read_text(encoding="utf-8")
    for pattern, plain in (
        (rf"{re.escape(str(demo.resolve()))}/?", "/data/kinetics/"),
        (r' --videos_per_hour 0 --ytdlp_args (?:"\$STANDIN"|\'(?:[^\']|\'"\'"\')*\')', ""),
        (r"^time +no rate limit\n", ""),
        (r"(^\$ |^next: )\S*python\S* \S*/(\w+\.py)", r"\1python \2"),
        (r"\d+:\d\d:\d\d", "0:00:05"),
        (r"[\d,.]+ GB free", "83.3 GB free"),
        (r"^tools .*", "tools        ffmpeg n9.0.2, yt-dlp 2026.10.26, deno 2.9.8"),
        (r"^(jobs +|to do +[\d,]+ clips?, )\d+", r"\g<1>4"),
        (r"^size: \S+", "size: 1.0"),
    ):
        text = re.sub(pattern, plain, text, flags=re.MULTILINE)
    return text.splitlines()


def main() -> None:
    demo = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = renewed(before, demo)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"written: {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
