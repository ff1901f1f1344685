"""A search whose driver is killed, again and again, ends as one that was left alone."""

import io
import random
import time

import pandas
import pytest

from tests.pipelines.conftest import gan, kill_group, start_gan, until

NUMBERS = ["stage", "candidate", "seed", "step", "status", "log_likelihood", "sigma", "coverage", "value"]
SEARCH = (
    "tune.candidates=4", "tune.rungs=[40, 400, 1200]", "tune.keep=0.5", "tune.confirm={best: 2, seeds: 3}",
    "tune.space={algorithm.generator_learning_rate: {log_uniform: [0.03, 0.3]}, noise.size: {choice: [4, 8]}}",
)  # fmt: skip


def arguments(storage):
    sets = [part for setting in SEARCH for part in ("--set", setting)]
    return ("--name", "search", "--storage", storage, "--json", *sets)


def findings(storage):
    return len(list((storage / "runs" / "search" / "tune" / "findings").glob("*/*.jsonl")))


def table(storage):
    content = (storage / "runs" / "search" / "tune" / "table.parquet").read_bytes()
    return pandas.read_parquet(io.BytesIO(content))


@pytest.mark.slow
def test_killed_search_ends_with_the_same_table(small_yaml, tmp_path):
    """A search killed at random ends with the winner and table of one left alone, and repeats no result."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    answer = gan("tune", small_yaml, *arguments(whole), cwd=tmp_path)
    assert answer.code == 0, answer.err
    rows, order = findings(whole), random.Random(0)
    seen = {}
    # In the first rung, in a later one, and while the best are confirmed.
    for after in (1, rows - 3, rows - 1):
        process = start_gan("tune", small_yaml, *arguments(killed), cwd=tmp_path)
        until(lambda: findings(killed) >= after or process.poll() is not None)
        time.sleep(order.uniform(0, 0.3))
        kill_group(process)
        for path in (killed / "runs" / "search" / "tune" / "findings").glob("*/*.jsonl"):
            seen.setdefault(path, path.read_bytes())
    resumed = gan("tune", small_yaml, *arguments(killed), cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert " earlier results" in resumed.err
    assert table(killed)[NUMBERS].equals(table(whole)[NUMBERS])
    timed = ("seconds", "device_seconds")
    assert {k: v for k, v in resumed.json.items() if k not in timed} == {
        k: v for k, v in answer.json.items() if k not in timed
    }
    # No result that was once there was made again: the seconds in it would differ.
    assert {path: path.read_bytes() for path in seen} == seen
