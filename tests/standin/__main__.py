"""Runs the stand-in by hand: `python -m tests.standin --folder DIR`, until Ctrl-C.

Makes a few videos in the folder (once), serves them, and prints the addresses and a command line
that downloads from them.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.standin.server import DEAD, StandIn
from tests.standin.sources import make_source


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.standin", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the videos are made")
    parser.add_argument("--videos", type=int, default=3, help="how many that play (default: 3)")
    parser.add_argument("--seconds", type=float, default=30, help="length of each (default: 30)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse_args(argv)
    rows = ["label,youtube_id,time_start,time_end,split"]
    with StandIn() as standin:
        for number in range(options.videos):
            source = options.folder / f"video{number}_{options.seconds:g}s.mp4"
            if not source.exists():
                print(f"making {source}", file=sys.stderr)
                make_source(source, seconds=options.seconds)
            standin.add_video(f"standin_{number:03d}", source)
            rows.append(f"juggling,standin_{number:03d},{2 + number},{12 + number},validate")
        standin.add_dead("standin_prv", "private")
        standin.add_dead("standin_rem", DEAD["removed"])
        rows += [f"juggling,standin_{name},0,10,validate" for name in ("prv", "rem")]
        listing = options.folder / "list.csv"
        listing.write_text("\n".join(rows) + "\n", encoding="utf-8")
        print(f"player API   https://{standin.api_host}/youtubei/v1/player")
        print(f"whole videos {standin.url_base}standin_000")
        command = ["python", "download.py", str(options.folder / "clips")]
        command += ["--input_csv", str(listing), "--videos_per_hour", "0"]
        command += ["--ytdlp_args", standin.ytdlp_args]
        print(f"try          {shlex.join(command)}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
