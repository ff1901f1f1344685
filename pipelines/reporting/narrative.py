"""What a run's numbers say, in words: where its score stands among the references, and what to do next."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Table 1 of the paper: Parzen-window log-likelihood, nats; of TFD, mean and standard error over its five folds.
PAPER_TABLE_1 = {
    "mnist": (("DBN", 138, 2.0), ("Stacked CAE", 121, 1.6), ("Deep GSN", 214, 1.1), ("Adversarial nets", 225, 2.0)),
    "tfd": (("DBN", 1909, 66), ("Stacked CAE", 2110, 50), ("Deep GSN", 1890, 29), ("Adversarial nets", 2057, 26)),
}
REAL, MEAN_IMAGE = "training data", "mean image"
NAMES = {REAL: "training images themselves", MEAN_IMAGE: "their mean image alone", "k-means": "their k-means centroids"}
EDGE = 0.05  # of a searched range: a choice so near to its end


@dataclass(frozen=True)
class ScaleMark:
    """A score on the scale: whose, its place in percent from left to right, and whether it is the model's."""

    name: str
    log_likelihood: float
    standard_error: float | None
    percent: float
    kind: str  # model, reference or paper
    off: bool = False  # so far below the others that it stands at the edge


def scale(score: Mapping[str, Any], data: str) -> list[ScaleMark]:
    """The model, its references and the paper's number of the data set from worst to best, on one linear scale.

    Where the mean image is far below all others, it stands at the left edge, off the scale.
    """
    rows = [("this model", score["log_likelihood"], score["standard_error"], "model")]
    for name, row in score["references"].items():
        rows.append((NAMES.get(name, name), row["log_likelihood"], row.get("standard_error"), "reference"))
    for name, mean, error in PAPER_TABLE_1.get(data, ()):
        if name == "Adversarial nets":
            rows.append(("adversarial nets in the paper", mean, error, "paper"))
    finite = sorted((row for row in rows if math.isfinite(row[1])), key=lambda row: row[1])
    top = finite[-1][1]
    others = [row[1] for row in finite if row[0] != NAMES[MEAN_IMAGE]] or [top]
    low = max(finite[0][1], others[0] - 4 * max(top - others[0], 1))
    span = (top - low) or 1
    return [
        ScaleMark(name, value, error, round(100 * max(0.0, (value - low) / span), 1), kind, value < low)
        for name, value, error, kind in finite
    ]


def standing(score: Mapping[str, Any]) -> list[str]:
    """Where the score stands, a sentence each; the whole scale is linear in nats."""
    value, references = score["log_likelihood"], score["references"]
    real, mean = references.get(REAL), references.get(MEAN_IMAGE)
    said = []
    if real:
        gap = value - real["log_likelihood"]
        chance = math.hypot(score["standard_error"], real.get("standard_error") or 0)
        where = f"{abs(gap):.1f} nats {'above' if gap > 0 else 'below'}"
        said.append(
            f"The test images are {where} what they are under the training images themselves"
            + (", which is within two standard errors." if abs(gap) <= 2 * chance else ".")
        )
    if real and mean and real["log_likelihood"] > mean["log_likelihood"]:
        way = (value - mean["log_likelihood"]) / (real["log_likelihood"] - mean["log_likelihood"])
        if way <= 0:
            said.append(
                "That is no better than one image, the mean of all: the samples say nothing about single images."
            )
        else:
            said.append(f"Of the way there from one image, the mean of all, it has gone {100 * way:.0f} %.")
    better = [name for name in ("k-means",) if name in references and references[name]["log_likelihood"] > value]
    if better:
        said.append(
            "Blurred averages of training images (k-means) score higher: a Parzen window rewards smoothness, so look."
        )
    return said


@dataclass(frozen=True)
class NextStep:
    """An advice, and the command or the setting that follows it, if one does."""

    text: str
    command: str | None = None


def next_steps(
    run: str, records: Mapping[str, Any], settings: Mapping[str, Any], history: Sequence[Mapping[str, Any]] = ()
) -> list[NextStep]:
    """What to do with the run's outcome: first what is wrong with it, then what it is good for."""
    score = records["evaluate"]
    return [
        *_faults(score),
        *_more_training(run, settings, history),
        *_wider_space(records, settings),
        *_with_the_model(run, records),
        NextStep(
            "Learn how much of the score is chance: the same run with another seed, beside this one.",
            f"gan run {run}.yaml --set seed=1 --name {run}-seed-1\n"
            f"gan runs compare {run} {run}-seed-1 --html compare.html",
        ),
    ]


def _faults(score: Mapping[str, Any]) -> list[NextStep]:
    quality, found = score.get("quality") or {}, []
    coverage, real = score.get("coverage"), score["references"].get(REAL, {}).get("coverage")
    if coverage is not None and real and coverage < real / 2:
        found.append(
            NextStep(f"G has left out much of the data: its samples cover {100 * coverage:.0f} % of the test images, the training images {100 * real:.0f} %. Lower G's learning rate, or give D more steps.")
        )  # fmt: skip
    if (quality.get("memorisation") or 0) > 0.9:
        found.append(NextStep("The samples are near copies of training images: train on more of them, or a smaller G."))
    return found


def _more_training(run: str, settings: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[NextStep]:
    """More steps, where the validation score of the last check is the best of at least three."""
    checks = [row["validation_log_likelihood"] for row in history if "validation_log_likelihood" in row]
    steps = (settings.get("algorithm") or {}).get("steps")
    if not steps or len(checks) < 3 or checks[-1] < max(checks):
        return []
    command = f"gan run {run}.yaml --continue-from {run} --set algorithm.steps={2 * steps} --name {run}-longer"
    return [NextStep("The validation score was still rising at the end: train longer.", command)]


def _wider_space(records: Mapping[str, Any], settings: Mapping[str, Any]) -> list[NextStep]:
    """A wider range of a setting whose choice lies at an end of it."""
    space, chosen = (settings.get("tune") or {}).get("space") or {}, (records.get("tune") or {}).get("chosen", {})
    found = []
    for key, distribution in space.items():
        ((kind, bounds),) = distribution.items()
        value = chosen.get(key)
        if kind == "choice" or not isinstance(value, int | float) or not bounds[0] < bounds[1]:
            continue
        low, high, at = (math.log(x) for x in (*bounds, value)) if kind == "log_uniform" else (*bounds, value)
        part = (at - low) / (high - low)
        if part < EDGE or part > 1 - EDGE:
            wider = [bounds[0] / 4, bounds[1]] if part < EDGE else [bounds[0], bounds[1] * 4]
            found.append(
                NextStep(
                    f"The search chose {key} {value:g}, at the {'lower' if part < EDGE else 'upper'} end of its range: widen it.",
f"tune:\n  space:\n    {key}: {{{kind}: [{wider[0]:g}, {wider[1]:g}]}}",
                )
            )  # fmt: skip
    return found


def _with_the_model(run: str, records: Mapping[str, Any]) -> list[NextStep]:
    registered = records.get("register")
    if not registered:
        return [NextStep("The model is in no registry yet.", f"gan register {run}")]
    model, version = registered["model"], f"{registered['model']}/{registered['version']}"
    if registered["alias"] == "champion":
        return [
            NextStep("Draw samples of the champion, or serve them.", f"gan sample {model}@champion -n 64 --output samples.png\ngan serve {model}@champion --follow"),
        ]  # fmt: skip
    return [
        NextStep("It is not the champion: see both side by side, and promote it if you see better.", f"gan models compare {version} {model}@champion\ngan models promote {version}"),
    ]  # fmt: skip
