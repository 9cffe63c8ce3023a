"""A server on loopback that sends ranges of files, late and not always: an object store for tests and benchmarks."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Store(ThreadingHTTPServer):
    """Files below `root`, `latency` seconds late; each `fails`-th request for a range is answered 503.

    `forbidden` and `ranges` may be changed meanwhile; `asked` are the ranges that were sent.
    """

    daemon_threads, request_queue_size = True, 256

    def __init__(self, root: Path, latency: float = 0.0, fails: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.root, self.latency, self.fails = root, latency, fails
        self.asked: list[tuple[str, int, int]] = []
        self.counted, self.forbidden, self.ranges, self.cut = 0, False, True, 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        time.sleep(self.server.latency)
        path = self.server.root / self.path.lstrip("/")
        if self.server.forbidden:
            return self._refuse(403)
        if not path.is_file():
            return self._refuse(404)
        size, tag = path.stat().st_size, f'"{path.stat().st_mtime_ns:x}"'
        if self.headers.get("If-Match", tag) != tag:
            return self._refuse(412)
        start, stop, status = 0, size, 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.server.ranges:
            start, stop, status = int(wanted[1]), min(int(wanted[2] or size) + 1, size), 206
        with self.server.lock:
            self.server.counted += body
            broken = body and self.server.fails and self.server.counted % self.server.fails == 0
            cut, self.server.cut = self.server.cut * body, self.server.cut * (not body)
            if body and not broken:
                self.server.asked.append((self.path, start, stop))
        if broken:
            return self._refuse(503)
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(stop - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        if body:
            with open(path, "rb") as file:
                file.seek(start)
                data = file.read(stop - start)
            self.wfile.write(data[: len(data) - cut])
            self.close_connection = bool(cut)
        return None

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(root: Path, latency: float = 0.0, fails: int = 0) -> Iterator[Store]:
    """Serve the files below a folder meanwhile."""
    server = Store(root, latency, fails)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
