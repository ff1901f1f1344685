"""`gan serve`: the bits of `gan sample` over HTTP, refusals in JSON, bounded queues, an alias that moves."""

import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipelines.registry import Registry
from pipelines.registry.champion_history import ChampionHistory
from pipelines.storage import Storage
from tests.conftest import free_port
from tests.pipelines.conftest import (
    LOOPBACK,
    Answer,
    Place,
    environment,
    failed,
    gan,
    kill_group,
    listeners,
    principal_generator,
    start_gan,
    until,
)
from tests.pipelines.test_registry import files, register
from tests.pipelines.test_signals import part

NAME = "gan-served"


@pytest.fixture(scope="module")
def registered(database_template, digits, tmp_path_factory):
    """A registry with two versions of a model, the first of them champion."""
    import shutil

    folder = tmp_path_factory.mktemp("served")
    shutil.copy(database_template, folder / "mlflow.db")
    place = Place(f"sqlite:///{folder}/mlflow.db", Storage.at(folder), folder / "mlartifacts")
    models = [principal_generator(digits, 8), principal_generator(digits, 4)]
    versions = [register(place, model, run, NAME) for model, run in zip(models, ("one", "two"), strict=True)]
    ChampionHistory(Registry(place.uri), NAME).force(versions[0], "a test")
    return place, versions, models


class Server:
    """A running `gan serve`, and what it answers."""

    def __init__(self, place, *options, start=start_gan):
        self.port = free_port()
        command = ("serve", f"{NAME}@champion", "--port", self.port, "--tracking-uri", place.uri, "--json", *options)
        self.process = start(*command, cwd=place.files.parent)
        self.said = json.loads(self.process.stdout.readline() or "{}")

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def error(self, method, path, body=None):
        status, headers, content = self.ask(method, path, body)
        assert headers["content-type"] == "application/json"
        return status, json.loads(content)["error"]


CONTROLLER, REPLICA = "ray::ServeController", f"ray::ServeReplica:gan-{NAME}:samples"
IMPATIENT = """
from pipelines.serving import app
from pipelines.cli import main
app.SILENT_SECONDS, app.RESTART_SECONDS = 3.0, 6.0
main()
"""


def start_impatient(*arguments, cwd):
    """The command, with fewer seconds."""
    return subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *map(str, arguments)], cwd=cwd, env=environment(), text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def processes(server, name):
    """The processes of a server that Ray calls so."""
    import ray  # noqa: F401, brings psutil
    from psutil import Process

    children = Process(server.process.pid).children(recursive=True)
    return [child for child in children if "".join(child.cmdline()[:1]).startswith(name)]


@contextlib.contextmanager
def serving(place, *options):
    server = Server(place, *options)
    try:
        assert server.said, server.process.communicate()[1]
        yield server
    finally:
        kill_group(server.process)


@pytest.fixture(scope="module")
def server(registered):
    place, _, _ = registered
    with serving(place, "--max-samples", 50_000, "--max-waiting", 1) as server:
        yield server


@pytest.fixture
def following(registered):
    """A server of one test's own, because what it serves changes."""
    place, _, _ = registered
    with serving(place, "--follow", "--interval", "0.5") as server:
        yield server


@pytest.mark.slow
def test_served_samples_equal_gan_sample(server, registered, tmp_path):
    """Samples over HTTP are the bits of `gan sample` in every form."""
    place, _, models = registered
    for suffix in ("npy", "png"):
        answer = gan(
            "sample", f"{NAME}/1", "-n", 9, "--seed", 5, "--output", f"it.{suffix}", "--tracking-uri", place.uri,
            cwd=tmp_path,
        )  # fmt: skip
        assert answer.code == 0, answer.err
        status, headers, content = server.ask("POST", "/samples", {"count": 9, "seed": 5, "format": suffix})
        assert (status, content) == (200, (tmp_path / f"it.{suffix}").read_bytes())
        assert headers["x-model"] == f"{NAME}/1"
        assert headers["x-generator-sha256"] == models[0].sha256
    _, _, content = server.ask("POST", "/samples", {"count": 9, "seed": 5, "format": "json"})
    assert np.array_equal(np.array(json.loads(content)["images"], np.float32), models[0].draw(9, 5))
    _, _, content = server.ask("POST", "/samples", b"")
    assert np.array_equal(np.load(io.BytesIO(content)), models[0].draw(64, 0))


@pytest.mark.slow
def test_server_describes_its_model_and_health(server, registered):
    """The server says what it serves, and that it is there."""
    _, _, models = registered
    status, _, content = server.ask("GET", "/model")
    about = {"name": NAME, "version": 1, "generator_sha256": models[0].sha256, "image_shape": [8, 8]}
    assert status == 200
    assert json.loads(content) == {**about, "pixels": "unit", "max_samples": 50_000}
    assert server.said == {"url": f"http://127.0.0.1:{server.port}", **json.loads(content)}
    status, _, content = server.ask("GET", "/health")
    assert (status, json.loads(content)) == (200, {"status": "ok"})


@pytest.mark.slow
def test_a_request_that_is_none_is_refused_in_json(server):
    for body, words in [
        ({"count": 50_001}, "count (POST /samples): 50001; expected a whole number from 1 to 50000"),
        ({"seed": -1}, "seed (POST /samples): -1; expected"),
        ({"format": "pt"}, 'format (POST /samples): "pt"; expected npy, png or json'),
        (b"{", "not JSON (POST /samples)"),
    ]:
        status, error = server.error("POST", "/samples", body)
        assert (status, error[: len(words)]) == (400, words)
    assert server.error("POST", "/samples", b" " * 4097) == (
        413,
        "body too large (POST /samples): more; expected at most 4096 bytes",
    )
    assert server.error("GET", "/samples") == (405, "method (/samples): GET; expected POST")
    assert server.error("POST", "/model", {}) == (405, "method (/model): POST; expected GET")
    status, error = server.error("GET", "/other")
    assert (status, error.startswith("no such path (/other): GET; expected /samples")) == (404, True)


@pytest.mark.slow
def test_full_queue_answers_503_and_health_still_200(server, registered):
    """Beyond what may wait requests are told to come again, and health still answers."""
    _, _, models = registered
    size = 50_000
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.ask, "POST", "/samples", {"count": size, "format": "json"}) for _ in range(8)]
        assert server.ask("GET", "/health")[0] == 200
        answers = [one.result() for one in asked]
    codes = sorted(status for status, _, _ in answers)
    assert 200 in codes
    assert 503 in codes
    assert set(codes) == {200, 503}
    for status, headers, content in answers:
        if status == 503:
            assert headers["retry-after"] == "1"
            assert json.loads(content)["error"].startswith("busy (POST /samples)")
    until(lambda: server.ask("POST", "/samples", {"count": 3})[0] == 200)
    _, _, content = server.ask("POST", "/samples", {"count": 3})
    assert np.array_equal(np.load(io.BytesIO(content)), models[0].draw(3, 0))


@pytest.mark.slow
def test_killed_replicas_are_replaced(server, registered):
    """Each helper process is killed, then the replica: requests wait for the next one, and have the same bits.

    The command stayed up for ever, and every request timed out.
    """
    _, _, models = registered
    for name in (CONTROLLER, REPLICA):
        (killed,) = processes(server, name)
        killed.kill()
        status, _, content = server.ask("POST", "/samples", {"count": 3, "seed": 8})
        assert status == 200, content
        assert np.array_equal(np.load(io.BytesIO(content)), models[0].draw(3, 8))
        until(lambda: server.ask("GET", "/health")[0] == 200)
    assert killed.pid not in [replica.pid for replica in processes(server, REPLICA)]


@pytest.mark.slow
def test_replicas_gone_for_good_end_the_command(registered):
    """Where nothing starts a killed replica again, /health says so, and the command ends with a line and code 4."""
    place, _, _ = registered
    server = Server(place, start=start_impatient)
    try:
        assert server.said, server.process.communicate()[1]
        for process in processes(server, CONTROLLER):
            process.suspend()
        for process in processes(server, REPLICA):
            process.kill()
        until(lambda: server.ask("GET", "/health")[0] == 503)
        _, err = server.process.communicate()
    finally:
        kill_group(server.process)
    assert server.process.returncode == 4, err
    assert err.splitlines()[-1].startswith("error: the service has died (this cluster): no replica answers for 6 s")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["gcs_server", "raylet"])
def test_a_dead_ray_ends_the_service(program, registered):
    """With a line and code 4: it waited a minute for a dead GCS, which then ended it with 1 and no line."""
    place, _, _ = registered
    server = Server(place)
    try:
        assert server.said, server.process.communicate()[1]
        os.kill(part(server.process, program), signal.SIGKILL)
        out, err = server.process.communicate(timeout=45)
    finally:
        kill_group(server.process)
    failed(Answer(server.process.returncode, out, err), 4, "Ray has died (this machine)")


@pytest.mark.slow
def test_server_listens_on_loopback_alone(server):
    """Serve's replicas listened on every interface, and ran what they were sent."""
    found = listeners(server.process.pid)
    assert [listener for listener in found if listener[1] not in LOOPBACK] == []
    assert any(name.startswith(REPLICA) for name, _ in found)


@pytest.mark.slow
def test_moved_alias_is_followed_unless_damaged(following, registered):
    """A moved alias is followed without a request lost, and a damaged version is not served."""
    place, versions, models = registered
    draws = {f"{NAME}/{number}": model.draw(16, 1) for number, model in enumerate(models, 1)}
    stop, answers = threading.Event(), []

    def keep_asking():
        while not stop.is_set():
            answers.append(following.ask("POST", "/samples", {"count": 16, "seed": 1}))

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        until(lambda: answers)
        ChampionHistory(Registry(place.uri), NAME).force(versions[1], "a test")
        until(lambda: json.loads(following.ask("GET", "/model")[2])["version"] == 2)
    finally:
        stop.set()
        thread.join()
    assert {status for status, _, _ in answers} == {200}
    for _, headers, content in answers:
        assert np.array_equal(np.load(io.BytesIO(content)), draws[headers["x-model"]])
    assert {headers["x-model"] for _, headers, _ in answers} >= {f"{NAME}/1"}
    damaged = files(place, versions[0]) / "generator.safetensors"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        ChampionHistory(Registry(place.uri), NAME).force(versions[0], "a test")
        until(lambda: f"still {NAME}/2" in following.process.stderr.readline())
        assert json.loads(following.ask("GET", "/model")[2])["version"] == 2
    finally:
        damaged.write_bytes(content)


@pytest.mark.slow
def test_ctrl_c_ends_it_as_asked(registered):
    place, _, _ = registered
    server = Server(place)
    try:
        assert server.said
        server.process.send_signal(signal.SIGINT)
        out, err = server.process.communicate()
    finally:
        kill_group(server.process)
    assert (server.process.returncode, out) == (0, ""), err
    assert "Traceback" not in err


def test_unloadable_model_is_refused_before_serving(registered, here):
    """What the loader refuses is refused before anything starts."""
    place, versions, _ = registered
    uri = ("--tracking-uri", place.uri)
    failed(here("serve", f"{NAME}@nobody", *uri), 5, "no such alias", "champion")
    failed(here("serve", "gan-else@champion", *uri), 5, "no such model")
    failed(here("serve", f"{NAME}/1", "--port", "0", *uri), 2)
    damaged = files(place, versions[0]) / "generator.safetensors"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        failed(here("serve", f"{NAME}/1", *uri), 4, "damaged checkpoint")
    finally:
        damaged.write_bytes(content)


def test_a_port_that_is_taken_is_refused(registered, here):
    place, _, _ = registered
    port = free_port()
    listener = subprocess.Popen([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        until(lambda: _listens(port))
        failed(here("serve", f"{NAME}/1", "--port", port, "--tracking-uri", place.uri), 2, "port is taken")
    finally:
        listener.kill()
        listener.wait()


def _listens(port):
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
