"""Group 10: lists of every bad kind. What is no list is told in one line, and nothing is made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MakeSource
from tests.faults.promise import SMALL, Lab, keeps_promise
from tests.scripts import ROOT, run_here, write_list

HEADER = "youtube_id,time_start,time_end,label,split"
ROWS = (  # rows that are no clips, one of each kind
    "../../xxxxx,0,10,a,val",
    "/etc/passwd,0,10,a,val",
    ";touch x___,0,10,a,val",
    "$(touch x)1,0,10,a,val",
    "`touch x`12,0,10,a,val",
    "--exec rm12,0,10,a,val",
    "%(title)s_1,0,10,a,val",
    "abcdefghijk,NaN,10,a,val",
    "abcdefghijk,inf,-1,a,val",
    "abcdefghijk,1e9,10,a,val",
    "abcdefghijk,1e300,10,a,val",
    "abcdefghijk,-5,10,a,val",
    "abcdefghijk,10,8,a,val",
    "abcdefghijk,8,10,a,val,more,columns",
    "abcdefghijk,8",
    '"abcdefghijk,8,10,a,val',
    "abcdefghijk\u0663,8,10,a,val",
    "\u202eabcdefghij,8,10,a,val",
    "abcdefghij\x00,8,10,a,val",
    f"{'a' * 300},8,10,a,val",
    ",,,,",
    '"abcde\nfghijk",8,10,a,val',
)
GOOD = (
    "00000000012,1,2,an id like a number,val",
    "123456e7890,1,2,another,val",
    '"-bcdefghijk","1","2","a, quoted",validate',
    "__exec_____,1,2,\u202ert,val",
    "abcdefghijk,1,2,;touch x,val",
)


@pytest.mark.parametrize(
    ("ends", "encoding"),
    [
        pytest.param("\r\n", "utf-8-sig", id="BOM, CRLF"),
        pytest.param("\n", "utf-8", id="plain", marks=pytest.mark.slow),
    ],
)
def test_rows_that_are_none(ends: str, encoding: str, lab: Lab, source: MakeSource) -> None:
    """Refused with their line; ids that look like numbers or options are ids; nothing is run."""
    names = [row.strip('"')[:11] for row in GOOD]
    for name in names:
        lab.video(name, source(**SMALL))
    lines = [HEADER, *ROWS, *GOOD]
    lab.rows = []
    lab.list.write_bytes(ends.join(lines).encode(encoding))  # no last newline
    lab.refused = len(ROWS) + 1  # a newline in a field makes two rows
    done = lab.run()
    report = (lab.out / "download_report.csv").read_text(encoding="utf-8")
    assert report.count(",invalid,") == lab.refused
    for number in range(len(ROWS)):
        assert f"list.csv:{number + 2}: " in report, ROWS[number]
    assert "\u202e" not in done.err and "\x00" not in done.err
    assert lab.clips() == {f"{name}_000001_000002" for name in names}
    keeps_promise(lab, done, 1)
    assert (lab.out / "download_report.csv").read_text(encoding="utf-8") == report


NO_LISTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "header only": (b"youtube_id,time_start,time_end\n", "no row"),
    "missing columns": (b"label,video\nx,y\n", "no youtube_id, time_start, time_end"),
    "doubled columns": (b"youtube_id,youtube_id,time_start,time_end\n", "twice"),
    "Latin-1": (b"youtube_id,time_start,time_end,label\nabcdefghijk,1,2,caf\xe9\n", "not UTF-8"),
    "UTF-16 without BOM": ("youtube_id,time_start,time_end\n".encode("utf-16-le"), "not UTF-8"),
    "binary": (bytes(range(256)) * 64, "not UTF-8"),
    "one endless line": (b"youtube_id" * 300_000, "a line is longer than"),
    "AVA boxes": (b"abcdefghijk,0902,0.1,0.2,0.3,0.4,12\n", "make_ava_kin_download_csv.py"),
    "AVA key frames": (b"abcdefghijk,0902\n", "make_ava_kin_download_csv.py"),
    "one row that is no clip": (b"youtube_id,time_start,time_end\nx,1,2\n", "no row of"),
    "no clip at all": (
        b"youtube_id,time_start,time_end\n" + b"x,1,2\n" * 100_001,
        "is this a list",
    ),
}


@pytest.mark.parametrize("name", NO_LISTS)
def test_what_is_no_list(name: str, tmp_path: Path) -> None:
    content, says = NO_LISTS[name]
    (tmp_path / "list.csv").write_bytes(content)
    done = run_here("download.py", "out", "--input_csv", "list.csv", cwd=tmp_path)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1
    assert "list.csv" in done.err
    assert done.err.isprintable() or done.err[:-1].isprintable()
    assert not (tmp_path / "out").exists()


def test_a_folder_without_lists(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    done = run_here("download.py", "out", "--input_csv", "lists", cwd=tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "no list (*.csv) in the folder lists" in done.err


def long_list(folder: Path, rows: int) -> Path:
    path = folder / "long.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("youtube_id,time_start,time_end,label\n")
        for start in range(0, rows, 100_000):
            file.writelines(f"a{n:010d},1,11,x\n" for n in range(start, start + 100_000))
    return path


def memory_of(command: list[str], folder: Path) -> tuple[subprocess.CompletedProcess[str], int]:
    """What a command printed, and the largest of its resident memory in MB."""
    code = "import resource, subprocess, sys; r = subprocess.run(sys.argv[1:]);"
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024);"
    code += "sys.exit(r.returncode)"
    done = subprocess.run(
        [sys.executable, "-c", code, sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=200,
    )
    return done, int(done.stdout.split()[-1])


def download(folder: Path, listing: Path, *more: str) -> list[str]:
    script = str(ROOT / "download.py")
    return [script, "out", "--input_csv", str(listing), "--dry_run", *more]


def test_a_limit_ends_the_reading(tmp_path: Path) -> None:
    """Ten clips of a million rows take the memory of ten clips."""
    listing = long_list(tmp_path, 1_000_000)
    done, megabytes = memory_of(download(tmp_path, listing, "--limit", "10"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10 requested" in done.stderr and "--limit" in done.stderr
    assert megabytes < 250


@pytest.mark.slow
def test_ten_million_rows(tmp_path: Path) -> None:
    """A line after two seconds; one part in memory, and of all of them more than there can be."""
    listing = long_list(tmp_path, 10_000_000)
    done, megabytes = memory_of(download(tmp_path, listing, "--shard", "1/20"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("reading the lists: ")
    assert megabytes < 500
    done, megabytes = memory_of(download(tmp_path, listing), tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: the lists hold more than 5,000,000")
    assert megabytes < 2000
    twice = write_list(tmp_path / "repeats.csv", ["abcdefghijk,1,11"] * 2_000_000)
    done, megabytes = memory_of(download(tmp_path, twice), tmp_path)
    assert done.returncode == 0
    assert megabytes < 250
