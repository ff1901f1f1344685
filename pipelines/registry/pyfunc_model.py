"""The registered model as plain MLflow loads it: z in, or None, `num_samples` and `seed`; images out."""

from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import torch
from mlflow.pyfunc import PythonModel

from gan_core.conditions.classes import class_condition
from gan_core.errors import DataError
from gan_core.portable import load_generator

# MLflow runs this file when someone loads the model. It needs nothing of ours but gan_core, which
# travels with the model (code_paths).


class Generator(PythonModel):  # type: ignore[misc]
    """Samples of a generative adversarial net, with pixels as it was trained on: in [0, 1] unless normalised."""

    def load_context(self, context: Any) -> None:
        """Read the weights, once."""
        self.model = load_generator(Path(context.artifacts["generator"]))

    # The signature is given. Of an array's type hint MLflow infers none, and says nothing; of `| None` it would warn.
    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Images of the given z (count, noise size); or `num_samples` new ones, drawn from `seed`, whatever z is.

        Of a conditional model `condition` is their class; without it (-1), classes are drawn from `seed`.

        Raises:
            DataError: If there is neither z nor `num_samples`, or z is of another width than the model's.
        """
        params = params or {}
        seed, condition = int(params.get("seed", 0)), int(params.get("condition", -1))
        count = int(params.get("num_samples", 0))
        noise = None if count > 0 else self._noise(model_input)
        rows = count if noise is None else len(noise)
        given = class_condition(self.model.conditions, condition, rows) if condition != -1 else None
        if noise is None:
            return self.model.draw(count, seed, condition=given)
        return self.model.images(noise, self.model.prior_condition(rows, seed) if given is None else given)

    def _noise(self, model_input: np.ndarray | None) -> torch.Tensor:
        noise, size = np.asarray(() if model_input is None else model_input, np.float32), self.model.noise.size
        if noise.ndim != 2 or noise.shape[1] != size:
            got = "nothing" if noise.size == 0 else f"an array of shape {list(noise.shape)}"
            raise DataError("no z of this model", "predict", got, f"(count, {size}), or num_samples=N in params")
        return torch.from_numpy(noise)


mlflow.models.set_model(Generator())
