"""`gan export` writes a run's or a registered model's generator, and refuses by a line."""

import numpy as np
import onnxruntime
import pytest
import torch

from pipelines.runs.run import Run
from pipelines.storage import Storage
from tests.pipelines.conftest import failed


@pytest.mark.parametrize("reference", ["small-run", "gan-small@champion"])
def test_exported_file_draws_the_models_images(finished, here, reference, tmp_path):
    """The file of a run's and of a version's generator gives its images of any z, and the answer says how to ask it."""
    answer = here("export", reference, "--output", "g.onnx", "--storage", finished.storage, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["generator_sha256"] == finished.record("train")["generator_sha256"]
    assert (answer.json["inputs"], answer.json["images"], answer.json["prior"]) == ({"noise": [8]}, [8, 8], "uniform")
    assert 0 <= answer.json["difference"] <= answer.json["tolerance"]
    noise = np.random.default_rng(0).uniform(size=(5, 8)).astype(np.float32)
    (images,) = onnxruntime.InferenceSession(tmp_path / "g.onnx").run(None, {"noise": noise})
    model = Run.open("small-run", Storage.at(finished.storage)).generator()
    np.testing.assert_allclose(images, model.images(torch.from_numpy(noise)), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["small-run", "--output", "g.pt"], 2, ["unknown kind of output", "g.pt", ".pt2 or .onnx"]),
        (["small-run", "--output", "none/g.pt2"], 2, ["no such folder"]),
        (["nothing", "--output", "g.pt2"], 2, ["no such run", "small-run"]),
    ],
)
def test_export_refuses_by_a_line(finished, here, arguments, code, words):
    failed(here("export", *arguments, "--storage", finished.storage), code, *words)
