"""What stands at the doors: files that are none, text without end, names and labels that bite."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.scripts import ROOT, run, run_here, write_list
from utils.cli import (
    command_line,
    csv_text,
    escape,
    escape_name,
    hide_secrets,
    without_formula,
)
from utils.errors import UserError
from utils.files import find_videos, names_in, parse_json, read_json, read_text
from utils.process import run_child
from utils.report import RESULT_COLUMNS, ReportFile, read_report
from utils.web import Web, WebError


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to("fifo")


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.mkdir()


NO_FILES = [fifo, link_to_fifo, endless, loop, folder]


@pytest.mark.parametrize("make", NO_FILES)
def test_what_is_no_regular_file_is_not_opened(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "download_report.csv"
    make(path)
    with pytest.raises(OSError):
        read_text(path)
    with pytest.raises(UserError):
        list(read_report(path, RESULT_COLUMNS))
    with pytest.raises(UserError):
        ReportFile(path, RESULT_COLUMNS)


@pytest.mark.parametrize("make", NO_FILES)
def test_a_report_or_list_that_is_no_file_ends_a_script_in_one_line(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    make(out / "download_report.csv")
    listing = write_list(tmp_path / "list.csv", ["abcdefghijk,0,1"])
    done = run_here("download.py", "out", "--input_csv", listing, "--dry_run", cwd=tmp_path)
    assert done.code == 2 and done.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("make", NO_FILES)
def test_videos_beside_what_is_none_are_found(make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.MKV").touch()
    make(tmp_path / "x.mp4")
    assert find_videos(tmp_path, tmp_path / "out")[0] == {"a": "a.mp4", "b/c": "b/c.MKV"}
    assert names_in(tmp_path, ".mp4") == {"a"}


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, '{"a": %s}' % ("9" * 6000), "[]", "\x00", "{", '"x"']
)
def test_json_of_any_form_is_told_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(text)
    for read in (lambda: parse_json(text), lambda: read_json(tmp_path / "x")):
        with pytest.raises(ValueError, match=r"^is (not|nested)[^\n]*$"):
            read()


def test_a_file_over_its_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(2**40)  # a hole
    with pytest.raises(OSError, match="larger than"):
        read_text(tmp_path / "x")


NAMES = [b"caf\xe9", b"\xd6\xd0.mp4", b"a\x1b]0;title\x07", "\u202egpj".encode(), b"a\nb", b"\\xe9"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_written_and_read_back(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    with ReportFile(path, ("clip", "message")) as report:
        report.append((escape_name(os.fsdecode(name)), os.fsdecode(name)))
    ((clip, message),) = read_report(path, ("clip", "message"))
    read_back = re.sub(rb"\\x(..)", lambda found: bytes.fromhex(found[1].decode()), clip.encode())
    assert read_back == name
    assert clip.isprintable() and message.isprintable()


def test_names_reach_no_terminal_raw(tmp_path: Path) -> None:
    bad = os.fsdecode(b"\x1b[31m\xe9\x9b\xe2\x80\xae")
    assert escape(bad) == r"\x1b[31m\xe9\x9b\xe2\x80\xae"
    done = run("reorg_kinetics_videos.py", f"no{bad}", "out", cwd=tmp_path)
    assert done.code == 2 and r"no\x1b[31m\xe9\x9b" in done.err
    assert done.err.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "cell", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\uff1d1", "-2JgjPsy4Eo"]
)
def test_no_cell_for_people_is_a_formula(cell: str) -> None:
    assert str(without_formula(cell)).startswith("'")
    assert csv_text([[cell]]).strip('"\n') == cell  # what scripts read back is exact


def test_numbers_for_people_stay_numbers() -> None:
    assert [without_formula(cell) for cell in ("-1", "+2.5", -3, "a=b")] == [
        "-1",
        "+2.5",
        -3,
        "a=b",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "http://s3cret@host/x",
        "http://user:s3/cret@host",
        "socks5://user:a's3cret\"@host:1",
        "https://host/x?a=1&token=s3cret&b",
        "https://host/?access_token=s3cret",
        "youtube:po_token=web.gvs+s3cret",
        "--add-headers 'X-Api-Key: s3cret'",
        "Authorization: Bearer s3cret",
        "Cookie: SID=s3cret",
        "--video-password s3cret",
        "-ps3cret",
    ],
)
def test_secrets_are_hidden_wherever_they_stand(text: str) -> None:
    assert "s3cret" not in hide_secrets(text)
    for words in (["x", text], ["x", "--ytdlp_args", text], ["x", f"--ytdlp_args={text}"]):
        assert "s3cret" not in command_line(words) and command_line(words).startswith("x ")


def test_words_that_are_no_secrets_stay() -> None:
    plain = "cookies: the cookies are no longer valid; -pix_fmt yuv420p https://host/a?v=b"
    assert hide_secrets(plain) == plain


@pytest.mark.parametrize("closed", [(2,), (1, 2), (0, 1, 2)])
def test_closed_streams_do_no_harm(closed: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    shut = " ".join(f"{number}>&-" for number in closed)
    listing = write_list(tmp_path / "list.csv", ["abcdefghijk,0,1"])
    script = f'exec "$@" {shut}'
    command = [sys.executable, ROOT / "download.py", "out", "--input_csv", listing]
    argv = ["bash", "-c", script, "-", *map(str, command), "--source", f"clips:{tmp_path / 'src'}"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 1 and done.stderr == b""
    lines = (tmp_path / "out" / "download_report.csv").read_text().splitlines()
    assert len(lines) == 2 and lines[1].startswith("abcdefghijk_")


def test_a_child_without_end_is_ended() -> None:
    begun = time.monotonic()
    done = run_child([sys.executable, "-c", "while True: print('y' * 65536)"], timeout=60)
    assert done.returncode != 0 and not done.timed_out and time.monotonic() - begun < 30


def test_the_memory_of_a_child_is_bounded() -> None:
    code = "import time; time.sleep(0.2); x = bytearray(400 * 2**20); print('had it')"
    done = run_child([sys.executable, "-c", code], memory=300 * 2**20)
    assert done.returncode != 0 and "MemoryError" in done.stderr
    assert run_child([sys.executable, "-c", code], memory=2**30).stdout == "had it\n"


class Endless(BaseHTTPRequestHandler):
    """An answer, or the body of a redirect, that never ends."""

    def do_GET(self) -> None:
        redirects = self.path == "/redirect"
        self.send_response(302 if redirects else 200)
        if redirects:
            self.send_header("Location", "/short")
        if self.path == "/short":
            self.send_header("Content-Length", "2")
        self.end_headers()
        try:
            if self.path == "/short":
                self.wfile.write(b"ok")
            else:
                while True:
                    self.wfile.write(b"x" * 2**20)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("path", ["/endless", "/redirect"])
def test_an_answer_without_end_takes_no_memory(path: str) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    Thread(target=server.serve_forever, daemon=True).start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    url = f"http://127.0.0.1:{server.server_port}{path}"
    try:
        if path == "/redirect":
            assert Web().text(url, 2**24) == "ok"
        else:
            with pytest.raises(WebError, match="larger than"):
                Web().text(url, 2**24)
    finally:
        server.shutdown()
        server.server_close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 * 1024
