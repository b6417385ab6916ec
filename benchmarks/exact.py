"""Make random video files and compare load_frames with plain decoding, bit by bit.

  python -m benchmarks.exact [--files 300] [--seed 1] [--keep DIR]

An encoder with random settings makes a file, and a random stream copy cuts it, remuxes it or
damages its timestamps. The whole clip, chunks and scattered frames are compared with what PyAV
decodes from the first packet on. The tests have a clip of every kind that was found to matter. This
benchmark looks for other kinds, above all after an update of PyAV. It prints each difference with
the seed that reproduces it, and then exits with code 1.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

from benchmarks.loaders import plainly_decoded
from load_frames import ClipError, ClipReader
from utils.cli import EXIT_INCOMPLETE, EXIT_OK, Parser

FFMPEG = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y"]
CHOICES_A_FILE = 8
CUT_SUFFIXES = {"h264": (".mp4", ".mov", ".mkv", ".ts"), "hevc": (".mp4", ".mkv", ".ts")}


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.exact", description=__doc__)
    parser.add_argument("--files", type=int, default=300, metavar="N", help="make N files")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the first file")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep the files that differ in DIR"
    )
    args = parser.parse_args(argv)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        for seed in range(args.seed, args.seed + args.files):
            for path in draw_files(Path(name), random.Random(seed)):
                verdict, how = compare(path, random.Random(seed))
                counts[f"{verdict}, {how}" if how else verdict] += 1
                if verdict == "DIFFERS":
                    print(f"seed {seed}, {path.name}: {how}", flush=True)
                    if args.keep is not None:
                        args.keep.mkdir(parents=True, exist_ok=True)
                        shutil.copy(path, args.keep / f"{seed}_{path.name}")
                path.unlink()
    for verdict, count in counts.most_common():
        print(f"{count:6} {verdict}")
    return EXIT_INCOMPLETE if any(key.startswith("DIFFERS") for key in counts) else EXIT_OK


def draw_files(folder: Path, chance: random.Random) -> list[Path]:
    """One encoding and two copies of it; fewer where ffmpeg refuses."""
    codec = chance.choice(["h264", "h264", "h264", "hevc", "vp9", "av1", "mpeg4"])
    source = folder / "source.mp4"
    rate, seconds = chance.choice(["25", "30000/1001", "12", "60"]), chance.choice([1, 2, 3])
    picture = f"testsrc2=s=96x64:d={seconds}:r={rate},noise=alls=20:allf=t,format=yuv420p"
    inputs = ["-f", "lavfi", "-i", picture]
    if chance.random() < 0.4:
        inputs += ["-f", "lavfi", "-i", f"sine=d={seconds}", "-c:a", "aac"]
    if not _made([*inputs, *encoder(codec, chance)], source):
        return []
    suffixes = CUT_SUFFIXES.get(codec, (".mp4", ".mkv"))
    copies = [folder / f"copy{number}{chance.choice(suffixes)}" for number in (1, 2)]
    return [source, *(copy for copy in copies if _made(copying(source, copy, chance), copy))]


def _made(arguments: Sequence[str], target: Path) -> bool:
    done = subprocess.run([*FFMPEG, *arguments, str(target)], capture_output=True, timeout=60)
    if done.returncode == 0:
        return True
    target.unlink(missing_ok=True)
    return False


def encoder(codec: str, chance: random.Random) -> list[str]:
    """ffmpeg's options for an encoder, drawn."""
    gop = ["-g", str(chance.choice([1, 5, 12, 30, 250]))]
    b_frames = ["-bf", str(chance.choice([0, 1, 3, 7]))]
    if codec == "hevc":
        params = f"log-level=error:pools=1:frame-threads=1:open-gop={chance.choice([0, 1])}"
        params += f":temporal-layers={chance.choice([1, 2])}"
        made = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", params]
        return [*made, *gop, *b_frames, "-tag:v", chance.choice(["hvc1", "hev1"])]
    if codec == "vp9":
        hidden = ["-auto-alt-ref", "1", "-lag-in-frames", chance.choice(["0", "10"])]
        return ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", *gop, *hidden]
    if codec == "av1":
        return ["-c:v", "libsvtav1", "-preset", "12", *gop]
    if codec == "mpeg4":
        return ["-c:v", "mpeg4", *gop, "-bf", chance.choice(["0", "2"])]
    options = [
        f"b-pyramid={chance.choice(['none', 'strict', 'normal'])}",
        f"open-gop={chance.choice([0, 1])}",
        f"ref={chance.choice([1, 2, 4, 8])}",
        f"slices={chance.choice([1, 1, 3])}",
        f"intra-refresh={int(chance.random() < 0.1)}",
    ]
    made = ["-c:v", "libx264", "-preset", chance.choice(["ultrafast", "veryfast", "medium"])]
    made += ["-threads", "1", "-x264-params", ":".join(options)]
    interlaced = ["-flags", "+ildct+ilme"] if chance.random() < 0.1 else []
    return [*made, *gop, *b_frames, *interlaced]


def copying(source: Path, target: Path, chance: random.Random) -> list[str]:
    """ffmpeg's options for a copy of the stream that was cut or stamped in some way."""
    cut = ["-ss", f"{chance.uniform(0, 1.5):.3f}"] if chance.random() < 0.7 else []
    options = ["-i", str(source), "-c", "copy"]
    if chance.random() < 0.3:
        shift = chance.choice(["make_zero", "disabled", "make_non_negative"])
        options += ["-avoid_negative_ts", shift]
    if target.suffix in (".mp4", ".mov"):
        if chance.random() < 0.3:
            flags = ["+faststart", "+negative_cts_offsets", "frag_keyframe+empty_moov"]
            options += ["-movflags", chance.choice(flags)]
        if chance.random() < 0.2:
            options += ["-use_editlist", chance.choice(["0", "1"])]
        if chance.random() < 0.15:
            options += ["-video_track_timescale", chance.choice(["90000", "600", "25"])]
    if chance.random() < 0.15:
        filters = ["dump_extra=freq=k", "setts=pts=PTS+3", "setts=pts=DTS", "noise=drop=lt(n\\,3)"]
        options += ["-bsf:v", chance.choice(filters)]
    return [*cut, *options]


def compare(path: Path, chance: random.Random) -> tuple[str, str]:
    """(verdict, in what the clip differs, or "odd" if it was decoded from its start)."""
    try:
        reference = plainly_decoded(path)
    except (av.error.FFmpegError, IndexError):  # IndexError: the copy was left without a stream
        return "not decoded by PyAV either", ""
    if not reference:
        return "not decoded by PyAV either", ""
    try:
        with ClipReader(path) as reader:
            if len(reader) != len(reference):
                return "DIFFERS", f"{len(reader)} frames, and {len(reference)} come out"
            if not np.array_equal(reader[:], np.stack(reference)):
                return "DIFFERS", "the whole clip"
            for _ in range(CHOICES_A_FILE):
                chosen = some_frames(len(reference), chance)
                expected = np.stack([reference[number] for number in chosen])
                if not np.array_equal(reader.read(indices=chosen), expected):
                    return "DIFFERS", f"frames {chosen}"
            return "equal", "odd" if reader._opened().table.odd else ""
    except ClipError as error:
        return "DIFFERS", f"{error}, and {len(reference)} frames come out"


def some_frames(count: int, chance: random.Random) -> list[int]:
    first = chance.randrange(count)
    in_a_row = list(range(first, min(count, first + 6)))
    return chance.choice([in_a_row, [chance.randrange(count) for _ in range(4)]])


if __name__ == "__main__":
    sys.exit(main())
