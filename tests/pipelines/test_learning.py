"""A search that learns from earlier ones: their points and scores, taken once, when its run is created."""

import json
import shutil

import optuna
import pytest

from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.config.candidates import draw_candidates
from pipelines.flow import Flow, Pipeline
from pipelines.runs.records import TuneRecord
from pipelines.runs.run import Run
from pipelines.search.optuna_tpe import Suggestions
from pipelines.search.search_table import write_table
from pipelines.stages.table import tune_inputs
from pipelines.storage import Storage, run_layout
from tests.pipelines.conftest import gan

RATE, SIZE = "algorithm.generator_learning_rate", "noise.size"
SPACE = {RATE: {"log_uniform": [0.03, 0.3]}, SIZE: {"choice": [4, 8, 16]}}
# An earlier search's candidates: their settings and their scores (nats) at steps 20 and 40; None: it diverged there.
EARLIER = {
    0: ({RATE: 0.1, SIZE: 8}, 1.0, 5.0),  # the configuration
    1: ({RATE: 0.05, SIZE: 4}, 2.0, 7.0),
    2: ({RATE: 0.2, SIZE: 16}, 3.0, 9.0),
    3: ({RATE: 0.25, SIZE: 4}, 0.5),
    4: ({RATE: 0.31, SIZE: 4}, 4.0, 11.0),
    5: ({RATE: 0.29, SIZE: 8}, 1.5, None),
}
CHOSEN = 1


@pytest.fixture
def settings(small):
    return config.override(small, {"tune.space": SPACE, "tune.candidates": 6})


def rows(candidates, seed=0):
    """The rows of a search's table."""
    return [
        {
            "stage": "search", "candidate": number, "seed": seed, **values, "step": step,
            "status": "finite" if score is not None else "diverged",
            "log_likelihood": -1e30 if score is None else score, "coverage": 0.5,
        }
        for number, (values, *scores) in candidates.items() for step, score in zip((20, 40), scores, strict=False)
    ]  # fmt: skip


def finish(name, settings, digest, storage, candidates=EARLIER):
    """A run whose search has found this: its own file, the table and the record."""
    run = Run.create(settings, name, name, storage)
    run.save()
    write_table(rows(candidates), {}, run.folder)
    record = TuneRecord(candidates[CHOSEN][0], CHOSEN, 7.0, 0.5, len(candidates), 1, 0, 1.0)
    run.stage("tune", TuneRecord, tune_inputs(run.configuration, digest), lambda: record)
    return run


@pytest.fixture(params=["disk", "bucket"])
def storage(request, tmp_path):
    """A folder, or an object store."""
    return Storage.at(
        tmp_path if request.param == "disk" else f"{request.getfixturevalue('bucket')}/{request.node.name[:20]}"
    )


def begin(settings, storage, **values):
    """A run that learns from `first`, created and checked as `gan tune` does, and what was said."""
    said = []
    learning = config.override(settings, {"tune.learn_from": ["first"], **values})
    run = Pipeline(storage, lambda: "", said.append)._created(learning, "second", "second", None, ())
    flow = Flow(run, "", said.append)
    flow.check()
    with flow.working() as free:
        assert free
    return run, said


def test_best_of_an_earlier_search_are_points(settings, digits, storage):
    """After the configuration come the earlier choice and the best others that are in the space, best first."""
    finish("first", settings, digits.digest, storage)
    run, said = begin(settings, storage, **{"tune.learn_best": 2})
    assert draw_candidates(run.configuration)[:3] == [EARLIER[number][0] for number in (0, 1, 2)]
    assert (
        "tune   learns from first: 2 of 6 candidates as points; left out: 1 outside tune.space" in said
    )  # 0.31, the best


def test_a_run_needs_no_earlier_one_again(settings, digits, tmp_path):
    """The points are the run's own: it goes on, with more candidates too, when the earlier run is gone."""
    storage = Storage.at(tmp_path)
    earlier = finish("first", settings, digits.digest, storage)
    run, _ = begin(settings, storage)
    shutil.rmtree(earlier.folder.local)
    again, said = begin(settings, storage, **{"tune.candidates": 8})
    assert again.configuration.tune.points == run.configuration.tune.points
    assert draw_candidates(again.configuration)[:6] == draw_candidates(run.configuration)
    assert not any("learns" in line for line in said)
    with pytest.raises(ConfigurationError, match="no such run"):
        Pipeline(storage, lambda: "").run(
            config.override(settings, {"tune.learn_from": ["first"]}), "third", name="third", dry_run=True
        )


def test_an_earlier_search_must_fit(settings, digits, tmp_path, here, small_yaml):
    """A run that is missing, has not finished its search, or searched other data is refused in a line, with 2."""
    storage = Storage.at(tmp_path / "storage")
    finish("first", settings, digits.digest, storage)
    finish("other", settings, "another", storage)
    unfinished = finish("unfinished", settings, digits.digest, storage)
    unfinished.folder.delete(run_layout.record("tune"))
    plain = Run.create(config.override(settings, {"tune.candidates": 0}), "plain", "plain", storage)
    plain.save()
    for name, words in {
        "firsst": "no such run (firsst)",
        "unfinished": "unfinished has a search that is not finished",
        "plain": "plain has no search",
        "other": "searched on other data (tune.learn_from): other, on digits",
    }.items():
        answer = here("tune", small_yaml, "--storage", storage.uri, "--set", f"tune.learn_from=[first, {name}]",
                      "--set", "tune.candidates=4")  # fmt: skip
        assert (answer.code, words in answer.error) == (2, True), answer.err
    assert "second" not in storage.child("runs").names()
    answer = here("tune", small_yaml, "--storage", storage.uri, "--set", "tune.learn_from=[first]", "--set", "tune.candidates=1")  # fmt: skip
    assert answer.code == 2
    assert "no candidate left to learn with (tune.learn_from)" in answer.error


def test_several_searches_give_points_in_turn(settings, digits, tmp_path):
    """Of two searches the best are taken in turn, none twice, whatever their scores."""
    storage = Storage.at(tmp_path)
    finish("first", settings, digits.digest, storage)
    better = {0: EARLIER[0], 1: ({RATE: 0.07, SIZE: 16}, 50.0, 60.0), 2: ({RATE: 0.05, SIZE: 4}, 50.0, 50.0)}
    finish("other", settings, digits.digest, storage, better)
    run, _ = begin(settings, storage, **{"tune.learn_from": ["first", "other"]})
    assert list(run.configuration.tune.points) == [EARLIER[1][0], better[1][0], EARLIER[2][0]]


def test_tpe_is_told_what_compares(settings, digits, tmp_path):
    """Optuna begins with the scores of candidates that differ in the space alone: cut ones as pruned, the rest complete."""
    storage, tpe = Storage.at(tmp_path), {"tune.searcher": "tpe", "tune.scheduler": "none"}
    finish("first", settings, digits.digest, storage)
    run, said = begin(settings, storage, **tpe)
    assert "learns from first: 3 of 6 candidates as points, scores of 5; left out: 1 outside tune.space" in said[0]
    learned = run.folder.read_json(run_layout.LEARNED)
    study = Suggestions(run.configuration, storage.child("results"), learned["observations"]).inner._ot_study
    told = [trial for trial in study.trials if trial.state.is_finished()]
    assert {
        (trial.params[RATE], SPACE[SIZE]["choice"][trial.params[SIZE]], trial.value, trial.state) for trial in told
    } == {
        (0.1, 8, 5.0, optuna.trial.TrialState.COMPLETE),
        (0.05, 4, 7.0, optuna.trial.TrialState.COMPLETE),
        (0.2, 16, 9.0, optuna.trial.TrialState.COMPLETE),
        (0.25, 4, 0.5, optuna.trial.TrialState.PRUNED),
        (0.29, 8, -1e30, optuna.trial.TrialState.COMPLETE),
    }


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"network.generator.hidden": [16]}, "5 with another network.generator.hidden"),
        ({"tune.samples": 100}, "5 with another tune.samples"),
        ({"evaluate.weights": "averaged"}, "5 with another evaluate.weights"),
        ({"tune.rungs": [30]}, "5 not scored at these rungs"),
        ({"algorithm.steps": 300}, None),
    ],
)
def test_scores_that_do_not_compare_are_left_out(settings, digits, tmp_path, other, reason):
    """A score at another rung, or with another setting than those that are searched, is not told; its point is tried."""
    storage = Storage.at(tmp_path)
    finish("first", settings, digits.digest, storage)
    run, said = begin(settings, storage, **{"tune.searcher": "tpe", "tune.scheduler": "none"}, **other)
    assert len(run.configuration.tune.points) == 3
    observations = run.folder.read_json(run_layout.LEARNED)["observations"]
    assert len(observations) == (0 if reason else 5)
    assert reason is None or reason in said[0]


def test_settings_of_no_effect_change_no_digest(small):
    """A configuration that does not learn, and counts rungs in steps, has the digest it had before either was there."""
    identity = config.identity(small)["tune"]
    assert {"learn_from", "learn_best", "rung_unit"} & identity.keys() == set()
    for key, value in {"learn_from": ["first"], "learn_best": 2, "rung_unit": "updates"}.items():
        assert config.identity(config.override(small, {f"tune.{key}": value}))["tune"][key] == value


@pytest.mark.slow
def test_a_search_by_suggestion_learns_end_to_end(small_yaml, tmp_path):
    """`gan tune` learns from a real search: its candidates are tried first, and Optuna has its scores."""
    first = ("tune", small_yaml, "--storage", tmp_path, "--json", "--set", "tune.candidates=3")
    assert gan(*first, "--name", "first", cwd=tmp_path).code == 0
    answer = gan(
        *first, "--name", "second", "--set", "tune.learn_from=[first]", "--set", "tune.searcher=tpe",
        "--set", "tune.scheduler=none", "--set", "tune.candidates=4", cwd=tmp_path,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "learns from first: 2 of 3 candidates as points, scores of 3" in answer.err
    document = json.loads((tmp_path / "runs" / "second" / "run.json").read_text())
    points = document["configuration"]["tune"]["points"]
    suggested = tmp_path / "runs" / "second" / "tune" / "findings" / "suggested"
    assert [path.name for path in suggested.iterdir()] == ["000003.json"]
    assert len(points) == 2
