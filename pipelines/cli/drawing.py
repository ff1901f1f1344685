"""Commands that draw: figure."""

import click

from pipelines.cli.context import Context, check_output, common, load_dataset, load_model, write_output


@click.command()
@click.argument("which", metavar="fig2|fig3", type=click.Choice(["fig2", "fig3"]))
@click.argument("reference", metavar="REF")
@click.option("--output", metavar="FILE.png", required=True, help="The picture.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same picture."
)
@common
def figure(context: Context, which: str, reference: str, output: str, seed: int) -> None:
    """Draw a figure of the paper for a run or a registered model.

    fig2: samples, and in the last column the training image that is nearest to the sample beside it.
    fig3: images along straight lines in z.

    \b
    Examples:
      gan figure fig2 digits-1a2b3c4d --output fig2.png
      gan figure fig3 gan-digits@champion --output fig3.png
    """
    from pipelines import figures

    check_output(output, (".png",))
    model = load_model(context, reference)
    if which == "fig2":
        picture = figures.samples_with_neighbours(model, load_dataset(context, reference).train.references, seed)
    else:
        picture = figures.interpolation(model, seed)
    write_output(output, figures.png(picture))
    context.answer(
        {"figure": which, "reference": reference, "seed": seed, "output": output, "generator_sha256": model.sha256},
        f"wrote {output}",
    )
