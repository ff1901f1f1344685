"""gan table: the paper's numbers to the digit, ours as they were scored, and pointers that lead somewhere."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.cli import cli
from pipelines.registry import Registry
from pipelines.reporting import paper_tables
from pipelines.reporting.paper_tables import PAPER_TABLE_2, Scored
from pipelines.runs.run import Run
from pipelines.storage import Storage
from tests.pipelines.conftest import failed

ROOT = Path(__file__).parents[2]
SCORE = {"log_likelihood": 1900.0, "standard_error": 9.0, "sigma": 0.1, "samples": 500}


def cells(markdown):
    """The rows of a Markdown table, by their first cell."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert len({len(row) for row in rows}) == 1
    return rows[0], {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}


def fold(number, **score):
    record = {"weights": "last", "coverage": 0.5, "data_digest": f"digest {number}", "references": {}}
    return Scored(f"tfd-{number}", "tfd", {**record, "paper": {**SCORE, **score}, "cross_validated": SCORE}, {}, "2026-11-24", "c0ffee")  # fmt: skip


def test_table_1_has_the_papers_numbers():
    """Table 1 has the paper's numbers to the digit."""
    head, rows = cells(paper_tables.table_1([]))
    assert head[:3] == ["samples from", "mnist", "tfd"]
    published = {name.removesuffix(", as published"): (row["mnist"], row["tfd"]) for name, row in rows.items()}
    assert published == {
        "DBN": ("138 ± 2", "1909 ± 66"),
        "Stacked CAE": ("121 ± 1.6", "2110 ± 50"),
        "Deep GSN": ("214 ± 1.1", "1890 ± 29"),
        "Adversarial nets": ("225 ± 2", "2057 ± 26"),
    }


def test_run_and_version_stand_in_table_1(finished, tmp_path, here):
    """A run and its version stand in table 1 with their protocols and the reference rows."""
    where = ("--storage", finished.storage, "--json")
    answer = here("table", "table1", "small-run", "gan-small@champion", "--output", "t.md", *where)
    assert answer.code == 0, answer.err
    score = finished.record("evaluate")
    head, rows = cells((tmp_path / "t.md").read_text())
    assert head[:4] == ["samples from", "mnist", "tfd", "digits"]
    names = [row["samples_from"] for row in answer.json["rows"]]
    assert names == ["small-run, last G"] * 2 + ["gan-small/1, last G"] * 2 + list(score["references"])
    assert {"training data", "k-means"} <= set(names)
    by_protocol = {row["protocol"].split(":")[0]: row for row in answer.json["rows"][:2]}
    for protocol in ("paper", "cross_validated"):
        for key in ("log_likelihood", "standard_error"):
            assert by_protocol[protocol][key] == score[protocol][key]
    expected = score["references"]["training data"]
    row = rows["training data"]
    assert row["digits"] == f"{expected['log_likelihood']:.1f} ± {expected['standard_error']:.1f}"
    assert row["coverage"] == f"{expected['coverage']:.2f}"
    assert row["protocol"] == f"paper: {expected['samples']} samples, sigma {expected['sigma']:.4f}"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", row["date"])
    assert row["commit"] == json.loads((finished.folder / "run.json").read_text())["commit"][:7]


def test_version_without_its_run_shows_its_tags(finished, tmp_path, here):
    """A version whose run is elsewhere stands in the table with its tags."""
    uri = f"sqlite:///{finished.storage}/mlflow.db"
    answer = here("table", "table1", "gan-small/1", "--storage", tmp_path / "empty", "--tracking-uri", uri, "--json")
    assert answer.code == 0, answer.err
    (row,) = answer.json["rows"]
    score = finished.record("evaluate")
    assert (row["log_likelihood"], row["coverage"]) == (score["log_likelihood"], score["coverage"])
    assert row["protocol"] == f"paper: 500 samples, sigma from 200 validation points, sigma {score['sigma']:.4f}"


def test_references_of_a_retrained_run_are_not_used(finished):
    """Reference rows are not taken from the record of a run that was trained again after the version."""
    version = Registry(f"sqlite:///{finished.storage}/mlflow.db").resolve("gan-small/1")
    run = Run.open("small-run", Storage.at(finished.storage))
    assert Scored.of_version(version, run).record is not None
    other = replace(version, tags={**version.tags, "generator_sha256": "f" * 64})
    assert Scored.of_version(other, run).record is None


def test_tfd_folds_are_averaged_with_error_over_folds():
    """Folds of TFD are averaged, and their error is over folds."""
    rows = paper_tables.scored_rows([fold(0, log_likelihood=1900.0), fold(1, log_likelihood=2100.0)])
    mean = next(row for row in rows if row.samples_from.startswith("mean over 2") and row.protocol.startswith("paper"))
    assert mean.log_likelihood == 2000
    assert mean.standard_error == pytest.approx(100 / 2**0.5)
    _, shown = cells(paper_tables.table_1([mean]))
    assert shown["mean over 2 models of tfd"]["tfd"] == "2000.0 ± 70.7"
    assert not any("mean" in row.samples_from for row in paper_tables.scored_rows([fold(0)]))


def test_table_2_covers_every_family_and_task(here):
    """Table 2 says of every family of models what each task meets, as the paper does."""
    answer = here("table", "table2", "--json")
    assert answer.code == 0
    assert answer.json["rows"] == [dict(row) for row in PAPER_TABLE_2]
    head, rows = cells(paper_tables.table_2())
    assert head == ["task", *paper_tables.FAMILIES, "shown here"]
    assert list(rows) == ["training", "inference", "sampling", "evaluating p(x)", "designing a model"]
    assert all(cell for row in rows.values() for cell in row.values())


@pytest.mark.parametrize("row", PAPER_TABLE_2, ids=lambda row: row["task"])
def test_what_shows_a_claim_of_table_2_is_there(row):
    pointers = re.findall("`([^`]+)`", row["shown here"])
    assert pointers
    for pointer in pointers:
        if pointer.startswith("gan "):
            assert pointer.split()[1] in cli.commands
        elif pointer.startswith("python -m "):
            assert (ROOT / f"{pointer.split()[2].replace('.', '/')}.py").is_file()
        else:
            path, test = pointer.split("::")
            assert f"\ndef {test}(" in (ROOT / path).read_text()


def test_impossible_table_is_an_error_in_one_line(finished, tmp_path, here):
    """What cannot be tabled is an error in one line."""
    where = ("--storage", finished.storage)
    failed(here("table", "table2", "small-run", *where), 2, "table2 is of no model (REF): small-run")
    failed(here("table", "table1", "small-run", "small-run", *where), 2, "given twice")
    failed(here("table", "table1", "no-such-run", *where), 2, "no such run (no-such-run)")
    failed(here("table", "table1", "--output", "t.csv", *where), 2, "a name ending in .md")
    run = Run.create(Run.open("small-run", Storage.at(finished.storage)).configuration, "s", "new", Storage.at(tmp_path / "st"))  # fmt: skip
    run.save()
    failed(here("table", "table1", "new", "--storage", "st"), 4, "not evaluated yet (new)")
