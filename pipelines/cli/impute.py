"""The command that completes images: impute."""

from typing import Any

import click

from pipelines.cli.context import Context, check_output, common, load_dataset, load_model, write_output

MASKS = ["left", "right", "top", "bottom", "square", "pixels"]


@click.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--input", "source", metavar="FILE.npy|test", default="test", show_default=True,
    help="Images as the model was trained on (count, height, width[, 3]), or the first test images.",
)  # fmt: skip
@click.option("-n", "most", type=click.IntRange(min=1), default=8, show_default=True, help="Of so many images at most.")
@click.option(
    "--mask", type=click.Choice(MASKS), default="right", show_default=True,
    help="What is missing: a half, the square in the middle, or half of all pixels.",
)  # fmt: skip
@click.option("--completions", type=click.IntRange(min=1), default=8, show_default=True, help="Of each image.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same completions."
)
@click.option(
    "--output", metavar="FILE", required=True,
    help="grid.png, or completions.npy (count, completions, height, width[, 3]).",
)  # fmt: skip
@common
def impute(
    context: Context, reference: str, source: str, most: int, mask: str, completions: int, seed: int, output: str
) -> None:
    """Fill in the missing pixels of images, several times each, by a model of extension.name imputation.

    A row of the picture is an image, what is observed of it, and its completions.

    \b
    Examples:
      gan impute gan-digits-imputation@champion --mask left --output grid.png
      gan impute gan-digits-imputation/1 --input images.npy --completions 100 --output completions.npy
    """
    import io
    from pathlib import Path

    import numpy as np

    from gan_core.conditions.masks import named_mask
    from gan_core.extensions.imputation import completions as completed
    from pipelines.reporting import figures

    check_output(output, (".png", ".npy"))
    model = load_model(context, reference)
    shape = model.image_shape
    found = load_dataset(context, reference).test.images if source == "test" else _images(source, model)
    images = found[:most]
    observed = named_mask(mask, shape, seed)  # type: ignore[arg-type]
    filled = completed(model, images, observed[None], completions, seed)
    if Path(output).suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, filled)
        write_output(output, buffer.getvalue())
    else:
        masks = np.broadcast_to(observed, (len(images), *shape))
        picture = figures.completion_grid(images.reshape(-1, *shape), masks, filled, model.pixels)
        write_output(output, figures.png(picture))
    result = {"reference": reference, "images": len(images), "completions": completions, "mask": mask, "seed": seed}
    context.emit_result({**result, "output": output, "generator_sha256": model.sha256}, f"wrote {output}")


def _images(source: str, model: Any) -> Any:
    """The user's images, one a row, checked against the model's.

    Raises:
        DataError: If they are of another shape, or their pixels are not what the model was trained on.
    """
    import math

    import numpy as np

    from gan_core.datasets.examples import check_images
    from gan_core.errors import DataError
    from pipelines.evaluation.scores import load_array

    images = load_array(source, "--input")
    if images.shape[1] != math.prod(model.image_shape):
        expected = f"{math.prod(model.image_shape)}, of {'x'.join(map(str, model.image_shape))}"
        raise DataError("images do not fit", f"--input {source}", f"{images.shape[1]} pixels an image", expected)
    if model.pixels == "unit":
        check_images(images, f"--input {source}")
    elif not np.isfinite(images).all():
        raise DataError("pixels are not finite", f"--input {source}", "NaN or infinity", "numbers")
    return images
