"""The search's and the confirmations' trials, run by Ray Tune, and the rows they report."""

import math
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
from pipelines.runtime.lost_resources import Losses, Lost
from pipelines.runtime.progress import Shortage
from pipelines.search.trial import Search, trial
from pipelines.storage import Storage, check_storage, run_layout

MEMORY_OF_RAY = 2**20  # bytes that Ray Tune keeps of a search beside the weights
CHECK_SECONDS = 1.0  # between looks at the disk
KEPT = (  # of a result; `budget` is of a search by updates
    "step", "budget", "status", "log_likelihood", "standard_error", "sigma", "coverage", "value", "updates", "seconds",
    "device_seconds", "stretch",
)  # fmt: skip


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
        from pipelines.search.schedulers import make_scheduler

        settings, seed = self.configuration.tune, self.configuration.seed
        scheduler = make_scheduler(settings, settings.rungs, seed, self.max_concurrent)
        if settings.searcher == "tpe":
            self._run("search", None, settings.rungs, scheduler)
            return
        candidates = draw_candidates(self.configuration)
        jobs = [{"candidate": index, "seed": seed, **values} for index, values in enumerate(candidates)]
        self._run("search", jobs, settings.rungs, scheduler)

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
        self._run("confirm", jobs, (step,) if settings.cuts else settings.rungs, None)

    def _run(self, stage: str, jobs: list[dict[str, Any]] | None, rungs: tuple[int, ...], scheduler: Any) -> None:
        """Run one trial for each job, or for each of Optuna's suggestions, and collect their rows."""
        from ray import tune
        from ray.tune.search import ConcurrencyLimiter

        from pipelines.search.optuna_tpe import Suggestions
        from pipelines.search.placement import place_patiently
        from pipelines.search.schedulers import Variants

        settings = self.configuration.tune
        folder = self.run.child(run_layout.TUNE)
        folder.child(stage).remove()  # Ray's own working memory, which may be damaged; ours is the truth
        limits = {"cpu": settings.resources_per_trial.cpu, "gpu": settings.resources_per_trial.gpu}
        shortage = Shortage("tune", {"CPU": limits["cpu"], "GPU": limits["gpu"]}, self.log)
        losses = Losses("tune", self.log)
        watcher = _watcher(shortage, self.configuration.train.start_timeout_s, losses, self._check_disk)
        searcher: Any = Variants(self.max_concurrent)
        if jobs is None:
            learned = self.run.read_json(run_layout.LEARNED) or {"observations": []}
            suggestions = Suggestions(self.configuration, self.results, learned["observations"])
            searcher = ConcurrencyLimiter(suggestions, max_concurrent=self.max_concurrent)
        place_patiently()
        tuner = tune.Tuner(
            tune.with_resources(self._trainable(rungs), limits),
            param_space={} if jobs is None else {"job": tune.grid_search(jobs)},
            tune_config=tune.TuneConfig(
                metric="log_likelihood",
                mode="max",
                search_alg=searcher,
                num_samples=settings.candidates if jobs is None else 1,
                scheduler=scheduler,
                reuse_actors=True,
                time_budget_s=self.seconds_left,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=stage,
                storage_path=folder.uri,
                verbose=0,
                stop={"rung": len(rungs)} if settings.scheduler == "population_based" else None,
                failure_config=tune.FailureConfig(max_failures=settings.max_failures),
                callbacks=[_collector(stage, self.rows, self.log, self._check_storage), watcher],
            ),
        )
        failed = self._fit(tuner, watcher, shortage)
        self.failed += failed
        if not failed:  # else their errors are in it
            folder.child(stage).remove()

    def _fit(self, tuner: Any, watcher: Any, shortage: Shortage) -> int:
        """Let the trials run to their end, and count those that failed.

        Raises:
            Lost: If a Ray of our own has lost what they wait for.
            CheckpointError: If the storage refuses, or no node had room for a trial.
        """
        try:
            return int(tuner.fit().num_errors)
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

    def _trainable(self, rungs: tuple[int, ...]) -> Any:
        """A trial to these rungs, within the time that is left."""
        from ray import tune

        left = self.seconds_left
        search = Search(self.configuration, rungs, self.results, None if left is None else time.time() + left)
        return tune.with_parameters(trial, search=search, dataset=self.dataset)

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


def _watcher(shortage: Shortage, limit: float, losses: Losses, check_disk: Callable[[], None]) -> Any:
    from ray.tune import Callback

    class Watcher(Callback):  # type: ignore[misc]
        """Ends a search that has no room any more: for its trials, which Ray Tune would wait for, or on its disk.

        Of a full disk Ray Tune learns by a trial's last failure, after minutes.
        """

        lost: Lost | None = None
        checked_at = -math.inf

        def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
            if time.monotonic() - self.checked_at >= CHECK_SECONDS:
                check_disk()
                self.checked_at = time.monotonic()
            if shortage.check() > limit:
                raise RuntimeError(shortage.missing)
            self.lost = losses.check()
            if self.lost:
                raise self.lost

    return Watcher()


def _collector(
    stage: str,
    rows: list[dict[str, Any]],
    log: Callable[[str], None],
    check_storage: Callable[[], None],
) -> Any:
    from ray.tune import Callback

    class Collector(Callback):  # type: ignore[misc]
        """Keeps every result as a row of the table, and logs it."""

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            row = {"stage": stage, **result["config"]["job"], **{name: result[name] for name in KEPT if name in result}}
            identity = [row[name] for name in ("candidate", "seed", "step", "stretch")]
            if any(identity == [other[name] for name in ("candidate", "seed", "step", "stretch")] for other in rows):
                return  # of a trial that was tried again
            rows.append(row)
            place = f"tune   {stage} candidate {row['candidate']} seed {row['seed']} step {row['step']}"
            if row["status"] == "diverged":
                log(f"{place}  diverged")
            else:
                log(
                    f"{place}  log-likelihood {row['log_likelihood']:.1f} ± {row['standard_error']:.1f} nats  "
                    f"coverage {row['coverage']:.2f}  {row['device_seconds']:.1f} device-seconds"
                )

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            check_storage()
            log(f"tune   {stage} candidate {trial.config['job']['candidate']} failed; see {trial.path}")

    return Collector()


def _trial_name(trial: Any) -> str:
    job = trial.config["job"]
    return f"candidate-{job['candidate']}-seed-{job['seed']}"
