"""Write the golden files of this version: what later versions must be able to read and go on from.

`python -m tests.golden VERSION` writes a folder that is committed once and never changed.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from gan_core.checkpoint import tensors_digest
from gan_core.datasets import load
from gan_core.datasets.preprocessing import to_bytes
from gan_core.portable import save_generator
from gan_core.training import initial_state, train
from pipelines import config
from pipelines.runs.run import Run
from pipelines.stages.train import gan_training
from pipelines.storage import Storage, save_checkpoint
from tests.golden import RESUMED, SAVED, TINY


def write(folder: Path) -> None:
    """A run with checkpoints for each optimizer, and a generator's folder as it is registered."""
    expected = {}
    for optimizer in ("momentum", "adam"):
        settings = config.override(config.build(config.parse_yaml(TINY, "TINY")), {"algorithm.optimizer": optimizer})
        run, dataset = Run.create(settings, "golden", optimizer, Storage.at(folder)), load(settings.data)
        run.save()
        job = gan_training(run.folder, settings.training(), settings.train, dataset.digest, dataset.shape)
        state = initial_state(settings.training(), dataset.train)
        for report in train(settings.training(), dataset.train, state, RESUMED, lambda step: step == SAVED):
            place = run.folder.child("checkpoints" if report.step == SAVED else "resumed")
            save_checkpoint(place, report.step, report.state.tensors(), job.about, keep=2)
            if report.step == SAVED:
                model = run.generator()
                tensors = report.state.tensors()
                expected[optimizer] = {
                    "weights_sha256": tensors_digest(tensors["generator"], tensors["discriminator"]),
                    "generator_sha256": model.sha256,
                }
    save_generator(folder / "generator", model, {"run": "adam"})
    np.save(folder / "images.npy", to_bytes(model.draw(4, seed=0)))
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(Path(__file__).parent / sys.argv[1])
