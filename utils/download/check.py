"""Test every step of a download (--check), and every clip on disk (--verify).

--check downloads less than 2 MB and leaves nothing behind. Each step is a function of the options
and a temporary folder that yields (name, state, text, what to do).
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import date
from http.cookiejar import LoadError, MozillaCookieJar
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from utils.cli import EXIT_OK, EXIT_USAGE, plural, say
from utils.clip import Clip, clip_window
from utils.cluster import open_workers
from utils.download.options import clip_suffix, fetch_options
from utils.download.plan import make_plan, read_wanted, size_of, size_text
from utils.download.sources import FetchOptions, is_youtube
from utils.download.youtube_extract import (
    Attempt,
    extract_command,
    read_info,
    run_fresh_ytdlp,
    section_inputs,
    try_ytdlp,
)
from utils.download.youtube_sections import fetch_fragments, open_streams
from utils.download.youtube_texts import BLOCKS, FetchError, classify
from utils.errors import UserError, check_packages, describe, module_of, numbers, required
from utils.files import free_bytes, names_in, run_folder, set_aside
from utils.lists.official import DEEPMIND, needed_lists, with_slash
from utils.lists.reading import ClipLists
from utils.lists.versions import ALL_LISTS
from utils.parallel import Workers
from utils.process import run_child, sleep, stop_on_signals
from utils.report import REASONS, REPORT_NAME, read_shorts
from utils.run import show_progress
from utils.text import hide_secrets
from utils.video.cut import cut_video
from utils.video.ffmpeg import SOUNDS, Encode, find_ffmpeg, last_line, require_encoder
from utils.video.whole import BadClip, check_sound, decode_whole, read_sound, read_video
from utils.web import Web, WebError

OK, NOTE, NOT_OK = "ok", "note", "not ok"  # a note stops nothing, but should be known
Findings = Iterator[tuple[str, str, str, str]]  # (name, state, text, what to do)

INSTALL = "pip install -U -r requirements.txt"
UPDATE = 'pip install -U --pre "yt-dlp[deno]" yt-dlp-ejs'
PAGE = "see docs/youtube.md"
OLD_DAYS = 60  # YouTube changes faster than that
NOT_IMPORTED = ("deno", "yt-dlp-ejs")  # a program, and scripts
SECONDS, LINES = 2.0, 144  # of the test section: at 480 lines, a dense video came to 3.6 MB
LOGIN_COOKIES = ("LOGIN_INFO", "SAPISID", "__Secure-3PSID", "__Secure-1PSID")
BAD_FOLDER = ".bad"


# --- before every run ----------------------------------------------------------------------------


def try_tools(args: argparse.Namespace) -> None:
    """Test that ffmpeg encodes and that yt-dlp starts with the user's arguments.

    A problem that every clip would meet is reported once, before the first. Raises UserError.
    """
    encoder = str(SOUNDS[clip_suffix(args)]["c:a"]) if args.audio_only else "libx264"
    require_encoder(find_ffmpeg(args.ffmpeg), encoder)
    if "youtube" not in args.source:
        return
    if problem := try_ytdlp(args.ytdlp_args, args.cookies, args.cookies_from_browser):
        raise UserError(problem)
    if is_youtube(args.url_base) and not _has_js_runtime(args):
        say(f"warning: no JavaScript runtime, which YouTube requires: {INSTALL}")


def _has_js_runtime(args: argparse.Namespace) -> bool:
    if any(word.startswith("--js-runtimes") for word in args.ytdlp_args):
        return True
    with suppress(metadata.PackageNotFoundError):
        return bool(metadata.version("deno"))
    return shutil.which("deno") is not None


# --- --check: this machine -----------------------------------------------------------------------


def check_steps(args: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Test the steps that --source needs; the exit code is 0 if all work. Raises Stopped."""
    bad = 0
    with stop_on_signals(), tempfile.TemporaryDirectory(prefix="kinetics-check-") as folder:
        for source, name, step in STEPS:
            sleep(0)  # raises Stopped
            if source and source not in args.source:
                continue
            try:
                for shown, state, text, todo in step(args, Path(folder)):
                    tell(f"{shown:12} {state:6} {text}" + (f"; {todo}" if todo else ""))
                    bad += state == NOT_OK
            except UserError as error:
                tell(f"{name:12} {NOT_OK:6} {error}")
                bad += 1
    tell(f"{plural(bad, 'step')} not ok: {PAGE}" if bad else "all steps are ok")
    return EXIT_USAGE if bad else EXIT_OK


def check_python(args: argparse.Namespace, folder: Path) -> Findings:
    """Python, and every package: installed, within the bounds of requirements.txt, importable."""
    problems = []
    for package in required():
        try:
            check_packages(package)
            if package not in NOT_IMPORTED:
                importlib.import_module(module_of(package))
        except UserError as error:
            problems.append(str(error).partition(": pip")[0])
        except Exception as error:  # a package can fail to import in any way
            problems.append(f"cannot import {package}: {describe(error)}")
    python = f"Python {platform.python_version()}"
    if problems:
        yield "packages", NOT_OK, f"{python}; {'; '.join(problems)}", INSTALL
    else:
        yield "packages", OK, f"{python}, {len(required())} packages", ""


def check_ffmpeg(args: argparse.Namespace, folder: Path) -> Findings:
    """ffmpeg runs, and has the encoders and the protocol that clips need."""
    tool = find_ffmpeg(args.ffmpeg)
    lacks = []
    for option, names in (("-encoders", ("libx264", "aac")), ("-protocols", ("https",))):
        has = run_child([tool.path, "-hide_banner", option], timeout=60).stdout.split()
        lacks += [name for name in names if name not in has]
    text = f"ffmpeg {tool.version}, {tool.path}"
    if lacks:
        todo = f"{INSTALL}, or use --ffmpeg with another ffmpeg"
        yield "ffmpeg", NOT_OK, f"{text}, lacks {', '.join(lacks)}", todo
    else:
        yield "ffmpeg", OK, f"{text}: libx264, aac, https", ""


def check_js_runtime(args: argparse.Namespace, folder: Path) -> Findings:
    """YouTube's player is JavaScript: deno runs a line of it."""
    places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    path = shutil.which("deno", path=places)
    if path is None:
        yield "JavaScript", NOT_OK, "no deno, which YouTube requires", INSTALL
        return
    cache = {**os.environ, "DENO_DIR": str(folder / "deno"), "NO_COLOR": "1"}
    done = run_child([path, "eval", "console.log(6 * 7)"], timeout=60, env=cache)
    if done.returncode != 0 or done.stdout.strip() != "42":
        text = f"{path} does not run: {last_line(done) or 'no answer'}"
        yield "JavaScript", NOT_OK, text, INSTALL
    else:
        yield "JavaScript", OK, f"{path} runs", ""


def check_ytdlp(args: argparse.Namespace, folder: Path) -> Findings:
    """The age of yt-dlp: its releases are named after their day."""
    version = metadata.version("yt-dlp")
    try:
        age = (date.today() - date(*numbers(version))).days
    except (TypeError, ValueError):
        yield "yt-dlp", NOTE, f"{version}, of an unknown day", ""
        return
    if age > OLD_DAYS:
        text = f"{version} is {age} days old, and YouTube changes faster"
        yield "yt-dlp", NOT_OK, text, 'pip install -U "yt-dlp[deno]" yt-dlp-ejs'
    else:
        yield "yt-dlp", OK, f"{version}, {plural(max(0, age), 'day')} old", ""


def check_folder(args: argparse.Namespace, folder: Path) -> Findings:
    """The output folder: files can be written, renamed, linked and locked in it."""
    if args.out is None:
        return
    out = existing = args.out.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".check-", dir=existing) as inner:
            notes = _try_folder(Path(inner))
    except OSError as error:
        text = f"{existing} cannot be written: {error.strerror}"
        yield "folder", NOT_OK, text, "use another folder, or change its permissions"
        return
    text = f"{out}: files can be written and renamed"
    text += "" if out.exists() else "; the folder will be created"
    yield "folder", NOTE if notes else OK, "; ".join([text, *notes]), ""


def _try_folder(inner: Path) -> list[str]:
    """What the file system of `inner` cannot do. Raises OSError if it cannot be used."""
    notes = []
    (inner / "a").write_bytes(b"a")
    os.replace(inner / "a", inner / "b")
    try:
        os.link(inner / "b", inner / "c")
    except OSError:
        notes.append("no hard links: clips from other folders are copied")
    if not _locks_hold(inner / "lock"):
        notes.append("no locks between processes: start one run at a time in this folder")
    return notes


def _locks_hold(path: Path) -> bool:
    """Whether another process sees a lock of this one."""
    other = (
        "import sys; from filelock import FileLock, Timeout\n"
        "try: FileLock(sys.argv[1], timeout=0).acquire()\n"
        "except Timeout: sys.exit(7)\n"
    )
    with suppress(OSError, NotImplementedError), FileLock(path, timeout=0):
        argv = [sys.executable, "-c", other, str(path)]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=60).returncode == 7
    return False


def check_space(args: argparse.Namespace, folder: Path) -> Findings:
    """Free space, compared with what the missing clips need. Downloads no list."""
    if args.out is None:
        return
    free = free_bytes(args.out.absolute())
    text = f"{free / 1e9:,.1f} GB free"
    try:
        paths, _ = needed_lists(args.input_csv)
        plan = make_plan(read_wanted(paths, args), args.out.absolute(), args)
    except UserError as error:
        yield "disk space", NOTE, f"{text}; needed: unknown ({error})", ""
        return
    text += f", {plural(len(plan.to_fetch), 'clip')} need about {size_text(plan, args)}"
    if size_of(plan, args) > free:
        todo = "free some space; --short_side 256 halves it, --shard divides it"
        yield "disk space", NOT_OK, text, todo
    else:
        yield "disk space", OK, text, ""


# --- --check: the network ------------------------------------------------------------------------


def check_servers(args: argparse.Namespace, folder: Path) -> Findings:
    """The servers of the official lists and of the mirror: a HEAD request through each proxy."""
    lists = with_slash(args.lists_base or DEEPMIND) + ALL_LISTS[0].archive
    mirror = with_slash(args.mirror_base) + "600/val/k600_val_path.txt"
    for name, url, option in (
        ("lists", lists, "--lists_base"),
        ("mirror", mirror, "--mirror_base"),
    ):
        for proxy in args.proxy or [None]:
            text = hide_secrets(url) + (f" through {hide_secrets(proxy)}" if proxy else "")
            started = time.monotonic()
            try:
                Web((proxy,) if proxy else ()).size(url)
            except WebError as error:
                text += f": {hide_secrets(error.message)}"
                yield name, NOT_OK, text, f"try again, or use {option}"
            else:
                yield name, OK, f"{text} answers in {time.monotonic() - started:.1f} s", ""


def check_cookies(args: argparse.Namespace, folder: Path) -> Findings:
    """The cookie file holds the cookies of an account, and they have not expired."""
    if args.cookies is None:
        return
    todo = "export the cookies again from a browser that is logged in"
    jar = MozillaCookieJar(args.cookies)
    try:
        jar.load(ignore_discard=True, ignore_expires=True)
    except (LoadError, OSError, UnicodeDecodeError) as error:
        text = f"{args.cookies} is not a cookie file in Netscape format ({error})"
        yield "cookies", NOT_OK, text, todo
        return
    login = [c for c in jar if c.name in LOGIN_COOKIES and c.domain.endswith("youtube.com")]
    expired = [cookie.name for cookie in login if cookie.is_expired()]
    if expired:
        yield "cookies", NOT_OK, f"{args.cookies}: {expired[0]} has expired", todo
    elif not login:
        yield "cookies", NOTE, f"{args.cookies} has no YouTube login", todo
    else:
        text = f"{args.cookies}: {plural(len(login), 'login cookie')}, none expired"
        yield "cookies", OK, text, ""


def check_youtube(args: argparse.Namespace, folder: Path) -> Findings:
    """One extraction, directly or through each proxy, and a section cut from the first."""
    options = replace(
        fetch_options(args, folder, folder),
        encode=Encode(max_height=LINES, audio=False),
        ytdlp_args=(*args.ytdlp_args, "--verbose"),  # names the player client
        timeout=min(args.timeout, 120.0),
    )
    is_cut = False
    for proxy in args.proxy or [None]:
        name = f"proxy {hide_secrets(proxy)}:" if proxy else "YouTube"
        argv = extract_command(args.check_id, options, folder)
        done = run_fresh_ytdlp(argv, folder, options.timeout, proxy)
        said = re.findall(r"^(?:ERROR|WARNING|\[(?!debug)).*", done.stderr, re.MULTILINE)
        try:
            info = read_info(done, options.url_base)
        except FetchError as error:
            yield _failed(name, error, args)
            continue
        yield _extracted(name, info, said, args)
        if not is_cut:
            is_cut = True
            yield _cut_section(info, options, folder, proxy)


def _extracted(
    name: str, info: dict[str, Any], log: Sequence[str], args: argparse.Namespace
) -> tuple[str, str, str, str]:
    if any(classify(line) == "cookies" for line in log):  # yt-dlp went on as a guest
        return name, NOT_OK, "the account's cookies have expired", REASONS["cookies"][1]
    formats = info.get("formats") or [info]
    usable = [each for each in formats if str(each.get("url", "")).startswith("http")]
    clients = re.findall(r"Downloading (.+?) player API JSON", "\n".join(log))
    client = f"client {', '.join(dict.fromkeys(clients))}; " if clients else ""
    text = f"{args.check_id}: {client}{len(usable)} of {len(formats)} formats with an address"
    return (name, OK, text, "") if usable else (name, NOT_OK, text, UPDATE)


def _failed(name: str, error: FetchError, args: argparse.Namespace) -> tuple[str, str, str, str]:
    """What a failed extraction says about the address, the cookies or the video."""
    message = hide_secrets(error.message)
    if error.reason in BLOCKS:
        return name, NOT_OK, f"this address is blocked ({error.reason}): {message}", PAGE
    todo = REASONS[error.reason][1]
    todo += "; or use --check_id with another video" if is_youtube(args.url_base) else ""
    return name, NOT_OK, f"{error.reason}: {message}", todo


def _cut_section(
    info: dict[str, Any], options: FetchOptions, folder: Path, proxy: str | None
) -> tuple[str, str, str, str]:
    """Cut a video's first seconds as a clip is cut, and check them."""
    inputs = section_inputs(info, options)
    if not inputs or (proxy and not proxy.startswith("http://")):
        return "section", NOTE, "sections cannot be read here: whole videos are downloaded", ""
    started, target = time.monotonic(), folder / "section.mp4"
    deadline = started + options.timeout
    attempt = Attempt(options, folder, proxy, deadline)
    try:
        with open_streams(attempt, inputs, options.timeout) as streams:
            parts, _ = fetch_fragments(
                attempt, streams, Clip("section", "", 0.0, SECONDS), deadline
            )
        run = functools.partial(attempt.run, limit=options.timeout)
        cut_video(run, options.ffmpeg, parts or inputs, 0.0, SECONDS, options.encode, target)
    except (BadClip, OSError) as error:
        return "section", NOT_OK, hide_secrets(str(error)), f"{UPDATE}; {PAGE}"
    seconds = time.monotonic() - started
    text = f"{SECONDS:.0f} s, found by {'the video index' if parts else 'ffmpeg'}, cut and encoded"
    speed = target.stat().st_size / seconds / 1000
    return "section", OK, f"{text} in {seconds:.1f} s: {speed:,.0f} kB of clip per second", ""


# The source that a step is for ("": every source), its name, and the function.
STEPS: tuple[tuple[str, str, Callable[[argparse.Namespace, Path], Findings]], ...] = (
    ("", "packages", check_python),
    ("", "ffmpeg", check_ffmpeg),
    ("youtube", "JavaScript", check_js_runtime),
    ("youtube", "yt-dlp", check_ytdlp),
    ("cvdf", "servers", check_servers),
    ("youtube", "cookies", check_cookies),
    ("youtube", "YouTube", check_youtube),
    ("", "folder", check_folder),
    ("", "disk space", check_space),
)


# --- --verify ------------------------------------------------------------------------------------


Verified = tuple[Clip, BadClip | str]  # why it is bad, or why it could not be checked; "": good


def verify(lists: ClipLists, out: Path, args: argparse.Namespace) -> None:
    """Decode the requested clips on disk, and move bad ones to OUT/.bad (not with --dry_run)."""
    suffix = clip_suffix(args)
    there = names_in(out, suffix)
    clips = [clip for name, clip in lists.clips.items() if name in there]
    shorts = read_shorts(out / REPORT_NAME)
    tasks = ((clip, clip.name in shorts) for clip in clips)
    worker = functools.partial(verify_clip, out, suffix, args.timeout)
    with ExitStack() as stack:
        workers = Workers(args.num_jobs)
        if args.dask and clips:
            workspace = stack.enter_context(run_folder(out))
            packages = ("av", "ffmpeg-python", "joblib")
            workers = stack.enter_context(open_workers(args, workspace, packages))
        progress = stack.enter_context(show_progress(len(clips), "clip", args.quiet, workers))
        for clip, found in workers.run(worker, tasks, not_verified):
            is_bad = isinstance(found, BadClip)
            progress.add("bad" if is_bad else "not checked" if found else "good")
            if isinstance(found, BadClip):
                done = (
                    "would be moved to .bad/"
                    if args.dry_run
                    else _move_bad(out, clip.name + suffix)
                )
                progress.say(f"{found.reason}: {clip.name}: {found.message}; {done}")
            elif found:
                progress.say(f"not checked: {clip.name}: {found}; the file is kept")
    if not args.quiet:
        counts = progress.counts
        more = f", {counts['not checked']:,} not checked" if counts["not checked"] else ""
        say(f"verified     {sum(counts.values()):,} of {plural(len(clips), 'clip')}"
            f", {counts['bad']:,} bad{more}")  # fmt: skip


def verify_clip(out: Path, suffix: str, timeout: float, task: tuple[Clip, bool]) -> Verified:
    """The worker: decode one clip. `task`: a clip, and whether the report knows it as short."""
    clip, is_short = task
    try:
        path, wanted = out / f"{clip.name}{suffix}", clip_window(clip)[1]
        if suffix in SOUNDS:
            if not is_short or not read_sound(path).samples:
                check_sound(path, wanted)
            return clip, ""
        video = read_video(path)
        decode_whole(path, timeout)
        if not is_short and not video.covers(wanted):
            raise BadClip("truncated", f"{video.end:.2f} s of {wanted:.2f} s received")
    except BadClip as error:
        return clip, error
    return clip, ""


def not_verified(task: tuple[Clip, bool], how: str) -> Verified:
    """The result for a clip that crashed its worker process, or whose worker was lost."""
    if "process" in how:
        return task[0], BadClip("undecodable", f"the decoder crashed: {how}")
    return task[0], how


def _move_bad(out: Path, name: str) -> str:
    """Move a bad clip aside; returns what was done. Raises UserError."""
    try:
        return f"moved to {set_aside(out / name, out / BAD_FOLDER)}"
    except FileNotFoundError:
        return "already gone"  # another run, or the user, was quicker
    except OSError as error:
        raise UserError(f"cannot move {name} to {out / BAD_FOLDER}: {error.strerror}") from error
