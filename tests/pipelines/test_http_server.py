"""The HTTP side of `gan serve`, without Ray: what never ends is given up, what is malformed refused, health answers."""

import asyncio
import contextlib
import http.client
import random
import socket
import time

import pytest

from pipelines.serving import http_server
from pipelines.serving.http_server import Application, Server, listening_socket
from pipelines.serving.requests import answer_request
from tests.pipelines.conftest import principal_generator

ABOUT = {"name": "gan-served", "version": 1, "generator_sha256": "0" * 64}
HEAD = b"POST /samples HTTP/1.1\r\nHost: here\r\n"


@pytest.fixture
def port(digits, monkeypatch):
    """A server whose draws happen in this process, and that waits a second for what a client has to send."""
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "READ_SECONDS"):
        monkeypatch.setattr(http_server, name, 1.0)
    model = principal_generator(digits, 4)

    async def draw(asked):
        await asyncio.sleep(1.5 if asked.seed == 15 else 0)
        return ABOUT, await asyncio.to_thread(answer_request, model, asked)

    async def beside():
        await asyncio.Event().wait()

    held = listening_socket("127.0.0.1", 0)
    application = Application(draw, lambda: ABOUT, lambda: True, max_samples=50_000, max_drawing=4)
    server = Server(application, held, beside)
    server.start()
    yield held.getsockname()[1]
    server.stop()
    assert not server.thread.is_alive()


def connected(port):
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def status_of(port, method="GET", path="/health", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body)
        return connection.getresponse().status
    finally:
        connection.close()


def said(client):
    """What a client is sent until it is hung up on."""
    content = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65536):
            content += part
    return content


def test_health_answers_while_bodies_never_end(port):
    """300 bodies that never end took the room of all other requests: /health was answered 503 until they closed."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(port)) for _ in range(300)]
        for client in clients:
            client.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert status_of(port) == 200
        assert status_of(port, "POST", "/samples", '{"count": 3}') == 200
        answers = [said(client) for client in clients]
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert b"body too late (POST /samples): no end; expected all of it in 1 s" in answers[0]


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n"], ids=["first", "second"])
def test_a_head_that_never_ends_is_closed(port, before):
    """Headers that are never finished were waited for as long as the client stayed, byte by byte too."""
    with connected(port) as client:
        client.sendall(before + HEAD)
        start, closed = time.monotonic(), False
        while not closed:
            assert time.monotonic() - start < 30
            with contextlib.suppress(BlockingIOError, TimeoutError):
                client.settimeout(0.2)
                closed = not client.recv(65536)
            with contextlib.suppress(OSError):
                client.sendall(b"X")
        assert time.monotonic() - start > 0.9


def test_slow_answers_are_not_cut_off(port):
    """A connection whose request is whole stays open: the seconds are those of a head, not of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(2):
        connection.request("POST", "/samples", '{"count": 3, "seed": 15}')
        answer = connection.getresponse()
        assert (answer.status, len(answer.read()) > 0) == (200, True)
    connection.close()


def test_an_answer_that_nobody_reads_is_dropped(port):
    """12.8 MB for each client that asked and did not read stayed in memory for as long as it liked."""
    with connected(port) as client:
        body = b'{"count": 50000}'
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        assert client.recv(12) == b"HTTP/1.1 200"
        time.sleep(3)
        assert len(said(client)) < 50_000 * 64 * 4


def test_malformed_requests_never_fail_the_server(port):
    """Of 500 malformed requests none is answered 5xx, and the next good one is answered."""
    draw = random.Random(3)
    heads = [
        HEAD, HEAD.replace(b"POST", b"GET"), b"\x16\x03\x01\x02\x00", b"GET", b"GET / HTTP/9.9\r\n",
        b"POST /samples\xff HTTP/1.1\r\nHost: here\r\n", HEAD + b"X-\xff\xfe: \xff\r\n", HEAD + b"Expect: 100-continue\r\n",
        HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\n", HEAD + b"x-request-timeout-seconds: nan\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: here\r\n", b"GET http://[::1/health HTTP/1.1\r\nHost: here\r\n", b"GET /%00%ff HTTP/1.1\r\nHost: here\r\n",
    ]  # fmt: skip
    bodies = [
        b"{", b"[" * 4000, b"\xff" * 50, b'{"count": 1e999}', b'{"count": true}', b'{"count": 9999999999999999999999}', b"null",
        b'{"format": ["npy"]}', b'{"seed": NaN}', b'{"condition": 3}', b'{"count": {}}', b" " * 5000, draw.randbytes(40),
    ]  # fmt: skip
    for _ in range(500):
        head, body = draw.choice(heads), draw.choice(bodies)
        length = draw.choice([b"Content-Length: %d" % len(body), b"Content-Length: -1", b"Transfer-Encoding: chunked"])
        with connected(port) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(head + length + b"\r\n\r\n" + body)
                client.shutdown(socket.SHUT_WR)
            assert b"HTTP/1.1 5" not in said(client)[:10], (head, length, body)
    assert status_of(port, "POST", "/samples", '{"count": 3}') == 200


def test_an_address_that_is_held_is_refused(port):
    """Also by a second service that began to listen while Ray started for this one."""
    sockets = [listening_socket("127.0.0.1", 0)]
    sockets.append(listening_socket("127.0.0.1", sockets[0].getsockname()[1]))
    sockets[0].listen()
    with pytest.raises(http_server.ConfigurationError, match="port is taken"):
        Server(None, sockets[1], asyncio.Event().wait).start()
    for held in sockets:
        held.close()
    with pytest.raises(http_server.ConfigurationError, match="port is taken"):
        listening_socket("127.0.0.1", port)
    with pytest.raises(http_server.ConfigurationError, match="no such address"):
        listening_socket("no-such-host.invalid", 8000)
