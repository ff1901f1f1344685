"""What a command says and where: results on stdout, progress and notes on stderr, a failure for programs too."""

import json
import re
import signal
import subprocess
import sys

import pytest

from pipelines.registry import Registry
from pipelines.runs import status
from tests.pipelines.conftest import failed, gan, kill_group, start_gan, until
from tests.pipelines.test_tracking import closed_port

# Commands that need nothing but the finished run, and words of what each has to tell. YAML stands for its configuration.
RESULTS = [
    ("models", "gan-small/1"),
    ("models show gan-small@champion", "log_likelihood"),
    ("models history gan-small", "first version to pass the gate"),
    ("models compare gan-small/1 gan-small/1", "not better"),
    ("models watch gan-small@champion --once", "gan-small/1"),
    ("models promote gan-small/1", "gan-small/1 is"),
    ("models prune gan-small", "nothing to prune"),
    ("runs", "small-run"),
    ("runs status small-run", "state              done"),
    ("runs status small-run", "stages             tune, train, evaluate, register, report\n"),
    ("runs compare small-run small-run", "log_likelihood"),
    ("runs stop small-run", "was not running"),
    ("runs prune --keep 0", "kept: its version holds an alias"),
    ("table table1 small-run", "| small-run"),
    ("table table2", "| "),
    ("evaluate small-run", "nats at sigma"),
    ("evaluate small-run gan-small/1", "small-run\npaper "),
    ("classify small-run --labels 20 --draws 1", "D untrained"),
    ("sample small-run --output grid.png", "wrote grid.png"),
    ("figure fig2 small-run --output fig2.png", "wrote fig2.png"),
    ("run YAML --name small-run", "gan-small/1 is champion"),
    ("run YAML --name other --dry-run", "would do tune, train"),
    ("report small-run", "was done already"),
    ("submit YAML --name n --address http://127.0.0.1:1 --dry-run", "would submit"),
    ("doctor", "ok    torch "),
]


@pytest.fixture
def ask(finished, here):
    """A command line of words, on the finished run."""
    return lambda words, *more: here(
        *(str(finished.yaml) if word == "YAML" else word for word in words.split()),
        "--storage",
        finished.storage,
        *more,
    )


@pytest.mark.parametrize(("words", "told"), RESULTS, ids=[words for words, _ in RESULTS])
def test_result_is_on_stdout_in_every_mode(words, told, ask):
    """A result is on stdout, for people, in quiet and for programs, where it is one JSON object."""
    spoken = ask(words)
    assert (spoken.code, told in spoken.out) == (0, True), spoken
    assert told not in spoken.err
    quiet = ask(words, "-q")
    assert (quiet.code, told in quiet.out, quiet.err) == (0, True, "")
    for_programs = ask(words, "-q", "--json")
    assert (for_programs.code, for_programs.err) == (0, "")
    (line,) = for_programs.out.splitlines()
    assert isinstance(json.loads(line), dict)


def test_init_says_what_it_wrote_on_stdout(here):
    assert here("init", "--output", "new/gan.yaml").out == "wrote new/gan.yaml; next: gan run new/gan.yaml\n"


def test_numbers_of_a_version_are_rounded_for_people(ask):
    """`gan models show` prints six digits of what the object of --json has in full."""
    whole = ask("models show gan-small/1 --json").json["tags"]
    shown = {
        key: value
        for key, _, value in (row.strip().partition(" ") for row in ask("models show gan-small/1").out.splitlines())
    }
    long = {key: value for key, value in whole.items() if re.fullmatch(r"-?\d+\.\d{5,}", value)}
    assert long
    for key, value in long.items():
        assert len(shown[key].strip().replace(".", "").lstrip("-0")) <= 6, shown[key]
        assert float(shown[key]) == pytest.approx(float(value), rel=1e-5)


def test_an_empty_list_is_no_line_of_stdout(registry_uri, here):
    Registry(registry_uri).backend.client.create_registered_model("empty")
    for command, note in ((("models",), "no registered models"), (("models", "history", "empty"), "no champion yet")):
        answer = here(*command, "--tracking-uri", registry_uri)
        assert (answer.code, answer.out, note in answer.err) == (0, "", True), answer
    answer = here("runs", "--storage", "st")
    assert (answer.code, answer.out, "no runs in" in answer.err) == (0, "", True)


def test_a_reader_that_has_gone_is_no_failure(finished, tmp_path):
    command = (
        f"{sys.executable} -m pipelines.cli models --storage {finished.storage} 2> err | true; echo ${{PIPESTATUS[0]}}"
    )
    code = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True).stdout
    assert (code, (tmp_path / "err").read_text()) == ("0\n", "")


# With --json, a failure is an object too: `failed` compares it with the line on stderr and the exit code


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("modles", 2, "No such command"),
        ("runs status", 2, "Missing argument"),
        ("run none.yaml", 2, "unreadable configuration"),
        ("run YAML --set data.name=mnist --set data.root=nowhere --set data.download=false", 3, "MNIST/raw"),
        ("run YAML --storage /proc/nowhere", 4, "/proc/nowhere"),
        ("models --tracking-uri CLOSED", 5, "MLflow refused"),
    ],
)
def test_failure_is_one_object_with_line_and_code(words, code, told, finished, here):
    """With --json a failure is one object with its line and exit code."""
    meant = {"YAML": str(finished.yaml), "CLOSED": f"http://127.0.0.1:{closed_port()}"}
    answer = here(*(meant.get(word, word) for word in words.split()), "--json")
    failed(answer, code, told)
    assert set(answer.json) == {"error", "exit_code"}


def test_what_nobody_expected_is_an_object_with_code_1(ask, monkeypatch):
    monkeypatch.setattr(status, "status", lambda run: 1 / 0)
    answer = ask("runs", "--json")
    failed(answer, 1, "unexpected ZeroDivisionError")
    assert answer.json["exit_code"] == 1


def test_a_result_that_is_a_failure_is_one_object(tmp_path, here):
    answer = here("doctor", "--storage", "/proc/nowhere", "--json")
    failed(answer, 2, "not ready (gan doctor): storage")
    assert len(answer.out.splitlines()) == 1
    assert set(answer.json) == {"verdict", "findings", "error", "exit_code"}


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGTERM, 143, "preempted"), (signal.SIGINT, 130, "interrupted"), (signal.SIGHUP, 129, "hung up")],
)
def test_ended_command_says_so_in_an_object(number, code, told, tmp_path):
    """With --json a command ended by SIGTERM, SIGINT or SIGHUP says so in one object, with code 143, 130 or 129."""
    process = start_gan("figure", "fig1", "--output", "fig1.png", "--json", cwd=tmp_path)
    try:
        until(lambda: "play" in process.stderr.readline())
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    finally:
        kill_group(process)
    assert process.returncode == code, err
    (line,) = out.splitlines()
    assert json.loads(line) == {"error": err.splitlines()[-1].removeprefix("error: "), "exit_code": code}
    assert told in line


def test_a_failure_that_nobody_reads_keeps_its_code(tmp_path):
    command = f"{sys.executable} -m pipelines.cli run none.yaml --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unreadable configuration")
    assert len(done.stderr.splitlines()) == 1
    assert gan("run", "none.yaml", "--json", cwd=tmp_path).json["exit_code"] == 2
