"""The search's and the confirmations' trials, run by Ray Tune, and the rows they report."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gan_core.conditions.settings import conditions_of
from gan_core.datasets import Dataset
from gan_core.errors import CheckpointError
from gan_core.training import initial_state
from pipelines.config import ResolvedConfiguration
from pipelines.config.candidates import draw_candidates
from pipelines.runtime.lost_resources import Losses
from pipelines.runtime.progress import Shortage
from pipelines.search.candidate_training import Search
from pipelines.search.population_shares import Job, Shares, deal
from pipelines.search.population_trial import population
from pipelines.search.trial import trial
from pipelines.storage import Storage, check_storage, run_layout

MEMORY_OF_RAY = 2**20  # bytes that Ray Tune keeps of a search beside the weights


@dataclass
class Trials:
    """The search's and the confirmations' trials, and the rows they report."""

    configuration: ResolvedConfiguration
    dataset: Dataset
    run: Storage
    results: Storage
    max_concurrent: int
    log: Callable[[str], None]
    started: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0

    @property
    def seconds_left(self) -> float | None:
        """Of the time budget, if there is one."""
        budget = self.configuration.tune.time_budget_s
        return None if budget is None else budget - (time.monotonic() - self.started)

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is over."""
        return self.seconds_left is not None and self.seconds_left <= 0

    def search(self) -> None:
        """Run the candidates under the scheduler."""
        settings, seed = self.configuration.tune, self.configuration.seed
        if settings.searcher == "tpe":
            self._run("search", None, settings.rungs)
            return
        candidates = draw_candidates(self.configuration)
        jobs = [{"candidate": index, "seed": seed, **values} for index, values in enumerate(candidates)]
        self._run("search", jobs, settings.rungs)

    def confirm(self, finalists: list[dict[str, Any]], seeds: Sequence[int], step: int) -> None:
        """Train finalists (rows) again, with other seeds, to the step they were compared at.

        They are scored at all rungs where the search cuts none: then the ranks of rungs and end can be
        compared over every candidate and seed.
        """
        settings = self.configuration.tune
        jobs = [
            {"candidate": row["candidate"], "seed": seed, **{key: row[key] for key in settings.space}}
            for row in finalists
            for seed in seeds
        ]
        self._run("confirm", jobs, (step,) if settings.cuts else settings.rungs)

    def _run(self, stage: str, jobs: list[Job] | None, rungs: tuple[int, ...]) -> None:
        """Run one trial for each job or population of them, or for each of Optuna's suggestions, and collect their rows."""
        from ray import tune
        from ray.tune.search import ConcurrencyLimiter

        from pipelines.search.optuna_tpe import Suggestions
        from pipelines.search.placement import place_patiently
        from pipelines.search.schedulers import Variants
        from pipelines.search.trial_callbacks import Collector, Watcher, trial_name

        settings, populations = self.configuration.tune, self._populations(jobs)
        folder = self.run.child(run_layout.TUNE)
        folder.child(stage).remove()  # Ray's own working memory, which may be damaged; ours is the truth
        limits = {"cpu": settings.resources_per_trial.cpu, "gpu": settings.resources_per_trial.gpu}
        shortage = Shortage("tune", {"CPU": limits["cpu"], "GPU": limits["gpu"]}, self.log)
        losses = Losses("tune", self.log)
        collector = Collector(stage, self.rows, self.log, self._check_storage)
        watcher = Watcher(shortage, self.configuration.train.start_timeout_s, losses, self._check_disk)
        searcher: Any = Variants(self.max_concurrent)
        if jobs is None:
            learned = self.run.read_json(run_layout.LEARNED) or {"observations": []}
            suggestions = Suggestions(self.configuration, self.results, learned["observations"])
            searcher = ConcurrencyLimiter(suggestions, max_concurrent=self.max_concurrent)
        place_patiently()
        tuner = tune.Tuner(
            tune.with_resources(self._trainable(stage, rungs, bool(populations)), limits),
            param_space=_each_a_trial(jobs, populations),
            tune_config=tune.TuneConfig(
                metric="log_likelihood",
                mode="max",
                search_alg=searcher,
                num_samples=settings.candidates if jobs is None else 1,
                scheduler=self._scheduler(stage, rungs, populations),
                reuse_actors=True,
                time_budget_s=self.seconds_left,
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
            ),
            run_config=tune.RunConfig(
                name=stage,
                storage_path=folder.uri,
                verbose=0,
                stop={"rung": len(rungs)} if settings.scheduler == "population_based" else None,
                failure_config=tune.FailureConfig(max_failures=settings.max_failures),
                callbacks=[collector, watcher],
            ),
        )
        self._fit(tuner, watcher, shortage)
        self.failed += collector.failed
        if not collector.failed:  # else their errors are in it
            folder.child(stage).remove()

    def _fit(self, tuner: Any, watcher: Any, shortage: Shortage) -> None:
        """Let the trials run to their end.

        Raises:
            Lost: If a Ray of our own has lost what they wait for.
            CheckpointError: If the storage refuses, or no node had room for a trial.
        """
        try:
            tuner.fit()
        except Exception as error:  # of a full disk Ray Tune makes errors of many names, EOFError is one
            if watcher.lost:
                raise watcher.lost from error
            self._check_storage()
            if shortage.seconds <= self.configuration.train.start_timeout_s:
                raise
            raise CheckpointError(
                "no room for a trial", "tune.resources_per_trial", f"{shortage.missing}, for {shortage.seconds:.0f} s",
                "nodes that have it; what was found is kept: run the same command again",
            ) from error  # fmt: skip

    def _populations(self, jobs: list[Job] | None) -> list[list[Job]]:
        """The jobs as the members of populations, each with about as many updates of D; none, where each is a trial."""
        steps, members = "algorithm.discriminator_steps", self.configuration.tune.members
        if jobs is None or members == 1 or (members == "auto" and self.max_concurrent >= len(jobs)):
            return []
        shares = self.max_concurrent if members == "auto" else -(-len(jobs) // members)
        return deal([(job, job.get(steps, 1)) for job in jobs], shares)

    def _scheduler(self, stage: str, rungs: tuple[int, ...], populations: list[list[Job]]) -> Any:
        """What cuts the trials, or the members of populations: nothing, where they confirm."""
        from pipelines.search.population_halving import PopulationHalving
        from pipelines.search.schedulers import make_scheduler

        settings, searching = self.configuration.tune, stage == "search"
        if not populations:
            return make_scheduler(settings, rungs, self.configuration.seed, self.max_concurrent) if searching else None
        return PopulationHalving(
            rungs,
            settings.keep if searching and settings.scheduler == "synchronous_halving" else 1.0,
            populations,
            self.max_concurrent,
            self._shares(stage).publish,
            settings.min_coverage,
            never_cut=0 if settings.include_default else None,
        )

    def _trainable(self, stage: str, rungs: tuple[int, ...], of_populations: bool) -> Any:
        """A trial, or a population, to these rungs, within the time that is left."""
        from ray import tune

        left = self.seconds_left
        search = Search(self.configuration, rungs, self.results, None if left is None else time.time() + left)
        if of_populations:
            return tune.with_parameters(population, search=search, dataset=self.dataset, shares=self._shares(stage))
        return tune.with_parameters(trial, search=search, dataset=self.dataset)

    def _shares(self, stage: str) -> Shares:
        """In Ray's own working memory of a stage, which begins empty."""
        return Shares(self.run.child(run_layout.TUNE, stage, "shares"))

    def _check_storage(self) -> None:
        """End a search whose storage refuses: that is no candidate's fault, and the next would fail as well.

        Raises:
            CheckpointError: If it does, or if a checkpoint has no room.
        """
        check_storage(self.run, self._checkpoint_bytes + MEMORY_OF_RAY)

    def _check_disk(self) -> None:
        """The same for a disk, at any time: a store may fail once."""
        if self.run.local is not None:
            self._check_storage()

    @cached_property
    def _checkpoint_bytes(self) -> int:
        conditions = conditions_of(self.configuration.extension, self.dataset)
        return initial_state(self.configuration.training(), self.dataset.train, self.dataset.shape, conditions).nbytes


def _each_a_trial(jobs: list[Job] | None, populations: list[list[Job]]) -> dict[str, Any]:
    """Ray Tune's space: the populations there are, else the jobs; none, where a searcher suggests them."""
    from ray import tune

    if populations:
        return {"population": tune.grid_search([{"members": members} for members in populations])}
    return {} if jobs is None else {"job": tune.grid_search(jobs)}
