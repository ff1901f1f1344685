"""Each end has its cause, its line and its code: a full disk, Ctrl-C, a signal that is lost or that nothing hears."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
import ray
import torch

from pipelines.cli import cli
from tests.pipelines.conftest import Answer, environment, failed, kill_group, until

GAN = ("-m", "pipelines.cli")
ROOM = 4 * 2**20  # bytes of a disk, of which the nets of these tests take a part


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
        (MemoryError("7 GiB"), 4, ("out of memory (gan): 7 GiB",)),
        (ray.exceptions.OutOfMemoryError("4 workers were killed"), 4, ("out of memory (gan): 4 workers",)),
        (torch.OutOfMemoryError("CUDA"), 4, ("out of memory (gan): CUDA",)),
    ],
)
def test_only_ctrl_c_is_ctrl_c(error, code, words, here, monkeypatch):
    """Errors of others have their codes and lines. Click takes any EOFError for Ctrl-C, and ends without a word on any broken pipe."""

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


# The same command twice on one disk, which is full when the first of them ends, and has room before the second.
TWICE = """"$@"; echo "ended $?"; rm "$FILLER"; exec "$@\""""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_full_disk_in_a_training_ends_it_once(small_yaml, disk, tmp_path):
    """It was tried again `train.max_failures` times first; with room again the same command finishes."""
    folder, within = disk
    words = ["train", small_yaml, "--name", "it", "--storage", folder, "--json"]
    settings = ("algorithm.steps=3000", "train.checkpoint_every=20", "train.report_every=20", "train.max_failures=99")
    command = [sys.executable, *GAN, *map(str, words), *(word for pair in settings for word in ("--set", pair))]
    process = subprocess.Popen(
        [*within, "sh", "-c", TWICE, "sh", *command], cwd=tmp_path, env=environment(FILLER=str(folder / "filler")),
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    seen = Path(f"/proc/{process.pid}/root{folder}")
    until(lambda: list(seen.glob("runs/it/checkpoints/step=*")) or process.poll() is not None)
    with pytest.raises(OSError, match="No space left"):
        (seen / "filler").write_bytes(bytes(ROOM))
    answer = end(process)
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, answer.err
    assert re.match(r"error: storage refused .*: No space left on device; [\d,]+ bytes wanted", errors[0])
    assert "ended 4\n" in answer.out
    assert answer.code == 0, answer.err
    assert answer.json["step"] == 3000


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


@pytest.mark.parametrize("read", [True, False])
def test_work_that_goes_on_is_ended_in_time(read, tmp_path):
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
        if read:
            process.send_signal(signal.SIGTERM)
            assert process.stderr.read() == "error: preempted (gan): by SIGTERM; the same command resumes\n"
        else:
            process.stderr.close()
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        process.kill()
        process.communicate()


def test_nohup_is_left_alone(tmp_path):
    """A command that is to outlive its terminal ignores SIGHUP, as it was started."""
    code = (
        "import click, os, signal, sys, pipelines.cli as c; "
        "c.cli.add_command(click.Command('it', callback=lambda: signal.raise_signal(signal.SIGHUP))); "
        "sys.argv = ['gan', 'it']; c.process()"
    )
    command = ["nohup", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True).returncode == 0
