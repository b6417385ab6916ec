"""A forward HTTP proxy on loopback, with a count: plain GET and CONNECT, nothing more."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Proxy:
    """A context manager; `address` is for --proxy, `asked` the hosts that it was asked for.

    leads: `host:port` -> another one, to which it connects in its place.
    """

    def __init__(self, leads: Mapping[str, str] | None = None) -> None:
        ways = dict(leads or {})
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_CONNECT(self) -> None:
                asked.append(f"CONNECT {self.path}")
                host, _, port = ways.get(self.path, self.path).partition(":")
                with socket.create_connection((host, int(port)), 20) as upstream:
                    self.send_response(200)
                    self.end_headers()
                    _join(self.connection, upstream)
                self.close_connection = True

            def do_GET(self) -> None:
                asked.append(f"{self.command} {self.path}")
                url = urlsplit(self.path)
                with socket.create_connection((url.hostname or "", url.port or 80), 20) as upstream:
                    target = url.path + (f"?{url.query}" if url.query else "")
                    head = [f"{self.command} {target} HTTP/1.1"]
                    head += [f"{k}: {v}" for k, v in self.headers.items() if k != "Connection"]
                    head += ["Connection: close", "", ""]
                    upstream.sendall("\r\n".join(head).encode())
                    _join(self.connection, upstream)
                self.close_connection = True

            do_HEAD = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _join(left: socket.socket, right: socket.socket) -> None:
    """Pass bytes both ways until one side is done."""
    other = {left: right, right: left}
    while True:
        readable, _, _ = select.select([left, right], [], [], 30)
        if not readable:
            return
        for each in readable:
            try:
                data = each.recv(65536)
                if not data:
                    return
                other[each].sendall(data)
            except OSError:
                return
