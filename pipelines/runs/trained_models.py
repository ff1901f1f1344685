"""A run's trained models, read back from its checkpoints and held against its records."""

from gan_core.errors import CheckpointError, ConfigurationError
from gan_core.extensions.inference import (
    Inference,
    encoder_of,
    hidden_widths,
)
from gan_core.state import load_tensors
from pipelines.runs.run import Run
from pipelines.storage import latest_checkpoint, run_layout


def trained_inference(run: Run) -> Inference:
    """A run's generator with its encoder.

    Raises:
        ConfigurationError: If the run is without one.
        CheckpointError: If it is not trained yet, or its weights are not those of the record.
    """
    settings, expected = run.configuration.extension, "a run with extension: {name: inference}, finished by gan run"
    if settings.name != "inference":
        raise ConfigurationError("no inference net", run.name, f"extension.name {settings.name}", expected)
    saved, record, model = latest_checkpoint(run.folder.child(run_layout.ENCODER)), run.record("infer"), run.generator()
    if saved is None:
        raise CheckpointError("no inference net", run.name, "not trained yet", expected)
    name, manifest, tensors = saved
    hidden = hidden_widths(settings.inference, model.network)
    encoder = encoder_of(model, hidden)
    load_tensors(encoder.state_dict(), tensors.get(run_layout.ENCODER, {}), f"{run_layout.ENCODER}/{name}")
    inference = Inference(model, encoder.eval(), hidden)
    if manifest.step < settings.inference.steps or (record and record["encoder_sha256"] != inference.sha256):
        raise CheckpointError(
            "not the trained encoder", f"{run.name}: {run_layout.ENCODER}/{name}", f"step {manifest.step}, {inference.sha256[:12]}",
            f"step {settings.inference.steps}{', ' + record['encoder_sha256'][:12] if record else ''}; "
            "remove records/infer.json, and the same command trains the last steps again",
        )  # fmt: skip
    return inference
