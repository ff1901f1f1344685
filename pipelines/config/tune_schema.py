"""What the search can be told: candidates, known points, searcher, scheduler, rungs, space, budget, resources."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

MOST_CANDIDATES = 10_000  # all are drawn, and checked, before the first is trained
# Settings that came later, at the values by which a search is as it was without them: digests leave them out then.
LATER = {"learn_from": [], "learn_best": 3, "rung_unit": "steps", "members": 1, "batched": None}

# What population based training may change in the middle of a training: settings read anew by every
# update. Others would need another network, other moments, or another count of updates and batches.
PER_UPDATE = (
    "algorithm.generator_learning_rate",
    "algorithm.discriminator_learning_rate",
    "algorithm.learning_rate_decay",
    "algorithm.minimum_learning_rate",
    "algorithm.generator_loss",
    "algorithm.discriminator_loss_scale",
    "algorithm.momentum.",
    "algorithm.adam.",
)


@dataclass(frozen=True)
class ConfirmSettings:
    """How many of the search's best stand against the configuration, and over how many seeds in all, at most.

    One seed compares the trained nets themselves. With three or more, the first chooses whom to compare, and each
    other seed is one of the test's sample: the finalists are trained again, and those that are out by then are not.
    """

    best: int = 2
    seeds: int = 4

    def __post_init__(self) -> None:
        at_least(1, "tune.confirm.best", self.best)
        at_least(1, "tune.confirm.seeds", self.seeds)


@dataclass(frozen=True)
class ResourceSettings:
    """What one trial occupies; parts of a GPU are allowed."""

    cpu: float = 1.0
    gpu: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.cpu < math.inf or not 0 <= self.gpu < math.inf:
            raise ValueError(
                f"tune.resources_per_trial cpu {self.cpu}, gpu {self.gpu}: cpu must be positive, gpu not negative"
            )
        if self.gpu > 1 and self.gpu != int(self.gpu):
            raise ValueError(f"tune.resources_per_trial.gpu {self.gpu} is not a part of one GPU or a whole number")


@dataclass(frozen=True)
class TuneSettings:
    """Ray Tune: which candidates there are, when they are cut, and how the best few are confirmed.

    The first candidate is the configuration itself (`include_default`), which no rung cuts, and another is chosen
    only if it is better by the promotion gate's test; the next are `points`, whose other settings are the
    configuration's, and the best of the searches of the runs `learn_from`, on the same data; the searcher gives the
    rest, `tpe` with those searches' scores in mind.

    `space` maps a configuration key to a distribution: {choice: [..]}, {uniform: [a, b]},
    {log_uniform: [a, b]} or {integer: [a, b]}, bounds included.

    `searcher`: `random` draws all candidates up front from the seed; `grid` takes the first
    `candidates` points of the product of all choices and integers, keys in alphabetical order, the
    last one varying fastest; `tpe` lets Optuna suggest each from the scores of those before.

    Rungs count steps of G or, by `rung_unit`, updates of D and G, of which a step has k + 1: then a candidate with a
    greater k comes to a rung, and is compared there, after fewer steps.

    `scheduler`: `synchronous_halving` cuts a rung when all have reached it, those below
    `min_coverage` first; `asha` cuts each as it arrives, its reduction factor 1 / `keep`;
    `median_stopping` stops what is below the median of the others' means; `population_based`
    replaces, at each rung, the worst 1 - `keep` (at most half) by copies of the best whose settings
    are perturbed; `none` cuts nothing. A search is repeatable to the bit with `synchronous_halving`
    or `none` and candidates known up front (`random`, `grid`); with the others the order of arrival
    decides.

    `members` is how many candidates one trial trains, a population; `auto` deals them all to as many trials as run at a
    time. It changes no score, no weight and no choice, and saves what a trial costs beside its training. Members that are
    `batched` are one program where their nets, k and batch size allow, and then equal to what they are alone to rounding.
    """

    candidates: int = 0  # the configuration and `points` among them; 0: no search
    members: int | Literal["auto"] = 1  # candidates of a trial
    batched: bool | None = None  # members of one program trained as one; none: on a GPU
    include_default: bool = True
    points: tuple[Mapping[str, Any], ...] = ()  # candidates by hand: values of settings of the space
    learn_from: tuple[str, ...] = ()  # runs; what they have found is taken once, when the run is created
    learn_best: int = 3  # of their candidates, at most
    searcher: Literal["random", "grid", "tpe"] = "random"
    scheduler: Literal["synchronous_halving", "asha", "median_stopping", "population_based", "none"] = (
        "synchronous_halving"
    )
    rungs: tuple[int, ...] = (500, 1000)  # the last one ends a candidate
    rung_unit: Literal["steps", "updates"] = "steps"  # steps of G, or updates of D and G: k + 1 in a step
    keep: float = 0.5  # of a rung's candidates, at least one; 1.0 cuts none
    space: Mapping[str, Mapping[str, list[Any]]] = field(default_factory=dict)
    confirm: ConfirmSettings = field(default_factory=ConfirmSettings)
    min_coverage: float = 0.0  # of the validation points, by a candidate that may be chosen
    samples: int = 2000  # of G, for a score
    sample_sets: int = 4  # of so many samples each, for a score and its standard error
    time_budget_s: float | None = None  # of the search and its confirmations together, each time it is started
    max_concurrent: int | None = None  # default: what the cluster's CPUs and GPUs have room for
    resources_per_trial: ResourceSettings = field(default_factory=ResourceSettings)
    max_failures: int = 1

    def __post_init__(self) -> None:
        at_least(0, "tune.candidates", self.candidates)
        if self.candidates > MOST_CANDIDATES:
            raise ValueError(f"tune.candidates {self.candidates} is too many; use {MOST_CANDIDATES} or fewer")
        at_least(1, "tune.learn_best", self.learn_best)
        if self.members != "auto":
            at_least(1, "tune.members", self.members)
        at_least(10, "tune.samples", self.samples)
        at_least(1, "tune.sample_sets", self.sample_sets)
        at_least(0, "tune.max_failures", self.max_failures)
        if self.max_concurrent is not None:
            at_least(1, "tune.max_concurrent", self.max_concurrent)
        if self.time_budget_s is not None and not 0 < self.time_budget_s < math.inf:
            raise ValueError(f"tune.time_budget_s {self.time_budget_s} is not a positive number of seconds")
        if not self.rungs or self.rungs[0] < 1 or list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"tune.rungs {list(self.rungs)} are not steps in rising order")
        if not 0 < self.keep <= 1:
            raise ValueError(f"tune.keep {self.keep} is not between 0 and 1; 1.0 cuts none")
        if not 0 <= self.min_coverage <= 1:
            raise ValueError(f"tune.min_coverage {self.min_coverage} is not in [0, 1]")
        if self.candidates and not self.space:
            raise ValueError("tune.space is empty; name the settings to search, or set tune.candidates to 0")
        for key, distribution in self.space.items():
            check_distribution(f"tune.space.{key}", distribution)
        if self.candidates:
            self._check_points()
            self._check_test()
            self._check_searcher()
            self._check_scheduler()

    @property
    def trains_batched(self) -> bool:
        """Whether the members of a population are trained as batched programs."""
        return self.members != 1 and (self.resources_per_trial.gpu > 0 if self.batched is None else self.batched)

    @property
    def cuts(self) -> bool:
        """Whether a candidate can end before the last rung without having failed."""
        by_share = self.scheduler not in ("none", "median_stopping") and self.keep < 1
        return len(self.rungs) > 1 and (by_share or self.scheduler == "median_stopping")

    @property
    def grid_size(self) -> int:
        """Points of the product of the space's choices and integers."""
        return math.prod(len(grid_values(distribution)) for distribution in self.space.values())

    @property
    def known_points(self) -> int:
        """Candidates before the searcher's: the configuration and `points`."""
        return int(self.include_default) + len(self.points)

    def _check_points(self) -> None:
        if self.known_points > self.candidates:
            raise ValueError(
                f"tune.candidates {self.candidates} is less than the configuration and tune.points, {self.known_points}; "
                f"use {self.known_points} or more"
            )
        for number, point in enumerate(self.points):
            foreign = [key for key in point if key not in self.space]
            if foreign or not point:
                raise ValueError(
                    f"tune.points {number} {', '.join(foreign) or 'is empty'}: not searched; tune.space has "
                    f"{', '.join(self.space)}"
                )

    def _check_test(self) -> None:
        """Refuse a comparison with the configuration that could tell nothing of chance."""
        if not self.include_default or self.candidates == self.include_default:
            return
        if self.confirm.seeds == 2 or (self.confirm.seeds == 1 and self.scheduler == "population_based"):
            raise ValueError(
                f"tune.confirm.seeds {self.confirm.seeds}: the first chooses whom to compare with the configuration, and the "
                "test is of the others; use 3 or more, or tune.include_default false"
                + ("" if self.scheduler == "population_based" else ", or 1 to compare the trained nets")
            )
        if self.confirm.seeds == 1 and self.sample_sets == 1:
            raise ValueError(
                "tune.sample_sets 1 with tune.confirm.seeds 1 compares the configuration without a test; use 2 or more"
            )

    def _check_searcher(self) -> None:
        if self.searcher == "grid":
            for key, distribution in self.space.items():
                if not {"choice", "integer"} & distribution.keys():
                    raise ValueError(
                        f"tune.space.{key} {dict(distribution)} has no grid; tune.searcher grid takes choice or integer"
                    )
            most = self.grid_size + self.known_points
            if self.candidates > most:
                raise ValueError(
                    f"tune.candidates {self.candidates} is more than the grid's {self.grid_size} points"
                    + (f" and {self.known_points} that are given" if self.known_points else "")
                    + f"; use {most}, or fewer to take the grid's first points only"
                )
        if self.searcher == "tpe" and self.scheduler in ("synchronous_halving", "population_based"):
            raise ValueError(
                f"tune.searcher tpe suggests one candidate after another and tune.scheduler {self.scheduler} needs all "
                "of them at once; use tune.scheduler asha, median_stopping or none, or tune.searcher random"
            )

    def _check_scheduler(self) -> None:
        if self.members != 1 and (self.searcher == "tpe" or self.scheduler not in ("synchronous_halving", "none")):
            raise ValueError(
                f"tune.members {self.members} needs candidates that are known up front and cut together: tune.searcher random "
                f"or grid and tune.scheduler synchronous_halving or none, not {self.searcher} and {self.scheduler}"
            )
        if self.scheduler == "asha" and self.keep == 1:
            raise ValueError("tune.keep 1.0 leaves tune.scheduler asha nothing to cut; use tune.scheduler none")
        if self.scheduler != "population_based":
            return
        fixed = [key for key in self.space if not key.startswith(PER_UPDATE)]
        if fixed:
            raise ValueError(
                f"tune.space {', '.join(fixed)} cannot change during a training; tune.scheduler population_based "
                f"takes {', '.join(key + '*' if key.endswith('.') else key for key in PER_UPDATE)}"
            )
        if len(self.rungs) < 2 or self.candidates < 2:
            raise ValueError(
                f"tune.scheduler population_based compares candidates at rungs: {self.candidates} candidates and "
                f"{len(self.rungs)} rungs are too few; use 2 or more of each"
            )
        if self.max_concurrent is not None and self.max_concurrent < self.candidates:
            raise ValueError(
                f"tune.max_concurrent {self.max_concurrent} is less than tune.candidates {self.candidates}; tune.scheduler "
                "population_based shares the cluster's resources among all: leave it null"
            )


def grid_values(distribution: Mapping[str, list[Any]]) -> list[Any]:
    """The values of a choice, or the integers of a range, bounds included."""
    if "choice" in distribution:
        return list(distribution["choice"])
    low, high = distribution["integer"]
    return list(range(low, high + 1))


def check_distribution(where: str, distribution: Mapping[str, list[Any]]) -> None:
    """Refuse a search distribution that cannot be sampled.

    Raises:
        ValueError: If its kind is unknown, it is empty or inverted, or a log scale starts at 0.
    """
    kinds = ("choice", "uniform", "log_uniform", "integer")
    if len(distribution) != 1 or next(iter(distribution)) not in kinds:
        raise ValueError(f"{where} {dict(distribution)} is not a distribution; use one of {', '.join(kinds)}")
    kind, values = next(iter(distribution.items()))
    if kind == "choice":
        if not values:
            raise ValueError(f"{where} is an empty choice; name at least one value")
        return
    if len(values) != 2 or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise ValueError(f"{where} {values} is not a pair of numbers [low, high]")
    if kind == "integer" and not all(isinstance(value, int) for value in values):
        raise ValueError(f"{where} {values} is not a pair of integers")
    if not -math.inf < values[0] < values[1] < math.inf:
        raise ValueError(f"{where} {values} is inverted, empty or endless; use [low, high] with low < high")
    if kind == "log_uniform" and not values[0] > 0:
        raise ValueError(f"{where} {values} has no logarithm at its lower end; use a positive one")


def at_least(minimum: int, name: str, value: int) -> None:
    """Refuse a number below the smallest one allowed.

    Raises:
        ValueError: If it is.
    """
    if value < minimum:
        raise ValueError(f"{name} {value} is too small; use {minimum} or more")
