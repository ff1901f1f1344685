"""Signals to a command while Ray starts and in its stages, and to Ray itself: each has its line, and nothing is left."""

import os
import signal
import time
from pathlib import Path

import pytest

from pipelines.runtime import supervisor
from tests.pipelines.conftest import failed, gan, start_gan, until
from tests.pipelines.test_outcome import end


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
        (signal.SIGINT, 130, "evaluation", "evaluate stopped; records kept: train;"),
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
    lines = (
        f"{lost}it is started anew",
        f"{lost}the command begins anew",
        f"ray    lost: {supervisor.SILENT}; the command has begun anew",
    )
    assert [line for line in answer.err.splitlines() if line.startswith("ray    lost")][-1] in lines, answer.err
    assert len(answer.out.splitlines()) == 1  # the result alone


@pytest.mark.slow
@pytest.mark.parametrize(("program", "stage"), [("gcs_server", "training"), ("raylet", "evaluation")])
def test_a_dead_ray_without_a_restart_has_its_line(program, stage, small_yaml, tmp_path):
    """Leaving a Ray whose GCS was dead took a minute, and then Ray ended the command with 1 and no line."""
    command, happened, setting = STAGES[stage]
    words = (command, small_yaml, "--name", "it", "--storage", "st", "--json", "--set", setting)
    words += ("--set", "train.max_failures=0")
    process = start_gan(*words, cwd=tmp_path)
    until(lambda: list((tmp_path / "st" / "runs" / "it").glob(happened)) or process.poll() is not None)
    os.kill(part(process, program), signal.SIGKILL)
    failed(end(process, 45), 4, "Ray has died (this machine)")
    assert gan(*words, cwd=tmp_path).code == 0
