"""How well an extension does what it is for: what a Parzen score of p(x) does not say."""

from dataclasses import asdict
from typing import Any

from gan_core.conditions.classes import Classes
from gan_core.conditions.masks import MASK_NAMES
from gan_core.conditions.observed import Observed
from gan_core.datasets import Dataset
from gan_core.extensions.imputation import COMPLETIONS, IMAGES, NEIGHBOURS, completion_error
from gan_core.extensions.recognition import recognition
from gan_core.portable import PortableGenerator


def extension_measures(model: PortableGenerator, dataset: Dataset, samples: int, seed: int) -> dict[str, Any] | None:
    """The extension's own measures of a model on a data set; none for the paper's own nets."""
    if isinstance(model.conditions, Classes):
        return {"recognition": asdict(recognition(model, dataset, samples, seed))}
    if isinstance(model.conditions, Observed):
        errors = {name: asdict(completion_error(model, dataset, name, seed)) for name in MASK_NAMES}
        counts = {"images": min(IMAGES, len(dataset.test)), "completions": COMPLETIONS, "neighbours": NEIGHBOURS}
        return {"completion": errors, **counts}
    return None


def headline(measures: dict[str, Any] | None) -> dict[str, float]:
    """The one number a registered version is found by: `recognised`, or `completion_error`, a mean over masks."""
    if measures is None:
        return {}
    if "recognition" in measures:
        return {"recognised": measures["recognition"]["recognised"]}
    errors = [seen["error"] for seen in measures["completion"].values()]
    return {"completion_error": sum(errors) / len(errors)}


def described_measures(measures: dict[str, Any] | None) -> list[str]:
    """The measures for people, a line each."""
    if measures is None:
        return []
    if "recognition" in measures:
        seen = measures["recognition"]
        return [
            f"{seen['recognised']:.1%} ± {seen['standard_error']:.1%} of {seen['samples']} samples are recognised as the class asked for, "
            f"by a classifier right about {seen['classifier_accuracy']:.1%} of real test images"
        ]
    return [
        f"{name} missing: squared error {seen['error']:.4f} a pixel (mean image {seen['mean_image']:.4f}, "
        f"{measures['neighbours']} nearest {seen['nearest']:.4f}); variance among completions {seen['spread']:.4f}"
        for name, seen in measures["completion"].items()
    ]
