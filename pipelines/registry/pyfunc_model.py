"""The registered model as plain MLflow loads it: z in, or `num_samples` and `seed`; images out."""

from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import torch
from mlflow.pyfunc import PythonModel

from gan_core.extensions.conditional import class_condition
from gan_core.portable import load_generator

# MLflow runs this file when someone loads the model. It needs nothing of ours but gan_core, which
# travels with the model (code_paths).


class Generator(PythonModel):  # type: ignore[misc]
    """Samples of a generative adversarial net, with pixels as it was trained on: in [0, 1] unless normalised."""

    def load_context(self, context: Any) -> None:
        """Read the weights, once."""
        self.model = load_generator(Path(context.artifacts["generator"]))

    # MLflow infers no signature from an array's type hint, and says nothing: the signature is given.
    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Images of the given z (count, noise size); or `num_samples` new ones, drawn from `seed`.

        Of a conditional model `condition` is their class; without it (-1), classes are drawn from `seed`.
        """
        params = params or {}
        seed, condition = int(params.get("seed", 0)), int(params.get("condition", -1))
        noise = torch.from_numpy(np.asarray(model_input, dtype=np.float32))
        count = int(params.get("num_samples", 0))
        rows = count if count > 0 else len(noise)
        given = class_condition(self.model.conditions, condition, rows) if condition != -1 else None
        if count > 0:
            return self.model.draw(count, seed, condition=given)
        return self.model.images(noise, self.model.prior_condition(rows, seed) if given is None else given)


mlflow.models.set_model(Generator())
