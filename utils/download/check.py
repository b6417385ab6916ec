"""Test every step of a download (--check) and the clips on disk (--verify)."""

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
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from http.cookiejar import LoadError, MozillaCookieJar
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from utils.cli import EXIT_OK, EXIT_USAGE, plural, say
from utils.clip import Clip, clip_window
from utils.cluster import open_workers
from utils.download.common import FetchOptions, is_youtube
from utils.download.plan import make_plan, read_wanted
from utils.download.youtube_extract import (
    Attempt,
    child_environment,
    extract_command,
    read_info,
    run_ytdlp,
    section_inputs,
)
from utils.download.youtube_sections import fetch_fragments, open_streams
from utils.download.youtube_texts import BLOCKS, FetchError, classify
from utils.errors import UserError
from utils.files import free_bytes, names_in, set_aside
from utils.lists.fetching import with_slash
from utils.lists.official import DEEPMIND, OfficialList
from utils.lists.reading import ClipLists, find_lists
from utils.machines import run_folder
from utils.packages import check_packages, describe, module_of, numbers, required
from utils.parallel import Workers
from utils.process import STOP, Stopped, run_child, stop_on_signals
from utils.report import REASONS, REPORT_NAME, read_shorts
from utils.run import Progress, watch
from utils.text import hide_secrets
from utils.video.checks import check_clip, check_complete, check_length, decode_whole
from utils.video.ffmpeg import Encode, Input, cut_command, find_ffmpeg, last_line, require_encoder
from utils.video.probe import BadClip
from utils.web import Web, WebError

OK, NOTE, NOT_OK = "ok", "note", "not ok"  # a note costs nothing but should be known


@dataclass(frozen=True)
class Finding:
    """What came of trying a link; `todo` is what to type or do where it is not in order."""

    link: str
    state: str
    text: str
    todo: str = ""

    def line(self) -> str:
        todo = f"; {self.todo}" if self.todo else ""
        return f"{self.link:12} {self.state:6} {self.text}{todo}"


INSTALL = "pip install -U -r requirements.txt"
OLD_DAYS = 60  # YouTube changes faster than that
BYTES_A_CLIP, BYTES_A_SMALL_CLIP = 1_200_000, 600_000  # 10 s at CRF 20: 480 lines; 256

NOT_IMPORTED = ("deno", "yt-dlp-ejs")  # a program, and scripts


def check_python(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """Python, and every package: there, in a release that will do, imports.

    Releases that are known to be bad lie outside of the bounds in requirements.txt.
    """
    problems = []
    for package in required():
        try:
            check_packages(package)
            if package not in NOT_IMPORTED:
                importlib.import_module(module_of(package))
        except UserError as error:
            problems.append(str(error).partition(": pip")[0])
        except Exception as error:  # a package may fail to import in any way it likes
            problems.append(f"{package} does not import: {describe(error)}")
    python = f"Python {platform.python_version()}"
    if problems:
        yield Finding("packages", NOT_OK, f"{python}; {'; '.join(problems)}", INSTALL)
    else:
        yield Finding("packages", OK, f"{python}, {len(required())} packages")


def check_ffmpeg(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """ffmpeg runs, and has what every clip needs."""
    tool = find_ffmpeg(args.ffmpeg)
    encoders = run_child([tool.path, "-hide_banner", "-encoders"], timeout=60).stdout.split()
    protocols = run_child([tool.path, "-hide_banner", "-protocols"], timeout=60).stdout.split()
    lacks = [name for name in ("libx264", "aac") if name not in encoders]
    lacks += [name for name in ("https",) if name not in protocols]
    text = f"ffmpeg {tool.version}, {tool.path}"
    if lacks:
        todo = f"{INSTALL}, or --ffmpeg PATH of one that has it"
        yield Finding("ffmpeg", NOT_OK, f"{text}, has no {', '.join(lacks)}", todo)
    else:
        yield Finding("ffmpeg", OK, f"{text}: libx264, aac, https")


def check_js_runtime(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """YouTube's player is JavaScript: deno runs a line of it."""
    places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    path = shutil.which("deno", path=places)
    if path is None:
        yield Finding("JavaScript", NOT_OK, "no deno, which YouTube needs", INSTALL)
        return
    cache = {**os.environ, "DENO_DIR": str(folder / "deno"), "NO_COLOR": "1"}
    done = run_child([path, "eval", "console.log(6 * 7)"], timeout=60, env=cache)
    if done.returncode != 0 or done.stdout.strip() != "42":
        text = f"{path} does not run: {last_line(done) or 'no answer'}"
        yield Finding("JavaScript", NOT_OK, text, INSTALL)
    else:
        yield Finding("JavaScript", OK, f"{path} runs")


def check_ytdlp(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """How old yt-dlp is: its releases are named after their day."""
    version = metadata.version("yt-dlp")
    try:
        age = (date.today() - date(*numbers(version))).days
    except (TypeError, ValueError):
        yield Finding("yt-dlp", NOTE, f"{version}, of an unknown day")
        return
    if age > OLD_DAYS:
        text = f"{version} is {age} days old, and YouTube changes faster"
        yield Finding("yt-dlp", NOT_OK, text, 'pip install -U "yt-dlp[deno]" yt-dlp-ejs')
    else:
        yield Finding("yt-dlp", OK, f"{version}, {max(0, age)} days old")


def check_folder(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """The output folder: written to, renamed in, linked in, locked between processes."""
    if args.out is None:
        return
    out = args.out.absolute()
    place = out
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        yield Finding("folder", NOT_OK, f"{place} is a file", "name a folder for the clips")
        return
    try:
        with tempfile.TemporaryDirectory(prefix=".check-", dir=place) as inner:
            notes = _try_folder(Path(inner))
    except OSError as error:
        text = f"{place} cannot be written: {error.strerror}"
        yield Finding("folder", NOT_OK, text, "name another, or mend its permissions")
        return
    where = f"{out}: can be written, renamed in" + ("" if out.exists() else ", will be made")
    yield Finding("folder", NOTE if notes else OK, "; ".join([where, *notes]))


def _try_folder(inner: Path) -> list[str]:
    """What the file system of `inner` cannot do. Raises OSError where it cannot be used."""
    notes = []
    (inner / "a").write_bytes(b"a")
    os.replace(inner / "a", inner / "b")
    try:
        os.link(inner / "b", inner / "c")
    except OSError:
        notes.append("no hard links: clips of other folders are copied")
    if not _locks_hold(inner / "lock"):
        notes.append("locks do not hold between processes: one run at a time in this folder")
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


def check_room(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """Free space against what the lists still want; lists that are not here are not fetched."""
    if args.out is None:
        return
    free = free_bytes(args.out.absolute())
    try:
        find_lists(args.input_csv)
        plan = make_plan(read_wanted(args.input_csv, args), args.out.absolute(), args)
    except UserError as error:
        yield Finding("room", NOTE, f"{free / 1e9:,.1f} GB free; what is wanted is open: {error}")
        return
    needed = len(plan.to_fetch) * bytes_a_clip(args)
    text = f"{free / 1e9:,.1f} GB free, {len(plan.to_fetch):,} clips need about"
    text += f" {needed / 1e9:,.1f} GB"
    if needed > free:
        yield Finding(
            "room", NOT_OK, text, "make room; --short_side 256 halves it, --shard divides it"
        )
    else:
        yield Finding("room", OK, text)


def bytes_a_clip(args: argparse.Namespace) -> int:
    """What a clip takes at most, about, at the size that is asked for."""
    return BYTES_A_SMALL_CLIP if args.short_side and args.short_side <= 256 else BYTES_A_CLIP


SECONDS = 2.0  # of the section
LINES = 144  # of its picture: two seconds of a dense video at 480 lines came to 3.6 MB
PAGE = "docs/youtube.md says what helps"
UPDATE = 'pip install -U --pre "yt-dlp[deno]" yt-dlp-ejs'
LOGIN_COOKIES = ("LOGIN_INFO", "SAPISID", "__Secure-3PSID", "__Secure-1PSID")


def check_servers(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """The official lists: one HEAD, through each proxy."""
    base = with_slash(args.lists_base or DEEPMIND)
    yield from _heads("lists", base + OfficialList("400", "val").archive, args, "--lists_base URL")


def check_mirror(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """The mirror: one HEAD, through each proxy."""
    url = with_slash(args.mirror_base) + "600/val/k600_val_path.txt"
    yield from _heads("mirror", url, args, "--mirror_base URL of another, or --source youtube")


def _heads(link: str, url: str, args: argparse.Namespace, other: str) -> Iterator[Finding]:
    for proxy in args.proxy or [None]:
        way = f" through {hide_secrets(proxy)}" if proxy else ""
        yield _head(link, url, Web((proxy,) if proxy else ()), way, other)


def _head(link: str, url: str, web: Web, way: str, other: str) -> Finding:
    begun = time.monotonic()
    try:
        web.size(url)
    except WebError as error:
        text = f"{hide_secrets(url)}{way}: {hide_secrets(error.message)}"
        return Finding(link, NOT_OK, text, f"try again, or {other}")
    return Finding(
        link, OK, f"{hide_secrets(url)} answers in {time.monotonic() - begun:.1f} s{way}"
    )


def check_cookies(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """Whether the file holds an account's cookies that are not over."""
    if args.cookies is None:
        return
    todo = "export them anew from a browser that is logged in"
    jar = MozillaCookieJar(args.cookies)
    try:
        jar.load(ignore_discard=True, ignore_expires=True)
    except (LoadError, OSError, UnicodeDecodeError) as error:
        text = f"{args.cookies} is no cookie file in Netscape format ({error})"
        yield Finding("cookies", NOT_OK, text, todo)
        return
    login = [c for c in jar if c.name in LOGIN_COOKIES and c.domain.endswith("youtube.com")]
    over = [cookie for cookie in login if cookie.is_expired()]
    if over:
        text = f"{args.cookies}: {over[0].name} is over"
        yield Finding("cookies", NOT_OK, text, todo)
    elif not login:
        yield Finding("cookies", NOTE, f"{args.cookies} holds no login of YouTube", todo)
    else:
        yield Finding("cookies", OK, f"{args.cookies}: {len(login)} login cookies, none over")


def check_youtube(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    """One extraction, straight or through each proxy, and a section cut from the first."""
    cut = False
    for proxy in args.proxy or [None]:
        link = f"proxy {hide_secrets(proxy)}:" if proxy else "YouTube"
        options = _options(args, folder)
        try:
            info, log = _extract(args.check_id, options, folder, proxy)
        except FetchError as error:
            yield _failed(link, error, args)
            continue
        yield _extracted(link, info, log, args)
        if not cut:
            cut = True
            yield from _cut(info, options, folder, proxy)


def _options(args: argparse.Namespace, folder: Path) -> FetchOptions:
    return FetchOptions(
        out=folder,
        workspace=folder,
        ffmpeg=find_ffmpeg(args.ffmpeg),
        encode=Encode(max_height=LINES, audio=False),
        cookies=args.cookies.absolute() if args.cookies else None,
        cookies_from_browser=args.cookies_from_browser,
        ytdlp_args=(*args.ytdlp_args, "--verbose"),  # says which client is asked
        url_base=args.url_base,
        timeout=min(args.timeout, 120.0),
    )


def _extract(
    youtube_id: str, options: FetchOptions, folder: Path, proxy: str | None
) -> tuple[dict[str, Any], str]:
    argv = extract_command(youtube_id, options, folder)
    done = run_ytdlp(argv, timeout=options.timeout, env=child_environment(proxy))
    return read_info(done, options.url_base), done.stderr


def _extracted(link: str, info: dict[str, Any], log: str, args: argparse.Namespace) -> Finding:
    formats = info.get("formats") or [info]
    usable = [each for each in formats if str(each.get("url", "")).startswith("http")]
    clients = re.findall(r"Downloading (.+?) player API JSON", log)
    who = f"client {', '.join(dict.fromkeys(clients))}; " if clients else ""
    if classify(log) == "cookies":  # the extraction went on as a guest's
        return Finding(link, NOT_OK, "the account's cookies are over", REASONS["cookies"][1])
    text = f"{args.check_id}: {who}{len(usable)} of {len(formats)} formats with an address"
    return Finding(link, OK if usable else NOT_OK, text, "" if usable else UPDATE)


def _failed(link: str, error: FetchError, args: argparse.Namespace) -> Finding:
    """What an extraction that failed says of the address, the cookies, or the video."""
    message = hide_secrets(error.message)
    if error.reason in BLOCKS:
        return Finding(link, NOT_OK, f"this address is blocked ({error.reason}): {message}", PAGE)
    meaning = REASONS[error.reason][1]
    todo = f"{meaning}; or --check_id of another video" if is_youtube(args.url_base) else meaning
    return Finding(link, NOT_OK, f"{error.reason}: {message}", todo)


def _cut(
    info: dict[str, Any], options: FetchOptions, folder: Path, proxy: str | None
) -> Iterator[Finding]:
    """A short section, as a clip is cut: exact and checked; and how fast it came."""
    inputs = section_inputs(info, options)
    if not inputs or (proxy and not proxy.startswith("http://")):
        yield Finding("section", NOTE, "cannot be read in sections here: videos come whole")
        return
    begun = time.monotonic()
    try:
        way = _cut_start(inputs, options, folder / "section.mp4", proxy)
    except (BadClip, OSError) as error:
        yield Finding("section", NOT_OK, hide_secrets(str(error)), f"{UPDATE}; {PAGE}")
        return
    seconds = time.monotonic() - begun
    size = (folder / "section.mp4").stat().st_size
    text = f"{SECONDS:.0f} s, found by {way}, cut and encoded in {seconds:.1f} s"
    yield Finding("section", OK, f"{text}: {size / seconds / 1000:,.0f} kB of clip a second")


def _cut_start(
    inputs: Sequence[Input], options: FetchOptions, target: Path, proxy: str | None
) -> str:
    """Cut a video's first seconds; says what found their bytes. Raises BadClip, OSError."""
    deadline = time.monotonic() + options.timeout
    attempt = Attempt(options, target.parent, proxy, deadline)
    with open_streams(attempt, inputs, options.timeout) as streams:
        clip = Clip("section", "", 0.0, SECONDS)
        parts, _ = fetch_fragments(attempt, streams, clip, deadline)
    argv = cut_command(options.ffmpeg, parts or inputs, 0.0, SECONDS, options.encode, target)
    done = attempt.run(argv, options.timeout)
    if done.returncode != 0:
        raise BadClip("network", last_line(done) or "ffmpeg failed")
    check_clip(target, SECONDS, wants_audio=False)
    return "the video's index" if parts else "ffmpeg"


Check = Callable[[argparse.Namespace, Path], Iterator[Finding]]

# Which checks a source needs, in this order; "" is every source.
LINKS: tuple[tuple[str, Check], ...] = (
    ("", check_python),
    ("", check_ffmpeg),
    ("youtube", check_js_runtime),
    ("youtube", check_ytdlp),
    ("cvdf", check_servers),
    ("cvdf", check_mirror),
    ("youtube", check_cookies),
    ("youtube", check_youtube),
    ("", check_folder),
    ("", check_room),
)


def check_steps(args: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Try the links that --source needs; 0 when all are in order, else 2. Raises Stopped."""
    bad = 0
    with stop_on_signals(), tempfile.TemporaryDirectory(prefix="kinetics-check-") as folder:
        for finding in _findings(args, Path(folder)):
            tell(finding.line())
            bad += finding.state == NOT_OK
    tell("all in order" if not bad else f"{bad} not in order: docs/youtube.md says more of YouTube")
    return EXIT_USAGE if bad else EXIT_OK


def _findings(args: argparse.Namespace, folder: Path) -> Iterator[Finding]:
    for source, link in LINKS:
        if STOP.is_set():
            raise Stopped
        if source and source not in args.source:
            continue
        try:
            yield from link(args, folder)
        except UserError as error:
            name = link.__name__.removeprefix("check_").replace("_", " ")
            yield Finding(name, NOT_OK, str(error))


NO_ADDRESS = "You must provide at least one URL"


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
        raise UserError(f"yt-dlp does not start ({said or 'it says nothing'}): {INSTALL}")
    if is_youtube(args.url_base) and not _has_js_runtime(args):
        say(f"warning: no JavaScript runtime, and YouTube needs one: {INSTALL}")


def _has_js_runtime(args: argparse.Namespace) -> bool:
    """Whether the deno that yt-dlp looks for is there, or the user named another."""
    if any(word.startswith("--js-runtimes") for word in args.ytdlp_args):
        return True
    try:
        return bool(metadata.version("deno"))
    except metadata.PackageNotFoundError:
        return shutil.which("deno") is not None


BAD_FOLDER = ".bad"
PACKAGES = ("av", "ffmpeg-python", "joblib")


@dataclass(frozen=True)
class ClipToCheck:
    """A clip on disk; `is_short`: its video ends before it does, as the report knows."""

    clip: Clip
    is_short: bool


@dataclass(frozen=True)
class Verified:
    """What came of it: why it is bad, or why nobody knows; neither for a good one."""

    clip: Clip
    bad: BadClip | None = None
    unknown: str = ""


def verify_clip(out: Path, timeout: float, task: ClipToCheck) -> Verified:
    """The worker, in a process of its own: decode one clip whole, and measure it."""
    path = out / f"{task.clip.name}.mp4"
    try:
        found = decode_whole(path, timeout)
        check_complete(found)
        if not task.is_short:
            check_length(found, clip_window(task.clip)[1])
    except BadClip as error:
        return Verified(task.clip, error)
    return Verified(task.clip)


def verify(lists: ClipLists, out: Path, args: argparse.Namespace) -> None:
    """Decode the wanted clips on disk whole; move the bad ones aside (--dry_run: only say so)."""
    there = names_in(out, ".mp4")
    clips = [clip for name, clip in lists.clips.items() if name in there]
    shorts = read_shorts(out / REPORT_NAME)
    tasks = (ClipToCheck(clip, clip.name in shorts) for clip in clips)
    with ExitStack() as stack:
        workers = Workers(args.num_jobs)
        if args.dask and clips:
            workspace = stack.enter_context(run_folder(out))
            workers = stack.enter_context(open_workers(args, workspace, PACKAGES))
        progress = stack.enter_context(watch(len(clips), "clip", args.quiet, workers))
        worker = functools.partial(verify_clip, out, args.timeout)
        checked = workers.run(worker, tasks, lost)
        write_down(checked, progress, out, args.dry_run)
    if not args.quiet:
        done, bad = sum(progress.counts.values()), progress.counts["bad"]
        unknown = progress.counts["unknown"]
        more = f", {unknown:,} that could not be checked" if unknown else ""
        say(f"verified     {done:,} of {plural(len(clips), 'clip')}, {bad:,} bad{more}")


def lost(task: ClipToCheck, how: str) -> Verified:
    """Of a clip that has cost three processes of a cluster, or workers."""
    if "process" in how:
        return Verified(task.clip, BadClip("undecodable", f"the decoder crashed: {how}"))
    return Verified(task.clip, unknown=how)


def write_down(
    checked: Generator[Verified, None, None], progress: Progress, out: Path, dry_run: bool
) -> None:
    """Say what is bad, and move it aside."""
    for each in checked:
        name = each.clip.name
        if each.unknown:
            progress.add("unknown")
            progress.say(f"not checked: {name}: {each.unknown}; it stays")
            continue
        progress.add("bad" if each.bad else "good")
        if each.bad is None:
            continue
        place = "would be moved aside"
        if not dry_run:
            place = move_bad(out / f"{name}.mp4", out / BAD_FOLDER)
        progress.say(f"{each.bad.reason}: {name}: {each.bad.message}; {place}")


def move_bad(path: Path, folder: Path) -> str:
    """Move a bad clip aside; what was done. Raises UserError."""
    try:
        return f"moved to {set_aside(path, folder)}"
    except FileNotFoundError:
        return "gone already"  # another run, or the user, was quicker
    except OSError as error:
        raise UserError(f"cannot move {path} to {folder}: {error.strerror}") from error
