"""The paper's two tables: its scores with ours beside them, and what each family of models finds hard."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gan_core.errors import CheckpointError, RegistryError
from pipelines.evaluation.scores import over_models
from pipelines.registry import ModelVersion
from pipelines.reporting.narrative import PAPER_TABLE_1
from pipelines.runs.run import Run
from pipelines.storage import run_layout
from pipelines.storage.metric_log import read_history

PROTOCOLS = ("paper", "cross_validated")
TAGS = ("generator_sha256", "data", "commit", "protocol", "log_likelihood", "standard_error", "sigma", "coverage")
FOLDS = "tfd"  # the data set whose published number is a mean over folds

# Table 2, in our words: for each task, what stands in its way in four families of generative models.
FAMILIES = ("deep directed graphical models", "deep undirected graphical models", "generative autoencoders", "adversarial models")  # fmt: skip
PAPER_TABLE_2: tuple[dict[str, str], ...] = (
    {
        "task": "training",
        FAMILIES[0]: "needs inference at every step",
        FAMILIES[1]: "needs inference at every step, and a Markov chain for the partition function's gradient",
        FAMILIES[2]: "mixing is traded against the quality of reconstructions",
        FAMILIES[3]: "D has to keep step with G, or G sends many z to one x",
        "shown here": "`python -m tests.paper.schemes`: which settings fall out of step; a collapsed G is refused: "
        "`tests/pipelines/test_promotion_gate.py::test_generator_ignoring_z_is_refused_even_as_first`",
    },
    {
        "task": "inference",
        FAMILIES[0]: "approximate, and learned",
        FAMILIES[1]: "variational",
        FAMILIES[2]: "by a Markov chain",
        FAMILIES[3]: "none of its own: approximate, and learned afterwards",
        "shown here": "`gan reconstruct REF`; an encoder trained once G is fixed: "
        "`tests/gan_core/test_inference.py::test_trained_encoder_beats_random_z_and_mean_image`",
    },
    {
        "task": "sampling",
        FAMILIES[0]: "nothing in its way",
        FAMILIES[1]: "needs a Markov chain",
        FAMILIES[2]: "needs a Markov chain",
        FAMILIES[3]: "nothing in its way: one pass through G",
        "shown here": "`gan sample`; samples are G(z) and independent: "
        "`tests/gan_core/test_training.py::test_samples_are_g_of_z_without_gradient`",
    },
    {
        "task": "evaluating p(x)",
        FAMILIES[0]: "intractable; annealed importance sampling approximates it",
        FAMILIES[1]: "intractable; annealed importance sampling approximates it",
        FAMILIES[2]: "not in the model; a Parzen window on samples approximates it",
        FAMILIES[3]: "not in the model; a Parzen window on samples approximates it",
        "shown here": "`gan evaluate`; how well: "
        "`tests/gan_core/test_parzen.py::test_parzen_window_has_its_closed_forms`; "
        "that smooth samples score above the data: `gan table table1 REF`",
    },
    {
        "task": "designing a model",
        FAMILIES[0]: "very hard for nearly all of them",
        FAMILIES[1]: "several properties have to hold at once",
        FAMILIES[2]: "any differentiable function will do, in principle",
        FAMILIES[3]: "any differentiable function will do, in principle",
        "shown here": "no rule on the layers of G and D but their widths: "
        "`tests/gan_core/test_network_recipes.py::test_hidden_layers_may_have_an_activation_each`",
    },
)


@dataclass(frozen=True)
class Row:
    """A score on a data set's test images, with what it takes to read it."""

    samples_from: str
    data: str
    log_likelihood: float
    standard_error: float
    coverage: float | None
    protocol: str
    date: str  # of the training's end, or of the registration
    commit: str

    def to_json(self) -> dict[str, Any]:
        """Its fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Scored:
    """A model as it was scored: by the record of its run, or by its tags where the run is not at hand."""

    name: str
    data: str
    record: Mapping[str, Any] | None
    tags: Mapping[str, str]
    date: str
    commit: str

    @classmethod
    def of_run(cls, run: Run) -> "Scored":
        """A run with what its evaluation has noted.

        Raises:
            CheckpointError: If it has not been evaluated.
        """
        record = run.record("evaluate")
        if record is None:
            raise CheckpointError("not evaluated yet", run.name, "no score", "a run that gan run has finished")
        history = read_history(run.folder.child(run_layout.HISTORY))
        date = _day(history[-1]["time_ms"]) if history else ""
        return cls(run.name, run.configuration.data.name, record, {}, date, run.commit)

    @classmethod
    def of_version(cls, version: ModelVersion, run: Run | None) -> "Scored":
        """A registered version; with its run's references, if that is at hand and its score still is this version's.

        Raises:
            RegistryError: If it has no score among its tags.
        """
        tags = {**version.tags, **{name: f"{value}" for name, value in version.metrics().items()}}
        missing = [tag for tag in TAGS if tag not in tags]
        if missing:
            raise RegistryError("no score of ours", version, f"no tag {missing[0]}", "a version registered by gan")
        record = run.record("evaluate") if run is not None else None
        if record is not None and record["generator_sha256"] != version.tags["generator_sha256"]:
            record = None
        return cls(str(version), tags["data"], record, tags, _day(version.created), tags["commit"])


def scored_rows(scored: Sequence[Scored]) -> list[Row]:
    """The models' rows, then the mean over several of TFD's folds, then the reference rows of their data, each once."""
    rows = [row for one in scored for row in _own_rows(one)]
    folds = [one for one in scored if one.data == FOLDS and one.record is not None]
    if len(folds) > 1:
        together = over_models([one.record for one in folds if one.record is not None])
        rows += [
            _row(f"mean over {len(folds)} models of {FOLDS}", folds[-1], together[protocol], protocol)
            for protocol in PROTOCOLS
        ]
    references = {
        (one.record["data_digest"], row.samples_from, row.protocol): row
        for one in scored
        if one.record is not None
        for row in _reference_rows(one, one.record)
    }
    return rows + list(references.values())


def table_1(rows: Sequence[Row]) -> str:
    """Table 1 as Markdown: the paper's rows first; a column for each data set."""
    columns = list(dict.fromkeys([*PAPER_TABLE_1, *(row.data for row in rows)]))
    names = [name for name, *_ in PAPER_TABLE_1["mnist"]]
    published = {data: {name: f"{mean} ± {error:g}" for name, mean, error in PAPER_TABLE_1[data]} for data in PAPER_TABLE_1}  # fmt: skip
    lines = [["samples from", *columns, "coverage", "protocol", "date", "commit"]]
    for name in names:
        cells = [published.get(data, {}).get(name, "") for data in columns]
        lines.append([f"{name}, as published", *cells, "", "paper", "2014", ""])
    for row in rows:
        score = f"{row.log_likelihood:.1f} ± {row.standard_error:.1f}"
        cells = [score if data == row.data else "" for data in columns]
        coverage = "" if row.coverage is None else f"{row.coverage:.2f}"
        lines.append([row.samples_from, *cells, coverage, row.protocol, row.date, row.commit[:7]])
    return f"Parzen-window log-likelihood of test images, nats, mean ± standard error.\n\n{_markdown(lines)}"


def table_2() -> str:
    """Table 2 as Markdown."""
    keys = list(PAPER_TABLE_2[0])
    return _markdown([keys, *([row[key] for key in keys] for row in PAPER_TABLE_2)])


def _own_rows(one: Scored) -> list[Row]:
    if one.record is not None:
        name = f"{one.name}, {one.record['weights']} G"
        return [_row(name, one, one.record[protocol], protocol, one.record["coverage"]) for protocol in PROTOCOLS]
    numbers = {key: float(one.tags[key]) for key in ("log_likelihood", "standard_error", "coverage")}
    protocol = f"{one.tags['protocol']}, sigma {float(one.tags['sigma']):.4f}"
    return [Row(f"{one.name}, {one.tags.get('weights', 'last')} G", one.data, protocol=protocol, date=one.date, commit=one.commit, **numbers)]  # fmt: skip


def _reference_rows(one: Scored, record: Mapping[str, Any]) -> list[Row]:
    return [_row(name, one, row, "paper", row.get("coverage")) for name, row in record["references"].items()]


def _row(name: str, one: Scored, score: Mapping[str, Any], protocol: str, coverage: float | None = None) -> Row:
    said = [f"{score['samples']} samples"] if "samples" in score else []
    said += [f"sigma {score['sigma']:.4f}"] if "sigma" in score else ["sigma of each"]
    return Row(
        name, one.data, score["log_likelihood"], score["standard_error"], coverage,
        f"{protocol}: {', '.join(said)}", one.date, one.commit,
    )  # fmt: skip


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body]) + "\n"


def _day(milliseconds: int) -> str:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).date().isoformat()
