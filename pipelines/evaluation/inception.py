"""Inception's FID, KID and score of samples, by torch-fidelity on weights the user has: none ship, nothing is downloaded."""

import hashlib
import io
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gan_core.datasets import Dataset
from gan_core.datasets.preprocessing import to_bytes
from gan_core.errors import CheckpointError, ConfigurationError, DataError

PUBLISHED = "6726825d"  # how the SHA-256 of the weights begins that published FIDs are computed with
EXPECTED = f"the weights that torch-fidelity and pytorch-fid name ...-inception-2015-12-05-{PUBLISHED}.pth"
LAYERS = ("2048", "logits_unbiased")  # what FID and KID see, and what the Inception score does
BATCH = 64  # images
KID_SUBSET = 1000  # images, torch-fidelity's default
PARTS = 10  # of the images, whose Inception scores are averaged; torch-fidelity's default


@dataclass(frozen=True)
class InceptionScores:
    """A set of images against the test images and, by the Inception score, alone."""

    fid: float  # Heusel et al. 2017 (arXiv 1706.08500)
    kid: float  # Binkowski et al. 2018 (arXiv 1801.01401), mean over 100 subsets
    kid_deviation: float  # over the subsets
    inception_score: float  # Salimans et al. 2016 (arXiv 1606.03498), mean over the parts
    inception_score_deviation: float  # over the parts


@dataclass(frozen=True)
class InceptionQuality:
    """The scores of samples, beside those of as many training images, with what decides them."""

    samples: InceptionScores
    training_images: InceptionScores
    count: int  # of samples, and of training images
    test_images: int
    kid_subset: int  # images
    weights_sha256: str
    published_weights: bool  # only then do the numbers compare with published ones


class Inception:
    """Inception-v3 with the weights of a file, which is read as tensors alone.

    Raises:
        ConfigurationError: If torch-fidelity is not installed, or there is no such file.
        CheckpointError: If the file holds anything but this net's tensors, all of them finite.
    """

    def __init__(self, path: str) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ConfigurationError(
                "a package is missing", "--inception", "no torch-fidelity", "it; pip install 'torch-fidelity>=0.4,<0.5'"
            ) from error
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise ConfigurationError(
                "no readable file", f"--inception {path}", f"{error.strerror}", EXPECTED
            ) from error
        self.sha256 = hashlib.sha256(content).hexdigest()
        # The library unpickles what it is given: so it gets what was read as tensors alone, written anew.
        buffer = io.BytesIO()
        torch.save(_tensors(content, path), buffer)
        buffer.seek(0)
        try:
            net = FeatureExtractorInceptionV3("inception-v3", list(LAYERS), feature_extractor_weights_path=buffer)
        except RuntimeError as error:  # of a name or a shape
            _, _, differences = str(error).partition(":")
            got = textwrap.shorten(differences, 120, placeholder=" ...")
            raise CheckpointError("not Inception's weights", f"--inception {path}", got, EXPECTED) from error
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net = net.to(self.device)

    def features(self, images: np.ndarray) -> list[Tensor]:
        """The features of both layers, (count, width) each, of 8-bit images (count, height, width[, 3]).

        Grey is repeated as red, green and blue; the net itself resizes to 299 x 299, as TensorFlow 1 did.
        """
        blocks = []
        with torch.no_grad():
            for start in range(0, len(images), BATCH):
                block = torch.from_numpy(images[start : start + BATCH]).to(self.device)
                colours = block.permute(0, 3, 1, 2) if block.dim() == 4 else block[:, None].expand(-1, 3, -1, -1)
                blocks.append([layer.cpu() for layer in self.net(colours)])
        return [torch.cat(layer) for layer in zip(*blocks, strict=True)]


def inception_quality(
    inception: Inception, dataset: Dataset, generated: np.ndarray, log: Callable[[str], None]
) -> InceptionQuality:
    """Compare samples (count, width), and as many training images, with the test images.

    Raises:
        DataError: If there are fewer than two for each part of the Inception score.
    """
    training, test = dataset.train.references, dataset.test.images
    count = min(len(generated), len(training))
    if count < 2 * PARTS:
        raise DataError("too few images", "--inception", f"{count} samples", f"{2 * PARTS} or more")
    subset = min(KID_SUBSET, count, len(test))
    sets = {"test images": test, "samples": generated[:count], "training images": training[:count]}
    features = {}
    for name, rows in sets.items():
        log(f"inception  features of {len(rows):,} {name}, on {inception.device.type}")
        features[name] = inception.features(to_bytes(rows).reshape(-1, *dataset.shape))
    return InceptionQuality(
        samples=inception_scores(features["samples"], features["test images"], subset),
        training_images=inception_scores(features["training images"], features["test images"], subset),
        count=count,
        test_images=len(test),
        kid_subset=subset,
        weights_sha256=inception.sha256,
        published_weights=inception.sha256.startswith(PUBLISHED),
    )


def inception_scores(features: list[Tensor], of_test_images: list[Tensor], kid_subset: int) -> InceptionScores:
    """The scores of images by their features, both layers', and the test images'."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    (seen, logits), (test, _) = features, of_test_images
    moments = [fid_features_to_statistics(rows) for rows in (seen, test)]
    fid = fid_statistics_to_metric(*moments, verbose=False)
    kid = kid_features_to_metric(seen, test, kid_subset_size=kid_subset, verbose=False)
    score = isc_features_to_metric(logits, PARTS)
    return InceptionScores(
        fid=fid["frechet_inception_distance"],
        kid=kid["kernel_inception_distance_mean"],
        kid_deviation=kid["kernel_inception_distance_std"],
        inception_score=score["inception_score_mean"],
        inception_score_deviation=score["inception_score_std"],
    )


def _tensors(content: bytes, path: str) -> dict[str, Tensor]:
    """The named tensors of a .pth file, by the reader that makes nothing else."""
    where = f"--inception {path}"
    try:
        with warnings.catch_warnings():  # of an archive of TorchScript, which is refused as well
            warnings.simplefilter("ignore")
            tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a reader makes of bytes that are not its format
        got = f"not a file of tensors alone ({type(error).__name__})"
        raise CheckpointError("not Inception's weights", where, got, EXPECTED) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise CheckpointError("not Inception's weights", where, f"a {type(tensors).__name__}", EXPECTED)
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise CheckpointError("weights are not finite", where, broken[0], EXPECTED)
    return dict(tensors)
