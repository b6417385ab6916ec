"""The tools, tried before the first clip: what every clip would meet is told once, in one line.

After the plan of download.py, before its sources; `check_machine` says more, for --check.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib import metadata

from utils.cli import say
from utils.download.common import is_youtube
from utils.errors import UserError
from utils.process import run_child
from utils.video.ffmpeg import find_ffmpeg, last_line, require_encoder

NO_ADDRESS = "You must provide at least one URL"
UPDATE = "pip install -U -r requirements.txt"


def try_tools(args: argparse.Namespace) -> None:
    """Whether ffmpeg encodes and yt-dlp starts, with the user's arguments. Raises UserError."""
    require_encoder(find_ffmpeg(args.ffmpeg), "libx264")
    if "youtube" not in args.source:
        return
    # Without an address it has nothing to do but to read its arguments, and says so.
    argv = [sys.executable, "-m", "yt_dlp", "--ignore-config", *args.ytdlp_args]
    done = run_child(argv, timeout=60)
    said = last_line(done)
    if NO_ADDRESS not in done.stderr and done.returncode == 2 and "error: " in said:
        raise UserError(f"--ytdlp_args: {said.partition('error: ')[2]}")
    if NO_ADDRESS not in done.stderr and done.returncode != 0:
        raise UserError(f"yt-dlp does not start ({said or 'it says nothing'}): {UPDATE}")
    if is_youtube(args.url_base) and not _has_js_runtime(args):
        say(f"warning: no JavaScript runtime, and YouTube needs one: {UPDATE}")


def _has_js_runtime(args: argparse.Namespace) -> bool:
    """Whether the deno that yt-dlp looks for is there, or the user named another."""
    if any(word.startswith("--js-runtimes") for word in args.ytdlp_args):
        return True
    try:
        return bool(metadata.version("deno"))
    except metadata.PackageNotFoundError:
        return shutil.which("deno") is not None
