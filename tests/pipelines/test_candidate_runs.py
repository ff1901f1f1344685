"""A search's candidates as MLflow shows them: bounded, the chosen one always among them, scores by rung."""

import pytest

from pipelines.registry.tracking import Span
from pipelines.stages.candidate_runs import MAX_CANDIDATES, candidate_runs, validation_curve

SPAN = Span(1_000_000, 2_000_000)
RECORD = {"candidate": 90, "chosen": {"noise.size": 8}}


def row(candidate, step, score, stage="search", status="finite", seed=0):
    numbers = {"log_likelihood": score, "standard_error": 1.0, "coverage": 0.5, "seconds": step / 10}
    return {
        "stage": stage,
        "candidate": candidate,
        "seed": seed,
        "step": step,
        "status": status,
        "noise.size": 8,
        **numbers,
    }


def test_big_searches_show_the_best_and_the_chosen():
    """Of a hundred: the chosen one, the configuration, and those that came farthest, best first; never one twice."""
    rows = [row(number, 20, float(number)) for number in range(100)]
    rows += [row(number, 40, float(-number)) for number in range(50, 60)]
    rows[99] = row(99, 20, -1e30, status="diverged")
    shown = [int(run.tags["gan.candidate"]) for run in candidate_runs("r", RECORD, rows, SPAN)]
    best = [*range(50, 60), *(number for number in range(98, 0, -1) if number not in {*range(50, 60), 90})]
    assert shown == [90, 0, *best[: MAX_CANDIDATES - 2]]
    few = candidate_runs("r", {**RECORD, "candidate": 99}, [*rows[-12:], rows[99]], SPAN)
    assert (few[0].status, few[0].rows) == ("FAILED", [])  # no score of what has none


def test_scores_are_by_rung_and_confirmed_by_seeds():
    """A candidate's curve is that of the search; the mean over seeds stands beside its last score."""
    rows = [row(90, 40, 6.0), row(90, 20, 2.0), row(90, 40, 9.0, "confirm", seed=1)]
    (run,) = candidate_runs("r", RECORD, rows, SPAN)
    assert [(at["step"], at["time_ms"], at["log_likelihood"]) for at in run.rows] == [
        (20, 1_002_000, 2.0), (40, 1_004_000, 6.0),
    ]  # fmt: skip
    assert run.rows[-1]["confirmed_log_likelihood"] == pytest.approx(7.5)
    assert (run.started_ms, run.ended_ms, run.parameters) == (1_000_000, 1_004_000, {"noise.size": 8})
    curve = validation_curve([run])
    assert [(at["step"], at["validation_log_likelihood"]) for at in curve] == [(20, 2.0), (40, 6.0)]
    assert "log_likelihood" not in curve[0]
