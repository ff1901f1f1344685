"""The HTTP side of a service: who may ask for what, in how many seconds, and what is said to those who may not."""

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from gan_core.errors import ConfigurationError, GanError
from pipelines.serving.requests import MAX_BODY, MEDIA, SampleRequest, parse_request

METHODS = {"/samples": "POST", "/model": "GET", "/health": "GET"}
HEAD_SECONDS = 10.0  # for a request's line and headers, from the connection's start or the answer before
BODY_SECONDS = 10.0  # for its body
READ_SECONDS = 10.0  # for a part of the answer to be read
LEAVE_SECONDS = 2.0  # for answers on their way when the service ends

# What a request for samples gets: what /model says of the model that drew, and the content or why there is none.
Drawn = tuple[dict[str, Any], bytes | GanError]


class Connection(H11Protocol):
    """uvicorn's, but given up where a head does not end or an answer is not read: uvicorn waits for both for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A head is awaited."""
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._close_without_head, None)

    def on_response_complete(self) -> None:
        """The answer is to be read, and another head may come."""
        super().on_response_complete()
        self.loop.call_later(HEAD_SECONDS, self._close_without_head, self.cycle)
        self.loop.call_later(READ_SECONDS, self._abort_unread, self.transport.get_write_buffer_size())

    def _close_without_head(self, before: Any) -> None:
        if self.cycle is before and (before is None or before.response_complete):
            self.transport.close()

    def _abort_unread(self, before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread and unread >= before:
            self.transport.abort()
        elif unread:
            self.loop.call_later(READ_SECONDS, self._abort_unread, unread)


class Application:
    """The ASGI application: requests for samples wait for a draw, a bounded number of them; all else is answered at once."""

    def __init__(
        self,
        draw: Callable[[SampleRequest], Awaitable[Drawn]],
        model: Callable[[], dict[str, Any]],
        alive: Callable[[], bool],
        max_samples: int,
        max_drawing: int,
    ) -> None:
        self.draw, self.model, self.alive = draw, model, alive
        self.max_samples, self.max_drawing = max_samples, max_drawing
        self.drawing = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        if path not in METHODS:
            return _refused(404, ConfigurationError("no such path", path[:80], request.method, ", ".join(METHODS)))
        if request.method != METHODS[path]:
            return _refused(405, ConfigurationError("method", path, request.method, METHODS[path]), Allow=METHODS[path])
        if path == "/health":
            return _json(200, {"status": "ok"}) if self.alive() else _json(503, {"status": "restarting"})
        if path == "/model":
            return _json(200, self.model())
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(request)
        except TimeoutError:
            late = ConfigurationError("body too late", "POST /samples", "no end", f"all of it in {BODY_SECONDS:g} s")
            return _refused(408, late, Connection="close")
        if body is None:
            large = ConfigurationError("body too large", "POST /samples", "more", f"at most {MAX_BODY} bytes")
            return _refused(413, large, Connection="close")
        return await self._samples(body)

    async def _samples(self, body: bytes) -> Response:
        try:
            asked = parse_request(body, self.max_samples)
        except GanError as error:
            return _refused(400, error)
        if self.drawing >= self.max_drawing:
            return _busy(f"{self.drawing} requests before this one")
        self.drawing += 1
        try:
            about, content = await self.draw(asked)
        except TimeoutError:
            return _busy("no answer yet")
        finally:
            self.drawing -= 1
        if isinstance(content, GanError):  # a condition that this model does not take
            return _refused(400, content)
        headers = {"X-Model": f"{about['name']}/{about['version']}", "X-Generator-SHA256": about["generator_sha256"]}
        return Response(content, media_type=MEDIA[asked.format], headers=headers)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that has the address and port, on which nobody is answered yet.

    Raises:
        ConfigurationError: If somebody else has it, or this machine has no such address.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        held = socket.socket(family)
    except OSError as error:
        raise ConfigurationError("no such address", "--host", host, f"one of this machine: {error.strerror}") from error
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(address)
    except OSError as error:
        held.close()
        raise _taken(address, error) from error
    return held


def _taken(address: Any, error: OSError) -> ConfigurationError:
    host, port = address[:2]
    return ConfigurationError(
        "port is taken", "--port", f"{port} of {host}", f"one that nobody listens on: {error.strerror}"
    )


class Server:
    """An ASGI application served by a thread of this process, with whatever runs beside it."""

    def __init__(self, application: Application, held: socket.socket, beside: Callable[[], Awaitable[None]]) -> None:
        config = uvicorn.Config(
            application, http=Connection, ws="none", lifespan="off", access_log=False, log_config=None, backlog=1024,
            timeout_graceful_shutdown=int(LEAVE_SECONDS),
        )  # fmt: skip
        self.server, self.held, self.beside = uvicorn.Server(config), held, beside
        self.ended = threading.Event()  # the server, or what runs beside it
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        """Answer from now on, if it does not yet.

        Raises:
            ConfigurationError: If somebody who had the port too began to listen on it.
        """
        if not self.thread.ident:
            try:
                self.held.listen()
            except OSError as error:
                raise _taken(self.held.getsockname(), error) from error
            self.thread.start()
        while not self.server.started and not self.ended.wait(0.01):
            pass

    def stop(self) -> None:
        """End, after the answers on their way."""
        self.server.should_exit = True
        if self.thread.ident:
            self.thread.join(2 * LEAVE_SECONDS)

    async def _run(self) -> None:
        beside = asyncio.ensure_future(self.beside())
        beside.add_done_callback(lambda _: self.ended.set())
        try:
            await self.server.serve(sockets=[self.held])
        finally:
            beside.cancel()
            self.ended.set()


async def _body(request: Request) -> bytes | None:
    """The body, or None if it is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            return None
    return body


def _busy(state: str) -> Response:
    return _refused(
        503, ConfigurationError("busy", "POST /samples", state, "to be asked again in a second"), Retry_After="1"
    )


def _refused(status: int, error: GanError, **headers: str) -> Response:
    return _json(status, {"error": str(error)}, **headers)


def _json(status: int, value: Any, **headers: str) -> Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(json.dumps(value), status, named, "application/json")
