"""A slice of the scorecard (`make faults`) in seconds: bit flips, hostile input, and the scorecard's own bookkeeping."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gan_core.errors import CheckpointError
from pipelines.search.results_store import TrainingSegment, open_results
from pipelines.search.search_table import search_rows
from pipelines.storage import Storage, run_layout
from tests.faults.scorecard import flips, kills
from tests.faults.scorecard.__main__ import PARTS
from tests.pipelines.conftest import environment

ROOT = Path(__file__).parents[2]

FLIPS = 70  # ten of each kind of file
# What hung, took gigabytes or minutes, or was a traceback, and a few that never were.
HOSTILE = """
configuration: a million layers|configuration: a layer of 10^12|configuration: a layer of 10^30|configuration: FIFO
configuration: layers of 10^5 units|configuration: noise of 10^12|configuration: a root of 10,000 letters
configuration: python object|override: brackets
run: run.json: FIFO|run: run.json: /dev/zero|run: run.json: a terabyte of zeros|run: records/train.json: FIFO
run: checkpoints/step=00000010/MANIFEST.json: FIFO
images: FIFO named .parquet|images: FIFO named .npy|images: a terabyte of zeros named .png
data set: IDX packed from half a GiB|data set: IDX of 256 GB|data set: IDX: /dev/zero|data set: CIFAR-10 of a terabyte
model: manifest: a step of 10^400|model: images of text|model: weights: a pickle|model: a million layers
"""
ATTACK = """
import json, pathlib, sys
from tests.faults.scorecard import hostile
names = list(hostile.cases())
with hostile.prepared(pathlib.Path(sys.argv[1]), 0) as folder:
    for name in sys.argv[2:]:
        print(json.dumps(hostile.attack(folder, names.index(name))))
"""


@pytest.fixture
def own_run(finished, tmp_path):
    """A copy of the finished run, to be damaged."""
    shutil.copytree(finished.storage, tmp_path / "storage")
    return flips.finished(tmp_path / "storage", finished.yaml, tmp_path / "work", 0)


def test_flipped_bits_change_no_answer(own_run):
    """After a bit flip or a cut, in any file of a run, every reader says the same or names the file."""
    faults = [fault for number in range(FLIPS) if (fault := flips.flip(own_run, number)["fault"])]
    assert faults == []


def test_hostile_input_is_refused_in_time(tmp_path):
    """Hostile configurations, models and files of a run: nothing executed, each its code, within 5 s of CPU and 1 GiB."""
    names = [name for line in HOSTILE.strip().splitlines() for name in line.split("|")]
    command = [sys.executable, "-c", ATTACK, str(tmp_path), *names]
    done = subprocess.run(command, cwd=ROOT, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["fault"] for one in measured] == [""] * len(names), done.stderr


def test_a_command_that_dies_reaches_no_next_step():
    """Where a rank's death ends the command, neither its next step nor its being given again is within the targets."""
    usual = {"fault": "", "equal": True, "hung": False, "leaked": 0}
    again = {"raylet": 0, "driver": 1}
    others = [{**usual, f"{victim}_again": again[victim], f"{victim}_to_next": 9.0} for victim in again]
    others.append({**usual, "controller_again": 0, "controller_to_next": 3.0})
    well = PARTS["kill"].rows([*others, {**usual, "worker_again": 0, "worker_to_next": 4.0}])
    assert all(row.met for row in well)
    missed = [row.figure for row in PARTS["kill"].rows([*others, {**usual, "worker_again": 1}]) if not row.met]
    assert missed == [
        "SIGKILL of a rank to the next step of the same command",
        "SIGKILL of the worker: how often the command is given again",
    ]


def test_a_hanging_command_is_a_hang(tmp_path, monkeypatch):
    """A command that is given again and does not end is said to hang, not an error of the scorecard's."""
    monkeypatch.setattr(kills, "HANG_SECONDS", 0.01)
    assert kills.command_again(kills.Place(tmp_path, tmp_path / "it.yaml", 0), ["--version"]) == (None, 1)


def test_flipped_log_densities_are_not_a_score(tmp_path):
    """A bit flipped in the numbers behind a score, or in their shape, is seen: the paired test would have used them."""
    segment = TrainingSegment(Storage.at(tmp_path), "candidate-0-seed-0-x")
    densities = np.random.default_rng(0).normal(size=(4, 90))
    segment.commit({"step": 20, "status": "finite"}, None, densities)
    assert (segment.log_densities(20) == densities).all()
    path = tmp_path / segment.name / "log-densities" / "00000020.npy"
    whole = path.read_bytes()
    for place in (whole.index(b"90"), 130, 2000, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="damaged file"):
            segment.log_densities(20)
    earlier = io.BytesIO()
    np.save(earlier, densities)
    path.write_bytes(earlier.getvalue())  # as versions before 0.3 wrote it
    assert (segment.log_densities(20) == densities).all()


def test_flipped_inputs_remove_no_results(tmp_path):
    """A bit flipped in the digest of a search's inputs is an error; it was read as other inputs, whose results go."""
    run = Storage.at(tmp_path)
    results, _ = open_results(run, {"candidates": 2})
    results.child("candidate-0").write_json("stretch.json", {})
    about = tmp_path / "tune" / "findings" / "about.json"
    whole = about.read_text()
    digest = json.loads(whole)["inputs"]
    about.write_text(whole.replace(digest, digest[:-1] + ("0" if digest[-1] != "0" else "1")))
    with pytest.raises(CheckpointError, match="damaged file"):
        open_results(run, {"candidates": 2})
    about.write_text(whole.replace("sha256", "sha257"))
    with pytest.raises(CheckpointError, match="damaged file"):
        open_results(run, {"candidates": 2})
    about.write_text(json.dumps(digest))  # as versions before 0.3 wrote it
    open_results(run, {"candidates": 2})
    assert results.child("candidate-0").names() == ["stretch.json"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "of an earlier version"])
def test_damaged_search_table_is_refused_by_name(damage, finished, tmp_path):
    """The page's table is refused by its name if it is not what was written; Arrow's own errors were tracebacks."""
    folder, known = Storage.at(tmp_path), Storage.at(finished.folder)
    table, digest = (known.read(name) for name in (run_layout.TABLE, run_layout.TABLE_DIGEST))
    content = bytearray(table)
    if damage == "flipped":
        content[table.index(b"candidate")] ^= 1
    folder.write(run_layout.TABLE, table[:-9] if damage == "cut" else bytes(content))
    if damage == "of an earlier version":
        assert search_rows(folder) == search_rows(known)
        return
    folder.write(run_layout.TABLE_DIGEST, digest)
    with pytest.raises(CheckpointError, match=r"damaged file \(.*table.parquet\)"):
        search_rows(folder)
