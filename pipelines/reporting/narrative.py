"""What a run's numbers say, in words: where its score stands among the references, and what to do next."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gan_core.errors import ConfigurationError

# Table 1 of the paper: Parzen-window log-likelihood, nats; of TFD, mean and standard error over its five folds.
PAPER_TABLE_1 = {
    "mnist": (("DBN", 138, 2.0), ("Stacked CAE", 121, 1.6), ("Deep GSN", 214, 1.1), ("Adversarial nets", 225, 2.0)),
    "tfd": (("DBN", 1909, 66), ("Stacked CAE", 2110, 50), ("Deep GSN", 1890, 29), ("Adversarial nets", 2057, 26)),
}
REAL, MEAN_IMAGE = "training data", "mean image"
NAMES = {REAL: "training images themselves", MEAN_IMAGE: "their mean image alone", "k-means": "their k-means centroids"}
EDGE = 0.05  # of a searched range: a choice so near to its end
HALVINGS = 6  # of a wider range's widening, until the setting allows it


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
        _another_seed(run, settings),
    ]


def _another_seed(run: str, settings: Mapping[str, Any]) -> NextStep:
    seed = 2 if settings.get("seed") == 1 else 1
    return NextStep(
        "Learn how much of the score is chance: the same run with another seed, beside this one.",
        f"gan run {run}.yaml --set seed={seed} --name {run}-seed-{seed}\n"
        f"gan runs compare {run} {run}-seed-{seed} --html compare.html",
    )


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
    """A wider range of a setting whose choice lies at an end of it, or beyond: as far as the setting allows."""
    space, chosen = (settings.get("tune") or {}).get("space") or {}, (records.get("tune") or {}).get("chosen", {})
    found = []
    for key, distribution in space.items():
        ((kind, bounds),) = distribution.items()
        value = chosen.get(key)
        if kind == "choice" or not isinstance(value, int | float) or not bounds[0] < bounds[1]:
            continue
        if kind == "log_uniform" and value <= 0:  # the configuration's own, which no such range has
            continue
        low, high, at = (math.log(x) for x in (*bounds, value)) if kind == "log_uniform" else (*bounds, value)
        part = (at - low) / (high - low)
        if EDGE <= part <= 1 - EDGE:
            continue
        end = int(part > 1 - EDGE)
        for wider in _wider_ends(kind, bounds, end):
            ends = [*bounds[:end], wider, *bounds[end + 1 :]]
            if _allowed(settings, space, key, {kind: ends}, wider):
                said = f"The search chose {key} {value:g}, at the {('lower', 'upper')[end]} end of its range: widen it."
                found.append(
                    NextStep(said, f"tune:\n  space:\n    {key}: {{{kind}: [{', '.join(map(_number, ends))}]}}")
                )
                break
    return found


def _wider_ends(kind: str, bounds: Sequence[float], end: int) -> Iterator[float]:
    """Ends for a range's lower end (0) or upper one (1), farthest first: by a factor of 4, or by the range's own length."""
    low, high = bounds
    if kind == "integer":
        ends = [high * 4, high * 2] if end else [max(1, low // 4)]
    elif kind == "log_uniform":
        ends = [bounds[end] * 4.0 ** ((2 * end - 1) / 2**halved) for halved in range(HALVINGS)]
    else:
        ends = [bounds[end] + (2 * end - 1) * (high - low) / 2**halved for halved in range(HALVINGS)]
    for wider in ends:
        wider = wider if kind == "integer" else float(f"{wider:.4g}")
        if wider > high if end else wider < low:
            yield wider


def _allowed(
    settings: Mapping[str, Any], space: Mapping[str, Any], key: str, distribution: Mapping[str, Any], end: float
) -> bool:
    """Whether a configuration can have this range, and the setting its new end."""
    from pipelines import config  # and with it torch

    try:
        config.override(config.build(settings), {"tune.space": {**space, key: distribution}, key: end})
    except ConfigurationError:
        return False
    return True


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.10g}"


def _with_the_model(run: str, records: Mapping[str, Any]) -> list[NextStep]:
    registered = records.get("register")
    if not registered:
        return [NextStep("The model is in no registry yet.", f"gan register {run}")]
    model, version = registered["model"], f"{registered['model']}/{registered['version']}"
    if registered["alias"] == "champion":
        return [
            NextStep("Draw samples of the champion, or serve them.", f"gan sample {model}@champion -n 64 --output samples.png\ngan serve {model}@champion --follow"),
        ]  # fmt: skip
    # The gate says the same of the same pair each time it is asked.
    promoted = f'gan models promote {version} --force --reason "its samples are good"'
    if "better than " in registered.get(
        "reason", ""
    ):  # only then it was held against a champion that it can be compared with
        return [
            NextStep("It is not the champion: see both side by side, and promote it if you see better.", f"gan models compare {version} {model}@champion\n{promoted}"),
        ]  # fmt: skip
    return [
        NextStep("The gate has refused it: look at its samples, and promote it if you see that they are good.", f"gan sample {version} -n 64 --output samples.png\n{promoted}"),
    ]  # fmt: skip
