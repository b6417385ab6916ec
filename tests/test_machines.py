"""One folder, many machines: a report each, and nobody's half-done work is deleted."""

from __future__ import annotations

import csv
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import MakeSource
from tests.scripts import ROOT, finish, start, write_list
from utils.clip import Clip, Result
from utils.files import MACHINE_VARIABLE, RUN_PREFIX, SILENT_SECONDS, run_folder
from utils.lists.ava import read_windows
from utils.reorg import REPORT_COLUMNS, read_unfinished
from utils.report import (
    RESULT_COLUMNS,
    ReportFile,
    own_names,
    read_known,
    read_reports,
    read_shorts,
    report_paths,
)

NAMES = [f"vid_{number:07d}" for number in range(100)]
LIST = [f"{name},0,1" for name in NAMES]


def on_machine(name: str, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """download.py on a machine of that name: its locks are its own, and appending is not atomic."""
    locks = folder / f"locks of {name}"
    locks.mkdir(exist_ok=True)
    far = {
        MACHINE_VARIABLE: name,
        "PYTHONPATH": str(ROOT / "tests" / "far_machine"),
        "FAR_LOCKS": str(locks),
    }
    listing = write_list(folder / f"{name}.csv", LIST)
    command = [folder / "out", "--input_csv", listing, "--source", f"clips:{folder / 'held'}"]
    return start("download.py", *command, *arguments, cwd=folder, env=far)


def hold_clips(folder: Path, video: Path) -> None:
    (folder / "held").mkdir()
    for name in NAMES:
        (folder / "held" / f"{name}_000000_000001.mp4").symlink_to(video)


def lines_of(out: Path) -> dict[str, list[dict[str, str]]]:
    """The rows of each report, every line of it whole."""
    found = {}
    for path in report_paths(out / "download_report.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            found[path.name] = list(csv.DictReader(file, strict=True))
        for row in found[path.name]:
            assert list(row) == list(RESULT_COLUMNS) and None not in row.values()
            assert row["clip"][:11] in NAMES and row["finished_at"].endswith("Z")
    return found


@pytest.mark.parametrize(
    "shards",
    [pytest.param(("1/2", "2/2"), marks=pytest.mark.slow), ("1/1", "1/1")],
    ids=["shards", "same list"],
)
def test_two_machines_in_one_folder(
    shards: tuple[str, str], source: MakeSource, tmp_path: Path
) -> None:
    hold_clips(tmp_path, source(seconds=1, size=(64, 48)))
    pair = [
        on_machine(name, tmp_path, "--shard", shard, "--n", "2")
        for name, shard in zip(("alpha", "beta"), shards, strict=True)
    ]
    assert [finish(process).code for process in pair] == [0, 0]
    out = tmp_path / "out"
    reports = lines_of(out)
    assert len(reports) == 2
    clips = [row["clip"] for rows in reports.values() for row in rows]
    assert len(set(clips)) == len(list(out.glob("*.mp4"))) == 100
    assert {row["status"] for rows in reports.values() for row in rows} == {"downloaded"}
    assert not any(path.is_symlink() for path in out.glob("*.mp4"))  # as those in `held` are
    if shards[0] == "1/2":
        assert len(clips) == 100
        assert "download_report.shard-1-of-2.csv" in reports
    else:
        assert "download_report.csv" in reports
        assert {"download_report.alpha.csv", "download_report.beta.csv"} & set(reports)
    assert not (out / ".tmp").exists()
    # One machine again, afterwards, knows what both wrote, and keeps to the plain name.
    (out / f"{NAMES[7]}_000000_000001.mp4").unlink()
    again = finish(on_machine("gamma", tmp_path))
    assert again.code == 0, again.err
    assert "99" in again.err and "download_report.csv, and" in again.err
    assert len(lines_of(out)["download_report.csv"]) >= 1


def test_the_latest_line_of_all_machines_counts(tmp_path: Path) -> None:
    path = tmp_path / "download_report.csv"
    clips = [Clip(f"abcdefghij{n}_000001_000002", f"abcdefghij{n}", 1, 2) for n in range(5)]

    def write(name: str, *rows: tuple[int, str, str]) -> None:
        with ReportFile(tmp_path / name, RESULT_COLUMNS) as report:
            for number, reason, hour in rows:
                row = Result.of(clips[number], reason, "youtube").__dict__
                report.append((row | {"finished_at": f"2026-11-01T{hour}:00:00Z"}).values())

    write(
        "download_report.node-2.csv",
        (0, "removed", "10"),
        (1, "", "09"),
        (2, "short", "08"),
        (4, "private", "07"),
    )  # not in order
    write("download_report.csv", (0, "network", "11"), (1, "private", "12"), (2, "network", "12"))
    write(
        "download_report.shard-1-of-2.csv",
        (0, "geo_blocked", "09"),
        (3, "short", "09"),
        (4, "removed", "09"),
    )
    (tmp_path / "download_report.txt").write_text("notes")
    assert read_known(path).reasons == {
        clips[0].name: ("failed", "network", "youtube"),
        clips[1].name: ("unavailable", "private", "youtube"),
        clips[2].name: ("failed", "network", "youtube"),
        clips[4].name: ("unavailable", "removed", "youtube"),
    }
    # What was downloaded last is what is on disk, whatever came after.
    assert read_shorts(path) == {clips[2].name, clips[3].name}
    assert read_windows(tmp_path) == {}


def test_a_line_that_comes_while_reports_are_read_does_no_harm(tmp_path: Path) -> None:
    main = tmp_path / "download_report.csv"
    line = "{0},,1,2,failed,network,youtube,1,1.0,0,,2026-11-25T00:00:00Z\n"
    header = ",".join(RESULT_COLUMNS) + "\n"
    other = tmp_path / "download_report.other.csv"
    main.write_text(header + line.format("a"))
    other.write_text(header + line.format("b"))
    rows = read_reports(main, RESULT_COLUMNS)
    found = [next(rows)[0]]
    with other.open("a") as file:
        file.write(line.format("c"))
    assert [*found, *(row[0] for row in rows)] == ["a", "b", "c"]


def test_only_a_machines_own_leftovers_are_cleared_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base, now = tmp_path / ".tmp", time.time()

    def leave(name: str, age: float, owner: str) -> Path:
        folder = base / name
        folder.mkdir(parents=True)
        (base / f"{name}.lock").write_text(owner)
        os.utime(folder, (now - age, now - age))
        return folder

    monkeypatch.setenv(MACHINE_VARIABLE, "node-1")
    dead = [
        leave("run-node-1-1", 10, "node-1"),
        leave("run-r.csv", 10, "node-1"),
        leave("run-node-2-1", SILENT_SECONDS + 60, "node-2"),
    ]
    alive = [
        leave("run-node-2-2", 3600, "node-2"),
        leave("run-node-1-b-1", 3600, "node-1-b"),
        leave("run-abcdefgh", 3600, ""),
    ]
    with run_folder(tmp_path) as workspace:
        assert workspace.name == "run-node-1-1" and not list(workspace.iterdir())
        with run_folder(tmp_path):
            assert workspace.exists()
    for folder in dead:
        assert list(base.glob(f"{folder.name}*")) == []
    for folder in alive:
        assert len(list(base.glob(f"{folder.name}*"))) == 2


def test_a_report_has_one_writer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(MACHINE_VARIABLE, "head.lab/7")
    path = tmp_path / "r.csv"

    def names(count: int, shard: tuple[int, int] = (1, 1)) -> list[str]:
        if not count:
            return []
        with run_folder(tmp_path, own_names(path, shard)) as workspace:
            return [workspace.name.removeprefix(RUN_PREFIX), *names(count - 1, shard)]

    assert names(3) == ["r.csv", "r.head-lab-7.csv", "r.head-lab-7-2.csv"]
    assert names(2, (2, 4)) == ["r.shard-2-of-4.csv", "r.shard-2-of-4-head-lab-7.csv"]
    assert names(1) == ["r.csv"]


def test_what_a_kill_left_of_beginning_and_clearing_is_cleared(tmp_path: Path) -> None:
    base = tmp_path / ".tmp"
    (base / "run-r.csv.dead" / "a").mkdir(parents=True)
    (base / "run-new").mkdir()  # another run is about to write its machine's name
    (base / "run-s.csv.lock").touch()  # its folder was not made yet
    with run_folder(tmp_path, ["new", "s.csv"]) as workspace:
        assert workspace.name == "run-s.csv"
        assert not (base / "run-r.csv.dead").exists()
    assert sorted(path.name for path in base.iterdir()) == ["run-new", "run-new.lock"]


@pytest.mark.parametrize("before_end", ["link", "moved"])
def test_nothing_outside_is_removed_through_a_link(before_end: str, tmp_path: Path) -> None:
    """Somebody puts a link in the place of `.tmp`, to a folder with the same names, mid-run."""
    out, other = tmp_path / "out", tmp_path / "mine"
    out.mkdir()
    other.mkdir()
    with run_folder(out, ["r.csv"]) as workspace:
        (workspace / "clip").touch()
        names = [path.relative_to(out / ".tmp") for path in (out / ".tmp").rglob("*")]
        for name in sorted([*names, Path("lock")]):
            if (out / ".tmp" / name).is_dir():
                (other / name).mkdir(parents=True)
            else:
                (other / name).write_text(workspace.name)
        kept = sorted(other.rglob("*"))
        (out / ".tmp").rename(out / "aside")
        if before_end == "link":
            (out / ".tmp").symlink_to(other)
        else:
            other.rename(out / ".tmp")
            other = out / ".tmp"
            kept = sorted(other.rglob("*"))
    assert sorted(other.rglob("*")) == kept and len(kept) >= 4
    assert not list((out / "aside").iterdir())


@pytest.mark.parametrize("more", [(), ("--short_side", "32")], ids=["linked", "encoded"])
def test_a_run_whose_folder_becomes_a_link_writes_and_removes_nothing_outside(
    more: tuple[str, ...], source: MakeSource, tmp_path: Path
) -> None:
    hold_clips(tmp_path, source(seconds=1, size=(64, 48)))
    out, mine = tmp_path / "out", tmp_path / "mine"
    (mine / "folder").mkdir(parents=True)
    for name in ("lock", "folder/notes.txt"):
        (mine / name).write_text("mine")
    process = on_machine("alpha", tmp_path, "--n", "1", *more)
    deadline = time.monotonic() + 60
    while not list(out.glob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.01)
    (out / ".tmp").rename(out / "aside")
    (out / ".tmp").symlink_to(mine)
    done = finish(process)
    assert done.code == 2 and f"error: {out / '.tmp'} is no longer there" in done.err
    assert sorted(path.name for path in mine.rglob("*")) == ["folder", "lock", "notes.txt"]
    assert {(mine / name).read_text() for name in ("lock", "folder/notes.txt")} == {"mine"}


def begin_and_end(out: Path) -> None:
    for _ in range(100):
        with run_folder(out) as workspace:
            (workspace / "clip").touch()


def test_runs_that_begin_and_end_at_once_keep_their_folders(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(begin_and_end, [tmp_path] * 4)
    assert list(tmp_path.iterdir()) == []


def test_reorg_removes_no_source_that_another_machine_knows_more_of(tmp_path: Path) -> None:
    def write(name: str, *rows: tuple[str, str]) -> None:
        with ReportFile(tmp_path / name, REPORT_COLUMNS) as report:
            report.append(*((source, "clip", action, "") for source, action in rows))

    write("reorg_report.csv", ("a", "moving"), ("b", "moving"), ("c", "moving"), ("c", "left"))
    write("reorg_report.node.csv", ("b", "left"), ("d", "moving"))
    assert read_unfinished(tmp_path / "reorg_report.csv") == {"a", "d"}


def test_a_run_that_was_killed_keeps_no_name(source: MakeSource, tmp_path: Path) -> None:
    hold_clips(tmp_path, source(seconds=1, size=(64, 48)))
    process = on_machine("alpha", tmp_path, "--n", "1")
    out = tmp_path / "out"
    deadline = time.monotonic() + 60
    while not list(out.glob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert list((out / ".tmp").glob("run-download_report.csv"))
    # Another machine takes it for alive; its own sees by the lock that it is not.
    assert finish(on_machine("beta", tmp_path, "--limit", "75")).code == 0
    assert "download_report.beta.csv" in lines_of(out)
    assert (out / ".tmp").exists()
    assert finish(on_machine("alpha", tmp_path)).code == 0
    assert [path.name for path in report_paths(out / "download_report.csv")] == [
        "download_report.csv",
        "download_report.beta.csv",
    ]
    assert not (out / ".tmp").exists()


def test_the_slurm_script_of_the_docs_runs_as_it_stands(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    script = tmp_path / "kinetics.sh"
    script.write_text(text.partition("```bash\n")[2].partition("```")[0], encoding="utf-8")
    listing = write_list(tmp_path / "list.csv", LIST)
    slurm = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_ARRAY_TASK_COUNT": "8"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = 0
    for part in ("1", "8"):
        done = subprocess.run(
            ["bash", script, "--dry_run", "--input_csv", listing],
            env=os.environ | slurm | {"SLURM_ARRAY_TASK_ID": part, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found += int(done.stderr.partition("to download  ")[2].split()[0])
    assert 10 < found < 45  # a quarter of 100
