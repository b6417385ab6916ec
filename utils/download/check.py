"""Test each step of a download once (--check), and decode the clips on disk (--verify).

A step is a function of the options and a temporary folder. It yields (state, text). If it does not
work, it raises UserError.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import importlib
import os
import platform
import re
import shutil
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import date
from http.cookiejar import LoadError, MozillaCookieJar
from pathlib import Path
from typing import Any

from utils import errors, files
from utils.cli import EXIT_OK, EXIT_USAGE, hide_secrets, plural, say, size_text
from utils.clip import REASONS, UNAVAILABLE, Clip, clip_window
from utils.cluster import open_workers
from utils.download import plan, sources, youtube_extract, youtube_sections
from utils.download.youtube_texts import FetchError, classify
from utils.errors import UserError
from utils.lists.official import with_slash
from utils.lists.reading import ClipLists, find_lists
from utils.lists.versions import OfficialList
from utils.parallel import has_died
from utils.process import run_child, sleep
from utils.report import REPORT_NAME, read_shorts
from utils.run import Progress
from utils.video import whole
from utils.video.ffmpeg import SOUNDS, find_ffmpeg, last_line, require_encoder
from utils.web import Web, WebError

OK, NOTE, NOT_OK = "ok", "note", "not ok"  # a note does not make --check fail
Findings = Iterator[tuple[str, str]]  # (state, text)

INSTALL = "pip install -U -r requirements.txt"
UPDATE = 'pip install -U --pre "yt-dlp[deno]" yt-dlp-ejs'
OLD_DAYS = 60  # YouTube changes faster than that
NOT_IMPORTED = ("deno", "yt-dlp-ejs")  # a program, and scripts
SECONDS, LINES = 2.0, 144  # of the test section: at 480 lines, a dense video takes 3.6 MB
LOGIN_COOKIES = ("LOGIN_INFO", "SAPISID", "__Secure-3PSID", "__Secure-1PSID")
BAD_FOLDER = ".bad"


# --- before every run ----------------------------------------------------------------------------


def try_tools(args: argparse.Namespace) -> None:
    """Test that ffmpeg encodes and that yt-dlp starts with the user's arguments.

    A problem that affects every clip is reported once, before the first. Raises UserError.
    """
    encoder = str(SOUNDS[sources.clip_suffix(args)]["c:a"]) if args.audio_only else "libx264"
    require_encoder(find_ffmpeg(args.ffmpeg), encoder)
    if "youtube" not in args.source:
        return
    with tempfile.TemporaryDirectory(prefix="kinetics-") as folder:
        options = sources.fetch_options(args, Path(folder), Path(folder))
        if problem := youtube_extract.try_ytdlp(options):
            raise UserError(problem)
    has_own = any(word.startswith("--js-runtimes") for word in args.ytdlp_args)
    if sources.is_youtube(args.url_base) and not has_own and find_deno() is None:
        say(f"warning: no JavaScript runtime, which YouTube requires: {INSTALL}")


def find_deno() -> str | None:
    """Find deno as yt-dlp does: next to this Python, then on PATH."""
    places = [sysconfig.get_path("scripts"), os.environ.get("PATH", "")]
    return shutil.which("deno", path=os.pathsep.join(places))


def tool_versions(args: argparse.Namespace) -> str:
    """Return the versions of the tools that do the work, for the plan."""
    deno = errors.release_of("deno") or find_deno() or "missing (YouTube requires it)"
    ffmpeg, ytdlp = find_ffmpeg(args.ffmpeg).version, errors.release_of("yt-dlp")
    return f"ffmpeg {ffmpeg}, yt-dlp {ytdlp}, deno {deno}"


# --- --check: this machine -----------------------------------------------------------------------


def check_steps(args: argparse.Namespace) -> int:
    """Test the steps that the options need; return exit code 0 if all work. Raises Stopped."""
    bad = 0
    given = {"", *args.source, *(name for name in ("out", "cookies") if getattr(args, name))}
    with tempfile.TemporaryDirectory(prefix="kinetics-check-") as folder:
        for needed, name, step in STEPS:
            sleep(0)  # raises Stopped
            if needed not in given:
                continue
            try:
                for state, text in step(args, Path(folder)):
                    say(f"{name:12} {state:6} {text}")
                    bad += state == NOT_OK
            except UserError as error:
                say(f"{name:12} {NOT_OK:6} {error}")
                bad += 1
    say(f"{plural(bad, 'step')} not ok: see docs/youtube.md" if bad else "all steps are ok")
    return EXIT_USAGE if bad else EXIT_OK


def check_python(args: argparse.Namespace, folder: Path) -> Findings:
    """Check that every package is installed, within its bounds, and importable."""
    problems = []
    for package in errors.required():
        try:
            errors.check_packages(package)
            if package not in NOT_IMPORTED:
                importlib.import_module(errors.module_of(package))
        except UserError as error:
            problems.append(str(error).partition(": pip")[0])
        except Exception as error:  # a package can fail to import in any way
            problems.append(f"cannot import {package}: {errors.describe(error)}")
    if problems:
        raise UserError("; ".join([*problems, INSTALL]))
    yield OK, f"Python {platform.python_version()}, {len(errors.required())} packages"


def check_tools(args: argparse.Namespace, folder: Path) -> Findings:
    """Check ffmpeg, and yt-dlp with its arguments and cookies, as every run does at its start."""
    try_tools(args)
    yield OK, tool_versions(args)


def check_js_runtime(args: argparse.Namespace, folder: Path) -> Findings:
    """Check that deno runs, because YouTube's player is JavaScript."""
    path = find_deno()
    if path is None:
        raise UserError(f"no deno, which YouTube requires; {INSTALL}")
    cache = {**os.environ, "DENO_DIR": str(folder / "deno"), "NO_COLOR": "1"}
    done = run_child([path, "eval", "console.log(6 * 7)"], timeout=60, env=cache)
    if done.returncode != 0 or done.stdout.strip() != "42":
        raise UserError(f"{path} does not run: {last_line(done) or 'no answer'}; {INSTALL}")
    yield OK, f"{path} runs"


def check_ytdlp(args: argparse.Namespace, folder: Path) -> Findings:
    """Check the age of yt-dlp, whose releases are named after their day."""
    version = errors.release_of("yt-dlp")
    if not version:
        raise UserError(f"yt-dlp is not installed; {INSTALL}")
    try:
        age = (date.today() - date(*errors.numbers(version))).days
    except (TypeError, ValueError):  # of somebody's own build
        yield NOTE, f"{version}, of an unknown day"
        return
    if age > OLD_DAYS:
        raise UserError(f"{version} is {age} days old, and YouTube changes faster; {UPDATE}")
    yield OK, f"{version}, {plural(max(0, age), 'day')} old"


def check_folder(args: argparse.Namespace, folder: Path) -> Findings:
    """Check that files in the output folder can be written, renamed and locked."""
    out = existing = args.out.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".check-", dir=existing) as inner:
            path = Path(inner) / "a"
            path.write_bytes(b"a")
            has_locks = _can_lock(path.rename(path.with_name("b")))
    except OSError as error:
        problem = f"{existing} cannot be written: {error.strerror}"
        raise UserError(f"{problem}; use another folder, or change its permissions") from error
    text = f"{out}: files can be written and renamed"
    text += "" if out.exists() else "; the folder will be created"
    if has_locks:
        yield OK, text
    else:
        yield NOTE, f"{text}; no file locks: start one run at a time in this folder"


def _can_lock(path: Path) -> bool:
    """Return whether a file that is locked cannot be locked again."""
    with path.open("rb+") as first, path.open("rb+") as second:
        try:
            for file in (first, second):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return isinstance(error, BlockingIOError)
    return False


def check_space(args: argparse.Namespace, folder: Path) -> Findings:
    """Compare the free space with what the missing clips need. Downloads no list."""
    free = files.free_bytes(args.out.absolute())
    text = f"{size_text(free)} free"
    try:
        paths, _ = find_lists(args.input_csv)
        planned = plan.make_plan(plan.read_wanted(paths, args), args.out.absolute(), args)
    except UserError as error:
        yield NOTE, f"{text}; needed: unknown ({error})"
        return
    size = plan.size_of(planned, args)
    text += f", {plural(len(planned.to_fetch), 'clip')} need about {size_text(size)}"
    if size > free:
        raise UserError(f"{text}; free some space; --short_side 256 halves it, --shard divides it")
    yield OK, text


# --- --check: the network ------------------------------------------------------------------------


def check_servers(args: argparse.Namespace, folder: Path) -> Findings:
    """Send a HEAD request to the servers of the lists and of the mirror, through each proxy."""
    lists = plan.list_servers(args).archive(OfficialList("400", "train"))
    mirror = with_slash(args.mirror_base) + "600/val/k600_val_path.txt"
    for url, option in ((lists, "--lists_base"), (mirror, "--mirror_base")):
        for proxy in args.proxy or [None]:
            text, started = hide_secrets(url) + _through(proxy), time.monotonic()
            try:
                Web((proxy,) if proxy else ()).size(url)
                yield OK, f"{text} answers in {time.monotonic() - started:.1f} s"
            except WebError as error:
                yield NOT_OK, f"{text}: {hide_secrets(error.message)}; try again, or use {option}"


def _through(proxy: str | None) -> str:
    return f" through {hide_secrets(proxy)}" if proxy else ""


def check_cookies(args: argparse.Namespace, folder: Path) -> Findings:
    """Check that the cookie file has the cookies of an account, and that none has expired."""
    todo = "export the cookies again from a browser that is logged in"
    jar = MozillaCookieJar(args.cookies)
    try:
        jar.load(ignore_discard=True, ignore_expires=True)
    except (LoadError, OSError, UnicodeDecodeError):
        return  # the step "tools" reports it
    login = [c for c in jar if c.name in LOGIN_COOKIES and c.domain.endswith("youtube.com")]
    for cookie in login:
        if cookie.is_expired():
            raise UserError(f"{args.cookies}: {cookie.name} has expired; {todo}")
    if login:
        yield OK, f"{args.cookies}: {plural(len(login), 'login cookie')}, none expired"
    else:
        yield NOTE, f"{args.cookies} has no YouTube login; {todo}"


def check_youtube(args: argparse.Namespace, folder: Path) -> Findings:
    """Look a video up, directly or through each proxy, and cut a section of it once."""
    options = sources.fetch_options(args, folder, folder)
    options = replace(
        options,
        encode=replace(options.encode, max_height=LINES, audio=False),
        ytdlp_args=(*args.ytdlp_args, "--verbose"),  # prints the player client
        timeout=min(args.timeout, 120.0),
    )
    is_cut = False
    for proxy in args.proxy or [None]:
        deadline = time.monotonic() + options.timeout
        attempt = youtube_extract.Attempt(options, folder, proxy, deadline)
        argv = youtube_extract.extract_command(args.check_id, options, folder)
        text = f"{args.check_id}{_through(proxy)}"
        try:
            done = attempt.run_ytdlp(argv)
            said = re.findall(r"^(?:ERROR|WARNING|\[(?!debug)).*", done.stderr, re.MULTILINE)
            info = youtube_extract.read_info(done, args.url_base)
            if any(classify(line) == "cookies" for line in said):  # yt-dlp continued as a guest
                raise FetchError("cookies", "the account's cookies have expired")
        except FetchError as error:
            status, todo = REASONS[error.reason]
            todo += "; or use another --check_id" if status == UNAVAILABLE else ""
            yield NOT_OK, f"{text}: {error.reason}: {hide_secrets(error.message)}; {todo}"
            continue
        clients = re.findall(r"Downloading (.+?) player API JSON", "\n".join(said))
        number = plural(len(info.get("formats") or [info]), "format")
        yield OK, f"{text}: {number}, client {(clients or ['unknown'])[0]}"
        if not is_cut:
            is_cut = True
            yield _cut_section(attempt, info)


def _cut_section(attempt: youtube_extract.Attempt, info: dict[str, Any]) -> tuple[str, str]:
    """Cut a video's first seconds as a clip is cut."""
    inputs = youtube_extract.section_inputs(info, attempt.options, attempt.proxy)
    if not inputs:
        return NOTE, "section: cannot be read here, so whole videos are downloaded"
    started, clip = time.monotonic(), Clip("section", "", 0.0, SECONDS)
    ((_, made),) = youtube_sections.cut_sections(attempt, [clip], inputs)
    if isinstance(made, FetchError):
        return NOT_OK, f"section: {hide_secrets(made.message)}; {UPDATE}"
    took = time.monotonic() - started
    speed = f"{made.bytes / took / 1000:,.0f} kB of clip per second"
    return OK, f"section: {SECONDS:.0f} s cut and encoded in {took:.1f} s, {speed}"


# The source or option that a step needs ("": none), its name, and the function.
STEPS: tuple[tuple[str, str, Callable[[argparse.Namespace, Path], Findings]], ...] = (
    ("", "packages", check_python),
    ("", "tools", check_tools),
    ("youtube", "JavaScript", check_js_runtime),
    ("youtube", "yt-dlp", check_ytdlp),
    ("cvdf", "servers", check_servers),
    ("cookies", "cookies", check_cookies),
    ("youtube", "YouTube", check_youtube),
    ("out", "folder", check_folder),
    ("out", "disk space", check_space),
)


# --- --verify ------------------------------------------------------------------------------------


BAD, NOT_CHECKED = "bad", "not checked"
Verified = tuple[Clip, str, str]  # the clip, `good` or one of these, what is wrong


def verify(lists: ClipLists, out: Path, args: argparse.Namespace) -> None:
    """Decode the requested clips on disk, and move bad ones to OUT/.bad (not with --dry_run)."""
    suffix = sources.clip_suffix(args)
    on_disk = files.names_in(out, suffix)
    clips = [clip for name, clip in lists.clips.items() if name in on_disk]
    if not clips:
        return
    shorts = read_shorts(out / REPORT_NAME)
    tasks = ((clip, clip.name in shorts) for clip in clips)
    worker = functools.partial(verify_clip, out, suffix, args.timeout)
    with (
        files.run_folder(out) if args.dask else nullcontext(out) as workspace,
        open_workers(args, workspace, ("av", "ffmpeg-python", "joblib")) as workers,
        Progress(len(clips), "clip", args.quiet, workers) as progress,
    ):
        for clip, state, problem in workers.run(worker, tasks, not_verified):
            progress.add(state)
            if problem:
                progress.say(problem)
            if state == BAD and not args.dry_run:
                path = out / f"{clip.name}{suffix}"
                # Another run, or the user, may have removed it.
                with files.telling(path, "move"), suppress(FileNotFoundError):
                    files.set_aside(path, out / BAD_FOLDER)
    if not args.quiet:
        counts = progress.counts
        text = f"{counts.total():,} of {plural(len(clips), 'clip')}, {counts[BAD]:,} bad"
        if counts[BAD] and not args.dry_run:
            text += f" (moved to {out / BAD_FOLDER})"
        if counts[NOT_CHECKED]:
            text += f", {counts[NOT_CHECKED]:,} not checked (kept)"
        say(f"verified     {text}")


def verify_clip(out: Path, suffix: str, timeout: float, task: tuple[Clip, bool]) -> Verified:
    """Decode one clip, in a worker. task: the clip, and whether the report marks it as short."""
    clip, is_short = task
    path, wanted = out / f"{clip.name}{suffix}", clip_window(clip)[1]
    try:
        if suffix in SOUNDS:
            if not is_short or not whole.read_sound(path).samples:
                whole.check_sound(path, wanted)
            return clip, "good", ""
        video = whole.read_video(path)
        whole.decode_whole(path, timeout)
        if not is_short and not video.covers(wanted):
            raise whole.BadClip("truncated", f"{video.end:.2f} s of {wanted:.2f} s received")
    except whole.BadClip as error:
        return clip, BAD, f"{error.reason}: {clip.name}: {error.message}"
    return clip, "good", ""


def not_verified(task: tuple[Clip, bool], how: str) -> Verified:
    """Return the result for a clip that crashed its worker process, or whose worker was lost."""
    clip = task[0]
    if has_died(how):
        return clip, BAD, f"undecodable: {clip.name}: the decoder crashed: {how}"
    return clip, NOT_CHECKED, f"{NOT_CHECKED}: {clip.name}: {how}"
