"""The official lists on demand: both servers' layouts on loopback, with lists of real length."""

from __future__ import annotations

import signal
import tarfile
import time
from pathlib import Path

import pytest

from tests.scripts import Done, finish, run, start
from tests.standin.mirror import Mirror, make_tar
from tests.standin.server import StandIn
from utils.lists.reading import read_lists
from utils.lists.versions import ROWS, OfficialList

HEADER = "label,youtube_id,time_start,time_end,split,is_cc"
SPLITS = ("train", "val", "test")
NAMES = {"val": "validate.csv", "train": "train.csv", "test": "test.csv"}


def rows(count: int, split: str = "val", label: str = '"air drumming"') -> list[str]:
    start = "" if split == "test" else f"{label},"
    return [f"{start}-{n:010d},{n % 100},{n % 100 + 10},{split}" for n in range(count)]


def csv_of(count: int, split: str = "val") -> bytes:
    header = ",".join(HEADER.split(",")[split == "test" : -1])
    return "\n".join([header, *rows(count, split), ""]).encode()


def archive_of(dataset: str, *splits: str) -> bytes:
    return make_tar([(f"k/{NAMES[s]}", csv_of(ROWS[OfficialList(dataset, s)], s)) for s in splits])


def dry_run(folder: Path, standin: StandIn, *more: object) -> Done:
    given = [folder / "out", "--lists_base", standin.root, "--limit", "1", *more]
    return run("download.py", *given, "--dry_run", cwd=folder)


def fetch(folder: Path, standin: StandIn, *more: object) -> Done:
    """A run that wants one clip and finds it nowhere."""
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    given = [folder / "out", "--lists_base", f"{standin.root}/", "--limit", "1"]
    return run("download.py", *given, "--source", f"clips:{empty}", *more, cwd=folder)


def test_a_named_list_comes_alone_from_the_archive(standin: StandIn, tmp_path: Path) -> None:
    files = [
        (f"kinetics700/{file}", csv_of(ROWS[OfficialList("700", s)], s))
        for s, file in NAMES.items()
    ]
    unread = [("kinetics700/validate.json", b"{}"), ("../kinetics700/._validate.csv", b"mac")]
    standin.add_file("/kinetics700.tar.gz", make_tar([*unread, *files[::2], *files]))
    done = dry_run(tmp_path, standin, "--input_csv", "kinetics-700_val")
    assert (done.code, standin.requests()) == (0, [])
    assert "would fetch the list kinetics-700_val into kinetics_csv" in done.err
    assert not (tmp_path / "kinetics_csv").exists()
    done = fetch(tmp_path, standin, "--input_csv", "kinetics-700_val")
    assert done.code == 1, done.err
    assert "fetching kinetics-700_val into kinetics_csv" in done.err
    path = tmp_path / "kinetics_csv" / "kinetics-700_val.csv"
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text().startswith("label,youtube_id,time_start,time_end,split\n")
    assert path.read_text().splitlines()[6] == "air drumming,-0000000005,5,15,val"
    assert len(read_lists([path]).clips) == ROWS[OfficialList("700", "val")]
    standin.clear_log()
    assert fetch(tmp_path, standin, "--input_csv", path).code == 1
    assert standin.requests() == []


def test_the_second_server_and_its_text_lists(standin: StandIn, tmp_path: Path) -> None:
    standin.add_file("/600/annotations/val.csv", csv_of(100))  # incomplete, and not to be used
    lines = ["air drumming:", *(f"-{n:010d}_000001_000011.mp4" for n in range(15_000)), ""]
    lines += ["tap dancing:", *(f"_{n:010d}_000001_000011.mp4" for n in range(15_000)), ""]
    standin.add_file("/600/annotations/val.txt", "\n".join(lines).encode())
    path = tmp_path / "lists" / "kinetics-600_val.csv"
    done = fetch(tmp_path, standin, "--input_csv", path)
    assert done.code == 1, done.err
    clips = list(read_lists([path]).clips.values())
    assert len(clips) == 30_000
    assert clips[15_000][1:5] == ("_0000000000", 1, 11, "tap dancing")


@pytest.mark.parametrize("wrong", ["rows", "columns", "page", "truncated", "nothing"])
def test_a_list_that_reads_wrong_is_refused(standin: StandIn, tmp_path: Path, wrong: str) -> None:
    content = csv_of(ROWS[OfficialList("700", "val")])
    if wrong == "rows":
        content = csv_of(20_000)
    elif wrong == "columns":
        content = content.replace(b"youtube_id", b"video", 1)
    archive = make_tar([("k/val.csv", content)])
    if wrong == "page":
        archive = b"<html>moved</html>" * 100
    elif wrong == "truncated":
        archive = archive[: len(archive) // 2]
    if wrong != "nothing":
        standin.add_file("/kinetics700.tar.gz", archive)
    done = fetch(tmp_path, standin, "--input_csv", "kinetics_csv/kinetics-700_val.csv")
    assert done.code == 2
    assert "kinetics-700_val could not be downloaded" in done.err
    assert "/kinetics700.tar.gz manually" in done.err
    assert "kinetics_csv/kinetics-700_val.csv" in done.err
    assert list((tmp_path / "kinetics_csv").iterdir()) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_empty_folder_gets_all_lists(standin: StandIn, tmp_path: Path) -> None:
    done = dry_run(tmp_path, standin)
    assert done.err.count("would fetch") == 9  # three come with the suite
    # The first server is without Kinetics-600: the run ends, and the next one goes on from there.
    standin.add_file("/kinetics400.tar.gz", archive_of("400", *SPLITS))
    assert fetch(tmp_path, standin).code == 2
    folder = tmp_path / "kinetics_csv"
    names = {f"kinetics-400_{split}.csv" for split in ("train", "test")}
    assert {path.name for path in folder.iterdir()} == names
    standin.clear_log()
    for dataset in ("600", "700", "700_2020"):
        # Put there by hand, and used as it is; half a million rows would take their time here.
        (folder / f"kinetics-{dataset}_train.csv").write_bytes(csv_of(10, "train"))
        standin.add_file(f"/kinetics{dataset}.tar.gz", archive_of(dataset, "val", "test"))
    assert fetch(tmp_path, standin, "--split", "val").code == 1
    names = {f"{each.name}.csv" for each in ROWS if each.split != "val" or each.dataset == "700"}
    assert {path.name for path in folder.iterdir()} == names
    asked = [request.youtube_id for request in standin.requests()]
    assert asked == [f"/kinetics{dataset}.tar.gz" for dataset in ("600", "700", "700_2020")]


def test_ava_annotations_and_their_label_map(standin: StandIn, tmp_path: Path) -> None:
    files: list[tuple[str, bytes | tarfile.TarInfo]] = [
        (f"ava_kinetics_v1_0/kinetics_{split}_v1.0.csv", b"-bcdefghijk,903,0.1,0.2,0.3,0.4,12\n")
        for split in SPLITS
    ]
    label_map = (
        "ava_kinetics_v1_0/ava_action_list_v2.2_for_activitynet_2019.pbtxt",
        b'label {\n  name: "stand"\n  label_id: 12\n}\n',
    )
    folder = tmp_path / "ava_kinetics_csv"
    path = "/700_2020/annotations/ava_kinetics_v1_0.tar.gz"
    standin.add_file("/ava_kinetics_v1_0.tar.gz", make_tar(files))  # without the label map
    standin.add_file(path, make_tar([*files, label_map, ("ava_v2/other.csv", b"")]))
    script, given = "make_ava_kin_download_csv.py", ["--lists_base", standin.root]
    done = run(script, *given, "--dry_run", cwd=tmp_path)
    assert (done.code, standin.requests(), folder.exists()) == (0, [], False)
    assert "would download the AVA-Kinetics annotations to ava_kinetics_csv" in done.err
    done = run(script, *given, cwd=tmp_path)
    assert done.code == 0, done.err
    fetched = {name.rsplit("/", 1)[-1] for name, _ in [*files, label_map]}
    made = {"videos_to_download.csv", *(f"annotations_{split}.csv" for split in SPLITS)}
    assert {path.name for path in folder.iterdir()} == fetched | made
    assert [request.youtube_id for request in standin.requests()][-1] == path
    assert run(script, *given, cwd=tmp_path).code == 0
    assert len(standin.requests()) == 2
    assert run(script, "--annotations", "nowhere", *given, cwd=tmp_path).code == 2
    assert len(standin.requests()) == 2


@pytest.mark.parametrize("source", ["clips", "cvdf"])
def test_a_silent_server_does_not_hold_up_the_end(
    standin: StandIn, tmp_path: Path, source: str
) -> None:
    """Stopped while the lists are fetched, or those of the mirror's archives."""
    given: list[object] = [tmp_path / "out", "--input_csv", "kinetics-400_test"]
    path = standin.add_file("/kinetics400.tar.gz", archive_of("400", "test"))
    if source == "cvdf":
        mirror = Mirror(standin)
        mirror.list_clip("400", "test", "zumba", "-bcdefghijk_000001_000011")
        mirror.add_archive("400", "test", "part_0.tar.gz", b"never read")
        mirror.publish(tmp_path / "kinetics_csv")
        given += ["--source", "cvdf", "--mirror_base", mirror.base]
    standin.knobs(target="file", stall_after=10)
    process = start("download.py", *given, "--lists_base", standin.root, cwd=tmp_path)
    deadline = time.monotonic() + 30
    while not standin.requests(target="file") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert standin.requests(target="file"), path
    stopping = time.monotonic()
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert time.monotonic() - stopping < 15
    assert done.code == 128 + signal.SIGTERM, done.err
    assert not list(tmp_path.rglob(".tmp"))
