"""The search's table, a Parquet file in the run's folder: written once, and verified when the page is drawn."""

import hashlib
import io
import tempfile
from pathlib import Path
from typing import Any

from gan_core.checkpoint import MALFORMED
from gan_core.errors import CheckpointError, first_line
from pipelines.search.ranking import RankCorrelation, seed_deviation
from pipelines.storage import Storage, run_layout


def write_table(rows: list[dict[str, Any]], correlation: dict[int, RankCorrelation], run: Storage) -> None:
    """Write one row for each score of each candidate, for people and for the page, and the file's digest beside it."""
    import pandas

    table = pandas.DataFrame(rows).sort_values(["stage", "candidate", "seed", "step"])
    deviation = seed_deviation(rows)
    pairs = zip(table["candidate"], table["step"], strict=True)
    table["seed_deviation"] = [deviation.get(pair, float("nan")) for pair in pairs]
    rungs = table["budget" if "budget" in table else "step"]
    for name, part in {
        "rung_correlation": "rho",
        "rung_correlation_low": "low",
        "rung_correlation_high": "high",
    }.items():
        table[name] = rungs.map({rung: getattr(found, part) for rung, found in correlation.items()}).astype(float)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        table.to_parquet(path, index=False)
        content = path.read_bytes()
    run.write_json(run_layout.TABLE_DIGEST, {"table_sha256": hashlib.sha256(content).hexdigest()})
    run.write(run_layout.TABLE, content)


def search_rows(folder: Storage) -> list[dict[str, Any]]:
    """The rows of the search's table in a run's folder; none, if it has no table.

    Raises:
        CheckpointError: If it is not what was written.
    """
    import pyarrow
    import pyarrow.parquet

    table, noted = folder.read(run_layout.TABLE), folder.read_json(run_layout.TABLE_DIGEST)
    if table is None:
        return []
    try:  # a table of a version before 0.3 has no digest
        if noted is not None and noted["table_sha256"] != hashlib.sha256(table).hexdigest():
            raise ValueError("its SHA-256 is another")
        return list(pyarrow.parquet.read_table(io.BytesIO(table)).to_pylist())
    except (*MALFORMED, pyarrow.ArrowException) as error:
        remedy = "the table as it was written; remove the file, and the page is without its picture"
        raise CheckpointError("damaged file", folder.child(run_layout.TABLE).uri, first_line(error), remedy) from error
