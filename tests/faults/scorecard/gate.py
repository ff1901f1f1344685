"""The promotion gate on models whose truth is known: years of equal ones, collapsed ones, one that is 10 nats better."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gan_core.metrics.diagnosis import diagnose
from gan_core.threads import one_thread
from pipelines.config import GateSettings
from tests.benchmarks.gate import digits, models, split, verdict
from tests.faults.scorecard.parts import Measures, Part, Row
from tests.pipelines.nights import USUAL, first_night_rate, year

YEARS, NIGHTS, POINTS = 20, 20, 200
MOST_PROMOTIONS, LEAST_RATE = 5, 0.95


@contextlib.contextmanager
def prepared(folder: Path, seed: int) -> Iterator[int]:
    """Nothing but the seed."""
    yield seed


def trial(seed: int, number: int) -> Measures:
    """A year of equal models, some nights of a better one, and collapsed models of one split of the digits."""
    settings, drawn = GateSettings(), 1000 * seed + number
    promotions = year(drawn, settings, USUAL).promotions
    better = first_night_rate(drawn, 10, settings, USUAL, NIGHTS)
    random = np.random.default_rng([seed, number])
    seen, let_in = split(digits(), POINTS, random), []
    samples = min(len(seen.training), len(seen.fresh))
    for kind, name, draw in models(seen, random):
        if kind == "collapsed":
            with one_thread():
                found = verdict(diagnose(seen.points, draw(samples), seen.training, seen.validation))
            let_in += [name] if found == "passes" else []
    fault = f"{promotions} promotions in a year of equal models" if promotions > MOST_PROMOTIONS else ""
    fault = f"let in, though collapsed: {', '.join(let_in)}" if let_in else fault
    return {"fault": fault, "promotions": promotions, "better": better, "collapsed": len(let_in)}


def rows(measures: Sequence[Measures]) -> list[Row]:
    """The scorecard's lines."""
    most = max((one["promotions"] for one in measures), default=0)
    rate = float(np.mean([one["better"] for one in measures])) if measures else 0.0
    let_in = sum(one["collapsed"] for one in measures)
    years = f"{len(measures)} years of 365 nights"
    return [
        Row("equal nights promoted in a year", f"<= {MOST_PROMOTIONS}", f"{most} at most, {years}", most <= MOST_PROMOTIONS),
        Row("collapsed models promoted", "0", f"{let_in} of {5 * len(measures)}", not let_in),
        Row("10 nats better, promoted the first night", f">= {LEAST_RATE:.0%}", f"{rate:.1%} of {NIGHTS * len(measures)}", rate >= LEAST_RATE),
    ]  # fmt: skip


PART = Part("gate", YEARS, prepared, trial, rows)
