"""The gate: whether a challenger becomes champion, and why not."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gan_core.comparison import compare
from gan_core.datasets import Dataset
from gan_core.parzen import parzen_log_density
from gan_core.portable import PortableGenerator
from gan_core.quality import coverage
from pipelines.settings import GateSettings


@dataclass(frozen=True)
class Verdict:
    """What the gate says, in a sentence, with the test behind it."""

    promoted: bool
    reason: str
    test: dict[str, Any] | None = None


@dataclass(frozen=True)
class Contender:
    """A model at the gate: its generator, and the sigma that was chosen for it on validation points."""

    name: str
    model: PortableGenerator
    sigma: float


def judge(
    challenger: Contender, champion: Contender | None, dataset: Dataset, settings: GateSettings, samples: int, seed: int
) -> Verdict:
    """Refuse a collapsed challenger; let the first one in; else ask for a significant advantage.

    Both are scored on the gate's points, which neither sigma nor the search has used, with fresh
    samples of both, several sets of each.
    """
    points = dataset.gate.images
    drawn = challenger.model.draw(samples, seed, sample_set=1).reshape(samples, -1)
    covered = coverage(points, drawn)
    if covered < settings.min_coverage:
        return Verdict(False, f"collapsed: coverage {covered:.2f} of the gate's points, {settings.min_coverage} needed")
    if champion is None:
        return Verdict(True, f"first version to pass the gate, coverage {covered:.2f}")
    if champion.model.sha256 == challenger.model.sha256:
        return Verdict(False, f"the same weights as the champion, {champion.name}")
    test = compare(
        _log_densities(challenger, points, settings, samples, seed),
        _log_densities(champion, points, settings, samples, seed + 1),
        settings.confidence,
    )
    better = test.better_by(settings.min_margin)
    says = (
        f"{'better' if better else 'not better'} than {champion.name}: {test.difference:+.2f} ± {test.standard_error:.2f} nats, "
        f"lower bound {test.lower_bound:+.2f} at {settings.confidence:.0%}, more than {settings.min_margin:g} needed"
    )
    return Verdict(better, says, asdict(test))


def _log_densities(
    contender: Contender, points: np.ndarray, settings: GateSettings, samples: int, seed: int
) -> np.ndarray:
    """(sets, points): each point's log-density under each of several sets of samples."""
    sets = range(1, settings.sample_sets + 1)
    return np.stack(
        [
            parzen_log_density(
                points, contender.model.draw(samples, seed, number).reshape(samples, -1), [contender.sigma]
            )[:, 0]
            for number in sets
        ]
    )
