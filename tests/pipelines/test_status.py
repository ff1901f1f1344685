"""Runs seen from outside: who works on one, how it is stopped, compared with others, removed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest

from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.runs import run_lease
from pipelines.runs import status as overview
from pipelines.runs.run import Run
from pipelines.storage import Storage, checkpoint_names, image_cache, save_checkpoint
from tests.pipelines.conftest import environment, failed, gan, kill_group, start_gan, trained_alone, until

HOLDER = """
import signal, sys, time
from pipelines.runs.run_lease import working_on
from pipelines.storage import Storage
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with working_on(Storage.at(sys.argv[1])) as free:
    print(free, flush=True)
    time.sleep(600)
"""


def make(storage, name, small, **changes):
    run = Run.create(config.override(small, changes), "stem", name, storage)
    run.save()
    return run


@pytest.fixture
def storage(tmp_path):
    return Storage.at(tmp_path / "st")


def hold(run):
    """Another process that works on the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, run.folder.uri], stdout=subprocess.PIPE, text=True, env=environment(),
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "True\n"
    return process


@pytest.fixture
def held(storage, small):
    run = make(storage, "held", small)
    process = hold(run)
    yield run, process
    kill_group(process)
    process.stdout.close()


# Owners


def test_asking_for_state_does_not_block_a_start(storage, small):
    """Asking for a run's state again and again keeps nobody from starting on it."""
    run, asking = make(storage, "asked", small), threading.Event()

    def ask():
        while not asking.is_set():
            run_lease.owner(run.folder)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    started = []
    for _ in range(100):
        with run_lease.working_on(run.folder) as free:
            started.append(free)
    asking.set()
    for asker in askers:
        asker.join()
    assert started == [True] * 100


def test_live_owner_is_seen_and_killed_one_is_not(held):
    """An owner is seen while it lives, and a killed one at once no more."""
    run, process = held
    seen = until(lambda: (run_lease.owner(run.folder) or {}).get("pid"))
    assert seen == process.pid
    assert overview.status(run)["state"] == "running"
    with run_lease.working_on(run.folder) as free:
        assert not free
    process.kill()
    process.wait()
    assert run_lease.owner(run.folder) is None
    assert overview.status(run)["state"] == "stopped"
    with run_lease.working_on(run.folder) as free:
        assert free


def test_asking_about_a_run_writes_nothing(storage, small):
    run = make(storage, "quiet", small)
    before = sorted(os.listdir(run.folder.local))
    assert run_lease.owner(run.folder) is None
    assert overview.status(run)["state"] == "stopped"
    assert sorted(os.listdir(run.folder.local)) == before == ["environment.json", "run.json"]


def test_heartbeat_shows_the_owner_on_an_object_store():
    """On an object store a heartbeat says who works on a run, and its age that the owner is dead."""
    folder = Storage(f"fsspec+memory:///{uuid.uuid4().hex}")
    with run_lease.working_on(folder) as free:
        assert free
        assert until(lambda: run_lease.owner(folder))["pid"] == os.getpid()
        with run_lease.working_on(folder) as second:
            assert not second
        assert run_lease.owner(folder) is not None
    assert run_lease.owner(folder) is None
    folder.write_json("owner.json", {"pid": 1, "beat": time.time() - 2 * run_lease.SILENT_SECONDS})
    with run_lease.working_on(folder) as free:
        assert free


# Stopping


def test_stop_request_ends_the_owner_like_sigterm(held):
    """A request to stop ends the owner as SIGTERM does, and is gone afterwards."""
    run, process = held
    assert run_lease.request_stop(run.folder, 200)
    assert process.wait() == 143
    assert not {"owner.json", "stop-request.json"} & set(run.folder.names())


def test_owner_not_ending_in_time_is_still_running(held, here):
    """An owner that does not end in time is said to be running still, with exit code 4."""
    run, process = held
    os.kill(process.pid, signal.SIGSTOP)
    answer = here("runs", "stop", run.name, "--storage", run.storage.uri, "--timeout", 0.5)
    failed(answer, 4, "still running (held)", "0.5 s")


def test_unheard_stop_request_spares_the_next_owner(storage, small):
    """A request that nobody heard does not stop the next owner."""
    run = make(storage, "later", small)
    run.folder.write_json("stop-request.json", {})
    with run_lease.working_on(run.folder) as free:
        assert free
        time.sleep(1.5 * run_lease.LOOK_SECONDS)  # a SIGTERM would end the test's process
    assert "stop-request.json" not in run.folder.names()


def test_idle_run_is_reported_as_not_running(storage, small, digits, here):
    """A run that does not run is said not to, with its saved step, and exit code 0."""
    run = make(storage, "idle", small)
    state = trained_alone(small.training(), digits, 2)
    save_checkpoint(run.folder.child("checkpoints"), 2, state.tensors(), {}, keep=2)
    answer = here("runs", "stop", "idle", "--storage", storage.uri, "--json")
    assert answer.code == 0
    assert answer.json == {"run": "idle", "stopped": False, "state": "stopped", "saved_step": 2}


@pytest.mark.slow
def test_second_start_is_refused_and_stop_saves_the_step(small_yaml, tmp_path):
    """A training and a search started twice run once, and end when asked, with the step saved."""
    for command, begun in (
        (("tune", small_yaml, "--set", "tune.rungs=[20, 100000]"), lambda: folder.child("tune", "search").names()),
        (("train", small_yaml, "--set", "algorithm.steps=100000"), lambda: checkpoint_names(folder.child("checkpoints"))),
    ):  # fmt: skip
        name = f"stopped-{command[0]}"
        where, folder = ("--name", name, "--storage", "st"), Storage.at(tmp_path / "st" / "runs" / name)
        process = start_gan(*command, *where, cwd=tmp_path)
        try:
            until(begun)
            status = gan("runs", "status", name, "--storage", "st", "--json", cwd=tmp_path).json
            assert (status["state"], status["stage"]) == ("running", command[0])
            assert status["owner"]["pid"] == process.pid
            second = gan(*command, *where, "--json", cwd=tmp_path)
            assert (second.code, second.json) == (0, {"run": name, "state": "running"})
            answer = gan("runs", "stop", name, "--storage", "st", "--json", cwd=tmp_path)
            assert (answer.code, answer.json["stopped"], answer.json["state"]) == (0, True, "stopped")
            process.communicate()
            assert process.returncode == 143
        finally:
            kill_group(process)
    assert answer.json["saved_step"] >= 50
    assert checkpoint_names(folder.child("checkpoints"))[-1] == f"step={answer.json['saved_step']:08d}"


# Comparing and removing


def test_runs_are_compared_by_differing_settings(storage, small, here):
    """Runs are compared by the settings in which they differ and by their scores."""
    make(storage, "one", small, **{"tune.candidates": 0})
    make(storage, "two", small, **{"tune.candidates": 0, "noise.size": 9, "algorithm.steps": 300})
    found = here("runs", "compare", "one", "two", "--storage", storage.uri, "--json").json
    assert found["settings"] == {"algorithm.steps": [200, 300], "noise.size": [8, 9]}
    assert found["scores"]["log_likelihood"] == [None, None]
    people = here("runs", "compare", "one", "two", "--storage", storage.uri)
    assert "noise.size" in people.out
    failed(here("runs", "compare", "one", "--storage", storage.uri), 2, "two runs or more")


def test_compared_settings_are_the_searched_choice(finished, here):
    """A searched run's choice is what is compared, and its scores are those of its records."""
    storage = Storage.at(finished.storage)
    make(
        storage, "other", config.load(finished.yaml), **{"tune.candidates": 0, "algorithm.generator_learning_rate": 0.2}
    )
    found = here("runs", "compare", "small-run", "other", "--storage", storage.uri, "--json").json
    rate = finished.record("tune")["chosen"]["algorithm.generator_learning_rate"]
    assert found["settings"] == {
        "algorithm.generator_learning_rate": [rate, 0.2],
        "tune.candidates": [2, 0],
    }
    assert found["scores"]["log_likelihood"] == [finished.record("evaluate")["log_likelihood"], None]
    overview.remove(Run.open("other", storage))


def aged(run, days):
    then = time.time() - days * 86400
    for path in run.folder.local.rglob("*"):
        os.utime(path, (then, then))


def names(chosen, kept=None):
    return [one["run"] for one in chosen if one["kept"] == kept]


def test_prune_criteria_must_all_hold(storage, small):
    """Runs go by age, number and state, and only when all criteria given say so."""
    runs = [make(storage, name, small) for name in ("a", "b", "c", "d")]
    for days, run in zip((1, 10, 40, 50), runs, strict=True):
        if run.name == "d":
            run.folder.write_json("records/report.json", {"inputs": "", "record": {"report": "", "seconds": 0.0}})
        aged(run, days)
    leaving = overview.PruneCriteria
    month = overview.seconds("30d")
    assert names(overview.prunable(runs, leaving(older_than=month))) == ["c", "d"]
    assert names(overview.prunable(runs, leaving(keep=1))) == ["b", "c", "d"]
    assert names(overview.prunable(runs, leaving(older_than=month, state="stopped"))) == ["c"]
    assert names(overview.prunable(runs, leaving(older_than=month, keep=3))) == ["d"]
    protected = {"b": "its version holds an alias"}
    assert names(overview.prunable(runs, leaving(keep=0), lambda run: protected.get(run.name)), protected["b"]) == ["b"]
    with pytest.raises(ConfigurationError, match="nothing to choose by"):
        leaving()


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("1.5h", 5400), ("30d", 2592000), ("2w", 1209600)])
def test_times_are_read(text, value):
    assert overview.seconds(text) == value


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1y", "1d ", "1e3d", "infd"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ConfigurationError, match="not a time"):
        overview.seconds(text)


def test_prune_needs_yes_and_spares_running_runs(held, small, here):
    """Nothing goes without --yes, and with it all but what runs."""
    run, _ = held
    make(run.storage, "old", small)
    command = ("runs", "prune", "--keep", 0, "--storage", run.storage.uri)
    would = here(*command, "--json").json
    assert ({one["run"]: one["kept"] for one in would["runs"]}) == {"held": "running", "old": None}
    assert (would["removed"], would["registry_asked"]) == (False, False)
    assert would["bytes"] == sum(file.stat().st_size for file in (run.storage.local / "runs" / "old").iterdir())
    assert (run.storage.local / "runs" / "old").is_dir()
    done = here(*command, "--yes")
    assert done.code == 0
    assert "no registry in" in done.err
    assert sorted(os.listdir(run.storage.local / "runs")) == ["held"]


def test_prune_removes_cached_rows_without_readers(storage, small, here):
    """Cached rows that no run reads after a prune go too, and the dry run names them."""
    for name in ("a", "b"):
        aged(make(storage, name, small), 1 if name == "a" else 10)
        storage.child("rows", name).write("000000-000", b"rows")
        image_cache.description(storage, name, name)
    for path in (storage.local / "rows").rglob("*"):
        os.utime(path, (time.time() - 7200,) * 2)
    command = ("runs", "prune", "--keep", 1, "--storage", storage.uri, "--json")
    would = here(*command).json
    assert ([one["run"] for one in would["runs"]], [one["rows"] for one in would["rows"]]) == (["b"], ["b"])
    assert would["bytes"] == would["runs"][0]["bytes"] + 4
    assert image_cache.names(storage) == ["a", "b"]
    done = here(*command, "--yes").json
    assert [one["rows"] for one in done["rows"]] == ["b"]
    assert image_cache.names(storage) == ["a"]


def test_a_run_whose_version_holds_an_alias_is_kept(finished, here):
    answer = here("runs", "prune", "--keep", 0, "--yes", "--storage", finished.storage, "--json").json
    assert answer["registry_asked"]
    assert {one["run"]: one["kept"] for one in answer["runs"]} == {"small-run": "its version holds an alias"}
    assert json.loads((finished.folder / "run.json").read_text())["run"] == "small-run"


def test_prune_without_a_condition_is_refused(storage, here):
    failed(here("runs", "prune", "--storage", storage.uri), 2, "nothing to choose by")
