"""What earlier searches on the same data tell a new one: points to begin with, and scores for Optuna."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.config import Configuration, ResolvedConfiguration
from pipelines.config.candidates import in_space, known_candidates, rung_steps
from pipelines.search.ranking import rung_of

Row = Mapping[str, Any]
SEARCHED = (
    "noise",
    "network",
    "algorithm",
    "extension",
)  # sections: with the data and how it is scored, all of a score


@dataclass(frozen=True)
class EarlierSearch:
    """A finished search: its run, the choice, and its table's rows."""

    run: str
    configuration: ResolvedConfiguration
    chosen: int
    rows: Sequence[Row]
    inputs: str  # digest of what its record is a function of, the data among it


@dataclass(frozen=True)
class Lessons:
    """What was learned, as plain data, and how many candidates told nothing, by the reason.

    An observation has `values`, the `scores` (nats) at this search's rungs up to where its candidate came, and whether
    that is `complete`: the last rung, or where it diverged.
    """

    points: list[dict[str, Any]]
    observations: list[dict[str, Any]]
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str) -> None:
        """Count a candidate that tells nothing."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


def learn(configuration: Configuration, searches: Sequence[EarlierSearch]) -> Lessons:
    """The best candidates of these searches, at most `tune.learn_best`, and for `tpe` every score that compares.

    Points are taken from the searches in turn, from each the best first, its choice before others; their values of
    other settings than those of this space do not matter. Scores compare if all that differs is in the space.

    Raises:
        ConfigurationError: If there is no room among the candidates, or nothing to learn from.
    """
    tune = configuration.tune
    room = tune.candidates - tune.known_points
    if room < 1:
        raise ConfigurationError(
            "no candidate left to learn with", "tune.learn_from", f"tune.candidates {tune.candidates}",
            f"{tune.known_points + 1} or more, beside the configuration and tune.points",
        )  # fmt: skip
    lessons, by_search = Lessons([], []), []
    for search in searches:
        ranked = [[*rows] for rows in _ranked(search)]
        points = [_values(configuration, search, rows[-1]) for rows in ranked]
        by_search.append([
            point for point, rows in zip(points, ranked, strict=True)
            if point and rows[-1]["status"] == "finite" and rows[-1]["coverage"] >= tune.min_coverage
        ])  # fmt: skip
        for point, rows in zip(points, ranked, strict=True):
            if point is None:
                lessons.leave_out("outside tune.space")
            elif tune.searcher == "tpe":
                _observe(configuration, search, point, rows, lessons)
    in_turn = (point for best in itertools.zip_longest(*by_search) for point in best if point is not None)
    lessons.points.extend(itertools.islice(_new(configuration, in_turn), min(room, tune.learn_best)))
    return lessons


def with_points(configuration: Configuration, points: Sequence[Mapping[str, Any]]) -> Configuration:
    """The configuration with further points."""
    tune = dataclasses.replace(configuration.tune, points=(*configuration.tune.points, *points))
    return dataclasses.replace(configuration, tune=tune)


def _ranked(search: EarlierSearch) -> Iterator[list[Row]]:
    """The rows of each candidate, by step: of the choice, then of those that came farthest, the best first."""
    of_candidate: dict[int, list[Row]] = {}
    for row in sorted(search.rows, key=lambda row: row["step"]):
        if row["stage"] == "search":
            of_candidate.setdefault(row["candidate"], []).append(row)

    def rank(number: int) -> tuple[bool, bool, int, float, int]:
        last = of_candidate[number][-1]
        return number != search.chosen, last["status"] == "diverged", -rung_of(last), -last["log_likelihood"], number

    return (of_candidate[number] for number in sorted(of_candidate, key=rank))


def _values(configuration: Configuration, search: EarlierSearch, row: Row) -> dict[str, Any] | None:
    """A candidate's settings that this space has; None if one of them is outside it, or not its own."""
    theirs = config.flat(config.to_plain(_candidate(search, row)))
    return in_space(configuration.tune.space, theirs)


def _candidate(search: EarlierSearch, row: Row) -> ResolvedConfiguration:
    return config.override(search.configuration, {key: row[key] for key in search.configuration.tune.space})


def _new(configuration: Configuration, points: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The points that are no candidates yet, and make a configuration."""
    known = known_candidates(configuration)
    for point in points:
        if point not in known:
            known.append(point)
            try:
                config.override(configuration, point)
            except ConfigurationError:  # its batch, say, cannot be shared by this one's workers
                continue
            yield point


def _observe(
    configuration: Configuration, search: EarlierSearch, point: dict[str, Any], rows: Sequence[Row], lessons: Lessons
) -> None:
    """Add a candidate's scores, or the reason why they do not compare."""
    reason, tune = _why_not(configuration, _candidate(search, rows[-1])), configuration.tune
    steps = rung_steps(config.override(configuration, point), tune.rungs)
    at = {row["step"]: row["log_likelihood"] for row in rows}
    scores = [at[step] for step in steps if step in at]
    diverged = rows[-1]["status"] == "diverged" and rows[-1]["step"] <= steps[-1]
    if diverged and rows[-1]["step"] not in steps:
        scores.append(rows[-1]["log_likelihood"])
    if reason or not scores:
        lessons.leave_out(reason or "not scored at these rungs")
        return
    lessons.observations.append({
        "run": search.run, "candidate": rows[-1]["candidate"], "values": point, "scores": scores,
        "complete": diverged or steps[-1] in at,
    })  # fmt: skip


def _why_not(configuration: Configuration, candidate: ResolvedConfiguration) -> str | None:
    """Why a candidate's scores do not compare with this search's, if they do not."""
    if candidate.tune.scheduler == "population_based":
        return "of population based training, whose settings changed on the way"
    mine, theirs = (
        {**{key: config.to_plain(of)[key] for key in SEARCHED},
         "evaluate": {"weights": of.scored_weights}, "tune": {"samples": of.tune.samples}}
        for of in (configuration, candidate)
    )  # fmt: skip
    changed = config.first_difference(mine, theirs, ignore=[*configuration.tune.space, "algorithm.steps"])
    return f"with another {changed[0]}" if changed else None
