"""The training of G and D by Algorithm 1, data-parallel, from its last verified checkpoint or the run's origin."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gan_core.checkpoint import tensors_digest
from gan_core.conditions.base import UNCONDITIONAL, Conditions
from gan_core.conditions.settings import conditions_of, described
from gan_core.data_parallel import Shards
from gan_core.datasets import Dataset, Examples
from gan_core.errors import CheckpointError, Diverged, GanError
from gan_core.state import AVERAGED, State, step_of
from gan_core.training import Report, TrainingSettings, initial_state, train
from pipelines import config
from pipelines.config import ResolvedConfiguration, TrainSettings
from pipelines.config.candidates import rung_steps
from pipelines.runs.records import TrainRecord
from pipelines.runs.resume import TrainingSpec, begin
from pipelines.runs.run import Run
from pipelines.search.results_store import TrainingSegment
from pipelines.search.scores import rung_score, scored_generator
from pipelines.stages.training_driver import run_training, uses_gpu
from pipelines.stages.training_samples import SampleStrip
from pipelines.storage import Storage, checkpoint_names, latest_checkpoint, run_layout, save_checkpoint
from pipelines.storage.metric_log import append_history

CHECKS = 4  # of a training's score after a search
CHANCE = 2.0  # standard errors


def gan_training(
    run: Storage,
    training: TrainingSettings,
    train_settings: TrainSettings,
    data_digest: str,
    image_shape: tuple[int, ...],
    conditions: Conditions = UNCONDITIONAL,
    validation: "Validation | None" = None,
    on_report: Callable[[State], None] | None = None,
) -> TrainingSpec:
    """Algorithm 1 on a data set, for the training driver."""
    algorithm = training.algorithm

    def reports(
        data: Examples, state: State, report_due: Callable[[int], bool], rank: int, workers: int
    ) -> Iterator[Report]:
        shards = Shards(algorithm.batch_size, training.virtual_shards, workers, rank)
        if validation is None:
            yield from train(training, data, state, algorithm.steps, report_due, shards, conditions)
            return
        due = lambda step: report_due(step) or step in validation.steps  # noqa: E731
        for report in train(training, data, state, algorithm.steps, due, shards, conditions):
            measures = validation.check(report.state) if report.step in validation.steps else {}
            yield replace(report, metrics={**report.metrics, **measures})

    return TrainingSpec(
        stage="train",
        title="training",
        remedy="start a new run: --name NAME",
        run=run,
        folder=run,
        checkpoints=run.child(run_layout.CHECKPOINTS),
        train=train_settings,
        steps=algorithm.steps,
        about={
            "data_digest": data_digest,
            "image_shape": list(image_shape),
            "training": config.to_plain(training),
            **({"conditions": described(conditions)} if conditions.size else {}),
        },
        initial_state=lambda data: initial_state(training, data, image_shape, conditions),
        reports=reports,
        progress_line=lambda row: progress_line(row, algorithm.steps),
        on_report=on_report,
        timed_history=True,  # MLflow's curves have it
    )


@dataclass(frozen=True)
class Validation:
    """Scores of a training on its way, at `steps`: one that fails while the search's runner-up did better is ended.

    Every worker computes the score, of the same bits, and ends at the same step.
    """

    steps: tuple[int, ...]
    configuration: ResolvedConfiguration
    examples: Examples
    conditions: Conditions
    itself: Mapping[str, Any]  # as it was at the search's last rung
    runner_up: Mapping[str, Any]

    def check(self, state: State) -> dict[str, float]:
        """The validation points' log-likelihood (nats) and coverage, as at a rung.

        Raises:
            Diverged: If it has collapsed: its coverage is below half of that at its last rung, or `tune.min_coverage`, and
                its score below both its own and the runner-up's there by more than chance.
        """
        tune, bar = self.configuration.tune, min(self.itself, self.runner_up, key=lambda row: row["log_likelihood"])
        scores, _ = rung_score(
            scored_generator(state, self.configuration.scored_weights),
            self.configuration.training(),
            self.examples,
            self.conditions,
            tune.samples,
            tune.sample_sets,
        )
        chance = CHANCE * math.hypot(scores["standard_error"], bar["standard_error"])
        covers = max(tune.min_coverage, self.itself["coverage"] / 2)
        if scores["log_likelihood"] + chance < bar["log_likelihood"] and scores["coverage"] < covers:
            raise Diverged(
                "failing training",
                f"step {int(state.step)}",
                f"validation log-likelihood {scores['log_likelihood']:.1f} nats, coverage {scores['coverage']:.2f}",
                f"what candidates {self.itself['candidate']} and {self.runner_up['candidate']} had at their last rung, "
                f"{bar['log_likelihood']:.1f} nats or more, or coverage of {covers:.2f}",
            )
        return {"validation_log_likelihood": scores["log_likelihood"], "validation_coverage": scores["coverage"]}


def progress_line(row: Mapping[str, float], steps: int) -> str:
    """A report of a training of so many steps, for people: V(D, G), or D's loss where the objective has no V."""
    left = (steps - row["step"]) / row["steps_per_second"]
    loss = f"V(D,G) {row['value']:.3f}" if "value" in row else f"D's loss {row['discriminator_loss']:.3f}"
    return (
        f"step {row['step']}/{steps}  {loss}  D right on real {row['real_accuracy']:.0%}, "
        f"fake {row['fake_accuracy']:.0%}  {row['images_per_second']:,.0f} images/s  about {left:.0f} s left"
    )


def train_run(
    configuration: ResolvedConfiguration,
    dataset: Dataset,
    run: Storage,
    log: Callable[[str], None],
    on_progress: Callable[[], None] | None = None,
    searched: Mapping[str, Any] | None = None,
) -> TrainRecord:
    """Train G and D on the cluster and return where the weights are.

    `on_progress` is called now and then while the workers train, to copy the history elsewhere. `searched` is the
    record of the search that chose the settings, whose training of them goes on.

    Raises:
        Diverged: If the losses stopped being finite; the last finite checkpoint is kept.
        CheckpointError: If the workers failed more often than `train.max_failures`.
        Lost: If a Ray started here has lost what they wait for; on another one the training goes on.
    """
    started = time.monotonic()
    training, conditions = configuration.training(), conditions_of(configuration.extension, dataset)
    validation = _validation(configuration, dataset, conditions, searched)
    strip = SampleStrip(run, configuration, dataset.shape, conditions)
    spec = gan_training(
        run, training, configuration.train, dataset.digest, dataset.shape, conditions, validation, strip.on_report
    )
    begin(spec, dataset.train)
    if not checkpoint_names(spec.checkpoints):
        strip.show(spec.initial_state(dataset.train))
        if searched and searched["segment"]:
            _go_on(spec, searched, configuration, strip, dataset.train, log)
    device = run_training(spec, dataset.train, log, on_progress)
    saved = latest_checkpoint(spec.checkpoints)
    if saved is None:
        raise CheckpointError("no checkpoint", run.uri, "none was written", "at least one after a training")
    name, manifest, tensors = saved
    return TrainRecord(
        run=run.name,
        step=manifest.step,
        checkpoint=spec.checkpoints.child(name).uri,
        weights_sha256=tensors_digest(tensors["generator"], tensors["discriminator"]),
        generator_sha256=tensors_digest(tensors["generator"]),
        device=device,
        seconds=time.monotonic() - started,
        averaged_sha256=tensors_digest(tensors[AVERAGED]) if AVERAGED in tensors else None,
    )


def _validation(
    configuration: ResolvedConfiguration, dataset: Dataset, conditions: Conditions, searched: Mapping[str, Any] | None
) -> Validation | None:
    """At four steps from the search's last rung to the end; none where no runner-up could go on, or one does already."""
    if searched is None or searched["failed_trainings"] or len(searched["finalists"]) < 2:
        return None
    first, last = searched["step"], configuration.algorithm.steps
    steps = tuple(first + (last - first) * part // CHECKS for part in range(1, CHECKS + 1) if last - first >= CHECKS)
    itself, runner_up, *_ = searched["finalists"]
    return Validation(steps, configuration, dataset.validation, conditions, itself, runner_up) if steps else None


def runners_up(searched: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A search's finalists beside its choice whose training has not failed, the best first."""
    tried = [searched["candidate"], *(failed["candidate"] for failed in searched["failed_trainings"])]
    return [finalist for finalist in searched["finalists"] if finalist["candidate"] not in tried]


def runner_up_goes_on(run: Run, error: GanError, log: Callable[[str], None]) -> bool:
    """Where the training of a search's choice has failed, make the runner-up the choice; whether there is one.

    The failed training is noted in the search's record, and its checkpoints are removed.
    """
    searched = run.record("tune") if run.configuration.tune.candidates else None
    following = next(iter(runners_up(searched)), None) if searched and isinstance(error, Diverged) else None
    if searched is None or following is None:
        return False
    log(f"train  {error}")
    log(f"train  candidate {following['candidate']} goes on instead of candidate {searched['candidate']}")
    # First: they are no training's of the new choice.
    for folder in (run_layout.CHECKPOINTS, run_layout.HISTORY, run_layout.SAMPLES):
        run.folder.child(folder).remove()
    failed = {"candidate": searched["candidate"], "chosen": searched["chosen"], "error": str(error)}
    kept = {key: following[key] for key in ("candidate", "chosen", "segment", "log_likelihood", "coverage")}
    kept["step"] = following.get("step", searched["step"])  # by updates, of another k it is another one
    reason = f"the training of candidate {searched['candidate']} failed"
    run.revise("tune", **kept, reason=reason, failed_trainings=[*searched["failed_trainings"], failed])
    return True


def _go_on(
    spec: TrainingSpec,
    searched: Mapping[str, Any],
    configuration: ResolvedConfiguration,
    strip: SampleStrip,
    data: Examples,
    log: Callable[[str], None],
) -> None:
    """Make the winner's weights at its last rung the training's first checkpoint, and its curve the history's beginning.

    Bits are those of an undisturbed training: one trial is a worker that has all shards. Only threads, and whether
    there is a GPU, must be the same; where they are not, the training starts over.
    """
    trials, workers = configuration.tune.resources_per_trial, (spec.train.threads_per_worker, uses_gpu(spec.train))
    if (max(1, int(trials.cpu)), bool(trials.gpu)) != workers:
        log(
            f"train  starts at step 0: trials had {trials.cpu:g} threads and {trials.gpu:g} GPUs, workers have "
            f"{workers[0]} and {int(workers[1])}, which changes the last bits"
        )
        return
    segment = TrainingSegment(spec.run.child(run_layout.TUNE, run_layout.RESULTS), searched["segment"])
    weights = segment.weights(min(searched["step"], spec.steps))
    if weights is None:
        log(f"train  starts at step 0: the search has kept no weights of candidate {searched['candidate']} up to there")
        return
    step = step_of(weights)
    append_history(spec.folder.child(run_layout.HISTORY), [row for row in segment.curve() if row["step"] <= step])
    save_checkpoint(spec.checkpoints, step, weights, spec.about, spec.train.keep_checkpoints)
    for rung in rung_steps(configuration, configuration.tune.rungs):
        if rung <= step:
            strip.show_weights(segment.weights(rung), spec.initial_state(data))
    log(f"train  goes on from step {step} of candidate {searched['candidate']}")
