"""clipreader/media.py, the one door to media files: what is opened, and what never is."""

from __future__ import annotations

import io
import os
import socket
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from clipreader.media import MEDIA_FORMATS, open_clip
from load_frames import ClipNotFound, CorruptClip, NoVideo, load_frames
from tests.clip_kinds import make
from tests.standin.sources import ffmpeg_path

DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT4S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1000">'
    "<BaseURL>file://{}</BaseURL></Representation></AdaptationSet></Period></MPD>"
)
# Texts that name another file; `{}` is its path.
MANIFESTS = {
    "dash": DASH,
    "ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "itself": "ffconcat version 1.0\nfile 'clip.mp4'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 ::1\ns=x\nc=IN IP4 ::1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.fixture(scope="module")
def clip(shared_folder: Path) -> Path:
    return make(shared_folder, "b_frames.mp4")


@pytest.mark.parametrize("kind", MANIFESTS)
def test_nothing_that_a_text_names_is_opened(clip: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text(MANIFESTS[kind].format(clip))
    for source in (path, path.read_bytes()):
        with pytest.raises((NoVideo, CorruptClip)):
            open_clip(source)
    with pytest.raises((NoVideo, CorruptClip), match="clip.mp4"):
        load_frames(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif"])
def test_an_image_is_no_clip(clip: Path, tmp_path: Path, suffix: str) -> None:
    image = tmp_path / f"image{suffix}"
    command = [ffmpeg_path(), "-v", "error", "-i", str(clip), "-frames:v", "1", str(image)]
    subprocess.run(command, check=True)
    with pytest.raises(NoVideo, match=r"image\..*: is not a media file"):
        load_frames(image.rename(tmp_path / "image.mp4"))


@pytest.mark.timeout(20)
def test_only_a_regular_file_is_opened(clip: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "to_fifo.mp4").symlink_to("fifo.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "folder.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.mp4"))
        for name, kind in (
            ("fifo", "a pipe or a device"),
            ("to_fifo", "a pipe or a device"),
            ("zero", "a pipe or a device"),
            ("folder", "a folder"),
            ("socket", "a pipe or a device"),
        ):
            with pytest.raises(NoVideo, match=f"{name}.mp4: is {kind}, not a regular file"):
                load_frames(tmp_path / f"{name}.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "nowhere.mp4").symlink_to("gone.mp4")
    for name in ("loop.mp4", "nowhere.mp4"):
        with pytest.raises(ClipNotFound, match=name):
            load_frames(tmp_path / name)
    (tmp_path / "link.mp4").symlink_to(clip)
    assert len(load_frames(tmp_path / "link.mp4", 0, 3)) == 3


def test_a_name_that_is_not_utf_8(clip: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 12:30.mp4")
    os.link(clip, path)
    assert np.array_equal(load_frames(path, 5, 7), load_frames(clip, 5, 7))


def test_bytes_and_file_objects_are_opened_like_a_path(clip: Path) -> None:
    for source in (clip.read_bytes(), io.BytesIO(clip.read_bytes()), clip.open("rb")):
        with open_clip(source) as container:
            assert container.duration == 4_000_000


@pytest.mark.parametrize("suffix", [".ts", ".flv"])
def test_a_damaged_film_of_another_container_is_called_damaged(
    clip: Path, tmp_path: Path, suffix: str
) -> None:
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"film{suffix}"
    command = [ffmpeg_path(), "-v", "error", "-i", str(clip), "-an", "-c", "copy", str(whole)]
    subprocess.run(command, check=True)
    path.write_bytes(bytes(3000) + whole.read_bytes()[3000:4000])
    with pytest.raises(CorruptClip, match=f"film{suffix}: corrupt at frame 0"):
        load_frames(path)
    path.write_text("youtube_id,time_start\n" * 99)
    with pytest.raises(NoVideo, match="is not a video"):
        load_frames(path)


def test_the_list_of_formats_is_one_that_ffmpeg_takes(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.mp4").write_text(MANIFESTS["ffconcat"].format(clip))
    for path, code in ((clip, 0), (tmp_path / "manifest.mp4", 1)):
        command = [ffmpeg_path(), "-v", "error", "-format_whitelist", MEDIA_FORMATS]
        command += ["-i", str(path), "-f", "null", "-"]
        assert bool(subprocess.run(command, capture_output=True).returncode) == code
    known = {name for names in av.formats_available for name in names.split(",")}
    assert set(MEDIA_FORMATS.split(",")) <= known


@pytest.mark.parametrize(("orientation", "shape"), [(1, (72, 128, 3)), (6, (128, 72, 3))])
def test_side_data_that_pyav_has_no_name_for(
    clip: Path, tmp_path: Path, orientation: int, shape: tuple[int, int, int]
) -> None:
    """As spatial video has it. Here it is EXIF, in every picture of a motion JPEG file."""
    jpeg, raw, path = tmp_path / "1.jpg", tmp_path / "a.mjpeg", tmp_path / "a.mov"
    ffmpeg = [ffmpeg_path(), "-v", "error"]
    subprocess.run([*ffmpeg, "-i", str(clip), "-frames:v", "1", str(jpeg)], check=True)
    exif = Image.Exif()
    exif[274] = orientation
    with Image.open(jpeg) as picture:
        picture.save(jpeg, exif=exif)
    raw.write_bytes(jpeg.read_bytes() * 3)
    subprocess.run([*ffmpeg, "-f", "mjpeg", "-i", str(raw), "-c", "copy", str(path)], check=True)
    frame = next(av.open(str(path)).decode(video=0))
    if int(av.__version__.partition(".")[0]) < 19:
        with pytest.raises(ValueError, match="not a valid Type"):
            frame.side_data.get("DISPLAYMATRIX")
    frames = load_frames(path)
    assert frames.shape == (3, *shape)
    turned = np.rot90(frame.to_ndarray(format="rgb24"), -1 if orientation == 6 else 0)
    assert np.abs(frames[0].astype(int) - turned).mean() < 4
