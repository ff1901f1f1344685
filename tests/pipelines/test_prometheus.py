"""Prometheus: a training's metrics at the exporter that every Ray node has."""

import re
import urllib.request

import pytest
import ray

from pipelines import config
from pipelines.runtime.prometheus import Gauges
from pipelines.stages.train import train_run
from pipelines.storage import Storage
from pipelines.storage.metric_log import read_history
from tests.pipelines.conftest import until


def exported(run: str) -> dict[str, float]:
    """The run's gauges at this machine's exporter; none while it is still starting."""
    (node,) = ray.nodes()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    lines = re.findall(r"^ray_gan_(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, labels, value in lines if f'run="{run}"' in labels}


def test_worker_gauges_are_exported_by_run(ray_cluster):
    """A worker's gauges are at its node's exporter, each run's apart and as last set."""
    first, second = (ray.remote(Gauges).options(num_cpus=0).remote(run) for run in ("first", "second"))
    ray.get([first.set.remote({"step": 100, "value": -1.25}), second.set.remote({"step": 7})])
    until(lambda: exported("first") == {"step": 100.0, "value": -1.25} and exported("second") == {"step": 7.0})
    ray.get(first.set.remote({"step": 200, "value": -1.0}))
    until(lambda: exported("first") == {"step": 200.0, "value": -1.0})
    assert exported("second") == {"step": 7.0}


@pytest.mark.slow
def test_training_metrics_are_gauges_while_it_lasts(small, digits, ray_cluster, tmp_path):
    """A training's metrics are gauges of the node's exporter while it lasts, equal to its history's rows."""
    run, seen = Storage.at(tmp_path).child("watched"), []
    longer = config.override(
        small,
        {"train.workers": 1, "train.report_every": 100, "algorithm.steps": 20_000, "train.checkpoint_every": 2000},
    )
    train_run(longer, digits, run, lambda line: None, lambda: seen.append(exported("watched")))
    shown = next(found for found in reversed(seen) if found)
    (row,) = [row for row in read_history(run.child("history")) if row["step"] == shown["step"]]
    assert shown.keys() == row.keys() - {"time_ms"}
    assert all(shown[name] == row[name] for name in ("discriminator_loss", "value", "fake_accuracy"))
