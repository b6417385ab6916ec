"""A file's streams into an mp4 as they are, checked to show the very same pictures.

For reorg_kinetics_videos.py, which meets clips in other containers.
"""

from __future__ import annotations

from pathlib import Path

from clipreader.media import open_media
from utils.process import run_child
from utils.video.ffmpeg import STRICT, Ffmpeg, file_url, last_line
from utils.video.probe import DURATION_TOLERANCE, BadClip, probe

# What may stand in an mp4 that common players and decoders read. By names of decoders.
MP4_VIDEO = frozenset({"h264", "hevc", "av1", "libdav1d", "vp9", "libvpx-vp9", "mpeg4"})
MP4_AUDIO = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus", "alac", "flac"})


def rewrap_problem(path: Path) -> str:
    """Why a file's streams do not go into an mp4 as they are; "" when they do. Raises BadClip."""
    import av

    try:
        with open_media(path) as container:
            streams = [*container.streams.video[:1], *container.streams.audio[:1]]
            names = [stream.codec_context.name for stream in streams]
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClip("undecodable", f"cannot be read: {error}") from error
    wrong = [name for name in names if name not in MP4_VIDEO | MP4_AUDIO]
    return f"{' and '.join(wrong)} cannot go into an mp4 without encoding anew" if wrong else ""


def rewrap(tool: Ffmpeg, source: Path, target: Path) -> None:
    """Put the streams of a file into an mp4, packet by packet, and check that nothing is changed.

    The first picture and the first sound go over. Raises BadClip when the mp4 does not decode to
    the very pictures of `source`, at its length (an AVI without time stamps may not).
    """
    argv = [tool.path, *STRICT]
    argv += ["-i", file_url(source), "-map", "0:v:0", "-map", "0:a:0?", "-c", "copy"]
    argv += ["-map_metadata", "-1", "-movflags", "+faststart", "-f", "mp4", "-y", file_url(target)]
    finished = run_child(argv)
    if finished.returncode != 0:
        raise BadClip("undecodable", f"cannot be re-wrapped: {last_line(finished)}")
    check_same_pictures(tool, source, target)


def check_same_pictures(tool: Ffmpeg, source: Path, target: Path) -> None:
    """Whether two files decode whole, to the same pictures in the same time. Raises BadClip."""
    if picture_hashes(tool, source) != picture_hashes(tool, target):
        raise BadClip("undecodable", "re-wrapped, it shows other pictures")
    before, after = probe(source), probe(target)
    if abs((before.end - before.start) - (after.end - after.start)) > DURATION_TOLERANCE:
        raise BadClip(
            "undecodable", f"re-wrapped, it lasts {after.end:.2f} s, not {before.end:.2f}"
        )
    if before.has_audio and not after.has_audio:
        raise BadClip("undecodable", "re-wrapped, it has lost its sound")


def picture_hashes(tool: Ffmpeg, path: Path) -> list[str]:
    """The MD5 of every decoded picture, in the order shown; the sound is decoded, too.

    In a child process, which may crash over a stranger's file. Raises BadClip (undecodable).
    """
    argv = [tool.path, *STRICT]
    argv += ["-threads", "1", "-i", file_url(path), "-map", "0:v:0", "-map", "0:a?"]
    argv += ["-fps_mode", "passthrough"]
    finished = run_child([*argv, "-f", "framehash", "-hash", "md5", "-"])
    if finished.returncode != 0:
        raise BadClip("undecodable", f"does not decode: {last_line(finished) or 'ffmpeg failed'}")
    lines = finished.stdout.splitlines()
    return [line.rpartition(",")[2].strip() for line in lines if line.startswith("0,")]
