"""Security: no shell, no password in sight, private files, one door to options."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import MakeSource
from tests.faults.promise import SMALL, Lab, fingerprint, keeps_promise, wait_for
from tests.scripts import ROOT, finish, run_here
from tests.standin.proxy import Proxy
from tests.standin.sources import ffmpeg_path

SHELLS = (
    "import subprocess\nsubprocess.run('ls', shell=True)\n",
    "import subprocess\nsubprocess.Popen('ls', shell=1)\n",
    "import os\nos.system('ls')\n",
    "import os\nos.popen('ls')\n",
    "import os\nos.spawnlp(os.P_WAIT, 'ls', 'ls')\n",
)
SECRETS = ("s3cret", "c00kie")


@pytest.mark.parametrize("code", SHELLS)
def test_a_shell_fails_the_build(code: str) -> None:
    """`.ci/run` runs ruff with these rules, over all files."""
    argv = [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", "utils/x.py"]
    done = subprocess.run([*argv, "-"], input=code, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "S60" in done.stdout


def test_no_shell_is_silenced() -> None:
    for path in [
        *ROOT.glob("*.py"),
        *(ROOT / "utils").rglob("*.py"),
        *(ROOT / "clipreader").rglob("*.py"),
    ]:
        assert "noqa: S6" not in path.read_text(encoding="utf-8"), path


def test_passwords_are_nowhere_to_be_seen(lab: Lab, source: MakeSource) -> None:
    """Of a proxy and of cookies: not on stderr, in the report, on a child's command line."""
    lab.video("abcdefghijk", source(**SMALL))
    lab.standin.add_dead("deadvideo__", "private")
    lab.want("deadvideo__", lost=True)
    slow = lab.standin.knobs("abcdefghijk", target="player", throttle=2000, times=1)
    # An ffmpeg may be over before it is seen: this one writes down how it was called.
    calls = lab.folder / "ffmpeg_calls.txt"
    ffmpeg = lab.folder / "ffmpeg"
    ffmpeg.write_text(f'#!/bin/sh\necho "$@" >> "{calls}"\nexec "{ffmpeg_path()}" "$@"\n')
    ffmpeg.chmod(0o755)
    cookies = lab.folder / "mine" / "cookies.txt"
    head = "# Netscape HTTP Cookie File\n"
    cookies.write_text(f"{head}127.0.0.1\tFALSE\t/\tFALSE\t2147483647\tvisitor\tc00kie\n")
    seen: list[str] = []
    with Proxy() as proxy:
        address = proxy.address.replace("http://", "http://user:s3cret@")
        lab.more = ["--proxy", address, "--cookies", cookies, "-v"]
        lab.more += ["--ffmpeg", ffmpeg]
        process = lab.start()
        while process.poll() is None:
            for child in lab.processes():
                try:
                    # A child that was just forked still has its parent's, which the user typed.
                    if child.cmdline() != process.args:
                        seen.append(" ".join(child.cmdline()))
                except psutil.Error:
                    continue
            time.sleep(0.1)
        done = finish(process)
        assert lab.standin.times_used(slow) == 1
        assert proxy.asked
    assert any("yt_dlp" in line for line in seen)
    seen += calls.read_text(encoding="utf-8").splitlines()
    calls.unlink()
    assert any(" -i " in line for line in seen)
    report = (lab.out / "download_report.csv").read_text(encoding="utf-8")
    for secret in SECRETS:
        assert secret not in done.err + done.out + report
        assert not [line for line in seen if secret in line]
    assert "user:***@" in done.err  # in the command to type next
    lab.more = []
    keeps_promise(lab, done, 1)


@pytest.mark.parametrize(
    ("options", "hidden"),
    [
        (["--proxy", "user:s3cret@host:80"], "s3cret"),
        (["--proxy", "ftp://user:s3cret@host:80"], "s3cret"),
        (["--url_base", "htp://user:s3cret@host/"], "s3cret"),
        (["--no_such", "http://user:s3cret@host/"], "s3cret"),
        (["--mirror_base", "x://u:s3cret@h"], "s3cret"),
    ],
)
def test_errors_hide_passwords_too(options: list[str], hidden: str, lab: Lab) -> None:
    done = run_here("download.py", "out", *options, cwd=lab.folder)
    assert done.code == 2
    assert hidden not in done.err


@pytest.mark.slow
def test_a_failing_proxy_hides_its_password(lab: Lab, source: MakeSource) -> None:
    lab.video("abcdefghijk", source(**SMALL))
    lab.more = ["--proxy", "http://user:s3cret@127.0.0.1:9", "--ytdlp_args"]
    lab.more.append(lab.standin.ytdlp_args + " --add-headers 'Authorization: Basic hdr5ecret'")
    done = lab.run("--timeout", "8")
    report = (lab.out / "download_report.csv").read_text(encoding="utf-8")
    assert "s3cret" not in done.err + report and "hdr5ecret" not in done.err + report
    assert "user:***@" in done.err
    lab.more = []
    keeps_promise(lab, done, 1)


@pytest.mark.slow
def test_there_is_one_door_to_options(lab: Lab, source: MakeSource) -> None:
    """yt-dlp's own configuration, in all the places where it looks, is not read."""
    lab.video("abcdefghijk", source(**SMALL))
    lab.standin.knobs(status=403, client="ffmpeg")  # the whole video, by yt-dlp itself
    marker = lab.folder / "home" / "was_here"
    configuration = f"--exec 'touch {marker}'\n--output {lab.folder}/home/%(id)s.%(ext)s\n"
    for place in ("home/.config/yt-dlp/config", "home/.yt-dlp.conf", "yt-dlp.conf"):
        path = lab.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(configuration)
    keeps_promise(lab, lab.run(), 0)
    assert not marker.exists()
    done = run_here("download.py", "--help", cwd=lab.folder)
    text = " ".join(done.out.split())
    assert "Some run programs: use only those you trust" in text


@pytest.mark.slow
def test_temporary_files_are_private_and_go(lab: Lab, source: MakeSource) -> None:
    """Below <out>/.tmp, in a folder of 0700 whatever the umask; nothing in /tmp, nothing stays."""
    lab.video("abcdefghijk", source(**SMALL))
    lab.standin.knobs("abcdefghijk", stall_after=2000, times=1)
    process = lab.start(umask=0)
    wait_for(lambda: any((lab.out / ".tmp").rglob("*.mp4")))
    runs = [path for path in (lab.out / ".tmp").iterdir() if path.is_dir()]
    assert [path.stat().st_mode & 0o777 for path in runs] == [0o700]
    assert fingerprint(lab.folder / "tmp") == {}
    keeps_promise(lab, finish(process), 0)
    assert not (lab.out / ".tmp").exists()
