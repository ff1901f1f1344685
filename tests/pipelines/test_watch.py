"""A run seen as it goes on: what its files say of it, how long it still takes, how a terminal shows it."""

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

import pytest

from pipelines import config
from pipelines.cli.live_display import LiveDisplay
from pipelines.cli.terminal import wrapped
from pipelines.reporting.live_panel import thumbnails
from pipelines.runs import run_lease, time_left
from pipelines.runs.observation import RunObserver
from pipelines.runs.recorded_run import RecordedRun
from pipelines.runs.run import Run
from pipelines.storage import Storage, run_layout
from pipelines.storage.metric_log import append_history
from tests.pipelines.conftest import environment, until

LIVE = {
    "step": 120, "value": -1.2, "discriminator_loss": 1.2, "generator_loss": 0.9, "real_accuracy": 0.7,
    "fake_accuracy": 0.6, "steps_per_second": 40.0, "images_per_second": 4000.0,
}  # fmt: skip
COLUMNS = 80


def searched(place, small):
    """A run of which two candidates have one score each."""
    run = Run.create(config.override(small, {"algorithm.steps": 200}), "x", "seen", Storage.at(place))
    run.save()
    for candidate, score in enumerate((-5.0, 7.0)):
        segment = run.folder.child(run_layout.TUNE, run_layout.RESULTS, f"candidate-{candidate}")
        segment.write_json(run_layout.SEGMENT, {"job": {"candidate": candidate, "seed": 0}, "origin": None})
        scores = {"log_likelihood": score, "standard_error": 1.0, "coverage": 0.5}
        append_history(segment, [{"step": 20, "status": "finite", **scores, "seconds": 2.0}])
    return run


def in_training(run):
    """The same run while it trains: its search is done, and rank 0 has reported."""
    record = {
        "chosen": {}, "candidate": 1, "log_likelihood": 7.0, "coverage": 0.5, "candidates": 2, "diverged": 0,
        "failed": 0, "seconds": 12.0,
    }  # fmt: skip
    run.folder.write_json(run_layout.record("tune"), {"inputs": "x", "record": record})
    run.folder.write_json(run_layout.LIVE, LIVE)
    return run


@pytest.fixture(params=["disk", "store"])
def run(request, small, tmp_path):
    """A searched run, on a disk and on an object store."""
    return searched(tmp_path / "st" if request.param == "disk" else f"fsspec+memory:///{tmp_path.name}", small)


@pytest.fixture
def trained(run):
    return in_training(run)


@pytest.fixture
def local(small, tmp_path):
    """A run that trains, on a disk: a store is in this process's memory."""
    return in_training(searched(tmp_path / "st", small))


def test_a_run_is_seen_from_its_files(trained):
    """Stages, candidates, the best of them, training and time left, without a word from who works on it."""
    with run_lease.working_on(trained.folder):
        seen = RunObserver(RecordedRun("seen", trained.storage)).look()
    assert (seen.state, seen.stage) == ("running", "train")
    assert [stage.state for stage in seen.stages] == ["done", "running", "waiting", "waiting", "waiting"]
    assert seen.best["candidate"] == 1
    assert seen.training["step"] == 120
    assert seen.seconds_left == pytest.approx(80 / 40 + time_left.FINISH)
    json.dumps(seen.to_json(), allow_nan=False)
    assert RunObserver(RecordedRun("seen", trained.storage)).look().state == "stopped"


def test_results_that_have_not_changed_are_not_read_again(run, monkeypatch):
    observer = RunObserver(RecordedRun("seen", run.storage))
    assert len(observer.look().candidates) == 2
    read = []
    monkeypatch.setattr("pipelines.runs.observation.read_history", lambda folder: read.append(folder) or [])
    assert len(observer.look().candidates) == 2
    assert read == []


def test_time_left_is_the_work_at_measured_rates(small):
    """Two candidates at a time, 0.1 s a step: the second rung's waves, the training from it on, and the end."""
    changes = {"tune.candidates": 4, "tune.keep": 0.25, "tune.rungs": [100, 200], "algorithm.steps": 1000}
    settings = config.to_plain(config.override(small, changes))
    rows = [
        {"candidate": number, "seed": 0, "segment": str(number), "fresh": True, "search": True, "step": 100,
         "status": "finite", "seconds": 10.0}
        for number in range(4)
    ]  # fmt: skip
    assert time_left.jobs_of_rungs(settings["tune"]) == [4, 2]
    assert time_left.search_left(settings, rows, 30.0, 2, 1.0) == pytest.approx(100 * 0.1)
    assert time_left.search_left(settings, rows[:1], 30.0, 2, 1.0) == pytest.approx(2 * 100 * 0.1 + 100 * 0.1)
    assert time_left.search_left(settings, [], 30.0, 2, 1.0) is None
    waiting = ("tune", "train", "evaluate", "register", "report")
    total = time_left.seconds_left(settings, waiting, rows, {}, 30.0, 2)
    assert total == pytest.approx(10 + time_left.WORKERS_START + 800 * 0.1 + time_left.FINISH)
    assert time_left.seconds_left(settings, ("train",), (), {"step": 400, "steps_per_second": 20.0}, 9.0, 2) == 30.0


def screen(written, columns=COLUMNS):
    """What a terminal shows of this, line by line: it moves up, erases below, and nothing else."""
    lines, row, left = [""], 0, ""
    for part in re.split(r"(\x1b\[\d*[A-Za-z]|\x1b\[[\d;]*m|\r?\n)", written):
        if part in ("\n", "\r\n"):
            row, left = row + 1, ""
            lines += [""] * (row + 1 - len(lines))
        elif match := re.fullmatch(r"\x1b\[(\d*)A", part):
            row -= int(match[1] or 1)
        elif part == "\x1b[J":
            del lines[row:]
            lines.append("")
        elif part.startswith("\x1b"):
            assert re.fullmatch(r"\x1b\[[\d;]*m", part), part
        elif part:
            left += part
            lines[row] = left
            assert len(left) <= columns, left
    return lines


class Terminal:
    """A terminal that keeps what is written."""

    encoding = "utf-8"

    def __init__(self):
        self.written = ""

    def isatty(self):
        return True

    def write(self, text):
        self.written += text

    def flush(self):
        """All is kept at once."""


@pytest.mark.parametrize("columns", [COLUMNS, 120, 40])
def test_the_display_is_drawn_in_place(trained, monkeypatch, columns):
    """What is logged stands above the run's lines, of which there is one set, and no line is wider than the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    with run_lease.working_on(trained.folder):
        display = LiveDisplay(RunObserver(RecordedRun("seen", trained.storage)), terminal)
        with display.shown():
            display.log(
                "tune   chosen: candidate 1, algorithm.generator_learning_rate 0.1 and words " + "and words " * 9
            )
            display.log("train  step 120/200  V(D,G) -1.2")
            until(lambda: "120 of 200" in terminal.written)
    lines = screen(terminal.written, columns)
    assert lines[0].startswith("tune   chosen")
    assert lines[1].startswith("       ")
    text = "\n".join(lines)
    assert text.count("training") == text.count("120 of") == 1
    assert "step 120/200" not in text
    assert lines[-1] == ""
    assert "\x1b[?25l" not in terminal.written  # the cursor is never hidden


def test_lines_break_between_words(monkeypatch):
    """At 80 columns a terminal broke lines within words; what is not for one stays as it was."""
    monkeypatch.setenv("COLUMNS", "80")
    line = "tune   " + "candidate " * 20
    assert max(map(len, wrapped(line, Terminal()).splitlines())) < 80
    assert wrapped(line, Terminal()).split() == line.split()
    assert wrapped(line, io.StringIO()) == line


def test_thumbnails_are_the_picture(finished):
    """Half blocks: four lines of eight columns for each sample of 8 x 8 pixels, as many samples as have room."""
    run = Run.open("small-run", Storage.at(finished.storage))
    observer = RunObserver(RecordedRun("small-run", run.storage))
    lines = thumbnails(observer.picture(observer.pictures()[-1]), 79)
    assert [len(line.plain) for line in lines] == [8 * 9] * 4
    assert len({span.style for line in lines for span in line.spans}) > 50  # no single colour


def test_a_finished_run_is_watched_to_its_end(finished, here):
    where = ("small-run", "--storage", finished.storage)
    answer = here("runs", "watch", *where)
    assert (answer.code, answer.out.split()[:2]) == (0, ["small-run", "done"])
    answer = here("runs", "watch", *where, "--json")
    assert (answer.json["state"], answer.json["seconds_left"]) == ("done", None)
    assert len(answer.out.splitlines()) == 1


def in_terminal(*arguments, send=None, **more):
    """What the command writes to a terminal of 80 columns, and how it ends; `send` is a signal, once it has drawn."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, COLUMNS, 0, 0))
        os.execve(sys.executable, [sys.executable, "-m", "pipelines.cli", *map(str, arguments)], environment(**more))
    written, end = b"", time.monotonic() + 120
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            block = os.read(terminal, 65536)
        except OSError:  # so a pty says that its other end is closed
            break
        if not block:
            break
        written += block
        if send and b"training" in written:
            os.kill(pid, send)
            send = None
    os.close(terminal)
    return written.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_terminal_as_it_was(local, number, code):
    """No stray escape: the last is an end of colours, the cursor stands below, and the error is on its own line."""
    with run_lease.working_on(local.folder):
        written, ended = in_terminal(
            "runs", "watch", "seen", "--storage", local.storage.uri, send=number, TERM="xterm-256color"
        )
    assert ended == code
    assert screen(written)[-2].startswith("error: ")
    assert written.endswith("\n")


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}], ids=str)
def test_plain_terminals_get_no_colours(local, variables):
    """TERM=dumb gets lines, without an escape; NO_COLOR the display, without colours."""
    with run_lease.working_on(local.folder):
        written, _ = in_terminal(
            "runs", "watch", "seen", "--storage", local.storage.uri, send=signal.SIGINT, **variables
        )
    assert "training" in written
    assert not re.search(r"\x1b\[[\d;]*(3\d|4\d|9\d)m", written)
    assert ("\x1b" in written) == ("NO_COLOR" in variables)
