"""A small HTTP proxy before a real server, that fails on demand: before it acts, after it acted, by losing, emptying or delaying the reply."""

import contextlib
import http.client
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

# A 503 before or after the server acted; no reply after it acted; `{}` without asking it; its answer, too late.
Kind = Literal["before", "after", "lost", "empty", "slow"]


@dataclass
class Faults:
    """Which requests fail, how, and how many more of them."""

    path: str = ""  # the end of the request's path
    kind: Kind = "before"
    left: int = 0
    reads: bool = False  # whether a GET may be one
    delay: float = 0.0  # seconds, of what is slow
    rate: float = 1.0  # of the requests that may fail; below 1, each fails in a way of its own
    draws: random.Random = field(default_factory=lambda: random.Random(0))
    done: list[str] = field(default_factory=list)  # methods and paths of those that failed

    def due(self, method: str, path: str) -> bool:
        due = self.left > 0 and (self.reads or method != "GET") and urlsplit(path).path.endswith(self.path)
        if due and self.rate < 1:
            due, self.kind = self.draws.random() < self.rate, self.draws.choice(["before", "after", "lost", "empty"])
        if due:
            self.left -= 1
            self.done.append(f"{method} {path}")
        return due


@contextmanager
def failing(server: str, faults: Faults | None = None) -> Iterator[tuple[str, Faults]]:
    """The address of a proxy before `server`, and its faults: none yet, if none are given."""
    faults, behind = faults or Faults(), urlsplit(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            due = faults.due(self.command, self.path)
            if due and faults.kind == "before":
                self.answer(503, b"")
                return
            if due and faults.kind == "empty":
                self.answer(200, b"{}", "application/json")
                return
            if due and faults.kind == "slow":
                time.sleep(faults.delay)
            connection = http.client.HTTPConnection(behind.hostname, behind.port, timeout=60)
            try:
                headers = {
                    key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection")
                }
                connection.request(self.command, self.path, body, headers)
                reply = connection.getresponse()
                content = reply.read()
            finally:
                connection.close()
            if due and faults.kind == "lost":
                self.close_connection = True
            elif due and faults.kind == "after":
                self.answer(503, b"")
            else:
                self.answer(reply.status, content, reply.getheader("Content-Type"))

        def answer(self, status: int, content: bytes, kind: str | None = None) -> None:
            with contextlib.suppress(ConnectionError):  # who was kept waiting may have gone
                self.send_response(status)
                self.send_header("Content-Type", kind or "text/plain")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}", faults
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
