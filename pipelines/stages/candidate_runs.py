"""A search's candidates as child runs of its MLflow run: settings as parameters, scores by rung, the best of many."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.registry.tracked_run import ChildRun
from pipelines.registry.tracking import RUN_TAG, STAGE_TAG, Span

MAX_CANDIDATES = 32  # that are shown, each in three requests; table.parquet has all
SCORES = ("log_likelihood", "standard_error", "coverage")
CANDIDATE_TAG, CHOSEN_TAG = "gan.candidate", "gan.chosen"


def candidate_runs(
    run: str, record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], span: Span
) -> list[ChildRun]:
    """The candidates of a search's table: the chosen one, the configuration itself and the best of the others.

    A run's scores are those of the search's own seed; `confirmed_log_likelihood` is the mean over all seeds (nats),
    of those that were trained with more. Its time is what the training took, from the search's begin on.
    """
    trained: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["step"]):
        trained[row["candidate"]].append(row)
    first = (record["candidate"], 0)
    order = sorted(trained, key=lambda number: (number not in first, *_rank(_searched(trained[number]))))
    return [_child(run, number, record, trained[number], span) for number in order[:MAX_CANDIDATES]]


def validation_curve(candidates: Sequence[ChildRun]) -> list[dict[str, Any]]:
    """The chosen candidate's scores on the validation images, by rung, under names that are not the test images'."""
    chosen = next((one for one in candidates if CHOSEN_TAG in one.tags), None)
    kept = ("step", "time_ms")
    return [
        {key if key in kept else f"validation_{key}": value for key, value in row.items()}
        for row in (chosen.rows if chosen else ())
    ]


def _searched(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The rows of the search itself; all, of a configuration that only the confirmation has trained."""
    return [row for row in rows if row["stage"] == "search"] or rows


def _rank(rows: Sequence[Mapping[str, Any]]) -> tuple[bool, int, float]:
    """Who came farthest first, and of those the best; who diverged, last."""
    last = rows[-1]
    return last["status"] == "diverged", -last["step"], -last["log_likelihood"]


def _child(run: str, number: int, record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], span: Span) -> ChildRun:
    searched = _searched(rows)
    last, started, finite = searched[-1], span.started_ms, [row for row in searched if row["status"] == "finite"]
    metrics: list[dict[str, Any]] = [
        {"step": row["step"], "time_ms": started + round(1000 * row["seconds"]), **{name: row[name] for name in SCORES}}
        for row in finite
    ]
    at_end = [row["log_likelihood"] for row in rows if row["step"] == last["step"] and row["status"] == "finite"]
    if len(at_end) > 1 and finite:
        metrics[-1]["confirmed_log_likelihood"] = sum(at_end) / len(at_end)
    chosen = {CHOSEN_TAG: "true"} if number == record["candidate"] else {}
    return ChildRun(
        name=f"{run}/candidate-{number}",
        tags={RUN_TAG: run, STAGE_TAG: "candidate", CANDIDATE_TAG: str(number), **chosen},
        parameters={key: last[key] for key in sorted(record["chosen"]) if key in last},
        rows=metrics,
        started_ms=started,
        ended_ms=started + round(1000 * max(row["seconds"] for row in searched)),
        status="FAILED" if last["status"] == "diverged" else "FINISHED",
    )
