"""Small clips of every kind that `load_frames` promises to load exactly, made with ffmpeg.

The content is noisy, so that no two frames are alike. `KINDS` names them; `make(folder, name)`
makes one, and what it is cut from.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from filelock import FileLock

from tests.standin.sources import ffmpeg_path

SIZE = "128x72"
_X264 = ["-c:v", "libx264", "-preset", "veryfast", "-threads", "1"]
_B_FRAMES = [*_X264, "-bf", "3", "-b_strategy", "0"]


def _source(seconds: float = 4, rate: str = "25") -> list[str]:
    noisy = f"testsrc2=s={SIZE}:d={seconds}:r={rate},noise=alls=30:allf=t:all_seed=7"
    return ["-f", "lavfi", "-i", f"{noisy},format=yuv420p"]


_SOUND = ["-f", "lavfi", "-i", "sine=d=4", "-c:a", "aac"]
_UNORDERED = ["-bsf:v", "setts=pts=DTS", "-video_track_timescale", "25"]  # B-frames, no order

# name: ffmpeg's arguments; `{x}` stands for the clip x
KINDS: dict[str, list[str]] = {
    "b_frames.mp4": [*_source(), *_SOUND, *_B_FRAMES, "-g", "25"],
    "one_gop.mp4": [*_source(), *_B_FRAMES, "-g", "250", "-x264-params", "b-pyramid=strict"],
    "pyramid.mkv": [*_source(), *_SOUND, *_X264, "-bf", "8", "-b_strategy", "0", "-g", "40"],
    "open_gop.mp4": [*_source(), *_B_FRAMES, "-g", "12", "-x264-params", "open-gop=1:scenecut=0"],
    "open_gop.ts": [*_source(), *_SOUND, *_B_FRAMES, "-g", "12", "-x264-params", "open-gop=1"],
    "all_key.mp4": [*_source(), *_X264, "-g", "1"],
    "tuned.mp4": [*_source(), *_X264, "-g", "30", "-bf", "0", "-tune", "fastdecode"],
    "refresh.mp4": [*_source(), *_X264, "-g", "20", "-x264-params", "intra-refresh=1:bframes=0"],
    "variable.mp4": [
        *_source(8, "30"),
        *["-vf", "select='lt(random(3),0.5)'", "-fps_mode", "vfr", *_B_FRAMES, "-g", "20"],
        *["-enc_time_base", "1/90000", "-video_track_timescale", "90000"],
    ],
    "late.mp4": ["-itsoffset", "0.513", *_source(), *_SOUND, *_B_FRAMES, "-g", "25"],
    "late.mkv": ["-itsoffset", "1.7", *_source(), *_B_FRAMES, "-g", "25"],
    "stream.ts": [*_source(), *_SOUND, *_B_FRAMES, "-g", "25"],
    "copied_cut.mp4": ["-ss", "0.63", "-t", "2", "-i", "{b_frames.mp4}", "-c", "copy"],
    "copied_cut.mkv": ["-ss", "0.63", "-t", "2", "-i", "{b_frames.mp4}", "-c", "copy"],
    "copied_open.mp4": ["-ss", "0.63", "-t", "2", "-i", "{open_gop.mp4}", "-c", "copy"],
    "copied_open.ts": ["-ss", "0.7", "-t", "2", "-i", "{open_gop.ts}", "-c", "copy"],
    "copied_ts.mp4": ["-ss", "0.7", "-t", "2", "-i", "{open_gop.ts}", "-c", "copy"],
    "no_key_first.mkv": [
        *["-ss", "0.63", "-i", "{b_frames.mp4}", "-c:v", "copy", "-an"],
        *["-bsf:v", "noise=drop=lt(n\\,7)", "-copyinkf"],
    ],
    "stamped_wrong.mov": ["-i", "{b_frames.mp4}", "-c:v", "copy", "-an", *_UNORDERED],
    "joined.mp4": ["-f", "concat", "-safe", "0", "-i", "{joined.txt}", "-c", "copy"],
    "fragmented.mp4": [*_source(), *_B_FRAMES, "-g", "25", "-movflags", "frag_keyframe+empty_moov"],
    "hevc.mp4": [
        *[*_source(3), "-c:v", "libx265", "-preset", "ultrafast", "-g", "20", "-bf", "3"],
        *["-x265-params", "log-level=error:open-gop=1:pools=1:frame-threads=1"],
    ],
    "stamped_wrong_hevc.mp4": ["-i", "{hevc.mp4}", "-c", "copy", *_UNORDERED],
    "vp9.webm": [
        *[*_source(3), "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"],
        *["-g", "20", "-auto-alt-ref", "1", "-lag-in-frames", "10"],
    ],
    "vp8.webm": [
        *[*_source(2), "-c:v", "libvpx", "-deadline", "good", "-cpu-used", "5", "-g", "20"],
        *["-auto-alt-ref", "1", "-lag-in-frames", "10"],
    ],
    "av1.mp4": [*_source(2), "-c:v", "libsvtav1", "-preset", "12", "-g", "20"],
    "mpeg4.avi": [*_source(2), "-c:v", "mpeg4", "-bf", "2", "-g", "20"],
    "mpeg2.ts": [*_source(2), "-c:v", "mpeg2video", "-bf", "2", "-g", "12"],
    "interlaced.mp4": [
        *[*_source(2), *_B_FRAMES, "-g", "20", "-flags", "+ildct+ilme"],
        *["-x264-params", "interlaced=1"],
    ],
    "ten_bits.mp4": [*_source(2), *_B_FRAMES, "-pix_fmt", "yuv420p10le", "-g", "20"],
    "full_range.mp4": [
        *[*_source(2), "-vf", "scale=out_range=full,format=yuv420p", *_B_FRAMES],
        *["-color_range", "pc", "-colorspace", "bt709", "-g", "20"],
    ],
    "one_frame.mp4": [*_source(0.04), *_X264],
    "turned.mp4": ["-display_rotation", "90", "-i", "{b_frames.mp4}", "-c", "copy"],
}


def make(folder: Path, name: str) -> Path:
    """Make the clip `name`, unless it is there, or another process makes it."""
    path = folder / name
    with FileLock(f"{path}.lock"):
        return path if path.exists() else _make(folder, path, name)


def _make(folder: Path, path: Path, name: str) -> Path:
    if name == "joined.txt":
        parts = [make(folder, part) for part in ("b_frames.mp4", "tuned.mp4")]
        path.write_text("".join(f"file '{part}'\n" for part in parts))
        return path
    arguments = []
    for word in KINDS[name]:
        known = word.startswith("{")
        arguments.append(str(make(folder, word.strip("{}"))) if known else word)
    part = folder / f"part_{name}"
    command = [ffmpeg_path(), "-v", "error", "-nostdin", "-y", *arguments, str(part)]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    part.rename(path)
    return path


def frame_hashes(path: Path, pixel_format: str) -> list[str]:
    """The MD5 of every frame of ffmpeg's own decoding of everything, as it is stored."""
    command = [ffmpeg_path(), "-v", "error", "-nostdin", "-noautorotate", "-i", str(path)]
    command += ["-map", "0:v:0", "-fps_mode", "passthrough", "-pix_fmt", pixel_format]
    done = subprocess.run([*command, "-f", "framemd5", "-"], check=True, capture_output=True)
    lines = done.stdout.decode().splitlines()
    return [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]
