"""What the packets of a video file tell: size, rate, frames, where it begins and ends.

No frame is decoded. Behind the cut, before `video/checks`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from clipreader.media import open_media, ratio
from utils.process import run_child
from utils.video.ffmpeg import STRICT, Ffmpeg, file_url, last_line, read_source

if TYPE_CHECKING:
    import av

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
    missing: str = ""  # what of it the container promises and does not hold, in words

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


class Packets:
    """The packets of a file's picture and first sound, noted as they come from an open container.

    Raises BadClip (undecodable) where there is no picture.
    """

    def __init__(self, container: av.container.InputContainer) -> None:
        picture = container.streams.video[0].codec_context if container.streams.video else None
        if picture is None:
            raise BadClip("undecodable", "no video stream, or no decoder for it")
        self._container = container
        self.streams = [*container.streams.video[:1], *container.streams.audio[:1]]
        self._size = picture.width, picture.height  # before decoding, which may change it
        self._counts: Counter[int] = Counter()
        self._ends: dict[int, int] = {}
        self._shown: list[tuple[int, int]] = []

    def note(self, packet: av.Packet) -> None:
        at, pts = packet.stream_index, packet.pts
        self._counts[at] += packet.dts is not None
        if pts is None:
            return
        end = pts + (packet.duration or 0)
        self._ends[at] = max(end, self._ends.get(at, end))
        if at == self.streams[0].index and not packet.is_discard:
            self._shown.append((pts, end))

    def probe(self) -> Probe:
        """What they tell, once all of them are noted. Raises BadClip (undecodable)."""
        if not self._shown:
            raise BadClip("undecodable", "a video stream without frames")
        stream = self._container.streams.video[0]
        base = ratio(stream.time_base) or Fraction(1, 1)
        return Probe(
            width=self._size[0],
            height=self._size[1],
            fps=ratio(stream.average_rate) or ratio(stream.guessed_rate) or Fraction(0),
            frames=len(self._shown),
            start=float(min(pts for pts, _ in self._shown) * base),
            end=float(max(end for _, end in self._shown) * base),
            has_audio=bool(self._container.streams.audio),
            missing=self._missing(),
        )

    def _missing(self) -> str:
        """What is not there of what an mp4's index lists, or another container's duration."""
        import av

        if "mp4" in self._container.format.name:
            for stream in self.streams:
                there, promised = self._counts[stream.index], len(stream.index_entries)
                if there < promised:
                    return f"cut off: {there} of {promised} packets"
        elif self._container.duration:
            promised_end = self._container.duration / av.time_base
            ends = [self._ends.get(s.index, 0) * (ratio(s.time_base) or 0) for s in self.streams]
            if max(ends) < promised_end - 0.5:
                return f"cut off: {float(max(ends)):.2f} s of {promised_end:.2f}"
        return ""


def probe(path: Path) -> Probe:
    """Read a file's packets (no decoding; 2 to 4 ms a clip). Raises BadClip (undecodable)."""
    import av

    try:
        with open_media(path) as container:
            packets = Packets(container)
            for packet in container.demux(packets.streams):
                packets.note(packet)
            return packets.probe()
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadClip("undecodable", f"cannot be read: {error}") from error
