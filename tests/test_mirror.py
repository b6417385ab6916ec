"""--source cvdf: archives in the mirror's layout on loopback, and all that may be wrong in them."""

from __future__ import annotations

import os
import resource
import signal
import tarfile
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import MakeSource
from tests.scripts import Done, finish, report_rows, run, start, write_list
from tests.standin.mirror import Content, Mirror, make_tar, special
from tests.standin.server import StandIn
from tests.standin.sources import frame_numbers
from utils.video.whole import read_video

REPORT = "download_report.csv"


@pytest.fixture
def mirror(standin: StandIn) -> Mirror:
    return Mirror(standin)


@pytest.fixture
def data(source: MakeSource) -> bytes:
    """A clip of ten seconds."""
    return source(seconds=10, size=(320, 180)).read_bytes()


def name(number: int) -> str:
    return f"-bcdefghi{number:02d}_000001_000011"


def command(mirror: Mirror, folder: Path, clips: list[str], *more: object) -> list[object]:
    rows = [f"{clip[:11]},{int(clip[12:18])},{int(clip[19:25])}" for clip in clips]
    listing = write_list(folder / "list.csv", rows)
    mirror.publish(folder / "kinetics_csv")
    given = [folder / "out", "--input_csv", listing, "--source", "cvdf"]
    return [*given, "--mirror_base", mirror.base, *more]


def fetch(mirror: Mirror, folder: Path, clips: list[str], *more: object) -> Done:
    return run("download.py", *command(mirror, folder, clips, *more), cwd=folder)


def on_disk(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "out").glob("*.mp4"))


def test_one_class_reads_one_archive(mirror: Mirror, data: bytes, tmp_path: Path) -> None:
    mirror.list_clip("700_2020", "val", "abseiling", name(90))
    mirror.add_class("700_2020", "val", "zumba", {name(3): data}, number=3)
    mirror.add_class("700_2020", "val", "tap dancing", {name(1): data, name(2): data}, number=2)
    mirror.add_class("600", "val", "tap dancing", {name(1): data})
    done = fetch(mirror, tmp_path, [name(1)])
    assert done.code == 0, done.err
    assert mirror.reads() == ["k700_val_002.tar.gz"]
    assert "reading 1 archive of Kinetics-700_2020, " in done.err
    assert on_disk(tmp_path) == [name(1)]
    clip = tmp_path / "out" / f"{name(1)}.mp4"
    assert clip.read_bytes() == data  # kept as it is
    row = report_rows(tmp_path / "out" / REPORT)[name(1)]
    assert (row["source"], row["reason"], int(row["bytes"])) == ("cvdf", "", len(data))
    assert "downloaded 1 (cvdf 1)" in done.err
    assert not (tmp_path / "out" / ".tmp").exists()
    # Another clip of a remembered archive is known to be in it; one that is not there is not.
    mirror.list_clip("700_2020", "val", "tap dancing", name(4))
    assert fetch(mirror, tmp_path, [name(1), name(4)]).code == 1
    assert mirror.reads() == ["k700_val_002.tar.gz"]
    assert fetch(mirror, tmp_path, [name(1), name(2)]).code == 0
    assert mirror.reads() == ["k700_val_002.tar.gz"] * 2
    assert fetch(mirror, tmp_path, [name(1), name(4)], "--retry", "all").code == 1
    assert mirror.reads() == ["k700_val_002.tar.gz"] * 3


def test_archives_in_another_order_than_believed(
    mirror: Mirror, data: bytes, tmp_path: Path
) -> None:
    mirror.add_class("700_2020", "val", "zumba", {name(1): data, name(2): data}, number=1)
    mirror.add_class("700_2020", "val", "yoga", {name(3): data}, number=2)
    mirror.list_clip("700_2020", "val", "zumba", name(4))
    done = fetch(mirror, tmp_path, [name(1), name(2), name(4)])
    assert done.code == 1
    assert on_disk(tmp_path) == [name(1), name(2)]
    assert mirror.reads() == ["k700_val_002.tar.gz", "k700_val_001.tar.gz"]
    assert done.err.count("the archives are not in the expected order") == 1
    assert report_rows(tmp_path / "out" / REPORT)[name(4)]["reason"] == "unavailable"


def test_a_clip_that_its_archive_lacks_is_no_other_layout(
    mirror: Mirror, data: bytes, tmp_path: Path
) -> None:
    mirror.add_class("700_2020", "val", "zumba", {name(1): data}, number=2)
    mirror.add_class("700_2020", "val", "yoga", {name(3): data}, number=1)
    mirror.list_clip("700_2020", "val", "zumba", name(4))
    assert fetch(mirror, tmp_path, [name(4)]).code == 1
    assert mirror.reads() == ["k700_val_002.tar.gz"]


def test_clips_out_of_tars(standin: StandIn, data: bytes, tmp_path: Path) -> None:
    """A folder of tars, with files in it that are none, and one on a server."""
    held = tmp_path / "tars"
    (held / "deep").mkdir(parents=True)
    clips = [*(name(n) for n in range(4)), "-bcdefghi04_001.500_011.500"]
    tars = [make_tar([(f"a/b/{clip}.mp4", data)], zipped=n > 1) for n, clip in enumerate(clips)]
    (held / "0.tar").write_bytes(tars[0])
    (held / "broken.tar").write_bytes(tars[1][: len(data) // 2])
    (held / "deep" / "2.tar.gz").write_bytes(tars[2])
    (held / "4.tgz").write_bytes(tars[4])
    os.mkfifo(held / "pipe.tar")
    (held / "loop.tar").symlink_to(held / "loop.tar")
    standin.add_file("/some/3.tar", tars[3])
    times = [clip[12:].split("_") for clip in clips]
    rows = [f"{c[:11]},{float(a)},{float(b)}" for c, (a, b) in zip(clips, times, strict=True)]
    listing = write_list(tmp_path / "list.csv", rows)
    given = [tmp_path / "out", "--input_csv", listing, "--trim_format", "%010.3f"]
    source = f"tar:{held},tar:{standin.root}/some/3.tar"
    done = run("download.py", *given, "--source", source, cwd=tmp_path)
    assert done.code == 1, done.err
    found = {r["youtube_id"]: r for r in report_rows(tmp_path / "out" / REPORT).values()}
    assert [found[c[:11]]["reason"] for c in clips] == ["", "undecodable", "", "", ""], done.err
    assert {row["source"] for row in found.values()} == {"tar"}
    assert all(path.read_bytes() == data for path in (tmp_path / "out").glob("*.mp4"))
    done = run("download.py", *given, "--source", f"tar:{held}/none.tar", cwd=tmp_path)
    assert done.code == 2 and "there is no " in done.err


def test_a_class_with_spaces_and_parentheses(mirror: Mirror, data: bytes, tmp_path: Path) -> None:
    label = "passing American football (not in-game)"
    path = mirror.add_class("600", "train", label, {name(1): data})
    mirror.add_class("600", "train", "passing", {name(2): data})
    assert fetch(mirror, tmp_path, [name(1)]).code == 0
    assert mirror.reads() == [f"{label}.tar.gz"]
    sent = mirror.standin.requests(path)[-1].path
    assert " " not in sent and "(" not in sent


def test_encoding_options_apply(mirror: Mirror, data: bytes, tmp_path: Path) -> None:
    mirror.add_class("700_2020", "train", "zumba", {name(1): data})
    given = ["--short_side", "64", "--keyint", "25", "--no_audio"]
    assert fetch(mirror, tmp_path, [name(1)], *given).code == 0
    clip = tmp_path / "out" / f"{name(1)}.mp4"
    found = read_video(clip)
    assert (found.height, found.frames, found.audio_codec) == (64, 250, "")
    assert frame_numbers(clip) == list(range(250))


def test_one_odd_name_costs_its_own_clip(mirror: Mirror, data: bytes, tmp_path: Path) -> None:
    """Clips are named many at once; what fails for no fault of its copy is asked for again."""
    clips = [name(n) for n in range(4)]
    mirror.add_class("700_2020", "val", "zumba", dict.fromkeys(clips, data))
    in_the_way = tmp_path / "out" / f"{clips[1]}.mp4"
    in_the_way.mkdir(parents=True)
    done = fetch(mirror, tmp_path, clips)
    assert done.code == 1, done.err
    assert on_disk(tmp_path) == clips  # the folder among them
    rows = report_rows(tmp_path / "out" / REPORT)
    assert [rows[clip]["status"] for clip in clips] == [
        *("downloaded", "failed", "downloaded", "downloaded"),
    ]
    in_the_way.rmdir()
    assert fetch(mirror, tmp_path, clips).code == 0


@pytest.mark.parametrize("zipped", [False, True])
def test_a_lost_connection_goes_on(
    mirror: Mirror, data: bytes, tmp_path: Path, zipped: bool
) -> None:
    """A plain tar under a .tar.gz name goes on by Range; a gzipped one starts again."""
    clips = {name(n): data for n in range(8)}
    path = mirror.add_class("700_2020", "val", "zumba", clips, zipped=zipped)
    cut = mirror.standin.knobs(path, cut_after=int(len(data) * 4.5), times=1)
    done = fetch(mirror, tmp_path, list(clips))
    assert done.code == 0, done.err
    assert mirror.standin.times_used(cut) == 1
    assert on_disk(tmp_path) == sorted(clips)
    assert all(p.read_bytes() == data for p in (tmp_path / "out").glob("*.mp4"))
    first, second = mirror.standin.requests(path, method="GET")
    assert first.range == ""
    member = 512 - (-len(data) // 512) * 512
    assert second.range == ("" if zipped else f"bytes={4 * member}-")


def test_without_ranges_a_plain_tar_starts_again(
    mirror: Mirror, data: bytes, tmp_path: Path
) -> None:
    clips = {name(n): data for n in range(4)}
    path = mirror.add_class("700_2020", "val", "zumba", clips, zipped=False)
    mirror.standin.knobs(path, cut_after=int(len(data) * 2.5), times=1)
    mirror.standin.knobs(path, no_range=True, no_length=True)
    done = fetch(mirror, tmp_path, list(clips))
    assert done.code == 0, done.err
    assert "of unknown size" not in done.err  # HEAD still told
    assert on_disk(tmp_path) == sorted(clips)


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("garbage", "truncated plain")),
        "missing",
    ],
)
def test_of_a_damaged_archive_the_whole_clips_are_kept(
    mirror: Mirror, data: bytes, tmp_path: Path, damage: str
) -> None:
    clips = {name(n): data for n in range(4)}
    members = [(f"{clip}.mp4", content) for clip, content in clips.items()]
    archive = make_tar(members, zipped="plain" not in damage)
    middle = int(len(data) * 2.5)
    if damage == "garbage":
        archive = archive[:middle] + os.urandom(len(archive) - middle)
    else:
        archive = archive[:middle]
    for clip in clips:
        mirror.list_clip("700_2020", "val", "zumba", clip)
    path = mirror.add_archive("700_2020", "val", "k700_val_001.tar.gz", archive)
    if damage == "missing":
        mirror.standin.remove(path)
    done = fetch(mirror, tmp_path, list(clips))
    assert done.code == 1, done.err
    kept = [] if damage == "missing" else [name(0), name(1)]
    assert on_disk(tmp_path) == kept
    found = report_rows(tmp_path / "out" / REPORT)
    for clip in set(clips) - set(kept):
        assert (found[clip]["status"], found[clip]["reason"]) == ("failed", "network"), found[clip]
        assert "k700_val_001.tar.gz" in found[clip]["message"]
    # It was not read whole, so it is not remembered: the next run reads it again.
    whole = make_tar(members)
    mirror.standin.add_file(path, whole)
    assert fetch(mirror, tmp_path, list(clips)).code == 0


def test_hostile_members_are_passed_over(mirror: Mirror, data: bytes, tmp_path: Path) -> None:
    mirror.publish(tmp_path / "kinetics_csv")
    more: list[tuple[str, Content]] = [
        (f"../{name(1)}.mp4", data),
        (f"/tmp/{name(1)}.mp4", data),
        (f"a/../../{name(1)}.mp4", data),
        (f"{name(1)}.mp4", special(tarfile.SYMTYPE, "/etc/passwd")),
        (f"{name(1)}.mp4", special(tarfile.LNKTYPE, "/etc/passwd")),
        (f"{name(1)}.mp4", special(tarfile.CHRTYPE)),
        (f"{name(1)}.mp4", special(tarfile.FIFOTYPE)),
        (f"folder/._{name(1)}.mp4", b"mac"),
        ("more.tar", make_tar([(f"{name(1)}.mp4", data)])),
        ("folder", special(tarfile.DIRTYPE)),
        ("x" * 300 + f"/{name(5)}.mp4", data),
    ]
    wanted = {name(1): data, name(2): b"no video at all", name(3): data[: len(data) // 2]}
    mirror.add_class("700_2020", "val", "zumba", {**wanted, name(4): data}, more=more)
    mirror.list_clip("700_2020", "val", "zumba", name(5))
    done = fetch(mirror, tmp_path, [*wanted, name(5)])
    assert done.code == 1
    assert on_disk(tmp_path) == [name(1), name(5)]  # the long name's base name is a wanted clip
    found = report_rows(tmp_path / "out" / REPORT)
    assert found[name(2)]["reason"] == "undecodable"
    assert found[name(3)]["reason"] == "truncated"
    assert ": 6 members without a clip" in done.err
    reads = mirror.reads()
    assert fetch(mirror, tmp_path, [*wanted, name(5)]).code == 1
    assert mirror.reads() == reads  # the archive has nothing else to add
    outside = [p.name for p in tmp_path.rglob("*") if p.is_file() and ".cvdf" not in p.parts]
    outside = [name for name in outside if name != ".clips_settings.json"]
    lists = [f"kinetics-{d}_{s}.csv" for d in ("400", "600", "700_2020") for s in TVT]
    assert sorted(outside) == sorted(
        [f"{name(1)}.mp4", f"{name(5)}.mp4", "list.csv", REPORT, *lists]
    )


TVT = ("train", "val", "test")


def test_a_member_that_claims_to_be_huge(mirror: Mirror, data: bytes, tmp_path: Path) -> None:
    mirror.list_clip("700_2020", "val", "zumba", name(1))
    mirror.list_clip("700_2020", "val", "zumba", name(2))
    info = tarfile.TarInfo(f"{name(2)}.mp4")
    info.size = 2**45
    archive = make_tar([(f"{name(1)}.mp4", data)], zipped=False)
    archive = archive[: 512 - (-len(data) // 512) * 512] + info.tobuf() + bytes(2**20)
    mirror.add_archive("700_2020", "val", "k700_val_001.tar.gz", archive)
    done = fetch(mirror, tmp_path, [name(1), name(2)])
    assert done.code == 1
    assert on_disk(tmp_path) == [name(1)]
    assert ": 1 member without a clip" in done.err
    assert report_rows(tmp_path / "out" / REPORT)[name(2)]["reason"] == "network"


def test_corrupt_clips_of_k400_are_replaced(mirror: Mirror, data: bytes, tmp_path: Path) -> None:
    clips = [name(n) for n in range(4)]
    for clip in clips:
        mirror.list_clip("400", "train", "zumba", clip)
    first = [(f"{name(0)}.mp4", data), (f"./{name(1)}.mp4", data[:-100])]
    mirror.add_archive("400", "train", "part_0.tar.gz", make_tar(first))
    mirror.add_archive("400", "train", "part_1.tar.gz", make_tar([(f"{name(2)}.mp4", data)]))
    spare = [(f"{name(1)}.mp4", data), (f"{name(0)}.mp4", b"never looked at")]
    mirror.add_replacements(make_tar(spare))
    done = fetch(mirror, tmp_path, clips, "--n", "2")
    assert done.code == 1
    assert on_disk(tmp_path) == [name(0), name(1), name(2)]
    assert all(p.read_bytes() == data for p in (tmp_path / "out").glob("*.mp4"))
    assert report_rows(tmp_path / "out" / REPORT)[name(3)]["reason"] == "unavailable"
    reads = mirror.reads()
    assert sorted(reads[:2]) == ["part_0.tar.gz", "part_1.tar.gz"]
    assert reads[2:] == ["replacement_for_corrupted_k400.tgz"]


def test_the_whole_chain(
    mirror: Mirror, standin: StandIn, source: MakeSource, data: bytes, tmp_path: Path
) -> None:
    clips = [name(n) for n in range(4)]
    held = tmp_path / "k700"
    held.mkdir()
    (held / f"{clips[0]}.mp4").write_bytes(data)
    mirror.add_class("700_2020", "val", "zumba", {clips[1]: data})
    standin.add_video(clips[2][:11], source(seconds=20, size=(256, 144)))
    standin.add_dead(clips[3][:11], "private")
    given = ["--source", f"clips:{held},cvdf,youtube", "--ytdlp_args", standin.ytdlp_args]
    done = fetch(mirror, tmp_path, clips, *given, "--videos_per_hour", "0")
    assert done.code == 1
    found = report_rows(tmp_path / "out" / REPORT)
    assert [found[c]["source"] for c in clips] == ["clips", "cvdf", "youtube", "youtube"]
    assert found[clips[3]]["reason"] == "private"
    assert "downloaded 3 (clips 1, cvdf 1, youtube 1)" in done.err
    assert len({r.youtube_id for r in standin.requests(target="player")}) == 2


def test_an_ava_clip_is_in_no_archive(mirror: Mirror, tmp_path: Path) -> None:
    listing = write_list(tmp_path / "ava.csv", ["-bcdefghijk,903,-1"])
    mirror.publish(tmp_path / "kinetics_csv")
    given = ["--input_csv", listing, "--source", "cvdf", "--mirror_base", mirror.base]
    done = run("download.py", tmp_path / "out", *given, cwd=tmp_path)
    assert done.code == 1
    assert mirror.standin.requests() == []


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_kill_in_the_middle_and_a_rerun(
    mirror: Mirror, data: bytes, tmp_path: Path, number: signal.Signals
) -> None:
    clips = {name(n): data for n in range(10)}
    path = mirror.add_class("700_2020", "val", "zumba", clips, zipped=False)
    stall = mirror.standin.knobs(path, stall_after=int(len(data) * 5.5))
    process = start("download.py", *command(mirror, tmp_path, list(clips)), cwd=tmp_path)
    deadline = time.monotonic() + 60
    while len(on_disk(tmp_path)) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    stopping = time.monotonic()
    process.send_signal(number)
    done = finish(process)
    assert time.monotonic() - stopping < 15
    if number == signal.SIGTERM:
        assert done.code == 128 + number
        assert "stopped after" in done.err
        assert not (tmp_path / "out" / ".tmp").exists()
    assert on_disk(tmp_path) == sorted(clips)[:5]
    assert not [p for p in psutil.process_iter() if p.ppid() == process.pid]
    mirror.standin.clear_knobs(path)
    assert mirror.standin.times_used(stall) <= 1
    assert fetch(mirror, tmp_path, list(clips)).code == 0
    assert on_disk(tmp_path) == sorted(clips)
    assert not (tmp_path / "out" / ".tmp").exists()


@pytest.mark.parametrize(
    "what",
    [
        "path list",
        "lists' archive",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("redirect", "list")),
    ],
)
def test_an_answer_without_end_is_bounded(
    what: str, mirror: Mirror, data: bytes, tmp_path: Path
) -> None:
    """In memory and time: of each server that the source asks, and of a redirect's body."""
    given = command(mirror, tmp_path, [name(1)], "--lists_base", f"{mirror.standin.root}/lists")
    mirror.add_class("700_2020", "test", "zumba", {name(1): data})
    mirror.publish(tmp_path / "kinetics_csv")
    paths = f"/{mirror.prefix}/700_2020/test/k700_2020_test_path.txt"
    if what == "path list":
        mirror.standin.knobs(paths, endless=True)
    elif what == "redirect":
        text = f"{mirror.urls['700_2020', 'test'][0]}\n".encode()
        moved = mirror.standin.add_file("/moved.txt", text)
        mirror.standin.knobs(paths, redirect=moved, endless=True)
    else:
        (tmp_path / "kinetics_csv" / "kinetics-700_2020_test.csv").unlink()
        csv, archive = "/lists/700_2020/annotations/test.csv", "/lists/kinetics700_2020.tar.gz"
        header = b"label,youtube_id,time_start,time_end,split\n"
        mirror.standin.add_file(csv, header)
        mirror.standin.knobs(csv, endless=True)
        if what != "list":
            mirror.standin.add_file(archive, make_tar([("kinetics700_2020/test.csv", header)]))
            mirror.standin.knobs(archive, endless=True)
    process = start("download.py", *given, cwd=tmp_path)
    resource.prlimit(process.pid, resource.RLIMIT_DATA, (1500 * 2**20,) * 2)
    done = finish(process, timeout=60)
    assert done.code == (0 if what == "redirect" else 1), done.err
    if what != "redirect":
        assert "is larger than " in done.err, done.err
