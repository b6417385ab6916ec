"""What the packets of a video file tell: size, rate, frames, where it begins and ends.

No frame is decoded. Behind the cut, before `video/checks`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from utils.process import run_child
from utils.pyav import open_video, ratio
from utils.video.ffmpeg import STRICT, Ffmpeg, file_url, last_line, read_source

DURATION_TOLERANCE = 0.1  # seconds by which a whole clip may differ from what was asked for
BREAKS_OFF = 1.0  # seconds; headers are wrong by less, and by more where a file came in part


class BadClip(Exception):
    """A file that is not the clip it should be. `reason` is one of the report's reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)  # both, or it would not come through a pipe
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Probe:
    """A video file as its packets tell it. Times in seconds, on the clock a player shows."""

    width: int
    height: int
    fps: Fraction
    frames: int
    start: float
    end: float
    has_audio: bool

    @property
    def duration(self) -> float:
        return self.end


@dataclass(frozen=True)
class Ends:
    """Where a file ends, in seconds: its picture, all of its streams, and what its header says."""

    picture: float
    streams: float
    promised: float | None  # None: the header does not say

    @property
    def breaks_off(self) -> bool:
        """Whether all streams end long before the header says, as of a file that came in part."""
        return self.promised is not None and self.streams < self.promised - BREAKS_OFF


def measure_end(tool: Ffmpeg, path: Path, timeout: float | None = None) -> float:
    """Where the picture of a file ends: `measure_ends`."""
    return measure_ends(tool, path, timeout).picture


def measure_ends(tool: Ffmpeg, path: Path, timeout: float | None = None) -> Ends:
    """Where a file ends, by its packets, and by its header.

    In a child process, for the file is a stranger's. Raises BadClip where ffmpeg finds that the
    file breaks off. An mp4 that ends between two packets is none to ffmpeg: `Ends.breaks_off`.
    """
    argv = [tool.path, *STRICT, "-loglevel", "level+info"]
    argv += ["-i", file_url(path), "-map", "0:v:0", "-map", "0:a?", "-c", "copy"]
    done = run_child([*argv, "-f", "framecrc", "-"], timeout=timeout)
    bases = re.findall(r"^#tb (\d+): (\d+)/(\d+)$", done.stdout, re.MULTILINE)
    ticks: dict[str, int] = {}
    # Lines of framecrc: stream, dts, pts, duration, size, checksum.
    for line in re.finditer(r"^(\d+), *-?\d+, *(-?\d+), *(\d+),", done.stdout, re.MULTILINE):
        ticks[line[1]] = max(int(line[2]) + int(line[3]), ticks.get(line[1], 0))
    if done.timed_out:
        raise BadClip("timeout", "reading it does not come to an end")
    if not bases or "0" not in ticks:
        raise BadClip("undecodable", last_line(done) or "no picture in it")
    if done.returncode != 0:
        raise BadClip("truncated", f"breaks off: {last_line(done)}")
    ends = {n: ticks[n] * int(up) / int(down) for n, up, down in bases if n in ticks}
    return Ends(ends["0"], max(ends.values()), read_source(done.stderr).duration)


def probe(path: Path) -> Probe:
    """Read a file's packets (no decoding; 2 to 4 ms a clip). Raises BadClip (undecodable)."""
    import av

    try:
        with open_video(path) as container:
            if not container.streams.video:
                raise BadClip("undecodable", "no video stream")
            stream = container.streams.video[0]
            base = ratio(stream.time_base) or Fraction(1, 1)
            times = [
                (packet.pts, packet.duration or 0)
                for packet in container.demux(stream)
                if packet.pts is not None and not packet.is_discard
            ]
            if not times:
                raise BadClip("undecodable", "a video stream without frames")
            rate = ratio(stream.average_rate) or ratio(stream.guessed_rate) or Fraction(0)
            return Probe(
                width=stream.codec_context.width,
                height=stream.codec_context.height,
                fps=rate,
                frames=len(times),
                start=float(min(pts for pts, _ in times) * base),
                end=float(max(pts + length for pts, length in times) * base),
                has_audio=bool(container.streams.audio),
            )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClip("undecodable", f"cannot be read: {error}") from error
