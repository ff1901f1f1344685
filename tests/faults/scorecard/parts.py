"""What a scorecard is made of: parts, their trials kept in a journal as they end, and the rows that they add up to."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Measures = dict[str, Any]  # of one trial, as JSON; `fault` says what was wrong, and is empty if nothing was


@dataclass(frozen=True)
class Row:
    """A line of the scorecard."""

    figure: str
    target: str
    seen: str
    met: bool


@dataclass(frozen=True)
class Part:
    """A kind of fault, and how it is tried: each trial is a function of its number and the seed."""

    name: str
    trials: int  # of a whole scorecard
    prepare: Callable[[Path, int], AbstractContextManager[Any]]  # from a folder of its own and the seed
    trial: Callable[[Any, int], Measures]  # from what is prepared, and the trial's number
    rows: Callable[[Sequence[Measures]], list[Row]]
    most: int = 10**9  # trials that there are


@dataclass
class Journal:
    """Trials that have ended, a line of JSON each: who starts again goes on after the last."""

    path: Path
    head: dict[str, Any]  # what the trials are a function of: those of another code, seed or load are not these
    ended: dict[str, dict[int, Measures]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        known = [json.loads(line) for line in lines if line.endswith("}")]  # the last may be half a line
        if not known or known[0] != self.head:
            known = []
            self.path.write_text(json.dumps(self.head) + "\n")
        for entry in known[1:]:
            self.ended.setdefault(entry["part"], {})[entry["number"]] = entry["measures"]

    def add(self, part: str, number: int, measures: Measures) -> None:
        """Keep a trial's measures."""
        with self.path.open("a") as file:
            file.write(json.dumps({"part": part, "number": number, "measures": measures}) + "\n")
        self.ended.setdefault(part, {})[number] = measures


def run_part(part: Part, trials: int, journal: Journal, folder: Path, seed: int, log: Callable[[str], None]) -> None:
    """Do those of the first `trials` trials that the journal does not have."""
    left = [number for number in range(trials) if number not in journal.ended.get(part.name, {})]
    if not left:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with part.prepare(folder, seed) as prepared:
        for number in left:
            since = time.monotonic()
            measures = {"fault": "", **part.trial(prepared, number)}
            measures["seconds"] = round(time.monotonic() - since, 3)
            journal.add(part.name, number, measures)
            if measures["fault"]:
                log(f"{part.name} {number}: {measures['fault']}")


def of_all(measures: Sequence[Measures], figure: str, target: str) -> Row:
    """A row whose target is that no trial had a fault."""
    failed = [one["fault"] for one in measures if one["fault"]]
    return Row(figure, target, f"{len(measures) - len(failed)} of {len(measures)}", not failed)


def at_most(measures: Sequence[Measures], key: str, figure: str, most: float, unit: str = "s") -> Row:
    """A row whose target is that no trial measured more; trials that measure something else have no part in it.

    Where none has measured it, the target is not met.
    """
    values = [one[key] for one in measures if key in one]
    return Row(
        figure,
        f"<= {most:g} {unit}".strip(),
        f"{max(values):.3g} {unit}".strip() + f" at most, of {len(values)}" if values else "none measured",
        bool(values) and max(values) <= most,
    )
