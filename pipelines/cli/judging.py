"""Commands that judge and show a model: evaluate, sample."""

from typing import Any

import click

from pipelines.cli.context import (
    Context,
    check_output,
    common,
    load_dataset,
    load_model,
    origin_run,
    write_output,
)


@click.command()
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--samples", "samples_file", metavar="S.npy", help="Score these samples instead of a model's.")
@click.option("--points", "points_file", metavar="T.npy", help="The points to score, with --samples.")
@click.option("--validation", "validation_file", metavar="V.npy", help="Points to choose sigma from, with --samples.")
@click.option("--sigma", type=float, help="Score at this sigma, beside the protocols' own.")
@click.option(
    "--folds", type=click.IntRange(min=2), default=5, show_default=True, help="Folds of the cross-validation."
)
@common
def evaluate(
    context: Context,
    reference: str | None,
    samples_file: str | None,
    points_file: str | None,
    validation_file: str | None,
    sigma: float | None,
    folds: int,
) -> None:
    """Score a run, a registered model (NAME@ALIAS, NAME/VERSION), or any two arrays of images.

    \b
    Examples:
      gan evaluate digits-1a2b3c4d
      gan evaluate gan-digits@champion --json
      gan evaluate --samples S.npy --points T.npy --sigma 0.1777 --json
    """
    from pipelines import evaluate as scores

    if (reference is None) == (samples_file is None) or (samples_file is None) != (points_file is None):
        raise click.UsageError("give either REF, or --samples and --points")
    if samples_file is not None and points_file is not None:
        samples, points = scores.load_array(samples_file, "--samples"), scores.load_array(points_file, "--points")
        validation = scores.load_array(validation_file, "--validation") if validation_file else None
        result = scores.evaluate_arrays(samples, points, validation, sigma, folds)
    else:
        result = _evaluate_reference(context, str(reference), sigma, folds)
    text = "\n".join(
        f"{score['protocol']:<16} {score['log_likelihood']:9.2f} ± {score['standard_error']:.2f} nats at sigma {score['sigma']:.4f}, "
        f"{score['samples']} samples, {score['points']} points"
        for score in ([result["fixed"]] if "fixed" in result else []) + [result["paper"], result["cross_validated"]]
    )
    if result["quality"]:
        text += "\n" + scores.described(**result["quality"])
    context.answer(result, text)


@click.command()
@click.argument("reference", metavar="REF")
@click.option("-n", "count", type=click.IntRange(min=1), default=64, show_default=True, help="How many samples.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same samples."
)
@click.option(
    "--output", metavar="FILE", required=True, help="grid.png, or samples.npy (count, height, width) in [0, 1]."
)
@click.option("--interpolate", is_flag=True, help="Images along straight lines in z (Fig. 3); a picture only.")
@common
def sample(context: Context, reference: str, count: int, seed: int, output: str, interpolate: bool) -> None:
    """Draw samples from a run or a registered model.

    \b
    Examples:
      gan sample gan-digits@champion -n 64 --output grid.png
      gan sample gan-digits/1 -n 10000 --seed 7 --output samples.npy
    """
    import io
    import math
    from pathlib import Path

    import numpy as np

    from pipelines import figures

    suffix = Path(output).suffix
    check_output(output, (".png",) if interpolate else (".png", ".npy"))
    model = load_model(context, reference)
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, model.draw(count, seed))
        write_output(output, buffer.getvalue())
    elif interpolate:
        write_output(output, figures.png(figures.interpolation(model, seed)))
    else:
        grid = figures.image_grid(
            model.draw(count, seed), math.ceil(math.sqrt(count)), scale=max(1, 56 // model.image_shape[0])
        )
        write_output(output, figures.png(grid))
    context.answer(
        {"reference": reference, "count": count, "seed": seed, "output": output, "generator_sha256": model.sha256},
        f"wrote {output}",
    )


def _evaluate_reference(context: Context, reference: str, sigma: float | None, folds: int) -> dict[str, Any]:
    """Score a run or a registered model on the data set it was trained on."""
    from pipelines import evaluate as scores

    model, run = load_model(context, reference), origin_run(context, reference)
    dataset = load_dataset(context, reference)
    count = run.configuration.evaluate.samples
    samples = model.draw(count, run.configuration.seed).reshape(count, -1)
    return scores.evaluate_arrays(
        samples, dataset.test.images, dataset.validation.images, sigma, folds, dataset.train.images
    )
