"""`gan serve` under 64 clients and malformed requests: no error of ours, and memory that does not grow."""

import contextlib
import http.client
import json
import random
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import free_port
from tests.faults.scorecard import hostile_models
from tests.faults.scorecard.parts import Measures, Part, Row, of_all
from tests.faults.scorecard.processes import family_mib
from tests.pipelines.conftest import kill_group, start_gan, until

CLIENTS, REQUESTS, MALFORMED = 64, 4, 50  # of a trial: ten trials have 500 malformed requests
GROWTH_MIB = 100.0  # over all processes, from the end of the first trial to that of the last


@dataclass
class Served:
    """A running `gan serve`."""

    port: int
    pid: int
    seed: int


@contextlib.contextmanager
def prepared(folder: Path, seed: int) -> Iterator[Served]:
    """The service, of a model registered for it."""
    hostile_models.registered(folder)
    port, uri = free_port(), f"sqlite:///{folder / hostile_models.REGISTRY}/mlflow.db"
    reference = f"{hostile_models.MODEL}@champion"
    process = start_gan("serve", reference, "--port", port, "--tracking-uri", uri, "--json", cwd=folder)
    try:
        said = process.stdout.readline() if process.stdout else ""
        assert said, process.communicate()[1]
        until(lambda: _status(port, "GET", "/health", None) == "200")
        yield Served(port, process.pid, seed)
    finally:
        kill_group(process)


def trial(served: Served, number: int) -> Measures:
    """All clients at once, and among them malformed requests."""
    drawn = random.Random(f"{served.seed} {number}")
    jobs = [lambda client=client: [_sample(served.port, client) for _ in range(REQUESTS)] for client in range(CLIENTS)]
    texts = [malformed(drawn) for _ in range(MALFORMED)]
    jobs += [lambda text=text: [_raw(served.port, text)] for text in texts]
    drawn.shuffle(jobs)
    with ThreadPoolExecutor(len(jobs)) as pool:
        answers = Counter(answer for answers in pool.map(lambda job: job(), jobs) for answer in answers)
    healthy = _status(served.port, "GET", "/health", None)
    ours = {answer: count for answer, count in answers.items() if answer.startswith("5") or "Error" in answer}
    ours.pop("503 busy", None)  # which is to be asked again: the queue is bounded
    faults = [f"{ours}"] if ours else []
    faults += [f"/health says {healthy}"] if healthy != "200" else []
    return {
        "fault": "; ".join(faults),
        "answers": dict(answers),
        "errors": sum(ours.values()),
        "mib": round(family_mib(served.pid)),
    }


def malformed(drawn: random.Random) -> bytes:
    """A request that is none, or one of nonsense."""
    junk = drawn.randbytes(drawn.randint(0, 300))
    bodies = [
        junk, b"[" * 4000, b"{", b"null", b'{"count": -1}', b'{"count": 1e999}', b'{"count": true}', b'{"seed": 1.5}',
        b'{"count": 1000000000}', b'{"count": 1, "count": 2}', b'{"format": "exe"}', b'{"evil": 1}',
        b'{"count": ' + b"9" * 3000 + b"}", b"\xff\xfe", b'{"condition": 3}', b"x" * 5000,
    ]  # fmt: skip
    body = drawn.choice(bodies)
    whole = b"POST /samples HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        len(body),
        body,
    )
    kinds = [
        whole, junk + b"\r\n\r\n", whole[: drawn.randint(1, len(whole))],
        b"GET /" + b"a" * drawn.randint(1, 3000) + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"DELETE /samples HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /samples HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /samples HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /model HTTP/9.9\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]  # fmt: skip
    return drawn.choice([whole, whole, *kinds])


def _sample(port: int, seed: int) -> str:
    return _status(port, "POST", "/samples", json.dumps({"count": 4, "seed": seed}))


def _status(port: int, method: str, path: str, body: str | None) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body)
        return _said(connection.getresponse())
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def _said(answer: http.client.HTTPResponse) -> str:
    content = answer.read()
    return f"{answer.status} busy" if answer.status == 503 and b"busy" in content else str(answer.status)


def _raw(port: int, text: bytes) -> str:
    """What a malformed request is answered; nothing is an answer too, and so is `busy`: an empty body is a request."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.settimeout(10)
        try:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return _said(answer)
        except OSError:
            return "closed"
        except http.client.HTTPException as error:
            return f"Error: {type(error).__name__}"


def rows(measures: Sequence[Measures]) -> list[Row]:
    """The scorecard's lines."""
    errors, memory = sum(one["errors"] for one in measures), [one["mib"] for one in measures]
    growth = max(memory, default=0) - (memory[0] if memory else 0)
    asked = f"{len(measures)} x {CLIENTS * REQUESTS} requests and {MALFORMED} malformed"
    return [
        Row("`gan serve`, 64 clients and malformed requests: errors of ours", "0", f"{errors} of {asked}", not errors),
        Row("`gan serve`: growth of memory", f"<= {GROWTH_MIB:g} MiB", f"{growth} MiB of {memory[0] if memory else 0}", growth <= GROWTH_MIB),
        of_all(measures, "`gan serve` is healthy afterwards", "all"),
    ]  # fmt: skip


PART = Part("serve", 10, prepared, trial, rows)
