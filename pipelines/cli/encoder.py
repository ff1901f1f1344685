"""Commands that work from an image back: reconstruct, classify."""

from typing import Any

import click

from pipelines.cli.context import Context, check_output, common, load_dataset, open_run, origin_run, write_output


@click.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--input", "source", metavar="FILE.npy|test", required=True,
    help="Images as the model was trained on, one a row; or the test images of its data set.",
)  # fmt: skip
@click.option("--output", metavar="FILE", required=True, help="grid.png, in pairs; or reconstructions.npy.")
@click.option("-n", "count", type=click.IntRange(min=1), default=64, show_default=True, help="At most so many images.")
@common
def reconstruct(context: Context, reference: str, source: str, output: str, count: int) -> None:
    """Infer the z of images and generate from it: x, and beside it G(E(x)).

    REF is a run, or a registered model, that was made with extension.name=inference.

    \b
    Examples:
      gan reconstruct digits-1a2b3c4d --input test --output grid.png
      gan reconstruct gan-digits@champion --input images.npy -n 1000 --output reconstructions.npy
    """
    import io
    from pathlib import Path

    import numpy as np

    from gan_core.extensions.inference import squared_error
    from pipelines.reporting import figures

    check_output(output, (".png", ".npy"))
    inference = _load_inference(context, reference)
    if source == "test":
        images = load_dataset(context, reference).test.images[:count]
    else:
        images = _load_images(source, inference.model.pixels)[:count]
    again = inference.reconstruct(images)
    if Path(output).suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, again)
        write_output(output, buffer.getvalue())
    else:
        shown = images.reshape(again.shape)
        write_output(output, figures.png(figures.pairs(shown, again, inference.model.pixels, columns=8)))
    error = squared_error(again.reshape(len(images), -1), images)
    context.emit_result(
        {
            "reference": reference, "input": source, "count": len(images), "output": output, "squared_error": error,
            "generator_sha256": inference.model.sha256, "encoder_sha256": inference.sha256,
        },
        f"wrote {output}: {len(images)} images, squared error {error:.3g}",
    )  # fmt: skip


def _load_inference(context: Context, reference: str) -> Any:
    """The generator and the encoder of a run, or of NAME@ALIAS or NAME/VERSION."""
    from pipelines.registry.reference import is_model_reference

    if is_model_reference(reference):
        from pipelines.registry import Registry

        registry = Registry(context.tracking_uri())
        return registry.load_inference(registry.resolve(reference))
    from pipelines.runs.trained_models import trained_inference

    return trained_inference(open_run(context, reference))


def _load_images(path: str, pixels: str) -> Any:
    from gan_core.datasets.examples import check_images
    from pipelines.evaluation.scores import load_array

    images = load_array(path, "--input")
    if pixels == "unit":
        check_images(images, f"--input {path}")
    return images


@click.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--labels", "counts", type=click.IntRange(min=1), multiple=True, default=(100, 1000), show_default=True,
    help="Labelled training images, as many of each class; can be given more than once.",
)  # fmt: skip
@click.option("--draws", type=click.IntRange(min=1), default=5, show_default=True, help="Draws of the labels.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same draws.")
@common
def classify(context: Context, reference: str, counts: tuple[int, ...], draws: int, seed: int) -> None:
    """Classify test images from few labels, on features that were learned without any.

    One logistic regression on the hidden layers of D (and of the encoder, if there is one), on D before its training,
    on pixels and on principal components; accuracy with its standard error over draws of the labels. REF is a run, or
    a registered model whose run is in the storage: D is in the run's checkpoint.

    \b
    Examples:
      gan classify digits-1a2b3c4d --labels 100 --labels 500 --draws 10
      gan classify gan-mnist@champion --labels 100 --labels 1000 --labels 3000 --json
    """
    from pipelines.stages.few_labels import classify_run

    run = origin_run(context, reference)
    found = classify_run(run, load_dataset(context, reference), counts, draws, seed, context.show)
    result = {"reference": reference, "run": run.name, "draws": draws, "seed": seed, "accuracies": found}
    context.emit_result(
        result, f"mean accuracy on the test images, and its standard error over {draws} draws of the labels"
    )
