"""The registered model as plain MLflow loads it: z in, or `num_samples` and `seed`; images out."""

from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import torch
from mlflow.pyfunc import PythonModel

from gan_core.portable import load_generator

# MLflow runs this file when someone loads the model. It needs nothing of ours but gan_core, which
# travels with the model (code_paths).


class Generator(PythonModel):  # type: ignore[misc]
    """Samples of a generative adversarial net, pixels in [0, 1]."""

    # No type hints on predict(): MLflow would take them for the signature, which is given.

    def load_context(self, context: Any) -> None:
        """Read the weights, once."""
        self.model = load_generator(Path(context.artifacts["generator"]))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Images of the given z (count, noise size); or `num_samples` new ones, drawn from `seed`."""
        params = params or {}
        if int(params.get("num_samples", 0)) > 0:
            return self.model.draw(int(params["num_samples"]), int(params.get("seed", 0)))
        return self.model.images(torch.from_numpy(np.asarray(model_input, dtype=np.float32)))


mlflow.models.set_model(Generator())
