"""Commands that show the paper's figures and tables: figure, table."""

from typing import TYPE_CHECKING

import click

from gan_core.errors import ConfigurationError
from pipelines.cli.context import Context, check_output, common, load_dataset, load_model, open_run, write_output

if TYPE_CHECKING:
    from pipelines.reporting.paper_tables import Scored


@click.command()
@click.argument("which", metavar="fig1|fig2|fig3|classes", type=click.Choice(["fig1", "fig2", "fig3", "classes"]))
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--output", metavar="FILE.png", required=True, help="The picture.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same picture."
)
@common
def figure(context: Context, which: str, reference: str | None, output: str, seed: int) -> None:
    """Draw a figure of the paper or of an extension: fig1 of a game of its own, the others for a run or a registered model.

    fig1: a game in one dimension, trained now by Algorithm 1: densities, D, and where G sends z.
    fig2: samples, and in the last column the training image that is nearest to the sample beside it.
    fig3: images along straight lines in z.
    classes: of a conditional model, its classes, one a row.

    \b
    Examples:
      gan figure fig1 --output fig1.png
      gan figure fig2 digits-1a2b3c4d --output fig2.png
      gan figure fig3 gan-digits@champion --output fig3.png
      gan figure classes gan-digits-conditional@champion --output classes.png
    """
    from pipelines.reporting import figures

    check_output(output, (".png",))
    if which == "fig1":
        _draw_game(context, reference, output, seed)
        return
    if reference is None:
        raise ConfigurationError("no model given", "REF", f"gan figure {which}", "a run, NAME@ALIAS or NAME/VERSION")
    model = load_model(context, reference)
    if which == "fig2":
        picture = figures.samples_with_neighbours(model, load_dataset(context, reference).train.references, seed)
    elif which == "fig3":
        picture = figures.interpolation(model, seed)
    else:
        picture = figures.class_grid(model, seed)
    write_output(output, figures.png(picture))
    context.emit_result(
        {"figure": which, "reference": reference, "seed": seed, "output": output, "generator_sha256": model.sha256},
        f"wrote {output}",
    )


def _draw_game(context: Context, reference: str | None, output: str, seed: int) -> None:
    from dataclasses import asdict

    from gan_core.one_dimension import play
    from pipelines.reporting import figures

    if reference is not None:
        raise ConfigurationError("fig1 is of no model", "REF", reference, "gan figure fig1 --output FILE.png")
    context.log("play   a game in one dimension, by Algorithm 1")
    game = play(seed)
    write_output(output, figures.one_dimensional_game(game.panels))
    found = game.agreement
    context.emit_result(
        {"figure": "fig1", "seed": seed, "output": output, **asdict(found)},
        f"wrote {output}; on the support of p_data, at the end: D is 1/2 within {found.discriminator_from_half:.3f} on "
        f"average, JSD(p_data, p_g) {found.jensen_shannon:.4f} nats; D trained alone was Eq. 2's within "
        f"{found.discriminator_from_optimum:.3f}",
    )


@click.command()
@click.argument("which", metavar="table1|table2", type=click.Choice(["table1", "table2"]))
@click.argument("references", metavar="[REF]...", nargs=-1)
@click.option("--output", metavar="FILE.md", help="Write the table there, as Markdown.")
@common
def table(context: Context, which: str, references: tuple[str, ...], output: str | None) -> None:
    """Print a table of the paper, with what is here beside it.

    table1: Parzen log-likelihoods: the paper's, and those of runs and registered models as they were scored, with
    the reference rows of their data. Several models of TFD's folds are also averaged, as the paper's number is.
    table2: what each family of generative models finds hard, and what shows here that the claims hold.

    \b
    Examples:
      gan table table1 gan-mnist@champion mnist-1a2b3c4d --output table1.md
      gan table table2
    """
    from pipelines.reporting import paper_tables

    if output is not None:
        check_output(output, (".md",))
    if which == "table2":
        if references:
            raise ConfigurationError("table2 is of no model", "REF", " ".join(references), "gan table table2")
        shown, text = list(paper_tables.PAPER_TABLE_2), paper_tables.table_2()
    else:
        if len(set(references)) < len(references):
            raise ConfigurationError("a model given twice", "REF", " ".join(references), "each once")
        rows = paper_tables.scored_rows([_scored(context, reference) for reference in references])
        shown, text = [row.to_json() for row in rows], paper_tables.table_1(rows)
    if output is not None:
        write_output(output, text.encode())
    context.emit_result(
        {"table": which, "output": output, "rows": shown}, text if output is None else f"wrote {output}"
    )


def _scored(context: Context, reference: str) -> "Scored":
    """What is known of the score of a run, or of a version, with its run if that is in the storage."""
    from pipelines.registry import Registry
    from pipelines.registry.reference import is_model_reference
    from pipelines.reporting.paper_tables import Scored
    from pipelines.runs.recorded_run import run_names
    from pipelines.runs.run import Run

    if not is_model_reference(reference):
        return Scored.of_run(open_run(context, reference))
    version = Registry(context.tracking_uri()).resolve(reference)
    run = version.tags.get("run", "")
    return Scored.of_version(version, Run.open(run, context.storage) if run in run_names(context.storage) else None)
