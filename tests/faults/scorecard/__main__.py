"""The scorecard of faults: `make faults`, or one part of it: python -m tests.faults.scorecard --part flips --runs 1000

Trials that have ended are kept, a line each, in the folder given by --folder: the same command goes on after the last.
It ends with 1 when a target is missed, and writes scorecard.json and scorecard.md there.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pipelines.runs import code_version
from pipelines.runtime.ray_session import prepare_environment
from tests.faults.scorecard import flips, gate, hostile, kills, registry, run_kills, serving
from tests.faults.scorecard.parts import Journal, Part, Row, run_part

PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        flips.PART,
        hostile.PART,
        gate.PART,
        registry.PROXY,
        registry.CONTENDERS,
        serving.PART,
        kills.TRAINING,
        kills.SIGTERMS,
        run_kills.PIPELINE,
    )
}
NEIGHBOUR = "while True: pass"


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Processes that keep so many processors busy."""
    running = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def markdown(rows: dict[str, list[Row]], head: dict[str, Any]) -> str:
    """The table, with what it was measured on."""
    lines = ["| part | figure | target | seen | |", "|---|---|---|---|---|"]
    for name, of_part in rows.items():
        lines += [f"| {name} | {r.figure} | {r.target} | {r.seen} | {'' if r.met else '**missed**'} |" for r in of_part]
    where = f"Code {head['code'][:12]}, seed {head['seed']}, {os.cpu_count()} CPUs, {'two busy neighbours' if head['busy'] else 'no neighbours of ours'}."
    return "\n".join([*lines, "", where, ""])


@click.command()
@click.option("--part", "names", multiple=True, type=click.Choice(list(PARTS)), help="Only this part; several times.")
@click.option("--runs", type=click.IntRange(min=1), help="Trials of each part  [default: those of a whole scorecard].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn.")
@click.option("--busy", is_flag=True, help="Beside two processes that never wait.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("faults"), show_default=True)
def main(names: tuple[str, ...], runs: int | None, seed: int, busy: bool, folder: Path) -> None:
    """Run trials, print the table and keep it; those that have ended before count."""
    prepare_environment()
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    head = {"code": code_version.digest(), "seed": seed, "busy": busy}
    journal = Journal(folder / f"trials-{seed}{'-busy' if busy else ''}.jsonl", head)
    chosen = [PARTS[name] for name in names or PARTS]
    with neighbours(2 if busy else 0):
        for part in chosen:
            since, trials = time.monotonic(), min(runs or part.trials, part.most)
            run_part(part, trials, journal, folder / part.name, seed, lambda text: click.echo(text, err=True))
            click.echo(f"{part.name}: {trials} trials, {time.monotonic() - since:.0f} s", err=True)
    rows = {part.name: part.rows(list(journal.ended.get(part.name, {}).values())) for part in chosen}
    text = markdown(rows, head)
    (folder / "scorecard.md").write_text(text)
    table = {name: [vars(row) for row in of_part] for name, of_part in rows.items()}
    (folder / "scorecard.json").write_text(json.dumps({**head, "parts": table}, indent=1))
    click.echo(text)
    sys.exit(0 if all(row.met for of_part in rows.values() for row in of_part) else 1)


if __name__ == "__main__":
    main()
