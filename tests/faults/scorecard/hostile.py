"""Hostile configurations, files, models and runs: nothing is executed, and each is refused in time, within memory, with its code."""

import contextlib
import gc
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.faults.scorecard import corpus, hostile_models
from tests.faults.scorecard.commands import forked, refusal_fault
from tests.faults.scorecard.hostile_data_sets import data_sets
from tests.faults.scorecard.hostile_images import images
from tests.faults.scorecard.hostile_settings import settings
from tests.faults.scorecard.parts import Measures, Part, Row, at_most

MOST_CPU_SECONDS, MOST_MIB = 5.0, 1024.0


def cases() -> dict[str, Callable[[Path], corpus.Case]]:
    """The whole corpus, by name."""
    return {**settings(), **images(), **data_sets(), **hostile_models.models(), **hostile_models.runs()}


@contextlib.contextmanager
def prepared(folder: Path, seed: int) -> Iterator[Path]:
    """A folder for the cases; what commands import is imported here, once: each runs in a fork of this process."""
    import pyarrow.parquet  # noqa: F401
    import torch
    from PIL import Image

    import pipelines.cli
    import pipelines.flow
    import pipelines.registry
    import pipelines.serving.requests  # noqa: F401

    Image.init()
    torch.set_num_threads(1)
    hostile_models.registered(folder)
    gc.freeze()
    yield folder


def attack(folder: Path, number: int) -> Measures:
    """One case, in a folder of its own: what is wrong with how the command ended, and what it took."""
    every = cases()
    name = list(every)[number]
    place = folder / f"case-{number}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        arguments, codes = every[name](place)
        measured = forked(place, *arguments)
        faults = [refusal_fault(measured.answer, codes)]
        faults += ["something was executed"] if list(place.rglob(corpus.EXECUTED)) else []
        faults += [f"{measured.cpu_seconds:.1f} s of CPU"] if measured.cpu_seconds > MOST_CPU_SECONDS else []
        faults += [f"{measured.peak_mib:.0f} MiB"] if measured.peak_mib > MOST_MIB else []
        faults += ["it hung"] if measured.hung else []
    finally:
        shutil.rmtree(place)
    said = "; ".join(fault for fault in faults if fault)
    return {
        "name": name,
        "fault": f"{name}: {said}" if said else "",
        "cpu": round(measured.cpu_seconds, 2),
        "mib": round(measured.peak_mib),
        "executed": "executed" in said,
        "hung": measured.hung,
    }


def rows(measures: Sequence[Measures]) -> list[Row]:
    """The scorecard's lines."""

    def count(key: str) -> int:
        return sum(bool(one[key]) for one in measures)

    coded = sum("exit" in one["fault"] or "error" in one["fault"] for one in measures)
    name = "hostile models, files, YAML, images"
    return [
        Row(f"{name}: something executed", "0", f"{count('executed')} of {len(measures)}", not count("executed")),
        at_most(measures, "cpu", f"{name}: processor time", MOST_CPU_SECONDS),
        at_most(measures, "mib", f"{name}: memory", MOST_MIB, "MiB"),
        Row(f"{name}: another code, or an uncaught error", "0", str(coded), not coded),
    ]


PART = Part("hostile", len(cases()), prepared, attack, rows, most=len(cases()))
