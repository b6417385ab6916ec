"""The promise, as one check that follows every fault: `keeps_promise(lab, done)`.

A file under its final name is whole, exact and playable; nothing else on the user's disk changes;
the report, the summary, the exit code and the disk agree; no process is left; the same command
again finishes the job, and once more asks for nothing.

`Lab` is a user's disk with the stand-in behind it: it knows what is wanted, what every clip must
hold, and what else lies there. Tests and benchmarks/kills.py share it.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.scripts import ROOT, Done, finish, write_list
from tests.standin.server import StandIn
from tests.standin.sources import beep_times, frame_numbers

FPS = 25  # of the sources, unless said otherwise
SMALL: dict[str, Any] = {
    "seconds": 4,
    "size": (160, 90),
    "gop": 25,
}  # a source that is quickly made, and cut
HASHED_BELOW = 1 << 20  # bytes; larger bystanders are known by their times and sizes
SOMEBODY = 12345  # a user id that is not ours
Fingerprint = dict[str, tuple[Any, ...]]


class Lab:
    """A folder of one test: an output folder, bystanders, a list, and what the list is to give."""

    def __init__(self, folder: Path, standin: StandIn, out: str | Path = "out") -> None:
        self.folder, self.standin = folder, standin
        self.out = folder / out
        self.list = folder / "list.csv"
        self.rows: list[str] = []
        self.frames: dict[str, list[int]] = {}  # clip -> the numbers of the frames it holds
        self.lost: set[str] = set()  # wanted clips that can never be had
        self.silent: set[str] = set()  # clips without a sound, or with beeps of their own
        self.refused = 0  # rows of the list that are none
        self.more: list[object] = []  # options of every run
        self.kept: set[str] = set()  # further names that a run may leave in the output folder
        self.before: Fingerprint = {}
        self._known: dict[tuple[Any, ...], str] = {}  # files that were looked at, and what is wrong
        for name in ("home", "tmp", "mine"):
            (folder / name).mkdir()
        (folder / "mine" / "notes.txt").write_text("not to be touched")
        self.out.mkdir(parents=True)
        self.put_bystanders()

    def put_bystanders(self) -> None:
        """Somebody else's files, in the output folder itself."""
        (self.out / "notes.txt").write_text("nor this")
        (self.out / "holiday.mp4").write_bytes(b"no clip of any list")
        if os.geteuid() == 0:
            for name in ("notes.txt", "holiday.mp4"):
                os.chown(self.out / name, SOMEBODY, SOMEBODY)

    # --- what is wanted ---

    def want(self, youtube_id: str, start: int = 1, end: int = 2, *, lost: bool = False) -> str:
        """A row of the list; the clip's name."""
        self.rows.append(f"{youtube_id},{start},{end}")
        name = f"{youtube_id}_{start:06d}_{end:06d}"
        if lost:
            self.lost.add(name)
        else:
            self.frames[name] = list(range(start * FPS, end * FPS))
        return name

    def video(
        self, youtube_id: str, source: Path, start: int = 1, end: int = 2, **more: Any
    ) -> str:
        """A video that plays, and a clip that is wanted of it."""
        self.standin.add_video(youtube_id, source, **more)
        return self.want(youtube_id, start, end)

    @property
    def wanted(self) -> set[str]:
        return set(self.frames) | self.lost

    # --- runs ---

    @property
    def environment(self) -> dict[str, str]:
        """Home, cache and temporary folder inside; the cache also marks our processes."""
        places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": ".cache"}
        inside = {name: str(self.folder / place) for name, place in places.items()}
        return os.environ | inside | {"COLUMNS": "100"}

    def command(self, *more: object) -> list[object]:
        given: list[object] = ["download.py", self.out, "--input_csv", self.list]
        given += ["--ytdlp_args", self.standin.ytdlp_args, "--videos_per_hour", "0"]
        return [*given, *self.more, *more]

    def start(
        self,
        *more: object,
        script: Sequence[object] = (),
        through: Sequence[str] = (),
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start download.py (or `script`), `through` a command such as `prlimit`."""
        if self.rows or not self.list.exists():
            write_list(self.list, self.rows)
        self.before = fingerprint(self.folder, leave_out=self.out)
        name, *arguments = script or self.command(*more)
        argv = [*through, sys.executable, str(ROOT / str(name)), *map(str, arguments)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        given: dict[str, Any] = {**pipes, "cwd": self.folder, **options}
        environment = self.environment | (env or {})
        return subprocess.Popen(argv, text=True, encoding="utf-8", env=environment, **given)

    def run(self, *more: object, timeout: float = 400, **options: Any) -> Done:
        return finish(self.start(*more, **options), timeout)

    # --- what is there ---

    def clips(self) -> set[str]:
        """The wanted clips that are on disk."""
        return {p.stem for p in self.out.glob("*.mp4") if p.stem in self.wanted}

    def report(self) -> dict[str, dict[str, str]]:
        """The reports by clip: the last line for a clip counts."""
        found: dict[str, dict[str, str]] = {}
        for path in sorted(self.out.glob("download_report*.csv")):
            with path.open(encoding="utf-8", newline="", errors="replace") as file:
                for row in csv.DictReader(file):
                    if row.get("finished_at") and row["finished_at"].endswith("Z"):
                        found[row["clip"]] = row
        return found

    def reasons(self) -> dict[str, str]:
        """Video -> the reason that the report gives."""
        return {row["youtube_id"]: row["reason"] for row in self.report().values() if row["clip"]}

    def processes(self) -> list[psutil.Process]:
        """All that runs and was started by a run of this lab."""
        mark = self.environment["XDG_CACHE_HOME"]
        found = []
        for process in psutil.process_iter(["environ", "status"]):
            ours = (process.info["environ"] or {}).get("XDG_CACHE_HOME") == mark
            if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def end_orphans(self) -> None:
        """What a SIGKILL of the parent leaves."""
        for process in self.processes():
            process.kill()
        wait_for(lambda: not self.processes())

    def bad_clips(self) -> list[str]:
        """The clips on disk that are not what they should be."""
        return [name for name in sorted(self.clips()) if problem_of(self, name)]


def problem_of(lab: Lab, name: str) -> str:
    """What is wrong with a clip under its final name; empty if it is whole, exact and playable."""
    path = lab.out / f"{name}.mp4"
    if name in lab.lost:
        return f"{name} is there, and cannot be"
    info = path.lstat()
    key = (name, info.st_ino, info.st_mtime_ns, info.st_size)
    if key not in lab._known:
        try:
            lab._known[key] = _content_problem(path, lab.frames[name], name in lab.silent)
        except Exception as error:
            return f"{name} does not play: {error!r}"
    return lab._known[key]


def _content_problem(path: Path, wanted: list[int], silent: bool) -> str:
    found = frame_numbers(path)
    if found != wanted:
        return f"{path.stem} holds {found[:1]} to {found[-1:]}, {len(found)} frames"
    if silent:
        return ""
    beeps = beep_times(path)  # on every whole second of the video, where each clip begins
    if [round(beep, 1) for beep in beeps] != list(range(len(wanted) // FPS)):
        return f"{path.stem} beeps at {beeps}"
    return ""


def fingerprint(folder: Path, leave_out: Path | None = None) -> Fingerprint:
    """All that lies below a folder: kind, owner, size, time, content; no link is followed."""
    found: Fingerprint = {}
    for path in _below(folder, {leave_out, folder / ".cache"}):
        info = path.lstat()
        kept: list[Any] = [info.st_mode, info.st_uid]
        if stat.S_ISLNK(info.st_mode):
            kept.append(os.readlink(path))
        elif stat.S_ISREG(info.st_mode):
            kept += [info.st_size, info.st_mtime_ns]
            if info.st_size < HASHED_BELOW:
                kept.append(hashlib.md5(path.read_bytes()).hexdigest())
        found[str(path.relative_to(folder))] = tuple(kept)
    return found


def _below(folder: Path, leave_out: set[Path | None]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path not in leave_out:
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from _below(path, leave_out)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


# --- the five invariants -----------------------------------------------------------------------


def files_are_whole(lab: Lab) -> None:
    """A file under its final name is whole, exact and playable."""
    problems = [problem_of(lab, name) for name in sorted(lab.clips())]
    assert not any(problems), problems


def nothing_else_changed(lab: Lab, killed: bool = False) -> None:
    """Outside of the output folder nothing is new, gone or touched; in it, nothing of others."""
    now = fingerprint(lab.folder, leave_out=lab.out)
    assert now == lab.before, dict(now.items() ^ lab.before.items())
    if not lab.out.exists():
        return
    known = {"notes.txt", "holiday.mp4", ".clips_settings.json", *lab.kept} | {
        f"{name}.mp4" for name in lab.wanted
    }
    there = {path.name for path in lab.out.iterdir()}
    strange = {name for name in there - known if not name.startswith("download_report")}
    left = [str(path) for name in strange for path in (lab.out / name).rglob("*")]
    assert strange <= ({".tmp"} if killed else set()), (strange, left)
    if (lab.out / "notes.txt").exists():
        assert (lab.out / "notes.txt").read_text() == "nor this"
        assert (lab.out / "holiday.mp4").read_bytes() == b"no clip of any list"


def all_agree(lab: Lab, done: Done, killed: bool = False) -> None:
    """The report, the summary, the exit code and the disk say the same."""
    there, report = lab.clips(), lab.report()
    said = re.findall(r"on disk(?: now)?: ([\d,]+) of ([\d,]+)", done.err)
    if said:
        assert [int(number.replace(",", "")) for number in said[-1]] == [
            len(there),
            len(lab.wanted),
        ], done.err
    reported = {name for name, row in report.items() if row["status"] == "downloaded"}
    assert reported <= there, f"reported and not there: {reported - there}"
    if killed:
        return  # a clip may have its name, and not yet its line
    assert there <= reported, f"there and not reported: {there - reported}"
    if done.code == 0:
        assert there == lab.wanted
    elif done.code == 1:
        assert there < lab.wanted or lab.refused, done.err
        for name in lab.wanted - there:
            assert report[name]["status"] in ("failed", "unavailable"), report.get(name)
    elif done.code == 2:
        last = done.err.strip().splitlines()[-1]
        assert "error: " in last and done.err.count("error: ") == 1, done.err
    else:
        assert done.code > 128 and ("stopp" in done.err or not done.err), (done.code, done.err)


def no_process_is_left(lab: Lab) -> None:
    left = lab.processes()
    assert not left, [process.cmdline() for process in left]


def the_same_again_finishes(lab: Lab) -> None:
    """The same command finishes the job; once more, it asks for nothing and changes nothing."""
    code = 1 if lab.lost or lab.refused else 0
    again = lab.run()
    assert again.code == code, (again.code, again.err)
    assert lab.clips() == set(lab.frames), again.err
    checks(lab, again)
    before = fingerprint(lab.out)
    lab.standin.clear_log()
    once_more = lab.run()
    assert once_more.code == code, once_more.err
    assert lab.standin.requests() == [], "asked for what is there"
    assert fingerprint(lab.out) == before


def checks(lab: Lab, done: Done, killed: bool = False) -> None:
    """The first four, which hold at the end of every run."""
    if not killed:
        no_process_is_left(lab)
    assert "Traceback" not in done.err, done.err
    nothing_else_changed(lab, killed)
    files_are_whole(lab)
    all_agree(lab, done, killed)


def keeps_promise(
    lab: Lab, done: Done, code: int, *, mend: Callable[[], object] | None = None
) -> None:
    """The one check: the run ended with `code`, all five hold; `mend` takes the fault away.

    A `code` of -9 is a run that was killed outright: its children may outlive it.
    """
    assert done.code == code, (done.code, done.err)
    killed = done.code == -signal.SIGKILL
    checks(lab, done, killed)
    if killed:
        lab.end_orphans()
    lab.standin.clear_knobs()
    if mend is not None:
        mend()
    the_same_again_finishes(lab)
