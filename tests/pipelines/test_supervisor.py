"""The parent of a command: what ends one from within has a line or begins anew; signals arrive once; nothing is left."""

import os
import pty
import shutil
import signal
import subprocess
import sys

import pytest

from pipelines.flow import Pipeline
from pipelines.runtime import supervisor
from pipelines.storage import Storage
from tests.pipelines.conftest import environment, failed, until
from tests.pipelines.test_outcome import end
from tests.pipelines.test_signals import descendants, part

# A command whose end is that of a driver of Ray's whose raylet has died, say.
SCRIPT = """
import os, signal, sys, time
import click
import pipelines.cli
from pipelines.runtime import supervisor
def it():
    print(supervisor.run_begun(lambda line: print(line, file=sys.stderr)), flush=True)
    {work}
pipelines.cli.cli.add_command(click.Command("it", params=[click.Option(["--json"], is_flag=True)], callback=lambda json: it()))
sys.argv = ["gan", "it", "--json"]
pipelines.cli.process()
"""


def start(work, tmp_path, *before):
    command = [*before, sys.executable, "-c", SCRIPT.format(work=work)]
    return subprocess.Popen(
        command, cwd=tmp_path, env=environment(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("work", "code", "words"),
    [
        ("os._exit(1)", 4, ("Ray has died (this machine)", "the same command again")),
        ("os.abort()", 134, ("ended (gan): by SIGABRT",)),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, ("ended (gan): by SIGKILL, as where memory runs out",)),
    ],
)
def test_an_end_from_within_has_a_line(work, code, words, tmp_path):
    """Ray ends its driver from C++ with exit code 1 and not a word, where that hands data to a dead raylet, for one."""
    failed(end(start(work, tmp_path)), code, *words)


@pytest.mark.parametrize("how", ["os._exit(1)", "os.abort()"])
def test_a_run_ended_from_within_begins_anew(how, tmp_path):
    """With its name, as often as there are restarts left, and with a line."""
    work = f"supervisor.times_begun_anew() == 2 or (supervisor.resumes('run-7'), {how})"
    answer = end(start(work, tmp_path))
    assert (answer.code, answer.out) == (0, "None\nrun-7\nrun-7\n")
    assert answer.err.count("the command has begun anew") == 2


def test_a_begun_run_is_said_and_gone_on_with(small, tmp_path, monkeypatch):
    """Once, under its own name, which the command may have been given: then nothing said that Ray had died."""
    for given in (None, "it"):
        monkeypatch.setenv(supervisor.RUN, "it")
        monkeypatch.setenv(supervisor.REASON, supervisor.SILENT)
        lines = list[str]()
        pipeline = Pipeline(Storage.at(tmp_path), lambda: f"sqlite:///{tmp_path}/mlflow.db", lines.append)
        assert pipeline.run(small, "small", name=given, dry_run=True).run.name == "it"
        assert lines[0] == f"ray    lost: {supervisor.SILENT}; the command has begun anew"
    assert pipeline.run(small, "small", dry_run=True).run.name != "it"


def test_what_fails_after_the_end_is_no_failure(tmp_path):
    """A Ray that was interrupted aborts the interpreter while it ends: the command's own end stays what it was."""
    answer = end(start("import atexit; atexit.register(os.abort)", tmp_path))
    assert (answer.code, answer.out, answer.err) == (0, "None\n", "")


WORK = """import contextlib
    with contextlib.suppress(SystemExit):
        print("ready", flush=True)
        time.sleep(300)
    time.sleep(1)
    print("saved", flush=True)
    sys.exit(143)"""


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_signal_arrives_once(whole_group, tmp_path):
    """The command's parent hands it on; sent to a whole group it was there twice, and would have interrupted the saving."""
    process = start(WORK, tmp_path)
    assert [process.stdout.readline() for _ in range(2)] == ["None\n", "ready\n"]
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
    answer = end(process, 60)
    assert (answer.code, answer.out.splitlines()[0]) == (143, "saved"), answer.err


def test_a_killed_parent_leaves_nothing(tmp_path):
    process = start("time.sleep(300)", tmp_path)
    assert process.stdout.readline() == "None\n"
    ((child, _),) = descendants(process.pid)
    process.kill()
    until(lambda: not os.path.exists(f"/proc/{child}/fd/1"), 5)
    end(process, 60)


@pytest.fixture
def namespace():
    """A command that runs another as process 1, as in a container."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no namespace can be made here")
    return command


def test_process_1_of_a_container_hears_and_reaps(namespace, tmp_path):
    """Orphans have it as their parent, and a signal without a handler never arrives at it."""
    work = """if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.5)
        os._exit(0)
    os.wait()
    time.sleep(1)
    print(os.getppid(), sum(open(f"/proc/{n}/stat").read().split(")")[1].split()[0] == "Z" for n in os.listdir("/proc") if n.isdigit()), flush=True)
    time.sleep(300)"""
    process = start(work, tmp_path, *namespace)
    assert [process.stdout.readline() for _ in range(2)] == ["None\n", "1 0\n"]
    until(lambda: len(descendants(process.pid)) == 2)
    first, _ = min(descendants(process.pid))
    os.kill(first, signal.SIGTERM)
    answer = end(process, 60)
    failed(answer, 143, "preempted (gan): by SIGTERM")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dead_raylet_in_a_container_is_survived(namespace, small_yaml, tmp_path):
    """Ray takes a driver whose parent is process 1 for an orphan at the first answer that fails, and ends it with 1."""
    words = ["train", small_yaml, "--name", "it", "--storage", "st", "--json", "--set", "algorithm.steps=5000"]
    process = subprocess.Popen(
        [*namespace, sys.executable, "-m", "pipelines.cli", *map(str, words)], cwd=tmp_path, env=environment(),
        text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until(lambda: list((tmp_path / "st" / "runs" / "it").glob("history/*.jsonl")) or process.poll() is not None)
    os.kill(part(process, "raylet"), signal.SIGKILL)
    answer = end(process)
    assert answer.code == 0, answer.err
    assert answer.json["step"] == 5000
    assert "ray    lost: its raylet was ended by SIGKILL; it is started anew" in answer.err


def test_a_closed_terminal_ends_the_command(tmp_path):
    """The kernel tells the session's leader alone, which is the parent: the command has its SIGHUP from it."""
    told = tmp_path / "told"
    work = f"""import contextlib, pathlib
    told = pathlib.Path({str(told)!r})
    told.write_text("ready")
    with contextlib.suppress(SystemExit):
        time.sleep(300)
    told.write_text("saved")
    sys.exit(129)"""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-c", SCRIPT.format(work=work)], environment())
    until(lambda: told.exists() and told.read_text() == "ready")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert told.read_text() == "saved"


def test_a_command_that_is_asked_to_end_begins_no_more_anew(tmp_path):
    """A scheduler signals the raylet too, and Ray ends its driver from C++: the code is the signal's all the same."""
    work = """supervisor.resumes('run-7')
    signal.signal(signal.SIGTERM, lambda *how: os._exit(1))
    print("ready", flush=True)
    time.sleep(300)"""
    process = start(work, tmp_path)
    assert [process.stdout.readline() for _ in range(2)] == ["None\n", "ready\n"]
    process.terminate()
    failed(end(process), 143, "ended (gan): by SIGTERM")
