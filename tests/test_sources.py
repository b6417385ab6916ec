"""--source: clips from the disk, and the chain; download.py runs as a user runs it."""

from __future__ import annotations

import os
import shutil
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from tests.conftest import MakeSource
from tests.scripts import Done, report_rows, run, run_here, write_list
from tests.standin.mirror import Mirror, make_tar
from tests.standin.server import StandIn
from tests.standin.sources import beep_times, frame_numbers, frame_times
from utils.download.sources import parse_sources
from utils.video.whole import BadClip, decode_whole, read_video

ID = "-bcdefghijk"
REPORT = "download_report.csv"
SIZE = (256, 144)  # quickly made, and cut


def fetch(folder: Path, rows: list[str], *more: object) -> Done:
    listing = write_list(folder / "list.csv", rows)
    command = [folder / "out", "--input_csv", listing, "--videos_per_hour", "0", *more]
    return run("download.py", *command, cwd=folder)


def put(folder: Path, name: str, video: Path) -> Path:
    """A clip on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mp4"
    shutil.copyfile(video, path)
    return path


def test_the_same_clip_is_linked_and_a_longer_one_is_cut(
    source: MakeSource, tmp_path: Path
) -> None:
    held = put(
        tmp_path / "k%700 a,b" / "some label", f"{ID}_000100_000110", source(seconds=10, size=SIZE)
    )
    rows = [f"{ID},100,110", f"{ID},102,105", f"{ID},108,112", "notondisk__,0,10"]
    done = fetch(tmp_path, rows, "--source", f"clips:{tmp_path / 'k%700 a,b'}")
    assert done.code == 1
    out = tmp_path / "out"
    assert os.path.samefile(held, out / held.name)
    cut = out / f"{ID}_000102_000105.mp4"
    assert frame_numbers(cut) == list(range(50, 125))
    assert beep_times(cut) == pytest.approx(range(3), abs=0.040)
    found = report_rows(out / REPORT)
    assert found[held.stem]["source"] == found[cut.stem]["source"] == "clips"
    for name in (f"{ID}_000108_000112", "notondisk___000000_000010"):
        assert (found[name]["status"], found[name]["reason"]) == ("unavailable", "unavailable")
    assert "downloaded 2 (clips 2)" in done.err
    assert sorted(path.name for path in out.iterdir()) == [
        held.name,
        cut.name,
        ".clips_settings.json",
        REPORT,
    ]
    assert "2 unavailable" not in fetch(tmp_path, rows, "--dry_run").err  # YouTube never said so


def test_encoding_options_apply_to_clips_from_the_disk(source: MakeSource, tmp_path: Path) -> None:
    held = put(tmp_path / "k700", f"{ID}_000100_000110", source(seconds=10, size=SIZE))
    given = ["--source", f"clips:{held.parent}", "--short_side", "128", "--no_audio"]
    assert fetch(tmp_path, [f"{ID},100,110"], *given).code == 0
    found = read_video(tmp_path / "out" / held.name)
    assert (found.height, found.frames, found.audio_codec) == (128, 250, "")
    assert read_video(held).height == 144


@pytest.mark.parametrize(
    ("options", "made"),
    [
        (("--max_height", "0", "--no_audio"), "with --max_height 480, without --no_audio"),
        pytest.param(("--short_side", "128"), "without --short_side", marks=pytest.mark.slow),
        pytest.param(("--keyint", "12"), "without --keyint", marks=pytest.mark.slow),
    ],
)
def test_clips_of_different_options_are_not_mixed(
    options: tuple[str, ...], made: str, source: MakeSource, tmp_path: Path
) -> None:
    """Refused before the first clip, whatever the list; an older folder has no settings."""
    put(tmp_path / "k700", f"{ID}_000100_000110", source(seconds=10, size=SIZE))
    where, out = ("--source", f"clips:{tmp_path / 'k700'}"), tmp_path / "out"
    assert fetch(tmp_path, [f"{ID},100,110"], *where).code == 0
    listing = write_list(tmp_path / "list.csv", [f"{ID},101,103"])
    for more in ((), ("--dry_run",), ("--verify",)):
        given = [out, "--input_csv", listing, *where, *options, *more]
        done = run_here("download.py", *given, cwd=tmp_path)
        assert (done.code, done.err) == (
            2,
            f"error: {out} holds clips made {made}; use the same options, or another output"
            " folder\n",
        )
    assert [path.name for path in out.glob("*.mp4")] == [f"{ID}_000100_000110.mp4"]
    assert fetch(tmp_path, [f"{ID},102,104"], *where, "--crf", "30").code == 0
    (out / ".clips_settings.json").unlink()
    assert fetch(tmp_path, [f"{ID},101,103"], *where, *options).code == 0
    assert not (out / ".clips_settings.json").exists()
    (out / ".clips_settings.json").write_text("[]")
    done = fetch(tmp_path, [f"{ID},103,105"], *where)
    assert done.code == 2 and "cannot be read (is not a JSON object)" in done.err
    for path in out.glob("*.mp4"):
        path.unlink()
    assert fetch(tmp_path, [f"{ID},103,105"], *where, *options).code == 0


def test_a_clip_shorter_than_its_name_goes_to_the_next_source(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=SIZE))
    put(tmp_path / "short", f"{ID}_000002_000012", source(seconds=6, size=SIZE))
    broken = put(tmp_path / "broken", f"{ID}_000003_000013", source(seconds=10, size=SIZE))
    broken.write_bytes(broken.read_bytes()[:-1000])
    rows = [f"{ID},2,12", f"{ID},4,6", f"{ID},9,11", f"{ID},3,13"]
    chain = f"clips:{tmp_path / 'short'}:{tmp_path / 'broken'},youtube"
    done = fetch(tmp_path, rows, "--source", chain, "--ytdlp_args", standin.ytdlp_args)
    assert done.code == 0, done.err
    found = report_rows(tmp_path / "out" / REPORT)
    sources = [found[f"{ID}_{s:06d}_{e:06d}"]["source"] for s, e in ((2, 12), (4, 6), (9, 11))]
    assert sources == ["youtube", "clips", "youtube"]
    assert found[broken.stem]["source"] == "youtube"
    assert frame_numbers(tmp_path / "out" / f"{ID}_000002_000012.mp4") == list(range(50, 300))
    assert frame_numbers(tmp_path / "out" / f"{ID}_000004_000006.mp4") == list(range(50, 100))
    assert "downloaded 4 (" in done.err


def test_a_short_clip_is_taken_where_its_own_report_says_so(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_video(ID, source(seconds=20, size=SIZE))
    rows = [f"{ID},15,25"]
    assert fetch(tmp_path, rows, "--ytdlp_args", standin.ytdlp_args).code == 0
    os.rename(tmp_path / "out", tmp_path / "first")
    assert fetch(tmp_path, rows, "--source", f"clips:{tmp_path / 'first'}").code == 0
    found = report_rows(tmp_path / "out" / REPORT)[f"{ID}_000015_000025"]
    assert (found["status"], found["reason"]) == ("downloaded", "short")


def test_what_youtube_said_is_remembered_and_other_sources_are_asked(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    standin.add_dead(ID, "private")
    given = ["--ytdlp_args", standin.ytdlp_args]
    rows = [f"{ID},3,5", f"{ID},13,15"]
    empty = tmp_path / "k700"
    empty.mkdir()
    done = fetch(tmp_path, rows, "--source", f"youtube,clips:{empty}", *given)
    assert done.code == 1
    found = report_rows(tmp_path / "out" / REPORT)
    # That a source does not hold a clip says less than that its video is private.
    assert {(r["reason"], r["source"]) for r in found.values()} == {("private", "youtube")}
    standin.clear_log()
    size = (tmp_path / "out" / REPORT).stat().st_size
    put(empty, f"{ID}_000000_000010", source(seconds=10, size=SIZE))
    done = fetch(tmp_path, rows, "--source", f"clips:{empty},youtube", *given)
    assert done.code == 1
    assert standin.requests() == []
    added = (tmp_path / "out" / REPORT).read_text()[size:].splitlines()
    assert [line.split(",")[0] for line in added] == [f"{ID}_000003_000005"]
    assert "private 1" in done.err
    assert "on disk: 1 of 2 requested clips" in done.err


@pytest.mark.parametrize(
    ("held", "ts", "window"),
    [
        pytest.param((98, 108), 103, (100, 106), marks=pytest.mark.slow),
        pytest.param((98, 103), 102, (99, 103), marks=pytest.mark.slow),
        pytest.param((102, 112), 103, (102, 106), marks=pytest.mark.slow),
        ((95, 103), 103, None),  # ends where the key frame begins
    ],
)
def test_ava_clips_out_of_kinetics_clips(
    source: MakeSource,
    tmp_path: Path,
    held: tuple[int, int],
    ts: int,
    window: tuple[int, int] | None,
) -> None:
    start, end = held
    put(tmp_path / "k700", f"{ID}_{start:06d}_{end:06d}", source(seconds=end - start, size=SIZE))
    rows, given = [f"{ID},{ts},-1"], ["--source", f"clips:{tmp_path / 'k700'}"]
    is_whole = window == (ts - 3, ts + 3)
    assert fetch(tmp_path, rows, *given).code == (0 if is_whole else 1)
    assert fetch(tmp_path, rows, *given, "--allow_partial").code == (0 if window else 1)
    row = report_rows(tmp_path / "out" / REPORT)[f"{ID}_{ts:06d}"]
    if window is None:
        assert row["reason"] == "unavailable"
        return
    told = (str(ts), "-1", "") if is_whole else (str(window[0]), str(window[1]), "short")
    assert (row["time_start"], row["time_end"], row["reason"]) == told
    # The key frame, found by the window that the report tells, is the frame that it should be.
    times = dict(frame_times(tmp_path / "out" / f"{ID}_{ts:06d}.mp4"))
    assert len(times) == (window[1] - window[0]) * 25
    assert times[ts - window[0]] == (ts - start) * 25
    assert fetch(tmp_path, rows, "--verify", *given).code == 0


def test_of_several_parts_the_longest_is_taken(source: MakeSource, tmp_path: Path) -> None:
    put(tmp_path / "k700", f"{ID}_000102_000112", source(seconds=10, size=SIZE))
    put(tmp_path / "k700", f"{ID}_000101_000111", source(seconds=10, size=SIZE))
    given = ["--source", f"clips:{tmp_path / 'k700'}", "--allow_partial"]
    assert fetch(tmp_path, [f"{ID},103,-1"], *given).code == 0
    row = report_rows(tmp_path / "out" / REPORT)[f"{ID}_000103"]
    assert (row["time_start"], row["time_end"]) == ("101", "106")


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ("clips:/nowhere", "is not a folder"),
        ("youtub", "is not a source"),
        ("youtube,youtube", "names a source twice"),
        ("", "is not a source"),
    ],
)
def test_a_wrong_chain_is_refused(tmp_path: Path, chain: str, said: str) -> None:
    listing = write_list(tmp_path / "list.csv", [f"{ID},0,10"])
    given = [tmp_path / "out", "--input_csv", listing, f"--source={chain}"]
    done = run_here("download.py", *given, cwd=tmp_path)
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "out").exists()


def test_a_file_that_breaks_off_anywhere_is_found(source: MakeSource, tmp_path: Path) -> None:
    whole = source(seconds=4, fps="30000/1001")
    assert read_video(whole).end == pytest.approx(4, abs=0.02)
    decode_whole(whole)
    data, part = whole.read_bytes(), tmp_path / "part.mp4"
    for size in [*range(0, len(data), len(data) // 97), len(data) - 1]:
        part.write_bytes(data[:size])
        with pytest.raises(BadClip):
            read_video(part)


def no_file(folder: Path, number: int) -> None:
    """Put what is not a regular file at the path of a clip."""
    path = folder / f"{ID}_{number:06d}_{number + 2:06d}.mp4"
    match number:
        case 10:
            os.mkfifo(path)
        case 20:
            os.mkfifo(folder / "fifo")
            path.symlink_to("fifo")
        case 30:
            path.symlink_to("/dev/zero")
        case 40:
            path.symlink_to(path.name)
        case 50:
            path.mkdir()
        case 60:
            path.symlink_to("nowhere")


NO_FILES = (10, 20, 30, 40, 50, 60)
FOLDERS = (b"caf\xe9", b"\xd6\xd0\xb9\xfa", b"\xff\xfe")  # Latin-1, GBK, neither


@pytest.mark.parametrize("more", [(), ("--short_side", "64")], ids=["linked", "encoded"])
def test_clips_beside_what_is_no_file_are_taken_from_folders_of_any_name(
    more: tuple[str, ...], source: MakeSource, tmp_path: Path
) -> None:
    top, clip = tmp_path / "k700", source(seconds=2, size=(160, 90))
    for number, name in enumerate(FOLDERS):
        put(top / os.fsdecode(name), f"{ID}_{number:06d}_{number + 2:06d}", clip)
    for number in NO_FILES:
        no_file(top, number)
    os.mkfifo(top / REPORT)
    starts = [*range(len(FOLDERS)), *NO_FILES]
    chain = f"clips:{top}"
    done = fetch(tmp_path, [f"{ID},{n},{n + 2}" for n in starts], "--source", chain, *more)
    assert done.code == 1, done.err
    found = report_rows(tmp_path / "out" / REPORT)
    assert [row["status"] for name, row in sorted(found.items())][:3] == ["downloaded"] * 3
    assert {row["reason"] for row in found.values()} <= {"", "undecodable", "unavailable"}
    assert len(list((tmp_path / "out").glob("*.mp4"))) == len(FOLDERS)
    assert f"{top / REPORT}: is not a regular file" in done.err


def test_an_archive_that_is_no_file_is_refused_and_passed_over_in_a_folder(
    source: MakeSource, tmp_path: Path
) -> None:
    folder, member = tmp_path / os.fsdecode(FOLDERS[0]), f"{ID}_000000_000002.mp4"
    folder.mkdir()
    data = source(seconds=2, size=(160, 90)).read_bytes()
    latin = os.fsdecode(b"caf\xe9.tar")
    (folder / latin).write_bytes(make_tar([(f"caf\udce9/{member}", data)], zipped=False))
    for number in NO_FILES:
        no_file(folder, number)
    for path in folder.glob("*.mp4"):
        odd = path.with_suffix(".tar")
        os.symlink(path.name, odd)
        if not odd.is_dir():
            with pytest.raises(ArgumentTypeError, match="there is no file or folder"):
                parse_sources(f"tar:{odd}")
    done = fetch(tmp_path, [f"{ID},0,2"], "--source", f"tar:{folder}")
    assert done.code == 0, done.err


def manifests(target: str) -> list[bytes]:
    """Texts that FFmpeg would take for a media file, and that name another one."""
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
        ' mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
        '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="100000">'
        f"<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile '{target}'\n"
    return [text.encode() for text in (dash, hls, concat)]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("clips", ()),
        ("tar", ("--short_side", "64")),
        ("cvdf", ()),
        pytest.param("clips", ("--short_side", "64"), marks=pytest.mark.slow),
        pytest.param("tar", (), marks=pytest.mark.slow),
        pytest.param("cvdf", ("--short_side", "64"), marks=pytest.mark.slow),
    ],
)
def test_a_manifest_in_place_of_a_clip_is_undecodable_and_nothing_it_names_is_opened(
    kind: str, more: tuple[str, ...], standin: StandIn, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "private.mp4")  # whoever opens it waits for ever
    address = standin.add_file("/private.mp4", b"private")
    named = (f"file://{tmp_path / 'private.mp4'}", address)
    texts = [text for target in named for text in manifests(target)]
    clips = {f"{ID}_{n:06d}_{n + 2:06d}": text for n, text in enumerate(texts)}
    if kind == "clips":
        (tmp_path / "k700").mkdir()
        for name, text in clips.items():
            (tmp_path / "k700" / f"{name}.mp4").write_bytes(text)
        given: list[object] = ["--source", f"clips:{tmp_path / 'k700'}"]
    elif kind == "tar":
        members = [(f"{name}.mp4", text) for name, text in clips.items()]
        (tmp_path / "k700.tar").write_bytes(make_tar(members))
        given = ["--source", f"tar:{tmp_path / 'k700.tar'}"]
    else:
        mirror = Mirror(standin)
        mirror.add_class("700_2020", "val", "yoga", clips)
        mirror.publish(tmp_path / "kinetics_csv")
        given = ["--source", "cvdf", "--mirror_base", mirror.base]
    rows = [f"{ID},{n},{n + 2}" for n in range(len(texts))]
    done = fetch(tmp_path, rows, *given, *more)
    assert done.code == 1, done.err
    found = report_rows(tmp_path / "out" / REPORT)
    assert [row["reason"] for row in found.values()] == ["undecodable"] * len(texts)
    assert not list((tmp_path / "out").glob("*.mp4"))
    assert "/private.mp4" not in [request.path for request in standin.requests()]
