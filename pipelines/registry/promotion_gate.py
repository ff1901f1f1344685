"""The promotion gate: a challenger fit to be champion and better in a paired test is promoted, any other refused with the reason."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gan_core.datasets import Dataset
from gan_core.errors import Collapsed, RegistryError
from gan_core.metrics.diagnosis import Diagnosis, diagnose
from gan_core.metrics.paired_test import Comparison, compare
from gan_core.metrics.parzen import paper_protocol, parzen_log_density
from gan_core.metrics.sample_quality import coverage
from gan_core.portable import PortableGenerator
from pipelines.config import GateSettings, ResolvedConfiguration, digest
from pipelines.registry.registry import ModelVersion, Registry


@dataclass(frozen=True)
class Verdict:
    """What the gate says, in a sentence, with the test behind it."""

    promoted: bool
    reason: str
    test: dict[str, Any] | None = None
    collapsed: bool = False  # or noise: a training that failed
    diagnosis: dict[str, Any] | None = None


@dataclass(frozen=True)
class Contender:
    """A model at the gate: its generator, the sigma that was chosen for it, and on which data."""

    name: str
    model: PortableGenerator
    sigma: float
    data_digest: str = ""  # unknown: its sigma is taken as it is


def contender(registry: Registry, version: ModelVersion) -> Contender:
    """A registered version, loaded for the gate.

    Raises:
        RegistryError: If it was not registered by gan, or has no sigma that can be one.
        CheckpointError: If its weights are damaged.
    """
    version.metrics()
    model = registry.load(version)
    try:
        return Contender(str(version), model, float(version.tags["sigma"]), version.tags.get("data_digest", ""))
    except (KeyError, ValueError) as error:
        raise RegistryError("not a model of ours", version, "no sigma tag", "a version registered by gan") from error


def judge_version(
    registry: Registry,
    version: ModelVersion,
    champion: ModelVersion | None,
    configuration: ResolvedConfiguration,
    dataset: Dataset,
) -> Verdict:
    """The gate on two versions of the registry, at a configuration's settings."""
    return judge(
        contender(registry, version),
        contender(registry, champion) if champion else None,
        dataset,
        configuration.registry.gate,
        configuration.evaluate.samples,
        configuration.seed,
    )


def judge(
    challenger: Contender, champion: Contender | None, dataset: Dataset, settings: GateSettings, samples: int, seed: int
) -> Verdict:
    """Refuse a challenger that is not fit to be champion; let the first one in; else ask for a significant advantage.

    Both are scored on the gate's points, which neither sigma nor the search has used, with samples
    that nothing else has drawn: `sample_seed` gives every pair its own, so that the champion is
    scored afresh each night, and asking again about the same pair is not another chance.
    """
    drawn = challenger.model.draw(samples, sample_seed(seed, challenger, champion), sample_set=1)
    points, training, validation = dataset.gate.images, dataset.train.references, dataset.validation.images
    diagnosis = diagnose(points, drawn.reshape(samples, -1), training, validation)
    if refused := refusal(diagnosis, settings):
        return refused
    if champion is None:
        covered = 100 * diagnosis.relative_coverage
        reason = f"first version to pass the gate, {covered:.0f} % of the training images' coverage"
        return Verdict(True, reason, diagnosis=asdict(diagnosis))
    if champion.model.sha256 == challenger.model.sha256:
        return Verdict(False, f"the same weights as the champion, {champion.name}")
    rivals = (challenger, champion)
    if differ := _other_images(rivals, dataset):
        return Verdict(False, f"not comparable with the champion: {differ}")
    scores = [log_densities(*pair, dataset, settings, samples, seed) for pair in (rivals, rivals[::-1])]
    verdict = decide(scores[0], scores[1], champion.name, settings)
    reason = verdict.reason + _scored_again(champion, dataset)
    return Verdict(verdict.promoted, reason, verdict.test, diagnosis=asdict(diagnosis))


def refusal(diagnosis: Diagnosis, settings: GateSettings) -> Verdict | None:
    """Why a model is not fit to be champion, whoever else there is; None if nothing is wrong with it.

    That samples are all alike shows with any number of held-out images; the rest only with enough of them.
    """
    faults = (  # what is wrong, whether the training has failed by it, and in words
        (
            diagnosis.duplicates > settings.max_duplicates,
            True,
            f"collapsed: {diagnosis.duplicates:.0%} of samples are duplicates, at most {settings.max_duplicates:.0%} allowed",
        ),
        (
            diagnosis.points < settings.min_points,
            False,
            f"not enough held-out images to judge ({diagnosis.points}; {settings.min_points} needed); by hand: gan models promote REF --force",
        ),
        (
            diagnosis.relative_coverage < settings.min_coverage,
            True,
            f"collapsed: coverage {diagnosis.coverage:.2f} of {diagnosis.count} held-out images, the training images' own is "
            f"{diagnosis.reference_coverage:.2f}; {settings.min_coverage:.0%} of it needed",
        ),
        (
            settings.min_skill is not None and diagnosis.skill < settings.min_skill,
            True,
            f"far from the data: skill {diagnosis.skill:.2f} where the mean image has 0 and the training images 1; "
            f"{settings.min_skill} needed",
        ),
        (
            diagnosis.copying < settings.min_copying,
            False,
            f"copies: samples are {diagnosis.copying:.2f} times as far from the training images as held-out images are; "
            f"{settings.min_copying} needed",
        ),
    )
    for is_faulty, failed, reason in faults:
        if is_faulty:
            return Verdict(False, reason, collapsed=failed, diagnosis=asdict(diagnosis))
    return None


def decide(challenger: np.ndarray, champion: np.ndarray, name: str, settings: GateSettings) -> Verdict:
    """The gate's decision on (sets, points) log-densities of the same points under both models."""
    test = compare(challenger, champion, settings.confidence)
    better = test.better_by(settings.min_margin)
    reason = (
        f"{'better' if better else 'not better'} than {name}: {test.difference:+.2f} ± {test.standard_error:.2f} nats, "
        f"lower bound {test.lower_bound:+.2f} at {settings.confidence:.0%}, more than {settings.min_margin:g} needed"
    )
    return Verdict(better, reason, asdict(test))


def compare_contenders(
    rivals: Sequence[Contender], dataset: Dataset, settings: GateSettings, samples: int, seed: int
) -> tuple[list[dict[str, Any]], list[Comparison]]:
    """Two models on the gate's points: each one's own numbers, and the test in both directions.

    Raises:
        RegistryError: If one of them draws images of another shape, or of other pixels.
    """
    first, second = rivals
    if differ := _other_images(rivals, dataset):
        raise RegistryError("not comparable", f"{first.name}, {second.name}", differ, "models of the same data")
    rows, scores = [], []
    for rival, against in ((first, second), (second, first)):
        score = log_densities(rival, against, dataset, settings, samples, seed)
        drawn = rival.model.draw(samples, sample_seed(seed, rival, against), sample_set=1).reshape(samples, -1)
        error = np.sqrt(score.mean(axis=0).var(ddof=1) / score.shape[1] + score.mean(axis=1).var(ddof=1) / len(score))
        rows.append(
            {
                "reference": rival.name,
                "log_likelihood": float(score.mean()),
                "standard_error": float(error),
                "sigma": _sigma(rival, drawn, dataset),
                "coverage": coverage(dataset.gate.images, drawn),
            }
        )
        scores.append(score)
    return rows, [
        compare(scores[0], scores[1], settings.confidence),
        compare(scores[1], scores[0], settings.confidence),
    ]


def log_densities(
    rival: Contender, against: Contender, dataset: Dataset, settings: GateSettings, samples: int, seed: int
) -> np.ndarray:
    """(sets, points): each gate point's log-density under each of several sets of a model's samples."""
    drawn = [
        rival.model.draw(samples, sample_seed(seed, rival, against), number).reshape(samples, -1)
        for number in range(1, settings.sample_sets + 1)
    ]
    sigma = _sigma(rival, drawn[0], dataset)
    return np.stack([parzen_log_density(dataset.gate.images, sample_set, [sigma])[:, 0] for sample_set in drawn])


def sample_seed(seed: int, rival: Contender, against: Contender | None) -> int:
    """The seed of a model's samples when it meets another: a function of both, in this order."""
    pair = ["gate", seed, rival.model.sha256, against.model.sha256 if against else ""]
    return int(digest(pair)[:14], 16)


def _sigma(rival: Contender, drawn: np.ndarray, dataset: Dataset) -> float:
    """The sigma it was registered with; one for these data, by the paper's protocol, if its data were others."""
    if rival.data_digest in ("", dataset.digest):
        return rival.sigma

    def log_density(rows: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
        return parzen_log_density(rows, drawn, sigmas)

    validation = dataset.validation.images
    return paper_protocol(log_density, validation, validation, len(drawn)).sigma


def _scored_again(champion: Contender, dataset: Dataset) -> str:
    if champion.data_digest in ("", dataset.digest):
        return ""
    return f"; the data changed ({champion.data_digest[:8]} to {dataset.digest[:8]}): champion scored again on the new gate points"


def _other_images(rivals: Sequence[Contender], dataset: Dataset) -> str:
    """How the images of one differ in kind from the data's or the other's, if they do."""
    for rival in rivals:
        if rival.model.image_shape != dataset.shape:
            ours, theirs = ("x".join(map(str, shape)) for shape in (rival.model.image_shape, dataset.shape))
            return f"{rival.name} draws images of {ours}, {dataset.name}'s are of {theirs}"
    if len({rival.model.pixels for rival in rivals}) > 1:
        return ", ".join(f"{rival.name} draws pixels that are {rival.model.pixels}" for rival in rivals)
    return ""


def collapsed_model(version: str, reason: str) -> Collapsed:
    """What a command ends with, after its result, whose model the gate refused for what it draws."""
    what, _, got = reason.partition(": ")
    what = "a collapsed model" if what == "collapsed" else f"a model {what}"
    return Collapsed(what, version, got, "another seed or other rates; it stays registered, not promoted")
