"""One self-contained HTML page that compares runs: samples side by side, scores, settings, curves over each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.reporting import charts, figures
from pipelines.reporting.html_report import embedded, environment, page_scripts
from pipelines.runs.run import Run
from pipelines.storage import checkpoint_names, run_layout
from pipelines.storage.metric_log import read_history

SAMPLES, SEED = 64, 0
CURVES = (
    ("V(D, G)", "value", "nats", False),
    ("D's loss", "discriminator_loss", "loss", False),
    ("G's loss", "generator_loss", "loss", False),
    ("Validation log-likelihood on the way", "validation_log_likelihood", "nats", False),
    ("Variance of the samples, of that of the images", "sample_variance", "ratio", False),
    ("Gradient norm of D", "discriminator_gradient_norm", "norm", True),
    ("Gradient norm of G", "generator_gradient_norm", "norm", True),
)


def comparison_page(runs: Sequence[Run], found: Mapping[str, Any]) -> str:
    """The page of these runs, of which `status.compare` has found these scores and settings: the same runs, the same bytes."""
    histories = {run.name: read_history(run.folder.child(run_layout.HISTORY)) for run in runs}
    drawn = {run.name: picture for run in runs if (picture := _samples(run)) is not None}
    return render(found, histories, drawn)


def render(
    found: Mapping[str, Any], histories: Mapping[str, Sequence[Mapping[str, Any]]], samples: Mapping[str, bytes]
) -> str:
    """The page of `status.compare`'s answer, each run's history, and its samples as a PNG; what a run lacks is left out."""
    valued = any("value" in row for history in histories.values() for row in history)
    lines = [
        charts.overlaid(title, metric, histories, y_name=unit, log_y=logarithmic)
        for title, metric, unit, logarithmic in CURVES
        if metric != ("discriminator_loss" if valued else "value")
    ]
    scores = found["scores"]["log_likelihood"]
    known = [score for score in scores if score is not None]
    comparable = bool(known) and not any(name.startswith("data.") for name in found["settings"])
    page = environment().get_template("compare.html")
    return page.render(
        names=found["runs"], found=found, best=scores.index(max(known)) if comparable else None, samples=embedded(samples),
        training_charts=[line for line in lines if line], seed=SEED, **page_scripts(),
    )  # fmt: skip


def _samples(run: Run) -> bytes | None:
    """Samples of one seed for every run, by the weights that are scored; none of a run that is not trained."""
    if not checkpoint_names(run.folder.child(run_layout.CHECKPOINTS)):
        return None
    model = run.generator()
    return figures.png(figures.sample_grid(model.draw(SAMPLES, SEED), model.pixels))
