"""The live page of a run, served to this machine alone: read-only, and drawn anew only where the run has changed."""

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gan_core.errors import ConfigurationError, GanError
from pipelines.reporting.live_page import live_page
from pipelines.runs.observation import Observation, RunObserver

HOST, SECONDS, MOST = "127.0.0.1", 10.0, 16  # to read a request in; requests at a time

WAIT = b'<meta http-equiv="refresh" content="2">the storage does not answer yet'


class _Page:
    """The run's page and its version, looked at not more often than every `pause` seconds however many ask."""

    def __init__(self, observer: RunObserver, pause: float) -> None:
        self.observer, self.pause, self.looking = observer, pause, threading.Lock()
        self.seen: Observation | None = None
        self.looked_at, self.version, self.content = 0.0, "", b""

    def look(self) -> str:
        """The version of what there is to see; the last one where the storage does not answer."""
        with self.looking:
            if self.seen is None or (self.seen.state == "running" and time.monotonic() - self.looked_at >= self.pause):
                with contextlib.suppress(GanError, OSError):
                    self.seen = self.observer.look()
                self.looked_at = time.monotonic()
            seen = self.seen
            if seen is None:
                return ""
            stages = "".join(stage.state[0] for stage in seen.stages)
            return f"{seen.state} {stages} {len(seen.candidates)} {seen.training.get('step', 0)}"

    def page(self) -> bytes:
        """The page of this version."""
        version = self.look()
        with self.looking:
            if version and version != self.version and self.seen is not None:
                with contextlib.suppress(GanError, OSError):  # the last page, where the storage does not answer
                    self.content = live_page(self.observer.run.folder, self.seen, version).encode()
                    self.version = version
            return self.content


@contextlib.contextmanager
def serving(observer: RunObserver, port: int, pause: float) -> Iterator[str]:
    """Serve the page of a run while the block runs, and give its address.

    Raises:
        ConfigurationError: If the port is taken.
    """
    page, busy = _Page(observer, pause), threading.BoundedSemaphore(MOST)

    class Handler(BaseHTTPRequestHandler):
        timeout = SECONDS

        def do_GET(self) -> None:
            """The page, or the version of what it shows."""
            own = {f"{host}:{server.server_port}" for host in (HOST, "localhost")}
            own |= {HOST, "localhost"} if server.server_port == 80 else set()
            if self.headers.get("Host") not in own:  # a page of others, whose name has been made to mean this machine
                self._answer(403, b"", "text/plain")
            elif self.path == "/":
                content = page.page()
                self._answer(200 if content else 503, content or WAIT, "text/html; charset=utf-8")
            elif self.path == "/version":
                self._answer(200, page.look().encode(), "text/plain")
            else:
                self._answer(404, b"", "text/plain")

        def _answer(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            with contextlib.suppress(OSError):  # nobody reads it any more
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing: the terminal has the run."""

    class Server(ThreadingHTTPServer):
        daemon_threads, allow_reuse_address = True, True

        def process_request(self, request: Any, client_address: Any) -> None:
            """Answer in a thread, if there are not too many."""
            if busy.acquire(blocking=False):
                super().process_request(request, client_address)
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                busy.release()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing of a browser that has left."""

    try:
        server = Server((HOST, port), Handler)
    except OSError as error:
        expected = f"one that nobody listens on: {error.strerror}"
        raise ConfigurationError("port is taken", "--port", f"{port} of {HOST}", expected) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
