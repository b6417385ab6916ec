"""Films that people have, each with what is right for it: cut, checked, downscaled, brought in."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.conftest import MakeSource
from tests.scripts import Done, report_rows, run, write_list
from tests.standin.sources import (
    ffmpeg_path,
    frame_numbers,
    frame_times,
    make_source,
    read_frame_number,
)
from utils.video.whole import read_video

ID = "-bcdefghijk"
SIZE = (160, 90)


def ffmpeg(*arguments: object) -> None:
    argv = [ffmpeg_path(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run(argv, check=True, timeout=120, capture_output=True)


def cut(folder: Path, film: Path, start: int, end: int, length: int = 30) -> Path:
    """A clip of a film that lies in a folder of clips, as `--source clips:DIR` cuts it."""
    held = folder / "held" / f"{ID}_000100_{100 + length:06d}.mp4"
    held.parent.mkdir(exist_ok=True)
    held.write_bytes(film.read_bytes())
    listing = write_list(folder / "list.csv", [f"{ID},{100 + start},{100 + end}"])
    given = ["--input_csv", listing, "--source", f"clips:{held.parent}"]
    done = run("download.py", folder / "out", *given, cwd=folder)
    assert done.code == 0, done.err
    verified = run("download.py", folder / "out", *given, "--verify", cwd=folder)
    assert verified.code == 0 and " 0 bad" in verified.err, verified.err
    return folder / "out" / f"{ID}_{100 + start:06d}_{100 + end:06d}.mp4"


def reorg(folder: Path, name: str, film: Path, code: int = 0) -> dict[str, dict[str, str]]:
    place = folder / "old" / "label" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(film.read_bytes())
    done = run("reorg_kinetics_videos.py", folder / "old", folder / "new", "--copy", cwd=folder)
    assert done.code == code, done.err
    return report_rows(folder / "new" / "reorg_report.csv")


def downscale(
    folder: Path, film: Path, *more: object, code: int = 0
) -> tuple[Done, dict[str, str]]:
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / f"x{film.suffix}").write_bytes(film.read_bytes())
    out = folder / "small"
    done = run("downscale_videos.py", folder / "in", out, "--n", 1, *more, cwd=folder)
    assert done.code == code, done.err
    return done, report_rows(out / "downscale_report.csv")["x"]


@pytest.fixture
def film(source: MakeSource) -> Path:
    return source(seconds=30, size=SIZE, fps=25, gop=50)


def test_a_picture_later_than_its_sound(film: Path, tmp_path: Path) -> None:
    late = tmp_path / "late.mp4"
    ffmpeg(
        "-itsoffset", 0.2, "-i", film, "-i", film, "-map", "0:v", "-map", "1:a", "-c", "copy", late
    )
    frames = frame_times(cut(tmp_path, late, 0, 10))
    assert [n for _, n in frames] == list(range(245)) and frames[0][0] == pytest.approx(0.2)


def test_sound_that_has_ended(film: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.mp4"
    ffmpeg("-i", film, "-t", 4, "-i", film, "-map", "0:v", "-map", "1:a", "-c", "copy", short)
    assert frame_numbers(cut(tmp_path, short, 5, 15)) == list(range(125, 375))


def test_a_picture_that_stands_through_the_window(source: MakeSource, tmp_path: Path) -> None:
    times = [n / 25 for n in range(750) if n < 75 or n >= 500]
    for audio in (True, False):
        slides = source(seconds=30, size=SIZE, pts=times, audio=audio)
        folder = tmp_path / str(audio)
        folder.mkdir()
        clip = cut(folder, slides, 5, 15)
        assert frame_times(clip) == [(0.0, 74)]
        assert read_video(clip).end == pytest.approx(10, abs=0.03)


@pytest.mark.slow
def test_chapters_and_cover_art(film: Path, tmp_path: Path) -> None:
    text, cover, odd = tmp_path / "c.txt", tmp_path / "cover.png", tmp_path / "odd.mp4"
    head = "[CHAPTER]\nTIMEBASE=1/1\n"
    text.write_text(f";FFMETADATA1\n{head}START=0\nEND=12\n{head}START=12\nEND=30\n")
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64:d=1", "-frames:v", 1, cover)
    covered = ["-map", "2", "-map", "0", "-disposition:v:0", "attached_pic"]
    ffmpeg("-i", film, "-i", text, "-i", cover, "-map_chapters", 1, *covered, "-c", "copy", odd)
    clip = cut(tmp_path, odd, 5, 7)
    assert frame_numbers(clip) == list(range(125, 175))
    with av.open(str(clip)) as file:
        assert not file.chapters()
        assert [stream.type for stream in file.streams] == ["video", "audio"]
    assert reorg(tmp_path, f"{ID}_000000_000030.mp4", odd)
    assert downscale(tmp_path, odd, "--short_side", 64)[1]["frames"] == "750"


def test_variable_rates_with_b_frames(tmp_path: Path) -> None:
    vfr = tmp_path / "vfr.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=160x90:r=30:d=30", "-f", "lavfi", "-i", "sine=d=30"),
        *("-vf", "select='lt(random(1),0.5)'", "-fps_mode", "vfr", "-c:v", "libx264"),
        *("-threads", 1, "-pix_fmt", "yuv420p", "-c:a", "aac", vfr),
    )
    source = read_video(vfr)
    times = [t * source.time_base for t in source.times]
    for start in (3, 17):
        folder = tmp_path / str(start)
        folder.mkdir()
        made = read_video(cut(folder, vfr, start, start + 10))
        wanted = [float(t - start) for t in times if start <= t < start + 10]
        assert [float(t * made.time_base) for t in made.times] == pytest.approx(wanted, abs=1e-5)
    assert downscale(tmp_path, vfr, "--short_side", 64)[1]["frames"] == str(len(times))


def test_an_open_gop_that_a_copy_begins_with(source: MakeSource, tmp_path: Path) -> None:
    whole, clip = source(seconds=6, size=SIZE, gop=12, bframes=3, open_gop=True), tmp_path / "c.mp4"
    ffmpeg("-ss", 0.7, "-i", whole, "-t", 4, "-c", "copy", clip)
    assert reorg(tmp_path, f"{ID}_000000_000004.mp4", clip)
    downscale(tmp_path, clip, "--short_side", 64)


def test_xvid_with_b_frames_is_brought_in(source: MakeSource, tmp_path: Path) -> None:
    whole, clip = source(seconds=2, size=SIZE), tmp_path / "c.avi"
    ffmpeg("-i", whole, "-c:v", "mpeg4", "-vtag", "xvid", "-bf", 2, "-c:a", "libmp3lame", clip)
    reorg(tmp_path, f"{ID}_000000_000002.avi", clip)
    assert frame_numbers(tmp_path / "new" / f"{ID}_000000_000002.mp4") == list(range(50))


@pytest.mark.parametrize("layout", [pytest.param("6.1", marks=pytest.mark.slow), "7.1(wide)"])
def test_pcm_of_any_layout(source: MakeSource, tmp_path: Path, layout: str) -> None:
    whole, clip = source(seconds=1, size=SIZE), tmp_path / "c.mkv"
    ffmpeg("-i", whole, "-c:v", "copy", "-c:a", "pcm_s16le", "-af", f"aformat=cl={layout}", clip)
    downscale(tmp_path, clip, "--short_side", 64)
    assert read_video(tmp_path / "small" / "x.mp4").audio_codec == "aac"


@pytest.mark.slow
def test_a_sound_without_a_decoder_is_left_out(film: Path, tmp_path: Path) -> None:
    deaf = tmp_path / "deaf.mp4"
    deaf.write_bytes(b"zzzz".join(film.read_bytes().rsplit(b"mp4a", 1)))
    assert frame_numbers(cut(tmp_path, deaf, 2, 4)) == list(range(50, 100))
    assert downscale(tmp_path, deaf, "--short_side", 64)[1]["frames"] == "750"
    assert reorg(tmp_path, f"{ID}_000000_000030.mp4", deaf)
    done = run("frame_extract.py", tmp_path / "in", tmp_path / "frames", "--fps", 1, cwd=tmp_path)
    assert done.code == 0 and len(list((tmp_path / "frames" / "x").iterdir())) == 30, done.err


def test_films_whose_times_an_mp4_does_not_take(source: MakeSource, tmp_path: Path) -> None:
    """Frames before zero, as an edit list leaves them, and a late picture without its sound."""
    whole = source(seconds=4, size=SIZE, gop=12)
    for name, shift, more in (("early", -0.4, []), ("late", 0.2, ["--no_audio"])):
        folder = tmp_path / name
        folder.mkdir()
        moved = folder / "moved.mkv"
        given = ["-itsoffset", shift, "-i", whole, "-i", whole, "-map", "0:v", "-map", "1:a"]
        ffmpeg("-copyts", *given, "-c", "copy", "-avoid_negative_ts", "disabled", moved)
        assert downscale(folder, moved, "--short_side", 64, *more)[1]["frames"] == "100"
        assert frame_numbers(folder / "small" / "x.mp4") == list(range(100))


def test_a_byte_behind_the_last_box(source: MakeSource, tmp_path: Path) -> None:
    clip = source(seconds=10, size=SIZE)
    odd = tmp_path / "odd.mp4"
    odd.write_bytes(clip.read_bytes() + b"\0")
    assert cut(tmp_path, odd, 0, 10, length=10)


def test_a_film_under_a_clips_name(film: Path, tmp_path: Path) -> None:
    held = tmp_path / "held" / f"{ID}_000000_000010.mp4"
    held.parent.mkdir()
    held.write_bytes(film.read_bytes())
    listing = write_list(tmp_path / "list.csv", [f"{ID},0,10"])
    given = ["--input_csv", listing, "--source", f"clips:{held.parent}"]
    assert run("download.py", tmp_path / "out", *given, cwd=tmp_path).code == 1
    message = report_rows(tmp_path / "out" / "download_report.csv")[held.stem]["message"]
    assert "30.00 s" in message and "10 s" in message
    (row,) = reorg(tmp_path, held.name, film, code=1).values()
    assert "30.00 s" in row["reason"] and "10 s" in row["reason"]


def test_a_crop_in_the_container(tmp_path: Path, source: MakeSource) -> None:
    whole, clip = source(seconds=1, size=(320, 180)), tmp_path / "c.mp4"
    crop = "h264_metadata=crop_left=80:crop_right=80"
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", crop, clip)
    row = downscale(tmp_path, clip, "--short_side", 96)[1]
    assert (row["width"], row["height"]) == ("96", "108")


def test_clips_of_one_frame_have_one_picture(tmp_path: Path) -> None:
    for frames in (1, 2):
        make_source(tmp_path / "in" / f"x{frames}.mp4", seconds=frames / 25, size=SIZE, audio=False)
    done = run("frame_extract.py", tmp_path / "in", tmp_path / "out", "--fps", 1, cwd=tmp_path)
    assert done.code == 0, done.err
    for frames in (1, 2):
        assert [p.name for p in (tmp_path / "out" / f"x{frames}").iterdir()] == ["000001.jpg"]


@pytest.mark.slow
def test_a_clip_beside_a_folder_of_its_name(tmp_path: Path, source: MakeSource) -> None:
    for name in ("x.mp4", "x/y.mp4"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source(seconds=0.4, size=SIZE).read_bytes())
    given = (tmp_path / "in", tmp_path / "out", "--fps", 5)
    for _ in range(2):
        done = run("frame_extract.py", *given, cwd=tmp_path)
        assert done.code == 1 and "x.mp4: x/ is the folder of other clips" in done.err
        assert (tmp_path / "out" / "x" / "y" / "000001.jpg").is_file()
    (tmp_path / "other" / "x").mkdir(parents=True)  # an empty folder is no clip that is done
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.mp4").write_bytes(source(seconds=0.4, size=SIZE).read_bytes())
    done = run("frame_extract.py", tmp_path / "one", tmp_path / "other", cwd=tmp_path)
    assert done.code == 0 and (tmp_path / "other" / "x" / "000001.jpg").is_file(), done.err


@pytest.mark.slow
def test_limits_are_said_with_their_numbers(tmp_path: Path, source: MakeSource) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.mp4").write_bytes(source(seconds=2, size=SIZE).read_bytes())
    for option, value, said in (
        ("--max_frames", 20, "max_frames"),
        ("--max_pixels", 1000, "160x90"),
        ("--timeout", 0.01, "--timeout"),
    ):
        for script in ("frame_extract.py", "downscale_videos.py"):
            out = tmp_path / f"{script}{option}"
            done = run(script, tmp_path / "in", out, option, value, cwd=tmp_path)
            assert done.code == 1 and said in done.err, done.err


def test_odd_names_and_long_paths(tmp_path: Path, source: MakeSource) -> None:
    clip = source(seconds=0.4, size=SIZE).read_bytes()
    folder = bytes(tmp_path / "in" / ("d" * 200) / ("e" * 200))
    Path(folder.decode()).mkdir(parents=True)
    name = b"caf\xe9"
    with open(folder + b"/" + name + b".mp4", "wb") as file:
        file.write(clip)
    for script, made in (("frame_extract.py", b"/000001.jpg"), ("downscale_videos.py", b".mp4")):
        out = tmp_path / script
        done = run(script, tmp_path / "in", out, cwd=tmp_path)
        assert done.code == 0, done.err
        path = folder.replace(bytes(tmp_path / "in"), bytes(out)) + b"/" + name + made
        assert Path(path.decode(errors="surrogateescape")).is_file()
        assert run(script, tmp_path / "in", out, cwd=tmp_path).code == 0


def test_a_manifest_is_no_clip(tmp_path: Path, source: MakeSource) -> None:
    (tmp_path / "in").mkdir()
    secret = source(seconds=0.4, size=SIZE)
    (tmp_path / "in" / "x.mp4").write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    for script in ("frame_extract.py", "downscale_videos.py"):
        done = run(script, tmp_path / "in", tmp_path / script, cwd=tmp_path)
        assert done.code == 1 and "undecodable" in done.err, done.err


@pytest.mark.parametrize(
    "rate", [*(pytest.param(n, marks=pytest.mark.slow) for n in ("8", "24")), "30000/1001"]
)
def test_the_annotated_frame_under_its_name(tmp_path: Path, rate: str) -> None:
    name, fps = "aaaaaaaaaaa_000902", Fraction(rate)
    clip = make_source(tmp_path / "in" / f"{name}.mp4", seconds=6, fps=rate, size=SIZE)
    assert clip.is_file()
    for key in (902.0, 902.433, 902.75):
        row = f"aaaaaaaaaaa,{key},0.1,0.1,0.5,0.5,12\n"
        for split in ("train", "val", "test"):
            (tmp_path / f"kinetics_{split}_v1.0.csv").write_text(row if split == "val" else "")
        shown = int((Fraction(str(key)) - 899 + Fraction(1, 2000)) * fps)
        out = tmp_path / f"out{key}"
        given = ["--key_frames", tmp_path / "kinetics_val_v1.0.csv", "--window", 0]
        done = run("frame_extract.py", tmp_path / "in", out, *given, cwd=tmp_path)
        assert done.code == 0, done.err
        (picture,) = (out / name).iterdir()
        with av.open(str(picture)) as file:
            image = next(file.decode(video=0)).to_ndarray(format="gray")
        found = read_frame_number(image)
        assert found is not None and shown - 1 <= found <= shown
