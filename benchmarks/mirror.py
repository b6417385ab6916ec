"""Compare --source cvdf with `curl | tar -x` on the same archives from loopback.

  python -m benchmarks.mirror [--gb 1.5] [--rounds 3] [--archives 4] [--n 2] [--zipped]

Both read the same archives, N at a time, and leave the same files in a folder. download.py checks
every clip and syncs it to disk (fsync) before it renames it. tar leaves its files in memory, so
`+ sync` also shows the time until they are on the disk. The results are medians over the rounds of
seconds and of the ratios download.py / tar, and the peak memory of download.py.
"""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

from tests.standin.sources import make_source
from utils.cli import Parser
from utils.video.whole import read_apart, read_video

ROOT = Path(__file__).resolve().parent.parent
HEADER = "label,youtube_id,time_start,time_end,split\n"


@dataclass(frozen=True)
class Archives:
    """Archives that are made as they are served: the same clip under many names."""

    clip: bytes
    count: int  # archives
    clips: int  # in each
    zipped: bool

    def name(self, archive: int, number: int) -> str:
        return f"{archive:04d}{number:07d}_000001_000011"

    def pieces(self, archive: int) -> Iterator[bytes]:
        content = self.clip + bytes(-len(self.clip) % 512)
        pack: Callable[[bytes], bytes] = lambda data: gzip.compress(data, 6)  # noqa: E731
        if not self.zipped:
            pack = bytes
        else:
            content = pack(content)
        for number in range(self.clips):
            info = tarfile.TarInfo(f"{self.name(archive, number)}.mp4")
            info.size = len(self.clip)
            yield pack(info.tobuf())
            yield content
        yield pack(bytes(1024))

    def length(self, archive: int) -> int:
        return sum(map(len, self.pieces(archive)))


def serve(archives: Archives) -> ThreadingHTTPServer:
    """Path lists and archives in the mirror's layout; the pieces go straight into the socket."""
    lengths = [archives.length(number) for number in range(archives.count)]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            text = b""
            if self.path.endswith("700_2020_val_path.txt"):
                text = "".join(
                    f"700_2020/val/k700_val_{n + 1:03d}.tar.gz\n" for n in range(archives.count)
                ).encode()
            if not self.path.endswith(".tar.gz"):
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                return
            number = int(self.path[-10:-7]) - 1
            self.send_response(200)
            self.send_header("Content-Length", str(lengths[number]))
            self.end_headers()
            if self.command == "GET":
                for piece in archives.pieces(number):
                    self.connection.sendall(piece)

        do_HEAD = do_GET

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that has seen the end mark leaves

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def write_lists(archives: Archives, folder: Path) -> Path:
    """The official list of these archives' clips; the others are empty."""
    lists = folder / "kinetics_csv"
    lists.mkdir()
    for dataset in ("400", "600", "700_2020"):
        for split in ("train", "val", "test"):
            (lists / f"kinetics-{dataset}_{split}.csv").write_text(HEADER)
    path = lists / "kinetics-700_2020_val.csv"
    with path.open("a") as file:
        for archive in range(archives.count):
            for number in range(archives.clips):
                youtube_id = archives.name(archive, number)[:11]
                file.write(f"class {archive:04d},{youtube_id},1,11,val\n")
    return path


def timed(command: Sequence[str], folder: Path) -> tuple[float, float, int]:
    """(wall seconds, CPU seconds, most bytes of memory) of a command and its children."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = psutil.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    most = 0
    while process.poll() is None:
        try:
            most = max(most, process.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(0.05)
    _, err = process.communicate()
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise RuntimeError(f"{command[:3]} failed: {err}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, most


def plain_command(urls: Sequence[str], jobs: int, zipped: bool) -> list[str]:
    extract = f"curl -s '{{}}' | tar -x{'z' if zipped else ''}"
    listed = " ".join(f"'{url}'" for url in urls)
    return ["sh", "-c", f"printf '%s\\n' {listed} | xargs -P {jobs} -I{{}} sh -c \"{extract}\""]


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.mirror", description=__doc__)
    parser.add_argument("--gb", type=float, default=1.5, metavar="N", help="GB per round")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measure N times")
    parser.add_argument("--archives", type=int, default=4, metavar="N", help="number of archives")
    parser.add_argument("--n", type=int, default=2, metavar="N", help="read N archives at a time")
    parser.add_argument("--zipped", action="store_true", help="use gzipped archives")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mirror_") as name:
        folder = Path(name)
        clip = make_source(folder / "clip.mp4", seconds=10, complexity=2.0)
        print_checks(clip)
        data = clip.read_bytes()
        count = max(1, round(args.gb * 1e9 / len(data) / args.archives))
        archives = Archives(data, args.archives, count, args.zipped)
        print(f"\n{args.archives} archives of {count} clips of {len(data) / 1e6:.2f} MB", end="")
        print(f", {'gzipped' if args.zipped else 'plain'}, {args.n} at a time")
        run_rounds(archives, folder, args.rounds, args.n)
    return 0


def run_rounds(archives: Archives, folder: Path, rounds: int, jobs: int) -> None:
    server, listing = serve(archives), write_lists(archives, folder)
    base = f"http://127.0.0.1:{server.server_address[1]}/"
    urls = [f"{base}700_2020/val/k700_val_{n + 1:03d}.tar.gz" for n in range(archives.count)]
    ours = [sys.executable, str(ROOT / "download.py"), "out", "--input_csv", str(listing), "-q"]
    ours += ["--source", "cvdf", "--mirror_base", base, "--n", str(jobs)]
    rows: dict[str, list[float]] = {}
    for _ in range(rounds):
        tar = folder / "tar"
        tar.mkdir()
        wall, cpu, _ = timed(plain_command(urls, jobs, archives.zipped), tar)
        started = time.monotonic()
        os.sync()
        synced = wall + time.monotonic() - started
        assert len(list(tar.iterdir())) == archives.count * archives.clips
        shutil.rmtree(tar)
        os.sync()
        our_wall, our_cpu, most = timed(ours, folder)
        assert len(list((folder / "out").glob("*.mp4"))) == archives.count * archives.clips
        shutil.rmtree(folder / "out")
        os.sync()
        idle, _, _ = timed([*ours[:2], "nothing", *ours[3:], "--dry_run"], folder)
        for key, value in (
            ("curl | tar -x, s", wall),
            ("curl | tar -x + sync, s", synced),
            ("ours, s", our_wall),
            ("  of these start-up, s", idle),
            ("ours / tar", our_wall / wall),
            ("ours / (tar + sync)", our_wall / synced),
            ("CPU, ours / tar", our_cpu / cpu),
            ("memory of ours, MB", most / 1e6),
        ):
            rows.setdefault(key, []).append(value)
    server.shutdown()
    for key, values in rows.items():
        each = " ".join(f"{value:.2f}" for value in values)
        print(f"{key:26s} {statistics.median(values):8.2f}   ({each})")


def print_checks(clip: Path) -> None:
    """What each way to check a clip costs; the first is what a mirror's clip gets."""
    ways: dict[str, Callable[[], object]] = {
        "both ends decoded, in a worker process": lambda: read_apart(clip, "ends"),
        "both ends decoded, in process": lambda: read_video(clip, "ends"),
        "packets, in process": lambda: read_video(clip),
    }
    print("a check of one clip, ms (median of 15):")
    for name, way in ways.items():
        times = []
        for _ in range(15):
            started = time.perf_counter()
            way()
            times.append((time.perf_counter() - started) * 1000)
        print(f"  {name:30s} {statistics.median(times):8.2f}")


if __name__ == "__main__":
    sys.exit(main())
