"""What the registry's pages say of a model and of a run, as Markdown: score, table, data, command and links."""

from collections.abc import Mapping
from typing import Any

from gan_core.datasets import Dataset
from pipelines.reporting import narrative
from pipelines.runs import code_version
from pipelines.storage import run_layout

# Links without a host, which are right on whatever server or port the registry's pages are shown.
RUN_PAGE = "#/experiments/{experiment}/runs/{run_id}"
PICTURE = "get-artifact?path=samples.png&run_uuid={run_id}"


def of_model(data: str) -> str:
    """What a registered model is, and what its aliases mean."""
    return (
        f"Generators of adversarial nets, trained on `{data}` by `gan run`: a version for each run.\n\n"
        "- `champion`: the best, by a paired test on held-out images; each move is kept among the tags.\n"
        "- `challenger`: the newest, which is the champion too if it has passed that test.\n"
    )


def of_run(
    run: str, records: Mapping[str, Mapping[str, Any]], dataset: Dataset, command: str, commit: str,
    experiment: str, run_id: str,
) -> str:  # fmt: skip
    """A finished run and its generator: how good, beside what, from which data, by which command, and where more is."""
    score, page = records["evaluate"], RUN_PAGE.format(experiment=experiment, run_id=run_id)
    weights = "averaged" if score["weights"] == "averaged" else "last"
    counts = ", ".join(f"{len(examples):,} {name}" for name, examples in dataset.splits().items())
    shape = " x ".join(map(str, dataset.shape))
    lines = [
        # The registry's tables show the first line as it is, without Markdown.
        f"{_nats(score)} (Parzen window, test images, {weights} G, sigma {score['sigma']:.4f}), "
        f"coverage {score['coverage']:.2f}.",
        "",
        " ".join(narrative.standing(score)),
        "",
        f"![samples, and beside each row's last the training image nearest to it]({PICTURE.format(run_id=run_id)})",
        "",
        "| test images under a Parzen window on | log-likelihood | coverage |",
        "|---|---|---|",
        f"| this model's samples | {_nats(score)} | {score['coverage']:.2f} |",
        *(f"| {name} | {_nats(row)} | {_coverage(row)} |" for name, row in score["references"].items()),
        "",
        f"Trained on `{dataset.name}`: {counts} images of {shape} pixels, digest `{dataset.digest[:12]}`; "
        f"{records['train']['step']:,} steps, by {code_version.shown(commit)}.",
        "",
        f"Again, from the run's [configuration.yaml]({page}/artifacts/configuration.yaml):",
        "",
        f"```\n{command}\n```",
        "",
        f"[Run {run}]({page}) · [report]({page}/artifacts/{run_layout.PAGE})",
    ]
    return "\n".join(lines)


def _nats(row: Mapping[str, Any]) -> str:
    return f"{row['log_likelihood']:.1f} ± {row['standard_error']:.1f} nats"


def _coverage(row: Mapping[str, Any]) -> str:
    return f"{row['coverage']:.2f}" if row.get("coverage") is not None else ""
