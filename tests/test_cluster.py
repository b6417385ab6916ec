"""--dask: scheduler and workers as a user starts them, against the stand-in; what may go wrong."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import MakeSource
from tests.scripts import Done, children_with, finish, report_rows, run, start, write_list
from tests.standin.mirror import Mirror
from tests.standin.server import StandIn
from utils.cli import Parser
from utils.cluster import add_cluster_options, check_dask, open_workers
from utils.errors import UserError
from utils.files import run_folder
from utils.report import report_paths

if importlib.util.find_spec("distributed") is None:
    pytest.skip("distributed is not installed: requirements-cluster.txt", allow_module_level=True)

from tests.lab import Lab, wait_for

pytestmark = pytest.mark.xdist_group("cluster")
BETA = "127.0.0.2"  # the address of the machine `beta`, as YouTube sees it
FAST = ("--videos_per_hour", "0", "--max_height", "360")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Machines alpha and beta, and two that cannot take part."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "shared").mkdir()
    other = folder / "other" / "av-18.1.99.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: av\nVersion: 18.1.99\n")
    with Lab(folder) as lab:
        lab.machine("alpha")
        lab.machine("beta", FAR_ADDRESS=BETA)
        lab.machine("oddone", packages=folder / "other")
        if os.name == "posix" and os.geteuid() == 0:
            lab.machine("nofolder", hidden=folder / "shared")
        yield lab


@pytest.fixture
def shared(lab: Lab, request: pytest.FixtureRequest) -> Path:
    """A folder of the test's own on the disk that the machines share."""
    folder = lab.folder / "shared" / str(request.node.name).partition("[")[0]
    folder.mkdir()
    return folder


def videos(standin: StandIn, video: Path, *names: str) -> list[str]:
    for name in names:
        standin.add_video(name, video)
    return [f"{name},8,9" for name in names]


def arguments(standin: StandIn, folder: Path, rows: list[str], *more: object) -> list[object]:
    folder.mkdir(exist_ok=True)
    listing = write_list(folder / "list.csv", rows)
    return [
        *(folder / "out", "--input_csv", listing, "--ytdlp_args", standin.ytdlp_args),
        *(*FAST, *more),
    ]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.[mj]p[4g]")}


def check_whole(out: Path, count: int) -> None:
    """Every clip once in the report and once in the folder, and nothing else."""
    lines = (out / "download_report.csv").read_text().splitlines()
    assert len(lines) == count + 1
    assert sorted(report_rows(out / "download_report.csv")) == sorted(
        path.stem for path in out.glob("*.mp4")
    )
    assert len(report_paths(out / "download_report.csv")) == 1
    assert not (out / ".tmp").exists()


def test_a_lost_worker_a_late_one_and_two_that_are_left_out(
    lab: Lab, standin: StandIn, source: MakeSource, shared: Path
) -> None:
    names = [f"abcdefghij{number}" for number in range(5)]
    rows = videos(standin, source(seconds=20), *names)
    here = run("download.py", *arguments(standin, shared / "one", rows), cwd=shared)
    assert here.code == 0, here.err
    gamma = lab.machine("gamma")
    standin.knobs(throttle=100_000)
    command = arguments(standin, shared / "many", rows, "--dask", lab.address)
    out = shared / "many" / "out"
    process = start("download.py", *command, cwd=shared)
    # All three machines are at a clip: killed between two tasks, gamma would be missed by nobody.
    wait_for(lambda: len({path.parent for path in out.glob(".tmp/run-*/tmp*/*")}) == 3)
    gamma.send_signal(signal.SIGKILL)
    lab.machine("delta")
    standin.clear_knobs()
    done = finish(process)
    assert done.code == 0, done.err
    check_whole(out, 5)
    assert bytes_of(out) == bytes_of(shared / "one" / "out")
    assert "on oddone: it has PyAV 18.1.99, and this run " in done.err, done.err
    if os.geteuid() == 0:
        assert "on nofolder: it cannot see " in done.err
    assert "lost         worker " in done.err and "on gamma" in done.err
    wait_for(lambda: not children_with(str(out)), 15)


@pytest.mark.slow
def test_one_machine_is_blocked_and_others_go_on(
    lab: Lab, standin: StandIn, source: MakeSource, shared: Path
) -> None:
    rows = videos(standin, source(seconds=20), *(f"bcdefghijk{n}" for n in range(4)))
    standin.block("bot_check", address=BETA)
    command = arguments(standin, shared, rows, "--dask", lab.address, "--block_pause", "5")
    done = run("download.py", *command, cwd=shared)
    assert done.code == 0, done.err
    check_whole(shared / "out", 4)
    machines = done.err.partition("machines     ")[2].splitlines()[0]
    assert "paused (bot_check), next attempt in 0:0" in machines.partition("beta ")[2]
    assert machines.count("paused") == 1


@pytest.mark.slow
def test_frames_and_small_videos_are_the_same(lab: Lab, source: MakeSource, shared: Path) -> None:
    clips = shared / "clips"
    clips.mkdir()
    for number in range(2):
        (clips / f"clip{number}.mp4").write_bytes(source(seconds=2).read_bytes())
    (clips / "broken.mp4").write_bytes(b"no video")
    for script, more in (("frame_extract.py", ["--fps", "5"]), ("downscale_videos.py", [])):
        given = ["--short_side", "90", *more]
        here = run(script, clips, shared / f"{script} here", *given, cwd=shared)
        there = run(script, clips, shared / script, *given, "--dask", lab.address, cwd=shared)
        assert here.code == there.code == 1, there.err
        assert "2 written, 1 failed" in there.err
        made = bytes_of(shared / script)
        assert made == bytes_of(shared / f"{script} here") and len(made) >= 2
        report = next((shared / script).glob("*_report.csv"))
        assert report_rows(report)["broken"]["reason"] == "undecodable"
        assert not (shared / script / ".tmp").exists()


@pytest.mark.slow
def test_archives_are_read_by_several(
    lab: Lab, standin: StandIn, source: MakeSource, shared: Path
) -> None:
    mirror, data = Mirror(standin), source(seconds=10, size=(320, 180)).read_bytes()
    names = [f"-bcdefghi{number:02d}_000001_000011" for number in range(4)]
    for number, label in enumerate(("yoga", "zumba"), 1):
        held = {name: data for name in (*names[2 * number - 2 : 2 * number], names[0])}
        mirror.add_class("700_2020", "val", label, held, number=number)
    listing = write_list(shared / "list.csv", [f"{name[:11]},1,11" for name in names])
    mirror.publish(shared / "kinetics_csv")
    given = [shared / "out", "--input_csv", listing, "--source", "cvdf", "--dask", lab.address]
    done = run("download.py", *given, "--mirror_base", mirror.base, cwd=shared)
    assert done.code == 0, done.err
    assert sorted(mirror.reads()) == ["k700_val_001.tar.gz", "k700_val_002.tar.gz"]
    check_whole(shared / "out", 4)
    assert set(bytes_of(shared / "out").values()) == {data}
    # What is read back whole on the cluster, and found bad, comes anew.
    (shared / "out" / f"{names[1]}.mp4").write_bytes(data[: len(data) // 2])
    given += ["--verify", "--retry", "all"]
    done = run("download.py", *given, "--mirror_base", mirror.base, cwd=shared)
    assert done.code == 0, done.err
    assert f": {names[1]}: " in done.err and "verified     4 of 4 clips, 1 bad" in done.err
    assert set(bytes_of(shared / "out").values()) == {data, data[: len(data) // 2]}
    assert len(list((shared / "out").glob("*.mp4"))) == 4


@pytest.mark.slow
def test_old_clips_are_looked_at_there_and_moved_here(
    lab: Lab, source: MakeSource, shared: Path
) -> None:
    data = source(seconds=2).read_bytes()
    (shared / "old" / "jogging").mkdir(parents=True)
    for number in range(3):
        path = shared / "old" / "jogging" / f"-bcdefghi{number:02d}_1_3.mp4"
        path.write_bytes(data[: len(data) // 2] if number == 2 else data)
    given = ["old", "clips", "--dask", lab.address, "--remove_empty"]
    done = run("reorg_kinetics_videos.py", *given, cwd=shared)
    assert done.code == 1
    assert "2 moved, 1 left" in done.err and "on disk: 2 of 3 clips" in done.err
    assert sorted(bytes_of(shared / "clips")) == [
        "-bcdefghi00_000001_000003.mp4",
        "-bcdefghi01_000001_000003.mp4",
    ]
    assert [path.name for path in (shared / "old" / "jogging").iterdir()] == [path.name]


def stalled(
    lab: Lab, standin: StandIn, source: MakeSource, folder: Path
) -> tuple[subprocess.Popen[str], Path]:
    """A run of which one clip is there, and the rest never comes."""
    rows = videos(standin, source(seconds=20), *(f"cdefghijkl{n}" for n in range(3)))
    for number in range(1, 3):
        standin.knobs(f"cdefghijkl{number}", stall_after=10_000)
    command = arguments(standin, folder, rows, "--dask", lab.address)
    process, out = start("download.py", *command, cwd=folder), folder / "out"
    wait_for(lambda: list(out.glob("*.mp4")) and children_with(str(out)))
    wait_for(lambda: len(standin.requests(target="media", finished=False)) >= 2)
    return process, out


def ended(process: subprocess.Popen[str], out: Path) -> Done:
    done = finish(process, 20)  # it is 10 s on a machine that does nothing else
    wait_for(lambda: not [c for c in children_with(str(out)) if c.name() != "python"], 15)
    assert "stopped after" in done.err
    assert "on disk: 1 of 3" in done.err
    return done


def test_ctrl_c(lab: Lab, standin: StandIn, source: MakeSource, shared: Path) -> None:
    process, out = stalled(lab, standin, source, shared)
    process.send_signal(signal.SIGINT)
    assert ended(process, out).code == 128 + signal.SIGINT
    standin.clear_knobs()
    rows = [f"cdefghijkl{n},8,9" for n in range(3)]
    command = arguments(standin, shared, rows, "--dask", lab.address)
    again = run("download.py", *command, cwd=shared)
    assert again.code == 0, again.err
    check_whole(out, 3)


def test_a_killed_run_leaves_nothing_at_work(
    lab: Lab, standin: StandIn, source: MakeSource, shared: Path
) -> None:
    process, out = stalled(lab, standin, source, shared)
    process.kill()
    process.communicate()
    wait_for(lambda: not [c for c in children_with(str(out)) if c.name() != "python"], 15)


@pytest.mark.slow
def test_the_scheduler_is_lost(standin: StandIn, source: MakeSource, tmp_path: Path) -> None:
    with Lab(tmp_path) as own:
        own.machine("alpha")
        own.machine("beta")
        process, out = stalled(own, standin, source, tmp_path)
        own.scheduler.send_signal(signal.SIGKILL)
        done = ended(process, out)
        assert done.code == 1
        assert "the Dask scheduler is lost" in done.err
    standin.clear_knobs()
    rows = [f"cdefghijkl{n},8,9" for n in range(3)]
    assert run("download.py", *arguments(standin, tmp_path, rows), cwd=tmp_path).code == 0
    check_whole(out, 3)


def test_strict_and_what_cannot_be(lab: Lab, source: MakeSource, shared: Path) -> None:
    (shared / "clips").mkdir()
    (shared / "clips" / "a.mp4").write_bytes(source(seconds=2).read_bytes())
    given = ("downscale_videos.py", "clips", "small")
    done = run(*given, "--dask", lab.address, "--strict", cwd=shared)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: --strict: ")
    assert "excluded     worker tcp://" in done.err
    done = run(*given, "--dask", "local:0", cwd=shared)
    assert done.code == 2
    assert "is not tls://HOST:PORT, tcp://..., or local:N" in done.err


def test_dask_on_this_machine(source: MakeSource, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(source(seconds=2).read_bytes())
    given = ["clips", "frames", "--fps", "2", "--dask", "local:2"]
    process = start("frame_extract.py", *given, cwd=tmp_path)
    listening = set()
    while process.poll() is None:
        with suppress(psutil.Error):
            mine = psutil.Process(process.pid)
            for each in (mine, *mine.children(recursive=True)):
                found = each.net_connections("all")
                listening |= {c.laddr for c in found if c.status == psutil.CONN_LISTEN}
        time.sleep(0.1)
    done = finish(process)
    assert done.code == 0, done.err
    assert not listening  # whoever reaches a scheduler's port can run code
    assert "2 workers with 2 threads on 1 machine" in done.err
    assert len(list((tmp_path / "frames" / "a").iterdir())) == 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_cluster_that_asks_for_certificates(
    monkeypatch: pytest.MonkeyPatch, source: MakeSource, tmp_path: Path
) -> None:
    """With the variables of docs/scale.md; without them the run is turned away."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    tls = {"CA_FILE": cert}
    for side in ("SCHEDULER", "WORKER", "CLIENT"):
        tls |= {f"{side}__CERT": cert, f"{side}__KEY": key}
    for name, path in tls.items():
        monkeypatch.setenv(f"DASK_DISTRIBUTED__COMM__TLS__{name}", str(path))
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(source(seconds=2).read_bytes())
    with Lab(tmp_path, "--protocol", "tls") as lab:
        lab.machine("alpha")
        lab.wait_for_workers(1)
        given = ["clips", "frames", "--fps", "2", "--dask", lab.address]
        done = run("frame_extract.py", *given, cwd=tmp_path)
        assert (done.code, lab.address[:6]) == (0, "tls://"), done.err
        assert "warning" not in done.err
        for name in tls:
            monkeypatch.delenv(f"DASK_DISTRIBUTED__COMM__TLS__{name}")
        done = run("frame_extract.py", *given, cwd=tmp_path)
        assert done.code == 2 and f"{lab.address} needs certificates" in done.err


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = Parser()
    add_cluster_options(parser)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_dask(parser.parse_args([]))
    with pytest.raises(UserError, match="pip install -r requirements-cluster.txt"):
        check_dask(parser.parse_args(["--dask", "head:8786"]))


def test_a_task_that_ends_its_process_is_given_up_and_one_that_raises(
    lab: Lab, shared: Path
) -> None:
    options = argparse.Namespace(dask=lab.address, strict=False, quiet=True, num_jobs=1)

    def lost(task: float, how: str) -> str:
        return how

    try:
        with run_folder(shared) as space, open_workers(options, space, ["av"]) as cluster:
            died = list(cluster.run(os._exit, [7], lost))
            assert died == ["its worker process ended with exit code 7"]
            raised = list(cluster.run(math.sqrt, [-1.0, 4.0], lost))
            assert sorted(map(str, raised)) == ["2.0", "ValueError: math domain error"]
            assert set(cluster.run(abs, range(-50, 0), lost)) == set(range(1, 51))
    finally:
        logging.disable(logging.NOTSET)
