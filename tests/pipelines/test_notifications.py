"""Who is told of a run's end: a real command and a real server, and what their failures change, which is nothing."""

import http.server
import json
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.config import NotifySettings
from pipelines.runs.run import Run
from pipelines.runtime import notifications
from pipelines.storage import Storage, checkpoint_names
from tests.conftest import free_port
from tests.pipelines.conftest import gan, kill_group, start_gan, until

KEEP = "cat > told.json"
FAILED = {"stage": "train", "exit_code": 4, "error": "it broke"}


class Server(http.server.ThreadingHTTPServer):
    """A server that keeps what it is told, and answers with a status, or a byte a second for ever."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.told, self.status, self.drip = [], 200, False

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/hook/of-the-team"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append((self.path, dict(self.headers), json.loads(content)))
        while self.server.drip:
            self.wfile.write(b"H")
            time.sleep(0.1)
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.drip = False
        made.shutdown()


def tell(failed=FAILED, **settings):
    """What is said about the telling, and the seconds it took."""
    said, started = [], time.monotonic()
    progress = notifications.ActiveRun("night", "/runs")
    notifications.notify(NotifySettings(**settings), "failed", progress, said.append, **failed)
    return said, time.monotonic() - started


def run_that_fails(here, small_yaml, *more):
    """A night whose images are gone."""
    images = ("--set", "data.name=images", "--set", "data.root=gone")
    return here("run", small_yaml, "--name", "night", "--storage", "runs", *images, *more)


# What is told


def test_command_and_webhook_are_told_of_a_failure(here, small_yaml, server, monkeypatch):
    """A command and an address are told of a failed run; a secret travels by its variable's name."""
    monkeypatch.setenv("GAN_TEST_TOKEN", "a-value-nobody-sees")
    before = time.time()
    answer = run_that_fails(
        here, small_yaml, "--set", f"notify.command=[sh, -c, '{KEEP}']", "--set", f"notify.webhook={server.address}",
        "--set", "notify.token_variable=GAN_TEST_TOKEN",
    )  # fmt: skip
    assert answer.code == 3
    assert answer.error.startswith("error: no images (gone)")
    told = json.loads(Path("told.json").read_text())
    [(path, headers, posted)] = server.told
    assert posted == told
    assert (path, headers["Authorization"]) == ("/hook/of-the-team", "Bearer a-value-nobody-sees")
    assert headers["Content-Type"] == "application/json"
    when = time.mktime(time.strptime(told.pop("time"), "%Y-%m-%dT%H:%M:%S+00:00")) - time.timezone
    assert before - 1 <= when <= time.time()
    error = answer.error.removeprefix("error: ")
    assert told == {
        "event": "failed", "run": "night", "storage": str(Path("runs").absolute()), "host": socket.gethostname(),
        "stage": "start", "exit_code": 3, "error": error, "text": f"night failed in start (exit code 3): {error}",
    }  # fmt: skip
    assert "a-value-nobody-sees" not in answer.err + json.dumps(told)


def test_secret_webhook_in_a_variable_is_never_shown(here, small_yaml, server, monkeypatch):
    """An address that is itself a secret is in a variable and never shown, not even when it refuses."""
    monkeypatch.setenv("GAN_TEST_HOOK", server.address)
    server.status = 500
    answer = run_that_fails(here, small_yaml, "--set", "notify.webhook_variable=GAN_TEST_HOOK")
    assert len(server.told) == 1
    assert "notify webhook: not told of the run's end, it answered 500" in answer.err
    assert "of-the-team" not in answer.err + answer.out


def test_dry_run_and_unrequested_event_are_not_sent(here, small_yaml):
    """A dry run, and an event that was not asked for, are told to nobody."""
    command = ("--set", f"notify.command=[sh, -c, '{KEEP}']")
    assert run_that_fails(here, small_yaml, *command, "--dry-run").code == 3
    assert run_that_fails(here, small_yaml, *command, "--set", "notify.events=[promoted]").code == 3
    assert not Path("told.json").exists()


# What goes wrong with it


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("gan-no-such-program",), "gan-no-such-program cannot be started: No such file or directory"),
        (("sh", "-c", "echo no mail here >&2; exit 3"), "sh ended with exit code 3: no mail here"),
        (("false",), "false ended with exit code 1: it said nothing"),
        (("sleep", "600"), "sleep was not done after 0.5 s"),
        (("sh", "-c", "trap '' TERM; sleep 600 & wait"), "sh was not done after 0.5 s"),
    ],
)
def test_failing_or_hanging_command_is_one_line(command, words):
    """A command that fails or hangs is one line in bounded time."""
    said, seconds = tell(command=command, timeout_s=0.5)
    assert said == [f"notify command: not told of the run's end, {words}"]
    assert seconds < 30


def test_command_leaving_a_process_does_not_block():
    """A command that leaves something running, or reads nothing of what it is told, keeps nobody waiting."""
    said, seconds = tell(command=("sh", "-c", "sleep 60 & exit 0"), failed={**FAILED, "error": "x" * 10**6})
    assert said == []
    assert seconds < 30


@pytest.mark.parametrize(
    ("status", "drip", "words"),
    [
        (500, False, "it answered 500"),
        (403, False, "it answered 403"),
        (302, False, "it answered 302"),  # what is told goes nowhere else
        (200, True, "it did not answer within 1 s"),
    ],
)
def test_refusing_or_hanging_webhook_is_one_line(server, status, drip, words):
    """An address that refuses, redirects or hangs is one line in bounded time."""
    server.status, server.drip = status, drip
    said, seconds = tell(webhook=server.address, timeout_s=1.0)
    assert said == [f"notify webhook: not told of the run's end, {words}"]
    assert seconds < 30
    assert len(server.told) == 1


def test_dead_webhook_and_unset_variable_are_one_line(monkeypatch):
    """Nobody at an address, and a variable that is not set, are one line each."""
    monkeypatch.delenv("GAN_TEST_TOKEN", raising=False)
    said, _ = tell(webhook=f"http://127.0.0.1:{free_port()}/of-the-team")
    assert said == ["notify webhook: not told of the run's end, it did not answer: ConnectionError"]
    said, _ = tell(webhook="http://127.0.0.1:1", token_variable="GAN_TEST_TOKEN")
    assert said == ["notify webhook: not told of the run's end, GAN_TEST_TOKEN is not set"]


def test_failed_notification_keeps_code_and_last_line(here, small_yaml):
    """A failed notification changes neither the exit code nor the last line, and is said in quiet too."""
    alone = run_that_fails(here, small_yaml)
    for command in ("[gan-no-such-program]", "[sleep, '60']"):
        more = ("--set", f"notify.command={command}", "--set", "notify.timeout_s=0.5", "-q")
        answer = run_that_fails(here, small_yaml, *more)
        assert (answer.code, answer.error) == (alone.code, alone.error)
        assert sum("not told" in line for line in answer.err.splitlines()) == 1


def test_notification_problems_are_said_in_a_dry_run(here, small_yaml, registry_uri, monkeypatch):
    """What would be in the way of a notification is said before the night, by a dry run."""
    monkeypatch.delenv("GAN_TEST_TOKEN", raising=False)
    answer = here(
        "run", small_yaml, "--storage", "runs", "--tracking-uri", registry_uri, "--dry-run",
        "--set", "notify.command=[gan-no-such-program]", "--set", "notify.token_variable=GAN_TEST_TOKEN",
        "--set", "notify.webhook=http://127.0.0.1:1",
    )  # fmt: skip
    assert answer.code == 0
    assert "notify webhook: GAN_TEST_TOKEN is not set: nobody would be told" in answer.err
    assert "notify command: no program gan-no-such-program: nobody would be told" in answer.err


# What it is not


def test_notification_is_no_part_of_a_runs_identity(small_yaml, tmp_path):
    """Who is told is no part of what a run is: name and digest stay the same."""
    storage, small = Storage.at(tmp_path), config.load(small_yaml)
    first = Run.create(small, "small", None, storage)
    first.save()
    told = config.load(small_yaml, ["notify.command=['true']", "notify.events=[failed, promoted]"])
    again = Run.create(told, "small", None, storage)  # not a run of another configuration
    assert (again.name, again.config_digest) == (first.name, first.config_digest)
    assert again.configuration.notify.command == ("true",)
    assert Run.create(config.override(small, {"noise.size": 9}), "small", None, storage).name != first.name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"events": []}, "notify.events is empty"),
        ({"events": ["finished"]}, "finished"),
        ({"command": [""]}, "does not name a program"),
        ({"command": "true"}, "the text 'true'"),
        ({"webhook": "ftp://host/x"}, "not an address"),
        ({"webhook": "https://me:secret@host/x"}, "holds a password"),
        ({"webhook": "https://host", "webhook_variable": "HOOK"}, "use one of them"),
        ({"token_variable": "a token of mine"}, "not the name of an environment variable"),
        ({"timeout_s": 0.0}, "not in"),
    ],
)
def test_bad_notify_settings_are_refused_without_secrets(values, words):
    """Settings that cannot be are refused, and secrets in them are not shown."""
    with pytest.raises(ConfigurationError, match=words) as refused:
        config.build({"notify": values})
    assert "secret" not in str(refused.value)
    assert "a token of mine" not in str(refused.value)


@pytest.mark.slow
def test_sigterm_and_promotion_are_told_ctrl_c_is_not(small_yaml, tmp_path):
    """Ctrl-C is told to nobody, SIGTERM once, and so is a new champion; a run done already is no news."""
    told = tmp_path / "told"  # a line for each telling
    command = (
        "run", small_yaml, "--name", "it", "--storage", tmp_path / "st", "--set", "tune.candidates=0",
        "--set", "algorithm.steps=4000", "--set", "train.workers=1", "--set", "train.virtual_shards=1",
        "--set", f"notify.command=[sh, -c, 'cat >> {told}; echo >> {told}']",
    )  # fmt: skip
    every = ("--set", "notify.events=[failed, preempted, promoted]")
    folder = Storage.at(tmp_path / "st" / "runs" / "it" / "checkpoints")

    def news():
        """What was told since this was last asked."""
        lines = told.read_text().splitlines() if told.exists() else []
        told.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def stopped(number, *more):
        before = checkpoint_names(folder)
        process = start_gan(*command, *more, cwd=tmp_path)
        try:
            until(lambda: set(checkpoint_names(folder)) - set(before) or process.poll() is not None)
            process.send_signal(number)
            _, err = process.communicate()
        finally:
            kill_group(process)
        return process.returncode, err

    code, err = stopped(signal.SIGINT, *every)
    assert (code, err.splitlines()[-1]) == (130, "error: interrupted (gan): by the user; the same command resumes")
    assert "is saved, the same command resumes" in err
    assert news() == []
    code, _ = stopped(signal.SIGTERM)
    assert code == 143
    assert news() == []  # it was not asked for
    code, _ = stopped(signal.SIGTERM, *every)
    assert code == 143
    [known] = news()
    assert {key: known[key] for key in ("event", "run", "stage", "exit_code")} == {
        "event": "preempted", "run": "it", "stage": "train", "exit_code": 143,
    }  # fmt: skip
    assert known["text"].startswith("it preempted in train (exit code 143)")
    answer = gan(*command, "--json", *every, cwd=tmp_path)
    assert answer.code == 0, answer.err
    [known] = news()
    assert {key: known[key] for key in ("event", "model", "version", "reason", "log_likelihood")} == {
        "event": "promoted", "model": "gan-small", "version": 1, "reason": answer.json["reason"],
        "log_likelihood": answer.json["log_likelihood"],
    }  # fmt: skip
    assert gan(*command, "--json", *every, cwd=tmp_path).code == 0  # it was done already: no news
    assert news() == []
