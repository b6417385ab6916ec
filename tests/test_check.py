"""download.py --check: every link in order, and each of them broken in turn."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.conftest import MakeSource
from tests.scripts import ROOT, Done, environment, run_here, write_list
from tests.standin.mirror import Mirror
from tests.standin.proxy import Proxy
from tests.standin.server import StandIn
from tests.test_environment import installed, shadow
from utils.download.check import NOTE, check_ytdlp

ID = "checkvideo_"
FRESH = date.today() - timedelta(days=3)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Packages as they are, but yt-dlp said to be of three days ago: tests outlive releases."""
    return installed(tmp_path / "first", "yt_dlp", f"{FRESH:%Y.%m.%d}")


def check(
    standin: StandIn, folder: Path, first: Path, *more: object, path: str | None = None
) -> Done:
    """`download.py --check` with the packages of `first` before all others."""
    arguments = ["--check", "--check_id", ID, "--ytdlp_args", standin.ytdlp_args, *more]
    done = subprocess.run(
        [sys.executable, str(ROOT / "download.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(folder)
        | {"PYTHONPATH": str(first), "PATH": path or os.environ["PATH"], "TMPDIR": str(folder)},
        timeout=100,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def line(done: Done, link: str) -> str:
    return next((text for text in done.err.splitlines() if text.startswith(link)), done.err)


def test_all_in_order(standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    Mirror(standin).publish(tmp_path / "lists")
    standin.add_file("/kinetics400.tar.gz", b"x")
    standin.add_file("/600/val/k600_val_path.txt", b"x")
    listing = write_list(tmp_path / "list.csv", [f"{ID},3,13"])
    before = sorted(tmp_path.iterdir())
    done = check(
        standin, tmp_path, fresh, "--source", "cvdf,youtube", "--mirror_base", standin.root,
        "--lists_base", standin.root, "--input_csv", listing, *["--cookies", cookies(tmp_path)],
    )  # fmt: skip
    assert done.code == 0, done.err
    for link in ("packages", "tools", "JavaScript", "yt-dlp", "servers", "cookies"):
        assert f"{link:12} ok " in done.err, done.err
    assert " formats, client visionos" in line(done, "YouTube")
    assert "YouTube      ok     section: 2 s cut and encoded in " in done.err
    assert done.err.endswith("all steps are ok\n")
    assert standin.bytes_served < 2_000_000
    after = sorted(
        path for path in tmp_path.iterdir() if path.name not in ("cookies.txt", ".cache")
    )
    assert after == before


@pytest.mark.slow
def test_the_folder_and_its_room(
    standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    listing = write_list(tmp_path / "list.csv", [f"{ID},3,13", f"{ID},4,14"])
    out = tmp_path / "not" / "here"
    done = check(standin, tmp_path, fresh, out, "--input_csv", listing)
    assert done.code == 0, done.err
    assert "will be created" in line(done, "folder")
    assert "2 clips need about 2.4 MB" in line(done, "disk space")
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").write_text("")
    done = check(standin, tmp_path, fresh, tmp_path / "file", "--input_csv", listing)
    assert done.code == 2
    assert "file is not a folder" in done.err


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.slow
def test_a_folder_that_cannot_be_written(
    standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    done = check(standin, tmp_path, fresh, "/proc/clips", "--input_csv", tmp_path / "none.csv")
    assert done.code == 2
    assert "folder       not ok" in done.err


@pytest.mark.slow
def test_too_little_room(standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    listing = write_list(tmp_path / "list.csv", (f"{ID},{n},{n + 10}" for n in range(60)))
    small = "import shutil\nshutil.disk_usage = lambda path: (10**9, 10**9, 10**6)\n"
    shadow(fresh, "sitecustomize.py", f"{small}shutil._ntuple_diskusage = None\n")
    usage = "import shutil, collections\nU = collections.namedtuple('U', 'total used free')\n"
    shadow(fresh, "sitecustomize.py", f"{usage}shutil.disk_usage = lambda p: U(9, 9, 10**7)\n")
    done = check(standin, tmp_path, fresh, tmp_path / "out", "--input_csv", listing)
    assert done.code == 2
    assert (
        "disk space   not ok 10.0 MB free, 60 clips need about 72.0 MB; free some space" in done.err
    )


RUNTIME = """
import sysconfig
sysconfig.get_path = lambda *a, **k: {folder!r}
"""
OLD_RELEASE = """
from importlib import metadata
real = metadata.version
metadata.version = lambda name: {version!r} if name == "yt-dlp" else real(name)
"""


def broken_runtime(folder: Path) -> str:
    """A deno that does not run; what makes it the first."""
    tool = folder / "bin" / "deno"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'GLIBC_2.38 not found' >&2\nexit 1\n")
    tool.chmod(0o755)
    return RUNTIME.format(folder=str(tool.parent))


def test_every_broken_step_is_told_in_one_run(
    standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    installed(fresh, "av", "20.0.0")
    old = OLD_RELEASE.format(version=f"{date.today() - timedelta(days=61):%Y.%m.%d}")
    shadow(fresh, "sitecustomize.py", broken_runtime(tmp_path) + old)
    servers = ["--mirror_base", f"{standin.root}/no", "--lists_base", standin.root]
    given = ["--source", "cvdf,youtube", *servers]
    done = check(standin, tmp_path, fresh, *given, "--cookies", cookies(tmp_path, 1000))
    assert done.code == 2
    assert "PyAV 20.0.0 is installed, and the suite works with 18.1" in line(done, "packages")
    assert "does not run: GLIBC_2.38 not found" in line(done, "JavaScript")
    assert "is 61 days old, and YouTube changes faster; pip install -U" in line(done, "yt-dlp")
    assert done.err.count("servers      not ok") == 2
    assert "LOGIN_INFO has expired; export the cookies again" in line(done, "cookies")
    assert f"YouTube      ok     {ID}: " in done.err
    assert "6 steps not ok: see docs/youtube.md" in done.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "version", "says"),
    [
        ("requests", "2.32.0", "requests 2.32.0 is installed"),
        ("av", "20.0.0", "PyAV 20.0.0 is installed, and the suite works with 18.1"),
    ],
)
def test_packages(package: str, version: str, says: str, standin: StandIn, source: MakeSource,
                  tmp_path: Path, fresh: Path) -> None:  # fmt: skip
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    installed(fresh, package, version)
    done = check(standin, tmp_path, fresh)
    assert done.code == 2
    assert says in line(done, "packages")
    assert "pip install -U -r requirements.txt" in line(done, "packages")


@pytest.mark.slow
def test_an_ffmpeg_without_the_encoder(
    standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    tool = tmp_path / "ffmpeg"
    tool.write_text("#!/bin/sh\necho 'ffmpeg version 6.0 of a lab'\n")
    tool.chmod(0o755)
    done = check(standin, tmp_path, fresh, "--ffmpeg", tool)
    assert done.code == 2
    assert "has no libx264: pip install" in line(done, "tools")
    done = check(standin, tmp_path, fresh, "--ffmpeg", tmp_path / "none")
    assert done.code == 2
    assert "cannot run" in line(done, "tools")


@pytest.mark.slow
def test_servers_that_do_not_answer(standin: StandIn, tmp_path: Path, fresh: Path) -> None:
    more = ["--source", "cvdf", "--mirror_base", f"{standin.root}/no", "--lists_base", standin.root]
    done = check(standin, tmp_path, fresh, *more)
    assert done.code == 2
    assert done.err.count("servers      not ok") == 2
    assert "--lists_base" in done.err and "--mirror_base" in done.err


@pytest.mark.parametrize(
    ("why", "says"),
    [
        ("bot_check", ": bot_check: "),
        pytest.param(429, ": rate_limited: ", marks=pytest.mark.slow),
    ],
)
def test_a_block(
    why: str | int, says: str, standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    standin.block(why)
    done = check(standin, tmp_path, fresh)
    assert done.code == 2
    assert says in line(done, "YouTube")
    assert "--cookies" in line(done, "YouTube") and "docs/youtube.md" in done.err


@pytest.mark.slow
def test_a_video_that_is_gone(standin: StandIn, tmp_path: Path, fresh: Path) -> None:
    standin.add_dead(ID, "removed")
    done = check(standin, tmp_path, fresh)
    assert done.code == 2
    assert "removed: " in line(done, "YouTube")


def test_data_that_does_not_come(
    standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    standin.knobs(ID, status=403)
    done = check(standin, tmp_path, fresh)
    assert done.code == 2
    assert "YouTube      ok" in done.err
    assert "YouTube      not ok section: " in done.err


def cookies(folder: Path, expires: float | None = None) -> Path:
    path = folder / "cookies.txt"
    expires = time.time() + 10**6 if expires is None else expires
    path.write_text(
        "# Netscape HTTP Cookie File\n"
        f".youtube.com\tTRUE\t/\tTRUE\t{expires:.0f}\tLOGIN_INFO\tsecret-value\n"
    )
    return path


@pytest.mark.parametrize(
    "kind", [pytest.param(n, marks=pytest.mark.slow) for n in ("not_netscape", "guest")]
)
def test_cookies(
    kind: str, standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    path = cookies(tmp_path, time.time() - 100)
    if kind == "not_netscape":
        path.write_text('{"cookies": []}')
    elif kind == "guest":
        path.write_text("# Netscape HTTP Cookie File\n")
    done = check(standin, tmp_path, fresh, "--cookies", path)
    said = line(done, "tools" if kind == "not_netscape" else "cookies")
    says = {
        "not_netscape": "--cookies: ",
        "guest": "note   ",
    }
    assert says[kind] in said
    assert "secret-value" not in done.err
    assert done.code == (0 if kind == "guest" else 2)


def test_each_proxy_is_tried_and_no_password_said(
    standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    with Proxy() as proxy:
        good = proxy.address.replace("://", "://user:s3cret@")
        dead = "http://other:s3cret@127.0.0.1:9"
        done = check(standin, tmp_path, fresh, "--proxy", good, "--proxy", dead)
    assert done.code == 2
    assert "s3cret" not in done.err
    assert "user:***@" in done.err
    shown = good.replace("s3cret", "***")
    assert f"YouTube      ok     {ID} through {shown}: " in done.err
    assert f"YouTube      not ok {ID} through http://other:***@127.0.0.1:9: " in done.err


def test_each_proxy_is_tried_for_the_mirror(standin: StandIn, tmp_path: Path, fresh: Path) -> None:
    standin.add_file("/kinetics400.tar.gz", b"x")
    standin.add_file("/600/val/k600_val_path.txt", b"x")
    more = ["--source", "cvdf", "--mirror_base", standin.root, "--lists_base", standin.root]
    with Proxy() as proxy:
        dead = "http://127.0.0.1:9"
        done = check(standin, tmp_path, fresh, *more, "--proxy", proxy.address, "--proxy", dead)
        assert [asked for asked in proxy.asked if asked.startswith("HEAD")]
    assert done.code == 2
    assert done.err.count("servers      ok     http") == 2
    assert done.err.count(" not ok http") == 2
    assert f"through {dead}: " in done.err


@pytest.mark.slow
def test_cookies_of_other_sites_do_not_count(
    standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    path = cookies(tmp_path)
    other = ".example.com\tTRUE\t/\tTRUE\t1000\tSAPISID\tx\n"
    path.write_text(path.read_text() + other)
    assert check(standin, tmp_path, fresh, "--cookies", path).code == 0
    path.write_text("# Netscape HTTP Cookie File\n" + other.replace("1000", "9999999999"))
    done = check(standin, tmp_path, fresh, "--cookies", path)
    assert "has no YouTube login" in line(done, "cookies")


def test_cookies_that_only_a_warning_calls_over(
    standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    plugin = fresh / "yt_dlp_plugins" / "extractor" / "warns.py"
    plugin.parent.mkdir(parents=True)
    warning = "WARNING: account cookies are no longer valid"
    plugin.write_text(f"import sys\nprint({warning!r}, file=sys.stderr)\n")
    done = check(standin, tmp_path, fresh, "--cookies", cookies(tmp_path))
    assert done.code == 2
    assert "the account's cookies have expired" in line(done, "YouTube")


@pytest.mark.slow
def test_the_smallest_format_is_asked_for(
    standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    """A dense video at 480 lines came to 3.6 MB."""
    large, small = source(seconds=20, size=(854, 480)), source(seconds=20, size=(256, 144))
    standin.add_video(ID, [large, small])
    assert check(standin, tmp_path, fresh).code == 0
    assert {request.itag for request in standin.requests(target="media")} == {160}
    assert standin.bytes_served < 2_000_000


@pytest.mark.parametrize(
    "package", ["requests", pytest.param("simplejpeg", marks=pytest.mark.slow)]
)
def test_a_package_that_is_broken(
    package: str, standin: StandIn, source: MakeSource, tmp_path: Path, fresh: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=(256, 144)))
    shadow(fresh, f"{package}.py", "raise ImportError('torn in two')")
    done = check(standin, tmp_path, fresh)
    assert done.code == 2
    assert "torn in two" in done.err


def test_bad_options(tmp_path: Path) -> None:
    done = run_here("download.py", "--check", "--check_id", "no/id", cwd=tmp_path)
    assert done.code == 2
    assert "--check_id must be 11 characters" in done.err
    assert run_here("download.py", cwd=tmp_path).code == 2


def test_a_release_of_yt_dlp_that_is_no_day_is_a_note(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for release in ("2026.13.45", "2027.1"):
        monkeypatch.setattr("utils.errors.release_of", lambda package, text=release: text)
        ((state, text),) = check_ytdlp(argparse.Namespace(), tmp_path)
        assert state == NOTE and release in text
