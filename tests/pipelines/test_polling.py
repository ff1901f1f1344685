"""A watch sees each change once, in order, however often what it looks at fails in between."""

import contextlib
import itertools
import json
import signal
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_core.errors import RegistryError
from pipelines.registry import Registry
from pipelines.registry.champion_history import ChampionHistory
from pipelines.registry.polling import MAX_PAUSE, changes
from pipelines.storage import Storage
from tests.pipelines.conftest import Place, failed, principal_generator, start_gan
from tests.pipelines.test_registry import register


class EndOfScriptError(Exception):
    pass


def watched(script, seconds=1.0):
    """What a watch of this script sees (None is a failure), what troubles it tells and how long it waits."""
    looks, seen, troubles, waits = iter(script), [], [], []

    def look():
        value = next(looks, EndOfScriptError)
        if value is EndOfScriptError:
            raise EndOfScriptError
        if value is None:
            raise RegistryError("MLflow refused", "there", "no answer")
        return value

    with contextlib.suppress(EndOfScriptError):
        for value in changes(look, str, seconds, lambda error, pause: troubles.append(pause), waits.append):
            seen.append(value)  # noqa: PERF402
    return seen, troubles, waits


@given(st.integers(0, 3), st.lists(st.none() | st.integers(0, 3)))
def test_each_change_is_seen_once_and_failures_are_none(first, more):
    seen, troubles, waits = watched([first, *more])
    values = [first, *(value for value in more if value is not None)]
    assert seen == [value for value, _ in itertools.groupby(values)]
    assert len(troubles) == more.count(None)
    assert len(waits) == len(more) + 1


def test_silent_registry_is_polled_ever_more_rarely():
    """A registry that does not answer is asked ever more rarely, and once it answers as before."""
    _, troubles, waits = watched([1, *[None] * 11, 2, 2], seconds=1.0)
    assert troubles == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, MAX_PAUSE, MAX_PAUSE, MAX_PAUSE]
    assert waits == [1.0, *troubles, 1.0, 1.0]


def test_the_first_look_up_may_fail_as_any_does():
    with pytest.raises(RegistryError, match="no answer"):
        next(changes(lambda: (_ for _ in ()).throw(RegistryError("no", "there", "no answer")), str, 1.0))


@pytest.fixture
def two_versions(registry_uri, digits, tmp_path):
    """A registry of one model with two versions; the first is champion."""
    place = Place(registry_uri, Storage.at(tmp_path), tmp_path / "mlartifacts")
    first = register(
        place, principal_generator(digits, 8), "one", "gan-watched", data_digest="d1", metrics='{"log_likelihood": 1.0}'
    )
    second = register(place, principal_generator(digits, 4), "two", "gan-watched", config_digest="c1", metrics='{"log_likelihood": 3.0, "coverage": 0.1}')  # fmt: skip
    ChampionHistory(Registry(registry_uri), "gan-watched").force(first, "a test")
    return registry_uri, first, second


def test_watch_yields_the_alias_holder_and_the_next(two_versions):
    """A registry yields the holder of an alias, and then the next one."""
    uri, first, second = two_versions
    watch = Registry(uri).watch("gan-watched@champion", 0.05)
    assert str(next(watch)) == str(first)
    timer = threading.Timer(0.3, lambda: ChampionHistory(Registry(uri), "gan-watched").force(second, "a test"))
    timer.start()
    assert str(next(watch)) == str(second)
    timer.join()


def test_watch_prints_each_change_and_ends_with_ctrl_c(two_versions, tmp_path):
    """The command prints each change, and ends with Ctrl-C as asked."""
    uri, _, second = two_versions
    command = ("models", "watch", "gan-watched@champion", "--interval", "0.2", "--json", "--tracking-uri", uri)
    process = start_gan(*command, cwd=tmp_path)
    lines = []
    try:
        lines.append(json.loads(process.stdout.readline()))
        ChampionHistory(Registry(uri), "gan-watched").force(second, "a test")
        lines.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate()
    finally:
        process.kill()
    assert [(line["name"], line["version"], line["aliases"]) for line in lines] == [
        ("gan-watched", 1, ["champion"]),
        ("gan-watched", 2, ["champion"]),
    ]
    assert (process.returncode, rest) == (0, ""), err
    assert "Traceback" not in err


def test_once_prints_the_holder_and_unknown_is_an_error(two_versions, here):
    """--once prints what there is, and a name that is not there is an error."""
    uri, _, _ = two_versions
    answer = here("models", "watch", "gan-watched@champion", "--once", "--json", "--tracking-uri", uri)
    assert (answer.code, answer.json["version"]) == (0, 1)
    failed(here("models", "watch", "gan-watchd@champion", "--tracking-uri", uri), 5, "no such model", "gan-watched")


def test_list_is_narrowed_by_name_digest_and_metric(two_versions, here):
    """A list can be narrowed by name, digest and best metric, and by several of them together."""
    uri, _, _ = two_versions

    def listed(*options):
        answer = here("models", "list", *options, "--json", "--tracking-uri", uri)
        assert answer.code == 0, answer.err
        return [version["version"] for version in answer.json["models"]]

    assert listed() == [2, 1]
    assert listed("--name", "gan-watched") == [2, 1]
    assert listed("--data-digest", "d1") == [1]
    assert listed("--data-digest", "d0", "--name", "gan-watched") == [2]
    assert listed("--config-digest", "c1") == [2]
    assert listed("--config-digest", "c1", "--data-digest", "d1") == []
    assert listed("--best", "log_likelihood") == [2]
    assert listed("--best", "log_likelihood", "--data-digest", "d1") == [1]
    assert listed("--best", "coverage") == [2]
    assert listed("--best", "nothing") == []
    failed(here("models", "list", "--name", "nobody", "--tracking-uri", uri), 5, "no such model", "gan-watched")
    failed(here("models", "list", "--data-digest", "d' or", "--tracking-uri", uri), 5, "not a digest")


@pytest.mark.slow
def test_absent_server_costs_lines_and_no_change(mlflow_server, digits, monkeypatch):
    """The real server stays; the address that the watch asks is for a while one where nobody listens."""
    import mlflow

    first = register(mlflow_server, principal_generator(digits, 8), "one", "gan-away")
    second = register(mlflow_server, principal_generator(digits, 4), "two", "gan-away")
    history, lines = ChampionHistory(Registry(mlflow_server.uri), "gan-away"), []
    history.force(first, "a test")
    watching = Registry(mlflow_server.uri)
    nowhere, there = mlflow.MlflowClient("http://127.0.0.1:9", "http://127.0.0.1:9"), watching.backend.client

    def trouble(error, pause):
        lines.append((str(error), pause))
        if len(lines) == 2:
            history.force(second, "a test")
            watching.backend.client = there

    watch = watching.watch("gan-away@champion", 0.1, trouble)
    assert next(watch).version == first.version
    watching.backend.client = nowhere
    assert next(watch).version == second.version
    assert lines[0][1] == 0.2
    assert "MLflow refused" in lines[0][0]
