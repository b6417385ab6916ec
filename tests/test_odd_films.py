"""Films as people have them: their frames, chunks and times are those that ffmpeg shows.

Made with ffmpeg, and with edits of single boxes and packets where ffmpeg makes no such file.
"""

from __future__ import annotations

import re
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from clipreader import frame_source
from clipreader.media import open_clip
from clipreader.packets import Mark, end_of_video, packets_of, plan_chunks, shown_packets
from clipreader.transforms import Array
from load_frames import ClipError, ClipReader, CorruptClip, NoVideo, TooLarge, load_frames
from tests.standin.sources import ffmpeg_path
from utils.page.looks import ClipLook, look_at_clip

ROOT = Path(__file__).parent.parent
PICTURE = "testsrc2=s=96x64:r=25:d=3,noise=alls=20:allf=t:all_seed=3,format=yuv420p"
X264 = ["-c:v", "libx264", "-preset", "veryfast", "-threads", "1", "-bf", "2", "-g", "25"]

Box = tuple[bytes, int, int]  # kind, where it begins, how long it is
CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"udta")


def ffmpeg(*arguments: object) -> bytes:
    command = [ffmpeg_path(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def boxes(data: bytes, begin: int, end: int) -> Iterator[Box]:
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        yield kind, begin, size
        begin += size


def rebuilt(data: bytes, new: dict[bytes, Callable[[bytes], bytes]]) -> bytes:
    """An mp4 with the bodies of some boxes changed; the index is behind the data."""
    out = b""
    for kind, begin, size in boxes(data, 0, len(data)):
        body = data[begin + 8 : begin + size]
        if kind in CONTAINERS:
            body = rebuilt(body, new)
        elif kind in new:
            body = new[kind](body)
        out += struct.pack(">I4s", len(body) + 8, kind) + body
    return out


def with_clap(data: bytes, width: int, height: int, x: int, y: int) -> bytes:
    crop = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, x, 1, y, 1)

    def add(body: bytes) -> bytes:
        size, kind = struct.unpack_from(">I4s", body, 8)
        if kind != b"avc1":
            return body
        return body[:8] + struct.pack(">I", size + 40) + body[12 : 8 + size] + crop

    return rebuilt(data, {b"stsd": add})


def with_cover_first(data: bytes) -> bytes:
    """A cover as a tagger writes it, in `udta`, moved before the tracks: it is stream 0 then."""
    ((_, begin, size),) = (box for box in boxes(data, 0, len(data)) if box[0] == b"moov")
    parts = [(kind, data[at : at + n]) for kind, at, n in boxes(data, begin + 8, begin + size)]
    parts.sort(key=lambda part: (part[0] == b"trak", part[0] != b"mvhd"))
    return data[: begin + 8] + b"".join(part for _, part in parts) + data[begin + size :]


def make_film(folder: Path, name: str) -> Path:
    path, plain = folder / name, folder / "plain.mp4"
    if not plain.exists():
        sound = ["-f", "lavfi", "-i", "sine=d=3", "-c:a", "aac"]
        ffmpeg("-f", "lavfi", "-i", PICTURE, *sound, *X264, plain)
        image = folder / "cover.jpg"
        ffmpeg("-i", plain, "-frames:v", "1", image)
        gop = ["-g", "12", "-x264-params", "open-gop=1:scenecut=0"]
        ffmpeg("-f", "lavfi", "-i", PICTURE, *X264, *gop, folder / "open.mp4")
    copied: dict[str, list[object]] = {
        "no_edit_list.mp4": ["-i", plain, "-c", "copy", "-use_editlist", "0"],
        "late_picture.mp4": [
            *["-itsoffset", "0.2", "-i", plain, "-i", plain],
            *["-map", "0:v", "-map", "1:a", "-c", "copy"],
        ],
        "open_cut.mp4": ["-ss", "0.7", "-i", folder / "open.mp4", "-c", "copy"],
        "crop_in_the_stream.mp4": [
            *["-i", plain, "-c", "copy"],
            *["-bsf:v", "h264_metadata=crop_left=6:crop_right=10:crop_top=4:crop_bottom=2"],
        ],
        "no_key_frame_before_the_edit.mp4": [
            *["-i", plain, "-c:v", "copy", "-an", "-copyinkf"],
            *["-bsf:v", "noise=drop=lt(n\\,7)"],
        ],
        "no_recovery_point.mp4": [
            *["-ss", "0.7", "-i", folder / "open.mp4", "-c", "copy"],
            *["-bsf:v", "filter_units=remove_types=6"],
        ],
        "several_tracks.mp4": [
            *["-i", plain, "-i", folder / "open.mp4", "-map", "0:v", "-map", "1:v", "-map", "1:v"],
            *["-c", "copy"],
        ],
        "late_with_cover.mp4": [
            *["-itsoffset", "0.5", "-i", plain, "-i", folder / "cover.jpg", "-map", "0:v"],
            *["-map", "1", "-c", "copy", "-disposition:v:1", "attached_pic"],
        ],
    }
    edited: dict[str, Callable[[bytes], bytes]] = {
        "clap.mp4": lambda data: with_clap(data, 64, 32, 0, 0),
        "clap_beside_the_middle.mp4": lambda data: with_clap(data, 61, 33, 11, 5),
        "one_byte_more.mp4": lambda data: data + b"\0",
        "seven_bytes_more.mp4": lambda data: data + b"\0\0\0\x10abc",
        "sound_without_stsd.mp4": lambda data: b"free".join(data.rsplit(b"stsd", 1)),
        "sound_without_decoder.mp4": lambda data: b"zzzz".join(data.rsplit(b"mp4a", 1)),
    }
    if name in copied:
        ffmpeg(*copied[name], path)
    elif name in edited:
        path.write_bytes(edited[name](plain.read_bytes()))
    elif name == "clap.mkv":
        ffmpeg("-i", make_film(folder, "clap.mp4"), "-c", "copy", path)
    elif name == "cover_first.mp4":
        tagged = folder / "tagged.mp4"
        ffmpeg(
            *["-i", plain, "-i", folder / "cover.jpg", "-map", "0", "-map", "1", "-c", "copy"],
            *["-disposition:v:1", "attached_pic", tagged],
        )
        path.write_bytes(with_cover_first(tagged.read_bytes()))
    return path


FILMS = (
    *("no_edit_list.mp4", "late_picture.mp4", "open_cut.mp4", "crop_in_the_stream.mp4"),
    *("no_key_frame_before_the_edit.mp4", "several_tracks.mp4", "late_with_cover.mp4"),
    *("clap.mp4", "clap_beside_the_middle.mp4", "clap.mkv", "cover_first.mp4"),
    *("one_byte_more.mp4", "seven_bytes_more.mp4", "sound_without_stsd.mp4"),
    *("sound_without_decoder.mp4", "no_recovery_point.mp4"),
)


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("films")
    return cache(lambda name: make_film(folder, name))


def shown(path: Path, *filters: str) -> list[bytes]:
    """Every frame that ffmpeg shows, as RGB."""
    filtering = ["-vf", ",".join(filters)] if filters else []
    command = ["-i", path, "-map", "0:V:0", *filtering, "-fps_mode", "passthrough"]
    lines = ffmpeg(*command, "-pix_fmt", "rgb24", "-f", "framemd5", "-").decode().splitlines()
    return [line.split(",")[-1].strip().encode() for line in lines if not line.startswith("#")]


def read_packets(path: Path) -> tuple[list[Mark], list[Mark] | None, float]:
    """The packets of the video and of the audio, and when the last frame ends."""
    with open_clip(path) as container:
        video, audio = packets_of(container)
        return video, audio, end_of_video(container, video)


def hashes(frames: Array) -> list[bytes]:
    from hashlib import md5

    return [md5(frame.tobytes()).hexdigest().encode() for frame in frames]


@pytest.mark.parametrize("name", FILMS)
def test_frames_chunks_and_times_are_those_of_ffmpeg(
    film: Callable[[str], Path], name: str
) -> None:
    path = film(name)
    every = shown(path)
    assert len(every) >= 50
    with ClipReader(path) as reader:
        whole = reader[:]
        assert hashes(whole) == every
        for start in (60, 3, 31, 40, 12):
            assert np.array_equal(reader[start : start + 6], whole[start : start + 6])
        for fps in ("8", "30000/1001"):
            assert [every[n] for n in reader.frame_numbers(fps=fps)] == shown(path, f"fps={fps}")
    count = len(shown_packets(read_packets(path)[0]))
    assert count == len(every) or name.startswith("no_key")  # frames, not packets


def test_the_packets_of_a_film(film: Callable[[str], Path], tmp_path: Path) -> None:
    video, audio, end = read_packets(film("late_picture.mp4"))
    assert end == pytest.approx(3.2) and audio is not None
    assert len(shown_packets(video)) == 75 and any(mark.is_key for mark in video)
    sizes = sum(mark.size for mark in (*video, *audio))
    assert 0 < sizes < film("late_picture.mp4").stat().st_size
    assert read_packets(film("sound_without_decoder.mp4"))[1] is not None
    with pytest.raises(ClipError, match="gone.mp4: no such file"):
        read_packets(tmp_path / "gone.mp4")


def test_damage_that_only_decoding_from_the_middle_meets(
    film: Callable[[str], Path], tmp_path: Path
) -> None:
    """Packets that say decoding may begin at them, where it may not."""
    path, whole = tmp_path / "film.mp4", tmp_path / "whole.mp4"
    ffmpeg("-f", "lavfi", "-i", PICTURE, *X264, "-g", "250", whole)
    recovery_point = bytes([0, 0, 0, 5, 6, 6, 1, 0xE0, 0x80])
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for at, packet in enumerate(source.demux(video=0)):
            if packet.size:
                lies = at in (30, 31, 32)
                copy = av.Packet((recovery_point if lies else b"") + bytes(packet))
                copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
                copy.time_base, copy.stream = packet.time_base, stream
                copy.is_keyframe = packet.is_keyframe or lies
                target.mux(copy)
    ffmpeg("-xerror", "-i", path, "-f", "null", "-")
    expected = load_frames(whole)
    with ClipReader(path) as reader:
        assert len(reader.key_frames) > 1
        for start in range(20, 31):
            assert np.array_equal(reader[start : start + 1], expected[start : start + 1]), start


def test_a_film_that_is_decoded_from_its_start_is_decoded_once_for_chunks_in_order(
    film: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.avi"
    ffmpeg("-i", film("one_byte_more.mp4"), "-an", "-c:v", "mpeg4", "-bf", "2", path)
    with ClipReader(path) as reader:
        whole, source = reader[:], reader._opened()
        assert source.table.odd
        begun: list[int] = []
        decode_all = source._decode_all

        def noted(strict: bool = False) -> Iterator[av.VideoFrame]:
            begun.append(1)
            return decode_all(strict)

        monkeypatch.setattr(source, "_decode_all", noted)
        for start in range(0, 70, 5):
            assert np.array_equal(reader[start : start + 5], whole[start : start + 5])
        assert len(begun) == 1


# --- films whose packets do not identify the frames, or tell where decoding can begin ---


def joined(target: Path, *parts: Path) -> None:
    """Write the packets of each part behind those of the part before, headers and all."""
    with av.open(str(target), "w") as out:
        streams: list[av.VideoStream] = []
        shift = Fraction(0)
        for part in parts:
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                streams = streams or [out.add_stream_from_template(video)]
                base = Fraction(video.time_base or 1)
                for packet in source.demux(video):
                    if packet.size and packet.pts is not None and packet.dts is not None:
                        copy = av.Packet(bytes(packet))
                        copy.pts = packet.pts + int(shift / base)
                        copy.dts = packet.dts + int(shift / base)
                        copy.time_base, copy.stream = base, streams[0]
                        copy.is_keyframe = packet.is_keyframe
                        out.mux(copy)
                shift += 4  # seconds; each has 3


def joined_flv(first: bytes, second: bytes) -> bytes:
    """Two FLVs in one, the second 4 s later, with a header packet of its own."""
    out, at = first, 13
    while at + 11 <= len(second):
        size = int.from_bytes(second[at + 1 : at + 4], "big") + 15
        tag = bytearray(second[at : at + size])
        tag[4:7] = (int.from_bytes(tag[4:7], "big") + 4000).to_bytes(3, "big")
        out += tag if tag[0] == 9 else b""  # 9: video
        at += size
    return out


def with_edits(data: bytes, *edits: tuple[int, int]) -> bytes:
    """An mp4 that shows some parts of its track: how long, and from where."""
    each = b"".join(struct.pack(">IiI", long, start, 1 << 16) for long, start in edits)
    edit_list = struct.pack(">I4sII", 16 + len(each), b"elst", 0, len(edits)) + each
    return rebuilt(data, {b"edts": lambda _: edit_list})


def saying_no_frame_is_reordered(data: bytes) -> bytes:
    """The parameters of an H.264 track with max_num_reorder_frames 0 in place of 2 (E.1.1)."""
    begin = data.index(b"avcC") + 12
    end = begin + int.from_bytes(data[begin - 2 : begin], "big")
    bits = "".join(f"{byte:08b}" for byte in data[begin:end])
    before, _, behind = bits.rpartition("011" + "00101" + "1")  # the next is a count of 4, then 1
    changed = (before + "1" + "00101" + "1").ljust(len(bits), "0")
    assert not behind.strip("0")
    return data[:begin] + int(changed, 2).to_bytes(end - begin, "big") + data[end:]


def without_some_stamps(data: bytes) -> bytes:
    """A transport stream in which some frames of the video have no time stamps."""
    changed, frames = bytearray(data), []
    for at in range(0, len(data), 188):
        if data[at + 1] & 95 == 65 and data[at + 2] == 0:  # the video's, and a frame begins
            frames.append(data.index(b"\0\0\1\xe0", at))
    for at in frames[30:33]:
        changed[at + 7] = 0
    return bytes(changed)


def make_odd(folder: Path, name: str) -> Path:
    path, plain, opened = folder / name, make_film(folder, "plain.mp4"), folder / "open.mp4"
    silent, other, headed = (folder / f"{part}.mp4" for part in ("silent", "other", "headed"))
    if not other.exists():
        ffmpeg("-i", plain, "-an", "-c", "copy", silent)
        cavlc = ["-x264-params", "cabac=0:8x8dct=0", "-g", "10"]
        ffmpeg("-f", "lavfi", "-i", PICTURE, *X264, *cavlc, other)
        ffmpeg("-i", other, "-c", "copy", other.with_suffix(".ts"))
        ffmpeg("-i", other.with_suffix(".ts"), "-c", "copy", headed)
    twice = "setts=pts='if(eq(mod(N,10),7),PTS-DURATION,PTS)'"
    copied: dict[str, list[object]] = {
        "open_cut_without_edit_list.mp4": [
            *["-ss", "0.7", "-i", opened, "-c", "copy", "-use_editlist", "0"]
        ],
        "two_frames_of_one_time.mkv": ["-i", silent, "-c", "copy", "-bsf:v", twice],
        "plain.ts": ["-i", plain, "-c", "copy"],
        "plain.flv": ["-i", silent, "-c", "copy"],
        "other.flv": ["-i", other, "-c", "copy"],
    }
    if name in copied:
        ffmpeg(*copied[name], path)
    elif name == "later_headers.mp4":
        joined(path, silent, headed)
    elif name == "later_headers.flv":
        parts = (make_odd(folder, part).read_bytes() for part in ("plain.flv", "other.flv"))
        path.write_bytes(joined_flv(*parts))
    elif name == "three_edits.mp4":
        path.write_bytes(with_edits(silent.read_bytes(), *EDITS))
    elif name == "frames_without_stamps.ts":
        path.write_bytes(without_some_stamps(make_odd(folder, "plain.ts").read_bytes()))
    elif name == "false_reordering.mkv":
        false = folder / "false.mp4"
        pyramid = ["-bf", "3", "-b_strategy", "0"]
        ffmpeg("-f", "lavfi", "-i", PICTURE, *X264, *pyramid, false)
        false.write_bytes(saying_no_frame_is_reordered(false.read_bytes()))
        ffmpeg("-i", false, "-c", "copy", path)
    return path


EDITS = ((9000, 14000), (11000, 3000), (8000, 20000))  # in ticks of 1/12800 s
ODD_FILMS = (
    *("later_headers.mp4", "later_headers.flv", "open_cut_without_edit_list.mp4"),
    *("two_frames_of_one_time.mkv", "frames_without_stamps.ts", "three_edits.mp4"),
    "false_reordering.mkv",
)


@pytest.mark.parametrize("name", ODD_FILMS)
def test_films_that_are_decoded_from_their_start(tmp_path: Path, name: str) -> None:
    path = make_odd(tmp_path, name)
    every = shown(path)
    assert len(every) >= 40
    with ClipReader(path) as reader:
        assert reader._opened().table.odd
        assert hashes(reader[:]) == every
        for number in range(len(every) - 1, 0, -7):
            assert hashes(reader[number : number + 1]) == every[number : number + 1], number
        numbers = reader.frame_numbers(fps=10)
    assert [every[number] for number in numbers] == shown(path, "fps=10") or name in NO_CLOCK


def test_silence_without_a_decoder_is_no_fault_of_a_clip(tmp_path: Path) -> None:
    path, sound = tmp_path / "clip.mp4", ["-f", "lavfi", "-i", "anullsrc=d=3", "-c:a", "aac"]
    ffmpeg("-f", "lavfi", "-i", PICTURE, *sound, *X264, path)
    head, tail = path.read_bytes().rsplit(b"mp4a", 1)
    esds = re.sub(rb"(\x04\x80\x80\x80.)\x40", rb"\1" + b"\x99", tail, count=1, flags=re.DOTALL)
    path.write_bytes(head + b"zzzz" + esds)
    look = look_at_clip(tmp_path, ClipLook("clip", path.stat().st_size))
    assert (look.problem, look.codec, look.audio_codec) == ("", "h264", "")


def test_the_end_of_a_film_whose_last_frame_is_lost(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.mkv", tmp_path / "film.mkv"
    ffmpeg("-f", "lavfi", "-i", PICTURE, "-c:v", "mpeg4", whole)
    with av.open(str(whole)) as container:
        last = [bytes(packet) for packet in container.demux(video=0) if packet.size][-1]
    path.write_bytes(whole.read_bytes().replace(last, bytes(len(last))))
    every = shown(path)
    with ClipReader(path) as reader:
        assert len(reader) == len(every) == 74
        assert [every[n] for n in reader.frame_numbers(fps=25)] == shown(path, "fps=25")


def test_an_empty_sample_at_the_end_of_an_mp4_is_no_frame(
    film: Callable[[str], Path], tmp_path: Path
) -> None:
    path, silent = tmp_path / "film.mp4", tmp_path / "silent.mp4"
    ffmpeg("-i", film("one_byte_more.mp4"), "-an", "-c", "copy", silent)
    path.write_bytes(rebuilt(silent.read_bytes(), {b"stsz": lambda body: body[:-4] + bytes(4)}))
    assert hashes(load_frames(path)) == shown(path) and len(shown(path)) == 74


def test_hidden_frames_are_not_promised_by_a_film_that_was_cut_off(
    film: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "film.mp4"
    ffmpeg("-i", film("open_cut.mp4"), "-c", "copy", "-movflags", "+faststart", path)
    with ClipReader(path) as reader:
        frames = len(reader)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with ClipReader(path) as reader:
        assert len(reader) == frames > len(reader._opened().table.pts) > 20


def test_a_long_film_is_read_from_the_packet_that_was_sought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a transport stream, seeking can lead behind a keyframe."""
    path = tmp_path / "film.ts"
    close = ["-force_key_frames", "expr:between(n,30,36)"]
    ffmpeg("-f", "lavfi", "-i", PICTURE, *X264, *close, path)
    every = shown(path)
    monkeypatch.setattr(frame_source, "KEEP_PACKETS_BELOW", 0)
    with ClipReader(path) as reader:
        assert not reader._opened().table.odd and len(reader.key_frames) > 5
        for start in range(0, 70, 3):
            assert hashes(reader[start : start + 2]) == every[start : start + 2], start


def test_frames_before_an_open_gops_keyframe_are_decoded_from_the_gop_before(
    film: Callable[[str], Path],
) -> None:
    with ClipReader(film("several_tracks.mp4").with_name("open.mp4")) as reader:
        table = reader._opened().table
        stepped = 0
        for frame, packet in enumerate(table.packet_of):
            (chunk,) = plan_chunks(table, [frame])
            assert table.starts_pts[chunk.start] <= table.pts[frame]
            stepped += any(table.starts[chunk.start] < at < packet for at in table.starts)
        assert stepped > 5


NO_CLOCK = ("two_frames_of_one_time.mkv", "frames_without_stamps.ts")  # times count by the rate


# --- files that ask for the impossible ---


def one_frame(folder: Path, size: str = "96x64") -> bytes:
    path = folder / "one_frame.mp4"
    encode = ["-c:v", "libx264", "-preset", "ultrafast"]
    ffmpeg("-f", "lavfi", "-i", f"color=s={size}:r=25:d=0.04", *encode, path)
    return path.read_bytes()


def limited(code: str, megabytes: int, seconds: int) -> str:
    """What `code` prints, in a process that has so much memory and CPU time."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    before = "from load_frames import *\nfrom clipreader.media import open_clip\n"
    before += "from clipreader.packets import packets_of\ntry: "
    command = [sys.executable, "-c", f"{before}{code}\nexcept ClipError as error: print(error)"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, preexec_fn=limit
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_frame_that_lasts_68_years(tmp_path: Path) -> None:
    path = tmp_path / "years.mp4"
    path.write_bytes(
        rebuilt(
            one_frame(tmp_path),
            {
                b"stts": lambda _: struct.pack(">IIII", 0, 1, 1, (1 << 31) - 1),
                b"mdhd": lambda body: body[:12] + struct.pack(">I", 1) + body[16:],
                b"edts": lambda _: b"",
            },
        )
    )
    assert load_frames(path).shape == (1, 64, 96, 3)
    said = limited(f"load_frames({str(path)!r}, fps=1)", 1000, 10)
    assert "2147483647 frames at 1 per second, more than max_frames=2000000\n" in said
    assert load_frames(path, fps="1/1000000").shape[0] == 2147


def test_a_million_samples_that_share_one_frame(tmp_path: Path) -> None:
    path, count = tmp_path / "million.mp4", 1_000_000
    data = one_frame(tmp_path)
    ((_, begin, _),) = (box for box in boxes(data, 0, len(data)) if box[0] == b"mdat")
    same = {
        b"stts": lambda _: struct.pack(">IIII", 0, 1, count, 512),
        b"stsz": lambda body: struct.pack(
            ">4sII", b"\0" * 4, *struct.unpack(">I", body[4:8]), count
        ),
        b"stsc": lambda _: struct.pack(">IIIII", 0, 1, 1, 1, 1),
        b"stco": lambda _: struct.pack(">II", 0, count) + struct.pack(">I", begin + 8) * count,
        b"edts": lambda _: b"",
    }
    path.write_bytes(rebuilt(data, same))
    for call in ("load_frames({!r})", "packets_of(open_clip({!r}))"):
        said = limited(call.format(str(path)), 1000, 10)
        assert "its index refers to more data than the file contains" in said


def test_a_picture_of_a_quarter_of_a_billion_pixels(tmp_path: Path) -> None:
    (tmp_path / "huge.mp4").write_bytes(one_frame(tmp_path, "9000x8000"))
    for suffix in ("mp4", "mkv", "ts"):
        path = tmp_path / f"huge.{suffix}"
        if suffix != "mp4":
            ffmpeg("-i", tmp_path / "huge.mp4", "-c", "copy", path)
        said = limited(f"load_frames({str(path)!r})", 1000, 20)
        assert "9000x8000 pixels, more than max_pixels=67108864" in said
    one_frame(tmp_path)
    with pytest.raises(TooLarge, match="max_pixels=5000"):
        load_frames(tmp_path / "one_frame.mp4", max_pixels=5000)


def test_more_frames_than_allowed(film: Callable[[str], Path]) -> None:
    with pytest.raises(TooLarge, match="max_frames=20"):
        load_frames(film("one_byte_more.mp4"), max_frames=20)
    with pytest.raises(NoVideo):
        load_frames(film("one_byte_more.mp4").with_name("cover.jpg"))
    with pytest.raises(CorruptClip):
        load_frames(b"")
