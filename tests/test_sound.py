"""download.py --audio_only: from YouTube, from the disk and from archives, exact to the sample."""

from __future__ import annotations

import io
import math
import shutil
import subprocess
import tarfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import MakeSource
from tests.scripts import report_rows, run, run_here
from tests.standin.server import StandIn
from tests.standin.sources import ffmpeg_path, make_dash
from tests.test_sources import ID, REPORT, SIZE, fetch
from utils.process import run_child
from utils.video.cut import cut_sound
from utils.video.ffmpeg import SOUNDS, CutTask, Encode, Input, file_url, find_ffmpeg
from utils.video.whole import BadClip, read_sound


def samples(path: Path, rate: int | None = None) -> np.ndarray:
    """What a player plays: 16-bit samples, from its zero, resampled as a whole."""
    filters = "aresample=async=1:first_pts=0:min_comp=0"
    filters += f",aresample={rate}" if rate else ""
    argv = [ffmpeg_path(), "-v", "error", "-i", str(path), "-map", "0:a:0", "-af", filters]
    argv += ["-ac", "1", "-c:a", "pcm_s16le", "-f", "s16le", "-"]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=60)
    return np.frombuffer(done.stdout, np.int16).astype(int)


def film(path: Path, sound: str, *more: str, late: str = "0") -> Path:
    """20 s of black picture, and a sound that is nowhere like itself."""
    lavfi = ["-f", "lavfi", "-i", "color=s=64x64:d=20", "-itsoffset", late, "-f", "lavfi", "-i"]
    argv = [ffmpeg_path(), "-v", "error", "-y", *lavfi, sound, "-map", "0:v", "-map", "1:a"]
    subprocess.run([*argv, "-c:v", "libx264", *more, str(path)], check=True, timeout=60)
    return path


def sweep(rate: int, seconds: float = 20) -> str:
    return f"aevalsrc='0.4*sin(2*PI*(200+30*t)*t)+0.2*sin(2*PI*3001*t)':s={rate}:d={seconds}"


def cut(source: Path, start: float, seconds: float, encode: Encode) -> tuple[float, Path]:
    target = source.with_name(f"cut{encode.suffix}")
    given = Input(file_url(source))
    has = cut_sound(CutTask(run_child, find_ffmpeg(), [given], start, seconds, encode, target))
    return has, target


@pytest.mark.parametrize(("rate", "to"), [(48000, None), (44100, 16000)])
def test_a_cut_has_the_very_samples_of_its_source(
    tmp_path: Path, rate: int, to: int | None
) -> None:
    source = film(tmp_path / "film.mov", sweep(rate), "-c:a", "pcm_s16le")
    whole, per_second = samples(source, to), to or rate
    for sound in SOUNDS:
        for start, seconds in ((0.0, 5.0), (7.1234, 3.21)):
            has, clip = cut(source, start, seconds, Encode(sound=sound, sample_rate=to))
            first = math.ceil(Fraction(str(start)) * per_second)
            wanted = whole[first : first + round(Fraction(str(seconds)) * per_second)]
            found = samples(clip)
            assert (has, read_sound(clip)) == (seconds, (per_second, len(wanted)))
            assert len(found) == len(wanted)
            if sound == ".m4a":  # AAC hears the same, and at the same time
                assert abs(found - wanted).mean() < 300
                assert abs(found[1:] - wanted[:-1]).mean() > 2 * abs(found - wanted).mean()
            else:
                assert np.array_equal(found, wanted)


def test_late_sound_is_preceded_by_silence_and_early_ends_are_short(tmp_path: Path) -> None:
    late = film(tmp_path / "late.mp4", sweep(48000, 5), late="3.0123")
    whole = samples(late)
    has, clip = cut(late, 1.0, 6.0, Encode(sound=".wav"))
    assert has == 6.0
    assert abs(samples(clip) - whole[48000 : 7 * 48000]).max() <= 1
    assert not samples(clip)[: int(1.99 * 48000)].any()
    has, clip = cut(late, 6.0, 10.0, Encode(sound=".m4a"))
    assert has == pytest.approx(2.0123, abs=0.03)
    assert read_sound(clip).samples == round(has * 48000)
    for start, reason in ((12.0, "unavailable"), (30.0, "past_end")):
        with pytest.raises(BadClip) as error:
            cut(late, start, 10.0, Encode(sound=".m4a"))
        assert error.value.reason == reason


def check_clip(clip: Path, whole: np.ndarray, start: int, seconds: int, rate: int = 44100) -> None:
    found = samples(clip)
    assert len(found) == seconds * rate
    wanted = whole[start * rate : (start + seconds) * rate]
    # Decoders of AAC add noise of their own.
    assert abs(found - wanted).mean() < (300 if clip.suffix == ".m4a" else 3)


@pytest.mark.parametrize(
    "given",
    [
        [],
        pytest.param(["--audio_format", "flac", "--sample_rate", "16000"], marks=pytest.mark.slow),
    ],
)
def test_from_youtube_only_the_sound_is_fetched(
    standin: StandIn, source: MakeSource, tmp_path: Path, given: list[str]
) -> None:
    video = source(seconds=20, size=SIZE)
    standin.add_video(ID, video)
    standin.add_video("silent_____", source(seconds=10, size=SIZE, audio=False))
    rows = [f"{ID},3,13", f"{ID},15,25", f"{ID},70,80", "silent_____,1,3"]
    out = tmp_path / "out"
    out.mkdir()
    (out / f"{ID}_000003_000013.mp4").write_bytes(b"a picture")
    given = ["--audio_only", *given]
    more = [*given, "--ytdlp_args", standin.ytdlp_args]
    done = fetch(tmp_path, rows, *more)
    assert done.code == 1, done.err
    suffix, rate = (".flac", 16000) if len(given) > 1 else (".m4a", 44100)
    clip = out / f"{ID}_000003_000013{suffix}"
    whole = samples(make_dash(video)[1] or video, rate)
    check_clip(clip, whole, 3, 10, rate)
    found = report_rows(out / REPORT)
    reasons = [(row["status"], row["reason"]) for row in found.values()]
    assert sorted(reasons) == [
        ("downloaded", ""),
        ("downloaded", "short"),
        ("unavailable", "past_end"),
        ("unavailable", "unavailable"),
    ]
    assert "no audio" in found["silent______000001_000003"]["message"]
    short = read_sound(out / f"{ID}_000015_000025{suffix}")
    assert short.samples == pytest.approx(5 * rate, abs=0.05 * rate)
    asked = {r.itag for r in standin.requests(ID, target="media")}
    assert asked == {140}
    standin.clear_log()
    done = fetch(tmp_path, rows, *more)  # resumes
    assert standin.requests() == []
    assert "on disk      2 clips" in done.err, done.err
    clip.write_bytes(clip.read_bytes()[:-20000])
    done = fetch(tmp_path, rows, *more, "--verify")
    assert "verified     2 of 2 clips, 1 bad" in done.err, done.err
    check_clip(clip, whole, 3, 10, rate)
    assert (out / ".bad" / clip.name).exists()
    assert (out / f"{ID}_000003_000013.mp4").read_bytes() == b"a picture"


def test_late_sound_of_youtube_keeps_its_time(standin: StandIn, tmp_path: Path) -> None:
    video = film(tmp_path / "late.mp4", sweep(44100, 12), late="2.5")
    standin.add_video(ID, video)
    more = ["--audio_only", "--audio_format", "wav", "--ytdlp_args", standin.ytdlp_args]
    assert fetch(tmp_path, [f"{ID},1,11"], *more).code == 0
    check_clip(tmp_path / "out" / f"{ID}_000001_000011.wav", samples(video), 1, 10)


def test_sound_that_breaks_off_is_no_short_clip(
    standin: StandIn, source: MakeSource, tmp_path: Path
) -> None:
    video = source(seconds=20, size=SIZE)
    standin.add_video(ID, video)
    sound = make_dash(video)[1]
    assert sound is not None
    standin.knobs(ID, itag=140, truncate=sound.stat().st_size // 2)
    more = ["--audio_only", "--ytdlp_args", standin.ytdlp_args]
    assert fetch(tmp_path, [f"{ID},2,5", f"{ID},8,18"], *more).code == 1
    found = report_rows(tmp_path / "out" / REPORT)
    assert found[f"{ID}_000002_000005"]["reason"] == ""
    assert found[f"{ID}_000008_000018"]["status"] == "failed"
    standin.clear_knobs()
    assert fetch(tmp_path, [f"{ID},8,18"], *more).code == 0
    check_clip(tmp_path / "out" / f"{ID}_000008_000018.m4a", samples(video), 8, 10)


def test_from_another_server_the_sound_of_whole_videos(source: MakeSource, tmp_path: Path) -> None:
    video = source(seconds=20, size=SIZE)
    with StandIn(https=False) as standin:
        standin.add_video(ID, video)
        standin.add_video("silent_____", source(seconds=10, size=SIZE, audio=False))
        rows = [f"{ID},3,13", "silent_____,1,3"]
        more = ["--audio_only", "--audio_format", "wav", "--url_base", standin.url_base]
        assert fetch(tmp_path, rows, *more).code == 1
    check_clip(tmp_path / "out" / f"{ID}_000003_000013.wav", samples(video), 3, 10)
    found = report_rows(tmp_path / "out" / REPORT)["silent______000001_000003"]
    assert (found["reason"], found["message"]) == ("unavailable", "the video has no audio")


def test_from_clips_and_archives(source: MakeSource, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    video = source(seconds=10, size=SIZE)
    shutil.copyfile(video, clips / f"{ID}_000100_000110.mp4")
    rows = [f"{ID},100,110", f"{ID},103,105", f"{ID},200,202"]
    done = fetch(tmp_path, rows, "--audio_only", "--source", f"clips:{clips}")
    assert done.code == 1
    out = tmp_path / "out"
    whole = samples(video)
    check_clip(out / f"{ID}_000100_000110.m4a", whole, 0, 10)
    check_clip(out / f"{ID}_000103_000105.m4a", whole, 3, 2)
    out.rename(tmp_path / "sounds")
    sound = tmp_path / "sounds" / f"{ID}_000100_000110.m4a"
    # A sound file is taken as it is, and never for a video.
    assert fetch(tmp_path, rows[:2], "--source", f"clips:{sound.parent}").code == 1
    assert sorted(path.suffix for path in out.iterdir() if path.name[0] != ".") == [".csv"]
    assert fetch(tmp_path, rows[:2], "--audio_only", "--source", f"clips:{sound.parent}").code == 0
    assert (out / sound.name).samefile(sound)
    out.rename(tmp_path / "again")
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        tar.add(sound, f"a/{sound.name}")
        tar.add(clips / f"{ID}_000100_000110.mp4", f"b/{ID}_000103_000113.mp4")
        member = tarfile.TarInfo(f"b/{ID}_000200_000202.mp4")
        silent = source(seconds=2, size=SIZE, audio=False).read_bytes()
        member.size = len(silent)
        tar.addfile(member, io.BytesIO(silent))
    rows = [rows[0], f"{ID},103,113", rows[2]]
    more = ["--audio_only", "--source", f"tar:{tmp_path / 'some.tar'}"]
    assert fetch(tmp_path, rows, *more).code == 1
    assert (out / sound.name).read_bytes() == sound.read_bytes()
    check_clip(out / f"{ID}_000103_000113.m4a", whole, 0, 10)
    found = report_rows(out / REPORT)[f"{ID}_000200_000202"]
    assert (found["reason"], found["message"]) == ("unavailable", "the video has no audio")


def test_other_scripts_know_sound_files(source: MakeSource, tmp_path: Path) -> None:
    clips = tmp_path / "old" / "label"
    clips.mkdir(parents=True)
    names = [f"{ID}_000000_000003", f"{ID}_000010_000013"]
    rows = [f"{ID},0,3,a,train", f"{ID},10,13,b,train"]
    video = shutil.copyfile(source(seconds=3, size=SIZE), clips / f"{names[0]}.mp4")
    for name in names:
        cut(video, 0.0, 3.0, Encode(sound=".wav"))[1].rename(clips / f"{name}.wav")
    flat = tmp_path / "out"
    done = run("reorg_kinetics_videos.py", tmp_path / "old", flat, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "on disk: 3 of 3 clips" in done.err
    there = {path.name for path in flat.iterdir() if path.suffix != ".csv"}
    assert there == {f"{names[0]}.mp4", f"{names[0]}.wav", f"{names[1]}.wav"}
    head = "youtube_id,time_start,time_end,label,split\n"
    listing = tmp_path / "list.csv"
    listing.write_text(head + "\n".join(rows) + "\n")
    (flat / f"{names[0]}.mp4").unlink()
    given = ["--input_csv", listing]
    for script in ("frame_extract.py", "downscale_videos.py"):
        assert "Traceback" not in run(script, flat, tmp_path / script, cwd=tmp_path).err
        assert not list((tmp_path / script).rglob("*.[jm]p*"))
    done = run("make_report.py", flat, *given, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "folder       2 clips" in done.err
    lists = tmp_path / "lists"
    done = run(
        "make_training_lists.py", flat, lists, *given, "--format", "webdataset", cwd=tmp_path
    )
    assert done.code == 0, done.err
    packed: list[str] = []
    for shard in lists.rglob("*.tar"):
        with tarfile.open(shard) as tar:
            packed += [name for name in tar.getnames() if name.endswith(".wav")]
    assert sorted(packed) == [f"{name}.wav" for name in names]


@pytest.mark.parametrize(
    "words",
    [
        "--audio_only --short_side 256",
        "--audio_only --crf 30",
        "--audio_only --no_audio",
        "--sample_rate 16000",
        "--audio_only --sample_rate 12345",
        "--audio_format wav",
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, words: str) -> None:
    done = run_here("download.py", tmp_path / "out", *words.split(), cwd=tmp_path)
    assert done.code == 2
    assert "--audio_only" in done.err or "--sample_rate" in done.err
