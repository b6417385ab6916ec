"""A folder of small clips to report on: 100 good ones, and each kind of bad one, made on purpose.

All come from two runs of ffmpeg: one film that moves and sounds is cut into the good ones, dark,
dull and nearly still ones among them, which are to be told from the bad.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.standin.sources import ffmpeg_path
from utils.report import RESULT_COLUMNS

GOOD = 100
LABELS = ("abseiling", "yoga", 'say "hi", loudly', "<script>document.title='hacked'</script>")
BAD = {  # kind: (what it shows, what it sounds)
    "black": ("color=black", "sine"),
    "noisy_black": ("color=black,noise=alls=5:allf=t", "sine"),
    "one_colour": ("color=0x3060a0", "sine"),
    "frozen": ("testsrc2,loop=-1:1", "sine"),
    "silent": ("testsrc2", "anullsrc"),
    "no_sound": ("testsrc2,hue=h=40", ""),
    "short": ("testsrc2,hue=h=80,trim=duration=0.4", "sine,atrim=duration=0.4"),
}
KINDS = {"noisy_black": "black", "no_sound": "silent"}  # the others are called what they are
_ENCODE = ["-c:v", "libx264", "-preset", "superfast", "-threads", "1", "-c:a", "aac", "-b:a", "64k"]


def youtube_id(number: int) -> str:
    return f"-good{number:06d}"


def clip(video: str) -> str:
    return f"{video}_000001_000002"


def make_good(folder: Path, count: int = GOOD) -> None:
    """Clips of a second, 96x64: no two alike; a third of them dark, dull, or with little motion."""
    dark = "eq=brightness=-0.35:contrast=0.4:enable='lt(mod(t,6),1)'"
    dull = "eq=contrast=0.25:enable='between(mod(t,6),2,3)'"
    film = f"testsrc2=s=96x64:r=15:d={count},rotate=t/9,{dark},{dull},format=yuv420p"
    sound = f"sine=f=300:d={count},volume='0.02+0.5*mod(t,1)':eval=frame"
    _ffmpeg(
        *["-f", "lavfi", "-i", film, "-f", "lavfi", "-i", sound, *_ENCODE],
        *["-force_key_frames", "expr:gte(t,n_forced)", "-f", "segment", "-segment_time", "1"],
        *["-reset_timestamps", "1", "-segment_format", "mp4", str(folder / "part_%06d.mp4")],
    )
    for number in range(count):
        (folder / f"part_{number:06d}.mp4").rename(folder / f"{clip(youtube_id(number))}.mp4")
    for left in folder.glob("part_*"):
        left.unlink()


def make_bad(folder: Path) -> dict[str, str]:
    """clip -> kind of what was made wrong on purpose."""
    wrong = {}
    for kind, (shown, heard) in BAD.items():
        source, _, filters = shown.partition(",")
        options = (":" if "=" in source else "=") + "s=256x192:r=15:d=1"
        arguments = ["-f", "lavfi", "-i", source + options + ("," + filters if filters else "")]
        if heard:
            name, _, more = heard.partition(",")
            length = "=d=1" + ("," + more if more else "")
            arguments += ["-f", "lavfi", "-i", name + length]
        video = f"_{kind:_<10.10}"
        _ffmpeg(*arguments, "-t", "1", *_ENCODE, str(folder / f"{clip(video)}.mp4"))
        wrong[clip(video)] = KINDS.get(kind, kind)
    first = (folder / f"{clip(youtube_id(0))}.mp4").read_bytes()
    (folder / f"{clip('_doubled___')}.mp4").write_bytes(first)
    (folder / f"{clip('_broken____')}.mp4").write_bytes(first[:900])
    wrong |= {clip(youtube_id(0)): "doubled", clip("_doubled___"): "doubled"}
    wrong[clip("_broken____")] = "broken"
    return wrong


def write_rows(path: Path, videos: list[str], split: str = "val") -> Path:
    """A list of these videos, whose labels take turns."""
    lines = ["label,youtube_id,time_start,time_end,split"]
    for number, video in enumerate(videos):
        label = LABELS[number % len(LABELS)].replace('"', '""')
        lines.append(f'"{label}",{video},1,2,{split}')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_report(path: Path, rows: list[tuple[str, str, str, str, str]]) -> None:
    """A download report. rows: (video, status, reason, source, finished_at)."""
    lines = [",".join(RESULT_COLUMNS)]
    for video, status, reason, source, at in rows:
        lines.append(f"{clip(video)},{video},1,2,{status},{reason},{source},1,1.0,9,,{at}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _ffmpeg(*arguments: str) -> None:
    command = [ffmpeg_path(), "-v", "error", "-nostdin", "-y", *arguments]
    subprocess.run(command, check=True, timeout=100, capture_output=True)
