"""Draw samples from a model: a picture, or an array."""

import click

from pipelines.cli.context import (
    Context,
    check_output,
    common,
    load_model,
    write_array,
    write_output,
)

MOST_IN_A_PICTURE = 10_000


@click.command()
@click.argument("reference", metavar="REF")
@click.option("-n", "count", type=click.IntRange(min=1), default=64, show_default=True, help="How many samples.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same samples."
)
@click.option(
    "--output",
    metavar="FILE",
    required=True,
    help="grid.png, or samples.npy (count, height, width[, 3]) as trained on.",
)
@click.option("--interpolate", is_flag=True, help="Images along straight lines in z (Fig. 3); a picture only.")
@click.option(
    "--condition", type=int, metavar="CLASS",
    help="Of a conditional model: samples of this class  [default: classes as frequent as in the training data].",
)  # fmt: skip
@common
def sample(
    context: Context, reference: str, count: int, seed: int, output: str, interpolate: bool, condition: int | None
) -> None:
    """Draw samples from a run or a registered model.

    \b
    Examples:
      gan sample gan-digits@champion -n 64 --output grid.png
      gan sample gan-digits-conditional@champion --condition 3 --output threes.png
      gan sample gan-digits/1 -n 10000 --seed 7 --output samples.npy
    """
    from functools import partial
    from pathlib import Path

    from gan_core.conditions.classes import class_condition
    from gan_core.errors import ConfigurationError
    from pipelines.reporting import figures

    suffix = Path(output).suffix
    check_output(output, (".png",) if interpolate else (".png", ".npy"))
    if suffix == ".png" and count > MOST_IN_A_PICTURE:
        raise ConfigurationError(
            "too many for a picture", "-n", str(count), f"at most {MOST_IN_A_PICTURE}, or --output samples.npy"
        )
    model = load_model(context, reference)
    given = None if condition is None else partial(class_condition, model.conditions, condition)
    if interpolate:
        lines = figures.interpolation(model, seed, condition=given(figures.LINES) if given else None)
        write_output(output, figures.png(lines))
    elif suffix == ".npy":
        write_array(output, (count, *model.image_shape), model.draw_parts(count, seed, given))
    else:
        images = model.draw(count, seed, condition=given(count) if given else None)
        write_output(output, figures.png(figures.sample_grid(images, model.pixels)))
    result = {"reference": reference, "count": count, "seed": seed, "output": output, "generator_sha256": model.sha256}
    context.emit_result(result if condition is None else {**result, "condition": condition}, f"wrote {output}")
