"""Hand a generator to another program, as a file that needs nothing of ours."""

import click

from pipelines.cli.context import Context, check_output, common, load_model


@click.command()
@click.argument("reference", metavar="REF")
@click.option(
    "--output", metavar="FILE", required=True,
    help="generator.onnx (needs the extra exchange), or generator.pt2 for torch.export.load.",
)  # fmt: skip
@common
def export(context: Context, reference: str, output: str) -> None:
    """Write the generator of a run or a registered model for other programs, checked against the original.

    Inputs: noise (count, z) and, of a conditional model, condition; output: images (count, height, width[, 3]).

    \b
    Examples:
      gan export gan-digits@champion --output generator.onnx
      gan export gan-digits/1 --output generator.pt2
    """
    from pathlib import Path

    from gan_core import exchange

    check_output(output, exchange.SUFFIXES)
    if output.endswith(".onnx"):
        exchange.check_onnx()
    model = load_model(context, reference)
    difference = exchange.export(model, Path(output))
    inputs = {"noise": [model.noise.size]} | ({"condition": [model.conditions.size]} if model.conditions.size else {})
    context.emit_result(
        {
            "reference": reference, "output": output, "generator_sha256": model.sha256, "inputs": inputs,
            "images": list(model.image_shape), "prior": model.noise.prior, "checked": exchange.CHECKED,
            "difference": difference, "tolerance": exchange.TOLERANCE,
        },
        f"wrote {output}: {', '.join(f'{name} (count, {size})' for name, (size,) in inputs.items())} to images "
        f"(count, {', '.join(map(str, model.image_shape))}); of {exchange.CHECKED} z, pixels differ by at most {difference:.0e}",
    )  # fmt: skip
