"""Each end has its cause, its line and its code: a full disk, SIGTERM and Ctrl-C while Ray starts, a Ray that has died."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from pipelines.cli import cli
from tests.pipelines.conftest import Answer, environment, failed, kill_group, start_gan, until

GAN = ("-m", "pipelines.cli")
ROOM = 4 * 2**20  # bytes of a disk, of which the nets of these tests take a part


def descendants(pid):
    """The processes a process has started, and those that they have: number and program."""
    started = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            program, parent = stat.read_text().rpartition(")")[0].partition("(")[2], stat.read_text().rpartition(")")[2]
        except OSError:
            continue
        started.setdefault(int(parent.split()[1]), []).append((int(stat.parent.name), program))
    found, todo = [], [pid]
    while todo:
        children = started.get(todo.pop(), [])
        found += children
        todo += [number for number, _ in children]
    return found


def part(process, program):
    """The number of Ray's own process of this name, once it is there."""
    running = lambda: [number for number, name in descendants(process.pid) if name == program]  # noqa: E731
    return until(lambda: running() or (process.poll() is not None and ["ended"]))[0]


def end(process, timeout=240):
    """How a command ends that has been disturbed, and is not disturbed again."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        kill_group(process)
    return Answer(process.returncode, out, err)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (EOFError("Ran out of input"), 1, ("unexpected EOFError", "Ran out of input")),
        (BrokenPipeError(32, "Broken pipe"), 1, ("unexpected BrokenPipeError",)),
        (KeyboardInterrupt(), 130, ("interrupted (gan): by the user",)),
    ],
)
def test_only_ctrl_c_is_ctrl_c(error, code, words, here, monkeypatch):
    """Click takes any EOFError for Ctrl-C, and ends without a word on any broken pipe."""

    def broken():
        raise error

    monkeypatch.setitem(cli.commands, "broken", click.Command("broken", callback=broken))
    with open(os.devnull, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        answer = here("broken")
    assert answer.code == code
    assert all(word in answer.error for word in words), answer.error


def test_a_reader_that_has_left_is_no_error(small_yaml, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        command = [sys.executable, *GAN, "runs", "--json", "-q"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), stdout=output, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def disk(tmp_path):
    """A command that runs another with a small disk mounted on a folder, in a namespace of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={ROOM} none {folder}"
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, mount], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    return folder, [*unshare, f'{mount} && exec "$@"', "sh"]


@pytest.mark.timeout(600)
def test_full_disk_in_a_search_is_reported(small_yaml, disk, tmp_path):
    """A disk that fills up in a search is said so; it was 26 tracebacks, as Ray Tune ends with an EOFError."""
    folder, within = disk
    words = ["tune", small_yaml, "--name", "it", "--storage", folder, "--json", "--set", "tune.candidates=12"]
    process = subprocess.Popen(
        [*within, sys.executable, *GAN, *map(str, words)], cwd=tmp_path, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    seen = Path(f"/proc/{process.pid}/root{folder}")  # as the command sees it
    until(lambda: list(seen.glob("runs/it/tune/findings/*/*.jsonl")) or process.poll() is not None)
    with pytest.raises(OSError, match="No space left"):
        (seen / "filler").write_bytes(bytes(ROOM))
    failed(end(process), 4, "disk full", f"({folder}/runs/it)", "bytes free", "for checkpoints")


# A database on a disk that fills up, and has room again.
DATABASE = """
import sys
from pathlib import Path
from gan_core.errors import RegistryError
from pipelines.registry import Registry
from pipelines.registry.tracking import Tracking
from pipelines.storage import Storage
folder, filler = Path(sys.argv[1]), Path(sys.argv[1]) / "filler"
registry = Registry(f"sqlite:///{folder}/mlflow.db", create=True)
try:
    filler.write_bytes(bytes(int(sys.argv[2])))
except OSError:
    pass
def track():
    return Tracking(registry.backend, "gan-full", "it", Storage.at(folder)).parent
try:
    track()
except RegistryError as error:
    print(error)
filler.unlink()
print(track() == track() != "")
"""


def test_full_disk_under_the_database_is_one_line(disk, tmp_path):
    """Ours: before it came pages of SQLAlchemy's. With room again, the same goes on."""
    folder, within = disk
    command = [*within, sys.executable, "-c", DATABASE, str(folder), str(ROOM)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    line, again = done.stdout.splitlines()
    assert line.startswith(f"MLflow refused (sqlite:///{folder}/mlflow.db)")
    assert "disk is full" in line
    assert (again, done.stderr) == ("True", "")


SIGNALS = [
    (sign, moment)
    for sign in (signal.SIGTERM, signal.SIGINT)
    for moment in ("before", "gcs_server", "raylet", "ray::IDLE")
]  # fmt: skip


@pytest.mark.parametrize(
    ("sign", "moment"),
    [pytest.param(*case, marks=() if case[1] in ("gcs_server", "ray::IDLE") else pytest.mark.slow) for case in SIGNALS],
)
def test_signal_while_ray_starts_has_its_own_line(sign, moment, small_yaml, tmp_path):
    """Ray has a handler of its own while it starts: exit code 15, no line; and what it leaves half made aborts."""
    process = start_gan("train", small_yaml, "--name", "it", "--storage", "st", "--json", cwd=tmp_path)
    until(lambda: (tmp_path / "st" / "runs" / "it" / "run.json").exists() or process.poll() is not None)
    if moment != "before":
        part(process, moment)
    os.kill(process.pid, sign)
    code, line = {
        signal.SIGTERM: (143, "error: preempted (gan): by SIGTERM; the same command resumes"),
        signal.SIGINT: (130, "error: interrupted (gan): by the user; the same command resumes"),
    }[sign]
    answer = end(process)
    failed(answer, code)
    assert answer.error == line


LOST = {
    "fork": "os.register_at_fork(after_in_parent=arrives); os.fork() or os._exit(0)",
    "finalizer": "type('Closed', (), {'__del__': arrives})()",
}


@pytest.mark.parametrize("callback", LOST)
@pytest.mark.parametrize(("sign", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_signal_lost_in_a_callback_ends_the_command(callback, sign, code, tmp_path):
    """Python ignores what is raised in a callback: a Ctrl-C there was forgotten, and the command ended with 0."""
    script = f"""
import os, signal, sys, time
import click
import pipelines.cli
def arrives(*_):
    signal.raise_signal(signal.{sign})
def wait():
    {LOST[callback]}
    time.sleep(300)
    print("was never interrupted")
pipelines.cli.cli.add_command(click.Command("wait", callback=wait))
sys.argv = ["gan", "wait"]
pipelines.cli.process()
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr  # click ends the terminal's ^C with a newline


def test_work_that_goes_on_is_ended_in_time(tmp_path):
    """A signal is heard between two steps of Python: what is in C, or waits, or hides it, kept the command for minutes."""
    script = """
import sys, time
import click
import pipelines.cli
from pipelines.runtime import exit_codes
exit_codes.LEAVE_SECONDS = 1.0
def wait():
    exit_codes.bound_the_end()
    print("ready", flush=True)
    while True:
        try:
            time.sleep(60)
        except SystemExit:
            pass
pipelines.cli.cli.add_command(click.Command("wait", callback=wait))
sys.argv = ["gan", "wait"]
pipelines.cli.process()
"""
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (143, "error: preempted (gan): by SIGTERM; the same command resumes\n")


def test_nohup_is_left_alone(tmp_path):
    """A command that is to outlive its terminal ignores SIGHUP, as it was started."""
    code = (
        "import click, os, signal, sys, pipelines.cli as c; "
        "c.cli.add_command(click.Command('it', callback=lambda: signal.raise_signal(signal.SIGHUP))); "
        "sys.argv = ['gan', 'it']; c.process()"
    )
    command = ["nohup", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True).returncode == 0


STAGES = {
    "search": ("tune", "tune/findings/*/*.jsonl", "tune.candidates=12"),
    "training": ("train", "history/*.jsonl", "algorithm.steps=5000"),
    "evaluation": ("run", "records/train.json", "tune.candidates=0"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sign", "code", "stage", "kept"),
    [
        (signal.SIGHUP, 129, "search", "tune   stopped; "),
        (signal.SIGTERM, 143, "training", "train  stopped; step "),
        (signal.SIGINT, 130, "evaluation", "evaluate stopped; train is done before it"),
        (signal.SIGKILL, -9, "evaluation", ""),
    ],
)
def test_a_signal_in_any_stage_leaves_nothing(sign, code, stage, kept, small_yaml, tmp_path):
    """A command ended 11 to 35 s after a signal, often without a line, and its workers up to 29 s after it."""
    command, happened, setting = STAGES[stage]
    words = (
        command,
        small_yaml,
        "--name",
        "it",
        "--storage",
        "st",
        "--set",
        setting,
        "--set",
        "evaluate.samples=20000",
    )
    process = start_gan(*words, cwd=tmp_path)
    until(lambda: list((tmp_path / "st" / "runs" / "it").glob(happened)) or process.poll() is not None)
    part(process, "raylet")
    started = [f"/proc/{number}/fd/1" for number, _ in descendants(process.pid)]
    os.kill(process.pid, sign)
    at = time.monotonic()
    answer = end(process)
    assert answer.code == code, answer.err
    assert kept in answer.err
    assert time.monotonic() - at < 30  # ten, on a machine that does nothing else
    until(lambda: not any(map(os.path.exists, started)), 5)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("program", "stage"),
    [
        ("raylet", "training"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [
            ("gcs_server", "search"), ("raylet", "search"), ("gcs_server", "training"), ("gcs_server", "evaluation"),
            ("raylet", "evaluation"),
        ]),
    ],
)  # fmt: skip
def test_a_dead_ray_is_started_anew(program, stage, small_yaml, tmp_path):
    """A Ray that has died is started anew; by itself Ray ends its driver with exit code 1 and no line."""
    command, happened, setting = STAGES[stage]
    words = (command, small_yaml, "--name", "it", "--storage", "st", "--json", "--set", setting)
    process = start_gan(*words, cwd=tmp_path)
    folder = tmp_path / "st" / "runs" / "it"
    until(lambda: list(folder.glob(happened)) or process.poll() is not None)
    os.kill(part(process, program), signal.SIGKILL)
    answer = end(process)
    assert answer.code == 0, answer.err
    lost = f"ray    lost: its {program} was ended by SIGKILL; "
    said = [line.removeprefix(lost) for line in answer.err.splitlines() if line.startswith(lost)]
    assert said[-1] in ("it is started anew", "the command begins anew"), answer.err
    assert len(answer.out.splitlines()) == 1  # the result alone
