"""What can be known to be wrong before a run starts: its data, its candidates, its storage, the registry it ends in."""

from gan_core import networks
from gan_core.conditions.settings import conditions_of
from gan_core.datasets import Dataset
from gan_core.errors import ConfigurationError
from gan_core.training import initial_state
from pipelines.config.candidates import candidate_configurations
from pipelines.registry.tracking import check_ready
from pipelines.runs import warm_start
from pipelines.runs.run import Run
from pipelines.storage import check_storage


def check(run: Run, dataset: Dataset, tracking_uri: str) -> None:
    """Refuse a run that could not be finished; `tracking_uri` is empty where nothing is registered.

    Raises:
        GanError: The first fault found.
    """
    settings = run.configuration
    candidates = candidate_configurations(settings) if settings.tune.candidates else []
    conditions = conditions_of(settings.extension, dataset)
    for configuration in (settings, *candidates):
        networks.check(configuration.network, configuration.noise.size, dataset.shape, conditions.size)
    smallest = min(len(examples) for examples in dataset.splits().values())
    train, evaluate = len(dataset.train), settings.evaluate
    for what, key, given, allowed, most in (
        ("batch too large", "algorithm.batch_size", settings.algorithm.batch_size, f"at most {train}, the training examples", train),
        ("too many folds", "evaluate.folds", evaluate.folds, f"at most {smallest}", smallest),
        ("too many neighbours", "evaluate.neighbours", evaluate.neighbours, f"less than {smallest}", smallest - 1),
    ):  # fmt: skip
        if given > most:
            raise ConfigurationError(what, key, f"{given}", allowed)
    initial = initial_state(settings.training(), dataset.train, dataset.shape, conditions)
    check_storage(run.folder, initial.nbytes * (settings.train.keep_checkpoints + 1))
    warm_start.check_data(run, dataset)
    if tracking_uri:
        check_ready(tracking_uri, settings.registry.model)
