"""Group 13: a report that is torn, of an older version, edited by hand, very long, not writable."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from tests.conftest import MakeSource
from tests.faults.promise import SMALL, Lab, keeps_promise
from utils.report import RESULT_COLUMNS

HEADER = ",".join(RESULT_COLUMNS) + "\n"
GONE = "gonegonegon_000001_000002,gonegonegon,1,2,unavailable,private,youtube,1,1,0,x,,{time}\n"
TIME = "2026-01-01T00:00:00Z"
ROW = GONE.format(time=TIME)

# What lies there -> whether it is read as saying that the clip is gone for good.
READABLE: dict[str, tuple[str, bool]] = {
    "torn in the header": (HEADER[:20], False),
    "torn in a row": (HEADER + ROW[:40], False),
    "torn in a quote": (HEADER + ROW + ROW.replace(",x,", ',"torn')[:70], True),
    "a row too short and one too long": (HEADER + "a,b\n" + ROW[:-1] + ",more\n" + ROW, True),
    "blank lines, CRLF, a second header": (
        HEADER + "\n\n" + HEADER + ROW.replace("\n", "\r\n"),
        True,
    ),
    "unknown words": (HEADER + ROW.replace("unavailable", "whatever"), False),
    "bytes of another encoding": (HEADER + "caf\udce9,x\n" + ROW, True),
    "edited by hand": (
        f"{HEADER}\n{HEADER}a,b\n{ROW[:-1]},more\ncaf\udce9,x\n{ROW[:-1]}\r\n" + ROW[:-1] + '"',
        True,
    ),
}


IN_CI = ("edited by hand",)


def in_ci(names: Iterable[str], some: Sequence[str]) -> list[Any]:
    return [n if n in some else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", in_ci(READABLE, IN_CI))
def test_a_report_that_was_touched(name: str, lab: Lab, source: MakeSource) -> None:
    """What is whole counts, what is not is passed over; whole lines are appended."""
    content, is_gone = READABLE[name]
    lab.standin.add_dead("gonegonegon", "private")
    lab.want("gonegonegon", lost=True)
    lab.video("abcdefghijk", source(**SMALL))
    report = lab.out / "download_report.csv"
    report.write_bytes(content.encode(errors="surrogateescape"))
    done = lab.run()
    assert bool(lab.standin.requests("gonegonegon")) != is_gone
    if not is_gone or name == "torn in a quote":
        assert report.read_bytes().startswith(content.encode(errors="surrogateescape")[:20])
    keeps_promise(lab, done, 1)


UNUSABLE: dict[str, tuple[Callable[[Lab], object], str]] = {
    "of another version": (
        lambda lab: (lab.out / "download_report.csv").write_text("clip,status,when\na,b,c\n"),
        "is not a report written by this script: move or rename it",
    ),
    "a folder": (lambda lab: (lab.out / "download_report.csv").mkdir(), "Is a directory"),
    "a picture": (
        lambda lab: (lab.out / "download_report.csv").write_bytes(b"\xff\xd8\xff" + bytes(999)),
        "is not a report written by this script: move or rename it",
    ),
}


@pytest.mark.parametrize("name", in_ci(UNUSABLE, ["of another version"]))
def test_a_report_that_is_none(name: str, lab: Lab, source: MakeSource) -> None:
    """Told before the first clip, and left as it is."""
    lab.video("abcdefghijk", source(**SMALL))
    make, says = UNUSABLE[name]
    make(lab)
    report = lab.out / "download_report.csv"
    before = report.stat()
    done = lab.run()
    assert says in done.err
    assert lab.standin.requests() == []
    after = report.stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    assert done.code == 2
    assert lab.clips() == set()
    report.rmdir() if stat.S_ISDIR(before.st_mode) else report.unlink()
    keeps_promise(lab, lab.run(), 0)


@pytest.mark.slow
def test_a_line_that_a_kill_has_cost(lab: Lab, source: MakeSource) -> None:
    """Killed between a clip's name and its line: the next start writes it, though all is there."""
    for number in range(2):
        lab.video(f"abcdefghij{number}", source(**SMALL))
    keeps_promise(lab, lab.run(), 0)
    report = lab.out / "download_report.csv"
    lines = report.read_text(encoding="utf-8").splitlines(keepends=True)
    report.write_text("".join(lines[:-1]), encoding="utf-8")
    (lab.out / ".tmp" / "run-killed").mkdir(parents=True)
    os.utime(lab.out / ".tmp" / "run-killed", (0, 0))  # long ago
    lab.standin.clear_log()
    keeps_promise(lab, lab.run(), 0)
    assert "killed before it wrote this line" in report.read_text(encoding="utf-8")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to forbid root a file"
)
def test_a_report_that_cannot_be_written(lab: Lab, source: MakeSource) -> None:
    lab.video("abcdefghijk", source(**SMALL))
    report = lab.out / "download_report.csv"
    report.write_text(HEADER)
    report.chmod(0o400)
    os.chown(report, 4321, 4321)
    drop = ["setpriv", "--bounding-set=-dac_override,-fowner", "--inh-caps=-all"]
    done = lab.run(through=drop)
    assert "cannot write " in done.err or "permission denied" in done.err
    keeps_promise(lab, done, 2, mend=lambda: report.chmod(0o666))


@pytest.mark.slow
def test_a_report_of_a_million_lines(lab: Lab, source: MakeSource) -> None:
    lab.video("abcdefghijk", source(**SMALL))
    with (lab.out / "download_report.csv").open("w", encoding="utf-8") as file:
        file.write(HEADER)
        for start in range(0, 1_000_000, 100_000):
            file.writelines(
                f"b{n:010d}_000001_000002,b{n:010d},1,2,unavailable,private,youtube,1,1,0,,{TIME}\n"
                for n in range(start, start + 100_000)
            )
    keeps_promise(lab, lab.run(), 0)
