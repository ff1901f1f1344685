"""How long a run takes on this machine: a few real steps timed, times what there is to do."""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.conditions.base import UNCONDITIONAL, Conditions
from gan_core.randomness import stream
from pipelines.config import ResolvedConfiguration
from pipelines.config.candidates import candidate_configurations, rung_steps
from pipelines.runs.time_left import FINISH, RAY_START, TRIALS_START, WORKERS_START

# Torch is imported only where steps are timed.

STEPS, SECONDS = 50, 1.0  # of timed steps, at most, for each kind of nets
KINDS = 3  # of candidates' nets that are timed; the others take their mean
GRID, SEARCH_GRID = 10, 40  # bandwidths of the two protocols


@dataclass(frozen=True)
class TimeEstimate:
    """Seconds of each part of a run, its processes' start included."""

    search: float
    training: float
    scoring: float  # and registration, and the page
    reading: float = 0.0
    step: float = 0.0  # of the training, one
    inference: float = 0.0  # the encoder's training

    @property
    def total(self) -> float:
        """Seconds from the command to the prompt."""
        return RAY_START + self.reading + self.search + self.training + self.inference + self.scoring

    def __str__(self) -> str:
        named = {"search": self.search, "training": self.training, "encoder": self.inference}
        named["scores and page"] = self.scoring
        parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in named.items() if seconds)
        return f"about {duration(self.total)} on {processors()} idle CPUs: {parts}"


def duration(seconds: float) -> str:
    """A time for people, in two digits."""
    units = (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600), ("days", 86400, math.inf))
    unit, size = next((unit, size) for unit, size, most in units if seconds < most)
    return f"{seconds / size:.2g} {unit}" if seconds < 99.5 * size else f"{seconds / size:.0f} {unit}"


def processors() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def time_estimate(
    configuration: ResolvedConfiguration,
    shape: tuple[int, ...],
    counts: Mapping[str, int],
    conditions: Conditions = UNCONDITIONAL,
    stages: tuple[str, ...] = ("tune", "train", "evaluate", "register", "report"),
    reading: float = 0.0,
) -> TimeEstimate:
    """What these stages take on this machine, for images of this shape, so many in each split.

    Steps are timed here and now, on images of noise, with a run's threads, devices and share of a batch.
    """
    clock = _Clock(shape, conditions)
    train, tune, steps = configuration.train, configuration.tune, configuration.algorithm.steps
    searched = "tune" in stages and tune.candidates > 0
    search = _search_seconds(configuration, counts, clock) if searched else 0.0
    step = training = inference = scoring = 0.0
    if "train" in stages:
        crowded = max(1.0, train.workers * train.threads_per_worker / processors())
        step = crowded * clock.step(configuration, train.workers, train.threads_per_worker, _device(train.gpu))
        trained = min(steps, rung_steps(configuration, tune.rungs)[-1]) if searched and _goes_on(configuration) else 0
        training = WORKERS_START + (steps - trained) * step
    if "infer" in stages:
        device, settings = _device(train.gpu), configuration.extension.inference
        each = clock.encoder_step(configuration, train.threads_per_worker, device)
        inference = WORKERS_START + settings.steps * each
    if "evaluate" in stages:
        scoring = FINISH + _scoring_seconds(configuration, counts, clock)
    return TimeEstimate(search, training, scoring, reading, step, inference)


def concurrency(configuration: ResolvedConfiguration) -> int:
    """How many trials this machine runs at a time."""
    tune = configuration.tune
    most = min(tune.candidates, tune.max_concurrent or tune.candidates)
    return max(1, min(most, int(processors() / tune.resources_per_trial.cpu + 1e-9)))


@dataclass
class _Clock:
    """Times a step of a configuration, and a pair of the Parzen window, each once."""

    shape: tuple[int, ...]
    conditions: Conditions
    known: dict[Any, float] = field(default_factory=dict)

    def step(self, configuration: ResolvedConfiguration, workers: int, threads: int, device: str) -> float:
        """Seconds of one step of one of the workers."""
        kind = _kind(configuration), workers, threads, device
        if kind not in self.known:
            self.known[kind] = self._timed(configuration, workers, threads, device)
        return self.known[kind]

    def pairs(self, points: int, samples: int, bandwidths: int) -> float:
        """Seconds of one thread for a Parzen window of so many points, samples and bandwidths."""
        one, ten = self.known.get("one"), self.known.get("ten")
        if one is None or ten is None:
            one, ten = self.known["one"], self.known["ten"] = self._timed_pairs(1), self._timed_pairs(10)
        each = max(0.0, ten - one) / 9
        return points * samples * (max(one - each, 0.0) + bandwidths * each)

    def _timed(self, configuration: ResolvedConfiguration, workers: int, threads: int, device: str) -> float:
        import torch

        from gan_core.algorithm1 import train_step
        from gan_core.data_parallel import Shards
        from gan_core.datasets import Examples
        from gan_core.draws import DrawSource
        from gan_core.training import BatchSource, initial_state

        settings = configuration.training()
        algorithm, count = settings.algorithm, 2 * settings.algorithm.batch_size
        images = stream(0, "timed images").random((count, math.prod(self.shape)), dtype=np.float32)
        data, on = Examples(images, np.zeros(count, np.int64)), torch.device(device)
        state = initial_state(settings, data, self.shape, self.conditions).to(on)
        batches = BatchSource(settings.seed, data, algorithm.batch_size, on, self.conditions)
        draws = DrawSource(
            settings.seed, settings.noise, state.discriminator.dropout, algorithm.batch_size,
            algorithm.discriminator_steps, algorithm.share_draws, on,
        )  # fmt: skip
        # One worker's part: its rows of the whole batch's draws, and nobody to add gradients with.
        rows = Shards(algorithm.batch_size, settings.virtual_shards, workers).rows
        own = Shards(algorithm.batch_size // workers, settings.virtual_shards // workers)

        def step(number: int) -> None:
            first = number * algorithm.discriminator_steps
            real = [batches.at(first + k, rows) for k in range(algorithm.discriminator_steps)]
            outcome = train_step(state, real, draws.at(number, rows), algorithm, own, batches.per_epoch)
            float(outcome.descent.loss)  # waits for a GPU

        return _threaded(step, threads, device)

    def encoder_step(self, configuration: ResolvedConfiguration, threads: int, device: str) -> float:
        """Seconds of one step of the encoder's training, by one worker."""
        import torch

        from gan_core.datasets import Examples
        from gan_core.extensions.inference import initial_encoder, train_encoder
        from gan_core.portable import PortableGenerator
        from gan_core.training import initial_state

        settings, training = configuration.extension.inference, configuration.training()
        count, on = settings.batch_size, torch.device(device)
        images = stream(0, "timed images").random((count, math.prod(self.shape)), dtype=np.float32)
        data = Examples(images, np.zeros(count, np.int64))
        generator = initial_state(training, data, self.shape).generator.eval()
        model = PortableGenerator(generator, training.noise, training.network.generator, self.shape)
        endless = replace(settings, steps=2**31)
        state = initial_encoder(settings, model, 0).to(on)
        reports = train_encoder(model, endless, 0, data, state, lambda step: True)  # a report a step waits for a GPU
        return _threaded(lambda _: next(reports), threads, device)

    def _timed_pairs(self, bandwidths: int) -> float:
        from gan_core.metrics.parzen import parzen_log_density
        from gan_core.threads import one_thread

        points, samples = 500, 2000
        rows = stream(0, "timed points").random((samples, math.prod(self.shape)), dtype=np.float32)
        sigmas = [float(sigma) for sigma in np.geomspace(0.1, 1, bandwidths)]
        with one_thread():
            return _median(lambda _: parzen_log_density(rows[:points], rows, sigmas), time.process_time, 10) / (
                points * samples
            )


def _threaded(step: Callable[[int], object], threads: int, device: str) -> float:
    """The time of a step on a device, by so many threads."""
    import torch

    if device != "cpu":
        return _median(step, time.perf_counter)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = _median(step, time.process_time)
        torch.set_num_threads(threads)
        # What several threads gain only the clock says, and on a busy machine they gain nothing but waiting.
        return alone if threads == 1 else min(alone, _median(step, time.perf_counter))
    finally:
        torch.set_num_threads(before)


def _median(work: Callable[[int], object], clock: Callable[[], float], most: int = STEPS) -> float:
    """The median time of a work, done a few times after a first that makes ready; of a long work, that first time.

    By the process's CPU time neighbours on the machine change nothing.
    """

    def timed(number: int) -> float:
        started = clock()
        work(number)
        return clock() - started

    end = time.perf_counter() + SECONDS
    first = timed(0)
    if time.perf_counter() > end:
        return first
    times = [timed(1)]
    while len(times) < most and time.perf_counter() < end:
        times.append(timed(len(times) + 1))
    return statistics.median(times)


def _kind(configuration: ResolvedConfiguration) -> tuple[Any, ...]:
    """What of a configuration a step's time depends on: all but rates, their decay and the number of steps."""
    defaults = AlgorithmSettings()
    algorithm = replace(
        configuration.algorithm,
        generator_learning_rate=defaults.generator_learning_rate,
        discriminator_learning_rate=defaults.discriminator_learning_rate,
        learning_rate_decay=defaults.learning_rate_decay,
        minimum_learning_rate=defaults.minimum_learning_rate,
        momentum=defaults.momentum,
        adam=defaults.adam,
        steps=1,
    )
    return algorithm, configuration.network, configuration.noise


def _device(gpu: object) -> str:
    import torch

    return "cuda" if gpu is not False and torch.cuda.is_available() else "cpu"


def _goes_on(configuration: ResolvedConfiguration) -> bool:
    """Whether the training goes on from the search's last rung, as `stages.train` decides."""
    trials, train = configuration.tune.resources_per_trial, configuration.train
    same = max(1, int(trials.cpu)) == train.threads_per_worker and bool(trials.gpu) == (_device(train.gpu) == "cuda")
    return same and configuration.tune.scheduler != "population_based"


def _search_seconds(configuration: ResolvedConfiguration, counts: Mapping[str, int], clock: _Clock) -> float:
    """The search, rung by rung, and its confirmations, as many as it may make."""
    tune, at_once = configuration.tune, concurrency(configuration)
    threads, device = max(1, int(tune.resources_per_trial.cpu)), "cuda" if tune.resources_per_trial.gpu else "cpu"
    kinds = {_kind(each): each for each in candidate_configurations(configuration)}
    step = statistics.mean(
        clock.step(each, 1, threads, device if device == "cpu" else _device("auto"))
        for each in [*kinds.values()][:KINDS]
    )
    score = clock.pairs(counts["validation"], tune.samples, GRID + tune.sample_sets)

    def waves(trials: int, steps: float) -> float:
        return math.ceil(trials / at_once) * (steps * step + score)

    rungs = [
        statistics.mean(steps) for steps in zip(*(rung_steps(each, tune.rungs) for each in kinds.values()), strict=True)
    ]
    seconds, left, before = TRIALS_START, tune.candidates, 0.0
    for rung in rungs:
        seconds += waves(left, rung - before)
        before = rung
        if tune.cuts:
            left = min(left, max(1, int(left * tune.keep + 0.5)) + int(tune.include_default))
    finalists = min(tune.candidates, tune.confirm.best + int(tune.include_default))
    if tune.confirm.seeds > 1 and finalists > 1:
        seconds += TRIALS_START / 2 + waves(finalists * (tune.confirm.seeds - 1), rungs[-1])
    return min(seconds, tune.time_budget_s or math.inf)


def _scoring_seconds(configuration: ResolvedConfiguration, counts: Mapping[str, int], clock: _Clock) -> float:
    """Both protocols and the rows beside them, neighbours in pixel space, and the gate's sets of samples, on all CPUs."""
    samples, validation, test = configuration.evaluate.samples, counts["validation"], counts["test"]
    rows = 3 + bool(configuration.algorithm.generator_average)  # the model, its other weights, two references
    scores = rows * (clock.pairs(validation, samples, GRID) + clock.pairs(test, samples, 1))
    scores += clock.pairs(validation, samples, SEARCH_GRID) + clock.pairs(test, samples, 1)
    compared = min(test, counts["train"], samples)
    neighbours = rows * (3 * compared**2 + 2 * min(compared, 2000) * counts["train"]) + 4 * 500 * counts["train"]
    gate = clock.pairs(counts["gate"], samples, 2 * configuration.registry.gate.sample_sets)
    return (scores + clock.pairs(neighbours, 1, 0) + gate) / processors()
