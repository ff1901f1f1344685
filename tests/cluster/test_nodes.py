"""The pipeline on several nodes: the bits of one machine, trials everywhere, and a node lost in the middle."""

import json
import time

import pytest

from gan_core.checkpoint import tensors_digest
from pipelines import config
from pipelines.storage import Storage, checkpoint_names, latest_checkpoint
from tests.cluster.conftest import results
from tests.pipelines.conftest import failed, kill_group, trained_alone, until

pytestmark = pytest.mark.slow

TRIAL, WORKER = "ImplicitFunc", "RayTrainWorker"  # Ray's own names of what runs a trial and a shard


def where(count, bucket, tmp_path):
    """Two nodes share a path, three a bucket."""
    return Storage.at(bucket if count == 3 else tmp_path / "shared").child(tmp_path.name)


@pytest.mark.parametrize("count", [2, 3])
def test_pipeline_spread_over_nodes_equals_one_machine(count, machines, finished, small_yaml, bucket, tmp_path):
    """Spread over two or three nodes, a run ends with the bits of one machine; trials use several nodes."""
    several, storage = machines(count), where(count, bucket, tmp_path)
    answer = several.gan(
        "run", small_yaml, "--name", "small-run", "--storage", storage.uri,
        "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    run = storage.child("runs", "small-run")
    assert results(run) == results(Storage.at(finished.folder))
    nodes = {node.node_id for node in several.nodes}
    trials, workers = several.actors(TRIAL), several.actors(WORKER)
    assert set(trials) <= nodes
    assert len(trials) > 1, "the trials were all on one node"
    assert set(workers) <= nodes
    assert set(workers.values()) == {1}
    assert len(workers) == 2


def training(several, storage, steps, *more):
    """`gan train` of the small configuration on two workers, and when it has come some way, where they are."""
    path = several.folder / "train.yaml"
    path.write_text(
        json.dumps({
            "data": {"name": "digits"},
            "noise": {"size": 8},
            "network": {"generator": {"hidden": [32]}, "discriminator": {"units": [16, 16], "pieces": 2}},
            "algorithm": {"batch_size": 50, "steps": steps},
            "train": {"workers": 2, "checkpoint_every": 50, "report_every": 10},
        })
    )  # fmt: skip
    process = several.start_gan("train", path, "--name", "it", "--storage", storage.uri, "--json", *more)
    run = storage.child("runs", "it")
    until(lambda: len(checkpoint_names(run.child("checkpoints"))) == 2 or process.poll() is not None)
    return process, run, config.load(str(path), [])


def test_losing_a_node_costs_only_time_if_others_remain(machines, digits, tmp_path):
    """A node lost in mid-training is replaced by another one, and the weights are those of an undisturbed run."""
    several, steps = machines(3), 1500
    process, run, settings = training(several, Storage.at(tmp_path / "shared"), steps)
    try:
        before = several.actors(WORKER, state="ALIVE")
        lost = sorted(before)[0]
        several.lose(lost)
        at = checkpoint_names(run.child("checkpoints"))[-1]
        assert at < f"step={steps:08d}", "over before it was disturbed"
        out, err = process.communicate()
    finally:
        kill_group(process)
    assert process.returncode == 0, err
    tensors = trained_alone(settings.training(), digits, steps).tensors()
    assert json.loads(out.splitlines()[-1])["weights_sha256"] == tensors_digest(
        tensors["generator"], tensors["discriminator"]
    )
    assert sum(several.actors(WORKER).values()) == 4
    assert len(before) == 2


def test_irreplaceable_node_is_reported_and_times_out(machines, digits, tmp_path):
    """With no node to replace a lost one, the driver says what it waits for and ends in time; a rerun resumes."""
    several, steps = machines(2), 3000
    process, run, settings = training(
        several, Storage.at(tmp_path / "shared"), steps, "--set", "train.start_timeout_s=30.0"
    )
    try:
        several.lose(sorted(several.actors(WORKER, state="ALIVE"))[0])
        lost = time.monotonic()
        _, err = process.communicate()
    finally:
        kill_group(process)
    # Ray tries twice, 30 s each; until it notices, and to end the workers that are left, it needs some more; times ten.
    assert time.monotonic() - lost < 1000
    assert process.returncode == 4, err
    assert "train  waiting for 2 CPU, the cluster has 1" in err
    assert "not within 30 s (train.start_timeout_s); expected room for 2" in err
    assert err.splitlines()[-1].startswith("error: workers could not start")
    _, manifest, _ = latest_checkpoint(run.child("checkpoints"))
    assert 0 < manifest.step < steps
    several.add()  # the same command goes on, on what there is then
    again = several.gan(
        "train", tmp_path / "train.yaml", "--name", "it", "--storage", tmp_path / "shared",
        "--set", "train.start_timeout_s=30.0", "--json",
    )  # fmt: skip
    assert again.code == 0, again.err
    tensors = trained_alone(settings.training(), digits, steps).tensors()
    assert again.json["weights_sha256"] == tensors_digest(tensors["generator"], tensors["discriminator"])


def test_search_without_nodes_times_out_and_keeps_results(machines, small_yaml, tmp_path):
    """A search whose last node is lost says what it waits for and ends in time, with the results it has."""
    several, run = machines(1), Storage.at(tmp_path / "shared").child("runs", "it")
    command = (
        "tune", small_yaml, "--name", "it", "--storage", tmp_path / "shared", "--set", "train.start_timeout_s=30.0",
        "--set", "train.workers=1", "--set", "tune.candidates=200", "--set", "tune.rungs=[100, 1000]",
    )  # fmt: skip
    process = several.start_gan(*command)
    try:
        findings = run.child("tune", "findings")
        until(lambda: len(findings.names()) > 3 or process.poll() is not None)
        several.lose(several.nodes[0].node_id)
        lost = time.monotonic()
        _, err = process.communicate()
    finally:
        kill_group(process)
    assert time.monotonic() - lost < 600
    assert process.returncode == 4, err
    assert "tune   waiting for 1 CPU, the cluster has 0" in err
    assert err.splitlines()[-1].startswith("error: no room for a trial (tune.resources_per_trial): 1 CPU")
    assert len(findings.names()) > 3


def test_a_cluster_that_never_could_is_refused_at_once(machines, small_yaml, tmp_path):
    answer = machines(1).gan("train", small_yaml, "--storage", tmp_path / "shared")
    failed(answer, 2, "not enough resources", "2 CPU", "at most 1")
