"""The stand-in itself: a YouTube player API over HTTPS and its media over HTTP, on loopback.

It speaks the little that the real yt-dlp needs, so that tests and the demo run the real thing with
no network. `sources` makes the videos, `answers` words the player's answers, `knobs` is what can be
made to go wrong. Typical use:

    with StandIn() as standin:
        standin.add_video("abcdefghijk", make_source(folder / "a.mp4"))
        main(["--ytdlp_args", standin.ytdlp_args, ...])
        assert standin.bytes_served < 3_000_000
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import re
import select
import shlex
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from tests.standin.answers import (
    CHECK_ID,
    DEAD,
    Dead,
    Media,
    dead_answer,
    describe,
    play_answer,
    shown_answer,
)
from tests.standin.knobs import Knob, Request, combined

__all__ = ["DEAD", "Dead", "Knob", "Request", "StandIn"]

CHUNK = 64 << 10
# Without a limit the kernel takes megabytes that no client ever reads, and the log counts them.
SEND_BUFFER = 64 << 10
HTML = b"<!DOCTYPE html><html><body>Before you continue to YouTube</body></html>"
# What yt-dlp needs of YouTube's pages: the address of the player, and its stamp. And of its API.
PAGE = b"""<html><script>ytcfg.set({"PLAYER_JS_URL": "/s/player/0123abcd/base.js"});</script>
<script>var ytInitialData = {"contents": {"none": 1}}; var a = {signatureTimestamp:20000};</script>
</html>"""
OTHER = b'{"contents": {"none": 1}}'
TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".csv": "text/csv",
    ".txt": "text/plain",
    ".gz": "application/gzip",
}


@dataclass(frozen=True)
class Video:
    """A registered video; its DASH files are made when it is first asked for."""

    youtube_id: str
    paths: tuple[Path, ...]
    title: str
    length_seconds: str | None
    progressive: bool | None
    adaptive: bool = True
    ad_seconds: float | None = None


@dataclass(frozen=True)
class Block:
    """From the `after`-th player request on, every one is answered with `why`."""

    after: int
    why: str | int  # a key of DEAD, or an HTTP status
    requests: int | None
    seconds: float | None
    address: str | None  # only of this client; None: of all


class StandIn:
    """YouTube and a mirror on loopback. A context manager; all methods work from any thread."""

    def __init__(self, *, https: bool = True, host: str = "127.0.0.1", port: int = 0) -> None:
        """`https=False` leaves the player API out."""
        self.host = host
        self.errors: list[BaseException] = []  # of handlers: none is ever expected
        self.stopping = threading.Event()
        self._lock = threading.RLock()
        self._videos: dict[str, Video] = {}
        self._media: dict[str, Media] = {}
        self._dead: dict[str, Dead] = {}
        self._files: dict[str, Path | bytes] = {}
        self._knobs: list[Knob] = []
        self._used: dict[int, int] = {}  # by id() of a knob of self._knobs
        self._log: dict[int, Request] = {}
        self._ad_ends: dict[str, float] = {}  # by time.time()
        self._next_request = 0
        self._players = 0  # player requests since block()
        self._block: Block | None = None
        self._block_began: float | None = None
        self._plain = _Server((host, port), self, "http", None)
        self._secure = _Server((host, 0), self, "https", _certificate()) if https else None

    # --- starting, stopping, addresses ---

    def start(self) -> StandIn:
        for server in self._servers():
            server.begin()
        return self

    def stop(self) -> None:
        """Frees the ports and ends all threads, stalled ones too."""
        self.stopping.set()
        for server in self._servers():
            server.end()
        if self.errors:
            raise RuntimeError(f"the stand-in failed: {self.errors[0]!r}") from self.errors[0]

    def __enter__(self) -> StandIn:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _servers(self) -> list[_Server]:
        return [self._plain, *([self._secure] if self._secure else [])]

    @property
    def root(self) -> str:
        """`http://127.0.0.1:PORT`, where files and media are."""
        return f"http://{self.host}:{self._plain.server_address[1]}"

    @property
    def url_base(self) -> str:
        """For `--url_base`: whole videos through yt-dlp's generic extractor, no YouTube at all."""
        return f"{self.root}/watch?v="

    @property
    def api_host(self) -> str:
        if self._secure is None:
            raise RuntimeError("this stand-in was made with https=False")
        return f"{self.host}:{self._secure.server_address[1]}"

    @property
    def ytdlp_arg_list(self) -> list[str]:
        """What makes yt-dlp's YouTube extractor ask this server."""
        skip = "player_skip=webpage,configs,js,initial_data"
        youtube = f"youtube:innertube_host={self.api_host};{skip};player_client=visionos"
        return ["--no-check-certificates", "--extractor-args", youtube]

    @property
    def ytdlp_args(self) -> str:
        """The same as one string, for `--ytdlp_args`."""
        return shlex.join(self.ytdlp_arg_list)

    @property
    def ytdlp_args_without_js(self) -> str:
        """The same on a machine without a JavaScript runtime: yt-dlp warns of it on stderr.

        With `add_dead(id, "no_format")` this is how `js_runtime` looks.
        """
        words = [word.removesuffix(";player_client=visionos") for word in self.ytdlp_arg_list]
        return shlex.join([*words, "--no-js-runtimes"])

    def media_url(self, youtube_id: str, itag: int = 134) -> str:
        return f"{self.root}/videoplayback?id={youtube_id}&itag={itag}"

    # --- what is served ---

    def add_video(
        self,
        youtube_id: str,
        source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        title: str | None = None,
        length_seconds: str | int | None = None,
        progressive: bool | None = None,
        adaptive: bool = True,
        ad_seconds: float | None = None,
    ) -> None:
        """A video that plays, from one source or from one per height.

        `length_seconds` overrides what the player says (by itself the rounded duration, as
        YouTube's); `progressive` forces itag 18 on or off, without `adaptive` it is all there is.
        `ad_seconds`: an advertisement before it; its data is refused (403) until so long after
        the player's answer.
        """
        given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
        length = None if length_seconds is None else str(length_seconds)
        paths = tuple(Path(path) for path in given)
        name = title or f"stand-in {youtube_id}"
        with self._lock:
            self._dead.pop(youtube_id, None)
            self._media.pop(youtube_id, None)
            self._videos[youtube_id] = Video(
                youtube_id, paths, name, length, progressive, adaptive, ad_seconds
            )

    def add_dead(
        self,
        youtube_id: str,
        status: str | Dead,
        reason: str | None = None,
        subreason: str | None = None,
    ) -> None:
        """A video that does not play: a key of `DEAD`, a `Dead`, or the player's own words."""
        if isinstance(status, Dead):
            dead = status
        elif reason is None:
            dead = DEAD[status]
        else:
            dead = Dead("", status, reason, subreason)
        with self._lock:
            self._videos.pop(youtube_id, None)
            self._dead[youtube_id] = dead

    def add_file(self, path: str, content: str | os.PathLike[str] | bytes) -> str:
        """Serves a file or bytes at a path of the plain server; returns the address."""
        path = "/" + path.lstrip("/")
        with self._lock:
            self._files[path] = content if isinstance(content, bytes) else Path(content)
        return self.root + path

    def remove(self, name: str) -> None:
        """Forgets a video or a file: unknown videos are `unavailable`, unknown files 404."""
        with self._lock:
            tables: tuple[dict[str, Any], ...] = (self._videos, self._dead, self._files)
            for table in (*tables, self._media):
                table.pop(name, None)

    # --- what goes wrong ---

    def knobs(self, youtube_id: str | None = None, **options: Any) -> Knob:
        """Adds a knob (see `Knob`) for one video, for a file by its path, or, None, for all.

        The target is "media" unless said otherwise, and "file" for a path.
        """
        if youtube_id is not None and youtube_id.startswith("/"):
            options.setdefault("target", "file")
        knob = Knob(youtube_id=youtube_id, **options)
        with self._lock:
            self._knobs.append(knob)
            self._used[id(knob)] = 0
        return knob

    def clear_knobs(self, youtube_id: str | None = None) -> None:
        """Takes the knobs of one video away, or all."""
        with self._lock:
            self._knobs = [k for k in self._knobs if youtube_id not in (None, k.youtube_id)]

    def times_used(self, knob: Knob) -> int:
        """How many requests a knob has met."""
        return self._used.get(id(knob), 0)

    def block(
        self,
        why: str | int = "bot_check",
        *,
        after: int = 0,
        requests: int | None = None,
        seconds: float | None = None,
        address: str | None = None,
    ) -> None:
        """After `after` more player requests, answers all with `why`: a key of DEAD, or a status.

        It ends with `unblock()`, after so many refused requests, or so long after the first one.
        """
        if isinstance(why, str) and why not in DEAD:
            raise KeyError(why)
        with self._lock:
            self._players, self._block_began = 0, None
            self._block = Block(after, why, requests, seconds, address)

    def unblock(self) -> None:
        with self._lock:
            self._block = None

    # --- what was asked ---

    def requests(self, youtube_id: str | None = None, **wanted: Any) -> list[Request]:
        """The log, oldest first, by any field or property: `requests(target="media", status=206)`.

        A request is in it from its beginning; `wait_idle` waits for the last bytes to be counted.
        """
        if youtube_id is not None:
            wanted["youtube_id"] = youtube_id
        with self._lock:
            log = list(self._log.values())
        return [r for r in log if all(getattr(r, k) == v for k, v in wanted.items())]

    @property
    def bytes_served(self) -> int:
        """The bodies of all media, watch and file answers in the log (the player's not counted)."""
        self.wait_idle(1.0)
        return sum(r.bytes_sent for r in self.requests() if r.target != "player")

    def clear_log(self) -> None:
        with self._lock:
            self._log.clear()

    def wait_idle(self, seconds: float = 2.0) -> bool:
        """Waits until no answer is under way: a client may be gone before its handler knows."""
        end = time.monotonic() + seconds
        while any(not r.finished for r in self.requests()):
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    # --- for the handlers ---

    def log_begin(self, request: Request) -> int:
        with self._lock:
            self._next_request += 1
            self._log[self._next_request] = request
            return self._next_request

    def log_change(self, number: int, **changes: Any) -> None:
        with self._lock:
            # The log may have been cleared under a request that was still being answered.
            if number in self._log:
                self._log[number] = replace(self._log[number], **changes)

    def effects(self, request: Request) -> Knob:
        """The knobs that this request meets, in one, each of them used once more."""
        met = []
        with self._lock:
            for knob in self._knobs:
                spent = knob.times is not None and self._used[id(knob)] >= knob.times
                if not spent and knob.meets(request):
                    self._used[id(knob)] += 1
                    met.append(knob)
        return combined(met)

    def blocked(self, address: str) -> str | int | None:
        """Counts a player request, and says with what it is to be refused, if it is."""
        with self._lock:
            block = self._block
            if block is not None and block.address not in (None, address):
                return None
            self._players += 1
            if block is None or self._players <= block.after:
                return None
            now = time.monotonic()
            began = self._block_began = self._block_began or now
            over = block.seconds is not None and now - began >= block.seconds
            refused = self._players - block.after
            if over or (block.requests is not None and refused > block.requests):
                self._block = None
                return None
            return block.why

    def player_answer(self, youtube_id: str) -> dict[str, Any]:
        with self._lock:
            dead = self._dead.get(youtube_id)
            video = self._videos.get(youtube_id)
        if dead is None and video is None and youtube_id == CHECK_ID:
            return shown_answer(youtube_id)
        if dead is not None or video is None:
            return dead_answer(youtube_id, dead or DEAD["unavailable"])
        media = self.media(youtube_id)
        length = video.length_seconds or str(round(media.seconds))
        url = f"{self.root}/videoplayback"
        if video.ad_seconds is not None:
            with self._lock:
                self._ad_ends[youtube_id] = time.time() + video.ad_seconds
        return play_answer(youtube_id, media, url, video.title, length, video.ad_seconds)

    def media(self, youtube_id: str) -> Media:
        # Under the lock: two first requests must not make the same files at once.
        with self._lock:
            video = self._videos[youtube_id]
            if youtube_id not in self._media:
                self._media[youtube_id] = describe(video.paths, video.progressive, video.adaptive)
            return self._media[youtube_id]

    def find(self, request: Request) -> Path | bytes | None:
        """What lies behind a GET or HEAD on the plain server."""
        with self._lock:
            video = self._videos.get(request.youtube_id)
            if request.target == "file":
                return self._files[request.youtube_id]
        if video is None:
            return None
        if request.target == "watch":
            return video.paths[-1]
        streams = self.media(request.youtube_id).streams
        return next((s.path for s in streams if s.itag == request.itag), None)

    def shows_ad(self, request: Request) -> bool:
        """Whether the advertisement before a video is not over, and its data is held back."""
        with self._lock:
            end = self._ad_ends.get(request.youtube_id, 0.0)
        return request.target == "media" and time.time() < end

    def is_file(self, path: str) -> bool:
        with self._lock:
            return path in self._files


class _Server(ThreadingHTTPServer):
    """One port. Remembers its connections and threads, so that it can end them all at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], standin: StandIn, name: str, tls: ssl.SSLContext | None
    ) -> None:
        self.standin, self.scheme, self.tls = standin, name, tls
        self._open: set[socket.socket] = set()
        self.to_reset: set[socket.socket] = set()
        self._threads_of_requests: set[threading.Thread] = set()
        self._guard = threading.Lock()
        self._loop: threading.Thread | None = None
        super().__init__(address, _Handler)

    def begin(self) -> None:
        # The poll interval is how long shutdown() takes.
        self._loop = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._loop.start()

    def end(self) -> None:
        if self._loop is not None:
            self.shutdown()
            self._loop.join()
            self._loop = None
        self.server_close()
        with self._guard:
            connections, threads = list(self._open), list(self._threads_of_requests)
        for connection in connections:
            # Wakes a handler that waits on it. Not SSLSocket.shutdown, which would take the TLS
            # state from under the handler's feet.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)

    def process_request(self, request: Any, client_address: Any) -> None:
        arguments = (request, client_address)
        thread = threading.Thread(target=self._serve, args=arguments, daemon=True)
        with self._guard:
            self._threads_of_requests.add(thread)
            self._open.add(request)
        thread.start()

    def _serve(self, plain: socket.socket, client_address: Any) -> None:
        connection = plain
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            if self.tls is not None:
                # wrap_socket empties the plain socket: end() must find the new one in its place
                # before the handshake, which may wait for a client that says nothing.
                with self._guard:
                    connection = self.tls.wrap_socket(
                        plain, server_side=True, do_handshake_on_connect=False
                    )
                    self._open.add(connection)
                if self.standin.stopping.is_set():  # end() may have looked just before
                    raise ConnectionAbortedError
                connection.do_handshake()
            self.finish_request(connection, client_address)
        except OSError:
            pass  # the client left, or we are stopping: no news
        except Exception as error:
            self.standin.errors.append(error)
        finally:
            # An orderly shutdown would come before the reset.
            is_reset = connection in self.to_reset
            (self.close_request if is_reset else self.shutdown_request)(connection)
            with self._guard:
                self._open -= {plain, connection}
                self._threads_of_requests.discard(threading.current_thread())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    number = 0  # of the request in the log
    sent = 0

    @property
    def standin(self) -> StandIn:
        return cast(_Server, self.server).standin

    def log_message(self, format: str, *args: Any) -> None:
        pass  # the log is kept as data

    def do_GET(self) -> None:
        with self._logged() as request:
            content = self.standin.find(request) if request.target != "other" else None
            if request.server == "https" and request.target in ("watch", "other"):
                content = PAGE
            # HEAD is only a question about the file: it uses no knob up.
            knob = Knob() if self.command == "HEAD" else self.standin.effects(request)
            if self._is_turned_away(knob):
                return
            if knob.status is not None:
                self._refuse(knob.status, knob)
            elif self.standin.shows_ad(request):
                self._refuse(403, knob)
            elif content is None:
                self._refuse(404, knob)
            elif knob.body is not None:
                self._send(knob.body, _content_type(request, content), replace(knob, no_range=True))
            elif knob.html:
                self._send(HTML, "text/html; charset=utf-8", replace(knob, no_range=True))
            else:
                kind = _content_type(request, content)
                self._send(content, kind, knob)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        youtube_id = ""
        with contextlib.suppress(ValueError, AttributeError):
            youtube_id = str(json.loads(body).get("videoId") or "")
        with self._logged(youtube_id) as request:
            if request.target != "player":
                self._send(OTHER, "application/json; charset=utf-8", Knob(no_range=True))
                return
            refused = self.standin.blocked(self.client_address[0])
            knob = self.standin.effects(request)
            if self._is_turned_away(knob):
                return
            status = knob.status or (refused if isinstance(refused, int) else None)
            if status is not None:
                self._refuse(status, knob)
            elif knob.html:
                self._send(HTML, "text/html; charset=utf-8", replace(knob, no_range=True))
            elif knob.body is not None:
                kind = "application/json; charset=utf-8"
                self._send(knob.body, kind, replace(knob, no_range=True))
            else:
                dead = DEAD[refused] if isinstance(refused, str) else None
                answer = self.standin.player_answer(youtube_id) if dead is None else None
                text = json.dumps(answer or dead_answer(youtube_id, cast(Dead, dead)))
                kind = "application/json; charset=utf-8"
                self._send(text.encode(), kind, replace(knob, no_range=True))

    @contextlib.contextmanager
    def _logged(self, youtube_id: str = "") -> Iterator[Request]:
        request = self._request(youtube_id)
        self.number, self.sent = self.standin.log_begin(request), 0
        try:
            yield request
        finally:
            self.standin.log_change(self.number, bytes_sent=self.sent, finished=True)

    def _request(self, youtube_id: str) -> Request:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        itag = None
        if self.command == "POST":
            target = "player" if parts.path == "/youtubei/v1/player" else "other"
        elif self.standin.is_file(unquote(parts.path)):
            target, youtube_id = "file", unquote(parts.path)
        elif parts.path == "/watch":
            target, youtube_id = "watch", query.get("v", "")
        elif parts.path == "/videoplayback":
            target, youtube_id = "media", query.get("id", "")
            itag = int(query["itag"]) if query.get("itag", "").isdigit() else None
        else:
            target = "other"
        agent = self.headers.get("User-Agent") or ""
        # ffmpeg asks every HTTP server for radio station titles; nothing else does.
        ffmpeg = "Lavf" in agent or self.headers.get("Icy-MetaData") is not None
        return Request(
            time=time.monotonic(),
            server=cast(_Server, self.server).scheme,
            method=self.command,
            path=self.path,
            youtube_id=youtube_id,
            target=target,
            itag=itag,
            range=(self.headers.get("Range") or "").strip(),
            user_agent=agent,
            client="ffmpeg" if ffmpeg else "native",
        )

    # --- answering ---

    def _is_turned_away(self, knob: Knob) -> bool:
        """A reset or a redirect, in place of any answer."""
        if knob.reset:
            now = struct.pack("ii", 1, 0)  # linger for no time: what is closed is reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
            cast(_Server, self.server).to_reset.add(self.connection)
            self.close_connection = True
            return True
        if knob.redirect is None:
            return False
        target = self.path if knob.redirect == "loop" else knob.redirect
        self._headers(302, "text/html", None if knob.endless else 0, {"Location": target})
        self._body(b"", 0, 0, knob)
        return True

    def _refuse(self, status: int, knob: Knob) -> None:
        """An error, in the player API's JSON on its own server and as a page elsewhere."""
        words = self.responses.get(status, ("Error", ""))[0]
        if cast(_Server, self.server).scheme == "https":
            error = {"code": status, "message": words, "status": words.upper().replace(" ", "_")}
            body, kind = json.dumps({"error": error}).encode(), "application/json"
        else:
            body, kind = f"<html><body>{status} {words}</body></html>".encode(), "text/html"
        self._send(body, kind, replace(knob, no_range=True), status)

    def _more_headers(self, knob: Knob) -> dict[str, str]:
        more = {} if knob.no_range else {"Accept-Ranges": "bytes"}
        if knob.gzip:
            more["Content-Encoding"] = "gzip"
        if knob.retry_after is not None and knob.status is not None:
            more["Retry-After"] = str(knob.retry_after)
        return more

    def _send(self, content: Path | bytes, kind: str, knob: Knob, status: int = 200) -> None:
        """A file or bytes: the part that was asked for, with what the knob does to it."""
        if knob.gzip:
            content = gzip.compress(content if isinstance(content, bytes) else content.read_bytes())
            knob = replace(knob, no_range=True)
        total = len(content) if isinstance(content, bytes) else content.stat().st_size
        if knob.truncate is not None:
            total = min(total, knob.truncate)
        first, last = 0, total - 1
        if not knob.no_range and self.headers.get("Range"):
            asked = _parse_range(self.headers["Range"], total)
            if asked is None:
                self._headers(416, kind, 0, {"Content-Range": f"bytes */{total}"})
                return
            first, last = asked
            status = 206
        more = self._more_headers(knob)
        if status == 206:
            more["Content-Range"] = f"bytes {first}-{last}/{total}"
        no_length = knob.no_length or knob.endless
        self._headers(status, kind, None if no_length else last - first + 1, more)
        if self.command != "HEAD":
            self._body(content, first, last - first + 1, knob)

    def _headers(self, status: int, kind: str, length: int | None, more: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is None:
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        for name, value in more.items():
            self.send_header(name, value)
        self.standin.log_change(self.number, status=status)
        self.end_headers()

    def _body(self, content: Path | bytes, first: int, length: int, knob: Knob) -> None:
        stops = [stop for stop in (knob.cut_after, knob.stall_after) if stop is not None]
        end = min([length, *stops])
        began = time.monotonic()
        step = CHUNK if knob.throttle is None else max(1, min(CHUNK, int(knob.throttle / 20)))
        for chunk in _with_more(_chunks(content, first, end, step), knob, step):
            if self.standin.stopping.is_set():
                raise ConnectionAbortedError
            self.wfile.write(chunk)
            self.sent += len(chunk)
            self.standin.log_change(self.number, bytes_sent=self.sent)
            if knob.throttle is not None:
                due = began + self.sent / knob.throttle
                self.standin.stopping.wait(max(0.0, due - time.monotonic()))
        if end < length or knob.longer is not None:
            self.close_connection = True
            if knob.stall_after is not None and end == knob.stall_after:
                self._stall()

    def _stall(self) -> None:
        """Returns when the client has left, or the server stops."""
        while not self.standin.stopping.wait(0.05):
            readable = select.select([self.connection], [], [], 0)[0]
            # A TLS socket cannot be peeked into; there, a client that stirs is a client that left.
            if readable and (
                isinstance(self.connection, ssl.SSLSocket)
                or not self.connection.recv(1, socket.MSG_PEEK)
            ):
                return


def _with_more(chunks: Iterator[bytes], knob: Knob, step: int) -> Iterator[bytes]:
    """The body, and behind it what nobody was promised."""
    yield from chunks
    if knob.longer is not None:
        yield bytes(knob.longer)
    if knob.endless:
        yield from itertools.repeat(bytes(step))


def _chunks(content: Path | bytes, first: int, length: int, step: int) -> Iterator[bytes]:
    if isinstance(content, bytes):
        for offset in range(first, first + length, step):
            yield content[offset : min(offset + step, first + length)]
        return
    with content.open("rb") as file:
        file.seek(first)
        left = length
        while left > 0 and (chunk := file.read(min(step, left))):
            left -= len(chunk)
            yield chunk


def _parse_range(header: str, total: int) -> tuple[int, int] | None:
    """First and last byte of a single range; None when it lies outside (416)."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if not match or match.group(0) == "bytes=-":
        return 0, total - 1
    begin, end = match.groups()
    if not begin:
        return (max(0, total - int(end)), total - 1) if int(end) and total else None
    last = min(int(end), total - 1) if end else total - 1
    return (int(begin), last) if int(begin) <= last else None


def _content_type(request: Request, content: Path | bytes) -> str:
    name = request.youtube_id if request.target == "file" else str(content)
    if request.target == "media" and request.itag == 140:
        return "audio/mp4"
    return TYPES.get(Path(name).suffix.lower(), "application/octet-stream")


def _certificate() -> ssl.SSLContext:
    """TLS with a certificate of our own for 127.0.0.1, good until 2126.

    Its key is in the repository and guards nothing. Making one on the spot would take a package
    that demo.py's users have no other need of.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).with_name("standin.pem"))
    return context
