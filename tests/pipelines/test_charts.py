"""Charts hold the numbers they were made of, on the axes of the space that was searched."""

import json
import math

import pytest

from pipelines.reporting import charts
from pipelines.reporting.importance import importances
from pipelines.runs.run import Run
from pipelines.storage import Storage, run_layout
from pipelines.storage.metric_log import append_history

RATE, SIZE, COUNT = "algorithm.generator_learning_rate", "noise.size", "algorithm.discriminator_steps"
SPACE = {RATE: {"log_uniform": [0.001, 0.1]}, SIZE: {"choice": [8, 16]}, COUNT: {"integer": [1, 3]}}


def row(candidate, step, score, rate=0.01, size=8, count=1, **more):
    return {"stage": "search", "candidate": candidate, "seed": 0, "step": step, "status": "finite",
            "log_likelihood": score, RATE: rate, SIZE: size, COUNT: count, **more}  # fmt: skip


ROWS = [
    row(0, 10, 1.0, rate=0.5, size=9),  # the configuration, which lies outside the space
    row(0, 20, 4.0, rate=0.5, size=9),
    row(1, 10, 2.0),
    row(2, 10, 3.0, size=16),
    row(2, 20, 5.0, size=16),
    row(2, 20, 99.0, stage="confirm", seed=1),
    row(3, 10, -1e30, status="diverged"),
]


def test_parallel_axes_are_those_of_the_space():
    """Logarithmic where the space is, over all of it and what lies outside; choices as they were given."""
    chart = charts.parallel_chart(ROWS, SPACE, chosen=2)
    rate, size, count, _ = chart["parallelAxis"]
    assert (rate["type"], rate["min"], rate["max"]) == ("log", 0.001, 0.5)
    assert (size["type"], size["data"]) == ("category", ["8", "16", "9"])
    assert (count["type"], count["min"], count["max"]) == ("value", 1, 3)
    lines = {series["name"]: [line["value"] for line in series["data"]] for series in chart["series"]}
    assert lines == {
        "cut at an earlier rung": [[0.01, "8", 1, 2.0]],
        "reached the last rung": [[0.5, "9", 1, 4.0]],
        "chosen": [[0.01, "16", 1, 5.0]],
    }


def test_rungs_show_the_search_alone():
    """A line a candidate, by rung; neither confirmations nor what diverged, whose score is none."""
    chart = charts.rung_chart(ROWS, chosen=2)
    assert {one["name"]: one["data"] for one in chart["series"]} == {
        "candidate 0": [[10, 1.0], [20, 4.0]],
        "candidate 1": [[10, 2.0]],
        "candidate 2": [[10, 3.0], [20, 5.0]],
    }


def test_rungs_of_updates_are_compared_at_their_updates():
    """Of a search by updates two candidates of other k have come equally far, at other steps."""
    rows = [{**row(0, 20, 1.0), "budget": 40}, {**row(1, 10, 2.0), "budget": 40}]
    chart = charts.rung_chart(rows, chosen=1)
    assert [one["data"] for one in chart["series"]] == [[[40, 1.0]], [[40, 2.0]]]
    assert chart["series"][0]["lineStyle"]["width"] == charts.LOOKS[charts.LAST_RUNG][1]
    assert chart["xAxis"]["name"] == "updates of D and G"


def test_importance_finds_the_setting_that_decides():
    """A score that is a function of one setting is explained by it, each time by the same number."""
    rows = [
        row(i, 10, math.log(0.001 * 1.4**i), rate=0.001 * 1.4**i, size=(8, 16)[i % 2], count=1 + i % 3)
        for i in range(12)
    ]
    found = importances(rows, SPACE)
    assert found[RATE] > 0.8
    assert sum(found.values()) == pytest.approx(1)
    assert importances(rows, SPACE) == found
    assert importances(rows[:3], SPACE) == {}
    assert importances([*rows, row(12, 10, 0.0, rate=0.5)], SPACE) == {}  # outside the space


def test_charts_leave_out_what_has_no_place():
    """A gradient norm of 0 has no logarithm, and nothing that is not finite reaches the page's JSON."""
    chart = charts.line_chart("x", {"a": [(1, 0.0), (2, 3.0), (3, math.inf), (4, math.nan)]}, log_y=True)
    assert chart["series"][0]["data"] == [[2, 3.0]]
    json.dumps(chart, allow_nan=False)


def test_curves_follow_the_objective():
    """V with its equilibrium where the objective has one, else D's loss and no such line."""
    history = [{"step": 1, "value": -1.3, "discriminator_loss": 1.3, "generator_loss": 0.7, "real_accuracy": 0.5, "fake_accuracy": 0.5,
                "discriminator_gradient_norm": 1.0, "generator_gradient_norm": 1.0}]  # fmt: skip
    first = charts.training_charts(history)[0]["series"]
    assert [one["name"] for one in first] == ["V(D, G)", "G's loss"]
    assert first[0]["markLine"]["data"] == [{"yAxis": -math.log(4), "name": "-log 4, the equilibrium"}]
    without = [{key: value for key, value in history[0].items() if key != "value"}]
    first = charts.training_charts(without)[0]["series"]
    assert [one["name"] for one in first] == ["D's loss", "G's loss"]
    assert "markLine" not in first[0]
    assert charts.training_charts([]) == []


def test_comparison_lays_curves_over_each_other(small, tmp_path, here):
    """`gan runs compare A B --html`: both runs' settings and curves on a page that is the same each time."""
    from pipelines import config

    storage = Storage.at(tmp_path / "st")
    for name, size in (("one", 8), ("two", 16)):
        run = Run.create(config.override(config.resolve(small, name), {"noise.size": size}), name, name, storage)
        run.save()
        rows = [{"step": step, "value": -1.0 - size / 100, "generator_loss": 0.5} for step in (10, 20)]
        append_history(run.folder.child(run_layout.HISTORY), rows)
    pages = []
    for name in ("a.html", "b.html"):
        answer = here("runs", "compare", "one", "two", "--html", name, "--storage", tmp_path / "st", "--json")
        assert answer.code == 0, answer.err
        assert answer.json["page"] == name
        pages.append((tmp_path / name).read_text())
    assert pages[0] == pages[1]
    assert "noise.size" in pages[0]
    for curve in ("[[10, -1.08], [20, -1.08]]", "[[10, -1.16], [20, -1.16]]"):
        assert curve in pages[0]
    assert here("runs", "compare", "one", "two", "--html", "a.txt", "--storage", tmp_path / "st").code == 2
